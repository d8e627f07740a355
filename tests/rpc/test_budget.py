"""`budget.*` and `execute` under a budget, over real connections to a real daemon."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from llmd import paths
from tests.support.budgeting import Caller, RefusedError
from tests.support.daemon import RunningDaemon, running_daemon
from tests.support.stranger import as_stranger, needs_root
from tests.transports.test_tcp import free_port

CONFIG = """
[providers.echo]
dialect = "echo"
[providers.slow]
dialect = "echo"
latency_ms = 600000
[providers.failing]
dialect = "echo"
latency_ms = 300
fail = "upstream_unavailable"
[providers.unpriced]
base_url = "http://127.0.0.1:9/v1"
[providers.priced]
dialect = "echo"
models.echo.price = { input = 1.0, output = 2.0 }

[budgets.team]
limits = { requests = 1000 }

[ledger]
durability = "process"
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Any:
    with running_daemon(tmp_path, config=CONFIG) as running:
        yield running


@pytest.fixture
def caller(daemon: RunningDaemon) -> Any:
    with daemon.wire() as wire:
        yield Caller(wire)


LOOPBACK = b"127.0.0.1"  # as bytes it needs no codec, which a process without rights could not load


def refused(call: Any, *arguments: Any, **params: Any) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        call(*arguments, **params)
    return caught.value


def test_a_chain_of_agents_stays_under_the_budget_of_its_first(caller: Caller) -> None:
    a = caller.open(total=4000, label="A")
    b = caller.open(total=3000, parent=a["budget"], label="B")
    c = caller.open(total=2000, parent=b["budget"], label="C")
    done = caller.execute(c["budget"])
    assert done["budget"]["id"] == c["id"]
    assert done["budget"]["settled"]["total_tokens"] == done["usage"]["total_tokens"] == 6
    for one in (a, b, c):
        settled = caller("budget.get", budget=one["budget"])["settled"]
        assert (settled["total_tokens"], settled["requests"]) == (6, 1)


def test_a_refusal_says_which_budget_ran_out_of_what_and_what_would_fit(caller: Caller) -> None:
    a = caller.open(total=1000)
    b = caller.open(total=5000, parent=a["budget"])
    error = refused(caller.execute, b["budget"], max_tokens=2000)
    assert (error.kind, error.data["retryable"], error.data["budget"]) == ("budget_exceeded", False, b["id"])
    assert error.data["limiting"] == {"id": a["id"], "unit": "total_tokens"}
    assert error.data["available"] == error.data["max_fit"] == 1000
    assert caller.execute(b["budget"], max_tokens=error.data["max_tokens"])["text"] == "one two three"
    assert refused(caller.execute, a["budget"], max_tokens=error.data["max_tokens"] + 1).kind == "budget_exceeded"


def test_an_answer_without_max_tokens_is_cut_to_what_the_budget_has_and_says_so(caller: Caller) -> None:
    budget = caller.open(total=700)["budget"]
    done = caller.execute(budget)
    assert 16 <= done["clamped_max_tokens"] < 1024
    assert caller.execute(caller.open(total=4000)["budget"])["clamped_max_tokens"] is None


def test_who_only_holds_stand_in_the_way_of_waits_its_turn(daemon: RunningDaemon, caller: Caller) -> None:
    a = caller.open(total=1000)
    with daemon.wire() as other, daemon.wire() as third:
        params = {"model": "failing/echo", "prompt": "p", "budget": a["budget"], "max_tokens": 300}
        other.send(json.dumps({"jsonrpc": "2.0", "id": 7, "method": "execute", "params": params}))
        while not caller("budget.get", budget=a["budget"])["held"]["requests"]:
            pass
        error = refused(caller.execute, a["budget"], max_tokens=300, wait_ms=0)
        assert (error.kind, error.data["retryable"]) == ("budget_contended", True)
        assert error.data["retry_after_ms"] > 0
        assert error.data["available"] < error.data["requested"] <= error.data["max_fit"] == 1000
        params = _charge(a, 900, wait_ms=20_000)
        third.send(json.dumps({"jsonrpc": "2.0", "id": 8, "method": "budget.charge", "params": params}))
        assert other.receive()["error"]["data"]["kind"] == "upstream_unavailable"
        assert third.receive()["result"]["settled"]["total_tokens"] == 900
    assert caller("budget.get", budget=a["budget"])["held"]["total_tokens"] == 0


def _charge(budget: Any, tokens: int, wait_ms: int = 0) -> dict[str, Any]:
    return {"budget": budget["budget"], "amounts": {"total_tokens": tokens}, "wait_ms": wait_ms}


