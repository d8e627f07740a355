"""How long an answer a budget pays for, and what it pays for at all."""

from typing import Any

import anyio
import msgspec
import pytest

from llmd.books import Allow
from llmd.chat import Completion
from llmd.errors import LLMError
from tests.support.stub import Stub, calling, input_bound, used
from tests.support.treasuries import Bank, in_virtual_time, settle_down

BOUND = input_bound("x", 100)
"""Input tokens of a call for 100 tokens; its prompt is "x"."""


def held(opened: Bank, handle: str) -> int:
    return opened.tokens(handle)[1]


# -- how long the answer may be ---------------------------------------------------------------------------------------


@in_virtual_time
@pytest.mark.parametrize(
    ("asked", "total", "sent", "clamped"),
    [
        ({}, 4000, 1024, None),
        ({}, 500, 500 - input_bound("x", 1024), 500 - input_bound("x", 1024)),
        ({}, input_bound("x", 1024) + 16, 16, 16),
        ({"max_tokens": 100}, 4000, 100, None),
        ({"max_tokens": 100, "fit": "clamp"}, BOUND + 40, 40, 40),
        ({"max_tokens": 5, "fit": "clamp"}, input_bound("x", 5) + 5, 5, None),
        ({"max_tokens": 100, "fit": "clamp"}, BOUND + 100, 100, None),
        ({"reasoning": {"tokens": 50}}, input_bound("x", 1024) + 66, 66, 66),
    ],
)
async def test_an_answer_is_cut_to_what_is_left(
    asked: dict[str, Any], total: int, sent: int, clamped: int | None
) -> None:
    async with calling() as (opened, caller):
        handle = await opened.open(total)
        call = await caller.begin(handle, **asked)
        assert [one.max_tokens for one in caller.stub.sent] == [sent]
        await caller.finish()
        assert isinstance(call.end, Completion)
        assert call.end.clamped_max_tokens == clamped


@in_virtual_time
@pytest.mark.parametrize(
    ("asked", "total", "fits"),
    [
        ({}, input_bound("x", 1024) + 15, 15),
        ({"max_tokens": 100}, BOUND + 99, 99),
        ({"max_tokens": 100, "fit": "refuse"}, BOUND + 99, 99),
        ({"fit": "refuse"}, input_bound("x", 1024) + 1000, 1000),
        ({"max_tokens": 5, "fit": "clamp"}, input_bound("x", 5) + 4, 4),
        ({"reasoning": {"tokens": 50}}, input_bound("x", 1024) + 65, 65),
        ({"max_tokens": 100}, 10, None),
    ],
)
async def test_what_does_not_fit_and_may_not_be_cut_is_refused_with_what_would(
    asked: dict[str, Any], total: int, fits: int | None
) -> None:
    async with calling() as (opened, caller):
        handle = await opened.open(total)
        call = await caller.begin(handle, **asked)
        assert isinstance(call.end, LLMError)
        assert call.end.kind == "budget_exceeded"
        assert call.end.data.get("max_tokens") == fits
        assert call.end.data["max_fit"] == total
        assert call.end.data["limiting"].unit == "total_tokens"
        assert caller.stub.sent == []


@in_virtual_time
async def test_a_call_is_cut_to_what_is_settled_and_waits_for_what_is_held() -> None:
    async with calling(Stub(used(50, 50))) as (opened, caller):
        handle = await opened.open(1050)
        await caller.begin(handle)
        second = await caller.begin(handle)
        assert len(caller.stub.sent) == 1
        await caller.finish()
        assert second.end is None
        most = 1050 - input_bound("x", 1024)
        assert [one.max_tokens for one in caller.stub.sent] == [most, most - 100]


@in_virtual_time
async def test_a_bound_that_did_not_hold_makes_the_next_ones_larger_and_never_smaller_again() -> None:
    async with calling() as (opened, caller):
        handle = await opened.open(10**6)
        first, second = anyio.Event(), anyio.Event()
        for go in (first, second):
            caller.stub.go = go
            await caller.begin(handle, max_tokens=100)
        for go, inputs in ((first, BOUND + 500), (second, BOUND + 10)):
            caller.stub.outcome = used(inputs, 1)
            go.set()
            await settle_down()
        caller.stub.go = anyio.Event()
        await caller.begin(handle, max_tokens=100)
        assert opened.get(handle).held.input_tokens == BOUND + 500


