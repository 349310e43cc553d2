"""gRPC's interoperability cases: our server under grpcio's client, grpcio's server under our client, and both ours."""

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from fastgrpc import frames
from fastgrpc.calling import ClientCall
from fastgrpc.calls import CallFailed, Status, frame_message
from fastgrpc.channel import Channel, ChannelConfig, client_tls
from fastgrpc.events import Limits
from fastgrpc.hpack import Encoder
from fastgrpc.server import Call, Server, ServerConfig, StreamMethod, UnaryMethod, server_tls

SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"


async def echo(request: bytes, call: Call) -> bytes:
    call.trailing_metadata = tuple(pair for pair in call.metadata if pair[0].startswith("x-"))
    return request


async def quick(request: bytes, call: Call) -> bytes:
    await asyncio.sleep(0)
    future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.001, future.set_result, request)
    return await future


async def fail(request: bytes, call: Call) -> bytes:
    raise CallFailed(Status.FAILED_PRECONDITION, SPECIAL, details=b"\0more", metadata=(("x-why", "because"),))


async def bug(request: bytes, call: Call) -> bytes:
    raise ValueError("a bug")


class Sleeper:
    """Counts who sleeps, and who was woken by a cancellation."""

    def __init__(self) -> None:
        self.asleep = self.cancelled = 0

    async def __call__(self, request: bytes, call: Call) -> bytes:
        self.asleep += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return b""


async def collect(call: Call) -> None:
    sizes = [len(message) async for message in call.requests()]
    await call.send(b"%d in %d" % (sum(sizes), len(sizes)))


async def count(call: Call) -> None:
    await call.send_initial_metadata((("x-begun", "yes"),))
    async for message in call.requests():
        for i in range(int(message)):
            await call.send(b"%d" % i)


async def ping_pong(call: Call) -> None:
    async for message in call.requests():
        await call.send(message)


async def torrent(call: Call) -> None:
    while True:
        await call.send(bytes(100_000))


class Pusher:
    """Pushes until there is no room, then waits as others do, and goes on."""

    def __init__(self) -> None:
        self.refused = 0

    async def __call__(self, call: Call) -> None:
        for i in range(500):
            message = b"%d" % i + bytes(10_000)
            if not call.push(message):
                self.refused += 1
                await call.send(message)


class Running:
    def __init__(self) -> None:
        self.sleeper = Sleeper()
        self.pusher = Pusher()
        self.ended: list[tuple[str, Status]] = []
        self.server = Server(
            [
                UnaryMethod("/t.T/Echo", echo),
                UnaryMethod("/t.T/EchoInline", echo, inline=True),
                UnaryMethod("/t.T/Quick", quick, inline=True),
                UnaryMethod("/t.T/Fail", fail),
                UnaryMethod("/t.T/FailInline", fail, inline=True),
                UnaryMethod("/t.T/Bug", bug),
                UnaryMethod("/t.T/BugInline", bug, inline=True),
                UnaryMethod("/t.T/Sleep", self.sleeper),
                UnaryMethod("/t.T/Picky", echo, decode=lambda data: int(data.decode()), encode=lambda n: b"%d" % n),
                StreamMethod("/t.T/Collect", collect),
                StreamMethod("/t.T/Count", count),
                StreamMethod("/t.T/PingPong", ping_pong),
                StreamMethod("/t.T/Torrent", torrent),
                StreamMethod("/t.T/Push", self.pusher),
            ],
            config=ServerConfig(max_message_bytes=1 << 20, drain_s=0.05),
            on_end=lambda path, status, _: self.ended.append((path, status)),
        )
        self.port = 0


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    made = Running()
    made.port = await made.server.listen("127.0.0.1", 0)
    yield made
    await made.server.stop(0)


@pytest.fixture
async def theirs(running: Running) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        yield channel


@pytest.fixture
async def ours(running: Running) -> AsyncIterator[Channel]:
    channel = Channel(f"127.0.0.1:{running.port}")
    yield channel
    await channel.close()


async def until(holds: Any) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - the other side's pace
            await asyncio.sleep(0.005)


