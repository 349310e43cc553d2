"""Watches: who is told of which change, in which order, however slowly they listen.

A watcher is either synced or behind. Synced, it is in the hub's index and every change it wants is put into its own
short list as soon as it is applied. When that list is full, or when it starts in the past, it is behind: it owns no
list, only the revision it continues from, and reads the store's history in steps until it has caught up. So a slow
listener costs one number, never memory.

One stream carries many watchers. What it has to say is asked for one response at a time (``WatchStream.next``), so
the edge that sends decides the pace. Created and canceled notices go first; a revision's events are never split here.
An edge that can send right away is handed changes in the very step that makes them (``Take``), unless something else
of the stream waits, behind which they belong: nobody has to be woken then, and nothing is noted down.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec

from .model import REST_OF_KEYS, SINGLE_KEY, Compacted, Event, Revision, covers
from .notices import NO_WATCH, Canceled, Changes, Created, Notice, Progress, WatchSpec
from .spans import Spans
from .store import Store, size_of

_K = TypeVar("_K")
_Watchers = dict["Watcher", None]  # in the order in which they came
# Takes changes of a watch right away and returns True; False: they will be asked for, by ``WatchStream.next``.
Take = Callable[[int, Revision, Sequence[Event]], bool]


class WatchLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What keeps one listener from costing the others anything."""

    pending_events: int = 1_000  # of one synced watcher, before it falls behind
    batch_bytes: int = 1 << 20  # of one response, unless a single revision has more
    step_events: int = 5_000  # looked at in one step of catching up, so that one watcher cannot hold up the member


class Watcher:
    """One watch of one stream."""

    __slots__ = ("events", "next_revision", "quiet", "spec", "stream", "synced", "takes_all", "watch_id")

    def __init__(self, watch_id: int, spec: WatchSpec, stream: "WatchStream", next_revision: Revision) -> None:
        self.watch_id = watch_id
        self.spec = spec
        self.stream = stream
        self.next_revision = next_revision  # nothing older is wanted; while behind: where to continue
        self.synced = False
        self.events: list[Event] = []  # to be sent; only while synced
        self.quiet = True  # nothing was sent since the last progress notice
        self.takes_all = spec.puts and spec.deletes  # of its range

    def pick(self, events: list[Event]) -> list[Event]:
        """Return those of ``events``, all of the watched range and in order, that this watcher wants."""
        if self.takes_all and events[0].kv.mod_revision >= self.next_revision:
            return events
        return [event for event in events if self.wants(event)]

    def wants(self, event: Event) -> bool:
        """Return whether an event of the watched range passes the filters."""
        return (self.spec.deletes if event.is_delete else self.spec.puts) and (
            event.kv.mod_revision >= self.next_revision
        )


