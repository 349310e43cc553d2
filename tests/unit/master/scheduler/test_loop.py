"""The scheduler at work: queue, wake-up, bindings that fail or nobody knows of, conditions and events."""

from msgspec.structs import replace

from api.errors import InternalError, Timeout, Unavailable
from api.kinds.core import Event, Node
from api.kinds.pods import Container, Pod, PodSchedulingGate, PodSpec, ResourceRequirements
from api.meta import ObjectMeta
from client.clock import ManualClock
from master.controllers.manager import Row
from master.controllers.podstate import condition
from master.scheduler.loop import Scheduler
from master.scheduler.profile import NODE, POD_GONE
from master.scheduler.queue import SchedulingQueue
from tests.fakes.world import World, ready_node
from tests.unit.client.test_informer import turns

ROWS = (Row("scheduler", Scheduler),)


def pod(name: str, cpu: str = "1", **spec: object) -> Pod:
    container = Container(name="main", image="web:1", resources=ResourceRequirements(requests={"cpu": cpu}))
    return Pod(
        metadata=ObjectMeta(name=name, namespace="default"),
        spec=PodSpec(containers=(container,), **spec),  # type: ignore[arg-type]
    )


def where(world: World) -> dict[str, str]:
    return {each.metadata.name: each.spec.node_name for each in world.resources.all(Pod)}


async def test_pods_are_bound_and_it_is_told() -> None:
    world = World(rows=ROWS)
    await world.resources.create(ready_node("n1"))
    async with world.running():
        await world.resources.create(pod("p"))
        await world.settle()
        assert where(world) == {"p": "n1"}
        event = world.resources.all(Event)[0]
        assert (event.reason, event.message) == ("Scheduled", "Successfully assigned default/p to n1")
        assert event.source is not None
        assert event.source.component == "default-scheduler"


async def test_a_pod_that_fits_nowhere_says_why_and_waits_for_a_node() -> None:
    world = World(rows=ROWS)
    await world.resources.create(ready_node("n1", cpu="1"))
    async with world.running():
        await world.resources.create(pod("p", cpu="2"))
        await world.settle()
        waiting = world.resources.find(Pod, "p", "default")
        assert waiting is not None
        told = condition(waiting, "PodScheduled")
        assert told is not None
        assert (told.status, told.reason, told.message) == (
            "False", "Unschedulable", "0/1 nodes are available: 1 Insufficient cpu.",
        )  # fmt: skip
        assert world.resources.all(Event)[0].reason == "FailedScheduling"
        quiet = world.resources.revision
        await world.pass_time(60)
        assert world.resources.revision == quiet  # it waits for a change, it does not poll
        await world.resources.create(ready_node("n2", cpu="4"))
        await world.settle()
        assert where(world) == {"p": "n2"}


async def test_a_heartbeat_wakes_nobody() -> None:
    world = World(rows=ROWS)
    node = await world.resources.create(ready_node("n1", cpu="1"))
    async with world.running():
        await world.resources.create(pod("p", cpu="2"))
        await world.pass_time(20)
        tries = world.resources.all(Event)[0].count
        for _ in range(5):
            status = ready_node("n1", cpu="1", now=world.clock.time()).status
            node = await world.resources.update(replace(node, status=status), subresource="status")
            await world.pass_time(1)
        assert world.resources.all(Event)[0].count == tries


async def test_room_that_a_deleted_pod_leaves_is_used() -> None:
    world = World(rows=ROWS)
    await world.resources.create(ready_node("n1", cpu="1"))
    async with world.running():
        await world.resources.create(pod("first"))
        await world.settle()
        await world.resources.create(pod("second"))
        await world.settle()
        assert where(world) == {"first": "n1", "second": ""}
        await world.pass_time(1)
        await world.resources.delete(Pod, "first", namespace="default", grace_period_s=0)
        await world.settle()
        assert where(world) == {"second": "n1"}


async def test_two_pods_never_get_the_same_room_though_no_binding_came_back() -> None:
    world = World(rows=ROWS)
    await world.resources.create(ready_node("n1", cpu="4"))
    async with world.running():
        world.resources.break_watches()
        await world.settle()
        for number in range(8):
            await world.resources.create(pod(f"p{number}"))
        await world.pass_time(3)
        assert sum(node == "n1" for node in where(world).values()) == 4


