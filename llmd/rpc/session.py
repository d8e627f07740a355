"""One connection: its framing, ids, calls in flight, streams, limits and output queue.

Reads messages and answers each exactly once. What need not wait is answered there and then; every other call is a task
with a cancel scope of its own in the connection's task group, so that nothing outlives the connection. Refuses to know
sockets (transports/) and methods (dispatch).
"""

import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Protocol

import anyio
import anyio.lowlevel
import msgspec
from anyio.abc import TaskGroup
from msgspec import UNSET, Raw, Struct, UnsetType

from llmd.context import Context, Notify, Peer
from llmd.core import jsonrpc
from llmd.core.framing import Fault, FrameDecoder, frame
from llmd.core.jsonrpc import Batch, Call, Ignored, Invalid
from llmd.errors import LLMError
from llmd.rpc.batch import BatchReplies, Send
from llmd.rpc.dispatch import Reply, error_message, error_reply
from llmd.rpc.hub import RETRY_AFTER_MS, Hub
from llmd.rpc.output import Output
from llmd.rpc.streams import DeltaStream

log = logging.getLogger("llmd.rpc")

TURN_S = 0.005  # how long one connection's messages may keep the others waiting,
TURN_CALLS = 16  # and how many calls it may begin, which run before anybody else is read
LINGER_S = 2.0
LINGER_BYTES_MAX = 64 * 2**20


class ByteStream(Protocol):
    """What a transport gives: anyio's errors, EndOfStream where the peer has shut down its side."""

    async def read(self, take: Callable[[bytes], bool], /) -> None:
        """Hand what comes to `take`, a chunk at a time and without a detour, until it answers False.

        The first chunk is empty: what an earlier one left is taken from the same depth of the stack, since that is what
        limits how deep a message may nest.
        """
        ...

    async def send(self, data: bytes, /) -> None: ...

    def send_now(self, data: bytes | memoryview, /) -> int:
        """How many bytes could be written without waiting, 0 where that is not known."""
        ...

    async def send_eof(self) -> None: ...

    async def hung_up(self) -> None:
        """Return when the peer, having sent its last byte, has gone for good; wait forever if that cannot be told."""
        ...


class _CancelParams(Struct):
    """LSP's `id` and MCP's `requestId`: the bytes of the id to cancel."""

    id: Raw | UnsetType = UNSET
    requestId: Raw | UnsetType = UNSET


_CANCELS = frozenset({"$/cancelRequest", "notifications/cancelled"})
_decode_cancel = msgspec.json.Decoder(_CancelParams).decode


