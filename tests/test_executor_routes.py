"""A call on its way through the steps of a plan, over real HTTP: retries, fallbacks, timeouts, breakers, budgets."""

import logging

import anyio
import msgspec
import pytest

from llmd.budgets import Posting
from llmd.core.health import FEWEST
from llmd.core.rows import Price
from llmd.errors import LLMError
from tests.support.calls import row
from tests.support.executing import Recorder
from tests.support.routed import hang_up, ok, outcomes, routed, silent, status, then, to
from tests.support.treasuries import bank
from tests.support.upstream import DELTA, LAST, Exchange

pytestmark = pytest.mark.anyio


async def test_what_fails_for_a_moment_is_tried_again_where_it_was_each_time_with_a_hold_of_its_own() -> None:
    budgets = Recorder()
    async with routed([to("a", "b")], budgets, a=then(status(503), hang_up, ok), b=ok) as made:
        done = await made.call()
        assert made.asked == {"a": 3, "b": 0}
    assert outcomes(done) == [("a", "upstream_unavailable"), ("a", "upstream_unavailable"), ("a", "ok")]
    assert done.route.rule == 0
    assert [posting.uncertain for posting in budgets.postings] == [True, True, False]


async def test_a_target_that_goes_on_failing_is_given_up_for_the_next_and_then_the_fallback() -> None:
    rule = to("a", "b", fallback={"provider": "c", "model": "m1"}, retry=1)
    async with routed([rule], a=status(500), b=status(401), c=ok) as made:
        done = await made.call()
        assert made.asked == {"a": 2, "b": 1, "c": 1}
    assert outcomes(done) == [
        ("a", "upstream_unavailable"),
        ("a", "upstream_unavailable"),
        ("b", "upstream_auth"),
        ("c", "ok"),
    ]
    assert (done.provider, done.model) == ("c", "m1")


async def test_where_all_fail_the_last_failure_is_told_with_every_attempt() -> None:
    async with routed([to("a", "b", retry=0)], a=status(404), b=status(500)) as made:
        error = await made.fails()
    assert (error.kind, error.data["provider"]) == ("upstream_unavailable", "b")
    assert outcomes(error) == [("a", "model_not_found"), ("b", "upstream_unavailable")]


async def test_a_content_filters_refusal_is_final() -> None:
    async def filtered(exchange: Exchange) -> None:
        await exchange.reply({"error": {"message": "no", "code": "content_filter"}}, 400)

    async with routed([to("a", "b")], a=filtered, b=ok) as made:
        assert (await made.fails()).kind == "content_filtered"
        assert made.asked == {"a": 1, "b": 0}


