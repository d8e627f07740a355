"""Why a budget refuses: which one on the path, of which unit, and what would fit."""

from msgspec import Struct

from llmd.books import UNITS, Unit
from llmd.clock import Now
from llmd.core.accounts import Account, Path, available, refusers
from llmd.core.amounts import Packed, guard, lanes
from llmd.core.budget import Budget, Terms
from llmd.errors import LLMError
from llmd.scalars import AMOUNT_MAX


class Limiting(Struct, frozen=True):
    """The budget that refused, and the unit that it has too little of."""

    id: str
    unit: Unit


class Refusal(Struct, frozen=True):
    """What stands in the way of an amount.

    contended       whether only holds do, so that it may fit when they resolve
    at              the account that refused: who waits, waits at its budget
    requested       in the unit of `limiting`, as the next two
    available       what would fit now
    max_fit         what would fit if every hold came back
    retry_after_ms  until every window has ended that is used up, where nothing else refuses
    """

    contended: bool
    budget: str
    at: Account
    limiting: Limiting
    requested: int
    available: int
    max_fit: int
    retry_after_ms: int | None = None

    def error(self) -> LLMError:
        kind = "budget_contended" if self.contended else "budget_exceeded"
        why = "for now: calls in flight hold the rest" if self.contended else "and no more will come back"
        return LLMError(
            kind,
            f"{self.limiting.id} has too few {self.limiting.unit} left: {self.requested} asked for, {self.available} "
            f"available {why}",
            budget=self.budget,
            limiting=self.limiting,
            requested=self.requested,
            available=self.available,
            max_fit=self.max_fit,
            retry_after_ms=self.retry_after_ms,
        )


def refusal(now: Now, budget: Budget, path: Path, amounts: Packed, firm_amounts: Packed | None = None) -> Refusal:
    """Why `path`, that of `budget`, refuses `amounts`, which it does; `firm_amounts` if every hold came back."""
    asked = amounts if firm_amounts is None else firm_amounts
    decided = refusers(path, asked, firm=True)
    contended = not decided
    if contended:
        asked, decided = amounts, refusers(path, amounts)
    account, number = min(
        ((account, number) for account, units in decided for number, unit in enumerate(UNITS) if units & guard(unit)),
        key=lambda found: _left(*found, firm=not contended),
    )
    # The ends of those windows whose successors could take it: of no use, if anything else refuses as well.
    ends = [at.window.end_ms for at, units in decided if at.window and not units & ~(at.ceiling - asked)]
    retry_after_ms = None
    if contended:
        retry_after_ms = 100
    elif len(ends) == len(decided):
        retry_after_ms = max(0, max(ends) - now.wall_ms)
    return Refusal(
        contended,
        budget.id,
        account,
        Limiting(account.budget.id, UNITS[number]),
        lanes(asked)[number],
        available(path)[number],
        available(path, firm=True)[number],
        retry_after_ms,
    )


def behind(first: Refusal, path: Path, amounts: Packed) -> Refusal:
    """Why nothing is taken from what another waits for, who was refused like this."""
    number = UNITS.index(first.limiting.unit)
    return Refusal(
        True,
        path[0].budget.id,
        first.at,
        first.limiting,
        lanes(amounts)[number],
        0,
        available(path, firm=True)[number],
        first.retry_after_ms,
    )


def _left(account: Account, number: int, *, firm: bool) -> int:
    used = account.firm if firm else account.used
    return (lanes(account.ceiling)[number] & AMOUNT_MAX) - lanes(used)[number]


def refuse_closed(budget: Budget) -> None:
    """Raises budget_closed unless it is open."""
    if budget.state != "open":
        raise LLMError("budget_closed", f"{budget.id} is {budget.state}", budget=budget.id)


def check_guarantee(budget: Budget, terms: Terms) -> None:
    """Raises invalid_params for a guarantee that cannot be kept."""
    for unit, amount in terms.guarantee.items():
        if amount > terms.limits.get(unit, AMOUNT_MAX):
            raise LLMError("invalid_params", f"a guarantee is at most the limit: {unit}", path=f"guarantee.{unit}")
    if any(terms.guarantee.values()) and (budget.is_windowed or terms.window is not None):
        reason = "a budget with a window, or below one that has one, can have no guarantee"
        raise LLMError("invalid_params", reason, path="guarantee")


def check_lowered(budget: Budget, account: Account, terms: Terms) -> None:
    """Raises budget_exceeded or budget_busy for a limit that is lowered below what is used."""
    rows = zip(UNITS, lanes(account.used), lanes(account.firm), strict=True)
    for unit, used, firm in rows:
        limit = terms.limits.get(unit, AMOUNT_MAX)
        if limit >= budget.terms.limits.get(unit, AMOUNT_MAX) or limit >= used:
            continue
        limiting = Limiting(budget.id, unit)
        if limit < firm:
            reason = f"{firm} {unit} of {budget.id} are spent or guaranteed: its limit cannot be lower"
            raise LLMError("budget_exceeded", reason, budget=budget.id, limiting=limiting, requested=limit)
        reason = f"calls in flight hold {used - firm} {unit} of {budget.id}: its limit cannot be below {used} now"
        raise LLMError("budget_busy", reason, budget=budget.id, limiting=limiting, requested=limit)
