"""Client: typed results and errors over one connection, streams and budgets in blocks, and a connection that breaks."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmd import Client, LLMBudgetExceededError, LLMError, NoDaemon
from llmd.books import Statement
from llmd.client import sync
from tests.support.daemon import RunningDaemon, running_daemon

SLOW = """
[providers.slow]
dialect = "echo"
latency_ms = 60000
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path, config=SLOW) as started:
        yield started


def test_a_call_has_a_typed_result(daemon: RunningDaemon) -> None:
    with Client() as client:
        made = client.execute(model="echo/echo", prompt="hello there")
    assert (made.text, made.usage.total_tokens, made.message.role) == ("hello there", 4, "assistant")


def test_an_error_is_raised_with_its_kind_and_the_connection_goes_on(daemon: RunningDaemon) -> None:
    with Client(daemon.socket) as client:
        with pytest.raises(LLMError) as caught:
            client.execute(model="nobody/m", prompt="x")
        assert (caught.value.kind, caught.value.data["targets"][0]["reason"]) == ("no_route", "unknown_provider")
        assert client.execute(model="echo/echo", prompt="x").text == "x"


def test_many_calls_come_back_in_their_order(daemon: RunningDaemon) -> None:
    calls = [{"model": f"{provider}/echo", "prompt": text} for provider, text in (("echo", "a"), ("nobody", "b"))]
    with Client() as client:
        one, other = client.execute_many([*calls], max_concurrency=1).results
    assert (one.ok and one.ok.text, one.error) == ("a", None)
    assert (other.ok, other.error and other.error.data["kind"]) == (None, "no_route")


def test_a_stream_is_deltas_and_then_the_completion(daemon: RunningDaemon) -> None:
    with Client() as client:
        with client.stream(model="echo/echo", prompt="one two three") as stream:
            told = [(delta.text, delta.reasoning, delta.tool_call) for delta in stream]
            assert told == [(text, None, None) for text in ("one", " two", " three")]
            assert stream.completion().text == "one two three"
        with client.stream(model="echo/echo", prompt="one two") as stream:
            assert stream.completion().text == "one two"


def test_the_error_of_a_stream_is_raised_where_it_is_read(daemon: RunningDaemon) -> None:
    with Client() as client:
        with client.stream(model="nobody/m", prompt="x") as stream, pytest.raises(LLMError, match="nobody"):
            list(stream)
        assert client.execute(model="echo/echo", prompt="x").text == "x"


def test_leaving_a_stream_cancels_its_call(daemon: RunningDaemon) -> None:
    with Client() as client, client.budget(total=4000) as budget:
        prompt = " ".join(map(str, range(5000)))
        with client.stream(model="echo/echo", prompt=prompt) as stream:
            assert next(iter(stream)).text == "0"
            with pytest.raises(RuntimeError, match="in the middle of another call"):
                client.execute(model="echo/echo", prompt="x")
        # What it held is free again, so that nothing is waited for.
        made = client.execute(model="echo/echo", prompt="x", budget=budget.handle)
        assert made.budget
        assert made.budget.held.total_tokens == 0


