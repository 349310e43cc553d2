"""One seed, one history: members, network, disks, clocks, clients and the faults that befall them.

Theory of operation
-------------------
Time is a number; whatever happens later lies in one queue. A step takes the earliest event, lets one member do its work
(the very code of the real driver's replica and storage) and asks the judge. All chance comes from one generator, so
that a seed replays its history step by step.

Faults: messages are dropped, repeated, delayed and overtaken; members are cut off, also one way only; disks are slow;
members crash, which loses whatever was not synced and tears what was being written; leaders are asked to hand over.
"""

import heapq
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random

import msgspec

from raft_store.disk.storage import Storage
from raft_store.engine import Entry, Index, MemberId
from raft_store.raft import messages as m
from raft_store.raft.core import Core, CoreConfig, Role
from raft_store.raft.membership import founded
from raft_store.raft.proposals import Proposal
from raft_store.raft.replica import Replica, Work
from raft_store.simulation.disk import SimulatedDirectory
from raft_store.simulation.invariants import Judge, Violation

TICK_MS = 20.0


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """How bad the weather is; chances per message, or per fault that is due."""

    drop: float = 0.05
    repeat: float = 0.03
    straggle: float = 0.03  # delayed so long that later ones overtake it
    every_ms: float = 250.0  # mean time between two of the following
    crash: float = 0.4
    partition: float = 0.35
    heal: float = 0.15
    transfer: float = 0.1
    aimed: float = 0.3  # a crash or partition hits a leader


class Values:
    """The machine: a list of every proposal applied."""

    def __init__(self) -> None:
        self.values: list[bytes] = []

    def apply(self, entries: Sequence[Entry]) -> Sequence[Index]:
        """Return each entry's index as its result."""
        self.values.extend(entry.data for entry in entries if entry.data)
        return [entry.index for entry in entries]

    def snapshot(self) -> Iterator[bytes]:
        """Return all values, a few a chunk."""
        values = tuple(self.values)
        return (msgspec.msgpack.encode(values[start : start + 10]) for start in range(0, len(values), 10))

    def begin_restore(self) -> "Restoring":
        """Begin to take over all values."""
        return Restoring(self)


class Restoring:
    """Values from a snapshot."""

    def __init__(self, machine: Values) -> None:
        self._machine = machine
        self._values: list[bytes] = []

    def feed(self, chunk: bytes) -> None:
        """See ``Restoration``."""
        self._values += msgspec.msgpack.decode(chunk, type=list[bytes])

    def finish(self) -> None:
        """See ``Restoration``."""
        self._machine.values = self._values


class _Reader(msgspec.Struct, frozen=True, eq=False):
    acknowledged_before: Index


class Member:
    """One member's life after life: the directory outlives the rest."""

    def __init__(self, member: MemberId) -> None:
        self.id = member
        self.directory = SimulatedDirectory()
        self.life = 0  # events of an earlier life no longer concern it
        self.up = False
        self.storage: Storage
        self.replica: Replica
        self.machine: Values
        self.open: dict[bytes, Proposal] = {}
        self.snapshot_index = Index(0)


