"""Where every attempt takes its hold before bytes leave, and gives it back with what was spent.

The one budget there is grants everything, so that the executor's path is the same with and without a limit.
"""

from typing import Protocol

from msgspec import Struct

from llmd.context import Context
from llmd.core.amounts import Amounts
from llmd.core.bounds import Bound
from llmd.errors import LLMError


class Hold(Struct, frozen=True):
    """What one attempt has been granted."""

    bound: Bound


class Posting(Struct, frozen=True):
    """How a hold resolves: `amounts` None voids it; `uncertain` where they are the bound, for want of the truth."""

    amounts: Amounts | None
    uncertain: bool = False


class Budgets(Protocol):
    async def hold(self, ctx: Context, handle: str | None, bound: Bound) -> Hold:
        """Reserve `bound` in the budget; durable when it returns. Raises the budget errors."""
        ...

    async def resolve(self, hold: Hold, posting: Posting) -> None:
        """Once for each hold, on every way out of an attempt; called shielded from cancellation."""
        ...


class Unlimited:
    """Grants everything. There are no handles, so one that is given is unknown."""

    async def hold(self, ctx: Context, handle: str | None, bound: Bound) -> Hold:
        if handle is not None:
            raise LLMError("budget_unknown", "there is no such budget")
        return Hold(bound)

    async def resolve(self, hold: Hold, posting: Posting) -> None:
        return
