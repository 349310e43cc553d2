"""The asyncio edge of a replica, where the disk and the machine are slower than what comes in."""

import asyncio
import logging
import threading
from random import Random
from types import SimpleNamespace

import pytest
import uvloop

from raft_store import driver as driving
from raft_store.disk.directory import OsDirectory
from raft_store.disk.snapshot import Framer
from raft_store.disk.storage import Storage
from raft_store.driver import Driver, DriverConfig
from raft_store.engine import Entry, Index, MemberId, NoLeader, Overloaded, ProposalTimedOut, Stopped, Term
from raft_store.etcd_api.errors import rpc_error
from raft_store.raft import messages as m
from raft_store.raft.core import Core, CoreConfig, Role
from raft_store.raft.log import Log
from raft_store.raft.membership import founded
from raft_store.raft.messages import HardState, Save, SnapshotMark
from raft_store.raft.proposals import pack, unpack
from raft_store.raft.replica import Replica, Work

GROUP = founded({MemberId(1): (), MemberId(2): ()})


class Restored:
    """A machine that remembers what it was restored from, and what it applied."""

    def __init__(self):
        self.chunks = []
        self.applied = []

    def apply(self, entries, *, wanted=True):
        self.applied.extend(entry.index for entry in entries)
        return [None] * len(entries)

    def foresee(self, items):
        return ()

    def begin_restore(self):
        return self

    def feed(self, chunk):
        self.chunks.append(chunk)

    def finish(self):
        pass


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
            applied=Index(0),
            core=SimpleNamespace(member=MemberId(1), role=Role.FOLLOWER),
            saved=lambda save: None,
            propose_together=None,
        ),
        storage=storage,
        machine=machine,
        on_fatal=fatal.append,
    )
    driver._running = driver._pump_scheduled = True  # there is no core to ask for more
    state = HardState(Term(1), MemberId(0))
    for snapshot in [received(storage, index) for index in (5, 6, 7)]:
        driver._do(Work((), Save(state, (), snapshot), None, (), (), (), ()))
        driver._do(Work((), None, snapshot, (), (), (), ()))
    async with asyncio.timeout(10):
        await driver._restores.task
    await driver.stop()
    assert (machine.chunks, driver.applied, fatal) == ([b"5", b"6", b"7"], 7, [])


def raising(*_, **__):
    raise ValueError("a bug")


@pytest.mark.parametrize("where", ["begin", "at once", "later"])
async def test_a_mistake_in_a_save_ends_the_member(storage, where):
    """Nothing would be saved any more, and nobody would know why."""
    driver, fatal = following(storage)

    def begin(save, saved, *, calm):
        if where == "later":
            asyncio.get_running_loop().call_soon(saved, None)
        return where == "at once"

    driver._saver.begin = raising if where == "begin" else begin
    driver._replica.saved = raising
    driver.receive([append(1)])
    await until(lambda: fatal)
    assert [str(exc) for exc in fatal] == ["a bug"]
    await driver.stop()


def append(index, after=0):
    """Return a leader's message with one entry, which is committed."""
    return m.Append(
        MemberId(2),
        MemberId(1),
        Term(1),
        prev_index=Index(index - 1),
        prev_term=Term(after),
        entries=(Entry(Index(index), Term(1), b"\0" * 16),),
        commit=Index(index),
    )


def following(storage):
    """Return a driver of one of two members, whose leader is the test, and why it cannot go on."""
    core = Core(
        CoreConfig(member=MemberId(1)),
        hard_state=HardState(),
        log=Log(SnapshotMark(configuration=GROUP)),
        random=Random(1),
        logger=logging.getLogger("test"),
    )
    fatal = []
    config = DriverConfig(tick_s=0.01, snapshot_entries=100_000, keep_entries=10)
    driver = Driver(
        config, replica=Replica(core, session=1), storage=storage, machine=Restored(), on_fatal=fatal.append
    )
    driver.start(lambda messages: None, lambda step: None)
    return driver, fatal


