"""The other members, over gRPC: one outgoing stream to each, and a server for theirs.

Nothing here is reliable, on purpose. What a peer cannot take now is dropped, what was queued for a lost connection is
dropped with it, and Raft sends again what still matters. A connection that has gone silent (a partition leaves TCP
waiting for minutes) is found by HTTP/2 pings within about three seconds and replaced; dialling repeats every half
second at most, so a healed partition is felt at once. Where members wait longer for a leader, both wait as much longer.
"""

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence

from msgspec.structs import replace

from fastgrpc.calls import CallFailed
from fastgrpc.server import Server, ServerConfig, server_tls
from raft_store.config import peer_address
from raft_store.disk.directory import DiskError
from raft_store.disk.identity import Urls
from raft_store.engine import Change, ChangeRefused, Index, MemberId, ProposalTimedOut, Refusal
from raft_store.peer_link import LIMITS, MAX_MESSAGE_BYTES, PING_S, Link
from raft_store.peer_service import Group, Service
from raft_store.raft import messages as m
from raft_store.raft.membership import Configuration
from raft_store.tls import TlsFiles, admission
from raft_store.wire import Encoder
from trireme_pb.raft import raft_pb2

log = logging.getLogger(__name__)

# Half of what clients leave: members get in where clients have taken all of theirs, and strangers at this port, who may
# take the rest, leave the log and snapshots their files.
SPARE_FILES = 75
FAREWELL_S = 2.0  # a member that has left is still dialled for so long

# Who dialled asks for signs of life, and dials anew; here nothing hangs on when a dead connection is given up.
_SERVER = ServerConfig(
    limits=LIMITS,
    max_message_bytes=MAX_MESSAGE_BYTES,
    keepalive_s=10 * PING_S,
    keepalive_timeout_s=10 * PING_S,
    spare_files=SPARE_FILES,
)


class ListenFailed(Exception):
    """The peer listener's address cannot be had."""


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
        ended: Callable[[MemberId], None],
        send_snapshot: Callable[[], AsyncIterator[bytes]],
        receive_snapshot: Callable[[AsyncIterator[bytes]], Awaitable[m.Snapshot]],
        snapshot_failed: Callable[[MemberId], None],
        patience_s: Callable[[], float],
    ) -> None:
        """members: whom to dial until ``follow`` knows better; receive: called in the event loop with every batch that
        arrives; must not block; ended: called when a peer's process has ended; send_snapshot, receive_snapshot: the
        disk's two ends of a snapshot's way to another member; patience_s: how much longer than on a quiet machine
        members wait for each other now.
        """
        self._member = member
        self._cluster = cluster
        self._tls = tls
        self._patience_s = patience_s
        self._receive = receive
        self._ended = ended
        self._send_snapshot = send_snapshot
        self._receive_snapshot = receive_snapshot
        self._snapshot_failed = snapshot_failed
        self._group = group
        self._server: Server | None = None
        self._first = members
        self._links: dict[MemberId, Link] = {}
        self._encoder = Encoder()
        self._leaving: dict[MemberId, asyncio.TimerHandle] = {}
        self._hanging_up: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._snapshots: dict[MemberId, asyncio.Task[None]] = {}

    async def start(self, listen: str) -> None:
        """Listen, and begin to dial; raises ListenFailed."""
        service = Service(self._member, self._cluster, self._receive, self._receive_snapshot, self._group)
        server = Server(service.methods(), config=replace(_SERVER, patience_s=self._patience_s))
        host, _, port = listen.rpartition(":")
        try:
            tls = None if self._tls is None else server_tls(str(self._tls.cert), str(self._tls.key), str(self._tls.ca))
            admits = admission(self._tls, listener="peer_tls")
            await server.listen(host.strip("[]"), int(port), tls=tls, admits=admits)
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
        ended = functools.partial(self._ended, peer)
        self._links[peer] = Link(greeting, addresses, self._tls, self._group.on_removed, ended, self._patience_s)
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
        links, encode = self._links, self._encoder.encode
        if len(messages) == 1 and type(messages[0]) is not m.InstallSnapshot:  # nearly always
            link = links.get(messages[0].to)
            if link is not None and link.connected:
                link.send((encode(messages[0]),))
            return
        batches: dict[Link, list[bytes]] = {}
        for message in messages:
            link = links.get(message.to)
            if link is None:
                continue  # it has just left, or its address is not known yet
            if type(message) is m.InstallSnapshot:
                self._begin_snapshot(link, message)
            elif link.connected:
                batches.setdefault(link, []).append(encode(message))
        for link, batch in batches.items():
            link.send(batch)

    def connected(self) -> Mapping[MemberId, bool]:
        """Return which peers we have a stream to."""
        return {peer: link.connected for peer, link in self._links.items()}

    def _begin_snapshot(self, link: Link, message: m.InstallSnapshot) -> None:
        if self._stopping or message.to in self._snapshots:
            return
        task = asyncio.create_task(self._deliver_snapshot(link, message))
        self._snapshots[message.to] = task
        task.add_done_callback(lambda _: self._snapshots.pop(message.to, None))

    async def _deliver_snapshot(self, link: Link, message: m.InstallSnapshot) -> None:
        try:
            await link.send_snapshot(message.term, self._send_snapshot())
        except (CallFailed, DiskError) as exc:
            log.warning("snapshot not delivered to=%d index=%d cause=%r", message.to, message.mark.index, exc)
            self._snapshot_failed(message.to)
        except Exception:
            log.exception("snapshot not delivered to=%d index=%d", message.to, message.mark.index)
            self._snapshot_failed(message.to)
