"""The other members, over gRPC: one outgoing stream to each, and a server for theirs.

Nothing here is reliable, on purpose. What a peer cannot take now is dropped, what was queued for a lost connection is
dropped with it, and Raft sends again what still matters. A connection that has gone silent (a partition leaves TCP
waiting for minutes) is found by HTTP/2 pings within about two seconds and replaced; dialling repeats every half second
at most, so a healed partition is felt at once.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

import grpc
import grpc.aio

from raft_store.disk.directory import DiskError
from raft_store.disk.snapshot import NotASnapshot
from raft_store.engine import MemberId, Term
from raft_store.raft import messages as m
from raft_store.tls import TlsFiles
from raft_store.wire import Encoder, decode
from trireme_pb.raft import raft_pb2, raft_pb2_grpc

log = logging.getLogger(__name__)

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

MAX_QUEUED_MESSAGES = 4096
MAX_QUEUED_BYTES = 64 << 20
MAX_BATCH_BYTES = 8 << 20
REDIAL_PAUSE_S = 0.05

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


class Peers:
    """Sends what the core wants sent, and hands over what arrives."""

    def __init__(
        self,
        *,
        member: MemberId,
        cluster: str,
        members: Mapping[MemberId, str],
        tls: TlsFiles | None,
        receive: Callable[[Sequence[m.AnyMessage]], None],
        send_snapshot: Callable[[], AsyncIterator[bytes]],
        receive_snapshot: Callable[[AsyncIterator[bytes]], Awaitable[m.Snapshot]],
        snapshot_failed: Callable[[MemberId], None],
    ) -> None:
        """receive: called in the event loop with every batch that arrives; must not block.

        send_snapshot, receive_snapshot: the disk's two ends of a snapshot's way to another member.
        """
        self._member = member
        self._cluster = cluster
        self._tls = tls
        self._receive = receive
        self._send_snapshot = send_snapshot
        self._receive_snapshot = receive_snapshot
        self._snapshot_failed = snapshot_failed
        self._server: grpc.aio.Server | None = None
        self._links = {
            peer: _Link(raft_pb2.Greeting(cluster=cluster, sender=member, recipient=peer), address, tls)
            for peer, address in members.items()
            if peer != member
        }
        self._stopping = False
        self._snapshots: dict[MemberId, asyncio.Task[None]] = {}

    async def start(self, listen: str) -> None:
        """Listen, and begin to dial; raises ListenFailed."""
        server = grpc.aio.server(options=_SERVER_OPTIONS)
        service = _Service(self._member, self._cluster, self._receive, self._receive_snapshot)
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
        for link in self._links.values():
            link.start()

    async def stop(self) -> None:
        """Hang up; whatever is sent from now on is dropped."""
        self._stopping = True
        for task in self._snapshots.values():
            task.cancel()
        await asyncio.gather(*self._snapshots.values(), return_exceptions=True)
        await asyncio.gather(*(link.stop() for link in self._links.values()))
        if self._server is not None:
            await self._server.stop(grace=None)

    def send(self, messages: Sequence[m.AnyMessage]) -> None:
        """Send, or drop what cannot be sent; never waits."""
        encoder = Encoder()
        for message in messages:
            link = self._links[message.to]
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
    """The way to one peer."""

    def __init__(self, greeting: raft_pb2.Greeting, address: str, tls: TlsFiles | None) -> None:
        self._greeting = greeting
        self._address = address
        self._tls = tls
        self._queue: list[raft_pb2.Message] = []
        self._queued_bytes = 0
        self._filled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._channel: grpc.aio.Channel | None = None
        self.connected = False

    def start(self) -> None:
        if self._tls is None:
            self._channel = grpc.aio.insecure_channel(self._address, options=_CHANNEL_OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(
                self._address, _channel_credentials(self._tls), options=_CHANNEL_OPTIONS
            )
        self._task = asyncio.create_task(self._run(raft_pb2_grpc.RaftStub(self._channel)))

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()

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
            yield raft_pb2.SnapshotChunk(greeting=self._greeting, term=term)
            async for portion in data:
                yield raft_pb2.SnapshotChunk(data=portion)

        await raft_pb2_grpc.RaftStub(self._channel).InstallSnapshot(chunks())

    async def _run(self, stub: raft_pb2_grpc.RaftStub) -> None:
        refusal = ""
        while True:
            try:
                await self._deliver(stub)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as exc:
                refusal = self._report(exc, refusal)
            finally:
                self.connected = False
                self._queue, self._queued_bytes = [], 0
            await asyncio.sleep(REDIAL_PAUSE_S)

    def _report(self, exc: Exception, before: str) -> str:
        """Log why a stream ended, once for each new reason; return the reason."""
        reason = f"{exc.code().name}: {exc.details()}" if isinstance(exc, grpc.aio.AioRpcError) else repr(exc)
        if reason != before:
            level = logging.INFO if "UNAVAILABLE" in reason else logging.WARNING
            log.log(
                level, "lost stream to peer=%d address=%s cause=%s", self._greeting.recipient, self._address, reason
            )
        return reason

    async def _deliver(self, stub: raft_pb2_grpc.RaftStub) -> None:
        """Keep one stream; returns or raises when it ends."""
        # The type stubs know only the form that takes an iterator.
        call: Any = stub.Deliver(wait_for_ready=True)  # type: ignore[call-arg]
        try:
            await call.wait_for_connection()
            await call.write(raft_pb2.Batch(greeting=self._greeting))
            # The other side may end the stream while we have nothing to say.
            call.add_done_callback(lambda _: self._filled.set())
            self.connected = True
            log.info("connected to peer=%d address=%s", self._greeting.recipient, self._address)
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
    ) -> None:
        self._member = member
        self._cluster = cluster
        self._receive = receive
        self._receive_snapshot = receive_snapshot

    async def Deliver(  # noqa: N802 - the contract's name
        self, request_iterator: AsyncIterator[raft_pb2.Batch], context: _Context
    ) -> raft_pb2.Delivered:
        """Take in a peer's messages for as long as it keeps the stream."""
        first = await anext(aiter(request_iterator), None)
        sender = await self._greet(first.greeting if first else raft_pb2.Greeting(), context)
        with contextlib.suppress(asyncio.CancelledError):  # how a stream ends when its peer dies
            async for batch in request_iterator:
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

    async def _greet(self, greeting: raft_pb2.Greeting, context: _Context) -> MemberId:
        if greeting.cluster != self._cluster:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"this is cluster {self._cluster!r}, the caller is of {greeting.cluster!r}",
            )
        if greeting.recipient != self._member:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"this is member {self._member:x}, not {greeting.recipient:x}: check the members' addresses",
            )
        return MemberId(greeting.sender)


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
