"""HTTP: the payload of the command line, JSON-RPC, streams, errors with their status, and who may not call."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from llmd import paths
from llmd.context import Context
from llmd.transports import http
from tests.support.daemon import RunningDaemon, running_daemon
from tests.support.stranger import as_stranger, needs_root
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

[providers.limited]
dialect = "echo"
fail = "upstream_rate_limited"

[limits]
frame_bytes = 100000
batch = 3
drain_ms = 20000
"""
ECHO = {"model": "echo/echo", "prompt": "hello there"}


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def daemon(tmp_path: Path, port: int) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path, config=CONFIG.format(port=port)) as running:
        yield running


@pytest.fixture
def client(daemon: RunningDaemon, port: int) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as made:
        yield made


def kind(response: httpx.Response) -> str:
    found: str = response.json()["error"]["data"]["kind"]
    return found


def test_the_payload_of_the_command_line_gives_its_completion(client: httpx.Client) -> None:
    response = client.post("/execute", json=ECHO)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.json()["text"] == "hello there"


@pytest.mark.parametrize(
    ("params", "status", "expected"),
    [
        ({}, 400, "invalid_params"),
        ({**ECHO, "model": "nobody/x"}, 404, "no_route"),
        ({**ECHO, "model": "limited/x"}, 429, "upstream_rate_limited"),
        ({**ECHO, "model": "stuck/x", "timeout_ms": 10}, 504, "deadline_exceeded"),
        ({**ECHO, "budget": "b"}, 404, "budget_unknown"),
        ({"prompt": "x" * 100_000}, 413, "too_large"),
    ],
)
def test_an_error_has_the_status_that_fits(
    client: httpx.Client, params: dict[str, Any], status: int, expected: str
) -> None:
    response = client.post("/execute", json=params)
    assert (response.status_code, kind(response)) == (status, expected)


@pytest.mark.parametrize("body", [b"", b" ", b"{", b'{"prompt": "\xff"}', b'{"prompt": "x"} {}'], ids=repr)
def test_what_is_not_json_is_told(client: httpx.Client, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    for path, accept in (("/execute", "*/*"), ("/execute", "text/event-stream"), ("/execute_many", "*/*")):
        response = client.post(path, content=body, headers={**headers, "accept": accept})
        assert (response.status_code, response.json()["error"]["code"]) == (400, -32700)
    assert client.post("/rpc", content=body, headers=headers).json()["error"]["code"] == -32700


@pytest.mark.parametrize("body", [b"1", b"[1]", b'"prompt"', b"[]", b" {}"], ids=repr)
def test_json_that_holds_no_params_is_told(client: httpx.Client, body: bytes) -> None:
    response = client.post("/execute", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, kind(response)) == (400, "invalid_params")


def events(response: httpx.Response) -> list[tuple[str, Any]]:
    blocks = [block.split("\n") for block in response.text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


def test_a_stream_has_deltas_then_the_result(client: httpx.Client) -> None:
    response = client.post("/execute", json=ECHO, headers={"accept": "text/event-stream"})
    assert response.headers["content-type"].startswith("text/event-stream")
    *deltas, (name, result) = events(response)
    assert [(word, delta["seq"], delta["text"]) for word, delta in deltas] == [
        ("delta", 0, "hello"),
        ("delta", 1, " there"),
    ]
    assert (name, result["text"]) == ("result", "hello there")


def test_a_stream_that_fails_ends_with_the_error(client: httpx.Client) -> None:
    response = client.post("/execute", json={**ECHO, "model": "limited/x"}, headers={"accept": "text/event-stream"})
    ((name, error),) = events(response)
    assert (name, error["data"]["kind"]) == ("error", "upstream_rate_limited")


def rpc(client: httpx.Client, message: Any) -> Any:
    response = client.post("/rpc", json=message)
    assert response.status_code == 200
    return response.json()


def test_any_json_rpc_message_is_answered(client: httpx.Client) -> None:
    assert rpc(client, {"jsonrpc": "2.0", "id": "a", "method": "ping"}) == {"jsonrpc": "2.0", "id": "a", "result": {}}
    execute = {"jsonrpc": "2.0", "id": 2**63, "method": "execute", "params": ECHO}
    assert rpc(client, execute)["result"]["text"] == "hello there"
    batch = rpc(client, [execute, 1, {"jsonrpc": "2.0", "method": "ping"}])
    assert [(item["id"], "error" in item) for item in batch] == [(2**63, False), (None, True)]
    assert rpc(client, [1, 2, 3, 4])["error"]["data"]["kind"] == "too_large"
    streamed = {**execute, "params": {**ECHO, "stream": "s"}}
    assert rpc(client, streamed)["error"]["data"]["path"] == "stream"
    reload = {"jsonrpc": "2.0", "id": 1, "method": "daemon.reload"}
    assert rpc(client, reload)["error"]["data"]["kind"] == "unauthorized"


@pytest.mark.parametrize(
    "message", [{"jsonrpc": "2.0", "method": "ping"}, [{"jsonrpc": "2.0", "method": "ping"}], {"id": 1, "result": 1}]
)
def test_what_has_no_answer_is_204(client: httpx.Client, message: Any) -> None:
    response = client.post("/rpc", json=message)
    assert (response.status_code, response.content) == (204, b"")


def test_a_batch_takes_as_long_as_its_slowest(client: httpx.Client) -> None:
    slow = {"jsonrpc": "2.0", "id": 1, "method": "execute", "params": {"model": "slow/x", "prompt": "x"}}
    batch = rpc(client, [slow, slow, slow])
    assert max(item["result"]["latency_ms"] for item in batch) < 1400


def test_the_calls_of_a_batch_tell_of_themselves_alone(daemon: RunningDaemon, client: httpx.Client) -> None:
    def many(number: int) -> dict[str, Any]:
        calls = [{**ECHO, "prompt": f"of {number}"}, {**ECHO, "model": "stuck/x"}]
        params = {"calls": calls, "timeout_ms": 300 + number}
        return {"jsonrpc": "2.0", "id": number, "method": "execute_many", "params": params}

    for number, item in enumerate(rpc(client, [many(0), many(1)])):
        answered, unanswered = item["error"]["data"]["results"]
        assert (answered["ok"]["text"], unanswered) == (f"of {number}", None)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "example.org"},
        {"host": "[::1"},
        {"origin": "https://example.org"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1.example.org"},
    ],
    ids=str,
)
def test_a_web_page_cannot_call(client: httpx.Client, headers: dict[str, str]) -> None:
    response = client.post("/execute", json=ECHO, headers=headers)
    assert (response.status_code, kind(response)) == (401, "unauthorized")


