"""The library's engine: one thread with a loop of its own, on which all that the library does in this process runs.

Owns the thread's life: it begins with the first call and ends with the interpreter; a forked child begins one of its
own. Work is handed over from threads, and from loops of asyncio and trio. Knows nothing of models, budgets and sockets.
"""

import atexit
import contextvars
import os
import threading
from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any, Generic, TypeVar, cast

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from llmd.errors import LLMError, typed

GOODBYE_S = 5.0

T = TypeVar("T")


class _Work(Generic[T]):
    """One piece of work: `run` is run on the engine, `done` is called there when it has ended, however it did."""

    def __init__(self, run: Callable[[], Awaitable[T]], done: Callable[[], None]) -> None:
        self._make = run
        self._done = done
        self._scope: anyio.CancelScope | None = None
        self._results: list[T] = []
        self._error: Exception | None = None
        self._cancelled = False

    async def run(self) -> None:
        try:
            with anyio.CancelScope() as self._scope:
                if self._cancelled:
                    self._scope.cancel()
                self._results.append(await self._make())
        except Exception as error:
            self._error = error
        finally:
            self._done()

    def cancel(self) -> None:
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    def outcome(self) -> T:
        """Raises what it ended with; an LLMError anew, since it is told in another thread, maybe more than once."""
        if isinstance(self._error, LLMError):
            raise typed(self._error) from None
        if self._error is not None:
            raise self._error
        if not self._results:
            raise _ended()
        return self._results[0]


class Engine:
    """One engine, running when it is made.

    group    for work; what still runs at the end is cancelled, and settles
    lasting  for what that needs: it lives until no work is left
    stack    what ends then
    places   what lives on it, by name; for work that runs there
    """

    def __init__(self) -> None:
        self.places: dict[str, Any] = {}
        self.group: TaskGroup
        self.lasting: TaskGroup
        self.stack: AsyncExitStack
        self._lock = threading.RLock()  # what is collected in the middle of a hand-over may hand something over
        self._ended = False
        self._stop: anyio.Event
        self._loop: AbstractEventLoop
        self._context: contextvars.Context
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="llmd", daemon=True)
        self._thread.start()
        self._ready.wait()

    @property
    def ended(self) -> bool:
        return self._ended or not self._thread.is_alive()

    def call(self, run: Callable[["Engine"], Awaitable[T]]) -> T:
        """What `run` returns on the engine; this thread waits. Interrupted, it cancels that, and sees it end.

        Raises RuntimeError on the engine's own thread, which would wait for itself: what is collected may run anywhere.
        """
        if threading.get_ident() == self._thread.ident:
            raise RuntimeError("the library's engine cannot be called from its own thread")
        done = threading.Event()
        work = self._begin(run, done.set)
        try:
            done.wait()
        except BaseException:
            self._soon(work.cancel)
            done.wait(GOODBYE_S)
            raise
        return work.outcome()

    async def reach(self, run: Callable[["Engine"], Awaitable[T]]) -> T:
        """What `run` returns on the engine, from a task of any loop. Cancelled, it cancels that, and sees it end."""
        done = anyio.Event()
        wake = _waker()
        work = self._begin(run, lambda: wake(done.set))
        try:
            await done.wait()
        except BaseException:
            self._soon(work.cancel)
            with anyio.CancelScope(shield=True):
                await done.wait()
            raise
        return work.outcome()

    def post(self, run: Callable[["Engine"], Awaitable[object]]) -> None:
        """Have this done, and wait for nothing: where the engine has ended, nothing is left to do."""
        with suppress(LLMError):
            self._begin(run, lambda: None)

    def close(self) -> None:
        """Cancel what still runs, see it settled, and end the thread."""
        self._soon(lambda: self._stop.set())
        self._thread.join(GOODBYE_S)

    def _begin(self, run: Callable[["Engine"], Awaitable[T]], done: Callable[[], None]) -> _Work[T]:
        work = _Work(lambda: run(self), done)
        if self.ended:  # before the lock: in a forked child, nobody may be left to release it
            raise _ended()
        with self._lock:
            if self._ended:
                raise _ended()
            self._soon(lambda: self.group.start_soon(work.run))
        return work

    def _soon(self, callback: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # its loop is closed
            # In a context of the engine's own: that of the caller may say that it is in a loop of trio's.
            self._loop.call_soon_threadsafe(callback, context=self._context)

    def _run(self) -> None:
        try:
            anyio.run(self._main, backend="asyncio", backend_options={"use_uvloop": True})
        finally:
            self._ended = True
            self._ready.set()

    async def _main(self) -> None:
        self._loop = get_running_loop()
        self._context = contextvars.copy_context()
        self._stop = anyio.Event()
        async with AsyncExitStack() as self.stack, anyio.create_task_group() as self.lasting:
            async with anyio.create_task_group() as self.group:
                self._ready.set()
                try:
                    await self._stop.wait()
                finally:
                    with self._lock:
                        self._ended = True
                    # What was handed over by now begins, so that it can be seen to end.
                    with anyio.CancelScope(shield=True):
                        await anyio.lowlevel.checkpoint()
                    self.group.cancel_scope.cancel()
            self.lasting.cancel_scope.cancel()


def _waker() -> Callable[[Callable[[], object]], None]:
    """Runs a callback on the loop that this is called in, from any thread."""
    loop = cast(Any, anyio.lowlevel.current_token().native_token)  # asyncio's loop, or trio's token
    soon: Callable[[Callable[[], object]], object] = getattr(loop, "run_sync_soon", None) or loop.call_soon_threadsafe

    def wake(callback: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # that loop is over, and nobody waits
            soon(callback)

    return wake


def _ended() -> LLMError:
    return LLMError("cancelled", "the call was cancelled: llmd has ended in this process", reason="shutting_down")


_lock = threading.Lock()
_shared: Engine | None = None


def shared() -> Engine:
    """The engine of this process."""
    global _shared
    with _lock:
        if _shared is None or _shared.ended:
            _shared = Engine()
        return _shared


def close() -> None:
    """End the engine of this process, if there is one; the next call begins another."""
    global _shared
    with _lock:
        engine, _shared = _shared, None
    if engine is not None:
        engine.close()


def _forked() -> None:
    """The thread stayed with the parent. What was on it is left untouched: its connections are the parent's."""
    global _lock, _shared
    _lock = threading.Lock()
    _shared = None


atexit.register(close)
os.register_at_fork(after_in_child=_forked)
