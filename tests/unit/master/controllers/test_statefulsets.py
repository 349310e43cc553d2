"""StatefulSets, from the object to numbered pods, one by one, and through scaling, updates and bad luck."""

import pytest
from msgspec.structs import replace

from api.kinds.apps import (
    ControllerRevision,
    RollingUpdateStatefulSetStrategy,
    StatefulSet,
    StatefulSetOrdinals,
    StatefulSetPersistentVolumeClaimRetentionPolicy,
    StatefulSetSpec,
    StatefulSetUpdateStrategy,
)
from api.kinds.core import Event
from api.kinds.pods import Pod
from api.kinds.volumes import PersistentVolumeClaim
from api.meta import LabelSelector, ObjectMeta
from master.controllers.history import REVISION_LABEL
from master.controllers.manager import Row
from master.controllers.statefulset import StatefulSetController
from tests.fakes.world import World, template, with_ready

ROWS = (Row("statefulset", StatefulSetController),)
LABELS = {"app": "db"}


def statefulset(replicas: int = 3, image: str = "db:1", **spec: object) -> StatefulSet:
    strategy = StatefulSetUpdateStrategy(
        type="RollingUpdate", rolling_update=RollingUpdateStatefulSetStrategy(partition=0)
    )
    return StatefulSet(
        metadata=ObjectMeta(name="db", namespace="default"),
        spec=StatefulSetSpec(
            **{  # type: ignore[arg-type]
                "replicas": replicas,
                "selector": LabelSelector(match_labels=LABELS),
                "service_name": "dbs",
                "pod_management_policy": "OrderedReady",
                "update_strategy": strategy,
                "template": template(LABELS, image),
                **spec,
            }
        ),
    )


async def step(world: World, *, ready: bool = True) -> None:
    """Let the controller act once, then the agents: pods are bound, started, stopped."""
    await world.settle()
    for pod in world.resources.all(Pod):
        if not pod.spec.node_name and not pod.metadata.deletion_timestamp:
            await world.resources.bind(namespace="default", pod=pod.metadata.name, uid=pod.metadata.uid, node="n1")
    await world.run_pods(ready=ready)
    world.clock.advance(0.1)
    await world.settle()


async def live(world: World, rounds: int = 20) -> None:
    for _ in range(rounds):
        await step(world)


def shown(world: World) -> StatefulSet:
    found = world.resources.find(StatefulSet, "db", "default")
    assert found is not None
    return found


def pods(world: World) -> list[Pod]:
    return sorted(world.resources.all(Pod), key=lambda pod: pod.metadata.name)


def names(world: World) -> list[str]:
    return [pod.metadata.name for pod in pods(world)]


def images(world: World) -> list[str]:
    return [pod.spec.containers[0].image for pod in pods(world)]


async def change(world: World, **spec: object) -> None:
    present = shown(world)
    await world.resources.update(replace(present, spec=replace(present.spec, **spec)))


async def unready(world: World, name: str) -> None:
    pod = world.resources.find(Pod, name, "default")
    assert pod is not None
    await world.resources.update(with_ready(pod, "False", world.clock.time()), subresource="status")
    await world.settle()


async def test_pods_come_one_by_one_each_with_an_identity() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(statefulset())
        await step(world, ready=False)
        await step(world)
        assert names(world) == ["db-0"]  # it is not ready, so nobody comes after it
        (first,) = pods(world)
        await world.resources.update(with_ready(first, "True", world.clock.time()), subresource="status")
        await world.settle()
        assert names(world) == ["db-0", "db-1"]
        await live(world)
        assert names(world) == ["db-0", "db-1", "db-2"]
        second = pods(world)[1]
        assert (second.spec.hostname, second.spec.subdomain) == ("db-1", "dbs")
        assert second.metadata.labels == {
            **LABELS,
            "statefulset.kubernetes.io/pod-name": "db-1",
            "apps.kubernetes.io/pod-index": "1",
            REVISION_LABEL: shown(world).status.update_revision,
        }
        status = shown(world).status
        assert (status.replicas, status.ready_replicas, status.available_replicas) == (3, 3, 3)
        assert (status.current_replicas, status.updated_replicas) == (3, 3)
        assert status.current_revision == status.update_revision != ""


async def test_scaling_stops_at_a_pod_that_is_not_ready_both_ways() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(statefulset(2))
        await live(world)
        await unready(world, "db-0")
        await change(world, replicas=3)
        await live(world, 5)
        assert names(world) == ["db-0", "db-1"]
        # Of pods that ail only the first may go, and it is not the last.
        await unready(world, "db-1")
        await change(world, replicas=0)
        await live(world, 5)
        assert names(world) == ["db-0", "db-1"]
        last = pods(world)[1]
        await world.resources.update(with_ready(last, "True", world.clock.time()), subresource="status")
        await live(world)
        assert names(world) == []


async def test_the_last_goes_first_one_at_a_time() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(statefulset(3))
        await live(world)
        await change(world, replicas=1)
        await world.settle()
        assert [pod.metadata.name for pod in pods(world) if pod.metadata.deletion_timestamp] == ["db-2"]
        await step(world)
        assert [pod.metadata.name for pod in pods(world) if pod.metadata.deletion_timestamp] == ["db-1"]
        await live(world)
        assert names(world) == ["db-0"]


async def test_a_parallel_set_does_not_wait() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(statefulset(4, pod_management_policy="Parallel"))
        await world.settle()
        assert names(world) == ["db-0", "db-1", "db-2", "db-3"]
        await change(world, replicas=1)
        await live(world, 3)
        assert names(world) == ["db-0"]


