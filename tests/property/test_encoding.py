"""What is written as protobuf by hand against protobuf itself."""

from hypothesis import given
from hypothesis import strategies as st

from raft_store.etcd_api.encoding import Answers, Versions, key_value_field, varint
from raft_store.mvcc.model import Event, KeyValue, Revision
from raft_store.mvcc.requests import DeleteResult, PutResult, RangeResult, TxnResult
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.mvccpb import kv_pb2

NUMBERS = st.one_of(st.integers(0, 300), st.integers(0, (1 << 63) - 1))
SIGNED = st.integers(-(1 << 63), (1 << 63) - 1)
KVS = st.builds(KeyValue, st.binary(max_size=200), st.binary(max_size=300), NUMBERS, NUMBERS, NUMBERS, SIGNED)
RANGES = st.builds(RangeResult, NUMBERS, st.lists(KVS, max_size=4), st.booleans(), NUMBERS)
PUTS = st.builds(PutResult, NUMBERS, st.none() | KVS)
DELETES = st.builds(DeleteResult, NUMBERS, NUMBERS, st.lists(KVS, max_size=3))
TXNS = st.recursive(
    st.builds(TxnResult, NUMBERS, st.booleans(), st.lists(RANGES | PUTS | DELETES, max_size=3)),
    lambda inner: st.builds(TxnResult, NUMBERS, st.booleans(), st.lists(RANGES | inner, max_size=3)),
    max_leaves=4,
)


def answers(member: int = 1 << 63, term: int = 7) -> Answers:
    return Answers(cluster_id=(1 << 64) - 1, sender=lambda: (member, term))


def header(revision: int, term: int = 7) -> pb.ResponseHeader:
    return pb.ResponseHeader(cluster_id=(1 << 64) - 1, member_id=1 << 63, revision=revision, raft_term=term)


def message(kv: KeyValue) -> kv_pb2.KeyValue:
    return kv_pb2.KeyValue(**{name: getattr(kv, name) for name in KeyValue.__struct_fields__})


def plain(result: object, head: pb.ResponseHeader) -> pb.RangeResponse | pb.PutResponse:
    match result:
        case RangeResult():
            kvs = map(message, result.kvs)
            return pb.RangeResponse(header=head, kvs=kvs, more=result.more, count=result.count)
        case PutResult():
            return pb.PutResponse(header=head, prev_kv=message(result.prev) if result.prev else None)
        case DeleteResult():
            prevs = map(message, result.prevs)
            return pb.DeleteRangeResponse(header=head, deleted=result.deleted, prev_kvs=prevs)
        case TxnResult():
            inner = [operation(result) for result in result.results]
            return pb.TxnResponse(header=head, succeeded=result.succeeded, responses=inner)


def operation(result: object) -> pb.ResponseOp:
    name = {
        RangeResult: "response_range",
        PutResult: "response_put",
        DeleteResult: "response_delete_range",
        TxnResult: "response_txn",
    }[type(result)]
    bare = pb.ResponseHeader() if isinstance(result, TxnResult) else pb.ResponseHeader(revision=result.revision)
    return pb.ResponseOp(**{name: plain(result, bare)})


@given(SIGNED)
def test_numbers(number: int) -> None:
    assert b"\x30" + varint(number) == kv_pb2.KeyValue(lease=number).SerializeToString() or number == 0


@given(RANGES)
def test_ranges(result: RangeResult) -> None:
    assert pb.RangeResponse.FromString(answers().range(result)) == plain(result, header(result.revision))


@given(PUTS)
def test_puts(result: PutResult) -> None:
    assert pb.PutResponse.FromString(answers().put(result)) == plain(result, header(result.revision))


@given(DELETES)
def test_deletions(result: DeleteResult) -> None:
    assert pb.DeleteRangeResponse.FromString(answers().delete(result)) == plain(result, header(result.revision))


@given(TXNS)
def test_transactions(result: TxnResult) -> None:
    assert pb.TxnResponse.FromString(answers().txn(result)) == plain(result, header(result.revision))


@given(st.lists(PUTS, max_size=3), st.lists(TXNS, max_size=3))
def test_what_is_answered_together(puts: list[PutResult], txns: list[TxnResult]) -> None:
    assert answers().puts(puts) == [answers().put(result) for result in puts]
    assert answers().txns(txns) == [answers().txn(result) for result in txns]


@given(st.integers(-150, 150), st.sampled_from([0, 1 << 7, 1 << 14, 1 << 21, 1 << 62]))
def test_revisions_in_a_row_that_are_answered_together(below: int, power: int) -> None:
    """Across every bound at which they become longer, or differ in more than one byte."""
    puts = [PutResult(Revision(revision), None) for revision in range(max(power + below, 0), power + 300)]
    assert answers().puts(puts) == [answers().put(result) for result in puts]


@given(NUMBERS, NUMBERS, st.lists(st.builds(Event, KVS, st.none() | KVS), max_size=4), st.booleans())
def test_changes(watch_id: int, revision: int, events: list[Event], prev: bool) -> None:  # noqa: FBT001
    encoder = answers()
    expected = pb.WatchResponse(
        header=header(revision),
        watch_id=watch_id,
        events=[
            kv_pb2.Event(
                type=kv_pb2.Event.DELETE if event.is_delete else kv_pb2.Event.PUT,
                kv=message(event.kv),
                prev_kv=message(event.prev) if prev and event.prev else None,
            )
            for event in events
        ],
    )
    for _ in range(2):  # the second time from memory
        encoded = encoder.changes(watch_id, revision, events, (lambda event: event.prev) if prev else None)
        assert pb.WatchResponse.FromString(encoded) == expected


@given(st.lists(KVS, max_size=30), st.integers(0, 2000))
def test_versions_are_remembered_within_bounds(kvs: list[KeyValue], max_bytes: int) -> None:
    versions = Versions(max_bytes)
    for kv in kvs:
        assert versions.field(kv) == key_value_field(kv)
        assert versions.field(kv) == key_value_field(kv)
        assert versions._bytes <= max_bytes or len(versions._known) == 1


def test_a_new_term_and_member_show_at_once() -> None:
    facts = {"member": 1, "term": 1}
    encoder = Answers(cluster_id=1, sender=lambda: (facts["member"], facts["term"]))
    encoder.header(1)
    facts.update(member=2, term=0)
    assert pb.PutResponse.FromString(encoder.header(5)).header == pb.ResponseHeader(
        cluster_id=1, member_id=2, revision=5
    )
