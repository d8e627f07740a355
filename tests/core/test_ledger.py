"""The tree of budgets: what opening, holding, settling and charging do to its numbers, one behaviour at a time."""

import pytest

from llmd.core.amounts import pack
from llmd.core.holds import Call, Hold
from llmd.core.ledger import DEPTH_MAX, Passed
from llmd.core.refusals import Refusal
from tests.support.trees import Trees, refuses, tokens, total


@pytest.fixture
def trees() -> Trees:
    """A root of 100, and a leaf below it."""
    made = Trees()
    made.open("root", limit=100)
    made.open("leaf", "root")
    return made


def sums(trees: Trees, name: str) -> tuple[int, int, int, int]:
    """Held, settled, uncertain and overrun."""
    told = trees.told(name)
    return tuple(part.total_tokens for part in (told.held, told.settled, told.uncertain, told.overrun))  # type: ignore[return-value]  # four


# -- open -----------------------------------------------------------------------------------------------------------


def test_a_guarantee_is_taken_from_the_parent_when_the_budget_opens(trees: Trees) -> None:
    trees.open("paid", "root", limit=60, guarantee=60)
    assert (trees.used("root"), trees.left("root"), trees.left("paid")) == (60, 40, 60)
    assert trees.try_open("more", "root", guarantee=41) == Refusal(
        False, "root", trees["root"].life, trees.refused("root", 41).limiting, 41, 40, 40
    )
    assert "more" not in trees.ledger.budgets
    assert trees.used("root") == 60


def test_siblings_without_guarantees_may_be_promised_more_than_there_is(trees: Trees) -> None:
    for name in "abc":
        trees.open(name, "root", limit=100)
    assert trees.used("root") == 0
    trees.charge("a", 90)
    assert trees.left("b") == 10


def test_a_guarantee_that_only_holds_stand_in_the_way_of_is_contended(trees: Trees) -> None:
    trees.hold("leaf", 50)
    refusal = trees.try_open("paid", "root", guarantee=60)
    assert refusal is not None
    assert refusal.contended


def test_budgets_are_nested_so_deep_and_no_deeper() -> None:
    trees = Trees()
    trees.open("1")
    for depth in range(2, DEPTH_MAX + 1):
        trees.open(str(depth), str(depth - 1))
    assert trees.hold(str(DEPTH_MAX), 5)
    assert trees.used("1") == 5
    with refuses("invalid_params") as refused:
        trees.open("deeper", str(DEPTH_MAX))
    assert refused.value.data == {"path": "parent"}


def test_there_are_so_many_budgets_and_no_more() -> None:
    trees = Trees(budgets_max=2)
    trees.open("a")
    trees.open("b", "a")
    with refuses("busy"):
        trees.open("c")
    trees.close("b")
    trees.ledger.fold(trees["b"])
    trees.open("c")


@pytest.mark.parametrize("terms", [{"limit": 5, "guarantee": 6}, {"guarantee": 1, "window": "day"}])
def test_a_guarantee_that_cannot_be_kept_opens_nothing(trees: Trees, terms: dict[str, int]) -> None:
    with refuses("invalid_params"):
        trees.try_open("b", "root", **terms)
    assert "b" not in trees.ledger.budgets
    assert trees["root"].children.keys() == {"leaf"}


def test_a_handle_finds_its_budget(trees: Trees) -> None:
    assert trees.ledger.handles == {"handle of root": trees["root"], "handle of leaf": trees["leaf"]}


# -- reserve, dispatch, settle, void --------------------------------------------------------------------------------


def test_a_hold_is_on_the_whole_path_and_its_settlement_takes_its_place(trees: Trees) -> None:
    hold = trees.hold("leaf", 60)
    assert [sums(trees, name) for name in ("leaf", "root")] == [(60, 0, 0, 0)] * 2
    trees.settle(hold, 45)
    assert [sums(trees, name) for name in ("leaf", "root")] == [(0, 45, 0, 0)] * 2
    assert trees.left("leaf") == 55


