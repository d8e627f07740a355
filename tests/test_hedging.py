"""A second target beside one that says nothing: who speaks first wins, and the other is cancelled and settled."""

import anyio
import pytest

from llmd.budgets import Posting
from tests.support.executing import Recorder
from tests.support.routed import ok, outcomes, routed, silent, status, to
from tests.support.treasuries import bank
from tests.support.upstream import DELTA, LAST, Exchange

pytestmark = pytest.mark.anyio


async def streamed(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.event(DELTA)
    await exchange.event(LAST)
    await exchange.end_stream()


async def test_a_second_target_answers_where_the_first_says_nothing_and_the_first_is_aborted_and_settled() -> None:
    budgets = Recorder()
    async with routed([to("a", "b", hedge_ms=20)], budgets, a=silent, b=streamed) as made:
        done = await made.call(stream=True)
        await made.at["a"].until(lambda up: up.open == 0)
    assert (done.provider, made.text) == ("b", "one two")
    assert sorted(outcomes(done)) == [("a", "cancelled"), ("b", "ok")]
    certain = [posting for posting in budgets.postings if not posting.uncertain]
    assert (len(budgets.holds), len(certain), budgets.open) == (2, 1, set())
    assert Posting(budgets.holds[0][1].amounts, uncertain=True) in budgets.postings


async def test_who_answers_in_time_is_alone() -> None:
    async with routed([to("a", "b", hedge_ms=60_000)], a=streamed, b=ok) as made:
        assert (await made.call(stream=True)).provider == "a"
        assert made.asked == {"a": 1, "b": 0}


async def test_a_first_piece_decides_though_nobody_wants_deltas_and_upstreams_are_asked_for_streams() -> None:
    go = anyio.Event()

    async def begun(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.event(DELTA)
        await go.wait()
        await exchange.event(LAST)
        await exchange.end_stream()

    async with routed([to("a", "b", hedge_ms=30_000)], a=begun, b=ok) as made, anyio.create_task_group() as group:
        group.start_soon(made.call)
        await made.at["a"].until(lambda up: len(up.requests) == 1)
        assert made.at["a"].requests[0].json()["stream"] is True
        go.set()
    assert made.asked == {"a": 1, "b": 0}
    assert made.deltas == []


async def test_a_model_that_does_not_stream_is_raced_without() -> None:
    settings = {"a": {"models": {"m1": {"refuses": ["stream"]}}}}
    async with routed([to("a", "b", hedge_ms=60_000)], settings=settings, a=ok, b=ok) as made:
        assert (await made.call()).provider == "a"
        assert "stream" not in made.at["a"].requests[0].json()


async def test_the_first_may_still_win_after_the_second_has_started() -> None:
    second = anyio.Event()

    async def late(exchange: Exchange) -> None:
        await second.wait()
        await streamed(exchange)

    async def asked(exchange: Exchange) -> None:
        second.set()
        await exchange.gone()

    async with routed([to("a", "b", hedge_ms=20)], a=late, b=asked) as made:
        done = await made.call(stream=True)
        await made.at["b"].until(lambda up: up.open == 0)
    assert (done.provider, made.text) == ("a", "one two")


@pytest.mark.parametrize("failing", ["a", "b"])
async def test_one_that_fails_leaves_it_to_the_other(failing: str) -> None:
    both = anyio.Event()

    async def fails(exchange: Exchange) -> None:
        await both.wait()
        await status(404)(exchange)

    async def answers(exchange: Exchange) -> None:
        await both.wait()
        await made.at[failing].until(lambda up: up.in_flight == 0)
        await ok(exchange)

    scripts = {name: fails if name == failing else answers for name in ("a", "b")}
    async with routed([to("a", "b", hedge_ms=10)], **scripts) as made, anyio.create_task_group() as group:

        async def call() -> None:
            assert (await made.call()).provider != failing

        group.start_soon(call)
        await made.at["b"].until(lambda up: len(up.requests) == 1)
        both.set()


async def test_one_that_fails_before_its_time_is_followed_and_not_raced() -> None:
    async with routed([to("a", "b", hedge_ms=60_000, retry=0)], a=status(500), b=ok) as made:
        done = await made.call()
        assert outcomes(done) == [("a", "upstream_unavailable"), ("b", "ok")]


async def test_a_hedge_that_the_budget_does_not_pay_for_is_skipped() -> None:
    answer = anyio.Event()

    async def slow(exchange: Exchange) -> None:
        await answer.wait()
        await ok(exchange)

    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(limits={"requests": 1})
        async with routed([to("a", "b", hedge_ms=0)], opened.payer, a=slow, b=ok) as made:

            async def call() -> None:
                done = await made.call(budget=handle)
                assert sorted(outcomes(done)) == [("a", "ok"), ("b", "budget_contended")]

            group.start_soon(call)
            await made.at["a"].until(lambda up: len(up.requests) == 1)
            answer.set()
            await made.at["a"].until(lambda up: up.in_flight == 0)
            assert made.asked == {"a": 1, "b": 0}


async def test_hedges_stay_within_the_budget_by_what_the_upstreams_have_billed() -> None:
    async with bank() as opened:
        handle = await opened.open(400)
        async with routed(
            [to("a", "b", hedge_ms=5, timeout_ms=200, retry=0)], opened.payer, a=silent, b=streamed
        ) as made:
            ends = set()
            for _ in range(12):
                error = None
                try:
                    await made.call(budget=handle, max_tokens=10, wait_ms=0)
                except Exception as failed:
                    error = failed
                ends.add(getattr(error, "kind", None))
            await made.at["a"].until(lambda up: up.open == 0)
            told = opened.get(handle)
            billed = 7 * made.asked["b"]  # and of those that were aborted nobody knows: their bounds are posted
            assert billed <= told.settled.total_tokens <= 400
            assert told.held.total_tokens == 0
            assert told.uncertain.total_tokens > 0
            assert "budget_exceeded" in ends


async def test_a_call_that_is_cancelled_aborts_both() -> None:
    budgets = Recorder()
    async with routed([to("a", "b", hedge_ms=5)], budgets, a=silent, b=silent) as made:
        async with anyio.create_task_group() as group:
            group.start_soon(made.call)
            await made.at["b"].until(lambda up: len(up.requests) == 1)
            group.cancel_scope.cancel()
        await made.at["a"].until(lambda up: up.open == 0)
        await made.at["b"].until(lambda up: up.open == 0)
    assert [posting.uncertain for posting in budgets.postings] == [True, True]
