"""Our client against every store, and what it does when members die."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from client.etcd import (
    Compacted,
    Compare,
    DeleteOp,
    EtcdClient,
    Fact,
    FutureRevision,
    GetOp,
    LeaseNotFound,
    PutOp,
    Refused,
    Relation,
    TransportName,
    Unavailable,
    Unknown,
    prefix_end,
)
from tests.contract.kv.stores import Store, ours
from tests.ports import free_ports


@pytest.fixture(params=["fast", "grpcio"])
def transport(request: pytest.FixtureRequest) -> TransportName:
    name: TransportName = request.param
    return name


@pytest.fixture
async def client(store: Store, transport: TransportName) -> AsyncIterator[EtcdClient]:
    async with EtcdClient(store.endpoints, transport=transport) as running:
        yield running


async def test_reads_and_writes(client: EtcdClient, prefix: bytes) -> None:
    assert (await client.get(prefix))[0] is None
    first = await client.put(prefix, b"1")
    second = await client.put(prefix, b"2", previous=True)
    assert [kv.value for kv in second.previous] == [b"1"]
    kv, revision = await client.get(prefix)
    assert kv is not None
    assert (kv.value, kv.create_revision, kv.mod_revision, kv.version) == (
        b"2",
        first.revision,
        second.revision,
        2,
    )
    assert revision == second.revision <= await client.revision()
    old, _ = await client.get(prefix, revision=first.revision)
    assert old is not None
    assert old.value == b"1"
    await client.put(prefix + b"a", b"")
    found = await client.range(prefix, prefix_end(prefix), limit=1)
    assert (len(found.kvs), found.more, found.count) == (1, True, 2)
    gone = await client.delete(prefix, prefix_end(prefix), previous=True)
    assert (gone.deleted, [kv.value for kv in gone.previous]) == (2, [b"2", b""])


async def test_transactions(client: EtcdClient, prefix: bytes) -> None:
    absent = Compare(prefix, Fact.CREATE_REVISION, Relation.EQUAL, 0)
    made = await client.txn([absent], [PutOp(prefix, b"mine")], [GetOp(prefix)])
    assert made.succeeded
    lost = await client.txn([absent], [PutOp(prefix, b"theirs")], [GetOp(prefix)])
    assert not lost.succeeded
    assert lost.results[0].kvs[0].value == b"mine"
    value = Compare(prefix, Fact.VALUE, Relation.EQUAL, b"mine")
    ended = await client.txn([value], [DeleteOp(prefix, previous=True)])
    assert (ended.results[0].deleted, ended.results[0].previous[0].value) == (1, b"mine")
    with pytest.raises(Refused, match="duplicate key"):
        await client.txn([], [PutOp(prefix, b"1"), PutOp(prefix, b"2")])


async def test_leases(client: EtcdClient, prefix: bytes) -> None:
    lease = await client.lease_grant(30)
    await client.put(prefix, b"", lease=lease.lease)
    assert await client.lease_keep_alive(lease.lease) == lease.ttl_s
    await client.lease_revoke(lease.lease)
    assert (await client.get(prefix))[0] is None
    with pytest.raises(LeaseNotFound):
        await client.lease_keep_alive(lease.lease)
    with pytest.raises(LeaseNotFound):
        await client.put(prefix, b"", lease=lease.lease)


async def test_watch_batches_are_revisions(client: EtcdClient, prefix: bytes) -> None:
    async with client.watch(prefix, prefix_end(prefix), previous=True) as batches:
        began = await anext(batches)
        assert began.events == ()
        await client.txn([], [PutOp(prefix + b"a", b"1"), PutOp(prefix + b"b", b"1")])
        await client.delete(prefix + b"a")
        both, deletion = await anext(batches), await anext(batches)
        assert both.revision == began.revision + 1
        assert [event.kv.key for event in both.events] == [prefix + b"a", prefix + b"b"]
        assert deletion.events[0].deleted
        assert deletion.events[0].previous is not None
        assert deletion.events[0].previous.value == b"1"
        elsewhere = await client.put(b"~" + prefix, b"")
        await batches.request_progress()
        assert (await anext(batches)).revision >= elsewhere.revision
    with pytest.raises(StopAsyncIteration):
        await anext(batches)


async def test_history_that_is_gone(client: EtcdClient, prefix: bytes) -> None:
    first = await client.put(prefix, b"1")
    last = await client.put(prefix, b"2")
    await client.compact(last.revision)
    with pytest.raises(Compacted):
        await client.get(prefix, revision=first.revision)
    with pytest.raises(FutureRevision):
        await client.get(prefix, revision=last.revision + 1000)
    with pytest.raises(Compacted) as caught:
        async for _ in client.watch(prefix, start_revision=first.revision):
            pass
    assert caught.value.compact_revision == last.revision


async def test_status_of_each_member(client: EtcdClient) -> None:
    statuses = [await client.status(endpoint) for endpoint in client.endpoints]
    assert len({status.leader for status in statuses}) == 1
    assert statuses[0].leader in [status.member for status in statuses]


async def test_nobody_there(transport: TransportName) -> None:
    (port,) = free_ports(1)
    async with EtcdClient([f"127.0.0.1:{port}"], transport=transport) as client:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await client.get(b"k", timeout_s=0.5)
        with pytest.raises(Unavailable):  # not Unknown: it was never sent
            await client.put(b"k", b"v", timeout_s=0.5)
        with pytest.raises(Unavailable):
            async for _ in client.watch(b"k", patience_s=0.5):
                pass
        assert time.monotonic() - began < 4


@pytest.fixture
def three(tmp_path: object) -> Iterator[Store]:
    with ours(tmp_path, members=3, engine="native") as running:  # type: ignore[arg-type]
        yield running


async def until(holds: Callable[[], bool], timeout_s: float = 45) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():  # noqa: ASYNC110 - other processes are waited for
            await asyncio.sleep(0.02)


async def leader_of(client: EtcdClient) -> str:
    for endpoint in client.endpoints:
        status = await client.status(endpoint, timeout_s=2)
        if status.leader == status.member:
            return endpoint
    raise AssertionError("nobody leads")


@pytest.mark.parametrize("preferred", ["the leader", "a follower"])
async def test_a_killed_leader_loses_no_acknowledged_write(
    three: Store, preferred: str, transport: TransportName
) -> None:
    async with EtcdClient(three.endpoints) as finder:
        leading = await leader_of(finder)
    ordered = sorted(three.endpoints, key=lambda endpoint: (endpoint == leading) != (preferred == "the leader"))
    async with EtcdClient(ordered, transport=transport) as client:
        acknowledged: set[bytes] = set()
        heard: list[tuple[int, bytes]] = []

        async def write(writer: int) -> None:
            for i in range(10**6):
                key = b"w/%d/%d" % (writer, i)
                try:
                    await client.put(key, b"")
                except (Unknown, Unavailable):
                    continue
                acknowledged.add(key)

        async def listen() -> None:
            async with client.watch(b"w/", prefix_end(b"w/"), start_revision=1) as batches:
                async for batch in batches:
                    heard.extend((batch.revision, event.kv.key) for event in batch.events)

        tasks = [asyncio.create_task(write(i)) for i in range(4)] + [asyncio.create_task(listen())]
        await until(lambda: len(acknowledged) >= 100)
        three.processes[leading].kill()
        killed_at = len(acknowledged)
        await until(lambda: len(acknowledged) >= killed_at + 100)
        for task in tasks[:4]:
            task.cancel()
        await asyncio.gather(*tasks[:4], return_exceptions=True)

        stored = {kv.key for kv in (await client.range(b"w/", prefix_end(b"w/"))).kvs}
        assert acknowledged <= stored
        await until(lambda: {key for _, key in heard} == stored)
        tasks[4].cancel()
        await asyncio.gather(tasks[4], return_exceptions=True)
        revisions = [revision for revision, _ in heard]
        assert revisions == sorted(set(revisions))  # each once, in order


async def test_a_silent_member_is_left_soon(three: Store, transport: TransportName) -> None:
    async with EtcdClient(three.endpoints, transport=transport) as client:
        await client.put(b"k", b"1")
        process = three.processes[three.endpoints[0]]
        os.kill(process.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            kv, _ = await client.get(b"k", timeout_s=10)
            assert kv is not None
            assert time.monotonic() - began < 5
            await client.put(b"k", b"2", timeout_s=10)  # the others are asked at once now
        finally:
            os.kill(process.pid, signal.SIGCONT)
        await until(lambda: client._endpoints.all[0].healthy)  # preferred again once it answers
        assert (await client.get(b"k"))[0].value == b"2"


async def test_a_write_to_a_member_that_falls_silent_is_unknown(three: Store, transport: TransportName) -> None:
    async with EtcdClient(three.endpoints[:1], transport=transport) as client:
        await client.put(b"k", b"1")
        process = three.processes[three.endpoints[0]]
        os.kill(process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(Unknown):
                await client.put(b"k", b"2", timeout_s=10)
        finally:
            os.kill(process.pid, signal.SIGCONT)


async def test_a_lease_is_kept_alive_through_a_change_of_leader(three: Store) -> None:
    async with EtcdClient(three.endpoints) as client:
        leading = await leader_of(client)
        lease = await client.lease_grant(2)
        await client.put(b"k", b"", lease=lease.lease)
        three.processes[leading].kill()
        ends = time.monotonic() + 3 * lease.ttl_s
        while time.monotonic() < ends:
            assert await client.lease_keep_alive(lease.lease, timeout_s=10) == lease.ttl_s
            assert (await client.get(b"k", timeout_s=10))[0] is not None
            await asyncio.sleep(0.2)
        await until_gone(client, b"k")  # left alone it ends, by the new leader's clock


async def until_gone(client: EtcdClient, key: bytes) -> None:
    async with asyncio.timeout(15):
        while (await client.get(key))[0] is not None:  # noqa: ASYNC110 - a store is waited for
            await asyncio.sleep(0.1)


async def test_a_watch_never_passes_over_what_was_compacted_while_it_was_cut_off(three: Store) -> None:
    """Its member is paused, history goes on and is compacted: the watch has every revision, or says what is missing."""
    async with EtcdClient(three.endpoints) as client, EtcdClient(three.endpoints[1:]) as others:
        first = (await others.put(b"w", b"")).revision
        heard: list[int] = []
        compacted: list[int] = []

        async def listen() -> None:
            try:
                async with client.watch(b"w", start_revision=first) as batches:
                    async for batch in batches:
                        heard.extend(batch.revision for _ in batch.events)
            except Compacted as exc:
                compacted.append(exc.compact_revision)

        listening = asyncio.create_task(listen())
        await until(lambda: heard == [first])
        process = three.processes[three.endpoints[0]]
        os.kill(process.pid, signal.SIGSTOP)
        try:
            for _ in range(20):
                last = (await others.put(b"w", b"", timeout_s=10)).revision
            await others.compact(last)
            await until(lambda: bool(compacted) or heard[-1] == last)
        finally:
            os.kill(process.pid, signal.SIGCONT)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        assert heard == list(range(first, first + len(heard)))  # no gap, nothing twice
        assert compacted in ([], [last])
