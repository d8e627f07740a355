"""The ledger beside its recount: any operations in any order, on any tree, with crashes after any of what was written.

How much runs is the profile's: 2,000 operations by default, 50,000 in CI, a million with --hypothesis-profile=deep, and
500 against a mutant.
"""

from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from llmd.books import Enforcement, Unit, Window
from llmd.clock import Now
from tests.support.calendar import DAY_MS, HOUR_MS
from tests.support.ledger_checks import check_books, check_pages, limited
from tests.support.ledger_pair import Given, LedgerPair
from tests.support.recount import UNLIMITED, units

STEPS = {"mutants": 500, "quick": 2_000, "ci": 50_000, "deep": 1_000_000}[settings.get_current_profile_name()]
LONGEST = 50  # steps of one example; some are shorter, and in some there is nothing to do
EXAMPLES = STEPS // 22

START_MS = 1_780_272_000_000  # the first of June 2026, a Monday: every window begins there
JUMPS_MS = [1, HOUR_MS, HOUR_MS, DAY_MS - HOUR_MS, DAY_MS, DAY_MS, 7 * DAY_MS, 30 * DAY_MS]

some = st.integers(0, 63)
unit: st.SearchStrategy[Unit] = st.sampled_from([*["total_tokens"] * 4, "requests", "requests", "nano_usd"])
number = st.integers(0, 9) | st.integers(0, 20)
amount = st.one_of(*[number] * 6, st.just(UNLIMITED))
amounts = st.dictionaries(unit, amount, max_size=3)
limits = st.dictionaries(unit, st.one_of(number, st.integers(0, 60), amount), max_size=3)
roomy = st.dictionaries(unit, st.integers(5, 60), max_size=2)
guarantee: st.SearchStrategy[Given] = st.just({}) | st.dictionaries(unit, st.integers(0, 9), max_size=2)
window: st.SearchStrategy[Window] = st.sampled_from(["hour", "day", "week", "month"])
seldom_window = st.one_of(*[st.none()] * 5, window)
enforcement: st.SearchStrategy[Enforcement] = st.sampled_from(["strict", "strict", "strict", "estimate", "track"])
near = st.integers(-1, 1)

# How often what happens, and with what.
ACTIONS: dict[str, tuple[int, tuple[st.SearchStrategy[Any], ...]]] = {
    "open": (3, (some, st.sampled_from([False] * 7 + [True]), limits, guarantee, seldom_window, enforcement)),
    "open_about_what_is_left": (3, (some, unit, near, st.booleans())),
    "resize": (1, (some, limits, guarantee)),
    "resize_limit": (1, (some, unit, near, st.booleans())),
    "resize_guarantee": (2, (some, unit, near, st.booleans())),
    "configure": (1, (some, limits)),
    "close": (3, (some, st.booleans())),
    "fold": (3, (some, st.sampled_from([False, False, True]))),
    "forget": (1, ()),
    "reserve": (3, (some, amounts)),
    "reserve_about_what_is_left": (4, (some, unit, near, st.booleans())),
    "calls": (5, (st.lists(some, min_size=1, max_size=4), unit, st.integers(1, 4))),
    "exactness": (2, (some,)),
    "dispatch": (3, (some,)),
    "settle": (2, (some, amounts, st.booleans())),
    "settle_about_what_is_held": (4, (some, near, st.booleans())),
    "void": (3, (some,)),
    "expire": (3, (some,)),
    "reconcile": (4, (some, amounts, st.none() | near)),
    "charge": (2, (some, amounts, st.booleans())),
    "undo": (1, (st.booleans(),)),
    "clock": (4, (st.sampled_from(JUMPS_MS), st.sampled_from([False, False, True]))),
    "take": (2, ()),
    "crash": (3, (st.none() | st.integers(0, LONGEST), st.booleans())),
}
DEPTHS = [1, 2, 3, 3, 4, 4, 5, 5]


