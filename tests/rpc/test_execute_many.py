"""`execute_many` over real connections: order, limits, budgets, streams, cancels and deadlines."""

import json
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import anyio
import pytest

from tests.support.budgeting import Caller, RefusedError
from tests.support.daemon import RunningDaemon, running_daemon
from tests.support.upstream import Exchange, scripted
from tests.support.wish_http import Peer, connected

CONFIG = """
[providers.slow]
dialect = "echo"
latency_ms = 300
[providers.stuck]
dialect = "echo"
latency_ms = 600000
[limits]
calls = 50
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path, config=CONFIG) as running:
        yield running


def call(prompt: str, model: str = "echo/echo", **more: Any) -> dict[str, Any]:
    return {"model": model, "prompt": prompt, **more}


def refused(caller: Caller, **params: Any) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        caller("execute_many", **params)
    return caught.value


def test_each_call_has_its_result_in_its_place_and_their_usage_is_added_up(daemon: RunningDaemon) -> None:
    with daemon.wire() as wire:
        done = Caller(wire)("execute_many", calls=[call("a b"), call("c", "nobody/m"), call("d e f")])
    assert [
        result["ok"]["text"] if "ok" in result else result["error"]["data"]["kind"] for result in done["results"]
    ] == [
        "a b",
        "no_route",
        "d e f",
    ]
    assert (done["usage"]["input_tokens"], done["usage"]["total_tokens"], done["usage"]["exact"]) == (5, 10, True)
    assert done["cost"] == {"nano_usd": 0}


def test_a_group_takes_as_long_as_its_slowest(daemon: RunningDaemon) -> None:
    with daemon.wire() as wire:
        caller, began = Caller(wire), perf_counter()
        done = caller("execute_many", calls=[call("x", "slow/m")] * 20)
        assert perf_counter() - began < 20 * 0.3 / 4
        assert len(done["results"]) == 20


def test_what_is_wrong_with_one_call_is_told_with_its_place_before_any_is_made(daemon: RunningDaemon) -> None:
    with daemon.wire() as wire:
        caller = Caller(wire)
        assert refused(caller, calls=[call("a"), call("b", promt="x")]).data["path"] == "calls[1].promt"
        error = refused(caller, calls=[call("a"), call("b", stream="s")])
        assert (error.kind, error.data["path"]) == ("invalid_params", "calls[1].stream")
        assert refused(caller, calls=[]).kind == "invalid_params"
        error = refused(caller, calls=[call("a")] * 51)
        assert (error.kind, error.data["limit"]) == ("too_large", 50)


def test_one_budget_is_over_all_and_each_may_have_its_own(daemon: RunningDaemon) -> None:
    with daemon.wire() as wire:
        caller = Caller(wire)
        budget, own = (caller.open(limits={"requests": count})["budget"] for count in (2, 1))
        calls = [call("a", max_tokens=5), call("b", max_tokens=5), call("c", max_tokens=5), call("d", budget=own)]
        done = caller("execute_many", calls=calls, budget=budget, max_concurrency=1)
        kinds = [result.get("error", {}).get("data", {}).get("kind", "ok") for result in done["results"]]
        assert kinds == ["ok", "ok", "budget_exceeded", "ok"]
        assert caller("budget.get", budget=budget)["settled"]["requests"] == 2
        assert caller("budget.get", budget=own)["settled"]["requests"] == 1


def test_deltas_carry_the_index_of_their_call_and_the_end_of_each_is_told(daemon: RunningDaemon) -> None:
    heard: list[tuple[str, dict[str, Any]]] = []
    with daemon.wire() as wire:
        params = {"calls": [call("a b"), call("x", "nobody/m"), call("c d e")], "stream": "s"}
        reply = wire.call("execute_many", json.dumps(params), lambda method, told: heard.append((method, told)))
    deltas = [told for method, told in heard if method == "llmd.delta"]
    assert [delta["seq"] for delta in deltas] == list(range(5))
    for index, text in ((0, "a b"), (2, "c d e")):
        assert "".join(delta["text"] for delta in deltas if delta["index"] == index) == text
    done = [told for method, told in heard if method == "llmd.done"]
    assert sorted((told["index"], told["outcome"]) for told in done) == [(0, "ok"), (1, "no_route"), (2, "ok")]
    assert [result["ok"]["text"] for result in reply["result"]["results"] if "ok" in result] == ["a b", "c d e"]


def test_a_deadline_tells_what_had_finished(daemon: RunningDaemon) -> None:
    with daemon.wire() as wire:
        error = refused(Caller(wire), calls=[call("a"), call("b", "stuck/m")], timeout_ms=200)
    assert error.kind == "deadline_exceeded"
    assert error.data["elapsed_ms"] >= 200
    first, second = error.data["results"]
    assert (first["ok"]["text"], second) == ("a", None)


def test_a_cancel_tells_what_had_finished(daemon: RunningDaemon) -> None:
    with daemon.wire() as wire:
        params = {"calls": [call("a"), call("b", "stuck/m")], "stream": "s"}
        wire.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "execute_many", "params": params}))
        while wire.receive().get("method") != "llmd.done":
            pass
        wire.send('{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":1}}')
        error = wire.receive()["error"]
    assert (error["code"], error["data"]["reason"]) == (-32800, "client")
    assert [result and result["ok"]["text"] for result in error["data"]["results"]] == ["a", None]


def test_a_call_of_many_may_have_a_key_of_its_own(daemon: RunningDaemon) -> None:
    with daemon.wire() as wire:
        caller = Caller(wire)
        budget = caller.open(total=4000)["budget"]
        calls = [call("a", idempotency_key="k", max_tokens=5), call("b", max_tokens=5)]
        for replayed in (False, True):
            done = caller("execute_many", calls=calls, budget=budget)
            assert [result["ok"]["replayed"] for result in done["results"]] == [replayed, False]
        assert caller("budget.get", budget=budget)["settled"]["requests"] == 3


@pytest.mark.anyio
async def test_fifty_calls_are_in_flight_together_and_a_lost_connection_aborts_them_all(tmp_path: Path) -> None:
    async def silent(exchange: Exchange) -> None:
        await exchange.gone()

    async with scripted(silent) as upstream, anyio.create_task_group() as group:
        config = f'[providers.up]\nbase_url = "{upstream.url}"\n'
        with running_daemon(tmp_path, config=config) as daemon:
            peer: Peer
            async with connected(daemon.socket, group) as peer, anyio.create_task_group() as calling:
                calling.start_soon(lambda: peer.call("execute_many", calls=[call("x", "up/m")] * 50))
                await upstream.until(lambda up: up.in_flight == 50)
                await peer.close()
            await upstream.until(lambda up: up.open == 0)
            assert upstream.peak == 50
