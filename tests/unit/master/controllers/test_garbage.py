"""Garbage: decisions by table, races against the collector, and that a living owner protects whatever happens."""

import asyncio
import random

import pytest
from msgspec.structs import replace

from api.errors import ApiError
from api.kinds.core import ConfigMap, Namespace
from api.kinds.table import TABLE
from api.meta import ObjectMeta, OwnerReference, Resource
from client.resources import Resources
from client.runner import NotingResources
from master.controllers.garbage_graph import essentials
from master.controllers.garbage_plan import Collect, Disown, Fate, Keep, fate_of, home_of, plan_dependent
from master.controllers.garbagecollector import GarbageCollector
from master.controllers.manager import ControllerManager, Row
from tests.fakes.world import World

GARBAGE = (Row("garbagecollector", GarbageCollector),)
SOLID, WAITING, ABSENT = Fate.SOLID, Fate.WAITING, Fate.ABSENT
POLICIES = ("Background", "Foreground", "Orphan")


def reference(uid: str, name: str = "", *, blocking: bool | None = None) -> OwnerReference:
    return OwnerReference(api_version="v1", kind="ConfigMap", name=name or uid, uid=uid, block_owner_deletion=blocking)


def config(name: str = "it", *owners: OwnerReference, namespace: str = "default", **meta: object) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace=namespace, owner_references=owners, **meta))  # type: ignore[arg-type]


A, B = reference("a", blocking=True), reference("b", blocking=True)
CHILD = config("child")
WAITING_CHILD = config("child", deletion_timestamp="2026-01-01T00:00:00Z", finalizers=("foregroundDeletion",))


@pytest.mark.parametrize(
    ("obj", "fates", "dependents", "decision"),
    [
        pytest.param(config(), [], [], Keep(), id="owned by nobody"),
        pytest.param(config("it", A), [SOLID], [], Keep(), id="owner lives"),
        pytest.param(config("it", A), [ABSENT], [], Collect("Background"), id="owner is gone"),
        pytest.param(config("it", A, B), [ABSENT, ABSENT], [], Collect("Background"), id="all owners are gone"),
        pytest.param(config("it", A, B), [ABSENT, SOLID], [], Disown((B,)), id="dangling reference"),
        pytest.param(config("it", A, B), [SOLID, WAITING], [], Disown((A,)), id="does not wait with the other owner"),
        pytest.param(config("it", A), [WAITING], [], Collect("Background"), id="owner waits, a leaf"),
        pytest.param(config("it", A), [WAITING], [CHILD], Collect("Foreground"), id="owner waits, has dependents"),
        pytest.param(config("it", A), [ABSENT], [CHILD], Collect("Background"), id="gone owner, has dependents"),
        pytest.param(
            config("it", A), [WAITING], [WAITING_CHILD],
            Collect("Foreground", (reference("a", blocking=False),)), id="a circle is broken",
        ),
        pytest.param(config("it", A, finalizers=("orphan",)), [ABSENT], [], Collect("Orphan"), id="its own orphans"),
        pytest.param(
            config("it", A, deletion_timestamp="2026-01-01T00:00:00Z"), [ABSENT], [], Keep(), id="on its way already"
        ),
    ],
)  # fmt: skip
def test_what_becomes_of_a_dependent(obj: Resource, fates: list[Fate], dependents: list[Resource], decision: object):
    assert plan_dependent(obj, fates, dependents) == decision


@pytest.mark.parametrize(
    ("owner", "fate"),
    [
        pytest.param(None, ABSENT, id="nothing of that name"),
        pytest.param(config(uid="other"), ABSENT, id="another object of that name"),
        pytest.param(config(uid="a"), SOLID, id="lives"),
        pytest.param(config(uid="a", deletion_timestamp="t", finalizers=("x",)), SOLID, id="leaves, does not wait"),
        pytest.param(config(uid="a", deletion_timestamp="t", finalizers=("foregroundDeletion",)), WAITING, id="waits"),
    ],
)
def test_what_is_known_of_an_owner(owner: Resource | None, fate: Fate):
    assert fate_of(owner, A) is fate


def test_where_an_owner_is_looked_for():
    namespaced, cluster = TABLE.of(ConfigMap), TABLE.of(Namespace)
    assert home_of(config(namespace="shop"), namespaced) == "shop"
    assert home_of(config(namespace="shop"), cluster) == ""
    assert home_of(Namespace(metadata=ObjectMeta(name="shop")), namespaced) is None


def test_a_cache_keeps_owners_and_no_content():
    full = replace(config("it", A, uid="u", labels={"a": "b"}, annotations={"big": "x" * 1000}), data={"k": "v"})
    slim = essentials(full)
    assert slim == config("it", A, uid="u")


class Meddled(NotingResources):
    """Lets ``meddle`` happen just before the collector's first deletion."""

    def __init__(self, inner: Resources, meddle) -> None:
        super().__init__(inner)
        self._meddle = meddle

    async def delete(self, model, name, **options) -> None:
        if self._meddle is not None:
            meddle, self._meddle = self._meddle, None
            await meddle()
        await super().delete(model, name, **options)


async def test_an_owner_that_comes_at_the_last_moment_saves_its_dependent():
    world = World(rows=())
    api = world.resources
    old, new = await api.create(config("old")), await api.create(config("new"))
    await api.create(config("child", reference(old.metadata.uid, "old")))

    async def adopt() -> None:
        child = api.find(ConfigMap, "child", "default")
        owners = (*child.metadata.owner_references, reference(new.metadata.uid, "new"))
        await api.update(replace(child, metadata=replace(child.metadata, owner_references=owners)))

    meddled = World(rows=())
    meddled.resources, meddled.clock = api, world.clock
    meddled.manager = ControllerManager(Meddled(api, adopt), None, world.clock, rows=GARBAGE)
    async with meddled.running():
        await api.delete(ConfigMap, "old", namespace="default")
        await meddled.pass_time(2)
    child = api.find(ConfigMap, "child", "default")
    assert child is not None
    assert [each.name for each in child.metadata.owner_references] == ["new"]


