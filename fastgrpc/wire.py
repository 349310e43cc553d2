"""One connection of a client: bytes from the socket are told to calls, what calls send becomes bytes."""

import asyncio
import socket
from collections.abc import Callable
from typing import cast

import msgspec

from .calling import ClientCall
from .calls import CallFailed, Status
from .connection import Connection
from .deadlines import until_beat_s
from .events import (
    ConnectionEnded,
    DataReceived,
    Event,
    GoAwayReceived,
    HeadersReceived,
    Limits,
    PingAcknowledged,
    SendProgress,
    StreamEnded,
    TrailersReceived,
)
from .frames import ErrorCode
from .serving import MAX_QUEUED_BYTES
from .silence import Silence, no_patience
from .turns import Turns

KEEPALIVE_PING = b"are you?"


class ChannelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a channel behaves."""

    limits: Limits = Limits()
    max_message_bytes: int = 64 << 20
    connect_timeout_s: float = 5.0
    keepalive_s: float | None = None  # a connection that was silent so long is pinged
    keepalive_timeout_s: float = 5.0  # and given up after so much more silence
    patience_s: Callable[[], float] = no_patience  # what is added to either time-out now: the server has it hard
    max_waiting_calls: int = 10_000  # for a stream, while the server takes no more at once
    keepalive_without_calls: bool = True  # some servers take pings on a connection without calls for an attack


class Wire(asyncio.Protocol):
    """One connection of a channel."""

    def __init__(self, config: ChannelConfig, on_lost: Callable[["Wire"], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.http = Connection(client=True, limits=config.limits)
        self.http.peer_streams = 0  # what is sent before the server says how many may be refused
        self.calls: dict[int, ClientCall] = {}
        self.turns = Turns(config.max_waiting_calls)
        self._config = config
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._flush_due = False
        self._writable = True
        self._silence = Silence(self.loop.time())
        self._keeper: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not derive from it
        made = transport.get_extra_info("socket")
        if made is not None and made.family in (socket.AF_INET, socket.AF_INET6):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.flush()
        self._keep_alive()

    def connection_lost(self, exc: Exception | None) -> None:
        """End: every call fails."""
        self._transport = None
        if self._keeper is not None:
            self._keeper.cancel()
        self._on_lost(self)
        self._fail_all(f"the connection broke: {exc or 'closed'}")

    def pause_writing(self) -> None:
        """The server takes nothing for now."""
        self._writable = False

    def resume_writing(self) -> None:
        """Go on."""
        self._writable = True
        for call in tuple(self.calls.values()):
            call.room()

    def data_received(self, data: bytes) -> None:
        """Take everything that one read brought."""
        self._silence.break_()
        for event in self.http.receive(data, self.loop.time()):
            self._on_event(event)
        if self.turns.waiting:
            self._give_turns()  # it may have said how many it takes
        self.flush()
        if self.http.ended:
            self.hang_up()

    def _on_event(self, event: Event) -> None:
        match event:
            case HeadersReceived() | DataReceived() | TrailersReceived() | StreamEnded() | SendProgress():
                call = self.calls.get(event.stream)
                if call is not None:
                    call.tell(event)
                elif isinstance(event, DataReceived):
                    self.http.consumed(event.stream, len(event.data))
            case GoAwayReceived():
                if not self.calls:  # else when the last is over
                    self.hang_up()
            case ConnectionEnded():
                self._fail_all(f"the server broke the protocol: {event.reason}")
            case PingAcknowledged():
                pass  # it was heard

    def _give_turns(self) -> None:
        if self.is_alive:
            self.turns.give()
        if not self.is_alive:  # any more: the last stream number may have been given away
            self.turns.send_away()

    def _fail_all(self, reason: str) -> None:
        self.turns.fail(reason)  # first, or each call that ends would let one of them begin
        for call in tuple(self.calls.values()):
            call.finish(CallFailed(Status.UNAVAILABLE, f"{reason}; the call may have been taken up"))

    @property
    def is_alive(self) -> bool:
        """Return whether new calls can be begun."""
        return self._transport is not None and not self._transport.is_closing() and not self.http.going_away

    @property
    def transport(self) -> asyncio.Transport | None:
        """Return what carries the bytes; None: nothing yet, or any more."""
        return self._transport

    def is_congested(self, stream: int) -> bool:
        """See ``Carrier.is_congested``."""
        return not self._writable or self.http.queued_bytes(stream) > MAX_QUEUED_BYTES

    def waiting_bytes(self, stream: int) -> int:
        """See ``Carrier.waiting_bytes``."""
        buffered = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return buffered + self.http.queued_bytes(stream)

    def send_now(self, stream: int, data: bytes, *, at_most: int) -> bool:
        """See ``Carrier.send_now``."""
        if not self._writable and self._transport is not None and self._transport.get_write_buffer_size() > at_most:
            return False
        if not self.http.send_data_if_room(stream, data, at_most=at_most):
            return False
        self.flush()
        return True

    def forget(self, stream: int, owed: int) -> None:
        """See ``Carrier.forget``."""
        self.calls.pop(stream, None)
        self.http.consumed(0, owed)
        if self.turns.waiting:
            self._give_turns()
        self.flush_soon()
        if self.http.going_away and not self.calls:
            self.loop.call_soon(self.hang_up)

    def consumed(self, stream: int, size: int) -> None:
        """See ``Connection.consumed``."""
        self.http.consumed(stream, size)
        self.flush_soon()

    def flush_soon(self) -> None:
        """Write at the end of this turn of the loop, everything at once."""
        if not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write now."""
        self._flush_due = False
        data = self.http.take_output()
        # uvloop, unlike asyncio, refuses to write once a transport is closing.
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self, reason: str) -> None:
        """Fail every call, and hang up."""
        for stream in self.calls:
            self.http.reset(stream, ErrorCode.CANCEL)
        self._fail_all(reason)
        self.flush()
        if self._writable:
            self.hang_up()
        elif self._transport is not None:
            self._transport.abort()  # the server takes nothing: what waits for it could wait for ever

    def hang_up(self) -> None:
        """Close the connection once everything is written."""
        # As in ``Peer``: one that is closed twice lets go of its TLS in asyncio, which then knows of no buffer either.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()

    def _keep_alive(self) -> None:
        """Ask a silent server for a sign of life, or give it up."""
        config = self._config
        if config.keepalive_s is None or self._transport is None:
            return
        if not self.calls and not self.turns.waiting and not config.keepalive_without_calls:
            self._silence.break_()  # nobody waits for anything
        pause_s = min(config.keepalive_s, config.keepalive_timeout_s) / 2
        silent_s = self._silence.look(self.loop.time(), every_s=pause_s)
        if silent_s > config.keepalive_s + config.keepalive_timeout_s + config.patience_s():
            self._transport.abort()
            return
        if silent_s >= config.keepalive_s:
            self.http.ping(KEEPALIVE_PING)
            self.flush()
        self._keeper = self.loop.call_later(until_beat_s(self.loop.time(), pause_s), self._keep_alive)
