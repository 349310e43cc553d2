"""What other members call."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from fastgrpc.calls import CallFailed, Status
from fastgrpc.server import Call, StreamMethod, UnaryMethod
from raft_store.disk.snapshot import NotASnapshot
from raft_store.engine import Change, ChangeKind, ChangeRefused, EngineError, Index, MemberId, Term
from raft_store.peer_link import SERVICE
from raft_store.raft import membership
from raft_store.raft import messages as m
from raft_store.raft.membership import Configuration
from raft_store.wire import decode, unwrap
from trireme_pb.raft import raft_pb2


class Group(Protocol):
    """What peers ask of the member's view of its group."""

    def configuration(self) -> Configuration:
        """Return the members as agreed on."""

    def started(self) -> Collection[MemberId]:
        """Return the members that ever took part."""

    def has_removed(self, member: MemberId) -> bool:
        """Return whether a member was removed for ever, and is needed no more."""

    async def change(
        self, changes: Sequence[Change], *, timeout_s: float, joint: bool, started: Collection[MemberId] | None
    ) -> Index:
        """As the leader, change the group; return where the log says so. Raises ChangeRefused, EngineError."""

    def on_removed(self, told: str) -> None:
        """Another member told us that we were removed."""


class Service:
    """The Raft service of ``proto/raft``."""

    def __init__(
        self,
        member: MemberId,
        cluster: str,
        receive: Callable[[Sequence[m.AnyMessage]], None],
        receive_snapshot: Callable[[AsyncIterator[bytes]], Awaitable[m.Snapshot]],
        group: Group,
    ) -> None:
        self._member = member
        self._cluster = cluster
        self._receive = receive
        self._receive_snapshot = receive_snapshot
        self._group = group

    def methods(self) -> list[StreamMethod | UnaryMethod]:
        """Return the service's rows."""
        return [
            StreamMethod(SERVICE + "Deliver", self.deliver, bytes, _serialize),  # see ``wire.unwrap``
            StreamMethod(SERVICE + "InstallSnapshot", self.install, raft_pb2.SnapshotChunk.FromString, _serialize),
            UnaryMethod(SERVICE + "Describe", self.describe, raft_pb2.DescribeRequest.FromString, _serialize),
            UnaryMethod(SERVICE + "Reconfigure", self.reconfigure, raft_pb2.ReconfigureRequest.FromString, _serialize),
        ]

    async def deliver(self, call: Call) -> None:
        """Take in a peer's messages for as long as it keeps the stream."""
        first = await anext(call.requests(), b"")
        try:
            sender = self._greet(raft_pb2.Batch.FromString(first).greeting)
        except DecodeError as exc:
            raise CallFailed(Status.INTERNAL, f"a greeting cannot be read: {exc}") from exc

        def take(batch: bytes) -> None:
            if self._group.has_removed(sender):
                self._check_removed(sender)
            try:
                messages = decode(unwrap(batch), sender=sender, to=self._member)
            except ValueError as exc:
                raise CallFailed(Status.INTERNAL, f"a batch cannot be read: {exc}") from exc
            self._receive(messages)

        await call.hand_to(take)
        await call.send(raft_pb2.Delivered())

    async def install(self, call: Call) -> None:
        """Take in a whole snapshot."""
        requests = call.requests()
        head = await anext(requests, None) or raft_pb2.SnapshotChunk()
        sender = self._greet(head.greeting)

        async def portions() -> AsyncIterator[bytes]:
            async for chunk in requests:
                yield chunk.data

        try:
            snapshot = await self._receive_snapshot(portions())
        except NotASnapshot as exc:
            raise CallFailed(Status.DATA_LOSS, str(exc)) from exc
        self._receive(
            [m.InstallSnapshot(sender, self._member, Term(head.term), mark=snapshot.mark, data=snapshot.data)]
        )
        await call.send(raft_pb2.Delivered())

    async def describe(self, request: raft_pb2.DescribeRequest, call: Call) -> raft_pb2.Description:
        """Tell who belongs to the group."""
        del call
        self._check_cluster(request.cluster)
        return raft_pb2.Description(
            configuration=membership.encode(self._group.configuration()), started=self._group.started()
        )

    async def reconfigure(self, request: raft_pb2.ReconfigureRequest, call: Call) -> raft_pb2.ReconfigureReply:
        """Change the group for a member that does not lead."""
        del call
        self._greet(request.greeting)
        changes = [
            Change(ChangeKind(change.kind), MemberId(change.member), tuple(change.peer_urls))
            for change in request.changes
        ]
        try:
            index = await self._group.change(
                changes,
                timeout_s=request.timeout_ms / 1000,
                joint=request.joint,
                started=[MemberId(member) for member in request.started] if request.prudent else None,
            )
        except ChangeRefused as exc:
            return raft_pb2.ReconfigureReply(refusal=exc.refusal.name)
        except EngineError as exc:
            raise CallFailed(Status.UNAVAILABLE, str(exc)) from exc
        return raft_pb2.ReconfigureReply(index=index)

    def _greet(self, greeting: raft_pb2.Greeting) -> MemberId:
        self._check_cluster(greeting.cluster)
        if greeting.recipient != self._member:
            raise CallFailed(
                Status.FAILED_PRECONDITION,
                f"this is member {self._member:x}, not {greeting.recipient:x}: check the members' addresses",
            )
        self._check_removed(MemberId(greeting.sender))
        return MemberId(greeting.sender)

    def _check_removed(self, sender: MemberId) -> None:
        if self._group.has_removed(sender):
            raise CallFailed(
                Status.PERMISSION_DENIED,
                f"the group has removed member {sender:x}, so says member {self._member:x}",
            )

    def _check_cluster(self, cluster: str) -> None:
        if cluster != self._cluster:
            raise CallFailed(
                Status.FAILED_PRECONDITION,
                f"this is cluster {self._cluster!r}, the caller is of {cluster!r}",
            )


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
