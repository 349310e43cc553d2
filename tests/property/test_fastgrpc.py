"""No bytes crash the HTTP/2 core, make it hold more than its limits, or make it forget what it owes."""

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fastgrpc import frames
from fastgrpc.calls import CallFailed, MessageReader, decode_percent, decode_timeout, encode_percent, frame_message
from fastgrpc.connection import Connection
from fastgrpc.events import (
    ConnectionEnded,
    DataReceived,
    Event,
    HeadersReceived,
    Limits,
    RequestsReceived,
    StreamEnded,
    TrailersReceived,
)
from fastgrpc.frames import PREFACE, Setting
from fastgrpc.headers import Headers
from fastgrpc.hpack import Decoder, Encoder, Fields, HeadersTooLarge, HpackError, huffman_decode, huffman_encode

TIGHT = Limits(
    streams=4,
    window_bytes=65_535,
    connection_window_bytes=65_535,
    frame_bytes=1 << 14,
    header_list_bytes=2048,
    header_block_bytes=4096,
    nuisances=500,
    nuisances_per_s=0,
)
NAMES = st.sampled_from([b"a", b"x-y", b":path", b":method", b"authorization", b"grpc-timeout", b"content-type"])
FIELDS = st.lists(st.tuples(NAMES | st.binary(max_size=20), st.binary(max_size=120)), max_size=8).map(tuple)


# -- HPACK ---------------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_huffman_goes_through(text: bytes) -> None:
    assert huffman_decode(huffman_encode(text)) == text


@given(st.lists(st.tuples(FIELDS, st.none() | st.integers(0, 5000)), max_size=12))
def test_blocks_go_through(rows: Sequence[tuple[Fields, int | None]]) -> None:
    encoder, decoder = Encoder(), Decoder[Fields](lambda fields: fields, max_list_bytes=1 << 20)
    for fields, allowed in rows:
        if allowed is not None:
            encoder.allow(allowed)
        for _ in range(2):  # the second time both sides remember
            assert decoder.decode(encoder.encode(fields)) == fields


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_no_block_crashes_the_decoder_or_fills_it(blocks: list[bytes]) -> None:
    decoder = Decoder[Fields](lambda fields: fields, max_list_bytes=500)
    for block in blocks:
        try:
            fields = decoder.decode(block)
        except HeadersTooLarge:
            continue
        except HpackError:
            return  # a connection ends here
        assert sum(len(name) + len(value) + 32 for name, value in fields) <= 500
        assert decoder._table.bytes <= 4096
        assert decoder._table.bytes == sum(len(name) + len(value) + 32 for name, value in decoder._table.fields)


@given(FIELDS)
def test_headers_never_raise(fields: Fields) -> None:
    headers = Headers(fields)
    assert headers.status >= 0
    assert headers.fault is None or headers.fault


# -- frames --------------------------------------------------------------------------------------------------------------


