"""The way to one other member, as seen by the one who dials."""

import asyncio
import logging

from fastgrpc.server import Server
from raft_store.peer_link import Link
from trireme_pb.raft import raft_pb2


async def test_a_member_of_another_version_is_named_and_not_spoken_to(caplog):
    caplog.set_level(logging.WARNING, "raft_store.peer_link")
    older = Server([])
    port = await older.listen("127.0.0.1", 0)
    link = Link(raft_pb2.Greeting(cluster="c", sender=1, recipient=2), [f"127.0.0.1:{port}"], None, lambda _: None)
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