@pytest.fixture
async def follower(storage):
    driver, fatal = following(storage)
    yield driver
    await driver.stop()
    assert not fatal


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_what_comes_during_a_restore_waits_in_the_log_alone(follower, storage, monkeypatch):
    """A long restore beside a busy leader may not hold everything twice, nor claim to have applied it."""
    arrived = threading.Event()

    def slow_chunks(mark):
        assert arrived.wait(10)
        yield b"state"

    monkeypatch.setattr(storage, "read_snapshot", slow_chunks)
    mark = SnapshotMark(Index(5), Term(1), GROUP)
    framer, incoming = Framer(), storage.receive_snapshot()
    incoming.write(framer.head(mark) + framer.end())
    snapshot = incoming.finish()
    follower.receive([m.InstallSnapshot(MemberId(2), MemberId(1), Term(1), mark=mark, data=snapshot.data)])
    await until(lambda: follower._restores.task is not None)
    for index in range(6, 1006):
        follower.receive([append(index, after=1)])
        await asyncio.sleep(0)
    await until(lambda: follower._replica.core.log.saved == 1005)
    assert len(follower._restores._line) == 1  # the restore itself
    assert (follower.applied, follower._machine.applied) == (0, [])
    arrived.set()
    await until(lambda: follower.applied == 1005)
    assert follower._machine.applied == list(range(6, 1006))


async def test_more_proposals_than_a_member_keeps_are_refused_as_in_etcd(follower, monkeypatch):
    monkeypatch.setattr("raft_store.waiting.MAX_OPEN_BYTES", 100)
    kept = asyncio.create_task(follower.propose(b"x" * 90, timeout_s=0.05))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await follower.propose(b"y" * 11, timeout_s=0.05)
    told = rpc_error(refused.value)
    assert (told.code.name, told.text) == ("RESOURCE_EXHAUSTED", "etcdserver: too many requests")
    with pytest.raises(NoLeader):
        await kept
    with pytest.raises(NoLeader):  # there is room again
        await follower.propose(b"y" * 11, timeout_s=0.05)


async def test_what_turn_after_turn_brings_shares_an_entry(follower, monkeypatch):
    """Goal: one sync and one round for clients that ask together, over connections that are read one by one."""
    monkeypatch.setattr(driving, "time", SimpleNamespace(perf_counter=lambda: 0.0))  # however long a turn takes
    sent = []
    follower._send = sent.extend
    follower.receive([append(1)])
    await until(lambda: follower.applied == 1)
    for _ in range(3):
        follower.submit((b"a", b"b"), lambda results, exc: None, timeout_s=60)
        await asyncio.sleep(0)  # a turn
    await until(lambda: any(isinstance(message, m.Forward) for message in sent))
    (forward,) = [message for message in sent if isinstance(message, m.Forward)]
    (entry,) = forward.proposals
    assert unpack(entry)[2] == [b"a", b"b"] * 3


async def test_only_a_follower_for_whom_nobody_waits_is_calm(follower):
    calm, begin = [], follower._saver.begin

    def noted(save, saved, **more):
        calm.append(more["calm"])
        return begin(save, saved, **more)

    follower._saver.begin = noted
    follower.receive([append(1)])
    await until(lambda: follower.applied == 1)
    assert set(calm) == {True}
    calm.clear()
    follower.submit((b"a",), lambda results, exc: None, timeout_s=60)
    follower.receive([append(2, after=1)])
    await until(lambda: follower.applied == 2)
    assert set(calm) == {False}
    calm.clear()
    follower._proposers.refuse_all(Stopped("the caller is gone"))
    follower._replica.core._campaign(pre=False)
    follower.wake()
    await until(lambda: calm)
    assert set(calm) == {False}


async def test_what_waited_for_a_sync_in_the_loop_leaves_before_anything_else_is_done(follower, monkeypatch):
    steps, ready, save = [], follower._replica.ready, follower._saver._storage.save
    follower._send = lambda messages: steps.extend(type(message).__name__ for message in messages)
    monkeypatch.setattr(follower._replica, "ready", lambda: steps.append("asked what to do") or ready())
    monkeypatch.setattr(follower._saver, "begin", lambda given, saved, *, calm: save(given) or True)
    follower.receive([append(1)])
    await until(lambda: follower.applied == 1)
    assert steps[: steps.index("AppendReply") + 1] == ["asked what to do", "AppendReply"]


