"""How budgets are told: one at a moment, and trees page by page."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.books import Allow, Amounts, Branch, Snapshot
from llmd.core.snapshots import tree
from llmd.scalars import AMOUNT_MAX
from tests.support.trees import Trees, tokens

# -- one ------------------------------------------------------------------------------------------------------------


def test_a_snapshot_has_the_terms_the_sums_and_what_is_available() -> None:
    trees = Trees()
    trees.open("root", limit=100)
    allow = Allow(providers=["p"])
    trees.open("b", "root", limit=60, guarantee=10, label="work", lease_s=60, enforcement="estimate", allow=allow)
    trees.open("c", "b")
    trees.settle(trees.hold("c", 5), 8, uncertain=True)
    trees.hold("b", 20)
    assert trees.told("b") == Snapshot(
        id="b",
        parent="root",
        label="work",
        state="open",
        limits={"total_tokens": 60},
        guarantee={"total_tokens": 10},
        window=None,
        settled=Amounts(total_tokens=8),
        held=Amounts(total_tokens=20),
        uncertain=Amounts(total_tokens=8),
        overrun=Amounts(total_tokens=3),
        available={
            "total_tokens": 32,
            "input_tokens": None,
            "output_tokens": None,
            "requests": None,
            "nano_usd": None,
        },
        children=1,
        lease_s=60,
        enforcement="estimate",
        allow=allow,
    )


def test_available_is_told_of_the_units_that_the_path_limits() -> None:
    trees = Trees()
    trees.open("free")
    trees.open("root", limit=100)
    trees.open("b", "root")
    trees.charge("b", 130, force=True)
    assert set(trees.told("free").available.values()) == {None}
    assert trees.left("b") == 0


def test_nothing_is_available_in_a_budget_that_drains_or_has_closed_nor_below() -> None:
    trees = Trees()
    trees.open("root", limit=100)
    trees.open("b", "root", limit=50)
    hold = trees.hold("b", 5)
    trees.close("root")

    def told(name: str) -> tuple[str, int | None, int | None]:
        found = trees.told(name)
        return found.state, found.available["total_tokens"], found.available["requests"]

    assert told("root") == told("b") == ("draining", 0, None)
    trees.settle(hold, 5)
    assert told("root") == told("b") == ("closed", 0, None)


def test_a_budget_with_a_window_is_told_in_the_window_of_now() -> None:
    trees = Trees()
    trees.open("daily", limit=50, window="day")
    trees.charge("daily", 20)
    assert (trees.told("daily").settled.total_tokens, trees.left("daily")) == (20, 30)
    trees.later(24 * 3600)
    assert (trees.told("daily").settled.total_tokens, trees.left("daily")) == (0, 50)


def test_sums_beyond_what_every_reader_keeps_are_told_as_the_largest_amount() -> None:
    trees = Trees()
    trees.open("root")
    for _ in range(3):
        trees.ledger.charge(trees.now, trees["root"], tokens(AMOUNT_MAX), force=True)
    assert trees.told("root").settled.total_tokens == AMOUNT_MAX


# -- pages ----------------------------------------------------------------------------------------------------------


def names(branches: list[Branch]) -> list[object]:
    """The ids, with those below each in a list behind it."""
    found: list[object] = []
    for branch in branches:
        found += [branch.id, names(branch.below)] if branch.below else [branch.id]
    return found


def forest() -> Trees:
    trees = Trees()
    for name, parent in [("a", None), ("b", "a"), ("c", "b"), ("d", "a"), ("e", None), ("f", "e")]:
        trees.open(name, parent)
    return trees


def pages(trees: Trees, tops: list[str], limit: int) -> list[list[Branch]]:
    found, cursor = [], None
    for _ in range(len(trees.ledger.budgets) + 1):
        page = tree(trees.now, [trees[name] for name in tops], cursor, limit)
        found.append(page.budgets)
        cursor = page.cursor
        if cursor is None:
            return found
    raise AssertionError("the pages have no end")


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        (6, [["a", ["b", ["c"], "d"], "e", ["f"]]]),
        (5, [["a", ["b", ["c"], "d"], "e"], ["f"]]),
        (3, [["a", ["b", ["c"]]], ["d", "e", ["f"]]]),
        (2, [["a", ["b"]], ["c", "d"], ["e", ["f"]]]),
        (1, [["a"], ["b"], ["c"], ["d"], ["e"], ["f"]]),
    ],
)
def test_pages_are_nested_as_far_as_parents_are_on_the_same_page(limit: int, told: list[object]) -> None:
    assert [names(page) for page in pages(forest(), ["a", "e"], limit)] == told


def test_a_tree_may_begin_anywhere() -> None:
    assert [names(page) for page in pages(forest(), ["b"], 10)] == [["b", ["c"]]]


def test_tops_of_a_later_page_name_their_parents() -> None:
    page = tree(forest().now, [forest()["a"]], "b", 10)
    assert [(branch.id, branch.parent) for branch in page.budgets] == [("c", "b"), ("d", "a")]


def test_of_a_shallow_tree_only_the_tops_are_told() -> None:
    trees = forest()
    page = tree(trees.now, [trees["a"], trees["e"]], None, 1, deep=False)
    assert (names(page.budgets), page.cursor) == (["a"], "a")
    page = tree(trees.now, [trees["a"], trees["e"]], "a", 1, deep=False)
    assert (names(page.budgets), page.cursor) == (["e"], None)


@given(st.lists(st.integers(0, 100), max_size=25), st.integers(1, 30))
def test_all_pages_together_have_every_budget_once_behind_its_parent(parents: list[int], limit: int) -> None:
    trees = Trees()
    for number, choice in enumerate(parents):
        parent = choice % (number + 1) - 1
        trees.open(str(number), None if parent < 0 else str(parent))
    roots = [name for name, budget in trees.ledger.budgets.items() if budget.parent is None]
    seen: list[str] = []

    def walk(branches: list[Branch], above: str | None) -> None:
        for branch in branches:
            assert above is None or branch.parent == above
            assert branch.parent is None or branch.parent in seen
            seen.append(branch.id)
            walk(branch.below, branch.id)

    for page in pages(trees, roots, limit):
        before = len(seen)
        walk(page, None)
        assert len(seen) - before <= limit
        tops = {branch.parent for branch in page}
        assert tops.isdisjoint(seen[before:]), "what has its parent on the page is below it"
    assert sorted(seen) == sorted(trees.ledger.budgets)
