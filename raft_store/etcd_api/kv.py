"""The KV service."""

from collections.abc import Awaitable
from typing import TypeVar, assert_never

from raft_store.auth.access import check_txn
from raft_store.mvcc.lease import LeaseTable
from raft_store.mvcc.model import LeaseId, Revision, StoreError
from raft_store.mvcc.requests import (
    Compact,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    DeleteResult,
    Done,
    Operation,
    OperationResult,
    Put,
    PutResult,
    Range,
    RangeResult,
    SortOrder,
    SortTarget,
    Txn,
    TxnResult,
)
from raft_store.mvcc.txn import check_request, is_read_only, read, read_txn
from trireme_pb.etcdserverpb import rpc_pb2 as pb

from .backend import Backend, key_value, refusals
from .call import NO_CONTEXT, CallContext
from .errors import Code, RpcError, rpc_error


class KvService:
    """etcdserverpb.KV."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def range(self, request: pb.RangeRequest, call: CallContext = NO_CONTEXT) -> pb.RangeResponse:
        """Read; linearizable unless the request says that this member's state will do."""
        return self._range_response(await self._range(request, call))

    async def put(self, request: pb.PutRequest, call: CallContext = NO_CONTEXT) -> pb.PutResponse:
        """Write one key."""
        return self._put_response(await self._put(request, call))

    async def delete_range(
        self, request: pb.DeleteRangeRequest, call: CallContext = NO_CONTEXT
    ) -> pb.DeleteRangeResponse:
        """Delete a range."""
        return self._delete_response(await self._delete_range(request, call))

    async def txn(self, request: pb.TxnRequest, call: CallContext = NO_CONTEXT) -> pb.TxnResponse:
        """Compare, then read and write; one that only reads takes no place in the log."""
        return self._txn_response(await self._txn(request, call))

    # The same for fronts that only pass the bytes on.

    async def encoded_range(self, request: pb.RangeRequest, call: CallContext = NO_CONTEXT) -> bytes:
        """See ``range``."""
        return self._backend.answers.range(await self._range(request, call))

    async def encoded_put(self, request: pb.PutRequest, call: CallContext = NO_CONTEXT) -> bytes:
        """See ``put``."""
        return self._backend.answers.put(await self._put(request, call))

    async def encoded_delete_range(self, request: pb.DeleteRangeRequest, call: CallContext = NO_CONTEXT) -> bytes:
        """See ``delete_range``."""
        return self._backend.answers.delete(await self._delete_range(request, call))

    async def encoded_txn(self, request: pb.TxnRequest, call: CallContext = NO_CONTEXT) -> bytes:
        """See ``txn``."""
        return self._backend.answers.txn(await self._txn(request, call))

    async def _range(self, request: pb.RangeRequest, call: CallContext) -> RangeResult:
        wanted = to_range(request)
        _check(wanted)
        if not request.serializable:
            await self._backend.linearize()
        await self._backend.require_read(call, wanted.key, wanted.end)
        try:
            return read(self._backend.machine.store, wanted)
        except StoreError as exc:
            raise rpc_error(exc) from exc

    def _put(self, request: pb.PutRequest, call: CallContext) -> Awaitable[PutResult]:
        wanted = to_put(request)
        _check(wanted)
        return self._backend.propose(wanted, PutResult, call)

    def _delete_range(self, request: pb.DeleteRangeRequest, call: CallContext) -> Awaitable[DeleteResult]:
        wanted = to_delete_range(request)
        _check(wanted)
        return self._backend.propose(wanted, DeleteResult, call)

    async def _txn(self, request: pb.TxnRequest, call: CallContext) -> TxnResult:
        wanted = to_txn(request)
        _check(wanted)
        if not is_read_only(wanted):
            return await self._backend.propose(wanted, TxnResult, call)
        if not _is_serializable(request):
            await self._backend.linearize()
        caller, machine = await self._backend.caller(call), self._backend.machine
        with refusals():
            check_txn(machine.auth, LeaseTable(), caller, wanted)
            return read_txn(machine.store, wanted)

    async def compact(self, request: pb.CompactionRequest, call: CallContext = NO_CONTEXT) -> pb.CompactionResponse:
        """Forget history."""
        done = await self._backend.propose(Compact(Revision(request.revision)), Done, call)
        if request.physical:
            await self._backend.trim()
        return pb.CompactionResponse(header=self._backend.header(done.revision))

    def _range_response(self, result: RangeResult) -> pb.RangeResponse:
        return pb.RangeResponse(
            header=self._backend.header(result.revision),
            kvs=[key_value(kv) for kv in result.kvs],
            more=result.more,
            count=result.count,
        )

    def _put_response(self, result: PutResult) -> pb.PutResponse:
        return pb.PutResponse(
            header=self._backend.header(result.revision),
            prev_kv=None if result.prev is None else key_value(result.prev),
        )

    def _delete_response(self, result: DeleteResult) -> pb.DeleteRangeResponse:
        return pb.DeleteRangeResponse(
            header=self._backend.header(result.revision),
            deleted=result.deleted,
            prev_kvs=[key_value(kv) for kv in result.prevs],
        )

    def _txn_response(self, result: TxnResult) -> pb.TxnResponse:
        return pb.TxnResponse(
            header=self._backend.header(result.revision),
            succeeded=result.succeeded,
            responses=[self._operation_response(inner) for inner in result.results],
        )

    def _operation_response(self, result: OperationResult) -> pb.ResponseOp:
        match result:
            case RangeResult():
                return pb.ResponseOp(response_range=_bare(self._range_response(result)))
            case PutResult():
                return pb.ResponseOp(response_put=_bare(self._put_response(result)))
            case DeleteResult():
                return pb.ResponseOp(response_delete_range=_bare(self._delete_response(result)))
            case TxnResult():
                inner = self._txn_response(result)
                inner.header.Clear()  # here etcd leaves out even the revision
                return pb.ResponseOp(response_txn=inner)
            case _ as unreachable:
                assert_never(unreachable)


