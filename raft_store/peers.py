"""The other members, over gRPC: one outgoing stream to each, and a server for theirs.

Nothing here is reliable, on purpose. What a peer cannot take now is dropped, what was queued for a lost connection is
dropped with it, and Raft sends again what still matters. A connection that has gone silent (a partition leaves TCP
waiting for minutes) is found by HTTP/2 pings within about two seconds and replaced; dialling repeats every half second
at most, so a healed partition is felt at once.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import grpc
import grpc.aio

from raft_store.config import peer_address
from raft_store.disk.directory import DiskError
from raft_store.disk.identity import Urls
from raft_store.disk.snapshot import NotASnapshot
from raft_store.engine import (
    Change,
    ChangeKind,
    ChangeRefused,
    EngineError,
    Index,
    MemberId,
    ProposalTimedOut,
    Refusal,
    Term,
)
from raft_store.raft import membership
from raft_store.raft import messages as m
from raft_store.raft.membership import Configuration
from raft_store.tls import TlsFiles
from raft_store.wire import Encoder, decode
from trireme_pb.raft import raft_pb2, raft_pb2_grpc

log = logging.getLogger(__name__)

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

MAX_QUEUED_MESSAGES = 4096
MAX_QUEUED_BYTES = 64 << 20
MAX_BATCH_BYTES = 8 << 20
REDIAL_PAUSE_S = 0.05
FAREWELL_S = 2.0  # a member that has left is still dialled for so long

_PING_OPTIONS = [
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
_CHANNEL_OPTIONS = [
    *_PING_OPTIONS,
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]
_SERVER_OPTIONS = [
    *_PING_OPTIONS,
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 200),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.so_reuseport", 0),  # two members on one port must fail, not share it
]


class ListenFailed(Exception):
    """The peer listener's address cannot be had."""


class Group(Protocol):
    """What peers ask of the member's view of its group."""

    def configuration(self) -> Configuration:
        """Return the members as agreed on."""

    def has_removed(self, member: MemberId) -> bool:
        """Return whether a member was removed for ever, and is needed no more."""

    async def change(
        self, changes: Sequence[Change], *, timeout_s: float, joint: bool, started: Collection[MemberId] | None
    ) -> Index:
        """As the leader, change the group; return where the log says so. Raises ChangeRefused, EngineError."""

    def on_removed(self, told: str) -> None:
        """Another member told us that we were removed."""


