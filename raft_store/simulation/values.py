"""The fast guest: what is replicated is a list of unique values, so that nearly all the time goes into Raft itself."""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from random import Random

import msgspec

from raft_store.engine import Entry, Index
from raft_store.foresight import Foreseen
from raft_store.raft.proposals import Proposal
from raft_store.raft.replica import Work
from raft_store.simulation.host import Host
from raft_store.simulation.invariants import Ledger, demand
from raft_store.simulation.plan import (
    LEADER,
    Action,
    Crash,
    Heal,
    Mix,
    Partition,
    Pause,
    Plan,
    Settings,
    Transfer,
    Weather,
    chance,
    draw_settings,
    draw_trouble,
    draw_weather,
)
from raft_store.simulation.world import World

FEW_APART = 2  # values of one turn that are proposed one by one; more of them share a proposal


class Propose(Action, frozen=True):
    """Clients propose the next values at a member, in one turn of its loop, and wait so long."""

    member: int
    patience_ms: float
    count: int = 1


class Read(Action, frozen=True):
    """A client reads the list at a member."""

    member: int


class Values:
    """The machine: a list of every proposal applied."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.next: Index | None = None  # of the next entry, where that is known

    def apply(self, entries: Sequence[Entry], *, wanted: bool = True) -> Sequence[Index]:
        """Return each entry's index as its result."""
        del wanted  # cheap as they are
        self.values.extend(entry.data for entry in entries if entry.data)
        self.next = Index(entries[-1].index + 1)
        return [entry.index for entry in entries]

    def foresee(self, items: Sequence[bytes]) -> Sequence[Index]:
        """Return the next entry's index for each, if it is known."""
        return [] if self.next is None else [self.next] * len(items)

    def snapshot(self) -> Iterator[bytes]:
        """Return all values, a few a chunk."""
        values = tuple(self.values)
        return (msgspec.msgpack.encode(values[start : start + 10]) for start in range(0, max(1, len(values)), 10))

    def begin_restore(self) -> "Restoring":
        """Begin to take over all values."""
        return Restoring(self)


class Restoring:
    """Values on their way from a snapshot into a machine."""

    def __init__(self, machine: Values) -> None:
        self._machine = machine
        self._values: list[bytes] = []

    def feed(self, chunk: bytes) -> None:
        """See ``Restoration``."""
        self._values += msgspec.msgpack.decode(chunk, type=list[bytes])

    def finish(self) -> None:
        """See ``Restoration``."""
        self._machine.values, self._machine.next = self._values, None


class _Reader(msgspec.Struct, frozen=True, eq=False):
    acknowledged_before: Index


