"""The work queue: merging, one worker a key, delays, back-off."""

import asyncio

import pytest

from client.clock import ManualClock
from client.workqueue import ShutDown, WorkQueue


async def test_a_key_waits_at_most_once() -> None:
    queue = WorkQueue()
    for key in ("a", "b", "a", "a"):
        queue.add(key)
    assert [await queue.get(), await queue.get()] == ["a", "b"]
    assert len(queue) == 0


async def test_a_key_in_work_comes_back_only_afterwards() -> None:
    queue = WorkQueue()
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_delays_keep_the_shortest() -> None:
    clock = ManualClock()
    queue = WorkQueue(clock=clock)
    queue.add_after("a", 5)
    queue.add_after("a", 2)
    queue.add_after("a", 9)
    clock.advance(1.9)
    assert len(queue) == 0
    clock.advance(0.2)
    assert len(queue) == 1
    assert await queue.get() == "a"
    queue.done("a")
    clock.advance(20)
    assert len(queue) == 0


def test_back_off_doubles_up_to_its_cap_until_forgotten() -> None:
    queue = WorkQueue(clock=ManualClock(), first_delay_s=1, longest_delay_s=5)
    assert [queue.add_rate_limited("a") for _ in range(5)] == [1, 2, 4, 5, 5]
    assert queue.add_rate_limited("b") == 1
    queue.forget("a")
    assert queue.add_rate_limited("a") == 1
    assert queue.add_rate_limited("a", at_least_s=4) == 4


async def test_a_cancelled_worker_loses_no_key() -> None:
    queue = WorkQueue()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")  # wakes the first
    first.cancel()
    async with asyncio.timeout(1):
        assert await second == "a"


async def test_shut_down_ends_workers_and_timers() -> None:
    clock = ManualClock()
    queue = WorkQueue(clock=clock)
    worker = asyncio.create_task(queue.get())
    queue.add_after("late", 1)
    await asyncio.sleep(0)
    queue.shut_down()
    with pytest.raises(ShutDown):
        await worker
    clock.advance(2)
    queue.add("more")
    assert len(queue) == 0
