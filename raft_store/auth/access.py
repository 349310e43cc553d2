"""Which permissions a command of the log needs. Decided when it is applied: permissions may change on its way there."""

from collections.abc import Iterable
from typing import Any

from raft_store.mvcc.lease import LeaseTable
from raft_store.mvcc.model import LeaseId
from raft_store.mvcc.requests import Compare, DeleteRange, LeaseRevoke, Operation, Put, Range, Txn

from .model import Access, Caller
from .requests import Authenticate, Management
from .store import AuthStore

_MANAGEMENT = tuple(Management.__args__)


def check_command(store: AuthStore, leases: LeaseTable, caller: Caller, command: Any) -> None:
    """Raise AuthError unless ``caller`` may do what ``command`` says.

    Commands that members propose for themselves, and those that etcd lets everybody make (granting a lease,
    compaction), need nothing.
    """
    match command:
        case Put() | DeleteRange() | Range():
            check_operation(store, leases, caller, command)
        case Txn():
            check_txn(store, leases, caller, command)
        case LeaseRevoke():
            check_lease(store, leases, caller, command.lease)
        case Authenticate():
            pass  # the password was the permission
        case _ if isinstance(command, _MANAGEMENT):
            store.check_admin(caller)


def check_txn(store: AuthStore, leases: LeaseTable, caller: Caller, txn: Txn) -> None:
    """Check every comparison and both branches, whichever will run: a refusal must not tell what was compared."""
    check_compares(store, caller, txn.compares)
    for operation in (*txn.success, *txn.failure):
        check_operation(store, leases, caller, operation)


def check_compares(store: AuthStore, caller: Caller, compares: Iterable[Compare]) -> None:
    """Comparing tells about a range as reading it does."""
    for compare in compares:
        store.check(caller, Access.READ, compare.key, compare.end)


def check_operation(store: AuthStore, leases: LeaseTable, caller: Caller, operation: Operation) -> None:
    """Check one operation, by itself or within a transaction."""
    match operation:
        case Range():
            store.check(caller, Access.READ, operation.key, operation.end)
        case Put():
            store.check(caller, Access.WRITE, operation.key)
            check_lease(store, leases, caller, operation.lease)
            if operation.prev_kv:
                store.check(caller, Access.READ, operation.key)
        case DeleteRange():
            if operation.prev_kv:
                store.check(caller, Access.READ, operation.key, operation.end)
            store.check(caller, Access.WRITE, operation.key, operation.end)
        case Txn():
            check_txn(store, leases, caller, operation)


def check_lease(store: AuthStore, leases: LeaseTable, caller: Caller, lease: LeaseId) -> None:
    """Who may not write a key may neither end its lease nor let another key live and die with it."""
    held = leases.get(lease)
    for key in held.keys if held is not None else ():
        store.check(caller, Access.WRITE, key)
