"""Whom a pod of higher priority puts out, and that it gets the room which that makes."""

from collections.abc import Mapping, Sequence

import pytest
from msgspec.structs import replace

from api.kinds.core import Event
from api.kinds.pods import Affinity, Pod, PodAffinityTerm, PodAntiAffinity, PodCondition
from api.kinds.policy import PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus
from api.meta import LabelSelector, ObjectMeta
from master.controllers.context import Context
from master.controllers.manager import Row
from master.controllers.podstate import condition
from master.scheduler.demands import pod_info
from master.scheduler.loop import Scheduler
from master.scheduler.preemption import plan_preemption
from master.scheduler.profile import DEFAULT, POD_GONE
from master.scheduler.snapshot import Cluster
from tests.fakes.world import World, ready_node
from tests.unit.master.scheduler.test_placing import HOST, node, pod

ROWS = (Row("scheduler", Scheduler),)


def running(name: str, priority: int, cpu: str = "1", *, since: str = "", **more: object) -> Pod:
    made = pod(name, cpu=cpu, priority=priority, **more)  # type: ignore[arg-type]
    return replace(made, status=replace(made.status, start_time=since))


def victims(
    wanted: Pod, *, cpu: str = "2", budgets: Sequence[PodDisruptionBudget] = (), **pods: Sequence[Pod]
) -> tuple[str, list[str]] | None:
    """Return (node, names of victims); pods: node -> who runs there."""
    cluster = Cluster()
    for name, there in pods.items():
        cluster.set_node(name, node(name, cpu=cpu))
        for each in there:
            cluster.put_pod(pod_info(each), name)
    found = plan_preemption(
        pod_info(wanted), cluster.snapshot(), DEFAULT, curable=POD_GONE, budgets={"default": budgets}, start=0
    )
    return (found.node, [each.pod.metadata.name for each in found.victims]) if found is not None else None


HIGH = pod("high", cpu="2", priority=100)


@pytest.mark.parametrize(
    ("wanted", "there", "expected"),
    [
        pytest.param(HIGH, {"a": [running("x", 100, "2")]}, None, id="equals stay"),
        pytest.param(HIGH, {"a": [running("x", 1)], "b": [running("y", 200)]}, ("a", ["x"]), id="the node where it helps"),
        pytest.param(HIGH, {"a": [running("x", 5, "2")], "b": [running("y", 3, "2")]}, ("b", ["y"]), id="the least"),
        pytest.param(
            HIGH, {"a": [running("x", 3), running("z", 3)], "b": [running("y", 3, "2")]}, ("b", ["y"]), id="the fewest"
        ),
        pytest.param(
            pod("one", cpu="1", priority=9), {"a": [running("x", 5), running("y", 2)]}, ("a", ["y"]), id="others are spared"
        ),
        pytest.param(
            HIGH,
            {"a": [running("x", 3, "2", since="2026-01-01T00:00:00Z")], "b": [running("y", 3, "2", since="2026-01-02T00:00:00Z")]},
            ("b", ["y"]),
            id="who ran longest stays",
        ),
        pytest.param(pod("high", cpu="2", priority=9, node_selector={HOST: "b"}), {"a": [running("x", 1)], "b": []}, None,
                     id="not where it may not go"),
        pytest.param(pod("huge", cpu="3", priority=9), {"a": [running("x", 1)]}, None, id="not for nothing"),
    ],
)  # fmt: skip
def test_the_smallest_loss(
    wanted: Pod, there: Mapping[str, Sequence[Pod]], expected: tuple[str, list[str]] | None
) -> None:
    assert victims(wanted, **there) == expected


def test_budgets_are_kept_where_that_can_be() -> None:
    budget = PodDisruptionBudget(
        metadata=ObjectMeta(name="b", namespace="default", uid="b"),
        spec=PodDisruptionBudgetSpec(selector=LabelSelector(match_labels={"app": "db"})),
        status=PodDisruptionBudgetStatus(disruptions_allowed=0),
    )
    guarded = running("guarded", 1, "2", labels={"app": "db"})
    assert victims(HIGH, budgets=[budget], a=[guarded], b=[running("dear", 9, "2")]) == ("b", ["dear"])
    one = pod("one", cpu="1", priority=99)
    small = running("guarded", 1, labels={"app": "db"})
    assert victims(one, budgets=[budget], a=[small, running("dear", 9)]) == ("a", ["dear"])
    assert victims(HIGH, budgets=[budget], a=[guarded]) == ("a", ["guarded"]), "priority comes before budgets"


