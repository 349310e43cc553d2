"""ReplicaSets, ReplicationControllers and Deployments, from the object to the pods and back to the status."""

from msgspec.structs import replace

from api.errors import Forbidden
from api.kinds.apps import (
    Deployment,
    DeploymentSpec,
    DeploymentStrategy,
    ReplicaSet,
    ReplicaSetSpec,
    RollingUpdateDeployment,
)
from api.kinds.core import Event, ReplicationController, ReplicationControllerSpec
from api.kinds.pods import Pod
from api.meta import LabelSelector, ObjectMeta
from master.controllers.deployment import DeploymentController
from master.controllers.manager import Row
from master.controllers.replicaset import replicaset_controller, replication_controller
from master.controllers.revisions import HISTORY, REVISION
from tests.fakes.world import World, template, with_ready

ROWS = (
    Row("replicaset", replicaset_controller),
    Row("replication", replication_controller),
    Row("deployment", DeploymentController),
)
LABELS = {"app": "web"}


def replicaset(replicas: int, **spec: object) -> ReplicaSet:
    return ReplicaSet(
        metadata=ObjectMeta(name="web", namespace="default"),
        spec=ReplicaSetSpec(
            replicas=replicas,
            selector=LabelSelector(match_labels=LABELS),
            template=template(LABELS),
            **spec,  # type: ignore[arg-type]
        ),
    )


def deployment(replicas: int = 3, image: str = "web:1", **spec: object) -> Deployment:
    return Deployment(
        metadata=ObjectMeta(name="web", namespace="default"),
        spec=DeploymentSpec(
            replicas=replicas,
            selector=LabelSelector(match_labels=LABELS),
            template=template(LABELS, image),
            **spec,  # type: ignore[arg-type]
        ),
    )


async def place(world: World) -> None:
    """Put every waiting pod on a node: no scheduler runs in these tests."""
    for pod in world.resources.all(Pod):
        if not pod.spec.node_name and not pod.metadata.deletion_timestamp:
            await world.resources.bind(namespace="default", pod=pod.metadata.name, uid=pod.metadata.uid, node="n1")


async def live(world: World, rounds: int = 12) -> None:
    for _ in range(rounds):
        await world.settle()
        await place(world)
        await world.run_pods()
        world.clock.advance(0.1)
    await world.settle()


def reasons(world: World) -> list[str]:
    return [event.reason for event in world.resources.all(Event)]


async def set_deployment(world: World, **spec: object) -> None:
    present = world.resources.find(Deployment, "web", "default")
    assert present is not None
    await world.resources.update(replace(present, spec=replace(present.spec, **spec)))


def shown(world: World) -> Deployment:
    found = world.resources.find(Deployment, "web", "default")
    assert found is not None
    return found


def condition(world: World, type_: str) -> tuple[str, str]:
    found = next(each for each in shown(world).status.conditions if each.type == type_)
    return found.status, found.reason


async def test_a_replicaset_makes_its_pods_and_counts_them() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(replicaset(5))
        await live(world)
        pods = world.resources.all(Pod)
        assert len(pods) == 5
        assert all(pod.metadata.name.startswith("web-") for pod in pods)
        assert all(pod.metadata.owner_references[0].controller for pod in pods)
        status = world.resources.all(ReplicaSet)[0].status
        assert (status.replicas, status.ready_replicas, status.available_replicas) == (5, 5, 5)
        assert reasons(world).count("SuccessfulCreate") == 5


async def test_caches_hold_no_bookkeeping_and_writes_leave_it() -> None:
    from api.meta import ManagedFieldsEntry
    from master.controllers.manager import without_managers

    found = ReplicaSet(metadata=ObjectMeta(name="a", managed_fields=(ManagedFieldsEntry(manager="m"),)))
    assert without_managers(found) == replace(found, metadata=ObjectMeta(name="a"))
    assert without_managers(ReplicaSet()) == ReplicaSet()


async def test_deleted_and_failed_pods_are_replaced() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(replicaset(3))
        await live(world)
        first, second, _ = world.resources.all(Pod)
        await world.resources.delete(Pod, first.metadata.name, namespace="default", grace_period_s=0)
        failed = replace(second, status=replace(second.status, phase="Failed"))
        await world.resources.update(failed, subresource="status")
        await live(world)
        active = [pod for pod in world.resources.all(Pod) if pod.status.phase == "Running"]
        assert len(active) == 3
        assert first.metadata.uid not in {pod.metadata.uid for pod in active}


