"""Time zones by name. UTC needs no database, and most daemons nothing else: the rest is loaded when asked for."""

from datetime import UTC, tzinfo
from functools import lru_cache


@lru_cache
def zone(name: str) -> tzinfo:
    """Raises ValueError if there is none of this name."""
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not found is a KeyError; a name with a slash too many may be a directory
        raise ValueError(f"there is no time zone {name!r}") from None
