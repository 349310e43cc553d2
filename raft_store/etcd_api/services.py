"""Every method of every service as a row: what a front has to register, whichever front that is."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
from google.protobuf.message import Message

from trireme_pb.etcdserverpb import rpc_pb2 as pb

from .auth import AuthService
from .cluster import ClusterService
from .kv import KvService
from .lease import LeaseService
from .maintenance import MaintenanceService
from .watch import WatchService

Unary = Callable[[Any], Awaitable[Message]]
Send = Callable[[Any], Awaitable[None]]
Stream = Callable[[AsyncIterator[Any], Send], Awaitable[None]]


class UnaryMethod(msgspec.Struct, frozen=True):
    """One message in, one out."""

    service: str
    method: str
    request: type[Message]
    handler: Unary


class StreamMethod(msgspec.Struct, frozen=True):
    """Messages out, for one message in or for many."""

    service: str
    method: str
    request: type[Message]
    handler: Stream
    many_requests: bool = True


Method = UnaryMethod | StreamMethod


class Services(msgspec.Struct, frozen=True):
    """The services of one member."""

    kv: KvService
    watch: WatchService
    lease: LeaseService
    cluster: ClusterService
    maintenance: MaintenanceService
    auth: AuthService

    def methods(self) -> tuple[Method, ...]:
        """Return one row for every method."""
        return (
            UnaryMethod("KV", "Range", pb.RangeRequest, self.kv.range),
            UnaryMethod("KV", "Put", pb.PutRequest, self.kv.put),
            UnaryMethod("KV", "DeleteRange", pb.DeleteRangeRequest, self.kv.delete_range),
            UnaryMethod("KV", "Txn", pb.TxnRequest, self.kv.txn),
            UnaryMethod("KV", "Compact", pb.CompactionRequest, self.kv.compact),
            StreamMethod("Watch", "Watch", pb.WatchRequest, self.watch.watch),
            UnaryMethod("Lease", "LeaseGrant", pb.LeaseGrantRequest, self.lease.grant),
            UnaryMethod("Lease", "LeaseRevoke", pb.LeaseRevokeRequest, self.lease.revoke),
            StreamMethod("Lease", "LeaseKeepAlive", pb.LeaseKeepAliveRequest, self.lease.keep_alive),
            UnaryMethod("Lease", "LeaseTimeToLive", pb.LeaseTimeToLiveRequest, self.lease.time_to_live),
            UnaryMethod("Lease", "LeaseLeases", pb.LeaseLeasesRequest, self.lease.leases),
            UnaryMethod("Cluster", "MemberList", pb.MemberListRequest, self.cluster.member_list),
            UnaryMethod("Cluster", "MemberAdd", pb.MemberAddRequest, self.cluster.member_add),
            UnaryMethod("Cluster", "MemberRemove", pb.MemberRemoveRequest, self.cluster.member_remove),
            UnaryMethod("Cluster", "MemberUpdate", pb.MemberUpdateRequest, self.cluster.member_update),
            UnaryMethod("Cluster", "MemberPromote", pb.MemberPromoteRequest, self.cluster.member_promote),
            UnaryMethod("Maintenance", "Alarm", pb.AlarmRequest, self.maintenance.alarm),
            UnaryMethod("Maintenance", "Status", pb.StatusRequest, self.maintenance.status),
            UnaryMethod("Maintenance", "Defragment", pb.DefragmentRequest, self.maintenance.defragment),
            UnaryMethod("Maintenance", "Hash", pb.HashRequest, self.maintenance.hash),
            UnaryMethod("Maintenance", "HashKV", pb.HashKVRequest, self.maintenance.hash_kv),
            StreamMethod(
                "Maintenance",
                "Snapshot",
                pb.SnapshotRequest,
                self.maintenance.snapshot,
                many_requests=False,
            ),
            UnaryMethod("Maintenance", "MoveLeader", pb.MoveLeaderRequest, self.maintenance.move_leader),
            UnaryMethod("Maintenance", "Downgrade", pb.DowngradeRequest, self.maintenance.downgrade),
            *self._auth_methods(),
        )

    def _auth_methods(self) -> tuple[Method, ...]:
        auth = self.auth
        rows: tuple[tuple[str, type[Message], Unary], ...] = (
            ("AuthEnable", pb.AuthEnableRequest, auth.enable),
            ("AuthDisable", pb.AuthDisableRequest, auth.disable),
            ("AuthStatus", pb.AuthStatusRequest, auth.status),
            ("Authenticate", pb.AuthenticateRequest, auth.authenticate),
            ("UserAdd", pb.AuthUserAddRequest, auth.refuse),
            ("UserGet", pb.AuthUserGetRequest, auth.no_user),
            ("UserList", pb.AuthUserListRequest, auth.user_list),
            ("UserDelete", pb.AuthUserDeleteRequest, auth.no_user),
            ("UserChangePassword", pb.AuthUserChangePasswordRequest, auth.no_user),
            ("UserGrantRole", pb.AuthUserGrantRoleRequest, auth.no_user),
            ("UserRevokeRole", pb.AuthUserRevokeRoleRequest, auth.no_user),
            ("RoleAdd", pb.AuthRoleAddRequest, auth.refuse),
            ("RoleGet", pb.AuthRoleGetRequest, auth.no_role),
            ("RoleList", pb.AuthRoleListRequest, auth.role_list),
            ("RoleDelete", pb.AuthRoleDeleteRequest, auth.no_role),
            ("RoleGrantPermission", pb.AuthRoleGrantPermissionRequest, auth.no_role),
            ("RoleRevokePermission", pb.AuthRoleRevokePermissionRequest, auth.no_role),
        )
        return tuple(UnaryMethod("Auth", method, request, handler) for method, request, handler in rows)
