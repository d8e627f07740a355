"""How a request over HTTP becomes a call: who may make it, and how long it runs.

uvicorn's request tasks live outside of our task groups, so they only relay: each call runs in the daemon's group under
a scope of its own, which a client that goes away cancels.
"""

import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, suppress
from typing import TypeVar

import anyio
import msgspec
from anyio.abc import TaskGroup
from msgspec import Raw
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llmd.context import Context, Notify, Stream
from llmd.errors import LLMError, trace
from llmd.rpc.hub import RETRY_AFTER_MS, Hub
from llmd.transports.http_messages import bearer_token, check_origin
from llmd.transports.peers import labelled, tcp_peer

log = logging.getLogger("llmd.transports")

T = TypeVar("T")

Piece = bytes | Response
"""What is sent of a stream; a whole response, which can only be its first, is sent instead of one."""

Pieces = Callable[[Piece], Awaitable[None]]
"""Sends the next one; awaiting it is the back-pressure."""


class _NoConnection:
    """A response is one answer, and nothing of it lasts."""

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


class Calls:
    """What all requests share; `group` is the daemon's."""

    def __init__(self, hub: Hub, group: TaskGroup, require_token: bool) -> None:
        self.hub = hub
        self._group = group
        self._require_token = require_token

    def check_open(self) -> None:
        """Raises shutting_down where no new calls are taken."""
        if self.hub.draining:
            raise LLMError("shutting_down", "the daemon is stopping", retry_after_ms=RETRY_AFTER_MS)

    def admit(self, request: Request) -> Context:
        """Who asks; raises LLMError where this must not be read further."""
        received = anyio.current_time()
        self.hub.messages += 1
        here, there = request.scope.get("server"), request.scope.get("client")
        if here is None or there is None:
            raise LLMError("unauthorized", "nobody can tell who this is")
        peer = labelled(tcp_peer("http", here, there), self.hub.listed())
        check_origin(request)
        ctx = Context(peer, f"h{next(self.hub.numbers)}", received, _NoConnection())
        if (self._require_token or not peer.own) and not self._has_token(request, ctx):
            raise LLMError("unauthorized", "send the daemon's token, as `Authorization: Bearer ...`")
        request.state.vouch()
        return ctx

    async def admit_json(self, request: Request) -> tuple[Context, bytes]:
        """Who asks, and the body, which says that it is JSON, as no form can; raises LLMError."""
        ctx = self.admit(request)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise LLMError("invalid_request", "the body must be JSON, with `Content-Type: application/json`")
        return ctx, await self._body(request)

    async def _body(self, request: Request) -> bytes:
        limits = self.hub.limits()
        limit, patience_s = limits.frame_bytes, limits.stalled_write_ms / 1000
        too_large = LLMError("too_large", f"the body is longer than {limit} bytes", limit=limit)
        if int(request.headers.get("content-length", 0)) > limit:
            raise too_large
        body = bytearray()
        with anyio.move_on_after(patience_s) as scope:
            try:
                async for chunk in request.stream():
                    self._check_bytes(len(chunk))
                    body += chunk
                    self.hub.input_bytes += len(chunk)
                    if len(body) > limit:
                        raise too_large
                    scope.deadline = anyio.current_time() + patience_s
            except ClientDisconnect:
                raise LLMError("cancelled", "the client went away") from None
            finally:
                self.hub.input_bytes -= len(body)  # a call counts for itself
        if scope.cancelled_caught:
            raise LLMError("deadline_exceeded", "the rest of the body did not come: send it without long pauses")
        return bytes(body)

    def _check_bytes(self, size: int) -> None:
        """Raises busy where so many bytes would be more than all calls and unfinished messages may hold."""
        if self.hub.input_bytes + size > self.hub.limits().input_bytes:
            reason = "unfinished messages and calls in flight hold too many bytes in all"
            raise LLMError("busy", reason, retry_after_ms=RETRY_AFTER_MS)

    def _has_token(self, request: Request, ctx: Context) -> bool:
        params = Raw(msgspec.json.encode({"token": bearer_token(request)}))
        return self.hub.dispatcher.now("daemon.auth", params, ctx).ok

    async def relay(self, request: Request, run: Callable[[], Awaitable[T]], size: int = 0) -> T:
        """What `run` returns or raises, as a task of the daemon; a client that goes away cancels it.

        size  of what it works on, in bytes
        """
        outcome: list[T | LLMError] = []

        async def keep() -> None:
            try:
                outcome.append(await run())
            except LLMError as error:
                outcome.append(error)

        # Watched here: a task of its own for that, called off behind each answer, would cost more than all else here.
        async with self._started(keep, size) as until_ended:
            with until_ended:
                await _gone(request.receive)
        if not outcome:
            raise cut_short()
        if isinstance(outcome[0], LLMError):
            raise outcome[0]
        return outcome[0]

    def streamed(self, run: Callable[[Pieces], Awaitable[None]], cut: bytes, size: int = 0) -> Response:
        """Server-sent events: what `run` sends, as a task of the daemon; a client that goes away cancels it.

        Nothing is sent before the first piece, and where the daemon cannot wait for the last, `cut` is.
        """
        return _Streamed(lambda task: self._started(task, size), run, cut)

    @asynccontextmanager
    async def _started(self, run: Callable[[], Awaitable[None]], size: int) -> AsyncIterator[anyio.CancelScope]:
        """`run` as a task of the daemon, cancelled when the block ends; when it has ended by itself, the scope is."""
        hub = self.hub
        self._check_bytes(size)
        scope, until_ended = anyio.CancelScope(), anyio.CancelScope()

        async def task() -> None:
            try:
                with scope:
                    await run()
            except Exception as error:
                log.error("a call over HTTP failed: %s", trace(error))
            finally:
                hub.finish(size)
                until_ended.cancel()

        hub.begin(size)
        self._group.start_soon(task)
        try:
            yield until_ended
        finally:
            scope.cancel()


class _Streamed(Response):
    """A response whose call begins when the response does, and ends with it."""

    def __init__(
        self,
        started: Callable[[Callable[[], Awaitable[None]]], AbstractAsyncContextManager[object]],
        run: Callable[[Pieces], Awaitable[None]],
        cut: bytes,
    ) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._started = started
        self._run = run
        self._cut = cut
        self._whole = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        into, pieces = anyio.create_memory_object_stream[Piece](0)

        async def task() -> None:
            with suppress(anyio.BrokenResourceError):  # nobody listens any more
                async with into:
                    await self._run(into.send)
                    self._whole = True

        # In this order: a call must find itself called off before it finds that nobody takes its pieces.
        async with pieces, self._started(task), anyio.create_task_group() as watch:
            watch.start_soon(_cancel_when_gone, receive, watch.cancel_scope)
            await self._pass_on(pieces, scope, receive, send)
            watch.cancel_scope.cancel()

    async def _pass_on(self, pieces: AsyncIterable[Piece], scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def pass_on(piece: bytes) -> None:
            nonlocal begun
            if not begun:
                begun = True
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": piece, "more_body": True})

        async for piece in pieces:
            if isinstance(piece, Response):
                await piece(scope, receive, send)
                return
            await pass_on(piece)
        if not self._whole:
            await pass_on(self._cut)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def cut_short() -> LLMError:
    return LLMError("cancelled", "the call was cancelled", reason="shutting_down")


async def _gone(receive: Receive) -> None:
    """Return when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel_when_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    await _gone(receive)
    scope.cancel()
