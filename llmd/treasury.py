"""The ledger of a daemon with all that keeps it: its journal, who waits in it, who watches it, what ends by itself.

Owns its life: opened from a journal, run until the daemon ends, closed. `after` follows every operation on the ledger
and tells everybody whom it concerns. What the operations are, is known to `budget_operations` and `payer`.
"""

import logging
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup

from llmd.books import Snapshot
from llmd.clock import Clock, Now
from llmd.context import Connection
from llmd.core.accounts import Path
from llmd.core.answers import Answers
from llmd.core.budget import Budget
from llmd.core.leases import Leases
from llmd.core.ledger import Ledger
from llmd.core.recovery import NotRecovered, recover
from llmd.core.snapshots import snapshot
from llmd.errors import LLMError
from llmd.flushing import Flusher, unavailable
from llmd.handles import PREFIX, handle_of, hash_of, new_secret
from llmd.journal import Journal, StoreUnavailable
from llmd.queueing import Queues
from llmd.roots import Roots, counts_otherwise, terms_of
from llmd.settings import BudgetSettings
from llmd.watching import Watchers
from llmd.zones import zone

SWEEP_S = 1.0
HOLD_GRACE_S = 60.0  # after the deadline of its call
SECRET_KEY = "secret"  # noqa: S105 - the key of a row

log = logging.getLogger("llmd.ledger")


class Closing:
    """A budget that drains, and how it stood when it had closed."""

    def __init__(self) -> None:
        self.closed = anyio.Event()
        self.snapshot: Snapshot | None = None


