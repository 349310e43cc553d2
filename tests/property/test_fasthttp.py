"""No bytes crash the front, make it hold more than its limits, stall other clients, or are read in two ways."""

import asyncio
import logging
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fasthttp.heads import Head, Malformed
from fasthttp.peer import Config, Hosting
from fasthttp.reading import MAX_LINE_BYTES, MAX_TRAILER_BYTES, Data, End, Reader
from fasthttp.server import Server
from fasthttp.writing import Response

LIMIT = 512
WORDS = st.text("abcXYZ019-_.", min_size=1, max_size=8)
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=12)
FIELDS = st.lists(st.tuples(WORDS.map(lambda word: f"x-{word}"), VALUES), max_size=4)
PIECES = st.lists(st.binary(min_size=1, max_size=40), max_size=4)
REQUESTS = st.lists(st.tuples(WORDS, FIELDS, PIECES, st.booleans()), max_size=4)
# Bytes that come close to HTTP find more than any bytes.
TOKENS = st.sampled_from([
    b"GET ", b"POST ", b"/ ", b"/echo ", b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\r\n\r\n", b"\n", b"Host: x\r\n", b":", b" ",
    b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n",
    b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n", b"Upgrade: x\r\n",
    b"Content-Encoding: gzip\r\n", b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n",
])  # fmt: skip
NEARLY = st.lists(TOKENS | st.binary(max_size=6), max_size=30).map(b"".join)


def render(requests) -> bytes:
    out = b""
    for word, fields, pieces, chunked in requests:
        body = b"".join(pieces)
        lines = [f"POST /{word} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in fields)]
        lines.append("Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}")
        if chunked:
            body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        out += "\r\n".join((*lines, "", "")).encode() + body
    return out


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """Return ``data`` in pieces that end at ``cuts``, taken modulo its length."""
    at = sorted({0, len(data), *(each % (len(data) + 1) for each in cuts)})
    return [data[first:last] for first, last in pairwise(at)]


def read(pieces: list[bytes]) -> tuple[list[tuple[str, list[tuple[str, str]], bytes]], bool]:
    """Return (target, fields, body so far) of each request, and whether it went on to the end of ``pieces``."""
    reader, found = Reader(max_head_bytes=LIMIT), []
    try:
        for piece in pieces:
            reader.feed(piece)
            while (event := reader.next_event()) is not None:
                match event:
                    case Head():
                        found.append((event.target, list(event.fields.headers.items()), b""))
                    case Data():
                        assert event.data
                        found[-1] = (*found[-1][:2], found[-1][2] + event.data)
                    case End():
                        pass
            assert len(reader._buffer) <= max(LIMIT, MAX_LINE_BYTES, MAX_TRAILER_BYTES) + 4
    except Malformed as error:
        return found, error.code not in (400, 431)  # no other code is expected: a test fails by it
    return found, True


@settings(deadline=None)
@given(requests=REQUESTS, cuts=st.lists(st.integers(0, 1 << 16), max_size=12))
def test_requests_go_through_however_they_are_cut(requests, cuts):
    found, whole = read(cut(render(requests), cuts))
    assert whole
    assert [(target, body) for target, _, body in found] == [
        (f"/{word}", b"".join(pieces)) for word, _, pieces, _ in requests
    ]
    for (_, fields, _), (_, given_, _, _) in zip(found, requests, strict=True):
        assert fields[1 : 1 + len(given_)] == given_


@settings(max_examples=400, deadline=None)
@given(data=NEARLY | st.binary(max_size=2000), cuts=st.lists(st.integers(0, 1 << 16), max_size=6))
def test_any_bytes_mean_one_thing(data, cuts):
    """Goal: nobody can slip a request past a reader by cutting the stream elsewhere."""
    assert read(cut(data, cuts)) == read([data])


class Front:
    def __init__(self):
        self.hosting = Hosting(
            handler=self.handle,
            refuse=lambda code, reason: Response(code, (), reason.encode()),
            config=Config(max_head_bytes=LIMIT),
        )
        self.server = Server(self.hosting)

    async def handle(self, request):
        body = b""
        try:
            while data := await request.read_some():
                body += data
        except Malformed as error:
            return Response(error.code)
        if request.method == "GET":
            stream = await request.begin({})
            await stream.write(b"streamed")
            return stream
        return Response(200, (), body)


@pytest.fixture
async def front():
    front = Front()
    _, front.port = await front.server.listen("127.0.0.1", 0)
    yield front
    await front.server.stop(0.0)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=NEARLY, cuts=st.lists(st.integers(0, 1 << 16), max_size=3), abort=st.booleans())
async def test_no_client_hurts_the_front_or_the_others(front, caplog, data, cuts, abort):
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        beside, other = await asyncio.open_connection("127.0.0.1", front.port)
        for piece in cut(data, cuts):
            writer.write(piece)
            await asyncio.sleep(0)
        other.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nConnection: close\r\n\r\nhere")
        assert (await beside.read()).endswith(b"\r\n\r\nhere")
        if abort:
            writer.transport.abort()
        else:
            writer.write_eof()
            answer = await reader.read()
            assert not answer or answer.startswith(b"HTTP/1.1 ")
        writer.close()
        other.close()
        while front.hosting.peers:  # noqa: ASYNC110 - the server's end goes a little later
            await asyncio.sleep(0)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