class World:
    """A group of ``members`` under ``faults``; ``tell`` receives a readable line for whatever happens."""

    def __init__(
        self,
        seed: int,
        *,
        members: int = 3,
        faults: Faults | None = None,
        max_append_bytes: int = 200,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.random = Random(seed)  # noqa: S311 - has to be replayable
        self.faults = faults or Faults()
        self.judge = Judge()
        self.now_ms = 0.0
        self._max_append_bytes = max_append_bytes
        self.steps = 0
        self._tell = tell
        self._logger = _transcript_logger(self.tell) if tell else _SILENT
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._values = itertools.count(1)
        self._cut: set[tuple[MemberId, MemberId]] = set()  # (from, to) that cannot be reached
        self.overtaken: set[bytes] = set()  # proposals whose fate a snapshot hides
        self._patience_ms = (0.0, 0.0)
        self._calm = False
        self.members: Mapping[MemberId, Member] = {MemberId(i): Member(MemberId(i)) for i in range(1, members + 1)}
        for member in self.members.values():
            self._start(member)

    # -- running -----------------------------------------------------------------------------------------------------

    def run(
        self, *, duration_ms: float, proposals: int, reads: int, patience_ms: tuple[float, float] = (100.0, 3000.0)
    ) -> None:
        """Let clients and faults do their work; raises Violation. patience_ms: range of the proposers' deadlines."""
        self._patience_ms = patience_ms
        for _ in range(proposals):
            self._at(self.random.uniform(0, duration_ms), self._propose)
        for _ in range(reads):
            self._at(self.random.uniform(0, duration_ms), self._read)
        self._at(self.random.expovariate(1 / self.faults.every_ms), self._fault)
        self._run_until(duration_ms)

    def heal_and_settle(self, *, within_ms: float = 20_000.0) -> None:
        """End all faults; every member has to get to the same state, and to serve, in time. Raises Violation."""
        self._calm = True
        self._cut.clear()
        self.tell("all faults end")
        for member in self.members.values():
            if not member.up:
                self._start(member)
        deadline = self.now_ms + within_ms
        self._run_while(lambda: not self._all_alike(), deadline, "members differ")
        lasts = {self._propose_at(member) for member in self.members.values()}
        self._run_while(
            lambda: not lasts <= self.judge.acknowledged.keys() | self.overtaken, deadline, "last proposals are open"
        )
        self._run_while(lambda: not self._all_alike(), deadline, "members differ after the last proposals")
        for member in self.members.values():
            self.judge.settled(member.id, member.machine.values)

    def tell(self, line: str) -> None:
        """Write one line of the transcript."""
        if self._tell is not None:
            self._tell(f"{self.now_ms / 1000:8.3f}  {line}")

    def _all_alike(self) -> bool:
        """Whether all follow one leader and have applied all that was committed."""
        end = len(self.judge.committed)
        replicas = [member.replica for member in self.members.values()]
        leaders = {replica.core.leader for replica in replicas}
        return m.NOBODY not in leaders and len(leaders) == 1 and all(replica.applied == end for replica in replicas)

    def _run_while(self, going_on: Callable[[], bool], deadline_ms: float, what: str) -> None:
        while going_on():
            if self.now_ms >= deadline_ms:
                raise Violation(f"not healed long after the last fault: {what}")
            self._run_until(self.now_ms + 50)

    def _run_until(self, end_ms: float) -> None:
        while self._events and self._events[0][0] <= end_ms:
            self.now_ms, _, event = heapq.heappop(self._events)
            self.steps += 1
            event()
        self.now_ms = end_ms

    def _at(self, delay_ms: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now_ms + delay_ms, next(self._order), event))

    def _in_life(self, member: Member, delay_ms: float, event: Callable[[], None]) -> None:
        """Let ``event`` happen unless the member crashes before."""
        life = member.life

        def happen() -> None:
            if member.up and member.life == life:
                event()

        self._at(delay_ms, happen)

    # -- members -----------------------------------------------------------------------------------------------------

    def _start(self, member: Member) -> None:
        member.life += 1
        member.up = True
        member.storage = Storage(member.directory, segment_bytes=2000)
        past = member.storage.recover(founded(dict.fromkeys(self.members, ())))
        member.machine = Values()
        if past.snapshot is not None:
            self._restore(member, past.snapshot)
        member.snapshot_index = past.log.base.index
        core = Core(
            CoreConfig(
                member=member.id,
                election_ticks=10,
                max_append_bytes=self._max_append_bytes,
                max_apply_entries=8,
                snapshot_patience_ticks=40,
            ),
            hard_state=past.hard_state,
            log=past.log,
            random=self.random,
            logger=self._logger,
        )
        member.replica = Replica(core, session=self.random.getrandbits(64))
        self.judge.restarted(member.id)
        self.tell(f"member {member.id} starts term={core.term} log={core.log.base.index}..{core.log.last_index}")
        self._tick(member)

    def _crash(self, member: Member) -> None:
        self.tell(f"member {member.id} crashes")
        member.up = False
        member.open.clear()  # their fate is unknown for ever
        member.directory.crash(self.random)

    def _tick(self, member: Member) -> None:
        member.replica.tick()
        self._serve(member)
        self._in_life(member, TICK_MS * self.random.uniform(0.9, 1.1), lambda: self._tick(member))

    def _serve(self, member: Member) -> None:
        """What the driver does after each event."""
        self.judge.stepped(member.replica.core)
        while (work := member.replica.ready()) is not None:
            self._do(member, work)
            self.judge.stepped(member.replica.core)
        self._snapshot_if_due(member)

    def _do(self, member: Member, work: Work) -> None:
        for message in work.messages:
            self._send(member, message)
        if work.save is not None:
            self._begin_save(member, work.save)
        if work.restore is not None:
            self._restore(member, work.restore.mark)
            member.snapshot_index = work.restore.mark.index
            self.judge.restored(member.id, work.restore.mark.index, member.machine.values)
        results = member.machine.apply(work.committed)
        self.judge.applied(member.id, work.committed)
        for place, proposal in work.settled:
            if member.open.pop(proposal.data, None) is not None:
                self.judge.acknowledge(proposal.data, results[place])
        for proposal in work.lost:
            if member.open.pop(proposal.data, None) is not None:
                self.overtaken.add(proposal.data)
        for owner, barrier in work.readers:
            assert isinstance(owner, _Reader)
            self.judge.read(
                member.id,
                barrier=barrier,
                acknowledged_before=owner.acknowledged_before,
                values=member.machine.values,
            )

    def _begin_save(self, member: Member, save: m.Save) -> None:
        self.judge.saving(member.replica.core, save.entries)
        member.storage.write(save)
        slow = self.random.random() < 0.02
        delay_ms = self.random.uniform(100, 400) if slow else self.random.uniform(0.2, 8)
        self._in_life(member, delay_ms, lambda: self._end_save(member, save))

    def _end_save(self, member: Member, save: m.Save) -> None:
        member.storage.sync()
        member.replica.saved(save)
        self._serve(member)

    def _snapshot_if_due(self, member: Member) -> None:
        replica = member.replica
        mark = replica.core.log.mark(replica.applied)
        if replica.applied - member.snapshot_index >= 30 and mark is not None:
            growing = member.storage.begin_snapshot(mark)
            for chunk in member.machine.snapshot():
                growing.write(chunk)
            growing.finish()
            member.storage.let_go(mark)
            member.snapshot_index = mark.index
            replica.core.compact(mark, keep=5)

    def _restore(self, member: Member, mark: m.SnapshotMark) -> None:
        restoration = member.machine.begin_restore()
        for chunk in member.storage.read_snapshot(mark):
            restoration.feed(chunk)
        restoration.finish()

    # -- network -----------------------------------------------------------------------------------------------------

    def _send(self, member: Member, message: m.AnyMessage) -> None:
        self.judge.sent(message)
        if isinstance(message, m.InstallSnapshot):
            # The file's bytes as they are now; the receiver puts them on its own disk.
            message = msgspec.structs.replace(message, data=member.storage.open_snapshot().read(-1))
        random, faults = self.random, self.faults
        if not self._calm:
            if random.random() < faults.drop:
                return
            if random.random() < faults.repeat:
                self._at(random.uniform(1, 300), lambda: self._deliver(message))
        straggles = not self._calm and random.random() < faults.straggle
        delay_ms = random.uniform(20, 400) if straggles else random.uniform(0.2, 4)
        self._at(delay_ms, lambda: self._deliver(message))

    def _deliver(self, message: m.AnyMessage) -> None:
        receiver = self.members[message.to]
        if receiver.up and (message.sender, message.to) not in self._cut:
            if isinstance(message, m.InstallSnapshot):
                incoming = receiver.storage.receive_snapshot()
                incoming.write(message.data)
                received = incoming.finish()
                message = msgspec.structs.replace(message, mark=received.mark, data=received.data)
            receiver.replica.step(message)
            self._serve(receiver)

    # -- clients -----------------------------------------------------------------------------------------------------

    def _pick(self) -> Member | None:
        up = [member for member in self.members.values() if member.up]
        return self.random.choice(up) if up else None

    def _propose(self) -> None:
        if (member := self._pick()) is not None:
            data = self._propose_at(member)
            self._in_life(member, self.random.uniform(*self._patience_ms), lambda: self._give_up(member, data))

    def _propose_at(self, member: Member) -> bytes:
        data = b"value %d" % next(self._values)
        member.open[data] = member.replica.propose(data, None)
        self._serve(member)
        return data

    def _give_up(self, member: Member, data: bytes) -> None:
        """The deadline: a proposal in flight is unknown, any other was surely not made."""
        if (proposal := member.open.pop(data, None)) is not None:
            proposal.abandoned = True
            if not proposal.in_flight:
                self.judge.refuse(data)

    def _read(self) -> None:
        if (member := self._pick()) is not None:
            newest = max(self.judge.acknowledged.values(), default=Index(0))
            member.replica.read(_Reader(acknowledged_before=newest))
            self._serve(member)

    # -- faults ------------------------------------------------------------------------------------------------------

    def _fault(self) -> None:
        if self._calm:
            return
        faults = self.faults
        weights = {
            "crash": faults.crash,
            "partition": faults.partition,
            "heal": faults.heal,
            "transfer": faults.transfer,
        }
        kind = self.random.choices(list(weights), list(weights.values()))[0]
        getattr(self, f"_fault_{kind}")()
        self._at(self.random.expovariate(1 / faults.every_ms), self._fault)

    def _victim(self) -> Member | None:
        leaders = self._leaders()
        aimed = leaders and self.random.random() < self.faults.aimed
        return self.random.choice(leaders) if aimed else self._pick()

    def _leaders(self) -> list[Member]:
        return [member for member in self.members.values() if member.up and member.replica.core.role is Role.LEADER]

    def _fault_crash(self) -> None:
        if (member := self._victim()) is not None:
            self._crash(member)
            self._at(self.random.uniform(10, 1500), lambda: None if member.up else self._start(member))

    def _fault_partition(self) -> None:
        """Cut a random side off, now and then in one direction only."""
        ids = list(self.members)
        side = set(self.random.sample(ids, self.random.randint(1, len(ids) // 2)))
        if (victim := self._victim()) is not None and victim.id not in side:
            side = {*list(side)[1:], victim.id}
        direction = self.random.choice(("both", "both", "in", "out"))
        self._cut = {
            (sender, to)
            for sender in ids
            for to in ids
            if (sender in side) != (to in side) and (direction == "both" or (direction == "out") == (sender in side))
        }
        self.tell(f"partition {sorted(side)} cut off direction={direction}")

    def _fault_heal(self) -> None:
        self._cut.clear()
        self.tell("partition heals")

    def _fault_transfer(self) -> None:
        if leaders := self._leaders():
            leader = self.random.choice(leaders)
            leader.replica.core.transfer(self.random.choice(leader.replica.core.peers))
            self._serve(leader)


def _transcript_logger(write: Callable[[str], None]) -> logging.Logger:
    """Return a logger of this world's own: it must not mix with another's, nor with the program's."""
    logger = logging.Logger("simulation", logging.DEBUG)  # noqa: LOG001
    handler = logging.Handler()
    handler.emit = lambda record: write(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    return logger


_SILENT = logging.Logger("simulation", logging.CRITICAL + 1)  # noqa: LOG001 - as above


def simulate(seed: int, *, tell: Callable[[str], None] | None = None) -> World:
    """Run one whole history: faults, then peace; return the world at its end. Raises Violation."""
    world = World(seed, members=5 if seed % 4 == 0 else 3, tell=tell)
    world.run(duration_ms=6000, proposals=150, reads=40)
    world.heal_and_settle()
    return world
