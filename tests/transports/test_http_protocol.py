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
CHUNKED = (
    b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
)


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


@pytest.mark.parametrize("trailers", [b"x: " + b"y" * 5000, b"x: y\r\n" * 1000], ids=["one", "many"])
def test_long_trailers_are_refused(port: int, trailers: bytes) -> None:
    with connected(port) as connection:
        connection.sendall(CHUNKED % b"/execute" + b"0\r\n")
        assert b" 100 " in connection.recv(65536)  # what follows comes by itself
        connection.sendall(trailers)
        assert everything(connection).startswith(b"HTTP/1.1 400 ")


def test_long_trailers_of_what_was_refused_end_the_connection(port: int) -> None:
    with connected(port) as connection:
        connection.sendall((CHUNKED % b"/nowhere").replace(b"Connection: close\r\n", b"") + b"0\r\n")
        assert b" 404 " in connection.recv(65536)
        connection.sendall(b"x: " + b"y" * 5000)
        assert b" 400 " in everything(connection)


def test_a_body_in_chunks_is_read_however_long_it_is(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(CHUNKED % b"/execute" + b'2c\r\n{"model": "echo/echo", "prompt": "hello you"\r\n')
        for _ in range(3):
            connection.sendall(b"bb8\r\n" + b" " * 3000 + b"\r\n")
        connection.sendall(b"1\r\n}\r\n0\r\nx: y\r\n\r\n")
        assert b'"text":"hello you"' in everything(connection)


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
