"""A member's housekeeping, on an engine whose leader the test decides."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import msgspec
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from raft_store import member as member_module
from raft_store.config import Config
from raft_store.engine import MemberId, MemberStatus, Stopped, Term
from raft_store.engines.memory import MemoryEngine
from raft_store.etcd_api.errors import RpcError
from raft_store.member import Member, running
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.etcdserverpb import rpc_pb2_grpc

WITH_LEADER = (("hasleader", "true"),)


class FickleEngine(MemoryEngine):
    """Says what it is told of leader and term."""

    leader = MemberId(0)
    term = Term(1)
    election_timeout_s = 0.0

    def status(self) -> MemberStatus:
        said = {"leader": self.leader, "term": self.term, "election_timeout_s": self.election_timeout_s}
        return msgspec.structs.replace(super().status(), **said)


def config(**more: object) -> Config:
    return Config(
        name="m1",
        members={"m1": "http://127.0.0.1:1", "m2": "http://127.0.0.1:2"},
        data_dir=Path("/nonexistent"),
        client_url="http://127.0.0.1:2379",
        client_listen="127.0.0.1:0",
        **more,
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_module, "PULSE_S", 0.01)
    monkeypatch.setattr(member_module, "LEADERLESS_S", 0.05)


@pytest.fixture
async def engine() -> FickleEngine:
    engine = FickleEngine(config().member)
    engine.leader = config().member
    return engine


@pytest.fixture(params=["fast", "grpcio"])
async def member(engine: FickleEngine, request: pytest.FixtureRequest) -> AsyncIterator[Member]:
    async with running(config(front=request.param), engine) as started:
        yield started


@pytest.fixture
async def channel(member: Member) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{member.client_port}") as channel:
        yield channel


async def until(condition: object) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the member's own pace
            await asyncio.sleep(0.01)


async def test_calls_that_demand_a_leader_are_refused_without_one(
    engine: FickleEngine, channel: grpc.aio.Channel
) -> None:
    kv = rpc_pb2_grpc.KVStub(channel)
    request = pb.RangeRequest(key=b"k", serializable=True)
    await kv.Range(request, metadata=WITH_LEADER)
    engine.leader = MemberId(0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await kv.Range(request, metadata=WITH_LEADER)
    assert (caught.value.code(), caught.value.details()) == (
        grpc.StatusCode.UNAVAILABLE,
        "etcdserver: no leader",
    )
    await kv.Range(request)  # who does not demand one is served


async def test_streams_that_demand_a_leader_are_cut_when_it_is_lost(
    engine: FickleEngine, member: Member, channel: grpc.aio.Channel
) -> None:
    watch = rpc_pb2_grpc.WatchStub(channel)
    demanding, modest = watch.Watch(metadata=WITH_LEADER), watch.Watch()
    for call in (demanding, modest):
        await call.write(pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"k")))
        assert (await call.read()).created
    engine.leader = MemberId(0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(demanding.read(), 5)
    assert caught.value.details() == "etcdserver: no leader"
    await until(lambda: member.machine.hub.counts() == (1, 1))
    await modest.write(pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"j")))
    assert (await modest.read()).created
    modest.cancel()


async def test_streams_are_not_cut_while_a_leader_may_still_be_replaced(
    engine: FickleEngine, member: Member, channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members that wait longer for a leader choose one later: until then all clients would only begin anew."""
    watch = rpc_pb2_grpc.WatchStub(channel).Watch(metadata=WITH_LEADER)
    await watch.write(pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"k")))
    assert (await watch.read()).created
    cut: list[float] = []
    monkeypatch.setattr(member.guard, "leader_lost", lambda: cut.append(engine.election_timeout_s))
    engine.election_timeout_s = 2.0
    for leaderless_s, lost in ((5.9, []), (6.1, [2.0])):
        engine.leader = MemberId(0)
        member._leader_seen = time.monotonic() - leaderless_s
        cut.clear()
        member._look_at_leader()
        engine.leader = config().member
        assert cut == lost
    watch.cancel()


