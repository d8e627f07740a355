"""What a call takes from a budget: a hold before its bytes leave, what it has cost in the end, and its turn."""

import msgspec
import pytest

from llmd.chat import Completion
from llmd.core.outcomes import Answer, Failure, Outcome
from llmd.flushing import SETTLE_S
from tests.support.stub import Stub, calling, input_bound, used
from tests.support.treasuries import Bank, in_virtual_time, pass_time, settle_down

BOUND = input_bound("x", 100)
"""Input tokens of a call for 100 tokens; its prompt is "x"."""


def held(opened: Bank, handle: str) -> int:
    return opened.tokens(handle)[1]


@in_virtual_time
async def test_a_call_holds_its_bound_while_it_runs_and_posts_what_it_has_used() -> None:
    async with calling(Stub(used(3, 4))) as (opened, caller):
        handle = await opened.open(4000)
        call = await caller.begin(handle, max_tokens=100)
        told = opened.get(handle)
        assert (told.held.input_tokens, told.held.output_tokens, told.held.requests) == (BOUND, 100, 1)
        assert told.available["total_tokens"] == 4000 - BOUND - 100
        await caller.finish()
        assert isinstance(call.end, Completion)
        assert call.end.budget is not None
        assert call.end.budget == opened.get(handle)
        assert (call.end.budget.settled.total_tokens, call.end.budget.settled.requests) == (7, 1)
        assert call.end.budget.settled.nano_usd == 3 * 100 + 4 * 400
        assert held(opened, handle) == 0


@in_virtual_time
async def test_a_bound_that_did_not_hold_is_larger_for_the_next_call_with_a_budget_or_without() -> None:
    async with calling(Stub(used(BOUND + 30, 4))) as (opened, caller):
        handle = await opened.open(4000)
        await caller.begin(handle, max_tokens=100)
        await caller.finish()
        assert opened.get(handle).overrun.input_tokens == 30
        await caller.begin(handle, max_tokens=100)
        assert opened.get(handle).held.input_tokens == BOUND + 30
        await caller.finish()
        assert opened.get(handle).overrun.input_tokens == 30


unknown = Failure(kind="upstream_invalid", message="broke off")
seen = Failure(kind="upstream_invalid", message="broke off", usage=used(5, 6).usage)
much = Failure(kind="upstream_invalid", message="broke off", seen=used(900, 1).usage)
little = Failure(kind="upstream_invalid", message="broke off", seen=used(1, 300).usage)
free = Failure(kind="upstream_auth", message="no", billed="no", seen=used(900, 1).usage)
unbilled = Failure(kind="upstream_auth", message="no", billed="no")


@in_virtual_time
@pytest.mark.parametrize(
    ("outcome", "settled", "uncertain"),
    [
        (used(3, 4), 7, False),
        (Answer(text="", finish_reason="stop"), BOUND + 100, True),
        (used(0, 0), BOUND + 100, True),
        (unknown, BOUND + 100, True),
        (seen, 11, False),
        (much, 900 + 100, True),
        (little, BOUND + 300, True),
        (free, 0, False),
        (unbilled, 0, False),
    ],
    ids=["used", "silent", "zeros", "unknown", "seen", "much", "little", "free", "unbilled"],
)
async def test_how_a_call_ends_says_what_it_posts(outcome: Outcome, settled: int, uncertain: bool) -> None:
    async with calling(Stub(outcome)) as (opened, caller):
        handle = await opened.open(4000)
        await caller.begin(handle, max_tokens=100)
        await caller.finish()
        told = opened.get(handle)
        assert (told.settled.total_tokens, told.held.total_tokens) == (settled, 0)
        assert told.uncertain.total_tokens == (settled if uncertain else 0)
        assert told.settled.requests == (1 if settled else 0)
        assert told.settled.nano_usd == told.settled.input_tokens * 100 + told.settled.output_tokens * 400


@in_virtual_time
async def test_a_call_that_is_cancelled_or_too_late_posts_its_bound() -> None:
    async with calling() as (opened, caller):
        handle = await opened.open(4000)
        cancelled = await caller.begin(handle, max_tokens=100)
        late = await caller.begin(handle, max_tokens=100, timeout_ms=1000)
        cancelled.scope.cancel()
        await pass_time(2)
        assert late.kind == "deadline_exceeded"
        assert caller.stub.aborted == 2
        told = opened.get(handle)
        assert told.settled == told.uncertain
        assert (told.settled.total_tokens, told.settled.requests) == (2 * (BOUND + 100), 2)


