"""What an execute takes from a budget: the hold of each attempt, and what it has cost in the end.

The amount held is the most that the attempt can cost. A call that named no max_tokens is cut to what its budget has
left; one that fits but for the holds of others waits its turn.
"""

import logging
from collections.abc import Callable

import anyio
from msgspec.structs import replace

from llmd.books import Amounts, Snapshot
from llmd.budgets import Held, Posting, Quote, Quoter
from llmd.chat import Ask
from llmd.clock import Now
from llmd.context import Context
from llmd.core.accounts import Path, available, fits, limited_units
from llmd.core.amounts import GUARDS, Packed, excess, guard, pack_all
from llmd.core.bounds import largest_answer
from llmd.core.budget import Budget
from llmd.core.holds import Call, Hold
from llmd.core.refusals import Refusal, refusal, refuse_closed
from llmd.core.rows import ModelRow
from llmd.core.snapshots import snapshot
from llmd.errors import LLMError
from llmd.treasury import Treasury

WAIT_MS = 30_000
OVERHEADS_MAX = 10_000
ANSWER_MIN = 16  # tokens: a cut answer is left so many at least, besides what it may think

log = logging.getLogger("llmd.ledger")


class Payer:
    """The budgets of `treasury` as the executor needs them. `default_max_tokens` is of a call that names none."""

    def __init__(self, treasury: Treasury, default_max_tokens: Callable[[], int]) -> None:
        self._treasury = treasury
        self._default_max_tokens = default_max_tokens
        self._overheads: dict[str, int] = {}

    def learned(self, row: ModelRow) -> ModelRow:
        overhead = self._overheads.get(row.target, 0)
        return row if overhead <= row.overhead_tokens else replace(row, overhead_tokens=overhead)

    async def room(self, ask: Ask) -> "_Room | None":
        budget = await self._budget(ask.budget)
        return None if budget is None else _Room(self._treasury, budget, self._default_max_tokens())

    async def hold(self, ctx: Context, ask: Ask, row: ModelRow, quote: Quoter, abort: anyio.CancelScope) -> Held:
        treasury = self._treasury
        budget = await self._budget(ask.budget)
        if budget is None:
            free = quote(ask.max_tokens)
            return Held(free, free.bound.amounts)
        treasury.check()
        if (denial := _denial(treasury, budget, row)) is not None:
            raise denial
        attempt = _Attempt(treasury, budget, ask, row, quote, self._default_max_tokens())
        if attempt.wants_count() and await quote.count(attempt.quote.call):
            attempt.quote_anew()
        attempt.check_bound()
        attempt.call = Call(ctx.request_id, row.target, ctx.received + ask.timeout_ms / 1000)
        wait_ms = WAIT_MS if ask.wait_ms is None else ask.wait_ms
        try:
            refused = await treasury.queues.wait(attempt.wants, attempt.reserve, wait_ms / 1000)
        except BaseException:
            if attempt.hold is not None:  # granted, while its call was cancelled
                self._void(attempt.hold)
            raise
        if refused is not None:
            raise attempt.error(refused)
        assert attempt.hold is not None
        treasury.aborts[attempt.hold.id] = abort
        treasury.watchers.stir(account.budget.id for account in attempt.hold.path)
        treasury.after(treasury.clock.now())
        return attempt.held()

    async def dispatch(self, held: Held) -> None:
        if held.hold is None:
            return
        if held.hold.id not in self._treasury.ledger.holds:
            raise LLMError(
                "budget_closed", "the budget was closed before this call was sent", budget=held.hold.budget.id
            )
        self._treasury.ledger.dispatch(held.hold)
        await self._treasury.flusher.flushed()

    async def resolve(self, held: Held, posting: Posting) -> None:
        hold, treasury = held.hold, self._treasury
        if posting.amounts is not None:
            self._learn(held.quote, posting.amounts)
        if hold is None:
            return
        treasury.aborts.pop(hold.id, None)
        if hold.id not in treasury.ledger.holds:
            return  # its budget has closed before its bytes left, or its time was over
        if posting.amounts is None:
            self._void(hold)
            return
        actual, now = pack_all(posting.amounts), treasury.clock.now()
        treasury.ledger.settle(now, hold, actual, uncertain=posting.uncertain)
        treasury.answers.posted(hold.call.request_id, actual)
        treasury.after(now, hold.path)
        if excess(actual, hold.amounts):
            await treasury.flusher.settled()

    def snapshot(self, held: Held) -> Snapshot | None:
        return None if held.hold is None else snapshot(self._treasury.clock.now(), held.hold.budget)

    def _learn(self, quote: Quote, actual: Amounts) -> None:
        """A bound that did not hold is too low for the next call, too."""
        over = actual.input_tokens - quote.bound.amounts.input_tokens
        row = quote.call.row
        if over > 0 and (row.target in self._overheads or len(self._overheads) < OVERHEADS_MAX):
            # Calls that were sent together end one by one: the largest of what they tell counts.
            self._overheads[row.target] = max(row.overhead_tokens + over, self._overheads.get(row.target, 0))
            log.warning("%.128r makes %d tokens more of a request than was known: its bounds grow", row.target, over)

    def _void(self, hold: Hold) -> None:
        if hold.id in self._treasury.ledger.holds:  # else its budget has closed meanwhile
            now = self._treasury.clock.now()
            self._treasury.ledger.void(now, hold)
            self._treasury.after(now, hold.path)

    async def _budget(self, name: str | None) -> Budget | None:
        if name is None:
            if self._treasury.roots.required:
                raise LLMError("budget_denied", "calls need a budget here: send `budget`")
            if self._treasury.roots.default is None:
                return None
        await self._treasury.ready()
        return self._treasury.default() if name is None else self._treasury.named(name)


