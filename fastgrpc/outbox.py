"""What one side still has to send, under the windows that the other side grants (RFC 9113, section 5.2).

Header blocks are encoded when they go out, never before: the order of blocks on the wire is part of their meaning. So
trailers wait behind the data of their stream as fields, not as bytes.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from itertools import islice

from . import frames
from .frames import NO_LEAD, Envelope, ErrorCode, Lead
from .hpack import Encoder, Fields


class Outgoing:
    """The sending half of one stream."""

    __slots__ = ("closed", "end", "queue", "queued_bytes", "reset_after", "stream", "window")

    def __init__(self, stream: int, window: int) -> None:
        self.stream = stream
        self.window = window  # what the peer takes now; below zero if it took back more than was left
        self.queue: deque[bytes | memoryview] | None = None  # data that no window has room for yet; seldom any
        self.queued_bytes = 0
        self.end: Fields | None = None  # trailers behind the queue; () ends the stream without any
        self.closed = False  # the end is sent
        self.reset_after = False  # the peer may stop sending too, once it has the end


class Outbox:
    """The bytes of one connection that are ready to go, and the data that waits for room."""

    def __init__(self) -> None:
        self.encoder = Encoder()
        self.window = frames.DEFAULT_WINDOW  # of the connection
        self._granted_bytes = self.window  # all that the peer ever took on it
        self.max_frame_bytes = frames.MIN_MAX_FRAME_BYTES
        self.waiting_bytes = 0
        self.moved: list[Outgoing] = []  # streams whose waiting data went out, for whoever takes note and clears it
        self._ready: list[bytes] = []
        # Streams that wait for the connection's window alone, in the order of whose turn it is. Those that wait for
        # their own are not among them: there may be thousands, and every grant would have to walk over them all.
        self._waiting: OrderedDict[int, Outgoing] = OrderedDict()
        # Head and trailers that nearly all responses have; what is made of them at that age of the encoder.
        self._usual: tuple[Fields, Fields, int, Envelope] = ((), (), -1, Envelope(b"", b""))

    def take(self) -> bytes:
        """Return what is ready, once."""
        if not self._ready:
            return b""
        ready, self._ready = self._ready, []
        return b"".join(ready)

    @property
    def sent_bytes(self) -> int:
        """Return how much data ever went out."""
        return self._granted_bytes - self.window

    def put(self, data: bytes) -> None:
        """Make frames that no window governs ready."""
        self._ready.append(data)

    def headers(self, stream: int, fields: Fields, *, end: bool) -> None:
        """Make a header block ready, in as many frames as it takes."""
        block = self.encoder.encode(fields)
        most = self.max_frame_bytes
        flags = frames.END_STREAM if end else 0
        if len(block) <= most:
            self._ready.append(frames.header(len(block), frames.HEADERS, flags | frames.END_HEADERS, stream))
            self._ready.append(block)
            return
        self._ready.append(frames.frame(frames.HEADERS, flags, stream, block[:most]))
        for at in range(most, len(block), most):
            last = frames.END_HEADERS if at + most >= len(block) else 0
            self._ready.append(frames.frame(frames.CONTINUATION, last, stream, block[at : at + most]))

    def data(self, out: Outgoing, data: bytes, *, end: bool = False) -> None:
        """Send data, as far as there is room; the rest waits. ``end`` closes the stream behind it."""
        size = len(data)
        if not out.queue and size <= out.window and size <= self.window and size <= self.max_frame_bytes:
            out.window -= size
            self.window -= size
            out.closed = end
            self._ready += (frames.header(size, frames.DATA, frames.END_STREAM if end else 0, out.stream), data)
            return
        if end:
            out.end = ()
        if out.queue and not data:
            return  # it would wait for room that it does not need, and so would the end behind it
        if out.queue is None:
            out.queue = deque()
        out.queue.append(data)
        out.queued_bytes += size
        self.waiting_bytes += size
        self._advance(out)

    def respond(self, out: Outgoing, head: Fields, data: bytes, trailers: Fields, *, reset_after: bool) -> None:
        """Send a whole response: at once if everything fits, as nearly always."""
        size = len(data)
        short = len(head) + len(trailers) < 8
        if (
            size > out.window
            or size > self.window
            or size > self.max_frame_bytes
            or out.queue
            or reset_after
            or not short
        ):
            self.headers(out.stream, head, end=False)
            self.data(out, data)
            self.finish(out, trailers, reset_after=reset_after)
            return
        usual_head, usual_trailers, age, envelope = self._usual
        if head is not usual_head or trailers is not usual_trailers or age != self.encoder.age:
            envelope = self._envelope(head, trailers)
        out.window -= size
        self.window -= size
        out.closed = True
        self._ready += envelope.wrap((out.stream,), (data,), NO_LEAD)

    def respond_all(
        self,
        streams: Sequence[int],
        window: int,
        head: Fields,
        contents: Sequence[bytes],
        trailers: Fields,
        lead: Lead,
    ) -> bool:
        """Send whole responses on streams that have this window each, and on which nothing waits.

        Returns False, and does nothing, if not all of them fit, or their heads and trailers are not the usual ones.
        """
        usual_head, usual_trailers, age, envelope = self._usual
        if len(contents) == 1:
            most = all_bytes = lead.size_bytes + len(contents[0])
        else:
            most = lead.size_bytes + max(map(len, contents))
            all_bytes = lead.size_bytes * len(streams) + sum(map(len, contents))
        if (
            head is not usual_head
            or trailers is not usual_trailers
            or age != self.encoder.age
            or most > window
            or most > self.max_frame_bytes
            or all_bytes > self.window
        ):
            return False
        self.window -= all_bytes
        self._ready += envelope.wrap(streams, contents, lead)
        return True

    def _envelope(self, head: Fields, trailers: Fields) -> Envelope:
        """Return what goes around a response, which has to be sent; remember it if it comes out the same again."""
        age = self.encoder.age
        envelope = Envelope(self.encoder.encode(head), self.encoder.encode(trailers))
        if age == self.encoder.age:
            self._usual = head, trailers, age, envelope
        return envelope

    def finish(self, out: Outgoing, trailers: Fields, *, reset_after: bool = False) -> None:
        """End the stream behind whatever waits; without trailers (``()``), by an empty frame."""
        out.end = trailers
        out.reset_after = reset_after
        if not out.queue:
            self._end(out)

    def grant(self, out: Outgoing | None, increment: int) -> bool:
        """The peer has room for more, of one stream or (None) in all; return False for more than there can be."""
        if out is None:
            self.window += increment
            self._granted_bytes += increment
            self._advance_all()
            return self.window <= frames.MAX_WINDOW
        out.window += increment
        if out.queue:
            self._advance(out)
        return out.window <= frames.MAX_WINDOW

    def forget(self, out: Outgoing) -> None:
        """Send nothing more of a stream."""
        self.waiting_bytes -= out.queued_bytes
        out.queued_bytes = 0
        out.queue = None
        out.closed = True
        self._waiting.pop(out.stream, None)

    def _advance_all(self) -> None:
        """Share the connection's room between the streams that wait, a frame each in turn."""
        waiting = self._waiting
        while self.window > 0 and waiting:
            _, out = waiting.popitem(last=False)  # it lines up behind the others if it has more
            self._advance(out, frames_at_most=1)

    def _advance(self, out: Outgoing, *, frames_at_most: int | None = None) -> None:
        """Send what there is room for, and note whether the rest waits for the connection's window."""
        for chunk in islice(self._chunks(out), frames_at_most):
            self._ready.append(frames.frame(frames.DATA, 0, out.stream, chunk))
        if not out.queue:
            self._waiting.pop(out.stream, None)
            self.moved.append(out)
            if out.end is not None and not out.closed:
                self._end(out)
        elif out.window > 0:
            self._waiting.setdefault(out.stream, out)
        else:
            self._waiting.pop(out.stream, None)

    def _chunks(self, out: Outgoing) -> Iterator[bytes | memoryview]:
        queue = out.queue
        while queue:
            data = queue[0]
            room = min(out.window, self.window, self.max_frame_bytes)
            if room <= 0 and data:
                return
            if not data or len(data) <= room:  # nothing at all fits a window below zero, too
                queue.popleft()
            else:
                view = memoryview(data)  # a large message is not copied anew for each frame
                queue[0], data = view[room:], view[:room]
            out.window -= len(data)
            self.window -= len(data)
            out.queued_bytes -= len(data)
            self.waiting_bytes -= len(data)
            yield data

    def _end(self, out: Outgoing) -> None:
        out.closed = True
        if out.end:
            self.headers(out.stream, out.end, end=True)
        else:
            self._ready.append(frames.header(0, frames.DATA, frames.END_STREAM, out.stream))
        if out.reset_after:
            self._ready.append(frames.rst_stream(out.stream, ErrorCode.NO_ERROR))
