"""Time zones are found by their names, and a name that is none says so."""

from datetime import UTC
from zoneinfo import ZoneInfo

import pytest

from llmd.zones import zone


def test_zones_are_found_by_name() -> None:
    assert zone("UTC") is UTC
    assert zone("Europe/Berlin") == ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize("name", ["Mars/X", "../etc/passwd", "/etc/localtime", "Europe", ""])
def test_a_name_that_is_no_zone_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        zone(name)
