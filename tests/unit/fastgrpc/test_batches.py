"""Methods whose calls are handed over by the lot, under both kinds of clients."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from fastgrpc import peer as peer_module
from fastgrpc.calls import CallFailed, Status, call_fields, frame_message
from fastgrpc.channel import Channel
from fastgrpc.connection import Connection
from fastgrpc.events import DataReceived, Limits
from fastgrpc.frames import ErrorCode
from fastgrpc.hosting import Hosting
from fastgrpc.peer import Peer
from fastgrpc.server import Ask, BatchMethod, Call, Server, ServerConfig, StreamMethod

BIG = bytes(range(256)) * 2000  # many frames


class Served:
    """A server whose lots are answered as each test likes."""

    def __init__(self) -> None:
        self.lots: list[Sequence[Ask]] = []
        self.ended: list[Status] = []
        self.handle: Callable[[Sequence[Ask]], None] = lambda lot: [ask.answer(ask.message) for ask in lot]
        self.server = Server(
            [BatchMethod("/t.T/Echo", self._take)],
            config=ServerConfig(max_message_bytes=1 << 20),
            on_end=lambda _, status, calls: self.ended.extend([status] * calls),
        )

    def _take(self, lot: Sequence[Ask]) -> None:
        self.lots.append(lot)
        self.handle(lot)

    async def lot(self, size: int) -> list[Ask]:
        """Return the calls under way, once there are so many."""
        async with asyncio.timeout(5):
            while sum(len(lot) for lot in self.lots) < size:  # noqa: ASYNC110 - the other side's pace
                await asyncio.sleep(0.005)
        return [ask for lot in self.lots for ask in lot]


@pytest.fixture
async def served() -> Served:
    return Served()


@pytest.fixture
async def ours(served: Served) -> AsyncIterator[Channel]:
    port = await served.server.listen("127.0.0.1", 0)
    channel = Channel(f"127.0.0.1:{port}")
    yield channel
    await channel.close()
    await served.server.stop(0)


@pytest.fixture
async def theirs(ours: Channel) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(ours.target) as channel:
        yield channel


def call(channel: Channel, body: bytes, timeout_s: float | None = None) -> "asyncio.Task[bytes]":
    return asyncio.create_task(channel.unary("/t.T/Echo", body, timeout_s=timeout_s))


async def test_what_comes_in_one_read_is_one_lot(served: Served, ours: Channel) -> None:
    await call(ours, b"first")  # from here on the headers are known, and the client is connected
    served.lots.clear()
    bodies = [b"%d" % i for i in range(50)]
    assert await asyncio.gather(*(call(ours, body) for body in bodies)) == bodies
    assert [len(lot) for lot in served.lots] == [50]
    assert served.ended == [Status.OK] * 51


@pytest.mark.parametrize("body", [b"", b"x", BIG])
async def test_any_client_any_size(theirs: grpc.aio.Channel, body: bytes) -> None:
    echo = theirs.unary_unary("/t.T/Echo")
    assert await asyncio.gather(*(echo(body, timeout=10) for _ in range(5))) == [body] * 5


async def test_large_requests_leave_the_connection_its_whole_window() -> None:
    """Goal: none of a request's bytes is owed to the client for ever. Method: more large ones than a window holds."""
    limits = Limits(window_bytes=1 << 16, connection_window_bytes=1 << 17)
    method = BatchMethod("/t.T/Echo", lambda lot: [ask.answer(b"%d" % len(ask.message)) for ask in lot])
    server = Server([method], config=ServerConfig(limits=limits, max_message_bytes=1 << 20))
    channel = Channel(f"127.0.0.1:{await server.listen('127.0.0.1', 0)}")
    for _ in range(20):
        assert await channel.unary("/t.T/Echo", BIG, timeout_s=5) == b"%d" % len(BIG)
    await channel.close()
    await server.stop(0)


