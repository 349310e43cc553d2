"""What a server must and must not take, section by section of RFC 9113, as h2spec has it."""

from collections.abc import Sequence

import pytest
from msgspec.structs import asdict, replace

from fastgrpc import frames
from fastgrpc.connection import Connection, Refused
from fastgrpc.events import (
    ConnectionEnded,
    DataReceived,
    Event,
    GoAwayReceived,
    HeadersReceived,
    Limits,
    PingAcknowledged,
    RequestsReceived,
    SendProgress,
    StreamEnded,
    TrailersReceived,
)
from fastgrpc.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ErrorCode,
    Lead,
    Setting,
    frame,
)
from fastgrpc.headers import Headers
from fastgrpc.hpack import Encoder, Fields
from fastgrpc.outbox import Outbox, Outgoing

SMALL = Limits(
    streams=3,
    window_bytes=65_535,
    connection_window_bytes=65_535 * 2,
    frame_bytes=1 << 14,
    header_list_bytes=4096,
    header_block_bytes=8192,
    nuisances=100,
    nuisances_per_s=10,
)
REQUEST: Fields = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/s/m"), (b":authority", b"a"))


def block(*fields: tuple[bytes, bytes]) -> bytes:
    return Encoder().encode(fields or REQUEST)


def plus(*fields: tuple[bytes, bytes]) -> bytes:
    return block(*REQUEST, *fields)


def without(name: bytes) -> bytes:
    return block(*(field for field in REQUEST if field[0] != name))


def headers(stream: int = 1, flags: int = END_HEADERS, payload: bytes | None = None) -> bytes:
    return frame(HEADERS, flags, stream, block() if payload is None else payload)


def settings(*values: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(n.to_bytes(2, "big") + v.to_bytes(4, "big") for n, v in values))


HELLO = PREFACE + settings()
WHOLE = END_HEADERS | END_STREAM
CODE4 = (8).to_bytes(4, "big")


def word(number: int) -> bytes:
    return number.to_bytes(4, "big")


def server(limits: Limits = SMALL) -> Connection:
    connection = Connection(client=False, limits=limits)
    assert connection.receive(HELLO, 0.0) == []
    connection.take_output()
    return connection


def sent(connection: Connection) -> list[frames.Frame]:
    output, found, at = connection.take_output().removeprefix(PREFACE), list[frames.Frame](), 0
    while (taken := frames.frame_at(output, at, 1 << 24)) is not None:
        frame, at = taken
        found.append(frame)
    assert at == len(output)
    return found


def fate(connection: Connection, events: Sequence[Event]) -> str:
    """Return what became of it: "goaway CODE", "reset STREAM CODE", or "fine"."""
    assert all(isinstance(event, Event) for event in events)
    for kind, _, stream, payload in sent(connection):
        if kind == GOAWAY:
            assert connection.ended
            assert isinstance(events[-1], ConnectionEnded)
            return f"goaway {ErrorCode(frames.read_goaway(payload)[1]).name}"
        if kind == RST_STREAM:
            assert not connection.is_open(stream)
            return f"reset {stream} {ErrorCode(int.from_bytes(payload, 'big')).name}"
    assert not connection.ended
    return "fine"


