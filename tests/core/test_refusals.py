"""Why a budget refuses: finally or for now, which budget and unit, what would fit, and when to ask again."""

from typing import Any

import pytest

from llmd.books import Unit
from llmd.core.amounts import UNLIMITED, pack
from llmd.core.budget import Terms
from llmd.core.holds import Call, Hold
from llmd.core.refusals import Limiting, Refusal, check_guarantee
from llmd.errors import LLMError
from tests.support.trees import DAY_MS, HOUR_MS, Trees, limits


def told(refusal: Refusal) -> tuple[bool, str, int, int, int]:
    return refusal.contended, refusal.limiting.id, refusal.requested, refusal.available, refusal.max_fit


# -- finally, or for now --------------------------------------------------------------------------------------------


def test_what_settled_spend_leaves_too_little_for_is_refused_for_good() -> None:
    trees = Trees()
    trees.open("root", limit=100)
    trees.open("leaf", "root", limit=50)
    trees.charge("leaf", 20)
    assert told(trees.refused("leaf", 31)) == (False, "leaf", 31, 30, 30)
    trees.charge("root", 60)
    assert told(trees.refused("leaf", 30)) == (False, "root", 30, 20, 20)


def test_where_only_holds_stand_in_the_way_it_is_refused_for_now() -> None:
    trees = Trees()
    trees.open("root", limit=100)
    trees.open("leaf", "root", limit=50)
    trees.charge("root", 10)
    hold = trees.hold("root", 60)
    refusal = trees.refused("leaf", 40)
    assert told(refusal) == (True, "root", 40, 30, 50)
    assert (refusal.budget, refusal.at, refusal.retry_after_ms) == ("leaf", trees["root"].life, 100)
    trees.ledger.void(trees.now, hold)
    assert trees.hold("leaf", 40)


def test_with_holds_in_the_way_and_too_little_beyond_them_it_is_refused_for_good() -> None:
    trees = Trees()
    trees.open("root", limit=100)
    trees.charge("root", 70)
    trees.hold("root", 20)
    assert told(trees.refused("root", 30)) == (True, "root", 30, 10, 30)
    assert told(trees.refused("root", 31)) == (False, "root", 31, 10, 30)


def test_a_hold_below_an_unspent_guarantee_would_not_come_back_to_its_siblings() -> None:
    trees = Trees()
    trees.open("root", limit=100)
    trees.open("paid", "root", guarantee=60)
    trees.open("sibling", "root")
    trees.hold("paid", 60)
    assert told(trees.refused("sibling", 41)) == (False, "root", 41, 40, 40)
    trees.hold("paid", 10)
    assert told(trees.refused("sibling", 40)) == (True, "root", 40, 30, 40)


def test_the_limiting_one_has_the_least_left_of_those_that_decided() -> None:
    trees = Trees()
    trees.open("root", limit=100)
    trees.open("leaf", "root", limit=90)
    trees.charge("leaf", 60)
    trees.hold("root", 39)
    # The root has 1 left, for now; the leaf has 30, for good, and so it is the leaf that decides.
    assert told(trees.refused("leaf", 31)) == (False, "leaf", 31, 1, 30)
    assert told(trees.refused("leaf", 30)) == (True, "root", 30, 1, 30)


def test_of_two_that_refuse_for_good_the_limiting_one_has_the_least_left_without_holds() -> None:
    trees = Trees()
    trees.open("root", limit=100)
    trees.open("leaf", "root", limit=90)
    trees.charge("leaf", 60)
    trees.charge("root", 5)
    trees.hold("root", 10)
    # The leaf has 30 left. The root has 25, but 35 when its hold comes back.
    assert told(trees.refused("leaf", 36)) == (False, "leaf", 36, 25, 30)
    assert told(trees.refused("leaf", 26)) == (True, "root", 26, 25, 30)


def test_the_limiting_unit_is_one_that_refuses() -> None:
    trees = Trees()
    given: dict[Unit, int] = {"total_tokens": 100, "requests": 1, "nano_usd": 1000}
    trees.open("root")
    trees.ledger.set_terms(trees.now, trees["root"], Terms(limits=given))
    asked = pack({"total_tokens": 1, "requests": 2, "nano_usd": 5000})
    refusal = trees.ledger.reserve(trees.now, trees["root"], asked, Call())
    assert isinstance(refusal, Refusal)
    assert refusal.limiting == Limiting("root", "requests")
    assert (refusal.requested, refusal.available, refusal.max_fit) == (2, 1, 1)


def test_what_a_guarantee_leaves_counts_as_available() -> None:
    trees = Trees()
    trees.open("root", limit=100)
    trees.open("leaf", "root", guarantee=30)
    trees.charge("leaf", 10)
    trees.charge("root", 60)
    assert told(trees.refused("leaf", 31)) == (False, "root", 31, 30, 30)
    assert trees.hold("leaf", 30)


