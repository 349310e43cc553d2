"""The keys of all revisions since the last compaction, and the history of changes that watches are served from.

Revisions are gap-free: every change, whatever it writes, makes exactly one. The history is kept in memory beside the
key index and shares its versions, so a watch may start at any revision that is not compacted.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

import google_crc32c
import msgspec

from .key_index import KeyIndex
from .model import (
    FIRST_REVISION,
    NO_LEASE,
    Compacted,
    Event,
    FutureRevision,
    KeyValue,
    LeaseId,
    Revision,
)

VERSION_OVERHEAD_BYTES = 48  # about what etcd adds to key and value on disk; makes sizes comparable, not equal


class Contents(msgspec.Struct, frozen=True, array_like=True):
    """Everything a store holds, for a snapshot."""

    compact_revision: Revision
    revision: Revision
    base: list[KeyValue]  # what could be read at the first revision before ``history``, in key order
    history: list[list[KeyValue]]  # the changes after it, one list a revision


class Store:
    """The multi-version map; ``begin`` opens the only way to change it."""

    def __init__(self) -> None:
        self.revision: Revision = FIRST_REVISION
        self.compact_revision = Revision(-1)  # the oldest revision that can be read, once there is one
        self.index = KeyIndex()
        self.held_bytes = 0  # of all versions
        self.live_bytes = 0  # of the present ones
        self._history: list[Sequence[Event]] = []
        self._history_start = Revision(FIRST_REVISION + 1)  # revision of self._history[0]
        self._written: Revision = FIRST_REVISION  # the newest version's; ahead of ``revision`` inside a change
        self._untrimmed: list[tuple[Revision, bytes]] = []  # keys whose compacted versions are still held

    def begin(self) -> "Change":
        """Open a change; nothing else may touch the store until it is committed."""
        return Change(self)

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
        if 0 < revision < self._written:
            everything = list(self.index.range_at(first, end, revision))
            return (everything[:limit] if limit else everything), len(everything)
        if not limit:
            present = list(self.index.range(first, end))
            return present, len(present)
        return list(islice(self.index.range(first, end), limit)), self.index.count(first, end)

    def count(self, first: bytes, end: bytes, *, revision: Revision) -> int:
        """Return how many keys of [first, end) could be read at ``revision`` (0: the newest)."""
        if 0 < revision < self._written:
            return sum(1 for _ in self.index.range_at(first, end, revision))
        return self.index.count(first, end)

    def events(self, first: Revision, last: Revision) -> Iterator[tuple[Revision, Sequence[Event]]]:
        """Iterate over the changes of revisions first to last, both included and neither compacted."""
        assert first >= self._history_start, f"history of {first} is gone; it starts at {self._history_start}"
        for revision in range(first, last + 1):
            yield Revision(revision), self._history[revision - self._history_start]

    @property
    def history_start(self) -> Revision:
        """Return the oldest revision whose changes are still known."""
        return self._history_start

    def compact(self, revision: Revision) -> None:
        """Make everything before ``revision`` unreadable; ``trim`` gives its memory back.

        Raises Compacted if that has happened already, FutureRevision.
        """
        if revision <= self.compact_revision:
            raise Compacted(self.compact_revision)
        if revision > self.revision:
            raise FutureRevision(revision)
        self.compact_revision = revision
        past = revision - self._history_start + 1  # changes up to and with ``revision``
        if past > 0:
            for events in islice(self._history, past):
                self._untrimmed += [(revision, event.kv.key) for event in events]
            # A watch may still start at ``revision`` itself, but what its changes replaced is unreadable now.
            newest = [Event(event.kv, None) for event in self._history[past - 1]]
            self._history[:past] = [newest]
            self._history_start = revision

    def trim(self, limit: int) -> int:
        """Give back the memory of compacted versions of at most ``limit`` changes; return how many are left."""
        for revision, key in self._untrimmed[-limit:]:
            for kv in self.index.trim(key, revision):
                self.held_bytes -= size_of(kv)
        del self._untrimmed[-limit:]
        return len(self._untrimmed)

    def trim_all(self) -> None:
        """Give back the memory of every compacted version."""
        while self.trim(10_000):
            pass

    def hash(self, revision: Revision) -> int:
        """Return a checksum of every version up to ``revision`` (0: the newest) that compaction left.

        Members with the same history and compaction answer the same.
        Raises Compacted, FutureRevision.
        """
        self.check_readable(revision)
        self.trim_all()
        upto = revision if revision > 0 else self.revision
        checksum = 0
        for kv in self.index.versions():
            if kv.mod_revision <= upto:
                checksum = google_crc32c.extend(checksum, msgspec.msgpack.encode(kv))
        return checksum

    def contents(self) -> Contents:
        """Return everything held; a store loaded from it answers every request as this one does."""
        self.trim_all()
        return Contents(
            compact_revision=self.compact_revision,
            revision=self.revision,
            base=[kv for kv in self.index.versions() if kv.mod_revision < self._history_start],
            history=[[event.kv for event in events] for events in self._history],
        )

    @classmethod
    def load(cls, contents: Contents) -> "Store":
        """Return a store that holds ``contents``."""
        store = cls()
        store.compact_revision = contents.compact_revision
        store._history_start = Revision(contents.revision - len(contents.history) + 1)
        for kv in contents.base:
            store._replace(kv)
        for kvs in contents.history:
            events = []
            for kv in kvs:
                prev = store.index.get(kv.key)
                events.append(Event(kv, prev))
                if kv.version > 0 or prev is not None:  # else: deleted at the very revision of the compaction
                    store._replace(kv)
            store._history.append(events)
        store.revision = store._written = contents.revision
        return store

    def _replace(self, kv: KeyValue) -> KeyValue | None:
        """Make ``kv``, a put or a deletion, its key's newest version; return the one before if the key existed."""
        prev = self.index.get(kv.key)
        self._written = kv.mod_revision
        if prev is not None:
            self.live_bytes -= size_of(prev)
        self.held_bytes += size_of(kv)
        if kv.version > 0:
            self.live_bytes += size_of(kv)
            self.index.put(kv)
        else:
            self.index.delete(kv)
        return prev

    def commit(self, events: list[Event]) -> None:
        """End a change: its events make one revision, unless there are none."""
        if events:
            self.revision = Revision(self.revision + 1)
            self._history.append(events)


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
        self._store._replace(kv)
        self.events.append(Event(kv, prev))
        return prev

    def delete_range(self, first: bytes, end: bytes) -> list[KeyValue]:
        """Delete every key of [first, end); return what was deleted, in key order."""
        deleted = list(self._store.index.range(first, end))
        for prev in deleted:
            tombstone = KeyValue(prev.key, b"", Revision(0), self.revision, 0, NO_LEASE)
            self._store._replace(tombstone)
            self.events.append(Event(tombstone, prev))
        return deleted

    def commit(self) -> None:
        """Make the revision, if anything was written."""
        self._store.commit(self.events)


def size_of(kv: KeyValue) -> int:
    """Return about how many bytes a version takes."""
    return len(kv.key) + len(kv.value) + VERSION_OVERHEAD_BYTES