class Peers:
    """Sends what the core wants sent, and hands over what arrives."""

    def __init__(
        self,
        *,
        member: MemberId,
        cluster: str,
        members: Urls,
        tls: TlsFiles | None,
        group: Group,
        receive: Callable[[Sequence[m.AnyMessage]], None],
        send_snapshot: Callable[[], AsyncIterator[bytes]],
        receive_snapshot: Callable[[AsyncIterator[bytes]], Awaitable[m.Snapshot]],
        snapshot_failed: Callable[[MemberId], None],
    ) -> None:
        """members: whom to dial until ``follow`` knows better; receive: called in the event loop with every batch that
        arrives; must not block; send_snapshot, receive_snapshot: the disk's two ends of a snapshot's way to another
        member.
        """
        self._member = member
        self._cluster = cluster
        self._tls = tls
        self._receive = receive
        self._send_snapshot = send_snapshot
        self._receive_snapshot = receive_snapshot
        self._snapshot_failed = snapshot_failed
        self._group = group
        self._server: grpc.aio.Server | None = None
        self._first = members
        self._links: dict[MemberId, _Link] = {}
        self._leaving: dict[MemberId, asyncio.TimerHandle] = {}
        self._hanging_up: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._snapshots: dict[MemberId, asyncio.Task[None]] = {}

    async def start(self, listen: str) -> None:
        """Listen, and begin to dial; raises ListenFailed."""
        server = grpc.aio.server(options=_SERVER_OPTIONS)
        service = _Service(self._member, self._cluster, self._receive, self._receive_snapshot, self._group)
        raft_pb2_grpc.add_RaftServicer_to_server(service, server)
        try:
            if self._tls is None:
                server.add_insecure_port(listen)
            else:
                server.add_secure_port(listen, _server_credentials(self._tls))
        except RuntimeError as exc:
            raise ListenFailed(f"cannot listen for peers on {listen}: the address is in use or not ours") from exc
        await server.start()
        self._server = server
        for peer, urls in self._first.items():
            self._dial(peer, urls)

    def follow(self, configuration: Configuration) -> None:
        """Dial whoever is a member now, at its address of now; hang up on the others after a moment."""
        if not configuration.members or self._stopping:
            return
        for peer, urls in configuration.urls.items():
            if (timer := self._leaving.pop(peer, None)) is not None:
                timer.cancel()
            self._dial(peer, urls)
        for peer in self._links.keys() - configuration.urls.keys() - self._leaving.keys():
            # Until then it may still be told that it is no member any more.
            loop = asyncio.get_running_loop()
            self._leaving[peer] = loop.call_later(FAREWELL_S, self._hang_up, peer)

    def _dial(self, peer: MemberId, urls: Sequence[str]) -> None:
        addresses = [peer_address(url) for url in urls]
        known = self._links.get(peer)
        if peer == self._member or not addresses or (known is not None and known.addresses == addresses):
            return
        if known is not None:
            self._hang_up(peer)
        greeting = raft_pb2.Greeting(cluster=self._cluster, sender=self._member, recipient=peer)
        self._links[peer] = _Link(greeting, addresses, self._tls, self._group.on_removed)
        self._links[peer].start()

    def _hang_up(self, peer: MemberId) -> None:
        self._leaving.pop(peer, None)
        task = asyncio.create_task(self._links.pop(peer).stop())
        self._hanging_up.add(task)
        task.add_done_callback(self._hanging_up.discard)

    async def reconfigure(
        self,
        leader: MemberId,
        changes: Sequence[Change],
        *,
        timeout_s: float,
        joint: bool,
        started: Collection[MemberId] | None,
    ) -> Index:
        """Ask the leader to change the group; return where the log says so.

        Raises ChangeRefused, ProposalTimedOut (it may have been changed).
        """
        link = self._links.get(leader)
        if link is None or not link.connected:
            raise ChangeRefused(Refusal.NOT_LEADER)
        request = raft_pb2.ReconfigureRequest(
            greeting=link.greeting,
            changes=[
                raft_pb2.Change(kind=change.kind, member=change.member, peer_urls=change.peer_urls)
                for change in changes
            ],
            joint=joint,
            prudent=started is not None,
            started=started or (),
            timeout_ms=int(timeout_s * 1000),
        )
        try:
            reply = await link.reconfigure(request, timeout_s=timeout_s)
        except grpc.aio.AioRpcError as exc:
            raise ProposalTimedOut(f"the leader did not answer: {exc.details()}; the change may still be made") from exc
        if reply.refusal:
            raise ChangeRefused(Refusal[reply.refusal])
        return Index(reply.index)

    async def stop(self) -> None:
        """Hang up; whatever is sent from now on is dropped."""
        self._stopping = True
        for task in self._snapshots.values():
            task.cancel()
        await asyncio.gather(*self._snapshots.values(), return_exceptions=True)
        for timer in self._leaving.values():
            timer.cancel()
        await asyncio.gather(*self._hanging_up, *(link.stop() for link in self._links.values()))
        if self._server is not None:
            await self._server.stop(grace=None)

    def send(self, messages: Sequence[m.AnyMessage]) -> None:
        """Send, or drop what cannot be sent; never waits."""
        encoder = Encoder()
        for message in messages:
            link = self._links.get(message.to)
            if link is None:
                continue  # it has just left, or its address is not known yet
            if isinstance(message, m.InstallSnapshot):
                self._begin_snapshot(link, message)
            elif link.takes_more:
                link.send(encoder.encode(message))

    def connected(self) -> Mapping[MemberId, bool]:
        """Return which peers we have a stream to."""
        return {peer: link.connected for peer, link in self._links.items()}

    def _begin_snapshot(self, link: "_Link", message: m.InstallSnapshot) -> None:
        if self._stopping or message.to in self._snapshots:
            return
        task = asyncio.create_task(self._deliver_snapshot(link, message))
        self._snapshots[message.to] = task
        task.add_done_callback(lambda _: self._snapshots.pop(message.to, None))

    async def _deliver_snapshot(self, link: "_Link", message: m.InstallSnapshot) -> None:
        try:
            await link.send_snapshot(message.term, self._send_snapshot())
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, DiskError) as exc:
            log.warning("snapshot not delivered to=%d index=%d cause=%r", message.to, message.mark.index, exc)
            self._snapshot_failed(message.to)