async def test_once_output_was_passed_on_nothing_is_tried_again() -> None:
    async def cut(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.event(DELTA)
        exchange.close()

    async with routed([to("a", "b")], a=cut, b=ok) as made:
        assert (await made.fails(stream=True)).kind == "upstream_invalid"
        assert (made.text, made.asked) == ("one ", {"a": 1, "b": 0})
        # The same without deltas goes elsewhere: nobody has heard anything.
        assert (await made.call()).provider == "b"


async def test_an_attempt_that_takes_longer_than_its_rule_lets_it_is_aborted_posted_and_followed_by_the_next() -> None:
    budgets = Recorder()
    async with routed([to("a", "b", timeout_ms=50, retry=0)], budgets, a=silent, b=ok) as made:
        done = await made.call()
        await made.at["a"].until(lambda up: up.open == 0)
    assert outcomes(done) == [("a", "upstream_unavailable"), ("b", "ok")]
    assert budgets.postings[0] == Posting(budgets.holds[0][1].amounts, uncertain=True)


async def test_a_rules_max_tokens_is_of_requests_that_name_none() -> None:
    async with routed([to("a", max_tokens=33)], a=ok) as made:
        await made.call(max_tokens=None)
        await made.call(max_tokens=5)
        assert [request.json()["max_tokens"] for request in made.at["a"].requests] == [33, 5]


# -- health ----------------------------------------------------------------------------------------------------------


async def test_a_breaker_sends_calls_elsewhere_and_says_why_where_there_is_no_elsewhere() -> None:
    rules = [{"task_type": "one", **to("a", retry=0)}, to("a", "b", retry=0)]
    async with routed(rules, a=status(500), b=ok) as made:
        for _ in range(FEWEST):
            assert (await made.call()).provider == "b"
        assert made.asked == {"a": FEWEST, "b": FEWEST}
        done = await made.call()
        assert outcomes(done) == [("b", "ok")]
        error = await made.fails(task_type="one")
        assert (error.kind, error.retryable) == ("no_route", True)
        assert 0 < error.data["retry_after_ms"] <= 5000
        assert error.data["targets"] == [{"provider": "a", "model": "m1", "reason": "breaker_open"}]
        assert made.asked["a"] == FEWEST


async def test_a_refused_key_opens_the_breaker_at_once() -> None:
    async with routed([to("a", "b")], a=status(401), b=ok) as made:
        await made.call()
        await made.call()
        assert made.asked == {"a": 1, "b": 2}


async def test_a_rate_limited_target_is_left_alone_until_it_said_and_then_used_again() -> None:
    limited = status(429, "retry-after-ms: 9000")
    async with routed([to("a", "b")], a=then(limited, ok), b=ok) as made:
        assert outcomes(await made.call()) == [("a", "upstream_rate_limited"), ("b", "ok")]
        assert outcomes(await made.call()) == [("b", "ok")]
        assert made.asked == {"a": 1, "b": 2}


async def test_the_only_target_is_waited_for_where_it_says_when_to_come_back() -> None:
    async with routed([to("a")], a=then(status(429, "retry-after-ms: 60"), ok)) as made:
        async with anyio.create_task_group() as group:
            group.start_soon(made.call)
            await made.at["a"].until(lambda up: len(up.requests) >= 1)
            # Another call meanwhile does not go there before its time.
            done = await made.call()
        assert outcomes(done)[-1] == ("a", "ok")
        assert made.asked == {"a": 3}


async def test_beyond_the_calls_deadline_nothing_is_waited_for() -> None:
    async with routed([to("a")], a=status(429, "retry-after: 100")) as made:
        assert (await made.fails(timeout_ms=5000)).kind == "upstream_rate_limited"
        error = await made.fails(timeout_ms=5000)
        assert (error.kind, error.retryable) == ("no_route", True)
        assert 95_000 < error.data["retry_after_ms"] <= 100_000
        assert made.asked == {"a": 1}


async def test_when_a_breaker_may_close_one_call_of_many_finds_out_also_where_budgets_are_flushed_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "llmd.call")
    async with bank() as opened:
        handle = await opened.open(400_000)
        async with routed([to("a", retry=0)], opened.payer, a=status(500)) as made:
            for _ in range(FEWEST):
                await made.fails(budget=handle)
            health = made.traffic.health(row(provider="a"))
            health._open_until = anyio.current_time()  # as if its time had passed
            errors: list[LLMError] = []

            async def call() -> None:
                errors.append(await made.fails(budget=handle))

            async with anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(call)
            assert made.asked == {"a": FEWEST + 1}
            assert sorted(error.kind for error in errors) == ["no_route"] * 9 + ["upstream_unavailable"]
        assert opened.get(handle).settled.requests == FEWEST + 1
    told = [record.getMessage().split(" ", 3)[3] for record in caplog.records]
    assert sorted(told) == ["'a/m1' upstream_unavailable"] * (FEWEST + 1) + ["'nobody' no_route"] * 9


async def test_a_breaker_that_opens_meanwhile_is_not_waited_for_where_there_is_another_target() -> None:
    async with routed([to("a", "b", retry=10)], a=status(500), b=ok) as made:
        done = await made.call()
        assert outcomes(done) == [*[("a", "upstream_unavailable")] * FEWEST, ("b", "ok")]
        assert done.latency_ms < 3000


async def test_who_waits_for_a_place_goes_elsewhere_when_the_minute_is_full() -> None:
    settings = {"a": {"max_concurrency": 1, "requests_per_minute": 2}}
    async with routed([to("a", "b")], settings=settings, a=ok, b=ok) as made:
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(made.call)
        assert made.asked == {"a": 2, "b": 2}


