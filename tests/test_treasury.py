"""The ledger's keeper: what it finds again after a restart, what ends by itself, and what the configuration makes."""

import logging

import anyio
import msgspec
import pytest

from llmd.core.answers import KEPT_MS
from llmd.handles import handle_of
from llmd.journal import StoreUnavailable
from llmd.treasury import SWEEP_S, Treasury
from tests.support.stub import Caller, Stub, used
from tests.support.treasuries import (
    BUDGETS_MAX,
    ScriptedJournal,
    WallClock,
    bank,
    in_virtual_time,
    pass_time,
    refused,
    settings,
)

DAY_MS = 24 * 3600 * 1000
HOUR_S = 3600


# -- before it is opened ----------------------------------------------------------------------------------------------


@in_virtual_time
async def test_before_it_is_opened_it_can_promise_nothing_and_can_be_waited_for() -> None:
    treasury = Treasury(WallClock(), {}, BUDGETS_MAX)
    for asked in (treasury.check, treasury.check_opened):
        with refused("ledger_unavailable"):
            asked()
    treasury.configure(settings({"daily": {}}))
    treasury.yielding()
    await treasury.close()
    assert not treasury.is_open
    with anyio.move_on_after(1) as scope:
        await treasury.ready()
    assert scope.cancelled_caught
    treasury.open(ScriptedJournal())
    await treasury.ready()
    assert list(treasury.ledger.budgets) == ["daily"], "the configuration that came in the meantime"


@in_virtual_time
async def test_rows_that_make_no_sense_are_not_opened() -> None:
    treasury = Treasury(WallClock(), {}, BUDGETS_MAX)
    with pytest.raises(StoreUnavailable, match="llmd ledger check"):
        treasury.open(ScriptedJournal({"b/x": b"{}"}))


# -- restarts ---------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_after_a_restart_handles_still_work_and_nothing_that_was_told_is_lost() -> None:
    async with bank() as first:
        parent = await first.open(4000)
        child = await first.open(1000, parent=parent, guarantee={"total_tokens": 100})
        await first.charge(child, 10)
        told = [first.get(parent), first.get(child)]
        image = first.journal.image()
    async with bank(ScriptedJournal(image)) as second:
        assert [second.get(parent), second.get(child)] == told
        await second.charge(child, 1)
        with refused("budget_unknown"):
            second.get(handle_of(b"another secret", told[0].id))


@in_virtual_time
async def test_a_call_that_a_crash_cut_is_posted_at_its_bound_and_one_that_was_not_sent_not_at_all() -> None:
    async with bank() as first, anyio.create_task_group() as group:
        handle = await first.open(4000)
        caller = Caller(first, group, max_concurrency=1)
        await caller.begin(handle, max_tokens=100)
        await caller.begin(handle, max_tokens=200)
        assert len(caller.stub.sent) == 1
        held = first.get(handle).held
        # The hold that is not dispatched may be in the journal or not: here it is.
        await first.treasury.flusher.flushed()
        image = first.journal.image()
        (dispatched,) = [hold for hold in first.treasury.ledger.holds.values() if hold.dispatched]
        assert held.total_tokens == sum(hold.amounts & 2**80 - 1 for hold in first.treasury.ledger.holds.values())
        bound = dispatched.amounts & 2**80 - 1
        group.cancel_scope.cancel()
    async with bank(ScriptedJournal(image)) as second:
        told = second.get(handle)
        assert (told.settled.total_tokens, told.uncertain.total_tokens, told.held.total_tokens) == (bound, bound, 0)
        assert told.settled.requests == 1


@in_virtual_time
async def test_what_ends_at_a_restart_is_written_before_the_next_one() -> None:
    async with bank() as first, anyio.create_task_group() as group:
        handle = await first.open(4000)
        await Caller(first, group).begin(handle, max_tokens=100)
        image = first.journal.image()
        group.cancel_scope.cancel()
    async with bank(ScriptedJournal(image)) as second:
        once = second.get(handle)
        await pass_time(1)
        image = second.journal.image()
    async with bank(ScriptedJournal(image)) as third:
        assert third.get(handle) == once


@in_virtual_time
async def test_an_end_writes_what_is_left_and_gives_the_journal_up() -> None:
    async with bank() as first:
        handle = await first.open(4000)
        budget = first.budget(handle)
        first.treasury.ledger.charge(first.clock.now(), budget, 5, note="at the last moment")
        first.treasury.after(first.clock.now())
    await first.treasury.close()
    assert first.journal.closed
    async with bank(ScriptedJournal(first.journal.image())) as second:
        assert second.tokens(handle) == (5, 0)


@in_virtual_time
async def test_a_journal_is_given_up_also_where_the_last_write_fails() -> None:
    async with bank() as first:
        await first.open(4000)
        first.treasury.ledger.changes.row("x", b"y")
        first.treasury.after(first.clock.now())
        first.journal.lost = True
    with pytest.raises(Exception, match="disk is gone"):
        await first.treasury.close()
    assert first.journal.closed


