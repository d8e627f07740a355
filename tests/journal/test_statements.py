"""The SQL of the store, run by SQLite: batches as one statement, and what is pruned."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.journal import Batch, JournalEntry
from llmd.journal.statements import MIGRATIONS, TAKE, VIEW, values_of


@contextmanager
def opened() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as made:
        for statement in (*[each for step in MIGRATIONS for each in step], *VIEW):
            made.execute(statement)
        yield made


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with opened() as made:
        yield made


def test_a_batch_of_nothing_leaves_everything_as_it_is(connection: sqlite3.Connection) -> None:
    connection.execute(TAKE, values_of(Batch(rows={"a": b"1"}, entries=[JournalEntry(0, "r", b"")]), 0))
    connection.execute(TAKE, values_of(Batch(rows={}, entries=[]), 1))
    assert connection.execute("SELECT * FROM rows").fetchall() == [(b"a", b"1")]
    assert connection.execute("SELECT * FROM entries").fetchall() == [(1, 0, "r", "r", b"")]


def test_a_statement_puts_removes_and_enters(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO rows VALUES (x'61', x'00'), (x'62', x'00')")
    batch = Batch(
        rows={"a": b"1", "b": None, "c": b"2"}, entries=[JournalEntry(5, "r/x", b"e"), JournalEntry(6, "s", b"f")]
    )
    connection.execute(TAKE, values_of(batch, 40))
    assert connection.execute("SELECT * FROM rows").fetchall() == [(b"a", b"1"), (b"c", b"2")]
    assert connection.execute("SELECT * FROM entries").fetchall() == [
        (41, 5, "r", "r/x", b"e"),
        (42, 6, "s", "s", b"f"),
    ]


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(
    st.dictionaries(TEXTS, st.binary()),
    st.lists(st.builds(JournalEntry, st.integers(-(2**63), 2**63 - 1), TEXTS, st.binary())),
)
def test_whatever_bytes_and_texts_there_are_they_are_found_as_they_were(
    rows: dict[str, bytes], entries: list[JournalEntry]
) -> None:
    with opened() as connection:
        connection.execute(TAKE, values_of(Batch(rows, entries), 0))
        found = connection.execute("SELECT key, value FROM rows").fetchall()
        assert {key.decode(): value for key, value in found} == rows
        told = connection.execute("SELECT at_ms, path, data, root FROM entries ORDER BY seq").fetchall()
        assert told == [(*entry, entry.path.partition("/")[0]) for entry in entries]
        connection.execute(TAKE, values_of(Batch(dict.fromkeys(rows), []), len(entries)))
        assert connection.execute("SELECT count(*) FROM rows").fetchone() == (0,)


def test_a_statement_that_fails_in_its_last_item_leaves_nothing_of_the_first(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO entries VALUES (42, 0, '', '', x'')")
    batch = Batch(rows={"a": b"1"}, entries=[JournalEntry(5, "r", b"")] * 2)
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(TAKE, values_of(batch, 40))
    assert not connection.in_transaction
    assert connection.execute("SELECT count(*) FROM rows").fetchone() == (0,)
    assert connection.execute("SELECT count(*) FROM entries").fetchone() == (1,)


def test_what_is_too_old_or_of_a_future_is_pruned_below_a_number(connection: sqlite3.Connection) -> None:
    times = [0, 999, 1000, 5000, 9000, 9001, 0]
    entries = [JournalEntry(at_ms, "r", b"") for at_ms in times]
    connection.execute(TAKE, values_of(Batch(rows={}, entries=entries), 0))
    connection.execute(TAKE, values_of(Batch(rows={}, entries=[]), 7, (7, 5000, 4000)))
    assert [seq for (seq,) in connection.execute("SELECT seq FROM entries")] == [3, 4, 5, 7]
