"""Times and spans as kubectl shows them."""

from datetime import UTC, datetime

_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86400, 86400 * 365


def parse_time(text: str) -> float | None:
    """Return an RFC 3339 time as seconds since 1970, or None for an empty or unreadable one."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).timestamp() if text else None
    except ValueError:
        return None


def human(seconds: float) -> str:
    """Return a span in at most two units, coarser the longer it is: ``5m20s``, ``3h``, ``47d``."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 0:
        return "0s"
    if whole < 2 * _MINUTE:
        return f"{whole}s"
    if whole < 10 * _MINUTE:
        return _two(whole // _MINUTE, "m", whole % _MINUTE, "s")
    if whole < 3 * _HOUR:
        return f"{whole // _MINUTE}m"
    if whole < 8 * _HOUR:
        return _two(whole // _HOUR, "h", whole % _HOUR // _MINUTE, "m")
    if whole < 2 * _DAY:
        return f"{whole // _HOUR}h"
    if whole < 8 * _DAY:
        return _two(whole // _DAY, "d", whole % _DAY // _HOUR, "h")
    if whole < 2 * _YEAR:
        return f"{whole // _DAY}d"
    if whole < 8 * _YEAR:
        return _two(whole // _YEAR, "y", whole % _YEAR // _DAY, "d")
    return f"{whole // _YEAR}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def since(text: str, now: float) -> str:
    """Return how long ago an RFC 3339 time was; ``<unknown>`` if there is none."""
    then = parse_time(text)
    return "<unknown>" if then is None else human(now - then)