def test_a_refused_hold_is_nowhere(trees: Trees) -> None:
    trees.charge("root", 50)
    trees.write()
    trees.refused("leaf", 51)
    assert sums(trees, "leaf") == (0, 0, 0, 0)
    assert trees.ledger.holds == {}
    assert not trees.ledger.changes


def test_a_void_hold_has_cost_nothing(trees: Trees) -> None:
    hold = trees.hold("leaf", 60)
    trees.ledger.void(trees.now, hold)
    assert sums(trees, "root") == (0, 0, 0, 0)
    assert trees.left("root") == 100


@pytest.mark.parametrize("first", ["settle", "void", "expire"])
@pytest.mark.parametrize("second", ["settle", "void", "expire", "dispatch"])
def test_a_hold_resolves_once(trees: Trees, first: str, second: str) -> None:
    hold = trees.hold("leaf", 60)
    act = {
        "settle": lambda: trees.settle(hold, 10),
        "void": lambda: trees.ledger.void(trees.now, hold),
        "expire": lambda: trees.ledger.expire(trees.now, hold),
        "dispatch": lambda: trees.ledger.dispatch(hold),
    }
    act[first]()
    before = sums(trees, "root")
    with pytest.raises(ValueError, match="hold 1 has resolved"):
        act[second]()
    assert sums(trees, "root") == before


def test_an_expired_hold_is_void_if_it_was_not_dispatched_and_else_posted_whole(trees: Trees) -> None:
    waiting, sent = trees.hold("leaf", 20, dispatched=False), trees.hold("leaf", 30)
    trees.ledger.expire(trees.now, waiting)
    trees.ledger.expire(trees.now, sent)
    assert sums(trees, "root") == (0, 30, 30, 0)
    assert list(trees.ledger.uncertain) == [sent.id]


def test_every_unit_is_held_and_posted(trees: Trees) -> None:
    amounts = pack({"total_tokens": 9, "input_tokens": 5, "output_tokens": 4, "requests": 1, "nano_usd": 70})
    hold = trees.ledger.reserve(trees.now, trees["leaf"], amounts, Call())
    assert isinstance(hold, Hold)
    assert trees["root"].life.held == amounts
    trees.ledger.settle(trees.now, hold, pack({"total_tokens": 6, "input_tokens": 5, "output_tokens": 1}))
    assert trees["root"].life.held == 0
    assert trees["root"].life.settled == pack({"total_tokens": 6, "input_tokens": 5, "output_tokens": 1})


# -- overruns -------------------------------------------------------------------------------------------------------


def test_an_overrun_is_posted_at_every_level_and_blocks_only_what_reaches_that_one(trees: Trees) -> None:
    trees.open("middle", "root", limit=50)
    trees.open("paid", "middle", limit=20, guarantee=20)
    trees.open("below", "middle")
    trees.settle(trees.hold("below", 30), 45)
    assert [sums(trees, name) for name in ("below", "middle", "root")] == [(0, 45, 0, 15)] * 3
    # The middle has used 45 and 20 that are set aside, of 50.
    assert trees.refused("below", 1).limiting.id == "middle"
    assert trees.refused("middle", 1).limiting.id == "middle"
    assert trees.hold("paid", 20)
    assert trees.hold("leaf", 35)


def test_an_overrun_is_told_once_with_its_unit(trees: Trees) -> None:
    trees.settle(trees.hold("leaf", 30), 45)
    assert trees.passed() == [Passed("leaf", "total_tokens")]


def test_a_settlement_within_its_hold_is_no_overrun(trees: Trees) -> None:
    trees.settle(trees.hold("leaf", 30), 30)
    assert trees.passed() == []
    assert sums(trees, "leaf") == (0, 30, 0, 0)


def test_shares_of_a_limit_are_told_of_each_budget_of_the_path(trees: Trees) -> None:
    trees.open("small", "root", limit=50)
    trees.settle(trees.hold("small", 50), 48)
    assert trees.passed() == [Passed("small", "total_tokens", 95)]
    trees.charge("root", 37)
    assert trees.passed() == [Passed("root", "total_tokens", 80)]


# -- reconcile ------------------------------------------------------------------------------------------------------