class WatchHub:
    """Every watcher of one member. Told of changes in the same step in which they are applied."""

    def __init__(self, store: Store, limits: WatchLimits | None = None) -> None:
        self.limits = limits or WatchLimits()
        self._store = store
        self._published = store.revision
        self._by_key: dict[bytes, _Watchers] = {}
        self._by_range: dict[tuple[bytes, bytes], _Watchers] = {}
        self._spans = Spans()  # the keys of ``_by_range``
        self._streams: dict[WatchStream, None] = {}

    @property
    def store(self) -> Store:
        """Return the store that is watched."""
        return self._store

    def open(self, wake: Callable[[], None], take: Take | None = None) -> "WatchStream":
        """Return a new stream; ``wake`` is called whenever it may have something to say.

        take: is offered changes as they happen; it must not change anything about watches.
        """
        stream = WatchStream(self, wake, take)
        self._streams[stream] = None
        return stream

    def close(self, stream: "WatchStream") -> None:
        """Forget a stream and its watchers."""
        for watcher in stream.watchers.values():
            self.unsync(watcher)
        stream.watchers.clear()
        self._streams.pop(stream, None)

    def counts(self) -> tuple[int, int]:
        """Return how many streams and watchers there are."""
        return len(self._streams), sum(len(stream.watchers) for stream in self._streams)

    def publish(self) -> None:
        """Tell the synced watchers of what was applied since the last call."""
        store = self._store
        first, self._published = Revision(self._published + 1), store.revision
        if first > store.revision or not (self._by_key or self._by_range):
            return
        slow: list[Watcher] = []
        for watchers, events in self._audiences(first):
            oldest = events[0].kv.mod_revision
            at_once = len(events) == 1 or sum(size_of(event.kv) for event in events) <= self.limits.batch_bytes
            for watcher in watchers:
                # Never changed in place: all who listen to the same share one list, which is encoded once for them.
                wanted = events if watcher.takes_all and oldest >= watcher.next_revision else watcher.pick(events)
                if not wanted or (at_once and watcher.stream.hand_over(watcher, wanted)):
                    continue
                watcher.events = [*watcher.events, *wanted] if watcher.events else wanted
                watcher.stream.mark(watcher)
                if len(watcher.events) > self.limits.pending_events:
                    slow.append(watcher)
        for watcher in slow:
            self.fall_behind(watcher)

    def _audiences(self, first: Revision) -> Iterator[tuple[Iterable[Watcher], list[Event]]]:
        """Yield, for each key or range that is watched and changed since ``first``, its watchers and the changes."""
        by_key: dict[bytes, list[Event]] = {}
        by_range: dict[tuple[bytes, bytes], list[Event]] = {}
        for _, events in self._store.events(first, self._store.revision):
            for event in events:
                key = event.kv.key
                if key in self._by_key:
                    by_key.setdefault(key, []).append(event)
                for span in self._spans.covering(key):
                    by_range.setdefault(span, []).append(event)
        for key, found in by_key.items():
            yield self._by_key[key], found
        for span, found in by_range.items():
            yield self._by_range[span], found

    def replace(self, store: Store) -> None:
        """Go on with another store, as a snapshot of the leader brings one; everybody reads its history."""
        self._store = store
        for stream in self._streams:
            for watcher in stream.watchers.values():
                if watcher.synced:
                    self.fall_behind(watcher)
                stream.mark(watcher)
        self._published = store.revision

    def fall_behind(self, watcher: Watcher) -> None:
        """Let a synced watcher continue from the history, from the first change it was not sent."""
        unsent = watcher.events[0].kv.mod_revision if watcher.events else Revision(self._published + 1)
        watcher.next_revision = max(watcher.next_revision, unsent)
        self.unsync(watcher)

    def sync(self, watcher: Watcher) -> None:
        """Tell a watcher that has heard of everything so far of each change from now on."""
        spec = watcher.spec
        if spec.end == SINGLE_KEY:
            self._by_key.setdefault(spec.key, {})[watcher] = None
        else:
            span = spec.key, spec.end
            if span not in self._by_range:
                self._by_range[span] = {}
                self._spans.add(span)
            self._by_range[span][watcher] = None
        watcher.synced = True

    def unsync(self, watcher: Watcher) -> None:
        """Take a watcher out of the index and drop its pending events."""
        if not watcher.synced:
            return
        spec = watcher.spec
        if spec.end == SINGLE_KEY:
            _remove(self._by_key, spec.key, watcher)
        else:
            span = spec.key, spec.end
            _remove(self._by_range, span, watcher)
            if span not in self._by_range:
                self._spans.remove(span)
        watcher.synced = False
        watcher.events = []

    def read_history(self, watcher: Watcher) -> list[Event]:
        """Return what a watcher that is behind missed next; sync it once that is all. Raises Compacted."""
        store = self._store
        if watcher.next_revision < store.compact_revision:
            raise Compacted(store.compact_revision)
        first = max(watcher.next_revision, store.history_start)
        missed: list[Event] = []
        looked_at = size = 0
        for revision, events in store.events(Revision(first), store.revision):
            if looked_at > self.limits.step_events or size > self.limits.batch_bytes:
                watcher.next_revision = revision
                return missed
            looked_at += len(events)
            for event in events:
                if covers(watcher.spec.key, watcher.spec.end, event.kv.key) and watcher.wants(event):
                    missed.append(event)
                    size += size_of(event.kv)
        watcher.next_revision = max(watcher.next_revision, Revision(store.revision + 1))
        self.sync(watcher)
        return missed


