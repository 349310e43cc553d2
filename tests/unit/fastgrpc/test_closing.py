"""Connections that break at an awkward moment."""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import socket
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest

from fastgrpc.calls import CallFailed, Status, frame_message
from fastgrpc.channel import Channel, ChannelConfig
from fastgrpc.connection import Connection
from fastgrpc.entrance import Room
from fastgrpc.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    PRIORITY,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from fastgrpc.hosting import Hosting
from fastgrpc.hpack import Encoder
from fastgrpc.peer import Peer
from fastgrpc.server import Ask, BatchMethod, Call, Server, ServerConfig, StreamMethod, UnaryMethod
from fastgrpc.wire import Wire


class ClosedTransport:
    """What uvloop's transports do once they are closed; asyncio's swallow the write."""

    def is_closing(self) -> bool:
        return True

    def write(self, data: bytes) -> None:
        raise RuntimeError("unable to perform operation on a closed transport")

    def get_extra_info(self, name: str) -> None:
        return None

    def abort(self) -> None: ...

    def close(self) -> None: ...


async def test_connections_leave_files_to_the_rest_of_the_process(caplog: pytest.LogCaptureFixture) -> None:
    """Goal: clients take no file from the log. Method: they may take 20 from here on."""
    caplog.set_level(logging.INFO, "fastgrpc")
    lowest = os.dup(0)
    os.close(lowest)
    server = Server([])
    server._room.most_files = lowest + 20
    port = await server.listen("127.0.0.1", 0)

    async def come(count: int) -> list[tuple[bool, asyncio.StreamWriter]]:
        """Return for each of ``count`` clients whether it was let in."""
        came = []
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(PREFACE + b"\0\0\0\4\0\0\0\0\0")
            try:
                came.append((bool(await reader.read(1)), writer))
            except ConnectionError:
                came.append((False, writer))
        return came

    first = await come(15)
    told = [served for served, _ in first]
    assert told == sorted(told, reverse=True)  # none is let in after one that was not
    assert 5 <= sum(told) <= 10  # each takes two files here: the client's is ours as well
    for _, writer in first:
        writer.close()
        await writer.wait_closed()
    await server._deserted(5)
    (again,) = await come(1)
    assert again[0]
    assert [record.message.split(" open")[0] for record in caplog.records] == [
        "clients are refused: nearly all files are",
        "clients are let in again",
    ]
    again[1].close()
    await server.stop(0)


