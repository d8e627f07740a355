"""`execute`: one request to a model."""

from llmd.chat import Ask, Completion
from llmd.context import Context
from llmd.rpc.base import Method, Service


async def _execute(service: Service, ask: Ask, ctx: Context) -> Completion:
    if ask.idempotency_key is None:
        return await _run(service, ask, ctx)
    return await service.replays.execute(ask, ctx, lambda: _run(service, ask, ctx))


async def _run(service: Service, ask: Ask, ctx: Context) -> Completion:
    if ctx.stream is not None:
        return await service.executor.execute(ask, ctx, ctx.stream.delta)
    if ask.stream is None:
        return await service.executor.execute(ask, ctx)
    with ctx.connection.stream(ask.stream) as stream:
        return await service.executor.execute(ask, ctx, stream.delta)


EXECUTE = Method(Ask, Completion, "Make one LLM call and return its completion.", run=_execute)
