"""What an operator asks of a store that nobody serves: whether it is sound, and to go on without what is lost."""

import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from llmd.journal import StoreUnavailable
from llmd.journal.database import Database
from llmd.journal.store_files import (
    copy_store,
    holder_of,
    lock_of,
    log_of,
    read_log,
    refuse_foreign,
    refuse_network,
    sync_directory,
    take_lock,
)
from llmd.journal.wal import HEADER

COPIES_MAX = 3
"""How often a store that is written meanwhile is copied, until a copy is of one moment."""


class Checked(Struct):
    """What was found: `problems`, none where the store is sound; `notes`; how much there is, `bytes` on the disk."""

    problems: list[str] = []
    notes: list[str] = []
    rows: int = 0
    entries: int = 0
    bytes: int = 0


Rows = Callable[[str], Iterable[tuple[str, bytes]]]


def check(path: Path, contradiction: Callable[[Rows], str | None] | None = None) -> Checked:
    """Look at a store, also while a daemon has it, and change nothing: all is read from a copy.

    contradiction  tells what is wrong with what the rows say, given them by the beginning of their keys
    """
    path = path.resolve()
    found = Checked()
    try:
        found.bytes = path.stat().st_size
        with suppress(FileNotFoundError):
            found.bytes += log_of(path).stat().st_size
        found.problems += _exposed(path)
        holder = holder_of(path)
        if holder is not None:
            found.notes.append(f"in use by pid {holder.pid} ({holder.socket})" + ", draining" * holder.draining)
        refuse_network(path)
        refuse_foreign(path)
        with _copied(path) as copy:
            _read(copy, path, found, contradiction)
    except StoreUnavailable as unavailable:
        found.problems.append(str(unavailable))
    except OSError as error:
        found.problems.append(f"cannot read the ledger {path}: {error.strerror}")
    return found


def accept_loss(path: Path, *, now_ms: int) -> str:
    """Go on with what can be recovered of a store whose log is damaged; all as it was is kept beside it.

    Returns what was done, for the operator. Raises StoreTaken, StoreUnavailable.
    """
    path = path.resolve()
    lock = take_lock(path, "llmd ledger accept-loss")
    try:
        verdict = read_log(path)
        if verdict.state != "damaged":
            return f"the ledger {path} has lost nothing: nothing was changed"
        aside = path.with_name(f"{path.name}.lost-{datetime.fromtimestamp(now_ms / 1000, UTC):%Y%m%dT%H%M%SZ}")
        copy_store(path, aside)
        sync_directory(path.parent)
        database = Database(path, "full")
        try:
            problems = database.problems()
        finally:
            database.close()
    except OSError as error:
        raise StoreUnavailable(f"cannot keep a copy of the ledger {path}: {error.strerror}") from None
    finally:
        lock.release()
    told = (
        f"the ledger {path} goes on after {verdict.commits} transactions of its log; {verdict.tail} bytes behind them, "
        f"with at least {verdict.lost} whole transactions, are dropped; all as it was is kept as {aside.name}"
    )
    return f"{told}; what is left is damaged too ({problems[0]}): put back a copy" if problems else told


def _exposed(path: Path) -> list[str]:
    problems = []
    for file in (path, log_of(path), lock_of(path)):
        with suppress(FileNotFoundError):
            mode = stat.S_IMODE(file.stat().st_mode)
            if mode & 0o077:
                problems.append(f"{file} can be used by others (mode {mode:04o}): chmod 600")
    return problems


def _read(copy: Path, path: Path, found: Checked, contradiction: Callable[[Rows], str | None] | None) -> None:
    verdict = read_log(copy)
    if verdict.state == "damaged":
        found.problems.append(verdict.damage_of(path))
    elif verdict.state == "torn":
        found.notes.append(f"a torn tail of {verdict.tail} bytes will be cut")
    database = Database(copy, "process", path)
    try:
        broken = database.problems()
        found.problems += broken
        if not broken and contradiction is not None and (wrong := contradiction(database.rows)) is not None:
            what_to_do = f"put back a copy, or move it and {log_of(path).name} away and begin without all that it tells"
            found.problems.append(f"the ledger {path} contradicts itself: {wrong}: {what_to_do}")
        found.rows, found.entries = database.counts()
    finally:
        database.close()


@contextmanager
def _copied(path: Path) -> Iterator[Path]:
    """A copy of one moment, in a directory of its own, as long as it is looked at. Raises StoreUnavailable, OSError."""
    for _ in range(COPIES_MAX):
        directory = Path(tempfile.mkdtemp(prefix="llmd-ledger-"))
        try:
            began = _beginning(path)
            with suppress(FileNotFoundError):
                copy_store(path, directory / path.name)
            # While the log has not begun anew, it holds all that was moved from it into the database meanwhile.
            if _beginning(path) == began:
                yield directory / path.name
                return
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    raise StoreUnavailable(f"the ledger {path} is written too fast to be copied: look at it again when it is idle")


def _beginning(path: Path) -> bytes | None:
    try:
        with log_of(path).open("rb") as file:
            return file.read(HEADER.size)
    except FileNotFoundError:
        return None
