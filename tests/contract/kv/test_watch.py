"""Watches: from when, what, in which order, and how they end."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.contract.kv.conftest import Api
from tests.contract.kv.stores import Store
from tests.contract.kv.test_kv import end_of, put
from tests.contract.kv.test_txn import delete_op, put_op
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.mvccpb import kv_pb2

PUT, DELETE = kv_pb2.Event.PUT, kv_pb2.Event.DELETE


class Listener:
    """One stream."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def create(self, key: bytes, **more: object) -> pb.WatchResponse:
        await self.call.write(pb.WatchRequest(create_request=pb.WatchCreateRequest(key=key, **more)))
        return await self.read()

    async def read(self) -> pb.WatchResponse:
        return await asyncio.wait_for(self.call.read(), 5)

    async def events(self, count: int) -> list[tuple[int, kv_pb2.Event]]:
        """Return the next events, each with its watch; more than asked for is a failure."""
        found: list[tuple[int, kv_pb2.Event]] = []
        while len(found) < count:
            response = await self.read()
            found += [(response.watch_id, event) for event in response.events]
        assert len(found) == count
        return found

    async def silent(self) -> None:
        """Check that nothing more has been sent: a new watch's confirmation is the next response."""
        response = await self.create(b"nobody writes this")
        assert response.created


@pytest.fixture
async def listener(api: Api) -> AsyncIterator[Listener]:
    call = api.watch.Watch()
    yield Listener(call)
    call.cancel()


def told(events: list[tuple[int, kv_pb2.Event]], prefix: bytes) -> list[tuple[int, bytes, bytes]]:
    return [(event.type, event.kv.key.removeprefix(prefix), event.kv.value) for _, event in events]


async def test_created_comes_first_with_the_present_revision(api: Api, listener: Listener, prefix: bytes) -> None:
    revision = await put(api, prefix)
    created = await listener.create(prefix)
    assert (created.created, created.canceled, created.watch_id) == (True, False, 0)
    assert created.header.revision == revision
    later = await put(api, prefix, b"2")
    ((_, event),) = await listener.events(1)
    assert (event.kv.mod_revision, event.kv.version) == (later, 2)


async def test_history_is_replayed_in_order(api: Api, listener: Listener, prefix: bytes) -> None:
    first = await put(api, prefix + b"a", b"1")
    await put(api, prefix + b"b", b"2")
    await api.kv.DeleteRange(pb.DeleteRangeRequest(key=prefix + b"a"))
    await listener.create(prefix, range_end=end_of(prefix), start_revision=first)
    await put(api, prefix + b"c", b"3")
    events = await listener.events(4)
    assert told(events, prefix) == [
        (PUT, b"a", b"1"),
        (PUT, b"b", b"2"),
        (DELETE, b"a", b""),
        (PUT, b"c", b"3"),
    ]
    assert [event.kv.mod_revision for _, event in events] == [first, first + 1, first + 2, first + 3]
    deletion = events[2][1].kv
    assert (deletion.create_revision, deletion.version) == (0, 0)


async def test_one_revision_arrives_whole(api: Api, listener: Listener, prefix: bytes) -> None:
    await put(api, prefix + b"old")
    await listener.create(prefix, range_end=end_of(prefix))
    await api.kv.Txn(pb.TxnRequest(success=[put_op(prefix + b"b"), delete_op(prefix + b"old"), put_op(prefix + b"a")]))
    response = await listener.read()
    keys = [event.kv.key.removeprefix(prefix) for event in response.events]
    assert keys == [b"b", b"old", b"a"]  # in the order of the transaction
    assert len({event.kv.mod_revision for event in response.events}) == 1


async def test_filters(api: Api, listener: Listener, prefix: bytes) -> None:
    no_put, no_delete = pb.WatchCreateRequest.NOPUT, pb.WatchCreateRequest.NODELETE
    first = await put(api, prefix, b"1")
    deletes = (await listener.create(prefix, start_revision=first, filters=[no_put])).watch_id
    puts = (await listener.create(prefix, start_revision=first, filters=[no_delete])).watch_id
    events = await listener.events(1)
    await api.kv.DeleteRange(pb.DeleteRangeRequest(key=prefix))
    await put(api, prefix, b"2")
    events += await listener.events(2)
    seen = [(watch_id, event.type) for watch_id, event in events]
    assert sorted(seen) == sorted([(puts, PUT), (deletes, DELETE), (puts, PUT)])
    await listener.silent()


async def test_prev_kv(api: Api, listener: Listener, prefix: bytes) -> None:
    first = await put(api, prefix, b"1")
    await listener.create(prefix, prev_kv=True, start_revision=first)
    await put(api, prefix, b"2")
    await api.kv.DeleteRange(pb.DeleteRangeRequest(key=prefix))
    await put(api, prefix, b"3")
    events = [event for _, event in await listener.events(4)]
    previous = [event.prev_kv.value if event.HasField("prev_kv") else None for event in events]
    assert previous == [None, b"1", b"2", None]


async def test_many_watches_on_one_stream(api: Api, listener: Listener, prefix: bytes) -> None:
    one = (await listener.create(prefix + b"1")).watch_id
    both = (await listener.create(prefix, range_end=end_of(prefix))).watch_id
    assert one != both
    await put(api, prefix + b"1")
    await put(api, prefix + b"2")
    events = await listener.events(3)
    seen = sorted((watch_id, event.kv.key) for watch_id, event in events)
    assert seen == sorted([(one, prefix + b"1"), (both, prefix + b"1"), (both, prefix + b"2")])
    await listener.call.write(pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=both)))
    canceled = await listener.read()
    assert (canceled.canceled, canceled.watch_id, canceled.compact_revision) == (True, both, 0)
    await put(api, prefix + b"2")
    await listener.silent()


