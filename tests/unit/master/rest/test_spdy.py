"""SPDY/3.1 frames: bytes in, events out, however the bytes are cut."""

import contextlib
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from master.rest import spdy, spdy_session
from master.rest.spdy import DataReceived, Framer, PingReceived, SpdyError, StreamOpened, StreamReset


class Client:
    """The other end, as kubectl writes it."""

    def __init__(self):
        self._deflate = zlib.compressobj(zdict=spdy.DICTIONARY)
        self.inflate = zlib.decompressobj(zdict=spdy.DICTIONARY)

    def open(self, stream, headers, *, fin=False):
        block = struct.pack(">I", len(headers))
        for name, value in headers.items():
            block += struct.pack(">I", len(name)) + name.encode() + struct.pack(">I", len(value)) + value.encode()
        block = self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        payload = struct.pack(">IIH", stream, 0, 0) + block
        return self.control(1, payload, flags=1 if fin else 0)

    def control(self, kind, payload, *, flags=0, version=3):
        return struct.pack(">HHI", 0x8000 | version, kind, flags << 24 | len(payload)) + payload


def test_the_dictionary_is_the_one_of_the_specification():
    assert zlib.adler32(spdy.DICTIONARY) == 0xE3C6A7C2


HEADERS = {"streamtype": "stdin", "requestid": "7"}


@given(st.lists(st.integers(1, 40), max_size=60))
def test_frames_may_be_cut_anywhere(cuts):
    client, framer = Client(), Framer()
    data = client.open(1, HEADERS) + framer.data(1, b"hello") + client.open(3, {"a": "b"}, fin=True)
    data += framer.data(1, b"", finished=True) + framer.ping(9) + framer.reset(3)
    events, position = [], 0
    for cut in [*cuts, len(data)]:
        events += framer.receive(data[position : position + cut])
        position += cut
    assert events == [
        StreamOpened(1, HEADERS, finished=False),
        DataReceived(1, b"hello", finished=False),
        StreamOpened(3, {"a": "b"}, finished=True),
        DataReceived(1, b"", finished=True),
        PingReceived(9),
        StreamReset(3),
    ]


def test_a_reply_can_be_read_by_the_client():
    client, framer = Client(), Framer()
    for stream in (1, 3):
        head, kind, length, number = struct.unpack_from(">HHII", frame := framer.reply(stream))
        assert (head, kind, length, number) == (0x8003, 2, len(frame) - 8, stream)
        assert client.inflate.decompress(frame[12:]) == b"\0\0\0\0"


def test_frames_without_meaning_for_us_are_passed_over():
    client, framer = Client(), Framer()
    settings = client.control(4, struct.pack(">I", 0))
    window = client.control(9, struct.pack(">II", 1, 65536))
    assert list(framer.receive(settings + window + framer.ping(1))) == [PingReceived(1)]


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">HHI", 0x8002, 1, 0),  # version 2
        struct.pack(">II", 1, spdy.MAX_FRAME_BYTES + 1),
        struct.pack(">HHI", 0x8003, 1, 2) + b"xx",
        struct.pack(">HHI", 0x8003, 1, 20) + b"x" * 20,
        struct.pack(">HHI", 0x8003, 6, 0),
    ],
)
def test_what_no_peer_sends_ends_the_connection(data):
    with pytest.raises(SpdyError):
        list(Framer().receive(data))


def test_a_header_block_cannot_grow_without_bound():
    client = Client()
    with pytest.raises(SpdyError):
        list(Framer().receive(client.open(1, {"a": "x" * 10_000_000})))


@given(st.binary(max_size=300))
def test_no_bytes_break_it_but_with_its_own_error(data):
    with contextlib.suppress(SpdyError):
        list(Framer().receive(data))


class Sent:
    """A connection that the client has written all of; what comes back is nobody's concern."""

    def __init__(self, *parts):
        self.parts = list(parts)

    async def read(self):
        return self.parts.pop(0) if self.parts else b""

    async def write(self, data):
        pass


async def test_streams_that_nobody_accepts_are_bounded():
    """Goal: opening and resetting for ever costs no memory. Method: more of both, and of farewells, than are kept."""
    client, framer = Client(), Framer()
    count = spdy_session.MAX_STREAMS + 100
    frames = [client.open(number, {"a": "b"}) + framer.reset(number) for number in range(1, 2 * count, 2)]
    session = spdy_session.SpdySession(Sent(*frames, framer.go_away(1) * 50, client.open(2 * count + 1, {"a": "b"})))
    await session.run()
    accepted = [await session.accept() for _ in range(session._opened.qsize())]
    assert len(accepted) == spdy_session.MAX_STREAMS + 1
    assert [number for number, each in enumerate(accepted) if each is None] == [spdy_session.MAX_STREAMS]
