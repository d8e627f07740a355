"""`execute_many`: calls that run together under one budget, each with a result of its own."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import anyio
from msgspec import structs

from llmd.chat import Ask, Completion, Cost, Delta, Ended, ErrorObject, ManyAsk, ManyCompletions, Usage
from llmd.context import Context, Stream
from llmd.errors import LLMError
from llmd.many import Result, together
from llmd.rpc.base import Method, Service
from llmd.scalars import AMOUNT_MAX


async def _execute_many(service: Service, many: ManyAsk, ctx: Context) -> ManyCompletions:
    _check(many, service.limits().calls)
    # What has finished is told to whoever is too late, or has called it off.
    results: list[Ended | None] = [None] * len(many.calls)
    ctx.partial["results"] = results
    with anyio.CancelScope(deadline=ctx.received + many.timeout_ms / 1000), ExitStack() as stack:
        stream = ctx.stream
        if stream is None and many.stream is not None:
            stream = stack.enter_context(ctx.connection.stream(many.stream))

        async def ended(number: int, result: Result) -> None:
            results[number] = _told(result)
            if stream is not None:
                await stream.done(number, result.kind if isinstance(result, LLMError) else "ok")

        calls = [partial(_call, service, many, number, ctx, stream) for number in range(len(many.calls))]
        await together(calls, many.max_concurrency, ended)
        return _completions([result for result in results if result is not None])
    raise ctx.overdue()


def _check(many: ManyAsk, calls_max: int) -> None:
    if len(many.calls) > calls_max:
        raise LLMError("too_large", f"execute_many takes at most {calls_max} calls", limit=calls_max)
    for number, ask in enumerate(many.calls):
        if ask.stream is not None:
            raise LLMError("invalid_params", "`stream` goes beside `calls`", path=f"calls[{number}].stream")


async def _call(service: Service, many: ManyAsk, number: int, ctx: Context, stream: Stream | None) -> Completion:
    ask = many.calls[number]
    if ask.budget is None and many.budget is not None:
        ask = structs.replace(ask, budget=many.budget)
    own = structs.replace(ctx, request_id=f"{ctx.request_id}.{number}", stream=None, posted=[], partial={})
    if ask.idempotency_key is not None:
        return await service.replays.execute(ask, own, partial(_run, service, ask, number, own, stream))
    return await _run(service, ask, number, own, stream)


async def _run(service: Service, ask: Ask, number: int, ctx: Context, stream: Stream | None) -> Completion:
    if stream is None:
        return await service.executor.execute(ask, ctx)
    told = stream

    async def emit(delta: Delta) -> None:
        await told.delta(delta, number)

    return await service.executor.execute(ask, ctx, emit)


def _told(result: Result) -> Ended:
    return Ended(error=ErrorObject(**result.to_object())) if isinstance(result, LLMError) else Ended(ok=result)


def _completions(results: Sequence[Ended]) -> ManyCompletions:
    done = [result.ok for result in results if isinstance(result.ok, Completion)]
    costs = [None if one.cost is None else one.cost.nano_usd for one in done]
    known = [cost for cost in costs if cost is not None]
    counts = {
        name: min(AMOUNT_MAX, sum(getattr(one.usage, name) for one in done))
        for name in Usage.__struct_fields__
        if name != "exact"
    }
    usage = Usage(**counts, exact=all(one.usage.exact for one in done))
    cost = Cost(min(AMOUNT_MAX, sum(known))) if len(known) == len(costs) else None
    return ManyCompletions(list(results), usage, cost)


EXECUTE_MANY = Method(
    ManyAsk, ManyCompletions, "Make many LLM calls together; one that fails fails no other.", run=_execute_many
)
