"""One physical try of a call: a hold of its own, a place at the provider, the request, and what is posted for it."""

import logging
from time import perf_counter
from typing import NamedTuple

import anyio
from msgspec.structs import replace

from llmd.books import Amounts
from llmd.budgets import Budgets, Held, Posting, Quote
from llmd.chat import Ask, Attempt, Delta, Usage
from llmd.context import Context
from llmd.core.amounts import spent
from llmd.core.bounds import bound
from llmd.core.health import Health, Trouble
from llmd.core.outcomes import Answer, Failure, Outcome
from llmd.core.pricing import cost_nano_usd
from llmd.core.rows import ModelRow
from llmd.dialects.base import Emit, HttpCall, Provider
from llmd.errors import LLMError
from llmd.meter import Meter
from llmd.traffic import WindowFull
from llmd.upstreams import Upstreams

log = logging.getLogger("llmd.call")


class Tried(NamedTuple):
    """`held` is what was asked and paid for, `outcome` what came back, `nano_usd` what it has cost."""

    held: Held
    outcome: Outcome
    nano_usd: int | None


class KeptBack(NamedTuple):
    """The target got into trouble while the call waited for its place: nothing was sent."""

    row: ModelRow
    trouble: Trouble


class Quoter:
    """Makes the requests of one attempt, and tells what they can cost."""

    def __init__(self, provider: Provider, ask: Ask, row: ModelRow, stream: bool) -> None:
        self._provider = provider
        self._ask = ask
        self._row = row
        self._stream = stream
        self._counted: int | None = None

    def __call__(self, max_tokens: int | None) -> Quote:
        call = self._provider.request(self._ask, self._row, max_tokens, self._stream)
        return Quote(call, bound(self._ask, call.body.decode(), self._row, max_tokens, self._counted))

    async def count(self, call: HttpCall) -> bool:
        self._counted = await self._provider.count(call)
        return self._counted is not None


class Attempts:
    """The tries of one call, in the order in which they ended."""

    def __init__(self, upstreams: Upstreams, budgets: Budgets, ctx: Context, meter: Meter) -> None:
        self.told: list[Attempt] = []
        # By a clock finer than the loop's, whose steps are of 1 ms.
        self._began = perf_counter()
        self._sent_s = 0.0  # with providers
        self._meter = meter
        self._upstreams = upstreams
        self._budgets = budgets
        self._ctx = ctx

    async def make(
        self, ask: Ask, row: ModelRow, emit: Emit | None, timeout_s: float | None, *, patient: bool = True
    ) -> Tried | KeptBack:
        """One try; the hold resolves on every way out. Who is not `patient` waits for no minute. Raises the budget's
        errors."""
        started = anyio.current_time()
        outcome: str | None = "cancelled"
        try:
            tried = await self._make(ask, row, emit, timeout_s, patient)
            outcome = kind(tried.outcome) if isinstance(tried, Tried) else None
            return tried
        except LLMError as error:
            outcome = error.kind
            self._meter.refusals[error.kind] += 1
            raise
        finally:
            if outcome is not None:
                took_ms = round((anyio.current_time() - started) * 1000)
                self.told.append(Attempt(row.provider, row.model, outcome, took_ms))

    def tell_unsent(self, error: LLMError) -> None:
        """The call has ended with this; where nothing of it was sent, no attempt has told of it."""
        if not self._sent_s:
            _tell(self._ctx, error.kind, self._ctx.received)

    def count_overhead(self) -> None:
        """The call has its answer. Of several attempts, some of which ran at once, nobody could tell it apart."""
        if len(self.told) == 1:
            self._meter.overhead.observe(perf_counter() - self._began - self._sent_s)

    async def _make(
        self, ask: Ask, row: ModelRow, emit: Emit | None, timeout_s: float | None, patient: bool
    ) -> Tried | KeptBack:
        upstreams, budgets, ctx, started = self._upstreams, self._budgets, self._ctx, anyio.current_time()
        row = budgets.learned(row)
        provider = upstreams.provider(row.provider)
        quoter = Quoter(provider, ask, row, stream=emit is not None)
        with anyio.CancelScope() as abort:
            held = await budgets.hold(ctx, ask, row, quoter, abort)
            outcome: Outcome | None = None
            sent_at: float | None = None
            gate, health = upstreams.traffic.gate(row.provider), upstreams.traffic.health(row)
            try:
                tokens = held.quote.bound.estimate.total_tokens
                async with gate.place(id(ctx.connection), tokens, patient=patient) as place:
                    await budgets.dispatch(held)
                    # Others may have found out more of the target; from here to its bytes nobody comes between.
                    if (trouble := health.trouble(anyio.current_time())) is not None:
                        return KeptBack(row, trouble)
                    place.sent, sent_at = True, perf_counter()
                    outcome = await _send(provider, held.quote.call, emit, timeout_s, health)
                    if outcome.usage is not None:
                        place.used = outcome.usage.total_tokens
            except WindowFull as full:
                return KeptBack(row, full.trouble)
            finally:
                nano_usd = None if outcome is None else cost(outcome, row)
                if sent_at is not None:
                    self._count(row, sent_at, outcome, nano_usd)
                    told = "cut short" if outcome is None else kind(outcome)
                    _tell(ctx, told, started, row, None if outcome is None else outcome.usage, nano_usd)
                resolved = posting(held, row, outcome, nano_usd) if sent_at is not None else Posting(None)
                if resolved.amounts is not None:
                    ctx.posted.append(resolved.amounts)
                await budgets.resolve(held, resolved)
            return Tried(held, outcome, nano_usd)
        raise LLMError("budget_closed", "the budget was closed, and the call that it paid for aborted")

    def _count(self, row: ModelRow, sent_at: float, outcome: Outcome | None, nano_usd: int | None) -> None:
        self._sent_s += perf_counter() - sent_at
        told, usage = ("cancelled", None) if outcome is None else (kind(outcome), outcome.usage)
        self._meter.attempted(row, told, usage, nano_usd)


