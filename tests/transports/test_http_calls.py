"""A call over HTTP lives as long as its client and its daemon do."""

import json
import signal
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.types import Message

from llmd.rpc.hub import Hub
from llmd.settings import Limits
from llmd.transports.http_calls import Calls, Pieces
from tests.support.daemon import RunningDaemon, running_daemon
from tests.transports.test_http import ECHO
from tests.transports.test_tcp import free_port

CONFIG = """
[listen]
http = "http://127.0.0.1:{port}"

[providers.slow]
dialect = "echo"
latency_ms = 700

[providers.stuck]
dialect = "echo"
latency_ms = 600000

[limits]
input_bytes = 500
drain_ms = {drain_ms}
"""
EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def daemon(tmp_path: Path, port: int) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path, config=CONFIG.format(port=port, drain_ms=20000)) as running:
        yield running


def request(params: dict[str, Any], headers: Mapping[str, str] | None = None, missing: int = 0) -> bytes:
    """A POST whose body tells of so many bytes more than there are."""
    body = json.dumps(params)
    lines = [
        "POST /execute HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/json",
        f"Content-Length: {len(body) + missing}",
    ]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def raw_post(
    port: int, params: dict[str, Any], headers: Mapping[str, str] | None = None, missing: int = 0, then: bytes = b""
) -> socket.socket:
    """A request on a connection that the test can break.

    then  is sent behind it, at once
    """
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(request(params, headers, missing) + then)
    return connection


def everything(connection: socket.socket) -> bytes:
    answer = b""
    while chunk := connection.recv(65536):
        answer += chunk
    return answer


def wait_until_in_flight(daemon: RunningDaemon, port: int) -> None:
    """A second request is answered behind the first one's start."""
    assert httpx.post(f"http://127.0.0.1:{port}/execute", json=ECHO, timeout=20).status_code == 200


@pytest.mark.parametrize("headers", [{}, EVENTS], ids=["whole", "streamed"])
def test_a_client_that_goes_away_cancels_its_call(daemon: RunningDaemon, port: int, headers: dict[str, str]) -> None:
    with raw_post(port, {**ECHO, "model": "stuck/x"}, headers):
        wait_until_in_flight(daemon, port)
    # Were the call still in flight, the drain would wait for it, as long as `stop` does for the process.
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log.read_text()


@pytest.mark.parametrize("headers", [{}, EVENTS], ids=["whole", "streamed"])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_client_that_goes_away_cancels_its_call_before_others_that_wait(
    daemon: RunningDaemon, port: int, headers: dict[str, str], at_once: bool
) -> None:
    waiting = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with raw_post(port, {**ECHO, "model": "stuck/x"}, headers, then=waiting if at_once else b"") as connection:
        wait_until_in_flight(daemon, port)
        if not at_once:
            connection.sendall(waiting)
        wait_until_in_flight(daemon, port)
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log.read_text()


def test_a_call_that_has_waited_is_cancelled_before_others_that_wait(daemon: RunningDaemon, port: int) -> None:
    with raw_post(port, ECHO, then=request({**ECHO, "model": "stuck/x"}) * 2) as connection:
        assert b" 200 " in connection.recv(65536)
        wait_until_in_flight(daemon, port)
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log.read_text()


@pytest.mark.parametrize("headers", [{}, EVENTS], ids=["whole", "streamed"])
def test_a_client_that_goes_away_in_the_middle_of_its_body_is_no_error(
    daemon: RunningDaemon, port: int, headers: dict[str, str]
) -> None:
    with raw_post(port, ECHO, headers, missing=10):
        wait_until_in_flight(daemon, port)
    assert daemon.stop() == 0
    assert "ERROR" not in daemon.log.read_text()


def test_a_stop_finishes_what_is_in_flight(daemon: RunningDaemon, port: int) -> None:
    with raw_post(port, {**ECHO, "model": "slow/x"}) as connection:
        wait_until_in_flight(daemon, port)
        daemon.process.send_signal(signal.SIGTERM)
        assert b'"text":"hello there"' in everything(connection)
        assert daemon.process.wait(20) == 0


@pytest.mark.parametrize("headers", [{}, EVENTS], ids=["whole", "streamed"])
def test_a_stop_that_cannot_wait_says_so(tmp_path: Path, port: int, headers: dict[str, str]) -> None:
    config = CONFIG.format(port=port, drain_ms=100)
    with (
        running_daemon(tmp_path, config=config) as daemon,
        raw_post(port, {**ECHO, "model": "stuck/x"}, headers) as connection,
    ):
        wait_until_in_flight(daemon, port)
        assert daemon.stop() == 0
        assert b'"kind":"cancelled"' in everything(connection)


@pytest.mark.parametrize("headers", [{}, EVENTS], ids=["whole", "streamed"])
def test_a_stop_waits_for_no_body(tmp_path: Path, port: int, headers: dict[str, str]) -> None:
    config = CONFIG.format(port=port, drain_ms=100)
    headers = {**headers, "Expect": "100-continue"}
    with running_daemon(tmp_path, config=config) as daemon, raw_post(port, ECHO, headers, missing=10) as connection:
        assert b" 100 " in connection.recv(65536)  # the body is read
        assert daemon.stop() == 0
        assert everything(connection) == b""
        assert "ERROR" not in daemon.log.read_text()


@pytest.mark.parametrize("headers", [{}, EVENTS], ids=["whole", "streamed"])
def test_calls_in_flight_hold_so_many_bytes_in_all(daemon: RunningDaemon, port: int, headers: dict[str, str]) -> None:
    url = f"http://127.0.0.1:{port}/execute"
    with raw_post(port, {"model": "stuck/x", "prompt": "x" * 300}):
        wait_until_in_flight(daemon, port)
        response = httpx.post(url, json={**ECHO, "prompt": "x" * 300}, headers=headers, timeout=20)
        assert (response.status_code, response.json()["error"]["data"]["kind"]) == (429, "busy")


def test_bodies_that_still_come_count_too(daemon: RunningDaemon, port: int) -> None:
    url = f"http://127.0.0.1:{port}/execute"
    headers = {"Expect": "100-continue", "Connection": "close"}
    with raw_post(port, {**ECHO, "prompt": "x" * 300}, headers, missing=10) as unfinished:
        assert b" 100 " in unfinished.recv(65536)  # the body is read
        large = {**ECHO, "prompt": "x" * 300}
        response = httpx.post(url, json=large, timeout=20)
        assert (response.status_code, response.json()["error"]["data"]["kind"]) == (429, "busy")
        unfinished.sendall(b" " * 10)
        assert b'"text":"xxx' in everything(unfinished)
        assert httpx.post(url, json=large, timeout=20).status_code == 200, "what it held is given back"


@pytest.mark.anyio
async def test_a_client_that_goes_away_while_it_is_sent_to_cancels_too() -> None:
    unused: Any = None
    hub = Hub(unused, Limits)
    how: list[type[BaseException]] = []
    sending = anyio.Event()

    async def run(send: Pieces) -> None:
        try:
            while True:
                await send(b"piece")
        except BaseException as error:
            how.append(type(error))
            raise

    async def receive() -> Message:
        await sending.wait()
        await anyio.wait_all_tasks_blocked()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            sending.set()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        await Calls(hub, group, False).streamed(run, b"")({}, receive, send)
    assert how == [anyio.get_cancelled_exc_class()]