# -- windows --------------------------------------------------------------------------------------------------------


def test_a_window_that_is_used_up_says_when_it_ends() -> None:
    trees = Trees()
    trees.open("daily", limit=50, window="day")
    trees.open("leaf", "daily")
    trees.charge("leaf", 40)
    assert trees.refused("leaf", 11).retry_after_ms == 12 * HOUR_MS
    trees.later(3600)
    assert trees.refused("leaf", 50).retry_after_ms == 11 * HOUR_MS


def test_what_no_window_could_take_is_not_to_be_tried_again() -> None:
    trees = Trees()
    trees.open("daily", limit=50, window="day")
    assert trees.refused("daily", 51).retry_after_ms is None


def test_the_last_of_the_windows_that_are_used_up_counts() -> None:
    trees = Trees()
    trees.open("daily", limit=50, window="day")
    trees.open("hourly", "daily", limit=45, window="hour")
    trees.charge("hourly", 45)
    assert trees.refused("hourly", 5).retry_after_ms == HOUR_MS
    assert trees.refused("hourly", 6).retry_after_ms == 12 * HOUR_MS


def test_a_window_says_nothing_where_something_else_refuses_for_good() -> None:
    trees = Trees()
    trees.open("root", limit=60)
    trees.open("daily", "root", limit=50, window="day")
    trees.charge("daily", 45)
    refusal = trees.refused("daily", 20)
    assert (refusal.limiting.id, refusal.retry_after_ms) == ("daily", None)
    assert trees.refused("daily", 10).retry_after_ms == 12 * HOUR_MS


def test_a_window_that_is_held_up_is_worth_trying_again_soon() -> None:
    trees = Trees()
    trees.open("daily", limit=50, window="day")
    trees.hold("daily", 40)
    refusal = trees.refused("daily", 20)
    assert (refusal.contended, refusal.retry_after_ms) == (True, 100)


def test_a_clock_that_runs_behind_the_window_never_says_a_time_that_has_passed() -> None:
    trees = Trees()
    trees.open("daily", limit=50, window="day")
    trees.charge("daily", 50)
    trees["daily"].horizon_ms = trees.now.wall_ms
    trees.later(0, trees.now.wall_ms - 5 * DAY_MS)
    assert trees.refused("daily", 1).retry_after_ms == 5 * DAY_MS + 12 * HOUR_MS


# -- as errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contended", "kind", "why"),
    [
        (False, "budget_exceeded", "and no more will come back"),
        (True, "budget_contended", "for now: calls in flight hold the rest"),
    ],
)
def test_a_refusal_is_an_error_that_says_how_much_would_fit(contended: bool, kind: str, why: str) -> None:
    trees = Trees()
    trees.open("root", limit=100)
    if contended:
        trees.hold("root", 80)
    else:
        trees.charge("root", 80)
    error = trees.refused("root", 30).error()
    assert (error.kind, error.retryable) == (kind, contended)
    assert error.message == f"root has too few total_tokens left: 30 asked for, 20 available {why}"
    assert error.data == {
        "budget": "root",
        "limiting": Limiting("root", "total_tokens"),
        "requested": 30,
        "available": 20,
        "max_fit": 100 if contended else 20,
        **({"retry_after_ms": 100} if contended else {}),
    }


# -- terms that cannot be -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "windowed_parent", "path"),
    [
        ({"limits": limits(5), "guarantee": limits(5)}, False, None),
        ({"guarantee": limits(5)}, False, None),
        ({"limits": limits(5), "guarantee": limits(6)}, False, "guarantee.total_tokens"),
        ({"limits": {"requests": 1}, "guarantee": {"nano_usd": 9, "requests": 2}}, False, "guarantee.requests"),
        ({"guarantee": limits(1), "window": "day"}, False, "guarantee"),
        ({"guarantee": limits(1)}, True, "guarantee"),
        ({"guarantee": limits(0), "window": "day"}, False, None),
        ({"guarantee": limits(0)}, True, None),
    ],
)
def test_a_guarantee_is_at_most_the_limit_and_has_no_window_over_it(
    terms: dict[str, Any], windowed_parent: bool, path: str | None
) -> None:
    trees = Trees()
    trees.open("root", window="month" if windowed_parent else None)
    trees.open("middle", "root")
    budget = trees.budget("b", "middle")
    given = Terms(**terms)
    if path is None:
        check_guarantee(budget, given)
    else:
        with pytest.raises(LLMError) as refused:
            check_guarantee(budget, given)
        assert (refused.value.kind, refused.value.data) == ("invalid_params", {"path": path})


def test_an_unlimited_budget_refuses_only_what_no_reader_could_count() -> None:
    trees = Trees()
    trees.open("root")
    assert isinstance(trees.ledger.reserve(trees.now, trees["root"], UNLIMITED, Call()), Hold)
    assert trees.refused("root", 1).contended
