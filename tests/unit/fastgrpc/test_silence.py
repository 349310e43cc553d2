"""Silence is the other end's, not our own absence."""

import asyncio
import socket

import pytest

from fastgrpc.calls import frame_message
from fastgrpc.channel import Channel, ChannelConfig
from fastgrpc.frames import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, Setting, frame, settings, window_update
from fastgrpc.hpack import Encoder
from fastgrpc.server import Server, ServerConfig, UnaryMethod
from fastgrpc.silence import Silence
from fastgrpc.uptake import uptake_of
from fastgrpc.wire import Wire


def looked_at(silence, *moments_s):
    return [silence.look(moment_s, every_s=1.0) for moment_s in moments_s]


def test_silence_is_counted_from_the_look_that_found_the_last_sign_of_life():
    silence = Silence(10.0)
    assert looked_at(silence, 11.0, 12.0, 13.0) == [0.0, 1.0, 2.0]
    silence.break_()
    assert looked_at(silence, 14.0, 15.0) == [0.0, 1.0]


@pytest.mark.parametrize("absence_s", [3.0, 100.0])
def test_who_looks_late_takes_it_for_two_looks_at_most(absence_s):
    silence = Silence(10.0)
    assert looked_at(silence, 11.0, 12.0) == [0.0, 1.0]
    assert looked_at(silence, 12.0 + absence_s, 13.0 + absence_s) == [3.0, 4.0]


class Transport:
    """Carries nothing."""

    aborted = False

    def get_extra_info(self, name):
        return None

    def is_closing(self):
        return self.aborted

    def write(self, data):
        pass

    def abort(self):
        self.aborted = True


@pytest.mark.parametrize(("silent_s", "patience_s", "cut"), [(2.4, 0.0, True), (2.4, 0.5, False), (2.6, 0.5, True)])
async def test_a_client_waits_as_much_longer_as_its_server_may_take_now(monkeypatch, silent_s, patience_s, cut):
    monkeypatch.setattr(Silence, "look", lambda self, now_s, *, every_s: silent_s)
    wire, transport = Wire(ChannelConfig(patience_s=lambda: patience_s), lambda _: None), Transport()
    wire.connection_made(transport)
    assert not transport.aborted
    wire._config = ChannelConfig(keepalive_s=1.0, keepalive_timeout_s=1.0, patience_s=lambda: patience_s)
    wire._keep_alive()
    assert transport.aborted is cut
    wire.connection_lost(None)


async def test_a_server_waits_as_much_longer_as_its_clients_may_take_now():
    timeouts_s, patience_s = asyncio.Queue(), 0.0

    class Guest:
        def check_alive(self, keepalive_s, timeout_s, *, every_s):
            timeouts_s.put_nowait(timeout_s)

    config = ServerConfig(keepalive_s=0.02, keepalive_timeout_s=0.01, patience_s=lambda: patience_s)
    server = Server([], config=config)
    server._hosting.peers.add(Guest())
    await server.listen("127.0.0.1", 0)
    async with asyncio.timeout(10):
        assert await timeouts_s.get() == 0.01
        patience_s = 2.0
        while await timeouts_s.get() != 2.01:
            pass
    server._hosting.peers.clear()
    await server.stop(0)


async def test_connecting_takes_as_much_longer_as_a_server_may_take_now(monkeypatch):
    allowed_s, timeout = [], asyncio.timeout

    def note(delay_s):
        allowed_s.append(delay_s)
        return timeout(delay_s)

    server = Server([])
    channel = Channel(
        f"127.0.0.1:{await server.listen('127.0.0.1', 0)}",
        config=ChannelConfig(connect_timeout_s=20.0, patience_s=lambda: 2.5),
    )
    with monkeypatch.context() as noting:
        noting.setattr(asyncio, "timeout", note)
        await channel.connect()
    assert allowed_s == [22.5]
    await channel.close()
    await server.stop(0)


class Ticking(Silence):
    """Silence by a clock that moves by each look."""

    def __init__(self):
        super().__init__(0.0)
        self.now_s = 0.0

    def look(self, now_s, *, every_s):
        self.now_s += every_s
        return super().look(self.now_s, every_s=every_s)


ASK = PREFACE + settings({Setting.INITIAL_WINDOW_SIZE: 1 << 30}) + window_update(0, 1 << 30)
ASK += frame(
    HEADERS,
    END_HEADERS,
    1,
    Encoder().encode(
        ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/t.T/Ask"), (b"content-type", b"application/grpc"))
    ),
)
ASK += frame(DATA, END_STREAM, 1, frame_message(b""))


class Quiet:
    """A client that asks once and says nothing any more; and the server's end of its connection."""

    def __init__(self, answer_bytes):
        self._answer = bytes(answer_bytes)

    async def __aenter__(self):
        async def answer(request, call):
            return self._answer

        self._server = Server([UnaryMethod("/t.T/Ask", answer)])
        port = await self._server.listen("127.0.0.1", 0)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        self._socket.setblocking(False)
        await asyncio.get_running_loop().sock_connect(self._socket, ("127.0.0.1", port))
        await asyncio.get_running_loop().sock_sendall(self._socket, ASK)
        await asyncio.get_running_loop().sock_recv(self._socket, 1)
        (self._peer,) = self._server._hosting.peers
        self._peer._silence = Ticking()
        return self

    async def __aexit__(self, *_):
        self._socket.close()
        await self._server.stop(0)

    def _acknowledged_bytes(self):
        return uptake_of(self._peer._transport.get_extra_info("socket")).acknowledged_bytes

    def looked_at(self, times):
        """Return whether the server keeps the connection after so many looks, five seconds one from the other."""
        for _ in range(times):
            self._peer.check_alive(10.0, 10.0, every_s=5.0)
        return not self._peer._transport.is_closing()

    async def read(self, size):
        """Take so much, and see it acknowledged."""
        before = self._acknowledged_bytes()
        async with asyncio.timeout(10):
            while size > 0 or self._acknowledged_bytes() == before:
                size -= len(await asyncio.get_running_loop().sock_recv(self._socket, max(1, size)))


async def test_a_client_that_reads_slowly_is_no_silent_one():
    """Goal: 100 s of a large answer, whose reader has no time for pings. Then it stops, and is given up."""
    async with Quiet(12 << 20) as client:
        for _ in range(20):
            await client.read(1 << 18)
            assert client.looked_at(1)
        assert not client.looked_at(20)


async def test_a_client_whose_kernel_takes_pings_is_silent_all_the_same():
    async with Quiet(0) as client:
        for _ in range(20):
            if not client.looked_at(1):
                break
            await asyncio.sleep(0.001)  # the ping goes out, and is acknowledged
        else:
            pytest.fail("it is kept")


def test_of_what_is_no_tcp_nobody_knows():
    one, other = socket.socketpair()
    with one, other:
        assert uptake_of(one) is None
    assert uptake_of(None) is None


class Closed:
    """What uvloop has for a connection that it closed, and has not said so yet."""

    def getsockopt(self, *_):
        raise ValueError("negative file descriptor")


def test_of_what_is_closed_nobody_knows():
    assert uptake_of(Closed()) is None
