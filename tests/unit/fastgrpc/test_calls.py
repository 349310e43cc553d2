"""What gRPC puts on top of HTTP/2, as its protocol document has it."""

import gzip
import tracemalloc
import zlib
from unittest.mock import Mock

import pytest

from fastgrpc import calls
from fastgrpc.calling import ClientCall
from fastgrpc.calls import CallFailed, MessageReader, Status, frame_message
from fastgrpc.deadlines import BUCKET_S, Deadlines
from fastgrpc.events import DataReceived, HeadersReceived
from fastgrpc.headers import Headers
from fastgrpc.hpack import Fields


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(b"1H", 3600), (b"2M", 120), (b"3S", 3), (b"4m", 0.004), (b"5u", 5e-6), (b"6n", 6e-9), (b"99999999S", 99_999_999)],
)
def test_timeouts(text: bytes, seconds: float) -> None:
    assert calls.decode_timeout(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [b"", b"S", b"1", b"1s", b"-1S", b"1.5S", b"999999999S"])
def test_timeouts_that_are_none(text: bytes) -> None:
    with pytest.raises(CallFailed):
        calls.decode_timeout(text)


@pytest.mark.parametrize("seconds", [1e-6, 0.0123, 1.0, 99.0, 101.5, 7200.0, 1e6, 1e9])
def test_timeouts_go_through(seconds: float) -> None:
    coded = calls.encode_timeout(seconds)
    assert len(coded) <= 9
    assert calls.decode_timeout(coded) == pytest.approx(seconds, rel=1e-2)


def test_a_timeout_that_has_passed() -> None:
    assert calls.encode_timeout(-1) == b"1n"


@pytest.mark.parametrize(
    "text", ["", "plain", "100 %", "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"]
)
def test_messages_go_through_as_printable_ascii(text: str) -> None:
    coded = calls.encode_percent(text)
    assert all(0x20 <= byte <= 0x7E for byte in coded)
    assert calls.decode_percent(coded) == text


def test_a_message_that_is_not_in_order_is_shown_as_it_is() -> None:
    assert calls.decode_percent(b"50% off %zz %e2") == "50% off %zz \ufffd"


def test_metadata() -> None:
    metadata = (("x-text", "value"), ("x-bin", b"\0\xff\x10"), ("x-text", "again"))
    fields = calls.metadata_fields(metadata)
    assert fields[1] == (b"x-bin", b"AP8Q")
    assert calls.read_metadata(fields) == metadata


def test_metadata_of_others() -> None:
    fields = (
        (b"te", b"trailers"),
        (b"grpc-timeout", b"1S"),
        (b":path", b"/"),
        (b"x-bin", b"YQ==,Yg"),
        (b"user-agent", b"x"),
    )
    assert calls.read_metadata(fields) == (("x-bin", b"a"), ("x-bin", b"b"), ("user-agent", "x"))
    with pytest.raises(CallFailed):
        calls.read_metadata(((b"x-bin", b"*"),))


def test_spaces_at_the_ends_of_values_are_stripped_either_way() -> None:
    """gRPC's libraries send them, and HTTP/2 forbids them: whoever meets them may strip them, says gRPC's protocol."""
    headers = request((b"x", b"a b"), (b"y", b" \tv "), (b"z", b" "), (b"grpc-timeout", b"3S "))
    head = calls.read_call(headers)
    assert (headers.fault, head.metadata, head.timeout_s) == (None, (("x", "a b"), ("y", "v"), ("z", "")), 3.0)
    assert calls.metadata_fields((("x", " a b "), ("y", " "))) == ((b"x", b"a b"), (b"y", b""))
    for name, value in ((b"x", b"a\0 "), (b"x", b" \na"), (b"te", b"trailers "), (b"content-length", b" 1")):
        assert request((name, value)).fault is not None


def test_what_stands_often_in_metadata_is_kept_once() -> None:
    """Header compression makes one value of kilobytes into many at a byte each."""
    long, name = b"v" * 4000, b"n" * 4000
    (_, one), (_, other), (first, _), (second, _) = calls.read_metadata(
        ((b"a", long), (b"b", long), (name, b""), (name, b"x"))
    )
    assert one is other
    assert first is second


def test_lists_of_binary_values_have_an_end() -> None:
    """A byte of such a list becomes an entry: of 60 kB, megabytes."""
    assert len(calls.read_metadata(((b"x-bin", b"," * 2047),))) == 2048
    with pytest.raises(CallFailed, match="2048") as refused:
        calls.read_metadata(((b"x-bin", b"," * 2000), (b"y-bin", b"," * 1000)))
    assert refused.value.status is Status.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("name", ["grpc-x", ":path", "Upper", "sp ace", ""])