async def test_scaling_down_takes_the_unready_first() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(replicaset(3))
        await live(world)
        unready = world.resources.all(Pod)[1]
        await world.resources.update(with_ready(unready, "False", world.clock.time()), subresource="status")
        present = world.resources.all(ReplicaSet)[0]
        await world.resources.update(replace(present, spec=replace(present.spec, replicas=2)))
        await live(world)
        assert unready.metadata.name not in {pod.metadata.name for pod in world.resources.all(Pod)}
        assert len(world.resources.all(Pod)) == 2


async def test_a_matching_orphan_is_adopted_and_a_relabelled_pod_released() -> None:
    world = World(rows=ROWS)
    orphan = Pod(metadata=ObjectMeta(name="orphan", namespace="default", labels=LABELS), spec=template(LABELS).spec)
    async with world.running():
        await world.resources.create(orphan)
        await world.resources.create(replicaset(2))
        await live(world)
        pods = world.resources.all(Pod)
        assert len(pods) == 2
        adopted = world.resources.find(Pod, "orphan", "default")
        assert adopted is not None
        assert adopted.metadata.owner_references[0].name == "web"
        await world.resources.patch(Pod, "orphan", {"metadata": {"labels": {"app": "other"}}}, namespace="default")
        await live(world)
        released = world.resources.find(Pod, "orphan", "default")
        assert released is not None
        assert released.metadata.owner_references == ()
        assert len(world.resources.all(Pod)) == 3


async def test_a_refused_pod_is_told_and_slows_creation_down() -> None:
    world = World(rows=ROWS)
    world.resources.refuse(Forbidden("quota is used up"), verb="create", kind="Pod", times=3)
    async with world.running():
        await world.resources.create(replicaset(100))
        await world.settle()
        # A first batch is one pod, and the status that tells of its refusal brings one round more: never a hundred.
        assert sum(verb == "create" and kind == "Pod" for verb, kind, _ in world.resources.calls) <= 2
        failure = world.resources.all(ReplicaSet)[0].status.conditions[0]
        assert (failure.type, failure.reason, failure.message) == ("ReplicaFailure", "FailedCreate", "quota is used up")
        assert "FailedCreate" in reasons(world)
        await world.pass_time(5.0)
        assert len(world.resources.all(Pod)) == 100
        assert world.resources.all(ReplicaSet)[0].status.conditions == ()


async def test_a_lagging_cache_makes_no_pod_twice() -> None:
    """Goal: a round waits for the last one's writes. Method: a second change comes before the pods' events."""
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(replicaset(4))
        for _ in range(200):
            present = world.resources.find(ReplicaSet, "web", "default")
            assert present is not None
            annotated = {"metadata": {"annotations": {"poke": str(world.resources.revision)}}}
            await world.resources.patch(ReplicaSet, "web", annotated, namespace="default")
        await world.settle()
        assert sum(verb == "create" and kind == "Pod" for verb, kind, _ in world.resources.calls) == 4


async def test_min_ready_seconds_delay_availability() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(replicaset(1, min_ready_seconds=10))
        await live(world)
        status = world.resources.all(ReplicaSet)[0].status
        assert (status.ready_replicas, status.available_replicas) == (1, None)
        await world.pass_time(11)
        assert world.resources.all(ReplicaSet)[0].status.available_replicas == 1


async def test_a_replication_controller_does_the_same() -> None:
    world = World(rows=ROWS)
    meta = ObjectMeta(name="old", namespace="default")
    spec = ReplicationControllerSpec(replicas=2, selector=LABELS, template=template(LABELS))
    async with world.running():
        await world.resources.create(ReplicationController(metadata=meta, spec=spec))
        await live(world)
        assert len(world.resources.all(Pod)) == 2
        owner = world.resources.all(Pod)[0].metadata.owner_references[0]
        assert (owner.kind, owner.api_version, owner.name) == ("ReplicationController", "v1", "old")
        assert world.resources.all(ReplicationController)[0].status.available_replicas == 2


async def test_a_deployment_rolls_out_and_says_so() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(deployment())
        await live(world)
        rs = world.resources.all(ReplicaSet)[0]
        suffix = rs.metadata.name.removeprefix("web-")
        assert rs.metadata.labels["pod-template-hash"] == suffix
        assert rs.spec.selector.match_labels == {**LABELS, "pod-template-hash": suffix}
        assert rs.metadata.annotations[REVISION] == shown(world).metadata.annotations[REVISION] == "1"
        status = shown(world).status
        assert (status.replicas, status.updated_replicas, status.available_replicas) == (3, 3, 3)
        assert status.observed_generation == shown(world).metadata.generation == 1
        assert condition(world, "Available") == ("True", "MinimumReplicasAvailable")
        assert condition(world, "Progressing") == ("True", "NewReplicaSetAvailable")