def test_half_of_all_files_are_for_connections_at_least() -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    roomy, narrow, free = (Room(spare_files) for spare_files in (150, limit, 0))
    assert roomy.has_for(limit - 151)
    assert not roomy.has_for(limit - 150)
    assert narrow.has_for(limit // 2 - 1)
    assert not narrow.has_for(limit // 2)
    assert free.has_for(limit - 1)


async def test_neither_end_writes_to_a_transport_that_is_closing() -> None:
    transport: Any = ClosedTransport()
    wire = Wire(ChannelConfig(keepalive_s=None), lambda _: None)
    wire.connection_made(transport)
    wire.http.ping(b"12345678")
    wire.flush()
    peer = Peer(Hosting({}, ServerConfig(), None, None, None))
    peer.connection_made(transport)
    peer.http.ping(b"12345678")
    peer._flush()


class OpenTransport(ClosedTransport):
    """One that is closed by being told so; asyncio's with TLS cannot be asked anything any more if told twice."""

    closed = 0

    def is_closing(self) -> bool:
        return self.closed > 0

    def write(self, data: bytes) -> None: ...

    def close(self) -> None:
        self.closed += 1


async def test_either_end_closes_once() -> None:
    for end in (
        Wire(ChannelConfig(keepalive_s=None), lambda _: None),
        Peer(Hosting({}, ServerConfig(), None, None, None)),
    ):
        transport: Any = OpenTransport()
        end.connection_made(transport)
        end.hang_up()
        end.hang_up()
        assert transport.closed == 1


async def test_a_handler_that_is_cancelled_before_its_first_step_was_never_begun() -> None:
    """Its coroutine would be left over, never awaited: the test settings make an error of that."""
    begun = 0

    async def handler(request: bytes, call: Call) -> bytes:
        nonlocal begun
        begun += 1
        return request

    ended: list[Status] = []
    server = Server([UnaryMethod("/t.T/Echo", handler)], on_end=lambda _, status, __: ended.append(status))
    port = await server.listen("127.0.0.1", 0)
    start = Peer._start

    def start_and_break(peer: Peer, call: Call, coroutine: Any) -> None:
        start(peer, call, coroutine)
        assert call.task is not None
        call.task.cancel()

    Peer._start = start_and_break  # type: ignore[method-assign]
    try:
        channel = Channel(f"127.0.0.1:{port}")
        calling = asyncio.ensure_future(channel.unary("/t.T/Echo", b"x", timeout_s=0.3))
        await asyncio.wait({calling})
        assert calling.exception() is not None
        await channel.close()
    finally:
        Peer._start = start  # type: ignore[method-assign]
        await server.stop(0)
    assert begun == 0


@pytest.fixture
async def deaf() -> AsyncIterator[str]:
    """An address that takes no connection and refuses none: its backlog is full."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = []
    for _ in range(4):
        waiting.append(socket.socket())
        waiting[-1].setblocking(False)
        waiting[-1].connect_ex(listener.getsockname())
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    for connection in (*waiting, listener):
        connection.close()


async def test_a_call_s_time_runs_while_it_waits_for_the_connection(deaf: str) -> None:
    """However many wait, and however long a connection may take."""
    channel = Channel(deaf, config=ChannelConfig(connect_timeout_s=60))
    async with asyncio.timeout(10):
        calls = [asyncio.create_task(channel.unary("/t.T/Echo", b"", timeout_s=0.05)) for _ in range(5)]
        for call in calls:
            with pytest.raises(CallFailed, match="DEADLINE_EXCEEDED"):
                await call
    patient = asyncio.create_task(channel.unary("/t.T/Echo", b""))
    await asyncio.sleep(0)
    await channel.close()
    with pytest.raises(CallFailed, match="closed"):
        await patient


async def test_whoever_waits_for_a_connection_shares_its_failure(deaf: str) -> None:
    """One after the other would each wait for an attempt of their own."""
    channel = Channel(deaf, config=ChannelConfig(connect_timeout_s=0.2))
    began = asyncio.get_running_loop().time()
    calls = [asyncio.create_task(channel.unary("/t.T/Echo", b"")) for _ in range(50)]
    failures = await asyncio.gather(*calls, return_exceptions=True)
    assert {failure.status for failure in failures if isinstance(failure, CallFailed)} == {Status.UNAVAILABLE}
    assert len(failures) == 50
    assert asyncio.get_running_loop().time() - began < 5  # not ten seconds
    await channel.close()


# -- what is left of a connection that ended -----------------------------------------------------------------------------


def readable(message: bytes) -> bytes:
    if message == b"unreadable":
        raise ValueError(message)
    return message


async def echo(request: bytes, call: Call) -> bytes:
    if request == b"fail":
        raise CallFailed(Status.NOT_FOUND)
    return request


async def echo_all(call: Call) -> None:
    async for request in call.requests():
        await call.send(await echo(request, call))


async def take_all(call: Call) -> None:
    await call.hand_to(lambda _: None)


def echo_lot(asks: Sequence[Ask]) -> None:
    for ask in asks:
        ask.answer(ask.message)


async def never(request: bytes, call: Call) -> bytes:
    await asyncio.Event().wait()
    return request


ROWS = (
    UnaryMethod("/t.T/Echo", echo, readable),
    UnaryMethod("/t.T/Inline", echo, readable, inline=True),
    UnaryMethod("/t.T/Never", never),
    BatchMethod("/t.T/Batch", echo_lot),
    StreamMethod("/t.T/Chat", echo_all, readable),
    StreamMethod("/t.T/Take", take_all, readable),
)


def unary(method: str, message: bytes = b"x", timeout_s: float | None = None) -> Callable[[Channel], Any]:
    return lambda channel: channel.unary(f"/t.T/{method}", message, timeout_s=timeout_s)


def stream(method: str, message: bytes = b"x", *, end: bool = True) -> Callable[[Channel], Any]:
    async def talk(channel: Channel) -> None:
        call = await channel.start(f"/t.T/{method}")
        await call.send(message, end=end)
        while await call.receive() is not None and end:
            pass

    return talk


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[weakref.ref[Any]]]:
    """Both ends of all connections, which have to go without any help of the garbage collector."""
    found: list[weakref.ref[Any]] = []
    for kind in (Peer, Wire, Connection):
        plain = kind.__init__

        def noted(self: Any, *args: Any, plain: Any = plain, **kwargs: Any) -> None:
            plain(self, *args, **kwargs)
            found.append(weakref.ref(self))

        monkeypatch.setattr(kind, "__init__", noted)
    gc.disable()
    yield found
    gc.enable()


async def until_gone(ends: list[weakref.ref[Any]]) -> None:
    """Wait for what is still under way in the loop; fail if anything is left behind."""
    for _ in range(200):
        left = [type(end) for ref in ends if (end := ref()) is not None]
        if not left:
            return
        await asyncio.sleep(0.005)
    pytest.fail(f"left behind: {left}")


@pytest.mark.parametrize(
    "talk",
    [
        pytest.param(unary("Echo"), id="unary"),
        pytest.param(unary("Inline"), id="inline"),
        pytest.param(unary("Batch"), id="batch"),
        pytest.param(stream("Chat"), id="stream"),
        pytest.param(stream("Chat", end=False), id="open stream"),
        pytest.param(unary("Nowhere"), id="no such method"),
        pytest.param(unary("Never", timeout_s=0.01), id="deadline"),
        *[
            pytest.param(talk(method, message), id=f"{message.decode()} {method}")
            for message in (b"fail", b"unreadable")
            for talk, method in ((unary, "Echo"), (unary, "Inline"), (stream, "Chat"), (stream, "Take"))
        ],
        pytest.param(unary("Echo", bytes(5 << 20)), id="too large"),
    ],
)
async def test_nothing_is_left_of_a_connection(
    ends: list[weakref.ref[Any]], talk: Callable[[Channel], Coroutine[Any, Any, object]]
) -> None:
    """Goal: thousands of clients that come and go cost no memory. Method: count both ends after a call of each kind."""
    server = Server(ROWS)
    channel = Channel(f"127.0.0.1:{await server.listen('127.0.0.1', 0)}")
    with contextlib.suppress(CallFailed):
        await talk(channel)
    await channel.close()
    assert len(ends) == 4
    await until_gone(ends)
    await server.stop(0)


FIELDS = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/t.T/Never"),
    (b"content-type", b"application/grpc"),
)
NEVER = frame(HEADERS, END_HEADERS, 1, Encoder().encode(FIELDS)) + frame(DATA, END_STREAM, 1, frame_message(b""))


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(NEVER, id="a call"),
        pytest.param(NEVER + frame(PRIORITY, 0, 1, b""), id="a call that is at fault before its task begins"),
        pytest.param(NEVER + frame(DATA, 0, 0, b""), id="a fault of the connection"),
        pytest.param(frame(WINDOW_UPDATE, 0, 0, b"")[:-1], id="half a frame"),
        pytest.param(frame(HEADERS, END_HEADERS, 1, b"\x80"), id="headers that cannot be read"),
        pytest.param(frame(HEADERS, END_HEADERS, 1, Encoder().encode((*FIELDS, (b"x", bytes(65_000))))), id="too many"),
    ],
)
async def test_nothing_is_left_of_a_client_that_breaks_off(ends: list[weakref.ref[Any]], sent: bytes) -> None:
    server = Server(ROWS)
    reader, writer = await asyncio.open_connection("127.0.0.1", await server.listen("127.0.0.1", 0))
    writer.write(PREFACE + frame(SETTINGS, 0, 0, b"") + sent)
    await reader.read(1)
    writer.close()
    assert len(ends) == 2
    await until_gone(ends)
    await server.stop(0)