TABLE: tuple[tuple[str, bytes, str], ...] = (
    # -- 4: frames
    ("4.1 an unknown kind of frame is ignored", frame(0x16, 0xFF, 0, b"what"), "fine"),
    ("4.1 the reserved bit is ignored", headers(1 | 1 << 31), "fine"),
    ("4.2 a frame above the limit", frame(DATA, 0, 1, bytes((1 << 14) + 1)), "goaway FRAME_SIZE_ERROR"),
    ("4.2 a frame of just the limit", headers() + frame(DATA, 0, 1, bytes(1 << 14)), "fine"),
    ("4.3 a block that cannot be decoded", headers(payload=b"\x80"), "goaway COMPRESSION_ERROR"),
    ("4.3 another frame within a block", headers(flags=0) + frame(PING, 0, 0, bytes(8)), "goaway PROTOCOL_ERROR"),
    ("4.3 another stream's block within", headers(flags=0) + headers(3), "goaway PROTOCOL_ERROR"),
    ("4.3 an unknown frame within a block", headers(flags=0) + frame(0x16, 0, 1, b""), "goaway PROTOCOL_ERROR"),
    # -- 5.1: states
    ("5.1 idle: DATA", frame(DATA, 0, 1, b"x"), "goaway PROTOCOL_ERROR"),
    ("5.1 idle: RST_STREAM", frame(RST_STREAM, 0, 1, CODE4), "goaway PROTOCOL_ERROR"),
    ("5.1 idle: WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 1, word(1)), "goaway PROTOCOL_ERROR"),
    ("5.1 idle: CONTINUATION", frame(CONTINUATION, END_HEADERS, 1, block()), "goaway PROTOCOL_ERROR"),
    ("5.1 half closed: DATA", headers(flags=WHOLE) + frame(DATA, 0, 1, b"x"), "reset 1 STREAM_CLOSED"),
    ("5.1 half closed: HEADERS", headers(flags=WHOLE) + headers(flags=WHOLE), "reset 1 STREAM_CLOSED"),
    ("5.1 half closed: CONTINUATION", headers(flags=WHOLE) + frame(CONTINUATION, 4, 1, b""), "goaway PROTOCOL_ERROR"),
    ("5.1 half closed: WINDOW_UPDATE", headers(flags=WHOLE) + frame(WINDOW_UPDATE, 0, 1, word(1)), "fine"),
    ("5.1 half closed: PRIORITY", headers(flags=WHOLE) + frame(PRIORITY, 0, 1, bytes(5)), "fine"),
    ("5.1 closed: DATA", headers() + frame(RST_STREAM, 0, 1, CODE4) + frame(DATA, 0, 1, b"x"), "reset 1 STREAM_CLOSED"),
    ("5.1 closed: HEADERS", headers() + frame(RST_STREAM, 0, 1, CODE4) + headers(), "goaway STREAM_CLOSED"),
    ("5.1 closed: RST_STREAM", headers() + frame(RST_STREAM, 0, 1, CODE4) * 2, "fine"),
    ("5.1 closed: WINDOW_UPDATE", headers() + frame(RST_STREAM, 0, 1, CODE4) + frame(8, 0, 1, word(1)), "fine"),
    ("5.1.1 a stream of even number", headers(2), "goaway PROTOCOL_ERROR"),
    ("5.1.1 numbers rise", headers(5) + headers(3), "goaway STREAM_CLOSED"),
    ("5.1.2 more streams than allowed", b"".join(map(headers, (1, 3, 5, 7))), "reset 7 REFUSED_STREAM"),
    # -- 5.2, 6.9: windows
    ("5.2 beyond the stream's window", headers() + frame(DATA, 0, 1, bytes(16_384)) * 4, "reset 1 FLOW_CONTROL_ERROR"),
    (
        "5.2 beyond the connection's window",
        b"".join(headers(n) + frame(DATA, 0, n, bytes(16_384)) * 3 for n in (1, 3, 5)),
        "goaway FLOW_CONTROL_ERROR",
    ),
    # -- 6.1: DATA
    ("6.1 on no stream", frame(DATA, 0, 0, b"x"), "goaway PROTOCOL_ERROR"),
    ("6.1 padding", headers() + frame(DATA, PADDED, 1, b"\x02x\0\0"), "fine"),
    ("6.1 padding as long as the frame", headers() + frame(DATA, PADDED, 1, b"\x04x\0\0"), "goaway PROTOCOL_ERROR"),
    ("6.1 padded and empty", headers() + frame(DATA, PADDED, 1, b""), "goaway PROTOCOL_ERROR"),
    # -- 6.2: HEADERS
    ("6.2 on no stream", headers(0), "goaway PROTOCOL_ERROR"),
    ("6.2 padding", headers(flags=WHOLE | PADDED, payload=b"\x02" + block() + b"\0\0"), "fine"),
    ("6.2 too much padding", headers(flags=WHOLE | PADDED, payload=b"\xff" + block()), "goaway PROTOCOL_ERROR"),
    ("6.2 with priority", headers(flags=WHOLE | HAS_PRIORITY, payload=bytes(5) + block()), "fine"),
    ("6.2 too short for it", headers(flags=WHOLE | HAS_PRIORITY, payload=bytes(4)), "goaway FRAME_SIZE_ERROR"),
    ("6.2 in several frames", headers(flags=0, payload=block()[:3]) + frame(9, 4, 1, block()[3:]), "fine"),
    # -- 6.3: PRIORITY
    ("6.3 on no stream", frame(PRIORITY, 0, 0, bytes(5)), "goaway PROTOCOL_ERROR"),
    ("6.3 of four bytes", headers() + frame(PRIORITY, 0, 1, bytes(4)), "reset 1 FRAME_SIZE_ERROR"),
    # -- 6.4: RST_STREAM
    ("6.4 on no stream", frame(RST_STREAM, 0, 0, CODE4), "goaway PROTOCOL_ERROR"),
    ("6.4 of three bytes", headers() + frame(RST_STREAM, 0, 1, bytes(3)), "goaway FRAME_SIZE_ERROR"),
    # -- 6.5: SETTINGS
    ("6.5 an acknowledgement with content", frame(SETTINGS, ACK, 0, bytes(6)), "goaway FRAME_SIZE_ERROR"),
    ("6.5 on a stream", frame(SETTINGS, 0, 1, b""), "goaway PROTOCOL_ERROR"),
    ("6.5 of five bytes", frame(SETTINGS, 0, 0, bytes(5)), "goaway FRAME_SIZE_ERROR"),
    ("6.5.2 ENABLE_PUSH of 2", settings((Setting.ENABLE_PUSH, 2)), "goaway PROTOCOL_ERROR"),
    ("6.5.2 a window too large", settings((Setting.INITIAL_WINDOW_SIZE, 1 << 31)), "goaway FLOW_CONTROL_ERROR"),
    ("6.5.2 a frame size too small", settings((Setting.MAX_FRAME_SIZE, 16_383)), "goaway PROTOCOL_ERROR"),
    ("6.5.2 a frame size too large", settings((Setting.MAX_FRAME_SIZE, 1 << 24)), "goaway PROTOCOL_ERROR"),
    ("6.5.2 an unknown setting", settings((0xFF, 1)), "fine"),
    # -- 6.6: PUSH_PROMISE
    ("6.6 from a client", headers() + frame(PUSH_PROMISE, 4, 1, word(2) + block()), "goaway PROTOCOL_ERROR"),
    # -- 6.7: PING
    ("6.7 an acknowledgement", frame(PING, ACK, 0, bytes(8)), "fine"),
    ("6.7 on a stream", frame(PING, 0, 1, bytes(8)), "goaway PROTOCOL_ERROR"),
    ("6.7 of six bytes", frame(PING, 0, 0, bytes(6)), "goaway FRAME_SIZE_ERROR"),
    # -- 6.8: GOAWAY
    ("6.8 on a stream", frame(GOAWAY, 0, 1, bytes(8)), "goaway PROTOCOL_ERROR"),
    ("6.8 too short", frame(GOAWAY, 0, 0, bytes(7)), "goaway FRAME_SIZE_ERROR"),
    # -- 6.9: WINDOW_UPDATE
    ("6.9 by nothing", frame(WINDOW_UPDATE, 0, 0, word(0)), "goaway PROTOCOL_ERROR"),
    ("6.9 by nothing on a stream", headers() + frame(WINDOW_UPDATE, 0, 1, word(0)), "reset 1 PROTOCOL_ERROR"),
    ("6.9 of three bytes", frame(WINDOW_UPDATE, 0, 0, bytes(3)), "goaway FRAME_SIZE_ERROR"),
    ("6.9.1 beyond 2^31-1", frame(WINDOW_UPDATE, 0, 0, word((1 << 31) - 1)), "goaway FLOW_CONTROL_ERROR"),
    (
        "6.9.1 beyond 2^31-1 on a stream",
        headers() + frame(WINDOW_UPDATE, 0, 1, word((1 << 31) - 1)),
        "reset 1 FLOW_CONTROL_ERROR",
    ),
    # -- 6.10: CONTINUATION
    ("6.10 on no stream", headers(flags=0) + frame(CONTINUATION, 4, 0, b""), "goaway PROTOCOL_ERROR"),
    ("6.10 after the end of a block", headers() + frame(CONTINUATION, 4, 1, b""), "goaway PROTOCOL_ERROR"),
    ("6.10 a block without end", headers(flags=0) + frame(9, 0, 1, bytes(4096)) * 3, "goaway ENHANCE_YOUR_CALM"),
    # -- 8: requests
    (
        "8.1 a second block that ends nothing",
        headers() + headers(payload=block((b"x", b"y"))),
        "reset 1 PROTOCOL_ERROR",
    ),
    ("8.1 trailers", headers() + headers(flags=WHOLE, payload=block((b"x", b"y"))), "fine"),
    ("8.1 trailers with a pseudo-header", headers() + headers(flags=WHOLE), "reset 1 PROTOCOL_ERROR"),
    (
        "8.1.1 more than content-length",
        headers(payload=plus((b"content-length", b"1"))) + frame(DATA, 0, 1, b"xx"),
        "reset 1 PROTOCOL_ERROR",
    ),
    (
        "8.1.1 less than content-length",
        headers(payload=plus((b"content-length", b"3"))) + frame(DATA, 1, 1, b"xx"),
        "reset 1 PROTOCOL_ERROR",
    ),
    ("8.1.1 just content-length", headers(payload=plus((b"content-length", b"2"))) + frame(DATA, 1, 1, b"xx"), "fine"),
    (
        "8.1.1 content-length and no content",
        headers(flags=WHOLE, payload=plus((b"content-length", b"2"))),
        "reset 1 PROTOCOL_ERROR",
    ),
    (
        "8.1.1 a content-length that is none",
        headers(payload=plus((b"content-length", b"-2"))),
        "reset 1 PROTOCOL_ERROR",
    ),
    ("8.2.1 a name in upper case", headers(payload=plus((b"X-Y", b""))), "reset 1 PROTOCOL_ERROR"),
    ("8.2.1 a name with a space", headers(payload=plus((b"x y", b""))), "reset 1 PROTOCOL_ERROR"),
    ("8.2.1 an empty name", headers(payload=plus((b"", b"x"))), "reset 1 PROTOCOL_ERROR"),
    ("8.2.1 a value with a line end", headers(payload=plus((b"x", b"a\r\nb"))), "reset 1 PROTOCOL_ERROR"),
    ("8.2.1 a value with a space at its ends is taken, as gRPC asks", headers(payload=plus((b"x", b" a "))), "fine"),
    (
        "8.2.1 a path that begins with a space",
        headers(payload=block(*(REQUEST[:2]), (b":path", b" /s/m"))),
        "reset 1 PROTOCOL_ERROR",
    ),
    ("8.2.2 connection", headers(payload=plus((b"connection", b"close"))), "reset 1 PROTOCOL_ERROR"),
    ("8.2.2 transfer-encoding", headers(payload=plus((b"transfer-encoding", b"chunked"))), "reset 1 PROTOCOL_ERROR"),
    ("8.2.2 te other than trailers", headers(payload=plus((b"te", b"gzip"))), "reset 1 PROTOCOL_ERROR"),
    ("8.2.2 te: trailers", headers(payload=plus((b"te", b"trailers"))), "fine"),
    ("8.3 an unknown pseudo-header", headers(payload=plus((b":test", b"x"))), "reset 1 PROTOCOL_ERROR"),
    ("8.3 a response's pseudo-header", headers(payload=plus((b":status", b"200"))), "reset 1 PROTOCOL_ERROR"),
    ("8.3 a pseudo-header after a field", headers(payload=block((b"x", b"y"), *REQUEST)), "reset 1 PROTOCOL_ERROR"),
    ("8.3.1 twice", headers(payload=block(*REQUEST, (b":path", b"/"))), "reset 1 PROTOCOL_ERROR"),
    ("8.3.1 no :method", headers(payload=without(b":method")), "reset 1 PROTOCOL_ERROR"),
    ("8.3.1 no :scheme", headers(payload=without(b":scheme")), "reset 1 PROTOCOL_ERROR"),
    ("8.3.1 no :path", headers(payload=without(b":path")), "reset 1 PROTOCOL_ERROR"),
    ("8.3.1 an empty :path", headers(payload=block(*(REQUEST[:2]), (b":path", b""))), "reset 1 PROTOCOL_ERROR"),
    ("8.3.1 no :authority is fine", headers(payload=without(b":authority")), "fine"),
    # -- 10.5: floods
    ("10.5 pings", frame(PING, 0, 0, bytes(8)) * 101, "goaway ENHANCE_YOUR_CALM"),
    ("10.5 settings", settings() * 101, "goaway ENHANCE_YOUR_CALM"),
    ("10.5 empty data", headers() + frame(DATA, 0, 1, b"") * 101, "goaway ENHANCE_YOUR_CALM"),
    ("10.5 empty continuations", headers(flags=0) + frame(9, 0, 1, b"") * 101, "goaway ENHANCE_YOUR_CALM"),
    (
        "10.5 rapid reset",
        b"".join(headers(n) + frame(RST_STREAM, 0, n, CODE4) for n in range(1, 203, 2)),
        "goaway ENHANCE_YOUR_CALM",
    ),
    ("10.5.1 a long list of headers", headers(payload=plus((b"x", b"y" * 5000))), "reset 1 ENHANCE_YOUR_CALM"),
)


@pytest.mark.parametrize(("received", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_server(received: bytes, expected: str) -> None:
    whole = server()
    assert fate(whole, whole.receive(received, 0.0)) == expected
    # Bytes come as they like: the same, a few at a time.
    cut = server()
    events: list[Event] = []
    for at in range(0, len(received), 7):
        events += cut.receive(received[at : at + 7], 0.0)
    assert fate(cut, events) == expected


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", "goaway PROTOCOL_ERROR", id="3.4 no preface"),
        pytest.param(PREFACE + headers(), "goaway PROTOCOL_ERROR", id="3.4 a preface without settings"),
        pytest.param(
            PREFACE + frame(SETTINGS, ACK, 0, b""), "goaway PROTOCOL_ERROR", id="3.4 an acknowledgement first"
        ),
        pytest.param(PREFACE[:10], "fine", id="3.4 half a preface"),
    ],
)
def test_beginning(first: bytes, expected: str) -> None:
    connection = Connection(client=False, limits=SMALL)
    assert fate(connection, connection.receive(first, 0.0)) == expected


def test_settings_and_pings_are_answered() -> None:
    connection = server()
    connection.receive(settings((Setting.MAX_FRAME_SIZE, 1 << 15)) + frame(PING, 0, 0, b"12345678"), 0.0)
    assert sent(connection) == [(SETTINGS, ACK, 0, b""), (PING, ACK, 0, b"12345678")]


def test_a_budget_fills_up_again() -> None:
    connection = server()
    connection.receive(frame(PING, 0, 0, bytes(8)) * 99, 0.0)
    connection.receive(frame(PING, 0, 0, bytes(8)) * 50, 5.0)
    assert not connection.ended


def test_a_ping_for_data_is_no_nuisance() -> None:
    """Go measures its way by one with whatever data it gets, and may do so a thousand times a second."""
    connection, ping = server(), frame(PING, 0, 0, bytes(8))
    connection.receive(headers() + frame(WINDOW_UPDATE, 0, 0, word(10_000)), 0.0)
    for _ in range(200):
        connection.send_data(1, b"x")
        connection.receive(ping, 0.0)
    assert not connection.ended
    assert len([kind for kind, *_ in sent(connection) if kind == PING]) == 200
    # One for each piece of data, that is; and room for more is no data.
    connection.send_data(1, b"x")
    connection.receive(ping, 0.0)
    floods = ping * 50 + (frame(WINDOW_UPDATE, 0, 0, word(1)) + ping) * 49  # the settings were one, too
    assert fate(connection, connection.receive(floods, 0.0)) == "fine"
    assert fate(connection, connection.receive(ping, 0.0)) == "goaway ENHANCE_YOUR_CALM"


def test_what_was_told_is_not_kept() -> None:
    """A client that is idle afterwards would hold all that its last read brought."""
    connection = server()
    assert connection.receive(headers(flags=WHOLE), 0.0)
    assert connection._events == []


def in_frames(number: int, fields: Fields) -> bytes:
    """Return a request's headers in as many frames as it takes."""
    coded, most = block(*fields), 1 << 14
    first = frame(HEADERS, END_STREAM, number, coded[:most])
    rest = [frame(CONTINUATION, 0, number, coded[at : at + most]) for at in range(most, len(coded), most)]
    return b"".join((first, *rest, frame(CONTINUATION, END_HEADERS, number, b"")))


def test_who_says_too_much_loses_its_stream_and_not_all_that_others_have_on_the_connection() -> None:
    connection = server(Limits())
    long = (*REQUEST, *((b"x%d" % number, b"\x01" * 1000) for number in range(100)))
    connection.receive(headers(), 0.0)
    assert fate(connection, connection.receive(in_frames(3, long), 0.0)) == "reset 3 ENHANCE_YOUR_CALM"
    assert fate(connection, connection.receive(headers(5), 0.0)) == "fine"
    assert connection.open_streams == 2
    endless = in_frames(7, long * 3)
    assert fate(connection, connection.receive(endless, 0.0)) == "goaway ENHANCE_YOUR_CALM"


def test_too_much_is_paid_for_by_its_length() -> None:
    """A byte of it is as much work as any, and all that comes of it is a refusal."""
    for size, expected in ((7500, "goaway ENHANCE_YOUR_CALM"), (4096, "reset 9 ENHANCE_YOUR_CALM")):
        connection = server()
        for number in (1, 3):
            connection.receive(headers(number, payload=plus((b"x", b"\x01" * size))), 0.0)
            connection.take_output()
        events = connection.receive(headers(9, payload=plus((b"x", b"\x01" * size))), 0.0)
        assert fate(connection, events) == expected


def test_frames_before_a_fault_count() -> None:
    """5.4.1: what was in order is told before the end."""
    events = server().receive(headers(flags=WHOLE) + frame(DATA, 0, 0, b""), 0.0)
    assert [type(event) for event in events] == [HeadersReceived, ConnectionEnded]


def test_late_frames_of_a_reset_stream_mean_nothing() -> None:
    """5.1: the peer may have sent them before it knew; they still count for the window, and for the tables."""
    connection = server()
    connection.receive(headers(), 0.0)
    connection.reset(1, ErrorCode.CANCEL)
    connection.take_output()
    late = frame(DATA, 0, 1, b"x") + frame(WINDOW_UPDATE, 0, 1, word(1)) + headers(1, WHOLE, block((b"x", b"y")))
    assert connection.receive(late, 0.0) == []
    assert sent(connection) == []


def test_data_under_way_when_its_stream_is_reset_is_no_nuisance() -> None:
    """As many small frames as the stream's window held; what the peer was never granted is one."""
    connection = server()
    connection.receive(headers(), 0.0)
    connection.reset(1, ErrorCode.CANCEL)
    connection.take_output()
    late = frame(DATA, 0, 1, bytes(65)) * 1008  # 65,520 of 65,535 bytes; 100 nuisances are allowed
    assert fate(connection, connection.receive(late, 0.0)) == "fine"
    assert fate(connection, connection.receive(frame(DATA, 0, 1, bytes(16)) * 101, 0.0)) == "goaway ENHANCE_YOUR_CALM"


PLAIN = b"\x83\x86\x84"  # POST, http and / by their places in the static table: a block that changes no table
SECURE = b"\x83\x87\x84"  # the same by https, which is as long
TWO_BYTES = PLAIN + b"\x0f\x0d\x012"  # and content-length 2


def acquainted(limits: Limits = SMALL) -> Connection:
    """Return a server that has met these blocks, and takes requests with them in one go."""
    connection = server(limits)
    connection.receive(headers(1, WHOLE, PLAIN), 0.0)
    connection.receive(headers(3, END_HEADERS, TWO_BYTES) + frame(DATA, END_STREAM, 3, b"12"), 0.0)
    for number in (1, 3):
        connection.respond(number, HEAD, b"", END)
    connection.take_output()
    return connection


def whole(number: int, data: bytes = b"", payload: bytes = PLAIN) -> bytes:
    return headers(number, END_HEADERS, payload) + frame(DATA, END_STREAM, number, data)


def test_a_request_that_comes_whole_is_one_event() -> None:
    connection = acquainted()
    (asked,) = connection.receive(whole(5, b"question"), 0.0)
    assert isinstance(asked, RequestsReceived)
    assert (asked.streams, asked.headers.pseudo[b":path"], asked.contents) == ([5], b"/", [b"question"])
    connection.respond(5, HEAD, b"answer", END)
    assert [kind for kind, _, _, _ in sent(connection)] == [HEADERS, DATA, HEADERS]
    assert connection.open_streams == 0


def test_whole_requests_are_told_of_as_they_become_whole() -> None:
    """A client may send the headers of many requests first."""
    connection = acquainted()
    heads = b"".join(headers(number, payload=PLAIN) for number in (5, 7, 9))
    ends = b"".join(frame(DATA, END_STREAM, number, b"%d" % number) for number in (7, 5))
    whole, nine = connection.receive(heads + ends, 0.0)
    assert isinstance(whole, RequestsReceived)
    assert isinstance(nine, HeadersReceived)
    assert [whole.streams, whole.contents, nine.stream] == [[7, 5], [b"7", b"5"], 9]
    assert connection.receive(frame(DATA, END_STREAM, 9, b"9"), 0.0) == [DataReceived(9, b"9", ended=True)]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        pytest.param(frame(DATA, 0, 5, b"x"), [HeadersReceived, DataReceived], id="data that is not the last"),
        pytest.param(frame(RST_STREAM, 0, 5, word(8)), [HeadersReceived, StreamEnded], id="reset"),
        pytest.param(headers(5, WHOLE, block((b"x", b"y"))), [HeadersReceived, TrailersReceived], id="trailers"),
        pytest.param(frame(DATA, 0, 0, b""), [HeadersReceived, ConnectionEnded], id="end of all"),
    ],
)
def test_what_begins_is_told_of_before_anything_else_of_it(more: bytes, expected: list[type]) -> None:
    connection = acquainted()
    assert [type(event) for event in connection.receive(headers(5, payload=PLAIN) + more, 0.0)] == expected


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        pytest.param(whole(6), "goaway PROTOCOL_ERROR", id="even number"),
        pytest.param(whole(3), "goaway STREAM_CLOSED", id="number used before"),
        pytest.param(headers(5, payload=PLAIN) + whole(5), "reset 5 PROTOCOL_ERROR", id="open already"),
        pytest.param(whole(5, b"x", TWO_BYTES), "reset 5 PROTOCOL_ERROR", id="shorter than said"),
        pytest.param(
            b"".join(headers(number, payload=PLAIN) for number in (5, 7, 9)) + whole(11),
            "reset 11 REFUSED_STREAM",
            id="too many at once",
        ),
        pytest.param(headers(5, 0, PLAIN) + whole(7), "goaway PROTOCOL_ERROR", id="inside a block"),
    ],
)
def test_a_whole_request_is_looked_at_as_closely_as_its_parts(received: bytes, expected: str) -> None:
    connection = acquainted()
    assert fate(connection, connection.receive(received, 0.0)) == expected
    connection = acquainted()
    events = [event for at in range(len(received)) for event in connection.receive(received[at : at + 1], 0.0)]
    assert fate(connection, events) == expected


