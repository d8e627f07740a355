"""The cheapest client there is, a blocking socket: what is measured is the server."""

import re
import selectors
import socket
from pathlib import Path
from time import perf_counter

RECEIVE_BYTES = 256 * 1024
TIMEOUT_S = 30


class Lines:
    """A connection on which every message is a line."""

    def __init__(self, path: Path | str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(TIMEOUT_S)
        self._socket.connect(str(path))

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def one(self, request: bytes) -> bytes:
        """The reply to one request, with nothing else in flight."""
        self._socket.sendall(request)
        reply = self._socket.recv(RECEIVE_BYTES)
        while not reply.endswith(b"\n"):
            reply += self._received()
        return reply

    def send(self, requests: bytes) -> None:
        self._socket.sendall(requests)

    def receive(self, lines: int) -> None:
        """So many, and nothing behind them."""
        while lines:
            lines -= self._received().count(b"\n")

    def first(self, request: bytes, last: bytes) -> float:
        """Seconds until the first line that comes back; reads on to the end of the line that holds `last`."""
        began = perf_counter()
        self._socket.sendall(request)
        reply = self._received()
        took = perf_counter() - began
        while last not in reply or not reply.endswith(b"\n"):
            reply += self._received()
        return took

    def _received(self) -> bytes:
        data = self._socket.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the server closed the connection")
        return data

    def in_turn(self, request: bytes, count: int) -> float:
        """Seconds for `count` requests, each sent when the one before it is answered."""
        began = perf_counter()
        for _ in range(count):
            self.one(request)
        return perf_counter() - began

    def pipelined(self, requests: list[bytes], in_flight: int) -> float:
        """Seconds for all of `requests`, `in_flight` of them under way as long as there are that many."""
        sent, missing = min(in_flight, len(requests)), len(requests)
        began = perf_counter()
        self._socket.sendall(b"".join(requests[:sent]))
        while missing:
            answered = self._received().count(b"\n")
            missing -= answered
            if more := requests[sent : sent + answered]:
                self._socket.sendall(b"".join(more))
                sent += answered
        return perf_counter() - began


class Http:
    """Keep-alive connections, each with one request under way at most; answers tell their Content-Length."""

    def __init__(self, port: int, connections: int = 1) -> None:
        self._sockets = [socket.create_connection(("127.0.0.1", port), TIMEOUT_S) for _ in range(connections)]
        for connection in self._sockets:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> "Http":
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._sockets:
            connection.close()

    def one(self, request: bytes) -> bytes:
        """The body of the answer to one request, with nothing else in flight."""
        self._sockets[0].sendall(request)
        return _response(self._sockets[0])

    def in_turn(self, request: bytes, count: int) -> float:
        """Seconds for `count` requests, each sent when the one before it is answered."""
        began = perf_counter()
        for _ in range(count):
            self.one(request)
        return perf_counter() - began

    def together(self, request: bytes, count: int) -> float:
        """Seconds for `count` requests, one under way on each connection as long as there are that many."""
        began = perf_counter()
        with selectors.DefaultSelector() as selector:
            for connection in self._sockets:
                selector.register(connection, selectors.EVENT_READ)
                connection.sendall(request)
            left, missing = count - len(self._sockets), count
            while missing:
                for key, _ in selector.select(TIMEOUT_S):
                    connection = key.fileobj
                    assert isinstance(connection, socket.socket)
                    _response(connection)
                    missing -= 1
                    if left > 0:
                        connection.sendall(request)
                        left -= 1
        return perf_counter() - began


_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.I)


def _response(connection: socket.socket) -> bytes:
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0 or len(data) < end + 4 + _length(data[: end + 2]):
        more = connection.recv(RECEIVE_BYTES)
        if not more:
            raise ConnectionError("the server closed the connection")
        data += more
    assert data.startswith(b"HTTP/1.1 200 "), data
    return data[end + 4 :]


def _length(head: bytes) -> int:
    found = _LENGTH.search(head)
    assert found is not None, head
    return int(found[1])