def test_a_close_with_cancel_aborts_the_calls_below_and_tells_what_was_posted(
    daemon: RunningDaemon, caller: Caller
) -> None:
    a = caller.open(total=4000)
    b = caller.open(total=2000, parent=a["budget"])
    with daemon.wire() as other:
        params = {"model": "slow/echo", "prompt": "p", "budget": b["budget"], "max_tokens": 100}
        other.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "execute", "params": params}))
        while not caller("budget.get", budget=a["budget"])["held"]["requests"]:
            pass
        caller.open(total=1)  # durable behind the hold: that one is, too, and its bytes have left
        assert refused(caller, "budget.close", budget=a["budget"], timeout_ms=1).kind == "deadline_exceeded"
        assert caller("budget.get", budget=b["budget"])["state"] == "draining"
        statement = caller("budget.close", budget=a["budget"], mode="cancel")
        assert other.receive()["error"]["data"]["kind"] == "budget_closed"
    assert statement["budget"]["state"] == "closed"
    assert statement["budget"]["held"]["total_tokens"] == 0
    posted = next(entry for entry in statement["entries"] if entry["kind"] == "settle")
    assert (posted["uncertain"], posted["target"]) == (True, "slow/echo")
    assert posted["amounts"]["total_tokens"] == statement["budget"]["uncertain"]["total_tokens"] > 100


def test_usd_limits_refuse_models_without_a_price_and_count_the_others(caller: Caller) -> None:
    budget = caller.open(limits={"usd": "0.01"})["budget"]
    assert refused(caller.execute, budget, model="unpriced/m").kind == "unpriced_model"
    done = caller.execute(budget, model="priced/echo", max_tokens=10)
    assert done["cost"]["nano_usd"] == done["budget"]["settled"]["nano_usd"] == 3 * 1000 + 3 * 2000


def test_what_a_handle_may_not_do(caller: Caller) -> None:
    a = caller.open(total=1000)
    b = caller.open(total=500, parent=a["budget"], allow={"providers": ["echo"], "labels": {"team": "x"}})
    other = caller.open(total=10)
    raising = {"limits": {"total_tokens": 501}}
    assert refused(caller, "budget.resize", budget=b["budget"], **raising).kind == "budget_denied"
    assert refused(caller, "budget.resize", budget=b["budget"], child=a["id"], **raising).kind == "budget_unknown"
    assert refused(caller, "budget.resize", budget=other["budget"], child=b["id"], **raising).kind == "budget_unknown"
    assert refused(caller.execute, b["budget"], model="slow/echo").kind == "budget_denied"
    fixed = {"labels": {"team": "y"}}
    assert refused(caller.open, total=1, parent=b["budget"], allow=fixed).kind == "budget_denied"
    for unknown in ("bh_forged", b["id"], "nobody"):
        assert refused(caller, "budget.get", budget=unknown).kind == "budget_unknown"
        assert refused(caller.open, total=1, parent=unknown).kind == "budget_unknown"
    assert caller("budget.resize", budget=a["budget"], child=b["id"], **raising)["limits"] == {"total_tokens": 501}
    closed = caller("budget.close", budget=b["budget"])
    for method in ("budget.get", "budget.close", "budget.tree"):
        assert refused(caller, method, budget=b["budget"]).kind == "budget_closed"
    assert caller("budget.statement", budget=b["budget"]) == closed, "who has missed it reads it again"
    assert refused(caller.execute, b["budget"]).kind == "budget_closed"


