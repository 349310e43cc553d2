"""Where ours and etcd 3.4 answer differently, on purpose: each row is shown to be true, and is in the documentation.

What random operations may meet is in ``pair.DIFFERENCES`` as well; the rest is kept out of them.
"""

import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.contract.kv.pair import DIFFERENCES, MEMBER, Answer, Pair, Peer, Refusal
from tests.contract.kv.test_txn import delete_op, put_op, txn_op
from trireme_pb.authpb import auth_pb2
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.etcdserverpb import rpc_pb2_grpc
from trireme_pb.v3lockpb import v3lock_pb2 as lock_pb
from trireme_pb.v3lockpb import v3lock_pb2_grpc

pytestmark = pytest.mark.etcd

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "etcd.md"


@pytest.fixture
def pair(pairs: Callable[[], Pair]) -> Iterator[Pair]:
    """A pair that has users (root, and ann with the role ``some``), and is not used afterwards: it differed."""
    running = pairs()
    both(running, "Auth", "UserAdd", pb.AuthUserAddRequest(name="root", password="good"))
    both(running, "Auth", "UserGrantRole", pb.AuthUserGrantRoleRequest(user="root", role="root"))
    both(running, "Auth", "UserAdd", pb.AuthUserAddRequest(name="ann", password="good"))
    both(running, "Auth", "RoleAdd", pb.AuthRoleAddRequest(name="some"))
    both(running, "Auth", "UserGrantRole", pb.AuthUserGrantRoleRequest(user="ann", role="some"))
    yield running
    running.agree = False


def both(pair: Pair, service: str, method: str, request: Any) -> tuple[Answer, Answer]:
    theirs, ours = (peer.call(service, method, request) for peer in pair.peers)
    return theirs, ours


def grant(pair: Pair, access: int, key: bytes, end: bytes = b"") -> tuple[Answer, Answer]:
    permission = auth_pb2.Permission(permType=access, key=key, range_end=end)
    request = pb.AuthRoleGrantPermissionRequest(name="some", perm=permission)
    return both(pair, "Auth", "RoleGrantPermission", request)


def as_ann(pair: Pair) -> None:
    both(pair, "Auth", "AuthEnable", pb.AuthEnableRequest())
    for peer in pair.peers:
        answer = peer.call("Auth", "Authenticate", pb.AuthenticateRequest(name="ann", password="good"))
        assert not isinstance(answer, Refusal), answer
        peer.metadata = (("token", answer.token),)


def first_response(peer: Peer, **create: Any) -> pb.WatchResponse:
    request = pb.WatchRequest(create_request=pb.WatchCreateRequest(**create))
    stream = rpc_pb2_grpc.WatchStub(peer.channel).Watch(iter([request]), metadata=peer.metadata, timeout=10)
    response = next(stream)
    stream.cancel()
    return response


def documented(name: str) -> None:
    assert f"| {name} |" in DOCUMENT.read_text(encoding="utf-8"), f"{DOCUMENT.name} has no row {name!r}"


DENIED = Refusal("PERMISSION_DENIED", "etcdserver: permission denied")


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda row: row.name)
def test_every_row_is_documented(difference: Any) -> None:
    documented(difference.name)


def test_no_header(pair: Pair) -> None:
    documented("no header")
    theirs, ours = both(pair, "Maintenance", "Alarm", pb.AlarmRequest())
    assert not isinstance(theirs, Refusal)
    assert not isinstance(ours, Refusal)
    assert (theirs.HasField("header"), ours.HasField("header")) == (False, True)


def test_nested_puts_without_space(pair: Pair) -> None:
    both(pair, "Maintenance", "Alarm", pb.AlarmRequest(action=1, memberID=MEMBER, alarm=pb.NOSPACE))
    request = pb.TxnRequest(success=[txn_op(success=[put_op(b"k")])])
    theirs, ours = both(pair, "KV", "Txn", request)
    assert not isinstance(theirs, Refusal)
    assert ours == Refusal("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded")


def test_maintenance_without_permission(pair: Pair) -> None:
    as_ann(pair)
    assert both(pair, "Maintenance", "Defragment", pb.DefragmentRequest()) == (
        Refusal("UNKNOWN", "auth: permission denied"),
        DENIED,
    )


def test_permissions_while_an_alarm_is_on(pair: Pair) -> None:
    both(pair, "Maintenance", "Alarm", pb.AlarmRequest(action=1, alarm=pb.NOSPACE, memberID=MEMBER))
    both(pair, "Auth", "AuthEnable", pb.AuthEnableRequest())
    theirs, ours = both(pair, "Auth", "UserList", pb.AuthUserListRequest())
    assert not isinstance(theirs, Refusal)
    assert ours == Refusal("INVALID_ARGUMENT", "etcdserver: user name is empty")


def test_auth_status(pair: Pair) -> None:
    documented("auth status")
    theirs, ours = both(pair, "Auth", "AuthStatus", pb.AuthStatusRequest())
    assert isinstance(theirs, Refusal)
    assert theirs.code == "UNIMPLEMENTED"
    assert not isinstance(ours, Refusal)
    assert (ours.enabled, ours.authRevision) == (False, 6)


