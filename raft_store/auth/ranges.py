"""Whether a set of key ranges covers another one."""

from collections.abc import Iterable

from raft_store.mvcc.model import REST_OF_KEYS, SINGLE_KEY

_AFTER_ALL_KEYS = None

Interval = tuple[bytes, bytes | None]  # [first, end); None: no end


def interval(key: bytes, end: bytes) -> Interval:
    """Return the interval that a range with etcd's two special ends means."""
    if end == SINGLE_KEY:
        return key, key + b"\0"
    return key, _AFTER_ALL_KEYS if end == REST_OF_KEYS else end


def cover(held: Iterable[Interval], wanted: Interval) -> bool:
    """Return whether every key of ``wanted`` lies in one of ``held``; neighbours count together."""
    reached, end = wanted
    for first, last in sorted(held, key=lambda one: one[0]):
        if first > reached:
            return False  # nobody holds [reached, first)
        if last is None:
            return True
        reached = max(reached, last)
        if end is not None and reached >= end:
            return True
    return False
