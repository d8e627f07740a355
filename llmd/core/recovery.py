"""The ledger as the journal's rows have it: what was posted is found again, and what was held is resolved.

Nothing is checked against limits: what is in the rows has happened. A hold that was dispatched may have been billed, so
it is posted whole; the others have cost nothing.
"""

from collections.abc import Callable, Iterable
from datetime import tzinfo

import msgspec

from llmd.clock import Now
from llmd.core.accounts import move
from llmd.core.amounts import GUARDS, greatest, pack, pack_all
from llmd.core.budget import Budget
from llmd.core.holds import Call, Hold
from llmd.core.ledger import Ledger
from llmd.core.ledger_rows import BUDGET, GONE, HOLD, WINDOW, BudgetRow, GoneRow, HoldRow, WindowRow


class NotRecovered(Exception):
    """The rows contradict one another; the message says which."""


def recover(
    now: Now, rows: Callable[[str], Iterable[tuple[str, bytes]]], ledger: Ledger, zones: Callable[[str], tzinfo]
) -> list[Hold]:
    """Fill an empty `ledger` from `rows`, given by the beginning of their keys.

    Returns the holds that were open, whose calls were cut. Raises NotRecovered.
    """
    try:
        found = [msgspec.json.decode(data, type=BudgetRow) for _, data in rows(BUDGET)]
        windows = [msgspec.json.decode(data, type=WindowRow) for _, data in rows(WINDOW)]
        holds = [(int(key.removeprefix(HOLD)), msgspec.json.decode(data, type=HoldRow)) for key, data in rows(HOLD)]
        gone = [msgspec.json.decode(data, type=GoneRow) for _, data in rows(GONE)]
    except (msgspec.MsgspecError, ValueError) as error:
        raise NotRecovered(f"a row of the ledger cannot be read: {error}") from None
    _hang(now, ledger, found, zones)
    _count(ledger)
    try:
        for row in windows:
            account = ledger.budgets[row.budget].window(row.span)
            account.posted = True
            account.settled = account.used = account.firm = pack_all(row.settled)
            account.uncertain, account.overrun = pack_all(row.uncertain), pack_all(row.overrun)
            account.limit(account.ceiling ^ GUARDS)
        ledger.gone = {row.handle_hash: row.closed_ms for row in sorted(gone, key=lambda row: row.closed_ms)}
        for slot, held in sorted(holds, key=lambda found: found[1].id):
            _hold(now, ledger, slot, held)
    except KeyError as error:
        raise NotRecovered(f"a row of the ledger names the budget {error}, which has no row") from None
    # All are there before the first resolves: a budget ends with the last hold below it.
    cut = list(ledger.holds.values())
    for hold in cut:
        ledger.expire(now, hold)
    ledger.finish(now)
    return cut


def contradiction(
    now: Now, rows: Callable[[str], Iterable[tuple[str, bytes]]], zones: Callable[[str], tzinfo]
) -> str | None:
    """What keeps `rows` from being a ledger, None where nothing does."""
    try:
        recover(now, rows, Ledger(), zones)
    except NotRecovered as error:
        return str(error)
    return None


def _hang(now: Now, ledger: Ledger, rows: Iterable[BudgetRow], zones: Callable[[str], tzinfo]) -> None:
    """Every budget below its parent."""
    waiting: dict[str | None, list[BudgetRow]] = {}
    for row in rows:
        waiting.setdefault(row.parent, []).append(row)
    parents: list[Budget | None] = [None]
    for parent in parents:
        for row in waiting.pop(None if parent is None else parent.id, ()):
            budget = Budget(row.id, parent, row.terms, row.handle_hash, zones(row.terms.zone))
            budget.state = row.state
            budget.closed_ms = row.closed_ms
            budget.connection = row.connection
            budget.horizon_ms = row.horizon_ms
            budget.since = row.since
            budget.own_settled = pack_all(row.settled)
            budget.own_uncertain = pack_all(row.uncertain)
            budget.own_overrun = pack_all(row.overrun)
            budget.touched = now.mono
            if budget.state == "open":
                budget.life.floor = pack(row.terms.guarantee)
            ledger.add(budget)
            parents.append(budget)
    if waiting:
        raise NotRecovered(f"{len(waiting)} budgets are named as parents and are not there")


def _count(ledger: Ledger) -> None:
    """The sums over subtrees, from the leaves up: parents come before their children in `budgets`."""
    for budget in reversed(list(ledger.budgets.values())):
        life = budget.life
        life.settled += budget.own_settled
        life.uncertain += budget.own_uncertain
        life.overrun += budget.own_overrun
        life.used += budget.own_settled
        life.firm = life.used
        life.limit(life.ceiling ^ GUARDS)
        if budget.parent is not None:
            above = budget.parent.life
            above.settled += life.settled
            above.uncertain += life.uncertain
            above.overrun += life.overrun
            above.used += greatest(life.used, life.floor)


def _hold(now: Now, ledger: Ledger, slot: int, row: HoldRow) -> None:
    """An open hold, or one that may be reconciled."""
    budget = ledger.budgets[row.budget]
    path = [
        node.window(row.windows[node.id]) if node.id in row.windows else node.account(now) for node in budget.lineage()
    ]
    hold = Hold(row.id, budget, pack_all(row.amounts), path, Call(row.request_id, row.target))
    hold.dispatched = row.dispatched
    ledger.last_hold = max(ledger.last_hold, row.id)
    ledger.changes.recovered(hold, slot)
    if row.posted is not None:
        hold.posted, hold.posted_ms = pack_all(row.posted), row.posted_ms
        ledger.uncertain[hold.id] = hold
        return
    move(path, hold.amounts, 0, held=hold.amounts)
    ledger.holds[hold.id] = hold
