"""Every key's versions since the last compaction, in key order.

Keys that exist now and keys that only have a past are kept in two sorted lists: counting and listing the present, which
is what nearly every request wants, never walks over the dead.
"""

from bisect import bisect_right
from collections.abc import Iterator
from heapq import merge
from operator import attrgetter

from sortedcontainers import SortedList

from .model import REST_OF_KEYS, SINGLE_KEY, KeyValue, Revision

_by_mod_revision = attrgetter("mod_revision")


class KeyIndex:
    """Key -> versions, oldest first; a deletion is a version too (``version == 0``)."""

    def __init__(self) -> None:
        self._versions: dict[bytes, list[KeyValue]] = {}
        self._live: SortedList[bytes] = SortedList()
        self._dead: SortedList[bytes] = SortedList()  # deleted, but their past can still be read

    def __len__(self) -> int:
        return len(self._live)

    def get(self, key: bytes) -> KeyValue | None:
        """Return the present version of ``key``."""
        versions = self._versions.get(key)
        if versions is None or versions[-1].version == 0:
            return None
        return versions[-1]

    def get_at(self, key: bytes, revision: Revision) -> KeyValue | None:
        """Return the version of ``key`` that could be read at ``revision``."""
        versions = self._versions.get(key)
        if versions is None:
            return None
        at = bisect_right(versions, revision, key=_by_mod_revision)
        if at == 0 or versions[at - 1].version == 0:
            return None
        return versions[at - 1]

    def put(self, kv: KeyValue) -> None:
        """Add the newest version of its key; ``kv.mod_revision`` is above every older one's."""
        versions = self._versions.get(kv.key)
        if versions is None:
            self._versions[kv.key] = [kv]
            self._live.add(kv.key)
            return
        if versions[-1].version == 0:
            self._dead.remove(kv.key)
            self._live.add(kv.key)
        versions.append(kv)

    def delete(self, tombstone: KeyValue) -> None:
        """Add the deletion of a key that exists."""
        versions = self._versions[tombstone.key]
        assert versions[-1].version > 0, f"{tombstone.key!r} does not exist"
        versions.append(tombstone)
        self._live.remove(tombstone.key)
        self._dead.add(tombstone.key)

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
        return (versions[key][-1] for key in self.keys(first, end))

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

    def versions(self) -> Iterator[KeyValue]:
        """Iterate over every version held: in key order, each key's oldest first."""
        for key in merge(self._live, self._dead):
            yield from self._versions[key]

    def trim(self, key: bytes, revision: Revision) -> list[KeyValue]:
        """Forget the versions of ``key`` that nobody can read at ``revision`` or later; return them."""
        versions = self._versions.get(key)
        if versions is None:
            return []
        keep_from = bisect_right(versions, revision, key=_by_mod_revision)
        if keep_from > 0 and versions[keep_from - 1].version > 0:
            keep_from -= 1  # still what a read at ``revision`` answers
        forgotten = versions[:keep_from]
        if keep_from == len(versions):
            del self._versions[key]
            self._dead.remove(key)
        else:
            del versions[:keep_from]
        return forgotten


def _within(keys: "SortedList[bytes]", first: bytes, end: bytes) -> Iterator[bytes]:
    if end == REST_OF_KEYS:
        return iter(keys.irange(minimum=first))
    if end <= first:  # irange would answer nothing as well, but only after comparing its way down
        return iter(())
    return iter(keys.irange(minimum=first, maximum=end, inclusive=(True, False)))