def told(reads: Sequence[bytes]) -> tuple[object, ...]:
    """Return what a server tells of each stream, at one go or in parts, and what is left."""
    connection = acquainted(replace(SMALL, streams=10, connection_window_bytes=65_535))
    connection.receive(headers(5, WHOLE, SECURE), 0.0)
    found: dict[int, list[object]] = {}
    for event in [event for read in reads for event in connection.receive(read, 0.0)]:
        match event:
            case RequestsReceived():
                for stream, data in zip(event.streams, event.contents, strict=True):
                    found.setdefault(stream, []).extend([(event.headers.fields, False), (data, True)])
            case HeadersReceived():
                found.setdefault(event.stream, []).append((event.headers.fields, event.ended))
            case DataReceived():
                found.setdefault(event.stream, []).append((event.data, event.ended))
            case _:
                found.setdefault(getattr(event, "stream", 0), []).append(type(event))
    return found, connection._window, connection.last_stream, connection.ended


ROW = (7, 9, 11, 13, 15)
PLAIN_ROW = [headers(number, payload=PLAIN) for number in ROW]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param([headers(n, WHOLE if n == 11 else END_HEADERS, PLAIN) for n in ROW], id="one ends at once"),
        pytest.param([headers(n, payload=SECURE if n == 11 else PLAIN) for n in ROW], id="one asks otherwise"),
        pytest.param([headers(n, payload=PLAIN) for n in (7, 9, 13, 11)], id="one is late"),
        pytest.param(
            PLAIN_ROW + [frame(DATA, 0 if n == 11 else END_STREAM, n, b"data") for n in ROW], id="one has more data"
        ),
        pytest.param(
            [headers(n, payload=SECURE if n == 11 else PLAIN) for n in ROW]
            + [frame(DATA, END_STREAM, n, b"data") for n in ROW],
            id="one's data belongs to what asks otherwise",
        ),
        pytest.param(
            PLAIN_ROW + [frame(DATA, END_STREAM, n, bytes(16_384)) for n in ROW], id="one is beyond the window"
        ),
    ],
)
def test_frames_that_only_look_alike_are_told_apart(row: list[bytes]) -> None:
    """What a client sends in a row is taken at one go, as far as it is alike."""
    assert told([b"".join(row)]) == told(row)


