"""A group of three, played by the real cores from one seed: an election, a write, the leader's death, its return.

Time, network, disks and chance are of this module; every decision is made by the code that members run. So what the
diagram shows is what happens, not what somebody remembers of the paper. The same seed tells the same story.
"""

import heapq
import itertools
import logging
from collections.abc import Callable
from random import Random

from raft_store.disk.storage import Storage
from raft_store.engine import MemberId
from raft_store.raft import messages as m
from raft_store.raft.core import Core, CoreConfig, Role
from raft_store.raft.membership import founded
from raft_store.raft.replica import Replica, Work
from raft_store.raft.words import describe, is_beat, stands
from raft_store.simulation.disk import SimulatedDirectory
from raft_store.tool.sequence import Aside, Became, Said, Scene

TICK_MS = 20.0
DISK_MS = 1.0
_SILENT = logging.Logger("story", logging.CRITICAL + 1)  # noqa: LOG001 - the diagram tells what would be logged


class _Player:
    def __init__(self, member: MemberId) -> None:
        self.id = member
        self.place = member - 1
        self.directory = SimulatedDirectory()
        self.up = False
        self.life = 0
        self.seen: tuple[object, ...] = ()
        self.applied: list[bytes] = []
        self.storage: Storage
        self.replica: Replica


class Story:
    """Plays and records; ``scenes`` is what happened so far."""

    def __init__(self, seed: int, *, size: int = 3) -> None:
        self.scenes: list[Scene] = []
        self._random = Random(seed)  # noqa: S311 - has to be replayable
        self._now_ms = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._founders = founded({MemberId(i): () for i in range(1, size + 1)})
        self._players = {MemberId(i): _Player(MemberId(i)) for i in range(1, size + 1)}
        self._heartbeats = 0  # shown since something else happened

    @property
    def names(self) -> list[str]:
        """Return the members' names, from left to right."""
        return [f"member{player.id}" for player in self._players.values()]

    def play(self) -> list[Scene]:
        """Play the whole story; return its scenes."""
        self._say("three members start; nobody leads")
        for player in self._players.values():
            self._start(player)
        first = self._until_led()
        self._say("a client writes x=1 at a follower, which forwards it to the leader")
        self._write(self._other(first), b"x=1")
        self._say(f"the leader, member{first.id}, dies; a follower waits in vain for its heartbeats")
        self._crash(first)
        second = self._until_led()
        self._say("the new leader writes x=2: two of three are a majority")
        self._write(second, b"x=2")
        self._say(f"member{first.id} comes back, and is told what it missed")
        self._start(first)
        self._until(lambda: first.applied[-1:] == [b"x=2"])
        return self.scenes

    # -- directing ---------------------------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        self.scenes.append(Aside(text))
        self._heartbeats = 0

    def _until(self, done: Callable[[], bool], *, within_ms: float = 20_000.0) -> None:
        deadline = self._now_ms + within_ms
        while not done():
            self._now_ms, _, event = heapq.heappop(self._events)
            assert self._now_ms < deadline, "the story has got stuck"
            event()

    def _until_led(self) -> _Player:
        def leader() -> _Player | None:
            leaders = [p for p in self._players.values() if p.up and p.replica.core.role is Role.LEADER]
            newest = max(leaders, key=lambda p: p.replica.core.term, default=None)
            followed = newest is not None and all(
                p.replica.core.leader == newest.id for p in self._players.values() if p.up
            )
            return newest if followed and newest and newest.replica.core.log.applied else None

        self._until(lambda: leader() is not None)
        found = leader()
        assert found is not None
        return found

    def _other(self, player: _Player) -> _Player:
        return next(p for p in self._players.values() if p is not player and p.up)

    def _write(self, player: _Player, value: bytes) -> None:
        self._became(player, f"client: put {value.decode()}", "new")
        player.replica.propose(value, value)
        self._serve(player)
        self._until(lambda: all(value in p.applied for p in self._players.values() if p.up))

    # -- playing -----------------------------------------------------------------------------------------------------

    def _at(self, delay_ms: float, player: _Player, event: Callable[[], None]) -> None:
        life = player.life

        def happen() -> None:
            if player.up and player.life == life:
                event()

        heapq.heappush(self._events, (self._now_ms + delay_ms, next(self._order), happen))

    def _start(self, player: _Player) -> None:
        player.life, player.up, player.applied = player.life + 1, True, []
        player.storage = Storage(player.directory)
        past = player.storage.recover(self._founders)
        core = Core(
            CoreConfig(member=player.id), hard_state=past.hard_state, log=past.log, random=self._random, logger=_SILENT
        )
        player.replica = Replica(core, session=self._random.getrandbits(64))
        player.seen = self._look(player)
        what = (
            "starts" if player.life == 1 else f"starts again: term {core.term}, {core.log.last_index} entries on disk"
        )
        self._became(player, what, "good")
        self._at(self._random.uniform(0, TICK_MS), player, lambda: self._tick(player))

    def _crash(self, player: _Player) -> None:
        player.up = False
        player.directory.crash(self._random)
        self.scenes.append(Became(self._now_ms / 1000, player.place, "dies", "bad", up=False))

    def _tick(self, player: _Player) -> None:
        player.replica.tick()
        self._serve(player)
        self._at(TICK_MS, player, lambda: self._tick(player))

    def _serve(self, player: _Player) -> None:
        self._notice(player)
        while (work := player.replica.ready()) is not None:
            self._do(player, work)
            self._notice(player)

    def _do(self, player: _Player, work: Work) -> None:
        for message in work.messages:
            self._send(player, message)
        if work.save is not None:
            save = work.save
            player.storage.write(save)
            self._at(DISK_MS * self._random.uniform(0.5, 2), player, lambda: self._saved(player, save))
        for entry in work.committed:
            if entry.data:
                player.applied.append(entry.data)
                self._became(player, f"applies entry {entry.index}: {entry.data.decode()}", "good")

    def _saved(self, player: _Player, save: m.Save) -> None:
        player.storage.sync()
        player.replica.saved(save)
        self._serve(player)

    def _send(self, player: _Player, message: m.AnyMessage) -> None:
        receiver = self._players[message.to]
        beat = is_beat(message)
        # One round of heartbeats says it all, until something else happens.
        self._heartbeats = self._heartbeats + 1 if beat else self._heartbeats
        if not beat or self._heartbeats <= 2 * (len(self._players) - 1):
            scene = Said(
                self._now_ms / 1000,
                player.place,
                receiver.place,
                describe(message),
                lost=not receiver.up,
                tone="quiet" if beat else "",
            )
            self.scenes.append(scene)
        self._at(self._random.uniform(0.3, 2.0), receiver, lambda: self._deliver(receiver, message))

    def _deliver(self, player: _Player, message: m.AnyMessage) -> None:
        player.replica.step(message)
        self._serve(player)

    def _look(self, player: _Player) -> tuple[object, ...]:
        core = player.replica.core
        return core.role, core.term, core.leader

    def _notice(self, player: _Player) -> None:
        seen = self._look(player)
        if seen == player.seen:
            return
        player.seen, core = seen, player.replica.core
        text = stands(core.role, core.term, f"member{core.leader}" if core.leader else "")
        self._became(player, text, "new" if core.role is Role.LEADER else "")
        if core.role is not Role.FOLLOWER:
            self._heartbeats = 0

    def _became(self, player: _Player, text: str, tone: str = "") -> None:
        self.scenes.append(Became(self._now_ms / 1000, player.place, text, tone))
