"""The words of budgets: what is limited, what was spent, and how it is told.

Owns the shapes that `budget.*` takes and answers (protocol 1). Every map of amounts has the units as its keys; money is
an integer of nano-USD.
"""

import re
from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct

from llmd.scalars import AMOUNT_MAX, Amount, Millis, Name, Positive, Token

Unit = Literal["total_tokens", "input_tokens", "output_tokens", "requests", "nano_usd"]
UNITS: tuple[Unit, ...] = get_args(Unit)

NANO = 10**9
_DOLLARS = re.compile(r"([0-9]+)(?:[.]([0-9]{1,9}))?")

State = Literal["open", "draining", "closed"]
Window = Literal["hour", "day", "week", "month"]
Scope = Literal["lease", "connection"]
Enforcement = Literal["track", "estimate", "strict"]
"""What a limit means, from the loosest on: it is only counted, holds are estimates, holds are sound bounds."""


class Amounts(Struct, frozen=True, kw_only=True):
    """One amount in each unit. What a budget holds and settles."""

    total_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0
    nano_usd: int = 0


class GivenAmounts(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Amounts as a caller gives them, in some of the units; `usd` is a decimal string in the place of `nano_usd`."""

    total_tokens: Amount | None = None
    input_tokens: Amount | None = None
    output_tokens: Amount | None = None
    requests: Amount | None = None
    nano_usd: Amount | None = None
    usd: Annotated[str, Meta(max_length=32)] | None = None

    def __post_init__(self) -> None:
        if self.usd is not None:
            if self.nano_usd is not None:
                raise ValueError("give one of `usd` and `nano_usd`")
            _nano_usd(self.usd)

    def by_unit(self) -> dict[Unit, int]:
        """The units that are given."""
        given = {unit: amount for unit in UNITS if (amount := getattr(self, unit)) is not None}
        if self.usd is not None:
            given["nano_usd"] = _nano_usd(self.usd)
        return given


def _nano_usd(usd: str) -> int:
    if found := _DOLLARS.fullmatch(usd):
        nano = int(found[1]) * NANO + int((found[2] or "").ljust(9, "0"))
        if nano <= AMOUNT_MAX:
            return nano
    raise ValueError('`usd` is a decimal number of dollars as a string, at most nine places, as in "5.00"')


class Allow(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What a budget may be spent on: these providers, these models ("provider/model"), under these fixed labels."""

    providers: Annotated[list[Name], Meta(max_length=100)] | None = None
    models: Annotated[list[Name], Meta(max_length=100)] | None = None
    labels: Annotated[dict[Name, Name], Meta(max_length=100)] = {}


class Snapshot(Struct, frozen=True, kw_only=True):
    """One budget at one moment.

    settled held uncertain overrun  over the whole subtree; of a windowed budget, in its current window
    available  what a reserve here could get now; null for a unit that nothing on the path limits
    children   how many budgets are directly below
    lease_s    seconds without use after which it closes, null where it has no lease
    """

    id: str
    parent: str | None
    label: str | None
    state: State
    limits: dict[Unit, int]
    guarantee: dict[Unit, int]
    window: Window | None
    settled: Amounts
    held: Amounts
    uncertain: Amounts
    overrun: Amounts
    available: dict[Unit, int | None]
    children: int
    lease_s: int | None
    enforcement: Enforcement
    allow: Allow | None


class Branch(Snapshot, frozen=True, kw_only=True):
    """A snapshot with those of the budgets below it."""

    below: "list[Branch]"


class Tree(Struct, frozen=True, kw_only=True):
    """A page of budgets, depth first and nested; `cursor` asks for the rest, whose tops name their `parent`."""

    budgets: list[Branch]
    cursor: str | None


EntryKind = Literal["open", "settle", "void", "reconcile", "charge", "resize", "drain", "close", "undo"]


class Entry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a budget's history.

    at_ms       since the epoch
    budget      the id of the one that it happened to
    amounts     what was posted; of `open` and `resize`, the limits
    held        what had been held for it
    uncertain   whether what was posted is a bound, for want of the truth
    target      "provider/model" of a call
    """

    at_ms: int
    budget: str
    kind: EntryKind
    amounts: dict[Unit, int] = {}
    held: dict[Unit, int] = {}
    uncertain: bool = False
    request_id: str | None = None
    target: str | None = None
    note: str | None = None


class Statement(Struct, frozen=True, kw_only=True):
    """A budget and a page of what happened to it and below it, oldest first; `cursor` asks for the rest."""

    budget: Snapshot
    entries: list[Entry]
    cursor: str | None


class Opened(Snapshot, frozen=True, kw_only=True):
    """A budget that was opened: `budget` is its handle. Who has it may spend, and can give it away."""

    budget: str


Timeout = Annotated[int, Meta(ge=1, le=AMOUNT_MAX)]
PageSize = Annotated[int, Meta(ge=1, le=1000)]


class _Params(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    pass


class OpenParams(_Params, frozen=True, kw_only=True):
    """`limits`, or `total` for `limits.total_tokens`. Without a `parent` it is a root, or below the default budget.

    scope        "lease": until `lease_s` have passed without use; "connection": until this connection ends
    enforcement  the parent's unless given, but "strict" for limits below one that is "track"; never looser than that
    """

    parent: Name | None = None
    limits: GivenAmounts | None = None
    total: Amount | None = None
    guarantee: GivenAmounts = GivenAmounts()
    window: Window | None = None
    label: Name | None = None
    scope: Scope = "lease"
    lease_s: Positive = 3600
    enforcement: Enforcement | None = None
    allow: Allow | None = None
    idempotency_key: Token | None = None

    def __post_init__(self) -> None:
        if (self.limits is None) == (self.total is None):
            raise ValueError("give one of `limits` and `total`")


class ChargeParams(_Params, frozen=True, kw_only=True):
    """`amounts` were spent elsewhere. `force` posts them beyond a limit, too."""

    budget: Name
    amounts: GivenAmounts
    force: bool = False
    wait_ms: Millis = 0
    note: Name | None = None
    idempotency_key: Token | None = None

    def __post_init__(self) -> None:
        if not any(self.amounts.by_unit().values()):
            raise ValueError("`amounts` has nothing to charge")


class ResizeParams(_Params, frozen=True, kw_only=True):
    """What is left out stays. `child` is the public id of a budget below, which a handle may also raise."""

    budget: Name
    child: Name | None = None
    limits: GivenAmounts = GivenAmounts()
    guarantee: GivenAmounts = GivenAmounts()
    lease_s: Positive | None = None


class BudgetParams(_Params, frozen=True, kw_only=True):
    """A budget by its handle or its configured name; or by its public id with `owner`, for the daemon's own user."""

    budget: Name | None = None
    id: Name | None = None
    owner: bool = False

    def __post_init__(self) -> None:
        if (self.budget is None) == (self.id is None) or self.owner != (self.id is not None):
            raise ValueError("give `budget`, or `id` and `owner`")


class CloseParams(BudgetParams, frozen=True, kw_only=True):
    """ "drain" lets the calls in flight finish, "cancel" aborts them; `timeout_ms` ends the wait, not the closing."""

    mode: Literal["drain", "cancel"] = "drain"
    timeout_ms: Timeout = 600_000


class StatementParams(BudgetParams, frozen=True, kw_only=True):
    """With a `cursor`, the rest; also of a budget that has closed since, for a day."""

    cursor: Token | None = None
    limit: PageSize = 1000


class TreeParams(StatementParams, frozen=True, kw_only=True):
    """With `owner` alone, the roots."""

    def __post_init__(self) -> None:
        if not (self.owner and self.budget is None and self.id is None):
            super().__post_init__()


class WatchParams(_Params, frozen=True, kw_only=True):
    budget: Name
    watch: Token


class UnwatchParams(_Params, frozen=True, kw_only=True):
    """`budget` may be left out: the token says which."""

    watch: Token
    budget: Name | None = None


class BudgetUpdate(Snapshot, frozen=True, kw_only=True):
    """The params of an `llmd.budget` notification: the latest state of what is watched under this token."""

    watch: str
