"""Which hour, day, week or month a moment lies in, and when that one ends."""

from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple

from llmd.books import Window

_LABELS: dict[Window, str] = {"hour": "%Y-%m-%dT%H%z", "day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m"}


class Span(NamedTuple):
    """One window: its name, as in "2026-11-22", and where it begins and ends (milliseconds since the epoch)."""

    label: str
    start_ms: int
    end_ms: int


def span(window: Window, wall_ms: int, zone: tzinfo = UTC) -> Span:
    """The window that this moment lies in. Days are the zone's own, 23 or 25 hours long where it changes its clocks."""
    moment = datetime.fromtimestamp(wall_ms / 1000, zone)
    if window == "hour":
        # Counted on the wall of the world: an hour that the zone's clocks repeat is two, with their own offsets.
        start = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        offset = moment.utcoffset() or timedelta()
        start += timedelta(minutes=-(offset.total_seconds() // 60) % 60)
        if start > moment:
            start -= timedelta(hours=1)
        return Span(start.astimezone(zone).strftime(_LABELS[window]), _ms(start), _ms(start + timedelta(hours=1)))
    day = datetime(moment.year, moment.month, moment.day, tzinfo=zone)
    if window == "day":
        start, end = day, _midnight(day + timedelta(days=1), zone)
    elif window == "week":
        start = _midnight(day - timedelta(days=day.weekday()), zone)
        end = _midnight(start + timedelta(days=7), zone)
    else:
        start = _midnight(day.replace(day=1), zone)
        end = _midnight((start + timedelta(days=32)).replace(day=1), zone)
    return Span(start.strftime(_LABELS[window]), _ms(start), _ms(end))


def _midnight(moment: datetime, zone: tzinfo) -> datetime:
    return datetime(moment.year, moment.month, moment.day, tzinfo=zone)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
