"""Our client and servers that do what a test says, frame by frame: what no well-behaved server does, or not on demand."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from fastgrpc import frames
from fastgrpc.calls import CallFailed, Status, frame_message
from fastgrpc.channel import Channel, ClientCall
from fastgrpc.frames import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, ErrorCode, Setting, frame
from fastgrpc.hpack import Fields

HEAD: Fields = ((b":status", b"200"), (b"content-type", b"application/grpc"))
END: Fields = ((b"grpc-status", b"0"),)


def block(fields: Fields) -> bytes:
    """Return fields as literals that change no table."""
    return b"".join(b"\0%c%b%c%b" % (len(name), name, len(value), value) for name, value in fields)


def headers(stream: int, fields: Fields, *, end: bool = False) -> bytes:
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block(fields))


def data(stream: int, message: bytes) -> bytes:
    return frame(DATA, 0, stream, frame_message(message))


def answer(stream: int, message: bytes = b"answer") -> bytes:
    return headers(stream, HEAD) + data(stream, message) + headers(stream, END, end=True)


class Script:
    """One connection of such a server."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number  # the first is 1
        self.writer = writer
        self.received: list[frames.Frame] = []
        self._reader = reader

    def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    def settings(self, values: dict[Setting, int] | None = None) -> None:
        self.send(frames.settings(values or {}))

    async def frames(self) -> AsyncIterator[frames.Frame]:
        """Yield what the client sends, until it hangs up."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await self._reader.readexactly(frames.HEADER_BYTES)
                payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                found = head[3], head[4], int.from_bytes(head[5:], "big"), payload
                self.received.append(found)
                yield found

    async def requests(self) -> AsyncIterator[int]:
        """Yield the streams of requests as they come to their end."""
        async for kind, flags, stream, _ in self.frames():
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                yield stream


class Scripted:
    """Such a server, with every connection that it had."""

    def __init__(self, play: Callable[[Script], Awaitable[None]]) -> None:
        self._play = play
        self.scripts: list[Script] = []
        self.over = asyncio.Queue[int]()  # the numbers of connections that the client hung up
        self.port = 0

    async def on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = Script(len(self.scripts) + 1, reader, writer)
        self.scripts.append(script)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            assert await reader.readexactly(len(PREFACE)) == PREFACE
            await self._play(script)
        self.over.put_nowait(script.number)


@contextlib.asynccontextmanager
async def scripted(play: Callable[[Script], Awaitable[None]]) -> AsyncIterator[tuple[Scripted, Channel]]:
    made = Scripted(play)
    server = await asyncio.start_server(made.on_connection, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    channel = Channel(f"127.0.0.1:{made.port}")
    try:
        async with asyncio.timeout(20):
            yield made, channel
    finally:
        await channel.close()
        server.close()
        for script in made.scripts:
            script.writer.close()
            with contextlib.suppress(ConnectionError):
                await script.writer.wait_closed()


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(2000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


# -- servers that are done first -----------------------------------------------------------------------------------------


async def answer_at_once(script: Script) -> None:
    """End every call when it begins, and say nothing of the rest of it, as grpc-js and grpclib do."""
    script.settings({Setting.MAX_CONCURRENT_STREAMS: 3})
    async for kind, _, stream, _ in script.frames():
        if kind == HEADERS:
            script.send(answer(stream))


async def test_a_call_that_the_server_ends_first_leaves_no_stream_behind() -> None:
    async with scripted(answer_at_once) as (server, channel):
        for _ in range(10):  # more than it takes at once
            call = await channel.start("/t.T/Early")
            assert [message async for message in call] == [b"answer"]
        assert channel._wire is not None
        assert channel._wire.http.open_streams == 0
        # A message of which windows let only some out is forgotten too: neither sent nor kept.
        for _ in range(10):
            assert await channel.unary("/t.T/Early", bytes(300_000)) == b"answer"
        assert channel._wire.http.open_streams == channel._wire.http.waiting_bytes == 0
        await channel.close()
        assert await server.over.get() == 1
    resets = [payload for kind, _, _, payload in server.scripts[0].received if kind == RST_STREAM]
    assert resets == [ErrorCode.NO_ERROR.to_bytes(4, "big")] * 20


async def test_a_call_that_both_end_is_not_reset() -> None:
    async def play(script: Script) -> None:
        script.settings()
        async for stream in script.requests():
            script.send(answer(stream))

    async with scripted(play) as (server, channel):
        for _ in range(3):
            assert await channel.unary("/t.T/Echo", b"x") == b"answer"
        await channel.close()
        assert await server.over.get() == 1
    assert RST_STREAM not in {kind for kind, *_ in server.scripts[0].received}


# -- connections that go away --------------------------------------------------------------------------------------------


async def test_a_channel_connects_anew_when_stream_numbers_are_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_STREAM_ID", 7)  # instead of 2^31 - 1

    async def play(script: Script) -> None:
        script.settings()
        async for stream in script.requests():
            if script.number > 1 or stream < 7:
                script.send(answer(stream, b"%d %d" % (script.number, stream)))

    async with scripted(play) as (server, channel):
        for stream in (1, 3, 5):
            assert await channel.unary("/t.T/Echo", b"") == b"1 %d" % stream
        last = await channel.start("/t.T/Echo")
        await last.send(b"", end=True)
        for stream in (1, 3, 5, 7, 1):
            assert await channel.unary("/t.T/Echo", b"") == b"%d %d" % (len(server.scripts), stream)
        server.scripts[0].send(answer(7, b"the last"))  # nobody cut it off
        assert [message async for message in last] == [b"the last"]
        assert {await server.over.get(), await server.over.get()} == {1, 2}  # each when its last call was over
    assert len(server.scripts) == 3


async def leave(script: Script) -> None:
    """Take one call, and go away with it under way; connections after the first answer what they are asked."""
    script.settings()
    async for stream in script.requests():
        if script.number == 1:
            script.send(headers(stream, HEAD), frames.goaway(stream, ErrorCode.NO_ERROR, b""))
        else:
            script.send(answer(stream, b"from the next"))


async def under_way(channel: Channel) -> ClientCall:
    """Return a call on a connection that is going away."""
    call = await channel.start("/t.T/Leave")
    await call.send(b"", end=True)
    await until(lambda: not channel.connected)
    return call


async def test_a_connection_that_goes_away_ends_with_its_last_call() -> None:
    async with scripted(leave) as (server, channel):
        call = await under_way(channel)
        assert await channel.unary("/t.T/Leave", b"") == b"from the next"
        server.scripts[0].send(data(1, b"at last") + headers(1, END, end=True))
        assert [message async for message in call] == [b"at last"]
        assert await server.over.get() == 1
        assert channel.connected


@pytest.mark.parametrize("connected_anew", [False, True])
async def test_a_closed_channel_hangs_up_where_a_call_keeps_a_connection(*, connected_anew: bool) -> None:
    async with scripted(leave) as (server, channel):
        call = await under_way(channel)
        if connected_anew:
            assert await channel.unary("/t.T/Leave", b"") == b"from the next"
        await channel.close()
        with pytest.raises(CallFailed, match="UNAVAILABLE: this channel is closed; the call may have been taken up"):
            await call.receive()
        assert {await server.over.get() for _ in server.scripts} == {script.number for script in server.scripts}


async def test_a_closed_channel_does_not_wait_for_a_server_that_takes_nothing() -> None:
    deaf = asyncio.Event()

    async def play(script: Script) -> None:
        # Windows for more than the sockets between us hold.
        script.settings({Setting.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW})
        script.send(frames.window_update(0, frames.MAX_WINDOW - frames.DEFAULT_WINDOW))
        await deaf.wait()

    async with scripted(play) as (_, channel):
        call = await channel.start("/t.T/Deaf")
        sending = asyncio.create_task(call.send(bytes(64 << 20)))
        wire = channel._wire
        assert wire is not None
        await until(lambda: not wire._writable)
        await channel.close()
        await sending
        with pytest.raises(CallFailed, match="this channel is closed"):
            await call.receive()
        assert wire.transport is None  # although there is much to be written
        deaf.set()


# -- servers that know no gRPC -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 502])
async def test_a_page_is_no_message(status: int) -> None:
    page: Fields = ((b":status", b"%d" % status), (b"content-type", b"text/html"))

    async def play(script: Script) -> None:
        script.settings()
        async for stream in script.requests():
            script.send(headers(stream, page), frame(DATA, END_STREAM, stream, b"<html>hello</html>"))

    async with scripted(play) as (_, channel):
        with pytest.raises(CallFailed, match=f"HTTP status {status}, content-type 'text/html'") as caught:
            await channel.unary("/t.T/Page", b"")
        assert caught.value.status is (Status.UNKNOWN if status == 200 else Status.UNAVAILABLE)
        assert channel.connected  # it is the call's trouble alone
