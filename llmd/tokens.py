"""The bearer token of this daemon, in a file that only its user can read."""

import os
import secrets
from pathlib import Path

from llmd.transports.claims import SocketUnavailable


def read(file: Path) -> bytes:
    """The bearer token; made at the first start, 0600 from the first moment on."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            made = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            pass
        else:
            with os.fdopen(made, "w") as opened:
                opened.write(secrets.token_urlsafe(32) + "\n")
        if file.stat().st_mode & 0o077:
            raise SocketUnavailable(f"others can read the token file: chmod 600 {file}")
        token = file.read_bytes().strip()
    except OSError as error:
        raise SocketUnavailable(f"cannot make or read the token file {file}: {error.strerror}") from None
    if not 16 <= len(token) <= 128:
        raise SocketUnavailable(f"the token in {file} must have 16 to 128 characters: remove the file for a new one")
    return token
