"""Budgets made smaller and larger, as dialogues with a treasury in the test's process."""

from typing import Any

import anyio
import pytest

from llmd.core.amounts import pack
from tests.support.stub import HELD, Caller
from tests.support.treasuries import (
    Bank,
    ScriptedJournal,
    bank,
    in_virtual_time,
    pass_time,
    refused,
    settle_down,
)


@in_virtual_time
async def test_a_handle_makes_its_own_budget_smaller_and_only_one_above_makes_it_larger() -> None:
    async with bank() as opened:
        root = await opened.open(100, lease_s=100)
        child = await opened.open(50, parent=root, guarantee={"total_tokens": 10}, lease_s=100)
        grandchild = await opened.open(10, parent=child)
        larger: list[dict[str, Any]] = [
            {"limits": {"total_tokens": 51}},
            {"guarantee": {"total_tokens": 11}},
            {"lease_s": 101},
        ]
        for params in larger:
            with refused("budget_denied"):
                await opened.resize(child, **params)
        assert (await opened.resize(child, limits={"total_tokens": 40}, lease_s=50)).limits == {"total_tokens": 40}
        assert (await opened.resize(child, limits={"requests": 3})).limits == {"total_tokens": 40, "requests": 3}
        assert (await opened.resize(child, guarantee={"total_tokens": 5})).guarantee == {"total_tokens": 5}
        below = opened.get(child).id
        for params in larger:
            told = await opened.resize(root, child=below, **params)
        assert (told.limits["total_tokens"], told.guarantee["total_tokens"], told.lease_s) == (51, 11, 101)
        assert (await opened.resize(root, child=opened.get(grandchild).id, limits={"total_tokens": 99})).lease_s == 3600
        assert (await opened.resize(root, limits={"total_tokens": 200}, lease_s=500)).lease_s == 500


@in_virtual_time
async def test_the_name_of_a_configured_budget_makes_none_larger() -> None:
    async with bank(configured={"daily": {"default": True}}) as opened:
        child = await opened.open(50, guarantee={"total_tokens": 10}, lease_s=100)
        below = await opened.open(20, parent=child)
        ids = {handle: opened.get(handle).id for handle in (child, below)}
        larger: list[dict[str, Any]] = [
            {"limits": {"total_tokens": 51}},
            {"guarantee": {"total_tokens": 11}},
            {"lease_s": 3601},
        ]
        for handle in (child, below):
            for params in larger:
                with refused("budget_denied"):
                    await opened.resize("daily", child=ids[handle], **params)
        assert opened.get(child).limits == {"total_tokens": 50}
        told = await opened.resize("daily", child=ids[child], limits={"total_tokens": 40})
        assert told.limits == {"total_tokens": 40}
        assert (await opened.resize(child, child=ids[below], limits={"total_tokens": 30})).limits == {
            "total_tokens": 30
        }


@in_virtual_time
async def test_what_cannot_be_resized() -> None:
    async with bank(configured={"daily": {"limits": {"total_tokens": 100}}}) as opened:
        root, other = await opened.open(100), await opened.open(100)
        child = await opened.open(50, parent=root)
        ids = {handle: opened.get(handle).id for handle in (root, other, child)}
        for handle, target in ((root, other), (child, root), (child, child), (other, child)):
            with refused("budget_unknown", path="child"):
                await opened.resize(handle, child=ids[target], limits={"total_tokens": 10})
        with refused("budget_unknown"):
            await opened.resize(ids[child], limits={"total_tokens": 10})
        with refused("budget_denied"):
            await opened.resize("daily", limits={"total_tokens": 10})
        with refused("invalid_params", path="guarantee.total_tokens"):
            await opened.resize(root, child=ids[child], guarantee={"total_tokens": 51})
        with refused("budget_exceeded"):
            await opened.resize(root, child=ids[child], limits={"total_tokens": 500}, guarantee={"total_tokens": 101})
        assert opened.get(child).guarantee == {}


@in_virtual_time
async def test_a_limit_goes_down_to_what_is_used_and_no_further() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(1000)
        caller = Caller(opened, group)
        await opened.charge(handle, 50)
        await caller.begin(handle, max_tokens=100)
        with refused("budget_busy", requested=50 + HELD - 1):
            await opened.resize(handle, limits={"total_tokens": 50 + HELD - 1})
        await opened.resize(handle, limits={"total_tokens": 50 + HELD})
        with refused("budget_exceeded", requested=49):
            await opened.resize(handle, limits={"total_tokens": 49})
        await caller.finish()


