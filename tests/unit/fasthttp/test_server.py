"""One connection of the front: order, limits, deadlines and ends. Time is what ``Peer.check`` is told."""

import asyncio
import logging

import pytest

from fasthttp.peer import MAX_PIPELINED, Config, Hosting
from fasthttp.request import HIGH_WATER_BYTES, Request, Target, _parse_query
from fasthttp.server import Server
from fasthttp.writing import Response, render_head


class Front:
    """A server whose handler is whatever the test says, and its connections."""

    def __init__(self):
        self.gates: dict[str, asyncio.Event] = {}
        self.seen: list[str] = []
        self.cancelled: list[str] = []
        self.owned: list[Owner] = []
        self.hosting = Hosting(
            handler=self.handle,
            refuse=lambda code, reason: Response(code, (("Content-Type", "text/plain"),), reason.encode()),
            config=Config(head_s=20.0, keepalive_s=100.0, write_s=30.0, linger_s=2.0),
            hands_over=lambda head: head.wants_upgrade,
            other_protocol=self.own,
        )
        self.server = Server(self.hosting)
        self.port = 0

    async def handle(self, request: Request):
        path = request.path
        self.seen.append(path)
        try:
            if (gate := self.gates.get(path)) is not None:
                await gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(path)
            raise
        match path.split("/")[1]:
            case "echo":
                body = bytearray()
                while data := await request.read_some():
                    body += data
                return Response(200, (("Content-Type", "x/y"),), bytes(body))
            case "stream":
                stream = await request.begin({"Content-Type": "x/y"})
                for piece in (b"one", b"", b"two"):
                    await stream.write(piece)
                return stream
            case "big":
                return Response(200, (), bytes(64 << 20))
            case "refused":
                return Response(403, (), b"no")
            case "nothing":
                return Response(204)
            case "broken":
                raise RuntimeError("a fault of ours")
            case "injected":
                return Response(200, (("A", "b\r\nC: d"),))
        return Response(200, (), path.encode())

    def own(self):
        self.owned.append(Owner())
        return self.owned[-1]

    async def open(self, data: bytes = b"", *, limit: int = 1 << 27):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=limit)
        writer.write(data)
        return reader, writer

    async def ask(self, data: bytes) -> bytes:
        """Return all that comes until the server closes."""
        reader, writer = await self.open(data)
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        return answer

    def later(self, seconds: float) -> None:
        now = asyncio.get_running_loop().time() + seconds
        for peer in tuple(self.hosting.peers):
            peer.check(now)

    async def until(self, done) -> None:
        async with asyncio.timeout(10):
            while not done():  # noqa: ASYNC110 - what another task does cannot be awaited
                await asyncio.sleep(0.005)


class Owner(asyncio.Protocol):
    def __init__(self):
        self.got = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.got += data


@pytest.fixture
async def front():
    front = Front()
    _, front.port = await front.server.listen("127.0.0.1", 0)
    yield front
    await front.server.stop(0.0)
    await front.until(lambda: not front.hosting.peers)


