"""What the store promises its clients, checked against a model that sees every commit.

- writes take effect once or not at all; an answer is the model's, at the place where the entry stands
- reads see all that was acknowledged before they were asked, and nothing but one moment's state
- watches are ordered, unique, atomic, reliable, resumable, bookmarkable; ``prev`` is right or, compacted away, absent
- leases live as long as they were promised to, by true time less the clocks' drift; end in the end
"""

from bisect import bisect_right
from collections.abc import Sequence

from raft_store.engine import Entry, Index
from raft_store.machine import Machine
from raft_store.mvcc.model import Event, StoreError
from raft_store.mvcc.requests import Granted, LeaseRenew, Range, Renewed
from raft_store.simulation.invariants import Violation, demand
from raft_store.simulation.model import Model, inside
from raft_store.simulation.requests import Watch


def same(one: object, other: object) -> bool:
    """Return whether two answers are the same; refusals by kind and text."""
    if isinstance(one, StoreError) or isinstance(other, StoreError):
        return type(one) is type(other) and str(one) == str(other)
    return one == other


class Promises:
    """The store's judge."""

    def __init__(self, drift: float) -> None:
        self.model = Model()
        self.floor = Index(0)  # what was acknowledged so far stands at or below
        self._drift = drift
        self._written: set[bytes] = set()
        self._refused: set[bytes] = set()
        self._alive_until: dict[tuple[int, int], float] = {}  # (lease, how often it had been granted) -> ms
        self._grants: dict[int, list[Index]] = {}  # lease -> where it was granted; an id may be granted again
        self._ended: dict[tuple[int, int], float] = {}

    # -- writes and reads --------------------------------------------------------------------------------------------

    def committed(self, entry: Entry, now_ms: float, *, elected_ms: float) -> None:
        """The group agreed on an entry, whose leader was elected at ``elected_ms``."""
        model, before = self.model, self.model.revision
        leases = model.leases
        answer = model.apply(entry)
        if isinstance(answer, Granted):
            self._grants.setdefault(answer.lease, []).append(entry.index)
        for event in model.events(before + 1, model.revision):
            if event.kv.version:
                self._check_written(event.kv.value)
        for lease in model.expired:
            self._check_expiry(lease, leases[lease].ttl_s, now_ms, elected_ms)

    def _check_written(self, value: bytes) -> None:
        demand(value not in self._written, "no request takes effect twice", f"{value!r} was written twice")
        demand(value not in self._refused, "what is refused never takes effect", f"{value!r} was written all the same")
        self._written.add(value)

    def refused(self, value: bytes) -> None:
        """A client was told that its write of ``value`` surely was not made."""
        self._refused.add(value)
        demand(value not in self._written, "what is refused never takes effect", f"{value!r} was written all the same")

    def applied(
        self, member: int, machine: Machine, entries: Sequence[Entry], answers: Sequence[object] | None
    ) -> None:
        """A member applied entries, the commands of one index all together; None: without a word."""
        given: dict[Index, list[object]] = {}
        for entry, answer in zip(entries, answers, strict=True) if answers is not None else ():
            given.setdefault(entry.index, []).append(answer)
        for index, found in given.items():
            right = self.model.answers[index - 1]
            if len(found) != len(right) or not all(map(same, found, right)):
                raise Violation("answers are right", f"member {member} answered {found} at index {index}, not {right}")
        if entries:
            revision = self.model.revision_at(entries[-1].index)
            demand(
                machine.store.revision == revision,
                "revisions are the same everywhere",
                lambda: f"member {member} is at {machine.store.revision} after {entries[-1].index}, not {revision}",
            )

    def check_state(self, member: int, machine: Machine, index: Index) -> None:
        """A member's whole state after the entry at ``index`` has to be the model's."""
        revision = self.model.revision_at(index)
        held = list(machine.store.index.range(b"\0", b"\0"))
        right = self.model.state(b"\0", b"\0", revision)
        if machine.store.revision != revision or held != right:
            raise Violation(
                "state-machine equality",
                f"member {member} holds {held} at revision {machine.store.revision} after {index}, "
                f"not {right} at {revision}",
            )
        leases = {lease.lease: (lease.ttl_s, lease.renewals, lease.keys) for lease in machine.leases.all()}
        expected = {
            lease: (held.ttl_s, held.renewals, {kv.key for kv in right if kv.lease == lease})
            for lease, held in self.model.leases_at(index).items()
        }
        demand(
            leases == expected,
            "state-machine equality",
            lambda: f"member {member} has leases {leases} after {index}, not {expected}",
        )

    def read(self, member: int, request: Range, answer: object, *, position: Index, floor: Index | None) -> None:
        """A member answers a read after applying ``position``; ``floor``: what had been acknowledged, if it cares."""
        if floor is not None:
            demand(
                position >= floor,
                "reads are linearizable",
                f"member {member} read at index {position} although {floor} was acknowledged before it was asked",
            )
        right = self.model.read(request, position)
        if not same(answer, right):
            raise Violation("reads see one moment", f"member {member} read {answer} at index {position}, not {right}")

    def acknowledged(self, position: Index, *, floor: Index, wrote: bool) -> None:
        """A client received an answer that stands at ``position``; ``floor``: acknowledged when it had asked."""
        demand(
            position >= floor + wrote,
            "writes take effect after they were asked for",
            f"at index {position}, although {floor} was acknowledged before",
        )
        self.floor = max(self.floor, position)

    # -- leases ------------------------------------------------------------------------------------------------------

    def lease_answered(self, request: object, answer: object, *, position: Index, sent_ms: float) -> None:
        """A client was told that a lease, asked for at ``sent_ms``, lives for its whole time from ``position`` on."""
        match answer:
            case Granted(lease=lease, ttl_s=ttl_s):
                self._promise(lease, ttl_s, position, sent_ms)
            case Renewed(ttls_s=ttls_s) if isinstance(request, LeaseRenew):
                for lease, ttl_s in zip(request.leases, ttls_s, strict=True):
                    if ttl_s:
                        self._promise(lease, ttl_s, position, sent_ms)
            case _:
                pass

    def _promise(self, lease: int, ttl_s: int, position: Index, sent_ms: float) -> None:
        key = (lease, bisect_right(self._grants.get(lease, []), position))
        until_ms = sent_ms + ttl_s * 1000 / (1 + self._drift)
        self._alive_until[key] = max(self._alive_until.get(key, 0.0), until_ms)
        self._check_promise(key)

    def _check_promise(self, key: tuple[int, int]) -> None:
        ended = self._ended.get(key)
        until = self._alive_until.get(key, 0.0)
        demand(
            ended is None or ended >= until,
            "leases live their time",
            lambda: f"lease {key[0]} ended at {ended:.0f} ms, it was promised to live until {until:.0f} ms",
        )

    def _check_expiry(self, lease: int, ttl_s: int, now_ms: float, elected_ms: float) -> None:
        key = (lease, len(self._grants[lease]))
        self._ended[key] = now_ms
        self._check_promise(key)
        anew_ms = elected_ms + ttl_s * 1000 / (1 + self._drift)
        demand(
            now_ms >= anew_ms,
            "a new leader gives every lease its whole time",
            f"lease {lease} ended at {now_ms:.0f} ms, under this leader it had to live until {anew_ms:.0f} ms",
        )