class Proposers:
    """Clients who propose values and read the list."""

    def __init__(self, world: World) -> None:
        self.ledger = Ledger()
        self.overtaken: set[bytes] = set()  # proposals whose fate a snapshot hides
        self.values: list[bytes] = []  # what the group committed
        self._world = world
        self._numbers = itertools.count(1)
        self._open: dict[tuple[int, int], dict[bytes, Proposal]] = {}  # by member and life
        self._last: set[bytes] = set()
        self._ends: list[int] = []  # by index - 1: how many values are committed up to there

    def machine(self, host: Host) -> Values:
        """See ``Guest``."""
        self._open[host.id, host.life] = {}
        return Values()

    def started(self, host: Host) -> None:
        """See ``Guest``."""

    def crashed(self, host: Host) -> None:
        """See ``Guest``: what was open here is unknown for ever."""
        self._open.pop((host.id, host.life), None)

    def committed(self, entry: Entry) -> None:
        """See ``Guest``."""
        if entry.data:
            self.values.append(entry.data)
            self.ledger.committed(entry.data, entry.index)
        del self._ends[entry.index - 1 :]  # another proposal of the same entry was there before
        self._ends.append(len(self.values))

    def restored(self, host: Host, index: Index) -> None:
        """See ``Guest``."""
        demand(
            _list_of(host) == self.values[: self._ends[index - 1]],
            "a snapshot holds what was committed",
            f"member {host.id} restored another state than that of {index}",
        )

    def applied(self, host: Host, work: Work, results: Sequence[object] | None) -> None:
        """See ``Guest``."""
        if results is None:
            return
        for begin, proposal in work.settled:
            self._acknowledge(host, proposal, results[begin : begin + len(proposal.items)])

    def foretold(self, host: Host, foreseen: Foreseen) -> None:
        """See ``Guest``."""
        for proposal, results in foreseen.shares:
            self._acknowledge(host, proposal, results)

    def _acknowledge(self, host: Host, proposal: Proposal, results: Sequence[object]) -> None:
        waiting = self._open[host.id, host.life]
        for data, index in zip(proposal.items, results, strict=True):
            if waiting.pop(data, None) is not None:
                assert isinstance(index, int)
                self.ledger.acknowledge(data, Index(index))

    def lost(self, host: Host, proposal: Proposal) -> None:
        """See ``Guest``."""
        for data in proposal.items:
            if self._open[host.id, host.life].pop(data, None) is not None:
                self.overtaken.add(data)

    def readable(self, host: Host, owner: object, barrier: Index) -> None:
        """See ``Guest``."""
        assert isinstance(owner, _Reader)
        demand(
            barrier >= owner.acknowledged_before,
            "reads are linearizable (thesis 6.4)",
            f"member {host.id} may read at {barrier}, but {owner.acknowledged_before} was acknowledged before",
        )
        expected = self.values[: self._ends[barrier - 1]] if barrier else []
        demand(
            _list_of(host)[: len(expected)] == expected,
            "a reader waits for the machine",
            f"member {host.id} reads another state than {barrier}'s",
        )

    def act(self, action: Action) -> None:
        """See ``Guest``."""
        assert isinstance(action, Propose | Read)
        host = self._world.reachable(action.member)
        if host is None:
            return
        if isinstance(action, Propose):
            patience_ms, count = action.patience_ms, action.count
            host.soon(0, lambda: self._begin(host, patience_ms, count))
        else:
            owner = _Reader(self.ledger.newest)
            host.soon(0, lambda: self._read(host, owner))

    def say_goodbye(self) -> None:
        """See ``Guest``."""
        self._last = {self._propose(host, None) for host in self._world.members()}
        for host in self._world.members():
            host.serve()

    def at_ease(self) -> bool:
        """See ``Guest``."""
        return self._last <= self.ledger.acknowledged.keys() | self.overtaken

    def check_end(self) -> None:
        """See ``Guest``."""
        for host in self._world.members():
            values = _list_of(host)
            demand(
                values == self.values,
                "members end alike",
                f"member {host.id} holds {len(values)} values, not {len(self.values)}",
            )
            missing = self.ledger.acknowledged.keys() - set(values)
            demand(not missing, "what is acknowledged is kept", f"lost: {sorted(missing)[:5]}")

    def _begin(self, host: Host, patience_ms: float, count: int) -> None:
        if count <= FEW_APART:
            for _ in range(count):
                self._propose(host, patience_ms)
        else:
            self._propose_together(host, patience_ms, count)
        host.serve()

    def _propose(self, host: Host, patience_ms: float | None) -> bytes:
        data = b"value %d" % next(self._numbers)
        self._open[host.id, host.life][data] = host.replica.propose(data, None)
        if patience_ms is not None:
            host.soon(patience_ms, lambda: self._give_up(host, data))
        return data

    def _propose_together(self, host: Host, patience_ms: float, count: int) -> None:
        """Propose one value, and let the others join it."""
        first = self._propose(host, patience_ms)
        waiting = self._open[host.id, host.life]
        for _ in range(count - 1):
            data = b"value %d" % next(self._numbers)
            joined = waiting[first].join([data], len(data))
            assert joined, "what was proposed in this very moment has left"
            waiting[data] = waiting[first]
            host.soon(patience_ms, partial(self._give_up, host, data))

    def _give_up(self, host: Host, data: bytes) -> None:
        """The deadline: a proposal in flight is unknown, any other was surely not made."""
        proposal = self._open[host.id, host.life].pop(data, None)
        if proposal is not None:
            proposal.abandoned = True
            if not proposal.in_flight:
                self.ledger.refuse(data)

    def _read(self, host: Host, owner: _Reader) -> None:
        host.replica.read(owner)
        host.serve()


def _list_of(host: Host) -> list[bytes]:
    assert isinstance(host.machine, Values)
    return host.machine.values