async def test_who_joins_before_the_entry_leaves_shares_it(follower):
    sent, heard = [], []
    follower._send = sent.extend
    follower.receive([append(1)])
    await until(lambda: follower.applied == 1)
    shared = follower.submit((b"a", b"b"), lambda results, exc: heard.append(exc), timeout_s=60)
    assert follower.join(shared, [b"c"], timeout_s=60)
    await until(lambda: any(isinstance(message, m.Forward) for message in sent))
    assert not follower.join(shared, [b"d"], timeout_s=60)  # it has left
    (forward,) = [message for message in sent if isinstance(message, m.Forward)]
    (entry,) = forward.proposals
    assert unpack(entry)[2] == [b"a", b"b", b"c"]
    await follower.stop()
    assert [type(exc) for exc in heard] == [Stopped]  # once for all of them
    assert (follower._proposers.open, follower._proposers._open_bytes) == (0, 0)


class Knowing(Restored):
    """A machine that knows what proposals will come to, and notes who hears of it when."""

    def __init__(self, come_to=b"made"):
        super().__init__()
        self.steps = []
        self._come_to = come_to

    def foresee(self, items):
        return [b"made"] * len(items)

    def apply(self, entries, *, wanted=True):
        super().apply(entries, wanted=wanted)
        self.steps.append("applied")
        return [self._come_to] * len(entries)


async def leading(storage, machine):
    """Return a driver that leads a group of two, whose other member is the test, and why it cannot go on."""
    driver, fatal = following(storage)
    driver._machine = driver._foresight._machine = machine
    core = driver._replica.core
    core._campaign(pre=False)
    driver.wake()
    await until(lambda: core.log.saved == core.log.last_index and core._saving is None)
    driver.receive([m.VoteReply(MemberId(2), MemberId(1), core.term, granted=True, pre=False)])
    await until(lambda: core.log.saved == 1)
    agree(driver)
    await until(lambda: driver.applied == 1)
    machine.steps.clear()
    return driver, fatal


def at_rest(driver):
    """Return whether all is on disk, and what comes now is served at once."""
    log = driver._replica.core.log
    return log.saved == log.last_index and not driver._pump_scheduled


def agree(driver):
    """Let the other member have all that the leader has."""
    core = driver._replica.core
    driver.receive([m.AppendReply(MemberId(2), MemberId(1), core.term, rejected=False, index=core.log.last_index)])


async def test_who_proposed_alone_makes_the_answer_ready_and_gives_it_when_the_others_agree(storage):
    machine = Knowing()
    driver, fatal = await leading(storage, machine)
    foreseen = []

    def done(results, exc):
        machine.steps.append("told")
        assert (results is foreseen[0], exc) == (True, None)

    driver.submit((b"a",), done, timeout_s=60, foresee=foreseen.append)
    await until(lambda: foreseen and at_rest(driver))
    assert machine.steps == []
    agree(driver)
    assert machine.steps == ["told", "applied"]  # in the same turn: nobody reads in between
    assert (driver._proposers.open, driver._foresight.owes) == (0, False)
    await driver.stop()
    assert not fatal


async def test_what_was_told_is_applied_in_the_same_turn_however_long_that_took(storage, monkeypatch):
    """A client that was answered may ask the next thing of this member at once."""
    machine = Knowing()
    driver, fatal = await leading(storage, machine)
    foreseen = []
    driver.submit((b"a",), lambda results, exc: machine.steps.append("told"), timeout_s=60, foresee=foreseen.append)
    await until(lambda: foreseen and at_rest(driver))
    monkeypatch.setattr(driving, "TURN_S", -1.0)
    core, more = driver._replica.core, pack(9, 1, (b"of the other member",))  # which has to be saved, first
    agreed = m.AppendReply(MemberId(2), MemberId(1), core.term, rejected=False, index=core.log.last_index)
    driver.receive([agreed, m.Forward(MemberId(2), MemberId(1), core.term, session=9, first=1, proposals=[more])])
    assert machine.steps == ["told", "applied"]
    await driver.stop()
    assert not fatal


async def test_a_member_that_foretold_wrongly_ends(storage):
    machine = Knowing()
    driver, fatal = await leading(storage, machine)
    machine._come_to = b"something else"
    foreseen = []
    driver.submit((b"a",), lambda results, exc: None, timeout_s=60, foresee=foreseen.append)
    await until(lambda: foreseen and at_rest(driver))
    agree(driver)
    assert ["foretold otherwise" in str(exc) for exc in fatal] == [True]
    await driver.stop()


