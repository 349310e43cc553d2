"""An asyncio gRPC client: one connection to one server, made anew when it is needed.

What fails is told by ``CallFailed``: UNAVAILABLE means that nobody can be reached; where a call may have been taken up
before the connection broke, the message says so, for the server may have done what was asked.
"""

import asyncio
import ssl
<<<<<<< HEAD
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, cast

import msgspec
=======
from typing import Any
>>>>>>> main

from . import calls
from .calling import ClientCall
from .calls import CallFailed, Metadata, Status
from .connection import Refused
from .wire import ChannelConfig, Wire

<<<<<<< HEAD
KEEPALIVE_PING = b"are you?"


class ChannelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a channel behaves."""

    limits: Limits = Limits()
    max_message_bytes: int = 64 << 20
    connect_timeout_s: float = 5.0
    keepalive_s: float | None = None  # a connection that was silent so long is pinged
    keepalive_timeout_s: float = 5.0  # and given up after so much more silence
    keepalive_without_calls: bool = True  # some servers take pings on a connection without calls for an attack


class ClientCall:
    """One call under way: send, iterate over what comes, or cancel."""

    def __init__(self, wire: "_Wire", stream: int, max_bytes: int) -> None:
        self._wire = wire
        self._stream = stream
        self._max_bytes = max_bytes
        self._reader = MessageReader(max_bytes=max_bytes, encoding="identity")
        self._messages: deque[bytes] = deque()
        self._queued_bytes = 0
        self._owed = 0
        self._failure: CallFailed | None = None
        self._wake: asyncio.Future[None] | None = None
        self._room: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self.ended = False
        self.initial_metadata: Metadata | None = None
        self.trailing_metadata: Metadata = ()

    def write(self, message: bytes) -> None:
        """Send one message without waiting, whatever waits already; see ``waiting_bytes``."""
        self._wire.http.send_data(self._stream, frame_message(message))
        self._wire.flush_soon()

    def write_now(self, messages: Iterable[bytes]) -> None:
        """Send messages as ``write`` does, and do not wait for the end of the turn: nothing else is to go along."""
        for message in messages:
            self._wire.http.send_data(self._stream, frame_message(message))
        self._wire.flush()

    @property
    def waiting_bytes(self) -> int:
        """Return how much waits for the server on this call and on the connection."""
        return self._wire.waiting_bytes(self._stream)

    async def send(self, message: bytes, *, end: bool = False) -> None:
        """Send one message; waits while the server, or the way to it, is too slow. Dropped if the call has ended."""
        self._wire.http.send_data(self._stream, frame_message(message), end=end)
        self._wire.flush_soon()
        while not self.ended and self._wire.is_congested(self._stream):
            future: asyncio.Future[None] = self._wire.loop.create_future()
            self._room.append(future)
            await future

    def end(self) -> None:
        """Say that no more messages will be sent."""
        self._wire.http.end_stream(self._stream)
        self._wire.flush_soon()

    def cancel(self) -> None:
        """Give the call up."""
        if not self.ended:
            self._wire.http.reset(self._stream, ErrorCode.CANCEL)
            self._wire.flush_soon()
            self.finish(CallFailed(Status.CANCELLED, "cancelled by the caller"))

    async def receive(self) -> bytes | None:
        """Return the next message; None: the call ended well. Raises CallFailed."""
        while not self._messages:
            if self.ended:
                if self._failure is not None:
                    raise self._failure
                return None
            self._wake = self._wire.loop.create_future()
            await self._wake
        message = self._messages.popleft()
        self._queued_bytes -= len(message)
        if self._owed and self._queued_bytes <= MAX_QUEUED_BYTES:
            self._wire.consumed(self._stream, self._owed)
            self._owed = 0
        return message

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self.receive()) is not None:
            yield message

    def set_timeout(self, timeout_s: float) -> None:
        """Give up by ourselves when the time is over; the server may be out of reach."""
        self._timer = self._wire.loop.call_later(timeout_s, self._too_late)

    def _too_late(self) -> None:
        if not self.ended:
            self._wire.http.reset(self._stream, ErrorCode.CANCEL)
            self._wire.flush_soon()
            self.finish(CallFailed(Status.DEADLINE_EXCEEDED, "the deadline has passed"))

    # -- what the connection tells -------------------------------------------------------------------------------------

    def begin(self, headers: Headers, *, ended: bool) -> None:
        """The response has begun."""
        if ended:
            self._end_by(headers)
            return
        if headers.status != 200:
            self._wire.http.reset(self._stream, ErrorCode.CANCEL)
            self.finish(calls.read_end(headers))
            return
        encoding = (headers.get(b"grpc-encoding") or b"identity").decode("latin-1")
        self._reader = MessageReader(max_bytes=self._max_bytes, encoding=encoding)
        with contextlib.suppress(CallFailed):
            self.initial_metadata = calls.read_metadata(headers.fields)

    def feed(self, event: DataReceived) -> None:
        """Data came."""
        try:
            messages = self._reader.feed(event.data)
        except CallFailed as exc:
            self._wire.consumed(self._stream, len(event.data))
            self._wire.http.reset(self._stream, ErrorCode.CANCEL)
            self.finish(exc)
            return
        for message in messages:
            self._queued_bytes += len(message)
        self._messages.extend(messages)
        if self._queued_bytes <= MAX_QUEUED_BYTES:
            self._wire.http.consumed(self._stream, len(event.data))
        else:
            self._owed += len(event.data)
        if event.ended:
            self.finish(CallFailed(Status.INTERNAL, "the response ends without trailers"))
        elif messages:
            self._wake_up()

    def trailers(self, headers: Headers) -> None:
        """The response has ended."""
        self._end_by(headers)

    def _end_by(self, headers: Headers) -> None:
        with contextlib.suppress(CallFailed):
            self.trailing_metadata = calls.read_metadata(headers.fields)
        failure = calls.read_end(headers)
        if failure is None and not self._reader.empty:
            failure = CallFailed(Status.INTERNAL, "the response ends inside a message")
        self.finish(failure)

    def finish(self, failure: CallFailed | None) -> None:
        """The call is over."""
        if self.ended:
            return
        self.ended, self._failure = True, failure
        if self._timer is not None:
            self._timer.cancel()
        self._wire.forget(self._stream, self._owed)
        self._owed = 0
        self.room()
        self._wake_up()

    def room(self) -> None:
        """What waited has gone out."""
        waiting, self._room = self._room, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class _Wire(asyncio.Protocol):
    """One connection of a channel."""

    def __init__(self, config: ChannelConfig, on_lost: Callable[["_Wire"], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.http = Connection(client=True, limits=config.limits)
        self.calls: dict[int, ClientCall] = {}
        self._config = config
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._flush_due = False
        self._writable = True
        self._heard_s = self.loop.time()
        self._keeper: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not derive from it
        made = transport.get_extra_info("socket")
        if made is not None and made.family in (socket.AF_INET, socket.AF_INET6):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.flush()
        self._keep_alive()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._keeper is not None:
            self._keeper.cancel()
        self._on_lost(self)
        self._fail_all(f"the connection broke; the call may have been taken up: {exc or 'closed'}")

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        for call in tuple(self.calls.values()):
            call.room()

    def data_received(self, data: bytes) -> None:
        self._heard_s = now_s = self.loop.time()
        for event in self.http.receive(data, now_s):
            self._on_event(event)
        self.flush()
        if self.http.ended:
            self.hang_up()

    def _on_event(self, event: Event) -> None:
        match event:
            case HeadersReceived() | DataReceived() | TrailersReceived() | StreamEnded() | SendProgress():
                call = self.calls.get(event.stream)
                if call is not None:
                    _tell(call, event)
                elif isinstance(event, DataReceived):
                    self.http.consumed(event.stream, len(event.data))
            case GoAwayReceived():
                self._on_lost(self)  # for new calls, that is
                if not self.calls:
                    self.hang_up()
            case ConnectionEnded():
                self._fail_all(f"the server broke the protocol: {event.reason}")
            case PingAcknowledged():
                pass  # it was heard

    def _fail_all(self, reason: str) -> None:
        for call in tuple(self.calls.values()):
            call.finish(CallFailed(Status.UNAVAILABLE, reason))

    @property
    def is_alive(self) -> bool:
        return self._transport is not None and not self._transport.is_closing() and not self.http.going_away

    @property
    def transport(self) -> asyncio.Transport | None:
        return self._transport

    def is_congested(self, stream: int) -> bool:
        return not self._writable or self.http.queued_bytes(stream) > MAX_QUEUED_BYTES

    def waiting_bytes(self, stream: int) -> int:
        buffered = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return buffered + self.http.queued_bytes(stream)

    def forget(self, stream: int, owed: int) -> None:
        self.calls.pop(stream, None)
        self.http.consumed(0, owed)
        self.flush_soon()
        if self.http.going_away and not self.calls:
            self.loop.call_soon(self.hang_up)

    def consumed(self, stream: int, size: int) -> None:
        self.http.consumed(stream, size)
        self.flush_soon()

    def flush_soon(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        self._flush_due = False
        data = self.http.take_output()
        # uvloop, unlike asyncio, refuses to write once a transport is closing.
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def hang_up(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _keep_alive(self) -> None:
        """Ask a silent server for a sign of life, or give it up."""
        config = self._config
        if config.keepalive_s is None or self._transport is None:
            return
        if not self.calls and not config.keepalive_without_calls:
            self._heard_s = self.loop.time()  # nobody waits for anything
        silent_s = self.loop.time() - self._heard_s
        if silent_s > config.keepalive_s + config.keepalive_timeout_s:
            self._transport.abort()
            return
        if silent_s >= config.keepalive_s:
            self.http.ping(KEEPALIVE_PING)
            self.flush()
        pause_s = min(config.keepalive_s, config.keepalive_timeout_s) / 2
        self._keeper = self.loop.call_later(pause_s, self._keep_alive)


def _tell(call: ClientCall, event: Event) -> None:
    match event:
        case HeadersReceived():
            call.begin(event.headers, ended=event.ended)
        case DataReceived():
            call.feed(event)
        case TrailersReceived():
            call.trailers(event.headers)
        case SendProgress():
            call.room()
        case StreamEnded():
            call.finish(_of_reset(event))


_OF_RESET = {
    ErrorCode.REFUSED_STREAM: Status.UNAVAILABLE,
    ErrorCode.CANCEL: Status.CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: Status.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: Status.PERMISSION_DENIED,
}


def _of_reset(event: StreamEnded) -> CallFailed:
    known = event.code in ErrorCode.__members__.values()
    status = _OF_RESET.get(ErrorCode(event.code), Status.INTERNAL) if known else Status.INTERNAL
    name = ErrorCode(event.code).name if known else str(event.code)
    return CallFailed(status, f"the stream was reset with {name}: {event.reason}")
=======
__all__ = ["Channel", "ChannelConfig", "ClientCall", "client_tls"]
>>>>>>> main


class Channel:
    """Calls to one server.

    target: "host:port". tls: with it, everything is encrypted; server_name: what the server's certificate has to name,
    if that is not the target's host.
    """

    def __init__(
        self,
        target: str,
        *,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        config: ChannelConfig | None = None,
    ) -> None:
        host, _, port = target.rpartition(":")
        self.target = target
        self._host, self._port = host.strip("[]"), int(port)
        self._tls = tls
        if tls is not None:
            tls.set_alpn_protocols(["h2"])
        self._server_name = server_name
        self._config = config or ChannelConfig()
        self._wire: Wire | None = None
        self._connecting: asyncio.Task[Wire | CallFailed] | None = None  # whoever wants to call waits for the same
        self._closed = False

    async def connect(self) -> None:
        """Be connected. Raises CallFailed (UNAVAILABLE)."""
        await self._connected(None)

    @property
    def connected(self) -> bool:
        """Return whether a connection stands, as far as is known."""
        return self._wire is not None and self._wire.is_alive

    @property
    def peer_certificate(self) -> dict[str, Any]:
        """Return the server's verified certificate as ``ssl`` describes it; empty while there is none."""
        transport = self._wire.transport if self._wire is not None else None
        return (transport.get_extra_info("peercert") if transport is not None else None) or {}

    async def unary(
        self, path: str, request: bytes, *, timeout_s: float | None = None, metadata: Metadata = ()
    ) -> bytes:
        """Send one message, return the one that answers it. Raises CallFailed."""
        call = await self.start(path, timeout_s=timeout_s, metadata=metadata)
        try:
            await call.send(request, end=True)
            response = await call.receive()
            if response is None:
                raise CallFailed(Status.INTERNAL, "no message came")
            if await call.receive() is not None:
                raise CallFailed(Status.INTERNAL, "more than one message came")
        finally:
            call.cancel()
        return response

    async def start(self, path: str, *, timeout_s: float | None = None, metadata: Metadata = ()) -> ClientCall:
        """Begin a call of any kind, to end within ``timeout_s``. Raises CallFailed (UNAVAILABLE, DEADLINE_EXCEEDED)."""
        clock = asyncio.get_running_loop().time
        began = clock()
        wire = await self._connected(timeout_s)
        if timeout_s is not None:
            timeout_s -= clock() - began
        scheme = "http" if self._tls is None else "https"
        fields = calls.call_fields(path, authority=self.target, scheme=scheme, metadata=metadata, timeout_s=timeout_s)
        try:
            stream = wire.http.open(fields)
        except Refused as exc:
            raise CallFailed(Status.UNAVAILABLE, str(exc)) from exc
        call = wire.calls[stream] = ClientCall(wire, stream, self._config.max_message_bytes)
        if timeout_s is not None:
            call.set_timeout(timeout_s)
        wire.flush_soon()
        return call

    async def close(self) -> None:
        """Hang up; calls under way fail."""
        self._closed = True
        if (connecting := self._connecting) is not None:
            connecting.cancel()
            await asyncio.wait({connecting})
        if self._wire is not None:
            self._wire.hang_up()
            self._wire = None
        await asyncio.sleep(0)

    async def _connected(self, timeout_s: float | None) -> Wire:
        if self._closed:
            raise CallFailed(Status.UNAVAILABLE, "this channel is closed")
        if self._wire is not None and self._wire.is_alive:
            return self._wire
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
        connecting = self._connecting
        done, _ = await asyncio.wait({connecting}, timeout=timeout_s)
        if not done:
            raise CallFailed(Status.DEADLINE_EXCEEDED, f"{self.target} was not reached in time")
        if connecting.cancelled():
            raise CallFailed(Status.UNAVAILABLE, "this channel is closed")
        made = connecting.result()
        if isinstance(made, CallFailed):
            raise CallFailed(made.status, made.message) from made
        if not made.is_alive:
            raise CallFailed(Status.UNAVAILABLE, f"{self.target} hung up at once")
        return made

    async def _connect(self) -> Wire | CallFailed:
        """Return a failure instead of raising it: there may be nobody left to hear of it."""
        loop = asyncio.get_running_loop()
        name = (self._server_name or self._host) if self._tls is not None else None
        try:
            async with asyncio.timeout(self._config.connect_timeout_s):
                _, self._wire = await loop.create_connection(
                    lambda: Wire(self._config, self._lost),
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=name,
                )
        except (OSError, TimeoutError, ssl.SSLError, UnicodeError) as exc:  # the last of a name that can be none
            return CallFailed(Status.UNAVAILABLE, f"{self.target} cannot be reached: {exc or 'timed out'}")
        finally:
            self._connecting = None
        return self._wire

    def _lost(self, wire: Wire) -> None:
        if self._wire is wire:
            self._wire = None


def client_tls(ca: str, cert: str | None = None, key: str | None = None) -> ssl.SSLContext:
    """Return a TLS context from PEM files: whom to trust, and who we are if the server wants to know."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context
