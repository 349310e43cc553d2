"""An informer under random faults ends equal to its source, and its subscribers have heard of every change."""

import asyncio
import random

import pytest

from api.errors import Expired, Timeout, Unavailable
from api.kinds.core import ConfigMap
from api.meta import ObjectMeta, OwnerReference
from client.clock import ManualClock
from client.informer import Informer, key_of
from tests.fakes.resources import MemoryResources


async def disturb(memory: MemoryResources, rng: random.Random) -> None:
    """Change the source, or break the way to it."""
    names = [each.metadata.name for each in memory.all(ConfigMap)]
    name = f"c{rng.randrange(6)}"
    match rng.randrange(9):
        case 0 | 1 | 2 if name not in names:
            owners = (OwnerReference(api_version="v1", kind="ConfigMap", name="o", uid=f"o{rng.randrange(3)}"),)
            await memory.create(ConfigMap(metadata=ObjectMeta(name=name, namespace="x", owner_references=owners)))
        case 3 | 4 if name in names:
            await memory.delete(ConfigMap, name, namespace="x")
        case 5 if name in names:
            owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": f"o{rng.randrange(3)}"}
            await memory.patch(ConfigMap, name, {"metadata": {"ownerReferences": [owner]}}, namespace="x")
        case 6:
            memory.break_watches(rng.choice([None, Unavailable("gone"), Timeout("slow")]))
        case 7:
            memory.break_watches(Expired("compacted"))
            memory.compact()
        case 8:
            memory.refuse(Unavailable("no"), verb=rng.choice(["list", "watch"]), times=rng.randint(1, 3))


@pytest.mark.parametrize("seed", range(60))
async def test_it_ends_equal_to_its_source(seed: int) -> None:
    rng = random.Random(seed)
    clock = ManualClock()
    memory = MemoryResources(clock=clock, seed=seed)
    cache = Informer(memory, ConfigMap, clock=clock, rng=rng)
    heard: dict[str, tuple[str, str] | None] = {}  # what a subscriber that reads at each key has seen last

    def read(key: str) -> None:
        obj = cache.get(key)
        heard[key] = None if obj is None else (obj.metadata.uid, obj.metadata.resource_version)

    cache.subscribe(read)
    task = asyncio.create_task(cache.run())
    revision = 0
    for _ in range(80):
        await disturb(memory, rng)
        for _ in range(rng.randrange(6)):
            await asyncio.sleep(0)
        if rng.random() < 0.3:
            clock.advance(rng.random())
        assert cache.revision >= revision, "the cache went back in time"
        revision = cache.revision
    memory._refusals.clear()
    for _ in range(40):
        clock.advance(1)
        for _ in range(10):
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    source = {key_of(each): each for each in memory.all(ConfigMap)}
    assert {key: cache.get(key) for key in cache.keys()} == source  # noqa: SIM118 - a cache, no dict
    present = {key: (each.metadata.uid, each.metadata.resource_version) for key, each in source.items()}
    assert {key: seen for key, seen in heard.items() if seen is not None} == present
    for uid in ("o0", "o1", "o2"):
        owned = {key for key, each in source.items() if any(ref.uid == uid for ref in each.metadata.owner_references)}
        assert {key_of(each) for each in cache.owned_by(uid)} == owned
