"""One place's objects, its recent history, and the watchers who follow it.

Index, log and watchers take a change in one step of the event loop, so they never disagree. A watcher that resumes
reads the log; one that starts anew reads the index; both then stay on the live feed.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from sortedcontainers import SortedDict

from api.errors import ApiError, Expired
from api.kinds.table import Kind
from client.resources import EventType
from master.objects import Selection, StoredObject, Wanted
from master.rest.seam import Event

RECENT_CHANGES = 4096  # of one place, kept for watchers that resume
RECENT_BYTES = 4 * 1024 * 1024
WATCHER_BACKLOG = 4096  # events that one watcher may be behind


class Change:
    """One change of one object: ``old`` is None for a new one, ``new`` for a deleted one."""

    __slots__ = ("_events", "_gone", "_seen", "new", "old", "revision")

    def __init__(self, revision: int, old: StoredObject | None, new: StoredObject | None) -> None:
        self.revision = revision
        self.old = old
        self.new = new
        self._gone: StoredObject | None = None
        # What it is to whom: a thousand watchers who want the same are answered once, and share one event.
        self._events: dict[EventType, Event] = {}
        self._seen: dict[int, tuple[Wanted, Event | None]] = {}

    def gone(self) -> StoredObject:
        """Return the last state under the revision of this change: what DELETED shows."""
        if self._gone is None:
            assert self.old is not None
            self._gone = self.old.at(self.revision)
        return self._gone

    def seen_by(self, wanted: Wanted) -> Event | None:
        """Return the event that this is to somebody who wants only some objects, if any."""
        known = self._seen.get(id(wanted))
        if known is None:
            known = self._seen[id(wanted)] = (wanted, self._as_event(wanted))
        return known[1]

    def _as_event(self, wanted: Wanted) -> Event | None:
        was = self.old is not None and wanted(self.old)
        if self.new is not None and wanted(self.new):
            return self._event(EventType.MODIFIED if was else EventType.ADDED, self.new)
        return self._event(EventType.DELETED, self.gone()) if was else None

    def _event(self, kind: EventType, stored: StoredObject) -> Event:
        if (event := self._events.get(kind)) is None:
            event = self._events[kind] = Event(kind, stored, self.revision)
        return event

    def forget(self) -> None:
        """Forget what has been told: all who watch now have it, and the log keeps changes for long."""
        self._seen.clear()
        self._events.clear()

    @property
    def weight(self) -> int:
        """Return about how many bytes the log holds for it; the new state is in the index anyway."""
        return 200 + (len(self.old.json) if self.old is not None else 0)


class Watcher:
    """One open watch: a bounded queue between the cache and a client that may be slow.

    narrow: (field, value) that all it wants have, so that it need not be asked about anything else.
    """

    def __init__(
        self,
        wanted: Wanted,
        *,
        narrow: tuple[str, str] | None = None,
        bookmarks: bool = False,
        backlog: int = WATCHER_BACKLOG,
    ) -> None:
        self.wanted = wanted
        self.narrow = narrow
        self.bookmarks = bookmarks
        self.told = 0  # every change up to this revision has been queued or was not wanted
        self._limit = backlog
        self._events: deque[Event] = deque()
        self._ready = asyncio.Event()
        self._failure: ApiError | None = None
        self._ended = False

    def preload(self, events: Iterable[Event]) -> None:
        """Queue the initial events, to which no limit applies."""
        self._events.extend(events)
        if self._events:
            self._ready.set()

    def offer(self, change: Change) -> None:
        """Queue what ``change`` is to this watcher."""
        if (event := change.seen_by(self.wanted)) is not None:
            self.put(event)

    def put(self, event: Event) -> None:
        """Queue an event; a watcher that is too far behind is cut and told so."""
        if self._failure is not None:
            return
        if len(self._events) >= self._limit:
            self._events.clear()
            self.fail(Expired("too old resource version: this watch fell too far behind and must start again"))
            return
        self._events.append(event)
        self.told = event.revision
        self._ready.set()

    def fail(self, error: ApiError) -> None:
        """End the watch with ``error``, after what is queued."""
        self._failure = self._failure or error
        self._ready.set()

    def end(self) -> None:
        """End the watch in order, after what is queued: the client may ask again."""
        self._ended = True
        self._ready.set()

    async def next_batch(self) -> Sequence[Event] | None:
        """Return what is ready, waiting for at least one event; None after the end; raises what broke the watch."""
        await self._ready.wait()
        batch = tuple(self._events)
        self._events.clear()
        if batch:
            if self._failure is None and not self._ended:
                self._ready.clear()
            return batch
        if self._failure is None and self._ended:
            return None
        assert self._failure is not None
        raise self._failure


class PlaceCache:
    """The objects of one place, ordered by key, and what happened to them lately."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.objects: SortedDict[str, StoredObject] = SortedDict()  # "namespace/name", or "name"
        # field -> value -> watchers that want nothing else; "" -> "" has those that want anything. A thousand node
        # agents each watch their own pods: a change is offered to one of them.
        self._watchers: dict[str, dict[str, dict[Watcher, None]]] = {}
        self.changes = 0  # how many there were: whoever derives something from all objects sees whether it still holds
        self.floor = 0  # the log has every change after this revision
        self._log: deque[Change] = deque()
        self._log_bytes = 0

    def record(self, name: str, new: StoredObject | None, revision: int) -> None:
        """Take one change into the index and the log, and tell the watchers."""
        old = self.objects.get(name)
        if new is not None:
            self.objects[name] = new
        elif old is not None:
            del self.objects[name]
        else:
            return
        self.changes += 1
        change = Change(revision, old, new)
        self._append(change)
        for watcher in self._concerned(change):
            watcher.offer(change)
        change.forget()

    def fill(self, objects: Mapping[str, StoredObject]) -> None:
        """Take in many objects at once, before there is anybody to tell."""
        assert not self._watchers, self._watchers
        self.objects.update(objects)
        self.changes += len(objects)

    def open(self, watcher: Watcher) -> None:
        """Let ``watcher`` have every change from now on."""
        field, value = watcher.narrow or ("", "")
        self._watchers.setdefault(field, {}).setdefault(value, {})[watcher] = None

    def close(self, watcher: Watcher) -> None:
        """Let ``watcher`` have nothing more."""
        field, value = watcher.narrow or ("", "")
        values = self._watchers.get(field, {})
        values.get(value, {}).pop(watcher, None)
        if not values.get(value):
            values.pop(value, None)
        if not values:
            self._watchers.pop(field, None)

    def watchers(self) -> list[Watcher]:
        """Return every open watch."""
        return [watcher for values in self._watchers.values() for watchers in values.values() for watcher in watchers]

    def _concerned(self, change: Change) -> list[Watcher]:
        """Return the watchers that may want to know of ``change``."""
        found: list[Watcher] = []
        for field, values in self._watchers.items():
            states = [state for state in (change.old, change.new) if state is not None]
            for value in {state.field(field) if field else "" for state in states}:
                found += values.get(value, ())
        return found

    def _append(self, change: Change) -> None:
        self._log.append(change)
        self._log_bytes += change.weight
        while len(self._log) > RECENT_CHANGES or self._log_bytes > RECENT_BYTES:
            dropped = self._log.popleft()
            self._log_bytes -= dropped.weight
            self.floor = dropped.revision

    def forget_history(self, revision: int) -> None:
        """Drop the log: there is a gap in it before ``revision``."""
        self._log.clear()
        self._log_bytes = 0
        self.floor = revision

    def since(self, revision: int) -> Sequence[Change]:
        """Return the logged changes after ``revision``, oldest first; ``revision`` is not before ``floor``."""
        recent = list(itertools.takewhile(lambda change: change.revision > revision, reversed(self._log)))
        recent.reverse()
        return recent

    def get(self, namespace: str, name: str) -> StoredObject | None:
        """Return one object."""
        found: StoredObject | None = self.objects.get(f"{namespace}/{name}" if self.kind.namespaced else name)
        return found

    def select(self, selection: Selection, wanted: Wanted, *, after: str = "") -> Iterator[StoredObject]:
        """Yield the wanted objects in key order, beginning behind the key ``after``."""
        if selection.name and (selection.namespace or not self.kind.namespaced):
            found = self.get(selection.namespace, selection.name)
            return iter((found,) if found is not None and not after and wanted(found) else ())
        first, last = _range(selection, after)
        keys = self.objects.irange(first or None, last, inclusive=(first != after, False))
        objects: Iterator[StoredObject] = map(self.objects.__getitem__, keys)
        return objects if selection.unfiltered else filter(wanted, objects)

    def count(self, selection: Selection, *, after: str) -> int:
        """Return how many objects an unfiltered selection wants behind the key ``after``, looking at none of them."""
        assert selection.unfiltered, selection
        first, last = _range(selection, after)
        end = len(self.objects) if last is None else self.objects.bisect_left(last)
        begin: int = self.objects.bisect_right(first) if first == after else self.objects.bisect_left(first)
        return max(0, end - begin)  # a client may have made up a key behind all of them


def _range(selection: Selection, after: str) -> tuple[str, str | None]:
    """Return the keys between which a selection's objects lie; the first belongs to them unless it is ``after``."""
    if not selection.namespace:
        return after, None
    return max(after, f"{selection.namespace}/"), f"{selection.namespace}0"  # "0" follows "/"
