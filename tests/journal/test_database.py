"""The database: whose files it touches, versions and how they are brought up, and what SQLite's errors mean."""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from llmd.journal import Batch, DurabilityLost, JournalEntry, StoreUnavailable, WriteFailed
from llmd.journal import database as module
from llmd.journal.database import Database
from llmd.journal.statements import MIGRATIONS
from tests.support.journals import NOW_MS, numbered, state_after


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    made = Database(path, "full")
    yield made
    made.close()


def filled(path: Path, batches: int) -> None:
    with closing(Database(path, "process")) as made:
        for number in range(1, batches + 1):
            made.write(numbered(number))


def rows(path: Path) -> dict[str, bytes]:
    with closing(Database(path, "process")) as made:
        return dict(made.rows(""))


def pragma(database: Database, name: str) -> object:
    return database._connection.execute(f"PRAGMA {name}").fetchone()[0]


@pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("process", 1)])
def test_it_is_set_up_for_what_it_promises(path: Path, durability: module.Durability, synchronous: int) -> None:
    with closing(Database(path, durability)) as database:
        database.write(numbered(1))
        assert pragma(database, "journal_mode") == "wal"
        assert pragma(database, "locking_mode") == "exclusive"
        assert pragma(database, "synchronous") == synchronous
        assert pragma(database, "page_size") == 4096
        assert pragma(database, "user_version") == 1
        assert pragma(database, "application_id") == int.from_bytes(b"llmd")
        assert {file.name for file in path.parent.iterdir() if file.is_file()} == {"ledger.db", "ledger.db-wal"}


def test_the_log_does_not_grow_with_what_is_written(path: Path) -> None:
    largest = 0
    with closing(Database(path, "process")) as database:
        for number in range(1, 1000):
            database.write(numbered(number, 10_000))
            largest = max(largest, path.with_name("ledger.db-wal").stat().st_size)
    assert 4 << 20 < largest < 12 << 20
    assert path.stat().st_size > 8 << 20


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"x" * 50, "not a database"), (b"# notes\n" * 100, "not a database"), (None, "another program's")],
)
def test_a_file_that_is_no_ledger_is_refused_and_left_as_it_is(path: Path, content: bytes | None, what: str) -> None:
    if content is None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE rows (a)")
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable, match=rf"{path} is {what}.*\[ledger\] path"):
        Database(path, "full")
    assert path.read_bytes() == before
    assert [file for file in path.parent.iterdir() if file.is_file()] == [path]


def test_a_directory_in_its_place_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StoreUnavailable, match="cannot use the ledger"):
        Database(path, "full")


def test_what_a_making_that_was_cut_short_left_is_made_anew(path: Path) -> None:
    path.with_name("ledger.db.new").write_bytes(b"half")
    path.touch()
    filled(path, 1)
    assert rows(path) == state_after(1)
    assert not path.with_name("ledger.db.new").exists()


def test_a_database_of_a_newer_version_is_refused_with_what_to_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(module, "MIGRATIONS", [*MIGRATIONS, ("CREATE TABLE more (a)",)])
        filled(path, 2)
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable, match=r"was written by a newer llmd .*start the newer one"):
        Database(path, "full")
    assert path.read_bytes() == before


STEP = ("ALTER TABLE rows ADD COLUMN more", "UPDATE rows SET value = CAST(value || x'21' AS BLOB)")


def test_an_older_database_is_copied_aside_and_brought_up_with_what_is_in_its_log(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    crashed = tmp_path / "crashed.db"
    with closing(Database(path, "full")) as database:
        for number in range(1, 6):
            database.write(numbered(number))
        crashed.write_bytes(path.read_bytes())
        crashed.with_name("crashed.db-wal").write_bytes(path.with_name("ledger.db-wal").read_bytes())
    with monkeypatch.context() as newer:
        newer.setattr(module, "MIGRATIONS", [*MIGRATIONS, STEP, ("CREATE TABLE third (a)",)])
        assert rows(crashed) == {key: value + b"!" for key, value in state_after(5).items()}
        with closing(Database(crashed, "full")) as database:
            assert pragma(database, "user_version") == 3
    backup = tmp_path / "crashed.db.v1-backup"
    assert backup.stat().st_mode & 0o777 == 0o600
    assert rows(backup) == state_after(5)
    assert not list(tmp_path.glob("*.new*"))


def test_a_step_that_fails_half_way_leaves_all_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path, 3)
    with monkeypatch.context() as newer:
        newer.setattr(module, "MIGRATIONS", [*MIGRATIONS, STEP, ("INSERT INTO nowhere VALUES (1)",)])
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match=r"no such table: nowhere.*as it was.*ledger\.db\.v1-backup"):
                Database(path, "full")
    assert rows(path) == state_after(3)
    assert rows(path.with_name("ledger.db.v1-backup")) == state_after(3)


