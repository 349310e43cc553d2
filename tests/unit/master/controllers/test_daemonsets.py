"""DaemonSets, from the object to a pod on every node, through changes of template, nodes and luck."""

import json
from collections.abc import Iterable

import pytest
from msgspec.structs import replace

from api.kinds.apps import (
    ControllerRevision,
    DaemonSet,
    DaemonSetSpec,
    DaemonSetUpdateStrategy,
    RollingUpdateDaemonSet,
)
from api.kinds.core import Event, Node, Taint
from api.kinds.pods import Pod, Toleration
from api.meta import LabelSelector, ObjectMeta
from master.controllers.daemon_plan import bound_to
from master.controllers.daemonset import DaemonSetController
from master.controllers.history import REVISION_LABEL, data_of, template_of
from master.controllers.manager import Row
from master.scheduler.loop import Scheduler
from tests.fakes.world import World, ready_node, template, with_ready

ROWS = (Row("daemonset", DaemonSetController), Row("scheduler", Scheduler))
LABELS = {"app": "watch"}


def daemonset(image: str = "watch:1", strategy: DaemonSetUpdateStrategy | None = None, **spec: object) -> DaemonSet:
    return DaemonSet(
        metadata=ObjectMeta(name="watch", namespace="default"),
        spec=DaemonSetSpec(
            selector=LabelSelector(match_labels=LABELS),
            template=template(LABELS, image, **spec),
            update_strategy=strategy or rolling(),
        ),
    )


def rolling(**limits: int | str) -> DaemonSetUpdateStrategy:
    return DaemonSetUpdateStrategy(type="RollingUpdate", rolling_update=RollingUpdateDaemonSet(**limits))  # type: ignore[arg-type]


async def world_of(world: World, nodes: Iterable[str], ds: DaemonSet | None = None) -> None:
    for name in nodes:
        await world.resources.create(ready_node(name))
    await world.resources.create(ds or daemonset())
    await world.live()


def shown(world: World) -> DaemonSet:
    found = world.resources.find(DaemonSet, "watch", "default")
    assert found is not None
    return found


def pods(world: World) -> list[Pod]:
    return sorted(world.resources.all(Pod), key=lambda pod: pod.spec.node_name)


async def change_image(world: World, image: str) -> None:
    ds = shown(world)
    await world.resources.update(replace(ds, spec=replace(ds.spec, template=template(LABELS, image))))


async def change_node(world: World, name: str, **spec: object) -> None:
    node = world.resources.find(Node, name)
    assert node is not None
    await world.resources.update(replace(node, spec=replace(node.spec, **spec)))


async def test_every_node_gets_one_pod_and_the_status_counts_them() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world_of(world, ("n1", "n2"))
        await world.resources.create(ready_node("n3"))
        await world.live()
        assert [pod.spec.node_name for pod in pods(world)] == ["n1", "n2", "n3"]
        status = shown(world).status
        assert (status.desired_number_scheduled, status.current_number_scheduled, status.number_available) == (3, 3, 3)
        assert (status.number_misscheduled, status.number_unavailable, status.updated_number_scheduled) == (0, None, 3)


async def test_a_node_selector_says_where_and_a_node_that_stops_fitting_loses_its_pod() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(ready_node("n1", colour="blue"))
        await world_of(world, ("n2",), daemonset(node_selector={"colour": "blue"}))
        assert [pod.spec.node_name for pod in pods(world)] == ["n1"]
        node = world.resources.find(Node, "n1")
        assert node is not None
        labels = {**node.metadata.labels, "colour": "green"}
        await world.resources.update(replace(node, metadata=replace(node.metadata, labels=labels)))
        await world.live()
        assert pods(world) == []
        assert shown(world).status.desired_number_scheduled == 0


@pytest.mark.parametrize(
    ("spec", "kept", "wanted"),
    [
        ({"unschedulable": True}, True, 1),  # daemons run on cordoned nodes
        ({"taints": (Taint(key="node.kubernetes.io/unreachable", effect="NoExecute"),)}, True, 1),
        ({"taints": (Taint(key="own", effect="NoSchedule"),)}, True, 0),  # not wanted, but what is there may stay
        ({"taints": (Taint(key="own", effect="NoExecute"),)}, False, 0),
    ],
)
async def test_what_befalls_a_node(spec: dict[str, object], kept: bool, wanted: int) -> None:  # noqa: FBT001 - a row's value
    world = World(rows=ROWS)
    async with world.running():
        await world_of(world, ("n1",))
        before = [pod.metadata.uid for pod in pods(world)]
        await change_node(world, "n1", **spec)
        await world.live()
        assert [pod.metadata.uid for pod in pods(world)] == (before if kept else [])
        status = shown(world).status
        assert (status.desired_number_scheduled, status.number_misscheduled) == (wanted, int(kept and not wanted))


async def test_own_tolerations_and_affinities_are_kept() -> None:
    own = Toleration(key="own", operator="Exists")
    world = World(rows=ROWS)
    async with world.running():
        await world_of(world, ("n1",), daemonset(tolerations=(own,)))
        await change_node(world, "n1", taints=(Taint(key="own", effect="NoExecute"),))
        await world.live()
        (pod,) = pods(world)
        assert pod.spec.tolerations[0] == own
        assert shown(world).status.number_misscheduled == 0


