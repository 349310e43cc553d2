"""Plain HTTP/2, and what is none."""

import asyncio
from typing import Any, cast

import pytest

from fastgrpc import answering
from fastgrpc.connection import Connection
from fastgrpc.events import HeadersReceived, Limits
from fastgrpc.frames import PREFACE
from fastgrpc.hosting import Hosting
from fastgrpc.peer import Peer
from fastgrpc.server import ServerConfig, Web

GET = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/page"), (b":authority", b"a"))


class Wire:
    """A transport that takes everything."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.write = self.written.extend
        self.closed = False

    def get_extra_info(self, name: str) -> None:
        """Know nothing."""

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def peer_of(web: Web | None, **more: Any) -> tuple[Peer, Wire]:
    peer, wire = Peer(Hosting({}, ServerConfig(), None, more.get("other_protocol"), web)), Wire()
    peer.connection_made(cast("asyncio.Transport", wire))
    return peer, wire


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def statuses(client: Connection, wire: Wire) -> list[int]:
    output, wire.written[:] = bytes(wire.written), b""
    return [event.headers.status for event in client.receive(output, 0.0) if isinstance(event, HeadersReceived)]


@pytest.mark.parametrize("at_once", [True, False])
async def test_pages_that_nobody_takes_are_bounded(monkeypatch: pytest.MonkeyPatch, *, at_once: bool) -> None:
    """Goal: no client holds more of our memory than calls may. Method: windows of 0, and 300 pages asked for."""
    monkeypatch.setattr(answering, "MAX_WAITING_BYTES", 1 << 20)
    made = 0

    async def page(path: str) -> tuple[int, str, bytes]:
        nonlocal made
        made += 1
        return 200, "text/plain", bytes(20 << 10)

    peer, wire = peer_of(page)
    client = Connection(client=True, limits=Limits(window_bytes=65_535, connection_window_bytes=65_535))
    for _ in range(300):
        client.open(GET, end=True)
        if not at_once:
            peer.data_received(client.take_output())
            await turns(3)
    peer.data_received(client.take_output())
    await turns(3)
    told = statuses(client, wire)
    assert peer.http.waiting_bytes < 2 << 20
    assert made == told.count(200) == 300 - told.count(503)
    assert made == (100 if at_once else 55)


@pytest.mark.parametrize("said", [PREFACE[:18] + b"XX\r\n\r\n", b"PRI / HTTP/1.1\r\n\r\n", PREFACE[:-1] + b"\0"])
async def test_a_broken_preface_is_nobody_else_s(said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A library for HTTP/1.1 is at a loss about it, and says so at length."""
    begun: list[str] = []

    def other() -> asyncio.Protocol:
        begun.append("other")
        return asyncio.Protocol()

    for cut in (len(said), 1):
        peer, wire = peer_of(None, other_protocol=other)
        for at in range(0, len(said), cut):
            peer.data_received(said[at : at + cut])
        assert wire.closed
    assert not begun
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]
