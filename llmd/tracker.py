"""BudgetTracker: a budget of the ledger as an object that threads and tasks share.

It is opened by the first call that it pays for, where that call is made: in this process or in the daemon. The ledger
itself counts and refuses; what is here only remembers which budget it is.
"""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from types import TracebackType
from typing import Any, NoReturn, Self
from weakref import finalize

import anyio
import msgspec
from msgspec.structs import replace

from llmd import engine
from llmd.books import OpenParams, Snapshot
from llmd.engine import Engine
from llmd.errors import LLMError
from llmd.local import local
from llmd.places import DAEMON, Place
from llmd.validation import explain


class BudgetTracker:
    """A budget: `total` tokens, or `limits` by unit.

    limits     total_tokens, input_tokens, output_tokens, requests, nano_usd; or usd, a decimal string
    guarantee  by unit, what is set aside for it at its parent
    label      what it is called in snapshots and in `llmd budget tree`

    Calls that have it in their RunConfig, on whatever adapter, never cost more together. One that would is refused with
    LLMBudgetExceededError before it is sent; one that fits but for what others hold waits for it. It lasts until it is
    closed, or this process ends. As a context manager it closes behind the block, and aborts the calls that still run
    where an exception leaves it; `async with` does not block the loop meanwhile.

    It belongs to this process or to the daemon, wherever the first call was made that it paid for, and pays for no call
    elsewhere. A copy is the tracker itself: two would have the limit twice. It cannot be pickled.

    Raises LLMError: invalid_params here; budget_closed, budget_unknown when it is used.
    """

    def __init__(
        self,
        total: int | None = None,
        *,
        limits: Mapping[str, int | str] | None = None,
        guarantee: Mapping[str, int | str] | None = None,
        label: str | None = None,
    ) -> None:
        given = {"total": total, "limits": limits, "guarantee": guarantee, "label": label, "scope": "connection"}
        self._terms = _checked({name: value for name, value in given.items() if value is not None})
        self._begin(None, attached=False)

    def _begin(self, parent: "BudgetTracker | None", *, attached: bool) -> None:
        self._parent = parent
        self._attached = attached
        self._budget: str | None = None  # its handle
        self._home: object = None
        self._opening: anyio.Lock | None = None
        self._pid = os.getpid()
        self._closed: Snapshot | None = None
        self._over = False
        self._forgotten: finalize[..., BudgetTracker] | None = None

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a BudgetTracker cannot be pickled: in another process it would be another budget. "
            "Have the daemon keep it, send its handle, and attach to that there"
        )

    @classmethod
    def attach(cls, handle: str) -> Self:
        """A budget that the daemon has, by its handle or its configured name: another's, and not closed behind a block.

        Calls go through adapters made with `daemon=True`.
        """
        if not isinstance(handle, str):
            raise TypeError(f"handle: expected a string, got {type(handle).__name__}")
        made = cls.__new__(cls)
        made._terms = OpenParams(total=0)
        made._begin(None, attached=True)
        made._budget, made._home = handle, DAEMON
        return made

    def child(
        self,
        total: int | None = None,
        *,
        limits: Mapping[str, int | str] | None = None,
        guarantee: Mapping[str, int | str] | None = None,
        label: str | None = None,
    ) -> "BudgetTracker":
        """A smaller budget below this one: what is spent there is spent here, too."""
        made = BudgetTracker(total, limits=limits, guarantee=guarantee, label=label)
        made._begin(self, attached=False)
        return made

    @property
    def handle(self) -> str | None:
        """What others attach to or send as `budget`, where the daemon keeps it and it has been opened."""
        return self._budget if self._home == DAEMON else None

    def snapshot(self) -> Snapshot:
        """How it stands, or how it stood when it was closed. One that nothing has used is opened in this process."""
        return engine.shared().call(self._snapshot)

    async def async_snapshot(self) -> Snapshot:
        """The same."""
        return await engine.shared().reach(self._snapshot)

    def close(self, *, cancel: bool = False) -> None:
        """Take no more calls, give the rest back to the parent, and return when the last one has ended.

        cancel  abort those that run
        """
        engine.shared().call(partial(self._close, cancel))

    async def async_close(self, *, cancel: bool = False) -> None:
        """The same."""
        await engine.shared().reach(partial(self._close, cancel))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self._attached:
            with _yielding(error):
                self.close(cancel=error is not None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if not self._attached:
            with anyio.CancelScope(shield=True), _yielding(error):
                await self.async_close(cancel=error is not None)

    # -- on the engine ------------------------------------------------------------------------------------------------

    async def opened(self, place: Place, on: Engine) -> str:
        """Its handle at `place`, where it is opened if it has not been used. Raises LLMError."""
        if self._budget is None and not self._over:
            async with self._unopened():
                if self._budget is None and not self._over:
                    await self._open(place, on)
        if self._over:
            raise LLMError("budget_closed", "this budget tracker is closed")
        assert self._budget is not None
        if self._home != place.home:
            raise self._elsewhere()
        return self._budget

    def _unopened(self) -> anyio.Lock:
        """Held by who opens it, and by who sees to it that nobody does any more."""
        # Forked while another thread was opening it, this process has nobody to wait for.
        if self._opening is None or self._pid != os.getpid():
            self._opening, self._pid = anyio.Lock(), os.getpid()
        return self._opening

    async def _open(self, place: Place, on: Engine) -> None:
        parent = None if self._parent is None else await self._parent.opened(place, on)
        opened = await place.open(replace(self._terms, parent=parent))
        self._budget, self._home = opened.budget, place.home
        self._forgotten = finalize(self, on.post, partial(_drop, place, opened.budget))
        self._forgotten.atexit = False

    def _elsewhere(self) -> LLMError:
        if self._home == DAEMON:
            reason = "this tracker's budget is in the daemon: use it with adapters made with daemon=True"
        elif self._pid == os.getpid():
            reason = "this tracker's budget is in this process: use it with adapters made without daemon=True"
        else:
            reason = "this tracker's budget is in the process that this one was forked from: make another here"
        return LLMError("budget_unknown", reason)

    async def _place(self, on: Engine) -> Place:
        tracker: BudgetTracker | None = self
        while tracker is not None:  # a child that was not used is where its parent is
            if tracker._home == DAEMON:
                from llmd.remote import remote

                return await remote(on)
            tracker = tracker._parent
        return await local(on)

    async def _snapshot(self, on: Engine) -> Snapshot:
        if self._closed is not None:
            return self._closed
        place = await self._place(on)
        draining = self._budget if self._over else None
        return await place.get(draining or await self.opened(place, on))

    async def _close(self, cancel: bool, on: Engine) -> None:
        if self._budget is None:
            async with self._unopened():
                self._over = True
        if self._budget is None or self._closed is not None:
            return
        place = await self._place(on)
        if self._home != place.home:
            raise self._elsewhere()
        self._over = True  # and what is cut short from here on can be asked for again
        try:
            self._closed = await place.close(self._budget, cancel)
        except LLMError as error:
            if error.kind != "budget_closed":
                raise
        if self._forgotten is not None:
            self._forgotten.detach()


def _yielding(error: BaseException | None) -> AbstractContextManager[None]:
    """What closing raises does not take the place of what left the block."""
    return nullcontext() if error is None else suppress(Exception)


async def _drop(place: Place, budget: str, on: Engine) -> None:
    """Close what nobody has any more."""
    with suppress(LLMError):
        await place.close(budget, cancel=False)


def _checked(params: Mapping[str, Any]) -> OpenParams:
    try:
        return msgspec.convert(params, OpenParams)
    except msgspec.ValidationError as error:
        problem = explain(error, OpenParams)
        raise LLMError("invalid_params", str(problem), path=problem.path) from None
