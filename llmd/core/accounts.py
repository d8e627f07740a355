"""The counters of one budget, and how a change climbs from a budget to its root.

A path is the accounts from a budget up to its root. A budget draws from its parent what it uses, but its guarantee at
least: so a change grows smaller where it is paid out of a guarantee, and ends where nothing is left of it. Checked
whole, then applied: there is no way back half-way. All amounts are packed: every unit at once.
"""

from collections.abc import Sequence
from typing import Any

from llmd.books import UNITS, Unit
from llmd.core.amounts import (
    FULL_LANE,
    GUARDS,
    ONES,
    UNLIMITED,
    Packed,
    excess,
    greatest,
    lanes,
    least,
    pack_lanes,
    touched,
)
from llmd.core.windows import Span
from llmd.scalars import AMOUNT_MAX

NO_ALERT: Packed = GUARDS | ONES * FULL_LANE
THRESHOLDS = (80, 95, 100)  # percent of a limit; that so much of it is spent is told once each


class Account:
    """What one budget has used: in its life, or in one window.

    ceiling    its limits, with the guards set; AMOUNT_MAX in a unit without one
    floor      what it draws at least: its guarantee while it is open
    used       settled, held, and drawn by children
    firm       `used` as it would be if every hold came back
    held settled uncertain overrun  sums over the subtree
    alert      the last amounts before the next thresholds, with the guards set
    posted     whether anything was ever posted in it, so that there is a row of it
    """

    __slots__ = (
        "alert",
        "budget",
        "ceiling",
        "firm",
        "floor",
        "held",
        "overrun",
        "posted",
        "settled",
        "uncertain",
        "used",
        "window",
    )

    def __init__(self, budget: Any, window: Span | None = None) -> None:
        self.budget = budget
        self.window = window
        self.ceiling: Packed = UNLIMITED | GUARDS
        self.alert: Packed = NO_ALERT
        self.floor: Packed = 0
        self.used: Packed = 0
        self.firm: Packed = 0
        self.held: Packed = 0
        self.settled: Packed = 0
        self.uncertain: Packed = 0
        self.overrun: Packed = 0
        self.posted = False

    def limit(self, limits: Packed) -> None:
        self.ceiling = limits | GUARDS
        self.alert = _alert(limits, self.settled)

    def passed(self) -> list[tuple[Unit, int]]:
        """The thresholds, in percent, that `settled` has reached since it was last asked; some, if beyond `alert`."""
        limits = self.ceiling ^ GUARDS
        found = [
            (unit, max(percent for percent in THRESHOLDS if _share(limit, percent) <= settled))
            for unit, limit, settled, below in zip(
                UNITS, lanes(limits), lanes(self.settled), lanes(self.alert ^ GUARDS), strict=True
            )
            if settled > below
        ]
        # Never back: what was told is not told again when a bound has been reconciled.
        self.alert = greatest(_alert(limits, self.settled) ^ GUARDS, self.alert ^ GUARDS) | GUARDS
        return found


Path = Sequence[Account]


def fits(path: Path, change: Packed, *, firm: bool = False) -> bool:
    """Whether `change` more may be used at the bottom of `path`; with `firm`, if every hold came back."""
    return not refusers(path, change, firm=firm)


def refusers(path: Path, change: Packed, *, firm: bool = False) -> list[tuple[Account, Packed]]:
    """The accounts that refuse it, with the guards of the units that do."""
    found = []
    units = touched(change)
    for account in path:
        used = account.firm if firm else account.used
        if refused := units & ~(account.ceiling - used - change):
            found.append((account, refused))
        if floor := account.floor:
            change = greatest(used + change, floor) - greatest(used, floor)
            units = touched(change)
    return found


def move(path: Path, used: Packed, firm: Packed, held: Packed = 0, settled: Packed = 0) -> None:
    """Change the counters of a path, unchecked: `used` and `firm` as far as draws change, the sums to the root."""
    for account in path:
        if held:
            account.held += held
        if settled:
            account.settled += settled
        if used:
            before = account.used
            account.used += used
            if floor := account.floor:
                used = greatest(account.used, floor) - greatest(before, floor)
        if firm:
            before = account.firm
            account.firm += firm
            if floor := account.floor:
                firm = greatest(account.firm, floor) - greatest(before, floor)


def release(account: Account, above: Path) -> None:
    """Give back what the account draws beyond its use, for good."""
    floor, account.floor = account.floor, 0
    if floor:
        move(above, account.used - greatest(account.used, floor), account.firm - greatest(account.firm, floor))


def available(path: Path, *, firm: bool = False) -> list[int]:
    """What could be used more at the bottom of `path`, unit by unit; counted to AMOUNT_MAX where nothing limits it."""
    left: Packed | None = None
    for account in reversed(path):
        used = account.firm if firm else account.used
        own = excess(account.ceiling ^ GUARDS, used)
        left = own if left is None else least(own, left + excess(account.floor, used))
    return lanes(left or 0)


def limited_units(path: Path) -> Packed:
    """The guards of the units that some account of the path limits."""
    limited = 0
    for account in path:
        limited |= touched(UNLIMITED - (account.ceiling ^ GUARDS))
    return limited


def _alert(limits: Packed, settled: Packed) -> Packed:
    """The guards, and in each lane the last amount before the next threshold."""
    if limits == UNLIMITED:
        return NO_ALERT
    marks = []
    for limit, amount in zip(lanes(limits), lanes(settled), strict=True):
        thresholds = () if limit == AMOUNT_MAX else THRESHOLDS
        ahead = (mark - 1 for percent in thresholds if (mark := _share(limit, percent)) > amount)
        marks.append(next(ahead, FULL_LANE))
    return pack_lanes(marks) | GUARDS


def _share(limit: int, percent: int) -> int:
    """So much of a limit, rounded up; 1 at least, since nothing spent is no share."""
    return max(1, -(-limit * percent // 100))