def test_metadata_that_cannot_be_called_so(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be called"):
        calls.metadata_fields(((name, "v"),))


def request(*more: tuple[bytes, bytes], method: bytes = b"POST", content_type: bytes = b"application/grpc") -> Headers:
    fields = ((b":method", method), (b":scheme", b"http"), (b":path", b"/s/m"), (b"content-type", content_type), *more)
    return Headers(fields)


def test_the_head_of_a_call() -> None:
    headers = request((b"grpc-timeout", b"3S"), (b"grpc-encoding", b"gzip"), (b"hasleader", b"true"))
    head = calls.read_call(headers)
    assert (head.path, head.timeout_s, head.encoding, head.refusal) == ("/s/m", 3.0, "gzip", None)
    assert head.metadata == (("hasleader", "true"),)
    assert calls.read_call(headers) is head


@pytest.mark.parametrize(
    ("headers", "refusal"),
    [
        (request(content_type=b"text/plain"), (b":status", b"415")),
        (request(content_type=b"application/grpc-web"), (b":status", b"415")),
        (request(content_type=b"application/grpcs"), (b":status", b"415")),
        (request(method=b"GET"), (b":status", b"405")),
        (request((b"grpc-timeout", b"soon")), (b"grpc-status", b"13")),
        (request((b"x-bin", b"*")), (b"grpc-status", b"13")),
    ],
    ids=["content type", "grpc-web", "a longer word", "method", "timeout", "metadata"],
)
def test_what_is_no_call(headers: Headers, refusal: tuple[bytes, bytes]) -> None:
    assert refusal in (calls.read_call(headers).refusal or ())


@pytest.mark.parametrize("kind", [b"", b"+proto", b"+json", b";charset=utf-8"])
def test_what_kinds_of_calls_there_are(kind: bytes) -> None:
    assert calls.read_call(request(content_type=b"application/grpc" + kind)).refusal is None


def end(fields: Fields) -> CallFailed | None:
    return calls.read_end(Headers(fields))


def test_how_calls_end() -> None:
    assert end(calls.trailers(Status.OK)) is None
    failed = CallFailed(Status.NOT_FOUND, "no ☺", details=b"\0d", metadata=(("x", "y"),))
    seen = end(calls.failure(failed))
    assert seen is not None
    assert (seen.status, seen.message, seen.details, seen.metadata) == (Status.NOT_FOUND, "no ☺", b"\0d", (("x", "y"),))


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (((b"grpc-status", b"99"),), Status.UNKNOWN),
        (((b"grpc-status", b"x"),), Status.UNKNOWN),
        (((b":status", b"200"),), Status.UNKNOWN),
        (((b":status", b"418"),), Status.UNKNOWN),
        (((b":status", b"400"),), Status.INTERNAL),
        (((b":status", b"401"),), Status.UNAUTHENTICATED),
        (((b":status", b"403"),), Status.PERMISSION_DENIED),
        (((b":status", b"404"),), Status.UNIMPLEMENTED),
        (((b":status", b"429"),), Status.UNAVAILABLE),
        (((b":status", b"502"),), Status.UNAVAILABLE),
        (((b":status", b"503"),), Status.UNAVAILABLE),
        (((b":status", b"504"),), Status.UNAVAILABLE),
        (((b":status", b"404"), (b"grpc-status", b"5")), Status.NOT_FOUND),
        ((), Status.UNKNOWN),
    ],
)
def test_ends_of_others(fields: Fields, status: Status) -> None:
    seen = end(fields)
    assert seen is not None
    assert seen.status is status


@pytest.mark.parametrize(
    ("content_type", "taken"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc;charset=utf-8", True),
        (b"Application/gRPC", True),
        (b"application/grpc-web", False),
        (b"text/html", False),
        (None, False),
    ],
)
def test_content_that_is_grpc_s(content_type: bytes | None, *, taken: bool) -> None:
    named: Fields = () if content_type is None else ((b"content-type", content_type),)
    headers = Headers(((b":status", b"200"), *named, (b"grpc-encoding", b"gzip"), (b"x", b"y")))
    head = calls.read_response(headers)
    assert head.is_grpc is taken
    assert calls.read_response(headers) is head  # read once, however often the same comes
    if taken:
        assert (head.encoding, head.metadata) == ("gzip", (("x", "y"),))


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        (((b":status", b"200"), (b"content-type", b"text/html")), Status.UNKNOWN, "200, content-type 'text/html'"),
        (((b":status", b"200"),), Status.UNKNOWN, "200, no content-type"),
        (((b":status", b"502"), (b"content-type", b"text/html")), Status.UNAVAILABLE, "502, content-type 'text/html'"),
        (((b":status", b"503"), (b"content-type", b"application/grpc")), Status.UNAVAILABLE, "503"),
        (((b":status", b"503"), (b"grpc-status", b"8"), (b"grpc-message", b"full")), Status.RESOURCE_EXHAUSTED, "full"),
        (((b":status", b"200"), (b"content-type", b"text/html"), (b"grpc-status", b"0")), Status.UNKNOWN, "text/html"),
    ],
)
def test_responses_that_are_none_of_grpc_s(fields: Fields, status: Status, text: str) -> None:
    headers = Headers(fields)
    assert not calls.read_response(headers).is_grpc
    refusal = calls.read_refusal(headers)
    assert refusal.status is status
    assert text in refusal.message


