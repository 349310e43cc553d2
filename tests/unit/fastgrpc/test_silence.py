"""Silence is the other end's, not our own absence."""

import asyncio

import pytest

from fastgrpc.channel import Channel, ChannelConfig
from fastgrpc.server import Server, ServerConfig
from fastgrpc.silence import Silence
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
