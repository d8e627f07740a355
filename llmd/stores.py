"""The journal that a configuration asks for, opened: at once, or as soon as the daemon that drains with it lets go."""

import time
from pathlib import Path

import anyio

from llmd.journal import Journal, StoreTaken
from llmd.journal.memory import MemoryJournal
from llmd.settings import LedgerSettings

RETRY_S = 0.05


class Store:
    """Where the ledger is kept. `file` is the default, `holder` what others are told of us: our socket."""

    def __init__(self, settings: LedgerSettings, file: Path, holder: Path) -> None:
        self._settings = settings
        self._file = settings.file(file)
        self._holder = holder

    def open(self) -> Journal | None:
        """None where another daemon still drains with it. Raises StoreUnavailable, StoreTaken where it does not."""
        if self._settings.store == "memory":
            return MemoryJournal()
        from llmd.journal.sqlite import open_journal  # sqlite3 is loaded only where it is used

        try:
            return open_journal(
                self._file,
                durability=self._settings.durability,
                holder=str(self._holder),
                now_ms=time.time_ns() // 1_000_000,
            )
        except StoreTaken as error:
            if error.draining:
                return None
            raise

    async def opened(self) -> Journal:
        """Wait for it. Raises StoreUnavailable."""
        while (journal := self.open()) is None:  # noqa: ASYNC110 - a file's lock tells nobody that it is free
            await anyio.sleep(RETRY_S)
        return journal
