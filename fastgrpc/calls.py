"""What gRPC puts on top of HTTP/2: the headers of a call, messages in the data, and how a call ends.

Values and pure functions; the protocol is "gRPC over HTTP2" (PROTOCOL-HTTP2.md of the gRPC project).

Errors
    CallFailed    a call ended, or has to end, with a status other than OK
"""

import base64
import binascii
import re
import zlib
from collections.abc import Sequence
from enum import IntEnum

import msgspec

from .frames import Lead
from .headers import Headers
from .hpack import Field, Fields

Metadata = tuple[tuple[str, str | bytes], ...]  # bytes for names that end in "-bin", text for all others


class Status(IntEnum):
    """How a call ended."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class CallFailed(Exception):
    """The call ends with this.

    details: a serialised google.rpc.Status, if there is more to say.
    """

    def __init__(self, status: Status, message: str = "", *, details: bytes = b"", metadata: Metadata = ()) -> None:
        super().__init__(f"{status.name}: {message}")
        self.status = status
        self.message = message
        self.details = details
        self.metadata = metadata

    def anew(self) -> "CallFailed":
        """Return the same, not raised yet.

        An exception that was raised refers to the frames it passed; whoever of them keeps it would be kept by it.
        """
        return CallFailed(self.status, self.message, details=self.details, metadata=self.metadata)


class CallHead(msgspec.Struct, frozen=True):
    """What a client says before its first message."""

    path: str  # "/package.Service/Method"
    metadata: Metadata = ()
    timeout_s: float | None = None
    encoding: str = "identity"  # of messages that are marked as compressed
    refusal: Fields | None = None  # it is no call of ours at all: the HTTP response to give
    plain: bool = False  # nor meant as one: HTTP without gRPC


# -- the head of a call ------------------------------------------------------------------------------------------------

CONTENT_TYPE: Field = (b"content-type", b"application/grpc")
ACCEPTED = ("identity", "deflate", "gzip")
RESPONSE_HEAD: Fields = ((b":status", b"200"), CONTENT_TYPE, (b"grpc-accept-encoding", ",".join(ACCEPTED).encode()))
OK_TRAILERS: Fields = ((b"grpc-status", b"0"),)

MAX_ENTRIES = 2048  # of metadata; so many fields there may be, but each can be a list of binary values
_NOT_METADATA = frozenset({b"te", b"content-type", b"content-length"})


def read_call(headers: Headers) -> CallHead:
    """Return what a request's headers say; remembered with them."""
    if headers.memo is None:
        headers.memo = _read_call(headers)
    assert isinstance(headers.memo, CallHead)
    return headers.memo


def _read_call(headers: Headers) -> CallHead:
    path = headers.pseudo[b":path"].decode("latin-1")
    if not _is_grpc(headers):
        return CallHead(path, refusal=((b":status", b"415"),), plain=True)
    if headers.pseudo[b":method"] != b"POST":
        return CallHead(path, refusal=((b":status", b"405"), (b"allow", b"POST")))
    timeout_s, encoding = None, "identity"
    try:
        for name, value in headers.fields:
            if name == b"grpc-timeout":
                timeout_s = decode_timeout(value)
            elif name == b"grpc-encoding":
                encoding = value.decode("latin-1")
        metadata = read_metadata(headers.fields)
    except CallFailed as exc:
        return CallHead(path, refusal=only_trailers(exc))
    return CallHead(path, metadata, timeout_s, encoding)


def call_fields(
    path: str, *, authority: str, scheme: str = "http", metadata: Metadata = (), timeout_s: float | None = None
) -> Fields:
    """Return the headers that open a call."""
    fields: list[Field] = [
        (b":method", b"POST"),
        (b":scheme", scheme.encode()),
        (b":path", path.encode()),
        (b":authority", authority.encode()),
        (b"te", b"trailers"),
        CONTENT_TYPE,
        (b"user-agent", b"grpc-python-fastgrpc/1"),
        (b"grpc-accept-encoding", ",".join(ACCEPTED).encode()),
    ]
    if timeout_s is not None:
        fields.append((b"grpc-timeout", encode_timeout(timeout_s)))
    return (*fields, *metadata_fields(metadata))