async def test_many_that_share_an_entry_are_told_before_it_is_applied(storage):
    machine = Knowing()
    driver, fatal = await leading(storage, machine)
    foreseen, count = [], driving.FEW + 1
    items = [b"%d" % number for number in range(count)]
    driver.submit(items, lambda results, exc: machine.steps.append(len(results)), timeout_s=60, foresee=foreseen.append)
    await until(lambda: foreseen and at_rest(driver))
    agree(driver)
    await until(lambda: machine.steps)
    assert (machine.steps, [len(results) for results in foreseen]) == ([count, "applied"], [count])
    await driver.stop()
    assert not fatal


async def test_who_looks_ahead_is_told_how_many_wait_in_all(storage):
    driver, fatal = await leading(storage, Knowing())
    waiting = []
    driver._foresight.look = waiting.append
    for lot in ((b"a", b"b"), (b"c",)):
        driver.submit(lot, lambda results, exc: None, timeout_s=60)
    await until(lambda: waiting and at_rest(driver))
    assert set(waiting) == {3}
    await driver.stop()
    assert not fatal


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
        while len(replica._readers.waiting) > 1:  # noqa: ASYNC110
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
    assert len(replica._readers.waiting) == 1
    driver._serve_turn()
    driver.when_readable(told.append, timeout_s=60)  # the question of the others may have left
    assert len(replica._readers.waiting) == 2
    async with asyncio.timeout(10):
        while len(replica._readers.waiting) > 1:  # noqa: ASYNC110
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


async def test_a_proposal_that_a_snapshot_overtook_is_answered(follower, storage):
    """Nobody knows what became of it, and its proposer must hear that, not wait for ever."""
    follower.receive([m.Heartbeat(MemberId(2), MemberId(1), Term(1), commit=Index(0), read_round=0)])
    await until(lambda: follower._replica.core.leader == 2)
    waiting = asyncio.create_task(follower.propose(b"x", timeout_s=60))
    await until(lambda: follower._replica._origin._flights)
    mark = SnapshotMark(Index(5), Term(1), GROUP)
    framer, incoming = Framer(), storage.receive_snapshot()
    incoming.write(framer.head(mark) + framer.end())
    snapshot = incoming.finish()
    follower.receive([m.InstallSnapshot(MemberId(2), MemberId(1), Term(1), mark=mark, data=snapshot.data)])
    async with asyncio.timeout(10):
        with pytest.raises(ProposalTimedOut, match="a snapshot overtook"):
            await waiting
    assert (follower._proposers.open, follower._proposers._open_bytes) == (0, 0)


async def test_a_proposal_that_a_snapshot_overtook_is_answered_when_the_member_ends(follower):
    waiting = asyncio.create_task(follower.propose(b"x", timeout_s=60))
    await until(lambda: follower._proposers.open)
    (proposal,) = follower._replica._origin.waiting
    proposal.abandoned = True
    follower._restores.put_in_line(Work((), None, None, (), (), [proposal], ()))
    await follower.stop()
    with pytest.raises(Stopped):
        await waiting


async def test_a_proposal_is_answered_once_when_the_member_ends_within_the_restore_that_overtook_it(
    follower, storage, monkeypatch
):
    begun, may_end = threading.Event(), threading.Event()

    def slow_chunks(mark):
        begun.set()
        assert may_end.wait(10)
        yield b"state"

    monkeypatch.setattr(storage, "read_snapshot", slow_chunks)
    follower.receive([m.Heartbeat(MemberId(2), MemberId(1), Term(1), commit=Index(0), read_round=0)])
    await until(lambda: follower._replica.core.leader == 2)
    heard = []
    follower.submit((b"x",), lambda results, exc: heard.append(exc), timeout_s=60)
    await until(lambda: follower._replica._origin._flights)
    mark = SnapshotMark(Index(5), Term(1), GROUP)
    framer, incoming = Framer(), storage.receive_snapshot()
    incoming.write(framer.head(mark) + framer.end())
    snapshot = incoming.finish()
    follower.receive([m.InstallSnapshot(MemberId(2), MemberId(1), Term(1), mark=mark, data=snapshot.data)])
    await until(begun.is_set)
    follower.halt()  # as ``fail`` does before somebody stops it
    may_end.set()
    await follower.stop()
    assert [type(exc) for exc in heard] == [Stopped]
    assert (follower._proposers.open, follower._proposers._open_bytes) == (0, 0)


