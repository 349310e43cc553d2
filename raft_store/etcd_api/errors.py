"""What clients are told when something is refused: etcd's own codes and texts, which clients match by text."""

from enum import IntEnum

from raft_store.auth import model as auth
from raft_store.engine import EngineError, NoLeader, ProposalTimedOut, Stopped
from raft_store.mvcc.model import (
    Compacted,
    Corrupt,
    FutureRevision,
    KeyNotFound,
    LeaseExists,
    LeaseNotFound,
    LeaseTooLong,
    NoSpace,
    StoreError,
)
from raft_store.mvcc.txn import DuplicateKey, EmptyKey, LeaseProvided, TooManyOperations, ValueProvided


class Code(IntEnum):
    """The gRPC status codes in use."""

    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @property
    def label(self) -> str:
        """Return the name as Go writes it, where a status is told as text."""
        return self.name.title().replace("_", "")


class RpcError(Exception):
    """A call ends with this status."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


NO_LEADER = (Code.UNAVAILABLE, "etcdserver: no leader")
COMPACTED = (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")

_STATUS: dict[type[Exception], tuple[Code, str]] = {
    NoLeader: NO_LEADER,
    ProposalTimedOut: (Code.UNAVAILABLE, "etcdserver: request timed out"),
    Stopped: (Code.UNAVAILABLE, "etcdserver: server stopped"),
    Compacted: COMPACTED,
    FutureRevision: (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision"),
    KeyNotFound: (Code.INVALID_ARGUMENT, "etcdserver: key not found"),
    LeaseNotFound: (Code.NOT_FOUND, "etcdserver: requested lease not found"),
    LeaseExists: (Code.FAILED_PRECONDITION, "etcdserver: lease already exists"),
    LeaseTooLong: (Code.OUT_OF_RANGE, "etcdserver: too large lease TTL"),
    NoSpace: (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded"),
    Corrupt: (Code.DATA_LOSS, "etcdserver: corrupt cluster"),
    EmptyKey: (Code.INVALID_ARGUMENT, "etcdserver: key is not provided"),
    ValueProvided: (Code.INVALID_ARGUMENT, "etcdserver: value is provided"),
    LeaseProvided: (Code.INVALID_ARGUMENT, "etcdserver: lease is provided"),
    TooManyOperations: (Code.INVALID_ARGUMENT, "etcdserver: too many operations in txn request"),
    DuplicateKey: (Code.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request"),
    auth.AuthNotEnabled: (Code.FAILED_PRECONDITION, "etcdserver: authentication is not enabled"),
    auth.RootUserMissing: (Code.FAILED_PRECONDITION, "etcdserver: root user does not exist"),
    auth.RootRoleMissing: (Code.FAILED_PRECONDITION, "etcdserver: root user does not have root role"),
    auth.UserEmpty: (Code.INVALID_ARGUMENT, "etcdserver: user name is empty"),
    auth.UserExists: (Code.FAILED_PRECONDITION, "etcdserver: user name already exists"),
    auth.UserNotFound: (Code.FAILED_PRECONDITION, "etcdserver: user name not found"),
    auth.RoleEmpty: (Code.INVALID_ARGUMENT, "etcdserver: role name is empty"),
    auth.RoleExists: (Code.FAILED_PRECONDITION, "etcdserver: role name already exists"),
    auth.RoleNotFound: (Code.FAILED_PRECONDITION, "etcdserver: role name not found"),
    auth.RoleNotGranted: (Code.FAILED_PRECONDITION, "etcdserver: role is not granted to the user"),
    auth.PermissionNotGranted: (Code.FAILED_PRECONDITION, "etcdserver: permission is not granted to the role"),
    auth.PermissionNotGiven: (Code.INVALID_ARGUMENT, "etcdserver: permission not given"),
    auth.PermissionDenied: (Code.PERMISSION_DENIED, "etcdserver: permission denied"),
    auth.AuthFailed: (
        Code.INVALID_ARGUMENT,
        "etcdserver: authentication failed, invalid user ID or password",
    ),
    auth.NoPasswordUser: (Code.UNKNOWN, "auth: authentication failed, password was given for no password user"),
    auth.InvalidToken: (Code.UNAUTHENTICATED, "etcdserver: invalid auth token"),
    auth.InvalidManagement: (Code.INVALID_ARGUMENT, "etcdserver: invalid auth management"),
    auth.OldAuthRevision: (Code.INVALID_ARGUMENT, "etcdserver: revision of auth store is old"),
}


def rpc_error(exc: StoreError | EngineError) -> RpcError:
    """Return how a client is told of ``exc``."""
    code, text = _STATUS.get(type(exc), (Code.UNKNOWN, f"etcdserver: {exc}"))
    return RpcError(code, text)
