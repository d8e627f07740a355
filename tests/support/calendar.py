"""When windows begin and end in UTC, by counting hours and days: for the recount, so not the way of the daemon."""

from datetime import UTC, datetime

from llmd.books import Window

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
_LENGTHS = {"hour": HOUR_MS, "day": DAY_MS, "week": 7 * DAY_MS}
_OFFSETS = {"hour": 0, "day": 0, "week": 4 * DAY_MS}  # the first of January 1970 was a Thursday


def begin(window: Window, wall_ms: int) -> int:
    """When the window began that this moment is in; milliseconds since the epoch."""
    if window == "month":
        moment = datetime.fromtimestamp(wall_ms / 1000, UTC)
        return _month(moment.year, moment.month)
    offset, length = _OFFSETS[window], _LENGTHS[window]
    return (wall_ms - offset) // length * length + offset


def end(window: Window, wall_ms: int) -> int:
    if window == "month":
        moment = datetime.fromtimestamp(wall_ms / 1000, UTC)
        return _month(moment.year + moment.month // 12, moment.month % 12 + 1)
    return begin(window, wall_ms) + _LENGTHS[window]


def _month(year: int, month: int) -> int:
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * 1000