# -- forgetting -------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_the_handle_of_a_closed_budget_is_known_for_a_day() -> None:
    async with bank() as opened:
        keeper = await opened.open(10, lease_s=10**6)
        handle = await opened.open(10)
        await opened.close(handle)
        opened.clock.skip(DAY_MS - 1000)
        await pass_time(2 * SWEEP_S)
        with refused("budget_closed"):
            opened.get(handle)
        opened.clock.skip(2000)
        await pass_time(2 * SWEEP_S)
        with refused("budget_unknown"):
            opened.get(handle)
        image = opened.journal.image()
        assert opened.get(keeper).state == "open"
    async with bank(ScriptedJournal(image)) as second:
        with refused("budget_unknown"):
            second.get(handle)


@in_virtual_time
@pytest.mark.parametrize("restarted", [False, True])
async def test_answers_are_kept_for_a_day_the_oldest_goes_first(restarted: bool) -> None:
    journal = ScriptedJournal()
    async with bank(journal) as first:
        handle = await first.open(1000, lease_s=10**6)
        for number in range(20):
            await first.charge(handle, 1, idempotency_key=f"k{number}")
            first.clock.skip(1000)
        image = first.journal.image()
        if not restarted:
            first.clock.skip(KEPT_MS + 8500 - 20 * 1000)
            await pass_time(1.5 * SWEEP_S)  # so that it is swept a second later
            image = first.journal.image()
    if restarted:
        async with bank(ScriptedJournal(image)) as second:
            second.clock.skip(KEPT_MS + 8500)
            await pass_time(1.5 * SWEEP_S)
            image = second.journal.image()
    assert len([key for key in image if key.startswith("k/")]) == 10
    assert len([key for key in image if key.startswith("a/")]) == 10


@in_virtual_time
@pytest.mark.parametrize("jump_ms", [25 * 3_600_000, -25 * 3_600_000])
@pytest.mark.parametrize("comes", ["before", "meanwhile"])
async def test_a_wall_clock_that_jumps_and_comes_back_ends_no_key(jump_ms: int, comes: str) -> None:
    async with bank() as opened:
        handle = await opened.open(100)
        for moment, jumped_ms in (("before", jump_ms), ("meanwhile", -jump_ms), ("behind", 0)):
            if moment != "before" or comes == "before":
                await opened.charge(handle, 10, idempotency_key="k")
            opened.clock.wall_ms += jumped_ms
            await pass_time(3 * SWEEP_S)
        assert opened.tokens(handle) == (10, 0)


@in_virtual_time
async def test_a_wall_clock_that_jumps_ahead_makes_no_handle_unknown_and_no_bound_final() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        handle, closed = await opened.open(4000), await opened.open(10)
        await opened.close(closed)
        await (await Caller(opened, group).begin(handle, max_tokens=10, timeout_ms=1)).over.wait()
        opened.clock.wall_ms += 25 * 3_600_000
        await pass_time(3 * SWEEP_S)
        assert opened.get(handle).uncertain.total_tokens
        assert len(opened.treasury.ledger.uncertain) == 1
        with refused("budget_closed"):
            opened.get(closed)


# -- what is told -----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_call_that_costs_more_than_its_bound_and_a_limit_that_is_near_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "llmd.ledger")
    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(1000)
        identifier = opened.get(handle).id
        caller = Caller(opened, group, Stub(used(700, 150)))
        await caller.begin(handle, max_tokens=10)
        await caller.finish()
        assert f"budget {identifier}: a call has cost more total_tokens than it held" in caplog.text
        assert f"budget {identifier}: 80 % of its total_tokens are spent" in caplog.text
        assert opened.get(handle).overrun.total_tokens > 0


@in_virtual_time
async def test_there_are_so_many_budgets_and_no_more() -> None:
    async with bank(budgets_max=2) as opened:
        first = await opened.open(1)
        await opened.open(1)
        with refused("busy"):
            await opened.open(1)
        await opened.close(first)
        await opened.open(1)


@in_virtual_time
async def test_the_default_budget_is_the_one_that_is_configured_so() -> None:
    async with bank(configured={"a": {}, "b": {"default": True}}) as opened:
        default = opened.treasury.default()
        assert default is not None
        assert default.id == "b"
        assert opened.get(await opened.open(1)).parent == "b"
    async with bank(configured={"a": {}}) as opened:
        assert opened.treasury.default() is None
        assert opened.get(await opened.open(1)).parent is None


@in_virtual_time
async def test_an_id_is_no_handle() -> None:
    async with bank() as opened:
        identifier = opened.get(await opened.open(1)).id
        with refused("budget_unknown"):
            opened.treasury.named(identifier)
        assert msgspec.json.encode(opened.treasury.handle_of(identifier)).decode() not in str(opened.journal.image())
