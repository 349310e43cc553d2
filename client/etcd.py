"""An asyncio client of the etcd v3 API that fails over between members.

Reads are tried again, on another member if need be, until their time is up. A write is tried again only when it surely
was not applied; otherwise ``Unknown`` tells the caller, who alone knows how to find out. Every wait has an end.
"""

import math
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, Self

from client.etcd_endpoints import LOST_S, SILENT_S, Endpoint, EndpointLost, Endpoints, surely_not_applied
from client.etcd_fast import fast_dial
from client.etcd_rpc import (
    COMPACT,
    DELETE_RANGE,
    LEASE_GRANT,
    LEASE_KEEP_ALIVE,
    LEASE_REVOKE,
    PUT,
    RANGE,
    TXN,
    Dial,
    Method,
)
from client.etcd_types import (
    Compacted,
    Compare,
    DeleteOp,
    EtcdError,
    Event,
    Fact,
    FutureRevision,
    GetOp,
    KeyValue,
    Lease,
    LeaseNotFound,
    NoSpace,
    Operation,
    PutOp,
    RangeResult,
    Refused,
    Relation,
    Status,
    TlsFiles,
    TxnResult,
    Unavailable,
    Unknown,
    WatchBatch,
    WriteResult,
    prefix_end,
)
from client.etcd_watch import Watch, key_value
from fastgrpc.calls import CallFailed
from fastgrpc.calls import Status as CallStatus
from trireme_pb.etcdserverpb import rpc_pb2 as pb

__all__ = [
    "Compacted",
    "Compare",
    "DeleteOp",
    "EtcdClient",
    "EtcdError",
    "Event",
    "Fact",
    "FutureRevision",
    "GetOp",
    "KeyValue",
    "Lease",
    "LeaseNotFound",
    "NoSpace",
    "Operation",
    "PutOp",
    "RangeResult",
    "Refused",
    "Relation",
    "Status",
    "TlsFiles",
    "TransportName",
    "TxnResult",
    "Unavailable",
    "Unknown",
    "Watch",
    "WatchBatch",
    "WriteResult",
    "prefix_end",
]

TIMEOUT_S = 5.0

TransportName = Literal["fast", "grpcio"]


