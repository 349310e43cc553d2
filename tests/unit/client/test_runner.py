"""The runner: back-off, one key at a time, and no round before the caches show the last one's writes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from api.errors import Conflict, Timeout
from api.kinds.core import ConfigMap
from api.meta import ObjectMeta
from client.clock import ManualClock
from client.informer import SharedInformers
from client.resources import Resources
from client.runner import Outcome, Reconcile, Runner
from tests.fakes.resources import MemoryResources
from tests.unit.client.test_informer import turns


class Figures:
    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def reconciled(self, controller: str, outcome: Outcome, seconds: float, depth: int) -> None:
        self.outcomes.append(outcome)


class Rig:
    def __init__(self, reconcile: Reconcile) -> None:
        self.clock = ManualClock()
        self.memory = MemoryResources(clock=self.clock)
        self.informers = SharedInformers(self.memory, clock=self.clock)
        self.cache = self.informers.of(ConfigMap)
        self.figures = Figures()
        self.runner = Runner(
            "test", reconcile, resources=self.memory, informers=self.informers, workers=2, clock=self.clock,
            observer=self.figures,
        )  # fmt: skip

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = (asyncio.create_task(self.informers.run()), asyncio.create_task(self.runner.run()))
        try:
            await turns()
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert all(task.cancelled() for task in tasks)


async def test_a_round_waits_until_the_cache_shows_the_last_ones_writes() -> None:
    rounds: list[int] = []

    async def reconcile(key: str, api: Resources) -> float | None:
        rounds.append(len(rig.cache))
        if len(rig.cache) < 1:
            await api.create(ConfigMap(metadata=ObjectMeta(name=f"made-{len(rounds)}", namespace="x")))
        return None

    rig = Rig(reconcile)
    async with rig.running():
        # The watch is down: the cache does not learn of what the first round writes.
        rig.memory.break_watches()
        await turns()
        rig.runner.queue.add("x/a")
        await turns()
        rig.runner.queue.add("x/a")
        await turns()
        assert rounds == [0]
        rig.clock.advance(1)
        await turns()
        assert rounds == [0, 1]
    assert len(rig.memory.all(ConfigMap)) == 1


async def test_a_deletion_counts_as_written_too() -> None:
    seen: list[bool] = []

    async def reconcile(key: str, api: Resources) -> float | None:
        obj = rig.cache.get("x/a")
        seen.append(obj is not None)
        if obj is not None:
            await api.delete(ConfigMap, "a", namespace="x", uid=obj.metadata.uid)
        return None

    rig = Rig(reconcile)
    await rig.memory.create(ConfigMap(metadata=ObjectMeta(name="a", namespace="x")))
    async with rig.running():
        rig.memory.break_watches()
        await turns()
        for _ in range(2):
            rig.runner.queue.add("x/a")
            await turns()
        rig.clock.advance(1)
        await turns()
    assert seen == [True, False]


async def test_failures_back_off_and_success_resets() -> None:
    failures = [Conflict("stale"), ValueError("ours"), Timeout("who knows")]
    moments: list[float] = []

    async def reconcile(key: str, api: Resources) -> float | None:
        moments.append(rig.clock.monotonic())
        if failures:
            raise failures.pop(0)
        return 7.0 if len(moments) == 4 else None

    rig = Rig(reconcile)
    async with rig.running():
        rig.runner.queue.add("k")
        await turns()
        for _ in range(10_000):
            rig.clock.advance(0.001)
            await turns(3)
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    # 5 ms, 10 ms, a second because nobody knows, then what the round asked for.
    assert gaps == pytest.approx([0.005, 0.01, 1.0, 7.0], abs=0.003)
    assert rig.figures.outcomes == ["conflict", "failed", "failed", "again", "done"]


async def test_one_key_is_never_in_two_hands() -> None:
    busy = 0
    most = 0

    async def reconcile(key: str, api: Resources) -> float | None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await turns(5)
        busy -= 1
        return None

    rig = Rig(reconcile)
    async with rig.running():
        for _ in range(10):
            rig.runner.queue.add("k")
            await turns(3)
        await turns(60)
    assert most == 1