def draw(seed: int, *, mix: Mix | None = None, proposals: int = 150, reads: int = 40) -> Plan:
    """Return the plan of one seed."""
    members, duration_ms = (5 if seed % 4 == 0 else 3), 6000.0
    random = chance(seed, "plan of values")
    weather = draw_weather(random)
    actions, spares = draw_trouble(random, mix or Mix(), members=members, duration_ms=duration_ms)
    for _ in range(proposals):
        at_ms, member = random.uniform(0, duration_ms), random.randint(1, members)
        patience_ms, count = random.uniform(100, 3000), random.choice((1, 1, 2, 4))
        actions.append(Propose(at_ms=at_ms, member=member, patience_ms=patience_ms, count=count))
    actions += [Read(at_ms=random.uniform(0, duration_ms), member=random.randint(1, members)) for _ in range(reads)]
    actions.sort(key=lambda action: action.at_ms)
    return Plan(
        seed=seed,
        members=members,
        spares=spares,
        duration_ms=duration_ms,
        weather=weather,
        actions=tuple(actions),
        settings=draw_settings(seed),
    )


_CUT_OFF = Mix(every_ms=1500, crash=0.2, rot=0, pause=0.5, partition=1, heal=0.5, transfer=0.3, aimed=0.8)


def draw_clock(seed: int) -> Plan:
    """Return a plan in which leaders that read by the clock are cut off, stand still and hand over all the time."""
    drawn = draw(seed, mix=_CUT_OFF, proposals=20, reads=100)
    random = chance(seed, "plan of rivals")
    actions = list(drawn.actions)
    for number in range(4):
        # One after the other: each ends what the one before it cut.
        actions += _draw_rival(random, 700 + 1300 * number, members=drawn.members)
    actions.sort(key=lambda action: action.at_ms)
    settings = msgspec.structs.replace(draw_settings(seed), lease_reads=True)
    return msgspec.structs.replace(drawn, actions=tuple(actions), settings=settings)


def _draw_rival(random: Random, at_ms: float, *, members: int) -> list[Action]:
    """Return a rival's best chance against a leader that does not know of it, while all of them are in use."""
    rival, third = random.sample(range(1, members + 1), 2)
    moment_ms = at_ms + random.uniform(200, 500)
    cut_off = Partition(at_ms=moment_ms, side=(LEADER,), direction="both")
    # The rival does not hear the leader, a third member hears both.
    between = Partition(at_ms=at_ms, side=(LEADER,), direction="both", against=(rival,))
    variants: tuple[tuple[Action, ...], ...] = (
        # The third confirmed the leader's last heartbeat, and comes back without having heard of any leader.
        (between, Crash(at_ms=moment_ms, who=third, down_ms=random.uniform(1, 10)), cut_off),
        # The rival was asked to take over.
        (between, Transfer(at_ms=at_ms - random.uniform(0, 10), to=rival)),
        # The third falls silent to the leader, and listens to the rival as soon as it may.
        (between, cut_off),
        # The leader reads confirmations of before it stood still, and nothing else.
        (Pause(at_ms=moment_ms - random.uniform(5, 30), who=LEADER, for_ms=random.uniform(250, 450)), cut_off),
    )
    actions = [Heal(at_ms=at_ms - 300), *random.choice(variants), Heal(at_ms=at_ms + 1000)]
    for _ in range(80):
        in_use_ms, member = at_ms + random.uniform(0, 900), random.randint(1, members)
        actions.append(Read(at_ms=in_use_ms, member=member))
        # To the rival alone: whoever lacks an entry of the third's is not elected.
        actions.append(Propose(at_ms=in_use_ms, member=rival, patience_ms=1000))
    return actions


_STORM = Mix(every_ms=150, crash=1, fail_sync=0, rot=0, pause=0, partition=1, heal=0.3, transfer=0, aimed=0.8)


def draw_storm(seed: int) -> Plan:
    """Return a plan in which leaders fall like flies and an append carries one entry: old entries stay undecided."""
    return msgspec.structs.replace(
        draw(seed, mix=_STORM, proposals=200, reads=0),
        settings=Settings(max_append_bytes=1),
        weather=Weather(drop=0.05, repeat=0, straggle=0.1, slow_sync=0.1),
    )
