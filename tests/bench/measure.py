"""Rounds, the least and the median of them, and the table."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

Lane = Callable[[], Mapping[str, float]]
"""Measures one thing once: values by name, in base units (seconds, bytes)."""

Samples = dict[str, list[float]]
"""By name, a value for each round."""

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "MB": 1e6, "KB": 1e3, "": 1.0}


@dataclass(frozen=True)
class Row:
    """One line of the table; `floor` is what `values` are to be compared with."""

    what: str
    unit: str
    values: Sequence[float]
    floor: Sequence[float] | None = None
    aim: str = ""


def interleaved(lanes: Sequence[Lane], rounds: int) -> Samples:
    """Every lane once without looking, then all of them in turn, `rounds` times."""
    for lane in lanes:
        lane()
    samples: Samples = {}
    for _ in range(rounds):
        for lane in lanes:
            for name, value in lane().items():
                samples.setdefault(name, []).append(value)
    return samples


def difference(values: Sequence[float], floor: Sequence[float]) -> list[float]:
    """What `values` are over `floor`, round by round."""
    return [value - least for value, least in zip(values, floor, strict=True)]


def cpu_s(pid: int) -> float:
    """User and system time of a process so far, all its threads together, on Linux to the nanosecond."""
    # The clock that clock_getcpuclockid(3) gives; /proc/PID/stat counts in steps of 10 ms.
    return time.clock_gettime(~pid << 3 | 2)


def table(rows: Sequence[Row]) -> str:
    """`x floor` is the least over the floor's least, and the median over its median."""
    lines = [("", "min", "median", "unit", "x floor: min", "median", "aim")]
    for row in rows:
        least, middle = min(row.values), median(row.values)
        times = ("", "")
        if row.floor is not None:
            times = (f"{least / min(row.floor):.2f}", f"{middle / median(row.floor):.2f}")
        scale = _UNITS[row.unit]
        lines.append((row.what, _number(least / scale), _number(middle / scale), row.unit, *times, row.aim))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    left = (0, 3, 6)  # columns of words
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
