"""The keys of all revisions since the last compaction, and the history of changes that watches are served from.

Revisions are gap-free: every change, whatever it writes, makes exactly one. The history is kept in memory beside the
key index and shares its versions, so a watch may start at any revision that is not compacted.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import islice
from typing import cast

import google_crc32c
import msgspec

from .key_index import KeyIndex, first_readable
from .model import (
    FIRST_REVISION,
    NO_LEASE,
    VERSION_OVERHEAD_BYTES,
    Changed,
    Compacted,
    Event,
    FutureRevision,
    KeyValue,
    LeaseId,
    Revision,
    as_changed,
    events_of,
)
from .requests import Put

STEP_KEYS = 512  # looked at in one step of a view
BATCH_BYTES = 128 << 10
EMPTY_BYTES = 4096  # what an empty store says of its size: JSON leaves out a zero, and tools divide by it


class Store:
    """The multi-version map; ``begin`` opens the only way to change it."""

    def __init__(self) -> None:
        self.revision: Revision = FIRST_REVISION
        self.compact_revision = Revision(-1)  # the oldest revision that can be read, once there is one
        self.index = KeyIndex()
        self.held_bytes = 0  # of all versions
        self.live_bytes = 0  # of the present ones
        self.history: list[Changed] = []  # by each revision; only ever appended to, or replaced
        self.history_start = Revision(FIRST_REVISION + 1)  # revision of history[0], the oldest change still known
        self.written: Revision = FIRST_REVISION  # the newest version's; ahead of ``revision`` inside a change
        self._untrimmed: list[list[Changed]] = []  # changes whose compacted versions are still held
        self.views: set[View] = set()  # open ones

    @property
    def size_bytes(self) -> int:
        """How large the database is, as far as it is one, for who asks from outside."""
        return EMPTY_BYTES + self.held_bytes

    @property
    def size_in_use_bytes(self) -> int:
        """What would be left of it after compaction."""
        return EMPTY_BYTES + self.live_bytes

    def begin(self) -> "Change":
        """Open a change; nothing else may touch the store until it is committed."""
        return Change(self)

    def put(self, key: bytes, value: bytes, lease: LeaseId) -> KeyValue | None:
        """Write one key, in a change of its own; return the version replaced. What nearly all writes are, at one go."""
        revision = Revision(self.revision + 1)
        kv, prev = self.index.write(key, value, revision, lease)
        if prev is not None:
            self.live_bytes -= len(key) + len(prev.value) + VERSION_OVERHEAD_BYTES
        size = len(key) + len(value) + VERSION_OVERHEAD_BYTES
        self.held_bytes += size
        self.live_bytes += size
        self.written = self.revision = revision
        self.history.append(Event(kv, prev))
        return prev

    def put_all(self, puts: Sequence[Put]) -> tuple[Sequence[Revision], Sequence[KeyValue]]:
        """Write one key after the other, without a lease, in a change each.

        Return each one's revision, and the versions replaced that had a lease.
        """
        first = self.revision + 1
        revisions = cast("Sequence[Revision]", range(first, first + len(puts)))
        held_bytes, live_bytes, leased = self.index.write_all(puts, revisions, self.history)
        self.held_bytes += held_bytes
        self.live_bytes += live_bytes
        self.written = self.revision = revisions[-1]
        return revisions, leased

    def check_readable(self, revision: Revision) -> None:
        """Raise Compacted or FutureRevision unless ``revision`` can be read; 0 and below mean the newest."""
        if revision > self.revision:
            raise FutureRevision(revision)
        if 0 < revision < self.compact_revision:
            raise Compacted(self.compact_revision)

    def range(self, first: bytes, end: bytes, *, revision: Revision, limit: int) -> tuple[list[KeyValue], int]:
        """Return the first ``limit`` (0: all) versions of [first, end) in key order, and how many there are.

        revision: 0 is the newest; otherwise as ``check_readable`` demands.
        """
        if 0 < revision < self.written:
            everything = list(self.index.range_at(first, end, revision))
            return (everything[:limit] if limit else everything), len(everything)
        if not limit:
            present = list(self.index.range(first, end))
            return present, len(present)
        # A client's "all" may be more than islice takes; to raise would end every member that applies it.
        return list(islice(self.index.range(first, end), min(limit, len(self.index)))), self.index.count(first, end)

    def count(self, first: bytes, end: bytes, *, revision: Revision) -> int:
        """Return how many keys of [first, end) could be read at ``revision`` (0: the newest)."""
        if 0 < revision < self.written:
            return sum(1 for _ in self.index.range_at(first, end, revision))
        return self.index.count(first, end)

    def events(self, first: Revision, last: Revision) -> Iterator[tuple[Revision, Sequence[Event]]]:
        """Iterate over the changes of revisions first to last, both included and neither compacted."""
        assert first >= self.history_start, f"history of {first} is gone; it starts at {self.history_start}"
        for revision in range(first, last + 1):
            yield Revision(revision), events_of(self.history[revision - self.history_start])

    def compact(self, revision: Revision) -> None:
        """Make everything before ``revision`` unreadable; ``trim`` gives its memory back.

        Raises Compacted if that has happened already, FutureRevision.
        """
        if revision <= self.compact_revision:
            raise Compacted(self.compact_revision)
        if revision > self.revision:
            raise FutureRevision(revision)
        self.compact_revision = revision
        past = revision - self.history_start + 1  # changes up to and with ``revision``
        if past > 0:
            gone = self.history[:past]
            # A watch may still start at ``revision`` itself, but what its changes replaced is unreadable now.
            newest = as_changed([Event(event.kv, None) for event in events_of(gone[-1])])
            self.history = [newest, *self.history[past:]]  # a new list: views go on with the old one
            self.history_start = revision
            self._untrimmed.append(gone)

    def trim(self, limit: int) -> bool:
        """Give back the memory of compacted versions of at most ``limit`` changes; return whether any is left.

        As long as a view is open, nothing is given back.
        """
        if self.views:
            return False
        while limit > 0 and self._untrimmed:
            gone = self._untrimmed[-1]
            for changed in gone[-limit:]:
                for event in events_of(changed):
                    for kv in self.index.trim(event.kv.key, self.compact_revision):
                        self.held_bytes -= size_of(kv)
            left = max(0, len(gone) - limit)
            limit -= len(gone) - left
            del gone[left:]
            if not gone:
                self._untrimmed.pop()
        return bool(self._untrimmed)

    def trim_all(self) -> None:
        """Give back the memory of every compacted version in one go: for who has nothing else to do meanwhile."""
        while self.trim(10_000):
            pass

    def view(self) -> "View":
        """Open a view of the store as it is now; it has to be closed."""
        return View(self)

    def _replace(self, kv: KeyValue, prev: KeyValue | None) -> None:
        """Make ``kv``, a put or a deletion, its key's newest version; ``prev`` is the present one, if there is one."""
        self.written = kv.mod_revision
        size = size_of(kv)
        self.held_bytes += size
        if prev is not None:
            self.live_bytes -= size_of(prev)
        if kv.version > 0:
            self.live_bytes += size
            self.index.put(kv)
        else:
            self.index.delete(kv)

    def commit(self, events: list[Event]) -> None:
        """End a change: its events make one revision, unless there are none."""
        if events:
            self.revision = Revision(self.revision + 1)
            self.history.append(as_changed(events))


