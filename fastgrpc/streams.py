"""What every chapter of a connection shares: its streams, its accounts, and how things end."""

from . import frames
from .events import ConnectionEnded, Event, Limits, SendProgress, StreamEnded
from .frames import ErrorCode, Setting
from .headers import Headers
from .outbox import Outbox, Outgoing


class Refused(Exception):
    """No stream can be opened here: the peer, or the numbers, allow no more."""


class StreamFault(Exception):
    """The peer's fault, which ends one stream."""

    def __init__(self, stream: int, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.stream = stream
        self.code = code


class ConnectionFault(Exception):
    """The peer's fault, which ends the connection."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Stream:
    """One stream, from its first frame to its last."""

    __slots__ = ("credit", "expected", "got_headers", "out", "remote_closed", "window")

    def __init__(self, window: int, out: Outgoing) -> None:
        self.window = window  # what the peer may send still
        self.credit = 0  # consumed, and not granted anew yet
        self.expected: int | None = None  # bytes of content still to come, if the peer said
        self.got_headers = False
        self.remote_closed = False
        self.out = out


ANY_NUMBER = 1 << 31  # of streams
_REMEMBERED_RESETS = 16_384  # streams that are over by our will, whose late frames mean nothing


class Streams:
    """A connection between two frames."""

    def __init__(self, *, client: bool, limits: Limits) -> None:
        assert frames.DEFAULT_WINDOW <= limits.window_bytes <= limits.connection_window_bytes <= frames.MAX_WINDOW
        self.limits = limits
        self.ended = False  # by GOAWAY of our own: nothing is taken in any more
        self.going_away = False  # no new streams, ours or the peer's; so too once ``ended``
        self.peer_streams = ANY_NUMBER  # so many the peer lets us open at once; 0 makes us wait until it says how many
        self.last_stream = 0  # the highest that the peer opened
        self._client = client
        self._outbox = Outbox()
        self.take_output = self._outbox.take  # the bytes to be sent now, once
        self._streams: dict[int, Stream] = {}
        # Streams of which nothing needs to be known but that they are open: whose request came whole, so that only the
        # answer is missing; and whose request has begun in this read, and of which nothing was told yet.
        self._asked: set[int] = set()
        self._held: dict[int, Headers] = {}
        self._resets: dict[int, int] = {}  # streams that are over by our will -> what may still come on them unawares
        self._next_stream = 1
        self._events: list[Event] = []
        self._window = limits.connection_window_bytes
        self._credit = 0
        self._peer_window = frames.DEFAULT_WINDOW  # with which new streams begin
        self._greeted = False  # the peer's settings came
        self._nuisances = float(limits.nuisances)
        self._sent_at_ping = 0  # how much data went out before the last ping came
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

    def _is_idle(self, number: int) -> bool:
        if self._client:
            return number % 2 == 0 or number >= self._next_stream
        return number % 2 == 0 or number > self.last_stream

    @property
    def open_streams(self) -> int:
        """Return how many streams are not over."""
        return len(self._streams) + len(self._asked) + len(self._held)

    def _find(self, number: int) -> Stream | None:
        """Return a stream that is not over."""
        stream = self._streams.get(number)
        if stream is None and number in self._asked:
            self._asked.remove(number)
            stream = self._begin_stream(number)
            stream.remote_closed = True
        return stream

    def _begin_stream(self, number: int) -> Stream:
        """Take up a stream whose headers came."""
        stream = self._streams[number] = Stream(self.limits.window_bytes, Outgoing(number, self._peer_window))
        stream.got_headers = True
        return stream

    def _close_remote(self, number: int, stream: Stream) -> None:
        stream.remote_closed = True
        if stream.out.closed:
            del self._streams[number]

    def _close_local(self, number: int, stream: Stream) -> None:
        if stream.remote_closed or not self._client:
            self._streams.pop(number, None)
            if not stream.remote_closed:
                self._remember_reset(number, stream.window)

    def _note_progress(self) -> None:
        moved, self._outbox.moved = self._outbox.moved, []
        for out in moved:
            stream = self._streams.get(out.stream)
            if stream is not None:
                self._events.append(SendProgress(out.stream))
                if out.closed:
                    self._close_local(out.stream, stream)

    def _remember_reset(self, number: int, window: int) -> None:
        self._resets[number] = window
        if len(self._resets) > _REMEMBERED_RESETS:
            del self._resets[next(iter(self._resets))]

    def _pay(self, price: float = 1) -> None:
        self._nuisances -= price
        if self._nuisances < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a flood of frames that bring nothing")

    def _fault(self, fault: StreamFault) -> None:
        self._pay()
        stream = self._find(fault.stream)
        if stream is not None:
            del self._streams[fault.stream]
            self._outbox.forget(stream.out)
            self._events.append(StreamEnded(fault.stream, fault.code, str(fault)))
        self._outbox.put(frames.rst_stream(fault.stream, fault.code))
        self._remember_reset(fault.stream, stream.window if stream is not None else 0)

    def _end(self, code: ErrorCode, reason: str) -> None:
        self.ended = self.going_away = True
        self._outbox.put(frames.goaway(self.last_stream, code, reason.encode()))
        self._events.append(ConnectionEnded(code, reason))
