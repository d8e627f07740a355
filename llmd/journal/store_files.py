"""The files of a store on the disk: their names, who may read them, who holds them, and where they may lie.

The database has its log beside it (`-wal`), and the lock file (`.lock`), which stays when its holder goes: to unlink it
would let two hold locks of the same name. flock goes with the process, however it ends.
"""

import fcntl
import os
import re
import shutil
from pathlib import Path

import msgspec
from msgspec import Struct

from llmd.journal import StoreTaken, StoreUnavailable
from llmd.journal.wal import Verdict, scan

MOUNTS = Path("/proc/self/mountinfo")
NETWORK = {
    *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4"),
    *("orangefs", "smb2", "smb3", "smbfs", "fuse.ceph", "fuse.davfs", "fuse.davfs2", "fuse.glusterfs", "fuse.rclone"),
    *("fuse.s3fs", "fuse.sshfs"),
}
"""Where a lock or a sync of one machine need not hold on another. As the kernel names them."""

MAGIC = b"SQLite format 3\0"
APPLICATION_ID = b"llmd"
APPLICATION_ID_AT = slice(68, 72)
HEADER_BYTES = 100

HOLDER_BYTES_MAX = 8192
LOOKS_MAX = 10_000
"""How often a lock that somebody looks at is tried."""


class Holder(Struct, frozen=True):
    """Who has a store: its process, its daemon's socket, and whether it is about to let go."""

    pid: int
    socket: str
    draining: bool = False


class Lock:
    """The store's lock, held until `release` or the end of the process."""

    def __init__(self, file: int, holder: Holder) -> None:
        self._file: int | None = file
        self._holder = holder
        self._say(holder)

    def say_draining(self) -> None:
        """Tell whoever asks for the store from now on that it will be free soon."""
        self._say(msgspec.structs.replace(self._holder, draining=True))

    def release(self) -> None:
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None

    def _say(self, holder: Holder) -> None:
        if self._file is not None:
            # In this order a reader finds a line at every moment; what follows the first one is not for it.
            line = msgspec.json.encode(holder) + b"\n"
            os.pwrite(self._file, line, 0)
            os.ftruncate(self._file, len(line))


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def lock_of(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def take_lock(path: Path, socket: str) -> Lock:
    """Raises StoreTaken with who has it, StoreUnavailable."""
    name = lock_of(path)
    try:
        # Not O_TRUNC: until the lock is ours, what stands in it is the holder's.
        file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StoreUnavailable(f"cannot open the lock file {name}: {error.strerror}") from None
    try:
        _lock(file)
        os.fchmod(file, 0o600)
        return Lock(file, Holder(os.getpid(), socket))
    except BlockingIOError:
        holder = _read_holder(file)
        os.close(file)
        raise _taken(path, holder) from None
    except OSError as error:
        os.close(file)
        raise StoreUnavailable(f"cannot lock {name}: {error.strerror}") from None


def _lock(file: int) -> None:
    """Raises BlockingIOError where somebody has the store."""
    for _ in range(LOOKS_MAX):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            # Who only looks shares it for a moment, and so could we; with who has it nobody can.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def holder_of(path: Path) -> Holder | None:
    """Who has the store now, or None; a pid of 0 where it has not said. To know, it shares the lock for a moment."""
    try:
        file = os.open(lock_of(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _read_holder(file) or Holder(0, "")
    finally:
        os.close(file)
    return None


def _read_holder(file: int) -> Holder | None:
    try:
        return msgspec.json.decode(os.pread(file, HOLDER_BYTES_MAX, 0).partition(b"\n")[0], type=Holder)
    except (OSError, msgspec.MsgspecError):
        return None


def _taken(path: Path, holder: Holder | None) -> StoreTaken:
    who = f"another llmd (pid {holder.pid}, {holder.socket})" if holder else "another llmd"
    return StoreTaken(f"{who} has the ledger {path}", draining=holder is not None and holder.draining)


def make_directory(path: Path) -> None:
    """Make the directory that `path` is in, for its owner alone, and onto the disk. Raises StoreUnavailable."""
    missing = [each for each in path.parents if not each.exists()]
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in missing:
            sync_directory(each.parent)
    except OSError as error:
        raise StoreUnavailable(f"cannot make the directory {path.parent}: {error.strerror}") from None


def make_private(path: Path) -> None:
    """Make an empty file for its owner alone, or take what it holds from the others. Raises OSError."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(file, 0o600)
    finally:
        os.close(file)


def copy_private(source: Path, target: Path) -> None:
    """Copy a file, for its owner alone and onto the disk. `target` may not be there. Raises OSError."""
    file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with source.open("rb") as reading, open(file, "wb") as writing:
        os.fchmod(file, 0o600)
        shutil.copyfileobj(reading, writing, 1 << 20)
        writing.flush()
        os.fsync(file)


def copy_store(path: Path, target: Path) -> None:
    """Copy a database and its log to other names. Whoever writes it may not be at it. Raises OSError."""
    copy_private(path, target)
    if log_of(path).exists():
        copy_private(log_of(path), log_of(target))


def refuse_foreign(path: Path) -> None:
    """Raises StoreUnavailable for a file that is no ledger, before SQLite touches it; OSError."""
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if len(head) < HEADER_BYTES or not head.startswith(MAGIC):
        what = "not a database"
    elif head[APPLICATION_ID_AT] != APPLICATION_ID:
        what = "another program's database"
    else:
        return
    raise StoreUnavailable(f"{path} is {what}: move it away, or name another in [ledger] path")


def read_log(path: Path) -> Verdict:
    """What the log of the database at `path` holds. Raises StoreUnavailable, and so where only the log is there."""
    try:
        with log_of(path).open("rb") as file:
            verdict = scan(file)
        if verdict.commits + verdict.lost and not (path.exists() and path.stat().st_size):
            raise StoreUnavailable(
                f"the ledger {path} is gone, and its log {log_of(path).name} is there: put the file back, or move the "
                "log away to begin anew"
            )
    except FileNotFoundError:
        return Verdict("whole", 0, 0)
    except OSError as error:
        raise StoreUnavailable(f"cannot read the log {log_of(path)}: {error.strerror}") from None
    return verdict


def sync_directory(directory: Path) -> None:
    """A file that was made or renamed there is found after a loss of power. Raises OSError."""
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def refuse_network(path: Path) -> None:
    """Raises StoreUnavailable where `path` lies on another machine's disk. Systems that do not tell are believed."""
    try:
        mounts = MOUNTS.read_text("utf-8", errors="surrogateescape")
    except OSError:
        return
    place, kind = mount_of(path, mounts)
    if kind in NETWORK:
        raise StoreUnavailable(
            f"the ledger {path} would lie on {place}, a network file system ({kind}), where locks and syncs do not "
            "hold: name a path on a local disk in [ledger] path"
        )


def mount_of(path: Path, mounts: str) -> tuple[str, str]:
    """Where the file system of an absolute `path` is mounted, and its kind, from the text of a mountinfo file."""
    found = ("", "")
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        if len(fields.split(" ")) < 5 or not rest:
            continue
        # Blanks in names are written in octal.
        place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields.split(" ")[4])
        # Of two at one place, the later one lies on top.
        if path.is_relative_to(place) and len(place) >= len(found[0]):
            found = (place, rest.split(" ")[0])
    return found