_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MOST = 99_999_999  # eight digits


def decode_timeout(text: bytes) -> float:
    """Return a grpc-timeout in seconds. Raises CallFailed."""
    unit = _UNITS.get(text[-1:])
    if unit is None or not text[:-1].isdigit() or len(text) > 9:
        raise CallFailed(Status.INTERNAL, f"malformed grpc-timeout {text!r}")
    return int(text[:-1]) * unit


def encode_timeout(timeout_s: float) -> bytes:
    """Return ``timeout_s`` in the finest unit that can hold it; one that has passed already becomes 1 ns."""
    if timeout_s <= 0:
        return b"1n"
    for unit, seconds in ((b"u", 1e-6), (b"m", 1e-3), (b"S", 1.0), (b"M", 60.0)):
        if (count := timeout_s / seconds) <= _MOST:
            return b"%d%s" % (max(1, round(count)), unit)
    return b"%dH" % min(_MOST, round(timeout_s / 3600))


def read_metadata(fields: Fields) -> Metadata:
    """Return the fields that are neither HTTP's nor gRPC's own. Raises CallFailed."""
    found: list[tuple[str, str | bytes]] = []
    texts: dict[bytes, str] = {}  # header compression makes one value of kilobytes into many at a byte each
    for name, value in fields:
        if name[:1] == b":" or name[:5] == b"grpc-" or name in _NOT_METADATA:
            continue
        if (text := texts.get(name)) is None:
            text = texts[name] = name.decode("latin-1")
        if text.endswith("-bin"):
            found += [(text, _decode_base64(part)) for part in value.split(b",")]
            if len(found) > MAX_ENTRIES:
                raise CallFailed(Status.RESOURCE_EXHAUSTED, f"more than {MAX_ENTRIES} pieces of metadata")
            continue
        if (told := texts.get(value)) is None:
            told = texts[value] = value.decode("latin-1")
        found.append((text, told))
    return tuple(found)


def metadata_fields(metadata: Metadata) -> Fields:
    """Return metadata as header fields; spaces at an end of a value stay here.

    Raises ValueError for what cannot travel.
    """
    fields: list[Field] = []
    for name, value in metadata:
        if name.endswith("-bin"):
            assert isinstance(value, bytes), f"{name} is binary: give bytes"
            coded = base64.b64encode(value).rstrip(b"=")
        else:
            assert isinstance(value, str), f"{name} is text: give str, or let its name end in -bin"
            coded = value.encode("latin-1").strip(b" ")
            if not _PRINTABLE(coded):
                raise ValueError(f"metadata {name} has characters that cannot travel: {value!r}")
        if name.startswith(("grpc-", ":")) or not _NAME(name):
            raise ValueError(f"metadata cannot be called {name!r}")
        fields.append((name.encode(), coded))
    return tuple(fields)


_PRINTABLE = re.compile(rb"[\x20-\x7e]*").fullmatch
_NAME = re.compile(r"[0-9a-z_.\-]+").fullmatch


def _decode_base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error as exc:
        raise CallFailed(Status.INTERNAL, f"binary metadata is no base64: {exc}") from exc


class ResponseHead(msgspec.Struct, frozen=True):
    """What a server says before its first message."""

    metadata: Metadata | None = None  # None: it cannot be read
    encoding: str = "identity"  # of messages that are marked as compressed
    is_grpc: bool = True  # else see ``read_refusal``


def read_response(headers: Headers) -> ResponseHead:
    """Return what the headers of a response that goes on say; remembered with them."""
    if headers.memo is None:
        headers.memo = _read_response(headers)
    assert isinstance(headers.memo, ResponseHead)
    return headers.memo


def _read_response(headers: Headers) -> ResponseHead:
    if headers.status != 200 or not _is_grpc(headers):
        return ResponseHead(is_grpc=False)
    encoding = (headers.get(b"grpc-encoding") or b"identity").decode("latin-1")
    try:
        return ResponseHead(read_metadata(headers.fields), encoding)
    except CallFailed:
        return ResponseHead(None, encoding)


