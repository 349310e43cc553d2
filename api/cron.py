"""The five fields of a cron schedule, as robfig/cron reads them.

Source: "CronJob" on kubernetes.io, "Schedule syntax".
"""

import re

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
# Of each field: name, lowest, highest, names of numbers.
FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("day of week", 0, 6, {name: number for number, name in enumerate(_DAYS)}),
)
_MACROS = frozenset({"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"})
_EVERY = re.compile(r"@every (\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+")


def schedule_fault(text: str) -> str:
    """Return why ``text`` is no schedule; "" if it is one."""
    if text.startswith("@"):
        return "" if text in _MACROS or _EVERY.fullmatch(text) else f"unrecognized descriptor: {text}"
    fields = text.split()
    if len(fields) != len(FIELDS):
        return f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
    for field, (_, lowest, highest, names) in zip(fields, FIELDS, strict=True):
        for part in field.split(","):
            if why := _part_fault(part, lowest, highest, names):
                return why
    return ""


def _part_fault(part: str, lowest: int, highest: int, names: dict[str, int]) -> str:
    span, slash, step = part.partition("/")
    if slash and (not step.isdecimal() or int(step) == 0):
        return f"step of range should be a positive number: {part}"
    if span in ("*", "?"):
        return ""
    first_text, dash, last_text = span.partition("-")
    numbers = [number(text, names) for text in ((first_text, last_text) if dash else (first_text,))]
    if None in numbers:
        return f"failed to parse int from {span}"
    first, last = numbers[0], numbers[-1]
    assert first is not None
    assert last is not None
    if first < lowest:
        return f"beginning of range ({first}) below minimum ({lowest}): {part}"
    if last > highest:
        return f"end of range ({last}) above maximum ({highest}): {part}"
    return f"beginning of range ({first}) beyond end of range ({last}): {part}" if first > last else ""


def number(text: str, names: dict[str, int]) -> int | None:
    """Return the number that a part names; None if it is none."""
    if text.isdecimal():
        return int(text)
    return names.get(text.lower())