def test_a_whole_request_before_any_settings_is_none() -> None:
    connection = Connection(client=False, limits=SMALL)
    assert fate(connection, connection.receive(PREFACE + whole(1), 0.0)) == "goaway PROTOCOL_ERROR"


def test_whole_requests_count_for_the_connection_s_window() -> None:
    """Whoever takes them says when they are consumed."""
    connection = acquainted()
    for number in range(5, 205, 2):
        connection.receive(whole(number, bytes(16_384)), 0.0)
        connection.respond(number, HEAD, b"", END)
    assert connection.ended
    connection = acquainted()
    for number in range(5, 205, 2):
        (asked,) = connection.receive(whole(number, bytes(16_384)), 0.0)
        assert isinstance(asked, RequestsReceived)
        connection.consumed(0, len(asked.contents[0]))
        connection.respond(number, HEAD, b"", END)


def test_a_leaving_server_takes_no_new_request_and_finishes_the_others() -> None:
    """6.8: whoever sent it could not know yet."""
    connection = acquainted()
    connection.receive(headers(5, payload=PLAIN), 0.0)
    connection.go_away()
    assert connection.receive(whole(7) + headers(9, payload=PLAIN), 0.0) == []
    assert connection.receive(frame(DATA, END_STREAM, 9, b"x"), 0.0) == []
    assert connection.receive(frame(DATA, END_STREAM, 5, b"x"), 0.0) == [DataReceived(5, b"x", ended=True)]


