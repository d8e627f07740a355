"""Calls that wait for their budget: in order, as long as they say, until it closes."""

import anyio
import pytest

from llmd.chat import Completion
from llmd.errors import LLMError
from tests.support.stub import Stub, calling, input_bound, used
from tests.support.treasuries import Bank, in_virtual_time, pass_time, settle_down

BOUND = input_bound("x", 100)
"""Input tokens of a call for 100 tokens; its prompt is "x"."""


def held(opened: Bank, handle: str) -> int:
    return opened.tokens(handle)[1]


# -- waiting ----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_who_only_holds_stand_in_the_way_of_waits_half_a_minute() -> None:
    async with calling() as (opened, caller):
        handle = await opened.open(200)
        await caller.begin(handle, max_tokens=100)
        waits = await caller.begin(handle, max_tokens=100)
        await pass_time(29)
        assert waits.end is None
        await pass_time(2)
        assert isinstance(waits.end, LLMError)
        assert (waits.end.kind, waits.end.retryable) == ("budget_contended", True)
        assert waits.end.data["max_fit"] == 200
        assert "max_tokens" not in waits.end.data
        await caller.finish()


@in_virtual_time
async def test_a_wait_is_as_long_as_the_caller_says_and_within_its_deadline() -> None:
    async with calling() as (opened, caller):
        handle = await opened.open(200)
        await caller.begin(handle, max_tokens=100)
        assert (await caller.begin(handle, max_tokens=100, wait_ms=0)).kind == "budget_contended"
        brief = await caller.begin(handle, max_tokens=100, wait_ms=1000)
        late = await caller.begin(handle, max_tokens=100, timeout_ms=2000)
        await pass_time(1.5)
        assert (brief.kind, late.end) == ("budget_contended", None)
        await pass_time(1)
        assert late.kind == "deadline_exceeded"
        assert len(caller.stub.sent) == 1
        await caller.finish()


@in_virtual_time
async def test_who_waits_is_served_in_order_and_not_overtaken_by_smaller_calls() -> None:
    async with calling() as (opened, caller):
        handle = await opened.open(400)
        await caller.begin(handle, "first", max_tokens=200)
        for said, tokens in (("big", 350), ("small", 1), ("smaller", 1)):
            await caller.begin(handle, said, max_tokens=tokens)
        assert [one.said for one in caller.stub.sent] == ["first"]
        await caller.finish()
        assert [one.said for one in caller.stub.sent] == ["first", "big"]
        await caller.finish()
        assert sorted(one.said for one in caller.stub.sent[2:]) == ["small", "smaller"]


@in_virtual_time
async def test_calls_below_another_budget_are_not_held_up() -> None:
    async with calling() as (opened, caller):
        root = await opened.open(4000)
        full, free = await opened.open(200, parent=root), await opened.open(200, parent=root)
        await caller.begin(full, max_tokens=100)
        await caller.begin(full, max_tokens=100)
        await caller.begin(free, "free", max_tokens=100)
        assert [one.said for one in caller.stub.sent] == ["x", "free"]


@in_virtual_time
async def test_a_guarantee_is_there_for_its_calls_while_others_wait_above() -> None:
    async with calling() as (opened, caller):
        root = await opened.open(400)
        sure = await opened.open(200, parent=root, guarantee={"total_tokens": 200})
        await caller.begin(root, max_tokens=100)
        await caller.begin(root, max_tokens=100)
        await caller.begin(sure, "sure", max_tokens=100)
        assert [one.said for one in caller.stub.sent] == ["x", "sure"]


@in_virtual_time
async def test_one_that_is_cancelled_while_it_waits_holds_nothing() -> None:
    async with calling() as (opened, caller):
        handle = await opened.open(200)
        await caller.begin(handle, max_tokens=100)
        waits = await caller.begin(handle, max_tokens=100)
        waits.scope.cancel()
        await settle_down()
        assert held(opened, handle) == BOUND + 100
        assert not len(opened.treasury.queues)
        await caller.finish()


@in_virtual_time
@pytest.mark.parametrize("first", ["the cancel", "its turn"])
async def test_one_that_is_cancelled_at_the_moment_of_its_turn_gives_it_back(first: str) -> None:
    async with calling() as (opened, caller):
        handle = await opened.open(200)
        ahead = await caller.begin(handle, max_tokens=100)
        waits = await caller.begin(handle, max_tokens=100)
        behind = await caller.begin(handle, "behind", max_tokens=100)
        # Its turn comes with the end of the one ahead; nobody else runs in between.
        hold = next(iter(opened.treasury.ledger.holds.values()))
        if first == "the cancel":
            waits.scope.cancel()
        opened.treasury.ledger.void(opened.clock.now(), hold)
        opened.treasury.after(opened.clock.now(), hold.path)
        waits.scope.cancel()
        await settle_down()
        assert held(opened, handle) == input_bound("behind", 100) + 100
        assert [one.said for one in caller.stub.sent] == ["x", "behind"]
        assert behind.end is None
        ahead.scope.cancel()


