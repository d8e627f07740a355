"""Hours, days, weeks and months: where they begin and end, in UTC and where clocks change."""

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.books import Window
from llmd.core.windows import Span, span

HOUR = 3_600_000

# Clocks that change, half and three-quarter hours, changes at midnight, by two hours, and a day that was left out
# (Apia, the 30th of December 2011). Not Lord Howe, where clocks change by half an hour: twice a year two hours share a
# name and a counter there.
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",
    "America/Santiago",
    "America/St_Johns",
    "America/Nuuk",
    "Antarctica/Troll",
    "Asia/Beirut",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "Pacific/Chatham",
]


def ms(text: str) -> int:
    """The moment of an ISO time with its offset, in milliseconds since the epoch."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize(
    ("window", "moment", "label", "start", "end"),
    [
        ("hour", "2026-11-22T14:59:59.999+00:00", "2026-11-22T14+0000", "2026-11-22T14:00Z", "2026-11-22T15:00Z"),
        ("hour", "2026-12-31T23:00:00+00:00", "2026-12-31T23+0000", "2026-12-31T23:00Z", "2027-01-01T00:00Z"),
        ("day", "2026-11-22T00:00:00+00:00", "2026-11-22", "2026-11-22T00:00Z", "2026-11-23T00:00Z"),
        ("day", "2026-11-22T23:59:59.999+00:00", "2026-11-22", "2026-11-22T00:00Z", "2026-11-23T00:00Z"),
        ("week", "2026-11-22T12:00:00+00:00", "2026-W47", "2026-11-16T00:00Z", "2026-11-23T00:00Z"),
        ("week", "2026-11-23T00:00:00+00:00", "2026-W48", "2026-11-23T00:00Z", "2026-11-30T00:00Z"),
        ("week", "2027-01-01T12:00:00+00:00", "2026-W53", "2026-12-28T00:00Z", "2027-01-04T00:00Z"),
        ("week", "2024-12-30T00:00:00+00:00", "2025-W01", "2024-12-30T00:00Z", "2025-01-06T00:00Z"),
        ("month", "2026-11-30T23:59:59.999+00:00", "2026-11", "2026-11-01T00:00Z", "2026-12-01T00:00Z"),
        ("month", "2026-12-31T12:00:00+00:00", "2026-12", "2026-12-01T00:00Z", "2027-01-01T00:00Z"),
        ("month", "2028-02-29T12:00:00+00:00", "2028-02", "2028-02-01T00:00Z", "2028-03-01T00:00Z"),
        ("month", "2026-01-31T12:00:00+00:00", "2026-01", "2026-01-01T00:00Z", "2026-02-01T00:00Z"),
    ],
)
def test_a_window_of_utc(window: Window, moment: str, label: str, start: str, end: str) -> None:
    assert span(window, ms(moment)) == Span(label, ms(start), ms(end))


@pytest.mark.parametrize(
    ("zone", "window", "moment", "label", "start", "hours"),
    [
        # Clocks go forward at 2 on the 29th of March 2026, and back at 3 on the 25th of October.
        ("Europe/Berlin", "day", "2026-03-29T12:00+02:00", "2026-03-29", "2026-03-29T00:00+01:00", 23),
        ("Europe/Berlin", "day", "2026-10-25T12:00+01:00", "2026-10-25", "2026-10-25T00:00+02:00", 25),
        ("Europe/Berlin", "week", "2026-03-29T12:00+02:00", "2026-W13", "2026-03-23T00:00+01:00", 7 * 24 - 1),
        ("Europe/Berlin", "week", "2026-10-25T12:00+01:00", "2026-W43", "2026-10-19T00:00+02:00", 7 * 24 + 1),
        ("Europe/Berlin", "month", "2026-03-29T12:00+02:00", "2026-03", "2026-03-01T00:00+01:00", 31 * 24 - 1),
        ("Europe/Berlin", "hour", "2026-03-29T03:10+02:00", "2026-03-29T03+0200", "2026-03-29T03:00+02:00", 1),
        ("Europe/Berlin", "hour", "2026-10-25T02:10+02:00", "2026-10-25T02+0200", "2026-10-25T02:00+02:00", 1),
        ("Europe/Berlin", "hour", "2026-10-25T02:10+01:00", "2026-10-25T02+0100", "2026-10-25T02:00+01:00", 1),
        ("Asia/Kolkata", "hour", "2026-11-22T14:10+05:30", "2026-11-22T14+0530", "2026-11-22T14:00+05:30", 1),
        ("Asia/Kolkata", "hour", "2026-11-22T14:50+05:30", "2026-11-22T14+0530", "2026-11-22T14:00+05:30", 1),
        ("Asia/Kathmandu", "hour", "2026-11-22T14:50+05:45", "2026-11-22T14+0545", "2026-11-22T14:00+05:45", 1),
        ("America/St_Johns", "hour", "2026-11-22T14:10-03:30", "2026-11-22T14-0330", "2026-11-22T14:00-03:30", 1),
        ("Asia/Kolkata", "day", "2026-11-22T00:10+05:30", "2026-11-22", "2026-11-22T00:00+05:30", 24),
        # Midnight is left out: the day begins at 1.
        ("Asia/Beirut", "day", "2026-03-29T12:00+03:00", "2026-03-29", "2026-03-29T01:00+03:00", 23),
        ("Pacific/Apia", "day", "2011-12-31T12:00+14:00", "2011-12-31", "2011-12-31T00:00+14:00", 24),
        ("Pacific/Apia", "week", "2011-12-31T12:00+14:00", "2011-W52", "2011-12-26T00:00-10:00", 6 * 24),
    ],
)
def test_a_window_of_a_zone_follows_its_clocks(
    zone: str, window: Window, moment: str, label: str, start: str, hours: int
) -> None:
    begin = ms(start)
    assert span(window, ms(moment), ZoneInfo(zone)) == Span(label, begin, begin + hours * HOUR)


windows = st.sampled_from(["hour", "day", "week", "month"])
zones = st.sampled_from(ZONES).map(ZoneInfo)
moments = st.datetimes(datetime(2011, 6, 1), datetime(2045, 1, 1)).map(
    lambda moment: round(moment.replace(tzinfo=UTC).timestamp() * 1000)
)


@cache
def changes(zone: ZoneInfo) -> list[int]:
    """Moments at which this zone's offset has changed, to the hour."""
    hours = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour) for hour in range(366 * 24)]
    return [
        ms(hour.isoformat())
        for before, hour in pairwise(hours)
        if before.astimezone(zone).utcoffset() != hour.astimezone(zone).utcoffset()
    ]