@in_virtual_time
async def test_a_call_that_was_never_sent_posts_nothing() -> None:
    async with calling(max_concurrency=1) as (opened, caller):
        handle = await opened.open(4000)
        await caller.begin(handle, max_tokens=100)
        queued = await caller.begin(handle, max_tokens=100)
        assert len(caller.stub.sent) == 1
        assert held(opened, handle) == 2 * (BOUND + 100)
        queued.scope.cancel()
        await settle_down()
        assert held(opened, handle) == BOUND + 100
        await caller.finish()
        assert opened.get(handle).settled.requests == 1


@in_virtual_time
@pytest.mark.deadline(10)  # a byte that leaves too early would be waited for
async def test_no_byte_leaves_before_its_hold_is_durable() -> None:
    async with calling() as (opened, caller):
        handle = await opened.open(4000)
        opened.journal.stall()
        call = await caller.begin(handle, max_tokens=100)
        await pass_time(5)
        assert caller.stub.sent == []
        opened.journal.go.set()
        await settle_down()
        assert len(caller.stub.sent) == 1
        rows = [key for key in opened.journal.image() if key.startswith("h/")]
        assert len(rows) == 1
        assert msgspec.json.decode(opened.journal.image()[rows[0]])["dispatched"] is True
        assert call.end is None


@in_virtual_time
async def test_a_call_that_is_cancelled_while_its_hold_is_written_posts_nothing() -> None:
    async with calling() as (opened, caller):
        handle = await opened.open(4000)
        opened.journal.stall()
        call = await caller.begin(handle, max_tokens=100)
        call.scope.cancel()
        await settle_down()
        opened.journal.go.set()
        await pass_time(1)
        assert caller.stub.sent == []
        assert opened.tokens(handle) == (0, 0)


@in_virtual_time
async def test_where_the_hold_cannot_be_written_the_call_is_refused_and_its_hold_is_void() -> None:
    async with calling() as (opened, caller):
        handle = await opened.open(4000)
        opened.journal.failing = True
        first = await caller.begin(handle, max_tokens=100)
        assert first.kind == "ledger_unavailable"
        assert opened.tokens(handle) == (0, 0)
        opened.journal.stall()  # whoever comes now is refused without asking it
        second = await caller.begin(handle, max_tokens=100)
        assert second.kind == "ledger_unavailable"
        assert (await caller.begin(None, max_tokens=100)).end is None, "what no budget pays for goes on"
        opened.journal.failing = False
        opened.journal.go.set()
        await pass_time(1)
        await caller.begin(handle, max_tokens=100)
        assert len(caller.stub.sent) == 2


@in_virtual_time
async def test_an_overrun_is_posted_and_told_only_when_it_is_durable() -> None:
    async with calling(Stub(used(3000, 3000))) as (opened, caller):
        handle = await opened.open(4000)
        call = await caller.begin(handle, max_tokens=100)
        opened.journal.stall()
        await caller.finish()
        assert call.end is None
        assert opened.tokens(handle) == (6000, 0)
        opened.journal.go.set()
        await settle_down()
        assert isinstance(call.end, Completion)
        told = opened.get(handle)
        assert (told.overrun.total_tokens, told.available["total_tokens"]) == (6000 - BOUND - 100, 0)


@in_virtual_time
@pytest.mark.parametrize("cancelled", [False, True])
async def test_an_overrun_waits_for_a_slow_disk_as_long_as_its_caller_does(cancelled: bool) -> None:
    async with calling(Stub(used(3000, 3000))) as (opened, caller):
        call = await caller.begin(await opened.open(4000), max_tokens=100)
        opened.journal.stall()
        await caller.finish()
        if cancelled:
            call.scope.cancel()
        await pass_time(SETTLE_S + 1)
        assert (call.over.is_set(), call.end) == (cancelled, None)
        opened.journal.go.set()
        await settle_down()
        assert isinstance(call.end, Completion) == (not cancelled)


@in_virtual_time
async def test_what_a_call_has_left_over_is_told_without_waiting_for_the_disk() -> None:
    async with calling() as (opened, caller):
        handle = await opened.open(4000)
        call = await caller.begin(handle, max_tokens=100)
        opened.journal.stall()
        await caller.finish()
        assert isinstance(call.end, Completion)
        opened.journal.go.set()
