"""`execute`: one request to a model."""

from llmd.chat import Ask, Completion
from llmd.context import Context
from llmd.errors import LLMError
from llmd.rpc.base import Method, Service


async def _execute(service: Service, ask: Ask, ctx: Context) -> Completion:
    if ask.idempotency_key is not None:
        # Taken and not kept, it would have a caller pay twice for what it believes to pay once.
        reason = "this version keeps no idempotency keys: leave it out, and a call that is lost was aborted upstream"
        raise LLMError("invalid_params", reason, path="idempotency_key")
    if ask.stream is None or ctx.emit is not None:
        return await service.executor.execute(ask, ctx, ctx.emit)
    with ctx.connection.stream(ask.stream) as emit:
        return await service.executor.execute(ask, ctx, emit)


EXECUTE = Method(Ask, Completion, "Make one LLM call and return its completion.", run=_execute)
