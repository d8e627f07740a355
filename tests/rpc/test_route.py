"""`route.explain`, and a daemon whose rules plan, guard, deny and change while it runs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.budgeting import Caller, RefusedError
from tests.support.cli import llmd
from tests.support.daemon import RunningDaemon, running_daemon

RULES = """
[[routing.rules]]
match = { action = "autonomous", trust = "auto_apply" }
deny  = "auto_apply agents take no autonomous action"

[[routing.rules]]
task_type = "triage"
prefer    = [{ provider = "openrouter", model = "claude-haiku-4-5" }]
max_cost_per_1k = 0.5
fallback  = { provider = "gemini", model = "gemini-flash-1.5" }
"""
ECHOES = """
[providers.openrouter]
dialect = "echo"
[providers.openrouter.models."anthropic/claude-haiku-4.5"]
price = { input = 1.0, output = 5.0 }
[providers.gemini]
dialect = "echo"
[providers.slow]
dialect = "echo"
latency_ms = 300
[providers.broken]
dialect = "echo"
fail = "upstream_auth"
"""
TRIAGE = {"task_type": "triage", "prompt": "hello"}
AUTONOMOUS = {**TRIAGE, "labels": {"action": "autonomous", "trust": "auto_apply"}}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path, config=ECHOES + RULES) as running:
        yield running


def refused(caller: Caller, method: str, **params: Any) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        caller(method, **params)
    return caught.value


def test_triage_goes_to_haiku_and_to_gemini_where_that_costs_too_much(daemon: RunningDaemon, tmp_path: Path) -> None:
    with daemon.wire() as wire:
        caller = Caller(wire)
        done = caller("execute", **TRIAGE)
        assert (done["provider"], done["model"], done["route"]["rule"]) == (
            "openrouter",
            "anthropic/claude-haiku-4.5",
            1,
        )
        dearer = (tmp_path / "config.toml").read_text().replace("output = 5.0", "output = 501.0")
        (tmp_path / "config.toml").write_text(dearer)
        assert llmd("reload").status == 0
        done = caller("execute", **TRIAGE)
        assert (done["provider"], done["model"]) == ("gemini", "gemini-1.5-flash")


def test_what_is_denied_is_refused_whatever_else_matches(daemon: RunningDaemon) -> None:
    with daemon.wire() as wire:
        caller = Caller(wire)
        for more in ({}, {"model": "echo/echo"}):
            error = refused(caller, "execute", **AUTONOMOUS, **more)
            assert error.kind == "no_route"
            assert error.message == "rule 0 denies this: auto_apply agents take no autonomous action"
        budget = caller("budget.open", total=4000, allow={"labels": AUTONOMOUS["labels"]})["budget"]
        error = refused(caller, "execute", **TRIAGE, labels={"trust": "review"}, budget=budget)
        assert error.message == "rule 0 denies this: auto_apply agents take no autonomous action"


def test_a_plan_is_explained_with_each_target_and_its_reason(daemon: RunningDaemon) -> None:
    with daemon.wire() as wire:
        caller = Caller(wire)
        told = caller("route.explain", **TRIAGE)
        assert (told["rule"], told["guards"], told["error"]) == (1, [], None)
        assert told["targets"][0] == {
            "provider": "openrouter",
            "model": "anthropic/claude-haiku-4.5",
            "in": True,
            "reason": None,
            "detail": None,
            "price": {"input": 1.0, "output": 5.0},
            "retry_after_ms": None,
        }
        assert [target["in"] for target in told["targets"]] == [True, True]
        denied = caller("route.explain", **AUTONOMOUS)
        assert (denied["rule"], denied["guards"], denied["targets"]) == (None, [0], [])
        assert denied["error"]["data"]["kind"] == "no_route"


def test_what_a_budget_would_pay_is_explained_and_nothing_is_held(daemon: RunningDaemon) -> None:
    with daemon.wire() as wire:
        caller = Caller(wire)
        budget = caller("budget.open", total=1000, allow={"providers": ["gemini"]})["budget"]
        told = caller("route.explain", **TRIAGE, max_tokens=5000, budget=budget)
        assert [target["reason"] for target in told["targets"]] == ["budget_denied", "budget_exceeded"]
        assert told["error"]["data"]["kind"] == "budget_denied"
        told = caller("route.explain", **TRIAGE, max_tokens=50, budget=budget)
        assert [target["in"] for target in told["targets"]] == [True, False]
        assert caller("budget.get", budget=budget)["held"]["total_tokens"] == 0


def test_a_breaker_is_explained_and_shown_among_the_models_and_a_reload_forgets_it(daemon: RunningDaemon) -> None:
    with daemon.wire() as wire:
        caller = Caller(wire)
        assert refused(caller, "execute", model="broken/x", prompt="p").kind == "upstream_auth"
        (target,) = caller("route.explain", model="broken/echo", prompt="p")["targets"]
        assert target["in"]
        assert refused(caller, "execute", model="broken/echo", prompt="p").kind == "upstream_auth"
        (target,) = caller("route.explain", model="broken/echo", prompt="p")["targets"]
        assert (target["in"], target["reason"]) == (False, "breaker_open")
        assert target["detail"] == "it has failed too often of late (upstream_auth)"
        assert 0 < target["retry_after_ms"] <= 5000
        health = {model["model"]: model["health"] for model in caller("models.list")["models"]}
        assert (health["broken/echo"], health["echo/echo"]) == ("breaker_open", "ready")
        assert llmd("reload").status == 0
        assert caller("route.explain", model="broken/echo", prompt="p")["targets"][0]["in"]


def test_a_reload_swaps_the_rules_and_drops_no_call(tmp_path: Path) -> None:
    rule = '[[routing.rules]]\nprefer = [{ provider = "slow" }]'
    with running_daemon(tmp_path, config=ECHOES + rule) as daemon, daemon.wire() as wire, daemon.wire() as other:
        for number in range(20):
            params = {"prompt": f"p{number}"}
            wire.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": "execute", "params": params}))
        wire.send('{"jsonrpc":"2.0","id":"behind","method":"ping"}')
        assert wire.receive()["id"] == "behind"
        (tmp_path / "config.toml").write_text(ECHOES + rule.replace("slow", "gemini"))
        assert llmd("reload").status == 0
        assert Caller(other)("execute", prompt="p")["provider"] == "gemini"
        ended = [wire.receive()["result"] for _ in range(20)]
        assert {done["provider"] for done in ended} == {"slow"}
