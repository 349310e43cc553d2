"""Members come and go on real disks and real connections, while somebody writes."""

import asyncio
import contextlib
import itertools
import shutil
from types import SimpleNamespace

import msgspec
import pytest

from raft_store.disk.directory import DiskError, OsDirectory
from raft_store.disk.storage import Storage
from raft_store.engine import (
    Change,
    ChangeKind,
    ChangeRefused,
    EngineError,
    Entry,
    Index,
    MemberId,
    Refusal,
    Removed,
    Term,
)
from raft_store.engines import native
from raft_store.engines.native import NativeConfig, NativeEngine
from raft_store.joining import JoinFailed
from raft_store.raft.log import Log
from raft_store.raft.membership import changed, encode, founded
from raft_store.raft.messages import HardState, Save
from raft_store.recovery import give_up_others
from raft_store.regrouping import RETRY_S, Regrouping
from tests.ports import free_ports

from .test_native import Values

PATIENT_S = 30


class Lab:
    """Members by name: some found the group, the others join it."""

    def __init__(self, folder, size=7, founders=(1,)):
        self._folder = folder
        self._addresses = {MemberId(i): f"127.0.0.1:{port}" for i, port in enumerate(free_ports(size), 1)}
        self._founders = {MemberId(i): self._addresses[MemberId(i)] for i in founders}
        self.engines = {}
        self.machines = {}
        self.fatal = {}

    def config(self, name, **options):
        members = self._founders if name in self._founders else {**self._addresses}
        return NativeConfig(
            member=MemberId(name),
            members=members,
            data_dir=self._folder / str(name),
            listen=self._addresses[name],
            name=f"m{name}",
            joins=name not in self._founders,
            **options,
        )

    async def start(self, *names, **options):
        for name in names:
            self.fatal[name] = asyncio.get_running_loop().create_future()
            self.machines[name] = Values()
            self.engines[name] = NativeEngine(self.config(name, **options), on_fatal=self.fatal[name].set_result)
            await self.engines[name].start(self.machines[name])

    async def stop(self, *names):
        for name in names or tuple(self.engines):
            await self.engines.pop(name).stop()

    def kill(self, name):
        """End it like a crash: nothing is handed over."""
        self.engines[name]._driver.halt()

    def id(self, name):
        return self.engines[name].status().member

    async def change(self, asked, kind, member, *, name=None, **options):
        urls = (self._addresses[name],) if name else ()
        await self.engines[asked].change_members(
            [Change(ChangeKind[kind], MemberId(member), urls)], timeout_s=PATIENT_S, started=None, **options
        )

    async def add(self, asked, name, kind="ADD"):
        """Add a member as etcd does it, then start it; return its id."""
        member = MemberId(1000 + name)
        await self.change(asked, kind, member, name=name)
        await self.start(name)
        assert self.id(name) == member
        return member

    async def promote(self, asked, member):
        """Let a learner vote as soon as it has caught up."""
        async with asyncio.timeout(PATIENT_S):
            while True:
                try:
                    return await self.change(asked, "PROMOTE", member)
                except ChangeRefused as exc:
                    assert exc.refusal is Refusal.LEARNER_BEHIND  # noqa: PT017 - any other would be a mistake
                await asyncio.sleep(0.01)

    def members(self, name):
        return {record.member for record in self.engines[name].members()}

    async def leader(self):
        async with asyncio.timeout(PATIENT_S):
            while True:
                for name, engine in self.engines.items():
                    if engine.status().role == "leader":
                        return name
                await asyncio.sleep(0.01)


@pytest.fixture
async def lab(tmp_path, monkeypatch):
    monkeypatch.setattr(native, "LINGER_S", 0.1)
    lab = Lab(tmp_path)
    yield lab
    await lab.stop()


