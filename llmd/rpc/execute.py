"""`execute`: one request to a model."""

from llmd.chat import Ask, Completion
from llmd.context import Context
from llmd.rpc.base import Method, Service


async def _execute(service: Service, ask: Ask, ctx: Context) -> Completion:
    if ask.idempotency_key is None:
        return await _run(service, ask, ctx)
    return await service.replays.execute(ask, ctx, lambda: _run(service, ask, ctx))


async def _run(service: Service, ask: Ask, ctx: Context) -> Completion:
    if ask.stream is None or ctx.emit is not None:
        return await service.executor.execute(ask, ctx, ctx.emit)
    with ctx.connection.stream(ask.stream) as emit:
        return await service.executor.execute(ask, ctx, emit)


EXECUTE = Method(Ask, Completion, "Make one LLM call and return its completion.", run=_execute)