async def test_watch_ids_can_be_chosen(listener: Listener, prefix: bytes) -> None:
    assert (await listener.create(prefix, watch_id=7)).watch_id == 7
    refused = await listener.create(prefix, watch_id=7)
    assert (refused.created, refused.canceled, refused.watch_id) == (True, True, -1)
    assert refused.cancel_reason == "mvcc: duplicate watch ID provided on the WatchStream"


async def test_an_empty_range_is_refused(listener: Listener, prefix: bytes) -> None:
    refused = await listener.create(prefix + b"b", range_end=prefix + b"a")
    assert (refused.created, refused.canceled, refused.watch_id) == (True, True, -1)


async def test_a_watch_may_wait_for_a_future_revision(api: Api, listener: Listener, prefix: bytes) -> None:
    now = await put(api, prefix, b"now")
    await listener.create(prefix, start_revision=now + 2)
    await put(api, prefix, b"too early")
    await put(api, prefix, b"just right")
    assert told(await listener.events(1), prefix) == [(PUT, b"", b"just right")]


async def test_compacted_history_cancels(api: Api, listener: Listener, prefix: bytes) -> None:
    first = await put(api, prefix, b"1")
    at = await put(api, prefix, b"2")
    await put(api, prefix, b"3")
    await api.kv.Compact(pb.CompactionRequest(revision=at))
    assert (await listener.create(prefix, start_revision=first)).created
    canceled = await listener.read()
    assert (canceled.canceled, canceled.compact_revision) == (True, at)
    await listener.create(prefix, start_revision=at)  # the compacted revision itself is still there
    assert told(await listener.events(2), prefix) == [(PUT, b"", b"2"), (PUT, b"", b"3")]


async def test_everything_from_a_key_on(api: Api, listener: Listener, prefix: bytes) -> None:
    await listener.create(prefix, range_end=b"\0")
    await put(api, prefix)
    ((_, event),) = await listener.events(1)
    assert event.kv.key == prefix


async def test_progress_on_request(api: Api, listener: Listener, prefix: bytes) -> None:
    await listener.create(prefix)
    await put(api, prefix)
    await listener.events(1)
    revision = await put(api, prefix + b"elsewhere")
    await listener.call.write(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
    progress = await listener.read()
    assert (progress.watch_id, len(progress.events), progress.canceled) == (-1, 0, False)
    assert progress.header.revision >= revision


async def test_a_stream_without_watches_is_told_the_progress_too(api: Api, listener: Listener, prefix: bytes) -> None:
    revision = await put(api, prefix)
    await listener.call.write(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
    progress = await listener.read()
    assert (progress.watch_id, len(progress.events), progress.canceled) == (-1, 0, False)
    assert progress.header.revision >= revision


async def test_listeners_with_and_without_previous_values(api: Api, prefix: bytes) -> None:
    """They hear of the same changes, by the same number, in different words."""
    await put(api, prefix, b"1")
    calls = [api.watch.Watch() for _ in range(4)]
    for place, call in enumerate(calls):
        assert (await Listener(call).create(prefix, prev_kv=place % 2 == 1)).watch_id == 0
    for value in (b"2", b"3"):
        revision = await put(api, prefix, value)
        for place, call in enumerate(calls):
            response = await Listener(call).read()
            assert (response.watch_id, response.header.revision) == (0, revision)
            (event,) = response.events
            assert event.kv.value == value
            assert event.prev_kv.value == (b"%d" % (int(value) - 1) if place % 2 else b"")
    for call in calls:
        call.cancel()


async def test_large_revisions_come_in_fragments_if_wished(api: Api, listener: Listener, prefix: bytes) -> None:
    # Each put fits into a request; what the deletion of all removes does not fit into a response.
    for i in range(4):
        await put(api, prefix + b"%d" % i, bytes(1_000_000))
    await listener.create(prefix, range_end=end_of(prefix), fragment=True, prev_kv=True)
    await api.kv.DeleteRange(pb.DeleteRangeRequest(key=prefix, range_end=end_of(prefix)))
    responses = [await listener.read()]
    while responses[-1].fragment:
        responses.append(await listener.read())
    assert len(responses) > 1
    assert sum(len(response.events) for response in responses) == 4
    assert len({event.kv.mod_revision for response in responses for event in response.events}) == 1


async def test_a_slow_listener_misses_nothing(api: Api, listener: Listener, prefix: bytes, store: Store) -> None:
    """The listener reads nothing while far more is written than one watch may have pending."""
    await listener.create(prefix, range_end=end_of(prefix))
    total = 3_000
    value = bytes(4_000)
    for start in range(0, total, 100):
        keys = [prefix + b"%04d" % i for i in range(start, start + 100)]
        await api.kv.Txn(pb.TxnRequest(success=[put_op(key, value) for key in keys]))
    events = await listener.events(total)
    assert [event.kv.key for _, event in events] == [prefix + b"%04d" % i for i in range(total)]


async def test_other_members_tell_the_same(api: Api, prefix: bytes, store: Store) -> None:
    import grpc.aio

    from tests.contract.kv.conftest import Api as Other

    async with grpc.aio.insecure_channel(store.endpoints[0]) as channel:
        call = Other(channel).watch.Watch()
        listener = Listener(call)
        first = await put(api, prefix + b"a")
        await listener.create(prefix, range_end=end_of(prefix), start_revision=first)
        second = await put(api, prefix + b"b")  # not always the next one: a lease of a test before may end in between
        events = await listener.events(2)
        assert [event.kv.mod_revision for _, event in events] == [first, second]
        call.cancel()
