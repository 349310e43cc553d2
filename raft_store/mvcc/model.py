"""What the store holds and what can go wrong when it is asked.

Errors
    StoreError
        Compacted           the revision is gone
        FutureRevision      the revision is not there yet
        KeyNotFound         ignore_value or ignore_lease on a key that does not exist
        LeaseNotFound
        LeaseExists
        LeaseTooLong
        NoSpace             the quota's alarm is on
        Corrupt             the corruption alarm is on
        InvalidRequest      what no state of the store could have accepted; carries the reason's name
"""

from collections.abc import Sequence
from typing import NewType

import msgspec

Revision = NewType("Revision", int)  # counts changes; an empty store is at 1
LeaseId = NewType("LeaseId", int)  # 0: no lease

FIRST_REVISION = Revision(1)
NO_LEASE = LeaseId(0)
REST_OF_KEYS = b"\0"  # as a range end: every key from the first on
SINGLE_KEY = b""  # as a range end: the first key alone
VERSION_OVERHEAD_BYTES = 48  # about what etcd adds to key and value on disk; makes sizes comparable, not equal


class StoreError(Exception):
    """The caller erred; nothing was changed."""


class Compacted(StoreError):
    """The history before ``compact_revision`` is gone."""

    def __init__(self, compact_revision: Revision) -> None:
        super().__init__(f"compacted up to revision {compact_revision}")
        self.compact_revision = compact_revision


class FutureRevision(StoreError):
    """The revision asked for has not happened yet."""


class KeyNotFound(StoreError):
    """A put that keeps the old value or lease needs an old value."""


class LeaseNotFound(StoreError):
    """No such lease; it may have expired."""


class LeaseExists(StoreError):
    """A lease of this id is in force."""


class LeaseTooLong(StoreError):
    """Nobody can promise to keep a lease for so long."""


class NoSpace(StoreError):
    """The quota is used up; reads and deletions still work."""


class Corrupt(StoreError):
    """Members were found to differ; the store takes no writes until the alarm is cleared."""


class KeyValue(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One version of a key. version 0: the key was deleted at ``mod_revision``."""

    key: bytes
    value: bytes
    create_revision: Revision
    mod_revision: Revision
    version: int
    lease: LeaseId


class Event(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One key's change within a revision; ``prev`` is the version it replaced, if the key existed."""

    kv: KeyValue
    prev: KeyValue | None

    @property
    def is_delete(self) -> bool:
        """Return whether the key was deleted."""
        return self.kv.version == 0


# What one revision changed: nearly always one key, and then no more than that is kept. A tuple around each would be
# looked at by the garbage collector once, which stalls a member that takes 50,000 of them a second for 20 ms each time.
Changed = Event | tuple[Event, ...]


def as_changed(events: Sequence[Event]) -> Changed:
    """Return what is kept of a revision's events, of which there is one at least."""
    return events[0] if len(events) == 1 else tuple(events)


def events_of(changed: Changed) -> Sequence[Event]:
    """Return the events of a revision."""
    return changed if isinstance(changed, tuple) else (changed,)


def covers(first: bytes, end: bytes, key: bytes) -> bool:
    """Return whether the range [first, end), with etcd's two special ends, contains ``key``."""
    if end == SINGLE_KEY:
        return key == first
    return key >= first and (end == REST_OF_KEYS or key < end)
