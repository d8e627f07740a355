"""What the journal takes: rows of what has changed, written once, and entries in their order."""

from typing import Any

import msgspec
import pytest

from llmd.core.amounts import pack
from llmd.core.holds import Call
from tests.support.trees import NOON, Trees, tokens


@pytest.fixture
def trees() -> Trees:
    """A root, a leaf and a budget of the day, all of them written."""
    made = Trees()
    made.open("root", limit=100)
    made.open("leaf", "root")
    made.open("daily", window="day")
    made.write()
    return made


def row(trees: Trees, key: str) -> Any:
    return msgspec.json.decode(trees.rows[key])


def entries(trees: Trees) -> list[tuple[str, Any]]:
    return [(entry.path, msgspec.json.decode(entry.data)) for entry in trees.ledger.changes.take().entries]


# -- rows -----------------------------------------------------------------------------------------------------------


def test_an_opened_budget_has_a_row(trees: Trees) -> None:
    assert trees.rows.keys() == {"b/root", "b/leaf", "b/daily"}
    assert row(trees, "b/leaf")["parent"] == "root"
    assert row(trees, "b/root")["terms"] == {"limits": {"total_tokens": 100}}


def test_what_is_taken_is_not_taken_again(trees: Trees) -> None:
    assert not trees.ledger.changes
    trees.charge("leaf", 5)
    assert trees.ledger.changes
    assert trees.write() == ["b/leaf"]
    assert not trees.ledger.changes
    assert trees.write() == []


def test_a_row_is_as_it_is_when_it_is_taken(trees: Trees) -> None:
    trees.charge("leaf", 5)
    trees.charge("leaf", 6)
    assert trees.write() == ["b/leaf"]
    assert row(trees, "b/leaf")["settled"]["total_tokens"] == 11


def test_a_hold_that_came_and_went_since_the_last_time_leaves_no_row(trees: Trees) -> None:
    trees.settle(trees.hold("leaf", 10), 5)
    trees.ledger.void(trees.now, trees.hold("leaf", 10))
    assert "b/leaf" in trees.write()
    assert "h/0" not in trees.rows


def test_holds_that_resolve_leave_their_rows_to_those_that_come(trees: Trees) -> None:
    first, second = trees.hold("leaf", 1), trees.hold("leaf", 2)
    assert trees.write() == ["h/0", "h/1"]
    trees.settle(second, 2, uncertain=True)
    trees.settle(first, 1)
    third, fourth = trees.hold("leaf", 3), trees.hold("leaf", 4)
    trees.write()
    assert [row(trees, f"h/{slot}")["id"] for slot in range(3)] == [third.id, second.id, fourth.id]
    again = trees.restarted()
    again.write()
    again.hold("leaf", 5)
    assert again.write() == ["h/3"], "what the others posted may still be reconciled"


def test_a_hold_that_was_written_is_removed(trees: Trees) -> None:
    call = Call("request 7", "openai/gpt", 9.0)
    hold = trees.hold("leaf", 10, call, dispatched=False)
    trees.write()
    assert row(trees, "h/0") == {
        "id": 1,
        "budget": "leaf",
        "amounts": {"total_tokens": 10, "input_tokens": 0, "output_tokens": 0, "requests": 0, "nano_usd": 0},
        "windows": {},
        "dispatched": False,
        "request_id": "request 7",
        "target": "openai/gpt",
    }
    trees.ledger.dispatch(hold)
    assert trees.write() == ["h/0"]
    assert row(trees, "h/0")["dispatched"] is True
    trees.settle(hold, 5)
    trees.write()
    assert "h/0" not in trees.rows


@pytest.mark.parametrize("written", [(), ("hold",), ("bound",), ("hold", "bound")])
def test_a_bound_keeps_its_row_until_it_is_reconciled_however_often_it_was_written(
    trees: Trees, written: tuple[str, ...]
) -> None:
    hold = trees.hold("leaf", 10)
    if "hold" in written:
        trees.write()
    trees.settle(hold, 10, uncertain=True)
    if "bound" in written:
        trees.write()
        assert (row(trees, "h/0")["posted"]["total_tokens"], row(trees, "h/0")["posted_ms"]) == (10, NOON)
    trees.ledger.reconcile(trees.now, hold, tokens(3))
    trees.write()
    assert "h/0" not in trees.rows


