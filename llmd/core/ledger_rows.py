"""What of the ledger is kept: the rows that a restart reads, each replaced whole when something in it changes.

A budget's row has what was posted at it; what holds and sums there are is found again from the rows together. A
window's row has the sums of its subtree, since what is below a windowed budget counts for life.
"""

from msgspec import Struct

from llmd.books import Amounts, Snapshot, State
from llmd.core.budget import Terms
from llmd.core.windows import Span

BUDGET, WINDOW, HOLD, GONE, CLOSED = "b/", "w/", "h/", "g/", "c/"
"""How the keys of the rows begin."""


class BudgetRow(Struct, frozen=True, omit_defaults=True):
    id: str
    parent: str | None
    terms: Terms
    state: State
    handle_hash: str | None
    settled: Amounts
    uncertain: Amounts
    overrun: Amounts
    closed_ms: int | None = None
    connection: bool = False
    horizon_ms: int = 0
    since: int = 0


class WindowRow(Struct, frozen=True):
    budget: str
    span: Span
    settled: Amounts
    uncertain: Amounts
    overrun: Amounts


class HoldRow(Struct, frozen=True, omit_defaults=True):
    """An open hold, or with `posted` one that resolved at its bound and may be reconciled.

    windows  by budget: the windows in which it counts
    """

    id: int
    budget: str
    amounts: Amounts
    windows: dict[str, Span]
    dispatched: bool
    request_id: str | None = None
    target: str | None = None
    posted: Amounts | None = None
    posted_ms: int = 0


class GoneRow(Struct, frozen=True):
    """A budget that was closed and folded into its parent; its handle is still known as closed."""

    handle_hash: str
    closed_ms: int


class ClosedRow(Struct, frozen=True):
    """How a budget stood when it had closed, and where its entries are; by its handle's hash, no longer than that is
    known. No restart reads it."""

    told: Snapshot
    trail: str
    since: int
