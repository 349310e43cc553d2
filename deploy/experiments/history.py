"""What the clients of one round saw, and what follows from it. All times are seconds of one monotonic clock.

An operation that was acknowledged took effect; one that was refused did not; of one that timed out or lost its
connection nobody knows. The verdict needs only the first kind: whatever was acknowledged must still be there.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum

import msgspec


class Outcome(Enum):
    """What a client knows of an operation after its answer, or the lack of one."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"  # surely not done
    UNKNOWN = "unknown"  # timed out or cut off: done, not done, or done later


class Operation(msgspec.Struct, frozen=True, gc=False):
    """One write as its client saw it."""

    client: str
    target: str  # "store" or "api"
    key: str
    sent_s: float
    done_s: float
    outcome: Outcome
    error: str = ""


class Sample(msgspec.Struct, frozen=True, gc=False):
    """What one member said of itself."""

    at_s: float
    member: str
    leader: str  # "" when it knows none
    term: int
    applied: int
    commit: int


class Mark(msgspec.Struct, frozen=True):
    """A moment worth a line in the chart."""

    at_s: float
    what: str


class Round(msgspec.Struct, frozen=True):
    """All that one round recorded."""

    number: int
    victim: str
    fault_s: float  # when the fault was complete
    recover_s: float  # when the victim's repair began
    operations: tuple[Operation, ...]
    samples: tuple[Sample, ...]
    marks: tuple[Mark, ...]
    found: frozenset[str]  # keys that were there when all was read back
    redundant_s: float | None  # when every member was caught up again; None: not within the time allowed
    unread: tuple[str, ...] = ()  # targets that answered no read: what they acknowledged is neither there nor lost
    problem: str = ""  # why there was nothing to strike


class Verdict(msgspec.Struct, frozen=True):
    """One round in figures; None means that it did not happen within the round."""

    number: int
    victim: str  # "" if there was none to strike
    election_s: float | None  # fault to the first survivor that names another leader
    store_gap_s: float | None  # longest silence between acknowledged store writes that spans or follows the fault
    api_gap_s: float | None
    acknowledged: int
    unknown: int
    refused: int
    lost: tuple[str, ...]  # acknowledged keys that reading did not find
    unread: int  # acknowledged writes of which nobody knows, because no read was answered
    full_redundancy_s: float | None  # from the start of the victim's repair
    false_elections: int  # leader changes before the fault
    problem: str


def gap_s(operations: Iterable[Operation], *, target: str, fault_s: float) -> float | None:
    """Return the longest time without an acknowledged write to ``target`` from the last one before the fault on.

    None if nothing was acknowledged before the fault or nothing after it: then there is no gap to measure, or no end.
    """
    times = sorted(each.done_s for each in operations if each.target == target and each.outcome is Outcome.ACKNOWLEDGED)
    before = [each for each in times if each <= fault_s]
    after = [each for each in times if each > fault_s]
    if not before or not after:
        return None
    spanning = [before[-1], *after]
    return max(later - earlier for earlier, later in itertools.pairwise(spanning))


def election_s(samples: Iterable[Sample], *, victim: str, fault_s: float) -> float | None:
    """Return the time from the fault until a member other than ``victim`` named a leader other than ``victim``."""
    named = [
        each.at_s
        for each in samples
        if each.at_s >= fault_s and each.member != victim and each.leader not in ("", victim)
    ]
    return min(named) - fault_s if named else None


def false_elections(samples: Sequence[Sample], *, fault_s: float) -> int:
    """Return how many times the term rose before the fault: elections that nobody asked for."""
    terms = [each.term for each in samples if each.at_s < fault_s]
    return len(set(terms)) - 1 if terms else 0


def lost(record: Round) -> tuple[str, ...]:
    """Return the acknowledged keys that are gone from the targets that could be read."""
    return tuple(each.key for each in _acknowledged(record, read=True) if each.key not in record.found)


def _acknowledged(record: Round, *, read: bool) -> list[Operation]:
    """Return the acknowledged writes to the targets that could be read back, or to those that could not."""
    return [
        each
        for each in record.operations
        if each.outcome is Outcome.ACKNOWLEDGED and (each.target not in record.unread) == read
    ]


def judge(record: Round) -> Verdict:
    """Return the figures of one round."""
    counts: Mapping[Outcome, int] = {
        outcome: sum(each.outcome is outcome for each in record.operations) for outcome in Outcome
    }
    return Verdict(
        number=record.number,
        victim=record.victim,
        election_s=election_s(record.samples, victim=record.victim, fault_s=record.fault_s),
        store_gap_s=gap_s(record.operations, target="store", fault_s=record.fault_s),
        api_gap_s=gap_s(record.operations, target="api", fault_s=record.fault_s),
        acknowledged=counts[Outcome.ACKNOWLEDGED],
        unknown=counts[Outcome.UNKNOWN],
        refused=counts[Outcome.REFUSED],
        lost=lost(record),
        unread=len(_acknowledged(record, read=False)),
        full_redundancy_s=None if record.redundant_s is None else record.redundant_s - record.recover_s,
        false_elections=false_elections(record.samples, fault_s=record.fault_s),
        problem=record.problem,
    )
