"""The Unix socket: where it is bound, who guards its path, and who may connect.

The path is guarded by a lock file (claims.py) and by a connect probe: a live socket is never stolen, a stale one is
replaced. The mode comes from the umask in force while binding, never from a later chmod.
"""

import asyncio
import errno
import grp
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
from anyio.abc import SocketAttribute, UNIXSocketStream

from llmd.rpc.hub import Hub
from llmd.rpc.output import CHUNK_BYTES
from llmd.rpc.session import Session
from llmd.transports.claims import Claim, SocketTaken, SocketUnavailable
from llmd.transports.peers import hung_up, labelled, unix_peer

PATH_BYTES_MAX = 107 if sys.platform == "linux" else 103  # sun_path, less the byte that ends it
BACKLOG = 1024


@contextmanager
def bound(path: Path, claim: Claim, group: str | None = None) -> Iterator[tuple[socket.socket, int]]:
    """A listening socket at `path` and its inode, the lock held until the block ends; then the path is free again.

    group  whose members may reach it as well: who of them is served, their uid says
    """
    _check_length(path)
    gid = None if group is None else _gid(group)
    _make_directory(path.parent, gid)
    with claim.held(path):
        _clear_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            before = os.umask(0o177 if gid is None else 0o117)
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
            if gid is not None:
                _hand_to(path, gid)
            listener.listen(BACKLOG)
            inode = path.stat().st_ino
            try:
                yield listener, inode
            finally:
                _unlink_own(path, inode)
        finally:
            listener.close()


def _check_length(path: Path) -> None:
    size = len(os.fsencode(path))
    if size > PATH_BYTES_MAX:
        raise SocketUnavailable(
            f"the socket path is {size} bytes long and the kernel takes {PATH_BYTES_MAX}: name a shorter one with "
            f"--socket ({path})"
        )


def _gid(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise SocketUnavailable(f"there is no group {group!r}, which is the `socket_group`") from None


def _hand_to(path: Path, gid: int) -> None:
    try:
        os.chown(path, -1, gid)
    except OSError as error:
        raise SocketUnavailable(f"cannot give {path} to the `socket_group`: {error.strerror}") from None


def _make_directory(directory: Path, gid: int | None) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
        if gid is not None and found.st_uid == os.geteuid():  # else whoever made it has seen to it
            _hand_to(directory, gid)
            directory.chmod(0o750)
    except OSError as error:
        raise SocketUnavailable(f"cannot make the directory {directory}: {error.strerror}") from None
    if found.st_uid not in (os.geteuid(), 0) or (found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX):
        raise SocketUnavailable(f"others may write in {directory}: chmod it to 0700, or name another with --socket")


def _clear_stale(path: Path) -> None:
    """Remove the socket that a dead daemon left; refuse if somebody answers there, or it is no socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketUnavailable(f"{path} is there and is no socket: remove it, or name another with --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        result = probe.connect_ex(str(path))
    if result not in (errno.ECONNREFUSED, errno.ENOENT):
        raise SocketTaken(f"another program listens on {path}")
    path.unlink(missing_ok=True)


def _unlink_own(path: Path, inode: int) -> None:
    try:
        if path.lstat().st_ino == inode:
            path.unlink()
    except FileNotFoundError:
        pass


class UnixByteStream:
    """A connection as a session reads it, over the bare socket.

    What comes is taken in the loop's own callback: to wake a task for every message, as an anyio stream does, takes the
    loop round once more, which costs more than the answer.
    """

    def __init__(self, raw: socket.socket) -> None:
        self._socket = raw
        self._loop = asyncio.get_running_loop()

    async def read(self, take: Callable[[bytes], bool]) -> None:
        """Hand what comes to `take` until it answers False. Raises EndOfStream and BrokenResourceError."""
        stopped: asyncio.Future[None] = self._loop.create_future()

        def hand(data: bytes) -> None:
            if stopped.done():
                return
            try:
                if not take(data):
                    stopped.set_result(None)
            except Exception as error:  # of `take`, whose caller is the one who waits here
                stopped.set_exception(error)

        def readable() -> None:
            if stopped.done():
                return
            try:
                data = self._socket.recv(CHUNK_BYTES)
            except BlockingIOError:
                return
            except OSError:
                stopped.set_exception(anyio.BrokenResourceError())
                return
            if data:
                hand(data)
            else:
                stopped.set_exception(anyio.EndOfStream())

        self._loop.call_soon(hand, b"")
        self._loop.add_reader(self._socket, readable)
        try:
            await stopped
        finally:
            self._loop.remove_reader(self._socket)

    def send_now(self, data: bytes | memoryview) -> int:
        """How many bytes the kernel took there and then; what broke the connection is for `send` to find."""
        try:
            return self._socket.send(data)
        except OSError:
            return 0

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)
            except OSError:
                raise anyio.BrokenResourceError from None

    async def send_eof(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    async def hung_up(self) -> None:
        await hung_up(self._socket.fileno())


async def serve_connection(hub: Hub, stream: UNIXSocketStream) -> None:
    """Serve one accepted connection to its end; the kernel has said who it is."""
    raw = stream.extra(SocketAttribute.raw_socket)
    peer = labelled(unix_peer(raw), hub.listed())
    await Session(hub, UnixByteStream(raw), peer, authorized=peer.own or peer.labels is not None).run()
