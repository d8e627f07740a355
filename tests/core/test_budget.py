"""One budget: what its path says of it, and which of its accounts counts when."""

from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo

import pytest

from llmd.books import Allow
from llmd.clock import Now
from llmd.core.accounts import Account
from llmd.core.amounts import GUARDS, UNLIMITED
from llmd.core.budget import WINDOWS_KEPT, Budget, Terms
from llmd.core.windows import Span
from tests.support.trees import DAY_MS, HOUR_MS, NOON, limits, tokens, unlimited

NOW = Now(0.0, NOON)


def budget(parent: Budget | None = None, name: str = "b", zone: tzinfo = UTC, **terms: object) -> Budget:
    return Budget(name, parent, Terms(**terms), None, zone)  # type: ignore[arg-type]  # terms of every type


def test_a_budget_knows_where_it_hangs() -> None:
    root = budget(name="a")
    leaf = budget(budget(root, "b"), "c")
    assert (leaf.depth, leaf.trail) == (3, "a/b/c")
    assert [each.id for each in leaf.lineage()] == ["c", "b", "a"]
    assert leaf.is_within(root)
    assert leaf.is_within(leaf)
    assert not root.is_within(leaf)


def test_a_subtree_has_every_budget_behind_its_parent() -> None:
    root = budget(name="a")
    for name, parent in {"b": root, "c": root}.items():
        parent.children[name] = budget(parent, name)
    root.children["b"].children["d"] = budget(root.children["b"], "d")
    assert [each.id for each in root.subtree()] == ["a", "b", "c", "d"]


# -- what may be spent on -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("above", "below", "forbidden"),
    [
        (None, None, None),
        (Allow(providers=["p"]), None, None),
        (Allow(providers=["q"]), None, "a"),
        (Allow(models=["p/m"]), None, None),
        (Allow(models=["p/n", "q/m"]), None, "a"),
        (None, Allow(providers=[]), "b"),
        (Allow(providers=["p"]), Allow(models=["p/n"]), "b"),
        (Allow(providers=["q"]), Allow(providers=["p"]), "a"),
        (Allow(labels={"team": "x"}), None, None),
    ],
)
def test_a_target_must_be_allowed_by_the_whole_path(
    above: Allow | None, below: Allow | None, forbidden: str | None
) -> None:
    found = budget(budget(name="a", allow=above), "b", allow=below).forbids("p", "m")
    assert (found and found.id) == forbidden


def test_of_fixed_labels_the_uppermost_word_counts() -> None:
    root = budget(allow=Allow(labels={"team": "x", "cost": "1"}))
    leaf = budget(budget(root), allow=Allow(labels={"team": "y", "job": "z"}))
    assert leaf.fixed_labels() == {"team": "x", "cost": "1", "job": "z"}
    assert budget().fixed_labels() == {}


def test_a_budget_that_only_counts_has_no_ceiling() -> None:
    tracking = budget(limits=limits(5), enforcement="track")
    assert tracking.life.ceiling == UNLIMITED | GUARDS
    tracking.apply_terms(Terms(limits=limits(5)))
    assert tracking.life.ceiling == unlimited(5) | GUARDS


# -- accounts -------------------------------------------------------------------------------------------------------


def counted(daily: Budget, days: int) -> list[Account]:
    """The windows of so many days, with something posted in each."""
    accounts: list[Account] = []
    for day in range(days):
        accounts.append(daily.account(Now(0.0, NOON + day * DAY_MS)))
        accounts[-1].posted = True
    return accounts


def test_without_a_window_a_budget_counts_for_life() -> None:
    leaf = budget(budget())
    assert leaf.account(NOW) is leaf.account(Now(0.0, NOON + 400 * DAY_MS)) is leaf.life
    assert leaf.parent is not None
    assert list(leaf.path(NOW)) == [leaf.life, leaf.parent.life]
    assert leaf.above(NOW) == leaf.parent.path(NOW)
    assert leaf.parent.above(NOW) == ()
    assert not leaf.is_windowed


def test_each_window_has_an_account_of_its_own_that_is_found_again() -> None:
    hourly = budget(window="hour", limits=limits(5))
    first = hourly.account(NOW)
    first.posted = True
    assert hourly.account(Now(9.0, NOON + HOUR_MS - 1)) is first
    second = hourly.account(Now(9.0, NOON + HOUR_MS))
    assert second is not first
    assert second.ceiling == first.ceiling == unlimited(5) | GUARDS
    assert hourly.account(NOW) is first
    assert sorted(hourly.windows) == ["2026-11-22T12+0000", "2026-11-22T13+0000"]


def test_below_a_window_a_path_is_another_one_in_each() -> None:
    root = budget()
    daily = budget(root, window="day")
    leaf = budget(daily)
    today, tomorrow = leaf.path(NOW), leaf.path(Now(0.0, NOON + DAY_MS))
    assert [today[0], today[2]] == [tomorrow[0], tomorrow[2]] == [leaf.life, root.life]
    assert [path[1].window and path[1].window.label for path in (today, tomorrow)] == ["2026-11-22", "2026-11-23"]
    assert [each.is_windowed for each in (root, daily, leaf)] == [False, True, True]


def test_windows_are_those_of_the_budgets_zone() -> None:
    there = budget(window="day", zone=ZoneInfo("Pacific/Auckland"))
    assert there.account(NOW).window == ("2026-11-23", NOON - HOUR_MS, NOON + 23 * HOUR_MS)


def test_a_clock_that_jumps_behind_the_horizon_counts_in_the_oldest_window_that_is_kept() -> None:
    daily = budget(window="day")
    daily.horizon_ms = NOON
    assert daily.account(Now(0.0, NOON - 3 * DAY_MS)) is daily.account(NOW)


def test_a_window_in_which_nothing_was_posted_is_not_kept() -> None:
    daily = budget(window="day")
    for day in range(1000):
        daily.account(Now(0.0, NOON + day * DAY_MS))
    assert list(daily.windows.values()) == [daily.account(Now(0.0, NOON + 999 * DAY_MS))]
    # Another one that is made meanwhile leaves no account in use that is not kept.
    daily.window(Span("old", 0, 1)).held = tokens(1)
    assert daily.account(Now(0.0, NOON + 999 * DAY_MS)) in daily.windows.values()


def test_of_too_many_windows_the_latest_are_kept_and_those_with_open_holds() -> None:
    daily = budget(window="day")
    accounts = counted(daily, WINDOWS_KEPT)
    assert daily.outdated_windows() == []
    accounts[0].held = tokens(1)
    accounts += counted(daily, WINDOWS_KEPT + 2)[-2:]
    assert daily.outdated_windows() == [accounts[1]]
    assert list(daily.windows.values()) == [accounts[0], *accounts[2:]]
    assert daily.account(NOW) is accounts[2]
    accounts[0].held = 0
    assert daily.outdated_windows() == [accounts[0]]
    assert daily.outdated_windows() == []


def test_new_terms_limit_every_window() -> None:
    daily = budget(window="day", limits=limits(5))
    accounts = counted(daily, 2)
    daily.apply_terms(Terms(window="day", limits=limits(9)))
    assert [each.ceiling for each in accounts] == [unlimited(9) | GUARDS] * 2


def test_a_hold_in_a_window_that_is_over_is_a_hold() -> None:
    daily = budget(window="day")
    daily.account(NOW).held = tokens(1)
    daily.account(Now(0.0, NOON + DAY_MS))
    assert daily.is_holding
    daily.account(NOW).held = 0
    assert not daily.is_holding