def test_a_page_of_this_machine_can(client: httpx.Client, port: int) -> None:
    headers = {"host": f"localhost:{port}", "origin": "http://localhost:3000"}
    assert client.post("/execute", json=ECHO, headers=headers).status_code == 200


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_what_a_form_can_send_is_refused(client: httpx.Client, content_type: str) -> None:
    response = client.post("/execute", content=json.dumps(ECHO), headers={"content-type": content_type})
    assert (response.status_code, kind(response)) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/"), ("GET", "/execute"), ("PUT", "/rpc"), ("POST", "/fly"), ("POST", "/execute/")]
)
def test_anything_else_says_what_there_is(client: httpx.Client, method: str, path: str) -> None:
    response = client.request(method, path)
    assert response.status_code == 404
    assert "POST /execute" in response.json()["error"]["message"]


def test_health_is_open_to_everyone(client: httpx.Client) -> None:
    assert client.get("/healthz", headers={"host": "example.org"}).status_code == 200


def test_with_require_token_everyone_needs_it(tmp_path: Path, port: int) -> None:
    arguments = ("--listen", f"http://127.0.0.1:{port}", "--require-token")
    with running_daemon(tmp_path, *arguments), httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        token = paths.token_file(os.environ).read_text().strip()
        for wrong in ({}, {"authorization": "Bearer x"}, {"authorization": f"Basic {token}"}, {"authorization": token}):
            assert client.post("/execute", json=ECHO, headers=wrong).status_code == 401
        right = {"authorization": f"bearer {token}"}
        assert client.post("/execute", json=ECHO, headers=right).status_code == 200


@needs_root
def test_another_user_needs_the_token(daemon: RunningDaemon, port: int) -> None:
    def post() -> bytes:
        return str(httpx.post(f"http://127.0.0.1:{port}/execute", json=ECHO, timeout=20).status_code).encode()

    assert as_stranger(post) == b"401"


def test_http_is_loaded_only_by_a_daemon_that_listens_there(tmp_path: Path) -> None:
    with running_daemon(tmp_path) as daemon, daemon.wire() as wire:
        wire.call("ping")
        assert "httptools" not in Path(f"/proc/{daemon.process.pid}/maps").read_text()


@pytest.mark.anyio
async def test_what_breaks_is_logged_once_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    secret = "sk-1"

    class Broken:
        hub: Any = None

        def admit(self, request: Request) -> Context:
            raise ValueError(secret)

    calls: Any = Broken()
    transport = httpx.ASGITransport(http._application(calls))  # which raises what the server would log
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert kind(await client.get("/v1/models")) == "internal_error"
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "ValueError" in record.getMessage()
    assert secret not in caplog.text
