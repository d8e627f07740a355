"""What a restart finds in the rows: what was posted, and holds that are resolved on the safe side."""

from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from llmd.clock import Now
from llmd.core.holds import Call
from llmd.core.ledger import Ledger
from llmd.core.recovery import NotRecovered, contradiction, recover
from tests.support.trees import DAY_MS, NOON, Trees, refuses, tokens, total

NONE = {"total_tokens": 0, "input_tokens": 0, "output_tokens": 0, "requests": 0, "nano_usd": 0}


def told(trees: Trees) -> list[Any]:
    return [(trees.told(name), trees.used(name), total(budget.own_settled)) for name, budget in _budgets(trees)]


def _budgets(trees: Trees) -> list[Any]:
    return sorted(trees.ledger.budgets.items())


def posted(amount: int) -> dict[str, int]:
    return {**NONE, "total_tokens": amount}


def by_hand(rows: dict[str, dict[str, Any]], now: Now | None = None) -> Trees:
    """The ledger of rows that somebody has written."""
    trees = Trees()
    trees.rows = {key: msgspec.json.encode(row) for key, row in rows.items()}
    trees.now = now or trees.now
    return trees.restarted()


def budget(name: str, parent: str | None = None, settled: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "parent": parent,
        "terms": {},
        "state": "open",
        "handle_hash": f"handle of {name}",
        "settled": posted(settled),
        "uncertain": NONE,
        "overrun": NONE,
        **more,
    }


def hold(number: int, name: str, amount: int, **more: Any) -> dict[str, Any]:
    return {"id": number, "budget": name, "amounts": posted(amount), "windows": {}, "dispatched": True, **more}


# -- rows by hand ---------------------------------------------------------------------------------------------------


def test_what_was_posted_is_summed_up_again_and_guarantees_are_drawn() -> None:
    trees = by_hand(
        {
            # A child's row may come before its parent's.
            "b/leaf": budget("leaf", "middle", 7, uncertain=posted(2), overrun=posted(1)),
            "b/middle": budget("middle", "root", 5, terms={"guarantee": {"total_tokens": 30}}),
            "b/root": budget("root", None, 40, terms={"limits": {"total_tokens": 100}}),
            "b/idle": budget("idle", "root", terms={"guarantee": {"total_tokens": 20}}),
        }
    )
    # 40 of its own, 30 for the middle, which has used 12 of them, and 20 for the idle one.
    assert [trees.used(name) for name in ("root", "middle", "leaf", "idle")] == [90, 12, 7, 0]
    assert (trees.left("root"), trees.left("middle"), trees.left("idle")) == (10, 28, 30)
    root = trees.told("root")
    assert (root.settled.total_tokens, root.uncertain.total_tokens, root.overrun.total_tokens) == (52, 2, 1)
    assert trees["leaf"].trail == "root/middle/leaf"
    assert trees.ledger.handles["handle of leaf"] is trees["leaf"]


def test_a_hold_that_was_dispatched_is_posted_whole_and_the_others_have_cost_nothing() -> None:
    trees = by_hand(
        {
            "b/root": budget("root", settled=10),
            "b/leaf": budget("leaf", "root"),
            "h/4": hold(4, "leaf", 30, request_id="r", target="p/m"),
            "h/10": hold(10, "leaf", 50, dispatched=False),
        }
    )
    root = trees.told("root")
    assert (root.held.total_tokens, root.settled.total_tokens, root.uncertain.total_tokens) == (0, 40, 30)
    assert trees.ledger.holds == {}
    (bound,) = trees.ledger.uncertain.values()
    assert (bound.id, bound.call, bound.posted) == (4, Call("r", "p/m"), tokens(30))
    assert trees.hold("leaf", 1).id == 11
    trees.ledger.reconcile(trees.now, bound, tokens(12))
    assert trees.told("root").settled.total_tokens == 22


def test_holds_are_resolved_in_the_order_in_which_they_were_taken() -> None:
    trees = by_hand({"b/root": budget("root"), **{f"h/{number}": hold(number, "root", 1) for number in (10, 9, 100)}})
    assert list(trees.ledger.uncertain) == [9, 10, 100]


