"""What a disruption budget's status should say, from its pods and from how many their controllers want.

A budget in numbers of ``minAvailable`` needs nobody else. All others are shares of, or gaps in, what the pods' owners
want to have, which is more than what is there while some are missing.

Source: kubernetes.io, "Specifying a Disruption Budget", "Arbitrary workloads and arbitrary selectors".
"""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from api.kinds.pods import Pod
from api.kinds.policy import PodDisruptionBudget, PodDisruptionBudgetStatus
from client.clock import seconds_of, timestamp
from master.budgets import with_condition
from master.controllers.ownership import controller_of
from master.controllers.podstate import is_ready

# An evicted pod that is still not being deleted after this long was not evicted.
DELETION_S = 120.0


class Scale(msgspec.Struct, frozen=True):
    """How many pods somebody wants. uid: whose wish it is: a Deployment's counts once for all its ReplicaSets."""

    uid: str
    replicas: int


class Uncountable(Exception):
    """Nobody can say how many pods there should be."""


class Plan(msgspec.Struct, frozen=True):
    """A budget's status.

    again_s: when to look again though nothing happens. not_deleted: pods whose eviction came to nothing.
    """

    status: PodDisruptionBudgetStatus
    again_s: float | None = None
    not_deleted: Sequence[Pod] = ()


def counts_scales(budget: PodDisruptionBudget) -> bool:
    """Return whether the budget depends on how many pods their owners want."""
    spec = budget.spec
    return spec.max_unavailable is not None or isinstance(spec.min_available, str)


def unmanaged(pods: Sequence[Pod]) -> list[Pod]:
    """Return the pods that have no controller to ask."""
    return [pod for pod in pods if controller_of(pod) is None]


def plan_counts(budget: PodDisruptionBudget, pods: Sequence[Pod], scales: Mapping[str, Scale]) -> tuple[int, int]:
    """Return (expected pods, how many of them must stay healthy).

    scales: UID of a pod's controller -> what is wanted there. Raises Uncountable for a pod whose controller is unknown.
    """
    spec = budget.spec
    if not counts_scales(budget):
        least = spec.min_available
        return (len(pods), least) if isinstance(least, int) else (0, 0)
    wanted: dict[str, int] = {}
    for pod in pods:
        if (reference := controller_of(pod)) is None:
            continue
        scale = scales.get(reference.uid)
        if scale is None:
            raise Uncountable(f'found no controllers for pod "{pod.metadata.name}"')
        wanted[scale.uid] = scale.replicas
    expected = sum(wanted.values())
    if spec.max_unavailable is not None:
        return expected, max(0, expected - _share(spec.max_unavailable, expected))
    assert spec.min_available is not None, budget
    return expected, _share(spec.min_available, expected)


def _share(value: int | str, of: int) -> int:
    """Return a number, or a percentage of ``of`` rounded up."""
    if isinstance(value, int):
        return value
    return -(-of * int(value.removesuffix("%")) // 100)


def plan_status(budget: PodDisruptionBudget, pods: Sequence[Pod], scales: Mapping[str, Scale], now: float) -> Plan:
    """Return what the budget should say at ``now``; raises Uncountable."""
    expected, desired = plan_counts(budget, pods, scales)
    disrupted, not_deleted = _disrupted(budget, pods, now)
    healthy = sum(
        is_ready(pod) for pod in pods if not pod.metadata.deletion_timestamp and pod.metadata.name not in disrupted
    )
    # A budget without pods allows nothing: the first ones may have come since it was looked at.
    allowed = max(0, healthy - desired) if expected > 0 else 0
    status = replace(
        budget.status,
        current_healthy=healthy,
        desired_healthy=desired,
        disrupted_pods=disrupted,
        disruptions_allowed=allowed,
        expected_pods=expected,
        observed_generation=budget.metadata.generation,
    )
    ends = [seconds_of(at) + DELETION_S - now for at in disrupted.values()]
    return Plan(with_condition(status, timestamp(now)), min(ends, default=None), not_deleted)


def _disrupted(budget: PodDisruptionBudget, pods: Sequence[Pod], now: float) -> tuple[dict[str, str], list[Pod]]:
    """Return (evicted pods whose deletion is still to be seen -> since when, those that waited for it in vain)."""
    waiting, not_deleted = {}, []
    for pod in pods:
        at = budget.status.disrupted_pods.get(pod.metadata.name)
        if at is None or pod.metadata.deletion_timestamp:
            continue
        if seconds_of(at) + DELETION_S > now:
            waiting[pod.metadata.name] = at
        else:
            not_deleted.append(pod)
    return waiting, not_deleted


def plan_failure(budget: PodDisruptionBudget, why: str, now: float) -> PodDisruptionBudgetStatus:
    """Return the status of a budget that cannot be made out: nothing is allowed."""
    return with_condition(replace(budget.status, disruptions_allowed=0), timestamp(now), failure=why)
