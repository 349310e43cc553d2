"""What the store can be asked, and what it answers: the commands of the replicated log are made of these.

Encoded as MessagePack arrays with a number for the kind: the numbers and the order of fields are the log's format.
"""

from collections.abc import Sequence
from enum import IntEnum

import msgspec

from .model import NO_LEASE, KeyValue, LeaseId, Revision

NEWEST = Revision(0)


class SortOrder(IntEnum):
    """NONE leaves key order, unless the target is something else than the key."""

    NONE = 0
    ASCEND = 1
    DESCEND = 2


class SortTarget(IntEnum):
    """What a range is sorted by."""

    KEY = 0
    VERSION = 1
    CREATE = 2
    MOD = 3
    VALUE = 4


class Range(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Read [key, end). A filter of 0 filters nothing."""

    key: bytes
    end: bytes = b""
    limit: int = 0
    revision: Revision = NEWEST
    order: SortOrder = SortOrder.NONE
    target: SortTarget = SortTarget.KEY
    keys_only: bool = False
    count_only: bool = False
    min_mod_revision: Revision = NEWEST
    max_mod_revision: Revision = NEWEST
    min_create_revision: Revision = NEWEST
    max_create_revision: Revision = NEWEST


class Put(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Write one key; ``ignore_*`` keep what the present version has."""

    key: bytes
    value: bytes
    lease: LeaseId = NO_LEASE
    prev_kv: bool = False
    ignore_value: bool = False
    ignore_lease: bool = False


class DeleteRange(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Delete [key, end)."""

    key: bytes
    end: bytes = b""
    prev_kv: bool = False


class CompareTarget(IntEnum):
    """Which fact of a key is compared."""

    VERSION = 0
    CREATE = 1
    MOD = 2
    VALUE = 3
    LEASE = 4


class CompareResult(IntEnum):
    """How the key's fact must relate to the operand."""

    EQUAL = 0
    GREATER = 1
    LESS = 2
    NOT_EQUAL = 3


class Compare(msgspec.Struct, frozen=True, array_like=True):
    """One condition over every key of [key, end); ``operand`` is bytes for VALUE and a number otherwise."""

    key: bytes
    end: bytes
    target: CompareTarget
    result: CompareResult
    operand: bytes | int


class Txn(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """If every comparison holds, ``success``, else ``failure``; all in one revision."""

    compares: "list[Compare]"
    success: "list[Operation]"
    failure: "list[Operation]"


class Compact(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Forget what was before ``revision``."""

    revision: Revision


class LeaseGrant(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Make a lease; who proposes it has picked the id."""

    lease: LeaseId
    ttl_s: int


class LeaseRevoke(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """End a lease and delete its keys."""

    lease: LeaseId


class LeaseRenew(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """Let leases start anew."""

    leases: list[LeaseId]


class Expiry(msgspec.Struct, frozen=True, array_like=True):
    """A lease whose time ran out when it had been renewed so many times."""

    lease: LeaseId
    renewals: int


class LeaseExpire(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """End leases as the clock of the leader of ``term`` demands, save those that were renewed in the meantime."""

    term: int
    expired: list[Expiry]


class AlarmKind(IntEnum):
    """What an alarm is about."""

    NONE = 0
    NOSPACE = 1
    CORRUPT = 2


class Alarm(msgspec.Struct, frozen=True, array_like=True):
    """An alarm that a member raised."""

    member: int
    kind: AlarmKind


class SetAlarm(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """Raise an alarm or clear it."""

    alarm: Alarm
    active: bool


class Publish(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """Tell everyone where clients reach a member."""

    member: int
    name: str
    client_urls: list[str]


class Audit(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """Let every member take a checksum of its keys as they are here; see ``audit``."""


class Audited(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """What a member found when it came by the ``Audit`` at ``index``."""

    index: int
    member: int
    checksum: int


Operation = Range | Put | DeleteRange | Txn
Command = (
    Put
    | DeleteRange
    | Txn
    | Compact
    | LeaseGrant
    | LeaseRevoke
    | LeaseRenew
    | LeaseExpire
    | SetAlarm
    | Publish
    | Audit
    | Audited
)


class RangeResult(msgspec.Struct, frozen=True):
    """``count``: of all keys in the range, whatever limit and filters left of them."""

    revision: Revision
    kvs: Sequence[KeyValue]
    more: bool
    count: int


class PutResult(msgspec.Struct, frozen=True, gc=False):
    """``prev``: the version replaced, if it was asked for."""

    revision: Revision
    prev: KeyValue | None


class DeleteResult(msgspec.Struct, frozen=True):
    """``prevs``: what was deleted, if it was asked for."""

    revision: Revision
    deleted: int
    prevs: Sequence[KeyValue]


class TxnResult(msgspec.Struct, frozen=True):
    """One result for each operation of the branch taken."""

    revision: Revision
    succeeded: bool
    results: "Sequence[OperationResult]"


OperationResult = RangeResult | PutResult | DeleteResult | TxnResult


class Done(msgspec.Struct, frozen=True):
    """The command took effect; there is nothing to tell but the revision."""

    revision: Revision


class Granted(msgspec.Struct, frozen=True):
    """The lease as it was made: ``ttl_s`` may be more than what was asked for."""

    revision: Revision
    lease: LeaseId
    ttl_s: int


class Renewed(msgspec.Struct, frozen=True):
    """Granted TTL of each lease asked for, 0 for one that does not exist; revision before the renewal."""

    revision: Revision
    ttls_s: Sequence[int]