async def test_health_follows_the_leader(engine: FickleEngine, channel: grpc.aio.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    watching = health.Watch(health_pb2.HealthCheckRequest())
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING

    async def comes(status: int) -> None:
        async with asyncio.timeout(5):
            while (await watching.read()).status != status:
                pass

    await comes(serving)
    engine.leader = MemberId(0)
    await comes(not_serving)
    engine.leader = MemberId(5)
    await comes(serving)
    watching.cancel()


@pytest.mark.parametrize(("election_timeout_s", "ttl_s"), [(0.0, 1), (0.27, 1), (0.67, 2), (1.0, 2), (2.7, 5)])
async def test_a_lease_is_longer_than_a_leader_may_take_to_be_replaced(
    engine: FickleEngine, channel: grpc.aio.Channel, election_timeout_s: float, ttl_s: int
) -> None:
    engine.election_timeout_s = election_timeout_s  # as it stands now: members come to wait longer
    lease = rpc_pb2_grpc.LeaseStub(channel)
    granted = await lease.LeaseGrant(pb.LeaseGrantRequest(TTL=1))
    assert ttl_s == granted.TTL
    assert (await lease.LeaseGrant(pb.LeaseGrantRequest(TTL=60))).TTL == 60


async def test_a_lease_asked_for_when_the_engine_has_stopped_is_refused_as_other_calls_are(
    engine: FickleEngine, member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped() -> MemberStatus:
        raise Stopped("this member is not running")

    asked = member._services().lease.grant(pb.LeaseGrantRequest(TTL=1))
    with monkeypatch.context() as patched:
        patched.setattr(engine, "status", stopped)
        with pytest.raises(RpcError, match="etcdserver: server stopped"):
            asked.send(None)  # in this turn, in which the member itself does not look


async def test_only_the_leader_ends_leases(engine: FickleEngine, member: Member, channel: grpc.aio.Channel) -> None:
    lease = rpc_pb2_grpc.LeaseStub(channel)
    granted = await lease.LeaseGrant(pb.LeaseGrantRequest(TTL=60))
    engine.leader = MemberId(5)
    await asyncio.sleep(0.05)
    member.machine.lease_clock._ends[granted.ID] = 0.0
    await asyncio.sleep(0.05)
    assert len(member.machine.leases) == 1
    engine.leader, engine.term = config().member, Term(2)
    await asyncio.sleep(0.05)
    assert len(member.machine.leases) == 1  # the new leader gave it its whole time again
    assert member.machine.lease_clock.remaining_s(granted.ID) > 50


async def test_the_member_list_learns_where_clients_reach_us(member: Member, channel: grpc.aio.Channel) -> None:
    cluster = rpc_pb2_grpc.ClusterStub(channel)
    await until(lambda: member.machine.members)
    members = (await cluster.MemberList(pb.MemberListRequest())).members
    assert [(m.name, list(m.clientURLs)) for m in members] == [("m1", ["http://127.0.0.1:2379"])]


async def test_the_quota_raises_its_alarm(engine: FickleEngine) -> None:
    async with (
        running(config(quota_bytes=1000), engine) as member,
        grpc.aio.insecure_channel(f"127.0.0.1:{member.client_port}") as channel,
    ):
        kv = rpc_pb2_grpc.KVStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="database space exceeded"):
            await kv.Put(pb.PutRequest(key=b"k", value=bytes(2000)))
        assert member.machine.alarms
        with pytest.raises(grpc.aio.AioRpcError, match="database space exceeded"):
            await kv.Put(pb.PutRequest(key=b"k", value=b""))


async def test_a_taken_address_is_named(member: Member) -> None:
    taken = msgspec.structs.replace(config(), client_listen=f"127.0.0.1:{member.client_port}")
    with pytest.raises(OSError, match=f"client_listen 127.0.0.1:{member.client_port}"):
        await Member(taken, FickleEngine(taken.member)).start()


async def test_a_member_whose_housekeeping_fails_for_good_ends(
    engine: FickleEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member that ends no leases and tells nobody would be worse than none."""
    monkeypatch.setattr("raft_store.chores.REST_S", 0.0)

    def broken() -> None:
        raise RuntimeError("our own mistake")

    async with running(config(), engine) as started:
        monkeypatch.setattr(started._leases, "due", broken)
        async with asyncio.timeout(5):
            await started.failed.wait()
        assert str(started.failure) == "our own mistake"
