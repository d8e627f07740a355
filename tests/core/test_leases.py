"""Leases and connections: which budgets end by themselves, and when."""

import pytest

from llmd.core import leases
from llmd.core.leases import GRACE_S, Leases
from tests.support.trees import Trees


class Watched:
    """A root without a lease, a middle with one of 60 s, and a leaf with one of 10 s."""

    def __init__(self) -> None:
        self.trees = Trees()
        self.leases = Leases()
        self.open("root")
        self.open("middle", "root", lease_s=60)
        self.open("leaf", "middle", lease_s=10)

    def open(
        self, name: str, parent: str | None = None, *, connection: bool = False, lease_s: int | None = None
    ) -> None:
        self.trees.open(name, parent, lease_s=lease_s)
        self.trees[name].connection = connection
        self.leases.begin(self.trees[name])

    def due(self, seconds: float) -> list[str]:
        """What has ended so much later; they are closed."""
        self.trees.later(seconds)
        found = [budget.id for budget in self.leases.due(self.trees.now)]
        for name in found:
            self.trees.close(name)
        return found


def test_a_lease_ends_when_it_has_run_out_and_not_before() -> None:
    watched = Watched()
    assert watched.due(9.9) == []
    assert watched.due(0.2) == ["leaf"]
    assert watched.due(0) == []


def test_a_budget_without_a_lease_lives_on() -> None:
    watched = Watched()
    assert watched.due(10**6) == ["leaf", "middle"]
    assert watched.trees["root"].state == "open"
    assert not watched.leases


def test_a_use_begins_the_lease_again_and_those_of_all_that_is_above() -> None:
    watched = Watched()
    watched.trees.later(8)
    watched.trees.charge("leaf", 1)
    assert watched.due(9.9) == []
    assert watched.due(0.2) == ["leaf"]
    assert watched.due(49.8) == []
    assert watched.due(0.2) == ["middle"]


def test_a_use_above_is_none_of_what_is_below() -> None:
    watched = Watched()
    watched.trees.later(8)
    watched.trees.charge("middle", 1)
    assert watched.due(2) == ["leaf"]


def test_while_something_is_held_below_no_lease_ends() -> None:
    watched = Watched()
    hold = watched.trees.hold("leaf", 5)
    assert watched.due(100) == []
    watched.trees.later(3)
    watched.trees.settle(hold, 5)
    assert watched.due(9.9) == []
    assert watched.due(0.2) == ["leaf"]
    assert watched.due(49.8) == []
    assert watched.due(0.2) == ["middle"]


def test_a_refused_hold_is_no_use() -> None:
    watched = Watched()
    watched.trees.resize("leaf", 5, lease_s=10)
    watched.trees.later(8)
    watched.trees.refused("leaf", 6)
    assert watched.due(2) == ["leaf"]


def test_a_longer_lease_is_waited_for_from_the_last_use_on() -> None:
    watched = Watched()
    watched.trees.resize("leaf", None, lease_s=30)
    assert watched.due(29.9) == []
    assert watched.due(0.2) == ["leaf"]


def test_a_lease_that_was_taken_away_ends_nothing() -> None:
    watched = Watched()
    watched.trees.resize("leaf", None)
    assert watched.due(59) == []
    assert watched.trees["leaf"].state == "open"


def test_a_shorter_lease_that_is_watched_from_now_on_ends_sooner() -> None:
    watched = Watched()
    watched.trees.resize("leaf", None, lease_s=5)
    watched.leases.begin(watched.trees["leaf"])
    assert watched.due(5) == ["leaf"]


def test_a_lease_that_is_watched_twice_ends_once() -> None:
    watched = Watched()
    watched.leases.begin(watched.trees["leaf"])
    watched.trees.resize("leaf", None, lease_s=5)
    watched.leases.begin(watched.trees["leaf"])
    assert watched.due(4.9) == []
    watched.trees.charge("leaf", 1)
    assert watched.due(4.9) == []
    assert watched.due(100) == ["leaf", "middle"]


def test_what_was_closed_before_its_time_is_not_kept_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "CROWDED", 10)
    watched = Watched()
    for number in range(200):
        watched.open(str(number), "root", lease_s=60)
        watched.trees.close(str(number))
    assert watched.due(0) == []
    assert len(watched.leases._due) == 2
    assert watched.due(60) == ["leaf", "middle"]


def test_what_has_closed_before_does_not_end_again() -> None:
    watched = Watched()
    watched.trees.close("leaf")
    assert watched.due(10) == []


def test_whatever_is_used_is_used_with_all_that_is_above_it() -> None:
    trees = Trees()
    trees.open("root")
    for name in ("leaf", "other"):
        trees.open(name, "root")
    trees.later(5)
    hold = trees.hold("leaf", 10)
    assert [trees[name].touched for name in ("root", "leaf", "other")] == [5.0, 5.0, 0.0]
    trees.later(5)
    trees.charge("other", 1)
    assert [trees[name].touched for name in ("root", "leaf", "other")] == [10.0, 5.0, 10.0]
    trees.settle(hold, 5)
    assert [trees[name].touched for name in ("root", "leaf", "other")] == [10.0, 10.0, 10.0]
    trees.later(5)
    trees.resize("leaf", 100)
    trees.refused("leaf", 1000)
    assert trees["leaf"].touched == 10.0


# -- connections ----------------------------------------------------------------------------------------------------


def test_a_budget_of_a_connection_has_no_lease() -> None:
    watched = Watched()
    watched.open("tied", connection=True, lease_s=1)
    assert watched.due(9) == []


def test_when_its_connection_has_gone_a_budget_ends_after_the_grace() -> None:
    watched = Watched()
    watched.open("tied", connection=True)
    watched.leases.doom(watched.trees.now, watched.trees["tied"])
    assert watched.due(GRACE_S - 0.1) == []
    assert watched.due(0.1) == ["tied"]


def test_a_grace_that_begins_again_ends_later() -> None:
    watched = Watched()
    watched.open("tied", connection=True)
    watched.leases.doom(watched.trees.now, watched.trees["tied"])
    watched.trees.later(GRACE_S / 2)
    watched.leases.doom(watched.trees.now, watched.trees["tied"])
    assert watched.due(GRACE_S / 2) == []
    assert watched.due(GRACE_S / 2) == ["tied"]


def test_holds_and_use_do_not_save_a_budget_whose_connection_has_gone() -> None:
    watched = Watched()
    watched.open("tied", connection=True)
    watched.leases.doom(watched.trees.now, watched.trees["tied"])
    watched.trees.later(GRACE_S / 2)
    hold = watched.trees.hold("tied", 5)
    assert watched.due(GRACE_S / 2) == ["tied"]
    assert watched.trees["tied"].state == "draining"
    assert watched.trees.ledger.holds == {hold.id: hold}


def test_a_budget_that_was_closed_within_the_grace_does_not_end_again() -> None:
    watched = Watched()
    watched.open("tied", connection=True)
    watched.leases.doom(watched.trees.now, watched.trees["tied"])
    watched.trees.close("tied")
    assert watched.due(GRACE_S) == []


def test_there_is_something_to_watch_while_a_lease_or_a_grace_runs() -> None:
    trees, watched = Trees(), Leases()
    trees.open("a")
    watched.begin(trees["a"])
    assert not watched
    watched.doom(trees.now, trees["a"])
    assert watched
