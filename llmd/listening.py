"""Everything that a daemon listens on: its Unix socket, URLs, and what the service manager has handed over.

What was handed over is matched by its name and family. Its path is the manager's and is never unlinked; all the same we
hold the lock beside it, so that no other daemon looks there for a stale one.
"""

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from urllib.parse import urlsplit

from llmd.errors import ConfigError
from llmd.systemd import Handed
from llmd.transports import TRANSPORTS, loopback, unix
from llmd.transports.claims import Claim, SocketTaken, SocketUnavailable

log = logging.getLogger("llmd.daemon")


class Listening(NamedTuple):
    """`inode` is that of the socket that we have bound ourselves, `others` are with the module that serves each."""

    unix: list[socket.socket]
    others: list[tuple[ModuleType, socket.socket]]
    inode: int | None

    @property
    def names(self) -> list[str]:
        sockets = [*self.unix, *(other for _, other in self.others)]
        return [name if isinstance(name := one.getsockname(), str) else str(name[:2]) for one in sockets]


def handed_path(handed: Sequence[Handed]) -> Path | None:
    """Where the first Unix socket is that was handed over."""
    paths = [path for one in handed if one.listener is not None and (path := _path(one.listener)) is not None]
    return next(iter(paths), None)


@contextmanager
def listening(
    path: Path, urls: Sequence[str], handed: Sequence[Handed], claim: Claim, group: str | None
) -> Iterator[Listening]:
    """Listen until the block ends; a Unix socket that was handed over takes the place of the one at `path`.

    Raises SocketUnavailable, and ConfigError for a URL.
    """
    with ExitStack() as stack:
        sockets: list[socket.socket] = []
        others: list[tuple[ModuleType, socket.socket]] = []
        inode: int | None = None
        for name, listener in handed:
            module = _module(name, listener)
            assert listener is not None
            stack.enter_context(listener)
            if module is not None:
                others.append((module, listener))
                continue
            sockets.append(listener)
            if (its_path := _path(listener)) is not None:
                _hold(stack, its_path, claim)
        if not sockets:
            bound, inode = stack.enter_context(unix.bound(path, claim, group))
            sockets.append(bound)
        for url in urls:
            others.append((_transport(url), stack.enter_context(loopback.bound(url, urlsplit(url).scheme))))
        yield Listening(sockets, others, inode)


def _hold(stack: ExitStack, path: Path, claim: Claim) -> None:
    try:
        stack.enter_context(claim.held(path))
    except SocketTaken:
        raise
    except SocketUnavailable as error:  # the directory is not ours to write in
        log.warning("%s", error)


def _path(listener: socket.socket) -> Path | None:
    name = listener.getsockname() if listener.family == socket.AF_UNIX else b""
    return Path(os.fsdecode(name)) if isinstance(name, str) and name else None  # bytes: it has no file


def _module(name: str, listener: socket.socket | None) -> ModuleType | None:
    """Who serves this socket: None for a Unix one. Raises SocketUnavailable for what cannot be served."""
    if listener is not None and listener.family == socket.AF_UNIX and name not in TRANSPORTS:
        return None
    if listener is not None and listener.family in (socket.AF_INET, socket.AF_INET6) and name in TRANSPORTS:
        host = listener.getsockname()[0]
        if loopback.is_loopback(host):
            return import_module(TRANSPORTS[name])
        raise SocketUnavailable(f"the socket {name!r} that was handed over is on {host}, not on this machine alone")
    known = " or ".join(TRANSPORTS)
    raise SocketUnavailable(
        f"the descriptor {name!r} that was handed over is of no use: it has to be a listening stream socket, on Unix "
        f"with the name rpc, on loopback with the name {known}"
    )


def _transport(url: str) -> ModuleType:
    """The module that serves this URL's scheme."""
    module = TRANSPORTS.get(urlsplit(url).scheme)
    if module is None:
        known = " or ".join(f"{scheme}://127.0.0.1:9998" for scheme in TRANSPORTS)
        raise ConfigError([f"{url!r} is no address to listen on: write it as {known}"])
    return import_module(module)
