"""One HTTP/2 connection without I/O, either side of it: bytes in, events and bytes out (RFC 9113).

Theory of operation
-------------------
``receive`` takes whatever bytes came, all frames in them at once, and returns what they mean as events. ``take_output``
returns the bytes to be sent: answers to control frames, and whatever the methods below were told to send. Nothing here
waits, reads a clock or knows of sockets; the time is handed in.

What the peer may do is decided here. A fault that concerns one stream resets that stream; one that concerns the
connection (or its header tables) ends it with GOAWAY and a last event, ``ConnectionEnded``.

Two windows limit what the peer sends: a stream's and the connection's. Both open again when the data is *consumed*
(``consumed``), so memory is bounded by the windows however slowly somebody reads. Two more limit what we send; data
beyond them waits in the ``Outbox``, and ``SendProgress`` tells when it went out.

Frames that cost us work and bring nothing (pings, settings, resets, empty frames) are paid from a budget that fills up
with time. Honest peers never notice it; floods end the connection with ENHANCE_YOUR_CALM.
"""

from . import frames
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
from .frames import ErrorCode, Setting
from .headers import Headers, Kind
from .hpack import Decoder, Fields, HeadersTooLarge, HpackError
from .outbox import Outbox, Outgoing


class Refused(Exception):
    """No stream can be opened here: the peer, or the numbers, allow no more."""


