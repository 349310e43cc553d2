"""What clients are told when something is refused: etcd's own codes and texts, which clients match by text."""

from enum import IntEnum

from raft_store.engine import EngineError, NoLeader, ProposalTimedOut, Stopped
from raft_store.mvcc.model import (
    Compacted,
    Corrupt,
    FutureRevision,
    KeyNotFound,
    LeaseExists,
    LeaseNotFound,
    NoSpace,
    StoreError,
)
from raft_store.mvcc.txn import DuplicateKey, EmptyKey, LeaseProvided, TooManyOperations, ValueProvided


class Code(IntEnum):
    """The gRPC status codes in use."""

    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    UNAVAILABLE = 14
    DATA_LOSS = 15


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
    NoSpace: (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded"),
    Corrupt: (Code.DATA_LOSS, "etcdserver: corrupt cluster"),
    EmptyKey: (Code.INVALID_ARGUMENT, "etcdserver: key is not provided"),
    ValueProvided: (Code.INVALID_ARGUMENT, "etcdserver: value is provided"),
    LeaseProvided: (Code.INVALID_ARGUMENT, "etcdserver: lease is provided"),
    TooManyOperations: (Code.INVALID_ARGUMENT, "etcdserver: too many operations in txn request"),
    DuplicateKey: (Code.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request"),
}


def rpc_error(exc: StoreError | EngineError) -> RpcError:
    """Return how a client is told of ``exc``."""
    code, text = _STATUS.get(type(exc), (Code.UNKNOWN, f"etcdserver: {exc}"))
    return RpcError(code, text)
