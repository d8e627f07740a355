"""Budgets with windows: where a hold or a charge counts, and which windows are kept."""

import pytest

from llmd.core.budget import WINDOWS_KEPT
from tests.support.trees import Trees, tokens


@pytest.fixture
def trees() -> Trees:
    made = Trees()
    made.open("root", limit=100)
    return made


def sums(trees: Trees, name: str) -> tuple[int, int, int]:
    """Held, settled and uncertain."""
    told = trees.told(name)
    return told.held.total_tokens, told.settled.total_tokens, told.uncertain.total_tokens


def test_a_hold_counts_in_the_window_it_was_taken_in_whenever_it_resolves(trees: Trees) -> None:
    trees.open("daily", "root", limit=50, window="day")
    hold = trees.hold("daily", 40)
    trees.later(24 * 3600)
    assert (sums(trees, "daily"), trees.left("daily")) == ((0, 0, 0), 50)
    trees.settle(hold, 30, uncertain=True)
    assert sums(trees, "daily") == (0, 0, 0)
    assert sums(trees, "root") == (0, 30, 30)
    trees.ledger.reconcile(trees.now, hold, tokens(20))
    trees.later(0, trees.now.wall_ms - 24 * 3_600_000)
    assert (sums(trees, "daily"), trees.left("daily")) == ((0, 20, 0), 30)


def test_a_window_begins_empty_and_the_budgets_below_it_count_for_life(trees: Trees) -> None:
    trees.open("daily", "root", limit=50, window="day")
    trees.open("task", "daily", limit=70)
    trees.charge("task", 50)
    assert trees.refused("task", 1).limiting.id == "daily"
    trees.later(24 * 3600)
    assert trees.hold("task", 20)
    assert trees.refused("task", 21).limiting.id == "task"


def test_a_charge_that_is_undone_when_its_windowed_budget_was_folded_writes_no_row_of_it(trees: Trees) -> None:
    trees.open("daily", "root", limit=50, window="day")
    path = trees["daily"].path(trees.now)
    trees.charge("daily", 40)
    daily = trees["daily"]
    trees.close("daily")
    trees.ledger.fold(daily)
    trees.write()
    trees.ledger.undo(trees.now, path, tokens(40))
    assert sums(trees, "root") == (0, 0, 0)
    trees.write()
    assert sorted(trees.rows) == ["b/root", "g/handle of daily"]
    assert sums(trees.restarted(), "root") == (0, 0, 0)


def test_a_window_in_which_nothing_is_left_is_forgotten_with_its_budget(trees: Trees) -> None:
    trees.open("daily", "root", limit=50, window="day")
    hold = trees.hold("daily", 10)
    trees.settle(hold, 10, uncertain=True)
    trees.ledger.reconcile(trees.now, hold, 0)
    trees.write()
    trees.later(24 * 3600)
    trees.charge("daily", 1)
    daily = trees["daily"]
    trees.close("daily")
    trees.ledger.fold(daily)
    trees.write()
    assert sorted(trees.rows) == ["b/root", "g/handle of daily"]


def test_only_so_many_windows_are_kept_and_a_late_truth_brings_none_back(trees: Trees) -> None:
    trees.open("hourly", "root", limit=50, window="hour")
    late = trees.hold("hourly", 10)
    trees.settle(late, 10, uncertain=True)
    began = trees.now
    for _ in range(WINDOWS_KEPT):
        trees.later(3600)
        assert trees.charge("hourly", 20, force=True) is None
    trees.write()
    windows = [key for key in trees.rows if key.startswith("w/")]
    assert len(windows) == len(trees["hourly"].windows) == WINDOWS_KEPT
    trees.ledger.reconcile(trees.now, late, tokens(4))
    assert not [key for key in trees.write() if key.startswith("w/")]
    assert sums(trees, "root") == (0, WINDOWS_KEPT * 20 + 4, 0)
    # A clock that is set back behind them counts in the oldest one, also after a restart.
    for ledger in (trees, trees.restarted()):
        ledger.now = began
        assert ledger.used("hourly") == 20
