"""One connection's bytes as heads, pieces of bodies, and the ends of bodies.

Feed what comes, then take events until there are none; heads and bodies alternate. What stands behind a head is read
only when the next event is asked for, so whoever takes events may as well take the rest of the bytes.
"""

import re
from enum import Enum, auto

import msgspec

from .heads import TOKEN, Head, Malformed, parse_head


class Data(msgspec.Struct, frozen=True):
    """A piece of the body of the last head."""

    data: bytes


class End(msgspec.Struct, frozen=True):
    """The body of the last head is complete, be it empty."""


Event = Head | Data | End

MAX_HEAD_BYTES = 64 * 1024
MAX_LINE_BYTES = 1024  # of a chunk's size with what may follow it
MAX_TRAILER_BYTES = 8 * 1024

_END = End()
# Without its line break, which may not be a bare one: another reader could find the end of the trailers there.
_TRAILER = re.compile(rb"%b:[^\x00-\x08\x0a-\x1f\x7f]*" % TOKEN)
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")


class _State(Enum):
    HEAD = auto()
    SIZED = auto()  # ``left`` bytes are to come
    CHUNK_SIZE = auto()
    CHUNK = auto()  # ``left`` bytes of one are to come
    CHUNK_END = auto()
    TRAILERS = auto()


class Reader:
    """Reads the requests of one connection. Once it has raised Malformed it can only be thrown away."""

    def __init__(self, *, max_head_bytes: int = MAX_HEAD_BYTES) -> None:
        self._max_head_bytes = max_head_bytes
        self._buffer = bytearray()
        self._state = _State.HEAD
        self._left = 0
        self._searched = 0  # bytes of the buffer that hold no end of what is being read
        self._trailer_bytes = 0

    @property
    def between_requests(self) -> bool:
        """Return whether nothing of a request has come that was not told."""
        return self._state is _State.HEAD and not self._buffer

    def feed(self, data: bytes) -> None:
        """Take in what came."""
        self._buffer += data

    def take_rest(self) -> bytes:
        """Return, and forget, what was not read yet."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def next_event(self) -> Event | None:
        """Return what comes next, or None until more is fed; raises Malformed."""
        match self._state:
            case _State.HEAD:
                return self._head()
            case _State.SIZED:
                return self._sized()
        return self._chunked()

    def _head(self) -> Head | None:
        buffer = self._buffer
        if buffer.startswith((b"\r", b"\n")):
            # Some clients send an empty line behind a body (RFC 9112, 2.2).
            del buffer[: len(buffer) - len(buffer.lstrip(b"\r\n"))]
            self._searched = 0
        end = buffer.find(b"\r\n\r\n", max(0, self._searched - 3))
        if end < 0:
            self._searched = len(buffer)
            if len(buffer) > self._max_head_bytes:
                raise Malformed(431, f"the head of a request has at most {self._max_head_bytes} bytes")
            return None
        if end > self._max_head_bytes:
            raise Malformed(431, f"the head of a request has at most {self._max_head_bytes} bytes")
        head = parse_head(self._take(end + 4))
        if head.fields.chunked:
            self._state = _State.CHUNK_SIZE
        else:
            self._state, self._left = _State.SIZED, head.fields.length or 0
        return head

    def _take(self, size: int) -> bytes:
        """Return the first ``size`` bytes, which are in the buffer."""
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._searched = 0
        return data

    def _sized(self) -> Data | End | None:
        if not self._left:
            self._state = _State.HEAD
            return _END
        if not self._buffer:
            return None
        data = self._take(min(self._left, len(self._buffer)))
        self._left -= len(data)
        return Data(data)

    def _chunked(self) -> Data | End | None:
        while True:
            match self._state:
                case _State.CHUNK if self._left:
                    if not self._buffer:
                        return None
                    data = self._take(min(self._left, len(self._buffer)))
                    self._left -= len(data)
                    return Data(data)
                case _State.CHUNK:
                    self._state = _State.CHUNK_END
                    continue
            line = self._line(MAX_TRAILER_BYTES if self._state is _State.TRAILERS else MAX_LINE_BYTES)
            if line is None:
                return None
            if self._take_line(line):
                return _END

    def _take_line(self, line: bytes) -> bool:
        """Go on by a line between chunks; return whether the body ends with it."""
        match self._state:
            case _State.CHUNK_SIZE:
                found = _SIZE.fullmatch(line)
                if found is None:
                    raise Malformed(400, "malformed size of a chunk")
                self._left = int(found[1], 16)
                self._state = _State.CHUNK if self._left else _State.TRAILERS
                self._trailer_bytes = 0
            case _State.CHUNK_END:
                if line:
                    raise Malformed(400, "a chunk is longer than its size")
                self._state = _State.CHUNK_SIZE
            case _State.TRAILERS:
                # Nothing that is served looks at them.
                self._trailer_bytes += len(line)
                if self._trailer_bytes > MAX_TRAILER_BYTES:
                    raise Malformed(431, f"trailers have at most {MAX_TRAILER_BYTES} bytes")
                if not line:
                    self._state = _State.HEAD
                    return True
                if _TRAILER.fullmatch(line) is None:
                    raise Malformed(400, "malformed trailer field")
        return False

    def _line(self, limit: int) -> bytes | None:
        end = self._buffer.find(b"\r\n", max(0, self._searched - 1))
        if end > limit or (end < 0 and len(self._buffer) > limit):
            raise Malformed(400, f"a line between chunks has at most {limit} bytes")
        if end < 0:
            self._searched = len(self._buffer)
            return None
        return self._take(end + 2)[:-2]