HOUR_MS = 3_600_000


@in_virtual_time
async def test_a_window_that_begins_lets_those_go_who_wait_the_first_one_first() -> None:
    async with calling() as (opened, caller):
        handle = await opened.open(BOUND + 120, window="hour")
        below = await opened.open(4000, parent=handle)
        await caller.begin(handle, "holds", max_tokens=100)
        await caller.begin(below, "first", max_tokens=100)
        last = await caller.begin(handle, "last", max_tokens=100)
        opened.clock.wall_ms += HOUR_MS
        assert (await caller.begin(handle, "new", max_tokens=100, wait_ms=0)).kind == "budget_contended"
        assert [one.said for one in caller.stub.sent] == ["holds", "first"]
        opened.clock.wall_ms += HOUR_MS
        await pass_time(2)
        assert [one.said for one in caller.stub.sent] == ["holds", "first", "last"]
        assert last.end is None
        await caller.finish()


@in_virtual_time
async def test_a_wait_that_is_over_when_a_window_has_just_begun_was_long_enough() -> None:
    async with calling() as (opened, caller):
        handle = await opened.open(2 * BOUND + 250, window="hour")
        for said in ("a", "b", "first"):
            await caller.begin(handle, said, max_tokens=100)
        brief = await caller.begin(handle, "brief", max_tokens=100, wait_ms=500)
        assert [one.said for one in caller.stub.sent] == ["a", "b"]
        await pass_time(0.2)
        opened.clock.wall_ms += HOUR_MS
        await pass_time(0.4)
        assert brief.end is None
        assert {one.said for one in caller.stub.sent[2:]} == {"first", "brief"}
        await caller.finish()


# -- closing ----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_close_tells_those_who_wait_and_lets_those_finish_who_are_out() -> None:
    async with calling(Stub(used(3, 4))) as (opened, caller):
        handle = await opened.open(200)
        out = await caller.begin(handle, max_tokens=100)
        waits = [await caller.begin(handle, max_tokens=100) for _ in range(3)]
        async with anyio.create_task_group() as group:
            group.start_soon(opened.close, handle)
            await settle_down()
            assert [wait.kind for wait in waits] == ["budget_closed"] * 3
            assert (await caller.begin(handle, max_tokens=1)).kind == "budget_closed"
            assert out.end is None
            await caller.finish()
        assert isinstance(out.end, Completion)
        assert (out.end.usage.total_tokens, caller.stub.aborted) == (7, 0)


@in_virtual_time
async def test_a_close_tells_those_below_at_once_also_those_who_wait_only_for_the_provider() -> None:
    async with calling(max_concurrency=1) as (opened, caller):
        root = await opened.open(4000)
        child = await opened.open(200, parent=root)
        out = await caller.begin(child, max_tokens=100)
        waits = await caller.begin(child, max_tokens=100)
        queued = await caller.begin(root, max_tokens=100)
        async with anyio.create_task_group() as group:
            group.start_soon(opened.close, root)
            await settle_down()
            assert (waits.kind, queued.kind, out.end) == ("budget_closed", "budget_closed", None)
            await caller.finish()
        assert len(caller.stub.sent) == 1


@in_virtual_time
async def test_a_close_with_cancel_aborts_those_who_are_out_and_posts_their_bounds() -> None:
    async with calling(max_concurrency=1) as (opened, caller):
        root = await opened.open(4000)
        handle = await opened.open(4000, parent=root)
        out = await caller.begin(handle, max_tokens=100)
        queued = await caller.begin(handle, max_tokens=100)
        statement = await opened.close(handle, mode="cancel")
        await settle_down()
        assert (out.kind, queued.kind) == ("budget_closed", "budget_closed")
        assert caller.stub.aborted == 1
        assert statement.budget.settled == statement.budget.uncertain
        assert opened.get(root).settled.total_tokens == BOUND + 100


@in_virtual_time
async def test_a_close_that_finds_a_turn_just_come_takes_it_back() -> None:
    async with calling() as (opened, caller):
        handle = await opened.open(200)
        await caller.begin(handle, max_tokens=100)
        waits = await caller.begin(handle, max_tokens=100)
        now, (hold,) = opened.clock.now(), opened.treasury.ledger.holds.values()
        opened.treasury.ledger.void(now, hold)
        opened.treasury.after(now, hold.path)
        opened.treasury.close_budget(now, opened.budget(handle), cancel=False)
        await settle_down()
        assert waits.kind == "budget_closed"
        assert len(caller.stub.sent) == 1
        await caller.finish()
