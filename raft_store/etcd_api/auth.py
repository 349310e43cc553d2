"""The Auth service: users, roles, permissions, and the tokens that stand for a password."""

import asyncio
import secrets
import string
from collections.abc import Awaitable, Callable

from google.protobuf.message import Message

from raft_store.auth import requests as commands
from raft_store.auth.model import Access, AuthFailed, Permission, PermissionNotGiven
from raft_store.auth.passwords import hash_password, matches
from raft_store.mvcc.requests import Done
from trireme_pb.authpb import auth_pb2
from trireme_pb.etcdserverpb import rpc_pb2 as pb

from .backend import Backend, refusals
from .call import NO_CONTEXT, CallContext
from .errors import rpc_error

TOKEN_LETTERS = 16

Handler = Callable[..., Awaitable[Message]]


class AuthService:
    """etcdserverpb.Auth."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def authenticate(
        self,
        request: pb.AuthenticateRequest,
        call: CallContext = NO_CONTEXT,  # noqa: ARG002 - the password is all that counts
    ) -> pb.AuthenticateResponse:
        """Give out a token for a password. Tried again if users changed between the look and the token."""
        await self._backend.linearize()
        store = self._backend.machine.auth
        while True:
            with refusals():
                kept, looked_at = store.password_of(request.name), store.revision
            if not await asyncio.to_thread(matches, request.password, kept):
                raise rpc_error(AuthFailed(request.name))
            prefix = "".join(secrets.choice(string.ascii_letters) for _ in range(TOKEN_LETTERS))
            given = await self._backend.propose(commands.Authenticate(request.name, prefix), commands.Token)
            store = self._backend.machine.auth  # a snapshot may have brought another
            if given.auth_revision == looked_at:
                return pb.AuthenticateResponse(header=self._backend.header(), token=given.token)

    async def enable(self, request: pb.AuthEnableRequest, call: CallContext = NO_CONTEXT) -> pb.AuthEnableResponse:  # noqa: ARG002
        """Ask everybody who they are from now on."""
        return pb.AuthEnableResponse(header=await self._manage(commands.AuthEnable(), call))

    async def disable(self, request: pb.AuthDisableRequest, call: CallContext = NO_CONTEXT) -> pb.AuthDisableResponse:  # noqa: ARG002
        """Let everybody do everything again."""
        return pb.AuthDisableResponse(header=await self._manage(commands.AuthDisable(), call))

    async def status(self, request: pb.AuthStatusRequest, call: CallContext = NO_CONTEXT) -> pb.AuthStatusResponse:  # noqa: ARG002
        """Tell whether anybody is asked, and how often users and roles changed."""
        await self._admin_reads(call)
        store = self._backend.machine.auth
        return pb.AuthStatusResponse(header=self._backend.header(), enabled=store.enabled, authRevision=store.revision)

    # -- users -------------------------------------------------------------------------------------------------------

    async def user_add(self, request: pb.AuthUserAddRequest, call: CallContext = NO_CONTEXT) -> pb.AuthUserAddResponse:
        """Make a user."""
        no_password = request.options.no_password
        kept = b"" if no_password else await asyncio.to_thread(hash_password, request.password)
        command = commands.UserAdd(request.name, kept, no_password)
        return pb.AuthUserAddResponse(header=await self._manage(command, call))

    async def user_get(self, request: pb.AuthUserGetRequest, call: CallContext = NO_CONTEXT) -> pb.AuthUserGetResponse:
        """Tell the roles of a user, to those who manage them and to the user."""
        await self._backend.linearize()
        caller, store = await self._backend.caller(call), self._backend.machine.auth
        with refusals():
            if request.name != caller.user:
                store.check_admin(caller)
            roles = store.user(request.name).roles
        return pb.AuthUserGetResponse(header=self._backend.header(), roles=roles)

    async def user_list(
        self,
        request: pb.AuthUserListRequest,  # noqa: ARG002 - it says nothing
        call: CallContext = NO_CONTEXT,
    ) -> pb.AuthUserListResponse:
        """Tell the name of every user."""
        await self._admin_reads(call)
        users = [user.name for user in self._backend.machine.auth.users()]
        return pb.AuthUserListResponse(header=self._backend.header(), users=users)

    async def user_delete(
        self, request: pb.AuthUserDeleteRequest, call: CallContext = NO_CONTEXT
    ) -> pb.AuthUserDeleteResponse:
        """Forget a user."""
        return pb.AuthUserDeleteResponse(header=await self._manage(commands.UserDelete(request.name), call))

    async def user_change_password(
        self, request: pb.AuthUserChangePasswordRequest, call: CallContext = NO_CONTEXT
    ) -> pb.AuthUserChangePasswordResponse:
        """Give a user another password."""
        kept = await asyncio.to_thread(hash_password, request.password)
        command = commands.UserChangePassword(request.name, kept)
        return pb.AuthUserChangePasswordResponse(header=await self._manage(command, call))

    async def user_grant_role(
        self, request: pb.AuthUserGrantRoleRequest, call: CallContext = NO_CONTEXT
    ) -> pb.AuthUserGrantRoleResponse:
        """Let a user act in a role."""
        command = commands.UserGrantRole(request.user, request.role)
        return pb.AuthUserGrantRoleResponse(header=await self._manage(command, call))

    async def user_revoke_role(
        self, request: pb.AuthUserRevokeRoleRequest, call: CallContext = NO_CONTEXT
    ) -> pb.AuthUserRevokeRoleResponse:
        """Take a role away from a user."""
        command = commands.UserRevokeRole(request.name, request.role)
        return pb.AuthUserRevokeRoleResponse(header=await self._manage(command, call))

    # -- roles -------------------------------------------------------------------------------------------------------

    async def role_add(self, request: pb.AuthRoleAddRequest, call: CallContext = NO_CONTEXT) -> pb.AuthRoleAddResponse:
        """Make a role."""
        return pb.AuthRoleAddResponse(header=await self._manage(commands.RoleAdd(request.name), call))

    async def role_get(self, request: pb.AuthRoleGetRequest, call: CallContext = NO_CONTEXT) -> pb.AuthRoleGetResponse:
        """Tell what a role may do, to those who manage it and to those who have it."""
        await self._backend.linearize()
        caller, store = await self._backend.caller(call), self._backend.machine.auth
        with refusals():
            if not store.has_role(caller.user, request.role):
                store.check_admin(caller)
            permissions = store.role(request.role).permissions
        return pb.AuthRoleGetResponse(
            header=self._backend.header(), perm=[_permission_message(held) for held in permissions]
        )

    async def role_list(
        self,
        request: pb.AuthRoleListRequest,  # noqa: ARG002 - it says nothing
        call: CallContext = NO_CONTEXT,
    ) -> pb.AuthRoleListResponse:
        """Tell the name of every role."""
        await self._admin_reads(call)
        roles = [role.name for role in self._backend.machine.auth.roles()]
        return pb.AuthRoleListResponse(header=self._backend.header(), roles=roles)

    async def role_delete(
        self, request: pb.AuthRoleDeleteRequest, call: CallContext = NO_CONTEXT
    ) -> pb.AuthRoleDeleteResponse:
        """Forget a role."""
        return pb.AuthRoleDeleteResponse(header=await self._manage(commands.RoleDelete(request.role), call))

    async def role_grant_permission(
        self, request: pb.AuthRoleGrantPermissionRequest, call: CallContext = NO_CONTEXT
    ) -> pb.AuthRoleGrantPermissionResponse:
        """Let a role do more."""
        command = commands.RoleGrantPermission(request.name, _permission(request))
        return pb.AuthRoleGrantPermissionResponse(header=await self._manage(command, call))

    async def role_revoke_permission(
        self, request: pb.AuthRoleRevokePermissionRequest, call: CallContext = NO_CONTEXT
    ) -> pb.AuthRoleRevokePermissionResponse:
        """Let a role do less."""
        command = commands.RoleRevokePermission(request.role, request.key, request.range_end)
        return pb.AuthRoleRevokePermissionResponse(header=await self._manage(command, call))

    async def _manage(self, command: commands.Management, call: CallContext) -> pb.ResponseHeader:
        done = await self._backend.propose(command, Done, call)
        return self._backend.header(done.revision)

    async def _admin_reads(self, call: CallContext) -> None:
        await self._backend.linearize()
        await self._backend.require_admin(call)


def _permission(request: pb.AuthRoleGrantPermissionRequest) -> Permission:
    given = request.perm
    try:
        if request.HasField("perm"):
            return Permission(Access(given.permType), given.key, given.range_end)
    except ValueError:
        pass  # an access that nobody knows is as good as none
    raise rpc_error(PermissionNotGiven())


def _permission_message(held: Permission) -> auth_pb2.Permission:
    # The stubs type enum fields as what protoc names them; on the wire they are these numbers.
    return auth_pb2.Permission(permType=int(held.access), key=held.key, range_end=held.end)  # type: ignore[arg-type]