async def test_compressed_requests(served: Served, theirs: grpc.aio.Channel) -> None:
    served.handle = lambda lot: [ask.answer(gzip.compress(ask.message)) for ask in lot]
    body = bytes(10_000)
    answer = await theirs.unary_unary("/t.T/Echo")(body, timeout=10, compression=grpc.Compression.Gzip)
    assert gzip.decompress(answer) == body


async def test_answers_may_come_later_and_in_any_order(served: Served, ours: Channel) -> None:
    served.handle = lambda lot: None
    waiting = [call(ours, b"%d" % i) for i in range(3)]
    asks = await served.lot(3)
    asks[2].answer(b"two")
    asks[0].fail(Status.NOT_FOUND, "nothing")
    asks[1].answer(b"one")
    asks[1].answer(b"again")  # means nothing any more
    assert await waiting[1] == b"one"
    assert await waiting[2] == b"two"
    with pytest.raises(CallFailed, match="NOT_FOUND: nothing"):
        await waiting[0]
    assert sorted(served.ended) == [Status.OK, Status.OK, Status.NOT_FOUND]


@pytest.mark.parametrize("size", [1, 100, 10_000])
async def test_answers_may_be_given_together(served: Served, ours: Channel, size: int) -> None:
    """Whoever is gone by then is left out, and nobody is told twice."""
    served.handle = lambda lot: None
    waiting = [call(ours, b"%d" % i, timeout_s=10) for i in range(4)]
    asks = sorted(await served.lot(4), key=lambda ask: ask.message)
    asks[1].fail(Status.NOT_FOUND, "nothing")
    asks[0].answer_all(asks, [ask.message * size for ask in asks])
    asks[0].answer_all(asks, [b"again"] * 4)
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert [told[i] for i in (0, 2, 3)] == [b"0" * size, b"2" * size, b"3" * size]
    assert isinstance(told[1], CallFailed)
    assert sorted(served.ended) == [Status.OK] * 3 + [Status.NOT_FOUND]


async def test_a_handler_s_bug_ends_what_it_has_not_answered(served: Served, ours: Channel) -> None:
    def answer_one(lot: Sequence[Ask]) -> None:
        lot[0].answer(b"good")
        raise ValueError("a bug")

    await call(ours, b"")
    served.handle = answer_one
    good, bad = await asyncio.gather(call(ours, b"a"), call(ours, b"b"), return_exceptions=True)
    assert good == b"good"
    assert isinstance(bad, CallFailed)
    assert bad.status is Status.UNKNOWN
    served.handle = lambda lot: [ask.answer(b"well") for ask in lot]
    assert await call(ours, b"c") == b"well"


