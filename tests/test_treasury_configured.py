"""The roots that a configuration makes: at the start, after a reload, after a restart with another one."""

from typing import Any

import anyio

from llmd.roots import problems
from tests.support.stub import Caller, Stub, used
from tests.support.treasuries import (
    ScriptedJournal,
    bank,
    in_virtual_time,
    pass_time,
    refused,
    settings,
    settle_down,
)

DAY_MS = 24 * 3600 * 1000
HOUR_S = 3600


def daily(tokens: int, **more: Any) -> dict[str, Any]:
    return {"daily": {"limits": {"total_tokens": tokens}, **more}}


@in_virtual_time
async def test_configured_budgets_are_there_from_the_start_and_go_on_after_a_restart() -> None:
    async with bank(configured=daily(100)) as first:
        assert (await first.charge("daily", 60)).available["total_tokens"] == 40
        assert first.get("daily").lease_s is None
        assert not first.treasury.has_opened_budgets
        await first.open(1)
        assert first.treasury.has_opened_budgets
        image = first.journal.image()
    async with bank(ScriptedJournal(image), daily(80)) as second:
        assert second.tokens("daily") == (60, 0)
        assert second.get("daily").available["total_tokens"] == 20


@in_virtual_time
async def test_the_limit_of_budgets_is_none_for_those_that_are_configured() -> None:
    async with bank(configured=daily(100), budgets_max=1) as opened:
        with refused("busy"):
            await opened.open(1)
        opened.treasury.configure(settings({**daily(100), "weekly": {"limits": {"total_tokens": 1000}}}))
        assert opened.get("weekly").available["total_tokens"] == 1000


@in_virtual_time
async def test_a_reload_that_raises_a_limit_lets_those_go_who_wait() -> None:
    async with bank(configured=daily(300)) as opened, anyio.create_task_group() as group:
        caller = Caller(opened, group)
        await caller.begin("daily", max_tokens=200)
        waits = await caller.begin("daily", max_tokens=200)
        assert len(caller.stub.sent) == 1
        opened.treasury.configure(settings(daily(1000)))
        await settle_down()
        assert len(caller.stub.sent) == 2
        await caller.finish()
        assert waits.kind is None


@in_virtual_time
async def test_a_reload_may_lower_a_limit_below_what_is_spent() -> None:
    async with bank(configured=daily(100)) as opened:
        await opened.charge("daily", 60)
        opened.treasury.configure(settings(daily(10)))
        told = opened.get("daily")
        assert (told.settled.total_tokens, told.available["total_tokens"]) == (60, 0)
        with refused("budget_exceeded"):
            await opened.charge("daily", 1)


@in_virtual_time
async def test_a_budget_that_is_configured_no_more_drains_and_tells_those_who_wait() -> None:
    async with bank(configured=daily(300)) as opened, anyio.create_task_group() as group:
        caller = Caller(opened, group)
        below = await opened.open(300, parent="daily")
        sent = await caller.begin("daily", max_tokens=200)
        waits = [await caller.begin(below, max_tokens=200) for _ in range(2)]
        opened.treasury.configure({})
        await settle_down()
        assert [wait.kind for wait in waits] == ["budget_closed", "budget_closed"]
        assert sent.end is None
        with refused("budget_closed"):
            await opened.charge("daily", 1)
        await caller.finish()
        assert sent.kind is None
        with refused("budget_unknown"):
            opened.get("daily")
        with refused("budget_closed"):
            opened.get(below)


@in_virtual_time
async def test_a_budget_that_is_configured_again_before_it_has_drained_goes_on() -> None:
    async with bank(configured=daily(1000)) as opened, anyio.create_task_group() as group:
        caller = Caller(opened, group, Stub(used(3, 4)))
        sent = await caller.begin("daily", max_tokens=200)
        opened.treasury.configure({})
        opened.treasury.configure(settings(daily(1000)))
        assert opened.get("daily").state == "open"
        await opened.charge("daily", 10)
        await caller.finish()
        assert sent.kind is None
        assert opened.tokens("daily") == (17, 0)


@in_virtual_time
async def test_a_call_that_was_not_sent_when_its_budget_drained_is_refused_though_it_is_configured_again() -> None:
    async with bank(configured=daily(1000)) as opened, anyio.create_task_group() as group:
        caller = Caller(opened, group, max_concurrency=1)
        await caller.begin("daily", max_tokens=200)
        queued = await caller.begin("daily", max_tokens=200)
        opened.treasury.configure({})
        opened.treasury.configure(settings(daily(1000)))
        await caller.finish()
        assert queued.kind == "budget_closed"
        assert opened.is_at_rest()


@in_virtual_time
async def test_another_window_takes_a_restart_and_then_counts_anew() -> None:
    async with bank(configured=daily(100, window="day")) as first:
        below = await first.open(50, parent="daily")
        await first.charge(below, 40)
        assert problems(first.treasury.ledger.budgets, settings(daily(100, window="day"))) == []
        found = problems(first.treasury.ledger.budgets, settings(daily(100, window="month")))
        assert len(found) == 1
        assert found[0].startswith("budgets.daily.window")
        image = first.journal.image()
    async with bank(ScriptedJournal(image), daily(100, window="month")) as second:
        assert second.tokens("daily") == (0, 0)
        assert second.get("daily").window == "month"
        await second.charge("daily", 100)
        with refused("budget_closed"):
            second.get(below)
        await pass_time(1)
        image = second.journal.image()
    async with bank(ScriptedJournal(image), daily(100, window="month")) as third:
        assert third.tokens("daily") == (100, 0)


@in_virtual_time
async def test_a_root_that_becomes_strict_makes_the_holds_below_it_sound() -> None:
    loose = daily(4000, enforcement="estimate")
    async with bank(configured=loose) as opened, anyio.create_task_group() as group:
        below = await opened.open(4000, parent="daily")
        caller = Caller(opened, group)
        await caller.begin(below, max_tokens=10)
        (estimate,) = [hold.amounts & 2**80 - 1 for hold in opened.treasury.ledger.holds.values()]
        opened.treasury.configure(settings(daily(4000)))
        await caller.begin(below, max_tokens=10)
        bound = [hold.amounts & 2**80 - 1 for hold in opened.treasury.ledger.holds.values()][-1]
        assert bound > estimate
        group.cancel_scope.cancel()
