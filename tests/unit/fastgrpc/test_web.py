"""Plain HTTP/2, and what is none."""

import asyncio
from typing import Any, cast

import pytest

from fastgrpc import answering
from fastgrpc.connection import Connection
from fastgrpc.events import DataReceived, Event, HeadersReceived, Limits, StreamEnded, TrailersReceived
from fastgrpc.frames import PREFACE, ErrorCode
from fastgrpc.hosting import Hosting
from fastgrpc.peer import Peer
from fastgrpc.server import ServerConfig, Visit, Web

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

    async def page(visit: Visit) -> None:
        nonlocal made
        made += 1
        await visit.answer(200, (), bytes(20 << 10))

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


class Client:
    """The other end of a peer, without a network."""

    def __init__(self, web: Web, *, window_bytes: int = 65_535) -> None:
        self.peer, self.wire = peer_of(web)
        self.http = Connection(client=True, limits=Limits(window_bytes=window_bytes, connection_window_bytes=1 << 20))
        self.events: list[Event] = []

    async def talk(self, rounds: int = 10) -> None:
        """Exchange whatever there is."""
        for _ in range(rounds):
            if data := self.http.take_output():
                self.peer.data_received(data)
            await turns(4)
            output, self.wire.written[:] = bytes(self.wire.written), b""
            for event in self.http.receive(output, 0.0):
                self.events.append(event)
                if isinstance(event, DataReceived):
                    self.http.consumed(event.stream, len(event.data))

    @property
    def status(self) -> list[int]:
        return [event.headers.status for event in self.events if isinstance(event, HeadersReceived)]

    @property
    def content(self) -> bytes:
        return b"".join(event.data for event in self.events if isinstance(event, DataReceived))

    @property
    def whole(self) -> bool:
        """Whether the response has come to its end, and not to a reset."""
        return any(getattr(event, "ended", False) or isinstance(event, TrailersReceived) for event in self.events)

    @property
    def was_reset(self) -> bool:
        return any(isinstance(event, StreamEnded) for event in self.events)


def request(method: bytes, **more: bytes) -> tuple[tuple[bytes, bytes], ...]:
    return ((b":method", method), *GET[1:], *((name.encode(), value) for name, value in more.items()))


async def test_a_body_comes_and_goes_as_windows_allow() -> None:
    body = bytes(range(256)) * (3 << 12)  # three of the server's windows

    async def echo(visit: Visit) -> None:
        assert (visit.method, visit.target) == ("POST", "/page")
        visit.begin(200, ((b"content-type", b"text/plain"),))
        async for chunk in visit.chunks():
            await visit.send(chunk)

    client = Client(echo)
    stream = client.http.open(request(b"POST"))
    client.http.send_data(stream, body, end=True)
    await client.talk(200)
    assert client.status == [200]
    assert client.content == body
    assert client.whole
    assert not client.peer._visits


async def test_head_gets_what_get_would_without_the_page() -> None:
    async def page(visit: Visit) -> None:
        await visit.answer(200, (), b"page")

    client = Client(page)
    client.http.open(request(b"HEAD"), end=True)
    await client.talk()
    (head,) = [event for event in client.events if isinstance(event, HeadersReceived)]
    assert (head.headers.status, head.headers.get(b"content-length"), client.content) == (200, b"4", b"")
    assert not client.peer.http.open_streams


async def test_a_body_that_is_not_wanted_is_heard_out() -> None:
    """curl takes the reset behind an early answer for a fault, and shows its user nothing."""

    async def nothing(visit: Visit) -> None:
        await visit.answer(404, (), b"nothing")

    client = Client(nothing)
    stream = client.http.open(request(b"POST"))
    client.http.send_data(stream, bytes(100))
    await client.talk()
    assert not client.status
    client.http.send_data(stream, bytes(2 << 20), end=True)
    await client.talk(50)
    assert (client.status, client.content, client.whole, client.was_reset) == ([404], b"nothing", True, False)
    assert client.peer.http._window + client.peer.http._credit == client.peer.http.limits.connection_window_bytes


async def test_who_goes_away_is_worked_for_no_more() -> None:
    cancelled: list[str] = []

    async def wait(visit: Visit) -> None:
        visit.begin(200, ())
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(visit.target)

    client = Client(wait)
    streams = [client.http.open(request(b"POST")) for _ in range(2)]
    for stream in streams:
        client.http.send_data(stream, bytes(1000))
    await client.talk()
    client.http.reset(streams[0], ErrorCode.CANCEL)
    await client.talk()
    assert len(cancelled) == 1
    client.peer.connection_lost(None)
    await turns(3)
    assert len(cancelled) == 2
    assert not client.peer._visits


@pytest.mark.parametrize("begun", [False, True])
async def test_a_page_that_fails_is_no_whole_page(caplog: pytest.LogCaptureFixture, *, begun: bool) -> None:
    async def fail(visit: Visit) -> None:
        if begun:
            visit.begin(200, ())
            await visit.send(b"half a")
        raise ValueError("a bug")

    client = Client(fail)
    client.http.open(request(b"GET"), end=True)
    await client.talk()
    assert (client.status, client.was_reset) == (([200], True) if begun else ([500], False))
    assert "a page failed target=/page" in caplog.text


async def test_a_server_that_stops_waits_for_no_page() -> None:
    async def wait(visit: Visit) -> None:
        await asyncio.Event().wait()

    client = Client(wait)
    client.http.open(request(b"GET"), end=True)
    await client.talk()
    tasks = client.peer.abandon()
    assert len(tasks) == 1
    await asyncio.wait(tasks)
    await client.talk()
    assert client.status == [503]


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
