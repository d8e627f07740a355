"""Budgets that get other limits, another guarantee, other terms: how far up, how far down, and who pays."""

import pytest

from llmd.core.budget import Terms
from tests.support.trees import Trees, refuses


@pytest.fixture
def trees() -> Trees:
    """A root of 100, and a leaf below it."""
    made = Trees()
    made.open("root", limit=100)
    made.open("leaf", "root")
    return made


def test_a_limit_may_be_lowered_to_what_is_used_and_no_further(trees: Trees) -> None:
    trees.charge("leaf", 30)
    hold = trees.hold("leaf", 20)
    for limit in (49, 30):
        with refuses("budget_busy"):
            trees.resize("root", limit)
    with refuses("budget_exceeded") as refused:
        trees.resize("root", 29)
    assert refused.value.data["limiting"].unit == "total_tokens"
    assert trees["root"].terms.limits == {"total_tokens": 100}
    assert trees.resize("root", 50) is None
    assert trees.refused("leaf", 1)
    trees.ledger.void(trees.now, hold)
    assert trees.resize("root", 30) is None


def test_a_limit_cannot_be_lowered_below_what_children_are_guaranteed(trees: Trees) -> None:
    trees.open("paid", "root", guarantee=60)
    with refuses("budget_exceeded"):
        trees.resize("root", 59)
    assert trees.resize("root", 60) is None


def test_a_limit_above_which_more_was_spent_may_be_raised_or_stay(trees: Trees) -> None:
    trees.charge("root", 150, force=True)
    assert trees.resize("root", 100) is None
    assert trees.resize("root", 120) is None
    with refuses("budget_exceeded"):
        trees.resize("root", 119)
    assert trees.resize("root", None) is None
    assert trees.hold("leaf", 1000)


def test_a_larger_guarantee_is_taken_from_the_parent_and_a_smaller_one_comes_back(trees: Trees) -> None:
    trees.open("paid", "root", guarantee=30)
    trees.charge("paid", 10)
    assert trees.resize("paid", None, guarantee=100) is None
    assert trees.used("root") == 100
    refusal = trees.resize("paid", None, guarantee=101)
    assert refusal is not None
    assert (refusal.budget, refusal.requested, trees["paid"].terms.guarantee) == ("root", 1, {"total_tokens": 100})
    assert trees.resize("paid", None, guarantee=0) is None
    assert trees.used("root") == 10


def test_a_guarantee_covers_what_was_drawn_already(trees: Trees) -> None:
    trees.charge("leaf", 40)
    trees.charge("root", 50)
    assert trees.resize("leaf", None, guarantee=50) is None
    assert trees.used("root") == 100
    assert trees.left("leaf") == 10


def test_a_guarantee_cannot_be_raised_above_its_limit_nor_below_a_window(trees: Trees) -> None:
    with refuses("invalid_params"):
        trees.resize("leaf", 5, guarantee=6)
    trees.open("daily", window="day")
    trees.open("below", "daily")
    with refuses("invalid_params"):
        trees.resize("below", None, guarantee=1)


def test_terms_that_only_count_let_everything_through(trees: Trees) -> None:
    trees.ledger.set_terms(trees.now, trees["root"], Terms(limits={"total_tokens": 100}, enforcement="track"))
    assert trees.hold("leaf", 1000)
