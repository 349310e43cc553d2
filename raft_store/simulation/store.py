"""The whole guest: the real key-value store on every member, with clients, listeners and leases."""

from collections.abc import Sequence

from raft_store.engine import Entry, Index
from raft_store.foresight import Foreseen
from raft_store.lease_keeper import LeaseKeeper
from raft_store.machine import Machine, encode
from raft_store.mvcc.lease import LeaseClock
from raft_store.mvcc.requests import Put
from raft_store.mvcc.watch import WatchLimits
from raft_store.raft.proposals import Proposal
from raft_store.raft.replica import Work
from raft_store.simulation.clients import Client, Operation
from raft_store.simulation.host import Host
from raft_store.simulation.invariants import demand
from raft_store.simulation.listeners import Listener
from raft_store.simulation.plan import Action
from raft_store.simulation.promises import Promises
from raft_store.simulation.requests import (
    CLIENTS,
    KEYS,
    LISTENERS,
    Ask,
    AskProgress,
    Move,
    Unwatch,
    Watch,
)
from raft_store.simulation.world import World

PULSE_MS = 100.0  # as in ``member``
EXPIRE_PATIENCE_MS = 5000.0
LIMITS = WatchLimits(pending_events=4, batch_bytes=150, step_events=5)  # small: listeners fall behind often
TRIM_EVERY = 2


class StoreGuest:
    """Everything above Raft, and everybody who uses it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.promises = Promises(world.plan.weather.drift)
        self.clients = [Client(number, world, self.promises) for number in range(1, CLIENTS + 1)]
        self.listeners = [Listener(number, world, self.promises) for number in range(1, LISTENERS + 1)]
        self._expiring: set[tuple[int, int]] = set()  # (member, life) that proposed an expiry and waits

    def machine(self, host: Host) -> Machine:
        """See ``Guest``."""
        return Machine(LeaseClock(host.clock_s), LIMITS)

    def started(self, host: Host) -> None:
        """See ``Guest``."""
        self.promises.check_state(host.id, _machine_of(host), host.applied)
        keeper = LeaseKeeper(_machine_of(host))
        host.soon(PULSE_MS, lambda: self._pulse(host, keeper))

    def crashed(self, host: Host) -> None:
        """See ``Guest``."""
        for listener in self.listeners:
            listener.crashed(host)

    def committed(self, entry: Entry) -> None:
        """See ``Guest``."""
        elected_ms = self.world.judge.elected_ms[entry.term]
        self.promises.committed(entry, self.world.timeline.now_ms, elected_ms=elected_ms)

    def restored(self, host: Host, index: Index) -> None:
        """See ``Guest``."""
        self.promises.check_state(host.id, _machine_of(host), index)

    def foretold(self, host: Host, foreseen: Foreseen) -> None:
        """See ``Guest``."""
        del host  # whoever asked waits at home
        for proposal, results in foreseen.shares:
            if proposal.owner is not None and not proposal.abandoned:
                proposal.abandoned = True  # nobody waits for it any more
                client, operation = _asked(proposal.owner)
                client.applied(operation, results[0], foreseen.index)

    def applied(self, host: Host, work: Work, results: Sequence[object] | None) -> None:
        """See ``Guest``."""
        self.promises.applied(host.id, _machine_of(host), work.committed, results)
        if results is None:
            return
        for place, proposal in work.settled:
            owner = proposal.owner
            if owner is None:
                self._expiring.discard((host.id, host.life))
            elif not proposal.abandoned:
                client, operation = _asked(owner)
                client.applied(operation, results[place], work.committed[place].index)

    def lost(self, host: Host, proposal: Proposal) -> None:
        """See ``Guest``: nobody is told, and everybody has a deadline."""
        if proposal.owner is None:
            self._expiring.discard((host.id, host.life))

    def readable(self, host: Host, owner: object, barrier: Index) -> None:
        """See ``Guest``."""
        demand(host.applied >= barrier, "a reader waits for the machine", f"member {host.id} is not at {barrier}")
        client, operation = _asked(owner)
        if operation.done_ms is None:
            client.readable(host, operation)

    def act(self, action: Action) -> None:
        """See ``Guest``."""
        match action:
            case Ask(client=client):
                self.clients[client - 1].act(action)
            case Watch(listener=listener):
                self.listeners[listener - 1].watch(action)
            case AskProgress(listener=listener):
                self.listeners[listener - 1].ask_progress()
            case Unwatch(listener=listener):
                self.listeners[listener - 1].unwatch()
            case Move(listener=listener, member=member):
                self.listeners[listener - 1].move(member)
            case _:
                raise AssertionError(f"nobody knows how to {action}")

    def say_goodbye(self) -> None:
        """See ``Guest``: every client writes once more, every listener asks how far it is."""
        for client in self.clients:
            put = Put(KEYS[client.number], b"goodbye of %d" % client.number)
            client.act(Ask(at_ms=0, client=client.number, member=client.number, patience_ms=10_000, request=put))
        for listener in self.listeners:
            listener.move(listener.number)
            listener.ask_progress()

    def at_ease(self) -> bool:
        """See ``Guest``: all is answered and told, and every lease that nobody renews has ended."""
        heard = all(not watch.missing() for listener in self.listeners for watch in listener.watches)
        return heard and all(client.idle for client in self.clients) and not self.promises.model.leases

    def check_end(self) -> None:
        """See ``Guest``."""
        index = Index(len(self.world.judge.committed))
        states = set()
        for host in self.world.members():
            machine = _machine_of(host)
            self.promises.check_state(host.id, machine, index)
            states.add(b"".join(machine.snapshot()))
        demand(len(states) == 1, "members end alike", "their snapshots differ")
        for client in self.clients:
            last = client.history[-1]
            demand(last.answer is not None, "the group serves after the faults", f"client {client.number}: {last}")

    def _pulse(self, host: Host, keeper: LeaseKeeper) -> None:
        """What ``member`` does several times a second."""
        core, key = host.replica.core, (host.id, host.life)
        keeper.look(leads=core.leader == host.id, term=core.term)
        if key not in self._expiring and (command := keeper.due()) is not None:
            self._expiring.add(key)
            self.world.tell(f"member {host.id} ends leases: {command}")
            proposal = host.replica.propose(encode(command), None)
            host.soon(EXPIRE_PATIENCE_MS, lambda: self._give_up(proposal, key))
            host.serve()
        _machine_of(host).store.trim(TRIM_EVERY)
        host.soon(PULSE_MS, lambda: self._pulse(host, keeper))

    def _give_up(self, proposal: Proposal, key: tuple[int, int]) -> None:
        if not proposal.abandoned:
            proposal.abandoned = True
            self._expiring.discard(key)


def _machine_of(host: Host) -> Machine:
    assert isinstance(host.machine, Machine)
    return host.machine


def _asked(owner: object) -> tuple[Client, Operation]:
    assert isinstance(owner, tuple)
    client, operation = owner
    assert isinstance(client, Client)
    assert isinstance(operation, Operation)
    return client, operation
