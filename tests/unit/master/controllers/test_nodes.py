"""Nodes: health, taints, evictions, ranges, and pods whose node is gone."""

from ipaddress import IPv4Network
from typing import Any

import pytest
from msgspec.structs import replace

from api.errors import Forbidden
from api.kinds.core import Event, Node
from api.kinds.pods import Pod, Toleration
from api.meta import ObjectMeta, Resource
from master.controllers.context import ControllerConfig
from master.controllers.manager import Row
from master.controllers.nodeipam import NodeIpamController, pick_range
from master.controllers.nodelifecycle import NodeLifecycleController
from master.controllers.podgc import PodGcController
from master.controllers.podstate import is_ready
from master.controllers.replicaset import replicaset_controller
from master.disruptions import TARGET
from master.scheduler.loop import Scheduler
from tests.fakes.world import World, ready_node, template
from tests.unit.master.controllers.test_workloads import replicaset

LIFECYCLE = (
    Row("nodelifecycle", NodeLifecycleController),
    Row("replicaset", replicaset_controller),
    Row("scheduler", Scheduler),
)


def ready(world: World, name: str) -> str:
    node = world.resources.find(Node, name)
    assert node is not None
    return next(each.status for each in node.status.conditions if each.type == "Ready")


def taints(world: World, name: str) -> set[tuple[str, str]]:
    node = world.resources.find(Node, name)
    assert node is not None
    return {(each.key.removeprefix("node.kubernetes.io/"), each.effect) for each in node.spec.taints}


async def beat(world: World, seconds: float, *names: str) -> None:
    """Let time pass with heartbeats of ``names`` only; their agents run pods."""
    for _ in range(int(seconds * 2)):
        await world.heartbeat(*names)
        await world.pass_time(0.5)
        for name in names:
            await world.run_pods(on=name)
    await world.settle()


async def lab(world: World, *names: str) -> None:
    for name in names:
        await world.resources.create(ready_node(name, now=world.clock.time()))
    await world.resources.create(replicaset(4))


async def test_a_dead_nodes_pods_run_elsewhere_within_15_seconds() -> None:
    world = World(rows=LIFECYCLE)
    await lab(world, "n1", "n2")
    async with world.running():
        await beat(world, 2, "n1", "n2")
        assert {pod.spec.node_name for pod in world.resources.all(Pod)} == {"n1", "n2"}
        killed_at = world.clock.monotonic()
        while {(pod.spec.node_name, is_ready(pod)) for pod in world.resources.all(Pod)} != {("n2", True)}:
            await beat(world, 0.5, "n2")
            assert world.clock.monotonic() - killed_at < 15
        assert len(world.resources.all(Pod)) == 4
        assert ready(world, "n1") == "Unknown"
        assert taints(world, "n1") == {("unreachable", "NoSchedule"), ("unreachable", "NoExecute")}
        assert "NodeNotReady" in {event.reason for event in world.resources.all(Event)}
        assert taints(world, "n2") == set()


async def test_its_pods_take_no_traffic_as_soon_as_it_is_silent() -> None:
    world = World(rows=LIFECYCLE, config=ControllerConfig(pod_eviction_s=1000))
    await lab(world, "n1", "n2")
    async with world.running():
        await beat(world, 2, "n1", "n2")
        await beat(world, 5, "n2")
        states = {(pod.spec.node_name, is_ready(pod)) for pod in world.resources.all(Pod)}
        assert states == {("n1", False), ("n2", True)}


async def test_nobody_is_evicted_while_every_node_is_silent() -> None:
    world = World(rows=LIFECYCLE)
    await lab(world, "n1", "n2")
    async with world.running():
        await beat(world, 2, "n1", "n2")
        before = {pod.metadata.uid for pod in world.resources.all(Pod)}
        await beat(world, 30)
        assert {ready(world, "n1"), ready(world, "n2")} == {"Unknown"}
        assert {pod.metadata.uid for pod in world.resources.all(Pod)} == before
        assert ("unreachable", "NoExecute") not in taints(world, "n1") | taints(world, "n2")


