"""Who waits no longer: their time is over, they give up, or are cancelled at the moment of their turn."""

from functools import partial

import anyio
import pytest

from tests.support.stub import Caller
from tests.support.treasuries import bank, in_virtual_time, pass_time, refused, settle_down
from tests.support.waiting import line


@in_virtual_time
async def test_a_wait_that_is_over_tells_what_still_stood_in_the_way() -> None:
    async with line() as made:
        budget = made.open("a", 10)
        await made.want(budget, 8)
        wait = await made.want(budget, 5, wait_s=3)
        await pass_time(2.9)
        assert not wait.over
        await pass_time(0.2)
        assert wait.refusal is not None
        assert (wait.refusal.contended, wait.refusal.available, wait.refusal.max_fit) == (True, 2, 10)
        assert not len(made.queues)


@in_virtual_time
async def test_a_wait_that_is_over_is_no_way_past_those_who_were_there_before() -> None:
    async with line() as made:
        root = made.open("root", 10)
        child = made.open("child", 10, root)
        await made.want(root, 8)
        big = await made.want(root, 5)
        same, below = await made.want(root, 2, wait_s=3), await made.want(child, 1, wait_s=3)
        await pass_time(4)
        assert not big.over
        for wait in (same, below):
            assert wait.refusal is not None, "it would fit"
            assert (wait.refusal.contended, wait.refusal.limiting.id, wait.refusal.available) == (True, "root", 0)


@in_virtual_time
@pytest.mark.parametrize("wait_ms", [0, 60_000])
async def test_a_budget_that_drains_lets_nobody_in_behind_those_who_wait_above_it(wait_ms: int) -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        root = await opened.open(300)
        child = await opened.open(1000, parent=root)
        caller = Caller(opened, group)
        await caller.begin(child, max_tokens=100)
        group.start_soon(opened.close, child)
        await settle_down()
        group.start_soon(partial(opened.charge, root, 290, wait_ms=300_000))
        await settle_down()
        with refused("budget_closed"):
            await opened.charge(child, 10, wait_ms=wait_ms)
        await caller.finish()


@in_virtual_time
async def test_one_that_gives_up_lets_the_next_one_go() -> None:
    async with line() as made:
        budget = made.open("a", 10)
        await made.want(budget, 8)
        timed, cancelled = await made.want(budget, 5, wait_s=3), await made.want(budget, 4)
        small = await made.want(budget, 2)
        await pass_time(4)
        assert timed.refusal
        assert not small.over
        cancelled.scope.cancel()
        await settle_down()
        assert small.held


@in_virtual_time
async def test_one_that_is_cancelled_at_the_moment_of_its_turn_has_had_it() -> None:
    async with line() as made:
        budget = made.open("a", 10)
        first = await made.want(budget, 10)
        wait = await made.want(budget, 10)
        wait.scope.cancel()
        first.give_back()
        await settle_down()
        assert wait.over
        assert wait.held, "whoever waits gives it back"
