"""The Maintenance service: status, alarms, checksums, snapshots, moving the leader."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

import google_crc32c

from raft_store.engine import EngineError, MemberId, NoLeader
from raft_store.mvcc.model import Revision, StoreError
from raft_store.mvcc.requests import Alarm, AlarmKind, SetAlarm
from trireme_pb.etcdserverpb import rpc_pb2 as pb

from .backend import Backend
from .errors import Code, RpcError, rpc_error

# What the API is compatible with; clients decide by it which calls they may use. The product has its own version.
ETCD_VERSION = "3.5.13"
SNAPSHOT_CHUNK_BYTES = 64 << 10
SNAPSHOT_PAGE_BYTES = 512  # clients expect whole pages, then the SHA-256 of all before


class MaintenanceService:
    """etcdserverpb.Maintenance."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def status(self, request: pb.StatusRequest) -> pb.StatusResponse:  # noqa: ARG002
        """Tell how this member is doing; never waits for others."""
        status, machine = self._backend.engine.status(), self._backend.machine
        errors = [f"memberID:{member} alarm:{kind.name} " for member, kind in sorted(machine.alarms)]
        if not status.leader:
            errors.append("etcdserver: no leader")
        return pb.StatusResponse(
            header=self._backend.header(),
            version=ETCD_VERSION,
            dbSize=machine.store.held_bytes,
            dbSizeInUse=machine.store.live_bytes,
            leader=status.leader,
            raftIndex=status.commit_index,
            raftTerm=status.term,
            raftAppliedIndex=status.applied_index,
            errors=errors,
            isLearner=status.role == "learner",
        )

    async def alarm(self, request: pb.AlarmRequest) -> pb.AlarmResponse:
        """List, raise or clear alarms."""
        if request.action == pb.AlarmRequest.GET:
            await self._backend.linearize()
            alarms = [
                Alarm(member, kind)
                for member, kind in sorted(self._backend.machine.alarms)
                if int(request.alarm) in (AlarmKind.NONE, kind)
            ]
        else:
            alarms = []
            for alarm in self._meant(request):
                command = SetAlarm(alarm, active=request.action == pb.AlarmRequest.ACTIVATE)
                alarms += cast("list[Alarm]", await self._backend.propose(command, list))
        return pb.AlarmResponse(
            header=self._backend.header(),
            alarms=[
                pb.AlarmMember(memberID=alarm.member, alarm=cast("pb.AlarmType.ValueType", alarm.kind))
                for alarm in alarms
            ],
        )

    def _meant(self, request: pb.AlarmRequest) -> list[Alarm]:
        try:
            return [Alarm(request.memberID, AlarmKind(request.alarm))]
        except ValueError as exc:
            raise RpcError(Code.INVALID_ARGUMENT, f"etcdserver: unknown alarm {request.alarm}") from exc

    async def defragment(self, request: pb.DefragmentRequest) -> pb.DefragmentResponse:  # noqa: ARG002
        """Give back the memory of everything compacted; there is no file with holes."""
        self._backend.machine.store.trim_all()
        return pb.DefragmentResponse(header=self._backend.header())

    async def hash(self, request: pb.HashRequest) -> pb.HashResponse:  # noqa: ARG002
        """Return a checksum of the whole replicated state."""
        checksum = google_crc32c.value(self._backend.machine.snapshot())
        return pb.HashResponse(header=self._backend.header(), hash=checksum)

    async def hash_kv(self, request: pb.HashKVRequest) -> pb.HashKVResponse:
        """Return a checksum of the keys; equal on members that agree."""
        store = self._backend.machine.store
        try:
            checksum = store.hash(Revision(request.revision))
        except StoreError as exc:
            raise rpc_error(exc) from exc
        return pb.HashKVResponse(header=self._backend.header(), hash=checksum, compact_revision=store.compact_revision)

    async def snapshot(
        self,
        requests: AsyncIterator[pb.SnapshotRequest],
        send: Callable[[pb.SnapshotResponse], Awaitable[None]],
    ) -> None:
        """Send the whole state in this store's own format."""
        async for _ in requests:
            header = self._backend.header()
            state = await asyncio.to_thread(sealed, self._backend.machine.snapshot())
            for start in range(0, len(state), SNAPSHOT_CHUNK_BYTES):
                blob = state[start : start + SNAPSHOT_CHUNK_BYTES]
                remaining = len(state) - start - len(blob)
                await send(pb.SnapshotResponse(header=header, remaining_bytes=remaining, blob=blob))
            return

    async def move_leader(self, request: pb.MoveLeaderRequest) -> pb.MoveLeaderResponse:
        """Make another member the leader; only the leader itself is asked."""
        engine, target = self._backend.engine, MemberId(request.targetID)
        if engine.status().leader != self._backend.member:
            raise RpcError(Code.FAILED_PRECONDITION, "etcdserver: not leader")
        if not any(record.member == target and not record.learner for record in engine.members()):
            raise RpcError(Code.FAILED_PRECONDITION, "etcdserver: bad leader transferee")
        try:
            await engine.transfer_leadership(target, timeout_s=self._backend.request_timeout_s)
        except NoLeader as exc:
            raise rpc_error(exc) from exc
        except EngineError as exc:
            text = "etcdserver: request timed out, leader transfer took too long"
            raise RpcError(Code.UNAVAILABLE, text) from exc
        return pb.MoveLeaderResponse(header=self._backend.header())

    async def downgrade(self, request: pb.DowngradeRequest) -> pb.DowngradeResponse:  # noqa: ARG002
        """Refuse: there is no older format to go back to."""
        raise RpcError(Code.UNIMPLEMENTED, "etcdserver: this store has no older version to downgrade to")


def sealed(state: bytes) -> bytes:
    """Return ``state`` filled up to whole pages, followed by the SHA-256 of that.

    The length of the state comes first, 8 bytes, so that the filling can be told from it.
    """
    framed = len(state).to_bytes(8, "big") + state
    framed += bytes(-len(framed) % SNAPSHOT_PAGE_BYTES)
    return framed + hashlib.sha256(framed).digest()