async def test_a_node_that_comes_back_loses_its_taints() -> None:
    world = World(rows=LIFECYCLE)
    await lab(world, "n1", "n2")
    async with world.running():
        await beat(world, 2, "n1", "n2")
        await beat(world, 6, "n2")
        assert ready(world, "n1") == "Unknown"
        node = world.resources.find(Node, "n1")
        assert node is not None
        fresh = ready_node("n1", now=world.clock.time()).status
        await world.resources.update(replace(node, status=fresh), subresource="status")
        await beat(world, 1, "n1", "n2")
        assert taints(world, "n1") == set()


async def test_a_new_leader_gives_every_node_a_full_grace_period() -> None:
    world = World(rows=LIFECYCLE)
    await lab(world, "n1", "n2")
    await world.heartbeat("n1", "n2")
    world.clock.advance(3600)  # the masters were all down: the last heartbeats are old
    async with world.running():
        await beat(world, 2, "n2")
        assert ready(world, "n1") == "True"
        await beat(world, 4, "n2")
        assert ready(world, "n1") == "Unknown"


async def test_a_master_that_was_asleep_blames_nobody() -> None:
    world = World(rows=LIFECYCLE)
    await lab(world, "n1", "n2")
    async with world.running():
        await beat(world, 2, "n1", "n2")
        # SIGSTOP for a minute: our clock goes on, what the agents wrote meanwhile is read afterwards.
        world.clock.stall(60)
        await world.pass_time(0.25)
        await beat(world, 2, "n1", "n2")
        assert {ready(world, "n1"), ready(world, "n2")} == {"True"}


@pytest.mark.parametrize(
    ("tolerations", "gone"),
    [
        pytest.param((), True, id="says nothing: the lab's default"),
        pytest.param((Toleration(operator="Exists"),), False, id="tolerates everything"),
        pytest.param(
            (
                Toleration(
                    key="node.kubernetes.io/unreachable", operator="Exists", effect="NoExecute", toleration_seconds=600
                ),
            ),
            False,
            id="stays ten minutes",
        ),
        pytest.param(
            (
                Toleration(
                    key="node.kubernetes.io/unreachable", operator="Exists", effect="NoExecute", toleration_seconds=0
                ),
            ),
            True,
            id="stays not at all",
        ),
    ],
)
async def test_tolerations_decide_who_stays(
    tolerations: tuple[Toleration, ...], monkeypatch: pytest.MonkeyPatch, *, gone: bool
) -> None:
    world = World(rows=LIFECYCLE[:1])
    last = note_deletions(world, monkeypatch)
    for name in ("n1", "n2"):
        await world.resources.create(ready_node(name, now=world.clock.time()))
    spec = replace(template({}).spec, node_name="n1", tolerations=tolerations)
    await world.resources.create(Pod(metadata=ObjectMeta(name="p", namespace="default"), spec=spec))
    async with world.running():
        await beat(world, 1, "n1", "n2")
        await beat(world, 12, "n2")
        assert (world.resources.find(Pod, "p", "default") is None) is gone
    assert [why for _, why in last] == ["DeletionByTaintManager"] * gone


@pytest.mark.parametrize("drawn", ["", "2020-01-01T00:00:00Z"], ids=["by kubectl", "long ago, by a master of before"])
async def test_a_pod_stays_as_long_as_it_tolerates_from_when_it_was_seen(drawn: str) -> None:
    world = World(rows=LIFECYCLE[:1])
    await world.resources.create(ready_node("n1", now=world.clock.time()))
    stays = Toleration(key="upgrade", operator="Exists", effect="NoExecute", toleration_seconds=10)
    spec = replace(template({}).spec, node_name="n1", tolerations=(stays,))
    await world.resources.create(Pod(metadata=ObjectMeta(name="p", namespace="default"), spec=spec))
    async with world.running():
        taint = {"key": "upgrade", "effect": "NoExecute"} | ({"timeAdded": drawn} if drawn else {})
        await world.resources.patch(Node, "n1", {"spec": {"taints": [taint]}})
        await beat(world, 9, "n1")
        assert world.resources.find(Pod, "p", "default") is not None
        await beat(world, 2, "n1")
        assert world.resources.find(Pod, "p", "default") is None


async def test_a_cordoned_node_is_tainted() -> None:
    world = World(rows=LIFECYCLE)
    await lab(world, "n1")
    async with world.running():
        await beat(world, 1, "n1")
        await world.resources.patch(Node, "n1", {"spec": {"unschedulable": True}})
        await world.settle()
        assert taints(world, "n1") == {("unschedulable", "NoSchedule")}
        await world.resources.patch(Node, "n1", {"spec": {"unschedulable": None}})
        await world.settle()
        assert taints(world, "n1") == set()