class WatchLog:
    """One watch as its listener sees it, over all the connections that it had."""

    def __init__(self, wanted: Watch, model: Model, *, start: int) -> None:
        """start: the first revision wanted; 0: from the moment of its creation on."""
        self.wanted = wanted
        self.next = start  # the oldest revision whose events may still come; 0: not created yet
        self._model = model

    def created(self, revision: int) -> None:
        """The watch stands on a member that is at ``revision``."""
        self._check_header(revision)
        if self.next == 0:
            self.next = revision + 1

    def changes(self, events: Sequence[Event], revision: int) -> None:
        """Events came: exactly those that were due, up to the end of a revision."""
        self._check_header(revision)
        last = events[-1].kv.mod_revision
        demand(last <= revision, "a header is not behind its events", f"events of {last} under a header of {revision}")
        demand(
            last <= self._model.revision,
            "watches tell of what is committed only",
            f"an event of revision {last}; the group is at {self._model.revision}",
        )
        due = self._due(last)
        if [event.kv for event in events] != [event.kv for event in due]:
            raise Violation(self._which(events, due), f"{self._told(events)} came, {self._told(due)} were due")
        for event, right in zip(events, due, strict=True):
            absent = event.prev is None and event.kv.mod_revision <= self._model.compacted
            if event.prev != right.prev and not absent:
                raise Violation("prev_kv is right", f"{event} came, its prev was {right.prev}")
        self.next = last + 1

    def progress(self, revision: int) -> None:
        """The watch is said to have told of everything up to ``revision``."""
        self._check_header(revision)
        demand(
            revision <= self._model.revision,
            "watches tell of what is committed only",
            f"progress up to {revision}; the group is at {self._model.revision}",
        )
        due = self._due(revision)
        demand(
            not due,
            "watches are bookmarkable",
            lambda: f"up to {revision}, it is said, but {self._told(due)} is missing",
        )
        if self.next:
            self.next = max(self.next, revision + 1)

    def compacted(self, revision: int) -> None:
        """What the watch wants next is compacted away, it is said; it goes on from ``revision``."""
        demand(
            self.next < revision <= self._model.compacted,
            "watches end for a reason",
            f"canceled for compaction {revision}; the group compacted {self._model.compacted}, next is {self.next}",
        )
        self.next = revision

    def missing(self) -> list[Event]:
        """Return what is committed and has not come yet."""
        return self._due(self._model.revision) if self.next else []

    def _check_header(self, revision: int) -> None:
        demand(
            revision <= self._model.revision,
            "revisions are committed ones",
            f"a header of revision {revision}; the group is at {self._model.revision}",
        )

    def _due(self, last: int) -> list[Event]:
        if not self.next:
            return []
        wanted = self.wanted
        return [
            event
            for event in self._model.events(self.next, last)
            if inside(wanted.key, wanted.end, event.kv.key) and (wanted.puts if event.kv.version else wanted.deletes)
        ]

    def _which(self, came: Sequence[Event], due: Sequence[Event]) -> str:
        """Return the guarantee's name that suits best."""
        revisions = [event.kv.mod_revision for event in came]
        if revisions[0] < self.next:
            return "watches are unique and never start early"
        if revisions != sorted(revisions):
            return "watches are ordered"
        last = revisions[-1]
        if sum(r == last for r in revisions) != sum(event.kv.mod_revision == last for event in due):
            return "watches are atomic"
        return "watches are reliable and resumable"

    def _told(self, events: Sequence[Event]) -> str:
        return ", ".join(f"{event.kv.key.decode()}@{event.kv.mod_revision}" for event in events) or "nothing"
