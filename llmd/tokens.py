"""The bearer token of this daemon, in a file that only its user can read."""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from llmd.transports.claims import SocketUnavailable


def read(file: Path) -> bytes:
    """The bearer token; made at the first start, 0600 from the first moment on."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not file.exists():
            _make(file)
        if file.stat().st_mode & 0o077:
            raise SocketUnavailable(f"others can read the token file: chmod 600 {file}")
        token = file.read_bytes().strip()
    except OSError as error:
        raise SocketUnavailable(f"cannot make or read the token file {file}: {error.strerror}") from None
    if not 16 <= len(token) <= 128:
        raise SocketUnavailable(f"the token in {file} must have 16 to 128 characters: remove the file for a new one")
    return token


def _make(file: Path) -> None:
    """Whole or not at all, for an empty one would be refused at every start; of two at once, the first one's stays."""
    with NamedTemporaryFile("w", dir=file.parent, prefix=f".{file.name}.") as made:  # 0600
        made.write(secrets.token_urlsafe(32) + "\n")
        made.flush()
        with suppress(FileExistsError):
            os.link(made.name, file)
