"""Every key's versions since the last compaction, in key order.

Keys that exist now and keys that only have a past are kept in two sorted lists: counting and listing the present, which
is what nearly every request wants, never walks over the dead. Most keys have one version, which then stands for itself;
a list for each of a million keys would cost 90 MB, and the garbage collector a tenth of a second whenever it looks.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from operator import attrgetter

from sortedcontainers import SortedList

from .model import (
    NO_LEASE,
    REST_OF_KEYS,
    SINGLE_KEY,
    VERSION_OVERHEAD_BYTES,
    Changed,
    Event,
    KeyValue,
    LeaseId,
    Revision,
)
from .requests import Put

_by_mod_revision = attrgetter("mod_revision")


class _Keys(SortedList):  # type: ignore[misc]  # the library has no types
    """Sorted keys that may also be loaded in runs."""

    def append_run(self, keys: list[bytes]) -> None:
        """Add keys, in order, all of which come after those that are here: as one of the list's own parts.

        ``update`` would compare each of them, or sort everything anew, which takes half a second for a million.
        """
        self._lists.append(keys)
        self._maxes.append(keys[-1])
        self._len += len(keys)
        del self._index[:]


class KeyIndex:
    """Key -> versions, oldest first; a deletion is a version too (``version == 0``)."""

    def __init__(self) -> None:
        self._versions: dict[bytes, KeyValue | list[KeyValue]] = {}
        self._live = _Keys()
        self._dead = _Keys()  # deleted, but their past can still be read

    def __len__(self) -> int:
        return len(self._live)

    def get(self, key: bytes) -> KeyValue | None:
        """Return the present version of ``key``."""
        held = self._versions.get(key)
        if held is None:
            return None
        newest = held[-1] if isinstance(held, list) else held
        return newest if newest.version else None

    def get_at(self, key: bytes, revision: Revision) -> KeyValue | None:
        """Return the version of ``key`` that could be read at ``revision``."""
        versions = self.versions(key)
        at = bisect_right(versions, revision, key=_by_mod_revision)
        if at == 0 or versions[at - 1].version == 0:
            return None
        return versions[at - 1]

    def append_run(self, kvs: Sequence[KeyValue]) -> None:
        """Add the first versions of keys, in key order, all of which come after those that are here."""
        if kvs:
            keys = [kv.key for kv in kvs]
            self._versions.update(zip(keys, kvs, strict=True))
            self._live.append_run(keys)

    def put(self, kv: KeyValue) -> None:
        """Add the newest version of its key; ``kv.mod_revision`` is above every older one's."""
        key = kv.key
        held = self._versions.get(key)
        if held is None:
            self._versions[key] = kv
            self._live.add(key)
            return
        versions = self._as_list(key, held)
        if versions[-1].version == 0:
            self._dead.remove(key)
            self._live.add(key)
        versions.append(kv)

    def write(self, key: bytes, value: bytes, revision: Revision, lease: LeaseId) -> tuple[KeyValue, KeyValue | None]:
        """Make the newest version of a key; return it, and the present one that it replaces."""
        held = self._versions.get(key)
        if held is None:
            kv = self._versions[key] = KeyValue(key, value, revision, revision, 1, lease)
            self._live.add(key)
            return kv, None
        versions = held if isinstance(held, list) else self._as_list(key, held)
        prev = versions[-1]
        if prev.version == 0:
            kv = KeyValue(key, value, revision, revision, 1, lease)
            self._dead.remove(key)
            self._live.add(key)
            versions.append(kv)
            return kv, None
        kv = KeyValue(key, value, prev.create_revision, revision, prev.version + 1, lease)
        versions.append(kv)
        return kv, prev

    def write_all(
        self, puts: Sequence[Put], revisions: Iterable[Revision], history: list[Changed]
    ) -> tuple[int, int, Sequence[KeyValue]]:
        """Make the newest versions of keys, at one revision each, and add the changes to ``history``.

        Return how many bytes more are held now, and how many more of the present versions, and the replaced ones that
        had a lease. ``write`` for many: every member comes by here for every plain put, so all of it is in one loop.
        """
        versions, live, note = self._versions, self._live, history.append
        get, held_bytes, gone_bytes = versions.get, 0, 0
        leased: list[KeyValue] = []
        for at, put in zip(revisions, puts, strict=True):
            key, value = put.key, put.value
            held_bytes += len(key) + len(value) + VERSION_OVERHEAD_BYTES
            held = get(key)
            if held is None:
                versions[key] = kv = KeyValue(key, value, at, at, 1, NO_LEASE)
                live.add(key)
                note(Event(kv, None))
                continue
            if isinstance(held, list):
                line = held
            else:
                line = versions[key] = [held]
            prev = line[-1]
            if prev.version == 0:
                kv = KeyValue(key, value, at, at, 1, NO_LEASE)
                self._dead.remove(key)
                live.add(key)
                note(Event(kv, None))
            else:
                kv = KeyValue(key, value, prev.create_revision, at, prev.version + 1, NO_LEASE)
                gone_bytes += len(key) + len(prev.value) + VERSION_OVERHEAD_BYTES
                note(Event(kv, prev))
                if prev.lease:
                    leased.append(prev)
            line.append(kv)
        return held_bytes, held_bytes - gone_bytes, leased

    def delete(self, tombstone: KeyValue) -> None:
        """Add the deletion of a key that exists."""
        key = tombstone.key
        versions = self._as_list(key, self._versions[key])
        assert versions[-1].version > 0, f"{key!r} does not exist"
        versions.append(tombstone)
        self._live.remove(key)
        self._dead.add(key)

    def keys(self, first: bytes, end: bytes) -> Iterator[bytes]:
        """Iterate over the keys of [first, end) that exist now, in order."""
        if end == SINGLE_KEY:
            return iter((first,) if self.get(first) is not None else ())
        return _within(self._live, first, end)

    def count(self, first: bytes, end: bytes) -> int:
        """Return how many keys of [first, end) exist now."""
        if end == SINGLE_KEY:
            return 1 if self.get(first) is not None else 0
        below_end = len(self._live) if end == REST_OF_KEYS else self._live.bisect_left(end)
        return max(0, int(below_end - self._live.bisect_left(first)))

    def range(self, first: bytes, end: bytes) -> Iterator[KeyValue]:
        """Iterate over the present versions of [first, end), in key order."""
        versions = self._versions
        for key in self.keys(first, end):
            held = versions[key]
            yield held[-1] if isinstance(held, list) else held

    def range_at(self, first: bytes, end: bytes, revision: Revision) -> Iterator[KeyValue]:
        """Iterate over what could be read of [first, end) at ``revision``, in key order."""
        if end == SINGLE_KEY:
            keys: Iterator[bytes] = iter((first,))
        else:
            keys = merge(_within(self._live, first, end), _within(self._dead, first, end))
        for key in keys:
            kv = self.get_at(key, revision)
            if kv is not None:
                yield kv

    def versions(self, key: bytes) -> Sequence[KeyValue]:
        """Return every version of ``key`` that is held, oldest first; empty if there is none."""
        held = self._versions.get(key)
        if held is None:
            return ()
        return held if isinstance(held, list) else (held,)

    def key_steps(self, size: int) -> Iterator[list[bytes]]:
        """Yield every key that is held, in order, ``size`` at a time; keys may come and be deleted in between.

        A key that is held all the while is met exactly once.
        """
        after: bytes | None = None
        while True:
            inclusive = (after is None, True)
            live = islice(self._live.irange(minimum=after, inclusive=inclusive), size)
            dead = islice(self._dead.irange(minimum=after, inclusive=inclusive), size)
            keys = sorted([*live, *dead])[:size]  # two sorted runs: one merge
            if not keys:
                return
            after = keys[-1]
            yield keys

    def trim(self, key: bytes, revision: Revision) -> Sequence[KeyValue]:
        """Forget the versions of ``key`` that nobody can read at ``revision`` or later; return them."""
        versions = self.versions(key)
        keep_from = first_readable(versions, revision)
        if keep_from == 0:
            return ()
        forgotten, kept = versions[:keep_from], versions[keep_from:]
        if not kept:
            del self._versions[key]
            self._dead.remove(key)
        else:
            self._versions[key] = kept[0] if len(kept) == 1 else list(kept)
        return forgotten

    def _as_list(self, key: bytes, held: KeyValue | list[KeyValue]) -> list[KeyValue]:
        if isinstance(held, list):
            return held
        versions = self._versions[key] = [held]
        return versions


def first_readable(versions: Sequence[KeyValue], revision: Revision) -> int:
    """Return the place of the oldest version that a read at ``revision`` or later can meet."""
    place = bisect_right(versions, revision, key=_by_mod_revision)
    if place > 0 and versions[place - 1].version > 0:
        place -= 1  # still what a read at ``revision`` answers
    return place


def _within(keys: _Keys, first: bytes, end: bytes) -> Iterator[bytes]:
    if end == REST_OF_KEYS:
        return iter(keys.irange(minimum=first))
    if end <= first:  # irange would answer nothing as well, but only after comparing its way down
        return iter(())
    return iter(keys.irange(minimum=first, maximum=end, inclusive=(True, False)))
