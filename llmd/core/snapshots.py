"""How budgets are told: one at a moment, and a tree of them page by page."""

from collections.abc import Iterable

from msgspec.structs import asdict

from llmd.books import UNITS, Amounts, Branch, Snapshot, Tree
from llmd.clock import Now
from llmd.core.accounts import available, limited_units
from llmd.core.amounts import UNLIMITED, Packed, guard, least, unpack
from llmd.core.budget import Budget
from llmd.errors import LLMError

_NOTHING = Amounts()
_GUARDS = tuple((unit, guard(unit)) for unit in UNITS)


def snapshot(now: Now, budget: Budget) -> Snapshot:
    path, account, terms = budget.path(now), budget.account(now), budget.terms
    limited = limited_units(path)
    left = available(path) if budget.state == "open" else [0] * len(UNITS)
    return Snapshot(
        id=budget.id,
        parent=None if budget.parent is None else budget.parent.id,
        label=terms.label,
        state=budget.state,
        limits=terms.limits,
        guarantee=terms.guarantee,
        window=terms.window,
        settled=_told(account.settled),
        held=_told(account.held),
        uncertain=_told(account.uncertain),
        overrun=_told(account.overrun),
        available={
            unit: amount if limited & mark else None for (unit, mark), amount in zip(_GUARDS, left, strict=True)
        },
        children=len(budget.children),
        lease_s=terms.lease_s,
        enforcement=terms.enforcement,
        allow=terms.allow,
    )


def tree(now: Now, tops: Iterable[Budget], after: str | None, limit: int, *, deep: bool = True) -> Tree:
    """At most `limit` of `tops` and, if `deep`, of all below them, depth first, from behind the id `after` on.

    Raises invalid_params if that one is not among them.
    """
    waiting = list(tops)[::-1]
    found: list[Branch] = []
    branches: dict[str, Branch] = {}
    skipping = after is not None
    last = None
    while waiting:
        budget = waiting.pop()
        if skipping:
            skipping = budget.id != after
        elif len(branches) == limit:
            return Tree(budgets=found, cursor=last)
        else:
            branch = Branch(**asdict(snapshot(now, budget)), below=[])
            branches[budget.id] = branch
            above = branches.get(branch.parent or "")
            (found if above is None else above.below).append(branch)
            last = budget.id
        if deep:
            waiting += list(budget.children.values())[::-1]
    if skipping:
        raise LLMError("invalid_params", "this cursor leads nowhere any more: begin again", path="cursor")
    return Tree(budgets=found, cursor=None)


def _told(packed: Packed) -> Amounts:
    """What a client may be told: an amount that every JSON reader keeps exactly."""
    return unpack(least(packed, UNLIMITED)) if packed else _NOTHING