async def test_an_update_goes_from_the_last_to_the_first_and_waits_for_each() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(statefulset())
        await live(world)
        before = shown(world).status.current_revision
        await change(world, template=template(LABELS, "db:2"))
        await step(world)
        await step(world, ready=False)
        await live(world, 4)
        assert images(world) == ["db:1", "db:1", "db:2"]
        status = shown(world).status
        assert (status.current_revision, status.current_replicas, status.updated_replicas) == (before, 2, 1)
        assert status.update_revision != before
        last = pods(world)[2]
        await world.resources.update(with_ready(last, "True", world.clock.time()), subresource="status")
        await live(world)
        assert images(world) == ["db:2", "db:2", "db:2"]
        status = shown(world).status
        assert status.current_revision == status.update_revision
        assert (status.current_replicas, status.updated_replicas) == (3, 3)


async def test_rolling_back_gives_the_old_revision_the_next_number() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(statefulset())
        await live(world)
        first = shown(world).status.current_revision
        await change(world, template=template(LABELS, "db:2"))
        await live(world)
        await change(world, template=template(LABELS, "db:1"))
        await live(world)
        assert images(world) == ["db:1", "db:1", "db:1"]
        assert shown(world).status.current_revision == first
        numbers = {each.metadata.name: each.revision for each in world.resources.all(ControllerRevision)}
        assert len(numbers) == 2
        assert numbers[first] == 3


async def test_below_the_partition_pods_stay_and_come_back_as_they_were() -> None:
    world = World(rows=ROWS)
    partitioned = StatefulSetUpdateStrategy(
        type="RollingUpdate", rolling_update=RollingUpdateStatefulSetStrategy(partition=2)
    )
    async with world.running():
        await world.resources.create(statefulset(update_strategy=partitioned))
        await live(world)
        await change(world, template=template(LABELS, "db:2"))
        await live(world)
        assert images(world) == ["db:1", "db:1", "db:2"]
        for name in ("db-0", "db-2"):
            await world.resources.delete(Pod, name, namespace="default", grace_period_s=0)
        await live(world)
        assert images(world) == ["db:1", "db:1", "db:2"]
        status = shown(world).status
        assert status.current_revision != status.update_revision


async def test_on_delete_waits_for_the_user() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(statefulset(2, update_strategy=StatefulSetUpdateStrategy(type="OnDelete")))
        await live(world)
        await change(world, template=template(LABELS, "db:2"))
        await live(world)
        assert images(world) == ["db:1", "db:1"]
        await world.resources.delete(Pod, "db-0", namespace="default", grace_period_s=0)
        await live(world)
        assert images(world) == ["db:2", "db:1"]


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
async def test_a_pod_that_ended_is_made_anew(phase: str) -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(statefulset(2))
        await live(world)
        first = pods(world)[0]
        await world.resources.update(replace(first, status=replace(first.status, phase=phase)), subresource="status")
        await live(world)
        assert names(world) == ["db-0", "db-1"]
        assert pods(world)[0].metadata.uid != first.metadata.uid
        assert any(each.reason.startswith("Recreating") for each in world.resources.all(Event))


async def test_ordinals_may_begin_anywhere_and_strangers_are_left_alone() -> None:
    world = World(rows=ROWS)
    async with world.running():
        for name in ("db-x", "db-07", "other-5"):
            stranger = Pod(metadata=ObjectMeta(name=name, namespace="default", labels=LABELS), spec=template({}).spec)
            await world.resources.create(stranger)
        orphan = Pod(metadata=ObjectMeta(name="db-5", namespace="default", labels=LABELS), spec=template({}).spec)
        await world.resources.create(orphan)
        await world.resources.create(statefulset(2, ordinals=StatefulSetOrdinals(start=5)))
        await live(world)
        owned = [pod for pod in pods(world) if pod.metadata.owner_references]
        assert [pod.metadata.name for pod in owned] == ["db-5", "db-6"]
        assert owned[0].metadata.labels["apps.kubernetes.io/pod-index"] == "5"


async def test_available_only_after_a_while() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(statefulset(2, min_ready_seconds=10))
        await live(world, 3)
        assert names(world) == ["db-0"]
        assert shown(world).status.available_replicas == 0
        await world.pass_time(11)
        await live(world, 3)
        assert names(world) == ["db-0", "db-1"]


CLAIM = PersistentVolumeClaim(metadata=ObjectMeta(name="data", labels={"kept": "yes"}))


async def test_claims_outlive_their_pods_unless_the_policy_ends_them() -> None:
    world = World(rows=ROWS)
    policy = StatefulSetPersistentVolumeClaimRetentionPolicy(when_scaled="Delete", when_deleted="Retain")
    async with world.running():
        await world.resources.create(statefulset(2, volume_claim_templates=(CLAIM,)))
        await live(world)
        claims = {each.metadata.name: each for each in world.resources.all(PersistentVolumeClaim)}
        assert sorted(claims) == ["data-db-0", "data-db-1"]
        assert claims["data-db-0"].metadata.labels == {"kept": "yes", **LABELS}
        assert claims["data-db-0"].metadata.owner_references == ()
        (volume,) = pods(world)[1].spec.volumes
        assert volume.name == "data"
        assert volume.persistent_volume_claim is not None
        assert volume.persistent_volume_claim.claim_name == "data-db-1"
        await change(world, replicas=1, persistent_volume_claim_retention_policy=policy)
        doomed = pods(world)[1]
        await world.settle()
        claims = {each.metadata.name: each for each in world.resources.all(PersistentVolumeClaim)}
        assert [each.uid for each in claims["data-db-1"].metadata.owner_references] == [doomed.metadata.uid]
        assert claims["data-db-0"].metadata.owner_references == ()
