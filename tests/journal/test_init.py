"""What every journal promises, asked of both."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmd.journal import Batch, Journal, JournalEntry
from llmd.journal.memory import MemoryJournal
from tests.support.journals import opened

pytestmark = pytest.mark.anyio

MAKERS: dict[str, Callable[[Path], Journal]] = {
    "memory": lambda directory: MemoryJournal(),
    "sqlite": lambda directory: opened(directory / "ledger.db"),
}


@pytest.fixture(params=MAKERS)
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Journal]:
    made = MAKERS[request.param](tmp_path)
    yield made
    await made.aclose()


def rows_of(**rows: bytes | None) -> Batch:
    return Batch(rows=dict(rows), entries=[])


def entries_of(*paths: str) -> Batch:
    return Batch(rows={}, entries=[JournalEntry(number, path, path.encode()) for number, path in enumerate(paths)])


async def test_a_journal_that_can_be_written_is_not_read_only(journal: Journal) -> None:
    assert journal.read_only is None


async def test_a_row_has_its_latest_value_until_it_is_taken_away(journal: Journal) -> None:
    await journal.write(rows_of(a=b"1", b=b"2"))
    await journal.write(rows_of(a=b"3", b=None, c=None))
    assert [await journal.row(key) for key in "abc"] == [b"3", None, None]
    assert list(journal.rows("")) == [("a", b"3")]


async def test_rows_come_by_prefix_in_the_order_of_their_keys(journal: Journal) -> None:
    keys = ["a", "b", "b/", "b/1", "b/é", "b/\uffff", "b/\U0010ffff", "b/\U0010ffff1", "b0", "c"]
    await journal.write(Batch(rows=dict.fromkeys(reversed(keys), b""), entries=[]))
    assert [key for key, _ in journal.rows("b/")] == keys[2:8]
    assert [key for key, _ in journal.rows("b/\U0010ffff")] == keys[6:8]
    assert [key for key, _ in journal.rows("")] == keys


async def test_entries_are_those_of_a_path_and_below_it_and_no_neighbours(journal: Journal) -> None:
    await journal.write(entries_of("r", "r/a", "r/ab", "rr", "r/a/b", "r/a.b", "s/r/a", "r/a"))
    assert [entry.path for _, entry in await journal.entries("r/a", 0, 100)] == ["r/a", "r/a/b", "r/a"]
    assert [entry.path for _, entry in await journal.entries("r", 0, 100)] == [
        "r",
        "r/a",
        "r/ab",
        "r/a/b",
        "r/a.b",
        "r/a",
    ]
    assert await journal.entries("x", 0, 100) == []


async def test_entries_go_on_behind_a_number(journal: Journal) -> None:
    await journal.write(entries_of("r", "s", "r"))
    await journal.write(entries_of("r", "r"))
    first = await journal.entries("r", 0, 2)
    rest = await journal.entries("r", first[-1][0], 100)
    numbers = [number for number, _ in first + rest]
    assert len(first) == 2
    assert len(rest) == 2
    assert numbers == sorted(set(numbers))
    assert (await journal.entries("r", 0, 0), await journal.entries("r", numbers[-1], 100)) == ([], [])


async def test_what_is_found_is_what_was_written_to_the_byte(journal: Journal) -> None:
    data = bytes(range(256))
    await journal.write(Batch(rows={"k": data, "empty": b""}, entries=[JournalEntry(7, "r/ü ", data)]))
    assert (await journal.row("k"), await journal.row("empty")) == (data, b"")
    assert [entry for _, entry in await journal.entries("r", 0, 1)] == [JournalEntry(7, "r/ü ", data)]


async def test_a_batch_of_thousands_is_written(journal: Journal) -> None:
    rows: dict[str, bytes | None] = {f"k{number:05}": b"v" for number in range(3000)}
    await journal.write(Batch(rows=rows, entries=[JournalEntry(number, "r", b"e") for number in range(3000)]))
    assert [key for key, _ in journal.rows("k")] == sorted(rows)
    assert [entry.at_ms for _, entry in await journal.entries("r", 0, 10_000)] == list(range(3000))


async def test_an_empty_batch_is_written(journal: Journal) -> None:
    await journal.write(Batch(rows={}, entries=[]))
    assert list(journal.rows("")) == []


async def test_others_run_while_a_batch_is_written(journal: Journal) -> None:
    ran = anyio.Event()

    async def other() -> None:
        ran.set()

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        await journal.write(rows_of(a=b"1"))
        assert ran.is_set()


async def test_a_write_that_is_cancelled_returns_when_it_is_known(journal: Journal) -> None:
    returned = False
    with anyio.CancelScope() as scope:
        scope.cancel()
        await journal.write(rows_of(a=b"1"))
        returned = True
        await anyio.lowlevel.checkpoint()
        pytest.fail("the cancellation is delivered behind the write")
    assert scope.cancelled_caught
    assert returned
    assert await journal.row("a") == b"1"


async def test_it_may_be_closed_twice(journal: Journal) -> None:
    journal.yielding()
    await journal.aclose()
    await journal.aclose()


KEYS = st.text(st.sampled_from("ab/\uffff\U0010ffff"), max_size=3)
PATHS = st.lists(st.sampled_from(["a", "b", "aa"]), min_size=1, max_size=3).map("/".join)
BATCHES = st.builds(
    Batch,
    rows=st.dictionaries(KEYS, st.none() | st.binary(max_size=4), max_size=5),
    entries=st.lists(st.builds(JournalEntry, st.integers(0, 9), PATHS, st.binary(max_size=3)), max_size=4),
)


@pytest.mark.parametrize("maker", MAKERS)
@given(batches=st.lists(BATCHES, max_size=6), prefix=KEYS, path=PATHS, limit=st.integers(0, 9))
@settings(max_examples=40)
def test_any_batches_leave_what_a_recount_finds(
    maker: str, batches: list[Batch], prefix: str, path: str, limit: int
) -> None:
    rows: dict[str, bytes] = {}
    entries: list[JournalEntry] = []

    async def main(directory: Path) -> None:
        journal = MAKERS[maker](directory)
        for batch in batches:
            await journal.write(batch)
            rows.update({key: value for key, value in batch.rows.items() if value is not None})
            for key in [key for key, value in batch.rows.items() if value is None]:
                rows.pop(key, None)
            entries.extend(batch.entries)
        assert list(journal.rows(prefix)) == sorted(row for row in rows.items() if row[0].startswith(prefix))
        assert await journal.row(prefix) == rows.get(prefix)
        wanted = [(n, entry) for n, entry in enumerate(entries, 1) if f"{entry.path}/".startswith(f"{path}/")]
        assert await journal.entries(path, 0, limit) == wanted[:limit]
        assert await journal.entries(path, 2, 100) == [each for each in wanted if each[0] > 2]
        await journal.aclose()

    with TemporaryDirectory() as directory:
        anyio.run(main, Path(directory))