async def test_a_failed_pod_is_replaced_and_one_that_fails_again_waits() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world_of(world, ("n1",))

        async def fail() -> str:
            (pod,) = pods(world)
            await world.resources.update(replace(pod, status=replace(pod.status, phase="Failed")), subresource="status")
            await world.settle()
            return pod.metadata.uid

        first = await fail()
        await world.live(0.5)
        second = await fail()
        assert second != first
        await world.settle()
        assert [pod.metadata.uid for pod in pods(world)] == [second]  # within a second of the first
        await world.live(2.0)
        (third,) = pods(world)
        assert third.metadata.uid not in (first, second)
        assert third.status.phase == "Running"
        assert any(each.reason == "FailedDaemonPod" for each in world.resources.all(Event))


async def test_an_update_goes_node_by_node_and_back_again_without_needless_restarts() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world_of(world, ("n1", "n2", "n3"))
        await change_image(world, "watch:2")
        await world.settle()
        going = [pod for pod in pods(world) if pod.metadata.deletion_timestamp]
        assert len(going) == 1  # maxUnavailable
        # The other two are still the old ones: coming back must not restart them.
        spared = {pod.metadata.uid for pod in pods(world)} - {going[0].metadata.uid}
        await change_image(world, "watch:1")
        await world.live()
        assert spared < {pod.metadata.uid for pod in pods(world)}
        assert [each.revision for each in _revisions(world)] == [2, 3]
        assert shown(world).status.updated_number_scheduled == 3
        await change_image(world, "watch:2")
        await world.live(4.0)
        assert {pod.spec.containers[0].image for pod in pods(world)} == {"watch:2"}
        assert {pod.metadata.labels[REVISION_LABEL] for pod in pods(world)} == {
            _revisions(world)[-1].metadata.labels[REVISION_LABEL]
        }


def _revisions(world: World) -> list[ControllerRevision]:
    return sorted(world.resources.all(ControllerRevision), key=lambda each: each.revision or 0)


async def test_an_update_stops_at_a_new_pod_that_does_not_become_ready() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world_of(world, ("n1", "n2"))
        await change_image(world, "watch:2")
        for _ in range(20):
            await world.settle()
            await world.run_pods(ready=False)
            world.clock.advance(0.1)
        assert sorted(pod.spec.containers[0].image for pod in pods(world)) == ["watch:1", "watch:2"]
        waiting = next(pod for pod in pods(world) if pod.spec.containers[0].image == "watch:2")
        await world.resources.update(with_ready(waiting, "True", world.clock.time()), subresource="status")
        await world.live()
        assert {pod.spec.containers[0].image for pod in pods(world)} == {"watch:2"}


async def test_on_delete_waits_for_the_user() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world_of(world, ("n1",), daemonset(strategy=DaemonSetUpdateStrategy(type="OnDelete")))
        await change_image(world, "watch:2")
        await world.live()
        (old,) = pods(world)
        assert old.spec.containers[0].image == "watch:1"
        assert shown(world).status.updated_number_scheduled is None
        await world.resources.delete(Pod, old.metadata.name, namespace="default", grace_period_s=0)
        await world.live()
        assert [pod.spec.containers[0].image for pod in pods(world)] == ["watch:2"]


async def test_surging_makes_the_new_pod_before_the_old_one_goes() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world_of(world, ("n1", "n2"), daemonset(strategy=rolling(max_surge=1, max_unavailable=0)))
        await change_image(world, "watch:2")
        for _ in range(40):
            await world.settle()
            await world.run_pods()
            world.clock.advance(0.1)
            staying = [pod for pod in pods(world) if not pod.metadata.deletion_timestamp]
            served = {pod.spec.node_name for pod in staying if pod.status.phase == "Running"}
            assert served == {"n1", "n2"}
            assert len(staying) <= 3
        assert [pod.spec.containers[0].image for pod in pods(world)] == ["watch:2", "watch:2"]


async def test_old_revisions_are_forgotten_and_pods_without_a_node_too() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world_of(world, ("n1",))
        ds = shown(world)
        await world.resources.update(replace(ds, spec=replace(ds.spec, revision_history_limit=1)))
        for number in range(2, 6):
            await change_image(world, f"watch:{number}")
            await world.live()
        assert [each.revision for each in _revisions(world)] == [4, 5]
        # A pod for a node that left before the scheduler saw it.
        lost = replace(pods(world)[0], metadata=ObjectMeta(name="lost", namespace="default", labels=LABELS))
        await world.resources.create(
            replace(lost, spec=replace(lost.spec, node_name="", affinity=bound_to(None, "n9")))
        )
        await world.live()
        assert [pod.metadata.name for pod in pods(world) if pod.metadata.name == "lost"] == []


def test_a_revision_is_written_as_go_writes_a_template() -> None:
    spec = {"containers": [{"image": "watch:1", "name": "main", "resources": {}}]}
    wanted = {"$patch": "replace", "metadata": {"creationTimestamp": None, "labels": LABELS}, "spec": spec}
    data = data_of(template(LABELS, "watch:1"))
    assert json.dumps(data) == json.dumps({"spec": {"template": wanted}})  # in this order, too
    assert template_of(ControllerRevision(data=data)).metadata.labels == LABELS
