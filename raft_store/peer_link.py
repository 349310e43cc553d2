"""The way to one other member: a stream that is always there again, and calls beside it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence

from msgspec.structs import replace

from fastgrpc.calls import CallFailed, Status
from fastgrpc.channel import Channel, ChannelConfig, ClientCall, client_tls
from fastgrpc.events import Limits
from fastgrpc.silence import no_patience
from raft_store.engine import Term
from raft_store.tls import TlsFiles
from raft_store.wire import batches, wrap
from trireme_pb.raft import raft_pb2

log = logging.getLogger(__name__)

SERVICE = "/trireme.raft.v3.Raft/"
MAX_QUEUED_BYTES = 64 << 20
REDIAL_PAUSE_S = 0.05
OWN_ERROR_PAUSE_S = 1.0
# A peer that takes longer is dialled anew: the network may be back by then. Where members have come to wait longer for
# a leader, all this lasts as much longer: a peer whose machine stalls for that long answers no dialling either, and
# what it will say next would be lost with its connection.
CONNECT_S = 0.5
PING_S = 1.0

# A log entry has no limit of its own here, so a batch may be larger than planned by one entry.
MAX_MESSAGE_BYTES = 256 << 20
LIMITS = Limits(window_bytes=16 << 20, connection_window_bytes=64 << 20, frame_bytes=1 << 20)
_Patience = Callable[[], float]
_CHANNEL = ChannelConfig(
    limits=LIMITS,
    max_message_bytes=MAX_MESSAGE_BYTES,
    connect_timeout_s=CONNECT_S,
    keepalive_s=2 * PING_S,  # every ping wakes two idle members
    keepalive_timeout_s=PING_S,
)


def open_channel(address: str, tls: TlsFiles | None, patience_s: _Patience = no_patience) -> Channel:
    """Return a channel to a peer's listener; patience_s: how much longer than on a quiet machine it may take now."""
    context = None if tls is None else client_tls(str(tls.ca), str(tls.cert), str(tls.key))
    return Channel(address, tls=context, config=replace(_CHANNEL, patience_s=patience_s))


class Link:
    """The way to one peer, which may have several addresses."""

    def __init__(
        self,
        greeting: raft_pb2.Greeting,
        addresses: Sequence[str],
        tls: TlsFiles | None,
        on_removed: Callable[[str], None],
        on_ended: Callable[[], None],
        patience_s: _Patience = no_patience,
    ) -> None:
        """on_removed: the peer says that we were removed; on_ended: the stream broke, and nothing listens there now."""
        self.greeting = greeting
        self.addresses = addresses
        self._tls = tls
        self._on_removed = on_removed
        self._on_ended = on_ended
        self._refusals: int | None = None  # one after the other since the stream broke; None: there was none before
        self._patience_s = patience_s
        self._tried = 0
        self._task: asyncio.Task[None] | None = None
        self._channel = open_channel(self._address, tls, patience_s)
        self._call: ClientCall | None = None  # the stream, while it stands

    @property
    def _address(self) -> str:
        return self.addresses[self._tried % len(self.addresses)]

    @property
    def connected(self) -> bool:
        """Whether there is a stream now."""
        return self._call is not None

    def start(self) -> None:
        """Begin to dial, and keep at it."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Hang up."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._channel.close()

    async def reconfigure(self, request: raft_pb2.ReconfigureRequest, *, timeout_s: float) -> raft_pb2.ReconfigureReply:
        """Ask the peer to change the group; raises CallFailed."""
        reply = await self._channel.unary(SERVICE + "Reconfigure", request.SerializeToString(), timeout_s=timeout_s)
        return raft_pb2.ReconfigureReply.FromString(reply)

    def send(self, messages: Sequence[bytes]) -> None:
        """Send what one round brought (see ``wire``), or drop it: there is no stream, or too much waits on it."""
        if self._call is not None:
            for batch in messages if len(messages) == 1 else batches(messages):  # one, nearly always
                self._call.write_now(wrap(batch), at_most=MAX_QUEUED_BYTES)

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
        refusal, clock = "", asyncio.get_running_loop().time
        while True:
            began_s = clock()
            try:
                await self._deliver()
            except CallFailed as exc:
                refusal = self._report(exc, refusal)
                self._judge(exc)
            except Exception as exc:  # noqa: BLE001 - our own error, but without a link the peer would be lost for good
                refusal = self._report_ours(exc, refusal)
                await asyncio.sleep(OWN_ERROR_PAUSE_S)
            finally:
                broke, self._call = self._call is not None, None
            if broke:
                self._refusals = 0
                if clock() - began_s > REDIAL_PAUSE_S:
                    continue  # did the connection break, or did the peer end? That is worth knowing at once
            await asyncio.sleep(REDIAL_PAUSE_S)
            if len(self.addresses) > 1:
                await self._channel.close()
                self._tried += 1
                self._channel = open_channel(self._address, self._tls, self._patience_s)

    def _judge(self, exc: CallFailed) -> None:
        """See whether the peer has ended: somebody is there to refuse us, but at none of its addresses takes us in."""
        if self._call is None and self._refusals is not None and isinstance(exc.__cause__, ConnectionRefusedError):
            self._refusals += 1
            if self._refusals == len(self.addresses):  # told once; one that restarts is soon there again
                self._on_ended()

    def _report(self, exc: CallFailed, before: str) -> str:
        """Log why a stream ended, once for each new reason; return the reason."""
        reason = str(exc)
        if exc.status is Status.UNIMPLEMENTED:
            reason += "; it runs another version, and all members of a group have to be of one"
        if reason != before:
            level = logging.INFO if exc.status is Status.UNAVAILABLE else logging.WARNING
            log.log(level, "lost stream to peer=%d address=%s cause=%s", self.greeting.recipient, self._address, reason)
        if exc.status is Status.PERMISSION_DENIED:
            self._on_removed(exc.message)
        return reason

    def _report_ours(self, exc: Exception, before: str) -> str:
        if (reason := repr(exc)) != before:
            log.error("link failed peer=%d address=%s", self.greeting.recipient, self._address, exc_info=exc)
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
