"""One budget of the tree: its terms, where it hangs, and the accounts that count it."""

from collections.abc import Iterator
from datetime import UTC, tzinfo

from msgspec import Struct

from llmd.books import Allow, Enforcement, State, Unit, Window
from llmd.clock import Now
from llmd.core.accounts import Account, Path
from llmd.core.amounts import UNLIMITED, Packed, pack
from llmd.core.windows import Span, span

WINDOWS_KEPT = 64  # of a budget: more than two days of hours


class Terms(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a budget was opened with, and what resizing has made of it.

    zone     whose hours and days its windows are
    lease_s  None for one that lives until it is closed
    """

    limits: dict[Unit, int] = {}
    guarantee: dict[Unit, int] = {}
    window: Window | None = None
    zone: str = "UTC"
    label: str | None = None
    enforcement: Enforcement = "strict"
    allow: Allow | None = None
    lease_s: int | None = None
    configured: bool = False


class Budget:
    """A node; only the ledger changes it.

    own_*       what was posted here and in what was folded into it, over its whole life
    trail       the ids from the root down to it, "a/b/c"
    touched     when it or anything below it was last used, in seconds of the forward clock
    doomed      when it closes with cancel because its connection has gone
    due         when its lease is looked at next
    since       the number of the journal's last entry when it was opened: nothing of it comes before
    windows     by label; those in which something was posted or is held last
    horizon_ms  where the oldest window begins that is kept, once there were too many
    """

    __slots__ = (
        "_current",
        "_path",
        "_span",
        "children",
        "closed_ms",
        "connection",
        "depth",
        "doomed",
        "due",
        "handle_hash",
        "horizon_ms",
        "id",
        "life",
        "own_overrun",
        "own_settled",
        "own_uncertain",
        "parent",
        "since",
        "state",
        "terms",
        "touched",
        "trail",
        "windows",
        "zone",
    )

    def __init__(
        self, identifier: str, parent: "Budget | None", terms: Terms, handle_hash: str | None, zone: tzinfo = UTC
    ) -> None:
        self.id = identifier
        self.parent = parent
        self.terms = terms
        self.handle_hash = handle_hash
        self.zone = zone
        self.depth: int = 1 if parent is None else parent.depth + 1
        self.trail: str = identifier if parent is None else f"{parent.trail}/{identifier}"
        self.children: dict[str, Budget] = {}
        self.state: State = "open"
        self.closed_ms: int | None = None
        self.connection = False
        self.doomed: float | None = None
        self.due: float | None = None
        self.since = 0
        self.touched = 0.0
        self.own_settled: Packed = 0
        self.own_uncertain: Packed = 0
        self.own_overrun: Packed = 0
        self.life = Account(self)
        self.windows: dict[str, Account] = {}
        self.horizon_ms = 0
        self._span: Span | None = None
        self._current = self.life
        # A path through a windowed budget is another one in every window.
        windowed = terms.window is not None or (parent is not None and parent._path is None)
        self._path: Path | None = None if windowed else (self.life, *(() if parent is None else parent._path or ()))
        self.apply_terms(terms)

    # -- terms ----------------------------------------------------------------------------------------------------

    def apply_terms(self, terms: Terms) -> None:
        """Take these limits from now on; the guarantee is the ledger's to move."""
        self.terms = terms
        for account in (self.life, *self.windows.values()):
            account.limit(self._limits)

    @property
    def _limits(self) -> Packed:
        return UNLIMITED if self.terms.enforcement == "track" else pack(self.terms.limits, UNLIMITED)

    def lineage(self) -> Iterator["Budget"]:
        """From this budget up to its root."""
        budget: Budget | None = self
        while budget is not None:
            yield budget
            budget = budget.parent

    def is_within(self, other: "Budget") -> bool:
        """Whether this is `other` or below it."""
        return any(budget is other for budget in self.lineage())

    def subtree(self) -> list["Budget"]:
        """This budget and all below it, each behind its parent."""
        found = [self]
        for budget in found:
            found += budget.children.values()
        return found

    @property
    def is_windowed(self) -> bool:
        """Whether this budget or one above it has a window."""
        return self._path is None

    @property
    def is_holding(self) -> bool:
        """Whether a hold is open here or below."""
        return bool(self.life.held) or any(account.held for account in self.windows.values())

    def fixed_labels(self) -> dict[str, str]:
        """The labels that the path fixes; the uppermost budget's word counts."""
        return {
            name: value
            for budget in self.lineage()
            if budget.terms.allow is not None
            for name, value in budget.terms.allow.labels.items()
        }

    def forbids(self, provider: str, model: str) -> "Budget | None":
        """The budget of the path that does not allow this target."""
        for budget in self.lineage():
            allow = budget.terms.allow
            if allow is not None and (
                (allow.providers is not None and provider not in allow.providers)
                or (allow.models is not None and f"{provider}/{model}" not in allow.models)
            ):
                return budget
        return None

    # -- accounts -------------------------------------------------------------------------------------------------

    def path(self, now: Now) -> Path:
        """The accounts that count now, from this budget to its root."""
        return self._path or [budget.account(now) for budget in self.lineage()]

    def above(self, now: Now) -> Path:
        return self.parent.path(now) if self.parent is not None else ()

    def account(self, now: Now) -> Account:
        """The one that counts now."""
        if self.terms.window is None:
            return self.life
        if self._span is None or not self._span.start_ms <= now.wall_ms < self._span.end_ms:
            # Behind the horizon nothing is kept: a clock that jumps so far back counts in the oldest that is.
            current = span(self.terms.window, max(now.wall_ms, self.horizon_ms), self.zone)
            self._current, self._span = self.window(current), current
        return self._current

    def window(self, span: Span) -> Account:
        """The account of this window; a new one, if it has none yet."""
        if span.label not in self.windows:
            self._keep([account for account in self.windows.values() if account.posted or account.held])
            self.windows[span.label] = account = Account(self, span)
            account.limit(self._limits)
        return self.windows[span.label]

    def outdated_windows(self) -> list[Account]:
        """Let go of the oldest where there are more than WINDOWS_KEPT, but for those with open holds."""
        if len(self.windows) <= WINDOWS_KEPT:
            return []
        windows = sorted(self.windows.values(), key=_start_ms)
        self.horizon_ms = _start_ms(windows[-WINDOWS_KEPT])
        outdated = [account for account in windows[:-WINDOWS_KEPT] if not account.held]
        self._keep([account for account in windows if account not in outdated])
        return outdated

    def _keep(self, windows: list[Account]) -> None:
        self.windows = {account.window.label: account for account in windows if account.window is not None}
        self._span = None  # the current one may have gone


def _start_ms(account: Account) -> int:
    assert account.window is not None
    return account.window.start_ms
