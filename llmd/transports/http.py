"""HTTP on loopback: the same methods for clients that speak nothing else.

uvicorn parses and Starlette routes; their request tasks live outside of our task groups, so they only relay: each call
runs in the daemon's group under a scope of its own, which a client that goes away cancels. A page in a browser cannot
call: Host and Origin must be of this machine and the body must say that it is JSON, which no form can.
"""

import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from typing import TypeVar

import anyio
import msgspec
import uvicorn
from anyio.abc import TaskGroup
from msgspec import Raw, Struct
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from llmd.context import Context, Notify, Stream
from llmd.core import jsonrpc
from llmd.core.jsonrpc import Batch, Ignored, Invalid, Item
from llmd.errors import LLMError, trace
from llmd.rpc.dispatch import Reply, error_message, error_reply
from llmd.rpc.hub import Hub
from llmd.rpc.streams import DeltaStream
from llmd.transports.http_messages import bearer_token, check_origin, event, response
from llmd.transports.peers import tcp_peer

log = logging.getLogger("llmd.transports")

T = TypeVar("T")

RETRY_AFTER_MS = 100
STREAM_TOKEN = "http"  # noqa: S105 - names the deltas of a response, which has no others


class _Server(uvicorn.Server):
    """Leaves the signals to the daemon."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _NoConnection:
    """A response to `/rpc` is one JSON value, and nothing of it lasts."""

    def stream(self, token: str) -> AbstractContextManager[Stream]:
        reason = "there is nothing to stream to: POST /execute with `Accept: text/event-stream`"
        raise LLMError("invalid_params", reason, path="stream")

    def watch(self, token: str, run: Callable[[Notify], Awaitable[None]]) -> None:
        raise LLMError("invalid_params", "over HTTP there is nothing to notify: watch over the socket", path="watch")

    def unwatch(self, token: str) -> bool:
        return False

    @property
    def ended(self) -> bool:
        return True  # nobody can call off a request but by going away

    def at_end(self, callback: Callable[[], None]) -> Callable[[], None]:
        raise LLMError("invalid_params", "over HTTP a connection is no more than a call", path="scope")


async def serve(listener: socket.socket, hub: Hub, group: TaskGroup, require_token: bool) -> None:
    """Accept until the daemon stops, then let what is in flight finish; cancelled, close what is left."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    config = uvicorn.Config(
        _App(hub, group, require_token).starlette,
        http="httptools",
        ws="none",
        lifespan="off",
        proxy_headers=False,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=hub.limits().connections,
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


