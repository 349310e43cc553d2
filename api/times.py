"""Times as objects carry them: RFC 3339 in UTC, whole seconds, or microseconds where the API says MicroTime."""

import re
from datetime import UTC, datetime

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:\d\d)")


def canonical(text: str, *, micro: bool) -> str:
    """Return a time in the one form in which it is stored and shown; what is finer than that form is cut off.

    The real server refuses a MicroTime without just six digits of a second; here any number of them will do.
    Empty stays empty: no time. Raises ValueError for what is no time.
    """
    if not text:
        return text
    if _RFC3339.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no time as RFC 3339 has it")
    try:
        return written(datetime.fromisoformat(text).astimezone(UTC), micro=micro)
    except OverflowError as error:
        raise ValueError(f"{text!r} is out of range") from error


def written(moment: datetime, *, micro: bool) -> str:
    """Return a moment in UTC as objects carry it."""
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds" if micro else "seconds") + "Z"