def test_an_interrupted_call_is_cancelled(daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client() as client:
        wire = client._connected()
        sent: list[str] = []
        send, receive = wire.send, wire.receive_line

        def interrupted() -> bytes:
            monkeypatch.setattr(wire, "receive_line", receive)
            raise KeyboardInterrupt

        monkeypatch.setattr(wire, "send", lambda text: (sent.append(text), send(text)))
        monkeypatch.setattr(wire, "receive_line", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.execute(model="slow/echo", prompt="x")
        assert "$/cancelRequest" in sent[-1]
        assert client.execute(model="echo/echo", prompt="x").text == "x"


def test_a_budget_is_open_as_long_as_its_block(daemon: RunningDaemon) -> None:
    with Client() as client:
        with client.budget(total=4000, label="A") as outer, outer.budget(total=1000) as inner:
            client.execute(model="echo/echo", prompt="x", budget=inner.handle)
            with pytest.raises(LLMBudgetExceededError) as caught:
                client.execute(model="echo/echo", prompt="x", max_tokens=2000, budget=inner.handle)
            assert caught.value.data["available"] == 998
            assert inner.charge(total_tokens=8, note="a search").settled.total_tokens == 10
            assert inner.resize(limits={"total_tokens": 500}).limits == {"total_tokens": 500}
            assert isinstance(inner.close(), Statement)
            assert outer.snapshot().settled.total_tokens == 10
        with pytest.raises(LLMError) as closed:
            outer.snapshot()
        assert closed.value.kind == "budget_closed"


def test_without_a_daemon_there_is_no_client(tmp_path: Path) -> None:
    with pytest.raises(NoDaemon, match="no daemon listens on"):
        Client(tmp_path / "nobody.sock")


# -- a connection that breaks ------------------------------------------------------------------------------------------


def answering(path: Path, *answers: Callable[[socket.socket, dict[str, Any]], None]) -> threading.Thread:
    """A server whose connections get one request each, and each an answer of its own."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def run() -> None:
        with listener:
            for answer in answers:
                with listener.accept()[0] as connection, connection.makefile() as lines:
                    answer(connection, json.loads(lines.readline()))

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_connection_that_breaks_leaves_the_outcome_unknown(tmp_path: Path) -> None:
    thread = answering(tmp_path / "s", lambda connection, request: None)
    client = Client(tmp_path / "s")
    with pytest.raises(LLMError) as caught:
        client.execute(prompt="x")
    assert caught.value.kind == "outcome_unknown"
    thread.join()


@pytest.mark.parametrize("line", [b"{", b'{"id":1,"method":"\xff"}', b'{"id":1,"result":{"text":5}}'])
def test_an_answer_that_makes_no_sense_leaves_the_outcome_unknown(tmp_path: Path, line: bytes) -> None:
    thread = answering(tmp_path / "s", lambda connection, request: connection.sendall(line + b"\n"))
    with Client(tmp_path / "s") as client, pytest.raises(LLMError) as caught:
        client.execute(prompt="x")
    assert caught.value.kind == "outcome_unknown"
    thread.join()


@pytest.mark.parametrize("reconnect", [False, True])
def test_a_client_that_was_idle_meanwhile_finds_a_daemon_that_was_started_again(
    tmp_path: Path, *, reconnect: bool
) -> None:
    with running_daemon(tmp_path) as first:
        client = Client(reconnect=reconnect)
        assert first.stop() == 0
    with running_daemon(tmp_path), client:
        assert client.execute(model="echo/echo", prompt="x").text == "x"


def test_what_leaves_the_block_of_a_budget_is_raised_though_the_daemon_has_gone(tmp_path: Path) -> None:
    def broken() -> None:
        with client.budget(total=4000):
            assert daemon.stop() == 0
            raise ZeroDivisionError

    with running_daemon(tmp_path) as daemon, Client() as client, pytest.raises(ZeroDivisionError):
        broken()


def test_asked_to_reconnect_a_client_asks_again_with_the_same_key(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    def broken(connection: socket.socket, request: dict[str, Any]) -> None:
        asked.append(request)
        delta = {"stream": request["params"]["stream"], "seq": 0, "text": "half"}
        connection.sendall(json.dumps({"jsonrpc": "2.0", "method": "llmd.delta", "params": delta}).encode() + b"\n")

    def whole(connection: socket.socket, request: dict[str, Any]) -> None:
        asked.append(request)
        error = {"code": 1010, "message": "done", "data": {"kind": "no_route", "retryable": False}}
        connection.sendall(json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error}).encode() + b"\n")

    thread = answering(tmp_path / "s", broken, whole)
    with Client(tmp_path / "s", reconnect=True) as client, client.stream(prompt="x") as stream:
        assert next(iter(stream)).text == "half"
        with pytest.raises(LLMError, match="done"):
            list(stream)
    first, second = (request["params"] for request in asked)
    assert first.pop("stream")
    assert first == second
    assert len(first["idempotency_key"]) == 32
    thread.join()


def test_a_daemon_that_does_not_come_back_is_not_waited_for_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "RECONNECT_S", 0.1)

    def last(connection: socket.socket, request: dict[str, Any]) -> None:
        (tmp_path / "s").unlink()

    thread = answering(tmp_path / "s", last)
    with pytest.raises(LLMError) as caught:
        Client(tmp_path / "s", reconnect=True).execute(prompt="x")
    assert caught.value.kind == "outcome_unknown"
    thread.join()


def test_a_daemon_that_every_request_kills_is_not_asked_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, asked = 0.0, 0

    def pause(seconds: float) -> None:
        nonlocal now
        now += seconds

    def die(connection: socket.socket, request: dict[str, Any]) -> None:
        nonlocal asked
        asked += 1

    monkeypatch.setattr(sync, "time", SimpleNamespace(monotonic=lambda: now, sleep=pause))
    most = round(sync.RECONNECT_S / sync.PAUSE_S) + 2
    thread = answering(tmp_path / "s", *[die] * most)
    with Client(tmp_path / "s", reconnect=True) as client, pytest.raises(LLMError) as caught:
        client.execute(prompt="x")
    assert (caught.value.kind, asked) == ("outcome_unknown", most - 1)
    with Client(tmp_path / "s") as client, suppress(LLMError):
        client.execute(prompt="the last one")
    thread.join()


@pytest.mark.parametrize("reconnect", [False, True])
def test_what_the_daemon_refuses_to_read_is_told_and_the_next_call_has_another_connection(
    tmp_path: Path, *, reconnect: bool
) -> None:
    with running_daemon(tmp_path, config="[limits]\nframe_bytes = 10000\n"), Client(reconnect=reconnect) as client:
        for _ in range(2):
            with pytest.raises(LLMError) as caught:
                client.execute(model="echo/echo", prompt="x" * 10_000)
            assert (caught.value.kind, caught.value.data) == ("too_large", {"limit": 10_000})
            assert client.execute(model="echo/echo", prompt="x").text == "x"
