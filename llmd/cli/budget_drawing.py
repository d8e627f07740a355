"""Budgets for a person's eye: a tree with bars, and a statement as a table.

Turns what `budget.tree` and `budget.statement` answer, decoded from JSON, into lines of rich's Text; asks nobody and
prints nothing. What a newer daemon adds is not drawn; text that others chose cannot steer the terminal.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any, NamedTuple

from rich.text import Text

from llmd.books import NANO, UNITS
from llmd.cli.printable import tame

BAR_MIN, BAR_MAX = 4, 20

GAP = 2
COLUMN_MIN = 8
UNBOUNDED = 10**6

_POWERS = ("", "k", "M", "G", "T", "P")
_WORDS = {
    "total_tokens": "tokens",
    "input_tokens": "input",
    "output_tokens": "output",
    "requests": "requests",
    "nano_usd": "USD",
}

Json = Mapping[str, Any]
"""An object as it was decoded: a Branch, Snapshot or Entry of llmd.books, perhaps with more members."""


class Glyphs(NamedTuple):
    """What trees and bars are made of. The guides have one width."""

    fork: str
    end: str
    line: str
    gap: str
    settled: str
    held: str
    free: str


BLOCKS = Glyphs("├─ ", "└─ ", "│  ", "   ", "█", "▒", "░")
PLAIN = Glyphs("|- ", "`- ", "|  ", "   ", "#", "=", ".")


def glyphs(encoding: str) -> Glyphs:
    """The blocks where this encoding has them."""
    try:
        "".join(BLOCKS).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return PLAIN
    return BLOCKS


# -- amounts ----------------------------------------------------------------------------------------------------------


def short(unit: str, amount: int) -> str:
    """About how much: "999", "1.2k", "$0.0123"."""
    if unit == "nano_usd":
        dollars = amount / NANO
        return f"${_two_places(f'{dollars:.2f}' if abs(dollars) >= 1 else _significant(dollars))}"
    power = 0
    while power < len(_POWERS) - 1 and abs(amount) >= 999.95 * 1000**power:
        power += 1
    return f"{amount / 1000**power:.1f}".removesuffix(".0") + _POWERS[power]


def _significant(dollars: float) -> str:
    """Three digits that say something, and no exponent."""
    return f"{float(f'{dollars:.3g}'):.12f}"


def _two_places(decimal: str) -> str:
    """Without the zeros behind, but for cents."""
    whole, _, places = decimal.partition(".")
    return f"{whole}.{places.rstrip('0'):0<2}" if places.strip("0") or whole not in ("0", "-0") else "0"


def exact(unit: str, amount: int) -> str:
    """To the last token and nano-dollar."""
    if unit != "nano_usd":
        return str(amount)
    sign, (whole, places) = "-" if amount < 0 else "", divmod(abs(amount), NANO)
    return f"{sign}${_two_places(f'{whole}.{places:09}')}"


def amounts(by_unit: Mapping[str, int | None], figures: Callable[[str, int], str] = short) -> str:
    """Those that are not 0, as in "1.2k tokens, $0.50"."""
    return ", ".join(_worded(unit, figures(unit, amount)) for unit in UNITS if (amount := by_unit.get(unit)))


def _worded(unit: str, figures: str) -> str:
    if unit == "nano_usd":
        return figures
    return f"{figures} {_WORDS[unit].removesuffix('s') if figures == '1' else _WORDS[unit]}"


# -- bars -------------------------------------------------------------------------------------------------------------


def cells(settled: int, held: int, limit: int, width: int) -> tuple[int, int, int]:
    """How much of a bar is settled, held and free. The least is seen, and only a budget that is full looks full."""

    def reach(amount: int) -> int:
        if amount <= 0 or amount >= limit:
            return 0 if amount <= 0 < limit else width
        return max(1, min(width - 1, round(width * amount / limit)))

    first, second = reach(settled), reach(settled + held)
    return first, second - first, width - second


def bar(settled: int, held: int, limit: int, width: int, drawn: Glyphs) -> Text:
    full, taken, free = cells(settled, held, limit, width)
    return Text.assemble(
        (drawn.settled * full, "red" if settled >= limit else "green"),
        (drawn.held * taken, "yellow"),
        (drawn.free * free, "dim"),
    )


# -- the tree ---------------------------------------------------------------------------------------------------------


def tree(branches: Sequence[Json], drawn: Glyphs = BLOCKS, width: int | None = None) -> list[Text]:
    """One line a budget, and a column for each unit that is limited somewhere among them.

    `width` is what there is, None for as much as it takes: first the bars give way, then the remarks, then the names.
    """
    if not branches:
        return [Text("there are no budgets")]
    rows = list(_rows(branches, drawn, "", top=True))
    limited = [unit for unit in UNITS if any(unit in branch["limits"] for _, branch in rows)]
    shown = limited or UNITS[:1]
    names = [Text("budget", style="dim"), *(_name(guide, branch) for guide, branch in rows)]
    figures = [[Text(_WORDS[unit], style="dim"), *(_figures(branch, unit) for _, branch in rows)] for unit in shown]
    remarks = [Text(), *(_remarks(branch) for _, branch in rows)]

    texts = [names, *figures, *([remarks] if any(remarks) else [])]
    left = UNBOUNDED if width is None else width - sum(_width(column) + GAP for column in texts) + GAP
    length = min(BAR_MAX, left // len(shown) - GAP)
    columns = [names]
    for unit, told in zip(shown, figures, strict=True):
        if limited and length >= BAR_MIN:
            columns.append([Text(), *(_bar(branch, unit, length, drawn) for _, branch in rows)])
        columns.append(told)
    _narrow(names, _narrow(remarks, -left, drawn), drawn)
    return _lines([*columns, remarks])


def _narrow(column: Sequence[Text], excess: int, drawn: Glyphs) -> int:
    """Take the excess from this column as far as it goes; what of it remains."""
    had = _width(column)
    width = min(had, max(COLUMN_MIN, had - excess))
    for text in column:
        text.truncate(width, overflow="ellipsis" if drawn is BLOCKS else "crop")
    return excess - (had - width)


def _lines(columns: Sequence[Sequence[Text]], right: frozenset[int] = frozenset()) -> list[Text]:
    """The columns side by side, each as wide as its widest; those with a number in `right` end together."""
    widths = [_width(column) for column in columns]
    lines = []
    for row in zip(*columns, strict=True):
        line = Text(no_wrap=True, overflow="crop")
        for place, (text, width) in enumerate(zip(row, widths, strict=True)):
            gap = " " * (width - text.cell_len)
            line.append_text(Text.assemble(gap, text) if place in right else Text.assemble(text, gap)).append(" " * GAP)
        line.rstrip()
        lines.append(line)
    return lines


def _width(column: Sequence[Text]) -> int:
    return max(text.cell_len for text in column)


def _rows(branches: Sequence[Json], drawn: Glyphs, indent: str, *, top: bool = False) -> Iterator[tuple[str, Json]]:
    """Every budget with what stands before its name, depth first."""
    for place, branch in enumerate(branches, 1):
        last = place == len(branches)
        yield ("" if top else indent + (drawn.end if last else drawn.fork)), branch
        inner = "" if top else indent + (drawn.gap if last else drawn.line)
        yield from _rows(branch.get("below", ()), drawn, inner)


def _name(guide: str, branch: Json) -> Text:
    name = Text(guide, style="dim")
    if branch["label"]:
        name.append(f"{tame(branch['label'])}  ", style="not dim bold")
    name.append(tame(branch["id"]))
    if branch["state"] != "open":
        name.append(f"  {tame(branch['state'])}", style="not dim yellow")
    return name


def _figures(branch: Json, unit: str) -> Text:
    used = short(unit, branch["settled"].get(unit, 0) + branch["held"].get(unit, 0))
    limit = branch["limits"].get(unit)
    return Text(used, style="dim") if limit is None else Text(f"{used}/{short(unit, limit)}")


def _bar(branch: Json, unit: str, width: int, drawn: Glyphs) -> Text:
    limit = branch["limits"].get(unit)
    settled, held = branch["settled"].get(unit, 0), branch["held"].get(unit, 0)
    return Text() if limit is None else bar(settled, held, limit, width, drawn)


def _remarks(branch: Json) -> Text:
    remarks = []
    if branch.get("window"):
        remarks.append((f"per {tame(branch['window'])}", ""))
    if branch.get("enforcement", "strict") != "strict":
        remarks.append((tame(branch["enforcement"]), ""))
    for member, style in (("guarantee", ""), ("uncertain", "yellow"), ("overrun", "red")):
        if told := amounts(branch[member]):
            remarks.append((f"{member} {told}", style))
    if branch["state"] == "open" and (told := ", ".join(_scarce(branch))):
        remarks.append((f"available {told}", ""))
    return Text("; ").join(Text(remark, style=style) for remark, style in remarks)


def _scarce(branch: Json) -> Iterator[str]:
    """What is less than the bar shows as free: set aside for those below, or not there above."""
    for unit, limit in branch["limits"].items():
        free = limit - branch["settled"].get(unit, 0) - branch["held"].get(unit, 0)
        available = branch["available"].get(unit)
        if available is not None and available < free:
            yield _worded(unit, short(unit, available))


# -- the statement ----------------------------------------------------------------------------------------------------

_LIMITS_TOLD = frozenset({"open", "resize"})  # their amounts are limits, which are no spending
_TOTALS = ("settled", "held", "uncertain", "overrun")


def statement(budget: Json, entries: Sequence[Json], zone: tzinfo | None = None) -> list[Text]:
    """What happened, oldest first, in exact amounts, and below it where the budget stands. `zone` None is local."""
    posted = [{} if entry["kind"] in _LIMITS_TOLD else entry.get("amounts", {}) for entry in entries]
    totals = {name: budget[name] for name in _TOTALS if name == "settled" or any(budget[name].values())}
    if budget["limits"]:
        totals["limit"] = budget["limits"]
    shown = [unit for unit in UNITS if any(row.get(unit) for row in (*posted, *totals.values()))]
    head = ["time", "budget", "kind", *(_WORDS[unit] for unit in shown), "note"]
    rows = [[Text(title, style="dim") for title in head]]
    for entry, row in zip(entries, posted, strict=True):
        told = [exact(unit, row[unit]) if row.get(unit) else "" for unit in shown]
        texts = [_time(entry["at_ms"], zone), entry["budget"], entry["kind"], *told, _note(entry)]
        rows.append([Text(tame(text)) for text in texts])
    window = f"this {budget['window']}" if budget.get("window") else ""
    for name, total in totals.items():
        told = [exact(unit, total[unit]) if unit in total else "" for unit in shown]
        rows.append([Text(tame(text), style="bold") for text in ["", budget["id"], name, *told, window]])
    return _lines(list(zip(*rows, strict=True)), right=frozenset(range(3, 3 + len(shown))))


def _time(at_ms: int, zone: tzinfo | None) -> str:
    return datetime.fromtimestamp(at_ms / 1000, zone).strftime("%Y-%m-%d %H:%M:%S")


def _note(entry: Json) -> str:
    limits = amounts(entry.get("amounts", {}), exact) if entry["kind"] in _LIMITS_TOLD else ""
    parts = [
        f"limit {limits}" if limits else "",
        entry.get("target") or "",
        "uncertain" if entry.get("uncertain") else "",
        entry.get("note") or "",
    ]
    return "; ".join(part for part in parts if part)
