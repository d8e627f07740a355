"""Breakers, targets that asked to be left alone, averages: decisions with a clock of the test's own."""

from typing import Any

import pytest

from llmd.core.health import FEWEST, LATEST, OPEN_MAX_S, OPEN_S, PROBE_S, WINDOW_S, Health
from llmd.core.outcomes import Answer, Failure

OK = Answer(text="", finish_reason="stop")


def failure(kind: str = "upstream_unavailable", **more: Any) -> Failure:
    return Failure(kind=kind, message="", **more)


def calls(health: Health, now: float, *outcomes: Answer | Failure | None) -> None:
    for outcome in outcomes:
        health.leave(now, outcome, health.enter())


def reason(health: Health, now: float) -> str | None:
    trouble = health.trouble(now)
    return None if trouble is None else trouble.reason


def opened() -> Health:
    health = Health()
    calls(health, 0, *[failure()] * FEWEST)
    return health


def test_a_few_failures_open_nothing() -> None:
    health = Health()
    calls(health, 0, *[failure()] * (FEWEST - 1))
    assert health.trouble(0) is None


def test_a_share_of_failures_opens_the_breaker_for_a_while_and_says_what_it_was() -> None:
    health = Health()
    calls(health, 0, OK, OK, OK, failure(), failure())
    assert health.trouble(0) is None
    calls(health, 1, failure())
    assert health.trouble(1) == ("breaker_open", 1 + OPEN_S, "upstream_unavailable")
    assert health.trouble(1 + OPEN_S) is None


def test_failures_of_long_ago_do_not_count_nor_those_before_the_latest_calls() -> None:
    health = Health()
    calls(health, 0, *[failure()] * (FEWEST - 1))
    calls(health, WINDOW_S + 1, failure())
    assert health.trouble(WINDOW_S + 1) is None
    busy = Health()
    calls(busy, 0, *[OK] * LATEST, *[failure()] * (LATEST // 2 - 1))
    assert busy.trouble(0) is None
    calls(busy, 0, failure())
    assert reason(busy, 0) == "breaker_open"


@pytest.mark.parametrize(
    "outcome",
    [
        failure("upstream_auth"),
        failure("upstream_rate_limited", retryable=False),
    ],
    ids=["key refused", "quota used up"],
)
def test_what_every_next_call_would_meet_opens_it_at_once(outcome: Failure) -> None:
    health = Health()
    calls(health, 0, OK, OK, OK, outcome)
    assert reason(health, 0) == "breaker_open"


@pytest.mark.parametrize(
    "outcome",
    [
        failure("upstream_rate_limited"),
        failure("context_too_long", http_status=400),
        failure("content_filtered", http_status=400),
        failure("model_not_found", http_status=404),
        failure("upstream_invalid", http_status=400),
        None,
    ],
    ids=str,
)
def test_what_is_the_requests_own_fault_or_was_cut_short_opens_nothing(outcome: Failure | None) -> None:
    health = Health()
    calls(health, 0, *[outcome] * 50)
    assert health.trouble(0) is None


def test_garbage_is_the_providers_fault() -> None:
    health = Health()
    calls(health, 0, *[failure("upstream_invalid", http_status=200)] * FEWEST)
    assert reason(health, 0) == "breaker_open"


def test_one_probe_at_a_time_finds_out_and_closes_it() -> None:
    health = opened()
    assert health.trouble(OPEN_S) is None
    probe = health.enter()
    assert probe
    assert health.trouble(OPEN_S) == ("breaker_open", OPEN_S + PROBE_S, "upstream_unavailable")
    health.leave(OPEN_S, OK, probe)
    assert health.trouble(OPEN_S) is None
    assert not health.enter()
    calls(health, OPEN_S, *[failure()] * (FEWEST - 1))
    assert health.trouble(OPEN_S) is None


def test_a_probe_that_fails_opens_it_for_longer_each_time_up_to_a_limit() -> None:
    health, now, lasted = opened(), 0.0, []
    for _ in range(6):
        trouble = health.trouble(now)
        assert trouble is not None
        lasted.append(trouble.until - now)
        now = trouble.until
        calls(health, now, failure())
    assert lasted == [OPEN_S, 2 * OPEN_S, 4 * OPEN_S, OPEN_MAX_S, OPEN_MAX_S, OPEN_MAX_S]


def test_a_probe_that_is_cut_short_leaves_its_place_to_the_next() -> None:
    health = opened()
    health.leave(OPEN_S, None, health.enter())
    assert health.trouble(OPEN_S) is None


def test_calls_that_were_sent_before_it_opened_neither_close_it_nor_open_it_longer() -> None:
    health = Health()
    before = [health.enter() for _ in range(FEWEST + 2)]
    for probe in before[:FEWEST]:
        health.leave(0, failure(), probe)
    health.leave(0, OK, before[-2])
    health.leave(0, failure("upstream_auth"), before[-1])
    assert health.trouble(0) == ("breaker_open", OPEN_S, "upstream_unavailable")


def test_who_asks_to_be_left_alone_is_until_then() -> None:
    health = Health()
    calls(health, 10, failure("upstream_rate_limited", retry_after_s=7), failure(retry_after_s=3))
    assert health.trouble(16.9) == ("rate_limited", 17, "")
    assert health.trouble(17) is None


def test_averages_decay() -> None:
    health = Health()
    assert (health.total_s, health.first_token_s) == (None, None)
    health.took(1.0, None)
    health.took(2.0, 0.5)
    assert (health.total_s, health.first_token_s) == (1.2, 0.5)
