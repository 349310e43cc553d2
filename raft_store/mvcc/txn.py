"""Reading and writing by request: ranges with their orders and filters, puts, deletions, and transactions of them.

A write cannot be undone, so a request is first checked against itself (``check_request``, before it is proposed), then
against the store (when it is applied, before its first write); past that nothing may fail.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter, eq, gt, lt, ne
from typing import Any, assert_never

import msgspec

from raft_store.counts import Applied

from .lease import LeaseTable
from .model import NO_LEASE, REST_OF_KEYS, SINGLE_KEY, Compacted, KeyNotFound, KeyValue, Revision, StoreError, covers
from .requests import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    DeleteResult,
    Operation,
    OperationResult,
    Put,
    PutResult,
    Range,
    RangeResult,
    SortOrder,
    SortTarget,
    Txn,
    TxnResult,
)
from .store import Change, Store

MAX_TXN_OPERATIONS = 128


class InvalidRequest(StoreError):
    """No state of the store could accept the request."""


class EmptyKey(InvalidRequest):
    """A key has at least one byte."""


class ValueProvided(InvalidRequest):
    """A put that keeps the old value cannot bring one."""


class LeaseProvided(InvalidRequest):
    """A put that keeps the old lease cannot bring one."""


class TooManyOperations(InvalidRequest):
    """A branch of a transaction, or its comparisons, are too many."""


class DuplicateKey(InvalidRequest):
    """A transaction would change one key twice in one revision."""


def check_request(request: Operation, *, max_operations: int = MAX_TXN_OPERATIONS) -> None:
    """Raise InvalidRequest for what no state of the store could accept."""
    match request:
        case Txn():
            _check_txn(request, max_operations)
            for branch in (request.success, request.failure):
                if len(branch) > 1 or (branch and isinstance(branch[0], Txn)):  # what is alone changes nothing twice
                    _check_changes(branch)
        case _:
            _check_operation(request, max_operations)


def _check_operation(request: Operation, max_operations: int) -> None:
    if isinstance(request, Txn):
        _check_txn(request, max_operations)
        return
    if not request.key:
        raise EmptyKey
    if isinstance(request, Put):
        if request.ignore_value and request.value:
            raise ValueProvided
        if request.ignore_lease and request.lease != NO_LEASE:
            raise LeaseProvided


def _check_txn(txn: Txn, max_operations: int) -> None:
    operations = max(len(txn.compares), len(txn.success), len(txn.failure))
    if operations > max_operations:
        raise TooManyOperations
    for compare in txn.compares:
        if not compare.key:
            raise EmptyKey
    for operation in (*txn.success, *txn.failure):
        _check_operation(operation, max_operations - operations)


class _Changes:
    """The keys that a list of operations puts and the ranges that it deletes."""

    def __init__(self) -> None:
        self.puts: set[bytes] = set()
        self.deletions: list[tuple[bytes, bytes]] = []

    def add_put(self, key: bytes) -> None:
        """Raise DuplicateKey if ``key`` is changed already."""
        if key in self.puts or any(covers(first, end, key) for first, end in self.deletions):
            raise DuplicateKey
        self.puts.add(key)


def _check_changes(operations: Sequence[Operation]) -> _Changes:
    """Raise DuplicateKey if two operations that can both run put one key, or one puts what another deletes.

    Like etcd, let a deletion of all keys from one on pass beside puts: "replace everything" is one transaction then.
    """
    changes = _Changes()
    changes.deletions = [
        (op.key, op.end) for op in operations if isinstance(op, DeleteRange) and op.end != REST_OF_KEYS
    ]
    for op in operations:
        if isinstance(op, Txn):
            success, failure = _check_changes(op.success), _check_changes(op.failure)
            # Only one branch of the inner transaction runs, so both may put the same key.
            for key in success.puts | failure.puts:
                changes.add_put(key)
            changes.deletions += success.deletions + failure.deletions
    for op in operations:
        if isinstance(op, Put):
            changes.add_put(op.key)
    return changes


def is_read_only(txn: Txn) -> bool:
    """Return whether neither branch writes."""
    return not [
        op
        for op in (*txn.success, *txn.failure)
        if not (is_read_only(op) if isinstance(op, Txn) else isinstance(op, Range))
    ]


def read(store: Store, request: Range) -> RangeResult:
    """Answer a range from the newest committed revision or the one asked for. Raises Compacted, FutureRevision."""
    store.check_readable(request.revision)
    return _range(store, request, store.revision)


def read_txn(store: Store, txn: Txn) -> TxnResult:
    """Answer a transaction that writes nothing. Raises Compacted, FutureRevision."""
    assert is_read_only(txn), "a transaction that writes goes through the log"
    return Executor(store, LeaseTable(), store.begin()).txn(txn)


class Executor:
    """Runs requests inside one change."""

    def __init__(self, store: Store, leases: LeaseTable, change: Change, applied: Applied | None = None) -> None:
        self._store = store
        self._leases = leases
        self._change = change
        self._applied = applied or Applied()

    def put(self, request: Put) -> PutResult:
        """Raises KeyNotFound, LeaseNotFound."""
        self._leases.check(request.lease)
        self._check_kept(request)
        return self._put(request)

    def delete_range(self, request: DeleteRange) -> DeleteResult:
        """Delete [key, end) and detach what was deleted from its leases."""
        self._applied.deletes += 1
        deleted = self._change.delete_range(request.key, request.end)
        for kv in deleted:
            self._leases.detach(kv.key, kv.lease)
        return DeleteResult(self._revision(), len(deleted), deleted if request.prev_kv else ())

    def txn(self, request: Txn) -> TxnResult:
        """Decide every comparison, check every operation that will run, then run them.

        Raises Compacted, FutureRevision, KeyNotFound, LeaseNotFound; nothing was written then.
        """
        plan = _decide(self._store, request)
        operations = list(plan.flat())
        self._check_puts(operations)
        for operation in operations:
            if isinstance(operation, Range) and operation.revision:
                self._store.check_readable(operation.revision)
                # Below 0 means the newest to a plain range, and something long past to a transaction, as in etcd.
                if operation.revision < self._store.compact_revision:
                    raise Compacted(self._store.compact_revision)
        self._applied.txns += 1
        return self._run(plan)

    def _check_puts(self, operations: "Sequence[Range | Put | DeleteRange]") -> None:
        emptied: list[bytes] = []  # the transaction deletes everything from these on before the put
        for operation in operations:
            if isinstance(operation, DeleteRange) and operation.end == REST_OF_KEYS:
                emptied.append(operation.key)
            elif isinstance(operation, Put):
                self._check_kept(operation)
                if (operation.ignore_value or operation.ignore_lease) and any(operation.key >= key for key in emptied):
                    raise KeyNotFound(operation.key)
                self._leases.check(operation.lease)

    def _run(self, plan: "_Plan") -> TxnResult:
        results: list[OperationResult] = []
        for operation in plan.operations:
            match operation:
                case _Plan():
                    results.append(self._run(operation))
                case Put():
                    results.append(self._put(operation))
                case Range():
                    results.append(_range(self._store, operation, self._revision()))
                case DeleteRange():
                    results.append(self.delete_range(operation))
                case _ as unreachable:
                    assert_never(unreachable)
        return TxnResult(self._revision(), plan.succeeded, results)

    def _check_kept(self, request: Put) -> None:
        if (request.ignore_value or request.ignore_lease) and self._store.index.get(request.key) is None:
            raise KeyNotFound(request.key)

    def _put(self, request: Put) -> PutResult:
        self._applied.puts += 1
        value, lease = request.value, request.lease
        if request.ignore_value or request.ignore_lease:
            present = self._store.index.get(request.key)
            assert present is not None, f"{request.key!r} vanished between check and write"
            value = present.value if request.ignore_value else value
            lease = present.lease if request.ignore_lease else lease
        prev = self._change.put(request.key, value, lease)
        self._leases.move(request.key, prev.lease if prev is not None else NO_LEASE, lease)
        return PutResult(self._revision(), prev if request.prev_kv else None)

    def _revision(self) -> Revision:
        """Return the revision that an answer given now belongs to."""
        return self._change.revision if self._change.events else self._store.revision


class _Plan(msgspec.Struct):
    """A transaction whose comparisons are decided, all of them before any write."""

    succeeded: bool
    operations: "list[Range | Put | DeleteRange | _Plan]"

    def flat(self) -> "Iterator[Range | Put | DeleteRange]":
        """Iterate over what will run, in order."""
        for operation in self.operations:
            if isinstance(operation, _Plan):
                yield from operation.flat()
            else:
                yield operation


def _decide(store: Store, txn: Txn) -> _Plan:
    succeeded = holds(store, txn.compares)
    branch = txn.success if succeeded else txn.failure
    return _Plan(succeeded, [_decide(store, op) if isinstance(op, Txn) else op for op in branch])


def holds(store: Store, compares: Iterable[Compare]) -> bool:
    """Return whether every comparison holds."""
    # No generator: every member passes here for every transaction of anybody.
    return not [compare for compare in compares if not _holds(store, compare)]


_MISSING = KeyValue(b"", b"", Revision(0), Revision(0), 0, NO_LEASE)

_FACTS: dict[CompareTarget, Callable[[KeyValue], Any]] = {
    CompareTarget.VERSION: attrgetter("version"),
    CompareTarget.CREATE: attrgetter("create_revision"),
    CompareTarget.MOD: attrgetter("mod_revision"),
    CompareTarget.VALUE: attrgetter("value"),
    CompareTarget.LEASE: attrgetter("lease"),
}


_RELATIONS: dict[CompareResult, Callable[[Any, Any], Any]] = {
    CompareResult.EQUAL: eq,
    CompareResult.NOT_EQUAL: ne,
    CompareResult.GREATER: gt,
    CompareResult.LESS: lt,
}


def _holds(store: Store, compare: Compare) -> bool:
    if compare.end == SINGLE_KEY:
        present = store.index.get(compare.key)
        if present is not None:
            return _compare(compare, present)
        kvs: list[KeyValue] = []
    else:
        kvs = list(store.index.range(compare.key, compare.end))
    if not kvs:
        # A missing key has no value at all, so nothing can be said of it; its numbers are 0.
        return compare.target is not CompareTarget.VALUE and _compare(compare, _MISSING)
    return all(_compare(compare, kv) for kv in kvs)


def _compare(compare: Compare, kv: KeyValue) -> bool:
    return bool(_RELATIONS[compare.result](_FACTS[compare.target](kv), compare.operand))


_SORT_KEYS: dict[SortTarget, Callable[[KeyValue], Any]] = {
    SortTarget.KEY: attrgetter("key"),
    SortTarget.VERSION: attrgetter("version"),
    SortTarget.CREATE: attrgetter("create_revision"),
    SortTarget.MOD: attrgetter("mod_revision"),
    SortTarget.VALUE: attrgetter("value"),
}


def _range(store: Store, request: Range, revision: Revision) -> RangeResult:
    """Read, then filter, then sort, then limit; the count knows of none of them."""
    limit = max(0, request.limit)
    if request.count_only:
        count = store.count(request.key, request.end, revision=request.revision)
        return RangeResult(revision, (), more=False, count=count)
    order = request.order
    if order is SortOrder.NONE and request.target is not SortTarget.KEY:
        order = SortOrder.ASCEND
    filters = _filters(request)
    # Without an order, as in etcd, only the first keys are sorted: as many as the limit allows, and one more.
    whole = (
        bool(filters)
        or order is SortOrder.DESCEND
        or (request.order is SortOrder.ASCEND and request.target is not SortTarget.KEY)
    )
    kvs, count = store.range(
        request.key, request.end, revision=request.revision, limit=0 if whole or not limit else limit + 1
    )
    for keeps in filters:
        kvs = [kv for kv in kvs if keeps(kv)]
    if order is SortOrder.DESCEND or request.target is not SortTarget.KEY:
        kvs.sort(key=_SORT_KEYS[request.target], reverse=order is SortOrder.DESCEND)
    more = bool(limit) and len(kvs) > limit
    if more:
        del kvs[limit:]
    if request.keys_only:
        kvs = [msgspec.structs.replace(kv, value=b"") for kv in kvs]
    return RangeResult(revision, kvs, more, count)


def _filters(request: Range) -> list[Callable[[KeyValue], bool]]:
    filters: list[Callable[[KeyValue], bool]] = []
    if low := request.min_mod_revision:
        filters.append(lambda kv: kv.mod_revision >= low)
    if high := request.max_mod_revision:
        filters.append(lambda kv: kv.mod_revision <= high)
    if first := request.min_create_revision:
        filters.append(lambda kv: kv.create_revision >= first)
    if last := request.max_create_revision:
        filters.append(lambda kv: kv.create_revision <= last)
    return filters


def delete_keys(executor: Executor, keys: Iterable[bytes]) -> None:
    """Delete single keys, as the end of their lease demands."""
    for key in keys:
        executor.delete_range(DeleteRange(key))
