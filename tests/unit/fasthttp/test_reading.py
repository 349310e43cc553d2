"""What is read from a connection's bytes. Sources: RFC 9112, RFC 9110."""

import gzip
import zlib

import pytest

from fasthttp.heads import Head, Malformed
from fasthttp.inflating import PIECE_BYTES, pick_inflater
from fasthttp.reading import MAX_HEAD_BYTES, Data, End, Reader

HEAD = b"GET /a?b=1 HTTP/1.1\r\nHost: x\r\n\r\n"


def read(data: bytes, *, piece: int | None = None) -> list[object]:
    """Return every event in ``data``, fed ``piece`` bytes at a time, pieces of a body joined."""
    reader, found = Reader(), []
    for at in range(0, len(data), piece or len(data)):
        reader.feed(data[at : at + (piece or len(data))])
        while (event := reader.next_event()) is not None:
            if isinstance(event, Data) and isinstance(found[-1], Data):
                event = Data(found.pop().data + event.data)
            found.append(event)
    return found


def post(*fields: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((b"POST / HTTP/1.1", b"Host: x", *fields, b"", b"")) + body


def test_a_head() -> None:
    head, end = read(b"PUT /a%2Fb?c=d HTTP/1.1\r\nhost: x\r\nAccept:a\r\nACCEPT: \t b\xff \r\n\r\n")
    assert isinstance(head, Head)
    assert isinstance(end, End)
    assert (head.method, head.target, head.minor, head.keeps_alive) == ("PUT", "/a%2Fb?c=d", 1, True)
    assert head.fields.headers.getall("accept") == ["a", "b\udcff"]


@pytest.mark.parametrize("piece", [None, 1, 2, 3, 7])
@pytest.mark.parametrize(
    ("request_", "body"),
    [
        (post(b"Content-Length: 5", body=b"hello"), b"hello"),
        (post(b"Content-Length: 0"), b""),
        (post(b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"), b"hello world"),
        (post(b"Transfer-Encoding: Chunked", body=b"5;a=b\r\nhello\r\n00\r\nTrailer: x\r\n\r\n"), b"hello"),
        (post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), b""),
    ],
    ids=["length", "empty", "chunks", "extension-and-trailer", "no-chunk"],
)
def test_bodies_and_what_follows_them(request_: bytes, body: bytes, piece: int | None) -> None:
    first, *data, end, second, last = read(request_ + b"\r\n" + HEAD, piece=piece)
    assert isinstance(first, Head)
    assert b"".join(each.data for each in data) == body
    assert isinstance(end, End)
    assert isinstance(second, Head)
    assert second.target == "/a?b=1"
    assert isinstance(last, End)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"G\xc3\x84T / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nName : v\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nfolded: a\r\n b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\nInjected: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n: v\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: a\x00b\r\n\r\n",
        post(b"Content-Length: 5", b"Content-Length: 6"),
        post(b"Content-Length: 5, 5"),
        post(b"Content-Length: -1"),
        post(b"Content-Length: +1"),
        post("Content-Length: ٣".encode()),
        post(b"Content-Length: 1_0"),
        post(b"Content-Length: 9999999999999999999"),
        post(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        post(b"Transfer-Encoding: gzip, chunked"),
        post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        post(b"Transfer-Encoding: chunked", body=b"-1\r\n"),
        post(b"Transfer-Encoding: chunked", body=b"0x1\r\n"),
        post(b"Transfer-Encoding: chunked", body=b"\r\n"),
        post(b"Transfer-Encoding: chunked", body=b"1\r\nab\r\n"),
        post(b"Transfer-Encoding: chunked", body=b"1" * 2000),
        post(b"Transfer-Encoding: chunked", body=b"1;" + b"a" * 2000 + b"\r\n"),
        post(b"Transfer-Encoding: chunked", body=b"0\r\nA: b\n\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        post(b"Transfer-Encoding: chunked", body=b"0\r\n\nGET / HTTP/1.1\r\n\r\n"),
        post(b"Transfer-Encoding: chunked", body=b"0\r\nA : b\r\n\r\n"),
    ],
)
def test_what_two_readers_could_take_for_different_requests(request_: bytes) -> None:
    for piece in (None, 1):
        with pytest.raises(Malformed) as caught:
            read(request_, piece=piece)
        assert caught.value.code == 400


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + b"a" * MAX_HEAD_BYTES,
        b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * MAX_HEAD_BYTES,
        post(b"Transfer-Encoding: chunked", body=b"0\r\n" + b"A: b\r\n" * 10_000),
    ],
    ids=["line", "whole", "fields", "trailers"],
)
def test_heads_and_trailers_have_a_limit(request_: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        read(request_)
    assert caught.value.code == 431


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [
        (b"1", b"", True),
        (b"1", b"Close", False),
        (b"1", b"a, close", False),
        (b"0", b"", False),
        (b"0", b"Keep-Alive", True),
        (b"1", b"keep-alive", True),
    ],
)
def test_who_asks_more_over_a_connection(version: bytes, connection: bytes, keeps: bool) -> None:  # noqa: FBT001
    head, _ = read(b"GET / HTTP/1.%b\r\nHost: x\r\nConnection: %b\r\n\r\n" % (version, connection))
    assert isinstance(head, Head)
    assert head.keeps_alive is keeps


def test_the_same_fields_are_parsed_once() -> None:
    one, _, two, _ = read(HEAD + HEAD.replace(b"/a", b"/other"))
    assert isinstance(one, Head)
    assert isinstance(two, Head)
    assert one.fields is two.fields
    assert one.target != two.target


def test_the_rest_can_be_taken_behind_a_head() -> None:
    reader = Reader()
    reader.feed(HEAD + b"\x80\x03\x00\x01")
    head = reader.next_event()
    assert isinstance(head, Head)
    assert head.raw + reader.take_rest() == HEAD + b"\x80\x03\x00\x01"


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("Deflate", zlib.compress)])
def test_compressed_bodies(coding: str, pack) -> None:
    inflater = pick_inflater(coding)
    assert inflater is not None
    body = bytes(range(256)) * 5000
    packed, found = pack(body), b""
    for at in range(0, len(packed), 100):
        inflater.feed(packed[at : at + 100])
        while piece := inflater.take():
            assert len(piece) <= PIECE_BYTES
            found += piece
    inflater.finish()
    assert found == body


def test_a_small_body_that_stands_for_a_large_one_comes_in_pieces() -> None:
    inflater = pick_inflater("gzip")
    assert inflater is not None
    inflater.feed(gzip.compress(bytes(10 << 20)))
    assert len(inflater.take()) == PIECE_BYTES


def test_compressed_bodies_that_are_none() -> None:
    assert pick_inflater("identity") is None
    for data in (b"no gzip at all", gzip.compress(b"whole")[:-3]):
        inflater = pick_inflater("gzip")
        assert inflater is not None
        inflater.feed(data)
        with pytest.raises(Malformed):  # noqa: PT012 - either may notice
            inflater.take()
            inflater.finish()
