"""One simulated member: the real replica and storage, and a driver's duties in virtual time.

The directory and the clock outlive a crash, the rest is new with every life. The disk does one job at a time, in order,
as the real driver's thread does; what a crash interrupts is written but not synced.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import Protocol

import msgspec

from raft_store.disk.directory import DiskError
from raft_store.disk.snapshot import NotASnapshot
from raft_store.disk.storage import Storage
from raft_store.engine import Entry, Index, MemberId, StateMachine
from raft_store.foresight import Foreseen, Foresight
from raft_store.raft import messages as m
from raft_store.raft.core import Core, CoreConfig
from raft_store.raft.membership import NO_MEMBERS, Configuration
from raft_store.raft.proposals import Proposal
from raft_store.raft.replica import Replica, Work
from raft_store.simulation.disk import SimulatedDirectory
from raft_store.simulation.invariants import Judge, Violation
from raft_store.simulation.network import Network
from raft_store.simulation.plan import TICK_JITTER, Action, Plan
from raft_store.simulation.timeline import Event, Timeline

_FATE = {True: "made", False: "not made", None: "anybody's guess"}


MAX_JOB_MS = 3000.0  # of even the slowest disk


class Guest(Protocol):
    """What the group replicates, and who uses it."""

    def machine(self, host: "Host") -> StateMachine:
        """Return an empty machine for a member that starts."""

    def started(self, host: "Host") -> None:
        """A member recovered; its machine holds what its disk remembers."""

    def crashed(self, host: "Host") -> None:
        """A member died, with all that it held in memory."""

    def restored(self, host: "Host", index: Index) -> None:
        """A member's machine was replaced by a snapshot."""

    def foretold(self, host: "Host", foreseen: Foreseen) -> None:
        """A member tells its proposers what their proposals come to, which it applies next."""

    def applied(self, host: "Host", work: Work, results: Sequence[object] | None) -> None:
        """A member's machine applied ``work.committed``; None: nobody wanted to know what that came to."""

    def lost(self, host: "Host", proposal: Proposal) -> None:
        """A snapshot hides what became of a proposal."""

    def readable(self, host: "Host", owner: object, barrier: Index) -> None:
        """A reader may read now."""

    def committed(self, entry: Entry) -> None:
        """The group agreed on one more entry."""

    def act(self, action: Action) -> None:
        """A client does what the plan says."""

    def say_goodbye(self) -> None:
        """Peace is made: ask the last things."""

    def at_ease(self) -> bool:
        """Return whether everything asked is answered, as far as it ever will be."""

    def check_end(self) -> None:
        """All members are alike: raise Violation unless they hold what they must."""


class World(Protocol):
    """What a host needs to know of its world."""

    plan: Plan
    founders: Configuration
    timeline: Timeline
    network: Network
    judge: Judge
    guest: Guest
    logger: logging.Logger

    def tell(self, line: str) -> None:
        """Write one line of the transcript."""

    def failed(self, host: "Host") -> None:
        """A host cannot go on: its disk failed."""

    def left(self, host: "Host") -> None:
        """A host learned that the group goes on without it, for ever."""


