"""Transactions: what is compared, what runs, which revision it makes, and what is refused before anything runs."""

import grpc
import pytest

from tests.contract.kv.conftest import Api
from tests.contract.kv.test_kv import end_of, names, put, refused
from trireme_pb.etcdserverpb import rpc_pb2 as pb

EQUAL, GREATER, LESS, NOT_EQUAL = pb.Compare.EQUAL, pb.Compare.GREATER, pb.Compare.LESS, pb.Compare.NOT_EQUAL
VERSION, CREATE, MOD, VALUE, LEASE = (
    pb.Compare.VERSION,
    pb.Compare.CREATE,
    pb.Compare.MOD,
    pb.Compare.VALUE,
    pb.Compare.LEASE,
)


def put_op(key: bytes, value: bytes = b"v", **more: object) -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, **more))


def get_op(key: bytes, **more: object) -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, **more))


def delete_op(key: bytes, **more: object) -> pb.RequestOp:
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, **more))


def txn_op(**parts: object) -> pb.RequestOp:
    return pb.RequestOp(request_txn=pb.TxnRequest(**parts))


async def holds(api: Api, compare: pb.Compare) -> bool:
    return (await api.kv.Txn(pb.TxnRequest(compare=[compare]))).succeeded


@pytest.mark.parametrize(
    ("target", "operand", "result", "expected"),
    [
        (VERSION, {"version": 2}, EQUAL, True),
        (VERSION, {"version": 1}, GREATER, True),
        (VERSION, {"version": 2}, LESS, False),
        (VERSION, {"version": 3}, NOT_EQUAL, True),
        (VALUE, {"value": b"2"}, EQUAL, True),
        (VALUE, {"value": b"19"}, GREATER, True),
        (VALUE, {"value": b"2"}, NOT_EQUAL, False),
        (LEASE, {"lease": 0}, EQUAL, True),
        (LEASE, {"lease": 7}, LESS, True),
        (CREATE, {"create_revision": 0}, GREATER, True),
        (MOD, {"version": 0}, GREATER, True),  # an operand of another kind counts as 0
    ],
)
async def test_comparing_a_key(
    api: Api, prefix: bytes, *, target: int, operand: dict[str, object], result: int, expected: bool
) -> None:
    await put(api, prefix, b"1")
    await put(api, prefix, b"2")
    assert await holds(api, pb.Compare(key=prefix, target=target, result=result, **operand)) is expected


@pytest.mark.parametrize(
    ("target", "operand", "result", "expected"),
    [
        (VERSION, {"version": 0}, EQUAL, True),
        (CREATE, {"create_revision": 0}, EQUAL, True),
        (MOD, {"mod_revision": 1}, LESS, True),
        (LEASE, {"lease": 0}, EQUAL, True),
        (VALUE, {"value": b""}, EQUAL, False),  # nothing is true of a value that is not there
        (VALUE, {"value": b"x"}, NOT_EQUAL, False),
    ],
)
async def test_comparing_a_missing_key(
    api: Api, prefix: bytes, *, target: int, operand: dict[str, object], result: int, expected: bool
) -> None:
    assert await holds(api, pb.Compare(key=prefix, target=target, result=result, **operand)) is expected


async def test_comparing_a_range_must_hold_for_all(api: Api, prefix: bytes) -> None:
    for name in (b"a", b"b"):
        await put(api, prefix + name, b"same")
    compare = pb.Compare(key=prefix, range_end=end_of(prefix), target=VALUE, value=b"same", result=EQUAL)
    assert await holds(api, compare)
    await put(api, prefix + b"b", b"other")
    assert not await holds(api, compare)


async def test_all_writes_share_one_revision(api: Api, prefix: bytes) -> None:
    before = await put(api, prefix + b"gone")
    response = await api.kv.Txn(
        pb.TxnRequest(
            success=[
                put_op(prefix + b"a", b"1"),
                get_op(prefix + b"a"),
                delete_op(prefix + b"gone", prev_kv=True),
                get_op(prefix, range_end=end_of(prefix), count_only=True),
                txn_op(success=[put_op(prefix + b"b", b"2")]),
            ]
        )
    )
    assert (response.succeeded, response.header.revision) == (True, before + 1)
    a, deleted, counted, inner = (
        response.responses[1].response_range.kvs[0],
        response.responses[2].response_delete_range,
        response.responses[3].response_range,
        response.responses[4].response_txn,
    )
    assert (a.value, a.mod_revision) == (b"1", before + 1)  # a transaction reads its own writes
    assert (deleted.deleted, deleted.prev_kvs[0].mod_revision) == (1, before)
    assert counted.count == 1
    assert inner.succeeded
    (b,) = (await api.kv.Range(pb.RangeRequest(key=prefix + b"b"))).kvs
    assert b.mod_revision == before + 1


async def test_headers_of_the_parts(api: Api, prefix: bytes) -> None:
    before = await put(api, prefix)
    response = await api.kv.Txn(
        pb.TxnRequest(success=[get_op(prefix), put_op(prefix), get_op(prefix), delete_op(prefix + b"none")])
    )
    headers = [getattr(part, part.WhichOneof("response")).header.revision - before for part in response.responses]
    assert headers == [0, 1, 1, 1]
    assert not response.responses[0].response_range.header.cluster_id


async def test_a_txn_that_changes_nothing_makes_no_revision(api: Api, prefix: bytes) -> None:
    before = await put(api, prefix)
    read_only = await api.kv.Txn(pb.TxnRequest(success=[get_op(prefix)]))
    deletes_nothing = await api.kv.Txn(pb.TxnRequest(success=[delete_op(prefix + b"none")]))
    assert read_only.header.revision == deletes_nothing.header.revision == before


