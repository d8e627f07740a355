"""What `budget.*` does, as dialogues with a treasury in the test's process."""

from typing import Any

import anyio
import pytest

from llmd.books import (
    UNITS,
    Amounts,
    Snapshot,
)
from llmd.treasury import Treasury
from tests.support.stub import Caller
from tests.support.treasuries import (
    BUDGETS_MAX,
    Bank,
    ScriptedJournal,
    WallClock,
    bank,
    in_virtual_time,
    pass_time,
    refused,
    settle_down,
)

# -- open -------------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_what_was_opened_is_told_whole() -> None:
    async with bank() as opened:
        root = await opened.open(limits={"usd": "5.00", "requests": 7}, label="agent", lease_s=60, window="day")
        told = opened.get(root)
        assert told == Snapshot(
            id=told.id,
            parent=None,
            label="agent",
            state="open",
            limits={"nano_usd": 5 * 10**9, "requests": 7},
            guarantee={},
            window="day",
            settled=Amounts(),
            held=Amounts(),
            uncertain=Amounts(),
            overrun=Amounts(),
            available={unit: {"nano_usd": 5 * 10**9, "requests": 7}.get(unit) for unit in UNITS},
            children=0,
            lease_s=60,
            enforcement="strict",
            allow=None,
        )
        child = await opened.open(10, parent=root)
        assert (opened.get(child).parent, opened.get(root).children) == (told.id, 1)
        assert opened.get(child).available["requests"] == 7


@in_virtual_time
async def test_a_guarantee_is_taken_from_the_parent_at_once_and_refused_where_there_is_less() -> None:
    async with bank() as opened:
        root = await opened.open(100)
        await opened.open(80, parent=root, guarantee={"total_tokens": 80})
        assert opened.get(root).available["total_tokens"] == 20
        with refused("budget_exceeded", requested=21, available=20, max_fit=20, budget=opened.get(root).id):
            await opened.open(50, parent=root, guarantee={"total_tokens": 21})
        with refused("budget_exceeded"):
            await opened.charge(root, 21)
        assert opened.get(root).children == 1


@in_virtual_time
async def test_a_guarantee_is_refused_for_now_where_only_holds_stand_in_its_way() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        root = await opened.open(200)
        await Caller(opened, group).begin(root, max_tokens=100)
        with refused("budget_contended", retry_after_ms=100):
            await opened.open(200, parent=root, guarantee={"total_tokens": 200})
        group.cancel_scope.cancel()


@in_virtual_time
@pytest.mark.parametrize(
    ("params", "kind", "path"),
    [
        ({"guarantee": {"total_tokens": 11}}, "invalid_params", "guarantee.total_tokens"),
        ({"guarantee": {"total_tokens": 1}, "window": "day"}, "invalid_params", "guarantee"),
        ({"enforcement": "estimate"}, "invalid_params", "enforcement"),
        ({"enforcement": "track"}, "invalid_params", "enforcement"),
        ({"allow": {"labels": {"trust": "own"}}}, "budget_denied", "allow.labels.trust"),
        ({"parent": "bh_nothing"}, "budget_unknown", None),
        ({"parent": "nothing"}, "budget_unknown", None),
    ],
)
async def test_what_cannot_be_opened(params: dict[str, Any], kind: str, path: str | None) -> None:
    async with bank() as opened:
        root = await opened.open(100, allow={"labels": {"trust": "review"}})
        with refused(kind, path=path):
            await opened.open(10, **{"parent": root, **params})
        assert opened.get(root).children == 0


@in_virtual_time
@pytest.mark.parametrize(("above", "limited", "free"), [("track", "strict", "track"), ("estimate",) * 3])
async def test_a_limit_below_a_budget_that_only_counts_limits_unless_counting_is_asked_for(
    above: str, limited: str, free: str
) -> None:
    async with bank(configured={"daily": {"default": True, "enforcement": above}}) as opened:
        handle = await opened.open(100)
        with refused("budget_exceeded"):
            await opened.charge(handle, 101)
        assert opened.get(handle).enforcement == limited
        assert opened.get(await opened.open(limits={})).enforcement == free
        assert opened.get(await opened.open(100, enforcement=above)).enforcement == above


@in_virtual_time
async def test_nothing_is_opened_below_a_budget_that_drains() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        root = await opened.open(1000)
        child = await opened.open(1000, parent=root)
        caller = Caller(opened, group)
        await caller.begin(child, max_tokens=100)
        group.start_soon(opened.close, root)
        await settle_down()
        for handle in (root, child):
            assert opened.get(handle).state == "draining"
            with refused("budget_closed"):
                await opened.open(1, parent=handle)
            with refused("budget_closed"):
                await opened.charge(handle, 1)
            with refused("budget_closed"):
                await opened.resize(handle, limits={"total_tokens": 900})
        await caller.finish()


@in_virtual_time
async def test_where_nothing_can_be_written_nothing_is_changed_and_much_can_still_be_read() -> None:
    async with bank() as opened:
        handle = await opened.open(100)
        opened.journal.failing = True
        with refused("ledger_unavailable"):
            await opened.open(10, parent=handle, guarantee={"total_tokens": 10})
        for change in (
            opened.open(10),
            opened.charge(handle, 1),
            opened.resize(handle, limits={"total_tokens": 1}),
            opened.close(handle),
        ):
            with refused("ledger_unavailable"):
                await change
        assert opened.get(handle).available["total_tokens"] == 100
        assert opened.tree(handle).budgets[0].below == []
        opened.journal.failing = False
        await pass_time(1)
        statement = await opened.statement(handle)
        assert [entry.kind for entry in statement.entries] == ["open", "open", "drain", "close"]
        await opened.charge(handle, 100)


@in_virtual_time
async def test_before_there_is_a_ledger_those_wait_who_can() -> None:
    treasury = Treasury(WallClock(), {}, BUDGETS_MAX)
    opened = Bank(treasury, WallClock(), ScriptedJournal())
    handles: list[str] = []
    async with anyio.create_task_group() as group:

        async def open_one() -> None:
            handles.append(await opened.open(10))

        group.start_soon(open_one)
        await settle_down()
        with refused("ledger_unavailable"):
            opened.get("bh_any")
        assert handles == []
        treasury.open(opened.journal)
        group.start_soon(treasury.run)
        await settle_down()
        assert opened.get(handles[0]).state == "open"
        group.cancel_scope.cancel()
