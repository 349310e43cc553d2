"""Where we are stricter than etcd, and what a refusal leaves behind."""

import pytest

from raft_store.mvcc.lease import LeaseTable
from raft_store.mvcc.model import KeyNotFound, LeaseId
from raft_store.mvcc.requests import DeleteRange, Put, Txn
from raft_store.mvcc.store import Store
from raft_store.mvcc.txn import DuplicateKey, Executor, check_request


def test_a_put_inside_an_open_ended_deletion_is_refused() -> None:
    """etcd takes an open range for an empty one here, and one revision then changes a key twice."""
    with pytest.raises(DuplicateKey):
        check_request(Txn([], [DeleteRange(b"a", b"\0"), Put(b"k", b"")], []))


def test_a_refused_transaction_changes_nothing() -> None:
    store, leases = Store(), LeaseTable()
    leases.grant(LeaseId(1), 10)
    change = store.begin()
    with pytest.raises(KeyNotFound):
        Executor(store, leases, change).txn(
            Txn([], [Put(b"a", b"", LeaseId(1)), Put(b"missing", b"", ignore_value=True)], [])
        )
    change.commit()
    assert (store.revision, len(store.index), change.events) == (1, 0, [])
    held = leases.get(LeaseId(1))
    assert held is not None
    assert held.keys == set()
