"""The Maintenance service: status, alarms, checksums, snapshots, moving the leader."""

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import cast

import google_crc32c

from raft_store.disk.saved import Seal
from raft_store.disk.snapshot import Framer
from raft_store.engine import EngineError, MemberId, NoLeader
from raft_store.mvcc.model import Revision, StoreError
from raft_store.mvcc.requests import Alarm, AlarmKind, SetAlarm
from raft_store.mvcc.store import checksum
from raft_store.pacing import paced, result_of
from raft_store.raft.messages import SnapshotMark
from trireme_pb.etcdserverpb import rpc_pb2 as pb

from .backend import Backend
from .errors import NO_LEADER, Code, RpcError, rpc_error

# What the API is compatible with; clients decide by it which calls they may use. The product has its own version.
ETCD_VERSION = "3.5.13"
CLUSTER_VERSION = "3.5.0"  # what all members have in common, as etcd tells it
SNAPSHOT_CHUNK_BYTES = 64 << 10


class MaintenanceService:
    """etcdserverpb.Maintenance."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def status(self, request: pb.StatusRequest) -> pb.StatusResponse:  # noqa: ARG002
        """Tell how this member is doing; never waits for others."""
        status, machine = self._backend.engine.status(), self._backend.machine
        errors = [] if status.leader else [NO_LEADER[1]]
        errors += [_in_words(member, kind) for member, kind in sorted(machine.alarms)]
        return pb.StatusResponse(
            header=self._backend.header(),
            version=ETCD_VERSION,
            dbSize=machine.store.size_bytes,
            dbSizeInUse=machine.store.size_in_use_bytes,
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
        await self._backend.trim()
        return pb.DefragmentResponse(header=self._backend.header())

    async def hash(self, request: pb.HashRequest) -> pb.HashResponse:  # noqa: ARG002
        """Return a checksum of the whole replicated state."""
        header, checksum = self._backend.header(), 0
        with contextlib.closing(self._backend.machine.snapshot()) as chunks:
            async for chunk in paced(chunks):
                checksum = google_crc32c.extend(checksum, chunk)
        return pb.HashResponse(header=header, hash=checksum)

    async def hash_kv(self, request: pb.HashKVRequest) -> pb.HashKVResponse:
        """Return a checksum of the keys; equal on members that agree."""
        store, header = self._backend.machine.store, self._backend.header()
        try:
            store.check_readable(Revision(request.revision))
        except StoreError as exc:
            raise rpc_error(exc) from exc
        with contextlib.closing(store.view()) as view:
            upto = Revision(request.revision) if request.revision > 0 else view.revision
            value = await result_of(checksum(view, upto))
        return pb.HashKVResponse(header=header, hash=value, compact_revision=view.compact_revision)

    async def snapshot(
        self,
        requests: AsyncIterator[pb.SnapshotRequest],
        send: Callable[[pb.SnapshotResponse], Awaitable[None]],
    ) -> None:
        """Send the whole state in this store's own format; how much remains is a guess until nothing does."""
        async for _ in requests:
            header, guess = self._backend.header(), self._backend.machine.store.held_bytes
            sent = 0
            async with contextlib.aclosing(saved_snapshot(self._backend)) as portions:
                async for portion in portions:
                    for start in range(0, len(portion), SNAPSHOT_CHUNK_BYTES):
                        blob = portion[start : start + SNAPSHOT_CHUNK_BYTES]
                        sent += len(blob)
                        remaining = max(guess - sent, 1)
                        await send(pb.SnapshotResponse(header=header, remaining_bytes=remaining, blob=blob))
            await send(pb.SnapshotResponse(header=header, remaining_bytes=0, blob=b""))
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


def _in_words(member: int, kind: AlarmKind) -> str:
    """Return an alarm as Go writes the message: without fields that are zero."""
    return (f"memberID:{member} " if member else "") + (f"alarm:{kind.name} " if kind else "")


async def saved_snapshot(backend: Backend) -> AsyncGenerator[bytes, None]:
    """Yield a file that holds the whole state of now (``disk.saved``), while the member goes on."""
    status = backend.engine.status()
    mark = SnapshotMark(status.applied_index, status.term)
    framer, seal = Framer(), Seal()
    with contextlib.closing(backend.machine.snapshot()) as chunks:
        yield seal.add(framer.head(mark, cluster_id=backend.cluster_id, taken_s=time.time()))
        async for chunk in paced(chunks):
            if chunk:
                yield seal.add(framer.chunk(chunk))
    yield seal.add(framer.end())
    yield seal.end()