async def test_an_object_outside_all_namespaces_is_safe_from_owners_within():
    world = World(rows=GARBAGE)
    meta = ObjectMeta(name="shop", owner_references=(reference("u", "nothing"),))
    await world.resources.create(Namespace(metadata=meta))
    async with world.running():
        await world.settle()
        assert world.resources.find(Namespace, "shop") is not None


async def test_an_owner_in_another_namespace_is_none():
    world = World(rows=GARBAGE)
    owner = await world.resources.create(config("owner", namespace="other"))
    await world.resources.create(config("child", reference(owner.metadata.uid, "owner")))
    async with world.running():
        await world.settle()
        assert [each.metadata.name for each in world.resources.all(ConfigMap)] == ["owner"]


async def test_an_owner_that_waits_may_go_when_its_dependent_is_disowned():
    world = World(rows=GARBAGE)
    api = world.resources
    async with world.running():
        owner = await api.create(config("owner"))
        held = (reference(owner.metadata.uid, "owner", blocking=True),)
        await api.create(config("child", *held, finalizers=("example.com/hold",)))
        await world.settle()
        await api.delete(ConfigMap, "owner", namespace="default", propagation="Foreground")
        await world.settle()
        assert api.find(ConfigMap, "owner", "default") is not None
        await api.patch(ConfigMap, "child", {"metadata": {"ownerReferences": None}}, namespace="default")
        await world.settle()
        assert api.find(ConfigMap, "owner", "default") is None


async def test_a_circle_deleted_in_the_foreground_goes():
    world = World(rows=GARBAGE)
    api = world.resources
    async with world.running():
        one = await api.create(config("one"))
        two = await api.create(config("two", reference(one.metadata.uid, "one", blocking=True)))
        back = [{"apiVersion": "v1", "kind": "ConfigMap", "name": "two", "uid": two.metadata.uid,
                 "blockOwnerDeletion": True}]  # fmt: skip
        await api.patch(ConfigMap, "one", {"metadata": {"ownerReferences": back}}, namespace="default")
        await world.settle()
        await api.delete(ConfigMap, "one", namespace="default", propagation="Foreground")
        await world.pass_time(2)
        assert api.all(ConfigMap) == []


class Watched(NotingResources):
    """Gives way before each call, and holds each deletion by the collector to the one rule."""

    def __init__(self, world: World) -> None:
        super().__init__(world.resources)
        self._world = world
        self.deleted = 0

    async def get(self, model, name, **options):
        found = await super().get(model, name, **options)
        await asyncio.sleep(0)  # between looking and acting others act
        return found

    async def delete(self, model, name, *, namespace="", **options) -> None:
        before = self._world.resources.find(model, name, namespace)
        owners = [] if before is None else [
            self._world.resources.find(ConfigMap, each.name, namespace) for each in before.metadata.owner_references
        ]  # fmt: skip
        await super().delete(model, name, namespace=namespace, **options)
        self.deleted += 1
        fates = [fate_of(owner, ref) for owner, ref in zip(owners, before.metadata.owner_references, strict=True)]
        assert SOLID not in fates, (name, fates)


def age(obj: Resource) -> int:
    return int(obj.metadata.uid.removeprefix("uid-"))


async def step(api: Resources, rng: random.Random, world: World) -> None:
    """Do something at random: make, adopt, disown or delete."""
    present = world.resources.all(ConfigMap)
    pick = rng.sample(present, min(len(present), rng.randrange(3)))
    owners = tuple(reference(each.metadata.uid, each.metadata.name, blocking=rng.random() < 0.5) for each in pick)
    choice = rng.random()
    if not present or choice < 0.6:
        await api.create(config(f"c{rng.randrange(40)}", *owners))
    elif choice < 0.85:
        chosen = rng.choice(present)
        # Only older objects: objects deleted in the foreground that own each other wait for each other for ever.
        older = {each.metadata.uid for each in present if age(each) < age(chosen)}
        owners = tuple(each for each in owners if each.uid in older)
        changed = replace(chosen.metadata, owner_references=owners)
        await api.update(replace(chosen, metadata=changed))
    else:
        name = rng.choice(present).metadata.name
        await api.delete(ConfigMap, name, namespace="default", propagation=rng.choice(POLICIES))


@pytest.mark.parametrize("seed", range(40))
async def test_a_living_owner_protects_and_a_dead_one_does_not(seed: int, caplog: pytest.LogCaptureFixture):
    """Goal: never delete what a living owner has, and in the end nothing is left whose owners are all gone."""
    rng = random.Random(seed)
    world = World(rows=())
    watched = Watched(world)
    world.manager = ControllerManager(watched, None, world.clock, rows=GARBAGE)
    async with world.running():
        for _ in range(150):
            try:
                await step(world.resources, rng, world)
            except ApiError:
                continue  # a name that is taken, an object that leaves
            for _ in range(rng.randrange(30)):
                await asyncio.sleep(0)
            if rng.random() < 0.05:
                world.resources.break_watches()
        await world.pass_time(30, step_s=1)
    assert not [each for each in caplog.records if each.exc_info], caplog.text
    uids = {each.metadata.uid for each in world.resources.all(ConfigMap)}
    for each in world.resources.all(ConfigMap):
        owners = {ref.uid for ref in each.metadata.owner_references}
        assert owners <= uids, "a reference dangles, or an orphan stays"
        assert not each.metadata.deletion_timestamp, each.metadata
    assert watched.deleted
