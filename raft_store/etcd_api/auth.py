"""The Auth service. The store knows no users: clients are let in by their certificates.

Every call answers as an etcd does in which authentication was never enabled; what would make users is refused.
"""

from trireme_pb.etcdserverpb import rpc_pb2 as pb

from .backend import Backend
from .errors import Code, RpcError


class AuthService:
    """etcdserverpb.Auth."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def status(self, request: pb.AuthStatusRequest) -> pb.AuthStatusResponse:  # noqa: ARG002
        """Tell that authentication is off."""
        return pb.AuthStatusResponse(header=self._backend.header(), enabled=False, authRevision=1)

    async def disable(self, request: pb.AuthDisableRequest) -> pb.AuthDisableResponse:  # noqa: ARG002
        """Nothing to do."""
        return pb.AuthDisableResponse(header=self._backend.header())

    async def enable(self, request: pb.AuthEnableRequest) -> pb.AuthEnableResponse:  # noqa: ARG002
        """Refuse, as etcd does without a root user."""
        raise RpcError(Code.FAILED_PRECONDITION, "etcdserver: root user does not exist")

    async def authenticate(self, request: pb.AuthenticateRequest) -> pb.AuthenticateResponse:  # noqa: ARG002
        """Refuse: there is nothing to authenticate for."""
        raise RpcError(Code.FAILED_PRECONDITION, "etcdserver: authentication is not enabled")

    async def user_list(self, request: pb.AuthUserListRequest) -> pb.AuthUserListResponse:  # noqa: ARG002
        """Nobody."""
        return pb.AuthUserListResponse(header=self._backend.header())

    async def role_list(self, request: pb.AuthRoleListRequest) -> pb.AuthRoleListResponse:  # noqa: ARG002
        """List none."""
        return pb.AuthRoleListResponse(header=self._backend.header())

    async def no_user(self, request: object) -> pb.AuthUserGetResponse:  # noqa: ARG002
        """Refuse: the user does not exist."""
        raise RpcError(Code.FAILED_PRECONDITION, "etcdserver: user name not found")

    async def no_role(self, request: object) -> pb.AuthRoleGetResponse:  # noqa: ARG002
        """Refuse: the role does not exist."""
        raise RpcError(Code.FAILED_PRECONDITION, "etcdserver: role name not found")

    async def refuse(self, request: object) -> pb.AuthUserAddResponse:  # noqa: ARG002
        """Refuse to make users and roles."""
        raise RpcError(
            Code.UNIMPLEMENTED, "etcdserver: this store has no users; clients are known by their certificates"
        )
