"""A scripted HTTP server on loopback: bytes written by hand, so that it can misbehave in every way a provider can.

A script is handed one Exchange for each request, and may answer, break off, reset, or wait for the client to go. The
server records what it was sent, which connections the client closed, and how many requests were in flight at once.
"""

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import anyio
import msgspec
from anyio.abc import TaskGroup

DEADLINE_S = 20

Script = Callable[["Exchange"], Awaitable[None]]

OK = {
    "id": "chatcmpl-1",
    "model": "m1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}
"""A chat completion, whole."""

DELTA = {"choices": [{"delta": {"content": "one "}}]}
LAST = {"choices": [{"delta": {"content": "two"}, "finish_reason": "stop"}], "usage": OK["usage"]}
"""A stream's first chunk, and its last."""


class Gone(Exception):
    """The client has closed the connection."""


@dataclass
class Request:
    """`connection` counts from 0: two requests with the same number came on one keep-alive connection."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


@dataclass
class Exchange:
    """One request, and the socket that it came on."""

    request: Request
    _socket: socket.socket
    number: int  # of the request, from 0
    closed: bool = field(default=False, init=False)

    async def send(self, data: bytes) -> None:
        """Raises Gone."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)
            except OSError:
                raise Gone from None

    async def head(self, status: int = 200, *headers: str, content_type: str = "application/json") -> None:
        """Only the status line and the headers."""
        lines = [f"HTTP/1.1 {status} Said", f"content-type: {content_type}", *headers]
        await self.send("\r\n".join(lines).encode() + b"\r\n\r\n")

    async def reply(self, body: Any = OK, status: int = 200, *headers: str, **kind: str) -> None:
        """A whole response, with its length."""
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        await self.head(status, f"content-length: {len(data)}", *headers, **kind)
        await self.send(data)

    async def begin_stream(self) -> None:
        await self.head(200, "transfer-encoding: chunked", content_type="text/event-stream")

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def event(self, data: Any) -> None:
        await self.chunk(b"data: " + (data if isinstance(data, bytes) else msgspec.json.encode(data)) + b"\n\n")

    async def end_stream(self) -> None:
        await self.event(b"[DONE]")
        await self.chunk(b"")

    def close(self) -> None:
        """In the middle of whatever it was: the client reads an end of file."""
        self.closed = True
        self._socket.close()

    def reset(self) -> None:
        """The client gets ECONNRESET."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    async def gone(self) -> None:
        """Wait until the client has closed the connection."""
        try:
            while await _receive(self._socket):
                pass
        except Gone:
            pass


class Upstream:
    """The server. Its `requests` grow as they come; `open` and `aborted` count connections."""

    def __init__(self, script: Script) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.open = 0
        self.in_flight = 0
        self.peak = 0
        self._script = script
        self._changed = anyio.Event()
        self._connections: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    async def until(self, happened: Callable[["Upstream"], bool]) -> None:
        """Wait until `happened` is true of this server."""
        while not happened(self):
            await self._changed.wait()

    async def serve(self) -> None:
        async with anyio.create_task_group() as group:
            while True:
                await anyio.wait_readable(self._listener)
                self._accept(group)

    def _accept(self, group: TaskGroup) -> None:
        try:
            while True:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                self._connections.add(connection)
                self._count(open=1)
                group.start_soon(self._serve_connection, connection, self.connections)
                self.connections += 1
        except BlockingIOError:
            pass

    def _count(self, open: int = 0, in_flight: int = 0) -> None:
        self.open += open
        self.in_flight += in_flight
        self.peak = max(self.peak, self.in_flight)
        self._changed.set()
        self._changed = anyio.Event()

    async def _serve_connection(self, connection: socket.socket, number: int) -> None:
        buffer = bytearray()
        try:
            while True:
                request = await _read_request(connection, buffer, number)
                self.requests.append(request)
                self._count(in_flight=1)
                exchange = Exchange(request, connection, len(self.requests) - 1)
                try:
                    await self._script(exchange)
                finally:
                    self._count(in_flight=-1)
                if exchange.closed:
                    return
        except Gone:
            pass
        finally:
            self._connections.discard(connection)
            connection.close()
            self._count(open=-1)

    def hang_up(self) -> None:
        """On everyone, whatever they were saying."""
        for connection in self._connections:
            connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[Upstream]:
    """A server that runs `script` for each request, for as long as a test may take."""
    upstream = Upstream(script)
    try:
        with anyio.fail_after(DEADLINE_S):
            async with anyio.create_task_group() as group:
                group.start_soon(upstream.serve)
                yield upstream
                group.cancel_scope.cancel()
    finally:
        upstream.close()


class Refusing:
    """A port of this machine where nobody listens, and nobody else will while this is open."""

    def __enter__(self) -> str:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()


async def _receive(connection: socket.socket) -> bytes:
    while True:
        try:
            data = connection.recv(65536)
        except BlockingIOError:
            await anyio.wait_readable(connection)
        except OSError:
            raise Gone from None
        else:
            return data


async def _read_request(connection: socket.socket, buffer: bytearray, number: int) -> Request:
    async def more() -> None:
        data = await _receive(connection)
        if not data:
            raise Gone
        buffer.extend(data)

    while (end := buffer.find(b"\r\n\r\n")) < 0:
        await more()
    first, *lines = bytes(buffer[:end]).decode().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0"))
    while len(buffer) < end + 4 + length:
        await more()
    body = bytes(buffer[end + 4 : end + 4 + length])
    del buffer[: end + 4 + length]
    return Request(method, target, headers, body, number)
