"""How a budget is made smaller or larger, and by whom.

Who has a handle makes its budget smaller; larger takes the handle of one above, or that of the root itself.
"""

from collections.abc import Mapping
from contextlib import suppress

import anyio
from msgspec.structs import replace

from llmd.books import ResizeParams, Snapshot, Unit
from llmd.core.budget import Budget, Terms
from llmd.core.snapshots import snapshot
from llmd.errors import LLMError
from llmd.scalars import AMOUNT_MAX
from llmd.treasury import Treasury


class Resizing:
    """Of the budgets of `treasury`, one at a time: so none builds on what is taken back."""

    def __init__(self, treasury: Treasury) -> None:
        self._treasury = treasury
        self._one = anyio.Lock()

    async def resize(self, params: ResizeParams) -> Snapshot:
        """Returns when it is durable. Where it cannot be written, it is taken back, unless its old terms no longer fit
        what has happened meanwhile; asked again, it is the same. Raises the budget's errors, ledger_unavailable.
        """
        treasury = self._treasury
        async with self._one:
            budget, terms = self._asked(params)
            before, now = budget.terms, treasury.clock.now()
            if (refused := treasury.ledger.resize(now, budget, terms)) is not None:
                raise refused.error()
            treasury.ledger.touch(now, budget)
            treasury.after(now)
            try:
                await treasury.flusher.settled()
            except LLMError:
                with suppress(LLMError):
                    treasury.ledger.resize(treasury.clock.now(), budget, before)
                raise
            finally:
                # Only now for those who wait: what they took meanwhile could not be given back.
                now = treasury.clock.now()
                treasury.leases.begin(budget)
                treasury.after(now, budget.path(now))
        return snapshot(now, budget)

    def _asked(self, params: ResizeParams) -> tuple[Budget, Terms]:
        """The budget that is meant, and what is to become of its terms. Raises what the caller may not do."""
        treasury = self._treasury
        budget = holder = treasury.named(params.budget)
        if params.child is not None:
            child = treasury.ledger.budgets.get(params.child)
            if child is None or child is holder or not child.is_within(holder):
                raise LLMError("budget_unknown", "there is no such budget below this one", path="child")
            budget = child
        limits, guarantee = params.limits.by_unit(), params.guarantee.by_unit()
        if budget.terms.configured:
            raise LLMError("budget_denied", f"{budget.id} is what the configuration says", budget=budget.id)
        # The name of a configured budget is no secret, so it gives no right to make anything larger.
        if holder.terms.configured or (budget is holder and budget.parent is not None):
            _check_smaller(budget.terms, limits, guarantee, params.lease_s)
        terms = budget.terms
        return budget, replace(
            terms,
            limits={**terms.limits, **limits},
            guarantee={**terms.guarantee, **guarantee},
            lease_s=terms.lease_s if params.lease_s is None or terms.lease_s is None else params.lease_s,
        )


def _check_smaller(
    terms: Terms, limits: Mapping[Unit, int], guarantee: Mapping[Unit, int], lease_s: int | None
) -> None:
    larger = [f"limits.{unit}" for unit, amount in limits.items() if amount > terms.limits.get(unit, AMOUNT_MAX)]
    larger += [f"guarantee.{unit}" for unit, amount in guarantee.items() if amount > terms.guarantee.get(unit, 0)]
    if lease_s is not None and terms.lease_s is not None and lease_s > terms.lease_s:
        larger.append("lease_s")
    if larger:
        reason = "a handle can make its own budget smaller; larger takes the handle of one above, with `child`"
        raise LLMError("budget_denied", reason, path=larger[0])