class _Link:
    """The way to one peer, which may have several addresses."""

    def __init__(
        self,
        greeting: raft_pb2.Greeting,
        addresses: Sequence[str],
        tls: TlsFiles | None,
        on_removed: Callable[[str], None],
    ) -> None:
        self.greeting = greeting
        self.addresses = addresses
        self._tls = tls
        self._on_removed = on_removed
        self._tried = 0
        self._queue: list[raft_pb2.Message] = []
        self._queued_bytes = 0
        self._filled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._channel: grpc.aio.Channel | None = None
        self.connected = False

    @property
    def _address(self) -> str:
        return self.addresses[self._tried % len(self.addresses)]

    def start(self) -> None:
        self._channel = open_channel(self._address, self._tls)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()

    async def reconfigure(self, request: raft_pb2.ReconfigureRequest, *, timeout_s: float) -> raft_pb2.ReconfigureReply:
        assert self._channel is not None
        return await raft_pb2_grpc.RaftStub(self._channel).Reconfigure(request, timeout=timeout_s)

    @property
    def takes_more(self) -> bool:
        return self.connected and len(self._queue) < MAX_QUEUED_MESSAGES and self._queued_bytes < MAX_QUEUED_BYTES

    def send(self, message: raft_pb2.Message) -> None:
        self._queue.append(message)
        self._queued_bytes += message.ByteSize()
        self._filled.set()

    async def send_snapshot(self, term: Term, data: AsyncIterator[bytes]) -> None:
        """Stream a snapshot; returns when the peer has taken it in, raises AioRpcError if it did not."""
        assert self._channel is not None

        async def chunks() -> AsyncIterator[raft_pb2.SnapshotChunk]:
            yield raft_pb2.SnapshotChunk(greeting=self.greeting, term=term)
            async for portion in data:
                yield raft_pb2.SnapshotChunk(data=portion)

        await raft_pb2_grpc.RaftStub(self._channel).InstallSnapshot(chunks())

    async def _run(self) -> None:
        refusal = ""
        while True:
            assert self._channel is not None
            try:
                await self._deliver(raft_pb2_grpc.RaftStub(self._channel))
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as exc:
                refusal = self._report(exc, refusal)
            finally:
                self.connected = False
                self._queue, self._queued_bytes = [], 0
            await asyncio.sleep(REDIAL_PAUSE_S)
            if len(self.addresses) > 1:
                await self._channel.close()
                self._tried += 1
                self._channel = open_channel(self._address, self._tls)

    def _report(self, exc: Exception, before: str) -> str:
        """Log why a stream ended, once for each new reason; return the reason."""
        reason = f"{exc.code().name}: {exc.details()}" if isinstance(exc, grpc.aio.AioRpcError) else repr(exc)
        if reason != before:
            level = logging.INFO if "UNAVAILABLE" in reason else logging.WARNING
            log.log(level, "lost stream to peer=%d address=%s cause=%s", self.greeting.recipient, self._address, reason)
        if isinstance(exc, grpc.aio.AioRpcError) and exc.code() is grpc.StatusCode.PERMISSION_DENIED:
            self._on_removed(str(exc.details()))
        return reason

    async def _deliver(self, stub: raft_pb2_grpc.RaftStub) -> None:
        """Keep one stream; returns or raises when it ends."""
        # The type stubs know only the form that takes an iterator.
        call: Any = stub.Deliver(wait_for_ready=len(self.addresses) == 1)  # type: ignore[call-arg]
        try:
            await call.wait_for_connection()
            await call.write(raft_pb2.Batch(greeting=self.greeting))
            # The other side may end the stream while we have nothing to say.
            call.add_done_callback(lambda _: self._filled.set())
            self.connected = True
            log.info("connected to peer=%d address=%s", self.greeting.recipient, self._address)
            while not call.done():
                await self._filled.wait()
                self._filled.clear()
                while self._queue and not call.done():
                    await call.write(raft_pb2.Batch(messages=self._take_batch()))
            await call
        finally:
            call.cancel()

    def _take_batch(self) -> list[raft_pb2.Message]:
        size, count = 0, 0
        for message in self._queue:
            size += message.ByteSize()
            if size > MAX_BATCH_BYTES and count:
                break
            count += 1
        batch, self._queue = self._queue[:count], self._queue[count:]
        self._queued_bytes -= sum(message.ByteSize() for message in batch)
        return batch


