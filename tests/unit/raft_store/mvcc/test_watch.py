"""Watchers that cannot keep up, and what a stream says of its progress."""

from collections.abc import Sequence

import pytest

from raft_store.engine import Entry, Index, Term
from raft_store.machine import Machine, encode
from raft_store.mvcc.lease import LeaseClock
from raft_store.mvcc.model import Event, Revision
from raft_store.mvcc.notices import NO_WATCH, Canceled, Changes, Created, Notice, Progress, WatchSpec
from raft_store.mvcc.requests import Command, Compact, DeleteRange, Put
from raft_store.mvcc.watch import WatchLimits, WatchStream


class World:
    """A machine, and a stream that counts how often it was woken."""

    def __init__(self) -> None:
        self.machine = Machine(LeaseClock(lambda: 0.0))
        self.woken = 0
        self._index = 0
        self.stream = self.machine.hub.open(self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def apply(self, *commands: Command) -> None:
        entries = []
        for command in commands:
            self._index += 1
            entries.append(Entry(Index(self._index), Term(1), encode(command)))
        self.machine.apply(entries)

    def put(self, *names: str) -> None:
        self.apply(*(Put(name.encode(), b"v") for name in names))

    def said(self, stream: WatchStream | None = None) -> list[Notice]:
        found = []
        while (notice := (stream or self.stream).next()) is not None:
            found.append(notice)
        return found


@pytest.fixture
def world() -> World:
    return World()


def keys(notices: list[Notice]) -> list[bytes]:
    return [event.kv.key for notice in notices if isinstance(notice, Changes) for event in notice.events]


EVERYTHING = WatchSpec(key=b"\0", end=b"\0")


def test_a_batch_of_entries_is_one_response(world: World) -> None:
    world.stream.create(EVERYTHING)
    assert isinstance(world.said()[0], Created)
    woken = world.woken
    world.put("a", "b", "c")
    assert world.woken == woken + 1
    (changes,) = world.said()
    assert isinstance(changes, Changes)
    assert (keys([changes]), changes.revision) == ([b"a", b"b", b"c"], 4)


def test_nobody_is_woken_for_what_they_do_not_watch(world: World) -> None:
    world.stream.create(WatchSpec(key=b"a", end=b"b"))
    world.said()
    woken = world.woken
    world.put("b", "0")
    assert world.woken == woken


def test_falling_behind_costs_no_memory_and_misses_nothing(world: World) -> None:
    world.machine.hub.limits = WatchLimits(pending_events=3)
    world.stream.create(EVERYTHING)
    world.said()
    world.put("a")
    world.put("b", "c", "d")
    world.put("e")
    (watcher,) = world.stream.watchers.values()
    assert not watcher.synced
    assert watcher.events == []
    assert keys(world.said()) == [b"a", b"b", b"c", b"d", b"e"]
    assert watcher.synced
    world.put("f")
    assert keys(world.said()) == [b"f"]


def test_a_watcher_that_fell_too_far_behind_is_told(world: World) -> None:
    world.machine.hub.limits = WatchLimits(pending_events=1)
    world.stream.create(EVERYTHING)
    world.said()
    world.put("a", "b", "c")
    world.apply(Compact(Revision(4)))
    (canceled,) = world.said()
    assert isinstance(canceled, Canceled)
    assert canceled.compact_revision == 4
    assert not world.stream.watchers


def test_a_long_history_is_read_in_steps_and_others_have_their_turn(world: World) -> None:
    world.machine.hub.limits = WatchLimits(step_events=1)
    world.put(*"abcdef")
    slow = world.stream.create(WatchSpec(key=b"\0", end=b"\0", start_revision=Revision(2)))
    fast = world.stream.create(WatchSpec(key=b"f", start_revision=Revision(7)))
    notices = [n for n in world.said() if isinstance(n, Changes)]
    assert [n.watch_id for n in notices][:2] == [slow, fast]
    assert keys([n for n in notices if n.watch_id == slow]) == [b"a", b"b", b"c", b"d", b"e", b"f"]
    assert len([n for n in notices if n.watch_id == slow]) > 1


def test_large_batches_are_cut_between_revisions(world: World) -> None:
    world.machine.hub.limits = WatchLimits(batch_bytes=1)
    world.put("a", "b")
    world.stream.create(EVERYTHING)
    world.said()
    world.apply(DeleteRange(b"\0", b"\0"), Put(b"c", b""))
    first, second = world.said()
    assert (keys([first]), keys([second])) == ([b"a", b"b"], [b"c"])


def test_changes_compacted_in_the_batch_that_made_them_are_told_first(world: World) -> None:
    """A member that catches up applies a put and the compaction after it in one go (docs/bugs.md, 1)."""
    world.stream.create(EVERYTHING)
    world.said()
    world.apply(Put(b"a", b"1"), Put(b"b", b"2"), Compact(Revision(3)))
    assert keys(world.said()) == [b"a", b"b"]


def test_progress_waits_for_everything_that_is_due(world: World) -> None:
    world.put("a")
    world.stream.create(WatchSpec(key=b"\0", end=b"\0", start_revision=Revision(1)))
    world.stream.request_progress()
    said = world.said()
    assert [type(notice) for notice in said] == [Created, Changes, Progress]
    assert said[-1] == Progress(NO_WATCH, Revision(2))
    world.stream.request_progress()
    world.stream.request_progress()
    assert world.said() == [Progress(NO_WATCH, Revision(2))]  # two wishes, one answer


def test_progress_notices_go_to_the_idle_who_wished_for_them(world: World) -> None:
    wished = world.stream.create(WatchSpec(key=b"a", progress_notify=True))
    world.stream.create(WatchSpec(key=b"b"))
    world.said()
    world.put("a")
    world.said()
    world.stream.notify_progress()
    assert world.said() == []  # it just heard something
    world.put("elsewhere")
    world.stream.notify_progress()
    assert world.said() == [Progress(wished, Revision(3))]


def test_a_snapshot_of_the_leader_hides_no_change(world: World) -> None:
    """A follower that is sent a snapshot skips entries; its watches read what they skipped."""
    leader = World()
    leader.put("a", "b", "c")
    world.put("a")
    world.stream.create(EVERYTHING)
    world.said()
    world.machine.restore(leader.machine.snapshot())
    assert keys(world.said()) == [b"b", b"c"]


def test_closing_forgets_everything(world: World) -> None:
    world.stream.create(EVERYTHING)
    world.stream.create(WatchSpec(key=b"a"))
    assert world.machine.hub.counts() == (1, 2)
    world.machine.hub.close(world.stream)
    woken = world.woken
    world.put("a")
    assert world.machine.hub.counts() == (0, 0)
    assert world.woken == woken


def test_a_stream_without_watches_has_heard_of_everything(world: World) -> None:
    """etcd 3.4 answers like this."""
    world.put("a")
    world.stream.request_progress()
    assert world.said() == [Progress(NO_WATCH, Revision(2))]


# -- edges that take changes as they happen ------------------------------------------------------------------------------


class Edge:
    """Takes what it is offered, or not."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.open = True
        self.taken: list[Notice] = []
        self.woken = 0
        self.stream = world.machine.hub.open(self._wake, self._take)

    def _wake(self) -> None:
        self.woken += 1

    def _take(self, watch_id: int, revision: Revision, events: Sequence[Event]) -> bool:
        if self.open:
            self.taken.append(Changes(watch_id, revision, events))
        return self.open

    def said(self) -> list[Notice]:
        return self.world.said(self.stream)


@pytest.fixture
def edge(world: World) -> Edge:
    return Edge(world)


def test_changes_are_handed_over_as_they_happen(world: World, edge: Edge) -> None:
    edge.stream.create(EVERYTHING)
    edge.said()
    woken = edge.woken
    world.put("a", "b")
    (changes,) = edge.taken
    assert isinstance(changes, Changes)
    assert (keys(edge.taken), changes.revision) == ([b"a", b"b"], 3)
    assert (edge.said(), edge.woken) == ([], woken)


def test_nothing_overtakes_what_waits(world: World, edge: Edge) -> None:
    """A notice, another watch's history, a wish to know the progress, or changes that were not taken."""
    world.put("old")
    edge.stream.create(EVERYTHING)
    world.put("a")
    assert [type(notice) for notice in edge.said()] == [Created, Changes]
    edge.stream.create(WatchSpec(key=b"old", start_revision=Revision(2)))
    assert isinstance(edge.stream.next(), Created)
    world.put("b")
    assert keys(edge.said()) == [b"old", b"b"]
    edge.stream.request_progress()
    world.put("c")
    progress, changes = edge.said()
    assert progress == Progress(NO_WATCH, Revision(4))
    assert keys([changes]) == [b"c"]
    edge.open = False
    world.put("d")
    edge.open = True
    world.put("e")
    assert keys(edge.said()) == [b"d", b"e"]
    assert edge.taken == []
    world.put("f")
    assert keys(edge.taken) == [b"f"]


def test_who_does_not_take_anything_falls_behind(world: World, edge: Edge) -> None:
    world.machine.hub.limits = WatchLimits(pending_events=3)
    edge.stream.create(EVERYTHING)
    edge.said()
    edge.open = False
    world.put(*"abcde")
    (watcher,) = edge.stream.watchers.values()
    assert not watcher.synced
    edge.open = True
    world.put("f")
    assert keys(edge.said()) == [b"a", b"b", b"c", b"d", b"e", b"f"]
    world.put("g")
    assert keys(edge.taken) == [b"g"]


def test_what_is_more_than_one_response_is_not_handed_over(world: World, edge: Edge) -> None:
    world.machine.hub.limits = WatchLimits(batch_bytes=1)
    edge.stream.create(EVERYTHING)
    edge.said()
    world.put("a", "b", "c")
    assert edge.taken == []
    assert keys(edge.said()) == [b"a", b"b", b"c"]
    world.put("d")
    assert keys(edge.taken) == [b"d"]


def test_only_what_is_wished_for_is_handed_over(world: World, edge: Edge) -> None:
    edge.stream.create(WatchSpec(key=b"\0", end=b"\0", puts=False))
    edge.stream.create(WatchSpec(key=b"a", start_revision=Revision(4)))
    edge.said()
    world.put("a", "b")
    assert edge.taken == []
    world.apply(DeleteRange(b"a"), Put(b"a", b"again"))
    assert [(notice.watch_id, keys([notice])) for notice in edge.taken] == [(1, [b"a", b"a"]), (0, [b"a"])]


def test_who_was_handed_something_needs_no_progress_notice(world: World, edge: Edge) -> None:
    wished = edge.stream.create(WatchSpec(key=b"a", progress_notify=True))
    edge.said()
    edge.stream.notify_progress()
    assert edge.said() == [Progress(wished, Revision(1))]
    world.put("a")
    edge.stream.notify_progress()
    assert edge.said() == []
    edge.stream.notify_progress()
    assert edge.said() == [Progress(wished, Revision(2))]
