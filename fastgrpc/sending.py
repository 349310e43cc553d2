"""What goes out of a connection."""

from collections.abc import Sequence

from . import frames
from .frames import NO_LEAD, ErrorCode, Lead
from .hpack import Fields
from .outbox import Outgoing
from .streams import Refused, Stream, Streams


class Sending(Streams):
    """A connection as its user tells it to send. What belongs to a stream that is gone is dropped."""

    @property
    def waiting_bytes(self) -> int:
        """Return how much data waits for the peer's windows."""
        return self._outbox.waiting_bytes

    def is_open(self, stream: int) -> bool:
        """Return whether anything can still be sent on a stream."""
        found = self._find(stream)
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
        if self.going_away:
            raise Refused("this connection takes no new streams")
        if len(self._streams) >= self.peer_streams:
            raise Refused(f"the server takes {self.peer_streams} streams at once")
        number = self._next_stream
        self._next_stream += 2
        if self._next_stream > frames.MAX_STREAM_ID:
            self.going_away = True  # the numbers are used up: this connection ends with the streams that it has
        stream = self._streams[number] = Stream(self.limits.window_bytes, Outgoing(number, self._peer_window))
        self._outbox.headers(number, fields, end=end)
        stream.out.closed = end
        return number

    def send_headers(self, number: int, fields: Fields) -> None:
        """Send a response's headers; more follows. What belongs to a stream that is gone is dropped, here and below."""
        stream = self._find(number)
        if stream is not None:
            self._outbox.headers(number, fields, end=False)

    def send_data(self, number: int, data: bytes, *, end: bool = False) -> None:
        """Send data, or let it wait for room; ``end``, as the client only, closes our half of the stream behind it."""
        stream = self._find(number)
        if stream is not None:
            self._outbox.data(stream.out, data, end=end)
            if end and stream.out.closed:
                self._close_local(number, stream)

    def send_data_if_room(self, number: int, data: bytes, *, at_most: int) -> bool:
        """Send data unless more than ``at_most`` bytes of its stream wait already; return False then."""
        stream = self._find(number)
        if stream is not None:
            if stream.out.queued_bytes > at_most:
                return False
            self._outbox.data(stream.out, data)
        return True

    def end_stream(self, number: int, trailers: Fields = ()) -> None:
        """End our half of a stream; a server that has answered wants no more of the request either."""
        stream = self._find(number)
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
        stream = self._find(number)
        if stream is not None:
            out = stream.out
            self._outbox.respond(out, head, data, trailers, reset_after=not stream.remote_closed)
            if out.closed:
                if stream.remote_closed:  # nearly always; the rest of ``_close_local`` is not for it
                    del self._streams[number]
                else:
                    self._close_local(number, stream)

    def respond_all(
        self, numbers: Sequence[int], head: Fields, contents: Sequence[bytes], trailers: Fields, lead: Lead = NO_LEAD
    ) -> None:
        """Send whole responses that differ in their data only: what ``respond`` does to each, by less.

        lead: see ``frames.Envelope.wrap``.
        """
        asked = self._asked
        if asked.issuperset(numbers) and self._outbox.respond_all(
            numbers, self._peer_window, head, contents, trailers, lead
        ):
            asked.difference_update(numbers)
            return
        for number, data in zip(numbers, contents, strict=True):  # there is no room, or the client still sends
            self.respond(number, head, lead.before(len(data)) + data, trailers)

    def respond_without_data(self, number: int, head: Fields) -> None:
        """Send a response that is only headers."""
        stream = self._find(number)
        if stream is None:
            return
        self._outbox.headers(number, head, end=True)
        stream.out.closed = True
        if not stream.remote_closed:
            self._outbox.put(frames.rst_stream(number, ErrorCode.NO_ERROR))
        self._close_local(number, stream)

    def reset(self, number: int, code: ErrorCode) -> None:
        """End a stream at once, whatever waits."""
        stream = self._find(number)
        if stream is not None:
            del self._streams[number]
            self._outbox.forget(stream.out)
            self._outbox.put(frames.rst_stream(number, code))
            self._remember_reset(number, stream.window)

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