def test_nothing_is_checked_against_limits() -> None:
    trees = by_hand(
        {
            "b/root": budget("root", None, 90, terms={"limits": {"total_tokens": 50}}),
            "h/1": hold(1, "root", 30),
        }
    )
    assert (trees.used("root"), trees.left("root")) == (120, 0)


def test_a_bound_that_may_be_reconciled_is_found_again_and_posted_only_once() -> None:
    row = hold(3, "root", 30, posted=posted(35), posted_ms=NOON - 5)
    trees = by_hand({"b/root": budget("root", None, 35, uncertain=posted(35)), "h/3": row})
    (bound,) = trees.ledger.uncertain.values()
    assert (bound.posted, bound.posted_ms) == (tokens(35), NOON - 5)
    assert trees.used("root") == 35
    trees.ledger.reconcile(trees.now, bound, tokens(20))
    assert (trees.used("root"), trees.told("root").uncertain.total_tokens) == (20, 0)


def test_a_hold_in_a_window_counts_where_it_was_taken() -> None:
    yesterday = ["2026-11-21", NOON - DAY_MS * 3 // 2, NOON - DAY_MS // 2]
    sums = {"settled": posted(8), "uncertain": NONE, "overrun": NONE}
    trees = by_hand(
        {
            "b/daily": budget("daily", terms={"window": "day", "limits": {"total_tokens": 50}}),
            "b/task": budget("task", "daily", 8),
            "w/daily/2026-11-21": {"budget": "daily", "span": yesterday, **sums},
            "h/1": hold(1, "task", 30, windows={"daily": yesterday}),
        }
    )
    assert (trees.left("daily"), trees.used("task")) == (50, 38)
    trees.later(0, NOON - DAY_MS)
    assert (trees.used("daily"), trees.left("daily")) == (38, 12)


def test_thresholds_that_were_passed_before_are_not_told_again() -> None:
    sums = {"settled": posted(90), "uncertain": NONE, "overrun": NONE}
    terms = {"limits": {"total_tokens": 100}}
    trees = by_hand(
        {
            "b/root": budget("root", None, 90, terms=terms),
            "b/daily": budget("daily", None, 90, terms={"window": "day", **terms}),
            "w/daily/2026-11-22": {
                "budget": "daily",
                "span": ["2026-11-22", NOON - DAY_MS // 2, NOON + DAY_MS // 2],
                **sums,
            },
        }
    )
    trees.charge("root", 1)
    trees.charge("daily", 1)
    assert trees.passed() == []
    trees.charge("root", 4)
    trees.charge("daily", 4)
    assert [(told.budget, told.percent) for told in trees.passed()] == [("root", 95), ("daily", 95)]


def test_what_was_draining_has_closed_when_its_holds_are_resolved() -> None:
    trees = by_hand(
        {
            "b/root": budget("root"),
            "b/leaf": budget("leaf", "root", state="draining", terms={"guarantee": {"total_tokens": 50}}),
            "b/below": budget("below", "leaf", state="draining"),
            "b/old": budget("old", "root", state="closed", closed_ms=NOON - 9),
            "h/1": hold(1, "leaf", 30),
        }
    )
    assert {name: each.state for name, each in _budgets(trees)} == {
        "root": "open",
        "leaf": "closed",
        "below": "closed",
        "old": "closed",
    }
    assert sorted(each.id for each in trees.ledger.finished) == ["below", "leaf"]
    assert (trees["leaf"].closed_ms, trees["old"].closed_ms) == (NOON, NOON - 9)
    assert trees.used("root") == 30
    with refuses("budget_closed"):
        trees.hold("leaf", 1)


def test_handles_that_are_gone_are_still_known_oldest_first() -> None:
    trees = by_hand({f"g/{name}": {"handle_hash": name, "closed_ms": NOON - ms} for name, ms in [("a", 1), ("b", 2)]})
    assert list(trees.ledger.gone.items()) == [("b", NOON - 2), ("a", NOON - 1)]


def test_leases_begin_again() -> None:
    trees = by_hand({"b/root": budget("root"), "b/leaf": budget("leaf", "root")}, now=Now(50.0, NOON))
    assert [each.touched for _, each in _budgets(trees)] == [50.0, 50.0]


# -- rows as they were written --------------------------------------------------------------------------------------


def test_a_restart_finds_the_same_ledger() -> None:
    trees = Trees()
    trees.open("root", limit=1000, label="all of it")
    trees.open("paid", "root", limit=200, guarantee=100, lease_s=60)
    trees.open("daily", "root", limit=50, window="day", zone="Asia/Kolkata")
    trees.open("task", "daily")
    trees.open("short", "root")
    trees.charge("root", 7)
    trees.settle(trees.hold("paid", 30), 35)
    trees.settle(trees.hold("task", 20), 20, uncertain=True)
    trees.charge("short", 3)
    trees.close("short")
    trees.write()
    trees.ledger.fold(trees["short"])
    trees.write()
    again = trees.restarted()
    assert told(again) == told(trees)
    assert again.ledger.gone == trees.ledger.gone
    assert again.ledger.uncertain.keys() == trees.ledger.uncertain.keys()
    assert again["paid"].terms == trees["paid"].terms
    assert told(again.restarted()) == told(trees)


def test_what_recovery_resolves_is_written_so_that_the_next_one_finds_it_resolved() -> None:
    trees = Trees()
    trees.open("root", limit=100)
    trees.hold("root", 30)
    trees.hold("root", 20, dispatched=False)
    trees.write()
    again = trees.restarted()
    assert again.write() == ["h/0", "b/root", "h/1"]
    third = again.restarted()
    assert told(third) == told(again)
    assert (third.used("root"), list(third.ledger.uncertain)) == (30, [1])


def test_a_bound_that_is_reconciled_right_after_a_restart_leaves_no_hold_behind() -> None:
    trees = Trees()
    trees.open("root", limit=100)
    trees.hold("root", 30)
    trees.write()
    again = trees.restarted()
    again.ledger.reconcile(again.now, again.ledger.uncertain[1], tokens(4))
    again.write()
    assert again.rows.keys() == {"b/root"}
    assert again.restarted().used("root") == 4


# -- rows that contradict one another -------------------------------------------------------------------------------


def spoilt(change: Callable[[dict[str, Any]], object]) -> dict[str, dict[str, Any]]:
    rows = {"b/root": budget("root"), "b/leaf": budget("leaf", "root"), "h/1": hold(1, "leaf", 30)}
    change(rows)
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (spoilt(lambda rows: rows.pop("b/root")), "1 budgets are named as parents and are not there"),
        (spoilt(lambda rows: rows.pop("b/leaf")), "names the budget 'leaf', which has no row"),
        (spoilt(lambda rows: rows["b/root"].update(parent="leaf")), "2 budgets are named as parents"),
        (spoilt(lambda rows: rows["b/leaf"].update(parent="leaf")), "1 budgets are named as parents"),
        (spoilt(lambda rows: rows["b/leaf"].update(settled=None)), "a row of the ledger cannot be read"),
        (spoilt(lambda rows: rows["h/1"].update(amounts=5)), "a row of the ledger cannot be read"),
        (
            {"w/x/1": {"budget": "x", "span": ["1", 0, 9], "settled": NONE, "uncertain": NONE, "overrun": NONE}},
            "names the budget 'x', which has no row",
        ),
        ({"g/x": {"handle_hash": "x"}}, "a row of the ledger cannot be read"),
    ],
)
def test_rows_that_contradict_one_another_are_not_recovered(rows: dict[str, dict[str, Any]], message: str) -> None:
    with pytest.raises(NotRecovered, match=message):
        by_hand(rows)


def test_what_keeps_rows_from_being_a_ledger_is_told() -> None:
    def told(row: bytes) -> str | None:
        return contradiction(Now(0.0, NOON), lambda prefix: [("h/1", row)] if prefix == "h/" else [], ZoneInfo)

    assert contradiction(Now(0.0, NOON), lambda prefix: [], ZoneInfo) is None
    assert "cannot be read" in (told(b"{") or "")


def test_rows_that_are_no_json_are_not_recovered() -> None:
    with pytest.raises(NotRecovered, match="cannot be read"):
        recover(Now(0.0, NOON), lambda prefix: [(prefix, b"{")], Ledger(), ZoneInfo)


def test_an_empty_store_is_an_empty_ledger() -> None:
    trees = by_hand({})
    assert trees.ledger.budgets == {}
    assert not trees.ledger.changes
