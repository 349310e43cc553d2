"""Transactions of one put, which machines apply by less, against what runs all of them."""

from hypothesis import given
from hypothesis import strategies as st

from raft_store.engine import Entry, Index, Term
from raft_store.machine import Machine, encode
from raft_store.mvcc.lease import LeaseClock
from raft_store.mvcc.model import LeaseId, StoreError
from raft_store.mvcc.requests import Compare, CompareResult, CompareTarget, DeleteRange, LeaseGrant, Put, Range, Txn
from raft_store.mvcc.txn import Executor

KEYS = st.sampled_from([b"a", b"b"])
ENDS = st.sampled_from([b"b", b"c", b"\0"])
PUTS = st.builds(
    Put,
    KEYS,
    st.binary(max_size=2),
    st.sampled_from([LeaseId(0), LeaseId(1), LeaseId(2)]),  # the last of them does not exist
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
NUMBERS = (CompareTarget.VERSION, CompareTarget.CREATE, CompareTarget.MOD, CompareTarget.LEASE)
COMPARES = st.builds(
    Compare, KEYS, st.just(b"") | ENDS, st.sampled_from(NUMBERS), st.sampled_from(CompareResult), st.integers(0, 4)
) | st.builds(
    Compare,
    KEYS,
    st.just(b"") | ENDS,
    st.just(CompareTarget.VALUE),
    st.sampled_from(CompareResult),
    st.binary(max_size=1),
)
BRANCHES = st.lists(PUTS | st.builds(Range, KEYS) | st.builds(DeleteRange, KEYS), max_size=1)
TXNS = st.lists(st.builds(Txn, st.lists(COMPARES, max_size=2), BRANCHES, BRANCHES), max_size=12)


def run(machine: Machine, txn: Txn) -> object:
    """Return what comes of ``txn`` where nothing is done by less."""
    change = machine.store.begin()
    try:
        result = Executor(machine.store, machine.leases, change, machine.applied).txn(txn)
    except StoreError as refusal:
        return repr(refusal)
    change.commit()
    return result


@given(TXNS)
def test_one_put_is_a_transaction_like_any_other(txns: list[Txn]) -> None:
    one, other = (Machine(LeaseClock(lambda: 0.0)) for _ in range(2))
    grant = Entry(Index(1), Term(1), encode(LeaseGrant(LeaseId(1), 10)))
    one.apply([grant])
    other.apply([grant])
    results = one.apply([Entry(Index(i), Term(1), encode(txn)) for i, txn in enumerate(txns, 2)])
    told = [repr(result) if isinstance(result, StoreError) else result for result in results]
    wanted = [run(other, txn) for txn in txns]
    assert told == wanted
    assert list(one.snapshot()) == list(other.snapshot())
    assert one.applied == other.applied
