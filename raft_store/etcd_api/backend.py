"""What the services ask of the member behind them."""

from typing import TypeVar

from raft_store.engine import Engine, EngineError, MemberId
from raft_store.machine import Machine, encode
from raft_store.mvcc.model import KeyValue, Revision, StoreError
from raft_store.mvcc.requests import Command
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.mvccpb import kv_pb2

from .errors import Code, RpcError, rpc_error

MAX_REQUEST_BYTES = 1_572_864  # 1.5 MiB, etcd's default

Result = TypeVar("Result")


class Backend:
    """One member's engine and machine, in the terms of the services."""

    def __init__(
        self,
        *,
        engine: Engine,
        machine: Machine,
        cluster_id: int,
        member: MemberId,
        request_timeout_s: float,
        min_lease_ttl_s: int,
    ) -> None:
        self.engine = engine
        self.machine = machine
        self.cluster_id = cluster_id
        self.member = member
        self.request_timeout_s = request_timeout_s
        self.min_lease_ttl_s = min_lease_ttl_s

    def header(self, revision: Revision | None = None) -> pb.ResponseHeader:
        """Return a header for ``revision``; the newest by default."""
        return pb.ResponseHeader(
            cluster_id=self.cluster_id,
            member_id=self.member,
            revision=self.machine.store.revision if revision is None else revision,
            raft_term=self.engine.status().term,
        )

    async def propose(self, command: Command, kind: type[Result]) -> Result:
        """Return what the command brought about. Raises RpcError."""
        data = encode(command)
        if len(data) > MAX_REQUEST_BYTES:
            raise RpcError(Code.INVALID_ARGUMENT, "etcdserver: request is too large")
        try:
            result = await self.engine.propose(data, timeout_s=self.request_timeout_s)
        except EngineError as exc:
            raise rpc_error(exc) from exc
        if isinstance(result, StoreError):
            raise rpc_error(result)
        assert isinstance(result, kind), f"{type(command).__name__} answered {result!r}"
        return result

    async def linearize(self) -> None:
        """Return once reads of the machine see all that was acknowledged before. Raises RpcError."""
        try:
            await self.engine.read_barrier(timeout_s=self.request_timeout_s)
        except EngineError as exc:
            raise rpc_error(exc) from exc


def key_value(kv: KeyValue) -> kv_pb2.KeyValue:
    """Return a version of a key in etcd's form."""
    return kv_pb2.KeyValue(
        key=kv.key,
        create_revision=kv.create_revision,
        mod_revision=kv.mod_revision,
        version=kv.version,
        value=kv.value,
        lease=kv.lease,
    )
