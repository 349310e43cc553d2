"""The store as a dumb twin: every version ever written, found by walking over all of them.

It applies the committed commands in order, as a machine does, but shares no code with the real one (only the names of
requests and answers), forgets nothing, and can say what had to be read at any index or revision.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from raft_store.engine import Entry, Term
from raft_store.mvcc.model import Compacted, Event, FutureRevision, KeyValue, LeaseExists, LeaseNotFound, Revision
from raft_store.mvcc.requests import (
    Command,
    Compact,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    DeleteResult,
    Done,
    Granted,
    LeaseExpire,
    LeaseGrant,
    LeaseRenew,
    LeaseRevoke,
    Operation,
    OperationResult,
    Put,
    PutResult,
    Range,
    RangeResult,
    Renewed,
    Txn,
    TxnResult,
)

_commands: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_mod = attrgetter("mod_revision")


class Lease(msgspec.Struct, frozen=True):
    """A lease in force."""

    ttl_s: int
    renewals: int = 0


class Model:
    """Everything that was ever committed, and what it has to look like from outside."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = -1
        self.answers: list[list[object]] = []  # by index - 1: one a command of the entry
        self.leases: dict[int, Lease] = {}
        self.expired: list[int] = []  # leases that the last command ended because their time had run out
        self._revisions: list[int] = []  # by index - 1
        self._compactions: list[int] = []  # likewise
        self._leases: list[dict[int, Lease]] = []  # likewise; a new dict for every change
        self._events: list[list[Event]] = []  # by revision - 2
        self._versions: dict[bytes, list[KeyValue]] = {}
        self._fresh: list[Event] = []  # of the command being applied

    # -- looking back ------------------------------------------------------------------------------------------------

    def revision_at(self, index: int) -> int:
        """Return the store's revision after the entry at ``index``; 0 is before the first."""
        return self._revisions[index - 1] if index else 1

    def leases_at(self, index: int) -> dict[int, Lease]:
        """Return the leases in force after the entry at ``index``."""
        return self._leases[index - 1] if index else {}

    def events(self, first: int, last: int) -> Iterable[Event]:
        """Return the changes of revisions ``first`` to ``last``, both included."""
        for events in self._events[max(0, first - 2) : last - 1]:
            yield from events

    def state(self, first: bytes, end: bytes, revision: int) -> list[KeyValue]:
        """Return what could be read of [first, end) at ``revision``, in key order."""
        found = []
        for key in sorted(self._versions):
            if not inside(first, end, key):
                continue
            versions = self._versions[key]
            place = bisect_right(versions, revision, key=_mod)
            if place and versions[place - 1].version:
                found.append(versions[place - 1])
        return found

    def read(self, request: Range, index: int) -> RangeResult | Compacted | FutureRevision:
        """Return the only right answer of a member that has applied ``index``."""
        now = self.revision_at(index)
        if request.revision > now:
            return FutureRevision(request.revision)
        compacted = self._compactions[index - 1] if index else -1
        if 0 < request.revision < compacted:
            return Compacted(Revision(compacted))
        kvs = self.state(request.key, request.end, request.revision or now)
        return RangeResult(Revision(now), kvs, more=False, count=len(kvs))

    # -- applying ----------------------------------------------------------------------------------------------------

    def apply(self, entry: Entry) -> object:
        """Apply the next command, in an entry of its own or in the newest one; return the only right answer."""
        self.expired = []
        answer = self._apply(_commands.decode(entry.data), entry.term) if entry.data else None
        if self._fresh:
            self.revision += 1
            self._events.append(self._fresh)
            self._fresh = []
        place = entry.index - 1
        assert place - len(self.answers) in (-1, 0)
        if place == len(self.answers):
            self.answers.append([])
        self.answers[place].append(answer)
        self._revisions[place:] = [self.revision]
        self._compactions[place:] = [self.compacted]
        self._leases[place:] = [self.leases]
        return answer

    def _apply(self, command: Command, term: Term) -> object:
        match command:
            case Put() | DeleteRange() | Txn():
                missing = self._missing_lease(command)
                return missing if missing is not None else self._run(command)
            case Compact(revision=revision):
                if revision <= self.compacted:
                    return Compacted(Revision(self.compacted))
                if revision > self.revision:
                    return FutureRevision(revision)
                self.compacted = revision
                return self._done()
            case LeaseGrant(lease=lease, ttl_s=ttl_s):
                if lease in self.leases:
                    return LeaseExists(lease)
                self.leases = {**self.leases, lease: Lease(ttl_s)}
                return Granted(Revision(self.revision), lease, ttl_s)
            case LeaseRevoke(lease=lease):
                if lease not in self.leases:
                    return LeaseNotFound(lease)
                self._end([lease])
                return self._done()
            case LeaseRenew(leases=leases):
                ttls = [self.leases[lease].ttl_s if lease in self.leases else 0 for lease in leases]
                for lease in leases:
                    if (held := self.leases.get(lease)) is not None:
                        self.leases = {**self.leases, lease: Lease(held.ttl_s, held.renewals + 1)}
                return Renewed(Revision(self.revision), ttls)
            case LeaseExpire() if command.term == term:
                for expiry in command.expired:
                    held = self.leases.get(expiry.lease)
                    if held is not None and held.renewals == expiry.renewals:
                        self.expired.append(expiry.lease)
                        self._end([expiry.lease])
                        self._next_revision()
                return self._done()
            case LeaseExpire():
                return self._done()
            case _:
                raise AssertionError(f"the simulation proposes no {command!r}")

    def _done(self) -> Done:
        return Done(Revision(self.revision + (1 if self._fresh else 0)))

    def _next_revision(self) -> None:
        """Each lease that ends makes a revision of its own."""
        if self._fresh:
            self.revision += 1
            self._events.append(self._fresh)
            self._fresh = []

    def _end(self, leases: Sequence[int]) -> None:
        self.leases = {lease: held for lease, held in self.leases.items() if lease not in leases}
        for kv in self.state(b"", b"\0", self.revision):
            if kv.lease in leases:
                self._delete(kv)

    def _missing_lease(self, operation: Operation) -> LeaseNotFound | None:
        """Return the refusal if any put that is going to run names a lease that does not exist."""
        match operation:
            case Put(lease=lease) if lease and lease not in self.leases:
                return LeaseNotFound(lease)
            case Txn():
                for inner in self._branch(operation):
                    if (missing := self._missing_lease(inner)) is not None:
                        return missing
            case _:
                pass
        return None

    def _branch(self, txn: Txn) -> Sequence[Operation]:
        return txn.success if all(self._holds(compare) for compare in txn.compares) else txn.failure

    def _run(self, operation: Operation) -> OperationResult:
        match operation:
            case Put(key=key, value=value, lease=lease):
                prev = self._present(key)
                created, version = (prev.create_revision, prev.version + 1) if prev else (self.revision + 1, 1)
                kv = KeyValue(key, value, Revision(created), Revision(self.revision + 1), version, lease)
                self._write(kv, prev)
                return PutResult(self._now(), prev if operation.prev_kv else None)
            case DeleteRange(key=key, end=end):
                doomed = self.state(key, end, self.revision + 1)
                for kv in doomed:
                    self._delete(kv)
                return DeleteResult(self._now(), len(doomed), doomed if operation.prev_kv else ())
            case Range(key=key, end=end):
                kvs = self.state(key, end, self.revision + 1)
                return RangeResult(self._now(), kvs, more=False, count=len(kvs))
            case Txn():
                return self._run_txn(operation)

    def _run_txn(self, txn: Txn) -> TxnResult:
        # Nested comparisons are decided before anything is written, too; plans here have none that would differ.
        succeeded = all(self._holds(compare) for compare in txn.compares)
        results = [self._run(operation) for operation in (txn.success if succeeded else txn.failure)]
        return TxnResult(self._now(), succeeded, results)

    def _holds(self, compare: Compare) -> bool:
        kv = self._present(compare.key)
        if kv is None and compare.target is CompareTarget.VALUE:
            return False
        names = {
            CompareTarget.VERSION: "version",
            CompareTarget.CREATE: "create_revision",
            CompareTarget.MOD: "mod_revision",
            CompareTarget.VALUE: "value",
            CompareTarget.LEASE: "lease",
        }
        fact: Any = getattr(kv, names[compare.target]) if kv is not None else 0
        operand: Any = compare.operand
        holds: dict[CompareResult, bool] = {
            CompareResult.EQUAL: fact == operand,
            CompareResult.NOT_EQUAL: fact != operand,
            CompareResult.GREATER: fact > operand,
            CompareResult.LESS: fact < operand,
        }
        return holds[compare.result]

    def _present(self, key: bytes) -> KeyValue | None:
        versions = self._versions.get(key)
        return versions[-1] if versions and versions[-1].version else None

    def _write(self, kv: KeyValue, prev: KeyValue | None) -> None:
        self._versions.setdefault(kv.key, []).append(kv)
        self._fresh.append(Event(kv, prev))

    def _delete(self, kv: KeyValue) -> None:
        self._write(KeyValue(kv.key, b"", Revision(0), Revision(self.revision + 1), 0, 0), kv)  # type: ignore[arg-type]

    def _now(self) -> Revision:
        return Revision(self.revision + (1 if self._fresh else 0))


def inside(first: bytes, end: bytes, key: bytes) -> bool:
    """Return whether [first, end) contains ``key``; b"" is a single key, a zero byte has no upper end."""
    if end == b"":
        return key == first
    return key >= first and (end == b"\0" or key < end)
