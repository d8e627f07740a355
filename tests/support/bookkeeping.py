"""What every operation on the ledger means, said with the recount: each answers how it ends, and writes it down.

An operation answers None where it works, the kind of an error, or why it is refused. `log` and `told` have what the
ledger has to note and to tell of it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from llmd.books import UNITS, Unit
from llmd.clock import Now
from tests.support.recount import (
    DEPTH_MAX,
    KNOWN_MS,
    NOTHING,
    PERCENTS,
    UNLIMITED,
    Entry,
    Line,
    Node,
    Recount,
    Refused,
    Told,
    Units,
    Within,
    nonzero,
)

ErrorKind = Literal["invalid_params", "budget_closed"]
Lowered = dict[Unit, str]
Outcome = ErrorKind | Refused | Lowered | None


class Books(Recount):
    """`excused` has where more than the limit may be used: something was forced, overrun or lowered there."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: dict[str, int] = {}
        self.log: list[Entry] = []
        self.told: list[Told] = []
        self.excused: set[tuple[str, Unit]] = set()

    # -- budgets --------------------------------------------------------------------------------------------------

    def open(self, now: Now, node: Node) -> Outcome:
        if len(list(self.lineage(node.parent))) >= DEPTH_MAX:
            return "invalid_params"
        if node.parent is not None and self.nodes[node.parent].state != "open":
            return "budget_closed"
        if self._wrong_guarantee(node.parent, node.window is not None, node.limits, node.guarantee):
            return "invalid_params"

        def hang() -> Callable[[], None]:
            self.nodes[node.id] = node
            return lambda: self.nodes.__delitem__(node.id)

        refused = self.refused(now.wall_ms, node.parent, hang)
        if refused is None:
            hang()
            self._touch(now, node.id)
            self._log("open", node.id, node.limits, {}, False)
        return refused

    def _wrong_guarantee(
        self, node: str | None, window: bool, limits: dict[Unit, int], guarantee: dict[Unit, int]
    ) -> bool:
        windowed = window or (node is not None and self.is_windowed(node))
        above = any(amount > limits.get(unit, UNLIMITED) for unit, amount in guarantee.items())
        return above or (windowed and any(guarantee.values()))

    def resize(self, now: Now, name: str, limits: dict[Unit, int], guarantee: dict[Unit, int]) -> Outcome:
        node = self.nodes[name]
        if node.state != "open":
            return "budget_closed"
        if self._wrong_guarantee(name, False, limits, guarantee):
            return "invalid_params"
        if lowered := self._too_low(now, node, limits):
            return lowered

        def change() -> Callable[[], None]:
            before, node.guarantee = node.guarantee, guarantee
            return lambda: setattr(node, "guarantee", before)

        refused = self.refused(now.wall_ms, node.parent, change)
        if refused is None:
            node.guarantee = guarantee
            self.set_limits(name, limits)
            if node.window is not None:  # only its present window was looked at
                self.excused |= {(name, unit) for unit in UNITS}
        return refused

    def _too_low(self, now: Now, node: Node, limits: dict[Unit, int]) -> Lowered:
        """By unit: why its limit cannot be so low."""
        within, lowered = self.within(node.id, now.wall_ms), {}
        for unit in UNITS:
            limit = limits.get(unit, UNLIMITED)
            if limit < node.limits.get(unit, UNLIMITED) and limit < self.used(node.id, within, False)[unit]:
                spent = limit < self.used(node.id, within, True)[unit]
                lowered[unit] = "budget_exceeded" if spent else "budget_busy"
        return lowered

    def set_limits(self, name: str, limits: dict[Unit, int]) -> None:
        self.nodes[name].limits = limits
        self.changed()
        self._forget_told(name)
        self._log("resize", name, limits, {}, False)

    def configure(self, name: str, limits: dict[Unit, int]) -> None:
        """As the configuration says: unchecked."""
        self.excused |= {(name, unit) for unit in UNITS}
        self.set_limits(name, limits)

    def close(self, now: Now, name: str) -> set[int]:
        """Returns the holds that stood below."""
        below = set(self.subtree(name))
        holds = [line for line in self.open_lines() if line.node in below]
        for node in below:
            if self.nodes[node].state == "open":
                self.nodes[node].state = "draining"
                self._log("drain", node, {}, {}, False)
        self.changed()
        for line in holds:
            if not line.dispatched:
                self.void(now, line)
        self.finish(now)
        return {line.number for line in holds}

    def finish(self, now: Now) -> None:
        for node in self.nodes.values():
            if node.state == "draining" and not self.is_holding(node.id):
                node.state, node.closed_ms = "closed", now.wall_ms
                self._log("close", node.id, {}, {}, False)

    def fold(self, name: str, *, uncertain_too: bool = False) -> bool:
        node, own = self.nodes[name], [line for line in self.lines if line.node == name]
        if node.state != "closed" or self.children(name):
            return False
        if any(line.uncertain for line in own) and not uncertain_too:
            return False
        for line in own:
            line.forgotten = True
            if node.parent is None:
                self.lines.remove(line)
            else:
                line.node = node.parent
        del self.nodes[name]
        self.gone[name] = node.closed_ms
        self.changed()
        return True

    def forgotten(self, now: Now, gone: set[str], numbers: set[int], folded: set[str]) -> None:
        """The ledger has let go of these: each is a day old, or in a budget whose closing is."""
        before = now.wall_ms - KNOWN_MS
        assert all(self.gone.pop(name) < before for name in gone)
        for line in self.lines:
            if line.uncertain and not line.forgotten and line.number in numbers:
                assert line.posted_ms < before or line.node in folded
                line.forgotten = True
        for name in reversed([name for name in self.nodes if name in folded]):
            assert self.nodes[name].closed_ms < before
            assert self.fold(name, uncertain_too=True)

    # -- holds ----------------------------------------------------------------------------------------------------

    def reserve(self, now: Now, name: str, amounts: Units, number: int) -> Outcome:
        line = Line(number, name, self.windows(name, now.wall_ms), amounts, amounts, NOTHING)
        outcome = self._add(now, line)
        if outcome is None:
            self._touch(now, name)
        return outcome

    def charge(self, now: Now, name: str, amounts: Units, *, force: bool) -> Outcome:
        line = Line(0, name, self.windows(name, now.wall_ms), amounts, NOTHING, amounts)
        outcome = self._add(now, line, force=force)
        if outcome is None:
            self._touch(now, name)
            self._log("charge", name, nonzero(amounts), {}, False)
            self._tell_thresholds(line)
        return outcome

    def undo(self, line: Line) -> None:
        self._log("undo", line.node, nonzero(line.settled), {}, False)
        self.lines.remove(line)
        self.changed()

    def _add(self, now: Now, line: Line, *, force: bool = False) -> Outcome:
        if self.nodes[line.node].state != "open":
            return "budget_closed"

        def spend() -> Callable[[], None]:  # not hold: what is asked for is there with every other hold at 0 too
            self.lines.append(replace(line, held=NOTHING, settled=line.asked))
            return lambda: self.lines.__delitem__(-1)

        if force:
            self.excuse(line, line.asked)
        elif (refused := self.refused(now.wall_ms, line.node, spend)) is not None:
            return refused
        self.lines.append(line)
        self.changed()
        return None

    def dispatch(self, line: Line) -> None:
        line.dispatched = True

    def settle(self, now: Now, line: Line, actual: Units, *, uncertain: bool = False) -> None:
        line.held, line.settled, line.uncertain, line.posted_ms = NOTHING, actual, uncertain, now.wall_ms
        line.forgotten = not uncertain
        over = line.figure("overrun")
        self.excuse(line, over)
        self._log("settle", line.node, nonzero(actual), nonzero(line.asked), uncertain)
        self._resolved(now, line, over)

    def void(self, now: Now, line: Line) -> None:
        line.held, line.forgotten = NOTHING, True
        self._log("void", line.node, {}, nonzero(line.asked), False)
        self._resolved(now, line, NOTHING)

    def expire(self, now: Now, line: Line) -> None:
        if line.dispatched:
            self.settle(now, line, line.asked, uncertain=True)
        else:
            self.void(now, line)

    def reconcile(self, line: Line, truth: Units) -> None:
        posted, line.settled = line.settled, truth
        line.uncertain, line.forgotten = False, True
        self.excuse(line, {unit: truth[unit] - posted[unit] for unit in UNITS})
        known = {unit: max(line.asked[unit], posted[unit]) for unit in UNITS}
        self._log("reconcile", line.node, nonzero(truth), nonzero(line.asked), False)
        self.changed()
        self._tell(line, {unit: truth[unit] - known[unit] for unit in UNITS})

    def recover(self, now: Now) -> None:
        """What a restart makes of this."""
        for name, node in self.nodes.items():
            node.touched = now.mono
            self._forget_told(name)
        for line in self.open_lines():
            self.expire(now, line)

    # -- parts ----------------------------------------------------------------------------------------------------

    def changed(self) -> None:
        self.answers.clear()

    def excuse(self, line: Line, more: Units) -> None:
        self.excused |= {(node.id, unit) for node in self.lineage(line.node) for unit in UNITS if more[unit] > 0}

    def _log(self, what: str, name: str, amounts: dict[Unit, int], held: dict[Unit, int], uncertain: bool) -> None:
        path = "/".join([node.id for node in self.lineage(name)][::-1])
        self.log.append((what, path, amounts, held, uncertain))

    def _touch(self, now: Now, name: str) -> None:
        self.changed()
        for node in self.lineage(name):
            node.touched = now.mono

    def _resolved(self, now: Now, line: Line, over: Units) -> None:
        self._touch(now, line.node)
        self._tell(line, over)
        self.finish(now)

    def _tell(self, line: Line, over: Units) -> None:
        self.told += [(line.node, unit, None) for unit in UNITS if over[unit] > 0]
        self._tell_thresholds(line)

    def _tell_thresholds(self, line: Line) -> None:
        for node in self.lineage(line.node):
            within = None if node.window is None else (node.id, line.windows[node.id])
            for unit in UNITS:
                reached = self._reached(node, within, unit)
                if reached > node.told.get((within, unit), 0):
                    node.told[within, unit] = reached
                    self.told.append((node.id, unit, reached))

    def _reached(self, node: Node, within: Within, unit: Unit) -> int:
        """The most percents of its limit that are spent."""
        limit, settled = node.limit(unit), self.total(node.id, "settled", within)[unit]
        if limit == UNLIMITED or not settled:
            return 0
        return max((percent for percent in PERCENTS if settled * 100 >= limit * percent), default=0)

    def _forget_told(self, name: str) -> None:
        """With another limit, only what is reached from now on is told."""
        node = self.nodes[name]
        node.told.clear()
        spans = {line.windows[name] for line in self.lines if name in line.windows}
        for within in [None] if node.window is None else [(name, span) for span in spans]:
            for unit in UNITS:
                node.told[within, unit] = self._reached(node, within, unit)