def test_who_keeps_it_away_is_put_out() -> None:
    term = PodAffinityTerm(topology_key=HOST, label_selector=LabelSelector(match_labels={"app": "web"}))
    apart = Affinity(pod_anti_affinity=PodAntiAffinity(required_during_scheduling_ignored_during_execution=(term,)))
    shy = running("shy", 1, affinity=apart)
    assert victims(pod("web", labels={"app": "web"}, priority=9), a=[shy, running("other", 1)]) == ("a", ["shy"])


def where(world: World) -> dict[str, str]:
    return {each.metadata.name: each.spec.node_name for each in world.resources.all(Pod)}


async def test_a_pod_gets_the_room_of_those_it_puts_out_and_nobody_else_does() -> None:
    world = World(rows=ROWS)
    await world.resources.create(ready_node("n1", cpu="2"))
    async with world.running():
        await world.resources.create(pod("low", cpu="2", priority=1))
        await world.settle()
        await world.resources.create(pod("high", cpu="1", priority=9))
        await world.settle()
        waiting, victim = (world.resources.find(Pod, name, "default") for name in ("high", "low"))
        assert waiting is not None
        assert waiting.status.nominated_node_name == "n1"
        assert victim is not None
        assert victim.metadata.deletion_timestamp
        told = condition(victim, "DisruptionTarget")
        assert told is not None
        assert told.reason == "PreemptionByScheduler"
        assert "Preempted" in [each.reason for each in world.resources.all(Event)]
        # What replaces the victim comes while it is still leaving, and again when the room is there.
        await world.resources.create(pod("again", cpu="2", priority=1))
        await world.resources.create(pod("small", cpu="1", priority=1))
        await world.pass_time(2)
        await world.resources.delete(Pod, "low", namespace="default", grace_period_s=0)
        await world.pass_time(12)
        assert where(world) == {"high": "n1", "again": "", "small": "n1"}


async def test_nobody_of_lower_priority_takes_room_that_is_only_half_made() -> None:
    world = World(rows=ROWS)
    await world.resources.create(ready_node("n1", cpu="2"))
    async with world.running():
        for name in ("one", "two"):
            await world.resources.create(pod(name, cpu="1", priority=1))
        await world.settle()
        await world.resources.create(pod("high", cpu="2", priority=9))
        await world.resources.create(pod("again", cpu="1", priority=1))
        await world.settle()
        await world.resources.delete(Pod, "one", namespace="default", grace_period_s=0)
        await world.pass_time(12)
        assert where(world)["again"] == ""
        await world.resources.delete(Pod, "two", namespace="default", grace_period_s=0)
        await world.pass_time(12)
        assert where(world) == {"high": "n1", "again": ""}


async def test_room_that_was_promised_to_a_pod_that_goes_is_everybodys() -> None:
    world = World(rows=ROWS)
    await world.resources.create(ready_node("n1", cpu="1"))
    async with world.running():
        await world.resources.create(pod("low", cpu="1", priority=1))
        await world.settle()
        await world.resources.create(pod("high", cpu="1", priority=9))
        await world.resources.create(pod("next", cpu="1", priority=1))
        await world.settle()
        await world.resources.delete(Pod, "high", namespace="default", grace_period_s=0)
        await world.resources.delete(Pod, "low", namespace="default", grace_period_s=0)
        await world.pass_time(12)
        assert where(world) == {"next": "n1"}


async def test_who_does_not_want_to_puts_nobody_out() -> None:
    world = World(rows=ROWS)
    await world.resources.create(ready_node("n1", cpu="1"))
    async with world.running():
        await world.resources.create(pod("low", cpu="1", priority=1))
        await world.settle()
        await world.resources.create(pod("meek", cpu="1", priority=9, preemption_policy="Never"))
        await world.pass_time(12)
        low = world.resources.find(Pod, "low", "default")
        assert low is not None
        assert not low.metadata.deletion_timestamp


async def test_what_a_victim_s_agent_told_meanwhile_stays_told() -> None:
    made: list[Scheduler] = []

    def scheduler(context: Context) -> Scheduler:
        made.append(Scheduler(context))
        return made[0]

    world = World(rows=(Row("scheduler", scheduler),))
    await world.resources.create(ready_node("n1", cpu="1"))
    async with world.running():
        await world.resources.create(pod("low", cpu="1", priority=1))
        await world.settle()
        seen = world.resources.find(Pod, "low", "default")
        assert seen is not None
        told = replace(seen.status, conditions=(*seen.status.conditions, PodCondition(type="Ready", status="False")))
        await world.resources.update(replace(seen, status=told), subresource="status")
        await made[0]._preemptor._put_out(seen, pod_info(HIGH), "n1")
        low = world.resources.find(Pod, "low", "default")
        assert low is not None
        assert low.metadata.deletion_timestamp
        assert {"Ready", "DisruptionTarget"} <= {each.type for each in low.status.conditions}
