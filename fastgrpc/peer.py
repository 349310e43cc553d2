"""One connection of a server: bytes from the socket become calls, what calls answer becomes bytes."""

import asyncio
import logging
import socket
from typing import Any, cast

from .answering import MAX_WAITING_BYTES, Answering
from .calls import CallFailed, Status
from .events import (
    ConnectionEnded,
    DataReceived,
    Event,
    HeadersReceived,
    PingAcknowledged,
    RequestsReceived,
    SendProgress,
    StreamEnded,
    TrailersReceived,
)
from .frames import PREFACE
from .hosting import Hosting
from .serving import MAX_QUEUED_BYTES, Receiver
from .silence import Silence
from .uptake import Uptake, uptake_of

log = logging.getLogger(__name__)

HTTP_2_ALONE = PREFACE[:4]  # no other protocol has this method: it is kept for the preface (RFC 9113, 11.6)
DRAIN_PING = b"draining"
KEEPALIVE_PING = b"are you?"


class Peer(Answering, asyncio.Protocol):
    """One connection of a server."""

    def __init__(self, server: Hosting) -> None:
        super().__init__(server)
        self._transport: asyncio.Transport | None = None
        self._early: bytes | None = b""  # what came before it was clear that this is HTTP/2
        self._flush_due = False
        self._writable = True
        self._crowded: set[Receiver] = set()  # calls that wait because too much waits on others
        self._silence = Silence(self.loop.time())
        self._uptake: Uptake | None = None  # at the last look, while the client is silent

    # -- who is there --------------------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Return "host:port" of the client."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name)

    @property
    def certificate(self) -> dict[str, Any]:
        """Return the client's verified certificate as ``ssl`` describes it; empty: it showed none."""
        found = self._transport.get_extra_info("peercert") if self._transport is not None else None
        return found or {}

    @property
    def encoded_certificate(self) -> bytes:
        """Return the client's verified certificate in DER; empty: it showed none."""
        tls = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        return (tls.getpeercert(binary_form=True) or b"") if tls is not None else b""

    # -- asyncio's side ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not derive from it
        self._server.arrived(self)
        made = transport.get_extra_info("socket")
        if made is not None and made.family in (socket.AF_INET, socket.AF_INET6):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        """End: nobody waits for any answer."""
        del exc
        self._server.left(self)
        self._transport = None
        for call in tuple(self._calls.values()):
            self._abandon(call)
        for visit in tuple(self._visits.values()):
            self._abandon_visit(visit)

    def pause_writing(self) -> None:
        """Take nothing in while the client takes nothing."""
        self._writable = False
        if self._transport is not None:
            self._transport.pause_reading()  # answers that nobody takes must not pile up

    def resume_writing(self) -> None:
        """Go on."""
        self._writable = True
        if self._transport is not None:
            self._transport.resume_reading()
        for call in (*self._calls.values(), *self._visits.values()):
            call.room()

    def eof_received(self) -> bool:
        """Hang up too."""
        return False

    def data_received(self, data: bytes) -> None:
        """Take everything that one read brought."""
        if self._early is not None:
            data = self._early + data
            if not PREFACE.startswith(data[: len(PREFACE)]):
                self._hand_over(data)
                return
            if len(data) < len(PREFACE):
                self._early = data
                return
            self._early = None
        self._silence.break_()
        self._flush_due = True  # below, not in a turn of its own
        if (lone := self.http.lone_data(data)) is not None:
            self._take(lone)
            self._flush()
            return
        if (request := self.http.lone_request(data)) is not None:
            self._begin_lone(request)
            self._flush()
            return
        for event in self.http.receive(data, self.loop.time()):
            if type(event) is RequestsReceived:  # these three are nearly all
                self._begin_whole(event)
            elif type(event) is DataReceived:
                self._take(event)
            elif type(event) is HeadersReceived:
                self._begin(event)
            else:
                self._note(event)
        if self._lots:
            self._hand_out_lots()
        self._flush()
        if self.http.ended:
            self.hang_up()

    def _note(self, event: Event) -> None:
        match event:
            case TrailersReceived():
                self._take(DataReceived(event.stream, b"", ended=True))
            case StreamEnded():
                call = self._calls.get(event.stream)
                if call is not None:
                    self._abandon(call)
                elif (visit := self._visits.get(event.stream)) is not None:
                    self._abandon_visit(visit)
            case SendProgress():
                sender = self._calls.get(event.stream) or self._visits.get(event.stream)
                if sender is not None:
                    sender.room()
            case PingAcknowledged():
                if event.payload == DRAIN_PING:
                    self._finish_drain()
            case ConnectionEnded():
                log.info("connection ended peer=%s reason=%s", self.address, event.reason)
            case _:
                pass  # a client that goes away closes when it is done

    def _hand_over(self, data: bytes) -> None:
        """The client speaks something else than HTTP/2."""
        transport = self._transport
        if transport is None:
            return
        if self._server.other_protocol is None or data.startswith(HTTP_2_ALONE):
            log.debug("hung up on what is neither HTTP/2 nor anything else peer=%s", self.address)
            self.hang_up()
            return
        self._server.left(self)
        self._transport = None
        protocol = self._server.other_protocol()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(data)

    # -- bytes out -----------------------------------------------------------------------------------------------------

    def consumed(self, stream: int, size: int) -> None:
        """See ``Connection.consumed``."""
        self.http.consumed(stream, size)
        self.flush_soon()

    async def send(self, call: Receiver, data: bytes) -> None:
        """Send data of a call; wait if too much is on its way already, on its stream or on all of them together."""
        while not call.gone and self.http.waiting_bytes > MAX_WAITING_BYTES:
            self._crowded.add(call)
            await call.wait_for_room()
        if call.gone:
            return
        self.http.send_data(call.stream, data)
        self.flush_soon()
        while not call.gone and (not self._writable or self.http.queued_bytes(call.stream) > MAX_QUEUED_BYTES):
            await call.wait_for_room()

    def push(self, stream: int, data: bytes) -> bool:
        """Send data of a call now, unless too much is on its way already; return False then."""
        if not self._writable or self.http.waiting_bytes > MAX_WAITING_BYTES:
            return False
        if not self.http.send_data_if_room(stream, data, at_most=MAX_QUEUED_BYTES):
            return False
        if not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self._flush)
        return True

    def flush_soon(self) -> None:
        """Write at the end of this turn of the loop, everything at once."""
        if not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self._flush)

    def flush(self) -> None:
        """Write now, or when all that this read brought is taken."""
        if not self._flush_due:
            self._flush()

    def _flush(self) -> None:
        self._flush_due = False
        data = self.http.take_output()
        # uvloop, unlike asyncio, refuses to write once a transport is closing.
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
        if self._crowded and self.http.waiting_bytes <= MAX_WAITING_BYTES:
            crowded, self._crowded = self._crowded, set()
            for call in crowded:
                call.room()
        if self.http.going_away and not self.http.open_streams:
            self.hang_up()

    # -- the end -------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Let the client know that it should go elsewhere, and finish what it has begun."""
        if self._early is not None:
            self.hang_up()
            return
        self.http.announce_end()
        self.http.ping(DRAIN_PING)  # when it comes back, the client has seen the announcement
        self._flush()
        self.loop.call_later(self._server.config.drain_s, self._finish_drain)

    def _finish_drain(self) -> None:
        if not self.http.going_away:
            self.http.go_away()
            self.flush_soon()

    def abandon(self) -> list[asyncio.Task[None]]:
        """End every call with UNAVAILABLE; return the tasks that are ending."""
        open_calls, visits = list(self._calls.values()), list(self._visits.values())
        tasks = [one.task for one in (*open_calls, *visits) if one.task is not None]
        for visit in visits:
            self._end_visit(visit, b"503")
            self._abandon_visit(visit)
        for call in open_calls:
            self._cut(call, CallFailed(Status.UNAVAILABLE, "the server is shutting down"))
        self._flush()
        return tasks

    def hang_up(self) -> None:
        """Close the connection once everything is written."""
        # One that is closed twice lets go of its TLS in asyncio, and cannot be cut any more.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()

    def cut(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def check_alive(self, keepalive_s: float, timeout_s: float, *, every_s: float) -> None:
        """Ask a silent client for a sign of life, or give it up; called every ``every_s``."""
        silent_s = self._silence.look(self.loop.time(), every_s=every_s)
        if silent_s <= keepalive_s or self._transport is None:
            self._uptake = None
        elif self._is_taking(self._transport):
            self._silence.break_()
        elif silent_s > keepalive_s + timeout_s:
            log.info("closing a silent connection peer=%s silent_s=%.0f", self.address, silent_s)
            self._transport.abort()
        elif self._early is None:
            self.http.ping(KEEPALIVE_PING)
            self._flush()

    def _is_taking(self, transport: asyncio.Transport) -> bool:
        """Return whether the client took any of what waited for it at the last look.

        A slow reader cannot be heard: our pings stand behind megabytes, and nothing is read from it meanwhile. Buffers
        do not tell either, for TLS shows none, and kernels empty them by the megabyte.
        """
        before, self._uptake = self._uptake, uptake_of(transport.get_extra_info("socket"))
        if before is None or self._uptake is None:
            return False
        return before.waiting and self._uptake.acknowledged_bytes > before.acknowledged_bytes