@pytest.mark.parametrize("body", [b"", BIG])
async def test_the_server_keeps_the_client_s_deadline(served: Served, theirs: grpc.aio.Channel, body: bytes) -> None:
    """Whether the call came whole or in pieces; an answer after that goes nowhere."""
    served.handle = lambda lot: None
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await theirs.unary_unary("/t.T/Echo")(body, timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    (ask,) = await served.lot(1)
    async with asyncio.timeout(5):
        while not ask.gone:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    ask.answer(b"too late")
    assert served.ended in ([Status.DEADLINE_EXCEEDED], [Status.CANCELLED])


async def test_who_hangs_up_or_breaks_off_is_not_answered(served: Served, ours: Channel) -> None:
    served.handle = lambda lot: None
    canceled, broken = call(ours, b"a"), call(ours, b"b")
    asks = await served.lot(2)
    canceled.cancel()
    await ours.close()
    await asyncio.gather(canceled, broken, return_exceptions=True)
    async with asyncio.timeout(5):
        while not all(ask.gone for ask in asks):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    for ask in asks:
        ask.answer(b"nobody hears it")
    assert served.ended == [Status.CANCELLED] * 2


async def test_stopping_ends_what_is_under_way(served: Served, ours: Channel) -> None:
    served.handle = lambda lot: None
    waiting = call(ours, b"a")
    await served.lot(1)
    await served.server.stop(0)
    with pytest.raises(CallFailed, match="UNAVAILABLE"):
        await waiting


async def test_only_one_message_is_taken(served: Served, ours: Channel) -> None:
    async def send(*messages: bytes) -> Any:
        streaming = await ours.start("/t.T/Echo")
        for message in messages:
            await streaming.send(message)
        streaming.end()
        return await streaming.receive()

    assert await send(b"one") == b"one"
    for wrong in ((), (b"one", b"two")):
        with pytest.raises(CallFailed, match="UNIMPLEMENTED"):
            await send(*wrong)
    assert [len(lot) for lot in served.lots] == [1]


async def test_what_one_client_does_not_take_is_bounded() -> None:
    """Also when all of it was asked for in one go, before anything was answered."""
    ended: list[Status] = []
    method = BatchMethod("/t.T/Big", lambda lot: [ask.answer(bytes(8 << 20)) for ask in lot])
    peer = Peer(Hosting({method.path: method}, ServerConfig(), lambda _, status, __: ended.append(status), None, None))
    client = Connection(client=True, limits=Limits(window_bytes=65_535, connection_window_bytes=65_535))
    for _ in range(30):
        stream = client.open(call_fields(method.path, authority="a"))
        client.send_data(stream, frame_message(b""), end=True)
    peer.data_received(client.take_output())
    assert peer.http.waiting_bytes < 80 << 20
    assert ended.count(Status.OK) == 9
    assert ended.count(Status.RESOURCE_EXHAUSTED) == 21


async def test_what_one_client_does_not_take_of_its_streams_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: many streams together hold no more than one connection may. Method: send to all; then let it take all."""
    monkeypatch.setattr(peer_module, "MAX_WAITING_BYTES", 1 << 20)
    held: list[int] = []

    async def flood(call: Call) -> None:
        for _ in range(4):
            await call.send(bytes(100 << 10))
            held.append(peer.http.waiting_bytes)

    peer = Peer(Hosting({"/t.T/Flood": StreamMethod("/t.T/Flood", flood)}, ServerConfig(), None, None, None))
    written = bytearray()
    peer.connection_made(cast("asyncio.Transport", Wire(written)))
    client = Connection(client=True, limits=Limits(window_bytes=65_535, connection_window_bytes=65_535))
    for _ in range(40):
        stream = client.open(call_fields("/t.T/Flood", authority="a"))
        client.send_data(stream, frame_message(b""), end=True)
    peer.data_received(client.take_output())
    await turns(5)
    assert 1 << 20 < max(held) < (1 << 20) + (200 << 10)
    assert not peer.push(1, bytes(10))  # nor by this way
    for _ in range(2000):
        output, written[:] = bytes(written), b""
        for event in client.receive(output, 0.0):
            if isinstance(event, DataReceived):
                client.consumed(event.stream, len(event.data))
        peer.data_received(client.take_output())
        await turns(3)
    assert len(held) == 160
    assert max(held) < (1 << 20) + (200 << 10)


class Wire:
    """A transport that takes everything."""

    def __init__(self, written: bytearray) -> None:
        self.write = written.extend

    def get_extra_info(self, name: str) -> None:
        """Know nothing."""

    def is_closing(self) -> bool:
        return False


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("kept", [0, 1])
async def test_what_is_given_up_in_the_read_that_brought_it_costs_nobody_work(kept: int) -> None:
    """Whoever asks and takes it back, again and again, would keep us at work for nothing."""
    lots: list[Sequence[Ask]] = []
    method = BatchMethod("/t.T/Echo", lots.append)
    peer = Peer(Hosting({method.path: method}, ServerConfig(), None, None, None))
    client = Connection(client=True, limits=Limits())
    streams = [client.open(call_fields(method.path, authority="a")) for _ in range(3)]
    for stream in streams:
        client.send_data(stream, frame_message(b""), end=True)
    for stream in streams[kept:]:
        client.reset(stream, ErrorCode.CANCEL)
    peer.data_received(client.take_output())
    assert [[ask.stream for ask in lot] for lot in lots] == ([streams[:kept]] if kept else [])
