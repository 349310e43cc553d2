"""What a connection makes of frames that carry no content (RFC 9113, sections 6.3 to 6.9)."""

from . import frames
from .events import GoAwayReceived, PingAcknowledged, StreamEnded
from .frames import ErrorCode, Setting
from .sending import Sending
from .streams import ANY_NUMBER, ConnectionFault, StreamFault

# So often a client may move the windows of as many streams as it may have, before that is a flood. Clients that measure
# their way, as Go's, do so a dozen times at most.
_MOVES = 24


class Control(Sending):
    """A connection as its peer steers it."""

    def _on_priority(self, flags: int, number: int, payload: bytes) -> None:
        del flags
        self._pay()
        if number == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY belongs to a stream")
        if len(payload) != 5:
            raise StreamFault(number, ErrorCode.FRAME_SIZE_ERROR, "PRIORITY has five bytes")

    def _on_reset(self, flags: int, number: int, payload: bytes) -> None:
        del flags
        self._pay()
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM has four bytes")
        if number == 0 or self._is_idle(number):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "RST_STREAM on an idle stream")
        stream = self._find(number)
        if stream is not None:
            del self._streams[number]
            self._outbox.forget(stream.out)
            self._events.append(StreamEnded(number, int.from_bytes(payload, "big"), "reset by the peer"))

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        self._pay()
        if number != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS belong to no stream")
        if len(payload) % 6 or (flags & frames.ACK and payload):
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
        if not self._greeted:
            self._greeted, self.peer_streams = True, ANY_NUMBER  # unless it says below how many
        if flags & frames.ACK:
            return
        # Acknowledged first: a larger window lets data go at once, and the peer counts it by what was acknowledged.
        self._outbox.put(frames.SETTINGS_ACK)
        window: int | None = None
        for setting, value in frames.read_settings(payload):
            if setting != Setting.INITIAL_WINDOW_SIZE:
                self._apply_setting(setting, value)
            elif value > frames.MAX_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE {value}")
            else:
                window = value
        if window is not None:  # one frame may have thousands, of which only the last has any effect
            self._move_windows(window)

    def _apply_setting(self, setting: int, value: int) -> None:
        match setting:
            case Setting.HEADER_TABLE_SIZE:
                self._outbox.encoder.allow(value)
            case Setting.ENABLE_PUSH:
                if value > (0 if self._client else 1):
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH {value}")
            case Setting.MAX_CONCURRENT_STREAMS:
                self.peer_streams = value
            case Setting.MAX_FRAME_SIZE:
                if not frames.MIN_MAX_FRAME_BYTES <= value <= frames.MAX_MAX_FRAME_BYTES:
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE {value}")
                self._outbox.max_frame_bytes = value

    def _move_windows(self, value: int) -> None:
        self._pay(self.limits.nuisances * self.open_streams / (self.limits.streams * _MOVES))
        change, self._peer_window = value - self._peer_window, value
        for stream in self._streams.values():  # the others begin with it
            if not self._outbox.grant(stream.out, change):
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window is moved beyond its bounds")

    def _on_push_promise(self, flags: int, number: int, payload: bytes) -> None:
        del flags, number, payload
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "nobody asked for pushes")

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        if number != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING belongs to no stream")
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING has eight bytes")
        if flags & frames.ACK:
            self._pay()
            self._events.append(PingAcknowledged(payload))
            return
        # Go asks how wide its way is by a ping with whatever data it gets, a thousand times a second.
        if (sent := self._outbox.sent_bytes) == self._sent_at_ping:
            self._pay()
        self._sent_at_ping = sent
        self._outbox.put(frames.ping(payload, ack=True))

    def _on_goaway(self, flags: int, number: int, payload: bytes) -> None:
        del flags
        self._pay()
        if number != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY belongs to no stream")
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY has eight bytes at least")
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
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE has four bytes")
        increment = int.from_bytes(payload, "big") & frames.MAX_WINDOW
        if number == 0:
            if increment == 0:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a window grows by nothing")
            if not self._outbox.grant(None, increment):
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window is too large")
            return
        stream = self._find(number)
        if stream is None:
            self._pay()
            if self._is_idle(number):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream")
        elif increment == 0:
            raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, "a window grows by nothing")
        elif not self._outbox.grant(stream.out, increment):
            raise StreamFault(number, ErrorCode.FLOW_CONTROL_ERROR, "the stream's window is too large")
