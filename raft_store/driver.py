"""The asyncio edge of one replica: it feeds events in and does the work that comes out.

Everything runs in the event loop but the disk (``saving``, ``snapshots``), unless that is quick. While it syncs,
messages and proposals go on being taken in; whatever came meanwhile is the next save. One pass (``_pump``) serves all
events that came in the same turn of the loop. While the machine is being restored from a snapshot, work waits in line
(``restoring``).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence

import msgspec

from raft_store.boarding import Boarding
from raft_store.disk.directory import DiskError
from raft_store.disk.storage import Storage
from raft_store.engine import (
    Change,
    Done,
    EngineError,
    Foresee,
    Index,
    MemberId,
    NoLeader,
    ProposalTimedOut,
    Removed,
    StateMachine,
    Stopped,
    Term,
)
from raft_store.foresight import Foresight
from raft_store.raft.membership import Step
from raft_store.raft.messages import AnyMessage, Save
from raft_store.raft.proposals import Proposal
from raft_store.raft.replica import Replica, Work
from raft_store.raft.state import Role
from raft_store.restoring import Restores
from raft_store.saving import Saver
from raft_store.snapshots import LogLimits, Snapshots
from raft_store.ticking import Ticks
from raft_store.turns import Turns
from raft_store.waiting import Proposers, Waits, end_change, failure_of, is_done, refuse, resolve

log = logging.getLogger(__name__)

FEW = 4  # proposals under way
STEADY = (Role.FOLLOWER, Role.LEADER)
SOON_TICKS = 4  # more than from one heartbeat to the next
TURN_S = 0.01  # of work; then the loop's other tasks have their turn, also while a long log is replayed
MAX_INBOX = 20_000  # messages; more is dropped, which Raft tolerates


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
        self._machine = machine
        self._on_fatal = on_fatal
        self._send: Callable[[Sequence[AnyMessage]], None] = lambda _: None
        self._follow: Callable[[Step], None] = lambda _: None
        self._followed: Step | None = None
        self._loop = asyncio.get_running_loop()
        self._saver = Saver(storage, self._loop)
        self._saving: Save | None = None  # what it was given last
        self._inbox: list[AnyMessage] = []
        self._ended: list[MemberId] = []  # peers whose process has ended, after what is in the inbox
        self._proposers = Proposers(replica.propose_together)
        self._waits = Waits(self._loop.time)
        self._pump_scheduled = self._pumping = False
        self._boarding = Boarding()
        self._foresight = Foresight(replica, machine)
        self._ticks = Ticks(config.tick_s, self._loop.time())
        self._reading: asyncio.Future[object] | None = None  # who asks to read in this turn shares it
        self._readers_left = False  # some wait no more, and may still stand in the replica's line
        self._ticker: asyncio.TimerHandle | None = None
        self._wakes_s = 0.0  # when it does
        self._soon_s = SOON_TICKS * config.tick_s
        self._planned_term, self._planned_patience = Term(-1), 0
        self._turns = Turns(replica.core, self._loop, wake=self.wake)
        self._running = False
        self.applied: Index = replica.applied  # by the machine; the replica's is ahead of it during a restore
        self.snapshots = Snapshots(
            LogLimits(period_entries=config.snapshot_entries, keep_entries=config.keep_entries),
            core=replica.core,
            storage=storage,
            saver=self._saver,
            machine=machine,
            applied=self.applied,
            fail=self.fail,
        )
        self._restores = Restores(
            replica.core, self.snapshots, apply=self._apply_after_restore, caught_up=self.wake, fail=self.fail
        )

    def start(self, send: Callable[[Sequence[AnyMessage]], None], follow: Callable[[Step], None]) -> None:
        """Begin. ``send`` takes messages for other members, ``follow`` every step of the group; neither waits."""
        self._send = send
        self._follow = follow
        self._running = True
        self._wakes_s = self._ticks.due_s
        self._ticker = self._loop.call_at(self._wakes_s, self._tick)
        self.wake()

    def halt(self) -> None:
        """Take nothing in any more and refuse whoever waits."""
        self._running = False
        self.snapshots.halt()
        stopped = Stopped("this member is shutting down")
        for proposal in self._restores.halt():
            self._proposers.lose(proposal, stopped)
        self._proposers.refuse_all(stopped)
        self._waits.refuse_all(stopped)

    async def stop(self) -> None:
        """End; a save under way is finished first."""
        self.halt()
        if self._ticker is not None:
            self._ticker.cancel()
        self._turns.stop()
        await self._restores.close()
        await self.snapshots.close()
        await self._saver.close()

    def check_running(self) -> None:
        """Raise Stopped if nothing is taken in any more."""
        if not self._running:
            raise Stopped("this member is shutting down")

    def wake(self) -> None:
        """Serve what has changed in the replica, in a turn to come; not if nothing is taken in any more."""
        if not self._pump_scheduled and self._running:
            self._pump_scheduled = True
            self._loop.call_soon(self._serve_turn)

    def receive(self, messages: Sequence[AnyMessage]) -> None:
        """Take messages from other members."""
        inbox = self._inbox
        inbox += messages
        if len(inbox) > MAX_INBOX:
            log.warning("inbox is full dropped=%d", len(inbox) - MAX_INBOX)
            del inbox[MAX_INBOX:]
        self._go_on()

    def ended(self, peer: MemberId) -> None:
        """See ``Core.ended``: told in a turn to come, when all that the peer has sent is read."""
        self._ended.append(peer)
        self.wake()

    def submit(
        self, items: Sequence[bytes], done: Done, *, timeout_s: float, foresee: Foresee | None = None
    ) -> Proposal:
        """See ``Engine.submit``."""
        self.check_running()
        proposal = self._proposers.submit(items, done, until_s=self._loop.time() + timeout_s, foresee=foresee)
        if self._proposers.open == 1:
            self._go_on()  # nobody else's proposal can be missed by not waiting for it
        else:
            self._boarding.add(len(items), time.perf_counter())
            self.wake()
        return proposal

    def join(self, proposal: Proposal, items: Sequence[bytes], *, timeout_s: float) -> bool:
        """See ``Engine.join``."""
        if not self._proposers.join(proposal, items, until_s=self._loop.time() + timeout_s):
            return False
        self._boarding.add(len(items), time.perf_counter())
        self.wake()
        return True

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
        self.check_running()
        future: asyncio.Future[object] = self._loop.create_future()
        self._replica.read(future)
        try:
            self.wake()
            index = await self._waits.note(future, timeout_s, self._read_too_late)
        except BaseException:
            self._readers_left = True
            raise
        assert isinstance(index, int)
        return Index(index)

    def when_readable(self, tell: Callable[[EngineError | None], None], *, timeout_s: float) -> None:
        """See ``Engine.when_readable``."""
        self.check_running()
        reading = self._reading
        if reading is None:
            # Until the next pass no question has left, so whoever comes meanwhile can share it.
            reading = self._reading = self._loop.create_future()
            self._replica.read(reading)
            self.wake()
            self._waits.note(reading, timeout_s, self._read_too_late)
            reading.add_done_callback(self._end_reading)
        reading.add_done_callback(lambda ended: tell(failure_of(ended)))

    def _end_reading(self, ended: "asyncio.Future[object]") -> None:
        if ended.exception() is not None:
            self._readers_left = True

    def _read_too_late(self) -> Exception:
        if self._replica.core.leader == 0:
            return NoLeader("no leader was known within the time allowed")
        return ProposalTimedOut("the leader did not confirm within the time allowed")

    async def change_members(
        self, changes: Sequence[Change], *, timeout_s: float, joint: bool, started: Collection[MemberId] | None
    ) -> Index:
        """As the leader, change the group; return where the log says so.

        Raises ChangeRefused, ProposalTimedOut, Stopped.
        """
        self.check_running()
        future: asyncio.Future[object] = self._loop.create_future()
        index = self._replica.propose_change(
            changes, future, joint=joint, started=None if started is None else frozenset(started)
        )
        self.wake()
        await self._waits.note(future, timeout_s, lambda: ProposalTimedOut("the change may still be made"))
        return index

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
        self.wake()

    def _go_on(self) -> None:
        """Serve an event right where it came in, if few wait: a turn of the loop for it would be a part of their wait.

        With many under way, what else this turn brings shares the work.
        """
        if self._pumping or self._proposers.open > FEW:
            self.wake()
        elif self._running and not self._pump_scheduled:
            self._pump(whole_turn=False)

    def _serve_turn(self) -> None:
        self._pump_scheduled = False
        if self._running:
            self._replica.keeps_waiting = self._boarding.waits(time.perf_counter())
            self._pump(whole_turn=True)
            if self._replica.keeps_waiting:
                self.wake()

    def _pump(self, *, whole_turn: bool) -> None:
        """Serve what has come in; whole_turn: all sockets were looked at, so that silence can be judged."""
        self._reading = None
        self._pumping = True
        applied = self.applied
        try:
            now_s = self._loop.time()
            if now_s >= self._ticks.next_s:
                self._replica.pass_ticks(self._ticks.pass_quietly(now_s))
            if self._inbox:
                self._step_inbox()
            if self._ended and whole_turn:
                self._tell_ended()
            if whole_turn and now_s >= self._ticks.next_s:
                self._judge_silence(now_s)
            if (foreseen := self._foresight.come_true()) is not None:
                for proposal, results in foreseen.shares:
                    self._proposers.settle(proposal, results)
            self._work_off(until_s=now_s + TURN_S)
            if (agreed := self._replica.core.agreed) is not self._followed:
                self._followed = agreed
                self._follow(agreed)
            if self.applied != applied and self._restores.task is None:
                self.snapshots.take_if_due(self.applied)
            self._plan(now_s, whole_turn=whole_turn)
            if (waiting := self._proposers.open) and (foreseen := self._foresight.look(waiting)) is not None:
                for proposal, results in foreseen.shares:
                    self._proposers.foresee(proposal, results)
        except Exception as exc:  # noqa: BLE001 - our own error or the machine's: this state must not reach the disk
            self.fail(exc)
        finally:
            self._pumping = False

    def _work_off(self, *, until_s: float) -> None:
        """Do what the replica wants done: all of it, or as much as leaves the loop's other tasks their turn."""
        replica = self._replica
        while True:
            if self._config.tells_time:
                replica.core.now_ms = time.clock_gettime(time.CLOCK_BOOTTIME) * 1000
            if (work := replica.ready()) is None:
                return
            saved = self._do(work)
            more = saved or replica.core.log.has_committed or work.readers or work.restore or work.lost or work.changes
            if not more:
                return  # only what ended just now, or was too much for once, can bring more to do at once
            if self._loop.time() > until_s and not self._foresight.owes:
                self.wake()
                return

    def _plan(self, now_s: float, *, whole_turn: bool) -> None:
        """See to it that we go on in time with what nobody will wake us for."""
        core = self._replica.core
        self._turns.plan(now_s, few=self._proposers.open <= FEW)
        role = core.role
        hastier = core.term != self._planned_term or core.patience.ticks < self._planned_patience
        # What members say to each other only gives them more time than was planned. A follower makes use of that before
        # its timer rings in vain, which would be a waking of its own.
        rings_soon = role is Role.FOLLOWER and self._wakes_s < now_s + self._soon_s
        if whole_turn or hastier or rings_soon or role not in STEADY:
            self._plan_ticks(now_s)

    def _judge_silence(self, now_s: float) -> None:
        """Let the tick pass that may have consequences, if it is over; our own lateness counts against nobody."""
        if late := self._ticks.late(now_s):
            self._replica.excuse(late)
        if self._ticks.is_over(now_s):
            self._replica.tick()

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
            if self._wakes_s == due_s or now_s + self._soon_s <= self._wakes_s <= due_s + self._config.tick_s / 2:
                return  # early enough, and not soon: if it turns out to be too early, it is planned anew
            self._ticker.cancel()
        self._wakes_s = due_s
        self._ticker = self._loop.call_at(due_s, self._tick)

    def _step_inbox(self) -> None:
        messages, self._inbox = self._inbox, []
        for message in messages:
            self._replica.step(message)

    def _tell_ended(self) -> None:
        ended, self._ended = self._ended, []
        for peer in ended:
            self._replica.ended(peer)

    def _do(self, work: Work) -> bool:
        """Do it; return whether what it wanted saved is saved already, and brings more to do."""
        if work.messages:
            self._send(work.messages)  # first: the others' disks work beside ours
        saved = work.save is not None and self._begin_save(work.save)
        if work.restore is None and self._restores.task is None:
            self._apply(work)
        else:
            self._restores.put_in_line(work)
        return saved

    def _apply(self, work: Work) -> None:
        if work.committed:
            results = self._machine.apply(work.committed, wanted=bool(work.settled))
            self.applied = work.committed[-1].index
            self._foresight.check(results)
            for place, proposal in work.settled:
                self._proposers.settle(proposal, results[place : place + len(proposal.items)])
        for proposal in work.lost:
            overtaken = ProposalTimedOut("a snapshot overtook this member; the proposal may be in it")
            self._proposers.lose(proposal, overtaken)
        for owner, index in work.readers:
            resolve(owner, index)
        for owner, made in work.changes:
            end_change(owner, made=made)

    def _apply_after_restore(self, work: Work) -> None:
        if work.restore is not None:
            self.applied = work.restore.mark.index
        self._apply(work)

    def _begin_save(self, save: Save) -> bool:
        """Begin; return whether it has ended already, and brings more to do."""
        self._saving = save
        calm = self._replica.core.role is Role.FOLLOWER and not self._proposers.open
        if not self._saver.begin(save, self._saved, calm=calm):
            return False
        core = self._replica.core
        self._replica.saved(save)
        if messages := core.take_messages():
            self._send(messages)
        return core.has_news

    def _saved(self, exc: BaseException | None) -> None:
        """The save that is under way, the only one, has ended."""
        if exc is not None:
            # Whether the disk holds the save or not, nobody knows; a second sync could lie. The member has to end.
            self.fail(exc)
        elif self._running:
            assert self._saving is not None
            try:
                self._replica.saved(self._saving)
            except Exception as mistake:  # noqa: BLE001 - as in ``_pump``
                self.fail(mistake)
            else:
                self._go_on()

    # -- the end -----------------------------------------------------------------------------------------------------

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
