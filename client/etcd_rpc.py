"""How calls reach one member: the seam between the etcd client and the two ways of speaking gRPC.

What fails is a ``CallFailed`` of ``fastgrpc``, whichever way it went; ``NotSent`` of the calls that surely never left.
"""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

from fastgrpc.calls import CallFailed
from trireme_pb.etcdserverpb import rpc_pb2 as pb

WITH_LEADER = (("hasleader", "true"),)
CONNECT_S = 0.5  # one attempt
# etcd forbids pinging more often than every 5 s, and without a call at all; the probes find a dead member long before.
KEEPALIVE_S, KEEPALIVE_TIMEOUT_S = 6.0, 2.0
MAX_MESSAGE_BYTES = 1 << 30


class NotSent(CallFailed):
    """The call never left: what it asked for is surely not done."""


class Method(NamedTuple):
    """One method of the store: its path, and the class of its answers."""

    path: str
    response: Any


RANGE = Method("/etcdserverpb.KV/Range", pb.RangeResponse)
PUT = Method("/etcdserverpb.KV/Put", pb.PutResponse)
DELETE_RANGE = Method("/etcdserverpb.KV/DeleteRange", pb.DeleteRangeResponse)
TXN = Method("/etcdserverpb.KV/Txn", pb.TxnResponse)
COMPACT = Method("/etcdserverpb.KV/Compact", pb.CompactionResponse)
WATCH = Method("/etcdserverpb.Watch/Watch", pb.WatchResponse)
LEASE_GRANT = Method("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantResponse)
LEASE_REVOKE = Method("/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeResponse)
LEASE_KEEP_ALIVE = Method("/etcdserverpb.Lease/LeaseKeepAlive", pb.LeaseKeepAliveResponse)
STATUS = Method("/etcdserverpb.Maintenance/Status", pb.StatusResponse)


class Cancellable(Protocol):
    """Anything that can be given up."""

    def cancel(self) -> None:
        """Give it up: whoever waits for it gets CallFailed (CANCELLED)."""


class Unary(Cancellable, Protocol):
    """A call of one message each way."""

    def result(self) -> Awaitable[Any]:
        """Return the answer; to be asked for once. Raises CallFailed."""


class Stream(Cancellable, Protocol):
    """A call of many messages each way."""

    async def write(self, message: Any) -> None:
        """Send; raises CallFailed."""

    async def read(self) -> Any:
        """Return the next answer, or None at the end; raises CallFailed."""


class Transport(Protocol):
    """A connection to one member, made anew when it is needed."""

    @property
    def connected(self) -> bool:
        """Return whether a connection stands, as far as is known."""

    async def connect(self) -> None:
        """Be connected; raises CallFailed when an attempt fails."""

    def unary(self, method: Method, request: Any, *, timeout_s: float) -> Unary:
        """Begin a call."""

    def stream(self, method: Method, *, timeout_s: float | None = None) -> Stream:
        """Begin a call."""

    async def close(self) -> None:
        """Hang up; calls under way fail."""


Dial = Callable[[str], Transport]  # by "host:port"
