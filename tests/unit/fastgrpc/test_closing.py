"""Connections that break at an awkward moment."""

import asyncio
from typing import Any

from fastgrpc.calls import Status
from fastgrpc.channel import Channel, ChannelConfig, _Wire
from fastgrpc.hosting import Hosting
from fastgrpc.peer import Peer
from fastgrpc.server import Call, Server, ServerConfig, UnaryMethod


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
    wire = _Wire(ChannelConfig(keepalive_s=None), lambda _: None)
    wire.connection_made(transport)
    wire.http.ping(b"12345678")
    wire.flush()
    peer = Peer(Hosting({}, ServerConfig(), None, None, None))
    peer.connection_made(transport)
    peer.http.ping(b"12345678")
    peer._flush()


async def test_a_handler_that_is_cancelled_before_its_first_step_was_never_begun() -> None:
    """Its coroutine would be left over, never awaited: the test settings make an error of that."""
    begun = 0

    async def handler(request: bytes, call: Call) -> bytes:
        nonlocal begun
        begun += 1
        return request

    ended: list[Status] = []
    server = Server([UnaryMethod("/t.T/Echo", handler)], on_end=lambda _, status: ended.append(status))
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