async def test_reads_of_old_revisions_in_a_txn_do_not_see_its_writes(api: Api, prefix: bytes) -> None:
    before = await put(api, prefix, b"old")
    response = await api.kv.Txn(pb.TxnRequest(success=[put_op(prefix, b"new"), get_op(prefix, revision=before)]))
    assert response.responses[1].response_range.kvs[0].value == b"old"


async def test_failure_branch(api: Api, prefix: bytes) -> None:
    revision = await put(api, prefix, b"1")
    stale = pb.Compare(key=prefix, target=MOD, mod_revision=revision - 1, result=EQUAL)
    response = await api.kv.Txn(
        pb.TxnRequest(compare=[stale], success=[put_op(prefix, b"2")], failure=[get_op(prefix)])
    )
    assert not response.succeeded
    assert response.responses[0].response_range.kvs[0].value == b"1"
    assert response.header.revision == revision


async def test_inner_comparisons_see_the_state_before_the_txn(api: Api, prefix: bytes) -> None:
    missing = pb.Compare(key=prefix, target=VERSION, version=0, result=EQUAL)
    inner = txn_op(compare=[missing], success=[put_op(prefix + b"saw nothing")], failure=[get_op(prefix)])
    response = await api.kv.Txn(pb.TxnRequest(success=[put_op(prefix), inner]))
    assert response.responses[1].response_txn.succeeded


DUPLICATE = (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request")


@pytest.mark.parametrize(
    ("operations", "accepted"),
    [
        pytest.param([put_op(b"k"), put_op(b"k")], False, id="put twice"),
        pytest.param([put_op(b"k"), delete_op(b"k")], False, id="put and deleted"),
        pytest.param([delete_op(b"j", range_end=b"l"), put_op(b"k")], False, id="put in a deleted range"),
        pytest.param([delete_op(b"j", range_end=b"k"), put_op(b"k")], True, id="put at the range's end"),
        pytest.param([put_op(b"k"), txn_op(failure=[put_op(b"k")])], False, id="again in an inner txn"),
        pytest.param([txn_op(success=[put_op(b"k")]), txn_op(success=[put_op(b"k")])], False, id="in two inner txns"),
        pytest.param([txn_op(success=[put_op(b"k")], failure=[put_op(b"k")])], True, id="in both branches of one"),
        pytest.param([delete_op(b"k"), delete_op(b"k")], True, id="deleted twice"),
        pytest.param([put_op(b"k"), get_op(b"k")], True, id="put and read"),
    ],
)
async def test_a_key_is_put_once_in_a_revision(api: Api, *, operations: list[pb.RequestOp], accepted: bool) -> None:
    call = api.kv.Txn(pb.TxnRequest(success=operations))
    if accepted:
        assert (await call).succeeded
    else:
        assert await refused(call) == DUPLICATE


async def test_branches_may_put_the_same_key(api: Api, prefix: bytes) -> None:
    response = await api.kv.Txn(pb.TxnRequest(success=[put_op(prefix)], failure=[put_op(prefix)]))
    assert response.succeeded


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        pytest.param(
            pb.TxnRequest(success=[get_op(b"k")] * 129),
            "etcdserver: too many operations in txn request",
            id="129 operations",
        ),
        pytest.param(
            pb.TxnRequest(compare=[pb.Compare(key=b"k")] * 129),
            "etcdserver: too many operations in txn request",
            id="129 comparisons",
        ),
        pytest.param(
            pb.TxnRequest(success=[txn_op(success=[get_op(b"k")] * 128)]),
            "etcdserver: too many operations in txn request",
            id="128 inside one",
        ),
        pytest.param(pb.TxnRequest(success=[pb.RequestOp()]), "etcdserver: key not found", id="empty operation"),
        pytest.param(pb.TxnRequest(compare=[pb.Compare()]), "etcdserver: key is not provided", id="compare no key"),
        pytest.param(pb.TxnRequest(failure=[put_op(b"")]), "etcdserver: key is not provided", id="put no key"),
    ],
)
async def test_malformed(api: Api, request_: pb.TxnRequest, text: str) -> None:
    assert await refused(api.kv.Txn(request_)) == (grpc.StatusCode.INVALID_ARGUMENT, text)


async def test_nothing_is_written_when_a_part_cannot_run(api: Api, prefix: bytes) -> None:
    future = (
        grpc.StatusCode.OUT_OF_RANGE,
        "etcdserver: mvcc: required revision is a future revision",
    )
    call = api.kv.Txn(pb.TxnRequest(success=[put_op(prefix), get_op(prefix, revision=1 << 40)]))
    assert await refused(call) == future
    unknown_lease = (grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found")
    call = api.kv.Txn(pb.TxnRequest(success=[put_op(prefix), put_op(prefix + b"l", lease=123456789)]))
    assert await refused(call) == unknown_lease
    no_key = (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: key not found")
    call = api.kv.Txn(pb.TxnRequest(success=[put_op(prefix), put_op(prefix + b"i", b"", ignore_value=True)]))
    assert await refused(call) == no_key
    assert await names(api, prefix) == []


async def test_128_operations_are_accepted(api: Api, prefix: bytes) -> None:
    response = await api.kv.Txn(pb.TxnRequest(success=[put_op(prefix + b"%d" % i) for i in range(128)]))
    assert len(response.responses) == 128
