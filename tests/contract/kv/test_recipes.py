"""Lock and Election: who waits, who is next, and what becomes of those who give up."""

import asyncio
from typing import Any

import grpc
import pytest

from tests.contract.kv.conftest import Api
from tests.contract.kv.test_kv import end_of, names, put, refused
from tests.contract.kv.test_lease import grant
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.v3electionpb import v3election_pb2 as election_pb
from trireme_pb.v3lockpb import v3lock_pb2 as lock_pb


async def lease_of(api: Api) -> int:
    return (await grant(api, 60)).ID


async def lock(api: Api, name: bytes, lease: int) -> Any:
    return await asyncio.wait_for(api.lock.Lock(lock_pb.LockRequest(name=name, lease=lease)), 10)


async def in_line(api: Api, name: bytes, count: int) -> None:
    """Wait until so many keys stand in the line."""
    async with asyncio.timeout(10):
        while len(await names(api, name + b"/")) != count:  # noqa: ASYNC110 - a store is waited for
            await asyncio.sleep(0.01)


async def test_a_lock_is_held_by_one_and_passed_on(api: Api, prefix: bytes) -> None:
    first, second = await lease_of(api), await lease_of(api)
    held = await lock(api, prefix, first)
    assert held.key == prefix + b"/%x" % first
    assert held.header.revision > 0
    again = await lock(api, prefix, first)  # the same lease: the same holder
    assert again.key == held.key
    waiting = asyncio.create_task(lock(api, prefix, second))
    await in_line(api, prefix, 2)
    assert not waiting.done()
    await api.lock.Unlock(lock_pb.UnlockRequest(key=held.key))
    passed_on = await waiting
    assert passed_on.key == prefix + b"/%x" % second
    assert passed_on.header.revision > held.header.revision
    await api.lock.Unlock(lock_pb.UnlockRequest(key=passed_on.key))
    assert await names(api, prefix) == []


async def test_a_lock_ends_with_its_lease(api: Api, prefix: bytes) -> None:
    first, second = await lease_of(api), await lease_of(api)
    await lock(api, prefix, first)
    waiting = asyncio.create_task(lock(api, prefix, second))
    await in_line(api, prefix, 2)
    await api.lease.LeaseRevoke(pb.LeaseRevokeRequest(ID=first))
    assert (await waiting).key == prefix + b"/%x" % second


async def test_who_goes_away_waits_no_more(api: Api, prefix: bytes) -> None:
    first, second = await lease_of(api), await lease_of(api)
    held = await lock(api, prefix, first)
    call = api.lock.Lock(lock_pb.LockRequest(name=prefix, lease=second))
    await in_line(api, prefix, 2)
    call.cancel()
    await in_line(api, prefix, 1)
    await api.lock.Unlock(lock_pb.UnlockRequest(key=held.key))


async def test_a_lock_without_a_lease_gets_one(api: Api, prefix: bytes) -> None:
    held = await lock(api, prefix, 0)
    lease = int(held.key.rpartition(b"/")[2], 16)
    look = await api.lease.LeaseTimeToLive(pb.LeaseTimeToLiveRequest(ID=lease, keys=True))
    assert (look.grantedTTL, list(look.keys)) == (60, [held.key])


async def test_a_lock_needs_a_lease_in_force(api: Api, prefix: bytes) -> None:
    assert await refused(lock(api, prefix, 12345)) == (
        grpc.StatusCode.UNKNOWN,  # etcd asks itself as a client, which knows errors by their texts alone
        "etcdserver: requested lease not found",
    )


async def campaign(api: Api, name: bytes, lease: int, value: bytes) -> Any:
    request = election_pb.CampaignRequest(name=name, lease=lease, value=value)
    return (await asyncio.wait_for(api.election.Campaign(request), 10)).leader


