"""Simulated listeners: one stream of watches each, which breaks, moves to another member, and goes on where it was."""

from collections.abc import Sequence

from raft_store.machine import Machine
from raft_store.mvcc.model import Event, Revision
from raft_store.mvcc.notices import NO_WATCH, Canceled, Changes, Created, Notice, Progress, WatchSpec
from raft_store.mvcc.watch import WatchStream
from raft_store.simulation.host import Host
from raft_store.simulation.invariants import Violation
from raft_store.simulation.promises import Promises, WatchLog
from raft_store.simulation.requests import Watch
from raft_store.simulation.world import World

AFTER_BREAK_MS = (50, 600)  # until a listener notices that its member is gone


class _Connection:
    """A stream on one member, in one of its lives; what is under way when it ends never arrives."""

    def __init__(self, host: Host, listener: "Listener") -> None:
        self.host = host
        self.life = host.life
        self.open = True
        self.watches: dict[int, WatchLog] = {}
        self.standing: set[int] = set()  # those whose creation the listener has heard of: progress is theirs
        self._listener = listener
        self._pumping = False
        self._last_arrival_ms = 0.0
        machine = host.machine
        assert isinstance(machine, Machine)
        self._hub = machine.hub
        self._offers = 0
        self.stream: WatchStream = machine.hub.open(self._wake, self._take)

    @property
    def alive(self) -> bool:
        """Whether the member still runs the life in which the stream was opened."""
        return self.open and self.host.up and self.host.life == self.life

    def forget(self, watch_id: int) -> None:
        """A watch has ended."""
        del self.watches[watch_id]
        self.standing.discard(watch_id)

    def close(self) -> None:
        """Hang up."""
        if self.alive:
            self._hub.close(self.stream)
        self.open = False

    def _wake(self) -> None:
        if not self._pumping and self.alive:
            self._pumping = True
            self.host.soon(self._listener.pace_ms(), self._pump)

    def _take(self, watch_id: int, revision: Revision, events: Sequence[Event]) -> bool:
        """Send changes as they happen, like the real edge does, if the listener is quick, and most of the time."""
        self._offers += 1
        if not self.alive or not self._listener.quick or self._offers % 3 == 0:
            return False
        self._send(Changes(watch_id, revision, events))
        return True

    def _pump(self) -> None:
        """Send one notice, as the real edge does; a slow listener lets it take its time."""
        self._pumping = False
        if not self.alive:
            return
        notice = self.stream.next()
        if notice is None:
            return
        self._send(notice)
        self._wake()

    def _send(self, notice: Notice) -> None:
        listener, timeline = self._listener, self._listener.world.timeline
        self._last_arrival_ms = max(self._last_arrival_ms, timeline.now_ms + listener.hop_ms())
        timeline.after(self._last_arrival_ms - timeline.now_ms, lambda: listener.hear(self, notice))


class Listener:
    """One listener with its watches."""

    def __init__(self, number: int, world: World, promises: Promises) -> None:
        self.number = number
        self.world = world
        self.watches: list[WatchLog] = []
        self._promises = promises
        self._chance = world.plan.chance(f"listener {number}")
        self._slow = self._chance.choice((1.0, 1.0, 20.0))
        self._connection: _Connection | None = None
        self._member = number
        self._revision = 1  # newest heard of

    def watch(self, wanted: Watch) -> None:
        """Begin to watch."""
        start = 0 if wanted.back is None else max(1, self._promises.model.revision - wanted.back)
        watch = WatchLog(wanted, self._promises.model, start=start)
        self.watches.append(watch)
        self.world.tell(f"listener {self.number} watches [{wanted.key!r}, {wanted.end!r}) from {start or 'now'}")
        if self._connection is None:
            self._connect()
        else:
            self._ask_to_create(self._connection, watch)

    def unwatch(self) -> None:
        """End the oldest watch."""
        if not self.watches:
            return
        watch = self.watches.pop(0)
        connection = self._connection
        if connection is not None and connection.alive:
            watch_id = next((number for number, known in connection.watches.items() if known is watch), None)
            if watch_id is not None:
                connection.forget(watch_id)
                connection.host.soon(self.hop_ms(), lambda: connection.stream.cancel(watch_id))

    def ask_progress(self) -> None:
        """Ask how far the stream is."""
        connection = self._connection
        if connection is not None:
            connection.host.soon(self.hop_ms(), connection.stream.request_progress)

    def move(self, member: int) -> None:
        """Lose the connection and go on at ``member``."""
        self._member = member
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._connect()

    def crashed(self, host: Host) -> None:
        """A member died; if it was ours, we shall notice."""
        connection = self._connection
        if connection is not None and connection.host is host:
            connection.open = False
            self._connection = None
            self.world.timeline.after(self._chance.uniform(*AFTER_BREAK_MS), self._connect)

    def hear(self, connection: _Connection, notice: Notice) -> None:
        """A notice arrived."""
        if not connection.open:
            return
        self.world.tell(f"listener {self.number} hears: {_brief(notice)}")
        if isinstance(notice, Progress) and notice.watch_id == NO_WATCH:
            for watch_id in connection.standing:
                connection.watches[watch_id].progress(notice.revision)
            return
        heard = connection.watches.get(notice.watch_id)
        if heard is None:
            return  # we ended it meanwhile
        match notice:
            case Created():
                heard.created(notice.revision)
                connection.standing.add(notice.watch_id)
            case Changes():
                heard.changes(notice.events, notice.revision)
            case Progress():
                heard.progress(notice.revision)
            case Canceled(refused=True):
                raise Violation("watches are accepted", f"listener {self.number} was refused: {notice.reason}")
            case Canceled():
                heard.compacted(notice.compact_revision)
                connection.forget(notice.watch_id)
                self._ask_to_create(connection, heard)

    @property
    def quick(self) -> bool:
        """Whether it takes whatever comes."""
        return self._slow == 1.0

    def pace_ms(self) -> float:
        """Return how long the listener takes for one notice."""
        return self._chance.uniform(0.1, 2) * (1.0 if self.world.calm else self._slow)

    def hop_ms(self) -> float:
        """Return a message's time on its way."""
        return self._chance.uniform(0.2, 3)

    def _connect(self) -> None:
        if self._connection is not None or not self.watches:
            return
        host = self.world.reachable(self._member)
        if host is None:
            self.world.timeline.after(self._chance.uniform(*AFTER_BREAK_MS), self._connect)
            return
        self._member = int(host.id)
        connection = self._connection = _Connection(host, self)
        for watch in self.watches:
            self._ask_to_create(connection, watch)

    def _ask_to_create(self, connection: _Connection, watch: WatchLog) -> None:
        def create() -> None:
            if connection.alive and any(watch is known for known in self.watches):
                wanted = watch.wanted
                spec = WatchSpec(wanted.key, wanted.end, Revision(watch.next), puts=wanted.puts, deletes=wanted.deletes)
                watch_id = connection.stream.create(spec)
                assert watch_id is not None, f"refused: {spec}"
                connection.watches[watch_id] = watch

        connection.host.soon(self.hop_ms(), create)


def _brief(notice: Notice) -> str:
    if isinstance(notice, Changes):
        told = ", ".join(f"{'-' if e.is_delete else ''}{e.kv.key.decode()}@{e.kv.mod_revision}" for e in notice.events)
        return f"watch {notice.watch_id} {told}"
    return str(notice)
