"""Who waits for room in a budget: in order of arrival, at the one on the path that had too little.

A budget that has room again lets its waiters try, the first one first, until one does not fit; whoever comes later
and needs the same budget waits behind them. Those that need others go on. A window that begins makes room, too: so
they wait at a budget, whichever of its windows is current.
"""

import itertools
from bisect import insort
from collections.abc import Callable

import anyio

from llmd.core.accounts import Path, limited_units
from llmd.core.amounts import Packed, excess, greatest, touched
from llmd.core.budget import Budget
from llmd.core.refusals import Refusal, behind, refuse_closed
from llmd.errors import LLMError

Wants = Callable[[], tuple[Path, Packed]]
"""What somebody would take now, and on which path."""


class Waiter:
    """One that waits. `attempt` tries at once: None when it is done, or what stands in its way; it may raise."""

    def __init__(self, number: int, wants: Wants, attempt: Callable[[], Refusal | None]) -> None:
        self.number = number
        self.wants = wants
        self.budget: Budget = wants()[0][0].budget
        self.attempt = attempt
        self.over = anyio.Event()
        self.refusal: Refusal | None = None
        self.refused: Refusal | None = None  # for the time being
        self.error: LLMError | None = None
        self.at: Budget | None = None

    def needs(self) -> list[Budget]:
        """The budgets in which it would take room now."""
        return needed(*self.wants())


class Queues:
    def __init__(self) -> None:
        self._queues: dict[Budget, list[Waiter]] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    async def wait(self, wants: Wants, attempt: Callable[[], Refusal | None], wait_s: float) -> Refusal | None:
        """None when an `attempt` has worked out; else what still stood in its way when the time was over.

        Who does not wait is not let in before those who do. Raises what `attempt` raises, and budget_closed.
        """
        number = next(self._numbers)
        refusal: Refusal | None = None
        ahead = self._ahead(wants)
        if ahead is not None and ahead.terms.window is not None:
            self._serve(ahead)  # another window may have begun
            ahead = self._ahead(wants)
        if ahead is None:
            if (refusal := attempt()) is None or not refusal.contended or not wait_s:
                return refusal
            ahead = refusal.at.budget
        else:
            refuse_closed(wants()[0][0].budget)
            if not wait_s and (first := self._queues[ahead][0].refused) is not None:
                return behind(first, *wants())
        waiter = Waiter(number, wants, attempt)
        waiter.refused = refusal
        self._enter(waiter, ahead)
        try:
            with anyio.move_on_after(wait_s):
                await waiter.over.wait()
            if not waiter.over.is_set() and (refusal := self._last_try(waiter)) is not None:
                return refusal
        finally:
            if not waiter.over.is_set():
                self._leave(waiter)
        if waiter.error is not None:
            raise waiter.error
        return waiter.refusal

    def budgets(self) -> set[Budget]:
        """The budgets that somebody waits in."""
        return {waiter.budget for queue in self._queues.values() for waiter in queue}

    def wake(self, path: Path) -> None:
        """There may be more room on this path."""
        if self._queues:
            for number, account in enumerate(path, 1):
                self._serve(account.budget)
                if excess(account.floor, account.used):
                    self._serve_guaranteed(account.budget, path[number:])

    def wake_windowed(self) -> None:
        """There is more room where a window has begun."""
        for budget in [budget for budget in self._queues if budget.terms.window is not None]:
            self._serve(budget)

    def refuse_closed(self) -> None:
        """Those whose budget is not open any more have nothing to wait for."""
        for waiter in [waiter for queue in self._queues.values() for waiter in queue]:
            if waiter.over.is_set():  # served since, by one that has left before it
                continue
            try:
                refuse_closed(waiter.budget)
            except LLMError as error:
                waiter.error = error
                self._leave(waiter)
                waiter.over.set()

    def _ahead(self, wants: Wants) -> Budget | None:
        """The first budget in which somebody waits for what these would take."""
        return next((at for at in needed(*wants()) if at in self._queues), None) if self._queues else None

    def _last_try(self, waiter: Waiter) -> Refusal | None:
        """Its time is over, and it is its turn or it is refused: nobody ahead of it is overtaken."""
        assert waiter.at is not None
        self._serve(waiter.at)
        if waiter.over.is_set():
            return None
        first = self._queues[waiter.at][0]
        if first is waiter or first.refused is None:
            return waiter.attempt()
        return behind(first.refused, *waiter.wants())

    def _serve(self, budget: Budget) -> None:
        while queue := self._queues.get(budget):
            waiter = queue[0]
            other = self._earlier(waiter)
            if other is not None:
                self._leave(waiter, wake=False)
                self._enter(waiter, other)
            elif not self._try(waiter) and waiter.at is budget:
                return

    def _serve_guaranteed(self, budget: Budget, above: Path) -> None:
        """Those who wait further up, and for whom this budget's guarantee can pay by now."""
        for waiter in [waiter for at in above for waiter in self._queues.get(at.budget, ())]:
            if waiter.budget.is_within(budget) and waiter.at not in waiter.needs():
                self._try(waiter)

    def _earlier(self, waiter: Waiter) -> Budget | None:
        """Another budget on its way where somebody waits who came before it."""
        for budget in waiter.needs():
            if budget is not waiter.at and (queue := self._queues.get(budget)) and queue[0].number < waiter.number:
                return budget
        return None

    def _try(self, waiter: Waiter) -> bool:
        """Whether it waits no more."""
        try:
            refusal = waiter.attempt()
        except LLMError as error:
            waiter.error = error
        else:
            if refusal is not None and refusal.contended:
                waiter.refused = refusal
                if refusal.at.budget is not waiter.at:
                    self._leave(waiter, wake=False)
                    self._enter(waiter, refusal.at.budget)
                return False
            waiter.refusal = refusal
        self._leave(waiter, wake=False)
        waiter.over.set()
        return True

    def _enter(self, waiter: Waiter, budget: Budget) -> None:
        waiter.at = budget
        insort(self._queues.setdefault(budget, []), waiter, key=lambda one: one.number)

    def _leave(self, waiter: Waiter, *, wake: bool = True) -> None:
        budget = waiter.at
        assert budget is not None
        queue = self._queues[budget]
        queue.remove(waiter)
        if not queue:
            del self._queues[budget]
        elif wake:
            self._serve(budget)


def needed(path: Path, amounts: Packed) -> list[Budget]:
    """The first budget, and those above in which `amounts` take limited room: not what a guarantee pays for."""
    found: list[Budget] = []
    for account in path:
        if not found or touched(amounts) & limited_units([account]):
            found.append(account.budget)
        amounts = greatest(account.used + amounts, account.floor) - greatest(account.used, account.floor)
    return found
