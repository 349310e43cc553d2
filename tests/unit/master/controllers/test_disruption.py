"""Disruption budgets: the figures of their status, and what evictions take from them."""

import pytest
from msgspec.structs import replace

from api.errors import Forbidden, TooManyRequests
from api.kinds.apps import Deployment, ReplicaSet, ReplicaSetSpec
from api.kinds.core import Event
from api.kinds.pods import Pod
from api.kinds.policy import PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus
from api.meta import LabelSelector, ObjectMeta, OwnerReference
from client.clock import timestamp
from master import budgets
from master.controllers.deployment import DeploymentController
from master.controllers.disruption import DisruptionController
from master.controllers.disruption_plan import DELETION_S, Scale, Uncountable, plan_counts, plan_status
from master.controllers.manager import Row
from master.controllers.podstate import is_ready
from master.controllers.replicaset import replicaset_controller
from tests.fakes.world import World, template, with_ready

WEB = LabelSelector(match_labels={"app": "web"})
NOW = 1000.0
ROWS = (
    Row("disruption", DisruptionController),
    Row("deployment", DeploymentController),
    Row("replicaset", replicaset_controller),
)


def budget(status: PodDisruptionBudgetStatus | None = None, **spec: object) -> PodDisruptionBudget:
    meta = ObjectMeta(name="web", namespace="default", generation=3)
    wanted = PodDisruptionBudgetSpec(**{"selector": WEB, **spec})  # type: ignore[arg-type]
    return PodDisruptionBudget(metadata=meta, spec=wanted, status=status or PodDisruptionBudgetStatus())


def pod(name: str, *, owner: str = "rs", ready: bool = True, leaving: bool = False) -> Pod:
    references = (OwnerReference(api_version="apps/v1", kind="ReplicaSet", name=owner, uid=owner, controller=True),)
    meta = ObjectMeta(
        name=name, namespace="default", labels={"app": "web"}, owner_references=references if owner else ()
    )
    if leaving:
        meta = replace(meta, deletion_timestamp=timestamp(NOW))
    return with_ready(Pod(metadata=meta), "True" if ready else "False", NOW)


def pods(count: int, **how: object) -> list[Pod]:
    return [pod(f"p{number}", **how) for number in range(count)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "wanted", "counts"),
    [
        pytest.param({"min_available": 2}, 9, (3, 2), id="a number counts the pods that are there"),
        pytest.param({"min_available": "50%"}, 9, (9, 5), id="a share is of what is wanted, rounded up"),
        pytest.param({"max_unavailable": 1}, 9, (9, 8), id="a gap is in what is wanted"),
        pytest.param({"max_unavailable": "30%"}, 9, (9, 6), id="a share of a gap is rounded up"),
        pytest.param({"max_unavailable": 20}, 9, (9, 0), id="never less than none"),
        pytest.param({}, 9, (0, 0), id="nothing said"),
    ],
)
def test_counts(spec: dict[str, object], wanted: int, counts: tuple[int, int]) -> None:
    assert plan_counts(budget(**spec), pods(3), {"rs": Scale("rs", wanted)}) == counts


def test_two_sets_of_one_owner_count_once() -> None:
    mixed = [pod("a", owner="old"), pod("b", owner="new")]
    scales = {"old": Scale("deployment", 4), "new": Scale("deployment", 4)}
    assert plan_counts(budget(max_unavailable=1), mixed, scales) == (4, 3)


def test_pods_without_a_controller_are_left_out_and_unknown_controllers_stop_the_count() -> None:
    alone = [*pods(2), pod("alone", owner="")]
    assert plan_counts(budget(max_unavailable=1), alone, {"rs": Scale("rs", 2)}) == (2, 1)
    with pytest.raises(Uncountable, match='found no controllers for pod "p0"'):
        plan_counts(budget(max_unavailable=1), pods(1), {})


