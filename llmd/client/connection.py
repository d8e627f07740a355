"""One connection to the daemon for many calls at once, on asyncio or trio: who waits for which reply, and its stream.

Owns the bytes: one task reads, one writes, so that a call that is cancelled never leaves half a message behind.
"""

import itertools
import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import SocketStream
from msgspec import UNSET

from llmd.client import messages
from llmd.client.messages import Incoming
from llmd.client.wire import RECEIVE_BYTES, NoDaemon

GOODBYE_S = 2.0

_GONE = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


class Lost(Exception):
    """The connection broke before the answer."""


class Unread(Lost):
    """It broke before the daemon had read the request: nothing was done."""


async def connect(sockets: Iterable[Path]) -> "Connection":
    """To the first of `sockets` where somebody listens; `run` it. Raises NoDaemon."""
    tried = list(sockets)
    forbidden: Path | None = None
    for path in tried:
        try:
            return Connection(await anyio.connect_unix(path))
        except PermissionError:
            forbidden = forbidden or path
        except OSError:  # not there, refused, or a name too long: nobody to talk to
            continue
    raise NoDaemon(tried, forbidden)


class Exchange:
    """One call: what comes of it before the reply, and the reply."""

    def __init__(self, size: int) -> None:
        self.size = size  # of its request, in bytes
        # Without a bound: who reads slowly must not keep the replies of others waiting.
        self._in, self._out = anyio.create_memory_object_stream[bytes](math.inf)
        self._reply: Incoming | None = None
        self._lost: type[Lost] = Lost
        self.over = False

    async def heard(self) -> bytes | None:
        """The params of the next notification, None when there will be no more."""
        try:
            return await self._out.receive()
        except anyio.EndOfStream:
            return None

    async def reply(self) -> Incoming:
        """Raises Lost."""
        while await self.heard() is not None:
            pass
        if self._reply is None:
            raise self._lost
        return self._reply

    def tell(self, params: bytes) -> None:
        if not self.over:
            self._in.send_nowait(params)

    def end(self, reply: Incoming | None, lost: type[Lost] = Lost) -> None:
        """With the reply, or where there will be none, with what `reply` raises."""
        if not self.over:
            self.over, self._reply, self._lost = True, reply, lost
            self._in.close()

    def close(self) -> None:
        self.end(None)
        self._out.close()


class Connection:
    """Answers calls as long as `run` runs. `lost`: it takes no more of them."""

    def __init__(self, stream: SocketStream) -> None:
        self.lost = False
        self._refusal: Incoming | None = None
        self._stream = stream
        self._numbers = itertools.count(1)
        self._exchanges: dict[int, Exchange] = {}
        self._streams: dict[str, Exchange] = {}
        self._outbox, self._unsent = anyio.create_memory_object_stream[bytes](math.inf)

    async def run(self) -> None:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._write)
                with suppress(*_GONE, *messages.SENSELESS):  # what makes no sense is as good as no answer
                    await self._read()
                group.cancel_scope.cancel()
        finally:
            self.lost = True
            for exchange in self._exchanges.values():
                exchange.end(self._refusal)
            self._outbox.close()
            self._unsent.close()
            await anyio.aclose_forcefully(self._stream)

    async def call(self, method: str, params: Any) -> Incoming:
        """The reply. Cancelled, it cancels the call. Raises Lost."""
        async with self.exchange(method, params) as exchange:
            return await exchange.reply()

    @asynccontextmanager
    async def exchange(self, method: str, params: Any, stream: str | None = None) -> AsyncIterator[Exchange]:
        """A call as long as this block; left before the reply, it is cancelled. `stream` is the token of its deltas."""
        number = next(self._numbers)
        request = messages.request(number, method, params).encode()
        if self.lost:
            raise Unread
        exchange = Exchange(len(request))
        self._exchanges[number] = exchange
        if stream is not None:
            self._streams[stream] = exchange
        self._outbox.send_nowait(request + b"\n")
        try:
            yield exchange
        finally:
            if not exchange.over:
                self._outbox.send_nowait(messages.cancel(number).encode() + b"\n")
                with anyio.move_on_after(GOODBYE_S, shield=True), suppress(Lost):
                    await exchange.reply()
            exchange.close()
            del self._exchanges[number]
            self._streams.pop(stream or "", None)

    async def _write(self) -> None:
        with suppress(*_GONE):  # the reading end finds out, behind what has come before
            async for data in self._unsent:
                await self._stream.send(data)

    async def _read(self) -> None:
        buffer, at = bytearray(), 0
        while True:
            buffer += await self._stream.receive(RECEIVE_BYTES)
            while (end := buffer.find(b"\n", at)) >= 0:
                self._take(bytes(buffer[:end]))
                del buffer[: end + 1]
                at = 0
            at = len(buffer)

    def _take(self, line: bytes) -> None:
        message = messages.decode(line)
        if message.method is None:
            if message.id is None:
                self._refused(message)
            elif (exchange := self._exchanges.get(message.id)) is not None:
                exchange.end(message)
        elif message.method == "llmd.delta" and message.params is not UNSET:
            params = bytes(message.params)
            if (listener := self._streams.get(messages.decode_line(params).stream)) is not None:
                listener.tell(params)

    def _refused(self, refusal: Incoming) -> None:
        """The daemon reads no more. It answers what it has read before it closes, so what is left then was not done.

        Where a request was too long that is known at once: of it, and of all that came behind it.
        """
        self.lost = True
        limit = messages.longest(refusal)
        if limit is None:
            self._refusal = refusal
            return
        unread = False
        for exchange in self._exchanges.values():
            if exchange.size > limit:
                exchange.end(refusal)
                unread = True
            elif unread:
                exchange.end(None, Unread)
