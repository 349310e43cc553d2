"""A process that could not run for a while: what came meanwhile is not late."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
import uvloop

from fastgrpc.channel import Channel
from fastgrpc.server import Call, Server, UnaryMethod


async def echo(request: bytes, call: Call) -> bytes:
    del call
    return request


@pytest.fixture
def port() -> Iterator[int]:
    """A server that runs while the test's own loop does not."""
    ports: list[int] = []
    listens, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        server = Server([UnaryMethod("/t.T/Echo", echo)])
        ports.append(await server.listen("127.0.0.1", 0))
        listens.set()
        await asyncio.to_thread(stop.wait)
        await server.stop(0.0)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert listens.wait(10)
    yield ports[0]
    stop.set()
    thread.join(10)


def test_an_answer_that_came_while_we_could_not_run_counts(port: int) -> None:
    async def ask() -> bytes | None:
        channel = Channel(f"127.0.0.1:{port}")
        await channel.connect()
        call = await channel.start("/t.T/Echo", timeout_s=0.2)
        await call.send(b"x", end=True)
        await asyncio.sleep(0)  # it goes out
        time.sleep(0.5)  # noqa: ASYNC251 - the point: nothing of ours runs
        answer = await call.receive()
        await channel.close()
        return answer

    # It holds because the loop reads before it looks at its timers, which not every loop does.
    assert uvloop.run(ask()) == b"x"