@pytest.mark.parametrize(
    ("taken", "wanted"),
    [
        pytest.param([], "10.244.0.0/24", id="first"),
        pytest.param(["10.244.0.0/24", "10.244.2.0/24"], "10.244.1.0/24", id="a gap is filled"),
        pytest.param(["10.244.0.0/23"], "10.244.2.0/24", id="a wider range covers two"),
        pytest.param(["10.244.0.128/25"], "10.244.1.0/24", id="a narrower range takes all"),
        pytest.param(["10.244.0.0/22"], None, id="full"),
    ],
)
def test_picking_a_range(taken: list[str], wanted: str | None) -> None:
    assert pick_range(IPv4Network("10.244.0.0/22"), 24, taken) == wanted


async def test_nodes_get_different_ranges_and_keep_them() -> None:
    world = World(rows=(Row("nodeipam", NodeIpamController),))
    async with world.running():
        for number in range(20):
            await world.resources.create(ready_node(f"n{number}"))
        await world.settle()
        given = {node.metadata.name: node.spec.pod_cidr for node in world.resources.all(Node)}
        assert len(set(given.values())) == 20
        await world.resources.delete(Node, "n3")
        await world.resources.create(ready_node("late"))
        await world.settle()
        after = {node.metadata.name: node.spec.pod_cidr for node in world.resources.all(Node)}
        assert after.pop("late") == given.pop("n3")
        assert after == given


def note_deletions(world: World, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return a list that will have (phase, why) of every pod that says why it goes when it is deleted."""
    found: list[tuple[str, str]] = []
    delete = world.resources.delete

    async def note(model: type[Resource], name: str, **more: Any) -> Any:
        pod = world.resources.find(Pod, name, "default")
        if model is Pod and pod is not None:
            found.extend((pod.status.phase, each.reason) for each in pod.status.conditions if each.type == TARGET)
        return await delete(model, name, **more)

    monkeypatch.setattr(world.resources, "delete", note)
    return found


async def test_pods_of_a_node_that_was_deleted_go(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(rows=(Row("podgc", PodGcController),))
    await world.resources.create(ready_node("n1"))
    spec = replace(template({}).spec, node_name="n1")
    await world.resources.create(Pod(metadata=ObjectMeta(name="p", namespace="default"), spec=spec))
    last = note_deletions(world, monkeypatch)
    async with world.running():
        await world.pass_time(30)
        assert len(world.resources.all(Pod)) == 1
        await world.resources.delete(Node, "n1")
        await world.pass_time(2)
        assert len(world.resources.all(Pod)) == 1  # the node may come back at once
        await world.pass_time(5)
        assert world.resources.all(Pod) == []
    assert last == [("Failed", "DeletionByPodGC")]


@pytest.mark.parametrize("stuck", ["a", "b"])
async def test_a_pod_that_cannot_be_removed_keeps_no_other(stuck: str) -> None:
    world = World(rows=(Row("podgc", PodGcController),))
    for name in ("a", "b"):
        spec = replace(template({}).spec, node_name="gone")
        await world.resources.create(Pod(metadata=ObjectMeta(name=name, namespace="default"), spec=spec))
    world.resources.refuse(Forbidden("no"), name=stuck, verb="update/status", times=1000)
    async with world.running():
        await world.pass_time(60)
        assert [pod.metadata.name for pod in world.resources.all(Pod)] == [stuck]


async def test_the_oldest_finished_pods_beyond_the_limit_go() -> None:
    world = World(rows=(Row("podgc", PodGcController),), config=ControllerConfig(terminated_pods_kept=2))
    await world.resources.create(ready_node("n1"))
    for number in range(5):
        spec = replace(template({}).spec, node_name="n1")
        pod = await world.resources.create(Pod(metadata=ObjectMeta(name=f"p{number}", namespace="default"), spec=spec))
        world.clock.advance(1)
        await world.resources.update(replace(pod, status=replace(pod.status, phase="Succeeded")), subresource="status")
    async with world.running():
        await world.pass_time(1)
        assert [pod.metadata.name for pod in world.resources.all(Pod)] == ["p3", "p4"]
