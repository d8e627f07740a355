"""When the provider is asked how many tokens a request has, and what its word is worth."""

import anyio
import pytest

from llmd.chat import Completion
from llmd.core.bounds import COUNT_MARGIN
from llmd.dialects.base import HttpCall
from tests.support.stub import Stub, calling, input_bound, used
from tests.support.treasuries import in_virtual_time

LONG = "word " * 1000
COUNTED = 1001
HELD = COUNTED + COUNT_MARGIN + 100
"""What a call for 100 tokens holds whose input was counted."""
IMAGE = [{"role": "user", "content": [{"type": "image", "media_type": "image/png", "data": "AAAA"}]}]


class Counting(Stub):
    """It never comes to an end of counting."""

    async def count(self, call: HttpCall) -> int | None:
        await anyio.sleep_forever()


@in_virtual_time
async def test_a_long_prompt_fits_a_budget_that_its_bytes_do_not() -> None:
    async with calling(Stub(used(COUNTED, 10), counted=COUNTED), counts="exact") as (opened, caller):
        handle = await opened.open(HELD)
        call = await caller.begin(handle, LONG, max_tokens=100)
        assert opened.tokens(handle) == (0, HELD)
        await caller.finish()
        assert isinstance(call.end, Completion)
        assert opened.tokens(handle) == (COUNTED + 10, 0)
        assert caller.stub.counts == 1


@in_virtual_time
async def test_one_token_less_than_the_count_needs_is_too_few() -> None:
    async with calling(Stub(counted=COUNTED), counts="exact") as (opened, caller):
        call = await caller.begin(await opened.open(HELD - 1), LONG, max_tokens=100)
        assert call.kind == "budget_exceeded"
        assert caller.stub.sent == []


@in_virtual_time
async def test_an_answer_is_cut_by_what_was_counted() -> None:
    async with calling(Stub(counted=COUNTED), counts="exact") as (opened, caller):
        await caller.begin(await opened.open(HELD - 60), LONG)
        assert [one.max_tokens for one in caller.stub.sent] == [40]


@in_virtual_time
async def test_nobody_is_asked_where_the_bytes_fit_or_the_budget_does_not_pay_for_this_model() -> None:
    async with calling(Stub(counted=1), counts="exact") as (opened, caller):
        await caller.begin(await opened.open(input_bound(LONG, 100) + 100), LONG, max_tokens=100)
        await caller.begin(None, LONG)
        denied = await caller.begin(await opened.open(10, allow={"models": ["metered/other"]}), LONG)
        unpriced = await caller.begin(await opened.open(limits={"usd": "0.01"}), LONG, model="metered/unknown")
        assert (denied.kind, unpriced.kind) == ("budget_denied", "unpriced_model")
        assert caller.stub.counts == 0


@in_virtual_time
@pytest.mark.parametrize("enforcement", ["strict", "estimate"])
async def test_a_count_that_is_an_estimate_is_asked_for_only_where_estimates_do(enforcement: str) -> None:
    async with calling(Stub(counted=5), counts="estimate") as (opened, caller):
        call = await caller.begin(await opened.open(200, enforcement=enforcement), LONG, max_tokens=100)
        assert (call.kind, caller.stub.counts) == (("budget_exceeded", 0) if enforcement == "strict" else (None, 1))


@in_virtual_time
async def test_a_provider_that_does_not_tell_leaves_the_bound_as_it_was() -> None:
    async with calling(Stub(counted=None), counts="exact") as (opened, caller):
        call = await caller.begin(await opened.open(HELD), LONG, max_tokens=100)
        assert (call.kind, caller.stub.counts) == ("budget_exceeded", 1)


@in_virtual_time
async def test_an_exact_count_tells_what_media_cost_where_nothing_else_does() -> None:
    async with calling(Stub(counted=300), counts="exact") as (opened, caller):
        handle = await opened.open(4000)
        call = await caller.begin(handle, prompt=None, messages=IMAGE, max_tokens=100)
        assert call.kind is None
        assert opened.tokens(handle) == (0, 300 + COUNT_MARGIN + 100)


@in_virtual_time
async def test_a_call_that_is_cancelled_while_its_tokens_are_counted_holds_nothing() -> None:
    stub = Counting()
    async with calling(stub, counts="exact") as (opened, caller):
        handle = await opened.open(HELD)
        call = await caller.begin(handle, LONG, max_tokens=100, timeout_ms=50)
        await call.over.wait()
        assert (call.kind, stub.sent, opened.tokens(handle)) == ("deadline_exceeded", [], (0, 0))
