"""Budgets that are closed, as dialogues with a treasury in the test's process."""

from typing import Any

import anyio
import msgspec
from msgspec.structs import replace

from llmd.books import (
    BudgetParams,
    CloseParams,
    StatementParams,
)
from tests.support.sessions import STRANGER
from tests.support.stub import HELD, Caller, Stub, used
from tests.support.treasuries import (
    ScriptedJournal,
    bank,
    context,
    in_virtual_time,
    pass_time,
    refused,
    settle_down,
    sum_of,
)

# -- close ------------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_close_answers_with_a_statement_and_gives_back_what_was_not_spent() -> None:
    async with bank() as opened:
        root = await opened.open(100)
        child = await opened.open(80, parent=root, guarantee={"total_tokens": 80}, label="c")
        await opened.charge(child, 30, note="by hand")
        statement = await opened.close(child)
        assert (statement.budget.state, statement.budget.label, statement.cursor) == ("closed", "c", None)
        assert statement.budget.settled.total_tokens == 30
        assert [entry.kind for entry in statement.entries] == ["open", "charge", "drain", "close"]
        assert statement.entries[1].note == "by hand"
        assert opened.get(root).available["total_tokens"] == 70
        assert opened.get(root).children == 0


@in_virtual_time
async def test_a_close_waits_for_the_calls_below_and_its_deadline_ends_only_the_wait() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        root = await opened.open(1000)
        child = await opened.open(1000, parent=root)
        caller = Caller(opened, group, Stub(used(1, 1)))
        await caller.begin(child, max_tokens=100)
        with refused("deadline_exceeded", elapsed_ms=5000, budget=opened.get(root).id):
            await opened.close(root, timeout_ms=5000)
        assert opened.get(root).state == "draining"
        closed: list[int] = []

        async def join(**params: Any) -> None:
            statement = await opened.close(root, **params)
            assert statement.budget.state == "closed"
            closed.append(statement.budget.settled.total_tokens)

        group.start_soon(join)
        await settle_down()
        assert closed == []
        async with anyio.create_task_group() as other:
            other.start_soon(lambda: join(mode="cancel"))
        await settle_down()
        assert closed == [HELD, HELD], "the second made it a cancel"
        assert caller.stub.aborted == 1


@in_virtual_time
async def test_a_close_answers_when_that_is_durable() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(100)
        opened.journal.stall()
        done = anyio.Event()

        async def close() -> None:
            await opened.close(handle)
            done.set()

        group.start_soon(close)
        await pass_time(5)
        assert not done.is_set()
        opened.journal.go.set()
        await done.wait()
        assert not [key for key in opened.journal.image() if key.startswith("b/")]


@in_virtual_time
async def test_a_statement_of_more_than_a_page_is_read_to_its_end_though_its_budget_has_closed() -> None:
    async with bank() as opened:
        root = await opened.open(10**6, lease_s=10**6)
        handle = await opened.open(10**6, parent=root)
        identifier = opened.get(handle).id
        for _ in range(1500):
            await opened.charge(handle, 1)
        statement = await opened.close(handle)
        assert (len(statement.entries), sum_of(statement.entries, "total_tokens")) == (1000, 999)
        assert await opened.statement(handle) == statement
        for params in ({"budget": handle}, {"id": identifier, "owner": True}):
            asked = msgspec.convert({**params, "cursor": statement.cursor, "limit": 400}, StatementParams)
            page = await opened.operations.statement(asked, context())
            assert (page.budget, len(page.entries)) == (statement.budget, 400)
            rest = await opened.operations.statement(replace(asked, cursor=page.cursor), context())
            assert [entry.kind for entry in rest.entries][-2:] == ["drain", "close"]
            assert (sum_of(page.entries + rest.entries, "total_tokens"), rest.cursor) == (501, None)
        strange = context(peer=STRANGER)
        with refused("unauthorized"):
            await opened.operations.statement(asked, strange)
        with refused("budget_unknown"):
            await opened.operations.statement(replace(asked, id="b_nothing"), context())
        image = opened.journal.image()
    async with bank(ScriptedJournal(image)) as second:
        assert (await second.statement(handle, cursor="1")).budget == statement.budget
        second.clock.skip(25 * 3_600_000)
        await pass_time(2)
        with refused("budget_unknown"):
            await second.statement(handle, cursor="1")
        assert not [key for key in second.journal.image() if key.startswith(("c/", "g/"))]


@in_virtual_time
async def test_what_a_close_gives_back_goes_to_those_who_wait_above() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        root = await opened.open(300)
        sure = await opened.open(150, parent=root, guarantee={"total_tokens": 150})
        caller = Caller(opened, group)
        await caller.begin(root, max_tokens=100)
        await caller.begin(root, "y", max_tokens=100)
        assert len(caller.stub.sent) == 1
        await opened.close(sure)
        await settle_down()
        assert len(caller.stub.sent) == 2
        group.cancel_scope.cancel()


@in_virtual_time
async def test_what_cannot_be_closed() -> None:
    async with bank(configured={"daily": {}}) as opened:
        handle = await opened.open(10)
        with refused("budget_denied"):
            await opened.close("daily")
        await opened.close(handle)
        for again in (opened.close(handle), opened.charge(handle, 1), opened.open(1, parent=handle)):
            with refused("budget_closed"):
                await again
        with refused("budget_unknown"):
            await opened.close("bh_never")


@in_virtual_time
async def test_a_budget_with_uncertain_spend_has_closed_and_stays_in_the_tree_for_the_operator() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(1000)
        caller = Caller(opened, group)
        call = await caller.begin(handle, max_tokens=100)
        identifier = opened.get(handle).id
        call.scope.cancel()
        await settle_down()
        statement = await opened.close(handle)
        assert statement.budget.uncertain.total_tokens == HELD
        with refused("budget_closed"):
            opened.get(handle)
        told = opened.operations.get(BudgetParams(id=identifier, owner=True), context())
        assert (told.state, told.uncertain.total_tokens) == ("closed", HELD)
        with refused("budget_closed"):
            await opened.operations.close(CloseParams(id=identifier, owner=True), context())