async def test_a_binding_that_fails_gives_the_room_back_and_is_tried_again() -> None:
    world = World(rows=ROWS)
    world.resources.refuse(InternalError("disk"), verb="bind")
    await world.resources.create(ready_node("n1", cpu="1"))
    async with world.running():
        await world.resources.create(pod("p"))
        await world.settle()
        assert where(world) == {"p": ""}
        await world.pass_time(1)
        assert where(world) == {"p": "n1"}


async def test_a_binding_with_unknown_outcome_keeps_the_room_until_it_is_known() -> None:
    world = World(rows=ROWS)
    await world.resources.create(ready_node("n1", cpu="1"))
    inner = world.resources.bind

    async def bind_and_lose(*, namespace: str, pod: str, uid: str, node: str) -> None:
        # The binding's event will be late, too.
        world.resources.refuse(Unavailable("no"), verb="watch", kind="Pod", times=8)
        world.resources.break_watches()
        await turns()
        await inner(namespace=namespace, pod=pod, uid=uid, node=node)
        raise Timeout("no answer came")

    world.resources.bind = bind_and_lose  # type: ignore[method-assign]
    async with world.running():
        await world.resources.create(pod("p"))
        await world.resources.create(pod("q"))
        await world.pass_time(2)
        assert sorted(where(world).values()) == ["", "n1"]


async def test_the_higher_priority_goes_first() -> None:
    world = World(rows=ROWS)
    for name, priority in (("low", 1), ("high", 1000), ("none", None)):
        await world.resources.create(pod(name, priority=priority))
    await world.resources.create(ready_node("n1", cpu="1"))
    async with world.running():
        assert where(world) == {"low": "", "high": "n1", "none": ""}


async def test_gated_foreign_and_deleted_pods_are_left_alone() -> None:
    world = World(rows=ROWS)
    await world.resources.create(ready_node("n1"))
    async with world.running():
        await world.resources.create(pod("gated", scheduling_gates=(PodSchedulingGate(name="wait"),)))
        await world.resources.create(pod("foreign", scheduler_name="mine"))
        await world.settle()
        assert where(world) == {"gated": "", "foreign": ""}
        await world.resources.patch(Pod, "gated", {"spec": {"schedulingGates": None}}, namespace="default")
        await world.settle()
        assert where(world)["gated"] == "n1"


async def test_finished_pods_take_no_room() -> None:
    world = World(rows=ROWS)
    await world.resources.create(ready_node("n1", cpu="1"))
    async with world.running():
        await world.resources.create(pod("job"))
        await world.settle()
        done = world.resources.find(Pod, "job", "default")
        assert done is not None
        await world.resources.update(
            replace(done, status=replace(done.status, phase="Succeeded")), subresource="status"
        )
        await world.resources.create(pod("next"))
        await world.settle()
        assert where(world)["next"] == "n1"


async def test_a_node_that_goes_and_comes_keeps_its_pods_room() -> None:
    world = World(rows=ROWS)
    await world.resources.create(ready_node("n1", cpu="1"))
    async with world.running():
        await world.resources.create(pod("p"))
        await world.settle()
        await world.resources.delete(Node, "n1")
        await world.settle()
        await world.resources.create(ready_node("n1", cpu="1"))
        await world.resources.create(pod("q"))
        await world.pass_time(1)
        assert where(world) == {"p": "n1", "q": ""}


async def test_a_parked_pod_wakes_by_the_right_change_after_its_back_off() -> None:
    clock = ManualClock()
    queue = SchedulingQueue(clock)
    queue.add("p", 0)
    assert await queue.pop() == "p"
    queue.park("p", frozenset([NODE]))
    clock.advance(5)
    queue.changed(POD_GONE)
    assert not queue._heap
    queue.changed(NODE)
    assert await queue.pop() == "p"
    for _ in range(10):  # the back-off grows: a change within it does not help at once
        queue.park("p", frozenset([NODE]))
        queue.changed(NODE)
        assert not queue._heap
        clock.advance(10)
        assert await queue.pop() == "p"
    queue.park("p", frozenset([NODE]))
    clock.advance(301)
    assert await queue.pop() == "p"
