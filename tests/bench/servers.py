"""The bare servers that llmd is compared with, each a process of its own: `running` starts one and ends it.

lines     a Unix socket; answers each line with REPLY: nothing can answer a message for less on this event loop
upstream  HTTP/1.1 on loopback; answers each POST at once with one fixed chat completion
late      the same a second later
stream    the same with one fixed stream of it, its first event at once and the rest a little later
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import cast

import msgspec
import uvloop

from tests.support.daemon import running_daemon

REPLY = b'{"jsonrpc":"2.0","id":1,"result":{}}\n'

_COMPLETION = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello there."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    }
).encode()

_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(_COMPLETION),
    _COMPLETION,
)


_CHUNKS = [
    {"choices": [{"index": 0, "delta": {"content": "Hello there."}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}},
]
_FIRST, *_REST = (b"data: %b\n\n" % data for data in (*map(msgspec.json.encode, _CHUNKS), b"[DONE]"))
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_PAUSE_S = 0.003
LATENCY_S = 1.0


@dataclass
class RunningServer:
    process: subprocess.Popen[bytes]
    address: str


@contextmanager
def running(kind: str, address: str) -> Iterator[RunningServer]:
    """A server of this kind at this address (a path, or a port, 0 for any); yields once it listens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.servers", kind, address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        where = process.stdout.readline().decode().strip()
        assert where, f"the server {kind} did not start"
        yield RunningServer(process, where)
    finally:
        process.stdout.close()
        process.kill()
        process.wait()


daemon = partial(running_daemon, forked=False)
"""llmd as a user starts it."""


class _Lines(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = cast(asyncio.Transport, transport).write

    def data_received(self, data: bytes) -> None:
        if count := data.count(b"\n"):
            self._write(REPLY * count)


class _Upstream(asyncio.Protocol):
    """Reads as much of HTTP as its clients send: a head with Content-Length, and a body."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = cast(asyncio.Transport, transport).write
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            _, _, length = head.partition(b"content-length:")
            size = end + 4 + int(length.partition(b"\r\n")[0])
            if len(self._buffer) < size:
                return
            self._buffer = self._buffer[size:]
            self.answer()

    def answer(self) -> None:
        self._write(_RESPONSE)


class _Late(_Upstream):
    def answer(self) -> None:
        asyncio.get_running_loop().call_later(LATENCY_S, self._write, _RESPONSE)


class _Stream(_Upstream):
    def answer(self) -> None:
        self._write(_STREAM_HEAD + _chunk(_FIRST))
        asyncio.get_running_loop().call_later(_PAUSE_S, self._write, _chunk(b"".join(_REST)) + _chunk(b""))


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _serve(kind: str, address: str) -> None:
    loop = asyncio.get_running_loop()
    if kind == "lines":
        server: asyncio.Server = await loop.create_unix_server(_Lines, address)
    else:
        protocol = {"stream": _Stream, "late": _Late}.get(kind, _Upstream)
        server = await loop.create_server(protocol, "127.0.0.1", int(address))
        address = str(server.sockets[0].getsockname()[1])
    os.write(1, address.encode() + b"\n")
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(*sys.argv[1:]))