async def test_leaders_come_one_after_the_other(api: Api, prefix: bytes) -> None:
    first, second = await lease_of(api), await lease_of(api)
    question = election_pb.LeaderRequest(name=prefix)
    assert await refused(api.election.Leader(question)) == (grpc.StatusCode.UNKNOWN, "election: no leader")
    leader = await campaign(api, prefix, first, b"one")
    assert (leader.name, leader.key, leader.lease) == (prefix, prefix + b"/%x" % first, first)
    told = await api.election.Leader(question)
    assert (told.kv.value, told.kv.create_revision) == (b"one", leader.rev)
    candidate = asyncio.create_task(campaign(api, prefix, second, b"two"))
    await in_line(api, prefix, 2)
    assert (await api.election.Leader(question)).kv.value == b"one"
    await api.election.Resign(election_pb.ResignRequest(leader=leader))
    next_leader = await candidate
    assert next_leader.key == prefix + b"/%x" % second
    assert (await api.election.Leader(question)).kv.value == b"two"
    await api.election.Resign(election_pb.ResignRequest(leader=leader))  # leads no more: nothing happens
    assert (await api.election.Leader(question)).kv.value == b"two"


async def test_a_leader_may_say_something_else_and_a_former_one_not(api: Api, prefix: bytes) -> None:
    lease = await lease_of(api)
    leader = await campaign(api, prefix, lease, b"one")
    await api.election.Proclaim(election_pb.ProclaimRequest(leader=leader, value=b"two"))
    assert (await api.election.Leader(election_pb.LeaderRequest(name=prefix))).kv.value == b"two"
    same = await campaign(api, prefix, lease, b"three")  # a candidate of the same lease is the same candidate
    assert (same.key, same.rev) == (leader.key, leader.rev)
    assert (await api.election.Leader(election_pb.LeaderRequest(name=prefix))).kv.value == b"three"
    await api.election.Resign(election_pb.ResignRequest(leader=leader))
    late = election_pb.ProclaimRequest(leader=leader, value=b"late")
    assert await refused(api.election.Proclaim(late)) == (grpc.StatusCode.UNKNOWN, "election: not leader")


async def test_a_leader_that_names_no_lease_gets_one(api: Api, prefix: bytes) -> None:
    """Its key must not be without one: the leadership would never lapse."""
    leader = await campaign(api, prefix, await lease_of(api), b"one")
    nameless = election_pb.LeaderKey(name=leader.name, key=leader.key, rev=leader.rev)
    await api.election.Proclaim(election_pb.ProclaimRequest(leader=nameless, value=b"two"))
    kv = (await api.election.Leader(election_pb.LeaderRequest(name=prefix))).kv
    assert kv.value == b"two"
    assert kv.lease not in (0, leader.lease)
    look = await api.lease.LeaseTimeToLive(pb.LeaseTimeToLiveRequest(ID=kv.lease, keys=True))
    assert (look.grantedTTL, list(look.keys)) == (60, [leader.key])


@pytest.mark.parametrize("method", ["Proclaim", "Resign"])
async def test_a_leader_has_to_show_its_key(api: Api, method: str) -> None:
    request = {"Proclaim": election_pb.ProclaimRequest(), "Resign": election_pb.ResignRequest()}[method]
    assert await refused(getattr(api.election, method)(request)) == (
        grpc.StatusCode.UNKNOWN,
        '"leader" field must be provided',
    )


async def test_observers_hear_of_every_leader(api: Api, prefix: bytes) -> None:
    first, second = await lease_of(api), await lease_of(api)
    observing = api.election.Observe(election_pb.LeaderRequest(name=prefix))

    async def heard() -> bytes:
        return (await asyncio.wait_for(observing.read(), 10)).kv.value

    leader = await campaign(api, prefix, first, b"one")
    assert await heard() == b"one"
    await api.election.Proclaim(election_pb.ProclaimRequest(leader=leader, value=b"one more"))
    assert await heard() == b"one more"
    candidate = asyncio.create_task(campaign(api, prefix, second, b"two"))
    await in_line(api, prefix, 2)
    await api.lease.LeaseRevoke(pb.LeaseRevokeRequest(ID=first))
    await candidate
    assert await heard() == b"two"
    observing.cancel()


async def test_a_name_is_not_the_beginning_of_another(api: Api, prefix: bytes) -> None:
    await put(api, prefix + b"0")
    lease = await lease_of(api)
    await lock(api, prefix, lease)
    response = await api.kv.Range(pb.RangeRequest(key=prefix, range_end=end_of(prefix), count_only=True))
    assert response.count == 2