def test_a_pass_that_lasts_beyond_its_next_tick_ends_well_on_the_members_own_loop(storage):
    """uvloop's timer for a moment that has passed is no timer: it knows no time."""

    async def run():
        core = Core(
            CoreConfig(member=MemberId(1)),
            hard_state=HardState(),
            log=Log(SnapshotMark(configuration=founded({MemberId(1): (), MemberId(2): ()}))),
            random=Random(1),
            logger=logging.getLogger("test"),
        )
        fatal = []
        config = DriverConfig(tick_s=0.01, snapshot_entries=100, keep_entries=10)
        driver = Driver(
            config, replica=Replica(core, session=1), storage=storage, machine=Restored(), on_fatal=fatal.append
        )
        driver.start(lambda messages: None, lambda step: None)
        ticked = 0
        tick = core.tick

        def slow():
            nonlocal ticked
            ticked += 1
            tick()
            driver._ticks.plan(1)
            driver._ticks._begin_from(driver._ticks._from_s - 1.0)  # as if the pass had taken so long

        core.tick = slow
        while ticked < 5:
            driver._serve_turn()
            await asyncio.sleep(0.005)
        await driver.stop()
        return fatal

    assert uvloop.run(run()) == []


def of_facts(role, storage):
    """Return a driver of a replica that is nothing but facts, with ticks of a minute, and the replica."""
    core = SimpleNamespace(
        role=role,
        term=Term(1),
        patience=SimpleNamespace(ticks=40),
        agreed=None,
        owes=False,
        log=SimpleNamespace(has_committed=False),
    )
    replica = SimpleNamespace(applied=Index(0), core=core, ready=lambda: None, quiet_ticks=40, propose_together=None)
    driver = Driver(
        DriverConfig(tick_s=60, snapshot_entries=100, keep_entries=10),
        replica=replica,
        storage=storage,
        machine=Restored(),
        on_fatal=lambda exc: None,
    )
    driver._running = True
    return driver, replica


async def test_a_follower_plans_anew_between_turns_only_when_it_has_become_less_patient(storage):
    """What its leader says gives it more time; but the ticks that were to pass unnoticed must not outlast its patience."""
    driver, replica = of_facts(Role.FOLLOWER, storage)
    planned = []
    for patience, quiet in ((40, 40), (40, 30), (9, 8)):
        replica.core.patience.ticks, replica.quiet_ticks = patience, quiet
        driver._pump(whole_turn=not planned)
        planned.append(round((driver._ticks.due_s - driver._loop.time()) / 60))
    assert planned == [40, 40, 8]
    await driver.stop()


@pytest.mark.parametrize(
    ("role", "first", "rings"),
    [
        pytest.param(Role.FOLLOWER, 3, 40, id="soon: it is set anew"),
        pytest.param(Role.FOLLOWER, 5, 5, id="not soon: it costs nothing yet"),
        pytest.param(Role.FOLLOWER, 1, 1, id="at the next tick: it will be looked at then"),
        pytest.param(Role.LEADER, 3, 3, id="a leader's heartbeat is due whatever it hears"),
    ],
)
async def test_a_followers_timer_does_not_ring_where_its_leader_was_heard_before(storage, role, first, rings):
    driver, replica = of_facts(role, storage)
    replica.quiet_ticks = first
    driver._pump(whole_turn=True)
    replica.quiet_ticks = 40  # a heartbeat
    driver._pump(whole_turn=False)
    assert round((driver._wakes_s - driver._loop.time()) / 60) == rings
    assert driver._ticker.when() == pytest.approx(driver._wakes_s)
    await driver.stop()


async def test_a_leaders_end_counts_after_what_it_sent_before(follower):
    """And after the ticks that had passed by then: they were no part of the wait that begins with it."""
    leader, core = MemberId(2), follower._replica.core
    follower.receive([m.Heartbeat(leader, MemberId(1), Term(1), commit=Index(0), read_round=0)])
    await until(lambda: core.leader == leader)
    follower._pump_scheduled = True  # the turn is still going on: its other events come first
    follower.ended(leader)
    follower.receive([m.Heartbeat(leader, MemberId(1), Term(1), commit=Index(0), read_round=0)])
    assert core.role is Role.FOLLOWER
    follower._serve_turn()
    assert core._orphaned
    await until(lambda: core.role is Role.PRECANDIDATE)
