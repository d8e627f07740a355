"""The end of budgets: draining, closing, being folded into the parent, and being forgotten."""

import pytest

from llmd.core import ledger
from llmd.core.holds import Hold
from tests.support.trees import DAY_MS, HOUR_MS, Trees, refuses, tokens, total


@pytest.fixture
def trees() -> Trees:
    """A root of 100, below it a middle with 60 set aside, below that a leaf with 20 of these."""
    made = Trees()
    made.open("root", limit=100)
    made.open("middle", "root", guarantee=60)
    made.open("leaf", "middle", guarantee=20)
    return made


def states(trees: Trees) -> str:
    return " ".join(budget.state for budget in trees.ledger.budgets.values())


def finished(trees: Trees) -> list[str]:
    """Those that have closed since the last time."""
    found, trees.ledger.finished = trees.ledger.finished, []
    return [budget.id for budget in found]


def kinds(trees: Trees) -> list[tuple[str, str]]:
    return [(entry.budget, entry.kind) for _, entry in trees.ledger.changes._entries]


# -- close ----------------------------------------------------------------------------------------------------------


def test_a_close_gives_back_what_was_set_aside_and_not_used(trees: Trees) -> None:
    trees.charge("leaf", 15)
    trees.charge("middle", 10)
    assert trees.used("root") == 60
    assert trees.close("middle") == []
    assert (states(trees), finished(trees)) == ("open closed closed", ["leaf", "middle"])
    assert (trees.used("root"), trees.left("root")) == (25, 75)


def test_a_close_of_the_inner_one_gives_back_to_the_next_that_has_set_aside(trees: Trees) -> None:
    trees.charge("leaf", 5)
    trees.close("leaf")
    assert (trees.used("middle"), trees.used("root")) == (5, 60)


def test_the_whole_subtree_takes_nothing_more(trees: Trees) -> None:
    trees.hold("leaf", 10)
    trees.close("middle")
    for name in ("middle", "leaf"):
        for act in (
            lambda name=name: trees.hold(name, 1),
            lambda name=name: trees.charge(name, 1, force=True),
            lambda name=name: trees.open("new", name),
            lambda name=name: trees.resize(name, 5),
        ):
            with refuses("budget_closed") as refused:
                act()
            assert refused.value.data == {"budget": name}
    assert trees.hold("root", 1)


def test_what_was_not_dispatched_is_void_and_the_rest_is_waited_for(trees: Trees) -> None:
    waiting, sent = trees.hold("leaf", 10, dispatched=False), trees.hold("middle", 20)
    other = trees.hold("root", 5, dispatched=False)
    assert trees.close("middle") == [waiting, sent]
    assert list(trees.ledger.holds.values()) == [sent, other]
    assert (states(trees), finished(trees)) == ("open draining closed", ["leaf"])
    trees.settle(sent, 12)
    assert (states(trees), finished(trees)) == ("open closed closed", ["middle"])
    assert trees.used("root") == 5 + 12


def test_a_budget_closes_when_the_last_hold_below_it_has_resolved(trees: Trees) -> None:
    first, second = trees.hold("leaf", 10), trees.hold("leaf", 10)
    trees.close("middle")
    trees.ledger.void(trees.now, first)
    assert finished(trees) == []
    trees.later(9)
    trees.settle(second, 10, uncertain=True)
    assert finished(trees) == ["leaf", "middle"]
    assert trees["middle"].closed_ms == trees.now.wall_ms


def test_an_overrun_while_draining_is_drawn_from_the_parent(trees: Trees) -> None:
    hold = trees.hold("leaf", 10)
    trees.close("middle")
    assert trees.used("root") == 10
    trees.settle(hold, 70)
    assert (trees.used("root"), trees.told("root").overrun.total_tokens) == (70, 60)


def test_closing_again_joins_and_gives_nothing_back_twice(trees: Trees) -> None:
    hold = trees.hold("leaf", 10)
    assert trees.close("middle") == [hold]
    before = kinds(trees)
    assert trees.close("middle") == [hold]
    assert trees.close("leaf") == [hold]
    assert trees.close("root") == [hold]
    assert kinds(trees) == [*before, ("root", "drain")]
    assert trees.used("root") == 10
    trees.settle(hold, 4)
    assert trees.close("middle") == []
    assert (finished(trees), trees.used("root")) == (["leaf", "middle", "root"], 4)


def test_a_close_around_one_that_has_closed_leaves_that_one_as_it_is(trees: Trees) -> None:
    trees.close("leaf")
    trees.close("root")
    assert finished(trees) == ["leaf", "middle", "root"]
    assert kinds(trees).count(("leaf", "close")) == 1


def test_a_hold_in_a_window_that_is_over_keeps_a_draining_budget(trees: Trees) -> None:
    trees.open("daily", "root", window="day")
    hold = trees.hold("daily", 10)
    trees.later(24 * 3600)
    trees.close("daily")
    assert states(trees).endswith("draining")
    trees.settle(hold, 1)
    assert states(trees).endswith("closed")


# -- fold -----------------------------------------------------------------------------------------------------------


def fold(trees: Trees, *names: str) -> None:
    for name in names:
        trees.ledger.fold(trees[name])