def test_a_window_has_a_row_of_the_sums_below_it(trees: Trees) -> None:
    trees.open("task", "daily")
    trees.settle(trees.hold("task", 10), 12)
    trees.write()
    assert trees.rows.keys() == {"b/root", "b/leaf", "b/daily", "b/task", "w/daily/2026-11-22"}
    window = row(trees, "w/daily/2026-11-22")
    assert window["span"] == ["2026-11-22", NOON - 43_200_000, NOON + 43_200_000]
    assert (window["settled"]["total_tokens"], window["overrun"]["total_tokens"]) == (12, 2)


def test_a_hold_remembers_its_windows(trees: Trees) -> None:
    trees.hold("daily", 10)
    trees.write()
    assert row(trees, "h/0")["windows"] == {"daily": ["2026-11-22", NOON - 43_200_000, NOON + 43_200_000]}


def test_a_folded_budget_goes_with_its_windows_and_its_handle_is_remembered(trees: Trees) -> None:
    trees.charge("daily", 5)
    trees.close("daily")
    trees.write()
    trees.ledger.fold(trees["daily"])
    trees.write()
    assert trees.rows.keys() == {"b/root", "b/leaf", "g/handle of daily"}
    trees.later(24 * 3600 + 1)
    trees.ledger.forget(trees.now)
    trees.write()
    assert trees.rows.keys() == {"b/root", "b/leaf"}


def test_a_row_of_somebody_elses_changes_together_with_the_rest(trees: Trees) -> None:
    trees.charge("leaf", 5)
    trees.ledger.changes.row("x/1", b"theirs")
    trees.ledger.changes.row("x/2", None)
    batch = trees.ledger.changes.take()
    assert (batch.rows["x/1"], batch.rows["x/2"]) == (b"theirs", None)
    assert batch.rows.keys() == {"b/leaf", "x/1", "x/2"}


# -- entries --------------------------------------------------------------------------------------------------------


def test_a_call_leaves_one_entry_where_it_happened(trees: Trees) -> None:
    trees.later(2)
    hold = trees.hold("leaf", 10, Call("request 7", "openai/gpt"))
    trees.settle(hold, 7, uncertain=True)
    assert entries(trees) == [
        (
            "root/leaf",
            {
                "at_ms": NOON + 2000,
                "budget": "leaf",
                "kind": "settle",
                "amounts": {"total_tokens": 7},
                "held": {"total_tokens": 10},
                "uncertain": True,
                "request_id": "request 7",
                "target": "openai/gpt",
            },
        )
    ]


def test_entries_are_in_the_order_of_what_happened(trees: Trees) -> None:
    trees.open("new", "leaf", limit=9)
    trees.ledger.charge(trees.now, trees["new"], pack({"requests": 1, "nano_usd": 5}), note="a search")
    trees.resize("new", 8)
    trees.ledger.void(trees.now, trees.hold("new", 3))
    hold = trees.hold("new", 3)
    trees.ledger.expire(trees.now, hold)
    trees.ledger.reconcile(trees.now, hold, tokens(2))
    trees.ledger.undo(trees.now, trees["new"].path(trees.now), tokens(1))
    trees.close("new")
    told = [(path, {**entry, "at_ms": 0}) for path, entry in entries(trees)]
    head = {"at_ms": 0, "budget": "new"}
    three = {"total_tokens": 3}
    assert [path for path, _ in told] == ["root/leaf/new"] * 9
    assert [entry for _, entry in told] == [
        {**head, "kind": "open", "amounts": {"total_tokens": 9}},
        {**head, "kind": "charge", "amounts": {"requests": 1, "nano_usd": 5}, "note": "a search"},
        {**head, "kind": "resize", "amounts": {"total_tokens": 8}},
        {**head, "kind": "void", "held": three},
        {**head, "kind": "settle", "amounts": three, "held": three, "uncertain": True},
        {**head, "kind": "reconcile", "amounts": {"total_tokens": 2}, "held": three},
        {**head, "kind": "undo", "amounts": {"total_tokens": 1}},
        {**head, "kind": "drain"},
        {**head, "kind": "close"},
    ]