@in_virtual_time
async def test_the_default_length_is_configured_and_never_more_than_the_model_has() -> None:
    async with calling() as (opened, caller):
        handle = await opened.open(10**6)
        opened.default_max_tokens = 7
        await caller.begin(handle)
        opened.default_max_tokens = 200_000  # the model's maximum is 100,000
        await caller.begin(handle)
        await caller.begin(None)
        assert [one.max_tokens for one in caller.stub.sent] == [7, 100_000, None]


# -- what is not allowed ----------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_model_without_a_price_is_not_paid_for_with_money() -> None:
    async with calling() as (opened, caller):
        rich = await opened.open(limits={"usd": "5.00"})
        below = await opened.open(100_000, parent=rich)
        for handle in (rich, below):
            call = await caller.begin(handle, model="metered/unknown", max_tokens=10)
            assert call.kind == "unpriced_model"
        await caller.begin(await opened.open(4000), model="metered/unknown", max_tokens=10)
        await caller.begin(rich, max_tokens=10)
        assert len(caller.stub.sent) == 2


IMAGE = [{"role": "user", "content": [{"type": "image", "media_type": "image/png", "data": "AAAA"}]}]


@in_virtual_time
async def test_a_cost_that_cannot_be_told_is_refused_where_limits_are_strict() -> None:
    async with calling() as (opened, caller):

        async def begin(handle: str) -> str | None:
            call = await caller.begin(handle, prompt=None, messages=IMAGE, max_tokens=10)
            return call.kind

        loose = await opened.open(4000, enforcement="estimate")
        assert await begin(await opened.open(4000)) == "budget_denied"
        assert await begin(await opened.open(4000, parent=loose, enforcement="strict")) == "budget_denied"
        assert await begin(loose) is None
        assert await begin(await opened.open(limits={"requests": 3})) is None
        assert len(caller.stub.sent) == 2


@in_virtual_time
async def test_an_estimate_holds_less_than_a_bound_and_what_only_counts_refuses_nothing() -> None:
    async with calling(Stub(used(50, 100))) as (opened, caller):
        guess, counts = await opened.open(110, enforcement="estimate"), await opened.open(1, enforcement="track")
        for handle in (guess, counts):
            call = await caller.begin(handle, max_tokens=100)
            assert held(opened, handle) < BOUND + 100
            await caller.finish()
            assert call.kind is None
            assert opened.tokens(handle) == (150, 0)
        assert opened.get(guess).overrun.total_tokens > 0


@in_virtual_time
@pytest.mark.parametrize("allow", [Allow(providers=["other"]), Allow(models=["metered/m2", "other/m"])])
async def test_a_budget_pays_only_for_what_it_and_those_above_allow(allow: Allow) -> None:
    async with calling() as (opened, caller):
        narrow = await opened.open(4000, allow=msgspec.to_builtins(allow))
        below = await opened.open(
            4000, parent=narrow, allow={"providers": ["metered"], "models": ["metered/m", "metered/m2"]}
        )
        for handle in (narrow, below):
            call = await caller.begin(handle, max_tokens=10)
            assert isinstance(call.end, LLMError)
            assert call.end.kind == "budget_denied"
            assert call.end.data["budget"] == opened.get(narrow).id
        assert caller.stub.sent == []
        if allow.models:
            await caller.begin(below, model="metered/m2", max_tokens=10)
            assert len(caller.stub.sent) == 1


@in_virtual_time
async def test_calls_without_a_budget_are_free_unless_the_configuration_says_otherwise() -> None:
    async with calling() as (opened, caller):
        await caller.begin(None)
        assert not opened.treasury.ledger.holds
    async with calling(configured={"daily": {"default": True}}) as (opened, caller):
        await caller.begin(None, max_tokens=10)
        assert held(opened, "daily")
    async with calling(configured={"daily": {"require": True}}) as (opened, caller):
        assert (await caller.begin(None)).kind == "budget_denied"
        await caller.begin("daily", max_tokens=10)
        assert held(opened, "daily")


@in_virtual_time
@pytest.mark.parametrize(("name", "kind"), [("bh_no", "budget_unknown"), ("daily", "budget_unknown")])
async def test_a_budget_that_is_not_there_pays_for_nothing(name: str, kind: str) -> None:
    async with calling() as (opened, caller):
        assert (await caller.begin(name)).kind == kind
        closed = await opened.open(10)
        await opened.close(closed)
        assert (await caller.begin(closed)).kind == "budget_closed"
