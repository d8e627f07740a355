"""Who may have a socket's path: a lock file beside it, held as long as a daemon accepts there.

Its holder's pid and fingerprint are in it. A daemon that a call has spawned gives way when it is asked to, by SIGUSR1:
to any that was started on purpose, and to one from a shell that has news. Nobody else is ever replaced.
"""

import fcntl
import logging
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from llmd import fingerprint
from llmd.fingerprint import Fingerprint

log = logging.getLogger("llmd.daemon")

GIVE_WAY_S = 10.0
UNTOLD_S = 0.5
RETRY_S = 0.01
GIVE_WAY = signal.SIGUSR1


class SocketUnavailable(Exception):
    """The address cannot be had; the message says why."""


class SocketTaken(SocketUnavailable):
    """Another daemon has it; the message says which."""


class Claim:
    """One daemon's claim to the path of its socket.

    env    where its keys come from
    names  the variables that matter, see `fingerprint`
    """

    def __init__(self, env: Mapping[str, str], names: frozenset[str], spawned: bool) -> None:
        self._env = env
        self._spawned = spawned
        self._before: Fingerprint | None = None  # of the one that gave way
        self._files: list[int] = []
        self.names = names

    @contextmanager
    def held(self, path: Path) -> Iterator[None]:
        """Hold the lock file beside the socket at `path`. It stays behind: unlinking it would race.

        Raises SocketTaken and SocketUnavailable.
        """
        lock = fingerprint.lock_file(path)
        try:
            # Not O_TRUNC: until the lock is ours, what stands in it is the holder's.
            file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise SocketUnavailable(f"cannot open the lock file {lock}: {error.strerror}") from None
        try:
            self._take(file, path)
            self._files.append(file)
            try:
                self.tell()
            except OSError as error:
                raise SocketUnavailable(f"cannot write the lock file {lock}: {error.strerror}") from None
            yield
        finally:
            if file in self._files:
                self._files.remove(file)
            os.close(file)

    def tell(self) -> None:
        """Write what we have into the lock files. Raises OSError."""
        self._before = made = fingerprint.made(self._env, sorted(self.names), self._spawned, self._before)
        for file in self._files:
            # In this order there is at no moment nothing to read.
            os.ftruncate(file, os.pwrite(file, made.text().encode(), 0))

    def tell_anew(self, names: frozenset[str]) -> None:
        """The same after a reload, which is in force whether it can be written or not."""
        self.names = names
        try:
            self.tell()
        except OSError as error:
            log.error("calls cannot see what was reloaded, for the lock file is not written: %s", error.strerror)

    def _take(self, file: int, path: Path) -> None:
        began = time.monotonic()
        asked: int | None = None
        while not _locked(file):
            content = os.pread(file, fingerprint.FILE_BYTES_MAX, 0)
            held = fingerprint.parsed(content)
            if held is not None and held.pid != asked and self._may_replace(held):
                asked, self._before = held.pid, held
                with suppress(OSError):  # it has ended by itself
                    os.kill(held.pid, GIVE_WAY)
            gives_way = asked is not None and (held is None or held.pid == asked)
            # Who has taken it only just has not told yet: what stands there is nothing, or of one that has ended.
            untold = held is None or not _is_alive(held.pid)
            if time.monotonic() - began >= (GIVE_WAY_S if gives_way else UNTOLD_S if untold else 0):
                holder = content.partition(b"\n")[0].decode(errors="replace").strip() or "unknown"
                raise SocketTaken(f"another llmd has {path} (pid {holder})")
            time.sleep(RETRY_S)

    def _may_replace(self, held: Fingerprint) -> bool:
        return held.spawned and (not self._spawned or held.news(self._env) != []) and _is_spawned(held.pid)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True


def _is_spawned(pid: int) -> bool:
    """Whether this is such a daemon: the file may be of an earlier holder still, whose pid is another's now."""
    try:
        return b"--spawned" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return not os.path.isdir("/proc/self")