FRAMES = st.one_of(
    st.builds(
        frames.frame,
        st.integers(0, 11),
        st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x2D, 0xFF]),
        st.integers(0, 9),
        st.binary(max_size=40),
    ),
    st.builds(
        lambda stream, flags, fields: frames.frame(frames.HEADERS, flags, stream, Encoder().encode(fields)),
        st.integers(0, 4).map(lambda n: 2 * n + 1),
        st.sampled_from([0, 1, 4, 5]),
        st.just(((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"))) | FIELDS,
    ),
    st.builds(
        lambda stream, size, flags: frames.frame(frames.DATA, flags, stream, bytes(size)),
        st.integers(0, 4).map(lambda n: 2 * n + 1),
        st.sampled_from([0, 1, 100, 16_384]),
        st.sampled_from([0, 1]),
    ),
    st.builds(
        lambda setting, value: frames.settings({setting: value}),
        st.sampled_from(list(Setting)),
        st.sampled_from([0, 1, 100, 65_535, 1 << 14, (1 << 31) - 1, 1 << 31]),
    ),
    st.builds(frames.window_update, st.integers(0, 9), st.sampled_from([0, 1, 70_000, (1 << 31) - 1])),
)


def receive(server: Connection, data: bytes) -> list[Event]:
    """Let a server read, by a short way if there is one, as ``Peer`` does."""
    lone = server.lone_data(data) or server.lone_request(data)
    return server.receive(data, 0.0) if lone is None else [lone]


class AnyClient(RuleBasedStateMachine):
    """A server under a client that sends what it likes, while the server answers when it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.server = Connection(client=False, limits=TIGHT)
        self.open: set[int] = set()
        self.held = 0  # bytes that came and were not consumed
        self.feed(PREFACE + frames.settings({}))

    def feed(self, data: bytes) -> None:
        for event in receive(self.server, data):
            self.note(event)

    def note(self, event: Event) -> None:
        match event:
            case HeadersReceived():
                assert event.stream not in self.open
                assert event.headers.fault is None
                self.open.add(event.stream)
            case RequestsReceived():
                assert self.open.isdisjoint(event.streams)
                assert event.headers.fault is None
                self.open.update(event.streams)
                self.held += sum(map(len, event.contents))
            case DataReceived() | TrailersReceived():
                assert event.stream in self.open
                if isinstance(event, DataReceived):
                    self.held += len(event.data)
            case StreamEnded():
                self.open.discard(event.stream)
            case ConnectionEnded():
                assert self.server.ended

    @rule(frame=FRAMES)
    def whole_frame(self, frame: bytes) -> None:
        self.feed(frame)

    @rule(
        streams=st.lists(st.integers(0, 20), max_size=5),
        size=st.sampled_from([0, 5, 16_384]),
        length=st.booleans(),
        between=st.none() | FRAMES,
    )
    def whole_requests(self, streams: list[int], size: int, *, length: bool, between: bytes | None) -> None:
        # A block that changes no table, with or without a content-length of 5: the second one like it is remembered.
        block = b"\x83\x86\x84" + (b"\x0f\x0d\x015" if length else b"")
        heads = [frames.frame(frames.HEADERS, frames.END_HEADERS, stream, block) for stream in streams]
        ends = [frames.frame(frames.DATA, frames.END_STREAM, stream, bytes(size)) for stream in streams]
        self.feed(b"".join([*heads, between or b"", *ends]))

    @rule(data=st.binary(max_size=30))
    def noise(self, data: bytes) -> None:
        self.feed(data)

    @rule(frame=FRAMES, cut=st.integers(0, 30))
    def frame_in_pieces(self, frame: bytes, cut: int) -> None:
        self.feed(frame[:cut])
        self.feed(frame[cut:])

    @rule(size=st.sampled_from([0, 10, 70_000]), data=st.data())
    def respond(self, size: int, data: Any) -> None:
        assume(self.open)
        stream = data.draw(st.sampled_from(sorted(self.open)))
        self.server.respond(stream, ((b":status", b"200"),), bytes(size), ((b"grpc-status", b"0"),))
        self.open.discard(stream)

    @rule(data=st.data())
    def consume(self, data: Any) -> None:
        size = data.draw(st.integers(0, self.held))
        self.server.consumed(data.draw(st.integers(0, 9)), size)
        self.held -= size

    @invariant()
    def within_limits(self) -> None:
        server = self.server
        assert self.held <= TIGHT.connection_window_bytes
        assert server.open_streams <= TIGHT.streams
        assert server._block_bytes <= TIGHT.header_block_bytes or server.ended
        assert len(server._rest) <= TIGHT.frame_bytes + frames.HEADER_BYTES or server.ended

    @invariant()
    def output_is_frames(self) -> None:
        output, at = self.server.take_output(), 0
        while (taken := frames.frame_at(output, at, self.server._outbox.max_frame_bytes)) is not None:
            _, at = taken
        assert at == len(output)
        assert self.server._outbox.waiting_bytes == sum(
            stream.out.queued_bytes for stream in self.server._streams.values()
        )

    @invariant()
    def in_line_for_the_connection_s_window(self) -> None:
        streams = self.server._streams.values()
        waiting = {stream.out.stream for stream in streams if stream.out.queue and stream.out.window > 0}
        assert set(self.server._outbox._waiting) == waiting
        assert not waiting or self.server._outbox.window <= 0


def taken(reads: Sequence[bytes]) -> tuple[object, ...]:
    """Return all that a server makes of what it reads: what is told of each stream, what is left, and what goes out."""
    server = Connection(client=False, limits=TIGHT)
    told: dict[int, list[object]] = {}
    for event in [event for read in (PREFACE + frames.settings({}), *reads) for event in receive(server, read)]:
        match event:
            case RequestsReceived():
                for stream, content in zip(event.streams, event.contents, strict=True):
                    told.setdefault(stream, []).append((event.headers.fields, False))
                    told[stream].append((content, True))
            case HeadersReceived():
                told.setdefault(event.stream, []).append((event.headers.fields, event.ended))
            case DataReceived():
                told.setdefault(event.stream, []).append((event.data, event.ended))
            case _:
                told.setdefault(getattr(event, "stream", 0), []).append(type(event))
    left = server.open_streams, server._window, server.last_stream, server.ended, server._nuisances
    first = server.take_output()
    for stream in sorted(told):
        server.respond(stream, ((b":status", b"200"),), b"answer", ((b"grpc-status", b"0"),))
    return told, left, first, server.take_output(), server.open_streams


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_read_means_what_its_frames_mean(data: Any) -> None:
    """Goal: the short ways lead where the long one does. Method: all at once, by twos and threes, and frame by frame."""
    plain, counted = b"\x83\x86\x84", b"\x83\x86\x84\x0f\x0d\x015"  # as above
    secure = b"\x83\x87\x84"  # as long as ``plain``
    block, stream = (
        st.sampled_from([plain, plain, counted, secure]),
        st.sampled_from(range(1, 16, 2)) | st.integers(0, 9),
    )
    head = st.builds(partial(frames.frame, frames.HEADERS, frames.END_HEADERS), stream, block)
    end = st.builds(partial(frames.frame, frames.DATA, frames.END_STREAM), stream, st.sampled_from([b"", b"12345"]))
    known = [frames.frame(frames.HEADERS, 5, 2 * i + 1, each) for i, each in enumerate([plain, secure])]
    known.append(frames.frame(frames.HEADERS, 4, 5, counted))
    numbers = data.draw(st.lists(st.integers(3, 20), max_size=6, unique=True).map(sorted))
    chosen = [(2 * number + 1, data.draw(block)) for number in numbers]
    nearly = st.sampled_from([0] * 9 + [frames.END_STREAM])  # in a row of frames that are alike, one that only looks so
    heads = [frames.frame(frames.HEADERS, frames.END_HEADERS | data.draw(nearly), *each) for each in chosen]
    size = st.sampled_from([5, 5, 4, TIGHT.frame_bytes])  # four of the largest are more than the window
    sizes = data.draw(st.one_of(st.lists(size, min_size=6, max_size=6), size.map(lambda all_: [all_] * 6)))
    ends = [
        frames.frame(frames.DATA, frames.END_STREAM ^ data.draw(nearly), number, bytes(size))
        for (number, _), size in zip(chosen, sizes, strict=False)
    ]
    received = heads + data.draw(st.permutations(ends))
    for other in data.draw(st.lists(head | end | FRAMES, max_size=3)):
        received.insert(data.draw(st.integers(0, len(received))), other)
    expected = taken([*known, *received])
    assert taken([*known, b"".join(received)]) == expected
    some, at = [], 0
    while at < len(received):
        count = data.draw(st.integers(1, 3))
        some.append(b"".join(received[at : at + count]))
        at += count
    assert taken([*known, *some]) == expected


AnyClient.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_any_client = AnyClient.TestCase


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 3000), max_size=8), st.lists(st.integers(1, 500), min_size=1, max_size=8), st.data())
def test_two_of_ours_understand_each_other_in_any_cut(sizes: list[int], cuts: list[int], data: Any) -> None:
    """Whatever the pieces in which bytes arrive, every call's data arrives whole, and nothing is left over."""
    client = Connection(client=True, limits=Limits())
    server = Connection(client=False, limits=Limits(window_bytes=65_535, connection_window_bytes=65_535))
    wanted = {}
    for size in sizes:
        fields = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/%d" % size))
        stream = client.open(fields)
        wanted[stream] = bytes((size & 0xFF,)) * size * 50
        client.send_data(stream, wanted[stream], end=True)
    got: dict[int, bytes] = dict.fromkeys(wanted, b"")
    answered: dict[int, bytes] = dict.fromkeys(wanted, b"")
    place = 0
    while True:
        up, down = client.take_output(), server.take_output()
        if not up and not down:
            break
        for target, output in ((server, up), (client, down)):
            at = 0
            while at < len(output):
                cut = cuts[place % len(cuts)] * (1 + len(output) // 2000)
                place += 1
                for event in target.receive(output[at : at + cut], 0.0):
                    if isinstance(event, RequestsReceived):
                        for stream, content in zip(event.streams, event.contents, strict=True):
                            got[stream] = content
                            server.consumed(0, len(content))
                            server.respond(stream, ((b":status", b"200"),), content, ((b"x", b"y"),))
                    if isinstance(event, DataReceived):
                        (got if target is server else answered)[event.stream] += event.data
                        target.consumed(event.stream, len(event.data))
                        if event.ended and target is server:
                            server.respond(event.stream, ((b":status", b"200"),), got[event.stream], ((b"x", b"y"),))
                    assert not isinstance(event, StreamEnded | ConnectionEnded), event
                at += cut
    assert got == answered == wanted
    assert client.open_streams == server.open_streams == client.waiting_bytes == server.waiting_bytes == 0


# -- gRPC ----------------------------------------------------------------------------------------------------------------


@given(st.text(max_size=100))
def test_status_messages_go_through(text: str) -> None:
    assume("\ud800" not in text)
    assert decode_percent(encode_percent(text)) == text


@given(st.binary(max_size=100))
def test_any_status_message_can_be_shown(text: bytes) -> None:
    decode_percent(text)


@given(st.binary(max_size=12))
def test_any_timeout_is_a_number_or_refused(text: bytes) -> None:
    with contextlib.suppress(CallFailed):
        assert decode_timeout(text) >= 0


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(1, 50), min_size=1))
def test_messages_come_out_as_they_went_in(messages: list[bytes], cuts: list[int]) -> None:
    data = b"".join(map(frame_message, messages))
    reader = MessageReader(max_bytes=300, encoding="identity")
    found: list[bytes] = []
    at = place = 0
    while at < len(data):
        cut = cuts[place % len(cuts)]
        found += reader.feed(data[at : at + cut])
        at, place = at + cut, place + 1
    assert found == messages
    assert reader.empty


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
@given(pieces=st.lists(st.binary(max_size=40), max_size=8))
def test_no_message_crashes_the_reader(encoding: str, pieces: list[bytes]) -> None:
    reader = MessageReader(max_bytes=64, encoding=encoding)
    with contextlib.suppress(CallFailed):
        for piece in pieces:
            for message in reader.feed(piece):
                assert len(message) <= 64
