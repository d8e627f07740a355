"""A second ledger, slow and obviously right: it keeps what happened, and counts everything anew for every question.

Shares nothing with llmd.core but the words of llmd.books. What the fast one finds by walking a path, this one finds by
doing the thing, counting the whole tree again, and undoing it. Amounts are plain integers by unit.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Literal, TypeVar, cast

from llmd.books import UNITS, Enforcement, State, Unit, Window
from tests.support.calendar import begin, end

UNLIMITED = 2**53 - 1
DEPTH_MAX = 64
KNOWN_MS = 24 * 3600 * 1000
PERCENTS = (80, 95, 100)

Units = dict[Unit, int]
Within = tuple[str, int] | None  # a budget, and when the window of it began that is counted; None counts everything
Question = TypeVar("Question", bound=Callable[..., Any])
Figure = Literal["held", "settled", "uncertain", "overrun"]
Told = tuple[str, Unit, int | None]
Entry = tuple[
    str, str, dict[Unit, int], dict[Unit, int], bool
]  # what, the path to where, amounts, held, whether uncertain


def units(given: dict[Unit, int]) -> Units:
    return {unit: given.get(unit, 0) for unit in UNITS}


def nonzero(amounts: Units) -> Units:
    return {unit: amount for unit, amount in amounts.items() if amount}


NOTHING = units({})


@dataclass(eq=False)
class Node:
    """A budget. `told` has the percents of its limits that were told, by window and unit."""

    id: str
    parent: str | None
    limits: dict[Unit, int]
    guarantee: dict[Unit, int]
    window: Window | None = None
    enforcement: Enforcement = "strict"
    label: str | None = None
    state: State = "open"
    closed_ms: int = 0
    touched: float = 0.0
    told: dict[tuple[Within, Unit], int] = field(default_factory=dict)

    def limit(self, unit: Unit) -> int:
        return UNLIMITED if self.enforcement == "track" else self.limits.get(unit, UNLIMITED)


@dataclass(eq=False)
class Line:
    """A hold and what became of it, or with `number` 0 a charge. `windows` has by budget the window that it is in."""

    number: int
    node: str
    windows: dict[str, int]
    asked: Units
    held: Units
    settled: Units
    dispatched: bool = False
    uncertain: bool = False
    forgotten: bool = False
    posted_ms: int = 0

    @property
    def is_open(self) -> bool:
        return any(self.held.values())

    def figure(self, figure: Figure) -> Units:
        if figure == "held":
            return self.held
        if figure == "uncertain":
            return self.settled if self.uncertain else NOTHING
        if figure == "overrun":
            return {unit: max(0, self.settled[unit] - self.asked[unit]) for unit in UNITS}
        return self.settled


@dataclass
class Refused:
    """Why, by the book: `refusing` has what decided it, `limiting` those of them that may be named."""

    contended: bool
    budget: str
    refusing: list[tuple[str, Unit]]
    limiting: set[tuple[str, Unit]]
    requested: Units
    available: Units
    max_fit: Units


def remembered(question: Question) -> Question:
    """The answer stays right until something changes."""

    @wraps(question)
    def ask(self: "Recount", *about: Any) -> Any:
        key = (question.__name__, *about)
        if key not in self.answers:
            self.answers[key] = question(self, *about)
        return self.answers[key]

    return cast(Question, ask)


class Recount:
    """What there is, and every question about it by the formulas alone."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.lines: list[Line] = []
        self.answers: dict[Any, Any] = {}

    # -- the tree -------------------------------------------------------------------------------------------------

    @remembered
    def children(self, node: str) -> list[str]:
        return [child.id for child in self.nodes.values() if child.parent == node]

    def lineage(self, node: str | None) -> Iterator[Node]:
        while node is not None:
            yield self.nodes[node]
            node = self.nodes[node].parent

    def subtree(self, node: str) -> list[str]:
        return [node, *(below for child in self.children(node) for below in self.subtree(child))]

    def is_windowed(self, node: str) -> bool:
        return any(above.window is not None for above in self.lineage(node))

    def is_holding(self, node: str) -> bool:
        below = set(self.subtree(node))
        return any(line.is_open for line in self.lines if line.node in below)

    def open_lines(self) -> list[Line]:
        return [line for line in self.lines if line.is_open]

    def within(self, node: str, wall_ms: int) -> Within:
        """What of a budget counts at this moment."""
        window = self.nodes[node].window
        return None if window is None else (node, begin(window, wall_ms))

    def windows(self, node: str, wall_ms: int) -> dict[str, int]:
        return {above.id: begin(above.window, wall_ms) for above in self.lineage(node) if above.window is not None}

    # -- sums -----------------------------------------------------------------------------------------------------

    @remembered
    def own(self, node: str, figure: Figure, within: Within) -> Units:
        lines = [line for line in self.lines if line.node == node]
        if within is not None:
            lines = [line for line in lines if line.windows[within[0]] == within[1]]
        figures = [line.figure(figure) for line in lines]
        return {unit: sum(amounts[unit] for amounts in figures) for unit in UNITS}

    @remembered
    def total(self, node: str, figure: Figure, within: Within) -> Units:
        """Over the whole subtree."""
        parts = [self.own(node, figure, within)]
        parts += [self.total(child, figure, within) for child in self.children(node)]
        return {unit: sum(part[unit] for part in parts) for unit in UNITS}

    @remembered
    def used(self, node: str, within: Within, firm: bool) -> Units:
        """U(b) = S + H + C; `firm` with every hold at 0."""
        parts = [self.own(node, "settled", within)]
        if not firm:
            parts.append(self.own(node, "held", within))
        parts += [self.draw(child, within, firm) for child in self.children(node)]
        return {unit: sum(part[unit] for part in parts) for unit in UNITS}

    def draw(self, node: str, within: Within, firm: bool) -> Units:
        used: Units = self.used(node, within, firm)
        budget = self.nodes[node]
        if budget.state != "open":
            return used
        return {unit: max(budget.guarantee.get(unit, 0), used[unit]) for unit in UNITS}

    @remembered
    def left(self, node: str, wall_ms: int, firm: bool) -> Units:
        """L - U at the budget itself."""
        used = self.used(node, self.within(node, wall_ms), firm)
        return {unit: self.nodes[node].limit(unit) - used[unit] for unit in UNITS}

    @remembered
    def available(self, node: str, wall_ms: int, firm: bool = False) -> Units:
        """avail(b), which may be below 0."""
        left, parent = self.left(node, wall_ms, firm), self.nodes[node].parent
        if parent is None:
            return left
        within = self.within(node, wall_ms)
        used, draw = self.used(node, within, firm), self.draw(node, within, firm)
        above = self.available(parent, wall_ms, firm)  # min(L_p - U_p, up(p))
        return {unit: min(left[unit], draw[unit] - used[unit] + max(0, above[unit])) for unit in UNITS}

    def could(self, node: str, wall_ms: int, firm: bool = False) -> Units:
        return {unit: max(0, amount) for unit, amount in self.available(node, wall_ms, firm).items()}

    # -- refusals -------------------------------------------------------------------------------------------------

    @contextmanager
    def supposing(self, change: Callable[[], Callable[[], None]]) -> Iterator[None]:
        """As if it had happened; `change` returns its undoing."""
        self.answers.clear()
        undo = change()
        yield
        undo()
        self.answers.clear()

    def refused(self, wall_ms: int, node: str | None, change: Callable[[], Callable[[], None]]) -> Refused | None:
        """Whether somewhere from `node` up more would be used than there is, once `change` is made."""
        path = [above.id for above in self.lineage(node)]

        def uses() -> dict[bool, dict[str, Units]]:
            return {
                firm: {above: self.used(above, self.within(above, wall_ms), firm) for above in path}
                for firm in (False, True)
            }

        before = uses()
        with self.supposing(change):
            after = uses()
        grown = {
            firm: {
                (above, unit): after[firm][above][unit] - before[firm][above][unit] for above in path for unit in UNITS
            }
            for firm in (False, True)
        }
        refusing = {
            firm: [
                (above, unit)
                for (above, unit), more in grown[firm].items()
                if more > 0 and after[firm][above][unit] > self.nodes[above].limit(unit)
            ]
            for firm in (False, True)
        }
        if not refusing[False]:
            return None
        assert node is not None, "nothing stands above a root"
        firm = bool(refusing[True])
        lefts = {(above, unit): self.left(above, wall_ms, firm)[unit] for above, unit in refusing[firm]}
        return Refused(
            contended=not firm,
            budget=node,
            refusing=refusing[firm],
            limiting={place for place, left in lefts.items() if left == min(lefts.values())},
            requested={unit: grown[firm][node, unit] for unit in UNITS},
            available=self.could(node, wall_ms),
            max_fit=self.could(node, wall_ms, True),
        )

    def retry_after_ms(self, refused: Refused, wall_ms: int) -> int | None:
        """Until all windows have ended that are used up, where nothing else refuses and an empty one could take it."""
        ends = []
        for node, unit in refused.refusing:
            window = self.nodes[node].window
            if window is None or refused.requested[unit] > self.nodes[node].limit(unit):
                return None
            ends.append(end(window, wall_ms))
        return max(ends) - wall_ms
