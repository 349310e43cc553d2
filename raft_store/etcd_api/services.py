"""Every method of every service as a row: what a front has to register, whichever front that is."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
from google.protobuf.message import Message

from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.v3electionpb import v3election_pb2 as election_pb
from trireme_pb.v3lockpb import v3lock_pb2 as lock_pb

from .auth import AuthService
from .backend import Backend
from .call import NO_CONTEXT, Batch, CallContext, Outlet
from .cluster import ClusterService
from .election import ElectionService
from .errors import Code, RpcError
from .kv import KvService
from .lease import LeaseService
from .lock import LockService
from .maintenance import MaintenanceService
from .reading import Reading
from .turns import Turns
from .watch import WatchService
from .writing import Encode, Read, Writing, read_delete_range, read_put, read_txn

PACKAGE = "etcdserverpb"

Unary = Callable[[Any, CallContext], Awaitable[Message]]
Encoded = Callable[[Any, CallContext], Awaitable[bytes]]
Send = Callable[[Any], Awaitable[None]]
Stream = Callable[[AsyncIterator[Any], Send, CallContext], Awaitable[None]]
EncodedStream = Callable[[AsyncIterator[Any], Outlet, CallContext], Awaitable[None]]


class UnaryMethod(msgspec.Struct, frozen=True):
    """One message in, one out."""

    service: str
    method: str
    request: type[Message]
    handler: Unary
    package: str = PACKAGE
    encoded: Callable[[Any, CallContext], Awaitable[bytes]] | None = (
        None  # ``handler``, but its answer is bytes already
    )
    batch: Batch | None = None  # ``handler`` for many calls at once, for fronts that have them


class StreamMethod(msgspec.Struct, frozen=True):
    """Messages out, for one message in or for many."""

    service: str
    method: str
    request: type[Message]
    handler: Stream
    many_requests: bool = True
    package: str = PACKAGE
    encoded: EncodedStream | None = None  # ``handler``, but what it sends may be bytes already


Method = UnaryMethod | StreamMethod


class Services(msgspec.Struct, frozen=True):
    """The services of one member. Those that take a call's context check permissions themselves."""

    backend: Backend
    kv: KvService
    reading: Reading
    watch: WatchService
    lease: LeaseService
    cluster: ClusterService
    maintenance: MaintenanceService
    auth: AuthService
    lock: LockService
    election: ElectionService

    def methods(self) -> tuple[Method, ...]:
        """Return one row for every method."""
        return (
            UnaryMethod(
                "KV",
                "Range",
                pb.RangeRequest,
                self.kv.range,
                encoded=self.kv.encoded_range,
                batch=self.reading.take,
            ),
            *self._write_methods(),
            UnaryMethod("KV", "Compact", pb.CompactionRequest, self.kv.compact),
            StreamMethod("Watch", "Watch", pb.WatchRequest, self.watch.watch, encoded=self.watch.encoded_watch),
            UnaryMethod("Lease", "LeaseGrant", pb.LeaseGrantRequest, self.lease.grant),
            UnaryMethod("Lease", "LeaseRevoke", pb.LeaseRevokeRequest, self.lease.revoke),
            StreamMethod("Lease", "LeaseKeepAlive", pb.LeaseKeepAliveRequest, self.lease.keep_alive),
            UnaryMethod("Lease", "LeaseTimeToLive", pb.LeaseTimeToLiveRequest, self.lease.time_to_live),
            UnaryMethod("Lease", "LeaseLeases", pb.LeaseLeasesRequest, self.lease.leases),
            UnaryMethod("Cluster", "MemberList", pb.MemberListRequest, _anybody(self.cluster.member_list)),
            UnaryMethod("Cluster", "MemberAdd", pb.MemberAddRequest, self._admin(self.cluster.member_add)),
            UnaryMethod("Cluster", "MemberRemove", pb.MemberRemoveRequest, self._admin(self.cluster.member_remove)),
            UnaryMethod("Cluster", "MemberUpdate", pb.MemberUpdateRequest, self._admin(self.cluster.member_update)),
            UnaryMethod("Cluster", "MemberPromote", pb.MemberPromoteRequest, self._admin(self.cluster.member_promote)),
            UnaryMethod("Maintenance", "Alarm", pb.AlarmRequest, self._known(self.maintenance.alarm)),
            UnaryMethod("Maintenance", "Status", pb.StatusRequest, _anybody(self.maintenance.status)),
            UnaryMethod("Maintenance", "Defragment", pb.DefragmentRequest, self._admin(self.maintenance.defragment)),
            UnaryMethod("Maintenance", "Hash", pb.HashRequest, self._admin(self.maintenance.hash)),
            UnaryMethod("Maintenance", "HashKV", pb.HashKVRequest, self._admin(self.maintenance.hash_kv)),
            StreamMethod(
                "Maintenance",
                "Snapshot",
                pb.SnapshotRequest,
                self._admin_stream(self.maintenance.snapshot),
                many_requests=False,
            ),
            UnaryMethod("Maintenance", "MoveLeader", pb.MoveLeaderRequest, self._admin(self.maintenance.move_leader)),
            UnaryMethod("Maintenance", "Downgrade", pb.DowngradeRequest, self._admin(self.maintenance.downgrade)),
            *self._auth_methods(),
            *self._recipe_methods(),
        )

    def _write_methods(self) -> tuple[Method, ...]:
        kv, answers = self.kv, self.backend.answers
        rows: tuple[tuple[str, type[Message], Read, Encode, Unary, Encoded], ...] = (
            ("Put", pb.PutRequest, read_put, answers.puts, kv.put, kv.encoded_put),
            (
                "DeleteRange",
                pb.DeleteRangeRequest,
                read_delete_range,
                answers.deletes,
                kv.delete_range,
                kv.encoded_delete_range,
            ),
            ("Txn", pb.TxnRequest, read_txn, answers.txns, kv.txn, kv.encoded_txn),
        )
        return tuple(
            UnaryMethod(
                "KV",
                method,
                request,
                handler,
                encoded=encoded,
                batch=Writing(self.backend, request=request, read=read, encode=encode, one_by_one=encoded).take,
            )
            for method, request, read, encode, handler, encoded in rows
        )

    def _admin(self, handler: Callable[[Any], Awaitable[Message]]) -> Unary:
        """Return ``handler`` for those alone who may do everything."""

        async def handle(request: Any, call: CallContext = NO_CONTEXT) -> Message:
            await self.backend.require_admin(call)
            return await handler(request)

        return handle

    def _known(self, handler: Callable[[Any], Awaitable[Message]]) -> Unary:
        """Return ``handler`` for everybody whose token, if there is one, is right."""

        async def handle(request: Any, call: CallContext = NO_CONTEXT) -> Message:
            await self.backend.caller(call)
            return await handler(request)

        return handle

    def _admin_stream(self, handler: Callable[[AsyncIterator[Any], Send], Awaitable[None]]) -> Stream:
        async def handle(requests: AsyncIterator[Any], send: Send, call: CallContext = NO_CONTEXT) -> None:
            await self.backend.require_admin(call)
            await handler(requests, send)

        return handle

    def _recipe_methods(self) -> tuple[Method, ...]:
        lock, election = "v3lockpb", "v3electionpb"
        return (
            UnaryMethod("Lock", "Lock", lock_pb.LockRequest, _by_client(self.lock.lock), lock),
            UnaryMethod("Lock", "Unlock", lock_pb.UnlockRequest, _by_client(self.lock.unlock), lock),
            UnaryMethod(
                "Election", "Campaign", election_pb.CampaignRequest, _by_client(self.election.campaign), election
            ),
            UnaryMethod(
                "Election", "Proclaim", election_pb.ProclaimRequest, _by_client(self.election.proclaim), election
            ),
            UnaryMethod("Election", "Leader", election_pb.LeaderRequest, _by_client(self.election.leader), election),
            StreamMethod(
                "Election",
                "Observe",
                election_pb.LeaderRequest,
                _by_client_stream(self.election.observe),
                many_requests=False,
                package=election,
            ),
            UnaryMethod("Election", "Resign", election_pb.ResignRequest, _by_client(self.election.resign), election),
        )

    def _auth_methods(self) -> tuple[Method, ...]:
        auth = self.auth
        rows: tuple[tuple[str, type[Message], Unary], ...] = (
            ("AuthEnable", pb.AuthEnableRequest, auth.enable),
            ("AuthDisable", pb.AuthDisableRequest, auth.disable),
            ("AuthStatus", pb.AuthStatusRequest, auth.status),
            ("Authenticate", pb.AuthenticateRequest, auth.authenticate),
            ("UserAdd", pb.AuthUserAddRequest, auth.user_add),
            ("UserGet", pb.AuthUserGetRequest, auth.user_get),
            ("UserList", pb.AuthUserListRequest, auth.user_list),
            ("UserDelete", pb.AuthUserDeleteRequest, auth.user_delete),
            ("UserChangePassword", pb.AuthUserChangePasswordRequest, auth.user_change_password),
            ("UserGrantRole", pb.AuthUserGrantRoleRequest, auth.user_grant_role),
            ("UserRevokeRole", pb.AuthUserRevokeRoleRequest, auth.user_revoke_role),
            ("RoleAdd", pb.AuthRoleAddRequest, auth.role_add),
            ("RoleGet", pb.AuthRoleGetRequest, auth.role_get),
            ("RoleList", pb.AuthRoleListRequest, auth.role_list),
            ("RoleDelete", pb.AuthRoleDeleteRequest, auth.role_delete),
            ("RoleGrantPermission", pb.AuthRoleGrantPermissionRequest, auth.role_grant_permission),
            ("RoleRevokePermission", pb.AuthRoleRevokePermissionRequest, auth.role_revoke_permission),
        )
        return tuple(UnaryMethod("Auth", method, request, handler) for method, request, handler in rows)


