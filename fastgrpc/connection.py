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

from collections.abc import Iterable

from . import frames
from .control import Control
from .events import DataReceived, Event, HeadersReceived, Limits, RequestsReceived, TrailersReceived
from .frames import ErrorCode
from .headers import Headers, Kind
from .hpack import Decoder, HeadersTooLarge, HpackError
from .outbox import Outgoing
from .streams import ConnectionFault, Refused, Stream, StreamFault

__all__ = ["Connection", "Refused"]

_PRICE_OF_A_BYTE = 0.01  # in nuisances; of a header block, beyond what a list may have
_BEGINS_REQUEST = frames.WHOLE_BLOCK.to_bytes(2, "big")


class Connection(Control):
    """One connection; ``client`` says which side we are."""

    def __init__(self, *, client: bool, limits: Limits) -> None:
        super().__init__(client=client, limits=limits)
        self._decoder: Decoder[Headers] = Decoder(Headers, max_list_bytes=limits.header_list_bytes)
        self._rest = b""
        self._preface = b"" if client else frames.PREFACE  # what of it is still to come
        self._block: tuple[int, int, list[bytes]] | None = None  # stream, flags, parts of an unfinished header block
        self._block_bytes = 0
        self._now_s = 0.0

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
                data, self._rest = self._rest + data, b""
            try:
                end = self._take_all(data)
            finally:
                for number in tuple(self._held):
                    self._tell_held(number)
            self._rest = data[end:]
        except frames.FrameTooLarge as exc:
            self._end(ErrorCode.FRAME_SIZE_ERROR, str(exc))
        except HpackError as exc:
            self._end(ErrorCode.COMPRESSION_ERROR, str(exc))
        except ConnectionFault as exc:
            self._end(exc.code, str(exc))
        if self._outbox.moved:
            self._note_progress()
        self._events = []  # what is told is not kept: a connection may be idle for hours after this
        return events

    def lone_data(self, data: bytes) -> DataReceived | None:
        """Take bytes that are just one frame of data of an open stream, as a busy stream's nearly always are.

        Returns None, and takes nothing, if they are or may be anything else: then they are for ``receive``.
        """
        size = len(data) - frames.HEADER_BYTES
        if size <= 0:
            return None  # it brings nothing, or is cut off
        high, low, what, number = frames.read_header(data)
        if what != frames.MORE_DATA or self._rest or self._block is not None or self.ended:
            return None
        number &= frames.MAX_STREAM_ID
        stream = self._streams.get(number)
        if stream is None or stream.remote_closed or not stream.got_headers or stream.expected is not None:
            return None
        if high << 8 | low != size or size > stream.window or size > self._window or size > self.limits.frame_bytes:
            return None
        self._window -= size
        stream.window -= size
        return DataReceived(number, data[frames.HEADER_BYTES :], False)

    def lone_request(self, data: bytes) -> RequestsReceived | None:
        """As the server, take bytes that are just one request, as of a client that asks one thing after the other.

        Returns None, and takes nothing, if they are or may be anything else, or the peer did not send such headers
        before: then they are for ``receive``.
        """
        size = len(data)
        if size < 2 * frames.HEADER_BYTES or self._rest or self._block is not None or not self._greeted:
            return None
        high, low, what, number = frames.read_header(data)
        if what != frames.WHOLE_BLOCK:
            return None
        end = frames.HEADER_BYTES + (high << 8 | low)  # of the headers
        begin = end + frames.HEADER_BYTES  # of the data
        if begin > size or not number & 1 or not self.last_stream < number <= frames.MAX_STREAM_ID:
            return None
        high, low, what, stream = frames.read_header(data, end)
        length = high << 8 | low
        if what != frames.LAST_DATA or stream != number or begin + length != size:
            return None  # another request's headers, say: many are begun at once
        if self.going_away or self.open_streams >= self.limits.streams:
            return None
        headers = self._decoder.known(data[frames.HEADER_BYTES : end])
        if headers is None or not headers.is_request or headers.content_length not in (None, length):
            return None
        if length > self._window or length > self.limits.window_bytes or length > self.limits.frame_bytes:
            return None
        self.last_stream = number
        self._window -= length
        self._asked.add(number)
        return RequestsReceived(headers, [number], [data[begin:]])

    def _take_preface(self, data: bytes) -> bytes:
        wanted = self._preface
        if not data.startswith(wanted[: len(data)]):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "this is not HTTP/2")
        self._preface = wanted[len(data) :]
        return data[len(wanted) :]

    def _take_all(self, data: bytes) -> int:
        """Take frames in their order; return where the first one begins that is not whole."""
        at = 0
        while True:
            if self._held or data[at + 3 : at + 5] == _BEGINS_REQUEST:
                at = self._take_requests(data, at)
            if at == len(data) or (found := frames.frame_at(data, at, self.limits.frame_bytes)) is None:
                return at
            (kind, flags, number, payload), at = found
            if number in self._held:
                self._tell_held(number)
            try:
                if kind == frames.DATA and self._block is None and self._greeted:
                    self._on_data(flags, number, payload)
                else:
                    self._take(kind, flags, number, payload)
            except StreamFault as fault:
                self._fault(fault)

    def _take_requests(self, data: bytes, at: int) -> int:
        """Take requests that come whole, as nearly all do; return where a frame begins that needs a closer look.

        The peer sent such headers before, and all of the request's data is in one frame. A client that begins many at
        once sends all their headers first. So what has just begun is held back until its data comes in the same read,
        or anything else happens to it, or the read is over.
        """
        if self._client or self._block is not None or not self._greeted or self.going_away:
            return at
        held, read_header, size, view = self._held, frames.read_header, len(data), memoryview(data)
        most = min(self.limits.window_bytes, self.limits.frame_bytes)
        told: RequestsReceived | None = None
        while (begin := at + frames.HEADER_BYTES) <= size:
            high, low, what, number = read_header(data, at)
            length = high << 8 | low
            if (end := begin + length) > size:
                break
            start, content, step = data[at : at + 5], data[begin:end], end - at
            run: Iterable[tuple[bytes, int, bytes]] = ((start, number, content),)
            if data[end : end + 5] == start:  # what a client sends in a row is much alike
                run = frames.alike(length).iter_unpack(view[at : at + (size - at) // step * step])
            if what == frames.WHOLE_BLOCK:
                headers = self._decoder.known(content)
                taken = 0 if headers is None or not headers.is_request else self._hold_all(headers, start, content, run)
            elif what == frames.LAST_DATA and (headers := held.get(number)) is not None:
                if length > most or length > self._window or headers.content_length not in (None, length):
                    break
                if told is None or told.headers is not headers:
                    told = RequestsReceived(headers, [], [])
                    self._events.append(told)
                taken = self._ask_all(told, start, length, run)
            else:
                break
            if not taken:
                break
            at += taken * step
        return at

    def _hold_all(self, headers: Headers, start: bytes, block: bytes, run: Iterable[tuple[bytes, int, bytes]]) -> int:
        """Hold back what a run of frames begins, as far as each is like the first but for its stream; return how many.

        run: of each frame the start, up to its stream, the stream, and what follows. So below.
        """
        held, last = self._held, self.last_stream
        before = len(held)
        room = self.limits.streams - len(self._streams) - len(self._asked) - before
        for its_start, number, its_block in run:
            if its_start != start or its_block != block:
                break
            if not last < number <= frames.MAX_STREAM_ID or not number & 1 or room <= 0:
                break
            held[number] = headers
            last, room = number, room - 1
        self.last_stream = last
        return len(held) - before

    def _ask_all(
        self, told: RequestsReceived, start: bytes, length: int, run: Iterable[tuple[bytes, int, bytes]]
    ) -> int:
        """Tell of what was held back, as far as a run of frames of this length has its data; return of how many."""
        held, headers, window = self._held, told.headers, self._window
        streams, contents = told.streams, told.contents
        before = len(streams)
        for its_start, number, content in run:
            if its_start != start or length > window or held.get(number) is not headers:
                break
            del held[number]
            streams.append(number)
            contents.append(content)
            window -= length
        self._asked.update(streams[before:])
        self._window = window
        return len(streams) - before

    def _tell_held(self, number: int) -> None:
        """Tell of a request that does not come whole."""
        headers = self._held.pop(number)
        self._begin_stream(number).expected = headers.content_length
        self._events.append(HeadersReceived(number, headers, ended=False))

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block is not None:
            if kind != frames.CONTINUATION or stream != self._block[0]:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted")
            self._continue_block(flags, payload)
        elif not self._greeted and (kind != frames.SETTINGS or flags & frames.ACK):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        elif kind == frames.HEADERS:
            self._on_headers(flags, stream, payload)
        elif kind == frames.CONTINUATION:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a CONTINUATION continues nothing")
        elif (handler := _HANDLERS.get(kind)) is not None:
            handler(self, flags, stream, payload)
        else:
            self._pay()  # an unknown kind means nothing

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        if number == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA belongs to a stream")
        size = len(payload)
        self._window -= size
        if self._window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more data than the connection's window")
        stream = self._streams.get(number)
        if stream is None or stream.remote_closed or not stream.got_headers:
            self.consumed(0, size)
            self._on_stray_data(number, stream, size)
            return
        stream.window -= size
        if stream.window < 0:
            self.consumed(0, size)
            raise StreamFault(number, ErrorCode.FLOW_CONTROL_ERROR, "more data than the stream's window")
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
                raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, "content-length and content differ")
        self._events.append(DataReceived(number, payload, ended))
        if ended:
            self._close_remote(number, stream)

    def _on_stray_data(self, number: int, stream: Stream | None, size: int) -> None:
        window = self._resets.get(number, 0)
        if 0 < size <= window:
            # Sent before the peer knew that we want none of it, and paid for: by the window that it had.
            self._resets[number] = window - size
            return
        self._pay()
        if number in self._resets:
            return
        if stream is None and self._is_idle(number):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA on an idle stream")
        raise StreamFault(number, ErrorCode.STREAM_CLOSED, "DATA where none can stand")

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        if number == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS belong to a stream")
        if flags & (frames.PADDED | frames.HAS_PRIORITY):
            if flags & frames.PADDED:
                payload = _without_padding(payload)
            if flags & frames.HAS_PRIORITY:
                if len(payload) < 5:
                    raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for a priority")
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
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"a header block of {size} bytes and more")

    def _on_block(self, number: int, flags: int, block: bytes) -> None:
        ended = bool(flags & frames.END_STREAM)
        stream = self._find(number)
        # Decoded whatever becomes of it: the tables of both sides must stay the same.
        try:
            headers = self._decoder.decode(block)
        except HeadersTooLarge as exc:
            self._pay(max(0, len(block) - self.limits.header_list_bytes) * _PRICE_OF_A_BYTE)
            if stream is None and not self._client and not self._is_stray(number):
                self._open_remote(number)
            raise StreamFault(number, ErrorCode.ENHANCE_YOUR_CALM, str(exc)) from exc
        if stream is not None:
            self._on_later_headers(number, stream, headers, ended=ended)
        elif not self._client:
            if self._is_stray(number):
                return
            stream = self._open_remote(number)
            if headers.fault is not None or headers.kind is not Kind.REQUEST:
                raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, headers.fault or "these are no request's headers")
            self._begin_content(number, stream, headers, ended=ended)
        elif self._is_idle(number):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a response to no request")
        else:
            self._pay()

    def _begin_content(self, number: int, stream: Stream, headers: Headers, *, ended: bool) -> None:
        stream.got_headers = True
        stream.expected = headers.content_length
        if ended and stream.expected:
            raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, "content-length without content")
        self._events.append(HeadersReceived(number, headers, ended))
        if ended:
            self._close_remote(number, stream)

    def _on_later_headers(self, number: int, stream: Stream, headers: Headers, *, ended: bool) -> None:
        if stream.remote_closed:
            raise StreamFault(number, ErrorCode.STREAM_CLOSED, "HEADERS after the end of a stream")
        fault = headers.fault
        if not stream.got_headers:
            if fault is None and headers.kind is Kind.RESPONSE and headers.status >= 100:
                if headers.status >= 200:
                    self._begin_content(number, stream, headers, ended=ended)
                return
            raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, fault or "these are no response's headers")
        if not ended or fault is not None or headers.kind is not Kind.TRAILERS:
            raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, fault or "these are no trailers")
        if stream.expected:
            raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, "content-length and content differ")
        self._events.append(TrailersReceived(number, headers))
        self._close_remote(number, stream)

    def _is_stray(self, number: int) -> bool:
        """Return whether HEADERS that would open a stream mean nothing; raises if they cannot stand here."""
        if number % 2 == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"stream {number} is not the client's to open")
        if number <= self.last_stream:
            self._pay()
            if number in self._resets:
                return True
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"stream {number} is over")
        if self.going_away:
            self._pay()
            self._remember_reset(number, self.limits.window_bytes)
        return self.going_away

    def _open_remote(self, number: int) -> Stream:
        self.last_stream = number
        stream = Stream(self.limits.window_bytes, Outgoing(number, self._peer_window))
        self._streams[number] = stream
        if self.open_streams > self.limits.streams:
            raise StreamFault(number, ErrorCode.REFUSED_STREAM, "too many streams at once")
        return stream


# Functions, for a connection that held its own methods would live on, at its end, until cycles are looked for.
_HANDLERS = {
    frames.PRIORITY: Control._on_priority,  # noqa: SLF001 - of the same class
    frames.RST_STREAM: Control._on_reset,  # noqa: SLF001
    frames.SETTINGS: Control._on_settings,  # noqa: SLF001
    frames.PUSH_PROMISE: Control._on_push_promise,  # noqa: SLF001
    frames.PING: Control._on_ping,  # noqa: SLF001
    frames.GOAWAY: Control._on_goaway,  # noqa: SLF001
    frames.WINDOW_UPDATE: Control._on_window_update,  # noqa: SLF001
}


def _without_padding(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "padding longer than its frame")
    return payload[1 : len(payload) - payload[0]]