class View:
    """The store as it was when the view was opened, read in steps while the store goes on changing.

    Versions never change, so all it takes is to know the revision, and that nothing is trimmed meanwhile. A step takes
    about a millisecond.
    """

    def __init__(self, store: Store) -> None:
        self.revision = store.revision
        self.compact_revision = store.compact_revision
        self.history_start = store.history_start
        self._store = store
        self._history = self._store.history
        self._store.views.add(self)

    def close(self) -> None:
        """Let the store trim again."""
        self._store.views.discard(self)

    def versions(self) -> Iterator[list[KeyValue]]:
        """Yield, in key order and each key's oldest first, every version that can be read at some revision.

        Where a batch ends depends on nothing but the versions; an empty one is an occasion to do something else.
        """
        return _batches(self._readable(keys) for keys in self._store.index.key_steps(STEP_KEYS))

    def base(self) -> Iterator[list[KeyValue]]:
        """Yield what could be read at the revision before ``history_start``, as ``versions`` does."""
        return _batches(
            (kv for kv in self._readable(keys) if kv.mod_revision < self.history_start)
            for keys in self._store.index.key_steps(STEP_KEYS)
        )

    def history(self) -> Iterator[list[KeyValue]]:
        """Yield the changes from ``history_start`` on, in order, as ``versions`` does."""
        end = self.revision - self.history_start + 1
        history = self._history
        return _batches(
            (event.kv for place in range(start, min(start + STEP_KEYS, end)) for event in events_of(history[place]))
            for start in range(0, end, STEP_KEYS)
        )

    def _readable(self, keys: Iterable[bytes]) -> Iterator[KeyValue]:
        index, compact_revision, revision = self._store.index, self.compact_revision, self.revision
        for key in keys:
            versions = index.versions(key)
            for kv in versions[first_readable(versions, compact_revision) :]:
                if kv.mod_revision > revision:
                    break
                yield kv


