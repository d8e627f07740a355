"""HTTP on loopback: the same methods for clients that speak nothing else.

uvicorn parses and Starlette routes; http_calls makes calls of requests. A page in a browser cannot call: Host and
Origin must be of this machine and the body must say that it is JSON, which no form can.
"""

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import anyio
import msgspec
import uvicorn
from anyio.abc import TaskGroup
from msgspec import Raw, Struct
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from llmd.context import Context
from llmd.core import jsonrpc
from llmd.core.jsonrpc import Batch, Ignored, Invalid, Item
from llmd.errors import LLMError, trace
from llmd.rpc.dispatch import Reply, error_message, error_reply
from llmd.rpc.hub import Hub
from llmd.rpc.streams import DeltaStream
from llmd.transports import openai_api
from llmd.transports.http_calls import Calls, Pieces, cut_short
from llmd.transports.http_messages import event, response
from llmd.transports.http_protocol import bounded
from llmd.transports.metrics import CONTENT_TYPE, Metrics

log = logging.getLogger("llmd.transports")

STREAM_TOKEN = "http"  # noqa: S105 - names the deltas of a response, which has no others
GOODBYE_S = 2.0


class _Server(uvicorn.Server):
    """Leaves the signals to the daemon."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(listener: socket.socket, hub: Hub, group: TaskGroup, require_token: bool) -> None:
    """Accept until the daemon stops, then let what is in flight finish; cancelled, close what is left."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    config = uvicorn.Config(
        _application(Calls(hub, group, require_token)),
        http=bounded(hub),
        ws="none",
        lifespan="off",
        proxy_headers=False,
        log_config=None,
        access_log=False,
        server_header=False,
    )
    server = _Server(config)
    async with anyio.create_task_group() as own:
        own.start_soon(_run, server, listener)
        try:
            await hub.stopping.wait()
            server.should_exit = True
            await anyio.sleep_forever()
        finally:
            server.should_exit = server.force_exit = True


async def _run(server: uvicorn.Server, listener: socket.socket) -> None:
    # Cancelled, it would leave its request tasks behind: it ends by `should_exit`, within its own limit of time.
    with anyio.CancelScope(shield=True):
        await server.serve([listener])
        # What is left waits for its client, which sends no more of a body or does not read: there is no time for that.
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        if server.server_state.tasks:
            await asyncio.wait(server.server_state.tasks, timeout=GOODBYE_S)


def _application(calls: Calls) -> ASGIApp:
    methods, openai, metrics = _Methods(calls), openai_api.OpenAIApi(calls), Metrics(calls.hub)

    async def healthz(request: Request) -> Response:
        return Response(status_code=503 if calls.hub.draining else 200)

    async def told(request: Request) -> Response:
        calls.admit(request)
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    application = Starlette(
        routes=[
            Route("/execute", methods.execute, methods=["POST"]),
            Route("/execute_many", methods.execute, methods=["POST"]),
            Route("/rpc", methods.rpc, methods=["POST"]),
            Route("/v1/chat/completions", openai.chat, methods=["POST"]),
            Route("/v1/models", openai.models, methods=["GET"]),
            Route("/v1/models/{model:path}", openai.model, methods=["GET"]),
            Route("/metrics", told, methods=["GET"]),
            Route("/healthz", healthz, methods=["GET"]),
        ],
        exception_handlers={404: _no_such_route, 405: _no_such_route, LLMError: _refused, Exception: _broken},
    )

    application.router.redirect_slashes = False  # a path is one of these, or none

    async def quiet(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(Exception):  # raised again behind _broken, for the server to log it with its text
            await application(scope, receive, send)

    return quiet


class _Methods:
    """JSON-RPC's methods: by their name as the path, and as messages."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def execute(self, request: Request) -> Response:
        ctx, body = await self._calls.admit_json(request)
        if not jsonrpc.is_json(body):
            raise LLMError("parse_error", "the body is not JSON in UTF-8")
        method = request.url.path.removeprefix("/")
        if "text/event-stream" in request.headers.get("accept", ""):
            return self._events(method, ctx, body)
        return response(await self._calls.relay(request, lambda: self._call(method, Raw(body), ctx), len(body)))

    async def rpc(self, request: Request) -> Response:
        ctx, body = await self._calls.admit_json(request)
        message = jsonrpc.parse(body)
        if message is None:
            answer: bytes | None = error_message(jsonrpc.NULL_ID, LLMError("parse_error", "this is not JSON"))
        elif isinstance(message, Batch):
            answer = await self._calls.relay(request, lambda: self._batch(message, ctx), len(body))
        else:
            answer = await self._calls.relay(request, lambda: self._item(message, ctx), len(body))
        return Response(status_code=204) if answer is None else Response(answer, media_type="application/json")

    def _events(self, method: str, ctx: Context, body: bytes) -> Response:
        """Deltas as they come, then the result or the error."""

        async def run(send: Pieces) -> None:
            async def notify(name: str, params: Struct) -> None:
                await send(event(name.removeprefix("llmd."), msgspec.json.encode(params)))

            stream = DeltaStream(STREAM_TOKEN, notify)
            reply = await self._call(method, Raw(body), msgspec.structs.replace(ctx, stream=stream))
            await send(event("result" if reply.ok else "error", reply.body))

        return self._calls.streamed(run, event("error", error_reply(cut_short()).body), len(body))

    async def _call(self, method: str, params: Raw | None, ctx: Context) -> Reply:
        dispatcher = self._calls.hub.dispatcher
        if not dispatcher.waits(method):
            return dispatcher.now(method, params, ctx)
        try:
            self._calls.check_open()
        except LLMError as error:
            return error_reply(error)
        return await dispatcher.run(method, params, msgspec.structs.replace(ctx, method=method))

    async def _item(self, item: Item, ctx: Context) -> bytes | None:
        if isinstance(item, Ignored):
            return None
        if isinstance(item, Invalid):
            return error_message(item.id, LLMError("invalid_request", item.reason))
        reply = await self._call(item.method, item.params, ctx)
        return None if item.id is None else jsonrpc.render_reply(item.id, *reply)

    async def _batch(self, batch: Batch, ctx: Context) -> bytes | None:
        limit = self._calls.hub.limits().batch
        if len(batch.items) > limit:
            return error_message(
                jsonrpc.NULL_ID, LLMError("too_large", f"a batch holds more than {limit} requests", limit=limit)
            )
        replies: list[bytes | None] = [None] * len(batch.items)

        async def answer(number: int, item: Item) -> None:
            own = msgspec.structs.replace(ctx, request_id=f"{ctx.request_id}-{number + 1}", posted=[], partial={})
            replies[number] = await self._item(item, own)

        async with anyio.create_task_group() as items:
            for number, item in enumerate(batch.items):
                items.start_soon(answer, number, item)
        given = [reply for reply in replies if reply is not None]
        return jsonrpc.render_batch(given) if given else None


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, LLMError)
    return _told(request, error)


async def _no_such_route(request: Request, error: Exception) -> Response:
    reason = "served here: POST /execute, /execute_many, /rpc, /v1/chat/completions; GET /v1/models, /metrics, /healthz"
    return _told(request, LLMError("method_not_found", reason))


async def _broken(request: Request, error: Exception) -> Response:
    log.error("a request over HTTP failed: %s", trace(error))
    return _told(request, LLMError("internal_error", "something in llmd is broken; its log says what"))


def _told(request: Request, error: LLMError) -> Response:
    """In the words of whoever asks below this path."""
    if request.url.path.startswith(openai_api.PREFIX):
        return openai_api.refusal(error)
    return response(error_reply(error))
