"""Pages of a tree become one tree, however it was cut."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmd.cli.budget_calls import join, named

Branch = dict[str, Any]


def branch(name: str, parent: str | None, *below: Branch) -> Branch:
    return {"id": name, "parent": parent, "below": list(below)}


def shape(branches: list[Branch]) -> list[Any]:
    return [(found["id"], shape(found["below"])) for found in branches]


def test_what_tops_a_later_page_goes_below_its_parent() -> None:
    first = [branch("a", None, branch("b", "a", branch("c", "b")))]
    second = [branch("d", "b"), branch("e", "a", branch("f", "e")), branch("g", None)]
    third = [branch("h", "f")]
    assert shape(join([first, second, third])) == [
        ("a", [("b", [("c", []), ("d", [])]), ("e", [("f", [("h", [])])])]),
        ("g", []),
    ]


def test_a_subtree_that_was_asked_for_is_a_root_though_it_has_a_parent() -> None:
    assert shape(join([[branch("b", "elsewhere")], [branch("c", "b")]])) == [("b", [("c", [])])]


@given(st.lists(st.integers(0, 100), max_size=30), st.lists(st.integers(1, 5), min_size=31, max_size=31))
def test_a_tree_is_the_same_wherever_it_was_cut(parents: list[int], sizes: list[int]) -> None:
    """Budgets of a depth-first walk, each below one of those before it, cut into pages of these sizes."""
    tree = [branch("0", None)]
    known = {"0": tree[0]}
    for number, parent in enumerate(parents, 1):
        above = known[str(parent % number)]
        known[str(number)] = branch(str(number), above["id"])
        above["below"].append(known[str(number)])
    order: list[Branch] = []
    waiting = [tree[0]]
    while waiting:
        order.append(waiting.pop())
        waiting += reversed(order[-1]["below"])

    pages, at = [], 0
    for size in sizes:
        page: dict[str, Branch] = {}
        tops = []
        for found in order[at : at + size]:
            page[found["id"]] = branch(found["id"], found["parent"])
            above = page.get(found["parent"] or "")
            (tops if above is None else above["below"]).append(page[found["id"]])
        pages.append(tops)
        at += size
    assert shape(join(pages)) == shape(tree)


def test_a_handle_is_its_own_right_and_an_id_is_the_operators() -> None:
    assert named("bh_secret") == {"budget": "bh_secret"}
    assert named("b_0123456789ab") == {"id": "b_0123456789ab", "owner": True}
    assert named("daily") == {"id": "daily", "owner": True}
