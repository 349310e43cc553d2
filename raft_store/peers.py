"""The other members, over gRPC: one outgoing stream to each, and a server for theirs.

Nothing here is reliable, on purpose. What a peer cannot take now is dropped, what was queued for a lost connection is
dropped with it, and Raft sends again what still matters. A connection that has gone silent (a partition leaves TCP
waiting for minutes) is found by HTTP/2 pings within about two seconds and replaced; dialling repeats every half second
at most, so a healed partition is felt at once.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from fastgrpc.calls import CallFailed, Status
from fastgrpc.channel import Channel, ChannelConfig, ClientCall, client_tls
from fastgrpc.events import Limits
from fastgrpc.server import Call, Server, ServerConfig, StreamMethod, UnaryMethod, server_tls
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
from trireme_pb.raft import raft_pb2

log = logging.getLogger(__name__)

SERVICE = "/trireme.raft.Raft/"
MAX_QUEUED_BYTES = 64 << 20
MAX_BATCH_BYTES = 8 << 20
REDIAL_PAUSE_S = 0.05
CONNECT_S = 0.5  # a peer that takes longer is dialled anew: the network may be back by then
PING_S = 1.0
FAREWELL_S = 2.0  # a member that has left is still dialled for so long

# A log entry has no limit of its own here, so a batch may be larger than planned by one entry.
_MAX_MESSAGE_BYTES = 256 << 20
_LIMITS = Limits(window_bytes=16 << 20, connection_window_bytes=64 << 20, frame_bytes=1 << 20)
_SERVER = ServerConfig(
    limits=_LIMITS, max_message_bytes=_MAX_MESSAGE_BYTES, keepalive_s=PING_S, keepalive_timeout_s=PING_S
)
_CHANNEL = ChannelConfig(
    limits=_LIMITS,
    max_message_bytes=_MAX_MESSAGE_BYTES,
    connect_timeout_s=CONNECT_S,
    keepalive_s=PING_S,
    keepalive_timeout_s=PING_S,
)


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
        self._server: Server | None = None
        self._first = members
        self._links: dict[MemberId, _Link] = {}
        self._leaving: dict[MemberId, asyncio.TimerHandle] = {}
        self._hanging_up: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._snapshots: dict[MemberId, asyncio.Task[None]] = {}

    async def start(self, listen: str) -> None:
        """Listen, and begin to dial; raises ListenFailed."""
        service = _Service(self._member, self._cluster, self._receive, self._receive_snapshot, self._group)
        server = Server(service.methods(), config=_SERVER)
        host, _, port = listen.rpartition(":")
        try:
            tls = None if self._tls is None else server_tls(str(self._tls.cert), str(self._tls.key), str(self._tls.ca))
            await server.listen(host.strip("[]"), int(port), tls=tls)
        except OSError as exc:
            raise ListenFailed(f"cannot listen for peers on {listen}: {exc}") from exc
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
        except CallFailed as exc:
            raise ProposalTimedOut(f"the leader did not answer: {exc.message}; the change may still be made") from exc
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
            await self._server.stop(0)

    def send(self, messages: Sequence[m.AnyMessage]) -> None:
        """Send, or drop what cannot be sent; never waits."""
        encoder = Encoder()
        batches: dict[MemberId, list[raft_pb2.Message]] = {}
        for message in messages:
            link = self._links.get(message.to)
            if link is None:
                continue  # it has just left, or its address is not known yet
            if isinstance(message, m.InstallSnapshot):
                self._begin_snapshot(link, message)
            elif link.takes_more:
                batches.setdefault(message.to, []).append(encoder.encode(message))
        for peer, batch in batches.items():
            self._links[peer].send(batch)

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
        except (CallFailed, DiskError) as exc:
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
        self._task: asyncio.Task[None] | None = None
        self._channel = open_channel(self._address, tls)
        self._call: ClientCall | None = None  # the stream, while it stands

    @property
    def _address(self) -> str:
        return self.addresses[self._tried % len(self.addresses)]

    @property
    def connected(self) -> bool:
        return self._call is not None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._channel.close()

    async def reconfigure(self, request: raft_pb2.ReconfigureRequest, *, timeout_s: float) -> raft_pb2.ReconfigureReply:
        reply = await self._channel.unary(SERVICE + "Reconfigure", request.SerializeToString(), timeout_s=timeout_s)
        return raft_pb2.ReconfigureReply.FromString(reply)

    @property
    def takes_more(self) -> bool:
        return self._call is not None and self._call.waiting_bytes < MAX_QUEUED_BYTES

    def send(self, messages: Sequence[raft_pb2.Message]) -> None:
        """Send what one round brought, in one write."""
        assert self._call is not None, "whoever sends looks at takes_more"
        for batch in _batches(messages):
            self._call.write(raft_pb2.Batch(messages=batch).SerializeToString())

    async def send_snapshot(self, term: Term, data: AsyncIterator[bytes]) -> None:
        """Stream a snapshot; returns when the peer has taken it in, raises CallFailed if it did not."""
        call = await self._channel.start(SERVICE + "InstallSnapshot")
        try:
            head = raft_pb2.SnapshotChunk(greeting=self.greeting, term=term)
            await call.send(head.SerializeToString())
            async for portion in data:
                await call.send(raft_pb2.SnapshotChunk(data=portion).SerializeToString())
            call.end()
            while await call.receive() is not None:
                pass
        finally:
            call.cancel()

    async def _run(self) -> None:
        refusal = ""
        while True:
            try:
                await self._deliver()
            except CallFailed as exc:
                refusal = self._report(exc, refusal)
            finally:
                self._call = None
            await asyncio.sleep(REDIAL_PAUSE_S)
            if len(self.addresses) > 1:
                await self._channel.close()
                self._tried += 1
                self._channel = open_channel(self._address, self._tls)

    def _report(self, exc: CallFailed, before: str) -> str:
        """Log why a stream ended, once for each new reason; return the reason."""
        reason = str(exc)
        if reason != before:
            level = logging.INFO if exc.status is Status.UNAVAILABLE else logging.WARNING
            log.log(level, "lost stream to peer=%d address=%s cause=%s", self.greeting.recipient, self._address, reason)
        if exc.status is Status.PERMISSION_DENIED:
            self._on_removed(exc.message)
        return reason

    async def _deliver(self) -> None:
        """Keep one stream; returns or raises when it ends."""
        call = await self._channel.start(SERVICE + "Deliver")
        try:
            call.write(raft_pb2.Batch(greeting=self.greeting).SerializeToString())
            self._call = call
            log.info("connected to peer=%d address=%s", self.greeting.recipient, self._address)
            while await call.receive() is not None:
                pass
        finally:
            call.cancel()


def _batches(messages: Sequence[raft_pb2.Message]) -> Iterator[Sequence[raft_pb2.Message]]:
    """Split what is too much for one batch."""
    size = begin = 0
    for place, message in enumerate(messages):
        message_bytes = message.ByteSize()
        if size and size + message_bytes > MAX_BATCH_BYTES:
            yield messages[begin:place]
            size, begin = 0, place
        size += message_bytes
    yield messages[begin:]


class _Service:
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

    def methods(self) -> list[StreamMethod | UnaryMethod]:
        """Return the service's rows."""
        return [
            StreamMethod(SERVICE + "Deliver", self.deliver, raft_pb2.Batch.FromString, _serialize),
            StreamMethod(SERVICE + "InstallSnapshot", self.install, raft_pb2.SnapshotChunk.FromString, _serialize),
            UnaryMethod(SERVICE + "Describe", self.describe, raft_pb2.DescribeRequest.FromString, _serialize),
            UnaryMethod(SERVICE + "Reconfigure", self.reconfigure, raft_pb2.ReconfigureRequest.FromString, _serialize),
        ]

    async def deliver(self, call: Call) -> None:
        """Take in a peer's messages for as long as it keeps the stream."""
        first = await anext(call.requests(), None)
        sender = self._greet(first.greeting if first else raft_pb2.Greeting())

        def take(batch: raft_pb2.Batch) -> None:
            self._check_removed(sender)
            decoded = (decode(message, sender=sender, to=self._member) for message in batch.messages)
            self._receive([message for message in decoded if message is not None])

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
        return raft_pb2.Description(configuration=membership.encode(self._group.configuration()))

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


def open_channel(address: str, tls: TlsFiles | None) -> Channel:
    """Return a channel to a peer's listener."""
    context = None if tls is None else client_tls(str(tls.ca), str(tls.cert), str(tls.key))
    return Channel(address, tls=context, config=_CHANNEL)


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
