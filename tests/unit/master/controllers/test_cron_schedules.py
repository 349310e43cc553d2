"""When schedules are due, in zones whose clocks are put forward and back."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from master.controllers.cron_schedule import Schedule, latest_due, parse

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "after", "moments"),
    [
        ("* * * * *", "2026-03-01T10:00:30", ["2026-03-01T10:01", "2026-03-01T10:02"]),
        ("*/15 * * * *", "2026-03-01T10:45", ["2026-03-01T11:00", "2026-03-01T11:15"]),
        ("5/20 3 * * *", "2026-03-01T10:00", ["2026-03-02T03:05", "2026-03-02T03:25", "2026-03-02T03:45"]),
        ("0 9-17/4 * * mon-fri", "2026-02-27T14:00", ["2026-02-27T17:00", "2026-03-02T09:00"]),
        # Either day is enough unless one of them is a star.
        ("0 0 13 * fri", "2026-03-01T00:00", ["2026-03-06T00:00", "2026-03-13T00:00", "2026-03-20T00:00"]),
        ("0 0 */2 * fri", "2026-03-05T00:00", ["2026-03-06T00:00", "2026-03-07T00:00"]),
        ("0 0 ? jan,DEC 0", "2026-11-01T00:00", ["2026-12-06T00:00"]),
        ("@monthly", "2026-03-01T00:00", ["2026-04-01T00:00"]),
        ("@every 1h30m", "2026-03-01T10:00:05", ["2026-03-01T11:30:05", "2026-03-01T13:00:05"]),
    ],
)
def test_moments(text: str, after: str, moments: list[str]) -> None:
    schedule, moment = parse(text), at(after)
    for wanted in moments:
        found = schedule.after(moment)
        assert found == at(wanted)
        moment = found


def test_some_days_never_come() -> None:
    assert parse("0 0 30 2 *").after(at("2026-01-01T00:00")) is None


@pytest.mark.parametrize("text", ["", "* * * *", "60 * * * *", "@sometimes", "@every x"])
def test_what_is_no_schedule(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)


@pytest.mark.parametrize(
    ("text", "after", "moments"),
    [
        ("30 9 * * *", "2026-01-01T12:00", ["2026-01-02T08:30"]),
        ("30 9 * * *", "2026-07-01T12:00", ["2026-07-02T07:30"]),
        # On 2026-03-29 two o'clock is three: half past two does not come.
        ("30 2 * * *", "2026-03-28T12:00", ["2026-03-30T00:30"]),
        # On 2026-10-25 three o'clock is two again: the hour from two comes twice.
        ("30 2 * * *", "2026-10-24T12:00", ["2026-10-25T00:30", "2026-10-25T01:30", "2026-10-26T01:30"]),
        ("0 * * * *", "2026-10-24T23:30", ["2026-10-25T00:00", "2026-10-25T01:00", "2026-10-25T02:00"]),
    ],
)
def test_zones(text: str, after: str, moments: list[str]) -> None:
    schedule, moment = parse(text), at(after)
    for wanted in moments:
        found = schedule.after(moment, BERLIN)
        assert found == at(wanted)
        moment = found


@pytest.mark.parametrize(
    ("since", "now", "moment", "many"),
    [
        ("2026-03-01T10:00", "2026-03-01T10:04:59", None, False),
        ("2026-03-01T10:00", "2026-03-01T10:05:00", "2026-03-01T10:05", False),
        ("2026-03-01T10:00", "2026-03-01T12:03:00", "2026-03-01T12:00", False),
        ("2020-03-01T10:00", "2026-03-01T12:03:00", "2026-03-01T12:00", True),
    ],
)
def test_the_latest_that_is_due(since: str, now: str, moment: str | None, many: bool) -> None:  # noqa: FBT001 - a row's value
    due = latest_due(parse("*/5 * * * *"), at(since), at(now))
    assert (due.moment, due.many) == (at(moment) if moment else None, many)


@pytest.mark.parametrize(
    ("text", "since", "now", "moment"),
    [
        ("* * * 1 *", "2026-01-01T00:00", "2026-12-24T12:00", "2026-01-31T23:59"),
        ("* 0-6 * * *", "2020-01-01T00:00", "2026-12-24T12:00", "2026-12-24T06:59"),
        ("@every 90m", "2026-01-01T00:00", "2026-12-24T12:00", "2026-12-24T12:00"),
    ],
)
def test_the_latest_of_many_is_found_in_few_steps(
    monkeypatch: pytest.MonkeyPatch, text: str, since: str, now: str, moment: str
) -> None:
    steps, after = [], Schedule.after
    monkeypatch.setattr(Schedule, "after", lambda self, *given: steps.append(given) or after(self, *given))
    due = latest_due(parse(text), at(since), at(now))
    assert due.moment is not None
    assert due.many
    assert at(moment) - (5400 if text.startswith("@") else 0) <= due.moment <= at(moment)
    assert len(steps) < 300
