"""How many connections there may be over HTTP, and of whom."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from llmd import paths
from tests.support.daemon import running_daemon
from tests.support.stranger import as_stranger, needs_root
from tests.transports.test_http_calls import everything
from tests.transports.test_tcp import free_port

CONFIG = """
[listen]
http = "http://127.0.0.1:{port}"

[limits]
connections = 3
"""


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Of a daemon that has room for three."""
    found = free_port()
    with running_daemon(tmp_path, config=CONFIG.format(port=found)):
        yield found


class Connections(ExitStack):
    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port

    def open(self) -> socket.socket:
        return self.enter_context(socket.create_connection(("127.0.0.1", self._port), timeout=20))


def status(connection: socket.socket, path: str, token: str = "") -> int:
    """Of the answer to one request; the connection stays open."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    answer = connection.makefile("rb")
    code = int(answer.readline().split()[1])
    length = 0
    while line := answer.readline().strip():
        name, _, value = line.partition(b": ")
        length = int(value) if name == b"content-length" else length
    answer.read(length)
    return code


def busy(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head
    assert b"retry-after: 1" in head
    return head.startswith(b"HTTP/1.1 429 ") and json.loads(body)["error"]["data"]["kind"] == "busy"


def test_above_their_limit_connections_are_told_busy_until_one_is_closed(port: int) -> None:
    with Connections(port) as connections:
        mine = [connections.open() for _ in range(3)]
        assert [status(one, "/v1/models") for one in mine] == [200] * 3
        assert busy(everything(connections.open()))
        mine[0].close()
        assert status(mine[1], "/healthz") == 200  # behind the close
        assert status(connections.open(), "/v1/models") == 200


@needs_root
def test_strangers_have_places_of_their_own_until_they_show_the_token(port: int) -> None:
    token = paths.token_file(os.environ).read_text().strip()

    def flood() -> bytes:
        with Connections(port) as connections:
            strangers = [connections.open() for _ in range(3)]
            assert [status(one, "/v1/models") for one in strangers] == [401] * 3
            refused = everything(connections.open())
            assert [status(strangers[0], "/v1/models", token) for _ in range(2)] == [200] * 2
            assert status(connections.open(), "/v1/models") == 401
            return refused

    assert busy(as_stranger(flood))
