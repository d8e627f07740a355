"""What an attempt needs of budgets: a hold before its bytes leave, and its resolution on every way out."""

from collections.abc import Mapping
from typing import Protocol

import anyio
from msgspec import Struct

from llmd.books import Amounts, Snapshot
from llmd.chat import Ask
from llmd.context import Context
from llmd.core.bounds import Bound
from llmd.core.holds import Hold
from llmd.core.rows import ModelRow
from llmd.dialects.base import HttpCall
from llmd.errors import LLMError


class Quote(Struct, frozen=True):
    """A request as it would be sent, and what it can cost at most."""

    call: HttpCall
    bound: Bound


class Quoter(Protocol):
    """Makes the requests of one attempt, and tells what they can cost."""

    def __call__(self, max_tokens: int | None) -> Quote: ...

    async def count(self, call: HttpCall) -> bool:
        """Ask the provider how many tokens this has; whether it told, and quotes are the better for it."""
        ...


class Held(Struct, frozen=True):
    """What one attempt was granted.

    amounts  what is posted if nobody tells what the attempt has cost
    hold     None where no budget stands behind it
    clamped  the max_tokens that the budget left, where that was less than what was asked for
    """

    quote: Quote
    amounts: Amounts
    hold: Hold | None = None
    clamped: int | None = None


class Posting(Struct, frozen=True):
    """How a hold resolves: `amounts` None voids it; `uncertain` where they are the bound, for want of the truth."""

    amounts: Amounts | None
    uncertain: bool = False


class Room(Protocol):
    """What a request's budget says of its targets, before anything is held. `labels` are those that its path fixes."""

    @property
    def labels(self) -> Mapping[str, str]: ...

    def denies(self, row: ModelRow) -> LLMError | None:
        """Why it pays for nothing there, whatever the call."""
        ...

    def refuses(self, ask: Ask, row: ModelRow, quote: Quoter) -> LLMError | None:
        """The same, or why it would not pay for this call now."""
        ...


class Budgets(Protocol):
    async def room(self, ask: Ask) -> Room | None:
        """Of the budget that the request names, or is under without naming one; None where there is none."""
        ...

    def learned(self, row: ModelRow) -> ModelRow:
        """The row with the overhead that its calls have turned out to have, where that is more than was known."""
        ...

    async def hold(self, ctx: Context, ask: Ask, row: ModelRow, quote: Quoter, abort: anyio.CancelScope) -> Held:
        """Reserve what `quote` of a max_tokens says, waiting for room as long as `ask` permits.

        `abort` is cancelled if the budget closes with cancel. Raises the budget errors.
        """
        ...

    async def dispatch(self, held: Held) -> None:
        """Durable when it returns: from here on bytes may leave. Raises ledger_unavailable."""
        ...

    async def resolve(self, held: Held, posting: Posting) -> None:
        """Once for each hold, on every way out of an attempt.

        Resolves it before it waits for anything. Where the answer rests on that, it returns only when it is durable: a
        caller that is cancelled waits for it, too, but not for ever. Raises ledger_unavailable.
        """
        ...

    def snapshot(self, held: Held) -> Snapshot | None:
        """The budget behind a hold as it is now."""
        ...
