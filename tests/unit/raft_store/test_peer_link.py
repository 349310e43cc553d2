"""The way to one other member, as seen by the one who dials."""

import asyncio
import logging
import resource

from fastgrpc.entrance import Room
from fastgrpc.server import Call, Server, StreamMethod
from raft_store import peers
from raft_store.etcd_api import fast_front
from raft_store.peer_link import REDIAL_PAUSE_S, SERVICE, Link
from trireme_pb.raft import raft_pb2

GREETING = raft_pb2.Greeting(cluster="c", sender=1, recipient=2)


async def test_a_member_of_another_version_is_named_and_not_spoken_to(caplog):
    caplog.set_level(logging.WARNING, "raft_store.peer_link")
    older = Server([])
    port = await older.listen("127.0.0.1", 0)
    link = Link(GREETING, [f"127.0.0.1:{port}"], None, lambda _: None, lambda: None)
    link.start()
    try:
        async with asyncio.timeout(10):
            while not caplog.records:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        await link.stop()
        await older.stop(0)
    assert "UNIMPLEMENTED" in caplog.text
    assert "it runs another version" in caplog.text


class Listener:
    """A peer's server on one port, which may go and come back."""

    def __init__(self):
        self.calls = []
        self.port = 0

    async def listen(self):
        self._server = Server([StreamMethod(SERVICE + "Deliver", self._deliver, bytes, bytes)])
        self.port = await self._server.listen("127.0.0.1", self.port)

    async def _deliver(self, call: Call):
        self.calls.append(call)
        async for _ in call.requests():
            pass

    async def stop(self):
        await self._server.stop(0)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_peer_that_refuses_connections_after_its_own_broke_has_ended():
    """It is told once, and again when it has been there meanwhile; who was never there cannot end."""
    ended, peer, gone = [], Listener(), Listener()
    for listener in (peer, gone):
        await listener.listen()
    await gone.stop()
    # Where it has two addresses, both have to refuse us.
    link = Link(GREETING, [f"127.0.0.1:{peer.port}", f"127.0.0.1:{gone.port}"], None, print, lambda: ended.append(1))
    never = Link(GREETING, [f"127.0.0.1:{gone.port}"], None, print, lambda: ended.append("never"))
    link.start()
    never.start()
    try:
        for times in (1, 2):
            await until(lambda: link.connected and len(peer.calls) == times)  # noqa: B023
            await asyncio.sleep(2 * REDIAL_PAUSE_S)
            await peer.stop()
            await until(lambda: len(ended) == times)  # noqa: B023
            await asyncio.sleep(4 * REDIAL_PAUSE_S)
            assert ended == [1] * times
            await peer.listen()
    finally:
        await link.stop()
        await never.stop()
        await peer.stop()


async def test_a_connection_that_only_breaks_is_made_anew_and_no_end():
    ended, peer = [], Listener()
    await peer.listen()
    link = Link(GREETING, [f"127.0.0.1:{peer.port}"], None, print, lambda: ended.append(1))
    link.start()
    try:
        for times in (1, 2, 3):
            await until(lambda: len(peer.calls) == times)  # noqa: B023
            await asyncio.sleep(1.5 * REDIAL_PAUSE_S if times > 1 else 0)  # one breaks at once: no reason to hurry
            link._channel._wire.transport.abort()
        await until(lambda: len(peer.calls) == 4)
    finally:
        await link.stop()
        await peer.stop()
    assert ended == []


def test_members_get_in_where_clients_have_taken_all_their_files_and_leave_some_to_the_log():
    clients, members = Room(fast_front.CONFIG.spare_files), Room(peers._SERVER.spare_files)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert not clients.has_for(int(clients.most_files))
    assert members.has_for(int(clients.most_files) + 70)
    assert not members.has_for(limit - 70)
