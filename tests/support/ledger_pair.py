"""A ledger and its recount, which do everything together and are compared at once: outcome, changes, what is told.

Owns the crash too: what a journal would have after each write is kept, with the books as they were then.
"""

import pickle
from collections.abc import Callable, Iterable
from datetime import UTC
from typing import Any

import pytest

from llmd.books import UNITS, Enforcement, Unit, Window
from llmd.clock import Now
from llmd.core.accounts import Path
from llmd.core.amounts import pack
from llmd.core.budget import Budget, Terms
from llmd.core.holds import Call, Hold
from llmd.core.ledger import Ledger
from llmd.core.recovery import recover
from llmd.errors import LLMError
from tests.support.bookkeeping import Books, Outcome
from tests.support.ledger_checks import (
    check_books,
    check_dominance,
    check_entries,
    check_finished,
    check_outcome,
    check_passed,
    check_rows,
    handle,
    state,
)
from tests.support.recount import KNOWN_MS, Line, Node, Units, units

Image = dict[str, bytes]
Given = dict[Unit, int]


class LedgerPair:
    """Both, and what they have done.

    lazy     what changed is taken by the journal only when `take` is called, else after every operation
    images   what a journal has after each write, the books as they were then, and how much was under way
    charges  for `undo`
    closed   what the last operation closed
    """

    def __init__(self, now: Now, *, lazy: bool) -> None:
        self.now = now
        self.lazy = lazy
        self.ledger = Ledger()
        self.books = Books()
        self.images: list[tuple[Image, bytes, int]] = [({}, pickle.dumps(self.books), 0)]
        self.closed: list[str] = []
        self.charges: list[tuple[Path, Line]] = []
        self._names = 0

    def run(self, expected: Outcome, operation: Callable[[], Any]) -> Any:
        """What the ledger answers, which is what was expected; a refusal or an error leaves everything as it was."""
        before = state(self.ledger) if expected is not None else None
        try:
            got = operation()
        except (LLMError, ValueError) as error:
            got = error
        check_outcome(got, expected, self.books, self.now)
        if before is not None:
            assert state(self.ledger) == before
            return None
        check_passed(self.ledger, self.books)
        self.closed = check_finished(self.ledger, self.books)
        if not self.lazy:
            self.take()
        return got

    # -- budgets --------------------------------------------------------------------------------------------------

    def open(
        self, parent: str | None, limits: Given, guarantee: Given, window: Window | None, enforcement: Enforcement
    ) -> str | None:
        """Its name, if it worked."""
        self._names += 1
        name = f"b{self._names}"
        node = Node(name, parent, limits, guarantee, window, enforcement)
        above = None if parent is None else self.ledger.budgets[parent]
        outcome = self.books.open(self.now, node)
        budget = Budget(name, above, _terms(node, limits, guarantee), handle(name))
        self.run(outcome, lambda: self.ledger.open(self.now, budget))
        return name if outcome is None else None

    def resize(self, name: str, limits: Given, guarantee: Given) -> None:
        budget, terms = self.ledger.budgets[name], _terms(self.books.nodes[name], limits, guarantee)
        outcome = self.books.resize(self.now, name, limits, guarantee)
        self.run(outcome, lambda: self.ledger.resize(self.now, budget, terms))

    def configure(self, name: str, limits: Given) -> None:
        node = self.books.nodes[name]
        budget, terms = self.ledger.budgets[name], _terms(node, limits, node.guarantee)
        self.books.configure(name, limits)
        self.run(None, lambda: self.ledger.set_terms(self.now, budget, terms))

    def close(self, name: str) -> None:
        budget, held = self.ledger.budgets[name], self.books.close(self.now, name)
        holds = self.run(None, lambda: self.ledger.close(self.now, budget))
        assert {hold.id for hold in holds} == held
        for hold in holds:
            if not hold.dispatched:
                self._resolved(hold)

    def fold(self, name: str, *, uncertain_too: bool) -> None:
        budget = self.ledger.budgets[name]
        self.books.fold(name, uncertain_too=uncertain_too)
        self.run(None, lambda: self.ledger.fold(budget, uncertain_too=uncertain_too))

    def forget(self) -> None:
        """Only what is old is let go of, and what comes first is not old; the rest is the ledger's to say."""
        ledger, before = self.ledger, self.now.wall_ms - KNOWN_MS
        gone, numbers, names = set(self.books.gone), set(ledger.uncertain), set(ledger.budgets)
        ledger.forget(self.now)
        known = {name for name in gone if handle(name) in ledger.gone}
        self.books.forgotten(self.now, gone - known, numbers - set(ledger.uncertain), names - set(ledger.budgets))
        assert not known or next(iter(ledger.gone.values())) >= before
        assert all(hold.posted_ms >= before for hold in list(ledger.uncertain.values())[:1])
        self.run(None, lambda: None)

    # -- holds ----------------------------------------------------------------------------------------------------

    def reserve(self, name: str, amounts: Units) -> Hold | None:
        budget, call = self.ledger.budgets[name], Call(f"call at {name}", "echo/echo")
        outcome = self.books.reserve(self.now, name, amounts, self.ledger.last_hold + 1)
        hold: Hold | None = self.run(outcome, lambda: self.ledger.reserve(self.now, budget, pack(amounts), call))
        return hold

    def hold(self, pick: int) -> Hold | None:
        holds = list(self.ledger.holds.values())
        return holds[pick % len(holds)] if holds else None

    def line(self, hold: Hold) -> Line:
        return next(line for line in self.books.lines[::-1] if line.number == hold.id)  # a restart counts anew

    def dispatch(self, hold: Hold) -> None:
        self.books.dispatch(self.line(hold))
        self.run(None, lambda: self.ledger.dispatch(hold))

    def settle(self, hold: Hold, actual: Units, *, uncertain: bool) -> None:
        self.books.settle(self.now, self.line(hold), actual, uncertain=uncertain)
        self.run(None, lambda: self.ledger.settle(self.now, hold, pack(actual), uncertain=uncertain))
        self._resolved(hold)

    def void(self, hold: Hold) -> None:
        self.books.void(self.now, self.line(hold))
        self.run(None, lambda: self.ledger.void(self.now, hold))
        self._resolved(hold)

    def expire(self, hold: Hold) -> None:
        self.books.expire(self.now, self.line(hold))
        self.run(None, lambda: self.ledger.expire(self.now, hold))
        self._resolved(hold)

    def reconcile(self, hold: Hold, truth: Units) -> None:
        self.books.reconcile(self.line(hold), truth)
        self.run(None, lambda: self.ledger.reconcile(self.now, hold, pack(truth)))
        self._resolved(hold)

    def _resolved(self, hold: Hold) -> None:
        """It does not resolve again, in any way, and trying changes nothing."""
        ways: list[Callable[[], object]] = [
            lambda: self.ledger.settle(self.now, hold, hold.amounts),
            lambda: self.ledger.void(self.now, hold),
            lambda: self.ledger.expire(self.now, hold),
            lambda: self.ledger.dispatch(hold),
        ]
        if hold.id not in self.ledger.uncertain:
            ways.append(lambda: self.ledger.reconcile(self.now, hold, hold.amounts))
        before = state(self.ledger)
        for way in ways:
            with pytest.raises(ValueError, match=f"hold {hold.id} "):
                way()
        assert state(self.ledger) == before

    def charge(self, name: str, amounts: Units, *, force: bool) -> None:
        budget = self.ledger.budgets[name]
        path = budget.path(self.now)
        outcome = self.books.charge(self.now, name, amounts, force=force)
        self.run(outcome, lambda: self.ledger.charge(self.now, budget, pack(amounts), force=force))
        if outcome is None:
            self.charges.append((path, self.books.lines[-1]))

    def undo(self, which: int) -> bool:
        """This charge, wherever it is by now; with a root it may be gone."""
        if not self.charges:
            return False
        path, line = self.charges.pop(which)
        if line in self.books.lines:
            self.books.undo(line)
        self.run(None, lambda: self.ledger.undo(self.now, path, pack(line.settled)))
        return True

    def exactness(self, name: str) -> None:
        """All that is available can be held at once; one more of anything cannot."""
        if self.books.nodes[name].state != "open":
            return
        available = self.books.could(name, self.now.wall_ms)
        if any(available.values()):
            hold = self.reserve(name, available)
            assert hold is not None
            self.void(hold)
        for unit in UNITS:
            assert self.reserve(name, units({unit: available[unit] + 1})) is None

    # -- the journal ----------------------------------------------------------------------------------------------

    def take(self) -> None:
        """As a journal would: from here on, this is what a restart finds."""
        batch = self.ledger.changes.take()
        assert not self.ledger.changes
        check_entries(batch, self.books)
        rows = {**self.images[-1][0], **batch.rows}
        self.books.changed()
        image = {key: row for key, row in rows.items() if row is not None}
        check_rows(image, self.books)
        calls = sum(line.dispatched for line in self.books.open_lines())
        draining = sum(node.state == "draining" for node in self.books.nodes.values())
        self.images.append((image, pickle.dumps(self.books), calls + 5 * draining))

    def crash(self, lost: int | None, *, go_on: bool) -> None:
        """Start again from what there was so many writes ago, or when the most was under way.

        With `go_on`, that is the ledger from now on.
        """
        busy = [under_way for _, _, under_way in self.images]
        kept = busy.index(max(busy)) if lost is None else len(busy) - 1 - lost % len(busy)
        image, written, _ = self.images[kept]
        before, books, ledger = pickle.loads(written), pickle.loads(written), Ledger()

        def rows(prefix: str) -> Iterable[tuple[str, bytes]]:
            return [(key, image[key]) for key in sorted(image) if key.startswith(prefix)]

        recover(self.now, rows, ledger, lambda zone: UTC)
        books.recover(self.now)
        check_passed(ledger, books)
        check_finished(ledger, books)
        check_books(ledger, books, self.now)
        check_dominance(before, books)
        if go_on:
            self.ledger, self.books = ledger, books
            self.charges = []
            del self.images[kept + 1 :]
            if not self.lazy:
                self.take()
        else:
            check_entries(ledger.changes.take(), books)


def _terms(node: Node, limits: Given, guarantee: Given) -> Terms:
    return Terms(limits=limits, guarantee=guarantee, window=node.window, enforcement=node.enforcement, label=node.label)