class Treasury:
    """Unopened, it knows the configuration and grants only what needs no budget."""

    def __init__(self, clock: Clock, configured: Mapping[str, BudgetSettings], budgets_max: int) -> None:
        self.clock = clock
        self.ledger = Ledger(budgets_max)
        self.queues = Queues()
        self.leases = Leases()
        self.answers = Answers(self.ledger.changes)
        self.roots = Roots(configured)
        self.closings: dict[str, Closing] = {}
        self.aborts: dict[int, anyio.CancelScope] = {}
        self._lines: dict[str, Callable[[], None]] = {}
        self.watchers = Watchers()
        self._opened = anyio.Event()
        self._stirred = anyio.Event()
        self._at_work = anyio.Event()
        self._secret = b""
        self._began: Now
        self.journal: Journal
        self.flusher: Flusher
        self._group: TaskGroup

    # -- life -----------------------------------------------------------------------------------------------------

    def open(self, journal: Journal) -> None:
        """Begin with what the journal has. Inside the loop. Raises StoreUnavailable if it makes no sense."""
        now = self.clock.now()
        self._began = now
        self.journal = journal
        self.flusher = Flusher(journal, self.ledger.changes.take)
        try:
            cut = recover(now, journal.rows, self.ledger, zone)
        except NotRecovered as error:
            told = f"the ledger contradicts itself: {error}; `llmd ledger check` says what to do"
            raise StoreUnavailable(told) from None
        self.answers.recover(journal.rows, cut)
        self._secret = next((value for _, value in journal.rows(SECRET_KEY)), b"")
        if not self._secret:
            self._secret = new_secret()
            self.ledger.changes.row(SECRET_KEY, self._secret)
        for budget in self.ledger.budgets.values():
            self.leases.begin(budget)
            if budget.connection:
                self.leases.doom(now, budget)
        self.configure(self.roots.configured, opening=True)
        self._opened.set()

    async def run(self) -> None:
        """Write what changes, and end what ends by itself, until cancelled. Raises DurabilityLost."""
        await self._opened.wait()
        async with anyio.create_task_group() as self._group:
            self._group.start_soon(self.flusher.run)
            self._at_work.set()
            while True:
                await self._stirred.wait()
                await anyio.sleep(SWEEP_S)
                self.sweep()

    def yielding(self) -> None:
        """The daemon is about to end: another may wait for the journal."""
        if self.is_open:
            self.journal.yielding()

    @property
    def has_opened_budgets(self) -> bool:
        """Whether there are budgets that no configuration would bring back."""
        return any(not budget.terms.configured for budget in self.ledger.budgets.values())

    async def at_work(self) -> None:
        """Wait until it is open and runs."""
        await self._at_work.wait()

    def spawn(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run this beside all else, until it returns or the daemon ends; it raises nothing."""
        self._group.start_soon(run)

    async def close(self) -> None:
        """Write what is left and give the journal up, if it was opened."""
        if self.is_open:
            try:
                await self.flusher.finish()
            finally:
                await self.journal.aclose()

    @property
    def is_open(self) -> bool:
        return self._opened.is_set()

    async def ready(self) -> None:
        """Wait until there is a ledger: another daemon may still be draining with it."""
        if not self.is_open:
            await self._opened.wait()

    def check_opened(self) -> None:
        """Raises ledger_unavailable where there is no ledger yet."""
        if not self.is_open:
            raise unavailable()

    def check(self) -> None:
        """Raises ledger_unavailable where nothing can be written now."""
        self.check_opened()
        self.flusher.check()

    def configure(self, configured: Mapping[str, BudgetSettings], *, opening: bool = False) -> None:
        """Make the roots what the configuration says; those that it has no more drain."""
        now = self.clock.now()
        self.roots = Roots(configured)
        if not self.is_open and not opening:
            return
        for budget in list(self.ledger.budgets.values()):
            if not budget.terms.configured or budget.id not in self.ledger.budgets:
                continue
            settings = configured.get(budget.id)
            if settings is None and budget.state == "open":
                log.info("budget %s is configured no more: it drains", budget.id)
                self.close_budget(now, budget, cancel=False)
            elif settings is not None and counts_otherwise(budget.terms, settings):
                # What was counted by the day says nothing of the month.
                subtree = budget.subtree()
                self.close_budget(now, budget, cancel=False)
                for below in reversed([below for below in subtree if below.id in self.ledger.budgets]):
                    self.ledger.fold(below, uncertain_too=True)
        for name, settings in configured.items():
            terms, known = terms_of(settings), self.ledger.budgets.get(name)
            if known is None:
                root = Budget(name, None, terms, None, zone(terms.zone))
                root.since = self.journal.last
                self.ledger.open(now, root)
            elif known.terms != terms or known.state != "open":
                self.ledger.reopen(known)
                self.ledger.set_terms(now, known, terms)
            self.after(now, self.ledger.budgets[name].path(now))
        self.after(now)

    # -- finding --------------------------------------------------------------------------------------------------

    def handle_of(self, identifier: str) -> str:
        return handle_of(self._secret, identifier)

    def named(self, name: str) -> Budget:
        """The budget with this handle, or the configured one of this name. Raises budget_unknown, budget_closed."""
        handle_hash = hash_of(name) if name.startswith(PREFIX) else None
        budget = self.ledger.budgets.get(name) if handle_hash is None else self.ledger.handles.get(handle_hash)
        if budget is None or (handle_hash is None and not budget.terms.configured):
            if handle_hash in self.ledger.gone:
                raise LLMError("budget_closed", "this budget is closed")
            raise LLMError("budget_unknown", "there is no budget with this handle, and none of this name is configured")
        if budget.state == "closed":
            raise LLMError("budget_closed", "this budget is closed", budget=budget.id)
        return budget

    def default(self) -> Budget | None:
        """The parent of what names no budget."""
        return None if self.roots.default is None else self.named(self.roots.default)

    # -- what follows an operation --------------------------------------------------------------------------------

    def after(self, now: Now, path: Path = ()) -> None:
        """Something has changed on `path`: tell whoever waits for it, and have it written."""
        if self.ledger.finished:
            self._tell_finished(now)
        if self.ledger.passed:
            self._tell_passed()
        self.queues.wake(path)
        self.watchers.stir(account.budget.id for account in path)
        if self.ledger.changes:
            self.flusher.changed()
        if self.leases or self.ledger.holds:
            self._stirred.set()

    def close_budget(self, now: Now, budget: Budget, *, cancel: bool) -> Closing:
        """Drain it and all below; with `cancel`, abort the calls that are out there."""
        closing = Closing()
        if budget.state != "closed":  # with its parent, before its own turn
            closing = self.closings.setdefault(budget.id, closing)
        path = budget.path(now)
        for hold in self.ledger.close(now, budget):
            if (cancel or not hold.dispatched) and hold.id in self.aborts:
                self.aborts[hold.id].cancel()
        self.queues.refuse_closed()
        self.after(now, path)
        return closing

    def tie(self, budget: Budget, connection: Connection) -> None:
        """It ends with this connection."""
        self._lines[budget.id] = connection.at_end(partial(self._doom, budget))

    def untie(self, budget: Budget) -> None:
        if (forget := self._lines.pop(budget.id, None)) is not None:
            forget()

    def _doom(self, budget: Budget) -> None:
        self.leases.doom(self.clock.now(), budget)
        self._stirred.set()

    def sweep(self) -> None:
        """End what ends by itself: leases, the budgets of lost connections, holds that nobody resolves."""
        now = self.clock.now()
        for hold in list(self.ledger.holds.values()):
            if hold.call.deadline + HOLD_GRACE_S < now.mono:
                log.error("a hold of %s outlived its call (%s): it expires", hold.budget.id, hold.call.request_id)
                self.ledger.expire(now, hold)
                self.after(now, hold.path)
        self.queues.wake_windowed()
        for budget in self.queues.budgets():  # who waits, uses it
            self.ledger.touch(now, budget)
        for budget in self.leases.due(now):
            why = "its lease has run out" if budget.doomed is None else "its connection has gone"
            log.info("budget %s closes: %s", budget.id, why)
            self.close_budget(now, budget, cancel=budget.doomed is not None)
        self.forget(now)
        self.after(now)
        if not self.leases and not self.ledger.holds:
            self._stirred = anyio.Event()

    def forget(self, now: Now) -> None:
        """Let go of what is too old, or too much. A wall clock that jumps ahead makes nothing old before its time."""
        self.ledger.forget(now._replace(wall_ms=min(now.wall_ms, self.steady_ms(now))))
        self.answers.forget(self.steady_ms(now))

    def steady_ms(self, now: Now) -> int:
        """What the wall clock said at the opening, and the time that has passed since: no jump moves it."""
        return self._began.wall_ms + int((now.mono - self._began.mono) * 1000)

    def _tell_finished(self, now: Now) -> None:
        finished, self.ledger.finished = self.ledger.finished, []
        for budget in finished:
            told = snapshot(now, budget)
            self.ledger.changes.closed(budget, told)
            if (closing := self.closings.pop(budget.id, None)) is not None:
                closing.snapshot = told
                closing.closed.set()
            self.untie(budget)
            self.ledger.fold(budget)
        self.forget(now)
        self.watchers.stir(budget.id for budget in finished)

    def _tell_passed(self) -> None:
        passed, self.ledger.passed = self.ledger.passed, []
        for event in passed:
            if event.percent is None:
                log.info("budget %s: a call has cost more %s than it held", event.budget, event.unit)
            else:
                log.info("budget %s: %d %% of its %s are spent", event.budget, event.percent, event.unit)