def test_windows_open_when_data_is_consumed() -> None:
    connection = server()
    connection.receive(headers() + frame(DATA, 0, 1, bytes(16_384)) * 3, 0.0)
    assert sent(connection) == []
    connection.consumed(1, 40_000)
    assert [(kind, stream, int.from_bytes(body, "big")) for kind, _, stream, body in sent(connection)] == [
        (WINDOW_UPDATE, 1, 40_000)
    ]
    assert fate(connection, connection.receive(frame(DATA, 0, 1, bytes(16_384)) * 3, 0.0)) == "fine"


# -- sending -------------------------------------------------------------------------------------------------------------


def payload_of(found: list[frames.Frame], stream: int) -> bytes:
    return b"".join(payload for kind, _, number, payload in found if kind == DATA and number == stream)


HEAD: Fields = ((b":status", b"200"),)
END: Fields = ((b"grpc-status", b"0"),)


def test_a_response_waits_for_windows_and_its_trailers_wait_behind_it() -> None:
    """6.9: never more than the peer takes; 8.1: trailers end the stream."""
    connection = server()
    connection.receive(settings((Setting.INITIAL_WINDOW_SIZE, 10)) + headers(flags=WHOLE), 0.0)
    connection.take_output()
    body = bytes(range(25))
    connection.respond(1, HEAD, body, END)
    first = sent(connection)
    assert [kind for kind, *_ in first] == [HEADERS, DATA]
    assert payload_of(first, 1) == body[:10]
    assert (connection.waiting_bytes, connection.queued_bytes(1)) == (15, 15)
    connection.receive(frame(WINDOW_UPDATE, 0, 1, word(5)), 0.0)
    assert payload_of(sent(connection), 1) == body[10:15]
    events = connection.receive(settings((Setting.INITIAL_WINDOW_SIZE, 100)), 0.0)  # 6.9.2: moves open streams too
    last = sent(connection)
    assert payload_of(last, 1) == body[15:]
    assert [(kind, flags & END_STREAM) for kind, flags, *_ in last if kind != SETTINGS] == [(DATA, 0), (HEADERS, 1)]
    assert events == [SendProgress(1)]
    assert (connection.open_streams, connection.waiting_bytes) == (0, 0)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("window", [0, 10, 12, 13, 1000])
@pytest.mark.parametrize("gone", [None, 3])
@pytest.mark.parametrize("open_still", [None, 5])
@pytest.mark.parametrize("asked", ["in pieces", "whole"])
def test_responses_together_are_the_same_as_each_by_itself(
    *, known: bool, window: int, gone: int | None, open_still: int | None, asked: str
) -> None:
    """Whether all windows have room or not, of streams that are gone, and of some that the client has not ended."""
    outputs = []
    for together in (False, True):
        connection = server(Limits())
        connection.receive(settings((Setting.INITIAL_WINDOW_SIZE, window)) + headers(1, WHOLE, PLAIN), 0.0)
        for number in (3, 5, 7, 9):
            head = headers(number, END_HEADERS, PLAIN)
            end = b"" if number == open_still else frame(DATA, END_STREAM, number, b"")
            for received in (head, end) if asked == "in pieces" else (head + end,):
                connection.receive(received, 0.0)
        if known:
            for number in (11, 13):
                connection.receive(headers(number, WHOLE), 0.0)
                connection.respond(number, HEAD, b"", END)
        connection.reset(1, ErrorCode.CANCEL)
        if gone is not None:
            connection.reset(gone, ErrorCode.CANCEL)
        bodies = [b"", b"x" * 9, b"y" * 4, b"z" * 11]
        if together:
            connection.respond_all((3, 5, 7, 9), HEAD, bodies, END, Lead(2, lambda size: b"%02d" % size))
        else:
            for number, body in zip((3, 5, 7, 9), bodies, strict=True):
                connection.respond(number, HEAD, b"%02d" % len(body) + body, END)
        output = connection.take_output()
        assert connection.receive(frame(WINDOW_UPDATE, 0, 0, word(1)), 0.0) == []
        left = connection.open_streams, connection.waiting_bytes, connection._outbox.window
        connection.receive(settings((Setting.INITIAL_WINDOW_SIZE, 1000)), 0.0)
        outputs.append((output, left, connection.take_output(), connection.open_streams))
    assert outputs[0] == outputs[1]
    assert outputs[0][3] == 0


def test_settings_are_acknowledged_before_they_are_made_use_of() -> None:
    """6.5.3: a peer counts by what was acknowledged, as grpcio does, and ends streams that went ahead."""
    connection = server()
    connection.receive(settings((Setting.INITIAL_WINDOW_SIZE, 0)) + headers(flags=WHOLE), 0.0)
    connection.respond(1, HEAD, b"x", END)
    connection.take_output()
    connection.receive(settings((Setting.INITIAL_WINDOW_SIZE, 10)), 0.0)
    assert [kind for kind, *_ in sent(connection)] == [SETTINGS, DATA, HEADERS]


