"""The door to HTTP/1.1: its library is loaded beside the event loop, and whoever knocks meanwhile waits."""

import asyncio
import logging
import threading
from collections import Counter

import aiohttp
import pytest

from fastgrpc.entrance import Room
from raft_store.etcd_api.front import SPARE_FILES
from raft_store.http_door import HttpDoor
from raft_store.observe import Answer

pytestmark = pytest.mark.timeout(60)


async def hello(query):
    return Answer(200, "text/plain", b"hello")


@pytest.fixture
async def door():
    door = HttpDoor([], {"/hello": hello}, lambda: None, Counter())
    yield door
    await door.stop()


async def ask(session):
    async with session.get("/hello") as answer:
        return await answer.text()


async def test_the_loop_goes_on_while_the_library_is_loaded(door, monkeypatch):
    """Goal: no leader falls silent for it. Method: loading takes until the loop lets it end."""
    go_on, load, protocol, waiting = threading.Event(), door._load_library, door.protocol, []
    all_wait = asyncio.Event()

    def slowly():
        assert go_on.wait(30)
        return load()

    def knock():
        waiting.append(protocol())
        if len(waiting) == 4:
            all_wait.set()
        return waiting[-1]

    monkeypatch.setattr(door, "_load_library", slowly)
    monkeypatch.setattr(door, "protocol", knock)
    port = await door.listen("127.0.0.1:0", None)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        asked = [asyncio.create_task(ask(session)) for _ in range(3)]
        gone = asyncio.create_task(ask(session))
        await all_wait.wait()
        gone.cancel()
        go_on.set()
        assert await asyncio.gather(*asked) == ["hello"] * 3
        assert await ask(session) == "hello"


@pytest.mark.parametrize("loaded", [False, True])
async def test_what_a_client_has_said_before_is_not_lost(door, loaded):
    """Our own front hands a connection over with the bytes by which it knew."""
    if loaded:
        await door.front()
    loop = asyncio.get_running_loop()

    class HandsOver(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            protocol = door.protocol()
            self.transport.set_protocol(protocol)
            protocol.connection_made(self.transport)
            protocol.data_received(data)

    server = await loop.create_server(HandsOver, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"GET /hello HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).endswith(b"hello")
    writer.close()
    server.close()


async def test_who_comes_when_files_run_out_is_sent_away(door):
    """The log needs them more."""
    port = await door.listen("127.0.0.1:0", None)
    assert door._entrance.room.most_files == Room(SPARE_FILES).most_files
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        door._entrance.room.most_files = 0
        with pytest.raises(aiohttp.ClientError):
            await ask(session)
        door._entrance.room.most_files = 1 << 20
        assert await ask(session) == "hello"


@pytest.mark.parametrize(
    "said",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.x\r\n\r\n",
        b"GET / HTTP/1.1\r\nno header\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_told_to_its_client_and_not_to_the_log(door, caplog, said):
    """Goal: nobody fills the disk by a line that is no request."""
    port = await door.listen("127.0.0.1:0", None)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    assert b" 400 " in await reader.readline()
    assert await reader.read()
    writer.close()
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]


async def test_a_body_is_taken_as_it_is(door, caplog):
    """Whoever says that it is compressed, and sends something else, has no fault of ours to show."""
    port = await door.listen("127.0.0.1:0", None)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said = b"POST /hello HTTP/1.1\r\nHost: here\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nplain"
    writer.write(said + b"GET /hello HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
    answers = await reader.read()
    assert b" 405 " in answers
    assert answers.endswith(b"hello")
    writer.close()
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]


async def test_a_fault_of_ours_is_logged_with_its_place(door, caplog):
    door.web._routes = {"/hello": lambda query: 1 / 0}
    port = await door.listen("127.0.0.1:0", None)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        assert "500" in await ask(session)
    assert "ZeroDivisionError" in caplog.text


class Transport(asyncio.Transport):
    """Of a client that waits for an answer."""

    aborted = False
    protocol = None

    def set_protocol(self, protocol):
        self.protocol = protocol

    def is_closing(self):
        return self.aborted

    def abort(self):
        self.aborted = True

    def pause_reading(self):
        pass


@pytest.mark.parametrize("loaded", [False, True])
async def test_a_connection_that_begins_when_the_door_is_shut_is_sent_away(door, loaded):
    """Nobody would end it any more, nor load the library; over TLS minutes pass between its two steps."""
    if loaded:
        await door.front()
    early, transport = door.protocol(), Transport()
    await door.stop()
    early.connection_made(transport)
    assert transport.aborted
    late, transport = door.protocol(), Transport()
    late.connection_made(transport)
    assert transport.aborted
    assert transport.protocol is None
    assert door.front() is None
    assert (door._loading is not None) == loaded


async def test_a_connection_that_waits_when_the_door_is_shut_is_sent_away(door):
    waiting, transport = door.protocol(), Transport()
    waiting.connection_made(transport)
    assert not transport.aborted
    await door.stop()
    assert transport.aborted
    assert transport.protocol is None


async def test_a_library_that_cannot_be_loaded_is_tried_again(door, monkeypatch, caplog):
    with monkeypatch.context() as broken:
        broken.setattr(door, "_load_library", lambda: 1 / 0)
        port = await door.listen("127.0.0.1:0", None)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            with pytest.raises(aiohttp.ClientError):
                await ask(session)
    assert "cannot serve HTTP" in caplog.text
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        assert await ask(session) == "hello"
