import asyncio
from collections.abc import AsyncIterator

import pytest

from raft_store.etcd_api.gathering import gathered


async def numbers(count: int, gate: asyncio.Event | None = None, after: int = 0) -> AsyncIterator[int]:
    for i in range(count):
        if gate is not None and i == after:
            await gate.wait()
        yield i


async def test_what_came_meanwhile_is_one_batch() -> None:
    gate = asyncio.Event()
    batches = []
    async for batch in gathered(numbers(10, gate, after=1), at_most=4):
        batches.append(batch)
        gate.set()
        for _ in range(20):
            await asyncio.sleep(0)
    assert batches[0] == [0]
    assert [number for batch in batches for number in batch] == list(range(10))
    assert max(map(len, batches)) == 4


async def test_nothing_comes_of_nothing() -> None:
    assert [batch async for batch in gathered(numbers(0), at_most=4)] == []


async def test_a_failure_comes_after_what_was_before_it() -> None:
    async def failing() -> AsyncIterator[int]:
        yield 1
        raise ConnectionError("gone")

    batches = gathered(failing(), at_most=4)
    assert await anext(batches) == [1]
    with pytest.raises(ConnectionError):
        await anext(batches)


async def test_who_stops_leaves_no_task_behind() -> None:
    before = asyncio.all_tasks()
    batches = gathered(numbers(1000), at_most=4)
    assert await anext(batches) == [0, 1, 2, 3]
    for _ in range(20):
        await asyncio.sleep(0)  # as many wait again as there is room for
    await batches.aclose()
    assert asyncio.all_tasks() == before
