"""The journal in memory: under either event loop, and never longer than its limit."""

import anyio
import pytest

from llmd.journal import Batch, JournalEntry
from llmd.journal.memory import MemoryJournal


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_works_under_either_event_loop(backend: str) -> None:
    async def main() -> None:
        journal = MemoryJournal()
        await journal.write(Batch(rows={"a": b"1"}, entries=[JournalEntry(1, "r", b"e")]))
        with anyio.CancelScope() as scope:
            scope.cancel()
            await journal.write(Batch(rows={"a": b"2"}, entries=[]))
        assert await journal.row("a") == b"2"
        assert len(await journal.entries("r", 0, 9)) == 1
        await journal.aclose()

    anyio.run(main, backend=backend)


def test_of_a_long_history_the_latest_is_kept_with_its_numbers() -> None:
    async def main() -> None:
        journal = MemoryJournal(entries_max=3)
        for number in range(1, 6):
            await journal.write(Batch(rows={}, entries=[JournalEntry(number, "r", b"")]))
        assert [(number, entry.at_ms) for number, entry in await journal.entries("r", 0, 9)] == [(3, 3), (4, 4), (5, 5)]

    anyio.run(main)