def read_refusal(headers: Headers) -> CallFailed:
    """Return how a call ends by the headers of a response that goes on, and is none of gRPC's."""
    return read_end(headers) or CallFailed(*_no_grpc(headers))


def _is_grpc(headers: Headers) -> bool:
    """Return whether content is gRPC's; that of gRPC-Web, whose name begins alike, is not."""
    return _GRPC_CONTENT(headers.get(b"content-type") or b"") is not None


_GRPC_CONTENT = re.compile(rb"application/grpc(?:[+; \t].*)?", re.IGNORECASE | re.DOTALL).fullmatch


def _no_grpc(headers: Headers) -> tuple[Status, str]:
    """Return how a call ends that something answered which knows no gRPC: a proxy, say ("HTTP to gRPC Status Code")."""
    text = f"HTTP status {headers.status or 'unknown'}"
    if headers.status and not _is_grpc(headers):
        content_type = headers.get(b"content-type")
        text += ", no content-type" if content_type is None else f", content-type {content_type.decode('latin-1')!r}"
    return _HTTP_STATUS.get(headers.status, Status.UNKNOWN), text


_HTTP_STATUS = {
    400: Status.INTERNAL,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.UNIMPLEMENTED,
    429: Status.UNAVAILABLE,
    502: Status.UNAVAILABLE,
    503: Status.UNAVAILABLE,
    504: Status.UNAVAILABLE,
}


# -- the end of a call -------------------------------------------------------------------------------------------------


def trailers(status: Status, message: str = "", *, details: bytes = b"", metadata: Metadata = ()) -> Fields:
    """Return the fields that end a call."""
    if status is Status.OK and not metadata:
        return OK_TRAILERS
    fields: list[Field] = [(b"grpc-status", b"%d" % status)]
    if message:
        fields.append((b"grpc-message", encode_percent(message)))
    if details:
        fields.append((b"grpc-status-details-bin", base64.b64encode(details).rstrip(b"=")))
    return (*fields, *metadata_fields(metadata))


def failure(exc: CallFailed) -> Fields:
    """Return the trailers that tell of ``exc``."""
    return trailers(exc.status, exc.message, details=exc.details, metadata=exc.metadata)


def only_trailers(exc: CallFailed) -> Fields:
    """Return the one block of a response that has nothing but its end."""
    return (*RESPONSE_HEAD, *failure(exc))  # whoever compressed by what we do not know learns here what we do


def read_end(headers: Headers) -> CallFailed | None:
    """Return how a call ended, by its trailers; None: well."""
    text = headers.get(b"grpc-status")
    if text is None:
        status, message = _no_grpc(headers)
        return CallFailed(status, f"no grpc-status; {message}")
    if text == b"0":
        return None
    status = Status(int(text)) if text.isdigit() and int(text) in Status.__members__.values() else Status.UNKNOWN
    message = decode_percent(headers.get(b"grpc-message") or b"")
    details = headers.get(b"grpc-status-details-bin")
    try:
        decoded = _decode_base64(details) if details else b""
        return CallFailed(status, message, details=decoded, metadata=read_metadata(headers.fields))
    except CallFailed:
        return CallFailed(status, message)


def encode_percent(text: str) -> bytes:
    """Return a message as it travels: printable ASCII but for the percent sign."""
    raw = text.encode("utf-8", "replace")
    return _TO_ESCAPE.sub(lambda found: b"%%%02X" % found.group()[0], raw)


def decode_percent(text: bytes) -> str:
    """Return what ``encode_percent`` was given; what is not in order is left as it is."""
    raw = _ESCAPED.sub(lambda found: bytes((int(found.group()[1:], 16),)), text)
    return raw.decode("utf-8", "replace")


_TO_ESCAPE = re.compile(rb"[^\x20-\x24\x26-\x7e]")
_ESCAPED = re.compile(rb"%[0-9a-fA-F]{2}")


# -- messages ----------------------------------------------------------------------------------------------------------

