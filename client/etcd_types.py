"""What the etcd client takes, gives and raises.

Errors
    EtcdError
        Refused             the store understood and said no; nothing was changed
            Compacted       the revision is gone; ``compact_revision`` is the oldest that can be read, if it was told
            FutureRevision
            LeaseNotFound
            NoSpace
        Unavailable         no member could do it in time; a write was surely not applied
        Unknown             a write may or may not have been applied, now or later; read before writing again
"""

from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path

import msgspec


class EtcdError(Exception):
    """Something the caller has to deal with."""


class Refused(EtcdError):
    """The store said no; the text is etcd's."""


class Compacted(Refused):
    """The history asked for is gone."""

    def __init__(self, text: str, compact_revision: int = 0) -> None:
        super().__init__(text)
        self.compact_revision = compact_revision  # 0: the store did not tell


class FutureRevision(Refused):
    """The revision asked for has not happened yet."""


class LeaseNotFound(Refused):
    """The lease has ended, or never was."""


class NoSpace(Refused):
    """The store's quota is used up."""


class Unavailable(EtcdError):
    """No member could do it in time; nothing was changed."""


class Unknown(EtcdError):
    """Nobody can say whether the write was, or will be, applied."""


class TlsFiles(msgspec.Struct, frozen=True):
    """PEM files: whom we trust, and who we are."""

    ca: Path
    cert: Path
    key: Path


class KeyValue(msgspec.Struct, frozen=True, gc=False):
    """One version of a key."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int  # puts since it was created
    lease: int  # 0: none


class RangeResult(msgspec.Struct, frozen=True):
    """What a range holds. ``revision``: the store's newest when it answered, also for reads of old ones."""

    revision: int
    kvs: Sequence[KeyValue]
    more: bool  # the limit left something out
    count: int  # of all keys in the range, whatever the limit


class WriteResult(msgspec.Struct, frozen=True):
    """A write's revision, and what it replaced if that was asked for."""

    revision: int
    previous: Sequence[KeyValue] = ()
    deleted: int = 0


class Fact(IntEnum):
    """What of a key a transaction can compare; the numbers are etcd's."""

    VERSION = 0
    CREATE_REVISION = 1
    MOD_REVISION = 2
    VALUE = 3
    LEASE = 4


class Relation(IntEnum):
    """How the fact must relate to the operand; the numbers are etcd's."""

    EQUAL = 0
    GREATER = 1
    LESS = 2
    NOT_EQUAL = 3


class Compare(msgspec.Struct, frozen=True):
    """A condition of a transaction. All facts of a missing key are 0; of its value nothing is ever true."""

    key: bytes
    fact: Fact
    relation: Relation
    operand: int | bytes


class GetOp(msgspec.Struct, frozen=True):
    """Read [key, end) in a transaction; ``end`` empty: the one key."""

    key: bytes
    end: bytes = b""
    limit: int = 0


class PutOp(msgspec.Struct, frozen=True):
    """Write a key in a transaction."""

    key: bytes
    value: bytes
    lease: int = 0
    previous: bool = False


class DeleteOp(msgspec.Struct, frozen=True):
    """Delete [key, end) in a transaction."""

    key: bytes
    end: bytes = b""
    previous: bool = False


Operation = GetOp | PutOp | DeleteOp


class TxnResult(msgspec.Struct, frozen=True):
    """Which branch ran, and one result for each of its operations."""

    revision: int
    succeeded: bool
    results: Sequence[RangeResult | WriteResult]


class Event(msgspec.Struct, frozen=True, gc=False):
    """A change of a key; of a deletion ``kv`` has only key and mod_revision."""

    kv: KeyValue
    deleted: bool
    previous: KeyValue | None = None  # only if the watch asked for it and the key existed


class WatchBatch(msgspec.Struct, frozen=True):
    """Everything that one revision changed in the watched range.

    Without events: progress; nothing up to and with ``revision`` is still to come.
    """

    revision: int
    events: Sequence[Event] = ()


class Lease(msgspec.Struct, frozen=True):
    """A lease as it was granted; the time may be more than was asked for."""

    lease: int
    ttl_s: int


class Status(msgspec.Struct, frozen=True):
    """How one member sees itself and its group."""

    endpoint: str
    member: int
    leader: int  # 0: none known
    term: int
    revision: int
    commit_index: int
    applied_index: int
    db_bytes: int
    version: str
    errors: Sequence[str]


def prefix_end(prefix: bytes) -> bytes:
    """Return the end of the range of all keys that start with ``prefix``."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b"\0"
