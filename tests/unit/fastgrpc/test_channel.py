"""Our client and servers that do what a test says, frame by frame: what no well-behaved server does, or not on demand."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from fastgrpc import frames
from fastgrpc.calls import CallFailed, Status, frame_message
from fastgrpc.channel import Channel, ChannelConfig, ClientCall
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
        self.asked = asyncio.Queue[int]()  # streams of requests that came to their end; see ``note_requests``
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

    async def note_requests(self) -> None:
        """Leave it to the test when each is answered."""
        async for stream in self.requests():
            self.asked.put_nowait(stream)


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
async def scripted(
    play: Callable[[Script], Awaitable[None]], config: ChannelConfig | None = None
) -> AsyncIterator[tuple[Scripted, Channel]]:
    made = Scripted(play)
    server = await asyncio.start_server(made.on_connection, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    channel = Channel(f"127.0.0.1:{made.port}", config=config)
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
    for _ in range(4000):
        if holds():
            return
        await asyncio.sleep(0.005)
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


# -- servers that take few calls at once ---------------------------------------------------------------------------------


def one_at_once(script: Script) -> None:
    script.settings({Setting.MAX_CONCURRENT_STREAMS: 1})


async def few(script: Script) -> None:
    one_at_once(script)
    await script.note_requests()


async def begun(channel: Channel) -> ClientCall:
    """Return a call that takes the only stream."""
    call = await channel.start("/t.T/Few")
    await call.send(b"", end=True)
    return call


async def waiting(channel: Channel, count: int) -> None:
    """Return once so many calls wait."""
    await until(lambda: channel._wire is not None and len(channel._wire.turns.waiting) == count)


async def test_calls_wait_for_their_turn_and_have_it_in_their_order() -> None:
    """Goal: no call fails because others are under way. Method: 20 at once, where one is taken at a time."""
    most, under_way, order = 0, 0, list[bytes]()

    async def play(script: Script) -> None:
        nonlocal most, under_way
        one_at_once(script)
        asked = b""
        async for kind, flags, stream, payload in script.frames():
            under_way += kind == HEADERS
            most = max(most, under_way)
            if kind == DATA:
                asked += payload
                if flags & END_STREAM:
                    under_way -= 1
                    order.append(asked[5:])
                    script.send(answer(stream, asked[5:]))
                    asked = b""

    async with scripted(play) as (_, channel):
        bodies = [b"%d" % number for number in range(20)]
        assert await asyncio.gather(*(channel.unary("/t.T/Few", body) for body in bodies)) == bodies
        assert order == bodies
        assert most == 1  # the first ones wait until they know how many there may be
        assert channel._wire is not None
        assert channel._wire.http.open_streams == 0


async def test_who_comes_late_does_not_overtake() -> None:
    """However a stream becomes free: here by a call that is given up."""
    async with scripted(few) as (server, channel):
        first = await begun(channel)
        second = asyncio.create_task(channel.start("/t.T/Few"))
        await waiting(channel, 1)
        first.cancel()
        assert channel.start_now("/t.T/Few") is None
        third = asyncio.create_task(channel.start("/t.T/Few"))
        call = await second
        await waiting(channel, 1)
        await call.send(b"", end=True)
        assert await server.scripts[0].asked.get() == 1
        assert await server.scripts[0].asked.get() == 3
        server.scripts[0].send(answer(3))
        assert [message async for message in call] == [b"answer"]
        await third


async def test_a_server_may_come_to_take_more() -> None:
    async with scripted(few) as (server, channel):
        await begun(channel)
        more = [asyncio.create_task(channel.start("/t.T/Few")) for _ in range(3)]
        await waiting(channel, 3)
        server.scripts[0].settings({Setting.MAX_CONCURRENT_STREAMS: 3})
        await asyncio.gather(*more[:2])
        await waiting(channel, 1)
        assert not more[2].done()
        more[2].cancel()


async def test_a_call_s_time_runs_while_it_waits_for_its_turn() -> None:
    async with scripted(few) as (server, channel):
        first = await begun(channel)
        with pytest.raises(CallFailed, match="DEADLINE_EXCEEDED: the server had no room"):
            await channel.start("/t.T/Few", timeout_s=0.01)
        second = asyncio.create_task(channel.unary("/t.T/Few", b"", timeout_s=60))
        await waiting(channel, 1)
        first.cancel()
        assert await server.scripts[0].asked.get() == 1
        assert await server.scripts[0].asked.get() == 3  # the one that gave up has sent nothing
        server.scripts[0].send(answer(3))
        assert await second == b"answer"


async def test_who_is_cancelled_in_the_moment_of_its_turn_leaves_the_stream_to_the_next() -> None:
    async with scripted(few) as (server, channel):
        first = await begun(channel)
        second, third, fourth = (asyncio.create_task(channel.unary("/t.T/Few", b"")) for _ in range(3))
        await waiting(channel, 3)
        third.cancel()  # while it waits
        await waiting(channel, 2)
        first.cancel()
        second.cancel()  # it has the stream, and does not know yet
        script = server.scripts[0]
        assert await script.asked.get() == 1
        assert await script.asked.get() == 5
        script.send(answer(5))
        assert await fourth == b"answer"
        assert [stream for kind, _, stream, _ in script.received if kind == HEADERS] == [1, 3, 5]
        for given_up in (second, third):
            with pytest.raises(asyncio.CancelledError):
                await given_up


async def test_a_call_that_cannot_be_said_is_its_caller_s_trouble_alone() -> None:
    async with scripted(Script.note_requests) as (server, channel):
        first = asyncio.create_task(channel.unary("/t.T/Few", b""))
        faulty = asyncio.create_task(channel.unary("/t.T/Few", b"", metadata=(("name", "two\nlines"),)))
        last = asyncio.create_task(channel.unary("/t.T/Few", b""))
        await waiting(channel, 3)
        script = server.scripts[0]
        script.settings()
        for stream, call in ((1, first), (3, last)):
            assert await script.asked.get() == stream
            script.send(answer(stream))
            assert await call == b"answer"
        with pytest.raises(ValueError, match="cannot travel"):
            await faulty


async def test_only_so_many_wait() -> None:
    async with scripted(few, ChannelConfig(max_waiting_calls=2)) as (_, channel):
        await begun(channel)
        patient = [asyncio.create_task(channel.start("/t.T/Few")) for _ in range(2)]
        await waiting(channel, 2)
        with pytest.raises(CallFailed, match="UNAVAILABLE: the server takes no more calls at once, and 2 wait"):
            await channel.start("/t.T/Few")
        await channel.close()
        for failure in await asyncio.gather(*patient, return_exceptions=True):
            assert isinstance(failure, CallFailed)
            assert str(failure) == "UNAVAILABLE: this channel is closed"  # they were not taken up


async def test_who_waits_on_a_connection_that_goes_away_goes_to_the_next() -> None:
    async def play(script: Script) -> None:
        one_at_once(script)
        async for stream in script.requests():
            if script.number > 1:
                script.send(answer(stream))

    async with scripted(play) as (server, channel):
        first = await begun(channel)
        others = [asyncio.create_task(channel.unary("/t.T/Few", b"")) for _ in range(5)]
        await waiting(channel, 5)
        server.scripts[0].send(frames.goaway(1, ErrorCode.NO_ERROR, b""))
        assert await asyncio.gather(*others) == [b"answer"] * 5
        server.scripts[0].send(answer(1, b"the first"))
        assert [message async for message in first] == [b"the first"]
    assert len(server.scripts) == 2


async def test_who_waits_when_the_stream_numbers_are_used_up_goes_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_STREAM_ID", 7)  # instead of 2^31 - 1

    async def play(script: Script) -> None:
        one_at_once(script)
        async for stream in script.requests():
            script.send(answer(stream))

    async with scripted(play) as (server, channel):
        calls = [channel.unary("/t.T/Few", b"") for _ in range(10)]
        assert await asyncio.gather(*calls) == [b"answer"] * 10
    assert len(server.scripts) == 3


async def test_a_server_that_always_goes_away_before_a_call_can_begin_is_given_up() -> None:
    async def play(script: Script) -> None:
        script.settings({Setting.MAX_CONCURRENT_STREAMS: 0})
        async for _ in script.frames():
            pass

    async with scripted(play) as (server, channel):
        call = asyncio.create_task(channel.start("/t.T/Few"))
        for connection in range(3):
            await until(lambda connection=connection: len(server.scripts) > connection)
            await until(lambda: bool(server.scripts[-1].received))
            await waiting(channel, 1)
            server.scripts[connection].send(frames.goaway(0, ErrorCode.NO_ERROR, b""))
        with pytest.raises(CallFailed, match=r"UNAVAILABLE: .* goes away before a call can begin, again and again"):
            await call
    assert len(server.scripts) == 3


async def test_who_waits_when_the_connection_breaks_was_surely_not_taken_up() -> None:
    async with scripted(few) as (server, channel):
        first = await begun(channel)
        second = asyncio.create_task(channel.unary("/t.T/Few", b""))
        await waiting(channel, 1)
        server.scripts[0].writer.transport.abort()
        with pytest.raises(CallFailed, match=r"UNAVAILABLE: the connection broke.*; the call may have been taken up"):
            await first.receive()
        with pytest.raises(CallFailed, match="UNAVAILABLE: the connection broke") as caught:
            await second
        assert "taken up" not in caught.value.message


async def test_a_server_that_says_nothing_is_given_up_by_who_waits_for_it_to_begin() -> None:
    """Although no call is under way: those that wait count."""

    async def play(script: Script) -> None:
        async for _ in script.frames():
            pass

    config = ChannelConfig(keepalive_s=0.02, keepalive_timeout_s=0.02, keepalive_without_calls=False)
    async with scripted(play, config) as (server, channel):
        with pytest.raises(CallFailed, match="UNAVAILABLE: the connection broke"):
            await channel.unary("/t.T/Few", b"")
    assert HEADERS not in {kind for kind, *_ in server.scripts[0].received}


# -- what else servers do ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [b"", headers(1, HEAD), headers(1, HEAD) + data(1, b"answer")[:-3]])
async def test_a_server_that_dies_amid_an_answer(said: bytes) -> None:
    async def play(script: Script) -> None:
        script.settings()
        async for stream in script.requests():
            if script.number > 1:
                script.send(answer(stream))
                continue
            script.send(said)
            await script.writer.drain()
            script.writer.transport.abort()

    async with scripted(play) as (_, channel):
        with pytest.raises(CallFailed, match=r"UNAVAILABLE: the connection broke.*; the call may have been taken up"):
            await channel.unary("/t.T/Die", b"")
        assert await channel.unary("/t.T/Die", b"") == b"answer"


async def test_a_failure_without_a_response_before_it() -> None:
    failure: Fields = (*HEAD, (b"grpc-status", b"5"), (b"grpc-message", b"na%C3%AFve %zz %"), (b"x-why", b"gone"))

    async def play(script: Script) -> None:
        script.settings()
        async for stream in script.requests():
            script.send(headers(stream, failure, end=True))

    async with scripted(play) as (_, channel):
        with pytest.raises(CallFailed, match="NOT_FOUND: naïve %zz %") as caught:
            await channel.unary("/t.T/Fail", b"")
        assert caught.value.metadata == (("x-why", "gone"),)


async def test_a_message_through_a_window_of_seven_bytes() -> None:
    async def play(script: Script) -> None:
        script.settings({Setting.INITIAL_WINDOW_SIZE: 7})
        body = b""
        async for kind, flags, stream, payload in script.frames():
            if kind == DATA:
                assert len(payload) <= 7
                body += payload
                if flags & END_STREAM:
                    script.send(headers(stream, HEAD) + frame(DATA, 0, stream, body) + headers(stream, END, end=True))
                elif payload:
                    script.send(frames.window_update(stream, len(payload)))

    message = bytes(range(256)) * 8
    async with scripted(play) as (_, channel):
        assert await channel.unary("/t.T/Narrow", message) == message


async def test_what_a_server_that_goes_away_did_not_look_at_was_not_taken_up() -> None:
    async def play(script: Script) -> None:
        script.settings()
        async for stream in script.requests():
            if stream == 3:
                script.send(frames.goaway(1, ErrorCode.NO_ERROR, b""), answer(1))

    async with scripted(play) as (server, channel):
        first, second = await begun(channel), await begun(channel)
        assert [message async for message in first] == [b"answer"]
        with pytest.raises(CallFailed, match="UNAVAILABLE: the stream was reset with REFUSED_STREAM"):
            await second.receive()
        assert await server.over.get() == 1
