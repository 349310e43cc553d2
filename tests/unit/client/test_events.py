"""Events: repeats become counts, floods are cut, nobody waits."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from api.errors import Forbidden, Unavailable
from api.kinds.core import Event
from api.kinds.pods import Pod
from api.meta import ObjectMeta
from client import events
from client.events import EventRecorder
from tests.fakes.resources import MemoryResources

POD = Pod(metadata=ObjectMeta(name="web", namespace="default", uid="u1"))


class Writing:
    def __init__(self) -> None:
        self.api = MemoryResources()
        self.recorder = EventRecorder(self.api, component="kubelet", host="n1", now=self.api.clock.time)

    def say(self, message: str = "m", reason: str = "Killing") -> None:
        self.recorder.event(POD, kind="Normal", reason=reason, message=message)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await self.api._changed.wait()

    def all(self) -> list[Event]:
        return self.api.all(Event)


@pytest.fixture
async def writing(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Writing]:
    monkeypatch.setattr(events, "_RETRY_S", 0)
    writing = Writing()
    task = asyncio.create_task(writing.recorder.run())
    yield writing
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_repeats_are_counted(writing: Writing) -> None:
    for _ in range(3):
        writing.say()
    writing.say("other")
    await writing.until(lambda: len(writing.all()) == 2)
    counts = {event.message: event.count for event in writing.all()}
    assert counts == {"m": 3, "other": 1}
    event = writing.all()[0]
    assert (event.involved_object.kind, event.involved_object.uid, event.source.host) == ("Pod", "u1", "n1")


async def test_an_event_that_expired_is_written_anew(writing: Writing) -> None:
    writing.say()
    await writing.until(lambda: len(writing.all()) == 1)
    await writing.api.delete(Event, writing.all()[0].metadata.name, namespace="default")
    writing.say()
    await writing.until(lambda: len(writing.all()) == 1)
    assert writing.all()[0].count == 1


async def test_a_flood_is_cut_and_time_lets_more_through(writing: Writing) -> None:
    for n in range(100):
        writing.say(f"m{n}")
    await writing.until(lambda: len(writing.all()) == 25)
    writing.api.clock.advance(30)
    writing.say("later")
    await writing.until(lambda: any(event.message == "later" for event in writing.all()))
    assert len(writing.all()) == 26


async def test_an_outage_is_waited_for_and_a_refusal_is_not(writing: Writing) -> None:
    writing.api.refuse(Unavailable("away"), verb="create", times=2)
    writing.say("kept")
    await writing.until(lambda: len(writing.all()) == 1)
    writing.api.refuse(Forbidden("no"), verb="create")
    writing.say("refused")
    writing.say("next")
    await writing.until(lambda: len(writing.all()) == 2)
    assert {event.message for event in writing.all()} == {"kept", "next"}


async def test_nobody_waits_when_too_many_are_waiting() -> None:
    recorder = Writing().recorder
    for _ in range(events._QUEUE + 10):
        recorder.event(POD, kind="Normal", reason="r", message="m")
    assert recorder._queue.qsize() == events._QUEUE
