"""A ledger told in few words: amounts are total tokens, and time stands where a test has put it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from llmd.books import UNITS, Snapshot
from llmd.clock import Now
from llmd.core.amounts import UNLIMITED, Packed, lanes, pack
from llmd.core.budget import Budget, Terms
from llmd.core.holds import Call, Hold
from llmd.core.ledger import Ledger, Passed
from llmd.core.recovery import recover
from llmd.core.refusals import Refusal
from llmd.core.snapshots import snapshot
from llmd.errors import LLMError

NOON = 1_795_348_800_000  # 2026-11-22T12:00Z, a Sunday
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def tokens(amount: int) -> Packed:
    return pack({"total_tokens": amount})


def total(packed: Packed) -> int:
    """The total tokens in it; nothing else may be."""
    found = lanes(packed)
    assert not any(found[1:])
    return found[0]


class Trees:
    """Budgets by name: the ledger, its time, and what a journal would have of it."""

    def __init__(self, budgets_max: int = 1000) -> None:
        self.ledger = Ledger(budgets_max)
        self.now = Now(0.0, NOON)
        self.rows: dict[str, bytes] = {}

    def __getitem__(self, name: str) -> Budget:
        return self.ledger.budgets[name]

    def later(self, seconds: float, wall_ms: int | None = None) -> None:
        """Time goes by; the wall's clock is set, if it is given."""
        wall = self.now.wall_ms + round(seconds * 1000) if wall_ms is None else wall_ms
        self.now = Now(self.now.mono + seconds, wall)

    def budget(
        self, name: str, parent: str | None = None, limit: int | None = None, guarantee: int = 0, **terms: Any
    ) -> Budget:
        """One that is not yet in the tree."""
        given = Terms(limits=limits(limit), guarantee=limits(guarantee or None), **terms)
        above = None if parent is None else self[parent]
        return Budget(name, above, given, f"handle of {name}", ZoneInfo(given.zone))

    def try_open(self, name: str, parent: str | None = None, limit: int | None = None, **more: Any) -> Refusal | None:
        return self.ledger.open(self.now, self.budget(name, parent, limit, **more))

    def open(self, name: str, parent: str | None = None, limit: int | None = None, **more: Any) -> None:
        assert self.try_open(name, parent, limit, **more) is None

    def try_hold(self, name: str, amount: int, call: Call | None = None) -> Hold | Refusal:
        return self.ledger.reserve(self.now, self[name], tokens(amount), call or Call())

    def hold(self, name: str, amount: int, call: Call | None = None, *, dispatched: bool = True) -> Hold:
        found = self.try_hold(name, amount, call)
        assert isinstance(found, Hold)
        if dispatched:
            self.ledger.dispatch(found)
        return found

    def refused(self, name: str, amount: int) -> Refusal:
        found = self.try_hold(name, amount)
        assert isinstance(found, Refusal)
        return found

    def settle(self, hold: Hold, amount: int, *, uncertain: bool = False) -> None:
        self.ledger.settle(self.now, hold, tokens(amount), uncertain=uncertain)

    def charge(self, name: str, amount: int, *, force: bool = False) -> Refusal | None:
        return self.ledger.charge(self.now, self[name], tokens(amount), force=force)

    def resize(self, name: str, limit: int | None, guarantee: int = 0, **terms: Any) -> Refusal | None:
        given = Terms(limits=limits(limit), guarantee=limits(guarantee or None), **terms)
        return self.ledger.resize(self.now, self[name], given)

    def close(self, name: str) -> list[Hold]:
        return self.ledger.close(self.now, self[name])

    def told(self, name: str) -> Snapshot:
        return snapshot(self.now, self[name])

    def used(self, name: str) -> int:
        """Settled, held and drawn by children, in the window of now."""
        return total(self[name].account(self.now).used)

    def left(self, name: str) -> int | None:
        return self.told(name).available["total_tokens"]

    def passed(self) -> list[Passed]:
        """What is new to be told."""
        found, self.ledger.passed = self.ledger.passed, []
        return found

    def write(self) -> list[str]:
        """Have a journal take what has changed; the keys of its rows."""
        batch = self.ledger.changes.take()
        for key, row in batch.rows.items():
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row
        return list(batch.rows)

    def restarted(self) -> "Trees":
        """What a restart finds in the rows that have been written."""
        again = Trees()
        again.now = self.now
        again.rows = dict(self.rows)
        recover(
            self.now,
            lambda prefix: [(key, row) for key, row in self.rows.items() if key.startswith(prefix)],
            again.ledger,
            ZoneInfo,
        )
        return again


def limits(amount: int | None) -> dict[Any, int]:
    return {} if amount is None else {UNITS[0]: amount}


def unlimited(amount: int) -> Packed:
    """A limit of so many tokens, and no other."""
    return pack({"total_tokens": amount}, UNLIMITED)


@contextmanager
def refuses(kind: str) -> "Iterator[pytest.ExceptionInfo[LLMError]]":
    """The block ends with an error of this kind."""
    with pytest.raises(LLMError) as raised:
        yield raised
    assert raised.value.kind == kind
