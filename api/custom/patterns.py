"""Regular expressions as Go's: of clients, so matched in time linear in the text, whatever the pattern."""

from functools import lru_cache

import re2

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re2._Regexp:
    return re2.compile(pattern, _OPTIONS)


def pattern_fault(pattern: str) -> str:
    """Return why ``pattern`` is none; "" if it is one."""
    try:
        _compiled(pattern)
    except re2.error as error:
        why = error.args[0] if error.args else ""
        return f"error parsing regexp: {why.decode() if isinstance(why, bytes) else why}"
    return ""


def found_in(pattern: str, text: str) -> bool:
    """Return whether ``pattern`` matches somewhere in ``text``."""
    return _compiled(pattern).search(text) is not None


def all_found(pattern: str, text: str) -> list[str]:
    """Return every match of ``pattern`` in ``text``."""
    return [match.group() for match in _compiled(pattern).finditer(text)]