class EtcdClient:
    """One client; any number of tasks may use it. The first endpoint is preferred while it is of use.

    transport: what speaks gRPC: "fast", our own, or "grpcio".
    """

    def __init__(
        self, endpoints: Sequence[str], tls: TlsFiles | None = None, *, transport: TransportName = "fast"
    ) -> None:
        self._endpoints = Endpoints(endpoints, _dial(transport, tls))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection; calls under way end with Unavailable or Unknown."""
        await self._endpoints.close()

    async def get(
        self, key: bytes, *, revision: int = 0, serializable: bool = False, timeout_s: float = TIMEOUT_S
    ) -> tuple[KeyValue | None, int]:
        """Return the key's version, if it exists, and the store's newest revision."""
        result = await self.range(key, revision=revision, serializable=serializable, timeout_s=timeout_s)
        return (result.kvs[0] if result.kvs else None), result.revision

    async def range(
        self,
        key: bytes,
        end: bytes = b"",
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
        serializable: bool = False,
        timeout_s: float = TIMEOUT_S,
    ) -> RangeResult:
        """Return [key, end) in key order (``prefix_end`` makes the end of a prefix; empty: the one key).

        revision: 0 for the newest. serializable: one member's state, perhaps an old one, without asking the others.
        Raises Compacted, FutureRevision, Unavailable.
        """
        request = pb.RangeRequest(
            key=key,
            range_end=end,
            limit=limit,
            revision=revision,
            keys_only=keys_only,
            count_only=count_only,
            serializable=serializable,
        )
        return _range_result(await self._read(RANGE, request, timeout_s))

    async def revision(self, *, timeout_s: float = TIMEOUT_S) -> int:
        """Return a revision at least as new as everything acknowledged before the call."""
        result = await self.range(b"\0", b"\0", limit=1, keys_only=True, timeout_s=timeout_s)
        return result.revision

    async def put(
        self,
        key: bytes,
        value: bytes,
        *,
        lease: int = 0,
        previous: bool = False,
        timeout_s: float = TIMEOUT_S,
    ) -> WriteResult:
        """Write one key. Raises LeaseNotFound, NoSpace, Unavailable, Unknown."""
        request = pb.PutRequest(key=key, value=value, lease=lease, prev_kv=previous)
        return _put_result(await self._write(PUT, request, timeout_s))

    async def delete(
        self, key: bytes, end: bytes = b"", *, previous: bool = False, timeout_s: float = TIMEOUT_S
    ) -> WriteResult:
        """Delete [key, end). Raises Unavailable, Unknown."""
        request = pb.DeleteRangeRequest(key=key, range_end=end, prev_kv=previous)
        return _delete_result(await self._write(DELETE_RANGE, request, timeout_s))

    async def txn(
        self,
        compares: Sequence[Compare],
        success: Sequence[Operation],
        failure: Sequence[Operation] = (),
        *,
        timeout_s: float = TIMEOUT_S,
        unsent_s: float = math.inf,
    ) -> TxnResult:
        """Run ``success`` if every comparison holds, else ``failure``, in one revision.

        unsent_s: a write that could not be given to any member for so long is Unavailable before its time is over.
        Raises Refused (nothing was done), Unavailable, Unknown (only if it could write).
        """
        request = pb.TxnRequest(
            compare=[_compare(compare) for compare in compares],
            success=[_operation(op) for op in success],
            failure=[_operation(op) for op in failure],
        )
        if all(isinstance(op, GetOp) for op in (*success, *failure)):
            return _txn_result(await self._read(TXN, request, timeout_s))
        return _txn_result(await self._write(TXN, request, timeout_s, unsent_s))

    async def compact(self, revision: int, *, timeout_s: float = TIMEOUT_S) -> None:
        """Forget history before ``revision``. Raises Compacted if that is done already, FutureRevision."""
        await self._write(COMPACT, pb.CompactionRequest(revision=revision), timeout_s)

    def watch(
        self,
        key: bytes,
        end: bytes = b"",
        *,
        start_revision: int = 0,
        previous: bool = False,
        patience_s: float = 30.0,
    ) -> Watch:
        """Return the changes of [key, end) from ``start_revision`` on (0: from now; the first batch tells when)."""
        return Watch(
            self._endpoints,
            key=key,
            end=end,
            start_revision=start_revision,
            previous=previous,
            patience_s=patience_s,
        )

    async def lease_grant(self, ttl_s: int, *, lease: int = 0, timeout_s: float = TIMEOUT_S) -> Lease:
        """Make a lease; 0 lets the store pick its id. After Unknown a lease nobody knows may live its time."""
        request = pb.LeaseGrantRequest(TTL=ttl_s, ID=lease)
        response = await self._write(LEASE_GRANT, request, timeout_s)
        return Lease(response.ID, response.TTL)

    async def lease_revoke(self, lease: int, *, timeout_s: float = TIMEOUT_S) -> None:
        """End a lease and delete its keys. Raises LeaseNotFound, Unavailable, Unknown."""
        await self._write(LEASE_REVOKE, pb.LeaseRevokeRequest(ID=lease), timeout_s)

    async def lease_keep_alive(self, lease: int, *, timeout_s: float = TIMEOUT_S) -> int:
        """Renew a lease once; return its whole time in seconds. Raises LeaseNotFound, Unavailable."""
        deadline = time.monotonic() + timeout_s
        while True:
            endpoint = await self._endpoints.pick(deadline)
            try:
                response = await _keep_alive_once(endpoint, lease, deadline - time.monotonic())
            except EndpointLost as exc:
                _check_time(deadline, exc)
                continue
            if response.TTL <= 0:
                raise LeaseNotFound(f"lease {lease:x} has ended")
            return int(response.TTL)

    async def status(self, endpoint: str, *, timeout_s: float = SILENT_S) -> Status:
        """Return one member's status; ``endpoint`` is one of the addresses given. Raises Unavailable."""
        chosen = next(known for known in self._endpoints.all if known.address == endpoint)
        try:
            response = await chosen.status(timeout_s)
        except CallFailed as exc:
            raise Unavailable(f"{endpoint}: {exc.message}") from exc
        return Status(
            endpoint=endpoint,
            member=response.header.member_id,
            leader=response.leader,
            term=response.raftTerm,
            revision=response.header.revision,
            commit_index=response.raftIndex,
            applied_index=response.raftAppliedIndex,
            db_bytes=response.dbSize,
            version=response.version,
            errors=tuple(response.errors),
        )

    @property
    def endpoints(self) -> Sequence[str]:
        """Return every address, the preferred one first."""
        return [endpoint.address for endpoint in self._endpoints.all]

    async def _read(self, method: Method, request: Any, timeout_s: float) -> Any:
        deadline = time.monotonic() + timeout_s
        while True:
            endpoint = await self._endpoints.pick(deadline)
            try:
                await endpoint.connect(max(0.001, min(SILENT_S, deadline - time.monotonic())))
                return await _call(endpoint, method, request, deadline, patience_s=SILENT_S)
            except EndpointLost as exc:
                _check_time(deadline, exc)

    async def _write(self, method: Method, request: Any, timeout_s: float, unsent_s: float = math.inf) -> Any:
        started = time.monotonic()
        deadline, unsent_until = started + timeout_s, started + min(timeout_s, unsent_s)
        while True:
            endpoint = await self._endpoints.pick(unsent_until)
            try:
                await endpoint.connect(max(0.001, min(SILENT_S, unsent_until - time.monotonic())))
                return await _call(endpoint, method, request, deadline, patience_s=LOST_S)
            except EndpointLost as exc:
                if exc.maybe_applied:
                    raise Unknown(f"the write may have been applied: {exc}") from exc
                _check_time(unsent_until, exc)


