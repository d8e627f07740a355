"""Calls that come twice with the same key: made once, and never again where they may have cost something."""

from typing import Any

import anyio
import msgspec

from llmd.chat import Ask, Completion
from llmd.core.outcomes import Failure
from llmd.errors import LLMError
from llmd.replays import Replays
from tests.support.stub import Caller, Stub, used
from tests.support.treasuries import (
    Bank,
    Line,
    ScriptedJournal,
    bank,
    context,
    in_virtual_time,
    pass_time,
    refused,
    settle_down,
)

CHARGES = 10_000


class Calls:
    """Calls with a key, through the replays of a bank."""

    def __init__(self, opened: Bank, caller: Caller) -> None:
        self.replays = Replays(opened.treasury)
        self.caller = caller
        self.lost = False  # whether who goes has lost its connection

    async def __call__(self, budget: str | None, key: str = "k", request_id: str = "r1", **params: Any) -> Completion:
        asked = {"prompt": "x", "max_tokens": 100, "budget": budget, "idempotency_key": key, **params}
        ask = msgspec.convert(asked, Ask)
        ctx = context(Line(ended=self.lost), request_id=request_id)
        return await self.replays.execute(ask, ctx, lambda: self.caller.executor.execute(ask, ctx))


@in_virtual_time
async def test_a_call_is_made_once_and_replayed() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(4000)
        stub = Stub(used(3, 4))
        stub.go.set()
        calls = Calls(opened, Caller(opened, group, stub))
        first = await calls(handle)
        again = await calls(handle, timeout_ms=5, wait_ms=7, stream="s", metadata={"a": 1})
        assert (first.replayed, again.replayed) == (False, True)
        assert msgspec.structs.replace(again, replayed=False) == first
        with refused("idempotency_conflict"):
            await calls(handle, max_tokens=99)
        assert len(stub.sent) == 1
        assert opened.tokens(handle) == (7, 0)


@in_virtual_time
async def test_a_call_begins_when_its_key_is_durable_whoever_pays_for_it() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        caller = Caller(opened, group)
        calls = Calls(opened, caller)
        opened.journal.stall()
        group.start_soon(calls, None)
        await pass_time(1)
        assert caller.stub.sent == []
        opened.journal.go.set()
        await settle_down()
        assert len(caller.stub.sent) == 1
        group.cancel_scope.cancel()


@in_virtual_time
async def test_a_call_that_cost_something_is_not_made_again_though_it_failed() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(4000)
        stub = Stub(Failure(kind="upstream_invalid", message="broke off"))
        stub.go.set()
        calls = Calls(opened, Caller(opened, group, stub))
        errors: list[LLMError] = []
        for _ in range(2):
            with refused("upstream_invalid") as caught:
                await calls(handle)
            errors.append(caught.value)
        told = [msgspec.json.decode(msgspec.json.encode(error.to_object())) for error in errors]
        assert told[0] == told[1]
        assert len(stub.sent) == 1


@in_virtual_time
async def test_a_call_that_cost_nothing_may_be_made_again() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(4000)
        stub = Stub(Failure(kind="upstream_rate_limited", message="later", billed="no"))
        stub.go.set()
        calls = Calls(opened, Caller(opened, group, stub))
        with refused("upstream_rate_limited"):
            await calls(handle)
        stub.outcome = used(3, 4)
        assert not (await calls(handle)).replayed
        with refused("budget_exceeded"):
            await calls(handle, key="big", max_tokens=10_000, fit="refuse")
        assert len(stub.sent) == 3 + 1  # the first was tried again twice


@in_virtual_time
async def test_a_call_that_was_cancelled_after_it_was_sent_has_an_unknown_outcome() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(4000)
        caller = Caller(opened, group)
        calls = Calls(opened, caller)
        with anyio.CancelScope() as scope:
            group.start_soon(_cancel_soon, scope)
            await calls(handle)
        assert scope.cancelled_caught
        with refused("outcome_unknown") as caught:
            await calls(handle)
        posted = opened.tokens(handle)[0]
        assert caught.value.data["posted"]["total_tokens"] == posted > 100
        assert len(caller.stub.sent) == 1


async def _cancel_soon(scope: anyio.CancelScope) -> None:
    await pass_time(1)
    scope.cancel()