def test_a_window_may_become_negative() -> None:
    """6.9.2."""
    connection = server()
    connection.receive(settings((Setting.INITIAL_WINDOW_SIZE, 10)) + headers(), 0.0)
    connection.take_output()
    connection.send_headers(1, HEAD)
    connection.send_data(1, bytes(10))
    connection.receive(settings((Setting.INITIAL_WINDOW_SIZE, 4)), 0.0)
    connection.send_data(1, b"more")
    connection.receive(frame(WINDOW_UPDATE, 0, 1, word(6)), 0.0)
    assert payload_of(sent(connection), 1) == bytes(10)
    connection.receive(frame(WINDOW_UPDATE, 0, 1, word(4)), 0.0)
    assert payload_of(sent(connection), 1) == b"more"


def test_nothing_fits_a_negative_window() -> None:
    """6.9: a frame without content needs no room. It was sought in vain, for ever."""
    connection = server()
    connection.receive(settings((Setting.INITIAL_WINDOW_SIZE, 10)) + headers(), 0.0)
    connection.send_data(1, bytes(10))
    connection.receive(settings((Setting.INITIAL_WINDOW_SIZE, 4)), 0.0)
    connection.take_output()
    window = connection._outbox.window
    ready = connection._outbox._ready = Bounded()
    connection.send_data(1, b"")
    assert list(ready) == [frame(DATA, 0, 1, b"")]
    assert (connection.waiting_bytes, connection._outbox.window) == (0, window)


def test_an_empty_piece_behind_others_does_not_hold_up_the_end() -> None:
    """Goal: where windows end with the last byte, so does the stream; the peer knows of nothing to make room for."""
    connection = server()
    connection.receive(headers(1) + headers(3), 0.0)
    connection.send_data(3, bytes(frames.DEFAULT_WINDOW))  # all of the connection's
    connection.receive(settings((Setting.INITIAL_WINDOW_SIZE, 10)), 0.0)
    connection.take_output()
    connection.send_data(1, bytes(10))
    connection.send_data(1, b"")
    connection.end_stream(1)
    assert not connection.take_output()
    connection.receive(frames.window_update(0, 10), 0.0)
    assert connection.take_output().startswith(frame(DATA, 0, 1, bytes(10)) + frame(DATA, END_STREAM, 1, b""))


class Bounded(list[bytes]):
    """Ends what would never end."""

    def append(self, part: bytes) -> None:
        assert len(self) < 10
        super().append(part)


def test_the_connection_s_room_is_shared_frame_by_frame() -> None:
    connection = server(Limits())
    connection.receive(settings((Setting.INITIAL_WINDOW_SIZE, 1 << 20)) + headers(1) + headers(3), 0.0)
    connection.send_headers(1, HEAD)
    connection.send_data(1, bytes(100_000))  # takes the whole connection's window
    connection.send_headers(3, HEAD)
    connection.send_data(3, bytes(100_000))
    connection.take_output()
    connection.receive(frame(WINDOW_UPDATE, 0, 0, word(4 << 14)), 0.0)
    found = sent(connection)
    assert len(payload_of(found, 1)) == len(payload_of(found, 3)) == 2 << 14


def steps_of(monkeypatch: pytest.MonkeyPatch, name: str) -> list[int]:
    """Return a list that grows by a stream's number whenever the outbox looks at that stream (0: none) in this way."""
    steps: list[int] = []
    plain = getattr(Outbox, name)

    def counted(self: Outbox, out: Outgoing | None, *args: object, **kwargs: object) -> object:
        steps.append(out.stream if out is not None else 0)
        return plain(self, out, *args, **kwargs)

    monkeypatch.setattr(Outbox, name, counted)
    return steps


def crowded(streams: int, window: int, *, full: bool = False) -> Connection:
    """Return a server with as many answers of 100 bytes that wait, each for more room than ``window`` bytes.

    full: what the peer takes on all streams together is used up, too.
    """
    connection = server(Limits())
    connection.receive(headers(1), 0.0)
    if full:
        connection.send_data(1, bytes(65_535))
    connection.receive(frame(RST_STREAM, 0, 1, CODE4) + settings((Setting.INITIAL_WINDOW_SIZE, window)), 0.0)
    for number in range(3, 3 + 2 * streams, 2):
        connection.receive(headers(number, WHOLE), 0.0)
        connection.respond(number, HEAD, bytes(100), END)
    connection.take_output()
    return connection


