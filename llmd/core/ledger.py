"""The tree of budgets: what may be spent where, what is held, what was spent.

Every operation is synchronous, checks whole and then changes, and notes what it changed, for the journal to take.
`reserve` comes before the bytes of a call, `settle` or `void` after its outcome; a hold resolves exactly once. Knows no
time but what it is handed, and of calls nothing but their amounts.
"""

from collections.abc import Iterable
from typing import TypeVar

from msgspec import Struct

from llmd.books import Unit
from llmd.clock import Now
from llmd.core.accounts import Account, Path, fits, move, release
from llmd.core.amounts import GUARDS, Packed, by_unit, excess, greatest, pack
from llmd.core.budget import Budget, Terms
from llmd.core.changes import Changes
from llmd.core.holds import Call, Hold
from llmd.core.refusals import Refusal, check_guarantee, check_lowered, refusal, refuse_closed
from llmd.errors import LLMError

DEPTH_MAX = 64
BUDGETS_MAX = 100_000
KNOWN_MS = 24 * 3600 * 1000
GONE_MAX = 100_000
UNCERTAIN_MAX = 10_000

K = TypeVar("K")


class Passed(Struct, frozen=True):
    """Something that a person may want to know: an overrun, or `percent` of a limit that are spent."""

    budget: str
    unit: Unit
    percent: int | None = None


