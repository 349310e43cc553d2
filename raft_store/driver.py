"""The asyncio edge of one replica: it feeds events in and does the work that comes out.

Everything runs in the event loop but the disk (``saving``). While it syncs, messages and proposals go on being taken
in; whatever came meanwhile is the next save. One pass
(``_pump``) serves all events that came in the same turn of the loop.

Snapshots hold nothing up. Taking one draws the machine's chunks a few at a time, and other threads write them to files
of their own. While one is being restored, the replica goes on following its leader; what is to be applied then waits in
its log.
"""

import asyncio
import functools
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec

from raft_store.disk.directory import DiskError
from raft_store.disk.snapshot import READ_BYTES, NotASnapshot
from raft_store.disk.storage import Storage
from raft_store.engine import (
    Change,
    ChangeRefused,
    Done,
    EngineError,
    Index,
    MemberId,
    NoLeader,
    ProposalTimedOut,
    Refusal,
    Removed,
    StateMachine,
    Stopped,
    Term,
)
from raft_store.pacing import paced
from raft_store.raft.membership import Step
from raft_store.raft.messages import NOBODY, AnyMessage, Save, Snapshot, SnapshotMark
from raft_store.raft.proposals import Proposal
from raft_store.raft.replica import Replica, Work
from raft_store.raft.state import Role
from raft_store.saving import Saver
from raft_store.ticking import Ticks
from raft_store.waiting import Proposers, Waits, is_done, refuse, resolve

log = logging.getLogger(__name__)

FEW = 4  # proposals under way
COMMIT_DELAY_S = 0.001  # for so long an append may come that takes a commit mark along
TURN_S = 0.01  # of work; then the loop's other tasks have their turn, also while a long log is replayed
MAX_INBOX = 20_000  # messages; more is dropped, which Raft tolerates
LOG_BYTES = 32 << 20  # a log as large as this is long enough to be shortened, whatever few entries it has ...
KEEP_BYTES = 16 << 20  # ... and no more of it stays in memory behind a snapshot
LOG_SHARE = 4  # a snapshot is due when the log is as large as this part of the last one ...
MOST_PERIODS = 8  # ... or has so many times the entries that make the next one due
SNAPSHOT_THREADS = 3  # one for our own, the others for what comes and goes

_T = TypeVar("_T")


class DriverConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How fast time passes, and how often the log is shortened."""

    tick_s: float
    snapshot_entries: int  # applied entries between two snapshots, if the state is not much larger than they are
    keep_entries: int  # left in memory behind a snapshot, for followers that lag a little
    tells_time: bool = False  # the core rests reads on clocks


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
        self._saver = Saver(storage, self._loop)
        self._snapshot_disk = ThreadPoolExecutor(SNAPSHOT_THREADS, thread_name_prefix="snapshots")
        self._inbox: list[AnyMessage] = []
        self._proposers = Proposers(replica.propose_together)
        self._waits = Waits(self._loop.time)
        self._pump_scheduled = self._pumping = False
        self._ticks = Ticks(config.tick_s, self._loop.time())
        self._reading: asyncio.Future[object] | None = None  # who asks to read in this turn shares it
        self._readers_left = False  # some wait no more, and may still stand in the replica's line
        self._ticker: asyncio.TimerHandle | None = None
        self._wakes_s = 0.0  # when it does
        self._planned_term, self._planned_patience = Term(-1), 0
        self._commits: asyncio.TimerHandle | None = None  # when followers are told of commits
        self._owes_since_s: float | None = None  # since when there is something to tell
        self._running = False
        self._snapshotting: asyncio.Task[None] | None = None
        self.applied: Index = replica.applied  # by the machine; the replica's is ahead of it during a restore
        # Restores in line, each with what else its work asked for; few, for meanwhile the replica hands out no entries.
        self._behind: deque[tuple[Work, asyncio.Future[Iterator[bytes]] | None]] = deque()
        self._catching_up: asyncio.Task[None] | None = None
        self._snapshot_index: Index = replica.applied
        self._snapshot_bytes = 0  # of our last one

    def start(self, send: Callable[[Sequence[AnyMessage]], None], follow: Callable[[Step], None]) -> None:
        """Begin. ``send`` takes messages for other members, ``follow`` every step of the group; neither waits."""
        self._send = send
        self._follow = follow
        self._running = True
        self._wakes_s = self._ticks.due_s
        self._ticker = self._loop.call_at(self._wakes_s, self._tick)
        self._schedule()

    def halt(self) -> None:
        """Take nothing in any more and refuse whoever waits."""
        self._running = False
        for task in (self._snapshotting, self._catching_up):
            if task is not None:
                task.cancel()
        stopped = Stopped("this member is shutting down")
        while self._behind:
            work, _ = self._behind.popleft()
            for proposal in work.lost:
                self._proposers.lose(proposal, stopped)
        self._proposers.refuse_all(stopped)
        self._waits.refuse_all(stopped)

    async def stop(self) -> None:
        """End; a save under way is finished first."""
        self.halt()
        for timer in (self._ticker, self._commits):
            if timer is not None:
                timer.cancel()
        tasks = [task for task in (self._snapshotting, self._catching_up) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._snapshot_disk.shutdown)
        await self._saver.close()

    def receive(self, messages: Sequence[AnyMessage]) -> None:
        """Take messages from other members."""
        room = MAX_INBOX - len(self._inbox)
        if len(messages) > room:
            log.warning("inbox is full dropped=%d", len(messages) - room)
        self._inbox.extend(messages[:room])
        self._go_on()

    def submit(self, items: Sequence[bytes], done: Done, *, timeout_s: float) -> Proposal:
        """See ``Engine.submit``."""
        self._check_running()
        proposal = self._proposers.submit(items, done, until_s=self._loop.time() + timeout_s)
        self._schedule()
        return proposal

    async def propose(self, data: bytes, *, timeout_s: float) -> object:
        """See ``Engine.propose``."""
        future: asyncio.Future[object] = self._loop.create_future()

        def done(results: Sequence[object], exc: Exception | None) -> None:
            if exc is None:
                resolve(future, results[0])
            else:
                refuse(future, exc)

        proposal = self.submit((data,), done, timeout_s=timeout_s)
        try:
            return await future
        finally:
            self._proposers.forget(proposal)

    async def read_barrier(self, *, timeout_s: float) -> Index:
        """See ``Engine.read_barrier``."""
        self._check_running()
        future: asyncio.Future[object] = self._loop.create_future()
        self._replica.read(future)
        try:
            self._schedule()
            index = await self._waits.note(future, timeout_s, self._read_too_late)
        except BaseException:
            self._readers_left = True
            raise
        assert isinstance(index, int)
        return Index(index)

    def when_readable(self, tell: Callable[[EngineError | None], None], *, timeout_s: float) -> None:
        """See ``Engine.when_readable``."""
        self._check_running()
        reading = self._reading
        if reading is None:
            # Until the next pass no question has left, so whoever comes meanwhile can share it.
            reading = self._reading = self._loop.create_future()
            self._replica.read(reading)
            self._schedule()
            self._waits.note(reading, timeout_s, self._read_too_late)
            reading.add_done_callback(self._end_reading)
        reading.add_done_callback(lambda ended: tell(_failure(ended)))

    def _end_reading(self, ended: "asyncio.Future[object]") -> None:
        if ended.exception() is not None:
            self._readers_left = True

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
        self._schedule()
        await self._waits.note(future, timeout_s, lambda: ProposalTimedOut("the change may still be made"))
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
            given_up = core.leader == core.member and core.transferee != to
            if given_up or self._loop.time() > deadline:
                raise ProposalTimedOut(f"member {to} did not take over")
            if core.leader not in (NOBODY, core.member):
                raise EngineError(f"member {core.leader} took over, not {to}")
            await asyncio.sleep(self._config.tick_s / 4)

    async def send_snapshot(self) -> AsyncIterator[bytes]:
        """Yield the bytes of the newest snapshot on disk, for another member. Raises DiskError."""
        source = await self._beside(self._storage.open_snapshot)
        try:
            while data := await self._beside(source.read, READ_BYTES):
                yield data
        finally:
            source.close()

    async def receive_snapshot(self, data: AsyncIterator[bytes]) -> Snapshot:
        """Take in another member's snapshot, for ``InstallSnapshot``; the state changes when the core wants it to.

        Raises NotASnapshot if that is not what came, DiskError if we cannot go on.
        """
        incoming = await self._beside(self._storage.receive_snapshot)
        try:
            async for portion in data:
                await self._beside(incoming.write, portion)
            return await self._beside(incoming.finish)
        except DiskError as exc:
            if not isinstance(exc, NotASnapshot):
                self.fail(exc)
                raise
            await self._beside(incoming.discard)
            raise
        except BaseException:
            # The sender hung up, or we are stopping; the loop does not wait for a write that is still under way.
            self._snapshot_disk.submit(incoming.discard)
            raise

    def snapshot_failed(self, to: MemberId) -> None:
        """A snapshot that the core wanted sent did not arrive."""
        self._replica.core.snapshot_failed(to)

    # -- the loop ----------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if not self._running:
            return
        self._ticker = None
        now_s = self._loop.time()
        self._proposers.look_at_clock(now_s)
        self._waits.look_at_clock(now_s)
        if self._readers_left:
            self._readers_left = False
            self._replica.forget_readers(is_done)
        # What arrived meanwhile has to be read before anybody is declared dead: the pump comes after the sockets' turn.
        self._schedule()

    def _schedule(self) -> None:
        if not self._pump_scheduled and self._running:
            self._pump_scheduled = True
            self._loop.call_soon(self._serve_turn)

    def _go_on(self) -> None:
        """Serve an event right where it came in, if few wait: a turn of the loop for it would be a part of their wait.

        With many under way, what else this turn brings shares the work.
        """
        if self._pumping or self._proposers.open > FEW:
            self._schedule()
        elif self._running and not self._pump_scheduled:
            self._pump(whole_turn=False)

    def _serve_turn(self) -> None:
        self._pump_scheduled = False
        if self._running:
            self._pump(whole_turn=True)

    def _pump(self, *, whole_turn: bool) -> None:
        """Serve what has come in; whole_turn: all sockets were looked at, so that silence can be judged."""
        self._reading = None
        self._pumping = True
        applied = self.applied
        try:
            now_s = self._loop.time()
            if now_s >= self._ticks.next_s:
                for _ in range(self._ticks.pass_quietly(now_s)):
                    self._replica.tick()
            if self._inbox:
                self._step_inbox()
            if whole_turn and now_s >= self._ticks.next_s:
                self._judge_silence(now_s)
            turn_ends_s = now_s + TURN_S
            while True:
                if self._config.tells_time:
                    self._replica.core.now_ms = time.clock_gettime(time.CLOCK_BOOTTIME) * 1000
                if (work := self._replica.ready()) is None:
                    break
                self._do(work)
                more = self._replica.core.log.has_committed or work.readers or work.restore or work.lost or work.changes
                if not more:
                    break  # only what ended just now, or was too much for once, can bring more to do at once
                if self._loop.time() > turn_ends_s:
                    self._schedule()
                    break
            if (agreed := self._replica.core.agreed) is not self._followed:
                self._followed = agreed
                self._follow(agreed)
            if self.applied != applied:
                self._snapshot_if_due()
            self._plan_commits(now_s)
            core = self._replica.core
            hastier = core.term != self._planned_term or core.patience.ticks < self._planned_patience
            if whole_turn or hastier or core.role is not Role.FOLLOWER:
                self._plan_ticks(now_s)  # what else a leader says only gives its followers more time than was planned
        except Exception as exc:  # noqa: BLE001 - our own error or the machine's: this state must not reach the disk
            self.fail(exc)
        finally:
            self._pumping = False

    def _judge_silence(self, now_s: float) -> None:
        """Let the tick pass that may have consequences, if it is over; our own lateness counts against nobody."""
        if late := self._ticks.late(now_s):
            self._replica.excuse(late)
        if self._ticks.is_over(now_s):
            self._replica.tick()

    def _plan_commits(self, now_s: float) -> None:
        """Let followers hear of commits with the next append, or in a moment by themselves.

        Whoever writes one thing after the other would otherwise wake each follower twice a write, and wait for it.
        """
        core = self._replica.core
        core.delays_commits = True
        if not core.owes_commits:
            self._owes_since_s = None
        elif self._owes_since_s is None:
            self._owes_since_s = now_s
            if self._commits is None:
                self._commits = self._loop.call_later(COMMIT_DELAY_S, self._tell_commits)

    def _tell_commits(self) -> None:
        self._commits = None
        if self._owes_since_s is None:
            return
        # Set for an earlier mark that an append took along: one timer goes on for all, instead of one for each write.
        left_s = self._owes_since_s + COMMIT_DELAY_S - self._loop.time()
        if left_s > 0:
            self._commits = self._loop.call_later(left_s, self._tell_commits)
            return
        self._replica.core.delays_commits = False
        self._schedule()

    def _plan_ticks(self, now_s: float) -> None:
        """Let the next tick that matters wake us: while anybody waits, that is every tick."""
        if self._ticker is not None and self._wakes_s <= now_s + self._config.tick_s:
            return  # no tick comes sooner; the next ones are planned then
        core = self._replica.core
        self._planned_term, self._planned_patience = core.term, core.patience.ticks
        waited_for = self._proposers.open or self._waits or self._readers_left
        self._ticks.plan(1 if waited_for else self._replica.quiet_ticks)
        due_s = self._ticks.due_s
        if self._ticker is not None:
            if self._wakes_s <= due_s + self._config.tick_s / 2:
                return  # early enough; when it is too early, it is planned anew
            self._ticker.cancel()
        self._wakes_s = due_s
        self._ticker = self._loop.call_at(due_s, self._tick)

    def _step_inbox(self) -> None:
        messages, self._inbox = self._inbox, []
        for message in messages:
            self._replica.step(message)

    def _do(self, work: Work) -> None:
        if work.messages:
            self._send(work.messages)
        if work.save is not None:
            if work.messages and work.restore is None:
                # What was sent leaves at the end of this turn. The others' disks come first: ours has a head start.
                self._loop.call_soon(self._begin_save_later, work.save)
            else:
                self._begin_save(work.save)
        opened = None
        if work.restore is not None:
            # In line with the saves: a later one may bring a newer snapshot, and remove this one's file.
            opened = self._saver.run(functools.partial(self._storage.read_snapshot, work.restore.mark))
            self._replica.core.holds_back = True
            if self._catching_up is None:
                self._catching_up = asyncio.create_task(self._catch_up())
        if self._catching_up is None:
            self._apply(work)
        elif opened is not None or work.lost or work.changes:
            self._behind.append((work, opened))

    def _apply(self, work: Work) -> None:
        if work.committed:
            results = self._machine.apply(work.committed)
            self.applied = work.committed[-1].index
            for place, proposal in work.settled:
                self._proposers.settle(proposal, results[place : place + len(proposal.items)])
        for proposal in work.lost:
            overtaken = ProposalTimedOut("a snapshot overtook this member; the proposal may be in it")
            self._proposers.lose(proposal, overtaken)
        for owner, index in work.readers:
            resolve(owner, index)
        for owner, made in work.changes:
            _end_change(owner, made=made)

    async def _catch_up(self) -> None:
        """Restore what there is; then the replica hands out what came meanwhile."""
        try:
            while self._behind:
                work, opened = self._behind[0]  # it stays in line: ``halt`` answers for it too
                if work.restore is not None and opened is not None:
                    await self._restore(work.restore.mark, await opened)
                self._behind.popleft()
                self._apply(work)
                await asyncio.sleep(0)
        except Exception as exc:  # noqa: BLE001 - as in ``_pump``
            self.fail(exc)
        finally:
            self._catching_up = None
            self._replica.core.holds_back = False
            self._schedule()

    async def _restore(self, mark: SnapshotMark, chunks: Iterator[bytes]) -> None:
        restoration = self._machine.begin_restore()
        while (chunk := await self._beside(next, chunks, None)) is not None:
            restoration.feed(chunk)
        restoration.finish()
        self._snapshot_index = self.applied = mark.index
        log.info("restored a snapshot member=%d index=%d", self._replica.core.member, mark.index)

    async def _beside(self, call: Callable[..., _T], *arguments: object) -> _T:
        """Return what ``call`` returns, from a thread that may wait for the disk without holding up the log."""
        return await self._loop.run_in_executor(self._snapshot_disk, call, *arguments)

    def _begin_save_later(self, save: Save) -> None:
        """Do it in a turn in which no pass takes what is raised: a member that saves no more has to end, too."""
        try:
            self._begin_save(save)
        except Exception as exc:  # noqa: BLE001 - as in ``_pump``
            self.fail(exc)

    def _begin_save(self, save: Save) -> None:
        if not self._running:
            return

        def saved(exc: BaseException | None) -> None:
            if exc is not None:
                # Whether the disk holds the save or not, nobody knows; a second sync could lie. The member has to end.
                self.fail(exc)
            elif self._running:
                try:
                    self._replica.saved(save)
                except Exception as mistake:  # noqa: BLE001 - as in ``_pump``
                    self.fail(mistake)
                else:
                    self._go_on()

        self._saver.begin(save, saved)

    def _snapshot_if_due(self) -> None:
        """Shorten the log: what a snapshot holds need not be replayed nor kept."""
        replica = self._replica
        entries, enough = replica.applied - self._snapshot_index, self._config.snapshot_entries
        if self._snapshotting or self._catching_up or not entries:
            return
        log_bytes = self._storage.log_bytes
        if entries < enough and log_bytes < LOG_BYTES:
            return
        # A large state is not written anew for every little log, as long as that stays quick to replay.
        if log_bytes < self._snapshot_bytes // LOG_SHARE and entries < MOST_PERIODS * enough:
            return
        if (mark := replica.core.log.mark(replica.applied)) is None:
            return
        # The state is fixed here, in the turn in which ``mark`` is what the machine has applied.
        chunks = self._machine.snapshot()
        self._snapshotting = asyncio.create_task(self._take_snapshot(mark, chunks))

    async def _take_snapshot(self, mark: SnapshotMark, chunks: Iterator[bytes]) -> None:
        began = self._loop.time()
        try:
            growing = await self._beside(self._storage.begin_snapshot, mark)
            async for chunk in paced(chunks):
                if chunk:
                    await self._beside(growing.write, chunk)
            await self._beside(growing.finish)
            await self._saver.run(functools.partial(self._storage.let_go, mark))
        except Exception as exc:  # noqa: BLE001 - a disk that cannot take a snapshot cannot be trusted with the log
            self.fail(exc)
            return
        finally:
            self._snapshotting = None
        self._snapshot_index = Index(max(self._snapshot_index, mark.index))
        self._snapshot_bytes = growing.size_bytes
        self._replica.core.compact(mark, keep=self._config.keep_entries, keep_bytes=KEEP_BYTES)
        log.info(
            "took a snapshot member=%d index=%d bytes=%d seconds=%.1f",
            self._replica.core.member,
            mark.index,
            growing.size_bytes,
            self._loop.time() - began,
        )

    # -- the end -----------------------------------------------------------------------------------------------------

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
            # What the disk did, its message says; our own mistakes need their trace.
            trace = None if isinstance(exc, DiskError) else exc
            log.critical("member cannot go on member=%d reason=%s", self._replica.core.member, exc, exc_info=trace)
        self.halt()
        self._on_fatal(exc if isinstance(exc, Exception) else RuntimeError(repr(exc)))


def _failure(ended: "asyncio.Future[object]") -> EngineError | None:
    exc = ended.exception()
    assert exc is None or isinstance(exc, EngineError), f"a reader was told {exc!r}"
    return exc


def _end_change(owner: object, *, made: bool | None) -> None:
    if made:
        resolve(owner, None)
    elif made is None:
        refuse(owner, ProposalTimedOut("a snapshot overtook this member; the change may be in it"))
    else:
        refuse(owner, ChangeRefused(Refusal.NOT_LEADER))