class Host:
    """One member, life after life."""

    def __init__(self, member: MemberId, world: World) -> None:
        self.id = member
        self.directory = SimulatedDirectory()
        self.up = False
        self.joined = False  # it runs, or ran, or will run again
        self.refused = False  # its disk is rotten: it will never start again
        self.removed = False  # neither will it, when the group is done with it
        self.life = 0  # events of an earlier life no longer concern it
        self.storage: Storage
        self.replica: Replica
        self.machine: StateMachine
        self.slow_until_ms = 0.0
        self.slow_times = 1.0
        self.next_sync_fails = False
        self._world = world
        self._timeline = world.timeline
        self._chance = world.plan.chance(f"member {member}")
        self._disk_chance = world.plan.chance(f"disk of {member}")
        self.rate = 1 + self._chance.uniform(-1, 1) * world.plan.weather.drift
        self._epoch_s = self._chance.uniform(0, 1e6)
        self._paused_until_ms = 0.0
        self._jobs: deque[tuple[float, Event, Event]] = deque()
        self._snapshotting = False
        self._telling = False
        self._snapshot_index = Index(0)
        self.applied = Index(0)  # by the machine; the replica's is ahead of it during a restore
        self._behind: deque[tuple[Work, list[bytes] | None]] = deque()  # the restores in line, as the driver's

    # -- time --------------------------------------------------------------------------------------------------------

    def clock_s(self) -> float:
        """Return this member's monotonic clock: it drifts, and knows nothing of anybody's pauses."""
        return self._epoch_s + self._timeline.now_ms / 1000 * self.rate

    def soon(self, delay_ms: float, event: Event) -> None:
        """Let ``event`` happen here, unless the member dies before; while it is paused, everything waits."""
        life = self.life

        def happen() -> None:
            if not (self.up and self.life == life):
                return
            if self._timeline.now_ms < self._paused_until_ms:
                self._timeline.after(self._paused_until_ms - self._timeline.now_ms, happen)
            else:
                event()

        self._timeline.after(delay_ms, happen)

    def pause(self, for_ms: float) -> None:
        """Stand still for a while."""
        self._paused_until_ms = max(self._paused_until_ms, self._timeline.now_ms + for_ms)

    def wake(self) -> None:
        """Stand still no longer."""
        self._paused_until_ms = 0.0

    # -- lives -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Recover and join, or find that the disk cannot be trusted; raises Violation if that is judged wrongly."""
        world, settings = self._world, self._world.plan.settings
        self.life += 1
        self.storage = Storage(self.directory, segment_bytes=settings.segment_bytes)
        try:
            past = self.storage.recover(world.founders if self.id in world.founders.voters else NO_MEMBERS)
            chunks = list(self.storage.read_snapshot(past.snapshot)) if past.snapshot is not None else []
        except DiskError as exc:
            self._refuse(exc)
            return
        if self._still_rotten():
            raise Violation("rotten data is refused", f"member {self.id} starts with {self.directory.rotten}")
        self.up = True
        self._paused_until_ms = 0.0
        self._snapshotting = self.next_sync_fails = self._telling = False
        self._jobs.clear()
        self._behind.clear()
        self.machine = world.guest.machine(self)
        if chunks:
            self._restore(chunks)
        self._snapshot_index = self.applied = past.log.base.index
        core = Core(
            CoreConfig(
                member=self.id,
                election_ticks=settings.election_ticks,
                election_stretch=settings.election_stretch,
                max_append_bytes=settings.max_append_bytes,
                max_apply_entries=8,
                snapshot_patience_ticks=40,
                lease_ms=settings.lease_ms,
            ),
            hard_state=past.hard_state,
            log=past.log,
            random=self._chance,
            logger=world.logger,
        )
        core.delays = settings.delays
        self.replica = Replica(core, session=self._chance.getrandbits(64))
        self._foresight = Foresight(self.replica, self.machine)
        world.judge.restarted(self.id)
        world.tell(f"member {self.id} starts term={core.term} log={core.log.base.index}..{core.log.last_index}")
        world.guest.started(self)
        self._tick(self._timeline.now_ms)

    def crash(self, chance: Random) -> None:
        """Die: memory is gone, and so is what was not synced."""
        self.up = False
        self._world.guest.crashed(self)
        self.directory.crash(chance)

    def _refuse(self, exc: DiskError) -> None:
        if self.directory.rotten is None:
            raise Violation("a sound disk is accepted", f"member {self.id} refuses its disk: {exc}") from exc
        self.refused = True
        self._world.tell(f"member {self.id} refuses its disk: {exc}")

    def _still_rotten(self) -> bool:
        rotten = self.directory.rotten
        return rotten is not None and rotten[0] in self.directory.files

    # -- events ------------------------------------------------------------------------------------------------------

    def receive(self, message: m.AnyMessage) -> None:
        """A message arrived; it is read when the member is not paused."""
        if self._timeline.now_ms < self._paused_until_ms:
            self.soon(self._paused_until_ms - self._timeline.now_ms, lambda: self.receive(message))
            return
        if isinstance(message, m.InstallSnapshot):
            taken = self._take_in(message)
            if taken is None:
                return
            message = taken
        self.replica.step(message)
        self.serve()

    def hear_of_end(self, peer: MemberId) -> None:
        """Nothing listens any more where ``peer`` did; or something in between says so."""
        self.replica.ended(peer)
        self.serve()

    def serve(self) -> None:
        """What the driver does after each event."""
        judge, core = self._world.judge, self.replica.core
        judge.stepped(core)
        core.now_ms = self.clock_s() * 1000
        if (foreseen := self._foresight.come_true()) is not None:
            self._world.guest.foretold(self, foreseen)
        while (work := self.replica.ready()) is not None:
            self._do(work)
            judge.stepped(core)
        self._foresight.look(waiting=0)
        if core.removed:
            self._world.left(self)
        self._snapshot_if_due()
        if core.owes and not self._telling:
            self._telling = True
            self.soon(self._chance.uniform(0.5, 5), self._tell_what_is_owed)

    def _tell_what_is_owed(self) -> None:
        """What waited for something to go along with has waited long enough."""
        self._telling = False
        self.replica.core.delays = False
        self.serve()
        self.replica.core.delays = self._world.plan.settings.delays

    def _tick(self, due_ms: float) -> None:
        tick_ms = self._world.plan.settings.tick_ms / self.rate
        self.replica.excuse(int((self._timeline.now_ms - due_ms) / tick_ms))
        self.replica.tick()
        self.serve()
        wait_ms = tick_ms * self._chance.uniform(1 - TICK_JITTER, 1 + TICK_JITTER)
        next_ms = self._timeline.now_ms + wait_ms
        self.soon(wait_ms, lambda: self._tick(next_ms))

    def _do(self, work: Work) -> None:
        for message in work.messages:
            self._send(message)
        if work.save is not None:
            self._begin_save(work.save)
        chunks: list[bytes] | None = None
        if work.restore is not None:
            # Read in line with the saves, as the driver opens it: a later one may remove the file.
            chunks = list(self.storage.read_snapshot(work.restore.mark))
            self.replica.core.holds_back = True
        if chunks is None and not self._behind:
            self._apply(work)
        elif chunks is not None or work.lost or work.changes:
            self._behind.append((work, chunks))
            if len(self._behind) == 1:
                self.soon(self._restore_ms(), self._catch_up)

    def _restore_ms(self) -> float:
        """Return how long it takes to restore a snapshot: many ticks, now and then."""
        return self._disk_chance.choice((1.0, 20.0, 300.0)) * self._disk_chance.random()

    def _catch_up(self) -> None:
        """Do what stands in line behind a restore."""
        work, chunks = self._behind.popleft()
        if work.restore is not None and chunks is not None:
            mark = work.restore.mark
            self._restore(chunks)
            self._snapshot_index = self.applied = mark.index
            self._world.guest.restored(self, mark.index)
        self._apply(work)
        if self._behind:
            self.soon(self._restore_ms(), self._catch_up)
        else:
            self.replica.core.holds_back = False
            self.serve()

    def _apply(self, work: Work) -> None:
        guest = self._world.guest
        if work.committed:
            # Where nobody waits, every other time all the same: so the answers of all members can be compared.
            wanted = bool(work.settled) or work.committed[0].index % 2 == 0
            results = self.machine.apply(work.committed, wanted=wanted)
            self.applied = work.committed[-1].index
            self._foresight.check(results)
            self._world.judge.applied(self.id, work.committed)
            guest.applied(self, work, results if wanted else None)
        for proposal in work.lost:
            guest.lost(self, proposal)
        for owner, barrier in work.readers:
            guest.readable(self, owner, barrier)
        for owner, made in work.changes:
            self._world.tell(f"the group's change {owner} is {_FATE[made]}")

    def _send(self, message: m.AnyMessage) -> None:
        self._world.judge.sent(message)
        if isinstance(message, m.InstallSnapshot):
            self._disk(self._disk_chance.uniform(0.2, 5), _nothing, lambda: self._send_snapshot(message))
        else:
            self._world.network.send(message)

    # -- the disk ----------------------------------------------------------------------------------------------------

    def _begin_save(self, save: m.Save) -> None:
        self._world.judge.saving(self.replica.core, save.entries)
        slow = self._disk_chance.random() < self._world.network.weather.slow_sync
        delay_ms = self._disk_chance.uniform(100, 400) if slow else self._disk_chance.uniform(0.2, 8)
        self._disk(delay_ms, lambda: self.storage.write(save), lambda: self._end_save(save))

    def _end_save(self, save: m.Save) -> None:
        if self.next_sync_fails:
            raise DiskError("cannot sync: input/output error")
        self.storage.sync()
        self.replica.saved(save)
        self.serve()

    def _snapshot_if_due(self) -> None:
        replica, settings = self.replica, self._world.plan.settings
        if self._snapshotting or self._behind or replica.applied - self._snapshot_index < settings.snapshot_entries:
            return
        mark = replica.core.log.mark(replica.applied)
        if mark is None:
            return
        self._snapshotting = True
        chunks = self.machine.snapshot()  # of now, although it is drawn later
        self._disk(self._disk_chance.uniform(1, 40), _nothing, lambda: self._end_snapshot(mark, chunks))

    def _end_snapshot(self, mark: m.SnapshotMark, chunks: Iterator[bytes]) -> None:
        growing = self.storage.begin_snapshot(mark)
        for chunk in chunks:
            if chunk:
                growing.write(chunk)
        growing.finish()
        self.storage.let_go(mark)
        self._snapshotting = False
        self._snapshot_index = max(self._snapshot_index, mark.index)
        self.replica.core.compact(mark, keep=self._world.plan.settings.keep_entries)
        self._world.tell(f"member {self.id} took a snapshot index={mark.index}")
        self.serve()

    def _restore(self, chunks: Iterable[bytes]) -> None:
        restoration = self.machine.begin_restore()
        for chunk in chunks:
            restoration.feed(chunk)
        restoration.finish()

    def _take_in(self, message: m.InstallSnapshot) -> m.InstallSnapshot | None:
        """Put a snapshot that arrived on our disk; None if it is none (any more)."""
        incoming = self.storage.receive_snapshot()
        try:
            incoming.write(message.data)
            received = incoming.finish()
        except NotASnapshot as exc:
            incoming.discard()
            self._world.tell(f"member {self.id} refuses a snapshot from {message.sender}: {exc}")
            return None
        return msgspec.structs.replace(message, mark=received.mark, data=received.data)

    def _send_snapshot(self, message: m.InstallSnapshot) -> None:
        # The file's bytes as they are now; the receiver puts them on its own disk.
        whole = msgspec.structs.replace(message, data=self.storage.open_snapshot().read(-1))
        if not self._world.network.send(whole):
            self.soon(self._chance.uniform(50, 500), lambda: self._snapshot_failed(message.to))

    def _snapshot_failed(self, to: MemberId) -> None:
        self.replica.core.snapshot_failed(to)
        self.serve()

    def _disk(self, delay_ms: float, begin: Event, end: Event) -> None:
        """Queue a job: ``begin`` fills the cache, ``end`` comes when the disk is done."""
        self._jobs.append((delay_ms, begin, end))
        if len(self._jobs) == 1:
            self._next_job()

    def _next_job(self) -> None:
        delay_ms, begin, _ = self._jobs[0]
        begin()
        times = self.slow_times if self._timeline.now_ms < self.slow_until_ms else 1.0
        self.soon(min(delay_ms * times, MAX_JOB_MS), self._job_done)

    def _job_done(self) -> None:
        _, _, end = self._jobs[0]
        try:
            end()
        except DiskError as exc:
            self._world.tell(f"member {self.id} cannot go on: {exc}")
            self._world.failed(self)
            return
        if not self.up:
            return
        self._jobs.popleft()
        if self._jobs:
            self._next_job()


def _nothing() -> None:
    """A job that only takes time."""