class LedgerMachine(RuleBasedStateMachine):
    """One rule, so that how often what happens is the table's to say. An action answers False if there was nothing."""

    done: Counter[str] = Counter()

    @initialize(
        lazy=st.booleans(),
        depth=st.sampled_from([*DEPTHS * 4, 65]),
        levels=st.lists(st.tuples(roomy, guarantee), min_size=5, max_size=5),
        siblings=st.lists(some, max_size=4),
        windowed=st.none() | st.tuples(st.integers(0, 2), window),
    )
    def begin(
        self,
        lazy: bool,
        depth: int,
        levels: list[tuple[Given, Given]],
        siblings: list[int],
        windowed: tuple[int, Window] | None,
    ) -> None:
        """A chain and a few beside it, on which the rest grows."""
        self.pair = LedgerPair(Now(1.0, START_MS), lazy=lazy)
        parent = None
        for level in range(depth):
            limits, guarantee = levels[level] if level < len(levels) else ({}, {})
            window = windowed[1] if windowed is not None and windowed[0] == level else None
            parent = self.pair.open(parent, limits, guarantee, window, "strict") or parent
        for pick in siblings:
            self.open(pick, False, {}, {}, None, "strict")

    @rule(
        action=st.one_of(
            *[st.tuples(st.just(name), *of) for name, (often, of) in ACTIONS.items() for _ in range(often)]
        )
    )
    def act(self, action: tuple[Any, ...]) -> None:
        if getattr(self, action[0])(*action[1:]) is not False:
            self.done[action[0]] += 1

    def name(self, pick: int) -> str | None:
        """Any budget, mostly an open one; with small numbers, the ones opened last."""
        nodes = self.pair.books.nodes
        ended = [name for name, node in nodes.items() if node.state != "open"]
        names = ended if ended and pick % 8 > 5 else list(nodes.keys() - set(ended))
        names.sort(key=lambda name: int(name[1:]))
        return names[-1 - pick % len(names)] if names else None

    # -- budgets --------------------------------------------------------------------------------------------------

    def open(
        self,
        pick: int,
        root: bool,
        limits: Given,
        guarantee: Given,
        window: Window | None,
        enforcement: Enforcement,
    ) -> None:
        self.pair.open(None if root else self.name(pick), limits, guarantee, window, enforcement)

    def open_about_what_is_left(self, pick: int, unit: Unit, near: int, firm: bool) -> bool:
        """With so much guaranteed."""
        if (name := self.name(pick)) and limited(self.pair.books, name, unit):
            left = max(0, self.pair.books.could(name, self.pair.now.wall_ms, firm)[unit] + near)
            self.pair.open(name, {unit: left}, {unit: left}, None, "strict")
            return True
        return False

    def resize(self, pick: int, limits: Given, guarantee: Given) -> bool:
        if name := self.name(pick):
            self.pair.resize(name, limits, guarantee)
        return bool(name)

    def resize_limit(self, pick: int, unit: Unit, near: int, firm: bool) -> bool:
        """To about what is used."""
        if name := self.name(pick):
            books, node = self.pair.books, self.pair.books.nodes[name]
            used = books.used(name, books.within(name, self.pair.now.wall_ms), firm)[unit]
            limits = {**node.limits, unit: min(UNLIMITED, max(0, used + near))}
            self.pair.resize(name, limits, {of: min(most, limits.get(of, most)) for of, most in node.guarantee.items()})
        return bool(name)

    def resize_guarantee(self, pick: int, unit: Unit, near: int, firm: bool) -> bool:
        """To about what its parent has left for it."""
        if name := self.name(pick):
            books, node, wall_ms = self.pair.books, self.pair.books.nodes[name], self.pair.now.wall_ms
            above = 0 if node.parent is None else books.could(node.parent, wall_ms, firm)[unit]
            room = max(0, books.draw(name, None, firm)[unit] + above + near)
            guarantee = {**node.guarantee, unit: min(room, node.limits.get(unit, UNLIMITED))}
            self.pair.resize(name, node.limits, guarantee)
        return bool(name)

    def configure(self, pick: int, limits: Given) -> bool:
        if (name := self.name(pick)) and self.pair.books.nodes[name].state == "open":
            self.pair.configure(name, limits)
            return True
        return False

    def close(self, pick: int, fold: bool) -> bool:
        """Seldom a whole tree. `fold` what closes at once, as far as it can be, or leave it."""
        if (name := self.name(pick)) and (pick > 55 or self.pair.books.nodes[name].parent is not None):
            self.pair.close(name)
            for closed in self.pair.closed if fold else []:
                self.pair.fold(closed, uncertain_too=False)
            return True
        return False

    def fold(self, pick: int, uncertain_too: bool) -> bool:
        """Mostly one that can be folded."""
        books = self.pair.books
        ended = [name for name, node in books.nodes.items() if node.state != "open"]
        ready = [name for name in ended if books.nodes[name].state == "closed" and not books.children(name)]
        names = ready if ready and pick % 8 else ended
        if names:
            self.pair.fold(names[pick % len(names)], uncertain_too=uncertain_too)
        return bool(names)

    def forget(self) -> None:
        self.pair.forget()

    # -- holds ----------------------------------------------------------------------------------------------------

    def reserve(self, pick: int, amounts: Given) -> bool:
        """Any amounts but none: a call is one request at least."""
        if name := self.name(pick):
            self.pair.reserve(name, units(amounts if any(amounts.values()) else {"requests": 1}))
        return bool(name)

    def reserve_about_what_is_left(self, pick: int, unit: Unit, near: int, firm: bool) -> bool:
        if (name := self.name(pick)) and limited(self.pair.books, name, unit):
            left = self.pair.books.could(name, self.pair.now.wall_ms, firm)[unit] + near
            self.pair.reserve(name, units({unit: max(1, left)}))
            return True
        return False

    def calls(self, picks: list[int], unit: Unit, amount: int) -> None:
        """Small holds here and there, and their bytes leave."""
        for pick in picks:
            if (name := self.name(pick)) and (hold := self.pair.reserve(name, units({"requests": 1, unit: amount}))):
                self.pair.dispatch(hold)

    def exactness(self, pick: int) -> bool:
        if name := self.name(pick):
            self.pair.exactness(name)
        return bool(name)

    def dispatch(self, pick: int) -> bool:
        if hold := self.pair.hold(pick):
            self.pair.dispatch(hold)
        return bool(hold)

    def settle(self, pick: int, amounts: Given, uncertain: bool) -> bool:
        """What is uncertain is never nothing: it is a bound."""
        if hold := self.pair.hold(pick):
            self.pair.settle(hold, units(amounts), uncertain=uncertain and any(amounts.values()))
        return bool(hold)

    def settle_about_what_is_held(self, pick: int, more: int, uncertain: bool) -> bool:
        if hold := self.pair.hold(pick):
            asked = self.pair.line(hold).asked
            actual = {unit: amount + more if amount else 0 for unit, amount in asked.items()}
            self.pair.settle(hold, actual, uncertain=uncertain and any(actual.values()))
        return bool(hold)

    def void(self, pick: int) -> bool:
        if hold := self.pair.hold(pick):
            self.pair.void(hold)
        return bool(hold)

    def expire(self, pick: int) -> bool:
        if hold := self.pair.hold(pick):
            self.pair.expire(hold)
        return bool(hold)

    def reconcile(self, pick: int, amounts: Given, near: int | None) -> bool:
        """To anything, or to about what was posted."""
        uncertain = list(self.pair.ledger.uncertain.values())
        if uncertain:
            hold = uncertain[pick % len(uncertain)]
            posted = self.pair.line(hold).settled
            about = {unit: max(0, amount + (near or 0)) for unit, amount in posted.items()}
            self.pair.reconcile(hold, units(amounts) if near is None else about)
        return bool(uncertain)

    def charge(self, pick: int, amounts: Given, force: bool) -> bool:
        if name := self.name(pick):
            self.pair.charge(name, units(amounts), force=force)
        return bool(name)

    def undo(self, late: bool) -> bool:
        return self.pair.undo(0 if late else -1)

    # -- time and the journal -------------------------------------------------------------------------------------

    def clock(self, jump: int, back: bool) -> None:
        """The wall's may jump back."""
        now = self.pair.now
        self.pair.now = Now(now.mono + 1.0, now.wall_ms + (-jump if back else jump))

    def take(self) -> bool:
        changed = bool(self.pair.ledger.changes)
        self.pair.take()
        return changed

    def crash(self, lost: int | None, go_on: bool) -> None:
        """After any of the writes, or where the most was under way."""
        self.pair.crash(lost, go_on=go_on)

    @invariant()
    def every_counter_is_right(self) -> None:
        check_books(self.pair.ledger, self.pair.books, self.pair.now)

    def teardown(self) -> None:
        """Page by page a tree is told whole; and a restart finds whatever is flushed by now."""
        if hasattr(self, "pair"):
            check_pages(self.pair.ledger, self.pair.books, self.pair.now, size=3)
            self.pair.crash(0, go_on=False)


@pytest.mark.deadline(60 + STEPS / 20)
def test_the_ledger_is_what_a_recount_finds_and_keeps_every_cap() -> None:
    LedgerMachine.done.clear()
    run_state_machine_as_test(LedgerMachine, settings=settings(max_examples=EXAMPLES, stateful_step_count=LONGEST))
    assert LedgerMachine.done.total() >= STEPS
