"""The daemon as a place of calls: the same adapters and trackers, over one connection of this process."""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from llmd import BudgetTracker, Client, LLMBudgetExceededError, LLMError, NoDaemon, RunConfig, create_adapter, engine
from llmd.client.connection import Connection
from llmd.engine import Engine
from tests.support.daemon import RunningDaemon, running_daemon
from tests.support.library import library


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path) as started, library():
        yield started


def test_the_daemon_makes_the_calls_of_threads_and_tasks(daemon: RunningDaemon) -> None:
    adapter = create_adapter("echo/echo", daemon=True)
    with ThreadPoolExecutor(8) as threads:
        assert [made.text for made in threads.map(adapter.execute_prompt, "abcdefgh")] == list("abcdefgh")

    async def gather() -> list[str]:
        return [made.text for made in await asyncio.gather(*map(adapter.async_execute_prompt, "abc"))]

    assert asyncio.run(gather()) == ["a", "b", "c"]
    with pytest.raises(LLMError, match="nobody") as caught:
        create_adapter("nobody/m", daemon=True).execute_prompt("x")
    assert caught.value.kind == "no_route"


def test_a_tracker_opens_its_budget_in_the_daemon(daemon: RunningDaemon) -> None:
    adapter = create_adapter("echo/echo", daemon=True)
    with BudgetTracker(total=4000, label="mine") as tracker:
        assert tracker.handle is None
        child = tracker.child(total=1000)
        adapter.execute_prompt("x", RunConfig(budget_tracker=child))
        with pytest.raises(LLMBudgetExceededError):
            adapter.execute_prompt("x", RunConfig(budget_tracker=child, max_tokens=2000))
        assert tracker.handle
        with daemon.wire() as wire:
            told = wire.call("budget.get", json.dumps({"budget": tracker.handle}))["result"]
        assert (told["label"], told["settled"]["total_tokens"], told["children"]) == ("mine", 2, 1)
        assert tracker.child(total=5).snapshot().parent == told["id"]
        with pytest.raises(LLMError, match="is in the daemon"):
            create_adapter("echo/echo").execute_prompt("x", RunConfig(budget_tracker=tracker))
    assert (tracker.snapshot().state, tracker.snapshot().settled.total_tokens) == ("closed", 2)


def test_a_trackers_budget_is_where_it_was_used_first(daemon: RunningDaemon) -> None:
    tracker = BudgetTracker(total=4000)
    create_adapter("echo/echo").execute_prompt("x", RunConfig(budget_tracker=tracker))
    with pytest.raises(LLMError, match="is in this process") as caught:
        create_adapter("echo/echo", daemon=True).execute_prompt("x", RunConfig(budget_tracker=tracker))
    assert caught.value.kind == "budget_unknown"


def test_a_budget_of_the_daemons_is_attached_to_and_stays_open(daemon: RunningDaemon) -> None:
    adapter = create_adapter("echo/echo", daemon=True)
    with Client() as client, client.budget(total=1000) as budget:
        with BudgetTracker.attach(budget.handle) as tracker:
            adapter.execute_prompt("x", RunConfig(budget_tracker=tracker))
            adapter.execute_prompt("x", RunConfig(budget_tracker=tracker.child(total=900)))
        assert budget.snapshot().settled.total_tokens == tracker.snapshot().settled.total_tokens == 4
        tracker.close()
        with pytest.raises(LLMError, match="closed"):
            budget.snapshot()


async def lost(on: Engine) -> None:
    """Wait until the library has noticed that its daemon has gone."""
    while not on.places["remote"]._client._connection.lost:
        await anyio.lowlevel.checkpoint()


def test_the_next_call_finds_a_daemon_that_was_started_again(tmp_path: Path) -> None:
    adapter = create_adapter("echo/echo", daemon=True)
    with library():
        with pytest.raises(NoDaemon):
            adapter.execute_prompt("x")
        for _ in range(2):
            with running_daemon(tmp_path) as daemon:
                assert adapter.execute_prompt("x").text == "x"
                assert daemon.stop() == 0
                engine.shared().call(lost)


def test_a_budget_that_its_process_leaves_open_ends_with_its_connection(daemon: RunningDaemon) -> None:
    tracker = BudgetTracker(total=1000)
    create_adapter("echo/echo", daemon=True).execute_prompt("x", RunConfig(budget_tracker=tracker))
    assert tracker.snapshot().lease_s is None


def test_a_connection_that_fails_as_none_should_takes_nothing_else_along(
    daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(connection: Connection, line: bytes) -> None:
        raise ZeroDivisionError

    here, there = create_adapter("echo/echo"), create_adapter("echo/echo", daemon=True)
    config = RunConfig(budget_tracker=BudgetTracker(total=1000))
    here.execute_prompt("x", config)
    with monkeypatch.context() as patch:
        patch.setattr(Connection, "_take", fail)
        with pytest.raises(LLMError) as caught:
            there.execute_prompt("x")
        assert caught.value.kind == "outcome_unknown"
    assert here.execute_prompt("x", config).text == "x"
    assert there.execute_prompt("x").text == "x"


def test_what_leaves_the_block_of_a_tracker_is_raised_though_the_daemon_has_gone(daemon: RunningDaemon) -> None:
    adapter = create_adapter("echo/echo", daemon=True)

    def broken() -> None:
        with BudgetTracker(total=1000) as tracker:
            adapter.execute_prompt("x", RunConfig(budget_tracker=tracker))
            assert daemon.stop() == 0
            engine.shared().call(lost)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
