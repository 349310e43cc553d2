"""The robustness runs' wires between members."""

import asyncio
import os
from random import Random

from deploy.experiments.robustness.wires import Proxy, Wires
from tests.ports import free_ports


async def test_a_wire_that_nobody_reads_from_any_more_is_cut_in_the_end(monkeypatch):
    """What a killed member never took in must not keep a connection open after the run."""
    inner = []
    opened = asyncio.open_connection

    async def open_connection(*args, **options):
        reader, writer = await opened(*args, **options)
        inner.append(writer.transport)
        return reader, writer

    over = asyncio.Event()

    async def take_nothing(reader, writer):
        reader._transport.pause_reading()
        await over.wait()
        writer.transport.abort()

    monkeypatch.setattr(asyncio, "open_connection", open_connection)
    target = await asyncio.start_server(take_nothing, "127.0.0.1", 0)
    to = target.sockets[0].getsockname()[1]
    proxy = Proxy("m1", target=to, wires=Wires(Random(1)), pids=lambda: {"m2": os.getpid()})
    (port,) = free_ports(1)
    await proxy.start(port)
    _, client = await opened("127.0.0.1", port)
    async with asyncio.timeout(30):
        client.write(bytes(32 << 20))
        while not inner or not inner[0].get_write_buffer_size():  # noqa: ASYNC110 - until the system takes no more
            await asyncio.sleep(0.01)
        await proxy.stop()
        await asyncio.sleep(0)
    still_open = inner[0].get_extra_info("socket").fileno() != -1
    client.transport.abort()
    over.set()
    target.close()
    await asyncio.sleep(0.01)
    assert not still_open