class _StreamFault(Exception):
    def __init__(self, stream: int, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.stream = stream
        self.code = code


class _ConnectionFault(Exception):
    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class _Stream:
    __slots__ = ("credit", "expected", "got_headers", "out", "remote_closed", "window")

    def __init__(self, window: int, out: Outgoing) -> None:
        self.window = window  # what the peer may send still
        self.credit = 0  # consumed, and not granted anew yet
        self.expected: int | None = None  # bytes of content still to come, if the peer said
        self.got_headers = False
        self.remote_closed = False
        self.out = out


_REMEMBERED_RESETS = 1024  # streams that we reset, whose late frames mean nothing


class Connection:
    """The state of one connection; ``client`` says which side we are."""

    def __init__(self, *, client: bool, limits: Limits) -> None:
        assert frames.DEFAULT_WINDOW <= limits.window_bytes <= limits.connection_window_bytes <= frames.MAX_WINDOW
        self.limits = limits
        self.ended = False  # by GOAWAY of our own: nothing is taken in any more
        self.going_away = False  # no new streams, ours or the peer's
        self.peer_streams = 1 << 31  # how many the peer lets us open at once
        self.last_stream = 0  # the highest that the peer opened
        self._client = client
        self._outbox = Outbox()
        self._decoder: Decoder[Headers] = Decoder(Headers, max_list_bytes=limits.header_list_bytes)
        self._streams: dict[int, _Stream] = {}
        self._resets: dict[int, None] = {}
        self._next_stream = 1
        self._rest = b""
        self._preface = b"" if client else frames.PREFACE  # what of it is still to come
        self._greeted = False  # the peer's settings came
        self._events: list[Event] = []
        self._block: tuple[int, int, list[bytes]] | None = None  # stream, flags, parts of an unfinished header block
        self._block_bytes = 0
        self._window = limits.connection_window_bytes
        self._credit = 0
        self._peer_window = frames.DEFAULT_WINDOW  # with which new streams begin
        self._nuisances = float(limits.nuisances)
        self._now_s = 0.0
        self._handlers = {
            frames.PRIORITY: self._on_priority,
            frames.RST_STREAM: self._on_reset,
            frames.SETTINGS: self._on_settings,
            frames.PUSH_PROMISE: self._on_push_promise,
            frames.PING: self._on_ping,
            frames.GOAWAY: self._on_goaway,
            frames.WINDOW_UPDATE: self._on_window_update,
        }
        self._greet()

    def _greet(self) -> None:
        limits = self.limits
        ours: dict[Setting, int] = {
            Setting.INITIAL_WINDOW_SIZE: limits.window_bytes,
            Setting.MAX_FRAME_SIZE: limits.frame_bytes,
            Setting.MAX_HEADER_LIST_SIZE: limits.header_list_bytes,
        }
        if self._client:
            self._outbox.put(frames.PREFACE)
            ours[Setting.ENABLE_PUSH] = 0
        else:
            ours[Setting.MAX_CONCURRENT_STREAMS] = limits.streams
        self._outbox.put(frames.settings(ours))
        if (more := limits.connection_window_bytes - frames.DEFAULT_WINDOW) > 0:
            self._outbox.put(frames.window_update(0, more))

    # -- what comes in -----------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now_s: float) -> list[Event]:
        """Take bytes in; return what they mean, in order. ``now_s`` never falls."""
        if self.ended:
            return []
        limits = self.limits
        self._nuisances = min(self._nuisances + (now_s - self._now_s) * limits.nuisances_per_s, limits.nuisances)
        self._now_s = now_s
        events: list[Event] = []
        self._events = events
        try:
            if self._preface:
                data = self._take_preface(data)
            if self._rest:
                data = self._rest + data
            received, end = frames.split(data, limits.frame_bytes)
            self._rest = data[end:]
            for frame in received:
                try:
                    self._take(*frame)
                except _StreamFault as fault:
                    self._fault(fault)
        except frames.FrameTooLarge as exc:
            self._end(ErrorCode.FRAME_SIZE_ERROR, str(exc))
        except HpackError as exc:
            self._end(ErrorCode.COMPRESSION_ERROR, str(exc))
        except _ConnectionFault as exc:
            self._end(exc.code, str(exc))
        if self._outbox.moved:
            self._note_progress()
        return events

    def _take_preface(self, data: bytes) -> bytes:
        wanted = self._preface
        if not data.startswith(wanted[: len(data)]):
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "this is not HTTP/2")
        self._preface = wanted[len(data) :]
        return data[len(wanted) :]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block is not None:
            if kind != frames.CONTINUATION or stream != self._block[0]:
                raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted")
            self._continue_block(flags, payload)
        elif not self._greeted and (kind != frames.SETTINGS or flags & frames.ACK):
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        elif kind == frames.DATA:
            self._on_data(flags, stream, payload)
        elif kind == frames.HEADERS:
            self._on_headers(flags, stream, payload)
        elif kind == frames.CONTINUATION:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a CONTINUATION continues nothing")
        elif (handler := self._handlers.get(kind)) is not None:
            handler(flags, stream, payload)
        else:
            self._pay()  # an unknown kind means nothing

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        if number == 0:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA belongs to a stream")
        size = len(payload)
        self._window -= size
        if self._window < 0:
            raise _ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more data than the connection's window")
        stream = self._streams.get(number)
        if stream is None or stream.remote_closed or not stream.got_headers:
            self.consumed(0, size)
            self._on_stray_data(number, stream)
            return
        stream.window -= size
        if stream.window < 0:
            self.consumed(0, size)
            raise _StreamFault(number, ErrorCode.FLOW_CONTROL_ERROR, "more data than the stream's window")
        if flags & frames.PADDED:
            payload = _without_padding(payload)
            self.consumed(number, size - len(payload))
        ended = bool(flags & frames.END_STREAM)
        if not payload and not ended:
            self._pay()
        if stream.expected is not None:
            stream.expected -= len(payload)
            if stream.expected < 0 or (ended and stream.expected):
                self.consumed(0, len(payload))
                raise _StreamFault(number, ErrorCode.PROTOCOL_ERROR, "content-length and content differ")
        self._events.append(DataReceived(number, payload, ended))
        if ended:
            self._close_remote(number, stream)

    def _on_stray_data(self, number: int, stream: _Stream | None) -> None:
        self._pay()
        if stream is None and self._is_idle(number):
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA on an idle stream")
        if number not in self._resets:
            raise _StreamFault(number, ErrorCode.STREAM_CLOSED, "DATA where none can stand")

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        if number == 0:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS belong to a stream")
        if flags & (frames.PADDED | frames.HAS_PRIORITY):
            if flags & frames.PADDED:
                payload = _without_padding(payload)
            if flags & frames.HAS_PRIORITY:
                if len(payload) < 5:
                    raise _ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for a priority")
                payload = payload[5:]
        if flags & frames.END_HEADERS:
            self._on_block(number, flags, payload)
        else:
            self._check_block(len(payload))
            self._block, self._block_bytes = (number, flags, [payload]), len(payload)

    def _continue_block(self, flags: int, payload: bytes) -> None:
        assert self._block is not None
        number, first_flags, parts = self._block
        if not payload:
            self._pay()
        parts.append(payload)
        self._block_bytes += len(payload)
        self._check_block(self._block_bytes)
        if flags & frames.END_HEADERS:
            self._block = None
            self._on_block(number, first_flags, b"".join(parts))

    def _check_block(self, size: int) -> None:
        if size > self.limits.header_block_bytes:
            raise _ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"a header block of {size} bytes and more")

    def _on_block(self, number: int, flags: int, block: bytes) -> None:
        ended = bool(flags & frames.END_STREAM)
        stream = self._streams.get(number)
        # Decoded whatever becomes of it: the tables of both sides must stay the same.
        try:
            headers = self._decoder.decode(block)
        except HeadersTooLarge as exc:
            if stream is None and not self._client and not self._is_stray(number):
                self._open_remote(number)
            raise _StreamFault(number, ErrorCode.ENHANCE_YOUR_CALM, str(exc)) from exc
        if stream is not None:
            self._on_later_headers(number, stream, headers, ended=ended)
        elif not self._client:
            if self._is_stray(number):
                return
            stream = self._open_remote(number)
            if headers.fault is not None or headers.kind is not Kind.REQUEST:
                raise _StreamFault(number, ErrorCode.PROTOCOL_ERROR, headers.fault or "these are no request's headers")
            self._begin_content(number, stream, headers, ended=ended)
        elif self._is_idle(number):
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a response to no request")
        else:
            self._pay()

    def _begin_content(self, number: int, stream: _Stream, headers: Headers, *, ended: bool) -> None:
        stream.got_headers = True
        stream.expected = headers.content_length
        if ended and stream.expected:
            raise _StreamFault(number, ErrorCode.PROTOCOL_ERROR, "content-length without content")
        self._events.append(HeadersReceived(number, headers, ended))
        if ended:
            self._close_remote(number, stream)

    def _on_later_headers(self, number: int, stream: _Stream, headers: Headers, *, ended: bool) -> None:
        if stream.remote_closed:
            raise _StreamFault(number, ErrorCode.STREAM_CLOSED, "HEADERS after the end of a stream")
        fault = headers.fault
        if not stream.got_headers:
            if fault is None and headers.kind is Kind.RESPONSE and headers.status >= 100:
                if headers.status >= 200:
                    self._begin_content(number, stream, headers, ended=ended)
                return
            raise _StreamFault(number, ErrorCode.PROTOCOL_ERROR, fault or "these are no response's headers")
        if not ended or fault is not None or headers.kind is not Kind.TRAILERS:
            raise _StreamFault(number, ErrorCode.PROTOCOL_ERROR, fault or "these are no trailers")
        if stream.expected:
            raise _StreamFault(number, ErrorCode.PROTOCOL_ERROR, "content-length and content differ")
        self._events.append(TrailersReceived(number, headers))
        self._close_remote(number, stream)

    def _is_stray(self, number: int) -> bool:
        """Return whether HEADERS that would open a stream mean nothing; raises if they cannot stand here."""
        if number % 2 == 0:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"stream {number} is not the client's to open")
        if number <= self.last_stream:
            self._pay()
            if number in self._resets:
                return True
            raise _ConnectionFault(ErrorCode.STREAM_CLOSED, f"stream {number} is over")
        if self.going_away:
            self._pay()
        return self.going_away

    def _open_remote(self, number: int) -> _Stream:
        self.last_stream = number
        stream = _Stream(self.limits.window_bytes, Outgoing(number, self._peer_window))
        self._streams[number] = stream
        if len(self._streams) > self.limits.streams:
            raise _StreamFault(number, ErrorCode.REFUSED_STREAM, "too many streams at once")
        return stream

    def _on_priority(self, flags: int, number: int, payload: bytes) -> None:
        del flags
        self._pay()
        if number == 0:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY belongs to a stream")
        if len(payload) != 5:
            raise _StreamFault(number, ErrorCode.FRAME_SIZE_ERROR, "PRIORITY has five bytes")

    def _on_reset(self, flags: int, number: int, payload: bytes) -> None:
        del flags
        self._pay()
        if len(payload) != 4:
            raise _ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM has four bytes")
        if number == 0 or self._is_idle(number):
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "RST_STREAM on an idle stream")
        stream = self._streams.pop(number, None)
        if stream is not None:
            self._outbox.forget(stream.out)
            self._events.append(StreamEnded(number, int.from_bytes(payload, "big"), "reset by the peer"))

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        self._pay()
        if number != 0:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS belong to no stream")
        if len(payload) % 6 or (flags & frames.ACK and payload):
            raise _ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
        self._greeted = True
        if flags & frames.ACK:
            return
        # Acknowledged first: a larger window lets data go at once, and the peer counts it by what was acknowledged.
        self._outbox.put(frames.SETTINGS_ACK)
        for setting, value in frames.read_settings(payload):
            self._apply_setting(setting, value)

    def _apply_setting(self, setting: int, value: int) -> None:
        match setting:
            case Setting.HEADER_TABLE_SIZE:
                self._outbox.encoder.allow(value)
            case Setting.ENABLE_PUSH:
                if value > (0 if self._client else 1):
                    raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH {value}")
            case Setting.MAX_CONCURRENT_STREAMS:
                self.peer_streams = value
            case Setting.INITIAL_WINDOW_SIZE:
                self._move_windows(value)
            case Setting.MAX_FRAME_SIZE:
                if not frames.MIN_MAX_FRAME_BYTES <= value <= frames.MAX_MAX_FRAME_BYTES:
                    raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE {value}")
                self._outbox.max_frame_bytes = value

    def _move_windows(self, value: int) -> None:
        if value > frames.MAX_WINDOW:
            raise _ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE {value}")
        change, self._peer_window = value - self._peer_window, value
        for stream in self._streams.values():
            if not self._outbox.grant(stream.out, change):
                raise _ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window is moved beyond its bounds")

    def _on_push_promise(self, flags: int, number: int, payload: bytes) -> None:
        del flags, number, payload
        raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "nobody asked for pushes")

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        if number != 0:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING belongs to no stream")
        if len(payload) != 8:
            raise _ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING has eight bytes")
        self._pay()
        if flags & frames.ACK:
            self._events.append(PingAcknowledged(payload))
        else:
            self._outbox.put(frames.ping(payload, ack=True))

    def _on_goaway(self, flags: int, number: int, payload: bytes) -> None:
        del flags
        self._pay()
        if number != 0:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY belongs to no stream")
        if len(payload) < 8:
            raise _ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY has eight bytes at least")
        last_stream, code, reason = frames.read_goaway(payload)
        self._events.append(GoAwayReceived(last_stream, code, reason))
        if self._client:
            self.going_away = True
            for unseen in [stream for stream in self._streams if stream > last_stream]:
                self._outbox.forget(self._streams.pop(unseen).out)
                self._events.append(StreamEnded(unseen, ErrorCode.REFUSED_STREAM, "the peer goes away"))

    def _on_window_update(self, flags: int, number: int, payload: bytes) -> None:
        del flags
        if len(payload) != 4:
            raise _ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE has four bytes")
        increment = int.from_bytes(payload, "big") & frames.MAX_WINDOW
        if number == 0:
            if increment == 0:
                raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a window grows by nothing")
            if not self._outbox.grant(None, increment):
                raise _ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window is too large")
            return
        stream = self._streams.get(number)
        if stream is None:
            self._pay()
            if self._is_idle(number):
                raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream")
        elif increment == 0:
            raise _StreamFault(number, ErrorCode.PROTOCOL_ERROR, "a window grows by nothing")
        elif not self._outbox.grant(stream.out, increment):
            raise _StreamFault(number, ErrorCode.FLOW_CONTROL_ERROR, "the stream's window is too large")

    # -- what goes out -----------------------------------------------------------------------------------------------

    def take_output(self) -> bytes:
        """Return the bytes to be sent now, once."""
        return self._outbox.take()

    @property
    def waiting_bytes(self) -> int:
        """Return how much data waits for the peer's windows."""
        return self._outbox.waiting_bytes

    @property
    def open_streams(self) -> int:
        """Return how many streams are not over."""
        return len(self._streams)

    def is_open(self, stream: int) -> bool:
        """Return whether anything can still be sent on a stream."""
        found = self._streams.get(stream)
        return found is not None and not found.out.closed and found.out.end is None

    def is_remote_open(self, stream: int) -> bool:
        """Return whether the peer may still send on a stream."""
        found = self._streams.get(stream)
        return found is not None and not found.remote_closed

    def queued_bytes(self, stream: int) -> int:
        """Return how much data of one stream waits for the peer's windows."""
        found = self._streams.get(stream)
        return found.out.queued_bytes if found is not None else 0

    def open(self, fields: Fields, *, end: bool = False) -> int:
        """As the client: open a stream with a request; return its number. Raises Refused."""
        assert self._client, "a server opens no streams"
        if self.ended or self.going_away or self._next_stream > frames.MAX_STREAM_ID:
            raise Refused("this connection takes no new streams")
        if len(self._streams) >= self.peer_streams:
            raise Refused(f"the server takes {self.peer_streams} streams at once")
        number = self._next_stream
        self._next_stream += 2
        stream = self._streams[number] = _Stream(self.limits.window_bytes, Outgoing(number, self._peer_window))
        self._outbox.headers(number, fields, end=end)
        stream.out.closed = end
        return number

    def send_headers(self, number: int, fields: Fields) -> None:
        """Send a response's headers; more follows. What belongs to a stream that is gone is dropped, here and below."""
        stream = self._streams.get(number)
        if stream is not None:
            self._outbox.headers(number, fields, end=False)

    def send_data(self, number: int, data: bytes, *, end: bool = False) -> None:
        """Send data, or let it wait for room; ``end``, as the client only, closes our half of the stream behind it."""
        stream = self._streams.get(number)
        if stream is not None:
            self._outbox.data(stream.out, data, end=end)
            if end and stream.out.closed:
                self._close_local(number, stream)

    def end_stream(self, number: int, trailers: Fields = ()) -> None:
        """End our half of a stream; a server that has answered wants no more of the request either."""
        stream = self._streams.get(number)
        if stream is None:
            return
        if stream.remote_closed or self._client:
            self._outbox.finish(stream.out, trailers)
        else:
            self._outbox.finish(stream.out, trailers, reset_after=True)
        if stream.out.closed:
            self._close_local(number, stream)

    def respond(self, number: int, head: Fields, data: bytes, trailers: Fields) -> None:
        """Send a whole response."""
        stream = self._streams.get(number)
        if stream is not None:
            out = stream.out
            self._outbox.respond(out, head, data, trailers, reset_after=not stream.remote_closed)
            if out.closed:
                self._close_local(number, stream)

    def respond_without_data(self, number: int, head: Fields) -> None:
        """Send a response that is only headers."""
        stream = self._streams.get(number)
        if stream is None:
            return
        self._outbox.headers(number, head, end=True)
        stream.out.closed = True
        if not stream.remote_closed:
            self._outbox.put(frames.rst_stream(number, ErrorCode.NO_ERROR))
        self._close_local(number, stream)

    def reset(self, number: int, code: ErrorCode) -> None:
        """End a stream at once, whatever waits."""
        stream = self._streams.pop(number, None)
        if stream is not None:
            self._outbox.forget(stream.out)
            self._outbox.put(frames.rst_stream(number, code))
            self._remember_reset(number)

    def ping(self, payload: bytes) -> None:
        """Ask for a sign of life; ``payload`` has eight bytes."""
        self._outbox.put(frames.ping(payload, ack=False))

    def announce_end(self) -> None:
        """Tell the peer that soon no new streams are taken; those on their way still are."""
        self._outbox.put(frames.goaway(frames.MAX_STREAM_ID, ErrorCode.NO_ERROR, b"going away"))

    def go_away(self) -> None:
        """Take no new streams from now on; those that are open may finish."""
        self.going_away = True
        self._outbox.put(frames.goaway(self.last_stream, ErrorCode.NO_ERROR, b"going away"))

    def consumed(self, number: int, size: int) -> None:
        """Data of a stream (0: of one that is gone) is read, and its memory free: the peer may send as much anew."""
        self._credit += size
        if self._credit >= self.limits.connection_window_bytes >> 1:
            self._outbox.put(frames.window_update(0, self._credit))
            self._window += self._credit
            self._credit = 0
        stream = self._streams.get(number)
        if stream is None or stream.remote_closed:
            return
        stream.credit += size
        if stream.credit >= self.limits.window_bytes >> 1:
            self._outbox.put(frames.window_update(number, stream.credit))
            stream.window += stream.credit
            stream.credit = 0

    # -- the ends of things ------------------------------------------------------------------------------------------

    def _is_idle(self, number: int) -> bool:
        if self._client:
            return number % 2 == 0 or number >= self._next_stream
        return number % 2 == 0 or number > self.last_stream

    def _close_remote(self, number: int, stream: _Stream) -> None:
        stream.remote_closed = True
        if stream.out.closed:
            del self._streams[number]

    def _close_local(self, number: int, stream: _Stream) -> None:
        if stream.remote_closed or not self._client:
            self._streams.pop(number, None)
            if not stream.remote_closed:
                self._remember_reset(number)

    def _note_progress(self) -> None:
        moved, self._outbox.moved = self._outbox.moved, []
        for out in moved:
            stream = self._streams.get(out.stream)
            if stream is not None:
                self._events.append(SendProgress(out.stream))
                if out.closed:
                    self._close_local(out.stream, stream)

    def _remember_reset(self, number: int) -> None:
        self._resets[number] = None
        if len(self._resets) > _REMEMBERED_RESETS:
            del self._resets[next(iter(self._resets))]

    def _pay(self) -> None:
        self._nuisances -= 1
        if self._nuisances < 0:
            raise _ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a flood of frames that bring nothing")

    def _fault(self, fault: _StreamFault) -> None:
        self._pay()
        stream = self._streams.pop(fault.stream, None)
        if stream is not None:
            self._outbox.forget(stream.out)
            self._events.append(StreamEnded(fault.stream, fault.code, str(fault)))
        self._outbox.put(frames.rst_stream(fault.stream, fault.code))
        self._remember_reset(fault.stream)

    def _end(self, code: ErrorCode, reason: str) -> None:
        self.ended = self.going_away = True
        self._outbox.put(frames.goaway(self.last_stream, code, reason.encode()))
        self._events.append(ConnectionEnded(code, reason))


def _without_padding(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "padding longer than its frame")
    return payload[1 : len(payload) - payload[0]]