def test_room_of_the_connection_is_no_work_for_those_who_wait_for_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that takes nothing on thousands of streams could stop the loop by thousands of small grants."""
    connection = crowded(200, 0)
    steps = steps_of(monkeypatch, "_advance")
    connection.receive(frame(WINDOW_UPDATE, 0, 0, word(1)) * 50, 0.0)
    assert steps == []
    connection.receive(frame(WINDOW_UPDATE, 0, 7, word(1)), 0.0)
    assert steps == [7]
    assert payload_of(sent(connection), 7) == bytes(1)


def test_a_little_room_of_the_connection_goes_to_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = crowded(20, 10, full=True)
    steps = steps_of(monkeypatch, "_advance")
    connection.receive(frame(WINDOW_UPDATE, 0, 0, word(1)) * 45, 0.0)
    row = [*range(3, 43, 2)]
    assert steps == row * 2 + row[:5]
    assert [stream for kind, _, stream, _ in sent(connection) if kind == DATA] == steps
    # Those that have what their own windows take wait for them, and are passed over.
    connection.receive(frame(WINDOW_UPDATE, 0, 0, word(10_000)) * 2, 0.0)
    assert steps == row * 3 + row[:5]
    assert all(connection.queued_bytes(stream) == 90 for stream in row)


def test_a_window_that_is_taken_back_takes_its_stream_out_of_the_row() -> None:
    connection = crowded(2, 10, full=True)
    connection.receive(settings((Setting.INITIAL_WINDOW_SIZE, 0)) + frame(WINDOW_UPDATE, 0, 3, word(5)), 0.0)
    connection.receive(frame(WINDOW_UPDATE, 0, 0, word(1000)), 0.0)
    found = sent(connection)
    assert (len(payload_of(found, 3)), len(payload_of(found, 5))) == (5, 0)


def test_of_many_windows_in_one_frame_the_last_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = crowded(50, 0)
    steps = steps_of(monkeypatch, "grant")
    connection.receive(settings(*[(Setting.INITIAL_WINDOW_SIZE, size) for size in (9, 1) * 500]), 0.0)
    assert steps == [*range(3, 103, 2)]
    assert {len(payload) for kind, _, _, payload in sent(connection) if kind == DATA} == {1}
    wrong = settings((Setting.INITIAL_WINDOW_SIZE, 1 << 31), (Setting.INITIAL_WINDOW_SIZE, 1))
    assert fate(connection, connection.receive(wrong, 0.0)) == "goaway FLOW_CONTROL_ERROR"


def test_windows_are_moved_at_the_price_of_their_number() -> None:
    """Else a frame of 15 bytes is work for every stream, and pays like a ping; a dozen times is no attack."""
    moves = [settings((Setting.INITIAL_WINDOW_SIZE, size)) for size in range(1, 31)]
    for streams, expected in ((50, "goaway ENHANCE_YOUR_CALM"), (5, "fine")):
        connection = server(replace(SMALL, streams=50))
        connection.receive(b"".join(headers(number) for number in range(1, 2 * streams, 2)), 0.0)
        assert fate(connection, connection.receive(b"".join(moves[:12]), 0.0)) == "fine"
        assert fate(connection, connection.receive(b"".join(moves[12:]), 0.0)) == expected


def test_frames_are_no_larger_than_the_peer_takes() -> None:
    connection = server(Limits())
    connection.receive(headers(flags=WHOLE), 0.0)
    connection.take_output()
    connection.respond(1, (*HEAD, (b"x", b"y" * 40_000)), bytes(40_000), END)
    found = sent(connection)
    assert max(len(payload) for *_, payload in found) == 1 << 14
    assert [kind for kind, *_ in found][:3] == [HEADERS, CONTINUATION, CONTINUATION]


def test_an_early_answer_ends_the_request_too() -> None:
    """8.1: RST_STREAM with NO_ERROR after a complete response; what is still on its way means nothing."""
    connection = server()
    connection.receive(headers(), 0.0)
    connection.take_output()
    connection.respond(1, HEAD, b"", END)
    assert sent(connection)[-1] == (RST_STREAM, 0, 1, word(0))
    assert connection.receive(frame(DATA, 1, 1, b"late"), 0.0) == []
    assert not connection.ended
    assert connection.open_streams == 0


def test_nothing_is_sent_on_streams_that_are_gone() -> None:
    connection = server()
    connection.receive(headers() + frame(RST_STREAM, 0, 1, CODE4), 0.0)
    connection.respond(1, HEAD, b"x", END)
    connection.send_data(1, b"x")
    connection.reset(1, ErrorCode.CANCEL)
    connection.respond_without_data(1, HEAD)
    assert sent(connection) == []


def test_going_away() -> None:
    """6.8: streams already there finish, new ones are ignored, whose blocks are decoded all the same."""
    connection = server()
    connection.receive(headers(), 0.0)
    connection.announce_end()
    connection.receive(headers(3, payload=plus((b"x", b"y"))), 0.0)
    connection.go_away()
    last = [frames.read_goaway(payload)[0] for kind, _, _, payload in sent(connection) if kind == GOAWAY]
    assert last == [(1 << 31) - 1, 3]
    assert connection.receive(headers(5, payload=plus((b"z", b"z"))), 0.0) == []
    connection.respond(1, HEAD, b"", END)
    connection.respond(3, HEAD, b"", END)
    assert connection.open_streams == 0


# -- the client's side ---------------------------------------------------------------------------------------------------


def pair() -> tuple[Connection, Connection]:
    client, other = Connection(client=True, limits=Limits()), Connection(client=False, limits=SMALL)
    exchange(client, other)
    return client, other


def exchange(client: Connection, other: Connection) -> tuple[list[Event], list[Event]]:
    at_client: list[Event] = []
    at_server: list[Event] = []
    while True:
        up, down = client.take_output(), other.take_output()
        if not up and not down:
            return at_client, at_server
        at_server += other.receive(up, 0.0)
        at_client += client.receive(down, 0.0)


def test_a_call_between_both_sides() -> None:
    client, other = pair()
    number = client.open(REQUEST)
    client.send_data(number, b"question", end=True)
    _, (begun, asked) = exchange(client, other)
    assert isinstance(begun, HeadersReceived)
    assert begun.headers.fields == REQUEST
    assert asked == DataReceived(1, b"question", ended=True)
    other.respond(1, HEAD, b"answer", END)
    (head, answer, end), _ = exchange(client, other)
    assert isinstance(head, HeadersReceived)
    assert answer == DataReceived(1, b"answer", ended=False)
    assert isinstance(end, TrailersReceived)
    assert end.headers.fields == END
    assert client.open_streams == other.open_streams == 0


def test_more_than_every_window_goes_through() -> None:
    client, other = pair()
    body = bytes(range(256)) * 4096
    number = client.open(REQUEST)
    client.send_data(number, body, end=True)
    received, ended = b"", False
    while not ended:
        _, events = exchange(client, other)
        for event in events:
            if isinstance(event, DataReceived):
                received, ended = received + event.data, event.ended
                other.consumed(event.stream, len(event.data))
    assert received == body
    other.respond(number, HEAD, body, END)
    received, ended = b"", False
    while not ended:
        events, _ = exchange(client, other)
        for event in events:
            if isinstance(event, DataReceived):
                received += event.data
                client.consumed(event.stream, len(event.data))
            ended = ended or isinstance(event, TrailersReceived)
    assert received == body
    assert client.waiting_bytes == other.waiting_bytes == client.open_streams == other.open_streams == 0


def test_a_client_keeps_to_the_server_s_limit() -> None:
    client, other = pair()
    for _ in range(3):
        client.open(REQUEST)
    with pytest.raises(Refused, match="3 streams"):
        client.open(REQUEST)
    client.reset(1, ErrorCode.CANCEL)
    client.open(REQUEST)
    _, events = exchange(client, other)
    assert StreamEnded(1, ErrorCode.CANCEL, "reset by the peer") in events
    assert not other.ended


def test_a_client_s_connection_leaves_when_its_numbers_are_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_STREAM_ID", 7)  # instead of 2^31 - 1
    client, other = pair()
    for number in (1, 3, 5, 7):
        assert not client.going_away
        assert client.open(REQUEST, end=True) == number
        exchange(client, other)
        if number < 7:
            other.respond(number, HEAD, b"answer", END)
            exchange(client, other)
    assert client.going_away
    with pytest.raises(Refused, match="no new streams"):
        client.open(REQUEST)
    other.respond(7, HEAD, b"answer", END)  # what is under way ends in peace
    (_, answer, _), _ = exchange(client, other)
    assert answer == DataReceived(7, b"answer", ended=False)
    assert client.open_streams == 0


def test_a_client_learns_what_a_leaving_server_did_not_look_at() -> None:
    client, other = pair()
    client.open(REQUEST)
    exchange(client, other)
    client.open(REQUEST)
    other.go_away()
    events = client.receive(other.take_output(), 0.0)
    assert events == [
        GoAwayReceived(1, 0, b"going away"),
        StreamEnded(3, ErrorCode.REFUSED_STREAM, "the peer goes away"),
    ]
    with pytest.raises(Refused):
        client.open(REQUEST)


def test_pings_come_back() -> None:
    client, other = pair()
    client.ping(b"01234567")
    assert exchange(client, other)[0] == [PingAcknowledged(b"01234567")]


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        pytest.param(frame(PUSH_PROMISE, 4, 1, word(2) + block()), "goaway PROTOCOL_ERROR", id="8.4 a push"),
        pytest.param(settings((Setting.ENABLE_PUSH, 1)), "goaway PROTOCOL_ERROR", id="6.5.2 push offered by a server"),
        pytest.param(headers(2, payload=block(*HEAD)), "goaway PROTOCOL_ERROR", id="5.1.1 a response to nothing"),
        pytest.param(frame(DATA, 0, 1, b"x"), "reset 1 STREAM_CLOSED", id="8.1 data before headers"),
        pytest.param(headers(payload=block((b":status", b"100"))), "fine", id="8.1 an interim response"),
        pytest.param(headers(payload=block()), "reset 1 PROTOCOL_ERROR", id="8.3.2 no :status"),
        pytest.param(headers(payload=block((b":status", b"abc"))), "reset 1 PROTOCOL_ERROR", id="8.3.2 no number"),
    ],
)
def test_client(received: bytes, expected: str) -> None:
    client, _ = pair()
    client.open(REQUEST)
    client.take_output()
    assert fate(client, client.receive(received, 0.0)) == expected


# -- data by the short way ---------------------------------------------------------------------------------------------

FULL = frame(DATA, 0, 1, bytes(SMALL.frame_bytes))


def talking(before: Sequence[bytes] = ()) -> Connection:
    """Return a server in the middle of a request that is a stream."""
    connection = server()
    for data in (headers(), *before):
        connection.receive(data, 0.0)
    connection.take_output()
    return connection


def plain(events: Sequence[Event]) -> list[object]:
    """Return what events say; two connections have no headers in common."""
    return [
        [(name, value.fields if isinstance(value, Headers) else value) for name, value in asdict(event).items()]
        for event in events
    ]


def by_the_short_way(connection: Connection, data: bytes) -> list[Event]:
    lone = connection.lone_data(data) or connection.lone_request(data)
    return connection.receive(data, 0.0) if lone is None else [lone]


@pytest.mark.parametrize(
    ("before", "data", "lone"),
    [
        ((), frame(DATA, 0, 1, b"x"), True),
        ((), FULL, True),
        ((), frame(DATA, 0, 1, b""), False),
        ((), frame(DATA, 0, 1, bytes(SMALL.frame_bytes + 1)), False),
        ((), frame(DATA, END_STREAM, 1, b"x"), False),
        ((), frame(DATA, PADDED, 1, b"\1xy"), False),
        ((), frame(DATA, 0, 0, b"x"), False),
        ((), frame(DATA, 0, 3, b"x"), False),
        ((), frame(DATA, 0, 1, b"x") + frame(PING, 0, 0, bytes(8)), False),
        ((), frame(DATA, 0, 1, b"xyz")[:-1], False),
        ((), frame(PING, 0, 0, bytes(8)), False),
        ((frame(DATA, 0, 1, frame(DATA, 0, 1, b"x"))[:9],), frame(DATA, 0, 1, b"x"), False),  # the middle of a frame
        ((headers(3, 0),), frame(DATA, 0, 1, b"x"), False),  # the middle of a header block
        ((frame(DATA, END_STREAM, 1, b"x"),), frame(DATA, 0, 1, b"x"), False),
        ((frame(RST_STREAM, 0, 1, CODE4),), frame(DATA, 0, 1, b"x"), False),
        ((FULL,) * 3, FULL, False),  # one byte more than the window
        ((FULL,) * 3, FULL[:1] + b"\x3f\xff" + FULL[3:-1], True),
        ((frame(DATA, 0, 0, b"x"),), frame(DATA, 0, 1, b"x"), False),  # the connection is over
    ],
)
def test_the_short_way_leads_where_the_long_one_does(before, data, lone):
    here, there = talking(before), talking(before)
    assert (there.lone_data(data) is not None) == lone
    there = talking(before)
    events = here.receive(data, 0.0)
    assert by_the_short_way(there, data) == events
    # And so does what comes afterwards, by either: windows, ends and answers are the same.
    for more in (frame(DATA, 0, 1, b"y"), FULL, FULL, FULL, frame(DATA, END_STREAM, 1, b"z")):
        assert by_the_short_way(there, more) == here.receive(more, 0.0)
        assert there.take_output() == here.take_output()


@pytest.mark.parametrize(
    ("before", "data", "lone"),
    [
        ((), whole(5, b"x"), True),
        ((), whole(5, b""), True),
        ((), whole(9, b"x"), True),
        ((), whole(5, b"12", TWO_BYTES), True),
        ((), whole(5, b"123", TWO_BYTES), False),
        ((), whole(5, bytes(SMALL.frame_bytes + 1)), False),
        ((), whole(3, b"x"), False),  # a number that was used
        ((), whole(6, b"x"), False),
        ((), whole(0, b"x"), False),
        ((), whole(5, b"x", b"\x82\x86\x84"), False),  # headers that are new
        ((), whole(5, b"x") + whole(7, b"x"), False),
        ((), whole(5, b"x") + frame(PING, 0, 0, bytes(8)), False),
        ((), whole(5, b"x")[:-1], False),
        ((), whole(5, b"x")[:12], False),
        ((), whole(5, b"x")[:4], False),
        ((), headers(5, END_HEADERS, PLAIN) + frame(DATA, 0, 5, b"x"), False),
        ((), headers(5, END_HEADERS, PLAIN) + frame(DATA, END_STREAM, 7, b"x"), False),
        ((), headers(5, END_HEADERS, PLAIN) + frame(RST_STREAM, 0, 5, CODE4), False),
        ((), headers(5, WHOLE, PLAIN), False),
        ((headers(5, 0, PLAIN),), whole(7, b"x"), False),  # in the middle of a header block
        ((whole(5, b"x")[:9],), whole(7, b"x"), False),  # in the middle of a frame
        ((headers(5, END_HEADERS, PLAIN), headers(7, END_HEADERS, PLAIN)), whole(9, b"x"), True),
        (
            (*(headers(number, END_HEADERS, PLAIN) for number in (5, 7, 9)),),
            whole(11, b"x"),
            False,
        ),  # one stream too many
        ((frame(DATA, 0, 0, b"x"),), whole(5, b"x"), False),  # the connection is over
    ],
)
def test_a_request_comes_by_the_short_way_to_where_the_long_one_leads(before, data, lone):
    def met() -> Connection:
        connection = acquainted()
        for each in before:
            connection.receive(each, 0.0)
        connection.take_output()
        return connection

    here, there = met(), met()
    assert (there.lone_request(data) is not None) == lone
    there = met()
    assert plain(by_the_short_way(there, data)) == plain(here.receive(data, 0.0))
    # And so does what comes afterwards, by either: numbers, windows, ends and answers are the same.
    for more in (whole(13, b"x"), whole(11, b"x"), frame(DATA, 0, 13, b"y"), whole(15, bytes(SMALL.frame_bytes))):
        assert plain(by_the_short_way(there, more)) == plain(here.receive(more, 0.0))
        assert there.take_output() == here.take_output()
        assert (there.open_streams, there._window) == (here.open_streams, here._window)
    for stream in (5, 9, 13):
        for connection in (here, there):
            connection.respond(stream, HEAD, b"ok", END)
        assert there.take_output() == here.take_output()


def test_a_request_by_the_short_way_is_paid_from_the_connections_window():
    here, there = acquainted(), acquainted()
    for number in range(5, 5 + 2 * 8, 2):  # the eighth has two bytes more than there is room for
        data = whole(number, bytes(SMALL.frame_bytes))
        assert plain(by_the_short_way(there, data)) == plain(here.receive(data, 0.0))
        for connection in (here, there):
            connection.respond(number, HEAD, b"", END)
        assert there.take_output() == here.take_output()
    assert here.ended
    assert there.ended


def test_the_short_way_counts_what_content_length_promised():
    payload = plus((b"content-length", b"3"))
    here, there = server(), server()
    for connection in (here, there):
        connection.receive(headers(payload=payload), 0.0)
    data = frame(DATA, 0, 1, b"four")
    assert there.lone_data(data) is None
    assert fate(there, there.receive(data, 0.0)) == fate(here, here.receive(data, 0.0)) == "reset 1 PROTOCOL_ERROR"
