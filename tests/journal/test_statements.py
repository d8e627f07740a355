"""The SQL of the store, run by SQLite: batches as one statement, and what is pruned."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from llmd.journal import Batch, JournalEntry
from llmd.journal.statements import MIGRATIONS, SIZES, TRIGGERS, insertion, items_of, padded, pruning


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as made:
        for statement in (*[each for step in MIGRATIONS for each in step], *TRIGGERS):
            made.execute(statement)
        yield made


@pytest.mark.parametrize("count", [0, 1, 2, 3, 8, 9, 511, 512])
def test_a_batch_is_filled_up_to_a_statement_of_a_few_sizes(connection: sqlite3.Connection, count: int) -> None:
    values = padded(items_of(Batch(rows={f"{n:03}": b"" for n in range(count)}, entries=[]), 0))
    size = len(values) // 6
    assert size == min(each for each in SIZES if each >= count)
    connection.execute(insertion(size), values)
    assert connection.execute("SELECT count(*) FROM rows").fetchone() == (count,)
    assert connection.execute("SELECT count(*) FROM entries").fetchone() == (0,)


def test_a_statement_puts_removes_and_enters(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO rows VALUES (x'61', x'00'), (x'62', x'00')")
    batch = Batch(
        rows={"a": b"1", "b": None, "c": b"2"}, entries=[JournalEntry(5, "r/x", b"e"), JournalEntry(6, "s", b"f")]
    )
    connection.execute(insertion(8), padded(items_of(batch, 40)))
    assert connection.execute("SELECT * FROM rows").fetchall() == [(b"a", b"1"), (b"c", b"2")]
    assert connection.execute("SELECT * FROM entries").fetchall() == [
        (41, 5, "r", "r/x", b"e"),
        (42, 6, "s", "s", b"f"),
    ]


def test_a_statement_that_fails_in_its_last_item_leaves_nothing_of_the_first(connection: sqlite3.Connection) -> None:
    batch = Batch(rows={"a": b"1"}, entries=[JournalEntry(5, "r", b"")] * 2)
    items = items_of(batch, 0)
    items[-1] = items[-2]
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(insertion(4), padded(items))
    assert not connection.in_transaction
    assert connection.execute("SELECT count(*) FROM rows").fetchone() == (0,)


def test_what_is_too_old_or_of_a_future_is_pruned_below_a_number(connection: sqlite3.Connection) -> None:
    times = [0, 999, 1000, 5000, 9000, 9001, 0]
    entries = [JournalEntry(at_ms, "r", b"") for at_ms in times]
    connection.execute(insertion(8), padded(items_of(Batch(rows={}, entries=entries), 0)))
    connection.execute(insertion(2), padded([pruning(7, 5000, 4000)]))
    assert [seq for (seq,) in connection.execute("SELECT seq FROM entries")] == [3, 4, 5, 7]