def test_permissions_for_no_key(pair: Pair) -> None:
    documented("permissions for no key")
    theirs, ours = grant(pair, 0, b"b", b"a")
    assert not isinstance(theirs, Refusal)
    assert ours == Refusal("INVALID_ARGUMENT", "etcdserver: invalid auth management")


def test_permissions_of_nested_transactions(pair: Pair) -> None:
    documented("permissions of nested transactions")
    as_ann(pair)
    theirs, ours = both(pair, "KV", "Txn", pb.TxnRequest(success=[txn_op(success=[put_op(b"secret")])]))
    assert not isinstance(theirs, Refusal)
    assert ours == DENIED


def test_previous_values_in_transactions(pair: Pair) -> None:
    documented("previous values in transactions")
    both(pair, "KV", "Put", pb.PutRequest(key=b"k", value=b"secret"))
    grant(pair, 1, b"k")
    as_ann(pair)
    theirs, ours = both(pair, "KV", "Txn", pb.TxnRequest(success=[put_op(b"k", prev_kv=True)]))
    assert not isinstance(theirs, Refusal)
    assert theirs.responses[0].response_put.prev_kv.value == b"secret"
    assert ours == DENIED


def test_watching_everything_from_a_key_on(pair: Pair) -> None:
    documented("watching everything from a key on")
    grant(pair, 0, b"k")
    as_ann(pair)
    theirs, ours = (first_response(peer, key=b"k", range_end=b"\0") for peer in pair.peers)
    assert (theirs.canceled, ours.canceled) == (False, True)
    assert ours.cancel_reason == "rpc error: code = PermissionDenied desc = etcdserver: permission denied"


def test_tokens_while_nobody_is_asked(pair: Pair) -> None:
    """Clients keep theirs when authentication is disabled, and go on."""
    documented("tokens while nobody is asked")
    as_ann(pair)
    for peer in pair.peers:
        root = peer.call("Auth", "Authenticate", pb.AuthenticateRequest(name="root", password="good"))
        assert not isinstance(root, Refusal), root
        ann, peer.metadata = peer.metadata, (("token", root.token),)
        peer.call("Auth", "AuthDisable", pb.AuthDisableRequest())
        peer.metadata = ann
    theirs, ours = both(pair, "KV", "Range", pb.RangeRequest(key=b"k"))
    assert theirs == Refusal("UNAUTHENTICATED", "etcdserver: invalid auth token")
    assert not isinstance(ours, Refusal)


def test_locks_of_who_is_gone(pair: Pair) -> None:
    """Whoever waits for a lock loses its key, and then it is its turn."""
    documented("locks of who is gone")
    results = []
    for peer in pair.peers:
        for lease in (8, 9):
            peer.call("Lease", "LeaseGrant", pb.LeaseGrantRequest(ID=lease, TTL=600))
        locks = v3lock_pb2_grpc.LockStub(peer.channel)
        held = locks.Lock(lock_pb.LockRequest(name=b"l", lease=8), timeout=10)
        waiting = locks.Lock.future(lock_pb.LockRequest(name=b"l", lease=9), timeout=10)
        while not peer.call("KV", "Range", pb.RangeRequest(key=b"l/9")).count:  # type: ignore[union-attr]
            assert not waiting.done()
        peer.call("Lease", "LeaseRevoke", pb.LeaseRevokeRequest(ID=9))
        locks.Unlock(lock_pb.UnlockRequest(key=held.key), timeout=10)
        failure = waiting.exception()
        results.append(waiting.result().key if failure is None else (failure.code().name, failure.details()))
    assert results == [b"l/9", ("UNKNOWN", "mutex: session is expired")]


def over_http(pair: Pair, method: str, path: str) -> list[tuple[int, bytes]]:
    """Return the status and the body from etcd and from ours."""
    answers = []
    for endpoint in pair.endpoints:
        connection = http.client.HTTPConnection(endpoint, timeout=10)
        connection.request(method, path)
        with connection.getresponse() as response:
            answers.append((response.status, response.read()))
        connection.close()
    return answers


def test_the_hash_of_the_keys_over_http(pair: Pair) -> None:
    documented("the hash of the keys over HTTP")
    both(pair, "KV", "Put", pb.PutRequest(key=b"k"))
    (theirs, _), (ours, body) = over_http(pair, "POST", "/v3/maintenance/hashkv")
    assert (theirs, ours) == (404, 200)
    hashed = pair.ours.call("Maintenance", "HashKV", pb.HashKVRequest())
    assert not isinstance(hashed, Refusal)
    assert json.loads(body)["hash"] == hashed.hash


@pytest.mark.parametrize("path", ["/health", "/version"])
def test_the_head_of_a_page(pair: Pair, path: str) -> None:
    documented("HEAD of `/health` and `/version`")
    assert over_http(pair, "HEAD", path) == [(405, b""), (200, b"")]