def _check_time(deadline: float, exc: EndpointLost) -> None:
    if time.monotonic() >= deadline:
        raise Unavailable(str(exc)) from exc


def _dial(transport: TransportName, tls: TlsFiles | None) -> Dial:
    """Raises OSError for files that cannot be read."""
    if transport == "fast":
        return fast_dial(tls)
    from client.etcd_grpcio import grpcio_dial  # noqa: PLC0415 - a start that does without need not load it

    return grpcio_dial(tls)


async def _call(endpoint: Endpoint, method: Method, request: Any, deadline: float, *, patience_s: float) -> Any:
    """Raises EndpointLost where another try may help, Refused where it cannot."""
    remaining_s = max(0.001, deadline - time.monotonic())
    try:
        return await endpoint.call(method, request, timeout_s=remaining_s, patience_s=patience_s)
    except CallFailed as exc:
        if exc.status is CallStatus.DEADLINE_EXCEEDED:
            applied = not surely_not_applied(exc)
            raise EndpointLost(f"{endpoint.address}: no answer in time", maybe_applied=applied) from exc
        if exc.status is CallStatus.UNKNOWN and not exc.message.startswith("etcdserver: "):
            # The member broke down over it, which says nothing about the others.
            raise EndpointLost(f"{endpoint.address}: {exc.message}", maybe_applied=True) from exc
        raise refusal(exc) from exc


async def _keep_alive_once(endpoint: Endpoint, lease: int, timeout_s: float) -> pb.LeaseKeepAliveResponse:
    await endpoint.connect(max(0.001, min(SILENT_S, timeout_s)))
    stream = endpoint.stream(LEASE_KEEP_ALIVE, timeout_s=max(0.001, timeout_s))
    try:
        with endpoint.watched(stream, SILENT_S):
            await stream.write(pb.LeaseKeepAliveRequest(ID=lease))
            response = await stream.read()
    except CallFailed as exc:
        endpoint.distrust(exc.message or exc.status.name)
        raise EndpointLost(f"{endpoint.address}: {exc.message}", maybe_applied=True) from exc
    if response is None:
        raise EndpointLost(f"{endpoint.address}: ended the stream", maybe_applied=True)
    assert isinstance(response, pb.LeaseKeepAliveResponse), response
    return response


_REFUSALS: tuple[tuple[str, type[Refused]], ...] = (
    ("required revision has been compacted", Compacted),
    ("required revision is a future revision", FutureRevision),
    ("requested lease not found", LeaseNotFound),
    ("database space exceeded", NoSpace),
)


def refusal(exc: CallFailed) -> Refused:
    """Return the error that the store's text means; etcd's clients know errors by their texts alone."""
    details = exc.message or exc.status.name
    for text, kind in _REFUSALS:
        if text in details:
            return kind(details)
    return Refused(details)


_OPERANDS = {
    Fact.VERSION: "version",
    Fact.CREATE_REVISION: "create_revision",
    Fact.MOD_REVISION: "mod_revision",
    Fact.VALUE: "value",
    Fact.LEASE: "lease",
}


def _compare(compare: Compare) -> pb.Compare:
    # The stubs type enum fields as what protoc names them; on the wire they are these numbers.
    facts: dict[str, Any] = {
        "target": int(compare.fact),
        "result": int(compare.relation),
        _OPERANDS[compare.fact]: compare.operand,
    }
    return pb.Compare(key=compare.key, **facts)


def _operation(op: Operation) -> pb.RequestOp:
    match op:
        case GetOp():
            return pb.RequestOp(request_range=pb.RangeRequest(key=op.key, range_end=op.end, limit=op.limit))
        case PutOp():
            return pb.RequestOp(
                request_put=pb.PutRequest(key=op.key, value=op.value, lease=op.lease, prev_kv=op.previous)
            )
        case DeleteOp():
            return pb.RequestOp(
                request_delete_range=pb.DeleteRangeRequest(key=op.key, range_end=op.end, prev_kv=op.previous)
            )


def _range_result(response: pb.RangeResponse) -> RangeResult:
    return RangeResult(
        revision=response.header.revision,
        kvs=[key_value(kv) for kv in response.kvs],
        more=response.more,
        count=response.count,
    )


def _put_result(response: pb.PutResponse) -> WriteResult:
    previous = (key_value(response.prev_kv),) if response.HasField("prev_kv") else ()
    return WriteResult(response.header.revision, previous)


def _delete_result(response: pb.DeleteRangeResponse) -> WriteResult:
    previous = [key_value(kv) for kv in response.prev_kvs]
    return WriteResult(response.header.revision, previous, response.deleted)


def _txn_result(response: pb.TxnResponse) -> TxnResult:
    results: list[RangeResult | WriteResult] = []
    for op in response.responses:
        if op.HasField("response_range"):
            results.append(_range_result(op.response_range))
        elif op.HasField("response_put"):
            results.append(_put_result(op.response_put))
        else:
            results.append(_delete_result(op.response_delete_range))
    return TxnResult(response.header.revision, response.succeeded, results)
