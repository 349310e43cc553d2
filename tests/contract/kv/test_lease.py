"""Leases: granting, renewing, ending, and the keys that go with them."""

import asyncio
import time
from typing import Any

import grpc
import pytest

from raft_store.etcd_api.lease import shortest_ttl_s
from tests.contract.kv.conftest import Api
from tests.contract.kv.stores import Store
from tests.contract.kv.test_kv import names, put, refused
from trireme_pb.etcdserverpb import rpc_pb2 as pb


async def grant(api: Api, ttl_s: int = 60, lease: int = 0) -> Any:
    return await api.lease.LeaseGrant(pb.LeaseGrantRequest(TTL=ttl_s, ID=lease))


async def renew(api: Api, lease: int) -> int:
    call = api.lease.LeaseKeepAlive()
    await call.write(pb.LeaseKeepAliveRequest(ID=lease))
    response = await asyncio.wait_for(call.read(), 5)
    call.cancel()
    assert lease == response.ID
    return response.TTL


async def test_grant_and_look(api: Api, prefix: bytes) -> None:
    granted = await grant(api, 60)
    assert granted.ID > 0
    assert granted.TTL == 60
    await put(api, prefix + b"a", lease=granted.ID)
    await put(api, prefix + b"b", lease=granted.ID)
    look = await api.lease.LeaseTimeToLive(pb.LeaseTimeToLiveRequest(ID=granted.ID, keys=True))
    assert (look.grantedTTL, sorted(look.keys)) == (60, [prefix + b"a", prefix + b"b"])
    assert 50 <= look.TTL <= 60
    without = await api.lease.LeaseTimeToLive(pb.LeaseTimeToLiveRequest(ID=granted.ID))
    assert not without.keys
    listed = await api.lease.LeaseLeases(pb.LeaseLeasesRequest())
    assert granted.ID in [lease.ID for lease in listed.leases]


async def test_granting_makes_no_revision(api: Api, prefix: bytes) -> None:
    revision = await put(api, prefix)
    assert (await grant(api)).header.revision == revision


async def test_revoking_deletes_the_keys_in_one_revision(api: Api, prefix: bytes) -> None:
    lease = (await grant(api)).ID
    await put(api, prefix + b"a", lease=lease)
    await put(api, prefix + b"b", lease=lease)
    before = await put(api, prefix + b"stays")
    revoked = await api.lease.LeaseRevoke(pb.LeaseRevokeRequest(ID=lease))
    assert revoked.header.revision == before + 1
    assert await names(api, prefix) == [b"stays"]


async def test_a_key_leaves_its_lease_when_it_is_put_without(api: Api, prefix: bytes) -> None:
    lease, other = (await grant(api)).ID, (await grant(api)).ID
    await put(api, prefix + b"free", lease=lease)
    await put(api, prefix + b"free")
    await put(api, prefix + b"moved", lease=lease)
    await put(api, prefix + b"moved", lease=other)
    await put(api, prefix + b"again", lease=lease)
    await api.kv.DeleteRange(pb.DeleteRangeRequest(key=prefix + b"again"))
    await put(api, prefix + b"again")
    await api.lease.LeaseRevoke(pb.LeaseRevokeRequest(ID=lease))
    assert await names(api, prefix) == [b"again", b"free", b"moved"]


async def test_what_is_refused(api: Api) -> None:
    lease = (await grant(api)).ID
    assert await refused(grant(api, 60, lease)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "etcdserver: lease already exists",
    )
    assert await refused(grant(api, 9_000_000_001)) == (
        grpc.StatusCode.OUT_OF_RANGE,
        "etcdserver: too large lease TTL",
    )
    assert await refused(api.lease.LeaseRevoke(pb.LeaseRevokeRequest(ID=12345))) == (
        grpc.StatusCode.NOT_FOUND,
        "etcdserver: requested lease not found",
    )


async def test_unknown_leases_are_no_errors_where_clients_ask_often(api: Api) -> None:
    assert await renew(api, 12345) == 0
    look = await api.lease.LeaseTimeToLive(pb.LeaseTimeToLiveRequest(ID=12345))
    assert (look.ID, look.TTL, look.grantedTTL) == (12345, -1, 0)


@pytest.mark.parametrize("ttl_s", [0, 1])
async def test_the_shortest_time_is_more_than_an_election(api: Api, store: Store, ttl_s: int) -> None:
    granted = (await grant(api, ttl_s)).TTL
    if store.is_etcd:
        assert granted == 2
    else:
        assert 1 <= granted <= shortest_ttl_s(2.7)  # a member that was late on a loaded machine says more


async def test_expiry_and_renewal(api: Api, prefix: bytes) -> None:
    kept, left = await grant(api, 2), await grant(api, 2)
    await put(api, prefix + b"kept", lease=kept.ID)
    await put(api, prefix + b"left", lease=left.ID)
    began = time.monotonic()
    watch = api.watch.Watch()
    await watch.write(pb.WatchRequest(create_request=pb.WatchCreateRequest(key=prefix + b"left")))
    assert (await watch.read()).created

    async def keep() -> None:
        while True:
            assert await renew(api, kept.ID) == kept.TTL
            await asyncio.sleep(0.5)

    keeper = asyncio.create_task(keep())
    gone = await asyncio.wait_for(watch.read(), 8)
    assert gone.events[0].kv.key == prefix + b"left"
    assert time.monotonic() - began > 1.5  # not before its time
    await asyncio.sleep(0.5)
    keeper.cancel()
    watch.cancel()
    assert await names(api, prefix) == [b"kept"]
    assert await renew(api, left.ID) == 0