async def test_a_rollback_uses_the_old_set_again_under_a_new_number() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(deployment())
        await live(world)
        first = world.resources.all(ReplicaSet)[0].metadata.name
        await set_deployment(world, template=template(LABELS, "web:2"))
        await live(world)
        assert shown(world).metadata.annotations[REVISION] == "2"
        await set_deployment(world, template=template(LABELS, "web:1"))
        await live(world)
        rs = world.resources.find(ReplicaSet, first, "default")
        assert rs is not None
        assert (rs.spec.replicas, rs.metadata.annotations[REVISION], rs.metadata.annotations[HISTORY]) == (3, "3", "1")
        assert shown(world).metadata.annotations[REVISION] == "3"
        assert len(world.resources.all(ReplicaSet)) == 2


async def test_recreate_lets_no_two_templates_run_together() -> None:
    world = World(rows=ROWS)
    together = False
    async with world.running():
        await world.resources.create(deployment(strategy=DeploymentStrategy(type="Recreate")))
        await live(world)
        await set_deployment(world, template=template(LABELS, "web:2"))
        for _ in range(20):
            await world.settle()
            images = {pod.spec.containers[0].image for pod in world.resources.all(Pod)}
            together = together or len(images) > 1
            await place(world)
            await world.run_pods()
            world.clock.advance(0.1)
        assert not together
        assert images == {"web:2"}
        assert len(world.resources.all(Pod)) == 3


async def test_a_paused_deployment_scales_but_does_not_roll() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(deployment())
        await live(world)
        await set_deployment(world, paused=True, replicas=5, template=template(LABELS, "web:2"))
        await live(world)
        pods = world.resources.all(Pod)
        assert {pod.spec.containers[0].image for pod in pods} == {"web:1"}
        assert len(pods) == 5
        assert condition(world, "Progressing") == ("Unknown", "DeploymentPaused")
        await set_deployment(world, paused=False)
        await live(world)
        assert {pod.spec.containers[0].image for pod in world.resources.all(Pod)} == {"web:2"}


async def test_a_rollout_that_stands_still_is_reported() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(deployment(progress_deadline_seconds=20))
        await world.settle()
        await world.pass_time(25)
        assert condition(world, "Progressing") == ("False", "ProgressDeadlineExceeded")
        await live(world)
        assert condition(world, "Progressing") == ("True", "NewReplicaSetAvailable")


async def test_scaling_in_mid_rollout_is_shared_in_proportion() -> None:
    world = World(rows=ROWS)
    rolling = DeploymentStrategy(
        type="RollingUpdate", rolling_update=RollingUpdateDeployment(max_surge=3, max_unavailable=2)
    )
    async with world.running():
        await world.resources.create(deployment(replicas=10, strategy=rolling))
        await live(world)
        await set_deployment(world, template=template(LABELS, "web:broken"))
        await world.settle()  # the new pods never get ready: the rollout stands at 8 old and 5 new
        counts = sorted(rs.spec.replicas or 0 for rs in world.resources.all(ReplicaSet))
        assert counts == [5, 8]
        await set_deployment(world, replicas=15)
        await world.settle()
        counts = sorted(rs.spec.replicas or 0 for rs in world.resources.all(ReplicaSet))
        assert counts == [7, 11]  # 15 + 3, shared 5 : 8


async def test_old_revisions_beyond_the_limit_are_forgotten() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(deployment(replicas=1, revision_history_limit=2))
        for number in range(1, 6):
            await set_deployment(world, template=template(LABELS, f"web:{number}"))
            await live(world, 8)
        numbers = sorted(rs.metadata.annotations[REVISION] for rs in world.resources.all(ReplicaSet))
        assert len(numbers) == 3
        assert numbers[-1] == shown(world).metadata.annotations[REVISION]


async def test_a_taken_name_makes_another_hash() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(deployment(replicas=1))
        await live(world)
        name = world.resources.all(ReplicaSet)[0].metadata.name
    other = World(rows=ROWS)
    foreign = replicaset(0)
    await other.resources.create(replace(foreign, metadata=ObjectMeta(name=name, namespace="default")))
    async with other.running():
        await other.resources.create(deployment(replicas=1))
        await live(other)
        assert shown(other).status.collision_count == 1
        names = {rs.metadata.name for rs in other.resources.all(ReplicaSet)}
        assert len(names) == 2
        assert shown(other).status.available_replicas == 1
