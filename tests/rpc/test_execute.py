"""`execute` with an idempotency key, over real connections; without one, tests/rpc/test_contract.py has it all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.budgeting import Caller, RefusedError
from tests.support.daemon import RunningDaemon, running_daemon

CONFIG = """
[providers.slow]
dialect = "echo"
latency_ms = 300
[providers.stuck]
dialect = "echo"
latency_ms = 600000
[providers.broken]
dialect = "echo"
fail = "upstream_unavailable"
"""


def send(wire: Any, number: int, **params: Any) -> None:
    wire.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": "execute", "params": params}))


def until_sent(caller: Caller, budget: str) -> None:
    while not caller("budget.get", budget=budget)["held"]["requests"]:
        pass
    caller.open(total=1)  # durable behind the hold: that one is, too, and its bytes have left


def refused(call: Callable[[], Any]) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        call()
    return caught.value


def test_the_same_key_is_paid_once_and_answered_the_same(tmp_path: Path) -> None:
    with running_daemon(tmp_path, config=CONFIG) as daemon, daemon.wire() as wire:
        caller = Caller(wire)
        budget = caller.open(total=4000)["budget"]
        first = caller.execute(budget, idempotency_key="k", max_tokens=20)
        again = caller.execute(budget, idempotency_key="k", max_tokens=20, timeout_ms=5000, metadata={"try": 2})
        assert (first["replayed"], again["replayed"]) == (False, True)
        assert {**again, "replayed": False} == first
        error = refused(lambda: caller.execute(budget, "other", idempotency_key="k", max_tokens=20))
        assert error.kind == "idempotency_conflict"
        assert caller("budget.get", budget=budget)["settled"]["requests"] == 1
        # The key is of this budget: another one's is another key.
        assert not caller.execute(caller.open(total=4000)["budget"], idempotency_key="k", max_tokens=20)["replayed"]
        assert not caller("execute", model="echo/echo", prompt="p", idempotency_key="k")["replayed"]


def test_a_call_that_runs_is_joined(tmp_path: Path) -> None:
    with running_daemon(tmp_path, config=CONFIG) as daemon, daemon.wire() as wire, daemon.wire() as other:
        caller = Caller(wire)
        budget = caller.open(total=4000)["budget"]
        params = {"model": "slow/echo", "prompt": "p", "budget": budget, "idempotency_key": "k", "max_tokens": 9}
        for number, one in enumerate((other, other, wire)):
            send(one, number, **params)
        replies = [other.receive()["result"], other.receive()["result"], wire.receive()["result"]]
        assert sorted(reply["replayed"] for reply in replies) == [False, True, True]
        assert caller("budget.get", budget=budget)["settled"]["requests"] == 1


def test_a_call_that_cost_nothing_may_run_again_under_its_key(tmp_path: Path) -> None:
    with running_daemon(tmp_path, config=CONFIG) as daemon, daemon.wire() as wire:
        caller = Caller(wire)
        budget = caller.open(total=4000)["budget"]
        for _ in range(2):
            error = refused(lambda: caller.execute(budget, model="broken/echo", idempotency_key="k"))
            assert error.kind == "upstream_unavailable"
        assert refused(lambda: caller.execute(budget, max_tokens=9999, idempotency_key="k")).kind == "budget_exceeded"
        assert not caller.execute(budget, idempotency_key="k")["replayed"]


@pytest.mark.parametrize("cut", ["cancelled", "killed"])
def test_a_call_that_was_cut_is_not_made_again_and_says_what_was_posted(tmp_path: Path, cut: str) -> None:
    params: dict[str, Any] = {"model": "stuck/echo", "prompt": "p", "idempotency_key": "k", "max_tokens": 9}

    def begun(daemon: RunningDaemon) -> str:
        with daemon.wire() as wire, daemon.wire() as other:
            caller = Caller(wire)
            budget: str = caller.open(total=4000)["budget"]
            send(other, 1, budget=budget, **params)
            until_sent(caller, budget)
            if cut == "killed":
                daemon.process.kill()
                daemon.process.wait()
            else:
                other.send('{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":1}}')
                assert other.receive()["error"]["data"]["kind"] == "cancelled"
            return budget

    def asked_again(daemon: RunningDaemon, budget: str) -> None:
        with daemon.wire() as wire:
            caller = Caller(wire)
            error = refused(lambda: caller("execute", budget=budget, **params))
            settled = caller("budget.get", budget=budget)["settled"]
            assert (error.kind, error.data["retryable"]) == ("outcome_unknown", False)
            assert error.data["posted"] == {unit: amount for unit, amount in settled.items() if amount}
            assert settled["total_tokens"] > 500

    with running_daemon(tmp_path, config=CONFIG) as daemon:
        budget = begun(daemon)
        if cut == "cancelled":
            asked_again(daemon, budget)
            daemon.stop()
    with running_daemon(tmp_path, config=CONFIG) as daemon:
        asked_again(daemon, budget)


def test_an_answer_is_kept_across_a_restart(tmp_path: Path) -> None:
    with running_daemon(tmp_path, config=CONFIG) as daemon, daemon.wire() as wire:
        first = Caller(wire)("execute", model="echo/echo", prompt="p", idempotency_key="k")
        daemon.stop()
    with running_daemon(tmp_path, config=CONFIG) as daemon, daemon.wire() as wire:
        again = Caller(wire)("execute", model="echo/echo", prompt="p", idempotency_key="k")
    assert again == {**first, "replayed": True}


def test_a_lost_connection_does_not_cut_a_call_with_a_key_and_its_retry_is_not_paid_again(tmp_path: Path) -> None:
    params: dict[str, Any] = {"model": "slow/echo", "prompt": "one two", "idempotency_key": "k", "max_tokens": 9}
    with running_daemon(tmp_path, config=CONFIG) as daemon, daemon.wire() as wire:
        caller = Caller(wire)
        budget = caller.open(total=4000)["budget"]
        unkeyed = caller.open(total=4000)["budget"]
        with daemon.wire() as lost:
            send(lost, 1, budget=budget, stream="s", **params)
            send(lost, 2, budget=unkeyed, model="stuck/echo", prompt="p", max_tokens=9)
            until_sent(caller, budget)
            until_sent(caller, unkeyed)
        # Without a key, the same is aborted, and posted at its bound: then the loss has been noticed.
        while caller("budget.get", budget=unkeyed)["held"]["requests"]:
            pass
        assert caller("budget.get", budget=unkeyed)["uncertain"]["requests"] == 1
        done = caller("execute", budget=budget, **params)
        assert (done["replayed"], done["text"]) == (True, "one two")
        assert caller("budget.get", budget=budget)["settled"]["requests"] == 1