class Ledger:
    """All budgets.

    holds      by number, the open ones
    uncertain  by number, those that resolved at a bound and may still be reconciled
    closed     by id, those that are not folded yet: something in them may still be reconciled
    gone       by the hash of their handles, when the closed budgets that were folded have closed
    finished   budgets that have closed, for the caller to tell and then to `fold`
    passed     overruns and thresholds, for the caller to tell
    """

    def __init__(self, budgets_max: int = BUDGETS_MAX) -> None:
        self.budgets: dict[str, Budget] = {}
        self.handles: dict[str, Budget] = {}
        self.holds: dict[int, Hold] = {}
        self.uncertain: dict[int, Hold] = {}
        self.gone: dict[str, int] = {}
        self.closed: dict[str, Budget] = {}
        self.finished: list[Budget] = []
        self.passed: list[Passed] = []
        self.changes = Changes()
        self.last_hold = 0
        self._budgets_max = budgets_max

    # -- budgets --------------------------------------------------------------------------------------------------

    def open(self, now: Now, budget: Budget) -> Refusal | None:
        """Hang `budget` into the tree; its guarantee is taken from its parent."""
        parent = budget.parent
        if budget.depth > DEPTH_MAX:
            raise LLMError("invalid_params", f"budgets are nested {DEPTH_MAX} deep at most", path="parent")
        if len(self.budgets) >= self._budgets_max and not budget.terms.configured:
            raise LLMError("busy", f"there are {self._budgets_max} budgets: close some first")
        if parent is not None:
            refuse_closed(parent)
        check_guarantee(budget, budget.terms)
        guarantee, above = pack(budget.terms.guarantee), budget.above(now)
        if not fits(above, guarantee):
            assert parent is not None, "a root draws from nobody"
            return refusal(now, parent, above, guarantee)
        move(above, guarantee, guarantee)
        budget.life.floor = guarantee
        self.add(budget)
        self.touch(now, budget)
        self.changes.budget(budget)
        self.changes.entry(now, budget, "open", limits=budget.terms.limits)
        return None

    def add(self, budget: Budget) -> None:
        self.budgets[budget.id] = budget
        if budget.handle_hash is not None:
            self.handles[budget.handle_hash] = budget
        if budget.parent is not None:
            budget.parent.children[budget.id] = budget
        if budget.state == "closed":
            self.closed[budget.id] = budget

    def touch(self, now: Now, budget: Budget) -> None:
        """It was used: its lease and those above it begin again."""
        used: Budget | None = budget
        while used is not None and used.touched < now.mono:  # whatever is above was touched with it
            used.touched = now.mono
            used = used.parent

    def resize(self, now: Now, budget: Budget, terms: Terms) -> Refusal | None:
        """Give it other limits and another guarantee. Raises budget_exceeded or budget_busy for too low a limit."""
        refuse_closed(budget)
        check_guarantee(budget, terms)
        account, above = budget.account(now), budget.above(now)
        check_lowered(budget, account, terms)
        floor, guarantee = budget.life.floor, pack(terms.guarantee)
        drawn, draws = greatest(account.used, floor), greatest(account.used, guarantee)
        firm_drawn, firm_draws = greatest(account.firm, floor), greatest(account.firm, guarantee)
        grown = excess(draws, drawn)
        if not fits(above, grown):
            assert budget.parent is not None, "a root draws from nobody"
            return refusal(now, budget.parent, above, grown, excess(firm_draws, firm_drawn))
        move(above, draws - drawn, firm_draws - firm_drawn)
        budget.life.floor = guarantee
        self.set_terms(now, budget, terms)
        return None

    def set_terms(self, now: Now, budget: Budget, terms: Terms) -> None:
        """Give it other terms, unchecked, but for the guarantee: that one is the same."""
        budget.apply_terms(terms)
        self.changes.budget(budget)
        self.changes.entry(now, budget, "resize", limits=terms.limits)

    def reopen(self, budget: Budget) -> None:
        """A root that drains or has closed is wanted again; what has closed below it stays so."""
        budget.state, budget.closed_ms = "open", None
        self.closed.pop(budget.id, None)
        self.changes.budget(budget)

    def close(self, now: Now, budget: Budget) -> list[Hold]:
        """Take nothing more in the subtree, and give back what it drew beyond its use.

        Voids what was not dispatched. Returns the holds that stood there: the voided ones, and those whose calls are
        still out, for the caller to abort or to wait for.
        """
        holds = [hold for hold in self.holds.values() if hold.budget.is_within(budget)]
        for hold in holds:  # before anything drains: what ends with its last hold would end before its children
            if not hold.dispatched:
                self.void(now, hold)
        for below in reversed(budget.subtree()):
            if below.state == "open":
                below.state = "draining"
                release(below.life, below.above(now))
                self.changes.budget(below)
                self.changes.entry(now, below, "drain")
        self.finish(now, reversed(budget.subtree()))
        return holds

    def finish(self, now: Now, budgets: Iterable[Budget] | None = None) -> None:
        """Those that drain and hold nothing any more have closed; children before their parents."""
        for budget in reversed(self.budgets.values()) if budgets is None else budgets:
            if budget.state == "draining" and not budget.is_holding:
                budget.state = "closed"
                budget.closed_ms = now.wall_ms
                self.closed[budget.id] = budget
                self.finished.append(budget)
                self.changes.budget(budget)
                self.changes.entry(now, budget, "close")

    def fold(self, budget: Budget, *, uncertain_too: bool = False) -> None:
        """Make a closed budget part of its parent; with `uncertain_too`, what could be reconciled stays as posted."""
        if budget.state != "closed" or budget.children or (budget.own_uncertain and not uncertain_too):
            return
        parent = budget.parent
        if budget.own_uncertain:
            self._let_go(hold for hold in self.uncertain.values() if hold.budget is budget)
        if parent is not None:
            parent.own_settled += budget.own_settled
            parent.own_uncertain += budget.own_uncertain
            parent.own_overrun += budget.own_overrun
            del parent.children[budget.id]
            self.changes.budget(parent)
        del self.budgets[budget.id]
        del self.closed[budget.id]
        self.changes.no_budget(budget)
        if budget.handle_hash is not None and budget.closed_ms is not None:
            del self.handles[budget.handle_hash]
            self.gone[budget.handle_hash] = budget.closed_ms
            self.changes.gone(budget.handle_hash, budget.closed_ms)

    def forget(self, now: Now) -> None:
        """Let go of what is a day old, or too much: handles of closed budgets, and bounds nobody has reconciled."""
        before = now.wall_ms - KNOWN_MS
        for handle_hash in _outdated(self.gone.items(), len(self.gone) - GONE_MAX, before):
            del self.gone[handle_hash]
            self.changes.gone(handle_hash, None)
        posted = ((number, hold.posted_ms) for number, hold in self.uncertain.items())
        self._let_go(
            self.uncertain[number] for number in _outdated(posted, len(self.uncertain) - UNCERTAIN_MAX, before)
        )
        closed = ((name, budget.closed_ms or 0) for name, budget in self.closed.items())
        outdated = [self.closed[name] for name in _outdated(closed, len(self.closed) - UNCERTAIN_MAX, before)]
        for budget in sorted(outdated, key=lambda budget: -budget.depth):
            self.fold(budget, uncertain_too=True)

    def _let_go(self, holds: Iterable[Hold]) -> None:
        for hold in list(holds):
            del self.uncertain[hold.id]
            self.changes.no_hold(hold)

    # -- holds ----------------------------------------------------------------------------------------------------

    def reserve(self, now: Now, budget: Budget, amounts: Packed, call: Call) -> Hold | Refusal:
        """Hold `amounts` on the whole path, or nowhere. Raises budget_closed."""
        refuse_closed(budget)
        path = budget.path(now)
        if not fits(path, amounts):
            return refusal(now, budget, path, amounts)
        self.last_hold += 1
        hold = Hold(self.last_hold, budget, amounts, path, call)
        move(path, amounts, 0, held=amounts)
        self.holds[hold.id] = hold
        self.touch(now, budget)
        self.changes.hold(hold)
        return hold

    def dispatch(self, hold: Hold) -> None:
        """The bytes of its call are about to leave: from here on it resolves at its bound, unless the truth is told."""
        self._check_open(hold)
        hold.dispatched = True
        self.changes.hold(hold)

    def settle(self, now: Now, hold: Hold, actual: Packed, *, uncertain: bool = False) -> None:
        """Post what the call has cost; never refused and never capped. `uncertain` where it is the bound."""
        self._resolve(now, hold)
        over = excess(actual, hold.amounts)
        self._post(hold.budget, hold.path, actual, hold.amounts, over)
        self._tell_overrun(hold.budget, over)
        if uncertain:
            self._mark_uncertain(hold.budget, hold.path, actual)
            hold.posted, hold.posted_ms = actual, now.wall_ms
            self.uncertain[hold.id] = hold
            self.changes.hold(hold)
        self.changes.entry(now, hold.budget, "settle", actual, hold, uncertain=uncertain)
        self._closing(now, hold)

    def void(self, now: Now, hold: Hold) -> None:
        """The call has certainly cost nothing: what it held comes back."""
        self._resolve(now, hold)
        move(hold.path, -hold.amounts, 0, held=-hold.amounts)
        self.changes.entry(now, hold.budget, "void", 0, hold)
        self._closing(now, hold)

    def expire(self, now: Now, hold: Hold) -> None:
        """Nobody will say any more what the call has cost."""
        if hold.dispatched:
            self.settle(now, hold, hold.amounts, uncertain=True)
        else:
            self.void(now, hold)

    def reconcile(self, now: Now, hold: Hold, truth: Packed) -> None:
        """What a call has cost that had resolved at its bound; once."""
        posted = hold.posted
        if posted is None or self.uncertain.pop(hold.id, None) is None:
            raise ValueError(f"hold {hold.id} is not uncertain")
        over, told = excess(truth, hold.amounts), excess(posted, hold.amounts)
        self._post(hold.budget, hold.path, truth - posted, over=over - told)
        self._tell_overrun(hold.budget, excess(over, told))
        self._mark_uncertain(hold.budget, hold.path, -posted)
        self.changes.no_hold(hold)
        self.changes.entry(now, hold.budget, "reconcile", truth, hold)

    def charge(
        self, now: Now, budget: Budget, amounts: Packed, *, force: bool = False, note: str | None = None
    ) -> Refusal | None:
        """Post what was spent elsewhere; beyond a limit only with `force`. Raises budget_closed."""
        refuse_closed(budget)
        path = budget.path(now)
        if not force and not fits(path, amounts):
            return refusal(now, budget, path, amounts)
        self.touch(now, budget)
        self._post(budget, path, amounts)
        self.changes.entry(now, budget, "charge", amounts, note=note)
        return None

    def undo(self, now: Now, path: Path, amounts: Packed) -> None:
        """Take a charge back whose record was not written, so that nobody was told of it."""
        # What was folded meanwhile is part of what is above it; with a root it is gone altogether.
        path = [account for account in path if self.budgets.get(account.budget.id) is account.budget]
        if path:
            self._post(path[0].budget, path, -amounts)
            self.changes.entry(now, path[0].budget, "undo", amounts)

    # -- parts ----------------------------------------------------------------------------------------------------

    def _check_open(self, hold: Hold) -> None:
        if hold.id not in self.holds:
            raise ValueError(f"hold {hold.id} has resolved")

    def _resolve(self, now: Now, hold: Hold) -> None:
        self._check_open(hold)
        del self.holds[hold.id]
        self.changes.no_hold(hold)
        self.touch(now, hold.budget)

    def _post(self, budget: Budget, path: Path, actual: Packed, held: Packed = 0, over: Packed = 0) -> None:
        move(path, actual - held, actual, -held, actual)
        budget.own_settled += actual
        budget.own_overrun += over
        self.changes.budget(budget)
        for account in path:
            if over:
                account.overrun += over
            if account.window is not None:
                self._note_window(account, account.window.label)
            if account.alert - account.settled & GUARDS != GUARDS:
                self.passed += [Passed(account.budget.id, *crossed) for crossed in account.passed()]

    def _note_window(self, account: Account, label: str) -> None:
        budget: Budget = account.budget
        if budget.windows.get(label) is account:  # else it was let go of, and what is reconciled in it counts no more
            account.posted = True
            self.changes.window(account)
        for outdated in budget.outdated_windows():
            self.changes.no_window(outdated)
            self.changes.budget(budget)

    def _tell_overrun(self, budget: Budget, over: Packed) -> None:
        if over:
            self.passed += [Passed(budget.id, unit) for unit in by_unit(over)]

    def _mark_uncertain(self, budget: Budget, path: Path, amounts: Packed) -> None:
        budget.own_uncertain += amounts
        for account in path:
            account.uncertain += amounts

    def _closing(self, now: Now, hold: Hold) -> None:
        if hold.budget.state != "open":
            self.finish(now, hold.budget.lineage())


def _outdated(dated: Iterable[tuple[K, int]], too_many: int, before_ms: int) -> list[K]:
    """Of what came in the order of its dates, the first `too_many`, and the rest of what is older than a moment."""
    found: list[K] = []
    for key, at_ms in dated:
        if len(found) >= too_many and at_ms >= before_ms:
            break
        found.append(key)
    return found