# -- grpcio's client -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["Echo", "EchoInline", "Quick"])
@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, 271_828, (1 << 20)])
async def test_unary(theirs: grpc.aio.Channel, method: str, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert await theirs.unary_unary(f"/t.T/{method}")(body, timeout=10) == body


async def test_pushed_messages_arrive_in_order_however_slowly_they_are_read(
    running: Running, theirs: grpc.aio.Channel
) -> None:
    pushed = theirs.stream_stream("/t.T/Push")()
    await until(lambda: running.pusher.refused)  # nothing is read yet
    got = [message.rstrip(b"\0") async for message in pushed]
    assert got == [b"%d" % i for i in range(500)]


async def test_many_at_once(running: Running, theirs: grpc.aio.Channel) -> None:
    bodies = [b"%d" % i * i for i in range(300)]
    assert await asyncio.gather(*(theirs.unary_unary("/t.T/EchoInline")(body) for body in bodies)) == bodies
    assert running.ended.count(("/t.T/EchoInline", Status.OK)) == 300


async def test_too_large_a_message(theirs: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await theirs.unary_unary("/t.T/Echo")(bytes((1 << 20) + 1))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await theirs.unary_unary("/t.T/Echo")(b"x") == b"x"


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_requests(theirs: grpc.aio.Channel, compression: grpc.Compression) -> None:
    body = b"again " * 10_000
    assert await theirs.unary_unary("/t.T/Echo")(body, compression=compression) == body


async def test_metadata_with_spaces_at_its_ends(theirs: grpc.aio.Channel) -> None:
    call = theirs.unary_unary("/t.T/Echo")(b"x", metadata=(("x-padded", " a b "),))
    assert await call == b"x"
    assert ("x-padded", "a b") in tuple(await call.trailing_metadata())


async def test_client_streaming(theirs: grpc.aio.Channel) -> None:
    messages = [bytes(27_182), bytes(8), bytes(1828), bytes(45_904)]
    assert await theirs.stream_unary("/t.T/Collect")(iter(messages)) == b"74922 in 4"
    assert await theirs.stream_unary("/t.T/Collect")(iter(())) == b"0 in 0"


async def test_server_streaming(theirs: grpc.aio.Channel) -> None:
    call = theirs.unary_stream("/t.T/Count")(b"1000")
    assert ("x-begun", "yes") in tuple(await call.initial_metadata())
    assert [int(message) async for message in call] == list(range(1000))


async def test_ping_pong(theirs: grpc.aio.Channel) -> None:
    call = theirs.stream_stream("/t.T/PingPong")()
    for size in (31_415, 9, 2653, 58_979):
        await call.write(bytes(size))
        assert len(await call.read()) == size
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_empty_stream(theirs: grpc.aio.Channel) -> None:
    call = theirs.stream_stream("/t.T/PingPong")()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_cancel_after_begin(running: Running, theirs: grpc.aio.Channel) -> None:
    call = theirs.stream_unary("/t.T/Collect")()
    await call.write(b"x")
    await until(lambda: any(peer._calls for peer in running.server._hosting.peers))
    call.cancel()
    await until(lambda: running.ended == [("/t.T/Collect", Status.CANCELLED)])


async def test_cancel_after_first_response(running: Running, theirs: grpc.aio.Channel) -> None:
    call = theirs.stream_stream("/t.T/PingPong")()
    await call.write(b"x")
    assert await call.read() == b"x"
    call.cancel()
    await until(lambda: running.ended == [("/t.T/PingPong", Status.CANCELLED)])


async def test_cancel_of_a_unary_call_reaches_its_handler(running: Running, theirs: grpc.aio.Channel) -> None:
    call = theirs.unary_unary("/t.T/Sleep")(b"")
    await until(lambda: running.sleeper.asleep)
    call.cancel()
    await until(lambda: running.sleeper.cancelled)


async def test_timeout_on_sleeping_server(running: Running, theirs: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await theirs.unary_unary("/t.T/Sleep")(b"", timeout=0.05)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: running.sleeper.cancelled)


@pytest.mark.parametrize("method", ["Fail", "FailInline"])
async def test_status_and_special_message(theirs: grpc.aio.Channel, method: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await theirs.unary_unary(f"/t.T/{method}")(b"")
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.FAILED_PRECONDITION, SPECIAL)
    trailing = dict(caught.value.trailing_metadata())
    assert trailing["x-why"] == "because"
    assert trailing["grpc-status-details-bin"] == b"\0more"


@pytest.mark.parametrize("method", ["Bug", "BugInline"])
async def test_a_bug_ends_its_call_alone(theirs: grpc.aio.Channel, method: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await theirs.unary_unary(f"/t.T/{method}")(b"")
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNKNOWN, "ValueError: a bug")
    assert await theirs.unary_unary("/t.T/Echo")(b"x") == b"x"


async def test_custom_metadata(theirs: grpc.aio.Channel) -> None:
    metadata = (("x-grpc-test-echo-initial", "value"), ("x-trailing-bin", b"\x0a\x0b\x0a\xff"))
    call = theirs.unary_unary("/t.T/Echo")(b"", metadata=metadata)
    await call
    assert tuple(await call.trailing_metadata()) == metadata


async def test_unimplemented(theirs: grpc.aio.Channel) -> None:
    for path, text in (("/t.T/No", "unknown method No for service t.T"), ("/no.No/No", "unknown service no.No")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await theirs.unary_unary(path)(b"x")
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNIMPLEMENTED, text)


async def test_a_request_that_cannot_be_decoded(theirs: grpc.aio.Channel) -> None:
    assert await theirs.unary_unary("/t.T/Picky")(b"17") == b"17"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await theirs.unary_unary("/t.T/Picky")(b"x")
    assert caught.value.code() is grpc.StatusCode.INTERNAL


async def test_one_request_is_not_two(theirs: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await theirs.stream_unary("/t.T/Echo")(iter((b"1", b"2")))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_slow_reader_makes_its_sender_wait(running: Running, theirs: grpc.aio.Channel) -> None:
    call = theirs.unary_stream("/t.T/Torrent")(b"")
    assert len(await call.read()) == 100_000
    (peer,) = running.server._hosting.peers
    (sender,) = peer._calls.values()
    await until(lambda: sender._waiting_for_room)
    assert peer.http.waiting_bytes < 1 << 20
    assert await theirs.unary_unary("/t.T/Echo")(b"x") == b"x"  # others are not held up
    for _ in range(100):
        assert len(await call.read()) == 100_000
    call.cancel()


async def test_a_slow_handler_makes_its_client_wait(running: Running, ours: Channel) -> None:
    """The requests that nobody reads stay with the client, but for a window."""
    call = await ours.start("/t.T/PingPong")  # which stops reading when nobody reads its answers
    for _ in range(200):
        call.write(bytes(50_000))
    for _ in range(20):
        assert await ours.unary("/t.T/Echo", b"x") == b"x"  # others are not held up
    assert call.waiting_bytes > 5_000_000  # the rest: two windows and two queues, as much as is under way each way
    assert call.write_now(b"left out", at_most=5_000_000) is False
    sending = asyncio.create_task(call.send(b"more"))
    await until(lambda: call._room)
    assert not sending.done()
    answers = [await asyncio.wait_for(call.receive(), 5) for _ in range(201)]  # whoever reads gets everything
    assert answers[-1] == b"more"
    await sending
    assert call.write_now(b"last", at_most=5_000_000) is True
    assert await asyncio.wait_for(call.receive(), 5) == b"last"
    call.cancel()


async def test_graceful_stop(running: Running, theirs: grpc.aio.Channel) -> None:
    slow = theirs.stream_stream("/t.T/PingPong")()
    await slow.write(b"1")
    await slow.read()
    stopping = asyncio.create_task(running.server.stop(5))
    await asyncio.sleep(0.2)  # the client knows by now that it should go elsewhere
    await slow.write(b"2")
    assert await slow.read() == b"2"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await theirs.unary_unary("/t.T/Echo")(b"x", timeout=1)
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    await slow.done_writing()
    await asyncio.wait_for(stopping, 3)
    assert await slow.code() is grpc.StatusCode.OK


async def test_stop_ends_what_does_not_end(running: Running, theirs: grpc.aio.Channel) -> None:
    call = theirs.unary_unary("/t.T/Sleep")(b"")
    await until(lambda: running.sleeper.asleep)
    await running.server.stop(0.05)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert running.sleeper.cancelled == 1


async def test_a_flood_on_one_connection_leaves_the_others_alone(running: Running, theirs: grpc.aio.Channel) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(frames.PREFACE + frames.settings({}) + frames.ping(bytes(8), ack=False) * 20_000)
    await until(lambda: running.server._hosting.peers)
    await until(lambda: not running.server._hosting.peers)  # it hangs up
    assert await theirs.unary_unary("/t.T/Echo")(b"x") == b"x"
    writer.close()


async def test_who_does_not_speak_http2_is_hung_up_on(running: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await reader.read(-1) == b""
    writer.close()


class Greeter(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\n\r\n" + data)
        self.transport.close()


async def test_other_protocols_are_handed_over() -> None:
    server = Server([UnaryMethod("/t.T/Echo", echo)], other_protocol=Greeter)
    port = await server.listen("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"G")
    await asyncio.sleep(0.01)
    writer.write(b"ET /health HTTP/1.1\r\n\r\n")
    assert (await reader.read(-1)).startswith(b"HTTP/1.1 200 OK\r\n\r\nG")
    writer.close()
    await server.stop(0)


async def test_silent_connections_are_closed() -> None:
    config = ServerConfig(keepalive_s=0.1, keepalive_timeout_s=0.1)
    server = Server([UnaryMethod("/t.T/Echo", echo)], config=config)
    port = await server.listen("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as lively:
        await lively.unary_unary("/t.T/Echo")(b"x")
        silent, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(frames.PREFACE + frames.settings({}))
        asked = await asyncio.wait_for(silent.read(-1), 5)
        assert b"are you?" in asked
        assert len(server._hosting.peers) == 1  # who answers stays
        writer.close()
    await server.stop(0)


async def test_a_fault_in_looking_after_one_connection_leaves_the_others_looked_after(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server([UnaryMethod("/t.T/Echo", echo)], config=ServerConfig(keepalive_s=0.02, keepalive_timeout_s=0.02))
    port = await server.listen("127.0.0.1", 0)
    (first, writer), (second, other) = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    await until(lambda: len(server._hosting.peers) == 2)

    def broken(*arguments: object, **options: object) -> None:
        raise ValueError("a bug")

    next(iter(server._hosting.peers)).check_alive = broken  # type: ignore[method-assign]
    assert await asyncio.wait_for(asyncio.gather(first.read(), second.read()), 10) is not None  # both are closed
    assert "cannot look after a connection" in caplog.text
    writer.close()
    other.close()
    await server.stop(0)


# -- our client ----------------------------------------------------------------------------------------------------------


class Theirs:
    """The same services by grpcio."""

    @staticmethod
    async def echo(request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata(tuple(pair for pair in context.invocation_metadata() if pair[0][:2] == "x-"))
        return request

    @staticmethod
    async def fail(request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, SPECIAL)
        return b""

    @staticmethod
    async def sleep(request: bytes, context: Any) -> bytes:
        await asyncio.Event().wait()
        return b""

    @staticmethod
    async def ping_pong(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for message in requests:
            yield message


@pytest.fixture
async def their_server() -> AsyncIterator[int]:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)], compression=grpc.Compression.Gzip)
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(Theirs.echo),
        "Fail": grpc.unary_unary_rpc_method_handler(Theirs.fail),
        "Sleep": grpc.unary_unary_rpc_method_handler(Theirs.sleep),
        "PingPong": grpc.stream_stream_rpc_method_handler(Theirs.ping_pong),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("t.T", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(None)


@pytest.fixture(params=["their server", "our server"])
def port(request: pytest.FixtureRequest, their_server: int, running: Running) -> Iterator[int]:
    return their_server if request.param == "their server" else running.port


@pytest.fixture
async def channel(port: int) -> AsyncIterator[Channel]:
    made = Channel(f"127.0.0.1:{port}")
    yield made
    await made.close()


@pytest.mark.parametrize("size", [0, 1, 16_384, 271_828, 1 << 20])
async def test_our_unary(channel: Channel, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert await channel.unary("/t.T/Echo", body, timeout_s=10) == body


async def test_our_metadata(channel: Channel) -> None:
    call = await channel.start("/t.T/Echo", metadata=(("x-text", "v"), ("x-bin", b"\0\xff")))
    await call.send(b"q", end=True)
    assert [message async for message in call] == [b"q"]
    assert call.trailing_metadata == (("x-text", "v"), ("x-bin", b"\0\xff"))


async def test_our_failures(channel: Channel) -> None:
    with pytest.raises(CallFailed) as caught:
        await channel.unary("/t.T/Fail", b"")
    assert caught.value.message == SPECIAL
    with pytest.raises(CallFailed) as caught:
        await channel.unary("/t.T/No", b"")
    assert caught.value.status is Status.UNIMPLEMENTED
    with pytest.raises(CallFailed) as caught:
        await channel.unary("/t.T/Sleep", b"", timeout_s=0.05)
    assert caught.value.status is Status.DEADLINE_EXCEEDED


async def test_our_ping_pong(channel: Channel) -> None:
    call = await channel.start("/t.T/PingPong")
    for size in (31_415, 9, 2653, 300_000):
        await call.send(bytes(size))
        message = await call.receive()
        assert message is not None
        assert len(message) == size
    call.end()
    assert await call.receive() is None


async def test_our_cancellation(running: Running, ours: Channel) -> None:
    call = await ours.start("/t.T/PingPong")
    await call.send(b"x")
    assert await call.receive() == b"x"
    call.cancel()
    with pytest.raises(CallFailed) as caught:
        await call.receive()
    assert caught.value.status is Status.CANCELLED
    await until(lambda: running.ended == [("/t.T/PingPong", Status.CANCELLED)])


async def test_a_channel_connects_anew(running: Running) -> None:
    channel = Channel(f"127.0.0.1:{running.port}")
    assert await channel.unary("/t.T/Echo", b"x") == b"x"
    sleeping = asyncio.create_task(channel.unary("/t.T/Sleep", b""))
    await until(lambda: running.sleeper.asleep)
    for peer in tuple(running.server._hosting.peers):
        peer.hang_up()
    with pytest.raises(CallFailed) as caught:
        await sleeping
    assert caught.value.status is Status.UNAVAILABLE
    assert await channel.unary("/t.T/Echo", b"y") == b"y"
    await channel.close()
    with pytest.raises(CallFailed, match="closed"):
        await channel.unary("/t.T/Echo", b"z")


async def test_nobody_there() -> None:
    channel = Channel("127.0.0.1:1")
    with pytest.raises(CallFailed) as caught:
        await channel.unary("/t.T/Echo", b"")
    assert caught.value.status is Status.UNAVAILABLE


async def test_a_silent_server_is_given_up() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    channel = Channel(f"127.0.0.1:{port}", config=ChannelConfig(keepalive_s=0.05, keepalive_timeout_s=0.05))
    with pytest.raises(CallFailed) as caught:
        await channel.unary("/t.T/Echo", b"")
    assert caught.value.status is Status.UNAVAILABLE
    await channel.close()
    server.close()


async def test_unfinished_messages_are_held_up_to_a_limit() -> None:
    """Goal: who has not said yet what it wants costs little memory. Method: messages of 90 kB that stop after 60."""
    server = Server([UnaryMethod("/t.T/Echo", echo)], config=ServerConfig(max_partial_bytes=150_000))
    channel = Channel(f"127.0.0.1:{await server.listen('127.0.0.1', 0)}")
    message = frame_message(bytes(90_000))

    async def begin() -> ClientCall:
        call = await channel.start("/t.T/Echo", timeout_s=20)
        assert channel._wire is not None
        channel._wire.http.send_data(call._stream, message[:60_000])
        channel._wire.flush()
        return call

    async def finish(call: ClientCall) -> None:
        assert channel._wire is not None
        channel._wire.http.send_data(call._stream, message[60_000:])
        call.end()
        assert await call.receive() == bytes(90_000)

    held = [await begin(), await begin()]
    with pytest.raises(CallFailed, match="too many large requests"):
        await (await begin()).receive()
    for call in held:
        await finish(call)
    # What is over counts no more: neither what was refused, nor what was answered, nor what is given up.
    for _ in range(3):
        given_up = await begin()
        given_up.cancel()
    await finish(await begin())
    await channel.close()
    await server.stop(0)


# -- TLS -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def secured(pki: Path) -> AsyncIterator[int]:
    async def who(request: bytes, call: Call) -> bytes:
        subject = dict(pair[0] for pair in call.peer.certificate["subject"])
        return subject["commonName"].encode()

    server = Server([UnaryMethod("/t.T/Who", who), StreamMethod("/t.T/PingPong", ping_pong)])
    context = server_tls(str(pki / "server.pem"), str(pki / "server.key"), str(pki / "ca.pem"))
    yield await server.listen("127.0.0.1", 0, tls=context)
    await server.stop(0)


async def test_mutual_tls_with_grpcio(secured: int, pki: Path) -> None:
    def read(name: str) -> bytes:
        return (pki / name).read_bytes()

    credentials = grpc.ssl_channel_credentials(read("ca.pem"), read("client.key"), read("client.pem"))
    async with grpc.aio.secure_channel(f"127.0.0.1:{secured}", credentials) as channel:
        assert await channel.unary_unary("/t.T/Who")(b"") == b"client"
    async with grpc.aio.secure_channel(f"127.0.0.1:{secured}", grpc.ssl_channel_credentials(read("ca.pem"))) as nobody:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await nobody.unary_unary("/t.T/Who")(b"", timeout=2)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("admitted", [True, False])
async def test_not_everyone_whom_an_authority_knows_is_served(pki: Path, *, admitted: bool) -> None:
    served = []

    async def serve(request: bytes, call: Call) -> bytes:
        served.append(request)
        return request

    server = Server([UnaryMethod("/t.T/Echo", serve)])
    context = server_tls(str(pki / "server.pem"), str(pki / "server.key"), str(pki / "ca.pem"))
    wanted = "client" if admitted else "master"
    port = await server.listen(
        "127.0.0.1", 0, tls=context, admits=lambda shown: ((("commonName", wanted),),) == shown["subject"]
    )
    channel = Channel(
        f"127.0.0.1:{port}", tls=client_tls(str(pki / "ca.pem"), str(pki / "client.pem"), str(pki / "client.key"))
    )
    if admitted:
        assert await channel.unary("/t.T/Echo", b"x") == b"x"
    else:
        with pytest.raises(CallFailed) as caught:
            await channel.unary("/t.T/Echo", b"x", timeout_s=2)
        assert caught.value.status in (Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED)
    assert served == ([b"x"] if admitted else [])
    await channel.close()
    await server.stop(0)


async def test_mutual_tls_between_ours(secured: int, pki: Path) -> None:
    tls = client_tls(str(pki / "ca.pem"), str(pki / "client.pem"), str(pki / "client.key"))
    channel = Channel(f"127.0.0.1:{secured}", tls=tls)
    assert await channel.unary("/t.T/Who", b"") == b"client"
    call = await channel.start("/t.T/PingPong")
    await call.send(bytes(500_000))
    assert len(await call.receive() or b"") == 500_000
    await channel.close()
    for context in (
        client_tls(str(pki / "ca.pem")),  # shows no certificate
        client_tls(str(pki / "stranger.pem"), str(pki / "client.pem"), str(pki / "client.key")),  # trusts somebody else
    ):
        refused = Channel(f"127.0.0.1:{secured}", tls=context)
        with pytest.raises(CallFailed) as caught:
            await refused.unary("/t.T/Who", b"", timeout_s=2)
        assert caught.value.status is Status.UNAVAILABLE
        await refused.close()


@pytest.mark.parametrize("shows", ["client", "", "stranger"])
async def test_a_certificate_may_be_optional_and_still_has_to_be_ours(pki: Path, shows: str) -> None:
    async def who(request: bytes, call: Call) -> bytes:
        assert bool(call.peer.certificate) == bool(call.peer.encoded_certificate)
        return call.peer.encoded_certificate

    server = Server([UnaryMethod("/t.T/Who", who)])
    files = [str(pki / name) for name in ("server.pem", "server.key", "ca.pem")]
    port = await server.listen("127.0.0.1", 0, tls=server_tls(*files, optional=True))
    shown = [str(pki / f"{shows}.pem"), str(pki / f"{shows}.key")] if shows else []
    channel = Channel(f"127.0.0.1:{port}", tls=client_tls(str(pki / "ca.pem"), *shown))
    if shows == "stranger":
        with pytest.raises(CallFailed) as caught:
            await channel.unary("/t.T/Who", b"", timeout_s=5)
        assert caught.value.status is Status.UNAVAILABLE
    else:
        expected = ssl.PEM_cert_to_DER_cert((pki / "client.pem").read_text()) if shows else b""
        assert await channel.unary("/t.T/Who", b"", timeout_s=5) == expected
    await channel.close()
    await server.stop(0)


async def test_a_client_that_does_not_hang_up_is_cut(pki: Path) -> None:
    """Goal: a stopped server leaves no socket. Method: a client that never answers the end of its TLS."""
    server = Server([UnaryMethod("/t.T/Echo", echo)])
    context = server_tls(str(pki / "server.pem"), str(pki / "server.key"))
    port = await server.listen("127.0.0.1", 0, tls=context)
    tls = ssl.create_default_context(cafile=str(pki / "ca.pem"))
    tls.set_alpn_protocols(["h2"])

    def connect() -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", port))
        secured = tls.wrap_socket(plain, server_hostname="localhost")
        secured.sendall(frames.PREFACE + frames.settings({}))
        secured.recv(1)  # it is served
        return secured

    client = await asyncio.to_thread(connect)
    await asyncio.wait_for(server.stop(0), 5)
    assert not server._hosting.peers
    client.close()


async def test_alpn_says_h2(secured: int, pki: Path) -> None:
    tls = client_tls(str(pki / "ca.pem"), str(pki / "client.pem"), str(pki / "client.key"))
    tls.set_alpn_protocols(["h2", "http/1.1"])
    _, writer = await asyncio.open_connection("127.0.0.1", secured, ssl=tls)
    ssl_object: ssl.SSLObject = writer.get_extra_info("ssl_object")
    assert ssl_object.selected_alpn_protocol() == "h2"
    writer.close()


# -- by hand -------------------------------------------------------------------------------------------------------------


async def test_frames_in_any_cut(running: Running) -> None:
    """A call whose bytes come one at a time, with a compressed message in two DATA frames."""
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/t.T/Echo"),
        (b"content-type", b"application/grpc+proto"),
        (b"grpc-encoding", b"gzip"),
    )
    message = b"\1" + frame_message(gzip.compress(b"hello"))[1:]
    request = (
        frames.PREFACE
        + frames.settings({})
        + frames.frame(frames.HEADERS, frames.END_HEADERS, 1, Encoder().encode(fields))
        + frames.frame(frames.DATA, 0, 1, message[:9])
        + frames.frame(frames.DATA, frames.END_STREAM, 1, message[9:])
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    for byte in request:
        writer.write(bytes((byte,)))
        await writer.drain()
    received = b""
    while frame_message(b"hello") not in received:
        received += await asyncio.wait_for(reader.read(1000), 5)
    writer.close()


# -- requests handed out as they arrive ----------------------------------------------------------------------------------


async def test_requests_handed_out_in_the_turn_they_arrive() -> None:
    taken: list[bytes] = []

    async def listen(call: Call) -> None:
        first = await anext(call.requests(), None)
        taken.append(first or b"")

        def take(message: bytes) -> None:
            if message == b"bad":
                raise CallFailed(Status.PERMISSION_DENIED, "no more of you")
            taken.append(message)

        await call.hand_to(take)
        await call.send(b"%d" % len(taken))

    server = Server([StreamMethod("/t.T/Listen", listen)])
    channel = Channel(f"127.0.0.1:{await server.listen('127.0.0.1', 0)}")
    call = await channel.start("/t.T/Listen")
    for message in (b"1", b"2", b"3"):
        call.write(message)
    call.end()
    assert await call.receive() == b"3"
    assert await call.receive() is None
    assert taken == [b"1", b"2", b"3"]
    refused = await channel.start("/t.T/Listen")
    refused.write(b"1")
    refused.write(b"bad")
    with pytest.raises(CallFailed, match="no more of you"):
        await refused.receive()
    await channel.close()
    await server.stop(0)


async def test_requests_that_waited_to_be_handed_out_open_the_window_again() -> None:
    taken: list[int] = []
    ready = asyncio.Event()

    async def listen(call: Call) -> None:
        await ready.wait()
        await call.hand_to(lambda message: taken.append(len(message)))
        await call.send(b"%d" % sum(taken))

    server = Server([StreamMethod("/t.T/Listen", listen)])
    channel = Channel(f"127.0.0.1:{await server.listen('127.0.0.1', 0)}")
    call = await channel.start("/t.T/Listen")
    message = bytes(100_000)
    for _ in range(30):  # three windows
        call.write(message)
    async with asyncio.timeout(10):
        # All that the window takes is on its way before the handler begins.
        while call.waiting_bytes > 30 * len(frame_message(message)) - Limits().window_bytes:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        ready.set()
        call.end()
        assert await call.receive() == b"%d" % (30 * len(message))
    await channel.close()
    await server.stop(0)


async def test_a_name_that_can_be_none_is_as_good_as_unreachable() -> None:
    with pytest.raises(CallFailed, match="cannot be reached") as failed:
        await Channel("a..b:1").connect()
    assert failed.value.status is Status.UNAVAILABLE
