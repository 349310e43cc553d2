"""What clients are told when something is refused: etcd's own codes and texts, which clients match by text."""

from enum import IntEnum

from raft_store.auth import model as auth
from raft_store.engine import ChangeRefused, EngineError, NoLeader, Overloaded, ProposalTimedOut, Refusal, Stopped
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
    INTERNAL = 13
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
TIMED_OUT = (Code.UNAVAILABLE, "etcdserver: request timed out")
COMPACTED = (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
SESSION_EXPIRED = (Code.UNKNOWN, "mutex: session is expired")

_STATUS: dict[type[Exception], tuple[Code, str]] = {
    NoLeader: NO_LEADER,
    ProposalTimedOut: TIMED_OUT,
    Overloaded: (Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests"),
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


_TOO_FEW = (
    Code.FAILED_PRECONDITION,
    "etcdserver: re-configuration failed due to not enough started members",
)
_MEMBER_NOT_FOUND = (Code.NOT_FOUND, "etcdserver: member not found")
_REFUSED: dict[Refusal, tuple[Code, str]] = {
    Refusal.MEMBER_EXISTS: (Code.FAILED_PRECONDITION, "etcdserver: member ID already exist"),
    Refusal.MEMBER_UNKNOWN: _MEMBER_NOT_FOUND,
    Refusal.MEMBER_REMOVED: _MEMBER_NOT_FOUND,
    Refusal.URL_TAKEN: (Code.FAILED_PRECONDITION, "etcdserver: Peer URLs already exists"),
    Refusal.NOT_A_LEARNER: (Code.FAILED_PRECONDITION, "etcdserver: can only promote a learner member"),
    Refusal.NOT_A_VOTER: (Code.FAILED_PRECONDITION, "etcdserver: can only demote a voting member"),
    Refusal.LEARNER_BEHIND: (
        Code.FAILED_PRECONDITION,
        "etcdserver: can only promote a learner member which is in sync with leader",
    ),
    Refusal.TOO_MANY_LEARNERS: (Code.FAILED_PRECONDITION, "etcdserver: too many learner members in cluster"),
    Refusal.LAST_VOTER: _TOO_FEW,
    Refusal.TOO_FEW_STARTED: _TOO_FEW,
    Refusal.UNHEALTHY: (Code.UNAVAILABLE, "etcdserver: unhealthy cluster"),
    Refusal.CHANGE_UNDER_WAY: TIMED_OUT,
    Refusal.NOT_LEADER: NO_LEADER,
    Refusal.FIXED: (Code.UNIMPLEMENTED, "etcdserver: the members of this store are fixed by its configuration"),
}


def rpc_error(exc: StoreError | EngineError) -> RpcError:
    """Return how a client is told of ``exc``."""
    if isinstance(exc, ChangeRefused):
        return RpcError(*_REFUSED[exc.refusal])
    code, text = _STATUS.get(type(exc), (Code.UNKNOWN, f"etcdserver: {exc}"))
    return RpcError(code, text)
