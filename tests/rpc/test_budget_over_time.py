"""What lasts of a budget beyond one call: watches, statements, keys, and the connection that it is tied to."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.rpc.test_budget import CONFIG, refused
from tests.support.budgeting import Caller
from tests.support.daemon import RunningDaemon, running_daemon
from tests.transports.test_tcp import free_port


@pytest.fixture
def daemon(tmp_path: Path) -> Any:
    with running_daemon(tmp_path, config=CONFIG) as running:
        yield running


@pytest.fixture
def caller(daemon: RunningDaemon) -> Any:
    with daemon.wire() as wire:
        yield Caller(wire)


def charge(budget: Any, tokens: int) -> dict[str, Any]:
    return {"budget": budget["budget"], "amounts": {"total_tokens": tokens}}


def test_a_watch_tells_the_latest_state_under_its_token_until_it_is_ended(caller: Caller) -> None:
    a = caller.open(total=100)
    assert caller("budget.watch", budget=a["budget"], watch="w")["id"] == a["id"]
    assert refused(caller, "budget.watch", budget=a["budget"], watch="w").kind == "invalid_params"
    wire = caller.wire
    wire.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "budget.charge", "params": charge(a, 7)}))
    messages = [wire.receive(), wire.receive()]
    told = next(message for message in messages if "method" in message)
    assert told["method"] == "llmd.budget"
    assert (told["params"]["watch"], told["params"]["settled"]["total_tokens"]) == ("w", 7)
    caller("budget.unwatch", watch="w")
    assert refused(caller, "budget.unwatch", watch="w").kind == "invalid_params"
    caller("budget.charge", **charge(a, 1))
    wire.send('{"jsonrpc":"2.0","id":9,"method":"ping"}')
    assert wire.receive() == {"jsonrpc": "2.0", "id": 9, "result": {}}


def test_a_statement_comes_in_pages_that_add_up(caller: Caller) -> None:
    a = caller.open(total=1000)
    b = caller.open(total=500, parent=a["budget"])
    for number in range(1, 6):
        caller("budget.charge", **charge(b, number), note=f"n{number}")
    entries, cursor = [], None
    while True:
        more = {} if cursor is None else {"cursor": cursor}
        page = caller("budget.statement", budget=a["budget"], limit=2, **more)
        entries += page["entries"]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert [entry["kind"] for entry in entries] == ["open", "open", *["charge"] * 5]
    assert sum(entry["amounts"]["total_tokens"] for entry in entries[2:]) == 15
    assert [entry["note"] for entry in entries[2:]] == ["n1", "n2", "n3", "n4", "n5"]
    assert refused(caller, "budget.statement", budget=a["budget"], cursor="x").kind == "invalid_params"


def test_a_key_opens_one_budget_and_charges_once_across_a_restart(tmp_path: Path) -> None:
    with running_daemon(tmp_path, config=CONFIG) as daemon, daemon.wire() as wire:
        caller = Caller(wire)
        a = caller.open(total=100, idempotency_key="open-1")
        charged = caller("budget.charge", **charge(a, 7), idempotency_key="charge-1")
        daemon.process.kill()
        daemon.process.wait()
    with running_daemon(tmp_path, config=CONFIG) as daemon, daemon.wire() as wire:
        caller = Caller(wire)
        assert caller.open(total=100, idempotency_key="open-1") == a
        assert caller("budget.charge", **charge(a, 7), idempotency_key="charge-1") == charged
        error = refused(caller, "budget.charge", **charge(a, 8), idempotency_key="charge-1")
        assert error.kind == "idempotency_conflict"
        assert caller("budget.get", budget=a["budget"])["settled"]["total_tokens"] == 7
        caller("budget.close", budget=a["budget"])
        assert caller("budget.charge", **charge(a, 7), idempotency_key="charge-1") == charged


def test_a_lost_connection_takes_its_budgets_with_it(daemon: RunningDaemon, caller: Caller) -> None:
    with daemon.wire() as wire:
        own = Caller(wire).open(total=100, scope="connection")
        caller("budget.watch", budget=own["budget"], watch="w")
    told = caller.wire.receive()["params"]
    while told["state"] != "closed":
        told = caller.wire.receive()["params"]
    assert refused(caller, "budget.get", budget=own["budget"]).kind == "budget_closed"


def test_over_http_nothing_can_be_tied_to_a_connection_or_watched(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with running_daemon(tmp_path, "--listen", url, config=CONFIG), httpx.Client(base_url=url) as client:

        def call(method: str, **params: Any) -> Any:
            body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            return client.post("/rpc", json=body).json()

        assert call("budget.open", total=1, scope="connection")["error"]["data"]["path"] == "scope"
        handle = call("budget.open", total=1)["result"]["budget"]
        assert call("budget.watch", budget=handle, watch="w")["error"]["data"]["path"] == "watch"
        answer = client.post("/execute", json={"model": "echo/echo", "prompt": "p", "budget": handle})
        assert (answer.status_code, answer.json()["error"]["data"]["kind"]) == (402, "budget_exceeded")
