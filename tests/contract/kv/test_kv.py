"""KV: ranges, puts, deletions, compaction, and what is refused in which words."""

import grpc
import grpc.aio
import pytest

from tests.contract.kv.conftest import Api
from trireme_pb.etcdserverpb import rpc_pb2 as pb

KEY, VERSION, CREATE, MOD, VALUE = (
    pb.RangeRequest.KEY,
    pb.RangeRequest.VERSION,
    pb.RangeRequest.CREATE,
    pb.RangeRequest.MOD,
    pb.RangeRequest.VALUE,
)
NONE, ASCEND, DESCEND = pb.RangeRequest.NONE, pb.RangeRequest.ASCEND, pb.RangeRequest.DESCEND
MOST = 2**63 - 1  # that a field of 64 bits can say


def end_of(prefix: bytes) -> bytes:
    return prefix[:-1] + bytes([prefix[-1] + 1])


async def put(api: Api, key: bytes, value: bytes = b"v", **more: object) -> int:
    response = await api.kv.Put(pb.PutRequest(key=key, value=value, **more))
    return response.header.revision


async def refused(call: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details()


async def names(api: Api, prefix: bytes, **more: object) -> list[bytes]:
    response = await api.kv.Range(pb.RangeRequest(key=prefix, range_end=end_of(prefix), **more))
    return [kv.key.removeprefix(prefix) for kv in response.kvs]


async def test_versions_and_revisions_of_a_key(api: Api, prefix: bytes) -> None:
    first = await put(api, prefix, b"1")
    second = await put(api, prefix, b"2")
    assert second == first + 1
    (kv,) = (await api.kv.Range(pb.RangeRequest(key=prefix))).kvs
    assert (kv.create_revision, kv.mod_revision, kv.version, kv.value) == (first, second, 2, b"2")

    deleted = await api.kv.DeleteRange(pb.DeleteRangeRequest(key=prefix, prev_kv=True))
    assert (deleted.deleted, deleted.header.revision, deleted.prev_kvs[0].value) == (1, second + 1, b"2")
    again = await api.kv.DeleteRange(pb.DeleteRangeRequest(key=prefix))
    assert (again.deleted, again.header.revision) == (0, second + 1)  # nothing changed: no new revision

    third = await put(api, prefix, b"3")
    (kv,) = (await api.kv.Range(pb.RangeRequest(key=prefix))).kvs
    assert (kv.create_revision, kv.mod_revision, kv.version) == (third, third, 1)


async def test_old_revisions_stay_readable(api: Api, prefix: bytes) -> None:
    first = await put(api, prefix, b"1")
    await put(api, prefix, b"2")
    last = (await api.kv.DeleteRange(pb.DeleteRangeRequest(key=prefix))).header.revision
    seen = []
    for revision in (first - 1, first, first + 1, last):
        response = await api.kv.Range(pb.RangeRequest(key=prefix, revision=revision))
        assert response.header.revision >= last  # the newest, not the one that was read
        seen.append([kv.value for kv in response.kvs])
    assert seen == [[], [b"1"], [b"2"], []]


async def test_old_ranges_show_keys_that_are_gone(api: Api, prefix: bytes) -> None:
    for name in (b"a", b"b", b"c"):
        last = await put(api, prefix + name)
    await api.kv.DeleteRange(pb.DeleteRangeRequest(key=prefix + b"b"))
    await put(api, prefix + b"d")
    assert await names(api, prefix) == [b"a", b"c", b"d"]
    assert await names(api, prefix, revision=last) == [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        pytest.param({}, [b"a", b"b", b"c", b"d"], id="key order by default"),
        pytest.param({"sort_order": DESCEND}, [b"d", b"c", b"b", b"a"], id="key descending"),
        pytest.param({"sort_target": VALUE}, [b"d", b"c", b"b", b"a"], id="another target ascends by default"),
        pytest.param({"sort_target": VALUE, "sort_order": DESCEND}, [b"a", b"b", b"c", b"d"], id="value descending"),
        pytest.param({"sort_target": CREATE, "sort_order": ASCEND}, [b"c", b"a", b"d", b"b"], id="create revision"),
        pytest.param({"sort_target": MOD, "sort_order": DESCEND}, [b"c", b"b", b"d", b"a"], id="mod revision"),
        pytest.param({"sort_target": VERSION, "sort_order": DESCEND, "limit": 1}, [b"c"], id="sort, then limit"),
        pytest.param({"limit": 2}, [b"a", b"b"], id="limit"),
        pytest.param({"limit": -1}, [b"a", b"b", b"c", b"d"], id="negative limit"),
        pytest.param({"limit": MOST}, [b"a", b"b", b"c", b"d"], id="as many as can be said"),
        pytest.param(
            {"sort_target": VALUE, "limit": 2}, [b"c", b"b"], id="of one more than the limit, without an order"
        ),
        pytest.param({"sort_target": VALUE, "sort_order": ASCEND, "limit": 2}, [b"d", b"c"], id="sort up, then limit"),
    ],
)
async def test_orders(api: Api, prefix: bytes, more: dict[str, int], expected: list[bytes]) -> None:
    for name, value in ((b"c", b"2"), (b"a", b"4"), (b"d", b"1"), (b"b", b"3"), (b"c", b"2")):
        await put(api, prefix + name, value)
    assert await names(api, prefix, **more) == expected


