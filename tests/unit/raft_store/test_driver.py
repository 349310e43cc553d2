"""The asyncio edge of a replica, where the disk and the machine are slower than what comes in."""

import asyncio
import logging
from random import Random
from types import SimpleNamespace

import pytest

from raft_store.disk.directory import OsDirectory
from raft_store.disk.snapshot import Framer
from raft_store.disk.storage import Storage
from raft_store.driver import Driver, DriverConfig
from raft_store.engine import Index, MemberId, NoLeader, Stopped, Term
from raft_store.raft.core import Core, CoreConfig
from raft_store.raft.log import Log
from raft_store.raft.membership import founded
from raft_store.raft.messages import HardState, Save, SnapshotMark
from raft_store.raft.replica import Replica, Work


class Restored:
    """A machine that remembers what it was restored from."""

    def __init__(self):
        self.chunks = []

    def begin_restore(self):
        return self

    def feed(self, chunk):
        self.chunks.append(chunk)

    def finish(self):
        pass

    def apply(self, entries):
        return [None for _ in entries]


@pytest.fixture
def storage(tmp_path):
    directory = OsDirectory(tmp_path)
    storage = Storage(directory)
    storage.recover()
    yield storage
    storage.close()
    directory.close()


def received(storage, index):
    """Take in another member's snapshot."""
    framer, incoming = Framer(), storage.receive_snapshot()
    incoming.write(framer.head(SnapshotMark(Index(index), Term(1))) + framer.chunk(b"%d" % index) + framer.end())
    return incoming.finish()


async def test_a_snapshot_can_be_restored_although_newer_ones_came_meanwhile(storage):
    machine, fatal = Restored(), []
    driver = Driver(
        DriverConfig(tick_s=1, snapshot_entries=100, keep_entries=10),
        replica=SimpleNamespace(
            applied=Index(0), core=SimpleNamespace(member=MemberId(1)), saved=lambda save: None, propose=None
        ),
        storage=storage,
        machine=machine,
        on_fatal=fatal.append,
    )
    driver._running, driver._schedule = True, lambda: None
    state = HardState(Term(1), MemberId(0))
    for snapshot in [received(storage, index) for index in (5, 6, 7)]:
        driver._do(Work((), Save(state, (), snapshot), None, (), (), (), ()))
        driver._do(Work((), None, snapshot, (), (), (), ()))
    async with asyncio.timeout(10):
        await driver._catching_up
    await driver.stop()
    assert (machine.chunks, fatal) == ([b"5", b"6", b"7"], [])


async def test_who_gave_up_waiting_for_a_leader_is_forgotten(storage):
    """Clients may ask again for hours."""
    core = Core(
        CoreConfig(member=MemberId(1)),
        hard_state=HardState(),
        log=Log(SnapshotMark(configuration=founded({MemberId(1): (), MemberId(2): ()}))),
        random=Random(1),
        logger=logging.getLogger("test"),
    )
    replica, fatal = Replica(core, session=1), []
    config = DriverConfig(tick_s=0.01, snapshot_entries=100, keep_entries=10)
    driver = Driver(config, replica=replica, storage=storage, machine=Restored(), on_fatal=fatal.append)
    driver.start(lambda messages: None, lambda step: None)
    patient = asyncio.create_task(driver.read_barrier(timeout_s=60))
    for _ in range(3):
        with pytest.raises(NoLeader):
            await driver.read_barrier(timeout_s=0.01)
    async with asyncio.timeout(10):
        while len(replica._readers._waiting) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await driver.stop()
    with pytest.raises(Stopped):
        await patient
    assert not fatal


async def test_who_asks_to_read_in_one_turn_shares_one_question(storage):
    core = Core(
        CoreConfig(member=MemberId(1)),
        hard_state=HardState(),
        log=Log(SnapshotMark(configuration=founded({MemberId(1): (), MemberId(2): ()}))),
        random=Random(1),
        logger=logging.getLogger("test"),
    )
    replica, fatal, told = Replica(core, session=1), [], []
    config = DriverConfig(tick_s=0.01, snapshot_entries=100, keep_entries=10)
    driver = Driver(config, replica=replica, storage=storage, machine=Restored(), on_fatal=fatal.append)
    driver.start(lambda messages: None, lambda step: None)
    for _ in range(3):
        driver.when_readable(told.append, timeout_s=0.01)
    assert len(replica._readers._waiting) == 1
    driver._pump()
    driver.when_readable(told.append, timeout_s=60)  # the question of the others may have left
    assert len(replica._readers._waiting) == 2
    async with asyncio.timeout(10):
        while len(replica._readers._waiting) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert [type(failure) for failure in told] == [NoLeader] * 3
    await driver.stop()
    await asyncio.sleep(0)
    assert [type(failure) for failure in told] == [NoLeader] * 3 + [Stopped]
    with pytest.raises(Stopped):
        driver.when_readable(told.append, timeout_s=60)
    assert not fatal


async def test_who_asks_to_read_is_told_when_the_machine_is_there(storage):
    core = Core(
        CoreConfig(member=MemberId(1)),
        hard_state=HardState(),
        log=Log(SnapshotMark(configuration=founded({MemberId(1): ()}))),
        random=Random(1),
        logger=logging.getLogger("test"),
    )
    machine, told = Restored(), asyncio.get_running_loop().create_future()
    config = DriverConfig(tick_s=0.01, snapshot_entries=100, keep_entries=10)
    driver = Driver(config, replica=Replica(core, session=1), storage=storage, machine=machine, on_fatal=print)
    driver.start(lambda messages: None, lambda step: None)
    driver.when_readable(told.set_result, timeout_s=60)
    async with asyncio.timeout(10):
        assert await told is None
    assert not driver._waits._deadlines
    await driver.stop()
