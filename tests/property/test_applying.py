"""Entries applied many at once, the quick way, against the same ones applied one by one, the plain way."""

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from raft_store.engine import Entry, Index, Term
from raft_store.machine import AnyCommand, Machine, encode
from raft_store.mvcc.lease import LeaseClock
from raft_store.mvcc.model import Event, LeaseId, Revision
from raft_store.mvcc.notices import Changes, WatchSpec
from raft_store.mvcc.requests import (
    Alarm,
    AlarmKind,
    Audit,
    Compact,
    DeleteRange,
    LeaseGrant,
    LeaseRevoke,
    Put,
    PutResult,
    SetAlarm,
    Txn,
)

KEYS = st.sampled_from([b"a", b"b", b"c"])
LEASES = st.sampled_from([LeaseId(1), LeaseId(2)])
PLAIN = st.builds(Put, KEYS, st.binary(max_size=3))
OTHERS = st.one_of(
    st.none(),  # a leader's first entry
    st.builds(Put, KEYS, st.binary(max_size=3), LEASES),
    st.builds(Put, KEYS, st.binary(max_size=3), prev_kv=st.just(True)),
    st.builds(Put, KEYS, st.just(b""), ignore_value=st.just(True)),
    st.builds(Put, KEYS, st.binary(max_size=3), ignore_lease=st.just(True)),
    st.builds(DeleteRange, KEYS, st.sampled_from([b"", b"\0"])),
    st.builds(lambda key: Txn([], [Put(key, b"txn")], []), KEYS),
    st.builds(LeaseGrant, LEASES, st.just(10)),
    st.builds(LeaseRevoke, LEASES),
    st.builds(lambda revision: Compact(Revision(revision)), st.integers(1, 12)),
    st.builds(SetAlarm, st.just(Alarm(1, AlarmKind.NOSPACE)), st.booleans()),
    st.just(Audit()),
)
COMMANDS = st.one_of(PLAIN, PLAIN, OTHERS)


class Member:
    """A machine, and somebody who watches it."""

    def __init__(self) -> None:
        self.machine = Machine(LeaseClock(lambda: 0.0))
        self.stream = self.machine.hub.open(lambda: None)
        self.stream.create(WatchSpec(key=b"a", end=b"\0"))
        self.heard: list[Event] = []

    def apply(self, entries: list[Entry], *, wanted: bool) -> list[object]:
        results = list(self.machine.apply(entries, wanted=wanted))
        while (notice := self.stream.next()) is not None:
            if isinstance(notice, Changes):
                self.heard.extend(notice.events)
        return results

    def state(self) -> object:
        machine = self.machine
        audited = None if machine.to_audit is None else machine.to_audit.revision
        machine.drop_audit()  # as long as its view is open, nothing is trimmed: how much is, depends on what comes together
        machine.store.trim_all()
        return (
            [chunk for chunk in machine.snapshot() if chunk],
            machine.store.history,
            (machine.store.revision, machine.store.written, machine.store.held_bytes, machine.store.live_bytes),
            [(lease.lease, lease.keys) for lease in machine.leases.all()],
            machine.applied.puts,
            audited,
            self.heard,
        )


def plainly(command: AnyCommand | None) -> AnyCommand | None:
    """Return what comes to the same, but for the answer: a put that wants to know what was there goes its own way."""
    return replace(command, prev_kv=True) if isinstance(command, Put) else command


def told(result: object) -> object:
    """Return what both ways have to answer."""
    return (type(result), result.revision) if isinstance(result, PutResult) else (type(result), repr(result))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.lists(COMMANDS, min_size=1, max_size=8), st.booleans()), max_size=6))
def test_many_at_once_are_as_one_by_one(portions: list[tuple[list[AnyCommand | None], bool]]) -> None:
    quick, plain, index = Member(), Member(), 0
    for commands, wanted in portions:
        entries: list[Entry] = []
        expected: list[object] = []
        for command in commands:
            index += 1
            entries.append(_entry(index, command))
            expected.extend(plain.apply([_entry(index, plainly(command))], wanted=True))
        foreseen: list[object] = []
        if None not in commands:
            foreseen = list(quick.machine.foresee([entry.data for entry in entries]))
            assert bool(foreseen) == (all(map(_is_plain, commands)) and not quick.machine.alarms)
        results = quick.apply(entries, wanted=wanted)
        if wanted:
            assert list(map(told, results)) == list(map(told, expected))
            assert not foreseen or foreseen == results
        assert quick.state() == plain.state()


def _is_plain(command: AnyCommand | None) -> bool:
    return isinstance(command, Put) and command == Put(command.key, command.value)


def _entry(index: int, command: AnyCommand | None) -> Entry:
    return Entry(Index(index), Term(1), b"" if command is None else encode(command))
