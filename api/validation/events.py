"""What events.k8s.io refuses of events that core lets pass: the fields of before, and changes but to the series."""

from api.errors import Fault
from api.faults import immutable, required, wrong
from api.kinds.core import Event, EventSource

_TYPES = ("Normal", "Warning")
# attribute -> the name by which the real server tells of it
_OF_BEFORE = {
    "first_timestamp": "firstTimestamp",
    "last_timestamp": "lastTimestamp",
    "count": "count",
    "source": "source",
}
_SETTLED = {
    "involved_object": "involvedObject",
    "reason": "reason",
    "message": "message",
    **_OF_BEFORE,
    "reporting_component": "reportingController",
    "reporting_instance": "reportingInstance",
    "action": "action",
    "related": "related",
    "type": "type",
    "event_time": "eventTime",
}
_SHORTEST_SERIES = 2


def event_faults(old: Event | None, new: Event) -> list[Fault]:
    """Return the faults of an event that is new (``old`` is None) or changed."""
    if old is None:
        return _series_faults(new) + _new_faults(new)
    faults = _series_faults(new) if new.series != old.series else []
    for attribute, name in _SETTLED.items():
        faults += immutable(getattr(old, attribute), getattr(new, attribute), name)
    return faults


def _new_faults(event: Event) -> list[Fault]:
    faults = [] if event.event_time else [required("eventTime")]
    if event.type not in _TYPES:
        faults.append(wrong("type", "", f"has invalid value: {event.type}"))
    given = [attribute for attribute in _OF_BEFORE if getattr(event, attribute) not in ("", 0, None, EventSource())]
    return faults + [wrong(_OF_BEFORE[attribute], "", "needs to be unset") for attribute in given]


def _series_faults(event: Event) -> list[Fault]:
    if event.series is None:
        return []
    faults = []
    if (event.series.count or 0) < _SHORTEST_SERIES:
        faults.append(wrong("series.count", "", f"should be at least {_SHORTEST_SERIES}"))
    if not event.series.last_observed_time:
        faults.append(required("series.lastObservedTime"))
    return faults
