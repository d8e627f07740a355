"""The journal on disk: one thread, which opens the database, serves it, and closes it; the event loop only waits.

Opening looks at the log before SQLite does. Where that is damaged the journal is read only: what can still be read
comes from a copy of its own, and the files stay as they are until somebody accepts the loss.
"""

import asyncio
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from anyio import CancelScope, move_on_after

from llmd.journal import Batch, DurabilityLost, JournalEntry, StoreUnavailable, WriteFailed
from llmd.journal.database import Database, Durability
from llmd.journal.store_files import Lock, copy_store, make_directory, read_log, refuse_network, take_lock

log = logging.getLogger("llmd.journal")

CLOSING_S = 5.0
"""How long a disk is waited for at the end. Behind it the lock stays, until the process ends."""

CLOSED = "the ledger is closed"

Result = TypeVar("Result")
Told = Callable[[Any, BaseException | None], object]
Job = tuple[Callable[[], Any], Told]


def open_journal(path: Path, *, durability: Durability, holder: str, now_ms: int) -> "SqliteJournal":
    """Open the store at `path`, made where it is not there; `holder` is what its lock says of us, a socket's path.

    `full`: a write is on the disk when it returns; `process`: it outlives the process, not a loss of power.
    Raises StoreTaken, StoreUnavailable.
    """
    path = path.resolve()
    refuse_network(path)
    make_directory(path)
    lock = take_lock(path, holder)
    try:
        verdict = read_log(path)
        if verdict.state == "damaged":
            return _open_copy(path, lock, verdict.damage_of(path))
        if verdict.state == "torn":
            log.warning("ledger %s: a torn tail of %d bytes was cut", path, verdict.tail)

        def opened() -> Database:
            database = Database(path, durability)
            try:
                database.prune(now_ms)
            except BaseException:
                database.close()
                raise
            return database

        return SqliteJournal(opened, lock.release, lock=lock)
    except BaseException:
        lock.release()
        raise


def _open_copy(path: Path, lock: Lock, reason: str) -> "SqliteJournal":
    log.error("%s", reason)
    try:
        directory = Path(tempfile.mkdtemp(prefix="llmd-ledger-"))
        remove = partial(shutil.rmtree, directory, ignore_errors=True)
        copy = directory / path.name
        try:
            copy_store(path, copy)
            # From here on whoever accepts the loss may have it.
            lock.release()
            return SqliteJournal(lambda: Database(copy, "process", path), remove, read_only=reason)
        except BaseException:
            remove()
            raise
    except OSError as error:
        raise StoreUnavailable(f"{reason}; and it cannot be copied to be read: {error.strerror}") from None


class _Known(asyncio.Future[Any]):
    """What is being written cannot be called back: who waits for it is cancelled when it is done."""

    def cancel(self, msg: object = None) -> bool:
        return False


class SqliteJournal:
    """A journal over a database. See Journal for its promises, `open_journal` for how one comes about.

    `opened` is called in the thread that all the rest happens in; `gone` when all is closed. Raises what `opened` does.
    """

    def __init__(
        self,
        opened: Callable[[], Database],
        gone: Callable[[], None],
        *,
        lock: Lock | None = None,
        read_only: str | None = None,
    ) -> None:
        self._gone = gone
        self._lock = lock
        self._read_only = read_only
        self._lost: str | None = None
        self._closed = False
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = Thread(target=self._serve, name="llmd-journal", daemon=True)
        self._thread.start()
        try:
            self._database: Database = self._ask(opened)
        except BaseException:
            self._jobs.put(None)
            raise

    @property
    def read_only(self) -> str | None:
        return self._read_only

    @property
    def last(self) -> int:
        return self._database.last

    def rows(self, prefix: str) -> Iterable[tuple[str, bytes]]:
        """As in Journal; blocks. Raises StoreUnavailable."""
        self._check()
        return self._ask(partial(self._database.rows, prefix))

    async def write(self, batch: Batch) -> None:
        if self._read_only is not None or self._closed:
            raise WriteFailed(self._read_only or CLOSED)
        self._check()
        known = _Known(loop=asyncio.get_running_loop())
        with CancelScope(shield=True):
            await self._send(partial(self._write, batch), known)

    def _write(self, batch: Batch) -> None:
        try:
            self._database.write(batch)
        except DurabilityLost as lost:
            self._lost = str(lost)
            raise

    async def row(self, key: str) -> bytes | None:
        """Raises StoreUnavailable, DurabilityLost."""
        self._check()
        return await self._send(partial(self._database.row, key))

    async def entries(self, path: str, after: int, limit: int) -> list[tuple[int, JournalEntry]]:
        """As in Journal, some thousand at a time, with writes in between. Raises StoreUnavailable, DurabilityLost."""
        found: list[tuple[int, JournalEntry]] = []
        behind: int | None = after
        while behind is not None and len(found) < limit:
            self._check()
            more, behind = await self._send(partial(self._database.entries, path, behind, limit - len(found)))
            found += more
        return found

    def _check(self) -> None:
        if self._lost is not None:
            raise DurabilityLost(self._lost)
        if self._closed:
            raise StoreUnavailable(CLOSED)

    def yielding(self) -> None:
        if self._lock is not None:
            self._lock.say_draining()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        closing = self._send(self._close)
        self._jobs.put(None)
        with move_on_after(CLOSING_S, shield=True):
            await closing
            self._thread.join(CLOSING_S)
            return
        log.error("the disk of the ledger does not answer: it is given up with the process")

    def _close(self) -> None:
        self._database.close()
        self._gone()

    def _send(
        self, work: Callable[[], Result], future: "asyncio.Future[Any] | None" = None
    ) -> "asyncio.Future[Result]":
        loop = asyncio.get_running_loop()
        told = future or loop.create_future()
        self._jobs.put((work, partial(loop.call_soon_threadsafe, partial(_settle, told))))
        return told

    def _ask(self, work: Callable[[], Result]) -> Result:
        answer: Future[Result] = Future()
        self._jobs.put((work, partial(_settle, answer)))
        return answer.result()

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, tell = job
            result, error = None, None
            try:
                result = work()
            except BaseException as raised:
                error = raised
            # A loop that is closed has nobody left who waits.
            with suppress(RuntimeError):
                tell(result, error)


def _settle(future: "asyncio.Future[Any] | Future[Any]", result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