@in_virtual_time
async def test_a_limit_that_is_raised_lets_those_go_who_wait_for_it() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        root = await opened.open(4000)
        child = await opened.open(200, parent=root)
        caller = Caller(opened, group)
        await caller.begin(child, max_tokens=100)
        await caller.begin(child, "y", max_tokens=100)
        assert len(caller.stub.sent) == 1
        await opened.resize(root, child=opened.get(child).id, limits={"total_tokens": 300})
        await settle_down()
        assert len(caller.stub.sent) == 2
        group.cancel_scope.cancel()


@in_virtual_time
async def test_a_guarantee_that_is_given_back_lets_those_go_who_wait_above() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        root = await opened.open(300)
        sure = await opened.open(150, parent=root, guarantee={"total_tokens": 150})
        caller = Caller(opened, group)
        await caller.begin(root, max_tokens=100)
        waits = await caller.begin(root, "y", max_tokens=100)
        assert waits.end is None
        await opened.resize(sure, guarantee={"total_tokens": 10})
        await settle_down()
        assert len(caller.stub.sent) == 2
        group.cancel_scope.cancel()


@in_virtual_time
async def test_a_resize_is_told_when_it_is_durable() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(100)
        opened.journal.stall()
        done = anyio.Event()

        async def resize() -> None:
            await opened.resize(handle, limits={"total_tokens": 50})
            done.set()

        group.start_soon(resize)
        await pass_time(5)
        assert not done.is_set()
        opened.journal.go.set()
        await done.wait()


# -- where it cannot be written ---------------------------------------------------------------------------------------


@in_virtual_time
@pytest.mark.parametrize(("limit", "guarantee"), [(100 + 2 * HELD, 150), (60 + HELD, 5)], ids=["larger", "smaller"])
async def test_a_resize_that_cannot_be_written_is_taken_back(limit: int, guarantee: int) -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        root = await opened.open(1000)
        child = await opened.open(100 + HELD, parent=root, guarantee={"total_tokens": 100}, lease_s=50)
        caller = Caller(opened, group)
        await opened.charge(child, 50)
        await caller.begin(child, max_tokens=100)
        waits = await caller.begin(child, max_tokens=100)
        before = opened.get(root), opened.get(child)
        opened.journal.failing = True
        terms = {"limits": {"total_tokens": limit}, "guarantee": {"total_tokens": guarantee}, "lease_s": 10}
        with refused("ledger_unavailable"):
            await opened.resize(root, child=before[1].id, **terms)
        await settle_down()
        assert (opened.get(root), opened.get(child)) == before
        assert (waits.end, len(caller.stub.sent)) == (None, 1)
        waits.scope.cancel()
        await caller.finish()
        before = opened.get(root), opened.get(child)
        opened.journal.failing = False
        await pass_time(1)
        image = opened.journal.image()
        group.cancel_scope.cancel()
    async with bank(ScriptedJournal(image)) as second:
        assert (second.get(root), second.get(child)) == before
        await pass_time(20)
        assert second.get(child).state == "open"


@in_virtual_time
async def test_a_resize_stands_where_its_old_terms_no_longer_fit() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        root = await opened.open(100)
        child = await opened.open(50, parent=root, guarantee={"total_tokens": 50})
        opened.journal.stall()
        done = anyio.Event()

        async def resize() -> None:
            with refused("ledger_unavailable"):
                await opened.resize(child, guarantee={"total_tokens": 0})
            done.set()

        group.start_soon(resize)
        await settle_down()
        now = opened.clock.now()
        assert opened.treasury.ledger.charge(now, opened.budget(root), pack({"total_tokens": 80})) is None
        opened.journal.failing = True
        opened.journal.go.set()
        await done.wait()
        assert opened.get(child).guarantee == {"total_tokens": 0}
        opened.journal.failing = False
        await pass_time(1)
        assert (await opened.resize(child, guarantee={"total_tokens": 0})).guarantee == {"total_tokens": 0}


@in_virtual_time
async def test_of_two_resizes_that_cannot_be_written_both_are_taken_back() -> None:
    async with bank() as opened:
        root = await opened.open(100)
        opened.journal.stall()
        async with anyio.create_task_group() as group:
            for limit in (200, 300):
                group.start_soon(expect_failure, opened, root, limit)
                await settle_down()
            opened.journal.failing = True
            opened.journal.go.set()
        assert opened.get(root).limits == {"total_tokens": 100}


async def expect_failure(opened: Bank, handle: str, limit: int) -> None:
    with refused("ledger_unavailable"):
        await opened.resize(handle, limits={"total_tokens": limit})