@pytest.mark.parametrize(
    ("params", "kind", "path"),
    [
        ({"limits": {"total_tokens": -1}}, "invalid_params", "limits.total_tokens"),
        ({"limits": {"total_tokens": 1.5}}, "invalid_params", "limits.total_tokens"),
        ({"limits": {"total_tokens": 2**63}}, "invalid_params", "limits.total_tokens"),
        ({"limits": {"tokens": 1}}, "invalid_params", "limits.tokens"),
        ({"limits": {"usd": "1.0000000001"}}, "invalid_params", "limits"),
        ({}, "invalid_params", ""),
        ({"total": 5, "limits": {}}, "invalid_params", ""),
        ({"total": 5, "guarantee": {"total_tokens": 6}}, "invalid_params", "guarantee.total_tokens"),
        ({"total": 5, "window": "day", "guarantee": {"total_tokens": 1}}, "invalid_params", "guarantee"),
        ({"total": 5, "label": "x" * 2**20}, "invalid_params", "label"),
        ({"total": 5, "lease_s": 0}, "invalid_params", "lease_s"),
        ({"total": 5, "enforcement": "lax"}, "invalid_params", "enforcement"),
        (
            {"total": 5, "parent": "team", "scope": "connection", "guarantee": {"requests": 2000}},
            "budget_exceeded",
            None,
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_bad_open_is_told_and_changes_nothing(
    caller: Caller, params: dict[str, Any], kind: str, path: str | None
) -> None:
    before = caller("budget.tree", owner=True)
    error = refused(caller.open, **params)
    assert (error.kind, error.data.get("path")) == (kind, path)
    assert caller("budget.tree", owner=True) == before


def test_below_a_window_nothing_is_guaranteed(caller: Caller) -> None:
    windowed = caller.open(total=100, window="day")["budget"]
    child = caller.open(total=50, parent=windowed)
    guaranteed = {"guarantee": {"total_tokens": 1}}
    for asked in (
        lambda: caller.open(total=5, parent=windowed, **guaranteed),
        lambda: caller.open(total=5, parent=child["budget"], **guaranteed),
        lambda: caller("budget.resize", budget=windowed, child=child["id"], **guaranteed),
    ):
        error = refused(asked)
        assert (error.kind, error.data["path"]) == ("invalid_params", "guarantee")
    (tree,) = caller("budget.tree", budget=windowed)["budgets"]
    assert [(below["id"], below["guarantee"]) for below in tree["below"]] == [(child["id"], {})]


@pytest.mark.parametrize(
    "amounts", [{}, {"requests": 0}, {"requests": -1}, {"requests": 2**63}, {"requests": 0.5}, {"x": 1}]
)
def test_a_bad_charge_is_told_and_changes_nothing(caller: Caller, amounts: dict[str, Any]) -> None:
    assert refused(caller, "budget.charge", budget="team", amounts=amounts).kind == "invalid_params"
    assert caller("budget.get", budget="team")["settled"]["requests"] == 0


def test_budgets_nest_64_deep_and_no_deeper(caller: Caller) -> None:
    handle = "team"
    for _ in range(63):
        handle = caller.open(total=100, parent=handle)["budget"]
    error = refused(caller.open, total=100, parent=handle)
    assert (error.kind, error.data["path"]) == ("invalid_params", "parent")
    caller("budget.charge", budget=handle, amounts={"requests": 3})
    assert caller("budget.get", budget="team")["settled"]["requests"] == 3


def test_a_configured_budget_is_spent_by_its_name_and_is_not_closed_or_resized(caller: Caller) -> None:
    assert caller.execute("team")["budget"]["id"] == "team"
    assert refused(caller, "budget.close", budget="team").kind == "budget_denied"
    assert refused(caller, "budget.resize", budget="team", limits={"requests": 1}).kind == "budget_denied"


def test_the_operator_sees_and_closes_without_a_handle_but_does_not_spend(caller: Caller) -> None:
    a = caller.open(total=100, label="A")
    b = caller.open(total=50, parent=a["budget"])
    roots = caller("budget.tree", owner=True)["budgets"]
    assert [(root["id"], root["below"]) for root in roots] == [("team", []), (a["id"], [])]
    tree = caller("budget.tree", id=a["id"], owner=True)["budgets"][0]
    assert [below["id"] for below in tree["below"]] == [b["id"]]
    assert refused(caller, "budget.get", id=a["id"]).kind == "invalid_params"
    assert refused(caller.execute, a["id"]).kind == "budget_unknown"
    assert caller("budget.close", id=a["id"], owner=True)["budget"]["state"] == "closed"


@needs_root
def test_a_stranger_with_the_token_is_no_owner_but_may_spend_a_handle(tmp_path: Path) -> None:
    port = free_port()
    with running_daemon(tmp_path, "--listen", f"tcp://127.0.0.1:{port}", config=CONFIG) as daemon:
        token = paths.token_file(os.environ).read_text().strip()
        with daemon.wire() as wire:
            handle = Caller(wire).open(total=100)["budget"]

        def act() -> bytes:
            with socket.socket() as connection:
                connection.settimeout(10)
                connection.connect((LOOPBACK, port))
                lines = connection.makefile("rb")
                said = b""
                for number, (method, params) in enumerate(
                    [
                        ("daemon.auth", {"token": token}),
                        ("budget.tree", {"owner": True}),
                        ("budget.get", {"budget": handle}),
                    ]
                ):
                    call = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
                    connection.sendall(json.dumps(call).encode() + b"\n")
                    said = said + lines.readline()
                return said

        _, refusal, told = (json.loads(line) for line in as_stranger(act).splitlines())
    assert refusal["error"]["data"]["kind"] == "unauthorized"
    assert told["result"]["limits"] == {"total_tokens": 100}