def _batches(steps: Iterable[Iterable[KeyValue]]) -> Iterator[list[KeyValue]]:
    """Yield batches of about BATCH_BYTES, and an empty one after each step."""
    batch: list[KeyValue] = []
    size = 0
    for step in steps:
        for kv in step:
            batch.append(kv)
            size += len(kv.key) + len(kv.value) + VERSION_OVERHEAD_BYTES
            if size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
        yield []
    if batch:
        yield batch


def checksum(view: View, upto: Revision) -> Generator[None, None, int]:
    """Return, after some steps, a checksum of every version up to revision ``upto`` that compaction left.

    Members with the same history and compaction answer the same. The caller checks that ``upto`` can be read.
    """
    encode = msgspec.msgpack.Encoder().encode
    value = 0
    for kvs in view.versions():
        value = google_crc32c.extend(value, b"".join([encode(kv) for kv in kvs if kv.mod_revision <= upto]))
        yield
    return value


class Loader:
    """Puts a store together from what a view yields: all of the base, then all of the history."""

    def __init__(self, *, compact_revision: Revision, revision: Revision, history_start: Revision) -> None:
        self._store = Store()
        self._store.compact_revision = compact_revision
        self._store.history_start = history_start
        self._revision = revision
        self._change: list[Event] = []

    def add_base(self, kvs: Sequence[KeyValue]) -> None:
        """Take versions of keys that all exist, one each, in key order."""
        store = self._store
        assert not store.history, "the history has begun"
        store.index.append_run(kvs)
        store.held_bytes += sum(map(size_of, kvs))
        store.live_bytes = store.held_bytes

    def add_history(self, kvs: Sequence[KeyValue]) -> list[Event]:
        """Take changes in order; return them with what they replaced."""
        store, index, change = self._store, self._store.index, self._change
        events: list[Event] = []
        for kv in kvs:
            if change and change[-1].kv.mod_revision != kv.mod_revision:
                store.history.append(as_changed(change))
                change.clear()
            prev = index.get(kv.key)
            event = Event(kv, prev)
            change.append(event)
            events.append(event)
            if kv.version > 0 or prev is not None:  # else: deleted at the very revision of the compaction
                self._store._replace(kv, prev)
        return events

    def finish(self) -> Store:
        """Return the store."""
        if self._change:
            self._store.history.append(as_changed(self._change))
        self._store.revision = self._store.written = self._revision
        known = self._store.history_start + len(self._store.history) - 1
        assert known == self._revision, f"the history ends with {known}, the store with {self._revision}"
        return self._store


class Change:
    """Writes that become one revision together; reads of the newest revision see them at once.

    Nothing undoes a write: whatever may fail is checked before the first one.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.revision = Revision(store.revision + 1)  # what the change makes, if it writes at all
        self.events: list[Event] = []

    def put(self, key: bytes, value: bytes, lease: LeaseId) -> KeyValue | None:
        """Write one key; return the version replaced."""
        prev = self._store.index.get(key)
        created, version = (prev.create_revision, prev.version + 1) if prev else (self.revision, 1)
        kv = KeyValue(key, value, created, self.revision, version, lease)
        self._store._replace(kv, prev)
        self.events.append(Event(kv, prev))
        return prev

    def delete_range(self, first: bytes, end: bytes) -> list[KeyValue]:
        """Delete every key of [first, end); return what was deleted, in key order."""
        deleted = list(self._store.index.range(first, end))
        for prev in deleted:
            tombstone = KeyValue(prev.key, b"", Revision(0), self.revision, 0, NO_LEASE)
            self._store._replace(tombstone, prev)
            self.events.append(Event(tombstone, prev))
        return deleted

    def commit(self) -> None:
        """Make the revision, if anything was written."""
        self._store.commit(self.events)


def size_of(kv: KeyValue) -> int:
    """Return about how many bytes a version takes."""
    return len(kv.key) + len(kv.value) + VERSION_OVERHEAD_BYTES