def _check(request: Operation) -> None:
    try:  # not by ``refusals``: this is passed for every call
        check_request(request)
    except StoreError as exc:
        raise rpc_error(exc) from exc


def to_range(request: pb.RangeRequest) -> Range:
    """Return a range in the store's terms. Raises RpcError."""
    try:
        order, target = SortOrder(request.sort_order), SortTarget(request.sort_target)
    except ValueError as exc:
        raise RpcError(Code.INVALID_ARGUMENT, "etcdserver: invalid sort option") from exc
    return Range(
        key=request.key,
        end=request.range_end,
        limit=request.limit,
        revision=Revision(request.revision),
        order=order,
        target=target,
        keys_only=request.keys_only,
        count_only=request.count_only,
        min_mod_revision=Revision(request.min_mod_revision),
        max_mod_revision=Revision(request.max_mod_revision),
        min_create_revision=Revision(request.min_create_revision),
        max_create_revision=Revision(request.max_create_revision),
    )


def to_put(request: pb.PutRequest) -> Put:
    """Return what a request for a put wants."""
    return Put(
        key=request.key,
        value=request.value,
        lease=LeaseId(request.lease),
        prev_kv=request.prev_kv,
        ignore_value=request.ignore_value,
        ignore_lease=request.ignore_lease,
    )


def to_delete_range(request: pb.DeleteRangeRequest) -> DeleteRange:
    """Return what a request for a deletion wants."""
    return DeleteRange(key=request.key, end=request.range_end, prev_kv=request.prev_kv)


def to_txn(request: pb.TxnRequest) -> Txn:
    """Return what a request for a transaction wants. Raises RpcError."""
    return Txn(
        compares=[_compare(compare) for compare in request.compare],
        success=[_operation(op) for op in request.success],
        failure=[_operation(op) for op in request.failure],
    )


def _operation(op: pb.RequestOp) -> Operation:
    match op.WhichOneof("request"):
        case "request_put":  # most often, so it is asked for first
            return to_put(op.request_put)
        case "request_range":
            return to_range(op.request_range)
        case "request_delete_range":
            return to_delete_range(op.request_delete_range)
        case "request_txn":
            return to_txn(op.request_txn)
        case _:
            raise RpcError(Code.INVALID_ARGUMENT, "etcdserver: key not found")


_TARGETS = {  # an enumeration takes longer to find a member of its own
    target.value: (target, field)
    for target, field in (
        (CompareTarget.VERSION, "version"),
        (CompareTarget.CREATE, "create_revision"),
        (CompareTarget.MOD, "mod_revision"),
        (CompareTarget.VALUE, "value"),
        (CompareTarget.LEASE, "lease"),
    )
}
_RESULTS = {result.value: result for result in CompareResult}


def _compare(compare: pb.Compare) -> Compare:
    target, result = _TARGETS.get(compare.target), _RESULTS.get(compare.result)
    if target is None or result is None:
        text = f"etcdserver: invalid compare option: target {compare.target}, result {compare.result}"
        raise RpcError(Code.INVALID_ARGUMENT, text)
    kind, field = target
    operand: bytes | int = getattr(compare, field)
    return Compare(compare.key, compare.range_end, kind, result, operand)


def _is_serializable(request: pb.TxnRequest) -> bool:
    return all(
        _is_serializable(op.request_txn)
        if op.HasField("request_txn")
        else op.HasField("request_range") and op.request_range.serializable
        for op in (*request.success, *request.failure)
    )


_Response = TypeVar("_Response", pb.RangeResponse, pb.PutResponse, pb.DeleteRangeResponse)


def _bare(response: _Response) -> _Response:
    """Leave of a response within a transaction's only the revision in its header, as etcd does."""
    response.header.CopyFrom(pb.ResponseHeader(revision=response.header.revision))
    return response
