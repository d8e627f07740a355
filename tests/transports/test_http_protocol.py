"""What a client may send before it is known, and leave unread, over HTTP."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import RunningDaemon, running_daemon
from tests.transports.test_http import ECHO
from tests.transports.test_http_calls import EVENTS, everything, raw_post
from tests.transports.test_tcp import free_port

CONFIG = """
[listen]
http = "http://127.0.0.1:{port}"

[limits]
frame_bytes = 40000000
auth_ms = 600
stalled_write_ms = 300
"""
HEAD = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
POST = b"POST /execute HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture(autouse=True)
def daemon(tmp_path: Path, port: int) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path, config=CONFIG.format(port=port)) as running:
        yield running


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"\r\n" + HEAD, HEAD + b"\r\n" + b"\r\n"], ids=repr)
def test_a_head_that_does_not_come_whole_ends_the_connection(port: int, sent: bytes) -> None:
    with connected(port) as connection:
        connection.sendall(sent)
        assert everything(connection).count(b"200 OK") == sent.count(b"\r\n\r\n")


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"], ids=["unfinished", "whole"])
@pytest.mark.parametrize("before", [b"", HEAD + b"\r\n"], ids=["first", "second"])
def test_a_long_head_is_refused(port: int, before: bytes, end: bytes) -> None:
    with connected(port) as connection:
        if before:
            connection.sendall(before)
            assert b"200 OK" in connection.recv(65536)
        connection.sendall(HEAD + b"x: " + b"y" * 5000 + end)
        assert everything(connection).startswith(b"HTTP/1.1 400 ")


def test_a_head_as_clients_send_it_is_read(port: int) -> None:
    with connected(port) as connection:
        for _ in range(3):
            connection.sendall(HEAD + b"x: " + b"y" * 3000 + b"\r\n\r\n")
            assert b"200 OK" in connection.recv(65536)


def test_a_body_that_is_said_to_be_too_long_is_refused_before_it_comes(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(POST % 40_000_001)
        assert b'"kind":"too_large"' in everything(connection)


def test_a_body_that_stops_coming_is_refused(port: int) -> None:
    with raw_post(port, ECHO, missing=10) as connection:
        assert b'"kind":"deadline_exceeded"' in everything(connection)


@pytest.mark.parametrize("headers", [{}, EVENTS], ids=["whole", "streamed"])
def test_a_client_that_does_not_read_is_dropped(daemon: RunningDaemon, port: int, headers: dict[str, str]) -> None:
    with raw_post(port, {**ECHO, "prompt": "hello " * 3_000_000}, headers) as connection:
        connection.recv(1)
        while "does not read" not in daemon.log.read_text():
            pass
        assert len(everything(connection)) < 18_000_000
    assert daemon.stop() == 0
    assert "ERROR" not in daemon.log.read_text()