PREFIX_BYTES = 5  # compressed or not, length


def prefix(size: int) -> bytes:
    """Return what stands before a message of so many bytes in the data."""
    return b"\0" + size.to_bytes(4, "big")


LEAD = Lead(PREFIX_BYTES, prefix)


def frame_message(message: bytes) -> bytes:
    """Return a message as it stands in the data."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def only_message(data: bytes, max_bytes: int) -> bytes | None:
    """Return the one message that ``data`` is, if it is one, not compressed and not too large: nearly always."""
    size = len(data) - PREFIX_BYTES
    if 0 <= size <= max_bytes and data[0] == 0 and size == int.from_bytes(data[1:PREFIX_BYTES], "big"):
        return data[PREFIX_BYTES:]
    return None


def only_messages(contents: Sequence[bytes], max_bytes: int) -> list[bytes | None]:
    """Return what ``only_message`` does of each, by less: what comes together is much alike."""
    size, like = -1, b""
    messages: list[bytes | None] = []
    for data in contents:
        if len(data) == size and data.startswith(like):
            messages.append(data[PREFIX_BYTES:])
        else:
            message = only_message(data, max_bytes)
            messages.append(message)
            if message is not None:
                size, like = len(data), data[:PREFIX_BYTES]
    return messages


class MessageReader:
    """Finds the messages in one direction of one call."""

    __slots__ = ("_buffer", "_encoding", "_max_bytes", "_unknown")

    def __init__(self, *, max_bytes: int, encoding: str, unknown: Status = Status.UNIMPLEMENTED) -> None:
        """Begin. unknown: how a call ends whose encoding we do not know; as the server, which may not have it yet."""
        self._max_bytes = max_bytes
        self._encoding = encoding
        self._unknown = unknown
        self._buffer = bytearray()

    @property
    def empty(self) -> bool:
        """Return whether every message that began is whole."""
        return not self._buffer

    @property
    def waiting_bytes(self) -> int:
        """Return how much has come of a message that is not whole."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take data in; return the messages that are whole now. Raises CallFailed."""
        buffer = self._buffer
        if not buffer and (message := only_message(data, self._max_bytes)) is not None:
            return [message]  # nearly always
        buffer += data
        messages: list[bytes] = []
        at = 0
        while len(buffer) - at >= PREFIX_BYTES:
            begin = at + PREFIX_BYTES
            length = int.from_bytes(buffer[at + 1 : begin], "big")
            self._check(length)
            if len(buffer) - begin < length:
                break
            messages.append(self._message(buffer[at], bytes(buffer[begin : begin + length])))
            at = begin + length
        del buffer[:at]
        return messages

    def _check(self, length: int) -> None:
        if length > self._max_bytes:
            # Go's words, which clients may know.
            text = f"grpc: received message larger than max ({length} vs. {self._max_bytes})"
            raise CallFailed(Status.RESOURCE_EXHAUSTED, text)

    def _message(self, compressed: int, data: bytes) -> bytes:
        self._check(len(data))
        if compressed == 0:
            return data
        if compressed != 1:
            raise CallFailed(Status.INTERNAL, f"a message begins with {compressed} instead of 0 or 1")
        if self._encoding == "identity":
            raise CallFailed(Status.INTERNAL, "a message is marked as compressed, and no encoding is named")
        if self._encoding not in _WINDOW_BITS:
            supported = ", ".join(ACCEPTED)
            raise CallFailed(self._unknown, f"compression {self._encoding!r} is not known; {supported} are")
        return self._decompress(data)

    def _decompress(self, data: bytes) -> bytes:
        inflate = zlib.decompressobj(_WINDOW_BITS[self._encoding])
        try:
            plain = inflate.decompress(data, self._max_bytes + 1)
        except zlib.error as exc:
            raise CallFailed(Status.INTERNAL, f"a message cannot be decompressed: {exc}") from exc
        self._check(len(plain))
        if not inflate.eof:
            raise CallFailed(Status.INTERNAL, "a compressed message is cut off")
        return plain


_WINDOW_BITS = {"gzip": 31, "deflate": 15}
