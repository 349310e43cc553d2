"""The watch cache: everything under the registry's prefix, kept current by one watch on the store.

Theory of operation. The feeder lists the prefix at one revision, then follows the store's watch from there.
``revision`` says up to where everything that happened is in the cache; it only grows. When the store's history is gone
(compacted while we were cut off) the feeder lists again and works out what must have changed: live watchers of it are
told to list again, and resuming from before it is refused as expired. While the store is away nothing is dropped:
clients keep their watches and wait.

A reader who wants the newest state asks ``fresh``: one question to the store for its revision answers for all readers
who were waiting when it was asked, and each waits until the cache has reached the answer.
"""

import asyncio
import heapq
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import msgspec

from api.errors import ApiError, Expired, Fault, NotFound, Timeout, Unavailable
from api.kinds.table import Kind, Table
from client.resources import EventType
from master.changes import PlaceCache, Watcher
from master.freshness import Freshness
from master.objects import Selection, StoredObject, Wanted, read_stored, read_uid
from master.rest.seam import Event

log = logging.getLogger(__name__)

Place = tuple[str, str]  # (group, plural) of where objects are stored
Listener = Callable[[str, StoredObject | None], None]  # (name in its place, new state; None: gone)

REACH_TIMEOUT_S = 3.0  # how long a reader waits for the cache to reach a revision
PROGRESS_AFTER_S = 0.003  # an event on its way usually arrives before that
PROGRESS_PERIOD_S = 0.1
BOOKMARK_PERIOD_S = 10.0
LAST_BOOKMARK_S = 2.0  # before a watch ends by its time, so that its client resumes from here
RETRY_S = 0.2


class KeyChange(msgspec.Struct, frozen=True):
    """What became of one key (without the registry's prefix); ``data`` is None when it was deleted."""

    key: str
    revision: int
    data: bytes | None


class KeyChanges(msgspec.Struct, frozen=True):
    """Everything that happened up to ``revision`` since the message before; whole revisions, in order."""

    revision: int
    changes: Sequence[KeyChange] = ()


class HistoryLost(Exception):
    """The store has compacted away what happened after the revision asked for."""


class Source(Protocol):
    """Where the cache gets its knowledge: ``master.storage.Storage``, or a test."""

    async def list_all(self) -> KeyChanges:
        """Return every key as it is at one revision; raises ApiError."""

    def follow(self, *, after: int) -> AsyncIterator[KeyChanges]:
        """Yield what happens after a revision; raises HistoryLost, ApiError."""

    async def current_revision(self) -> int:
        """Return the store's revision, by a quorum; raises ApiError."""

    async def request_progress(self) -> None:
        """Ask the store to tell, on the open watch, how far it has told everything; never raises ApiError."""


def place_prefix(place: Place) -> str:
    """Return where a place's keys begin, without the registry's prefix: ``pods/``, ``apps/deployments/``."""
    group, plural = place
    return f"{group}/{plural}/" if group else f"{plural}/"