def get(path: str, *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/{version}", "Host: x", *fields, "", "")).encode()


LAST = "Connection: close"


def bodies(answer: bytes) -> list[bytes]:
    """Return the bodies of answers that have lengths."""
    found = []
    while answer:
        head, _, answer = answer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        found.append(answer[:length])
        answer = answer[length:]
    return found


async def test_an_answer_is_not_lost_for_what_its_client_sent_behind_the_last_request(front):
    """Closing with bytes unread resets the connection, and with it goes what the client has not read yet."""
    reader, writer = await front.open(get("/a", LAST) + get("/b") * 40_000)
    async with asyncio.timeout(10):
        answer = await reader.read()
    assert (bodies(answer), front.seen) == ([b"/a"], ["/a"])
    front.later(1)
    assert front.hosting.peers
    front.later(3)
    await front.until(lambda: not front.hosting.peers)
    writer.close()


async def test_a_connection_that_cannot_be_looked_after_costs_no_other_one(front, monkeypatch, caplog):
    monkeypatch.setattr("fasthttp.server.SWEEP_S", 0.001)
    clients = [await front.open()]
    await front.until(lambda: len(front.hosting.peers) == 1)
    (odd,) = front.hosting.peers
    clients.append(await front.open())
    await front.until(lambda: len(front.hosting.peers) == 2)
    (good,) = front.hosting.peers - {odd}
    looked = asyncio.Event()

    def fail(now):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(odd, "check", fail)
    await front.until(lambda: odd not in front.hosting.peers)
    monkeypatch.setattr(good, "check", lambda now: looked.set())
    await asyncio.wait_for(looked.wait(), 5)
    assert [record.getMessage() for record in caplog.records] == ["connection not looked after, cut"]
    monkeypatch.undo()
    for _, writer in clients:
        writer.close()


async def test_answers_come_in_the_order_of_the_requests(front):
    front.gates["/slow"] = asyncio.Event()
    asking = asyncio.create_task(front.ask(get("/slow") + get("/a") + get("/b", LAST)))
    await front.until(lambda: front.seen == ["/slow"])
    await asyncio.sleep(0)
    assert front.seen == ["/slow"]  # one at a time
    front.gates["/slow"].set()
    assert bodies(await asking) == [b"/slow", b"/a", b"/b"]


async def test_many_requests_at_once_wait_unread(front):
    front.gates["/slow"] = asyncio.Event()
    many = b"".join(get(f"/{number}" + "x" * 500) for number in range(3000))
    asking = asyncio.create_task(front.ask(get("/slow") + many + get("/last", LAST)))
    await front.until(lambda: front.seen == ["/slow"])
    (peer,) = front.hosting.peers
    await front.until(lambda: not peer._reading)
    assert len(peer._waiting) == MAX_PIPELINED
    assert len(peer._reader._buffer) < 1 << 20
    front.gates["/slow"].set()
    assert len(bodies(await asking)) == 3002


@pytest.mark.parametrize("coding", ["Content-Length: 11", "Transfer-Encoding: chunked"])
async def test_bodies_both_ways(front, coding):
    body = b"hello world" if "Length" in coding else b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    answer = await front.ask(get("/echo", coding, method="POST") + body + get("/next", LAST))
    assert bodies(answer) == [b"hello world", b"/next"]


async def test_a_body_that_nobody_reads_waits_with_its_client(front):
    front.gates["/echo"] = asyncio.Event()
    size = 8 << 20
    asking = asyncio.create_task(front.ask(get("/echo", f"Content-Length: {size}", LAST, method="POST") + bytes(size)))
    await front.until(lambda: front.seen == ["/echo"])
    (peer,) = front.hosting.peers
    await front.until(lambda: not peer._reading)
    assert peer._serving.body.waiting_bytes <= HIGH_WATER_BYTES + (1 << 20)
    front.gates["/echo"].set()
    assert len(bodies(await asking)[0]) == size


async def test_the_body_is_asked_for_when_it_is_wanted(front):
    expecting = get("/echo", "Content-Length: 2", "Expect: 100-continue", LAST, method="PUT")
    reader, writer = await front.open(expecting)
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"ok")
    assert bodies(await reader.read()) == [b"ok"]
    writer.close()
    answer = await front.ask(expecting.replace(b"/echo", b"/refused").replace(LAST.encode(), b"X: y"))
    assert answer.startswith(b"HTTP/1.1 403 ")  # and not: go on


async def test_streams_are_chunked_or_end_with_the_connection(front):
    answer = await front.ask(get("/stream") + get("/next", LAST))
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    body, _, following = rest.partition(b"0\r\n\r\n")
    assert body == b"3\r\none\r\n3\r\ntwo\r\n"
    assert bodies(following) == [b"/next"]
    old = await front.ask(get("/stream", "Connection: keep-alive", version="1.0"))
    assert old.endswith(b"\r\n\r\nonetwo")
    assert b"Connection: close" in old


async def test_a_client_of_http_1_0_is_told_that_the_connection_stays(front):
    answer = await front.ask(get("/a", "Connection: keep-alive", version="1.0") + get("/b", version="1.0"))
    assert bodies(answer) == [b"/a", b"/b"]
    first, _, second = answer.partition(b"/a")
    assert b"\r\nConnection: keep-alive\r\n" in first
    assert b"\r\nConnection: close\r\n" in second