# -- messages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2, 5, 7, 1000])
def test_messages_in_pieces(step: int) -> None:
    messages = [b"", b"a", b"b" * 300, b"", b"c" * 7]
    data = b"".join(map(frame_message, messages))
    reader = MessageReader(max_bytes=300, encoding="identity")
    found: list[bytes] = []
    for at in range(0, len(data), step):
        found += reader.feed(data[at : at + step])
    assert found == messages
    assert reader.empty


def test_a_message_cut_off_is_noticed() -> None:
    reader = MessageReader(max_bytes=300, encoding="identity")
    assert reader.feed(frame_message(b"abc")[:-1]) == []
    assert not reader.empty


def compressed(data: bytes) -> bytes:
    return b"\1" + frame_message(data)[1:]


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_messages(encoding: str, pack: object) -> None:
    reader = MessageReader(max_bytes=1000, encoding=encoding)
    data = compressed(pack(b"x" * 900)) + frame_message(b"plain")  # type: ignore[operator]
    assert reader.feed(data) == [b"x" * 900, b"plain"]


@pytest.mark.parametrize(
    ("encoding", "data", "status"),
    [
        ("identity", frame_message(bytes(101)), Status.RESOURCE_EXHAUSTED),
        ("identity", frame_message(bytes(1 << 20))[:50], Status.RESOURCE_EXHAUSTED),  # known before it is there
        ("gzip", compressed(gzip.compress(bytes(1 << 20), mtime=0)), Status.RESOURCE_EXHAUSTED),  # a bomb
        ("gzip", compressed(b"no gzip"), Status.INTERNAL),
        ("gzip", compressed(gzip.compress(b"x", mtime=0)[:-4]), Status.INTERNAL),
        ("identity", compressed(b"x"), Status.INTERNAL),
        ("snappy", compressed(b"x"), Status.UNIMPLEMENTED),
        ("identity", b"\2" + frame_message(b"x")[1:], Status.INTERNAL),
    ],
)
def test_messages_that_are_refused(encoding: str, data: bytes, status: Status) -> None:
    max_bytes = 100 if encoding == "identity" else 2000
    with pytest.raises(CallFailed) as caught:
        MessageReader(max_bytes=max_bytes, encoding=encoding).feed(data)
    assert caught.value.status is status


async def test_who_compresses_by_what_we_do_not_know_learns_what_we_do() -> None:
    """As gRPC's document on compression has it: a server says UNIMPLEMENTED and what it knows, a client INTERNAL."""
    with pytest.raises(CallFailed) as caught:
        MessageReader(max_bytes=9, encoding="snappy").feed(compressed(b"x"))
    assert (b"grpc-accept-encoding", b"identity,deflate,gzip") in calls.only_trailers(caught.value)
    call = ClientCall(Mock(), 1, 9)
    fields = ((b":status", b"200"), calls.CONTENT_TYPE, (b"grpc-encoding", b"snappy"))
    call.tell(HeadersReceived(1, Headers(fields), ended=False))
    call.tell(DataReceived(1, compressed(b"x"), ended=False))
    with pytest.raises(CallFailed, match=r"INTERNAL.*snappy"):
        await call.receive()


# -- deadlines -----------------------------------------------------------------------------------------------------------


def test_deadlines_come_once_and_never_early() -> None:
    wheel: Deadlines[str] = Deadlines()
    wheel.add("late", 20.0)
    place = wheel.add("gone", 10.0)
    wheel.add("soon", 10.0)
    wheel.discard("gone", place)
    assert wheel.due(9.999) == []
    assert wheel.due(10.0 + 2 * BUCKET_S) == ["soon"]
    assert wheel.due(10.0 + 3 * BUCKET_S) == []
    wheel.add("early", 10.0)  # in the past already
    assert wheel.due(10.0 + 3 * BUCKET_S) == ["early"]
    assert wheel
    assert wheel.due(1000.0) == ["late"]
    assert not wheel


def test_a_bomb_is_not_unpacked_before_it_is_refused() -> None:
    bomb = compressed(gzip.compress(bytes(64 << 20)))
    reader = MessageReader(max_bytes=100_000, encoding="gzip")
    tracemalloc.start()
    try:
        with pytest.raises(CallFailed, match="larger than max"):
            reader.feed(bomb)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
