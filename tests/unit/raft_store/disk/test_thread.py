"""Blocking calls in a thread of their own: in order, one at a time, with their results in the event loop."""

import asyncio
import threading

import pytest

from raft_store.disk.thread import DiskThread


async def test_calls_run_in_order_and_tell_how_they_ended() -> None:
    thread = DiskThread(asyncio.get_running_loop(), name="disk")
    told: list[object] = []

    def fail() -> None:
        raise OSError("broken")

    for call in (lambda: 1, fail, lambda: threading.current_thread().name):
        thread.begin(call, lambda result, exc: told.append(str(exc) if exc else result))
    assert await thread.run(lambda: "last") == "last"
    assert told == [1, "broken", "disk"]
    with pytest.raises(OSError, match="broken"):
        await thread.run(fail)
    await asyncio.to_thread(thread.close)


async def test_closing_waits_for_what_was_begun() -> None:
    loop = asyncio.get_running_loop()
    thread = DiskThread(loop, name="disk")
    gate, told = threading.Event(), []
    thread.begin(gate.wait, lambda result, exc: told.append(result))
    waiting = asyncio.ensure_future(thread.run(lambda: None))
    await asyncio.sleep(0)
    waiting.cancel()  # who stops waiting does no harm
    gate.set()
    await asyncio.to_thread(thread.close)
    await asyncio.sleep(0)
    assert told == [True]


def test_a_loop_that_is_gone_is_not_told() -> None:
    loop = asyncio.new_event_loop()
    thread = DiskThread(loop, name="disk")
    loop.close()
    thread.begin(lambda: None, lambda result, exc: None)
    thread.close()
    assert not thread._thread.is_alive()
