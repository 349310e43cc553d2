"""When a CronJob is due: schedules as values that know their next moment.

Days are chosen by day of month and day of week: both have to match if either is a star, else one is enough. Where a
zone's clock goes forward the moments in the gap are left out; where it goes back those of the hour that comes twice
come twice. Source: "CronJob" on kubernetes.io; robfig/cron's documentation of its expressions.
"""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import NamedTuple

import msgspec

from api.cron import FIELDS, number, schedule_fault

_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_SEARCHED_DAYS = 5 * 366  # a schedule without a moment in so long (February 30th) has none
_MISSED_COUNTED = 100


class Schedule(msgspec.Struct, frozen=True):
    """The moments of five fields, or every so many seconds if ``every_s`` is given."""

    minutes: tuple[int, ...] = ()
    hours: tuple[int, ...] = ()
    days: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()  # 0 is Sunday
    both_days: bool = True  # a day has to match day of month and day of week
    every_s: float = 0.0

    def after(self, moment: float, zone: tzinfo = UTC) -> float | None:
        """Return the first moment of the schedule behind ``moment`` (seconds since the epoch); None if none comes."""
        if self.every_s:
            return float(int(moment + self.every_s))
        local = datetime.fromtimestamp(moment, zone)
        for ahead in range(_SEARCHED_DAYS):
            day = local.date() + timedelta(days=ahead)
            if self._is_day(day):
                # An hour less, lest one is missed that a clock which goes back brings again.
                from_hour = local.hour - 1 if ahead == 0 else 0
                found = next((each for each in self._moments(day, zone, from_hour) if each > moment), None)
                if found is not None:
                    return found
        return None

    def _is_day(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (in_month and in_week) if self.both_days else (in_month or in_week)

    def _moments(self, day: date, zone: tzinfo, from_hour: int) -> Iterator[float]:
        """Yield the moments of a day from an hour on in their order."""
        for hour in self.hours:
            if hour < from_hour:
                continue
            for fold in (0, 1):
                for minute in self.minutes:
                    local = datetime(day.year, day.month, day.day, hour, minute, fold=fold, tzinfo=zone)
                    moment = local.timestamp()
                    back = datetime.fromtimestamp(moment, zone)
                    if (back.hour, back.minute, back.fold) == (hour, minute, fold):
                        yield moment


def parse(text: str) -> Schedule:
    """Return the schedule that ``text`` writes; raises ValueError."""
    if why := schedule_fault(text):
        raise ValueError(why)
    if text.startswith("@every "):
        # The finest that is scheduled is a second.
        return Schedule(every_s=max(1.0, sum(float(n) * _UNITS_S[unit] for n, unit in _PART.findall(text[7:]))))
    fields = _MACROS.get(text, text).split()
    sets = [_numbers(field, low, high, names) for field, (_, low, high, names) in zip(fields, FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = sets
    stars = [any(_is_star(part) for part in fields[place].split(",")) for place in (2, 4)]
    return Schedule(tuple(sorted(minutes)), tuple(sorted(hours)), days, months, weekdays, any(stars))


def _is_star(part: str) -> bool:
    span, _, step = part.partition("/")
    return span in ("*", "?") and step in ("", "1")


def _numbers(field: str, low: int, high: int, names: dict[str, int]) -> frozenset[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first_text, dash, last_text = span.partition("-")
        if span in ("*", "?"):
            first, last = low, high
        else:
            first = number(first_text, names) or 0
            # "5/15" means from 5 on.
            last = (number(last_text, names) or 0) if dash else high if step else first
        found.update(range(first, last + 1, int(step or 1)))
    return frozenset(found)


class Due(NamedTuple):
    """What a schedule has in store."""

    moment: float | None  # the latest that has come and was not served; None if there is none
    many: bool = False  # it is not alone, by far


def latest_due(schedule: Schedule, since: float, now: float, zone: tzinfo = UTC) -> Due:
    """Return the latest moment behind ``since`` that is not behind ``now``."""
    moment = schedule.after(since, zone)
    if moment is None or moment > now:
        return Due(None)
    for _ in range(_MISSED_COUNTED):
        following = schedule.after(moment, zone)
        if following is None or following > now:
            return Due(moment)
        moment = following
    # Counting on might take for ever: of what is left we look into halves. Behind ``late`` none has come.
    late = now
    while (following := schedule.after(moment, zone)) is not None and following <= now:
        middle = (moment + late) / 2
        found = schedule.after(middle, zone)
        if found is None or found > now:
            late = middle
        else:
            moment = found
    return Due(moment, many=True)