def check(window: Window, moment: int, zone: ZoneInfo) -> None:
    found = span(window, moment, zone)
    assert found.start_ms <= moment < found.end_ms
    assert span(window, found.start_ms, zone) == span(window, found.end_ms - 1, zone) == found
    after, before = span(window, found.end_ms, zone), span(window, found.start_ms - 1, zone)
    assert (before.end_ms, after.start_ms) == (found.start_ms, found.end_ms)
    assert len({before.label, found.label, after.label}) == 3


@given(windows, moments, zones)
def test_windows_meet_and_each_has_its_own_label(window: Window, moment: int, zone: ZoneInfo) -> None:
    check(window, moment, zone)


@pytest.mark.parametrize("window", ["hour", "day", "week", "month"])
@pytest.mark.parametrize("zone", ZONES)
def test_windows_meet_around_every_change_of_clocks(window: Window, zone: str) -> None:
    for change in changes(ZoneInfo(zone)):
        for minutes in range(-180, 181, 15):
            check(window, change + minutes * 60_000, ZoneInfo(zone))
            check(window, change + minutes * 60_000 - 1, ZoneInfo(zone))


@given(windows, moments, moments, zones)
def test_two_moments_have_one_label_just_when_they_are_in_one_window(
    window: Window, one: int, other: int, zone: ZoneInfo
) -> None:
    first, second = span(window, one, zone), span(window, other, zone)
    assert (first.label == second.label) == (first == second)
