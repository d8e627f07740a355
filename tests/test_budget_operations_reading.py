"""What is told of budgets: to the operator, as a tree, as a statement, to who watches."""

from typing import Any

import anyio
import msgspec

from llmd.books import (
    BudgetParams,
    BudgetUpdate,
    CloseParams,
    StatementParams,
    TreeParams,
    WatchParams,
)
from tests.support.sessions import STRANGER
from tests.support.stub import HELD, Caller
from tests.support.treasuries import (
    Line,
    bank,
    context,
    in_virtual_time,
    refused,
    settle_down,
    sum_of,
)

# -- the operator -----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_the_operator_reads_and_closes_by_id_and_nobody_else_does() -> None:
    async with bank(configured={"daily": {}}) as opened:
        handle = await opened.open(10)
        identifier = opened.get(handle).id
        by_id: dict[str, Any] = {"id": identifier, "owner": True}
        strange = context(peer=STRANGER)
        roots = opened.operations.tree(TreeParams(owner=True), context())
        assert {budget.id for budget in roots.budgets} == {"daily", identifier}
        assert opened.operations.get(BudgetParams(**by_id), context()).id == identifier
        for asked in (
            lambda: opened.operations.get(BudgetParams(**by_id), strange),
            lambda: opened.operations.tree(TreeParams(**by_id), strange),
            lambda: opened.operations.tree(TreeParams(owner=True), strange),
        ):
            with refused("unauthorized", path="owner"):
                asked()
        with refused("unauthorized", path="owner"):
            await opened.operations.statement(StatementParams(**by_id), strange)
        with refused("unauthorized", path="owner"):
            await opened.operations.close(CloseParams(**by_id), strange)
        with refused("budget_unknown", path="id"):
            opened.operations.get(BudgetParams(id="b_nothing", owner=True), context())
        assert opened.operations.get(BudgetParams(budget=handle), strange).id == identifier
        assert (await opened.operations.close(CloseParams(**by_id), context())).budget.state == "closed"


# -- tree and statement -----------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_tree_comes_in_pages_and_shows_only_what_the_handle_reaches() -> None:
    async with bank() as opened:
        root = await opened.open(1000)
        children = [await opened.open(100, parent=root) for _ in range(5)]
        await opened.charge(children[0], 5)
        (whole,) = opened.tree(root).budgets
        assert whole.settled.total_tokens == 5
        assert [one.id for one in whole.below] == [opened.get(child).id for child in children]
        page = opened.tree(root, limit=3)
        assert len(page.budgets[0].below) == 2
        rest = opened.tree(root, limit=10, cursor=page.cursor)
        assert [one.id for one in rest.budgets] == [one.id for one in whole.below[2:]]
        assert {one.parent for one in rest.budgets} == {whole.id}
        assert rest.cursor is None
        (alone,) = opened.tree(children[1]).budgets
        assert (alone.id, alone.below) == (whole.below[1].id, [])
        with refused("invalid_params", path="cursor"):
            opened.tree(root, cursor="b_gone")


@in_virtual_time
async def test_a_statement_comes_in_pages_and_tells_of_the_budget_and_all_below() -> None:
    async with bank() as opened:
        root = await opened.open(1000)
        child = await opened.open(100, parent=root)
        other = await opened.open(100, parent=root)
        for number in range(10):
            await opened.charge(child if number % 2 else other, number + 1)
        entries, cursor, pages = [], None, 0
        while True:
            page = await opened.statement(root, limit=4, cursor=cursor)
            entries += page.entries
            pages += 1
            if (cursor := page.cursor) is None:
                break
        assert pages == 4
        assert sum_of(entries, "total_tokens") == 55 == opened.tokens(root)[0]
        assert [entry.amounts["total_tokens"] for entry in entries if entry.kind == "charge"] == list(range(1, 11))
        own = await opened.statement(child)
        assert {entry.budget for entry in own.entries} == {opened.get(child).id}
        assert sum_of(own.entries, "total_tokens") == 30
        for wrong in ("x", "-1", "٣", "1.5"):
            with refused("invalid_params", path="cursor"):
                await opened.statement(root, cursor=wrong)


@in_virtual_time
async def test_a_statement_tells_what_has_happened_just_now() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(1000)
        caller = Caller(opened, group)
        await caller.begin(handle, max_tokens=100)
        await caller.finish()
        (_, settled) = (await opened.statement(handle)).entries
        assert (settled.kind, settled.request_id, settled.target) == ("settle", "r1", "metered/m")
        assert (settled.amounts["total_tokens"], settled.held["total_tokens"]) == (2, HELD)


@in_virtual_time
async def test_where_the_store_is_read_only_its_statements_are_still_read() -> None:
    async with bank() as opened:
        handle = await opened.open(1000)
        opened.journal.reason = "acknowledged records are lost"
        assert len((await opened.statement(handle)).entries) == 1
        with refused("ledger_unavailable"):
            await opened.charge(handle, 1)


# -- watch ------------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_watch_tells_the_latest_state_only_and_ends_with_its_budget() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        root = await opened.open(1000)
        handle = await opened.open(1000, parent=root)
        line = Line()
        told = opened.operations.watch(WatchParams(budget=handle, watch="w"), context(line))
        assert told == opened.get(handle)
        slow, ended = anyio.Event(), anyio.Event()

        async def run() -> None:
            async def notify(method: str, params: msgspec.Struct) -> None:
                await line.notify(method, params)
                await slow.wait()

            await line.watches["w"](notify)
            ended.set()

        group.start_soon(run)
        await settle_down()
        assert line.told == [], "nothing has changed"
        for _ in range(5):
            await opened.charge(handle, 10)
        slow.set()
        await settle_down()
        states = [update.settled.total_tokens for _, update in line.told if isinstance(update, BudgetUpdate)]
        assert states == [10, 50]
        await opened.charge(root, 10)
        await settle_down()
        assert len(line.told) <= 3, "what it has itself is the same, whatever its parent spends"
        await opened.close(root)
        await ended.wait()
        method, last = line.told[-1]
        assert method == "llmd.budget"
        assert isinstance(last, BudgetUpdate)
        assert (last.state, last.watch, last.settled.total_tokens) == ("closed", "w", 50)


@in_virtual_time
async def test_what_changes_before_a_watch_has_begun_to_run_is_told() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(1000)
        line = Line()
        opened.operations.watch(WatchParams(budget=handle, watch="w"), context(line))
        await opened.charge(handle, 10)
        group.start_soon(line.watches["w"], line.notify)
        await settle_down()
        assert len(line.told) == 1
        group.cancel_scope.cancel()


@in_virtual_time
async def test_a_watch_tells_of_what_is_held() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        root = await opened.open(1000)
        handle = await opened.open(1000, parent=root)
        line = Line()
        opened.operations.watch(WatchParams(budget=root, watch="w"), context(line))
        group.start_soon(line.watches["w"], line.notify)
        await settle_down()
        await Caller(opened, group).begin(handle, max_tokens=100)
        assert [update.held.total_tokens for _, update in line.told if isinstance(update, BudgetUpdate)] == [HELD]
        group.cancel_scope.cancel()


@in_virtual_time
async def test_a_budget_that_is_not_there_is_not_watched() -> None:
    async with bank() as opened:
        handle = await opened.open(10)
        await opened.close(handle)
        for name, kind in ((handle, "budget_closed"), ("bh_never", "budget_unknown")):
            with refused(kind):
                opened.operations.watch(WatchParams(budget=name, watch="w"), context())