def make_services(
    backend: Backend, *, ids: random.Random, watch_progress_s: float, strict_reconfig_check: bool
) -> Services:
    """Return every service of one member; ``ids`` picks the ids of leases."""
    kv, lease = KvService(backend), LeaseService(backend, ids)
    turns = Turns(backend, kv, lease)
    return Services(
        backend=backend,
        kv=kv,
        reading=Reading(backend, kv.encoded_range),
        watch=WatchService(backend, progress_interval_s=watch_progress_s),
        lease=lease,
        cluster=ClusterService(backend, lambda: ids.getrandbits(64), strict=strict_reconfig_check),
        maintenance=MaintenanceService(backend),
        auth=AuthService(backend),
        lock=LockService(turns, kv),
        election=ElectionService(backend, turns, kv),
    )


def _by_client(handler: Unary) -> Unary:
    """Return ``handler`` as if run by a client: etcd's does, and forgets the codes of what the store refuses it."""

    async def handle(request: Any, call: CallContext = NO_CONTEXT) -> Message:
        try:
            return await handler(request, call)
        except RpcError as exc:
            raise RpcError(Code.UNKNOWN, exc.text) from exc

    return handle


def _by_client_stream(handler: Stream) -> Stream:
    async def handle(requests: AsyncIterator[Any], send: Send, call: CallContext = NO_CONTEXT) -> None:
        try:
            await handler(requests, send, call)
        except RpcError as exc:
            raise RpcError(Code.UNKNOWN, exc.text) from exc

    return handle


def _anybody(handler: Callable[[Any], Awaitable[Message]]) -> Unary:
    """Return ``handler`` for everybody, known or not."""

    async def handle(request: Any, call: CallContext = NO_CONTEXT) -> Message:  # noqa: ARG001
        return await handler(request)

    return handle