def test_what_a_folded_budget_has_posted_is_its_parents_own(trees: Trees) -> None:
    trees.settle(trees.hold("leaf", 10), 13)
    trees.charge("middle", 4)
    trees.close("middle")
    fold(trees, "leaf", "middle")
    assert (list(trees.ledger.budgets), list(trees.ledger.handles)) == (["root"], ["handle of root"])
    root = trees["root"]
    assert (total(root.own_settled), total(root.own_overrun), root.children) == (17, 3, {})
    assert trees.told("root").settled.total_tokens == trees.used("root") == 17


def test_only_what_has_closed_and_has_nothing_below_it_is_folded(trees: Trees) -> None:
    fold(trees, "leaf")
    trees.hold("middle", 5)
    trees.close("middle")
    fold(trees, "middle")
    assert "middle" in trees.ledger.budgets
    assert "leaf" in trees.ledger.budgets
    fold(trees, "leaf", "middle")
    assert trees.ledger.budgets.keys() == {"root", "middle"}


def test_a_closed_parent_is_not_folded_before_its_children(trees: Trees) -> None:
    trees.close("root")
    fold(trees, "root", "middle", "leaf")
    assert trees.ledger.budgets.keys() == {"root", "middle"}
    fold(trees, "middle", "root")
    assert trees.ledger.budgets == {}


def test_a_budget_with_a_bound_that_may_be_reconciled_is_not_folded_until_it_is(trees: Trees) -> None:
    hold = trees.hold("leaf", 10)
    trees.close("leaf")
    trees.ledger.expire(trees.now, hold)
    fold(trees, "leaf")
    assert "leaf" in trees.ledger.budgets
    trees.ledger.reconcile(trees.now, hold, tokens(3))
    assert (trees.used("root"), trees.told("middle").settled.total_tokens) == (60, 3)
    fold(trees, "leaf")
    assert "leaf" not in trees.ledger.budgets


# -- forget ---------------------------------------------------------------------------------------------------------


def test_the_handle_of_a_folded_budget_is_known_as_closed_for_a_day(trees: Trees) -> None:
    trees.close("leaf")
    closed_ms = trees.now.wall_ms
    fold(trees, "leaf")
    trees.later(24 * 3600)
    trees.ledger.forget(trees.now)
    assert trees.ledger.gone == {"handle of leaf": closed_ms}
    trees.later(0.001)
    trees.ledger.forget(trees.now)
    assert trees.ledger.gone == {}


def bound(trees: Trees) -> Hold:
    """A call below the leaf whose cost nobody has said."""
    hold = trees.hold("leaf", 10)
    trees.ledger.expire(trees.now, hold)
    return hold


def test_a_bound_that_nobody_has_reconciled_for_a_day_stays_as_it_is(trees: Trees) -> None:
    hold = bound(trees)
    trees.later(24 * 3600)
    trees.ledger.forget(trees.now)
    assert list(trees.ledger.uncertain.values()) == [hold]
    trees.later(0.001)
    trees.ledger.forget(trees.now)
    assert trees.ledger.uncertain == {}
    with pytest.raises(ValueError, match="not uncertain"):
        trees.ledger.reconcile(trees.now, hold, tokens(1))
    assert trees.told("root").uncertain.total_tokens == 10


def test_a_budget_that_closed_a_day_ago_is_folded_with_its_bounds(trees: Trees) -> None:
    bound(trees)
    trees.close("leaf")
    fold(trees, "leaf")
    trees.later(24 * 3600 + 1)
    trees.ledger.forget(trees.now)
    assert trees.ledger.budgets.keys() == {"root", "middle"}
    assert total(trees["middle"].own_uncertain) == trees.told("root").uncertain.total_tokens == 10


def test_a_clock_that_was_ahead_keeps_no_bound_of_a_budget_that_is_folded(trees: Trees) -> None:
    trees.later(0, trees.now.wall_ms + 9 * HOUR_MS)
    hold = bound(trees)
    trees.later(0, trees.now.wall_ms - 9 * HOUR_MS)
    trees.close("leaf")
    trees.later(1, trees.now.wall_ms + DAY_MS + 1)
    trees.ledger.forget(trees.now)
    assert "leaf" not in trees.ledger.budgets
    assert trees.ledger.uncertain == {}
    with pytest.raises(ValueError, match="not uncertain"):
        trees.ledger.reconcile(trees.now, hold, tokens(1))
    trees.write()
    assert trees.restarted().told("root").settled.total_tokens == 10


def test_more_handles_and_bounds_than_are_kept_are_forgotten_from_the_oldest_on(
    trees: Trees, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "GONE_MAX", 2)
    monkeypatch.setattr(ledger, "UNCERTAIN_MAX", 2)
    for name in "abc":
        trees.open(name, "root")
        trees.close(name)
        fold(trees, name)
    bounds = [bound(trees) for _ in range(3)]
    trees.ledger.forget(trees.now)
    assert list(trees.ledger.gone) == ["handle of b", "handle of c"]
    assert list(trees.ledger.uncertain.values()) == bounds[1:]


# -- reopen ---------------------------------------------------------------------------------------------------------


def test_a_root_that_is_wanted_again_takes_calls_and_what_closed_below_it_stays_closed(trees: Trees) -> None:
    trees.hold("root", 5)
    for _ in range(2):
        trees.close("root")
        trees.ledger.reopen(trees["root"])
        for hold in list(trees.ledger.holds.values()):
            trees.settle(hold, 5)
        assert states(trees) == "open closed closed"
        assert trees["root"].closed_ms is None
    assert trees.hold("root", 95)
    trees.write()
    assert trees.restarted()["root"].state == "open"
