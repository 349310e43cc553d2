"""How connections enter: room, TLS, certificates."""

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fastgrpc import entrance
from fastgrpc.channel import client_tls
from fastgrpc.entrance import Entrance, Room
from fastgrpc.server import server_tls

pytestmark = pytest.mark.timeout(30)


class Greeter(asyncio.Protocol):
    """What is behind the door: it sends everything back, with its name in front."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"inside: " + data)


@pytest.fixture
def tls(pki: Path) -> ssl.SSLContext:
    return server_tls(str(pki / "server.pem"), str(pki / "server.key"))


@pytest.fixture
async def door(tls: ssl.SSLContext) -> AsyncIterator[Entrance]:
    door = Entrance(Greeter, Room(0), tls=tls)
    yield door
    door.close()


async def until(holds: Callable[[], Any]) -> None:
    """Let the loop turn until it is so."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what it waits for is a socket's doing
            await asyncio.sleep(0)


@pytest.mark.parametrize("secured", [True, False])
async def test_who_says_nothing_takes_room_all_the_same(door: Entrance, *, secured: bool) -> None:
    """Goal: clients that never begin their TLS take no file from the log. Method: 20 descriptors, and 30 that come."""
    if not secured:
        door.tls = None
    port = await door.open("127.0.0.1", 0)
    lowest = os.dup(0)
    os.close(lowest)
    door.room.most_files = lowest + 20
    inside = door.inside
    entered: list[asyncio.Protocol] = []
    came: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    def enter() -> asyncio.Protocol:
        entered.append(inside())
        return entered[-1]

    door.inside = enter

    def kept() -> int:
        return len(entered) + len(door.newcomers)

    def sent_away() -> int:
        return sum(reader.at_eof() or reader.exception() is not None for reader, _ in came)

    for _ in range(30):
        came.append(await asyncio.open_connection("127.0.0.1", port))
        await until(lambda: kept() + sent_away() == len(came))
    assert 5 <= kept() <= 10  # each takes two descriptors here: the client's is ours as well
    for _, writer in came:
        writer.close()


async def hello_at_once(port: int, context: ssl.SSLContext) -> bytes:
    """Return what is answered to "hello" sent in one piece with the end of the handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    secured = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while True:
        try:
            secured.do_handshake()
            break
        except ssl.SSLWantReadError:
            writer.write(outgoing.read())
            incoming.write(await reader.read(1 << 16))
    secured.write(b"hello")
    writer.write(outgoing.read())
    try:
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(ssl.SSLWantReadError):
                    return secured.read(100)
                if not (more := await reader.read(1 << 16)):
                    raise ConnectionResetError("the other side hung up")
                incoming.write(more)
    finally:
        writer.close()


async def test_what_comes_with_the_end_of_a_handshake_is_taken(door: Entrance, pki: Path) -> None:
    port = await door.open("127.0.0.1", 0)
    assert await hello_at_once(port, client_tls(str(pki / "ca.pem"))) == b"inside: hello"


async def test_whoever_fails_over_what_came_early_is_not_left_open(door: Entrance, pki: Path) -> None:
    class Failing(Greeter):
        def data_received(self, data: bytes) -> None:
            raise RuntimeError("cannot take it")

    door.inside = Failing
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(str(context.get("exception"))))
    port = await door.open("127.0.0.1", 0)
    with pytest.raises(ConnectionError):
        await hello_at_once(port, client_tls(str(pki / "ca.pem")))
    assert told == ["cannot take it"]


async def ended(reader: asyncio.StreamReader) -> None:
    """Return when the other side has closed the connection."""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(10):
            while await reader.read(1 << 16):
                pass


async def test_a_handshake_has_an_end(door: Entrance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entrance, "HANDSHAKE_S", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", await door.open("127.0.0.1", 0))
    await ended(reader)
    assert not door.newcomers
    writer.close()


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b""])
async def test_whoever_hangs_up_before_its_tls_is_there_leaves_nothing(
    door: Entrance, caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    caplog.set_level(logging.INFO)
    _, writer = await asyncio.open_connection("127.0.0.1", await door.open("127.0.0.1", 0))
    await until(lambda: door.newcomers)
    writer.write(said)
    writer.close()
    await until(lambda: not door.newcomers)
    assert not caplog.records


async def test_a_door_that_closes_cuts_who_stands_in_it_and_nobody_inside(door: Entrance, pki: Path) -> None:
    port = await door.open("127.0.0.1", 0)
    inside, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_tls(str(pki / "ca.pem")))
    outside, silent = await asyncio.open_connection("127.0.0.1", port)
    await until(lambda: door.newcomers)
    door.close()
    await ended(outside)
    assert not door.newcomers
    writer.write(b"hello")
    assert await inside.read(100) == b"inside: hello"
    for client in (writer, silent):
        client.close()


@pytest.mark.parametrize("admitted", [True, False])
async def test_a_certificate_is_looked_at_before_anything_is_said(pki: Path, *, admitted: bool) -> None:
    tls = server_tls(*(str(pki / name) for name in ("server.pem", "server.key", "ca.pem")))
    shown = []

    def admits(certificate: Mapping[str, Any]) -> bool:
        shown.append(dict(pair[0] for pair in certificate["subject"])["commonName"])
        return admitted

    door = Entrance(Greeter, Room(0), tls=tls, admits=admits)
    client = client_tls(*(str(pki / name) for name in ("ca.pem", "client.pem", "client.key")))
    reader, writer = await asyncio.open_connection("127.0.0.1", await door.open("127.0.0.1", 0), ssl=client)
    writer.write(b"hello")
    if admitted:
        assert await reader.read(100) == b"inside: hello"
    else:
        await ended(reader)
    assert shown == ["client"]
    writer.close()
    door.close()