async def cut_by_a_crash(*, sent: bool) -> tuple[dict[str, bytes], str]:
    """What the journal has of a call with the key "k", and the handle of its budget."""
    async with bank() as first, anyio.create_task_group() as group:
        handle = await first.open(4000)
        caller = Caller(first, group, max_concurrency=1)
        if not sent:
            await caller.begin(handle, max_tokens=10)
        group.start_soon(lambda: Calls(first, caller)(handle, request_id="r9"))
        await pass_time(1)
        image = first.journal.image()
        group.cancel_scope.cancel()
    return image, handle


@in_virtual_time
async def test_a_call_that_a_crash_cut_before_it_was_sent_may_be_made() -> None:
    image, handle = await cut_by_a_crash(sent=False)
    async with bank(ScriptedJournal(image)) as second, anyio.create_task_group() as group:
        stub = Stub(used(3, 4))
        stub.go.set()
        assert not (await Calls(second, Caller(second, group, stub))(handle)).replayed
        assert len(stub.sent) == 1


@in_virtual_time
async def test_a_call_that_a_crash_cut_has_an_unknown_outcome_and_tells_what_was_posted() -> None:
    image, handle = await cut_by_a_crash(sent=True)
    for _ in range(2):
        async with bank(ScriptedJournal(image)) as second, anyio.create_task_group() as group:
            caller = Caller(second, group)
            with refused("outcome_unknown") as caught:
                await Calls(second, caller)(handle)
            assert caught.value.data["posted"]["total_tokens"] == second.tokens(handle)[0] > 100
            assert caller.stub.sent == []
            await pass_time(1)
            image = second.journal.image()


@in_virtual_time
async def test_a_call_that_cost_more_than_it_held_is_not_made_again_whenever_the_crash_comes() -> None:
    stub = Stub(used(3000, 50))
    stub.go.set()
    async with bank() as first, anyio.create_task_group() as group:
        handle = await first.open(10_000)
        await Calls(first, Caller(first, group, stub))(handle)
        await pass_time(1)
        images = first.journal.images()
    posted = []
    for image in images[1:]:  # behind that of its budget
        async with bank(ScriptedJournal(image)) as second, anyio.create_task_group() as group:
            stub = Stub(used(1, 1))
            stub.go.set()
            try:
                await Calls(second, Caller(second, group, stub))(handle)
            except LLMError as error:
                posted.append(error.data["posted"]["total_tokens"])
            assert len(stub.sent) == (second.tokens(handle) == (2, 0)), "it is made where nothing was posted"
    assert 3050 in posted, "the answer is written behind what it has cost"


@in_virtual_time
async def test_a_key_whose_answer_is_being_written_is_answered_the_same() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(4000)
        stub = Stub(used(3, 4))
        stub.go.set()
        calls = Calls(opened, Caller(opened, group, stub))
        first = await calls(handle)
        opened.journal.stall()
        done: list[Completion] = []

        async def again() -> None:
            done.append(await calls(handle))

        group.start_soon(again)
        await pass_time(1)
        opened.journal.go.set()
        await settle_down()
        assert [one.text for one in done] == [first.text]


@in_virtual_time
async def test_a_call_outlives_a_caller_that_was_lost_and_the_retry_gets_its_answer() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(4000)
        stub = Stub(used(3, 4))
        calls = Calls(opened, Caller(opened, group, stub))
        with anyio.CancelScope() as lost:
            calls.lost = True
            group.start_soon(_cancel_soon, lost)
            await calls(handle)
        assert lost.cancelled_caught
        stub.go.set()
        assert (await calls(handle)).replayed
        assert len(stub.sent) == 1
        assert opened.tokens(handle) == (7, 0)


@in_virtual_time
async def test_one_who_joined_keeps_the_call_that_the_first_one_has_called_off() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(4000)
        stub = Stub(used(3, 4))
        calls = Calls(opened, Caller(opened, group, stub))
        answers: list[Completion] = []

        async def join() -> None:
            answers.append(await calls(handle))

        with anyio.CancelScope() as scope:
            group.start_soon(join)
            group.start_soon(_cancel_soon, scope)
            await calls(handle)
        stub.go.set()
        await pass_time(1)
        assert len(answers) == len(stub.sent) == 1


@in_virtual_time
async def test_who_joins_waits_no_longer_than_it_has_said() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(4000)
        stub = Stub(used(3, 4))
        calls = Calls(opened, Caller(opened, group, stub))
        group.start_soon(calls, handle)
        await settle_down()
        with refused("deadline_exceeded"):
            await calls(handle, timeout_ms=50)
        stub.go.set()
        assert (await calls(handle)).replayed
