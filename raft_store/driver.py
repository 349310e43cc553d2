"""The asyncio edge of one replica: it feeds events in and does the work that comes out.

Everything runs in the event loop but the disk, which has one thread of its own, used by one call at a time. While the
thread syncs, messages and proposals go on being taken in; whatever came meanwhile is the next save. One pass
(``_pump``) serves all events that came in the same turn of the loop.
"""

import asyncio
import functools
import logging
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from raft_store.disk.storage import Storage
from raft_store.engine import (
    Change,
    ChangeRefused,
    EngineError,
    Index,
    MemberId,
    NoLeader,
    ProposalTimedOut,
    Refusal,
    Removed,
    StateMachine,
    Stopped,
)
from raft_store.raft.membership import Step
from raft_store.raft.messages import AnyMessage, Save, Snapshot, SnapshotMark
from raft_store.raft.proposals import Proposal
from raft_store.raft.replica import Replica, Work

log = logging.getLogger(__name__)

MAX_OPEN_PROPOSALS = 50_000
MAX_OPEN_BYTES = 128 << 20
MAX_WORKS_A_TURN = 16  # then the loop's other tasks have their turn, also while a long log is replayed
MAX_INBOX = 20_000  # messages; more is dropped, which Raft tolerates


class DriverConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How fast time passes, and how often the log is shortened."""

    tick_s: float
    snapshot_entries: int  # applied entries between two snapshots
    keep_entries: int  # left in memory behind a snapshot, for followers that lag a little


class Driver:
    """Runs one replica until ``stop``; ``on_fatal`` is called once if it cannot go on."""

    def __init__(
        self,
        config: DriverConfig,
        *,
        replica: Replica,
        storage: Storage,
        machine: StateMachine,
        on_fatal: Callable[[Exception], None],
    ) -> None:
        self._config = config
        self._replica = replica
        self._storage = storage
        self._machine = machine
        self._on_fatal = on_fatal
        self._send: Callable[[Sequence[AnyMessage]], None] = lambda _: None
        self._follow: Callable[[Step], None] = lambda _: None
        self._followed: Step | None = None
        self._loop = asyncio.get_running_loop()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._inbox: list[AnyMessage] = []
        self._open: set[asyncio.Future[object]] = set()
        self._open_bytes = 0
        self._pump_scheduled = False
        self._tick_due = False
        self._ticker: asyncio.Task[None] | None = None
        self._running = False
        self._snapshotting = False
        self._snapshot_index: Index = replica.applied

    def start(self, send: Callable[[Sequence[AnyMessage]], None], follow: Callable[[Step], None]) -> None:
        """Begin. ``send`` takes messages for other members, ``follow`` every step of the group; neither waits."""
        self._send = send
        self._follow = follow
        self._running = True
        self._ticker = asyncio.create_task(self._tick())
        self._schedule()

    def halt(self) -> None:
        """Take nothing in any more and refuse whoever waits."""
        self._running = False
        for future in tuple(self._open):
            _refuse(future, Stopped("this member is shutting down"))

    async def stop(self) -> None:
        """End; a save under way is finished first."""
        self.halt()
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        await asyncio.to_thread(self._disk.shutdown)

    def receive(self, messages: Sequence[AnyMessage]) -> None:
        """Take messages from other members."""
        room = MAX_INBOX - len(self._inbox)
        if len(messages) > room:
            log.warning("inbox is full dropped=%d", len(messages) - room)
        self._inbox.extend(messages[:room])
        self._schedule()

    async def propose(self, data: bytes, *, timeout_s: float) -> object:
        """See ``Engine.propose``."""
        if not data:
            raise ValueError("an empty proposal means a leader's first entry")
        self._check_running()
        if len(self._open) >= MAX_OPEN_PROPOSALS or self._open_bytes + len(data) > MAX_OPEN_BYTES:
            raise EngineError(f"too many requests: {len(self._open)} of {self._open_bytes} bytes are waiting")
        future: asyncio.Future[object] = self._loop.create_future()
        proposal = self._replica.propose(data, future)
        self._open_bytes += len(data)
        try:
            return await self._wait(future, timeout_s, functools.partial(_too_late, proposal))
        finally:
            proposal.abandoned = True
            self._open_bytes -= len(data)

    async def read_barrier(self, *, timeout_s: float) -> Index:
        """See ``Engine.read_barrier``."""
        self._check_running()
        future: asyncio.Future[object] = self._loop.create_future()
        self._replica.read(future)
        index = await self._wait(future, timeout_s, self._read_too_late)
        assert isinstance(index, int)
        return Index(index)

    async def change_members(
        self, changes: Sequence[Change], *, timeout_s: float, joint: bool, started: Collection[MemberId] | None
    ) -> Index:
        """As the leader, change the group; return where the log says so.

        Raises ChangeRefused, ProposalTimedOut, Stopped.
        """
        self._check_running()
        future: asyncio.Future[object] = self._loop.create_future()
        index = self._replica.propose_change(
            changes, future, joint=joint, started=None if started is None else frozenset(started)
        )
        await self._wait(future, timeout_s, lambda: ProposalTimedOut("the change may still be made"))
        return index

    async def transfer_leadership(self, to: MemberId, *, timeout_s: float) -> None:
        """See ``Engine.transfer_leadership``."""
        self._check_running()
        core = self._replica.core
        if core.leader == to:
            return
        if core.leader != core.member:
            raise EngineError(f"member {core.member} does not lead; ask member {core.leader}")
        if not core.transfer(to):
            raise EngineError(f"member {to} is not in this group")
        self._schedule()
        deadline = self._loop.time() + timeout_s
        while core.leader != to:
            self._check_running()
            if self._loop.time() > deadline:
                raise ProposalTimedOut(f"member {to} did not take over within {timeout_s} s")
            await asyncio.sleep(self._config.tick_s / 4)

    async def load_snapshot(self) -> Snapshot | None:
        """Return the newest snapshot from the disk."""
        return await self._loop.run_in_executor(self._disk, self._storage.load_snapshot)

    def snapshot_failed(self, to: MemberId) -> None:
        """A snapshot that the core wanted sent did not arrive."""
        self._replica.core.snapshot_failed(to)

    # -- the loop ----------------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            # A stall of the process is one tick, however long it was: what arrived meanwhile has to be read before
            # anybody is declared dead.
            await asyncio.sleep(self._config.tick_s)
            self._tick_due = True
            self._schedule()

    def _schedule(self) -> None:
        if not self._pump_scheduled and self._running:
            self._pump_scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_scheduled = False
        if not self._running:
            return
        try:
            self._step_inbox()
            if self._tick_due:
                self._tick_due = False
                self._replica.tick()
            for _ in range(MAX_WORKS_A_TURN):
                if (work := self._replica.ready()) is None:
                    break
                self._do(work)
            else:
                self._schedule()
            if (agreed := self._replica.core.agreed) is not self._followed:
                self._followed = agreed
                self._follow(agreed)
            self._snapshot_if_due()
        except Exception as exc:  # noqa: BLE001 - our own error or the machine's: this state must not reach the disk
            self.fail(exc)

    def _step_inbox(self) -> None:
        messages, self._inbox = self._inbox, []
        for message in messages:
            self._replica.step(message)

    def _do(self, work: Work) -> None:
        if work.messages:
            self._send(work.messages)
        if work.save is not None:
            self._begin_save(work.save)
        if work.restore is not None:
            self._machine.restore(work.restore.data)
            self._snapshot_index = work.restore.mark.index
        if work.committed:
            results = self._machine.apply(work.committed)
            for place, proposal in work.settled:
                _resolve(proposal.owner, results[place])
        for proposal in work.lost:
            _refuse(proposal.owner, ProposalTimedOut("a snapshot overtook this member; the proposal may be in it"))
        for owner, index in work.readers:
            _resolve(owner, index)
        for owner, made in work.changes:
            _end_change(owner, made=made)

    def _begin_save(self, save: Save) -> None:
        done = self._loop.run_in_executor(self._disk, self._storage.save, save)
        done.add_done_callback(functools.partial(self._end_save, save))

    def _end_save(self, save: Save, done: "asyncio.Future[None]") -> None:
        if done.cancelled():
            return
        if (exc := done.exception()) is not None:
            # Whether the disk holds the save or not, nobody knows; a second sync could lie. The member has to end.
            self.fail(exc)
        elif self._running:
            self._replica.saved(save)
            self._schedule()

    def _snapshot_if_due(self) -> None:
        """Shorten the log: what a snapshot holds need not be replayed nor kept."""
        replica = self._replica
        if self._snapshotting or replica.applied - self._snapshot_index < self._config.snapshot_entries:
            return
        if (mark := replica.core.log.mark(replica.applied)) is None:
            return
        self._snapshotting = True
        snapshot = Snapshot(mark, self._machine.snapshot())
        done = self._loop.run_in_executor(self._disk, self._storage.save_snapshot, snapshot)
        done.add_done_callback(functools.partial(self._end_snapshot, mark))

    def _end_snapshot(self, mark: SnapshotMark, done: "asyncio.Future[None]") -> None:
        self._snapshotting = False
        if done.cancelled():
            return
        if (exc := done.exception()) is not None:
            self.fail(exc)
        elif self._running:
            self._snapshot_index = Index(max(self._snapshot_index, mark.index))
            self._replica.core.compact(mark, keep=self._config.keep_entries)
            log.info("took a snapshot member=%d index=%d", self._replica.core.member, mark.index)

    # -- waiting -----------------------------------------------------------------------------------------------------

    async def _wait(
        self, future: "asyncio.Future[object]", timeout_s: float, too_late: Callable[[], Exception]
    ) -> object:
        self._schedule()
        self._open.add(future)
        timer = self._loop.call_later(timeout_s, lambda: _refuse(future, too_late()))
        try:
            return await future
        finally:
            timer.cancel()
            self._open.discard(future)

    def _read_too_late(self) -> Exception:
        if self._replica.core.leader == 0:
            return NoLeader("no leader was known within the time allowed")
        return ProposalTimedOut("the leader did not confirm within the time allowed")

    def _check_running(self) -> None:
        if not self._running:
            raise Stopped("this member is shutting down")

    def fail(self, exc: BaseException) -> None:
        """End for a reason that is not the caller's wish."""
        if not self._running:
            return
        if isinstance(exc, Removed):
            log.warning("ends for good reason=%s", exc)
        else:
            log.critical("member cannot go on member=%d", self._replica.core.member, exc_info=exc)
        self.halt()
        self._on_fatal(exc if isinstance(exc, Exception) else RuntimeError(repr(exc)))


def _too_late(proposal: Proposal) -> Exception:
    if proposal.in_flight:
        return ProposalTimedOut("no majority confirmed the proposal in time; it may still take effect")
    return NoLeader("no leader was known within the time allowed; nothing was proposed")


def _end_change(owner: object, *, made: bool | None) -> None:
    if made:
        _resolve(owner, None)
    elif made is None:
        _refuse(owner, ProposalTimedOut("a snapshot overtook this member; the change may be in it"))
    else:
        _refuse(owner, ChangeRefused(Refusal.NOT_LEADER))


def _resolve(owner: object, result: object) -> None:
    assert isinstance(owner, asyncio.Future)
    if not owner.done():
        owner.set_result(result)


def _refuse(owner: object, exc: Exception) -> None:
    assert isinstance(owner, asyncio.Future)
    if not owner.done():
        owner.set_exception(exc)
