"""Users, roles and permissions beside a real etcd's: who is let in, who may do what, and what others are told."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contract.kv.pair import DIFFERENTIAL, Pair, Refusal, Steps, step
from trireme_pb.authpb import auth_pb2
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.etcdserverpb import rpc_pb2_grpc

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(900)]

USERS = st.sampled_from(["ann", "ann", "bob", "cert", "root", "eve", ""])
ROLES = st.sampled_from(["some", "some", "more", "root", "none", ""])
PASSWORDS = st.sampled_from(["good", "good", "good", "bad", ""])
KEYS = st.sampled_from([b"a", b"b", b"bb", b"c", b"d"])
# A key, a range, or everything from a key on. Ranges that hold no key: see the test of them.
RANGES = st.sampled_from([
    (b"a", b""), (b"b", b""), (b"c", b""), (b"a", b"b"), (b"b", b"c"), (b"a", b"c"), (b"bb", b"c"), (b"b", b"d"),
    (b"\0", b"\0"), (b"b", b"\0"), (b"a", b"\0"),
])  # fmt: skip
FLAG = st.booleans()
ACCESS = st.integers(0, 2)

STEPS = st.one_of(
    step("login", name=USERS, password=PASSWORDS),
    step("login", name=st.sampled_from(["ann", "bob", "root"]), password=st.just("good")),
    step("logout"),
    step("show_a_wrong_token"),
    step("call", service=st.just("Auth"), method=st.just("AuthEnable"), request=st.just(pb.AuthEnableRequest())),
    step("call", service=st.just("Auth"), method=st.just("AuthDisable"), request=st.just(pb.AuthDisableRequest())),
    step("user_add", name=USERS, no_password=FLAG),
    step("call", service=st.just("Auth"), method=st.just("UserDelete"), request=st.builds(pb.AuthUserDeleteRequest, name=USERS)),
    step("call", service=st.just("Auth"), method=st.just("UserGet"), request=st.builds(pb.AuthUserGetRequest, name=USERS)),
    step("call", service=st.just("Auth"), method=st.just("UserList"), request=st.just(pb.AuthUserListRequest())),
    step("change_password", name=USERS, password=PASSWORDS),
    step("call", service=st.just("Auth"), method=st.just("UserGrantRole"), request=st.builds(pb.AuthUserGrantRoleRequest, user=USERS, role=ROLES)),
    step("call", service=st.just("Auth"), method=st.just("UserRevokeRole"), request=st.builds(pb.AuthUserRevokeRoleRequest, name=USERS, role=ROLES)),
    step("call", service=st.just("Auth"), method=st.just("RoleAdd"), request=st.builds(pb.AuthRoleAddRequest, name=ROLES)),
    step("call", service=st.just("Auth"), method=st.just("RoleDelete"), request=st.builds(pb.AuthRoleDeleteRequest, role=ROLES)),
    step("call", service=st.just("Auth"), method=st.just("RoleGet"), request=st.builds(pb.AuthRoleGetRequest, role=ROLES)),
    step("call", service=st.just("Auth"), method=st.just("RoleList"), request=st.just(pb.AuthRoleListRequest())),
    step("grant_permission", role=ROLES, access=ACCESS, keys=RANGES),
    step("revoke_permission", role=ROLES, keys=RANGES),
    step("read", keys=RANGES, serializable=FLAG),
    step("read", keys=RANGES, serializable=FLAG),
    step("call", service=st.just("KV"), method=st.just("Put"), request=st.builds(pb.PutRequest, key=KEYS, prev_kv=FLAG, lease=st.sampled_from([0, 0, 7]))),
    step("delete", keys=RANGES, prev_kv=FLAG),
    step("txn", compare=KEYS, put=KEYS, read=RANGES, delete=RANGES, prev_kv=FLAG),
    step("read_only_txn", compare=KEYS, read=RANGES),
    step("call", service=st.just("Lease"), method=st.just("LeaseGrant"), request=st.just(pb.LeaseGrantRequest(ID=7, TTL=600))),
    step("call", service=st.just("Lease"), method=st.just("LeaseRevoke"), request=st.just(pb.LeaseRevokeRequest(ID=7))),
    step("call", service=st.just("Lease"), method=st.just("LeaseLeases"), request=st.just(pb.LeaseLeasesRequest())),
    step("keep_alive"),
    step("watch", keys=st.sampled_from([(b"a", b""), (b"b", b""), (b"a", b"c"), (b"b", b"d")])),
    step("refused_or_not", service=st.just("Maintenance"), method=st.just("Status"), request=st.just(pb.StatusRequest())),
    step("refused_or_not", service=st.just("Maintenance"), method=st.just("Hash"), request=st.just(pb.HashRequest())),
    step("refused_or_not", service=st.just("Maintenance"), method=st.just("HashKV"), request=st.just(pb.HashKVRequest())),
    step("refused_or_not", service=st.just("Maintenance"), method=st.just("Defragment"), request=st.just(pb.DefragmentRequest())),
    step("refused_or_not", service=st.just("Cluster"), method=st.just("MemberList"), request=st.just(pb.MemberListRequest())),
    step("refused_or_not", service=st.just("Maintenance"), method=st.just("Alarm"), request=st.just(pb.AlarmRequest())),
)  # fmt: skip


def a_range(keys: tuple[bytes, bytes]) -> dict[str, bytes]:
    return {"key": keys[0], "range_end": keys[1]}


class Run:
    """One series of steps, as whoever is logged in, each asked of both stores."""

    def __init__(self, pair: Pair) -> None:
        """Begin with users ann (who may do a little), bob (nothing), cert (has no password) and root."""
        self.pair = pair
        self.callers_are_asked = False
        pair.clear_alarms()
        self.call("KV", "DeleteRange", pb.DeleteRangeRequest(key=b"\0", range_end=b"\0"))
        self.call("Lease", "LeaseRevoke", pb.LeaseRevokeRequest(ID=7))
        for user in self.call("Auth", "UserList", pb.AuthUserListRequest()).users:
            self.call("Auth", "UserDelete", pb.AuthUserDeleteRequest(name=user))
        for role in self.call("Auth", "RoleList", pb.AuthRoleListRequest()).roles:
            self.call("Auth", "RoleDelete", pb.AuthRoleDeleteRequest(role=role))
        for name in ("root", "ann", "bob", "cert"):
            self.user_add(name=name, no_password=name == "cert")
        self.call("Auth", "UserGrantRole", pb.AuthUserGrantRoleRequest(user="root", role="root"))
        self.call("Auth", "RoleAdd", pb.AuthRoleAddRequest(name="some"))
        self.grant_permission(role="some", access=2, keys=(b"a", b"c"))
        self.call("Auth", "UserGrantRole", pb.AuthUserGrantRoleRequest(user="ann", role="some"))
        self.call("Auth", "AuthEnable", pb.AuthEnableRequest())

    def finish(self) -> bool:
        """Let everybody in again; return whether that was possible. It is not if root has no password any more."""
        self.logout()
        if not isinstance(self.call("Auth", "UserList", pb.AuthUserListRequest()), Refusal):
            return True
        for password in ("good", "bad", ""):
            self.login(name="root", password=password)
            if self.pair.ours.metadata:
                self.call("Auth", "AuthDisable", pb.AuthDisableRequest())
                self.logout()
                return True
        return False

    def call(self, service: str, method: str, request: Any) -> Any:
        answer = self.pair.call(service, method, request)
        if method in ("AuthEnable", "AuthDisable") and not isinstance(answer, Refusal):
            self.callers_are_asked = method == "AuthEnable"
            if not self.callers_are_asked:
                self.logout()  # what 3.4 says to a token then is a documented difference
        return answer

    def login(self, name: str, password: str) -> None:
        self.logout()
        request = pb.AuthenticateRequest(name=name, password=password)
        answers = [peer.call("Auth", "Authenticate", request) for peer in self.pair.peers]
        for peer, answer in zip(self.pair.peers, answers, strict=True):
            if not isinstance(answer, Refusal):
                assert answer.token.partition(".")[2].isdecimal()
                peer.metadata = (("token", answer.token),)
                answer.ClearField("token")
        self.pair.compare(request, *answers)

    def logout(self) -> None:
        for peer in self.pair.peers:
            peer.metadata = ()

    def show_a_wrong_token(self) -> None:
        if not self.callers_are_asked:
            return
        for peer in self.pair.peers:
            peer.metadata = (("token", "abcdefghijklmnop.1"),)

    def user_add(self, name: str, *, no_password: bool) -> None:
        options = auth_pb2.UserAddOptions(no_password=no_password)
        self.call("Auth", "UserAdd", pb.AuthUserAddRequest(name=name, password="good", options=options))

    def change_password(self, name: str, password: str) -> None:
        self.call("Auth", "UserChangePassword", pb.AuthUserChangePasswordRequest(name=name, password=password))

    def grant_permission(self, role: str, access: int, keys: tuple[bytes, bytes]) -> None:
        permission = auth_pb2.Permission(permType=access, **a_range(keys))
        self.call("Auth", "RoleGrantPermission", pb.AuthRoleGrantPermissionRequest(name=role, perm=permission))

    def revoke_permission(self, role: str, keys: tuple[bytes, bytes]) -> None:
        self.call("Auth", "RoleRevokePermission", pb.AuthRoleRevokePermissionRequest(role=role, **a_range(keys)))

    def read(self, keys: tuple[bytes, bytes], *, serializable: bool) -> None:
        self.call("KV", "Range", pb.RangeRequest(**a_range(keys), serializable=serializable))

    def delete(self, keys: tuple[bytes, bytes], *, prev_kv: bool) -> None:
        self.call("KV", "DeleteRange", pb.DeleteRangeRequest(**a_range(keys), prev_kv=prev_kv))

    def txn(self, compare: bytes, put: bytes, read: Any, delete: Any, *, prev_kv: bool) -> None:
        deletion = pb.DeleteRangeRequest(**a_range(delete), prev_kv=prev_kv)
        self.call(
            "KV",
            "Txn",
            pb.TxnRequest(
                compare=[pb.Compare(key=compare, target=0, version=0)],
                success=[pb.RequestOp(request_put=pb.PutRequest(key=put))],
                failure=[
                    pb.RequestOp(request_range=pb.RangeRequest(**a_range(read))),
                    pb.RequestOp(request_delete_range=deletion),
                ],
            ),
        )

    def read_only_txn(self, compare: bytes, read: Any) -> None:
        request = pb.RequestOp(request_range=pb.RangeRequest(**a_range(read)))
        condition = pb.Compare(key=compare, target=0, version=0)
        self.call("KV", "Txn", pb.TxnRequest(compare=[condition], success=[request], failure=[request]))

    def keep_alive(self) -> None:
        self.pair.keep_alive(7)

    def watch(self, keys: tuple[bytes, bytes]) -> None:
        """Look at how the store takes it."""
        create = pb.WatchRequest(create_request=pb.WatchCreateRequest(**a_range(keys)))
        answers = []
        for peer in self.pair.peers:
            stream = rpc_pb2_grpc.WatchStub(peer.channel).Watch(iter([create]), metadata=peer.metadata, timeout=10)
            answers.append(peer.anyone(next(stream)))
            stream.cancel()
        self.pair.compare(create, *answers)

    def refused_or_not(self, service: str, method: str, request: Any) -> None:
        """Ask what the two answer differently if they answer at all."""
        answers = [peer.call(service, method, request) for peer in self.pair.peers]
        if any(isinstance(answer, Refusal) for answer in answers):
            self.pair.compare(request, *answers)


@DIFFERENTIAL
@given(steps=st.lists(STEPS, min_size=10, max_size=40))
def test_random_administration(pairs: Callable[[], Pair], steps: Steps) -> None:
    pair = pairs()
    try:
        run = Run(pair)
        for name, arguments in steps:
            getattr(run, name)(**arguments)
        is_open = run.finish()
    except BaseException:
        pair.agree = False  # in the middle of something: what broke it must not break the next series too
        raise
    pair.agree &= is_open
