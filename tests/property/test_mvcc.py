"""The multi-version store against the dumbest one: a full copy of a dict for every revision."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raft_store.engine import Entry, Index, Term
from raft_store.machine import Machine, encode
from raft_store.mvcc.lease import LeaseClock
from raft_store.mvcc.model import Compacted, LeaseId, LeaseNotFound, Revision
from raft_store.mvcc.notices import Canceled, Changes, Created, WatchSpec
from raft_store.mvcc.requests import (
    Compact,
    DeleteRange,
    LeaseGrant,
    LeaseRevoke,
    Put,
    Range,
    Txn,
)
from raft_store.mvcc.txn import read

KEYS = st.sampled_from([b"a", b"b", b"ba", b"c", b"d", b"\xff"])
ENDS = st.sampled_from([b"", b"\0", b"b", b"bb", b"d", b"\xff\xff"])
VALUES = st.binary(max_size=2)
LEASES = st.sampled_from([LeaseId(0), LeaseId(0), LeaseId(1), LeaseId(2)])

# (create revision, mod revision, version, value, lease)
Facts = tuple[int, int, int, bytes, int]


def inside(first: bytes, end: bytes, key: bytes) -> bool:
    if end == b"":
        return key == first
    return key >= first and (end == b"\0" or key < end)


class Model:
    """Every revision as a dict of its own."""

    def __init__(self) -> None:
        self.states: dict[int, dict[bytes, Facts]] = {0: {}, 1: {}}
        self.revision = 1
        self.compacted = -1
        self.leases: set[int] = set()

    def change(self) -> dict[bytes, Facts]:
        return dict(self.states[self.revision])

    def commit(self, state: dict[bytes, Facts]) -> None:
        if state != self.states[self.revision]:
            self.revision += 1
            self.states[self.revision] = state

    def put(self, state: dict[bytes, Facts], key: bytes, value: bytes, lease: int) -> None:
        created, _, version, _, _ = state.get(key, (self.revision + 1, 0, 0, b"", 0))
        state[key] = (created, self.revision + 1, version + 1, value, lease)

    def delete(self, state: dict[bytes, Facts], first: bytes, end: bytes) -> int:
        doomed = [key for key in state if inside(first, end, key)]
        for key in doomed:
            del state[key]
        return len(doomed)


class MvccComparison(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine(LeaseClock(lambda: 0.0))
        self.model = Model()
        self.index = 0
        self.heard: dict[bytes, Facts] = {}
        self.heard_upto = 1

    @initialize()
    def start(self) -> None:
        self._watch(1)

    def _watch(self, after: int) -> None:
        self.stream = self.machine.hub.open(lambda: None)
        self.stream.create(WatchSpec(key=b"a", end=b"\0", start_revision=Revision(after + 1)))

    def do(self, command: object) -> object:
        self.index += 1
        (result,) = self.machine.apply([Entry(Index(self.index), Term(1), encode(command))])
        return result

    @rule(key=KEYS, value=VALUES, lease=LEASES)
    def put(self, key: bytes, value: bytes, lease: LeaseId) -> None:
        result = self.do(Put(key, value, lease, prev_kv=True))
        if lease and lease not in self.model.leases:
            assert isinstance(result, LeaseNotFound)
            return
        state = self.model.change()
        before = state.get(key)
        self.model.put(state, key, value, lease)
        self.model.commit(state)
        assert result.revision == self.model.revision
        assert (result.prev.value if result.prev else None) == (before[3] if before else None)

    @rule(first=KEYS, end=ENDS)
    def delete(self, first: bytes, end: bytes) -> None:
        state = self.model.change()
        deleted = self.model.delete(state, first, end)
        self.model.commit(state)
        result = self.do(DeleteRange(first, end))
        assert (result.deleted, result.revision) == (deleted, self.model.revision)

    @rule(key=KEYS, value=VALUES, first=KEYS, end=ENDS)
    def txn(self, key: bytes, value: bytes, first: bytes, end: bytes) -> None:
        """Delete, then put outside of what was deleted: one revision."""
        if inside(first, end, key):
            return
        state = self.model.change()
        self.model.delete(state, first, end)
        self.model.put(state, key, value, 0)
        self.model.commit(state)
        result = self.do(Txn([], [DeleteRange(first, end), Put(key, value), Range(b"a", b"\0")], []))
        assert result.revision == self.model.revision
        assert [kv.key for kv in result.results[2].kvs] == sorted(k for k in state if k >= b"a")

    @rule(lease=st.sampled_from([1, 2]))
    def grant(self, lease: int) -> None:
        self.do(LeaseGrant(LeaseId(lease), 10))
        self.model.leases.add(lease)

    @rule(lease=st.sampled_from([1, 2]))
    def revoke(self, lease: int) -> None:
        result = self.do(LeaseRevoke(LeaseId(lease)))
        if lease not in self.model.leases:
            assert isinstance(result, LeaseNotFound)
            return
        self.model.leases.remove(lease)
        state = {key: facts for key, facts in self.model.change().items() if facts[4] != lease}
        self.model.commit(state)
        assert result.revision == self.model.revision

    @rule(back=st.integers(0, 6))
    def compact(self, back: int) -> None:
        revision = self.model.revision - back
        result = self.do(Compact(Revision(revision)))
        if revision <= self.model.compacted:
            assert isinstance(result, Compacted)
        else:
            self.model.compacted = revision

    @rule()
    def restart_from_snapshot(self) -> None:
        """A member that starts from a snapshot, and one whose machine is replaced by it, are the same."""
        snapshot = [chunk for chunk in self.machine.snapshot() if chunk]
        fresh = Machine(LeaseClock(lambda: 0.0))
        fresh.restore(snapshot)
        assert [chunk for chunk in fresh.snapshot() if chunk] == snapshot
        self.machine.store.trim_all()
        assert fresh.store.held_bytes == self.machine.store.held_bytes
        assert fresh.store.live_bytes == self.machine.store.live_bytes
        self.machine.restore(snapshot)

    @rule(first=KEYS, end=ENDS, back=st.integers(0, 8), limit=st.sampled_from([0, 1, 2, 3, 2**63 - 1]))
    def range(self, first: bytes, end: bytes, back: int, limit: int) -> None:
        revision = max(1, self.model.revision - back)
        request = Range(first, end, limit=limit, revision=Revision(revision))
        if revision < self.model.compacted:
            try:
                read(self.machine.store, request)
            except Compacted:
                return
            raise AssertionError("a compacted revision was read")
        result = read(self.machine.store, request)
        expected = sorted(
            (key, *facts) for key, facts in self.model.states[revision].items() if inside(first, end, key)
        )
        got = [(kv.key, kv.create_revision, kv.mod_revision, kv.version, kv.value, kv.lease) for kv in result.kvs]
        assert got == (expected[:limit] if limit else expected)
        assert result.count == len(expected)
        assert result.more == bool(limit and len(expected) > limit)
        assert result.revision == self.model.revision

    @rule()
    def listen(self) -> None:
        """What the watch told so far, applied to an empty dict, is the newest state; no revision came twice."""
        while (notice := self.stream.next()) is not None:
            match notice:
                case Created():
                    pass
                case Canceled():
                    assert notice.compact_revision == self.model.compacted > self.heard_upto + 1
                    self._listen_anew()
                    return
                case Changes():
                    for event in notice.events:
                        kv = event.kv
                        assert kv.mod_revision >= self.heard_upto
                        self.heard_upto = kv.mod_revision
                        if event.is_delete:
                            del self.heard[kv.key]
                        else:
                            facts = (kv.create_revision, kv.mod_revision, kv.version, kv.value, kv.lease)
                            self.heard[kv.key] = facts
        assert self.heard == self.model.states[self.model.revision]

    @rule()
    def listen_anew(self) -> None:
        self.machine.hub.close(self.stream)
        self._listen_anew()

    def _listen_anew(self) -> None:
        self.heard = dict(self.model.states[self.model.revision])
        self.heard_upto = self.model.revision
        self._watch(self.model.revision)

    @precondition(lambda self: self.heard_upto + 1 >= self.model.compacted)
    @rule()
    def resume(self) -> None:
        """Another member takes the watch over where it is."""
        while self.stream.next() is not None:
            pass  # sent, but lost with the connection
        self.machine.hub.close(self.stream)
        self._watch(self.heard_upto)

    @invariant()
    def sizes_add_up(self) -> None:
        assert self.machine.store.revision == self.model.revision
        assert len(self.machine.store.index) == len(self.model.states[self.model.revision])
        attached = {(lease.lease, key) for lease in self.machine.leases.all() for key in lease.keys}
        assert attached == {
            (facts[4], key) for key, facts in self.model.states[self.model.revision].items() if facts[4]
        }


MvccComparison.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestMvcc = MvccComparison.TestCase