def test_the_truth_takes_the_place_of_the_bound_once(trees: Trees) -> None:
    hold = trees.hold("leaf", 60)
    trees.settle(hold, 60, uncertain=True)
    trees.ledger.reconcile(trees.now, hold, tokens(25))
    assert [sums(trees, name) for name in ("leaf", "root")] == [(0, 25, 0, 0)] * 2
    with pytest.raises(ValueError, match="not uncertain"):
        trees.ledger.reconcile(trees.now, hold, tokens(25))
    assert sums(trees, "root") == (0, 25, 0, 0)


def test_only_a_bound_can_be_reconciled(trees: Trees) -> None:
    hold = trees.hold("leaf", 60)
    with pytest.raises(ValueError, match="not uncertain"):
        trees.ledger.reconcile(trees.now, hold, tokens(25))
    trees.settle(hold, 30)
    with pytest.raises(ValueError, match="not uncertain"):
        trees.ledger.reconcile(trees.now, hold, tokens(25))


def test_a_truth_above_its_hold_is_an_overrun_and_one_below_it_is_none_any_more(trees: Trees) -> None:
    first, second = trees.hold("leaf", 20), trees.hold("leaf", 20)
    trees.settle(first, 20, uncertain=True)
    trees.ledger.reconcile(trees.now, first, tokens(26))
    assert sums(trees, "root") == (20, 26, 0, 6)
    assert trees.passed() == [Passed("leaf", "total_tokens")]
    trees.settle(second, 29, uncertain=True)
    assert trees.passed() == [Passed("leaf", "total_tokens")]
    trees.ledger.reconcile(trees.now, second, tokens(5))
    assert sums(trees, "root") == (0, 31, 0, 6)
    assert trees.passed() == []


def test_a_truth_that_is_less_in_one_unit_and_more_in_another_tells_only_of_that_one(trees: Trees) -> None:
    held = pack({"total_tokens": 10, "requests": 1, "nano_usd": 10})
    for units in (("total_tokens", "nano_usd"), ("nano_usd", "total_tokens")):
        hold = trees.ledger.reserve(trees.now, trees["leaf"], held, Call())
        assert isinstance(hold, Hold)
        seen, more = pack({units[0]: 15, units[1]: 10}), pack({units[0]: 5, units[1]: 12})
        trees.ledger.settle(trees.now, hold, seen, uncertain=True)
        assert trees.passed() == [Passed("leaf", units[0])]
        trees.ledger.reconcile(trees.now, hold, more)
        assert trees.passed() == [Passed("leaf", units[1])]
    assert trees["root"].life.overrun == pack({"total_tokens": 2, "nano_usd": 2})


def test_an_overrun_that_was_told_when_the_bound_was_posted_is_not_told_again(trees: Trees) -> None:
    hold = trees.hold("leaf", 20)
    trees.settle(hold, 29, uncertain=True)
    assert trees.passed() == [Passed("leaf", "total_tokens")]
    trees.ledger.reconcile(trees.now, hold, tokens(25))
    assert (trees.passed(), sums(trees, "root")) == ([], (0, 25, 0, 5))


# -- charge ---------------------------------------------------------------------------------------------------------


def test_a_charge_beyond_the_limit_is_refused_and_recorded_nowhere_unless_forced(trees: Trees) -> None:
    assert trees.charge("leaf", 100) is None
    trees.write()
    refusal = trees.charge("leaf", 1)
    assert refusal is not None
    assert not refusal.contended
    assert sums(trees, "root") == (0, 100, 0, 0)
    assert not trees.ledger.changes
    assert trees.charge("leaf", 50, force=True) is None
    assert sums(trees, "root") == (0, 150, 0, 0)
    assert trees.left("leaf") == 0


def test_an_undone_charge_has_never_been(trees: Trees) -> None:
    trees.open("paid", "root", guarantee=30)
    path = trees["paid"].path(trees.now)
    trees.charge("paid", 40)
    trees.ledger.undo(trees.now, path, tokens(40))
    assert sums(trees, "paid") == sums(trees, "root") == (0, 0, 0, 0)
    assert (trees.used("root"), total(trees["paid"].own_settled)) == (30, 0)