def test_who_may_not_is_told_so_first(pair: Pair) -> None:
    documented("permission and arguments")
    as_ann(pair)
    theirs, ours = both(pair, "Cluster", "MemberAdd", pb.MemberAddRequest(peerURLs=["nowhere"]))
    assert theirs == Refusal("INVALID_ARGUMENT", "etcdserver: given member URLs are invalid")
    assert ours == DENIED


def test_moving_the_leader(pair: Pair) -> None:
    documented("moving the leader")
    as_ann(pair)
    theirs, ours = both(pair, "Maintenance", "MoveLeader", pb.MoveLeaderRequest(targetID=99))
    assert theirs == Refusal("FAILED_PRECONDITION", "etcdserver: bad leader transferee")
    assert ours == DENIED


def test_long_passwords(pair: Pair) -> None:
    documented("long passwords")
    common = "x" * 72
    both(pair, "Auth", "UserAdd", pb.AuthUserAddRequest(name="bob", password=common + "right"))
    both(pair, "Auth", "AuthEnable", pb.AuthEnableRequest())
    theirs, ours = both(pair, "Auth", "Authenticate", pb.AuthenticateRequest(name="bob", password=common + "wrong"))
    assert not isinstance(theirs, Refusal)
    assert ours == Refusal("INVALID_ARGUMENT", "etcdserver: authentication failed, invalid user ID or password")


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_requests(pair: Pair, compression: grpc.Compression) -> None:
    documented("compressed requests")
    request = pb.PutRequest(key=b"k", value=bytes(1000))
    with pytest.raises(grpc.RpcError) as refused:
        pair.theirs.stubs["KV"].Put(request, timeout=10, compression=compression)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    pair.ours.stubs["KV"].Put(request, timeout=10, compression=compression)


def test_keys_of_a_lease(pair: Pair) -> None:
    documented("keys of a lease")
    both(pair, "Lease", "LeaseGrant", pb.LeaseGrantRequest(ID=9, TTL=600))
    both(pair, "KV", "Put", pb.PutRequest(key=b"secret", lease=9))
    as_ann(pair)
    theirs, ours = both(pair, "Lease", "LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=9, keys=True))
    assert not isinstance(theirs, Refusal)
    assert list(theirs.keys) == [b"secret"]
    assert ours == DENIED


def test_watches_from_before_the_beginning(pair: Pair) -> None:
    documented("watches from before the beginning")
    theirs, ours = (first_response(peer, key=b"k", start_revision=-1) for peer in pair.peers)
    assert (theirs.canceled, ours.canceled, ours.watch_id) == (False, True, -1)


def test_progress_of_a_stream_without_watches(pair: Pair) -> None:
    """Agreement that later versions of etcd have given up."""
    requests = [
        pb.WatchRequest(progress_request=pb.WatchProgressRequest()),
        pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"k")),
    ]
    for peer in pair.peers:
        responses = rpc_pb2_grpc.WatchStub(peer.channel).Watch(iter(requests), timeout=10)
        told = [(response.watch_id, response.created) for response in (next(responses), next(responses))]
        assert told == [(-1, False), (0, True)]
        responses.cancel()


def test_requests_that_are_far_too_large_are_refused_alike(pair: Pair) -> None:
    """Agreement that random operations leave out, because they are small."""
    theirs, ours = both(pair, "KV", "Put", pb.PutRequest(key=b"k", value=bytes(3 << 20)))
    assert isinstance(ours, Refusal)
    assert ours.code == "RESOURCE_EXHAUSTED"
    assert theirs == ours


def test_the_version(pair: Pair) -> None:
    documented("the version")
    theirs, ours = both(pair, "Maintenance", "Status", pb.StatusRequest())
    assert (theirs.version[:4], ours.version) == ("3.4.", "3.5.13")


def test_a_corrupt_store_is_left_alone_by_both(pair: Pair) -> None:
    """Agreement that random operations leave out, because in etcd the end of any alarm ends this one too."""
    pair.call("KV", "Put", pb.PutRequest(key=b"k"))
    both(pair, "Maintenance", "Alarm", pb.AlarmRequest(action=1, memberID=MEMBER, alarm=pb.CORRUPT))
    for method, request in (
        ("Put", pb.PutRequest(key=b"k")),
        ("DeleteRange", pb.DeleteRangeRequest(key=b"k")),
        ("Txn", pb.TxnRequest(success=[delete_op(b"k")])),
        ("Compact", pb.CompactionRequest(revision=2)),
    ):
        assert pair.call("KV", method, request) == Refusal("DATA_LOSS", "etcdserver: corrupt cluster"), method
    assert pair.call("KV", "Range", pb.RangeRequest(key=b"k")).count == 1
    both(pair, "Maintenance", "Alarm", pb.AlarmRequest(action=2, memberID=MEMBER, alarm=pb.CORRUPT))
    pair.call("KV", "Put", pb.PutRequest(key=b"k"))
