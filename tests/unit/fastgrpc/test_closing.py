"""Connections that break at an awkward moment."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fastgrpc.calls import CallFailed, Status
from fastgrpc.channel import Channel, ChannelConfig
from fastgrpc.hosting import Hosting
from fastgrpc.peer import Peer
from fastgrpc.server import Call, Server, ServerConfig, UnaryMethod
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
