"""A watch of the store that is ended at an awkward moment."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from client.etcd_watch import Watch


class Member:
    """An endpoint, all endpoints, and the one stream to it: takes a watch when it is let, and has nothing to tell."""

    address = "here"

    def __init__(self) -> None:
        self.asked, self.takes = asyncio.Event(), asyncio.Event()

    async def pick(self, deadline: float) -> "Member":
        return self

    async def connect(self, timeout_s: float) -> None:
        pass

    def stream(self, method: object) -> "Member":
        return self

    @contextlib.contextmanager
    def watched(self, stream: object, patience_s: float) -> Iterator[None]:
        yield

    async def write(self, message: object) -> None:
        self.asked.set()
        await self.takes.wait()

    async def read(self) -> object:
        return await asyncio.Event().wait()

    def cancel(self) -> None:
        pass


async def test_a_watch_that_is_closed_while_it_begins_ends() -> None:
    member: Any = Member()
    watch = Watch(member, key=b"k", end=b"", start_revision=0, previous=False, patience_s=60)

    async def listen() -> list[object]:
        return [batch async for batch in watch]

    listening = asyncio.create_task(listen())
    async with asyncio.timeout(5):
        await member.asked.wait()
        await watch.close()
        member.takes.set()
        assert await listening == []
