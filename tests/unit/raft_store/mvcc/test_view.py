"""A view is the store of one moment, whatever happens to the store while it is read."""

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft_store.engine import Entry, Index, Term
from raft_store.machine import Machine, encode
from raft_store.mvcc import store as store_module
from raft_store.mvcc.lease import LeaseClock
from raft_store.mvcc.model import LeaseId, Revision
from raft_store.mvcc.notices import WatchSpec
from raft_store.mvcc.requests import (
    Alarm,
    AlarmKind,
    Compact,
    DeleteRange,
    LeaseGrant,
    LeaseRenew,
    LeaseRevoke,
    Publish,
    Put,
    Range,
    SetAlarm,
    Txn,
)
from raft_store.mvcc.store import checksum
from raft_store.mvcc.txn import read

KEYS = st.sampled_from([b"a", b"b", b"ba", b"c", b"d"])
LEASES = st.sampled_from([LeaseId(1), LeaseId(2)])
COMMANDS = st.lists(
    st.one_of(
        st.builds(Put, KEYS, st.binary(max_size=3), st.one_of(st.just(LeaseId(0)), LEASES)),
        st.builds(DeleteRange, KEYS, st.sampled_from([b"", b"\0", b"c"])),
        st.builds(lambda key, value: Txn([], [DeleteRange(b"d"), Put(key, value)], []), KEYS, st.binary(max_size=2)),
        st.builds(lambda back: ("compact", back), st.integers(0, 4)),
        st.builds(lambda: ("trim", 1)),
        st.builds(LeaseGrant, LEASES, st.just(60)),
        st.builds(LeaseRevoke, LEASES),
        st.builds(lambda lease: LeaseRenew([lease]), LEASES),
        st.builds(
            lambda kind, active: SetAlarm(Alarm(7, kind), active=active), st.just(AlarmKind.NOSPACE), st.booleans()
        ),
        st.builds(lambda member: Publish(member, f"m{member}", [f"http://m{member}"]), st.integers(1, 3)),
    ),
    max_size=30,
)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    """So small that a handful of keys takes many steps."""
    monkeypatch.setattr(store_module, "STEP_KEYS", 2)
    monkeypatch.setattr(store_module, "BATCH_BYTES", 120)


class Life:
    def __init__(self):
        self.machine = Machine(LeaseClock(lambda: 0.0))
        self.index = 0

    def do(self, command):
        if command == ("trim", 1):
            self.machine.store.trim(1)
            return
        if isinstance(command, tuple) and command[0] == "compact":
            command = Compact(Revision(max(1, self.machine.store.revision - command[1])))
        if isinstance(command, Txn) and command.success[1].key == b"d":
            return  # would be refused before it is proposed
        self.index += 1
        self.machine.apply([Entry(Index(self.index), Term(1), encode(command))])


def answers(machine):
    """Everything that can be asked, asked."""
    store = machine.store
    oldest = max(1, store.compact_revision)
    reads = [
        [read(store, Range(key, end, revision=Revision(revision))) for key, end in ((b"a", b"\0"), (b"b", b""))]
        for revision in range(oldest, store.revision + 1)
    ]
    stream = machine.hub.open(lambda: None)
    stream.create(WatchSpec(key=b"a", end=b"\0", start_revision=Revision(oldest)))
    heard = []
    while (notice := stream.next()) is not None:
        heard.append(notice)
    machine.hub.close(stream)
    leases = [(lease.lease, lease.ttl_s, lease.renewals, sorted(lease.keys)) for lease in machine.leases.all()]
    facts = (store.revision, store.compact_revision, store.live_bytes, sorted(machine.alarms), dict(machine.members))
    return reads, heard, leases, facts


def whole(steps):
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


@settings(max_examples=200, deadline=None)
@given(COMMANDS, COMMANDS, st.data())
def test_a_store_loaded_from_a_snapshot_answers_like_the_one_it_was_taken_from(before, meanwhile, data):
    """... also if that one went on being written, compacted and trimmed while the snapshot was being read."""
    life = Life()
    for command in before:
        life.do(command)
    expected = answers(life.machine)
    snapshot, chunks = life.machine.snapshot(), []
    for command in meanwhile:
        chunks += islice(snapshot, data.draw(st.integers(0, 2)))
        life.do(command)
    chunks += snapshot
    restored = Life()
    restored.do(Put(b"replaced", b""))
    restored.machine.restore(chunks)
    assert answers(restored.machine) == expected
    # And it goes on like it: the same commands have the same effects.
    twin = Life()
    for command in (*before, *meanwhile):
        twin.do(command)
    for command in meanwhile:
        restored.do(command)
    assert answers(restored.machine) == answers(twin.machine) == answers(life.machine)


@settings(max_examples=100, deadline=None)
@given(COMMANDS, COMMANDS)
def test_a_checksum_is_of_one_moment_and_knows_nothing_of_trimming(before, meanwhile):
    life, twin = Life(), Life()
    for command in before:
        life.do(command)
        twin.do(command)
        twin.machine.store.trim_all()
    view, twins = life.machine.store.view(), twin.machine.store.view()
    steps = checksum(view, view.revision)
    for command in meanwhile:
        life.do(command)
    assert whole(steps) == whole(checksum(twins, twins.revision))


def test_a_checksum_notices_every_difference():
    sums = set()
    for value, count in ((b"x", 1), (b"y", 1), (b"x", 2)):
        life = Life()
        for _ in range(count):
            life.do(Put(b"a", value))
        view = life.machine.store.view()
        sums.add(whole(checksum(view, view.revision)))
    assert len(sums) == 3


def test_nothing_is_given_back_while_a_view_is_open():
    life = Life()
    for i in range(10):
        life.do(Put(b"a", b"%d" % i))
    store = life.machine.store
    view = store.view()
    held = store.held_bytes
    life.do(("compact", 0))
    assert store.held_bytes == held
    view.close()
    store.trim_all()
    assert store.held_bytes == store.live_bytes < held


def test_a_snapshot_that_is_given_up_lets_the_store_trim():
    life = Life()
    life.do(Put(b"a", b"1"))
    snapshot = life.machine.snapshot()
    assert life.machine.store.views
    snapshot.close()
    assert not life.machine.store.views
