"""Group commit: one writer at a time takes all that has changed, and whoever needs it durable waits for that write.

Who comes just after a write has begun waits for two. So a write lets those come along who are about to ask: it begins
when some turns of the event loop have brought nobody new, which with nobody else under way is tens of microseconds.
"""

import logging
from collections.abc import Callable

import anyio
from anyio.lowlevel import checkpoint

from llmd.errors import LLMError
from llmd.journal import Batch, DurabilityLost, Journal, WriteFailed

LAZY_S = 0.02  # what nobody waits for is written with what somebody does, or so much later
GATHERING_TURNS_MAX, QUIET_TURNS = 32, 3  # of the loop
RETRY_S = 0.25
RETRY_AFTER_MS = 1000
SETTLE_S = 10.0

log = logging.getLogger("llmd.ledger")


class _Write:
    """One write to come: who waits for it, how many they are, and how it ended."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.waiting = 0
        self.failed = True  # until it has worked out


class Flusher:
    """Writes what `take` gives to the journal, in order, as long as `run` runs."""

    def __init__(self, journal: Journal, take: Callable[[], Batch]) -> None:
        self._journal = journal
        self._take = take
        self._next = _Write()
        self._changed = anyio.Event()
        self._wanted = anyio.Event()
        self._unwritten = Batch({}, [])
        self._failing = False
        self._lost = False

    def check(self) -> None:
        """Raises ledger_unavailable where nothing can be written now: nothing new may begin that has to be."""
        if self._journal.read_only is not None or self._failing or self._lost:
            raise unavailable()

    def changed(self) -> None:
        """Something is to be written, and nobody waits for it."""
        self._changed.set()

    async def flushed(self) -> None:
        """Return when all that has changed by now is durable. Raises ledger_unavailable, and it is written later."""
        write = self._next
        write.waiting += 1
        self._changed.set()
        self._wanted.set()
        await write.done.wait()
        if write.failed:
            raise unavailable()

    async def settled(self) -> None:
        """As `flushed`, for what has happened already: a caller that is cancelled still gets to know how it ended."""
        with anyio.move_on_after(SETTLE_S, shield=True):
            await self.flushed()
            return
        await self.flushed()

    async def run(self) -> None:
        """Write until cancelled. Raises DurabilityLost."""
        while True:
            await self._changed.wait()
            if not self._wanted.is_set():
                with anyio.move_on_after(RETRY_S if self._failing else LAZY_S):
                    await self._wanted.wait()
            await self._gather()
            await self._write()

    async def finish(self) -> None:
        """Write what is left, when `run` runs no more; where the store was lost, there is nothing left to do."""
        if self._changed.is_set() and not self._lost:
            await self._write()

    async def _gather(self) -> None:
        quiet = 0
        for _ in range(GATHERING_TURNS_MAX):
            before = self._next.waiting
            await checkpoint()
            quiet = 0 if self._next.waiting > before else quiet + 1
            if quiet == QUIET_TURNS:
                return

    async def _write(self) -> None:
        write, self._next = self._next, _Write()
        self._changed, self._wanted = anyio.Event(), anyio.Event()
        batch = self._take()
        if self._unwritten.rows or self._unwritten.entries:
            batch = Batch({**self._unwritten.rows, **batch.rows}, [*self._unwritten.entries, *batch.entries])
        try:
            if batch.rows or batch.entries:
                await self._journal.write(batch)
        except WriteFailed as error:
            if not self._failing:
                log.error("the ledger cannot be written, and budgets are refused until it can: %s", error)
            self._unwritten, self._failing = batch, True
            self._changed.set()
        except DurabilityLost:
            self._lost = True
            raise
        else:
            if self._failing:
                log.warning("the ledger is written again")
            self._unwritten, self._failing, write.failed = Batch({}, []), False, False
        finally:
            write.done.set()


def unavailable() -> LLMError:
    reason = "the ledger cannot be written at the moment, so nothing that a budget pays for can begin"
    return LLMError("ledger_unavailable", reason, retry_after_ms=RETRY_AFTER_MS)