class _Room:
    def __init__(self, treasury: Treasury, budget: Budget, default_max_tokens: int) -> None:
        self._treasury = treasury
        self._budget = budget
        self._default_max_tokens = default_max_tokens
        self.labels = budget.fixed_labels()

    def denies(self, row: ModelRow) -> LLMError | None:
        return _denial(self._treasury, self._budget, row)

    def refuses(self, ask: Ask, row: ModelRow, quote: Quoter) -> LLMError | None:
        if (denial := self.denies(row)) is not None:
            return denial
        attempt = _Attempt(self._treasury, self._budget, ask, row, quote, self._default_max_tokens)
        try:
            attempt.check_bound()
            refused = attempt.refusal()
        except LLMError as error:
            return error
        return None if refused is None else attempt.error(refused)


class _Attempt:
    """One hold to be had: `reserve` tries, and may be tried again."""

    def __init__(
        self,
        treasury: Treasury,
        budget: Budget,
        ask: Ask,
        row: ModelRow,
        quote: Quoter,
        default_max_tokens: int,
    ) -> None:
        self._treasury = treasury
        self._budget = budget
        self._row = row
        self._make = quote
        self._strict = any(node.terms.enforcement == "strict" for node in budget.lineage())
        longest = row.max_output_tokens or default_max_tokens
        self._wanted = ask.max_tokens if ask.max_tokens is not None else min(default_max_tokens, longest)
        self._clamps = ask.fit == "clamp" or (ask.fit is None and ask.max_tokens is None)
        thinking = ask.reasoning.tokens if ask.reasoning is not None else None
        self._least = min(self._wanted, ANSWER_MIN + (thinking or 0))
        self._full = self.quote = quote(self._wanted)
        self.hold: Hold | None = None
        self.call = Call()

    def wants(self) -> tuple[Path, Packed]:
        """What it would hold now, and where."""
        now = self._treasury.clock.now()
        quote = self._cut(now) if self._clamps else self._full
        return self._budget.path(now), pack_all(self._amounts(quote))

    def reserve(self) -> Refusal | None:
        """Hold what the call can cost, cut to what the budget has if it may be. Raises budget_closed."""
        refuse_closed(self._budget)
        now = self._treasury.clock.now()
        self.quote = self._cut(now) if self._clamps else self._full
        found = self._treasury.ledger.reserve(now, self._budget, pack_all(self._amounts(self.quote)), self.call)
        if isinstance(found, Refusal):
            return found
        self.hold = found
        return None

    def refusal(self) -> Refusal | None:
        """Why what it wants cannot be held now. Raises budget_closed."""
        refuse_closed(self._budget)
        path, amounts = self.wants()
        return None if fits(path, amounts) else refusal(self._treasury.clock.now(), self._budget, path, amounts)

    def held(self) -> Held:
        clamped = self.quote.bound.max_tokens if self.quote is not self._full else None
        return Held(self.quote, self._amounts(self.quote), self.hold, clamped)

    def error(self, refused: Refusal) -> LLMError:
        error = refused.error()
        fits = self._fits(self._treasury.clock.now())
        if not refused.contended and 0 < fits < self._wanted:
            error.data["max_tokens"] = fits
        return error

    def _amounts(self, quote: Quote) -> Amounts:
        return quote.bound.amounts if self._strict else quote.bound.estimate

    def _cut(self, now: Now) -> Quote:
        """The call with the longest answer that what is settled leaves room for."""
        path = self._budget.path(now)
        if fits(path, pack_all(self._amounts(self._full)), firm=True):
            return self._full
        longest = self._fits(now)
        return self._make(longest) if self._least <= longest < self._wanted else self._full

    def _fits(self, now: Now) -> int:
        room = available(self._budget.path(now), firm=True)
        return largest_answer(self._amounts(self._full), self._row, room)

    def wants_count(self) -> bool:
        """Whether the provider's own count could make room for it, or tell what nothing else can."""
        if self._row.counts is None or (self._strict and self._row.counts != "exact"):
            return False
        path = self._budget.path(self._treasury.clock.now())
        return not self._full.bound.sound or not fits(path, pack_all(self._amounts(self._full)), firm=True)

    def quote_anew(self) -> None:
        self._full = self.quote = self._make(self._wanted)

    def check_bound(self) -> None:
        """Raises budget_denied where what it could cost cannot be told and has to be."""
        if self._full.bound.sound or not self._strict:
            return
        row = self._row
        if _limited(self._treasury, self._budget) & (GUARDS ^ guard("requests")):
            reason = (
                f"what {row.target} could cost cannot be told: configure its context_tokens, or use a budget "
                'whose `enforcement` is "estimate"'
            )
            raise LLMError("budget_denied", reason, provider=row.provider, model=row.model, budget=self._budget.id)


def _denial(treasury: Treasury, budget: Budget, row: ModelRow) -> LLMError | None:
    """Why `budget` pays for nothing at `row`: budget_denied, unpriced_model."""
    if (denying := budget.forbids(row.provider, row.model)) is not None:
        return LLMError("budget_denied", f"{denying.id} does not allow {row.target}", budget=denying.id)
    if row.price is None and _limited(treasury, budget) & guard("nano_usd"):
        reason = f"{row.target} has no known price, and its budget has a limit in money: configure its price"
        return LLMError("unpriced_model", reason, provider=row.provider, model=row.model, budget=budget.id)
    return None


def _limited(treasury: Treasury, budget: Budget) -> Packed:
    return limited_units(budget.path(treasury.clock.now()))