async def test_answers_without_bodies(front):
    answer = await front.ask(get("/abc", method="HEAD") + get("/nothing") + get("/next", LAST))
    head, nothing, last, body = answer.split(b"\r\n\r\n")
    assert b"Content-Length: 4" in head
    assert b"Content-Length" not in nothing
    assert (last[:15], body) == (b"HTTP/1.1 200 OK", b"/next")


async def test_an_unwanted_body_does_not_take_the_answer_away(front):
    reader, writer = await front.open(get("/refused", f"Content-Length: {1 << 30}", method="POST"))
    for _ in range(64):
        writer.write(bytes(1 << 16))
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403 ")
    assert b"Connection: close" in head
    assert await reader.readexactly(2) == b"no"
    (peer,) = front.hosting.peers
    front.later(1.0)
    assert not peer._transport.is_closing()
    front.later(3.0)
    assert peer._transport.is_closing()
    writer.close()


@pytest.mark.parametrize(
    ("sent", "before_s", "after_s", "told"),
    [
        (b"", 19.0, 21.0, b""),
        (b"GET / HT", 19.0, 21.0, b"HTTP/1.1 408 "),
        (get("/x"), 99.0, 101.0, b"HTTP/1.1 200 "),
        (get("/x") + b"GET", 19.0, 21.0, b"HTTP/1.1 408 "),
    ],
    ids=["never-sends", "half-a-head", "between-requests", "half-of-the-second"],
)
async def test_nobody_keeps_a_connection_by_silence(front, sent, before_s, after_s, told):
    reader, writer = await front.open(sent)
    await front.until(lambda: front.hosting.peers)
    (peer,) = front.hosting.peers
    await front.until(lambda: bool(peer._reader._buffer) == sent.endswith((b"HT", b"GET")))
    if sent.startswith(get("/x")):
        assert (await reader.readuntil(b"/x")).startswith(b"HTTP/1.1 200 ")
    front.later(before_s)
    assert not peer._closing
    front.later(after_s)
    assert peer._closing
    front.later(after_s + 3.0)
    answer = await reader.read()
    assert answer.startswith(told) or (not answer and told.startswith(b"HTTP/1.1 200"))
    writer.close()


async def test_a_slow_head_has_no_more_time_for_coming_in_pieces(front):
    _, writer = await front.open(b"GET / HTTP/1.1\r\n")
    await front.until(lambda: front.hosting.peers)
    (peer,) = front.hosting.peers
    await front.until(lambda: peer._reader._buffer)
    deadline = peer._deadline
    writer.write(b"A: b\r\n")
    await front.until(lambda: len(peer._reader._buffer) > 20)
    assert peer._deadline == deadline
    writer.close()


async def test_a_client_that_does_not_take_its_answer_gets_no_other_and_is_cut(front):
    _, writer = await front.open(get("/big") + get("/next"), limit=1 << 16)  # its client reads no more than that
    await front.until(lambda: front.seen == ["/big"])
    (peer,) = front.hosting.peers
    await front.until(lambda: peer._serving is None)
    assert front.seen == ["/big"]
    front.later(29.0)
    assert front.hosting.peers == {peer}
    front.later(31.0)
    await front.until(lambda: not front.hosting.peers)
    writer.close()


async def test_others_are_served_beside_a_slow_client(front):
    front.gates["/slow"] = asyncio.Event()
    asking = asyncio.create_task(front.ask(get("/slow", LAST)))
    await front.until(lambda: front.seen == ["/slow"])
    assert bodies(await front.ask(get("/quick", LAST))) == [b"/quick"]
    front.gates["/slow"].set()
    assert bodies(await asking) == [b"/slow"]


async def test_a_client_that_goes_ends_what_is_done_for_it(front):
    front.gates["/slow"] = asyncio.Event()
    _, writer = await front.open(get("/slow"))
    await front.until(lambda: front.seen == ["/slow"])
    writer.close()
    await front.until(lambda: front.cancelled == ["/slow"] and not front.hosting.peers)


