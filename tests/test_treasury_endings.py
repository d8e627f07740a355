"""What ends by itself: a budget whose lease has run out or whose connection has gone, a hold that nobody resolves."""

from typing import Any

import anyio
import pytest

from llmd.core.holds import Call, Hold
from tests.support.stub import HELD, Caller
from tests.support.treasuries import (
    Line,
    ScriptedJournal,
    bank,
    context,
    in_virtual_time,
    pass_time,
    refused,
)

DAY_MS = 24 * 3600 * 1000
HOUR_S = 3600


# -- leases and connections -------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_lease_that_nobody_uses_runs_out() -> None:
    async with bank() as opened:
        handle = await opened.open(10, lease_s=100)
        await pass_time(99)
        assert opened.treasury.named(handle).state == "open"
        await pass_time(3)
        with refused("budget_closed"):
            opened.get(handle)


@in_virtual_time
@pytest.mark.parametrize("ties", [{"lease_s": 10}, {"scope": "connection"}])
async def test_of_a_tree_that_ends_at_once_nothing_is_left(ties: dict[str, Any]) -> None:
    async with bank() as opened:
        line = Line()
        root = await opened.open(1000, context(line), **ties)
        await opened.open(100, context(line), parent=root, **ties)
        line.end()
        await pass_time(30)
        assert (opened.treasury.ledger.budgets, opened.treasury.closings) == ({}, {})


@in_virtual_time
@pytest.mark.parametrize("use", ["get", "charge", "below"])
async def test_a_lease_begins_again_with_each_use_of_the_budget_or_of_one_below(use: str) -> None:
    async with bank() as opened:
        handle = await opened.open(1000, lease_s=100)
        below = await opened.open(1000, parent=handle, lease_s=HOUR_S)
        for _ in range(5):
            await pass_time(90)
            if use == "get":
                opened.get(handle)
            else:
                await opened.charge(below if use == "below" else handle, 1)
        assert opened.treasury.named(handle).state == "open"
        await pass_time(103)
        with refused("budget_closed"):
            opened.get(handle)


@in_virtual_time
async def test_a_lease_does_not_run_out_while_something_is_held() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(4000, lease_s=100)
        caller = Caller(opened, group)
        call = await caller.begin(handle, max_tokens=10)
        await pass_time(500)
        assert opened.treasury.named(handle).state == "open"
        await caller.finish()
        assert call.end is not None
        await pass_time(90)
        assert opened.treasury.named(handle).state == "open", "it begins again when the call is over"
        await pass_time(200)
        with refused("budget_closed"):
            opened.get(handle)


@in_virtual_time
async def test_a_lease_does_not_run_out_while_somebody_waits() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        root = await opened.open(HELD, lease_s=HOUR_S)
        handle = await opened.open(4000, parent=root, lease_s=5)
        caller = Caller(opened, group)
        await caller.begin(root, max_tokens=100)
        waits = await caller.begin(handle, max_tokens=100)
        await pass_time(20)
        assert opened.treasury.named(handle).state == "open"
        waits.scope.cancel()
        await pass_time(7)
        with refused("budget_closed"):
            opened.get(handle)
        await caller.finish()


@in_virtual_time
async def test_after_a_restart_a_lease_is_whole_again() -> None:
    async with bank() as first:
        handle = await first.open(10, lease_s=100)
        await pass_time(90)
        image = first.journal.image()
    async with bank(ScriptedJournal(image)) as second:
        await pass_time(90)
        assert second.treasury.named(handle).state == "open"
        await pass_time(20)
        with refused("budget_closed"):
            second.get(handle)


@in_virtual_time
async def test_a_budget_of_a_connection_goes_with_it_after_a_grace_and_takes_its_calls_along() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        line = Line()
        handle = await opened.open(4000, context(line), scope="connection", lease_s=1)
        below = await opened.open(4000, parent=handle)
        caller = Caller(opened, group)
        call = await caller.begin(below, max_tokens=10)
        await pass_time(50)
        line.end()
        await pass_time(4)
        assert opened.treasury.named(handle).state == "open"
        await pass_time(3)
        assert call.kind == "budget_closed"
        assert caller.stub.aborted == 1
        for gone in (handle, below):
            with refused("budget_closed"):
                opened.get(gone)


@in_virtual_time
async def test_a_budget_of_a_connection_that_was_closed_before_minds_no_end() -> None:
    async with bank() as opened:
        line = Line()
        handle = await opened.open(4000, context(line), scope="connection")
        await opened.close(handle)
        assert line.ends == []
        line.end()
        await pass_time(10)
        await opened.open(10)


@in_virtual_time
async def test_a_budget_that_was_refused_to_a_connection_has_no_end() -> None:
    async with bank() as opened:
        line = Line()
        parent = await opened.open(10)
        with refused("budget_exceeded"):
            await opened.open(20, context(line), parent=parent, scope="connection", guarantee={"total_tokens": 20})
        assert line.ends == []
        line.end()
        await pass_time(10)
        assert list(opened.treasury.ledger.budgets) == [opened.get(parent).id]
        assert opened.get(parent).children == 0


@in_virtual_time
async def test_budgets_of_connections_do_not_outlive_a_restart_for_long() -> None:
    async with bank() as first:
        handle = await first.open(10, scope="connection")
        image = first.journal.image()
    async with bank(ScriptedJournal(image)) as second:
        assert second.get(handle).state == "open"
        await pass_time(7)
        with refused("budget_closed"):
            second.get(handle)


# -- holds that nobody resolves ---------------------------------------------------------------------------------------


@in_virtual_time
@pytest.mark.parametrize("dispatched", [True, False])
async def test_a_hold_that_outlives_its_call_expires(dispatched: bool, caplog: pytest.LogCaptureFixture) -> None:
    async with bank() as opened:
        handle = await opened.open(100)
        ledger, now = opened.treasury.ledger, opened.clock.now()
        hold = ledger.reserve(now, opened.budget(handle), 30, Call("r7", "work/m", now.mono + 10))
        assert isinstance(hold, Hold)
        if dispatched:
            ledger.dispatch(hold)
        opened.treasury.after(now)
        await pass_time(69)
        assert opened.tokens(handle) == (0, 30)
        await pass_time(3)
        assert opened.tokens(handle) == ((30 if dispatched else 0), 0)
        assert opened.get(handle).uncertain.total_tokens == (30 if dispatched else 0)
        assert "r7" in caplog.text