class WatchStream:
    """One listener's watches and what it is to be told next."""

    def __init__(self, hub: WatchHub, wake: Callable[[], None], take: Take | None = None) -> None:
        self._hub = hub
        self._wake = wake
        self._take = take
        self._notices: deque[Notice] = deque()
        self._ready: dict[Watcher, None] = {}  # with something to send or to catch up with; in turn
        self._next_id = 0
        self._progress_wanted = False
        self.watchers: dict[int, Watcher] = {}
        self._ended: set[int] = set()  # by compaction: like in etcd their ids are taken until their listener cancels

    @property
    def backlog(self) -> int:
        """Return how many notices wait; who reads requests pauses while they are many."""
        return len(self._notices)

    def create(self, spec: WatchSpec, watch_id: int = 0) -> int | None:
        """Start a watch; 0 picks its id. Returns the id, or None if it was refused; a notice tells either."""
        revision = self._hub.store.revision
        if spec.start_revision < 0:
            self.refuse("etcdserver: mvcc: required revision has been compacted")
            return None
        if spec.end not in (SINGLE_KEY, REST_OF_KEYS) and spec.key >= spec.end:
            self.refuse("mvcc: watcher range is empty")
            return None
        if watch_id == 0:
            while self._is_taken(self._next_id):
                self._next_id += 1
            watch_id = self._next_id
            self._next_id += 1
        elif self._is_taken(watch_id):
            self.refuse("mvcc: duplicate watch ID provided on the WatchStream")
            return None
        start = spec.start_revision or Revision(revision + 1)
        watcher = self.watchers[watch_id] = Watcher(watch_id, spec, self, start)
        self._notices.append(Created(watch_id, revision))
        if start > revision:
            self._hub.sync(watcher)
        else:
            self._ready[watcher] = None
        self._wake()
        return watch_id

    def refuse(self, reason: str) -> None:
        """Answer a wish for a watch with no."""
        self._notices.append(Canceled(NO_WATCH, self._hub.store.revision, reason, refused=True))
        self._wake()

    def cancel(self, watch_id: int) -> None:
        """End a watch; one that does not exist is no error."""
        if self._is_taken(watch_id):
            if watch_id in self.watchers:
                self._drop(self.watchers[watch_id])
            self._ended.discard(watch_id)
            self._notices.append(Canceled(watch_id, self._hub.store.revision))
            self._wake()

    def request_progress(self) -> None:
        """Ask for a notice as soon as every watch of the stream has been sent all there is: in turn, if that is now."""
        now = Progress(NO_WATCH, self._hub.store.revision)
        if self._ready:
            self._progress_wanted = True
        elif not self._notices or self._notices[-1] != now:
            self._notices.append(now)
        self._wake()

    def notify_progress(self) -> None:
        """Tell the watches that wish it, and heard nothing since the last time, how far they are."""
        for watcher in self.watchers.values():
            if watcher.spec.progress_notify and watcher.quiet and watcher.synced and not watcher.events:
                self._notices.append(Progress(watcher.watch_id, self._hub.store.revision))
            watcher.quiet = True
        self._wake()

    def hand_over(self, watcher: Watcher, events: Sequence[Event]) -> bool:
        """Hand changes to the edge, if nothing is before them and it takes them; return whether it did."""
        if self._take is None or self._notices or self._ready or self._progress_wanted:
            return False
        if not self._take(watcher.watch_id, self._hub.store.revision, events):
            return False
        watcher.quiet = False
        return True

    def mark(self, watcher: Watcher) -> None:
        """Note that a watcher has something to send."""
        self._ready[watcher] = None
        self._wake()

    def next(self) -> Notice | None:
        """Return what to send now; None if there is nothing (``wake`` will be called)."""
        if self._notices:
            return self._notices.popleft()
        while self._ready:
            watcher = next(iter(self._ready))
            del self._ready[watcher]
            notice = self._advance(watcher)
            if notice is not None:
                return notice
        if self._progress_wanted:
            self._progress_wanted = False
            return Progress(NO_WATCH, self._hub.store.revision)
        return None

    def _advance(self, watcher: Watcher) -> Notice | None:
        revision = self._hub.store.revision
        if watcher.synced:
            events, rest = _split(watcher.events, self._hub.limits.batch_bytes)
            watcher.events = rest
        else:
            try:
                events = self._hub.read_history(watcher)
            except Compacted as exc:
                self._drop(watcher)
                self._ended.add(watcher.watch_id)
                # etcd says nothing else then, not even how far the store is.
                return Canceled(watcher.watch_id, Revision(0), compact_revision=exc.compact_revision)
        if watcher.events or not watcher.synced:
            self._ready[watcher] = None  # at the end of the queue: the others have their turn first
        if not events:
            return None
        watcher.quiet = False
        return Changes(watcher.watch_id, revision, events)

    def _is_taken(self, watch_id: int) -> bool:
        return watch_id in self.watchers or watch_id in self._ended

    def _drop(self, watcher: Watcher) -> None:
        self._hub.unsync(watcher)
        self._ready.pop(watcher, None)
        del self.watchers[watcher.watch_id]


def _split(events: list[Event], batch_bytes: int) -> tuple[list[Event], list[Event]]:
    """Cut off as many whole revisions as one response should carry."""
    if len(events) == 1:
        return events, []
    size = 0
    for at, event in enumerate(events):
        if size > batch_bytes and event.kv.mod_revision != events[at - 1].kv.mod_revision:
            return events[:at], events[at:]
        size += size_of(event.kv)
    return events, []


def _remove(index: dict[_K, _Watchers], key: _K, watcher: Watcher) -> None:
    del index[key][watcher]
    if not index[key]:
        del index[key]