class Session:
    """Serves one connection with `run`, until either side ends it."""

    def __init__(self, hub: Hub, stream: ByteStream, peer: Peer, *, authorized: bool) -> None:
        limits = hub.limits()
        self._hub = hub
        self._stream = stream
        self._peer = peer
        self._authorized = authorized
        self._limits = limits
        self._number = next(hub.numbers)
        frame_bytes = limits.frame_bytes if authorized else limits.auth_bytes
        parse = partial(jsonrpc.parse, batch_max=limits.batch)
        self._decoder: FrameDecoder[jsonrpc.Message] = FrameDecoder(parse, frame_bytes)
        self._output = Output(limits.output_bytes, stream.send_now)
        self._taking = False  # what is answered while a chunk is read goes out together
        self._calls: dict[bytes, list[anyio.CancelScope]] = {}
        self._counted = 0  # what the hub counts of our unfinished message
        self._in_flight = 0
        self._requests = 0
        self._at_once = Context(peer, str(self._number), anyio.current_time(), self)  # of what is answered at once
        self._tokens: set[str] = set()
        self._watches: dict[str, anyio.CancelScope] = {}
        self._at_end: set[Callable[[], None]] = set()
        self.ended = False
        self._closing = False  # read no more; `_faulted` where the peer may still be sending
        self._faulted = False
        self._idle = anyio.Event()
        self._reading = anyio.CancelScope()
        self._group: TaskGroup

    async def run(self) -> None:
        """Serve until the connection ends. Raises nothing but cancellation."""
        hub = self._hub
        try:
            hub.enter(self, known=self._authorized or self._peer.own)
        except LLMError as error:
            self._refuse(error)
            self._faulted = False  # it is not waited for: that would be a connection more
        hub.sessions.add(self)
        log.debug("connection %d: pid %s uid %s", self._number, self._peer.pid, self._peer.uid)
        try:
            async with anyio.create_task_group() as self._group:
                self._group.start_soon(self._write)
                try:
                    await self._read()
                    await self._finish()
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    log.debug("connection %d: lost", self._number)
                self._drop()
        finally:
            hub.leave(self)
            for callback in list(self._at_end):
                callback()
            self._count_input(0)
            # What was never read or written must not wait until the collector finds us.
            self._decoder.end()
            self._output.discard()

    def end(self) -> None:
        """Read no more, finish what is in flight, answer it and close."""
        self._closing = True
        self._reading.cancel()

    def cancel_calls(self) -> None:
        """Cancel every call in flight; each is answered."""
        for scope in [scope for scopes in self._calls.values() for scope in scopes]:
            scope.cancel()

    # -- reading --------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Read until the peer or we have had enough."""
        with self._reading as scope:
            if not self._authorized:
                scope.deadline = anyio.current_time() + self._limits.auth_ms / 1000
            try:
                while not self._closing:
                    await self._stream.read(self._take_chunk)
                    await self._output.room()
                    await anyio.lowlevel.checkpoint()
            except anyio.EndOfStream:
                if (fault := self._decoder.end()) is not None:
                    self._fault(fault)
        if scope.cancelled_caught and not self._closing:
            self._refuse(LLMError("unauthorized", "no token came in time"))

    def _count_input(self, buffered: int) -> None:
        """Keep the sum of all connections' unfinished messages, and its limit."""
        hub = self._hub
        hub.input_bytes += buffered - self._counted
        self._counted = buffered
        if hub.input_bytes > self._limits.input_bytes and buffered and not self._closing:
            self._refuse(LLMError("busy", "too many unfinished messages in all", retry_after_ms=RETRY_AFTER_MS))

    def _take_chunk(self, data: bytes) -> bool:
        """Take the messages that `data` completes, and answer what can be answered at once; False to pause reading."""
        self._taking, paused = True, False
        until, begun = time.monotonic() + TURN_S, self._requests
        for message in self._decoder.feed(data):
            self._take(message)
            # One chunk may hold a thousand requests, whose answers are a thousand times their size, or take their time.
            if paused := self._closing or self._output.is_full() or self._turn_is_over(until, begun):
                break
        self._taking = False
        self._output.flush()
        self._count_input(self._decoder.buffered)
        # Room that has come since does not count: what is left in the decoder must not wait for the next byte.
        return not (paused or self._closing or self._output.is_full())

    def _turn_is_over(self, until: float, begun: int) -> bool:
        return self._requests - begun >= TURN_CALLS or time.monotonic() > until

    def _take(self, message: jsonrpc.Message | Fault) -> None:
        self._hub.messages += 1
        if isinstance(message, Fault):
            self._fault(message)
        elif not self._authorized:
            self._authorize(message)
        elif isinstance(message, Batch):
            self._batch(message)
        else:
            self._item(message, self._send, _is_duplicate(message, self._calls))

    def _fault(self, fault: Fault) -> None:
        if fault is Fault.TOO_LARGE:
            limit = self._decoder.limit
            self._refuse(LLMError("too_large", f"a message is longer than {limit} bytes", limit=limit))
        elif fault is Fault.GARBLED:
            self._refuse(LLMError("parse_error", "neither JSON nor a Content-Length header"))
        elif not self._authorized:
            self._refuse(LLMError("parse_error", "this is not JSON"))
        else:
            reason = "neither a JSON object nor an array of them"
            self._send_error(jsonrpc.NULL_ID, LLMError("parse_error", reason), self._send)

    def _refuse(self, error: LLMError, identifier: bytes = jsonrpc.NULL_ID) -> None:
        """Say why, then close."""
        self._send_error(identifier, error, self._send)
        self._closing = self._faulted = True

    def _authorize(self, message: jsonrpc.Message) -> None:
        """The first message of a connection that has no right yet: `daemon.auth`, or the end."""
        identifier = message.id if isinstance(message, Call) and message.id is not None else jsonrpc.NULL_ID
        if isinstance(message, Call) and message.method == "daemon.auth":
            reply = self._hub.dispatcher.now(message.method, message.params, self._at_once)
            if reply.ok:
                try:
                    self._hub.enter(self, known=True)
                except LLMError as error:
                    self._refuse(error, identifier)
                    return
                self._authorized = True
                self._decoder.limit = self._limits.frame_bytes
                self._reading.deadline = math.inf
                self._answer(message, reply, self._send)
                return
            reason = "this is not the daemon's token"
        else:
            reason = "call daemon.auth with the daemon's token first"
        if self._peer.transport == "unix":
            reason = "this daemon serves its own user"
        self._refuse(LLMError("unauthorized", reason), identifier)

    # -- calls ----------------------------------------------------------------------------------------------------

    def _batch(self, batch: Batch) -> None:
        if len(batch.items) > self._limits.batch:
            limit = self._limits.batch
            error = LLMError("too_large", f"a batch holds more than {limit} requests", limit=limit)
            self._send_error(jsonrpc.NULL_ID, error, self._send)
            return
        replies = BatchReplies(self._send)
        # Judged before any of them starts: within one batch, two requests may share an id.
        duplicates = [_is_duplicate(item, self._calls) for item in batch.items]
        for item, duplicate in zip(batch.items, duplicates, strict=True):
            self._item(item, replies.slot(item), duplicate)
        replies.seal()

    def _item(self, item: jsonrpc.Item, send: Send, duplicate: bool) -> None:
        if isinstance(item, Ignored):
            return
        if isinstance(item, Invalid):
            self._send_error(item.id, LLMError("invalid_request", item.reason), send)
        elif duplicate:
            reason = "a request with this id is in flight on this connection"
            self._send_error(jsonrpc.NULL_ID, LLMError("invalid_request", reason), send)
        elif item.method in _CANCELS and item.id is None:
            self._cancel(item.params)
        elif not self._hub.dispatcher.waits(item.method):
            self._answer(item, self._hub.dispatcher.now(item.method, item.params, self._at_once), send)
        elif self._hub.draining:
            error = LLMError("shutting_down", "the daemon is stopping", retry_after_ms=RETRY_AFTER_MS)
            self._answer(item, error_reply(error), send)
        elif self._in_flight >= self._limits.in_flight:
            self._answer_busy(item, f"{self._limits.in_flight} calls are in flight on this connection", send)
        elif self._hub.input_bytes - self._counted + _size(item) > self._limits.input_bytes:
            self._answer_busy(item, "the calls in flight hold too many bytes in all", send)
        else:
            self._start(item, send)

    def _cancel(self, params: Raw | None) -> None:
        try:
            wanted = _decode_cancel(params or b"{}")
        except msgspec.DecodeError:
            return  # a notification has no answer
        identifier = wanted.requestId if wanted.id is UNSET else wanted.id
        if identifier is not UNSET:
            for scope in self._calls.get(bytes(identifier), ()):
                scope.cancel()

    def _start(self, call: Call, send: Send) -> None:
        scope = anyio.CancelScope()
        if call.id is not None:
            self._calls.setdefault(call.id, []).append(scope)
        self._in_flight += 1
        self._hub.begin(_size(call))
        self._requests += 1
        number = f"{self._number}-{self._requests}"
        ctx = Context(self._peer, number, anyio.current_time(), self, method=call.method)
        self._group.start_soon(self._run_call, call, scope, ctx, send)

    async def _run_call(self, call: Call, scope: anyio.CancelScope, ctx: Context, send: Send) -> None:
        try:
            reply = None
            with scope:
                reply = await self._hub.dispatcher.run(call.method, call.params, ctx)
            if reply is None:
                reply = error_reply(ctx.cancelled("shutting_down" if self._hub.draining else "client"))
            await self._output.room()
            self._answer(call, reply, send)
        finally:
            if call.id is not None:
                scopes = self._calls[call.id]
                scopes.remove(scope)
                if not scopes:
                    del self._calls[call.id]
            self._in_flight -= 1
            self._hub.finish(_size(call))
            if self._in_flight == 0:
                self._idle.set()

    # -- answers --------------------------------------------------------------------------------------------------

    def _answer(self, call: Call, reply: Reply, send: Send) -> None:
        if call.id is not None:
            send(jsonrpc.render_reply(call.id, reply.ok, reply.body))

    def _answer_busy(self, call: Call, reason: str, send: Send) -> None:
        self._answer(call, error_reply(LLMError("busy", reason, retry_after_ms=RETRY_AFTER_MS)), send)

    def _send_error(self, identifier: bytes, error: LLMError, send: Send) -> None:
        send(error_message(identifier, error))

    def _send(self, message: bytes) -> None:
        # A task's reply waits for the writer's turn, and leaves with those of the tasks that end before it.
        self._output.push(frame(message, self._decoder.style), wake=not self._taking)

    # -- what a call may use of its connection (context.Connection) -----------------------------------------------

    @contextmanager
    def stream(self, token: str) -> Iterator[DeltaStream]:
        """Stream to this connection under `token`, which nobody else may use meanwhile."""
        if token in self._tokens:
            raise LLMError("invalid_params", "this stream token is in use", path="stream")
        self._tokens.add(token)
        try:
            yield DeltaStream(token, self._notify)
        finally:
            self._tokens.discard(token)

    async def _notify(self, method: str, params: Struct) -> None:
        await self._output.room()
        if not self.ended:  # else a call with a key goes on, and nobody reads
            self._send(jsonrpc.render_notification(method, params))

    def watch(self, token: str, run: Callable[[Notify], Awaitable[None]]) -> None:
        if token in self._watches:
            raise LLMError("invalid_params", "this watch token is in use", path="watch")
        if len(self._watches) >= self._limits.watches:
            raise LLMError("busy", f"this connection watches {self._limits.watches} budgets")
        self._watches[token] = scope = anyio.CancelScope()
        self._group.start_soon(self._run_watch, token, scope, run)

    async def _run_watch(self, token: str, scope: anyio.CancelScope, run: Callable[[Notify], Awaitable[None]]) -> None:
        with scope:
            await run(self._notify)
        if self._watches.get(token) is scope:
            del self._watches[token]

    def unwatch(self, token: str) -> bool:
        scope = self._watches.pop(token, None)
        if scope is not None:
            scope.cancel()
        return scope is not None

    def at_end(self, callback: Callable[[], None]) -> Callable[[], None]:
        self._at_end.add(callback)
        return partial(self._at_end.discard, callback)

    # -- writing and ending ---------------------------------------------------------------------------------------

    async def _write(self) -> None:
        """The one writer. A peer that takes nothing for `stalled_write_ms` is dropped."""
        with anyio.CancelScope() as scope:
            while True:
                data = await self._output.take()
                scope.deadline = anyio.current_time() + self._limits.stalled_write_ms / 1000
                try:
                    await self._stream.send(data)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    break
                scope.deadline = math.inf
                self._output.written(len(data))
        if scope.cancelled_caught:
            log.info("connection %d: dropped, it does not read", self._number)
        self._drop()

    async def _finish(self) -> None:
        """The peer will send no more, or we will read no more: answer what is in flight, unless the peer hangs up."""
        async with anyio.create_task_group() as group:
            if self._in_flight or self._output.size:
                group.start_soon(self._cancel_when_gone)
            while self._in_flight:
                self._idle = anyio.Event()
                await self._idle.wait()
            await self._output.flushed()
            group.cancel_scope.cancel()
        if self._faulted:
            await self._linger()

    async def _cancel_when_gone(self) -> None:
        await self._stream.hung_up()
        self._drop()

    def _drop(self) -> None:
        """Nobody is there any more; the calls that are cancelled by it see that it has `ended`."""
        self.ended = True
        self._group.cancel_scope.cancel()

    async def _linger(self) -> None:
        """Let a peer that is still sending read why it was cut off: closing at once would throw the answer away."""
        with suppress(OSError):  # the peer has gone
            await self._stream.send_eof()
        read = 0

        def discard(data: bytes) -> bool:
            nonlocal read
            read += len(data)
            return read < LINGER_BYTES_MAX

        with anyio.move_on_after(LINGER_S), suppress(anyio.EndOfStream):
            await self._stream.read(discard)


def _size(call: Call) -> int:
    params = 0 if call.params is None else memoryview(call.params).nbytes
    return params + len(call.id or b"")


def _is_duplicate(item: jsonrpc.Item, calls: dict[bytes, list[anyio.CancelScope]]) -> bool:
    return isinstance(item, Call) and item.id in calls and item.id != jsonrpc.NULL_ID