async def test_another_protocol_takes_over_with_the_bytes_that_came(front):
    upgrade = get("/x", "Upgrade: SPDY/3.1", "Connection: Upgrade")
    front.gates["/first"] = asyncio.Event()
    reader, writer = await front.open(get("/first") + upgrade + b"early")
    await front.until(lambda: front.seen == ["/first"])
    assert not front.owned  # the answer that is due goes first
    front.gates["/first"].set()
    await reader.readuntil(b"/first")
    await front.until(lambda: front.owned and front.owned[0].got == upgrade + b"early")
    writer.write(b"more")
    await front.until(lambda: front.owned[0].got.endswith(b"more"))
    front.owned[0].transport.close()
    assert not front.hosting.peers
    writer.close()


@pytest.mark.parametrize("path", ["/broken", "/injected"])
async def test_a_fault_of_ours_ends_the_connection(front, caplog, path):
    reader, writer = await front.open(get(path) + get("/next"))
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR]
    writer.close()


async def test_malformed_requests_are_told_behind_the_answers_that_are_due(front):
    answer = await front.ask(get("/a") + b"GET / HTTP/3.0\r\n\r\n" + get("/never"))
    first, second = bodies(answer)
    assert first == b"/a"
    assert b"HTTP/1.1" in second
    assert b"HTTP/1.1 400 Bad Request" in answer
    assert front.seen == ["/a"]


@pytest.mark.parametrize("path", ["/echo", "/refused"])
async def test_a_body_that_is_none_is_told_at_once(front, path):
    reader, writer = await front.open(get(path, "Transfer-Encoding: chunked", method="POST") + b"2\r\nok\r\nzz\r\n")
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 " if path == "/echo" else b"HTTP/1.1 403 ")
    assert b"Connection: close" in head
    writer.write(get("/never"))
    (peer,) = front.hosting.peers
    front.later(3.0)
    assert peer._transport.is_closing()
    assert front.seen == [path]
    writer.close()


async def test_stopping_lets_requests_finish_and_takes_no_others(front):
    front.gates["/slow"] = asyncio.Event()
    asking = asyncio.create_task(front.ask(get("/slow") + get("/never")))
    idle = asyncio.create_task(front.ask(b""))
    await front.until(lambda: front.seen == ["/slow"] and len(front.hosting.peers) == 2)
    stopping = asyncio.create_task(front.server.stop(10.0))
    assert await idle == b""
    front.gates["/slow"].set()
    answer = await asking
    assert bodies(answer) == [b"/slow"]
    assert b"Connection: close" in answer
    await stopping
    with pytest.raises(ConnectionRefusedError):
        await front.open()


async def test_stopping_cuts_what_does_not_finish(front):
    front.gates["/slow"] = asyncio.Event()
    asking = asyncio.create_task(front.ask(get("/slow")))
    await front.until(lambda: front.seen == ["/slow"])
    await front.server.stop(0.0)
    assert await asking == b""
    assert front.cancelled == ["/slow"]


@pytest.mark.parametrize("field", [("A", "b\nc"), ("A", "b\rc"), ("A\r\nB", "c")])
def test_no_field_becomes_two(field):
    with pytest.raises(ValueError, match="line break"):
        render_head(200, [field], length=0, chunked=False, connection="")


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/a%20b?x=1&x=2&y=", "/a b", {"x": ["1", "2"], "y": [""]}),
        ("/?a+b=c%2Bd&%ff=", "/", {"a b": ["c+d"], "\udcff": [""]}),
        ("http://h:1/p?q#f", "/p", {"q": [""]}),
        ("*", "*", {}),
    ],
)
async def test_targets(front, target, path, query):
    found = []

    async def handle(request):
        found.append((request.path, {key: request.rel_url.query.getall(key) for key in request.rel_url.query}))
        return Response(200)

    front.hosting.handler = handle
    await front.ask(get(target, LAST))
    assert found == [(path, query)]


def test_long_queries_are_not_remembered():
    before = _parse_query.cache_info().currsize
    long = Target("/?" + "a" * 2000)
    assert list(long.query) == ["a" * 2000]
    assert _parse_query.cache_info().currsize == before


async def test_the_time_between_requests_does_not_count_for_a_head_that_has_begun(front):
    reader, writer = await front.open(get("/x"))
    await reader.readuntil(b"/x")
    (peer,) = front.hosting.peers
    front.later(21.0)
    assert not peer._closing  # idle, it may stay
    writer.write(b"GET /")
    await front.until(lambda: peer._reader._buffer)
    front.later(21.0)
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 408 ")
    writer.close()
