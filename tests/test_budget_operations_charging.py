"""Spend that happened elsewhere: posted whole or not at all, and taken back where it could not be written."""

from typing import Any

import anyio
import pytest

from llmd.scalars import AMOUNT_MAX
from tests.support.stub import HELD, Caller
from tests.support.treasuries import (
    Bank,
    bank,
    in_virtual_time,
    pass_time,
    refused,
    settle_down,
    sum_of,
)


@in_virtual_time
async def test_a_charge_is_posted_whole_or_not_at_all() -> None:
    async with bank() as opened:
        root = await opened.open(100)
        child = await opened.open(1000, parent=root)
        assert (await opened.charge(child, 60)).available["total_tokens"] == 40
        with refused("budget_exceeded", budget=opened.get(child).id, requested=41, available=40, max_fit=40):
            await opened.charge(child, 41)
        assert opened.tokens(child) == opened.tokens(root) == (60, 0)
        assert (await opened.charge(child, 41, force=True)).settled.total_tokens == 101
        assert opened.get(root).available["total_tokens"] == 0


@in_virtual_time
async def test_a_forced_charge_stands_in_no_line() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(200)
        caller = Caller(opened, group)
        await caller.begin(handle, max_tokens=100)
        group.start_soon(_charge, opened, handle, 150)
        await settle_down()
        assert (await opened.charge(handle, 10, force=True)).settled.total_tokens == 10
        await caller.finish()
        assert opened.tokens(handle) == (162, 0)


@in_virtual_time
async def test_a_charge_waits_only_if_it_is_told_to_and_is_then_posted_once() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(200)
        caller = Caller(opened, group)
        await caller.begin(handle, max_tokens=100)
        with refused("budget_contended"):
            await opened.charge(handle, 150)
        for tokens in (150, 40):
            group.start_soon(_charge, opened, handle, tokens)
            await settle_down()
        assert opened.tokens(handle) == (0, HELD)
        await caller.finish()
        assert opened.tokens(handle) == (192, 0)
        assert sum_of((await opened.statement(handle)).entries, "total_tokens") == 192


async def _charge(opened: Bank, handle: str, tokens: int, **more: Any) -> None:
    await opened.charge(handle, tokens, wait_ms=1000, **more)


@in_virtual_time
@pytest.mark.parametrize("waits", [False, True])
async def test_a_charge_whose_record_is_not_written_is_taken_back(waits: bool) -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(200)
        caller = Caller(opened, group)
        if waits:
            await caller.begin(handle, max_tokens=100)
        errors: list[str] = []

        async def charge() -> None:
            with refused("ledger_unavailable") as caught:
                await opened.charge(handle, 150, wait_ms=1000, idempotency_key="k")
            errors.append(caught.value.kind)

        group.start_soon(charge)
        opened.journal.failing = True
        await settle_down()
        if waits:
            assert errors == []
            await caller.finish()
        assert errors == ["ledger_unavailable"]
        settled = 2 if waits else 0
        assert opened.tokens(handle) == (settled, 0)
        opened.journal.failing = False
        await pass_time(1)
        statement = await opened.statement(handle)
        assert [entry.kind for entry in statement.entries[-2:]] == ["charge", "undo"]
        assert sum_of(statement.entries, "total_tokens") == settled
        # It was not made, so it may be made now.
        assert (await opened.charge(handle, 150, idempotency_key="k")).settled.total_tokens == settled + 150


@in_virtual_time
async def test_a_charge_that_is_cancelled_as_it_is_written_stands_and_its_key_says_so() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(200)
        opened.journal.stall()
        scope = anyio.CancelScope()

        async def charge() -> None:
            with scope:
                await opened.charge(handle, 50, idempotency_key="k")

        group.start_soon(charge)
        await settle_down()
        scope.cancel()
        opened.journal.go.set()
        await settle_down()
        assert (await opened.charge(handle, 50, idempotency_key="k")).settled.total_tokens == 50
        assert opened.tokens(handle) == (50, 0)


@in_virtual_time
async def test_a_charge_that_is_cancelled_at_the_moment_of_its_turn_leaves_the_books_right() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(200)
        caller = Caller(opened, group)
        call = await caller.begin(handle, max_tokens=100)
        scope = anyio.CancelScope()

        async def charge() -> None:
            with scope:
                await opened.charge(handle, 150, wait_ms=1000)

        group.start_soon(charge)
        await settle_down()
        call.scope.cancel()
        scope.cancel()
        await pass_time(5)
        told = opened.get(handle)
        statement = await opened.statement(handle)
        assert sum_of(statement.entries, "total_tokens") == told.settled.total_tokens
        assert opened.is_at_rest()


@in_virtual_time
async def test_the_largest_amounts_are_kept_and_told_exactly() -> None:
    async with bank() as opened:
        handle = await opened.open(AMOUNT_MAX - 1)
        await opened.charge(handle, AMOUNT_MAX - 2)
        assert opened.get(handle).available["total_tokens"] == 1
        with refused("budget_exceeded", available=1):
            await opened.charge(handle, 2)
        await opened.charge(handle, AMOUNT_MAX, force=True)
        assert opened.tokens(handle) == (AMOUNT_MAX, 0)
