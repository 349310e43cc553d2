"""When a member takes a snapshot of its machine, and what becomes of one that comes from another."""

import asyncio
from types import SimpleNamespace

import pytest

from raft_store.disk.directory import DiskError, OsDirectory
from raft_store.disk.snapshot import Framer, NotASnapshot
from raft_store.disk.storage import Storage
from raft_store.engine import Index, MemberId, Term
from raft_store.raft.messages import SnapshotMark
from raft_store.saving import Saver
from raft_store.snapshots import LOG_BYTES, LOG_SHARE, MOST_PERIODS, LogLimits, Snapshots

PERIOD = 100  # entries


class Core:
    """Remembers what it may forget of its log."""

    member = MemberId(1)

    def __init__(self):
        self.log = SimpleNamespace(mark=lambda index: SnapshotMark(index, Term(1)))
        self.compacted = []

    def compact(self, mark, *, keep, keep_bytes):
        self.compacted.append(mark.index)


class Machine:
    """Has a state of a size that a test chooses; counts how often it was asked for it."""

    def __init__(self):
        self.state = b"state"
        self.asked = 0

    def snapshot(self):
        self.asked += 1
        yield self.state
        yield b""  # an occasion to do something else


class LogOf:
    """A storage whose log has the size that a test chooses."""

    def __init__(self, storage):
        self._storage = storage
        self.log_bytes = 1 << 20

    def __getattr__(self, name):
        return getattr(self._storage, name)


@pytest.fixture
async def member(tmp_path):
    directory = OsDirectory(tmp_path)
    storage = Storage(directory)
    storage.recover()
    core, machine, log, fatal = Core(), Machine(), LogOf(storage), []
    saver = Saver(storage, asyncio.get_running_loop())
    snapshots = Snapshots(
        LogLimits(period_entries=PERIOD, keep_entries=10),
        core=core,
        storage=log,
        saver=saver,
        machine=machine,
        applied=Index(0),
        fail=fatal.append,
    )

    async def take(applied):
        """Return whether a snapshot was due, and wait until it is taken."""
        before = len(core.compacted)
        snapshots.take_if_due(Index(applied))
        async with asyncio.timeout(10):
            while snapshots._taking is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        return core.compacted[before:] == [applied]

    yield SimpleNamespace(
        snapshots=snapshots, core=core, machine=machine, log=log, fatal=fatal, take=take, folder=tmp_path
    )
    snapshots.halt()
    await snapshots.close()
    await saver.close()
    storage.close()
    directory.close()


@pytest.mark.parametrize(
    ("entries", "log_bytes", "due"),
    [
        pytest.param(PERIOD - 1, LOG_BYTES - 1, False, id="a short log is left as it is"),
        pytest.param(PERIOD, 0, True, id="many entries, however small"),
        pytest.param(1, LOG_BYTES, True, id="few entries, but large ones"),
        pytest.param(0, LOG_BYTES, False, id="nothing that a snapshot could hold"),
    ],
)
async def test_a_snapshot_is_due_when_the_log_is_long(member, entries, log_bytes, due):
    member.log.log_bytes = log_bytes
    assert await member.take(entries) is due
    assert member.machine.asked == due


async def test_entries_count_from_the_last_snapshot_on(member):
    assert await member.take(PERIOD)
    assert not await member.take(2 * PERIOD - 1)
    assert await member.take(2 * PERIOD)


async def test_entries_count_from_a_restored_snapshot_on(member):
    restoration = SimpleNamespace(feed=lambda chunk: None, finish=lambda: None)
    member.machine.begin_restore = lambda: restoration
    await member.snapshots.restore(SnapshotMark(Index(1000), Term(1)), iter([b"state"]))
    assert not await member.take(1000 + PERIOD - 1)
    assert await member.take(1000 + PERIOD)


async def test_a_large_state_is_not_written_anew_for_every_little_log(member):
    member.machine.state = b"x" * 40_000
    assert await member.take(PERIOD)
    member.log.log_bytes = 40_000 // LOG_SHARE
    assert not await member.take(2 * PERIOD)
    assert not await member.take(PERIOD + MOST_PERIODS * PERIOD - 1)
    assert await member.take(PERIOD + MOST_PERIODS * PERIOD)
    member.log.log_bytes = 41_000 // LOG_SHARE
    assert await member.take(PERIOD + (MOST_PERIODS + 1) * PERIOD)


async def test_one_is_taken_at_a_time(member):
    member.snapshots.take_if_due(Index(PERIOD))
    member.snapshots.take_if_due(Index(2 * PERIOD))
    assert not await member.take(3 * PERIOD)
    assert (member.core.compacted, member.machine.asked) == ([PERIOD], 1)


async def test_a_disk_that_takes_no_snapshot_ends_the_member(member):
    def full(mark):
        raise DiskError("no space left")

    member.log.begin_snapshot = full
    assert not await member.take(PERIOD)
    assert [str(exc) for exc in member.fatal] == ["no space left"]
    assert member.core.compacted == []


def framed(index):
    framer = Framer()
    return [framer.head(SnapshotMark(Index(index), Term(1))), framer.chunk(b"state"), framer.end()]


async def stream(portions):
    for portion in portions:
        yield portion


async def test_what_one_member_sends_another_can_take_in(member):
    assert await member.take(PERIOD)
    snapshot = await member.snapshots.receive(member.snapshots.send())
    assert snapshot.mark == SnapshotMark(Index(PERIOD), Term(1))


@pytest.mark.parametrize("portions", [[b"no snapshot" * 100], framed(5)[:-1]], ids=["something else", "a part of one"])
async def test_what_is_no_snapshot_is_refused_and_forgotten(member, portions):
    before = set(member.folder.iterdir())
    with pytest.raises(NotASnapshot):
        await member.snapshots.receive(stream(portions))
    assert set(member.folder.iterdir()) == before
    assert member.fatal == []


async def test_a_sender_that_hangs_up_leaves_nothing_behind(member):
    before = set(member.folder.iterdir())

    async def cut():
        yield framed(5)[0]
        raise ConnectionError("reset by peer")

    with pytest.raises(ConnectionError):
        await member.snapshots.receive(cut())
    await member.snapshots.close()
    assert set(member.folder.iterdir()) == before
    assert member.fatal == []


async def test_a_disk_that_takes_in_no_snapshot_ends_the_member(member):
    def broken(data):
        raise DiskError("input/output error")

    member.log.receive_snapshot = lambda: SimpleNamespace(write=broken)
    with pytest.raises(DiskError):
        await member.snapshots.receive(stream(framed(5)))
    assert [str(exc) for exc in member.fatal] == ["input/output error"]