def allowed(
    counted: list[Pod], status: PodDisruptionBudgetStatus | None = None, *, now: float = NOW
) -> tuple[int, int]:
    """Return (healthy, disruptions allowed) of a budget that wants two."""
    found = plan_status(budget(status, min_available=2), counted, {}, now).status
    assert (found.desired_healthy, found.observed_generation) == (2, 3)
    return found.current_healthy or 0, found.disruptions_allowed or 0


def test_only_pods_that_stay_and_are_ready_are_healthy() -> None:
    assert allowed(pods(3)) == (3, 1)
    assert allowed([*pods(3), pod("x", ready=False)]) == (3, 1)
    assert allowed([*pods(3), pod("x", leaving=True)]) == (3, 1)
    assert allowed(pods(1)) == (1, 0)
    assert allowed([]) == (0, 0)


def test_pods_that_nobody_wants_allow_nothing() -> None:
    alone = [pod(name, owner="") for name in "abc"]
    found = plan_status(budget(max_unavailable=1), alone, {}, NOW).status
    assert (found.expected_pods, found.current_healthy, found.disruptions_allowed) == (0, 3, 0)


def test_an_evicted_pod_counts_as_gone_until_its_deletion_is_overdue() -> None:
    status = PodDisruptionBudgetStatus(disrupted_pods={"p0": timestamp(NOW), "elsewhere": timestamp(NOW)})
    plan = plan_status(budget(status, min_available=2), pods(3), {}, NOW + 1)
    assert (plan.status.current_healthy, plan.status.disruptions_allowed) == (2, 0)
    assert plan.status.disrupted_pods == {"p0": timestamp(NOW)}
    assert plan.again_s == DELETION_S - 1
    late = plan_status(budget(status, min_available=2), pods(3), {}, NOW + DELETION_S)
    assert (late.status.current_healthy, late.status.disrupted_pods, late.again_s) == (3, {}, None)
    assert [each.metadata.name for each in late.not_deleted] == ["p0"]


def test_the_condition_keeps_its_time_while_it_says_the_same() -> None:
    first = plan_status(budget(min_available=2), pods(3), {}, NOW).status
    (condition,) = first.conditions
    assert (condition.type, condition.status, condition.reason) == ("DisruptionAllowed", "True", "SufficientPods")
    (same,) = plan_status(budget(first, min_available=2), pods(4), {}, NOW + 5).status.conditions
    assert same.last_transition_time == timestamp(NOW)
    (other,) = plan_status(budget(first, min_available=2), pods(2), {}, NOW + 5).status.conditions
    assert (other.status, other.reason, other.last_transition_time) == ("False", "InsufficientPods", timestamp(NOW + 5))


def spent(**status: object) -> PodDisruptionBudgetStatus:
    known = PodDisruptionBudgetStatus(**{"observed_generation": 3, **status})  # type: ignore[arg-type]
    return budgets.spend(budget(known, min_available=2), "p0", timestamp(NOW)).status


def test_an_eviction_spends_and_the_last_one_says_so() -> None:
    after = spent(disruptions_allowed=2)
    assert (after.disruptions_allowed, after.disrupted_pods) == (1, {"p0": timestamp(NOW)})
    last = spent(disruptions_allowed=1)
    assert [(each.status, each.reason) for each in last.conditions] == [("False", "InsufficientPods")]


def test_evictions_that_are_refused() -> None:
    with pytest.raises(TooManyRequests) as none_left:
        spent(desired_healthy=2, current_healthy=1)
    assert none_left.value.retry_after_s == 0
    assert none_left.value.causes[0].message == "The disruption budget web needs 2 healthy pods and has 1 currently"
    assert none_left.value.causes[0].reason == "DisruptionBudget"
    with pytest.raises(TooManyRequests) as unread:
        spent(observed_generation=2, disruptions_allowed=1)
    assert unread.value.retry_after_s == 10
    assert "still being processed" in unread.value.causes[0].message
    with pytest.raises(Forbidden, match="negative"):
        spent(disruptions_allowed=-1)
    with pytest.raises(Forbidden, match="too big"):
        spent(disruptions_allowed=1, disrupted_pods={str(number): "" for number in range(2001)})