def test_a_damaged_database_is_said_with_what_to_do(path: Path) -> None:
    with closing(Database(path, "full")) as database:
        database.write(Batch(rows={f"{number:05}": b"x" * 200 for number in range(1000)}, entries=[]))
    data = bytearray(path.read_bytes())
    data[8192:] = b"\x5a" * (len(data) - 8192)
    path.write_bytes(data)
    with pytest.raises(StoreUnavailable, match=r"is damaged .*SQLITE_CORRUPT.*llmd ledger check.*begin anew"):
        rows(path)


def test_a_database_that_another_program_writes_is_refused(path: Path) -> None:
    filled(path, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM rows")
        with pytest.raises(StoreUnavailable, match=r"cannot use the ledger .*SQLITE_BUSY"):
            Database(path, "full")


def test_only_the_rows_that_are_asked_for_are_read(database: Database) -> None:
    plan = "EXPLAIN QUERY PLAN SELECT key, value FROM rows WHERE key >= ? AND key < ? ORDER BY key"
    assert "SEARCH rows USING PRIMARY KEY" in str(database._connection.execute(plan, (b"", b"")).fetchall())
    plan = "EXPLAIN QUERY PLAN SELECT seq FROM entries WHERE root = ? AND seq > ? ORDER BY seq LIMIT ?"
    assert "INDEX entries_of_root (root=? AND seq>?)" in str(database._connection.execute(plan, ("", 0, 0)).fetchall())


def test_a_write_prunes_a_bounded_number_and_never_the_latest(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PRUNED_MAX", 4)
    database.write(Batch(rows={}, entries=[JournalEntry(NOW_MS, "r", b"")] * 10))
    later = NOW_MS + module.KEPT_MS + 1
    left = []
    for _ in range(4):
        database.write(Batch(rows={"a": b""}, entries=[]))
        database.write(Batch(rows={}, entries=[JournalEntry(later, "s", b"")]))
        left.append(database.counts()[1])
    assert left == [7, 4, 3, 4]
    database.prune(later + module.KEPT_MS + 1)
    assert database.entries("s", 0, 10)[0] == [(14, JournalEntry(later, "s", b""))]


class Failing:
    """A connection whose next statements fail with errors of these names; None is one that does not."""

    def __init__(self, real: sqlite3.Connection, names: list[str | None]) -> None:
        self._real, self._names = real, names

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def execute(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        # Not the look for what is to be pruned.
        name = self._names.pop(0) if self._names and "at_ms" not in statement else None
        if name is None:
            return self._real.execute(statement, values)
        if name.endswith("after"):
            self._real.execute(statement, values)
        error = sqlite3.OperationalError("the disk said no")
        error.sqlite_errorname = name.removesuffix(" after")
        raise error


@pytest.mark.parametrize("name", ["SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC"])
def test_a_failed_sync_is_not_a_failed_write(database: Database, name: str) -> None:
    database._connection = Failing(database._connection, [name])  # type: ignore[assignment] - a stand-in
    with pytest.raises(DurabilityLost, match=name):
        database.write(numbered(1))


@pytest.mark.parametrize(
    "name", ["SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_TRUNCATE", "SQLITE_READONLY_DBMOVED"]
)
def test_a_failed_write_says_why_and_may_be_repeated(database: Database, name: str) -> None:
    database._connection = Failing(database._connection, [name])  # type: ignore[assignment] - a stand-in
    with pytest.raises(WriteFailed, match=rf"the disk said no \({name}\)"):
        database.write(numbered(1))
    database.write(numbered(1))
    assert dict(database.rows("")) == state_after(1)
    assert [number for number, _ in database.entries("root", 0, 10)[0]] == [1]


@pytest.mark.parametrize("batch", [numbered(1), Batch(rows={"a": b"1", "b": None}, entries=[])])
def test_a_batch_that_is_there_in_spite_of_an_error_is_written(database: Database, batch: Batch) -> None:
    database._connection = Failing(database._connection, ["SQLITE_IOERR after"])  # type: ignore[assignment] - a stand-in
    database.write(batch)
    database.write(numbered(2))
    assert database.counts()[1] == len(batch.entries) + 1


@pytest.mark.parametrize(("first", "there"), [("SQLITE_IOERR", False), ("SQLITE_IOERR after", True)])
def test_a_connection_that_cannot_tell_is_opened_again_to_find_out(
    database: Database, caplog: pytest.LogCaptureFixture, first: str, there: bool
) -> None:
    database._connection = Failing(database._connection, [first, "SQLITE_IOERR_READ"])  # type: ignore[assignment] - a stand-in
    with caplog.at_level(logging.WARNING, "llmd.journal"):
        if there:
            database.write(numbered(1))
        else:
            with pytest.raises(WriteFailed):
                database.write(numbered(1))
            database.write(numbered(1))
    assert "is opened again" in caplog.text
    database.write(numbered(2))
    assert dict(database.rows("")) == state_after(2)
    assert [number for number, _ in database.entries("root", 0, 10)[0]] == [1, 2]


def test_what_cannot_be_found_out_is_said(database: Database, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    database._connection = Failing(database._connection, ["SQLITE_IOERR", "SQLITE_IOERR_READ"])  # type: ignore[assignment] - a stand-in
    path.rename(path.with_name("gone"))
    with pytest.raises(DurabilityLost, match=r"the disk said no .*and then .*unable to open"):
        database.write(numbered(1))


def test_a_large_batch_that_has_no_room_leaves_nothing_of_itself(database: Database) -> None:
    many = Batch(rows={f"{number}": b"x" * 1000 for number in range(1200)}, entries=[JournalEntry(0, "r", b"")])
    (usual,) = database._connection.execute("PRAGMA max_page_count").fetchone()
    database._connection.execute("PRAGMA max_page_count = 100")
    with pytest.raises(WriteFailed, match="SQLITE_FULL"):
        database.write(many)
    assert database.counts() == (0, 0)
    database._connection.execute(f"PRAGMA max_page_count = {usual}")
    database.write(many)
    assert database.counts() == (1200, 1)


def test_a_batch_that_cannot_be_written_at_all_is_not_in_the_way_of_the_next(database: Database, path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        database.write(Batch(rows={"a": b""}, entries=[JournalEntry(0, "\ud800", b"")]))
    database.write(numbered(1))
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    copy.with_name("copy.db-wal").write_bytes(path.with_name("ledger.db-wal").read_bytes())
    assert rows(copy) == state_after(1)


def test_old_entries_that_cannot_go_are_not_in_the_way(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    database.write(Batch(rows={}, entries=[JournalEntry(0, "r", b"")] * 3))
    database._connection = Failing(database._connection, ["SQLITE_FULL", "SQLITE_IOERR_FSYNC"])  # type: ignore[assignment] - a stand-in
    database.prune(NOW_MS)
    assert "stay: the disk said no (SQLITE_FULL)" in caplog.text
    with pytest.raises(StoreUnavailable, match="SQLITE_IOERR_FSYNC"):
        database.prune(NOW_MS)
    database.prune(NOW_MS)
    assert database.counts() == (0, 1)


def test_pages_that_do_not_fit_together_are_told(path: Path) -> None:
    with closing(Database(path, "full")) as database:
        assert database.problems() == []
        database.write(Batch(rows={}, entries=[JournalEntry(0, f"r{n}/x", b"x" * 100) for n in range(500)]))
        database._connection.execute("PRAGMA writable_schema = ON")
        database._connection.execute(
            "UPDATE sqlite_master SET sql = 'CREATE INDEX entries_of_root ON entries (path, seq)' WHERE type = 'index'"
        )
    with closing(Database(path, "full")) as database:
        assert 0 < len(database.problems()) <= module.PROBLEMS_MAX