class WatchCache:
    """Every place of the table, current up to ``revision``."""

    def __init__(self, table: Table, source: Source) -> None:
        self._source = source
        self._places: dict[Place, PlaceCache] = {}
        self._prefixes: dict[str, PlaceCache] = {}
        self._listeners: dict[Place, Listener] = {}
        self.revision = 0
        self.filled = asyncio.Event()  # set once it has ever known everything
        self.connected = False
        self._fresh = Freshness(source.current_revision)
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []  # a heap by revision
        self._order = itertools.count()
        self._awaited = asyncio.Event()
        for kind in table:
            self.serve(kind)

    def serve(self, kind: Kind) -> None:
        """Give the place of ``kind`` a cache; the row that owns the place says how its objects are stored."""
        if kind.stored_as is None and kind.place not in self._places:
            place = PlaceCache(kind)
            self._places[kind.place] = place
            self._prefixes[place_prefix(kind.place)] = place

    def serve_custom(self, owner: Kind) -> None:
        """Give the place of a custom kind a cache, or let the one that it has follow a changed definition.

        Open watches end then: their clients ask again and see what the definition says now.
        """
        place = self._places.get(owner.place)
        if place is None:
            self.serve(owner)
            return
        place.kind = owner
        for watcher in place.watchers():
            watcher.end()

    def forget(self, owner: Kind) -> None:
        """Drop the place of a custom kind that is defined no more; open watches end."""
        place = self._places.pop(owner.place, None)
        self._prefixes.pop(place_prefix(owner.place), None)
        for watcher in place.watchers() if place is not None else ():
            watcher.end()

    def listen(self, place: Place, listener: Listener) -> None:
        """Tell ``listener`` of every change in ``place``, in the step in which it is taken in."""
        self._listeners[place] = listener

    def place(self, kind: Kind) -> PlaceCache:
        """Return the cache of the place where objects of ``kind`` lie; raises NotFound if the kind is gone."""
        found = self._places.get(kind.place)
        if found is None:
            raise NotFound("the server could not find the requested resource", group=kind.group, kind=kind.plural)
        return found

    def find(self, place: Place, name: str) -> StoredObject | None:
        """Return one object of a place by its key in it."""
        found = self._places.get(place)
        return found.objects.get(name) if found is not None else None

    @property
    def synced(self) -> bool:
        """Return whether the cache has ever known everything."""
        return self.revision > 0

    # Reading

    async def fresh(self) -> None:
        """Wait until the cache has all that the store had when the call was made; raises Unavailable, Timeout."""
        await self.reach(await self._fresh.revision())

    async def reach(self, revision: int, *, timeout_s: float = REACH_TIMEOUT_S) -> None:
        """Wait until the cache has reached ``revision``; raises Timeout as the real server does for a future one."""
        if self.revision >= revision and self.synced:
            return
        if not self.synced:
            raise Unavailable("the watch cache has not read the store yet", retry_after_s=1)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (revision, next(self._order), waiter))
        self._awaited.set()
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            raise self.too_large(revision) from None

    def too_large(self, revision: int) -> Timeout:
        """Return the refusal of a revision that the cache has not reached."""
        message = f"Too large resource version: {revision}, current: {self.revision}"
        cause = Fault("", "Too large resource version", "ResourceVersionTooLarge")
        return Timeout(message, causes=[cause], retry_after_s=1)

    def watch_since(
        self, kind: Kind, selection: Selection, wanted: Wanted, revision: int, *, bookmarks: bool
    ) -> Watcher:
        """Open a watch on what happens after ``revision``, which has been reached; raises Expired."""
        place = self.place(kind)
        if revision < place.floor:
            raise Expired(f"too old resource version: {revision} ({place.floor})")
        watcher = Watcher(wanted, narrow=_narrow(kind, selection), bookmarks=bookmarks)
        watcher.preload(filter(None, (change.seen_by(wanted) for change in place.since(revision))))
        return self._register(place, watcher)

    def watch_from_now(
        self, kind: Kind, selection: Selection, wanted: Wanted, *, bookmarks: bool, mark_end: bool
    ) -> Watcher:
        """Open a watch that begins with every wanted object as ADDED; a bookmark ends these if ``mark_end``."""
        place = self.place(kind)
        watcher = Watcher(wanted, narrow=_narrow(kind, selection), bookmarks=bookmarks)
        watcher.preload(
            Event(EventType.ADDED, stored, stored.revision)
            for stored in sorted(place.select(selection, wanted), key=lambda stored: stored.revision)
        )
        if mark_end:
            watcher.preload((Event(EventType.BOOKMARK, None, self.revision, initial_events_end=True),))
        return self._register(place, watcher)

    def _register(self, place: PlaceCache, watcher: Watcher) -> Watcher:
        watcher.told = self.revision
        place.open(watcher)
        return watcher

    def close(self, kind: Kind, watcher: Watcher) -> None:
        """End a watch."""
        if (place := self._places.get(kind.place)) is not None:
            place.close(watcher)

    # Feeding

    async def run(self) -> None:
        """Keep the cache current until cancelled; a store that is away is waited for."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._request_progress())
            tasks.create_task(self._send_bookmarks())
            while True:
                try:
                    await self._follow()
                except ApiError as error:
                    log.warning("store watch interrupted revision=%d error=%s", self.revision, error)
                self.connected = False
                await asyncio.sleep(RETRY_S)

    async def _follow(self) -> None:
        if not self.synced:
            self.replace(await self._source.list_all())
            log.info("watch cache filled revision=%d", self.revision)
        self.connected = True
        try:
            async for message in self._source.follow(after=self.revision):
                self.apply(message)
        except HistoryLost:
            log.warning("store history lost, listing again revision=%d", self.revision)
            self.replace(await self._source.list_all())

    def apply(self, message: KeyChanges) -> None:
        """Take in what the store says happened."""
        for change in message.changes:
            # A watch that was resumed may repeat what we know.
            if change.revision > self.revision:
                self._record(change)
        self._advance(message.revision)

    def replace(self, listing: KeyChanges) -> None:
        """Become what the store has; watchers of what has changed meanwhile are told to list again."""
        missed = self._missed(listing)
        if self.synced:
            self._cut_watchers(missed)
            for change in missed:
                self._record(change)
        else:
            self._fill(missed)
        for place in self._places.values():
            place.forget_history(listing.revision)
        self._advance(listing.revision)
        self.filled.set()

    def _fill(self, changes: Sequence[KeyChange]) -> None:
        """Take in what the store has, each place in one go: nobody can watch yet."""
        found: dict[Place, dict[str, StoredObject]] = {}
        for change in changes:
            place, name = self._find(change.key)
            if place is None:
                continue
            if place.kind.place in self._listeners:
                self._record(change)
            elif (stored := _read_or_hide(place.kind, name, change)) is not None:
                found.setdefault(place.kind.place, {})[name] = stored
        for where, objects in found.items():
            self._places[where].fill(objects)

    def _cut_watchers(self, missed: Sequence[KeyChange]) -> None:
        """End the watches of places that have changed meanwhile; the others have missed nothing.

        We know what became of each object, not in which steps. Told so, a client that broke off between two objects
        and went on elsewhere from the first one's revision would never hear of a step before it, or hear half of one.
        """
        for place in {place for change in missed if (place := self._find(change.key)[0]) is not None}:
            for watcher in place.watchers():
                watcher.fail(Expired("too old resource version: the store's history is gone, list again"))

    def _missed(self, listing: KeyChanges) -> list[KeyChange]:
        """Return the changes that lead from the cache's contents to the listing's, in order of revision."""
        listed = {item.key: item for item in listing.changes}
        changes = []
        for prefix, place in self._prefixes.items():
            for name, stored in place.objects.items():
                item = listed.get(prefix + name)
                if item is None:
                    changes.append(KeyChange(prefix + name, listing.revision, None))
                elif item.revision == stored.revision:
                    del listed[item.key]
                elif _is_another(stored, item):
                    changes.append(KeyChange(item.key, item.revision, None))
        changes += listed.values()
        # First what others are told of, such as the definitions of kinds: objects of these kinds may follow.
        # Stable: a deletion stays before what replaced it.
        told = tuple(place_prefix(each) for each in self._listeners)
        changes.sort(key=lambda change: (not change.key.startswith(told), change.revision))
        return changes

    def _record(self, change: KeyChange) -> None:
        place, name = self._find(change.key)
        if place is None:
            return
        stored = _read_or_hide(place.kind, name, change)
        place.record(name, stored, change.revision)
        if (listener := self._listeners.get(place.kind.place)) is not None:
            listener(name, stored)

    def _find(self, key: str) -> tuple[PlaceCache | None, str]:
        """Return the place that ``key`` is in and the rest of the key."""
        first, _, rest = key.partition("/")
        if (place := self._prefixes.get(f"{first}/")) is not None:
            return place, rest
        second, _, rest = rest.partition("/")
        return self._prefixes.get(f"{first}/{second}/"), rest

    def _advance(self, revision: int) -> None:
        self.revision = max(self.revision, revision)
        while self._waiters and self._waiters[0][0] <= self.revision:
            _, _, waiter = heapq.heappop(self._waiters)
            if not waiter.done():
                waiter.set_result(None)

    async def _request_progress(self) -> None:
        """While readers wait for a revision, ask the store how far its watch has come.

        Writes outside the registry's prefix move the store's revision and send us no event.
        """
        while True:
            await self._awaited.wait()
            self._awaited.clear()
            await asyncio.sleep(PROGRESS_AFTER_S)
            while self._waiting():
                await self._source.request_progress()
                await asyncio.sleep(PROGRESS_PERIOD_S)

    def _waiting(self) -> bool:
        while self._waiters and self._waiters[0][2].done():
            heapq.heappop(self._waiters)
        return bool(self._waiters)

    async def _send_bookmarks(self) -> None:
        while True:
            await asyncio.sleep(BOOKMARK_PERIOD_S)
            for place in tuple(self._places.values()):
                for watcher in place.watchers():
                    self._bookmark(watcher)

    def _bookmark(self, watcher: Watcher) -> None:
        if watcher.bookmarks and watcher.told < self.revision:
            watcher.put(Event(EventType.BOOKMARK, None, self.revision))

    def last_bookmark(self, watcher: Watcher, *, end_s: float) -> asyncio.TimerHandle | None:
        """Send a bookmark shortly before a watch ends, ``end_s`` from now; return the timer, to cancel with it."""
        if not watcher.bookmarks or end_s <= LAST_BOOKMARK_S:
            return None
        return asyncio.get_running_loop().call_later(end_s - LAST_BOOKMARK_S, self._bookmark, watcher)


def _narrow(kind: Kind, selection: Selection) -> tuple[str, str] | None:
    """Return what a watch may be indexed by: the fields of another face are not those of what is stored."""
    narrow = selection.narrow if kind.stored_as is None else None
    if kind.custom is not None and narrow is not None and narrow[0] != "metadata.name":
        return None
    return narrow


def _read_or_hide(kind: Kind, name: str, change: KeyChange) -> StoredObject | None:
    """Return what a change leaves behind; what is no object of the kind is as good as gone."""
    if change.data is None:
        return None
    try:
        return _read(kind, name, change.data, change.revision)
    except ValueError as error:
        log.warning("object in the store cannot be read, hidden key=%s error=%s", change.key, error)
        return None


def _read(kind: Kind, name: str, data: bytes, revision: int) -> StoredObject:
    """Return the object of a key; raises ValueError if the key or the bytes are no object of ``kind``."""
    namespace, slash, rest = name.partition("/")
    if bool(slash) is not kind.namespaced or "/" in rest:
        raise ValueError("the key has the wrong number of parts")
    return StoredObject(
        kind,
        namespace=namespace if slash else "",
        name=rest if slash else name,
        data=read_stored(kind, data),
        revision=revision,
    )


def _is_another(stored: StoredObject, item: KeyChange) -> bool:
    """Return whether the key now holds an object of another life."""
    try:
        return item.data is not None and read_uid(item.data) != read_uid(stored.json)
    except ValueError:
        return True