class _Service(raft_pb2_grpc.RaftServicer):
    """What other members call."""

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

    async def Deliver(  # noqa: N802 - the contract's name
        self, request_iterator: AsyncIterator[raft_pb2.Batch], context: _Context
    ) -> raft_pb2.Delivered:
        """Take in a peer's messages for as long as it keeps the stream."""
        first = await anext(aiter(request_iterator), None)
        sender = await self._greet(first.greeting if first else raft_pb2.Greeting(), context)
        with contextlib.suppress(asyncio.CancelledError):  # how a stream ends when its peer dies
            async for batch in request_iterator:
                await self._check_removed(sender, context)
                decoded = (decode(message, sender=sender, to=self._member) for message in batch.messages)
                self._receive([message for message in decoded if message is not None])
        return raft_pb2.Delivered()

    async def InstallSnapshot(  # noqa: N802 - the contract's name
        self, request_iterator: AsyncIterator[raft_pb2.SnapshotChunk], context: _Context
    ) -> raft_pb2.Delivered:
        """Take in a whole snapshot."""
        head = await anext(aiter(request_iterator), None) or raft_pb2.SnapshotChunk()
        sender = await self._greet(head.greeting, context)

        async def portions() -> AsyncIterator[bytes]:
            async for chunk in request_iterator:
                yield chunk.data

        try:
            snapshot = await self._receive_snapshot(portions())
        except NotASnapshot as exc:
            await context.abort(grpc.StatusCode.DATA_LOSS, str(exc))
        self._receive(
            [m.InstallSnapshot(sender, self._member, Term(head.term), mark=snapshot.mark, data=snapshot.data)]
        )
        return raft_pb2.Delivered()

    async def Describe(  # noqa: N802 - the contract's name
        self, request: raft_pb2.DescribeRequest, context: _Context
    ) -> raft_pb2.Description:
        """Tell who belongs to the group."""
        await self._check_cluster(request.cluster, context)
        return raft_pb2.Description(configuration=membership.encode(self._group.configuration()))

    async def Reconfigure(  # noqa: N802 - the contract's name
        self, request: raft_pb2.ReconfigureRequest, context: _Context
    ) -> raft_pb2.ReconfigureReply:
        """Change the group for a member that does not lead."""
        await self._greet(request.greeting, context)
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
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(exc))
        return raft_pb2.ReconfigureReply(index=index)

    async def _greet(self, greeting: raft_pb2.Greeting, context: _Context) -> MemberId:
        await self._check_cluster(greeting.cluster, context)
        if greeting.recipient != self._member:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"this is member {self._member:x}, not {greeting.recipient:x}: check the members' addresses",
            )
        await self._check_removed(MemberId(greeting.sender), context)
        return MemberId(greeting.sender)

    async def _check_removed(self, sender: MemberId, context: _Context) -> None:
        if self._group.has_removed(sender):
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                f"the group has removed member {sender:x}, so says member {self._member:x}",
            )

    async def _check_cluster(self, cluster: str, context: _Context) -> None:
        if cluster != self._cluster:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"this is cluster {self._cluster!r}, the caller is of {cluster!r}",
            )


def open_channel(address: str, tls: TlsFiles | None) -> grpc.aio.Channel:
    """Return a channel to a peer's listener."""
    if tls is None:
        return grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
    return grpc.aio.secure_channel(address, _channel_credentials(tls), options=_CHANNEL_OPTIONS)


def _server_credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(tls.key.read_bytes(), tls.cert.read_bytes())],
        root_certificates=tls.ca.read_bytes(),
        require_client_auth=True,
    )


def _channel_credentials(tls: TlsFiles) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=tls.ca.read_bytes(),
        private_key=tls.key.read_bytes(),
        certificate_chain=tls.cert.read_bytes(),
    )