@pytest.mark.parametrize(
    ("policy", "ready", "present", "spared"),
    [
        ("", True, 2, False),
        ("", False, 2, True),
        ("", False, 1, False),
        ("IfHealthyBudget", False, 1, False),
        ("AlwaysAllow", False, 1, True),
        ("AlwaysAllow", True, 2, False),
    ],
)
def test_pods_that_are_not_healthy(*, policy: str, ready: bool, present: int, spared: bool) -> None:
    status = PodDisruptionBudgetStatus(desired_healthy=2, current_healthy=present)
    of = budget(status, min_available=2, unhealthy_pod_eviction_policy=policy)
    assert budgets.is_spared(of, pod("p", ready=ready)) is spared


def shown(world: World) -> tuple[int | None, ...]:
    found = world.resources.find(PodDisruptionBudget, "web", "default")
    assert found is not None
    status = found.status
    return status.expected_pods, status.desired_healthy, status.current_healthy, status.disruptions_allowed


async def test_a_budget_follows_its_deployment() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(budget(max_unavailable=1))
        await world.settle()
        assert shown(world) == (0, 0, 0, 0)
        meta = ObjectMeta(name="web", namespace="default")
        spec = replace(Deployment().spec, replicas=3, selector=WEB, template=template({"app": "web"}))
        await world.resources.create(Deployment(metadata=meta, spec=spec))
        await world.settle()
        assert shown(world) == (3, 2, 0, 0)
        for each in world.resources.all(Pod):
            await world.resources.update(with_ready(each, "True", world.clock.time()), subresource="status")
        await world.settle()
        assert shown(world) == (3, 2, 3, 1)
        # While two ReplicaSets share the pods, the Deployment says how many there should be.
        deployment = world.resources.find(Deployment, "web", "default")
        assert deployment is not None
        newer = replace(deployment.spec, template=template({"app": "web"}, "web:2"))
        await world.resources.update(replace(deployment, spec=newer))
        await world.settle()
        assert len({each.metadata.owner_references[0].uid for each in world.resources.all(Pod)}) == 2
        assert shown(world) == (3, 2, 3, 1)
        victim = next(each for each in world.resources.all(Pod) if is_ready(each))
        await world.resources.update(with_ready(victim, "False", world.clock.time()), subresource="status")
        await world.settle()
        assert shown(world) == (3, 2, 2, 0)


async def test_a_budget_whose_pods_nobody_knows_allows_nothing_and_says_why() -> None:
    world = World(rows=ROWS[:1])
    async with world.running():
        for each in pods(2):
            await world.resources.create(each)
        await world.resources.create(budget(max_unavailable=1))
        await world.settle()
        found = world.resources.find(PodDisruptionBudget, "web", "default")
        assert found is not None
        assert [each.reason for each in found.status.conditions] == ["SyncFailed"]
        await world.pass_time(1)
        reasons = {event.reason for event in world.resources.all(Event)}
        assert "CalculateExpectedPodCountFailed" in reasons
        # Once the controller is there, the next try finds it.
        meta = ObjectMeta(name="rs", namespace="default")
        made = await world.resources.create(ReplicaSet(metadata=meta, spec=ReplicaSetSpec(replicas=2, selector=WEB)))
        for each in world.resources.all(Pod):
            reference = replace(each.metadata.owner_references[0], uid=made.metadata.uid)
            owned = replace(each.metadata, owner_references=(reference,))
            await world.resources.update(with_ready(replace(each, metadata=owned), "True", 0))
            await world.resources.update(
                with_ready(world.resources.find(Pod, each.metadata.name, "default"), "True", 0), subresource="status"
            )
        await world.pass_time(2)
        assert shown(world) == (2, 1, 2, 1)
