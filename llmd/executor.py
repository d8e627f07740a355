"""The one path of an execute: plan, hold, attempt, settle. Daemon and library share it; anyio-neutral."""

import logging
from collections.abc import Callable

import anyio

from llmd.books import Snapshot
from llmd.budgets import Budgets, Held, Posting, Quote
from llmd.chat import (
    Ask,
    Attempt,
    Completion,
    Cost,
    Message,
    Route,
    StatePart,
    TextPart,
    ToolCallPart,
    Usage,
)
from llmd.context import Context
from llmd.core.amounts import spent
from llmd.core.bounds import bound
from llmd.core.pricing import cost_nano_usd
from llmd.core.routing import Target, plan
from llmd.core.rows import ModelRow
from llmd.dialects.base import Answer, Emit, Failure, HttpCall, Outcome, Provider
from llmd.errors import LLMError
from llmd.upstreams import Upstreams

RESOLVE_TIMEOUT_S = 10.0

log = logging.getLogger("llmd.call")


class Executor:
    """Executes requests on the upstreams that `upstreams()` gives at the time, so that a reload swaps them whole."""

    def __init__(self, upstreams: Callable[[], Upstreams], budgets: Budgets) -> None:
        self._upstreams = upstreams
        self._budgets = budgets

    async def execute(self, ask: Ask, ctx: Context, emit: Emit | None = None) -> Completion:
        """One request to its completion. Raises LLMError; cancelled, it aborts the attempt and settles it."""
        with anyio.CancelScope(deadline=ctx.received + ask.timeout_ms / 1000):
            return await self._execute(ask, ctx, emit)
        raise ctx.overdue()

    async def _execute(self, ask: Ask, ctx: Context, emit: Emit | None) -> Completion:
        upstreams = self._upstreams()
        targets = plan(ask, await upstreams.facts(ask.model is not None))
        attempts: list[Attempt] = []
        for target in targets:
            row = self._budgets.learned(upstreams.catalog.providers[target.provider].model_row(target.model))
            started = anyio.current_time()
            held, outcome = await self._attempt(upstreams, row, ask, ctx, emit)
            took = _ms_since(started)
            attempts.append(Attempt(row.provider, row.model, _kind(outcome), took))
            if isinstance(outcome, Failure):
                raise _error(outcome, target, attempts)
            latency_ms = _ms_since(ctx.received)
            return _completion(held, outcome, attempts, latency_ms, self._budgets.snapshot(held))
        raise AssertionError("a plan has targets")

    async def _attempt(
        self, upstreams: Upstreams, row: ModelRow, ask: Ask, ctx: Context, emit: Emit | None
    ) -> tuple[Held, Outcome]:
        """One physical try under a hold of its own, which resolves on every way out."""
        provider = upstreams.provider(row.provider)
        quoter = _Quoter(provider, ask, row, stream=emit is not None)
        with anyio.CancelScope() as abort:
            held = await self._budgets.hold(ctx, ask, row, quoter, abort)
            outcome: Outcome | None = None
            sent = False
            try:
                async with provider.place():
                    await self._budgets.dispatch(held)
                    sent = True
                    outcome = await provider.send(held.quote.call, emit)
            finally:
                resolved = posting(held, row, outcome) if sent else Posting(None)
                if resolved.amounts is not None:
                    ctx.posted.append(resolved.amounts)
                with anyio.move_on_after(RESOLVE_TIMEOUT_S, shield=True):
                    await self._budgets.resolve(held, resolved)
                kind = "cut short" if outcome is None else _kind(outcome)
                log.info("%s pid %s %.128r %s", ctx.request_id, ctx.peer.pid, row.target, kind)
            return held, outcome
        raise LLMError("budget_closed", "the budget was closed, and the call that it paid for aborted")


class _Quoter:
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


def _kind(outcome: Outcome) -> str:
    return outcome.kind if isinstance(outcome, Failure) else "ok"


def posting(held: Held, row: ModelRow, outcome: Outcome | None) -> Posting:
    """What an attempt posts; `outcome` None where it was cancelled after its bytes may have left."""
    if outcome is not None and outcome.usage is not None and outcome.usage.total_tokens:
        return Posting(spent(outcome.usage, _cost(outcome, row)))
    if isinstance(outcome, Failure) and outcome.billed == "no":
        return Posting(None)
    return Posting(held.amounts, uncertain=True)


def _cost(outcome: Outcome, row: ModelRow) -> int | None:
    if outcome.cost_nano_usd is not None:
        return outcome.cost_nano_usd
    return None if row.price is None or outcome.usage is None else cost_nano_usd(outcome.usage, row.price)


def _completion(
    held: Held, answer: Answer, attempts: list[Attempt], latency_ms: int, budget: Snapshot | None
) -> Completion:
    row = held.quote.call.row
    cost = _cost(answer, row)
    return Completion(
        text=answer.text,
        finish_reason=answer.finish_reason,
        provider=row.provider,
        model=row.model,
        tool_calls=answer.tool_calls,
        reasoning=answer.reasoning,
        message=_message(row.provider, answer),
        usage=answer.usage or Usage(exact=False),
        cost=None if cost is None else Cost(cost),
        budget=budget,
        route=Route(None, attempts),
        dropped=held.quote.call.dropped,
        latency_ms=latency_ms,
        provider_request_id=answer.request_id,
        clamped_max_tokens=held.clamped,
        replayed=False,
    )


def _message(provider: str, answer: Answer) -> Message:
    """The assistant's turn, ready to append to the messages of the next request."""
    said = answer.text or answer.refusal or ""
    if not answer.tool_calls and answer.state is None:
        return Message("assistant", said)
    calls = [ToolCallPart(call.id, call.name, call.arguments) for call in answer.tool_calls]
    state = [StatePart(provider, answer.state)] if answer.state is not None else []
    return Message("assistant", [*([TextPart(said)] if said else []), *calls, *state])


def _error(failure: Failure, target: Target, attempts: list[Attempt]) -> LLMError:
    return LLMError(
        failure.kind,
        f"{target.provider}/{target.model}: {failure.message}",
        retryable=failure.retryable,
        provider=target.provider,
        model=target.model,
        http_status=failure.http_status,
        retry_after_ms=None if failure.retry_after_s is None else round(failure.retry_after_s * 1000),
        provider_request_id=failure.request_id,
        provider_message=failure.provider_text,
        attempts=attempts,
    )


def _ms_since(started: float) -> int:
    return round((anyio.current_time() - started) * 1000)