class Writer:
    """Writes one value after the other, at one member after the other; remembers what was acknowledged."""

    def __init__(self, lab):
        self._lab = lab
        self.acknowledged = []
        self._task = asyncio.create_task(self._write())

    async def _write(self):
        for number in itertools.count():
            engines = tuple(self._lab.engines.values())
            value = b"%d" % number
            with contextlib.suppress(EngineError):
                await engines[number % len(engines)].propose(value, timeout_s=2)
                self.acknowledged.append(value)
            await asyncio.sleep(0)

    async def some_more(self, count=20):
        """Let so many writes come through."""
        wanted = len(self.acknowledged) + count
        async with asyncio.timeout(PATIENT_S):
            while len(self.acknowledged) < wanted:  # noqa: ASYNC110 - the writer's own pace
                await asyncio.sleep(0.01)

    async def end(self):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_a_group_grows_shrinks_and_heals_while_somebody_writes(lab):
    await lab.start(1)
    writer = Writer(lab)
    await writer.some_more()
    await lab.add(1, 2)
    await lab.add(2, 3)
    await lab.add(3, 4, "ADD_LEARNER")
    await writer.some_more()
    await lab.promote(2, 1004)
    await lab.add(1, 5)
    await lab.engines[5].read_barrier(timeout_s=PATIENT_S)
    assert lab.members(1) == lab.members(5) == {1, 1002, 1003, 1004, 1005}
    await writer.some_more()
    # A dead one is replaced, then the group shrinks to three, its leader among those that go.
    lab.kill(2)
    await lab.change(3, "REMOVE", 1002)
    await lab.stop(2)
    await lab.add(3, 6)
    await writer.some_more()
    leader = await lab.leader()
    victims = [leader, next(name for name in (3, 4, 5, 6, 1) if name != leader)]
    survivors = [name for name in (1, 3, 4, 5, 6) if name not in victims]
    for victim in victims:
        gone = lab.id(victim)
        await lab.change(survivors[0], "REMOVE", gone)
        assert isinstance(await asyncio.wait_for(lab.fatal[victim], PATIENT_S), Removed)
        await lab.stop(victim)
    await writer.some_more()
    await writer.end()
    for survivor in survivors:
        await lab.engines[survivor].read_barrier(timeout_s=PATIENT_S)
        assert lab.members(survivor) == {lab.id(name) for name in survivors}
        values = lab.machines[survivor].values
        assert set(writer.acknowledged) <= set(values)
        assert [value for value in values if values.count(value) > 1] == []


async def test_several_members_are_exchanged_in_one_joint_change(tmp_path):
    lab = Lab(tmp_path, founders=(1, 2, 3))
    try:
        await lab.start(1, 2, 3)
        await lab.engines[1].propose(b"x", timeout_s=PATIENT_S)
        for name in (4, 5):  # as learners first, so that the new majority is there at once
            await lab.add(1, name, "ADD_LEARNER")
            await lab.promote(1, 1000 + name)
        changes = [Change(ChangeKind.REMOVE, MemberId(2)), Change(ChangeKind.REMOVE, MemberId(3))]
        await lab.engines[4].change_members(changes, timeout_s=PATIENT_S, started=None)
        assert lab.members(4) == {1, 1004, 1005}
        for name in (2, 3):
            assert isinstance(await asyncio.wait_for(lab.fatal[name], PATIENT_S), Removed)
        await lab.stop(2, 3)
        await lab.engines[5].propose(b"y", timeout_s=PATIENT_S)
        assert lab.machines[5].values == [b"x", b"y"]
    finally:
        await lab.stop()


async def test_whoever_asked_hears_of_a_joint_change_when_it_knows_the_end_of_it():
    """The leader knows first: its answer may come before its word that the old voters are gone."""

    async def reconfigure(leader, changes, **more):
        return Index(7)

    core = SimpleNamespace(
        leader=2, member=4, log=SimpleNamespace(committed=7), configuration=SimpleNamespace(outgoing={2, 3})
    )
    regrouping = Regrouping(core, None, started=set, on_removed=None)
    regrouping.use(SimpleNamespace(reconfigure=reconfigure))
    asking = asyncio.create_task(regrouping.change_anywhere([], timeout_s=PATIENT_S, joint=True, started=None))
    await asyncio.sleep(RETRY_S / 2)
    assert not asking.done()
    core.configuration.outgoing = frozenset()
    await asking


async def test_everybody_remembers_the_group_after_a_restart(lab):
    await lab.start(1)
    await lab.add(1, 2)
    await lab.add(1, 3)
    await lab.engines[1].propose(b"x", timeout_s=PATIENT_S)
    await lab.stop()
    await lab.start(3, 1, 2)
    await lab.engines[2].read_barrier(timeout_s=PATIENT_S)
    assert lab.members(2) == {1, 1002, 1003}
    assert lab.machines[2].values == [b"x"]
    assert lab.id(3) == 1003


async def test_a_member_that_slept_through_its_removal_is_told(lab):
    await lab.start(1)
    await lab.add(1, 2)
    await lab.add(1, 3)
    await lab.stop(3)
    await lab.change(1, "REMOVE", 1003)
    await lab.start(3)
    assert isinstance(await asyncio.wait_for(lab.fatal[3], PATIENT_S), Removed)
    await lab.stop(3)
    with pytest.raises(Removed, match="never comes back"):
        await lab.start(3)


async def test_a_member_moves(lab):
    await lab.start(1)
    await lab.add(1, 2)
    await lab.add(1, 3)
    lab._addresses[MemberId(3)] = lab._addresses[MemberId(7)]
    await lab.change(1, "MOVE", 1003, name=3)
    await lab.stop(3)
    await lab.start(3)
    await lab.engines[1].propose(b"x", timeout_s=PATIENT_S)
    await lab.engines[3].read_barrier(timeout_s=PATIENT_S)
    assert lab.machines[3].values == [b"x"]
    await lab.stop(2)  # the others reach it where it is now
    await lab.engines[1].propose(b"y", timeout_s=PATIENT_S)


