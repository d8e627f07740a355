"""`/v1`: OpenAI's API over the methods, for every client that speaks it."""

import time
from math import ceil
from secrets import token_hex
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from llmd.chat import Completion, Delta
from llmd.context import Context
from llmd.dialects.openai_replies import Chunks, Heading, error_object, model, models, whole
from llmd.dialects.openai_server import AUTO, read_request
from llmd.dialects.openai_server import Request as Asked
from llmd.errors import KINDS, LLMError
from llmd.rpc.base import Empty
from llmd.rpc.models import Models
from llmd.transports.http_calls import Calls, Pieces, cut_short

PREFIX = "/v1/"
BUDGET_HEADER = "x-llmd-budget"

_END = b"data: [DONE]\n\n"


class OpenAIApi:
    """The handlers of its routes."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def chat(self, request: Request) -> Response:
        ctx, body = await self._calls.admit_json(request)
        asked = read_request(body)
        if (budget := request.headers.get(BUDGET_HEADER)) is not None:
            asked = replace(asked, ask=replace(asked.ask, budget=budget))
        heading = Heading(f"chatcmpl-{token_hex(12)}", int(time.time()), asked.ask.model or AUTO)
        if asked.stream:
            return self._stream(heading, asked, ctx, len(body))
        made = await self._calls.relay(request, lambda: self._execute(asked, ctx), len(body))
        return _json(whole(heading, made))

    async def models(self, request: Request) -> Response:
        return _json(models(await self._models(request)))

    async def model(self, request: Request) -> Response:
        wanted = request.path_params["model"]
        for name, owner in await self._models(request):
            if name == wanted:
                return _json(model(name, owner))
        raise LLMError("model_not_found", f"there is no model {wanted[:128]!r}; GET /v1/models lists them")

    async def _models(self, request: Request) -> list[tuple[str, str]]:
        """What could be called, with the name of its provider."""
        ctx = self._calls.admit(request)
        self._calls.check_open()
        dispatcher = self._calls.hub.dispatcher
        listed: Models = await self._calls.relay(request, lambda: dispatcher.typed("models.list", Empty(), ctx))
        return [(AUTO, "llmd"), *((one.model, one.provider) for one in listed.models if one.health != "no_key")]

    async def _execute(self, asked: Asked, ctx: Context) -> Completion:
        self._calls.check_open()
        made: Completion = await self._calls.hub.dispatcher.typed("execute", asked.ask, ctx)
        return made

    def _stream(self, heading: Heading, asked: Asked, ctx: Context, size: int) -> Response:
        async def run(send: Pieces) -> None:
            told = _Told(Chunks(heading, asked.usage), send)
            try:
                made = await self._execute(asked, msgspec.structs.replace(ctx, stream=told))
            except LLMError as error:
                # Before anything is told, it still has a status of its own, on which clients try again.
                await send(_event(error_object(error)) if told.begun else refusal(error))
                return
            for chunk in told.chunks.end(made):
                await send(_event(chunk))
            await send(_END)

        return self._calls.streamed(run, _event(error_object(cut_short())), size)


class _Told:
    """context.Stream as chunks."""

    def __init__(self, chunks: Chunks, send: Pieces) -> None:
        self.chunks = chunks
        self.begun = False
        self._send = send

    async def delta(self, delta: Delta, index: int | UnsetType = UNSET) -> None:
        self.begun = True
        await self._send(_event(self.chunks.delta(delta)))

    async def done(self, index: int, outcome: str) -> None:
        raise AssertionError("there is one call")


def refusal(error: LLMError) -> Response:
    """An error in OpenAI's shape, with the headers that tell its SDKs whether to try again, and when."""
    headers = {"x-should-retry": "true" if error.retryable else "false"}
    if (wait_ms := error.data.get("retry_after_ms")) is not None:
        headers |= {"retry-after-ms": str(wait_ms), "retry-after": str(ceil(wait_ms / 1000))}
    return _json(error_object(error), KINDS[error.kind].http_status, headers)


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def _event(body: Any) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(body)
