"""Frames as bytes (RFC 9113, sections 4, 6 and 7)."""

import struct
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES = 9
MIN_MAX_FRAME_BYTES = 1 << 14
MAX_MAX_FRAME_BYTES = (1 << 24) - 1
DEFAULT_WINDOW = (1 << 16) - 1
MAX_WINDOW = (1 << 31) - 1
MAX_STREAM_ID = (1 << 31) - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM = ACK = 0x01
END_HEADERS = 0x04
PADDED = 0x08
HAS_PRIORITY = 0x20

Frame = tuple[int, int, int, bytes]  # type, flags, stream, payload

WHOLE_BLOCK = HEADERS << 8 | END_HEADERS  # type and flags of all of a request's headers, which has data ...
LAST_DATA = DATA << 8 | END_STREAM  # ... and of the end of the data
MORE_DATA = DATA << 8  # of data behind which more comes

_PLAIN_DATA = MORE_DATA.to_bytes(2, "big")

_HEADER = struct.Struct(">HBBBL")  # length (16 bits, then 8), type, flags, stream
read_header = struct.Struct(">HBHL").unpack_from  # length (16 bits, then 8), type and flags, stream
_SETTING = struct.Struct(">HL")
_TWO_WORDS = struct.Struct(">LL")


class ErrorCode(IntEnum):
    """Why a stream or connection ended."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class Setting(IntEnum):
    """What one side tells the other of itself."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


class Lead(NamedTuple):
    """What stands before content, in the same data."""

    size_bytes: int  # the same before any content
    before: Callable[[int], bytes]  # content of so many bytes


NO_LEAD = Lead(0, lambda _: b"")


class FrameTooLarge(Exception):
    """A frame is longer than we said we take."""


def header(length: int, kind: int, flags: int, stream: int) -> bytes:
    """Return the nine bytes before a payload of ``length`` bytes."""
    return _HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream)


def frame(kind: int, flags: int, stream: int, payload: bytes | memoryview) -> bytes:
    """Return a whole frame."""
    length = len(payload)
    return _HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream) + payload


class Envelope:
    """The frames around the data of responses whose header blocks are the same each time."""

    __slots__ = ("_before", "_begin", "_behind", "_last", "_trailers")

    def __init__(self, head: bytes, trailers: bytes) -> None:
        # Everything but streams, which stand at the end of each frame's header, and the size of the data.
        self._begin = header(len(head), HEADERS, END_HEADERS, 0)[:-4]
        self._before = head
        self._behind = header(len(trailers), HEADERS, END_HEADERS | END_STREAM, 0)[:-4]
        self._trailers = trailers
        # Of the content that was wrapped last: its lead, its size, and what they make of the bytes before it.
        self._last: tuple[Lead, int, bytes, bytes] = (NO_LEAD, -1, b"", b"")

    def wrap(self, streams: Sequence[int], contents: Sequence[bytes], lead: Lead) -> list[bytes]:
        """Return the parts of whole responses: of each its head, its data in one frame, its trailers.

        lead: what stands before each content, as data of the same response.
        """
        begin, behind, trailers = self._begin, self._behind, self._trailers
        parts: list[bytes] = []
        last_lead, size, first, before = self._last
        if lead is not last_lead:
            size = -1
        for stream, content in zip(streams, contents, strict=True):
            if len(content) != size:  # seldom: what is answered together is much alike
                size = len(content)
                first = lead.before(size)
                before = b"".join((self._before, (len(first) + size).to_bytes(3, "big"), _PLAIN_DATA))
                self._last = lead, size, first, before
            number = stream.to_bytes(4, "big")
            parts += (begin, number, before, number, first, content, behind, number, trailers)
        return parts


@lru_cache(maxsize=1024)
def alike(length: int) -> struct.Struct:
    """Return the layout of frames with so much payload: the five bytes before the stream, the stream, the payload."""
    return struct.Struct(f">5sL{length}s")


def frame_at(data: bytes, at: int, max_payload_bytes: int) -> tuple[Frame, int] | None:
    """Return the frame that begins at ``at``, and where it ends; None if it is not whole. Raises FrameTooLarge."""
    begin = at + HEADER_BYTES
    if begin > len(data):
        return None
    high, low, kind, flags, stream = _HEADER.unpack_from(data, at)
    length = high << 8 | low
    if length > max_payload_bytes:
        raise FrameTooLarge(f"a frame of {length} bytes; the most is {max_payload_bytes}")
    end = begin + length
    return ((kind, flags, stream & MAX_STREAM_ID, data[begin:end]), end) if end <= len(data) else None


def settings(values: Mapping[Setting, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(setting, value) for setting, value in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return (setting, value) in their order; ``payload`` is whole."""
    return list(_SETTING.iter_unpack(payload))


SETTINGS_ACK = header(0, SETTINGS, ACK, 0)


def window_update(stream: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame."""
    return header(4, WINDOW_UPDATE, 0, stream) + increment.to_bytes(4, "big")


def rst_stream(stream: int, code: ErrorCode) -> bytes:
    """Return a RST_STREAM frame."""
    return header(4, RST_STREAM, 0, stream) + code.to_bytes(4, "big")


def ping(payload: bytes, *, ack: bool) -> bytes:
    """Return a PING frame; ``payload`` has eight bytes."""
    return header(8, PING, ACK if ack else 0, 0) + payload


def goaway(last_stream: int, code: ErrorCode, reason: bytes) -> bytes:
    """Return a GOAWAY frame."""
    return frame(GOAWAY, 0, 0, _TWO_WORDS.pack(last_stream, code) + reason)


def read_goaway(payload: bytes) -> tuple[int, int, bytes]:
    """Return (last stream, code, reason); ``payload`` has eight bytes at least."""
    last_stream, code = _TWO_WORDS.unpack_from(payload)
    return last_stream & MAX_STREAM_ID, code, payload[8:]