class _App:
    """The routes, and how a request becomes a call."""

    def __init__(self, hub: Hub, group: TaskGroup, require_token: bool) -> None:
        self._hub = hub
        self._group = group
        self._require_token = require_token
        self.starlette = Starlette(
            routes=[
                Route("/execute", self._execute, methods=["POST"]),
                Route("/execute_many", self._execute, methods=["POST"]),
                Route("/rpc", self._rpc, methods=["POST"]),
                Route("/healthz", self._healthz, methods=["GET"]),
            ],
            exception_handlers={404: _no_such_route, 405: _no_such_route, LLMError: _refused, Exception: _broken},
        )

    async def _healthz(self, request: Request) -> Response:
        return Response(status_code=503 if self._hub.draining else 200)

    async def _execute(self, request: Request) -> Response:
        ctx, body = await self._admit(request)
        method = request.url.path.removeprefix("/")
        if "text/event-stream" in request.headers.get("accept", ""):
            return StreamingResponse(self._events(method, ctx, body), media_type="text/event-stream")
        reply = await self._relay(request, lambda: self._call(method, Raw(body), ctx), len(body))
        return response(reply)

    async def _rpc(self, request: Request) -> Response:
        ctx, body = await self._admit(request)
        message = jsonrpc.parse(body)
        if message is None:
            answer: bytes | None = error_message(jsonrpc.NULL_ID, LLMError("parse_error", "this is not JSON"))
        elif isinstance(message, Batch):
            answer = await self._relay(request, lambda: self._batch(message, ctx), len(body))
        else:
            answer = await self._relay(request, lambda: self._item(message, ctx), len(body))
        return Response(status_code=204) if answer is None else Response(answer, media_type="application/json")

    # -- from a request to a call ---------------------------------------------------------------------------------

    async def _admit(self, request: Request) -> tuple[Context, bytes]:
        """Who asks, and the body; raises LLMError where this must not be read further."""
        received = anyio.current_time()
        self._hub.messages += 1
        here, there = request.scope.get("server"), request.scope.get("client")
        if here is None or there is None:
            raise LLMError("unauthorized", "nobody can tell who this is")
        peer = tcp_peer("http", here, there)
        check_origin(request)
        ctx = Context(peer, f"h{next(self._hub.numbers)}", received, _NoConnection())
        if (self._require_token or not peer.own) and not self._has_token(request, ctx):
            raise LLMError("unauthorized", "send the daemon's token, as `Authorization: Bearer ...`")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise LLMError("invalid_request", "the body must be JSON, with `Content-Type: application/json`")
        return ctx, await self._body(request)

    def _has_token(self, request: Request, ctx: Context) -> bool:
        params = Raw(msgspec.json.encode({"token": bearer_token(request)}))
        return self._hub.dispatcher.now("daemon.auth", params, ctx).ok

    async def _body(self, request: Request) -> bytes:
        limit = self._hub.limits().frame_bytes
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise LLMError("too_large", f"the body is longer than {limit} bytes", limit=limit)
        return bytes(body)

    async def _call(self, method: str, params: Raw | None, ctx: Context) -> Reply:
        dispatcher = self._hub.dispatcher
        if not dispatcher.waits(method):
            return dispatcher.now(method, params, ctx)
        if self._hub.draining:
            return error_reply(LLMError("shutting_down", "the daemon is stopping", retry_after_ms=RETRY_AFTER_MS))
        return await dispatcher.run(method, params, ctx)

    async def _item(self, item: Item, ctx: Context) -> bytes | None:
        if isinstance(item, Ignored):
            return None
        if isinstance(item, Invalid):
            return error_message(item.id, LLMError("invalid_request", item.reason))
        reply = await self._call(item.method, item.params, ctx)
        return None if item.id is None else jsonrpc.render_reply(item.id, *reply)

    async def _batch(self, batch: Batch, ctx: Context) -> bytes | None:
        limit = self._hub.limits().batch
        if len(batch.items) > limit:
            return error_message(
                jsonrpc.NULL_ID, LLMError("too_large", f"a batch holds more than {limit} requests", limit=limit)
            )
        replies: list[bytes | None] = [None] * len(batch.items)

        async def answer(number: int, item: Item) -> None:
            replies[number] = await self._item(item, ctx)

        async with anyio.create_task_group() as items:
            for number, item in enumerate(batch.items):
                items.start_soon(answer, number, item)
        given = [reply for reply in replies if reply is not None]
        return jsonrpc.render_batch(given) if given else None

    # -- from a call to a response --------------------------------------------------------------------------------

    async def _relay(self, request: Request, run: Callable[[], Awaitable[T]], size: int) -> T:
        """What `run` returns, as a task of the daemon; a client that goes away cancels it."""
        outcome: list[T] = []

        async def keep() -> None:
            outcome.append(await run())

        async with self._started(keep, size) as ended, anyio.create_task_group() as watch:
            watch.start_soon(_until_gone, request, watch.cancel_scope)
            await ended.wait()
            watch.cancel_scope.cancel()
        if not outcome:
            raise LLMError("cancelled", "the call was cancelled", reason="shutting_down")
        return outcome[0]

    @asynccontextmanager
    async def _started(self, run: Callable[[], Awaitable[None]], size: int) -> AsyncIterator[anyio.Event]:
        """`run` as a task of the daemon, cancelled when the block ends; the event says that it has ended by itself."""
        hub = self._hub
        if hub.input_bytes + size > hub.limits().input_bytes:
            reason = "the calls in flight hold too many bytes in all"
            raise LLMError("busy", reason, retry_after_ms=RETRY_AFTER_MS)
        scope, ended = anyio.CancelScope(), anyio.Event()

        async def task() -> None:
            try:
                with scope:
                    await run()
            except Exception as error:
                log.error("a call over HTTP failed: %s", trace(error))
            finally:
                hub.finish(size)
                ended.set()

        hub.begin(size)
        self._group.start_soon(task)
        try:
            yield ended
        finally:
            scope.cancel()

    async def _events(self, method: str, ctx: Context, body: bytes) -> AsyncIterator[bytes]:
        """Deltas as they come, then the result or the error."""
        send, receive = anyio.create_memory_object_stream[bytes](0)

        async def notify(name: str, params: Struct) -> None:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # nobody listens any more
                await send.send(event(name.removeprefix("llmd."), msgspec.json.encode(params)))

        async def run() -> None:
            async with send:
                stream = DeltaStream(STREAM_TOKEN, notify)
                reply = await self._call(method, Raw(body), msgspec.structs.replace(ctx, stream=stream))
                await send.send(event("result" if reply.ok else "error", reply.body))

        async with self._started(run, len(body)), receive:
            async for piece in receive:
                yield piece


async def _until_gone(request: Request, scope: anyio.CancelScope) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, LLMError)
    return response(error_reply(error))


async def _no_such_route(request: Request, error: Exception) -> Response:
    reason = "POST /execute, POST /execute_many, POST /rpc and GET /healthz are served here"
    return response(error_reply(LLMError("method_not_found", reason)))


async def _broken(request: Request, error: Exception) -> Response:
    log.error("a request over HTTP failed: %s", trace(error))
    return response(error_reply(LLMError("internal_error", "something in llmd is broken; its log says what")))
