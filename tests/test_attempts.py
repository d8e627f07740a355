"""One physical try: its place in a minute, what it turns out to have used, and trouble that comes while it waits."""

import anyio
import anyio.lowlevel
import pytest

from llmd.budgets import Posting
from llmd.core.outcomes import Failure
from tests.support.calls import row
from tests.support.executing import Recorder
from tests.support.routed import ok, outcomes, routed, status, then, to
from tests.support.upstream import Exchange

pytestmark = pytest.mark.anyio


async def test_a_call_counts_in_its_minute_with_what_it_has_really_used() -> None:
    async with routed([to("a")], settings={"a": {"tokens_per_minute": 60}}, a=ok) as made:
        now = anyio.current_time()
        await made.call(prompt="x" * 300)  # about 100 tokens: it goes alone, and takes 7
        assert made.traffic.gate("a").full_until(now) is None
        for _ in range(3):
            await made.call(max_tokens=1)
    assert made.asked == {"a": 4}


async def test_trouble_that_comes_while_a_call_waits_for_its_place_keeps_it_back_and_costs_nothing() -> None:
    go, budgets = anyio.Event(), Recorder()

    async def held(exchange: Exchange) -> None:
        await go.wait()
        await ok(exchange)

    settings = {"a": {"max_concurrency": 1}}
    async with routed([to("a", "b")], budgets, settings=settings, a=held, b=ok) as made:
        async with anyio.create_task_group() as group:
            group.start_soon(made.call)
            await made.at["a"].until(lambda up: up.in_flight == 1)

            async def call() -> None:
                done = await made.call()
                assert outcomes(done) == [("b", "ok")]  # it was never sent to the other

            group.start_soon(call)
            while len(budgets.holds) < 2:
                await anyio.lowlevel.checkpoint()
            health = made.traffic.health(row(provider="a"))
            limited = Failure(kind="upstream_rate_limited", message="", retry_after_s=60.0)
            health.leave(anyio.current_time(), limited, probe=False)
            go.set()
        assert made.asked == {"a": 1, "b": 1}
    assert Posting(None) in budgets.postings


async def test_only_a_call_of_one_attempt_tells_what_llmd_itself_took() -> None:
    async with routed([to("a", "b")], a=then(ok, status(400)), b=ok) as made:
        await made.call()
        assert sum(made.meter.overhead.counts) == 1
        assert 0 < made.meter.overhead.sum < 1
        assert outcomes(await made.call()) == [("a", "upstream_invalid"), ("b", "ok")]
        assert sum(made.meter.overhead.counts) == 1
