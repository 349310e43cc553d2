"""Members that differ are found out, wherever the difference lies, and by everybody alike."""

import asyncio

import pytest

from raft_store.audit import AuditState, pick_corrupt, report
from raft_store.config import Config
from raft_store.engine import Entry, Index, MemberId, Term
from raft_store.engines.memory import MemoryEngine
from raft_store.machine import Machine, decode, encode
from raft_store.member import running
from raft_store.mvcc.lease import LeaseClock
from raft_store.mvcc.model import Corrupt, KeyValue
from raft_store.mvcc.requests import Alarm, AlarmKind, Audit, Audited, Publish, Put, SetAlarm
from raft_store.mvcc.store import checksum
from tests.ports import free_ports


@pytest.mark.parametrize(
    ("hashes", "members", "corrupt"),
    [
        ({}, 3, []),
        ({1: 5, 2: 5, 3: 5}, 3, []),
        ({1: 5, 2: 6}, 3, []),  # the third one decides
        ({1: 5, 2: 6, 3: 5}, 3, [2]),
        ({1: 5, 2: 5, 3: 6}, 5, []),
        ({1: 5, 2: 5, 3: 6, 4: 5}, 5, [3]),
        ({1: 5, 2: 6}, 2, [1, 2]),  # nobody can tell
        ({1: 5, 2: 6, 3: 7}, 3, [1, 2, 3]),
        ({1: 5}, 1, []),
    ],
)
def test_whose_state_cannot_be_right(hashes, members, corrupt):
    state = AuditState(Index(9))
    for member, found in hashes.items():
        state = report(state, Index(9), MemberId(member), found)
    assert pick_corrupt(state, range(1, members + 1)) == corrupt


def test_late_and_repeated_answers_change_nothing():
    state = report(AuditState(Index(9)), Index(9), MemberId(1), 5)
    assert report(state, Index(8), MemberId(2), 6) is state
    assert report(state, Index(9), MemberId(1), 6) is state


class Group:
    """Three machines that apply the same log."""

    def __init__(self):
        self.machines = [Machine(LeaseClock(lambda: 0.0)) for _ in range(3)]
        self.index = 0
        for member in (1, 2, 3):
            self.do(Publish(member, f"m{member}", []))

    def do(self, command):
        self.index += 1
        entry = Entry(Index(self.index), Term(1), encode(command))
        return [machine.apply([entry])[0] for machine in self.machines]

    def audit(self, meanwhile=()):
        self.do(Audit())
        index = self.index
        steps = [checksum(machine.to_audit, machine.to_audit.revision) for machine in self.machines]
        for command in meanwhile:
            self.do(command)
        for member, one in enumerate(steps, 1):
            self.machines[member - 1].drop_audit()
            self.do(Audited(index, member, whole(one)))


def whole(steps):
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


def test_sound_members_go_on():
    group = Group()
    group.do(Put(b"a", b"1"))
    group.audit(meanwhile=[Put(b"a", b"2"), Put(b"b", b"1")])
    assert [machine.alarms for machine in group.machines] == [set()] * 3
    assert not any(machine.store.views for machine in group.machines)


def test_a_member_that_differs_raises_the_alarm_with_everybody():
    group = Group()
    group.do(Put(b"a", b"1"))
    versions = group.machines[1].store.index._versions
    versions[b"a"] = KeyValue(b"a", b"?", *(getattr(versions[b"a"], name) for name in KeyValue.__struct_fields__[2:]))
    group.audit()
    assert [machine.alarms for machine in group.machines] == [{(2, AlarmKind.CORRUPT)}] * 3
    assert all(isinstance(answer, Corrupt) for answer in group.do(Put(b"b", b"1")))
    group.do(SetAlarm(Alarm(2, AlarmKind.CORRUPT), active=False))
    assert not any(isinstance(answer, Corrupt) for answer in group.do(Put(b"b", b"1")))


def test_a_restored_member_knows_the_audit_and_has_no_part_in_it():
    group = Group()
    group.do(Audit())
    index = group.index
    group.do(Audited(index, 1, 5))
    fresh = Machine(LeaseClock(lambda: 0.0))
    fresh.restore(group.machines[0].snapshot())
    assert fresh.to_audit is None
    group.machines[2] = fresh
    group.do(Audited(index, 2, 6))
    group.do(Audited(index, 3, 6))
    assert [machine.alarms for machine in group.machines] == [{(1, AlarmKind.CORRUPT)}] * 3


async def test_running_members_audit_themselves(tmp_path):
    client, peer = free_ports(2)
    config = Config(
        name="a",
        members={"a": f"http://127.0.0.1:{peer}"},
        data_dir=tmp_path / "data",
        client_url=f"http://127.0.0.1:{client}",
        client_listen=f"127.0.0.1:{client}",
        peer_listen=f"127.0.0.1:{peer}",
        corrupt_check_s=1.0,  # long enough for an answer, on a busy machine too, before the next audit makes it void
    )
    async with asyncio.timeout(60), running(config) as member:
        while not member.machine.audit.hashes:  # noqa: ASYNC110 - it comes through the log
            await asyncio.sleep(0.02)
        assert await member.backend.propose(SetAlarm(Alarm(1, AlarmKind.NOSPACE), active=False), list) == []


class Reluctant(MemoryEngine):
    """Takes what members found only when it is told to."""

    def __init__(self, member):
        super().__init__(member, [])
        self.told = asyncio.Event()
        self.asked = asyncio.Queue()

    async def propose(self, data, *, timeout_s):
        command = decode(data)
        self.asked.put_nowait(type(command))
        if isinstance(command, Audited):
            await self.told.wait()
        return await super().propose(data, timeout_s=timeout_s)


async def test_no_audit_begins_while_the_answer_to_the_last_one_is_under_way(monkeypatch, tmp_path):
    """It would void that answer; on a machine with a slow disk there would never be one."""
    monkeypatch.setattr("raft_store.member.PULSE_S", 0.001)
    config = Config(
        name="a",
        members={"a": "http://127.0.0.1:1"},
        data_dir=tmp_path,
        client_url="http://127.0.0.1:1",
        client_listen="127.0.0.1:0",
        corrupt_check_s=1e-6,
    )
    engine = Reluctant(config.member)
    async with asyncio.timeout(30), running(config, engine) as member:
        asked = [await engine.asked.get() for _ in range(3)]
        for _ in range(50):  # pulses, each of which would call another audit
            await asyncio.sleep(0.001)
        assert set(asked) == {Publish, Audit, Audited}
        assert engine.asked.empty()
        engine.told.set()
        assert await engine.asked.get() is Audit
        assert member.machine.alarms == set()
