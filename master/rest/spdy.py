"""SPDY/3.1 frames without I/O: what kubectl before 1.30 speaks for exec, attach and port-forward.

The client opens streams with SYN_STREAM, names what each is for in its headers, and both sides exchange DATA frames;
FIN half-closes a stream. Header blocks are compressed with one zlib context per direction that lives as long as the
connection, so every header block must pass through it, also that of a stream that will be refused. Flow control is
left out on purpose: the clients' library does none and relies on TCP's.

Source: "SPDY Protocol - Draft 3.1", chromium.org.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping

import msgspec

SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FLAG_FIN = 0x01
REFUSED_STREAM = 3
MAX_FRAME_BYTES = 1 << 20  # the clients write 32 KiB at most
MAX_HEADER_BYTES = 1 << 16
_CONTROL = 0x8000_0000
_ID = 0x7FFF_FFFF

_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie "
    "keep-alive origin"
)
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _dictionary() -> bytes:
    """Return the text that both ends prime their compressor with: length-prefixed words, then a plain tail."""
    words = [word.replace("_", " ").encode() for word in _WORDS.split()]
    return b"".join(struct.pack(">I", len(word)) + word for word in words) + _TAIL.encode()


DICTIONARY = _dictionary()


class SpdyError(Exception):
    """The peer sent what no SPDY/3.1 peer sends; the connection cannot go on."""


class StreamOpened(msgspec.Struct, frozen=True):
    """The peer opened a stream; ``headers`` say what for."""

    stream: int
    headers: Mapping[str, str]
    finished: bool  # it will send no data


class DataReceived(msgspec.Struct, frozen=True):
    """Bytes on a stream; ``finished``: the last ones."""

    stream: int
    data: bytes
    finished: bool


class StreamReset(msgspec.Struct, frozen=True):
    """The peer gave a stream up."""

    stream: int


class PingReceived(msgspec.Struct, frozen=True):
    """The peer wants to know whether we live; ``number`` goes back as it came."""

    number: int


class GoingAway(msgspec.Struct, frozen=True):
    """The peer will open no more streams."""


Event = StreamOpened | DataReceived | StreamReset | PingReceived | GoingAway


class Framer:
    """Both directions of one connection, seen from the server."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def receive(self, data: bytes) -> Iterator[Event]:
        """Yield what the bytes complete; frames without meaning for us are passed over. Raises SpdyError."""
        self._buffer += data
        while len(self._buffer) >= 8:
            first, rest = struct.unpack_from(">II", self._buffer)
            flags, length = rest >> 24, rest & 0xFF_FFFF
            if length > MAX_FRAME_BYTES:
                raise SpdyError(f"a frame of {length} bytes")
            if len(self._buffer) < 8 + length:
                return
            payload = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            if not first & _CONTROL:
                yield DataReceived(first & _ID, payload, bool(flags & FLAG_FIN))
            elif (event := self._control(first & _ID, flags, payload)) is not None:
                yield event

    def _control(self, head: int, flags: int, payload: bytes) -> Event | None:
        version, kind = head >> 16, head & 0xFFFF
        if version != 3:
            raise SpdyError(f"version {version}")
        try:
            match kind:
                case 1:  # SYN_STREAM
                    stream = struct.unpack_from(">I", payload)[0] & _ID
                    return StreamOpened(stream, self._headers(payload[10:]), bool(flags & FLAG_FIN))
                case 2 | 8:  # SYN_REPLY, HEADERS: nothing to learn from them, but the zlib context must see them
                    self._headers(payload[4:])
                case 3:  # RST_STREAM
                    return StreamReset(struct.unpack_from(">I", payload)[0] & _ID)
                case 6:  # PING
                    return PingReceived(struct.unpack_from(">I", payload)[0])
                case 7:  # GOAWAY
                    return GoingAway()
        except struct.error as error:
            raise SpdyError(f"a control frame of type {kind} is too short") from error
        return None

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            plain = self._inflate.decompress(block, MAX_HEADER_BYTES)
        except zlib.error as error:
            raise SpdyError("a header block does not decompress") from error
        if self._inflate.unconsumed_tail:
            raise SpdyError("a header block is too large")
        (count,) = struct.unpack_from(">I", plain)
        position, found = 4, {}
        for _ in range(min(count, len(plain))):
            name, position = _text(plain, position)
            value, position = _text(plain, position)
            found[name.lower()] = value
        return found

    def reply(self, stream: int) -> bytes:
        """Return the frame that accepts a stream."""
        block = self._deflate.compress(struct.pack(">I", 0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return _frame(SYN_REPLY, struct.pack(">I", stream) + block)

    def data(self, stream: int, data: bytes, *, finished: bool = False) -> bytes:
        """Return data on a stream; ``finished`` half-closes it."""
        return struct.pack(">II", stream, (FLAG_FIN if finished else 0) << 24 | len(data)) + data

    def reset(self, stream: int, status: int = REFUSED_STREAM) -> bytes:
        """Return the frame that refuses a stream or gives it up."""
        return _frame(RST_STREAM, struct.pack(">II", stream, status))

    def ping(self, number: int) -> bytes:
        """Return the answer to a ping."""
        return _frame(PING, struct.pack(">I", number))

    def go_away(self, last_stream: int) -> bytes:
        """Return the frame that ends the connection in order."""
        return _frame(GOAWAY, struct.pack(">II", last_stream, 0))


def _frame(kind: int, payload: bytes) -> bytes:
    return struct.pack(">II", _CONTROL | 3 << 16 | kind, len(payload)) + payload


def _text(plain: bytes, position: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">I", plain, position)
    end = position + 4 + length
    if end > len(plain):
        raise SpdyError("a header block ends in the middle of a header")
    return plain[position + 4 : end].decode("utf-8", "replace"), end
