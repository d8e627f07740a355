"""One connection to the store's database: its tables, its versions, and what SQLite's errors mean.

The only importer of sqlite3. Knows no threads and no locks: `sqlite` has a thread that opens, uses and closes it.
"""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import Literal

from llmd.journal import Batch, DurabilityLost, JournalEntry, StoreUnavailable, WriteFailed
from llmd.journal.statements import MIGRATIONS, NOTHING, PRAGMAS, TAKE, VIEW, Pruning, values_of
from llmd.journal.store_files import APPLICATION_ID, make_private, refuse_foreign, sync_directory
from llmd.journal.wal import PAGE

log = logging.getLogger("llmd.journal")

Durability = Literal["full", "process"]

KEPT_MS = 30 * 24 * 3600 * 1000
PRUNED_MAX = 256
"""Entries that a write removes at most, so that none gets slow."""

PRUNED_AT_START_MAX = 5_000
SCANNED_MAX = 2_000
"""Entries that one reading looks at, so that no write waits long behind it."""

PROBLEMS_MAX = 10

FSYNC_ERRORS = frozenset({"SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC"})
DAMAGE = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB"})


class Database:
    """An open store. Whatever a write raises, it can be written again, but for DurabilityLost.

    `path` is made where it is not there, and brought up to this version. `name` is what errors call it, where it is a
    copy. Raises StoreUnavailable.
    """

    def __init__(self, path: Path, durability: Durability, name: Path | None = None) -> None:
        self._path = path
        self._name = name or path
        self._durability = durability
        with _unavailable(self._name):
            if path.exists() and path.stat().st_size:
                refuse_foreign(path)
            else:
                _make(path)
            make_private(path)
            self._open()

    def _open(self) -> None:
        connection = sqlite3.connect(f"{self._path.as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=0)
        try:
            for pragma in (*PRAGMAS, f"synchronous = {'FULL' if self._durability == 'full' else 'NORMAL'}"):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            _migrate(connection, self._path, self._name)
            for statement in VIEW:
                connection.execute(statement)
            (last,) = connection.execute("SELECT max(seq) FROM entries").fetchone()
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self.last: int = last or 0
        self._read_oldest()

    def _read_oldest(self) -> None:
        self._oldest: tuple[int, int] | None = self._connection.execute(
            "SELECT seq, at_ms FROM entries ORDER BY seq LIMIT 1"
        ).fetchone()

    def rows(self, prefix: str) -> list[tuple[str, bytes]]:
        """Raises StoreUnavailable."""
        start = prefix.encode()
        # No byte of UTF-8 is 0xFF: the last one can be counted up, and nothing but what begins so is between.
        after = start[:-1] + bytes([start[-1] + 1]) if start else b"\xff"
        with _unavailable(self._name):
            found = self._connection.execute(
                "SELECT key, value FROM rows WHERE key >= ? AND key < ? ORDER BY key", (start, after)
            ).fetchall()
        return [(key.decode(), value) for key, value in found]

    def row(self, key: str) -> bytes | None:
        """Raises StoreUnavailable."""
        with _unavailable(self._name):
            found = self._connection.execute("SELECT value FROM rows WHERE key = ?", (key.encode(),)).fetchone()
        return found[0] if found else None

    def entries(self, path: str, after: int, limit: int) -> tuple[list[tuple[int, JournalEntry]], int | None]:
        """Some of the next ones, and the number behind which to go on, or None at the end. Raises StoreUnavailable."""
        with _unavailable(self._name):
            scanned = self._connection.execute(
                "SELECT seq, at_ms, path, data FROM entries WHERE root = ? AND seq > ? ORDER BY seq LIMIT ?",
                (path.partition("/")[0], after, SCANNED_MAX),
            ).fetchall()
        found = [
            (number, JournalEntry(at_ms, own, data))
            for number, at_ms, own, data in scanned
            if own == path or own.startswith(path + "/")
        ]
        return found[:limit], scanned[-1][0] if len(scanned) == SCANNED_MAX else None

    def write(self, batch: Batch) -> None:
        """All of the batch, or nothing. Raises WriteFailed, DurabilityLost."""
        try:
            pruning = self._pruning(batch.entries[-1].at_ms, PRUNED_MAX) if batch.entries else NOTHING
            self._connection.execute(TAKE, values_of(batch, self.last, pruning))
        except sqlite3.Error as error:
            self._find_out(error, batch)
        self.last += len(batch.entries)

    def prune(self, now_ms: int) -> None:
        """Remove old entries, as many as may go at a start, where they can. Raises StoreUnavailable."""
        with _unavailable(self._name):
            try:
                if (pruning := self._pruning(now_ms, PRUNED_AT_START_MAX)) is not NOTHING:
                    self._connection.execute(TAKE, values_of(Batch({}, []), self.last, pruning))
            except sqlite3.Error as error:
                if name_of(error) in FSYNC_ERRORS:
                    raise
                log.warning("old entries of the ledger %s stay: %s", self._name, reason_of(error))

    def _pruning(self, now_ms: int, most: int) -> Pruning:
        if self._oldest is None:
            self._read_oldest()
        if self._oldest is None or abs(now_ms - self._oldest[1]) <= KEPT_MS:
            return NOTHING
        # The latest stays: its number is the one from which they go on growing.
        below = min(self._oldest[0] + most, self.last)
        self._oldest = None
        return below, now_ms, KEPT_MS

    def _find_out(self, error: sqlite3.Error, batch: Batch) -> None:
        """Whether the batch is there in spite of the error. Returns if it is; raises WriteFailed, DurabilityLost."""
        if name_of(error) in FSYNC_ERRORS:
            raise DurabilityLost(reason_of(error)) from None
        try:
            try:
                written = self._has(batch)
            except sqlite3.Error as broken:
                log.warning("the ledger %s is opened again: %s", self._name, reason_of(broken))
                last = self.last
                self._connection.close()
                self._open()
                self.last = last
                written = self._has(batch)
        except (sqlite3.Error, StoreUnavailable) as broken:
            raise DurabilityLost(f"{reason_of(error)}, and then {broken}") from None
        if not written:
            raise WriteFailed(reason_of(error)) from None

    def _has(self, batch: Batch) -> bool:
        if batch.entries:
            (last,) = self._connection.execute("SELECT max(seq) FROM entries").fetchone()
            return bool(last == self.last + len(batch.entries))
        found = "SELECT value FROM rows WHERE key = ?"
        return all(
            self._connection.execute(found, (key.encode(),)).fetchone() == (None if value is None else (value,))
            for key, value in batch.rows.items()
        )

    def problems(self) -> list[str]:
        """What is wrong with its pages, in SQLite's words: the first few. Reads everything. Raises StoreUnavailable."""
        with _unavailable(self._name):
            found = [line for (line,) in self._connection.execute(f"PRAGMA integrity_check({PROBLEMS_MAX})")]
        return [] if found == ["ok"] else found

    def counts(self) -> tuple[int, int]:
        """How many rows, and how many entries. Raises StoreUnavailable."""
        with _unavailable(self._name):
            rows, entries = self._connection.execute(
                "SELECT (SELECT count(*) FROM rows), (SELECT count(*) FROM entries)"
            ).fetchone()
        return rows, entries

    def close(self) -> None:
        """What is in the log goes into the database first, where that can be."""
        try:
            self._connection.close()
        except sqlite3.Error as error:
            log.warning("the ledger %s did not close well: %s", self._name, reason_of(error))


def name_of(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", "")


def reason_of(error: sqlite3.Error) -> str:
    return f"{error} ({name_of(error)})" if name_of(error) else str(error)


@contextmanager
def _unavailable(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if name_of(error).startswith(tuple(DAMAGE)):
            raise StoreUnavailable(
                f"the ledger {path} is damaged ({reason_of(error)}): `llmd ledger check` says more; put a copy of it "
                "back, or move it away to begin anew"
            ) from None
        raise StoreUnavailable(f"cannot use the ledger {path}: {reason_of(error)}") from None
    except OSError as error:
        raise StoreUnavailable(f"cannot use the ledger {path}: {error.strerror}") from None


def _make(path: Path) -> None:
    """A new store, under another name until it is whole: so what is at `path` is a ledger or it is not llmd's."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    make_private(new)
    with closing(sqlite3.connect(new, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE}")
        connection.execute("PRAGMA journal_mode = MEMORY").fetchall()
        connection.execute("BEGIN")
        connection.execute(f"PRAGMA application_id = {int.from_bytes(APPLICATION_ID)}")
        _bring_up(connection, 0)
        connection.execute("COMMIT")
    _into_place(new, path)


def _bring_up(connection: sqlite3.Connection, version: int) -> None:
    for statement in chain.from_iterable(MIGRATIONS[version:]):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _into_place(new: Path, path: Path) -> None:
    os.replace(new, path)
    sync_directory(path.parent)


def _migrate(connection: sqlite3.Connection, path: Path, name: Path) -> None:
    """Raises StoreUnavailable; the database is as it was then."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise StoreUnavailable(
            f"the ledger {name} was written by a newer llmd (version {version} of it, and this one knows "
            f"{len(MIGRATIONS)}): start the newer one, or name another in [ledger] path"
        )
    if version == len(MIGRATIONS):
        return
    backup = path.with_name(f"{path.name}.v{version}-backup")
    new = backup.with_name(backup.name + ".new")
    new.unlink(missing_ok=True)
    make_private(new)
    with closing(sqlite3.connect(new)) as copy:
        connection.backup(copy)
    _into_place(new, backup)
    connection.execute("BEGIN IMMEDIATE")
    try:
        _bring_up(connection, version)
        connection.execute("COMMIT")
    except Exception as error:
        connection.rollback()
        raise StoreUnavailable(
            f"the ledger {name} cannot be brought from version {version} to {len(MIGRATIONS)} ({error}): it is as it "
            f"was, with a copy at {backup}; start the llmd that wrote it"
        ) from error