async def test_a_rules_max_tokens_counts_where_its_ceiling_is_held() -> None:
    rule = to("a", max_tokens=20, max_cost_usd=0.005)
    async with routed([rule], a=ok) as made:
        assert (await made.call(max_tokens=None)).provider == "a"
        assert (await made.fails(max_tokens=100_000)).kind == "no_route"


async def test_a_full_minute_sends_calls_elsewhere_without_asking() -> None:
    async with routed([to("a", "b")], settings={"a": {"requests_per_minute": 1}}, a=ok, b=ok) as made:
        assert [(await made.call()).provider for _ in range(3)] == ["a", "b", "b"]
        assert made.asked == {"a": 1, "b": 2}


# -- budgets ---------------------------------------------------------------------------------------------------------

DEAR, CHEAP = Price(input=1000, output=10_000), Price(input=1, output=10)


async def test_what_the_budget_cannot_pay_moves_on_to_a_cheaper_target_before_it_refuses() -> None:
    async with bank() as opened:
        handle = await opened.open(limits={"usd": "0.05"})
        prices = {"a": DEAR, "b": CHEAP}
        async with routed([to("a", "b")], opened.payer, prices=prices, a=ok, b=ok) as made:
            done = await made.call(budget=handle)
            assert outcomes(done) == [("a", "budget_exceeded"), ("b", "ok")]
            assert made.asked == {"a": 0, "b": 1}
            error = await made.fails(budget=handle, max_tokens=10_000)
            assert (error.kind, error.data["limiting"].unit) == ("budget_exceeded", "nano_usd")
        assert opened.get(handle).settled.requests == 1


async def test_what_a_budget_does_not_allow_is_no_target() -> None:
    async with bank() as opened:
        handle = await opened.open(4000, allow={"providers": ["b"]})
        async with routed([to("a", "b")], opened.payer, a=ok, b=ok) as made:
            assert outcomes(await made.call(budget=handle)) == [("b", "ok")]
            error = await made.fails(budget=handle, model="a/m1")
            assert error.kind == "budget_denied"


async def test_a_label_that_a_budget_fixes_is_no_callers_to_change() -> None:
    async with bank() as opened:
        handle = await opened.open(4000, allow={"labels": {"trust": "auto_apply"}})
        child = await opened.open(1000, parent=handle)
        rules = [{"match": {"trust": "auto_apply"}, "deny": "not on its own"}, to("a")]
        async with routed(rules, opened.payer, a=ok) as made:
            for budget in (handle, child):
                error = await made.fails(budget=budget, labels={"trust": "review"})
                assert error.message == "rule 0 denies this: not on its own"
            assert (await made.call(labels={"trust": "review"})).provider == "a"


async def test_every_try_is_paid_for_and_their_sum_stays_within_the_budget() -> None:
    async with bank() as opened:
        handle = await opened.open(limits={"requests": 2})
        async with routed([to("a", "b")], opened.payer, a=status(500), b=ok) as made:
            error = await made.fails(budget=handle)
            kinds = ["upstream_unavailable", "upstream_unavailable", "budget_exceeded", "budget_exceeded"]
            assert outcomes(error) == list(zip("aaab", kinds, strict=True))
            assert error.kind == "upstream_unavailable"
            assert made.asked == {"a": 2, "b": 0}
        told = opened.get(handle)
        assert (told.settled.requests, told.uncertain.requests, told.held.requests) == (2, 2, 0)


async def test_a_streams_answer_goes_on_from_where_it_is_when_it_comes_from_a_fallback() -> None:
    async def streamed(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.event(DELTA)
        await exchange.event(LAST)
        await exchange.end_stream()

    async with routed([to("a", "b", retry=0)], a=status(500), b=streamed) as made:
        done = await made.call(stream=True)
        assert (done.text, made.text) == ("one two", "one two")
        assert msgspec.to_builtins(done.route)["attempts"][1]["outcome"] == "ok"