async def test_the_last_one_goes_on_alone_and_a_new_group_grows_from_it(lab):
    """Quorum-loss recovery: two of three are gone for ever."""
    await lab.start(1)
    await lab.add(1, 2)
    await lab.add(1, 3)
    await lab.engines[1].propose(b"x", timeout_s=PATIENT_S)
    lab.kill(1)
    lab.kill(3)
    with pytest.raises(EngineError):
        await lab.engines[2].propose(b"never", timeout_s=0.3)
    await lab.stop()
    await lab.start(2, force_new_cluster=True)
    await lab.engines[2].propose(b"y", timeout_s=PATIENT_S)
    assert lab.members(2) == {1002}
    await lab.stop(2)
    await lab.start(2)  # without the wish: it is in the log
    await lab.add(2, 4)
    await lab.engines[4].propose(b"z", timeout_s=PATIENT_S)
    assert [value for value in lab.machines[4].values if value != b"never"] == [b"x", b"y", b"z"]
    # Whoever was given up is not let in again, and ends itself.
    await lab.start(1)
    assert isinstance(await asyncio.wait_for(lab.fatal[1], PATIENT_S), Removed)


def test_the_others_are_given_up_although_their_removal_was_under_way(tmp_path):
    """The second of two died before it had agreed to go, and the first one cannot agree alone."""
    first, second = MemberId(1), MemberId(2)
    founders = founded({first: ("a:1",), second: ("b:1",)})
    without = encode(changed(founders, [Change(ChangeKind.REMOVE, second)]))
    term = Term(1)
    entries = [Entry(Index(1), term, b""), Entry(Index(2), term, without, reconfigures=True)]
    with contextlib.closing(OsDirectory(tmp_path)) as directory:
        for force in (False, True, False):
            with contextlib.closing(Storage(directory)) as storage:
                past = storage.recover(founders)
                if not past.log.last_index:
                    storage.save(Save(HardState(term, first), entries, None))
                    past = msgspec.structs.replace(past, log=Log(past.log.base, entries))
                    assert past.log.step.configuration.voters == {first, second}
                if force:
                    past = give_up_others(storage, past, first)
        assert past.log.step.configuration.voters == {first}
        assert past.log.step.sealed


async def test_who_was_not_added_cannot_join(lab, monkeypatch):
    monkeypatch.setattr("raft_store.joining.JOIN_S", 0.5)
    await lab.start(1)
    await lab.leader()
    with pytest.raises(JoinFailed, match="etcdctl member add NAME --peer-urls="):
        await NativeEngine(lab.config(2)).start(Values())
    with pytest.raises(JoinFailed, match="this is cluster 'lab', the caller is of 'other'"):
        await NativeEngine(lab.config(2, cluster="other")).start(Values())


async def test_a_founder_that_lost_its_data_does_not_begin_anew(tmp_path):
    """It may have confirmed what nobody else has: as a new member it can do no harm."""
    lab = Lab(tmp_path, founders=(1, 2))
    seen = []
    try:
        for name in (1, 2):
            lab.fatal[name] = asyncio.get_running_loop().create_future()
            lab.machines[name] = Values()
            started = lab.engines[name] = NativeEngine(lab.config(name), started=lambda: seen)
            await started.start(lab.machines[name])
        seen.extend([MemberId(1), MemberId(2)])
        await lab.engines[1].propose(b"x", timeout_s=PATIENT_S)
        await lab.stop(2)
        shutil.rmtree(tmp_path / "2")
        with pytest.raises(JoinFailed, match="its data is gone"):
            await NativeEngine(lab.config(2)).start(Values())
    finally:
        await lab.stop()


async def test_another_members_data_is_refused(lab, tmp_path):
    await lab.start(1)
    await lab.stop(1)
    (tmp_path / "1").rename(tmp_path / "2")
    with pytest.raises(DiskError, match=r"belongs to member 1 m1 of cluster 'lab', not to .* m2"):
        await NativeEngine(lab.config(2)).start(Values())


@pytest.mark.parametrize(
    ("kind", "member", "refusal"),
    [("REMOVE", 9, Refusal.MEMBER_UNKNOWN), ("ADD", 1, Refusal.MEMBER_EXISTS), ("REMOVE", 1, Refusal.LAST_VOTER)],
)
async def test_a_refusal_says_why(lab, kind, member, refusal):
    await lab.start(1)
    with pytest.raises(ChangeRefused) as caught:
        await lab.change(1, kind, member, name=6 if kind == "ADD" else None)
    assert caught.value.refusal is refusal


async def test_a_refusal_travels_from_the_leader(lab):
    await lab.start(1)
    await lab.add(1, 2)
    follower = 3 - await lab.leader()
    with pytest.raises(ChangeRefused) as caught:
        await lab.change(follower, "PROMOTE", lab.id(follower))
    assert caught.value.refusal is Refusal.NOT_A_LEARNER
