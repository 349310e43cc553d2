"""One call of a client: what is sent, what comes, and how it ends."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Protocol

from . import calls
from .calls import CallFailed, MessageReader, Metadata, Status, frame_message
from .connection import Connection
from .events import DataReceived, HeadersReceived, SendProgress, StreamEnded, TrailersReceived
from .frames import ErrorCode
from .headers import Headers
from .serving import MAX_QUEUED_BYTES


class Carrier(Protocol):
    """The connection under a call."""

    http: Connection
    loop: asyncio.AbstractEventLoop

    def consumed(self, stream: int, size: int) -> None:
        """See ``Connection.consumed``."""

    def is_congested(self, stream: int) -> bool:
        """Return whether a sender should wait."""

    def waiting_bytes(self, stream: int) -> int:
        """Return how much waits for the server on a call and on the connection."""

    def send_now(self, stream: int, data: bytes, *, at_most: int) -> bool:
        """Write data of a call at once; return False, and send nothing, if more than ``at_most`` waits already."""

    def forget(self, stream: int, owed: int) -> None:
        """A call has ended; ``owed`` bytes of it are not called consumed yet."""

    def flush(self) -> None:
        """Write what is to be written, at once."""

    def flush_soon(self) -> None:
        """Write at the end of this turn of the loop."""


class ClientCall:
    """One call under way: send, iterate over what comes, or cancel."""

    def __init__(self, wire: Carrier, stream: int, max_bytes: int) -> None:
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

    def write_now(self, message: bytes, *, at_most: int) -> bool:
        """Send a message, and do not wait for the end of the turn: nothing else is to go along.

        Returns False, and sends nothing, if more than ``at_most`` bytes wait already, here or on the connection.
        """
        return self._wire.send_now(self._stream, frame_message(message), at_most=at_most)

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
                    raise self._failure.anew()
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

    def _begin(self, headers: Headers, *, ended: bool) -> None:
        """The response has begun."""
        if ended:
            self._end_by(headers)
            return
        head = calls.read_response(headers)
        if not head.is_grpc:
            self._wire.http.reset(self._stream, ErrorCode.CANCEL)
            self.finish(calls.read_refusal(headers))
            return
        self._reader = MessageReader(max_bytes=self._max_bytes, encoding=head.encoding, unknown=Status.INTERNAL)
        self.initial_metadata = head.metadata

    def _feed(self, event: DataReceived) -> None:
        """Data came."""
        try:
            messages = self._reader.feed(event.data)
        except CallFailed as exc:
            self._wire.consumed(self._stream, len(event.data))
            self._wire.http.reset(self._stream, ErrorCode.CANCEL)
            self.finish(exc.anew())
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
        # The server may be done before we are, and need not say that it takes nothing more. A stream of which our half
        # stays open counts for ever. No error: the call ended as the server wanted, and nobody gave it up.
        self._wire.http.reset(self._stream, ErrorCode.NO_ERROR)
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

    def tell(self, event: HeadersReceived | DataReceived | TrailersReceived | SendProgress | StreamEnded) -> None:
        """Something came, or went out, on the call's stream."""
        match event:
            case HeadersReceived():
                self._begin(event.headers, ended=event.ended)
            case DataReceived():
                self._feed(event)
            case TrailersReceived():
                self._end_by(event.headers)
            case SendProgress():
                self.room()
            case StreamEnded():
                self.finish(_of_reset(event))


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
