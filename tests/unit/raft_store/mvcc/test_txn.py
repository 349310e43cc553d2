"""What one revision may do to one key, and what a refusal leaves behind."""

import pytest

from raft_store.mvcc.lease import LeaseTable
from raft_store.mvcc.model import KeyNotFound, LeaseId, Revision
from raft_store.mvcc.requests import DeleteRange, Put, Txn
from raft_store.mvcc.store import Loader, Store
from raft_store.mvcc.txn import Executor, check_request


def reloaded(store: Store) -> Store:
    view = store.view()
    loader = Loader(compact_revision=view.compact_revision, revision=view.revision, history_start=view.history_start)
    for kvs in view.base():
        loader.add_base(kvs)
    for kvs in view.history():
        loader.add_history(kvs)
    view.close()
    return loader.finish()


def test_everything_may_be_replaced_in_one_transaction() -> None:
    """Like etcd, let one revision delete all keys from one on and put some: a key may change twice in it then."""
    replace = Txn([], [DeleteRange(b"a", b"\0"), Put(b"k", b"new"), Put(b"l", b"new")], [])
    check_request(replace)
    store, leases = Store(), LeaseTable()
    for txn in (Txn([], [Put(b"k", b"old"), Put(b"x", b"old")], []), replace):
        change = store.begin()
        Executor(store, leases, change).txn(txn)
        change.commit()
    for held in (store, reloaded(store)):
        kvs, _ = held.range(b"a", b"\0", revision=Revision(0), limit=0)
        assert [(kv.key, kv.value, kv.version, kv.create_revision) for kv in kvs] == [
            (b"k", b"new", 1, 3),
            (b"l", b"new", 1, 3),
        ]
        kvs, _ = held.range(b"a", b"\0", revision=Revision(2), limit=0)
        assert [kv.value for kv in kvs] == [b"old", b"old"]
        ((_, events),) = held.events(Revision(3), Revision(3))
        assert [(event.kv.key, event.is_delete) for event in events] == [
            (b"k", True),
            (b"x", True),
            (b"k", False),
            (b"l", False),
        ]


def test_what_a_transaction_deletes_it_cannot_keep() -> None:
    """etcd breaks down over this; nothing may be written before it is found out."""
    store, leases = Store(), LeaseTable()
    change = store.begin()
    executor = Executor(store, leases, change)
    executor.put(Put(b"k", b"1"))
    change.commit()
    change = store.begin()
    with pytest.raises(KeyNotFound):
        Executor(store, leases, change).txn(Txn([], [DeleteRange(b"a", b"\0"), Put(b"k", b"", ignore_value=True)], []))
    assert change.events == []


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
