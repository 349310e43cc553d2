"""Cluster, Maintenance and Auth: what tools ask about the store itself."""

import hashlib

import grpc
import grpc.aio
import pytest

from tests.contract.kv.conftest import Api
from tests.contract.kv.stores import Store
from tests.contract.kv.test_kv import put, refused
from trireme_pb.etcdserverpb import rpc_pb2 as pb


async def test_members_and_their_addresses(api: Api, store: Store) -> None:
    members = (await api.cluster.MemberList(pb.MemberListRequest(linearizable=True))).members
    assert sorted(url for member in members for url in member.clientURLs) == sorted(
        f"http://{endpoint}" for endpoint in store.endpoints
    )
    assert sorted(member.name for member in members) == [f"m{i}" for i in range(len(store.endpoints))]
    assert all(member.ID for member in members)


async def test_status(api: Api, prefix: bytes) -> None:
    revision = await put(api, prefix, bytes(1000))
    status = await api.maintenance.Status(pb.StatusRequest())
    members = (await api.cluster.MemberList(pb.MemberListRequest())).members
    assert status.header.revision >= revision
    assert status.leader in [member.ID for member in members]
    assert status.raftIndex >= status.raftAppliedIndex > 0
    assert status.raftTerm == status.header.raft_term > 0
    assert status.dbSize >= 1000
    assert status.version.startswith("3.")
    assert not status.errors


async def test_members_agree_on_the_keys(store: Store, api: Api, prefix: bytes) -> None:
    for i in range(20):
        revision = await put(api, prefix + b"%d" % (i % 7))
    await api.kv.DeleteRange(pb.DeleteRangeRequest(key=prefix + b"3"))
    hashes = set()
    for endpoint in store.endpoints:
        async with grpc.aio.insecure_channel(endpoint) as channel:
            member = Api(channel)
            await member.kv.Range(pb.RangeRequest(key=prefix))  # waits until the member has it all
            response = await member.maintenance.HashKV(pb.HashKVRequest(revision=revision))
            hashes.add((response.hash, response.compact_revision))
    assert len(hashes) == 1
    before = await api.maintenance.HashKV(pb.HashKVRequest())
    await put(api, prefix)
    assert (await api.maintenance.HashKV(pb.HashKVRequest())).hash != before.hash


async def test_snapshot_is_whole_pages_and_their_checksum(api: Api) -> None:
    state, remaining = b"", -1
    async for part in api.maintenance.Snapshot(pb.SnapshotRequest()):
        state += part.blob
        remaining = part.remaining_bytes
    assert remaining == 0
    assert len(state) % 512 == 32
    assert hashlib.sha256(state[:-32]).digest() == state[-32:]


async def test_alarms(api: Api, prefix: bytes) -> None:
    member = (await api.maintenance.Status(pb.StatusRequest())).header.member_id
    await put(api, prefix)

    async def alarm(action: int) -> list[tuple[int, int]]:
        request = pb.AlarmRequest(action=action, memberID=member, alarm=pb.NOSPACE)
        return [(a.memberID, a.alarm) for a in (await api.maintenance.Alarm(request)).alarms]

    assert await alarm(pb.AlarmRequest.GET) == []
    assert await alarm(pb.AlarmRequest.ACTIVATE) == [(member, pb.NOSPACE)]
    try:
        assert await alarm(pb.AlarmRequest.GET) == [(member, pb.NOSPACE)]
        assert await refused(api.kv.Put(pb.PutRequest(key=prefix, value=b"2"))) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "etcdserver: mvcc: database space exceeded",
        )
        assert (await api.kv.DeleteRange(pb.DeleteRangeRequest(key=prefix))).deleted == 1
    finally:
        assert await alarm(pb.AlarmRequest.DEACTIVATE) == [(member, pb.NOSPACE)]
    await put(api, prefix)


@pytest.mark.parametrize(
    ("member", "kind", "words"),
    [
        pytest.param(5, pb.NOSPACE, "memberID:5 alarm:NOSPACE ", id="both"),
        pytest.param(0, pb.NOSPACE, "alarm:NOSPACE ", id="of no member"),
        pytest.param(5, pb.NONE, "memberID:5 ", id="of no kind"),
    ],
)
async def test_alarms_in_words(api: Api, member: int, kind: int, words: str) -> None:
    await api.maintenance.Alarm(pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=member, alarm=kind))
    try:
        assert list((await api.maintenance.Status(pb.StatusRequest())).errors) == [words]
    finally:
        await api.maintenance.Alarm(pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, memberID=member, alarm=kind))


async def test_defragment(api: Api) -> None:
    await api.maintenance.Defragment(pb.DefragmentRequest())


async def test_moving_the_leader(store: Store) -> None:
    """Only the leader takes the order; the others say so."""
    statuses = {}
    for endpoint in store.endpoints:
        async with grpc.aio.insecure_channel(endpoint) as channel:
            statuses[endpoint] = await Api(channel).maintenance.Status(pb.StatusRequest())
    leading = next(e for e, status in statuses.items() if status.leader == status.header.member_id)
    others = [endpoint for endpoint in store.endpoints if endpoint != leading]
    async with grpc.aio.insecure_channel(leading) as channel:
        nobody = pb.MoveLeaderRequest(targetID=99)
        assert await refused(Api(channel).maintenance.MoveLeader(nobody)) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "etcdserver: bad leader transferee",
        )
        if others:
            target = statuses[others[0]].header.member_id
            await Api(channel).maintenance.MoveLeader(pb.MoveLeaderRequest(targetID=target))
            after = await Api(channel).maintenance.Status(pb.StatusRequest())
            assert after.leader == target
            assert await refused(Api(channel).maintenance.MoveLeader(nobody)) == (
                grpc.StatusCode.FAILED_PRECONDITION,
                "etcdserver: not leader",
            )


async def test_has_leader_is_satisfied(api: Api, prefix: bytes) -> None:
    await api.kv.Range(pb.RangeRequest(key=prefix), metadata=(("hasleader", "true"),))


@pytest.mark.parametrize(
    ("method", "request_", "text"),
    [
        ("AuthEnable", pb.AuthEnableRequest(), "etcdserver: root user does not exist"),
        ("Authenticate", pb.AuthenticateRequest(name="a"), "etcdserver: authentication is not enabled"),
        ("UserGet", pb.AuthUserGetRequest(name="a"), "etcdserver: user name not found"),
        ("UserDelete", pb.AuthUserDeleteRequest(name="a"), "etcdserver: user name not found"),
        ("RoleGet", pb.AuthRoleGetRequest(role="a"), "etcdserver: role name not found"),
        ("RoleDelete", pb.AuthRoleDeleteRequest(role="a"), "etcdserver: role name not found"),
    ],
)
async def test_authentication_is_off(api: Api, method: str, request_: object, text: str) -> None:
    assert await refused(getattr(api.auth, method)(request_)) == (grpc.StatusCode.FAILED_PRECONDITION, text)


async def test_there_are_no_users(api: Api) -> None:
    assert not (await api.auth.UserList(pb.AuthUserListRequest())).users
    assert not (await api.auth.RoleList(pb.AuthRoleListRequest())).roles