async def test_whatever_a_transaction_reads_it_is_applied(api: Api, prefix: bytes) -> None:
    """Every member applies it, and again after each start: what one of them cannot read, the whole group dies of."""
    for name in (b"a", b"b"):
        await put(api, prefix + name)
    for limit in (MOST, MOST - 1, -MOST - 1):
        everything = pb.RangeRequest(key=prefix, range_end=end_of(prefix), limit=limit)
        written = pb.RequestOp(request_put=pb.PutRequest(key=prefix + b"c"))
        done = await api.kv.Txn(pb.TxnRequest(success=[written, pb.RequestOp(request_range=everything)]))
        found = done.responses[1].response_range
        assert (len(found.kvs), found.more) == (3, False)
    assert await names(api, prefix) == [b"a", b"b", b"c"]


async def test_count_and_more(api: Api, prefix: bytes) -> None:
    revisions = [await put(api, prefix + b"%d" % i) for i in range(5)]
    whole = {"key": prefix, "range_end": end_of(prefix)}
    limited = await api.kv.Range(pb.RangeRequest(**whole, limit=2))
    assert (len(limited.kvs), limited.more, limited.count) == (2, True, 5)
    all_five = await api.kv.Range(pb.RangeRequest(**whole, limit=5))
    assert (len(all_five.kvs), all_five.more, all_five.count) == (5, False, 5)
    counted = await api.kv.Range(pb.RangeRequest(**whole, count_only=True))
    assert (len(counted.kvs), counted.more, counted.count) == (0, False, 5)
    old = await api.kv.Range(pb.RangeRequest(**whole, count_only=True, revision=revisions[2]))
    assert old.count == 3
    filtered = await api.kv.Range(pb.RangeRequest(**whole, min_mod_revision=revisions[3]))
    assert (len(filtered.kvs), filtered.count) == (2, 5)  # filters leave the count alone
    page = await api.kv.Range(pb.RangeRequest(**whole, max_create_revision=revisions[3], limit=3))
    assert (len(page.kvs), page.more, page.count) == (3, True, 5)


async def test_filters_by_revision(api: Api, prefix: bytes) -> None:
    r = [await put(api, prefix + name) for name in (b"a", b"b", b"c", b"a")]
    assert await names(api, prefix, max_mod_revision=r[2]) == [b"b", b"c"]
    assert await names(api, prefix, min_mod_revision=r[2]) == [b"a", b"c"]
    assert await names(api, prefix, max_create_revision=r[0]) == [b"a"]
    assert await names(api, prefix, min_create_revision=r[1], max_create_revision=r[1]) == [b"b"]


async def test_keys_only_keeps_everything_but_values(api: Api, prefix: bytes) -> None:
    revision = await put(api, prefix, b"heavy")
    (kv,) = (await api.kv.Range(pb.RangeRequest(key=prefix, keys_only=True))).kvs
    assert (kv.key, kv.value, kv.mod_revision, kv.version) == (prefix, b"", revision, 1)


async def test_range_ends(api: Api, prefix: bytes) -> None:
    await put(api, prefix + b"a")
    await put(api, prefix + b"b")

    async def found(key: bytes, end: bytes) -> list[bytes]:
        response = await api.kv.Range(pb.RangeRequest(key=key, range_end=end))
        return [kv.key for kv in response.kvs if kv.key.startswith(prefix)]

    assert await found(prefix + b"a", b"") == [prefix + b"a"]
    assert await found(prefix + b"a", prefix + b"b") == [prefix + b"a"]  # half open
    assert await found(prefix + b"b", prefix + b"a") == []
    assert await found(prefix + b"b", b"\0") == [prefix + b"b"]
    assert await found(b"\0", b"\0") == [prefix + b"a", prefix + b"b"]


