"""The garbage collector never deletes an object with a living owner, and leaves none whose owners are all gone."""

import random

import pytest

from api.kinds.core import ConfigMap, Secret
from api.meta import ObjectMeta, OwnerReference, Resource
from client.clock import ManualClock
from master.controllers.garbagecollector import GarbageCollector
from master.controllers.manager import ControllerManager, Row
from tests.fakes.resources import MemoryResources
from tests.fakes.world import World

ROWS = (Row("garbagecollector", GarbageCollector),)


class Judged(MemoryResources):
    """Checks, at every deletion by the collector, that no owner lives; what the test deletes is ``asked``."""

    asked: bool = False

    def living(self) -> dict[str, Resource]:
        return {each.metadata.uid: each for each in (*self.all(ConfigMap), *self.all(Secret))}

    async def delete(self, model: type, name: str, **options: object) -> None:  # type: ignore[override]
        if not self.asked:
            obj = self.find(model, name, str(options.get("namespace", "")))
            if obj is not None and (not options.get("uid") or options["uid"] == obj.metadata.uid):
                living = self.living()
                for reference in obj.metadata.owner_references:
                    owner = living.get(reference.uid)
                    waits = owner is not None and "foregroundDeletion" in owner.metadata.finalizers
                    assert owner is None or waits, f"{name} was deleted though {reference.name} lives"
        await super().delete(model, name, **options)  # type: ignore[arg-type]


def owned(name: str, kind: type[ConfigMap | Secret], owners: list[Resource], rng: random.Random) -> ConfigMap | Secret:
    references = tuple(
        OwnerReference(
            api_version="v1", kind=type(each).__name__, name=each.metadata.name, uid=each.metadata.uid,
            block_owner_deletion=rng.random() < 0.5,
        )
        for each in owners
    )  # fmt: skip
    return kind(metadata=ObjectMeta(name=name, namespace="default", owner_references=references))


async def ask(memory: Judged, obj: Resource, policy: str) -> None:
    memory.asked = True
    try:
        await memory.delete(type(obj), obj.metadata.name, namespace="default", propagation=policy)
    finally:
        memory.asked = False


@pytest.mark.parametrize("seed", range(50))
async def test_only_what_nobody_owns_goes_and_all_of_it(seed: int) -> None:
    rng = random.Random(seed)
    memory = Judged(clock=ManualClock(), seed=seed)
    world = _over(memory, seed)
    async with world.running():
        for number in range(60):
            present = list(memory.living().values())
            # Late writers: owners that are leaving, or gone since the writer looked, get dependents still.
            kind = rng.choice([ConfigMap, Secret])
            owners = rng.sample(present, min(len(present), rng.choice([0, 0, 1, 1, 2])))
            await world.settle(rng.randint(0, 6))
            if number % 3 == 2 and memory.living():
                await ask(memory, rng.choice(list(memory.living().values())), "")
            await memory.create(owned(f"o{number}", kind, owners, rng))
            if rng.random() < 0.25 and memory.living():
                victim = rng.choice(list(memory.living().values()))
                await ask(memory, victim, rng.choice(["Background", "Foreground", "Orphan"]))
            if rng.random() < 0.15:
                memory.break_watches()
            if rng.random() < 0.4:
                world.clock.advance(0.5)
        await world.pass_time(20, step_s=1)
    living = memory.living()
    for obj in living.values():
        references = obj.metadata.owner_references
        assert not references or any(each.uid in living for each in references), obj.metadata
        assert not obj.metadata.deletion_timestamp, "what was deleted is still there"


def _over(memory: Judged, seed: int) -> World:
    """Return a world over ``memory``."""
    world = World(rows=(), seed=seed)
    world.clock = memory.clock
    world.resources = memory
    world.manager = ControllerManager(memory, clock=memory.clock, rows=ROWS, rng=random.Random(seed))
    return world
