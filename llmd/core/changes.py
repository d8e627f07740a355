"""What has changed in the ledger since the journal last took it: the rows to replace, and the entries to add.

A row is made when it is taken, so that what changes a hundred times in between is written once.
"""

import msgspec

from llmd.books import Entry, EntryKind, Snapshot, Unit
from llmd.clock import Now
from llmd.core.accounts import Account
from llmd.core.amounts import Packed, by_unit, unpack
from llmd.core.budget import Budget
from llmd.core.holds import Hold
from llmd.core.ledger_rows import (
    BUDGET,
    CLOSED,
    GONE,
    HOLD,
    WINDOW,
    BudgetRow,
    ClosedRow,
    GoneRow,
    HoldRow,
    WindowRow,
)
from llmd.journal import Batch, JournalEntry

_encode = msgspec.json.Encoder().encode


class Changes:
    def __init__(self) -> None:
        self._rows: dict[str, Budget | Account | Hold | bytes | None] = {}
        self._entries: list[tuple[str, Entry]] = []
        self._slots: list[int] = []
        self._next_slot = 0

    def __bool__(self) -> bool:
        return bool(self._rows or self._entries)

    def budget(self, budget: Budget) -> None:
        self._rows[BUDGET + budget.id] = budget

    def no_budget(self, budget: Budget) -> None:
        self._rows[BUDGET + budget.id] = None
        for account in budget.windows.values():
            self.no_window(account)

    def window(self, account: Account) -> None:
        self._rows[_window_key(account)] = account

    def no_window(self, account: Account) -> None:
        self._rows[_window_key(account)] = None

    def hold(self, hold: Hold) -> None:
        """Its row is one that another has left, if there is any: so the rows stay few, and close together."""
        if hold.slot is None:
            if not self._slots:
                self._slots.append(self._next_slot)
                self._next_slot += 1
            hold.slot = self._slots.pop()
        self._rows[f"{HOLD}{hold.slot}"] = hold

    def no_hold(self, hold: Hold) -> None:
        assert hold.slot is not None
        self._rows[f"{HOLD}{hold.slot}"] = None
        self._slots.append(hold.slot)
        hold.slot = None

    def recovered(self, hold: Hold, slot: int) -> None:
        """It has this row."""
        hold.slot = slot
        self._next_slot = max(self._next_slot, slot + 1)

    def closed(self, budget: Budget, told: Snapshot) -> None:
        """It has closed like this: its statement can still be asked for."""
        if budget.handle_hash is not None:
            self._rows[CLOSED + budget.handle_hash] = _encode(ClosedRow(told, budget.trail, budget.since))

    def gone(self, handle_hash: str, closed_ms: int | None) -> None:
        """A handle of a closed budget is known since then, or no more."""
        if closed_ms is None:
            self._rows[GONE + handle_hash] = self._rows[CLOSED + handle_hash] = None
        else:
            self._rows[GONE + handle_hash] = _encode(GoneRow(handle_hash, closed_ms))

    def row(self, key: str, value: bytes | None) -> None:
        """A row of somebody else's that changes together with these."""
        self._rows[key] = value

    def entry(
        self,
        now: Now,
        budget: Budget,
        kind: EntryKind,
        amounts: Packed = 0,
        hold: Hold | None = None,
        *,
        limits: dict[Unit, int] | None = None,
        uncertain: bool = False,
        note: str | None = None,
    ) -> None:
        """Something happened to `budget`, for `hold`'s call; `limits` stand in the place of amounts."""
        entry = Entry(
            at_ms=now.wall_ms,
            budget=budget.id,
            kind=kind,
            amounts=by_unit(amounts) if limits is None else limits,
            held={} if hold is None else by_unit(hold.amounts),
            uncertain=uncertain,
            request_id=None if hold is None else hold.call.request_id,
            target=None if hold is None else hold.call.target,
            note=note,
        )
        self._entries.append((budget.trail, entry))

    def take(self) -> Batch:
        """Everything since the last time."""
        rows = {key: self._encoded(changed) for key, changed in self._rows.items()}
        entries = [JournalEntry(entry.at_ms, trail, _encode(entry)) for trail, entry in self._entries]
        self._rows, self._entries = {}, []
        return Batch(rows, entries)

    def _encoded(self, changed: Budget | Account | Hold | bytes | None) -> bytes | None:
        if changed is None or isinstance(changed, bytes):
            return changed
        if isinstance(changed, Hold):
            return _encode(_hold_row(changed))
        return _encode(_budget_row(changed) if isinstance(changed, Budget) else _window_row(changed))


def _window_key(account: Account) -> str:
    assert account.window is not None
    return f"{WINDOW}{account.budget.id}/{account.window.label}"


def _budget_row(budget: Budget) -> BudgetRow:
    return BudgetRow(
        id=budget.id,
        parent=None if budget.parent is None else budget.parent.id,
        terms=budget.terms,
        state=budget.state,
        handle_hash=budget.handle_hash,
        settled=unpack(budget.own_settled),
        uncertain=unpack(budget.own_uncertain),
        overrun=unpack(budget.own_overrun),
        closed_ms=budget.closed_ms,
        connection=budget.connection,
        horizon_ms=budget.horizon_ms,
        since=budget.since,
    )


def _window_row(account: Account) -> WindowRow:
    assert account.window is not None
    return WindowRow(
        budget=account.budget.id,
        span=account.window,
        settled=unpack(account.settled),
        uncertain=unpack(account.uncertain),
        overrun=unpack(account.overrun),
    )


def _hold_row(hold: Hold) -> HoldRow:
    return HoldRow(
        id=hold.id,
        budget=hold.budget.id,
        amounts=unpack(hold.amounts),
        windows={account.budget.id: account.window for account in hold.path if account.window is not None},
        dispatched=hold.dispatched,
        request_id=hold.call.request_id,
        target=hold.call.target,
        posted=None if hold.posted is None else unpack(hold.posted),
        posted_ms=hold.posted_ms,
    )