def _tell(
    ctx: Context,
    outcome: str,
    started: float,
    row: ModelRow | None = None,
    usage: Usage | None = None,
    nano_usd: int | None = None,
) -> None:
    """One line in the log; no word of what was said."""
    facts = {
        "method": ctx.method,
        "peer_pid": ctx.peer.pid,
        "request_id": ctx.request_id,
        "provider": row and row.provider,
        "model": row and row.model,
        "outcome": outcome,
        "tokens": usage and usage.total_tokens,
        "cost_nano_usd": nano_usd,
        "ms": round((anyio.current_time() - started) * 1000),
    }
    target = "nobody" if row is None else row.target
    log.info("%s pid %s %.128r %s", ctx.request_id, ctx.peer.pid, target, outcome, extra={"fields": facts})


async def _send(
    provider: Provider, call: HttpCall, emit: Emit | None, timeout_s: float | None, health: Health
) -> Outcome:
    """Send it, and note how the model is doing."""
    started = anyio.current_time()
    first_s: float | None = None

    async def note(delta: Delta) -> None:
        nonlocal first_s
        if first_s is None:
            first_s = anyio.current_time() - started
        assert emit is not None
        await emit(delta)

    outcome: Outcome | None = None
    probe = health.enter()
    try:
        with anyio.move_on_after(timeout_s):
            outcome = await provider.send(call, None if emit is None else note)
        if outcome is None:
            outcome = Failure(kind="upstream_unavailable", message=f"no answer within {timeout_s or 0:g} s")
    finally:
        health.leave(anyio.current_time(), outcome, probe)
    if isinstance(outcome, Answer):
        health.took(anyio.current_time() - started, first_s)
    return outcome


def kind(outcome: Outcome) -> str:
    """ "ok", or the kind of its error."""
    return outcome.kind if isinstance(outcome, Failure) else "ok"


def posting(held: Held, row: ModelRow, outcome: Outcome | None, nano_usd: int | None) -> Posting:
    """What an attempt posts; `outcome` None where it was cancelled after its bytes may have left."""
    if outcome is not None and outcome.usage is not None and outcome.usage.total_tokens:
        return Posting(spent(outcome.usage, nano_usd))
    if isinstance(outcome, Failure) and outcome.billed == "no":
        return Posting(None)
    seen = outcome.seen if isinstance(outcome, Failure) else None
    return Posting(held.amounts if seen is None else _greater(held.amounts, seen, row), uncertain=True)


def _greater(bound: Amounts, seen: Usage, row: ModelRow) -> Amounts:
    """The bound, but what was seen of it where that is more."""
    inputs = max(bound.input_tokens, seen.input_tokens)
    outputs = max(bound.output_tokens, seen.output_tokens)
    usage = replace(seen, input_tokens=inputs, output_tokens=outputs, total_tokens=inputs + outputs)
    nano_usd = 0 if row.price is None else cost_nano_usd(usage, row.price)
    return spent(usage, max(bound.nano_usd, nano_usd))


def cost(outcome: Outcome, row: ModelRow) -> int | None:
    """In nano-USD: what the provider says that it bills, else what the price makes of the usage."""
    if outcome.cost_nano_usd is not None:
        return outcome.cost_nano_usd
    return None if row.price is None or outcome.usage is None else cost_nano_usd(outcome.usage, row.price)