async def test_put_may_keep_value_or_lease(api: Api, prefix: bytes) -> None:
    lease = (await api.lease.LeaseGrant(pb.LeaseGrantRequest(TTL=60))).ID
    await put(api, prefix, b"1", lease=lease)
    await put(api, prefix, b"2", ignore_lease=True)
    (kv,) = (await api.kv.Range(pb.RangeRequest(key=prefix))).kvs
    assert (kv.value, kv.lease) == (b"2", lease)
    response = await api.kv.Put(pb.PutRequest(key=prefix, ignore_value=True, prev_kv=True))
    assert response.prev_kv.lease == lease
    (kv,) = (await api.kv.Range(pb.RangeRequest(key=prefix))).kvs
    assert (kv.value, kv.lease) == (b"2", 0)


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        pytest.param(pb.PutRequest(), "INVALID_ARGUMENT", "etcdserver: key is not provided", id="put no key"),
        pytest.param(pb.RangeRequest(), "INVALID_ARGUMENT", "etcdserver: key is not provided", id="range no key"),
        pytest.param(
            pb.DeleteRangeRequest(), "INVALID_ARGUMENT", "etcdserver: key is not provided", id="delete no key"
        ),
        pytest.param(
            pb.PutRequest(key=b"k", value=b"v", ignore_value=True),
            "INVALID_ARGUMENT",
            "etcdserver: value is provided",
            id="value with ignore_value",
        ),
        pytest.param(
            pb.PutRequest(key=b"k", lease=1, ignore_lease=True),
            "INVALID_ARGUMENT",
            "etcdserver: lease is provided",
            id="lease with ignore_lease",
        ),
        pytest.param(
            pb.PutRequest(key=b"never put", ignore_value=True),
            "INVALID_ARGUMENT",
            "etcdserver: key not found",
            id="ignore_value without a key",
        ),
        pytest.param(
            pb.PutRequest(key=b"k", lease=987654321),
            "NOT_FOUND",
            "etcdserver: requested lease not found",
            id="unknown lease",
        ),
        pytest.param(
            pb.RangeRequest(key=b"k", revision=1 << 40),
            "OUT_OF_RANGE",
            "etcdserver: mvcc: required revision is a future revision",
            id="range in the future",
        ),
        pytest.param(
            pb.CompactionRequest(revision=1 << 40),
            "OUT_OF_RANGE",
            "etcdserver: mvcc: required revision is a future revision",
            id="compact the future",
        ),
        pytest.param(
            pb.PutRequest(key=b"k", value=bytes(1_600_000)),
            "INVALID_ARGUMENT",
            "etcdserver: request is too large",
            id="too large",
        ),
    ],
)
async def test_refusals(api: Api, request_: object, code: str, text: str) -> None:
    methods = {
        pb.PutRequest: api.kv.Put,
        pb.RangeRequest: api.kv.Range,
        pb.DeleteRangeRequest: api.kv.DeleteRange,
        pb.CompactionRequest: api.kv.Compact,
    }
    assert await refused(methods[type(request_)](request_)) == (grpc.StatusCode[code], text)


async def test_compaction(api: Api, prefix: bytes) -> None:
    old = await put(api, prefix + b"a", b"1")
    at = await put(api, prefix + b"a", b"2")
    await api.kv.DeleteRange(pb.DeleteRangeRequest(key=prefix + b"a"))
    await api.kv.Compact(pb.CompactionRequest(revision=at, physical=True))
    (kv,) = (await api.kv.Range(pb.RangeRequest(key=prefix + b"a", revision=at))).kvs
    assert kv.value == b"2"  # the compacted revision itself can still be read
    compacted = (grpc.StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
    assert await refused(api.kv.Range(pb.RangeRequest(key=prefix, revision=old))) == compacted
    assert await refused(api.kv.Compact(pb.CompactionRequest(revision=at))) == compacted
    assert await names(api, prefix) == []
    after = await put(api, prefix + b"a", b"4")
    (kv,) = (await api.kv.Range(pb.RangeRequest(key=prefix + b"a"))).kvs
    assert (kv.create_revision, kv.version) == (after, 1)
    below = pb.RangeRequest(key=prefix + b"a", revision=-1)  # the newest to a range, the past to a transaction
    assert len((await api.kv.Range(below)).kvs) == 1
    assert await refused(api.kv.Txn(pb.TxnRequest(success=[pb.RequestOp(request_range=below)]))) == compacted
