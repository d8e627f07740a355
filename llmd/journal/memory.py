"""A journal that lasts as long as the process: for tests, and for whoever asks for budgets that need not outlive it."""

from collections import deque
from collections.abc import Iterable

from anyio import CancelScope
from anyio.lowlevel import checkpoint

from llmd.journal import Batch, JournalEntry

ENTRIES_MAX = 100_000


class MemoryJournal:
    """Keeps the journal's promises, but for durability; of the history it keeps the latest `entries_max`."""

    def __init__(self, entries_max: int = ENTRIES_MAX) -> None:
        self._rows: dict[str, bytes] = {}
        self._entries: deque[tuple[int, JournalEntry]] = deque(maxlen=entries_max)
        self._number = 0

    @property
    def read_only(self) -> str | None:
        return None

    @property
    def last(self) -> int:
        return self._number

    def rows(self, prefix: str) -> Iterable[tuple[str, bytes]]:
        return sorted((key, value) for key, value in self._rows.items() if key.startswith(prefix))

    async def write(self, batch: Batch) -> None:
        # Others run meanwhile, as they do while a disk is waited for; and nothing is half written for them to see.
        with CancelScope(shield=True):
            await checkpoint()
        for key, value in batch.rows.items():
            if value is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = value
        for entry in batch.entries:
            self._number += 1
            self._entries.append((self._number, entry))

    async def row(self, key: str) -> bytes | None:
        await checkpoint()
        return self._rows.get(key)

    async def entries(self, path: str, after: int, limit: int) -> list[tuple[int, JournalEntry]]:
        await checkpoint()
        found: list[tuple[int, JournalEntry]] = []
        for number, entry in self._entries:
            if len(found) == limit:
                break
            if number > after and (entry.path == path or entry.path.startswith(path + "/")):
                found.append((number, entry))
        return found

    def yielding(self) -> None:
        """Nobody waits for a memory."""

    async def aclose(self) -> None:
        await checkpoint()
