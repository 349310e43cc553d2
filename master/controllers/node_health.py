"""What a node's silence or its own report means: conditions, taints, and how soon which pods must leave. Pure.

Source: kubernetes.io, "Nodes", "Taints and Tolerations" (taint-based evictions).
"""

from collections.abc import Iterable, Sequence
from enum import Enum

import msgspec
from msgspec.structs import replace

from api.kinds.core import Node, NodeCondition, Taint
from api.kinds.pods import Pod
from api.placement import tolerates
from client.clock import timestamp
from master.controllers.ownership import controller_of

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
# condition type -> (status that is bad, taint)
_PRESSURES = {
    "MemoryPressure": ("True", "node.kubernetes.io/memory-pressure"),
    "DiskPressure": ("True", "node.kubernetes.io/disk-pressure"),
    "PIDPressure": ("True", "node.kubernetes.io/pid-pressure"),
    "NetworkUnavailable": ("True", "node.kubernetes.io/network-unavailable"),
}
_OUR_NO_SCHEDULE = frozenset((NOT_READY, UNREACHABLE, UNSCHEDULABLE, *(taint for _, taint in _PRESSURES.values())))
_OUR_NO_EXECUTE = frozenset((NOT_READY, UNREACHABLE))
_REPORTED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


class Health(Enum):
    """How a node is, as far as we can tell."""

    READY = "ready"
    NOT_READY = "not ready"  # its agent says so
    UNREACHABLE = "unreachable"  # its agent says nothing


def condition(node: Node, type_: str) -> NodeCondition | None:
    """Return the node's condition of that type."""
    return next((each for each in node.status.conditions if each.type == type_), None)


def health_of(node: Node, *, silent: bool) -> Health:
    """Return a node's health; ``silent``: nothing was heard of its agent for the grace period."""
    ready = condition(node, "Ready")
    if silent or (ready is not None and ready.status == "Unknown"):
        return Health.UNREACHABLE
    return Health.READY if ready is not None and ready.status == "True" else Health.NOT_READY


def plan_conditions(node: Node, now: float) -> Sequence[NodeCondition]:
    """Return the conditions of a node that fell silent: what its agent reported is unknown now."""
    moment = timestamp(now)
    known = {each.type: each for each in node.status.conditions}
    for type_ in _REPORTED:
        before = known.get(type_)
        if before is not None and before.status == "Unknown":
            continue
        if before is None:
            why = ("NodeStatusNeverUpdated", "Kubelet never posted node status.")
            before = NodeCondition(type=type_, last_heartbeat_time=node.metadata.creation_timestamp)
        else:
            why = ("NodeStatusUnknown", "Kubelet stopped posting node status.")
        known[type_] = replace(before, status="Unknown", reason=why[0], message=why[1], last_transition_time=moment)
    return tuple(known.values())


def plan_taints(node: Node, health: Health, now: float, *, may_evict: bool) -> tuple[Taint, ...]:
    """Return the taints that a node in that health should have; those that are not ours stay.

    may_evict: False while no node is well: then it is rather we who are cut off, and nobody must leave.
    """
    no_schedule = {
        taint
        for type_, (bad, taint) in _PRESSURES.items()
        if (known := condition(node, type_)) is not None and known.status == bad
    }
    if node.spec.unschedulable:
        no_schedule.add(UNSCHEDULABLE)
    no_execute: set[str] = set()
    if health is not Health.READY:
        key = UNREACHABLE if health is Health.UNREACHABLE else NOT_READY
        no_schedule.add(key)
        if may_evict:
            no_execute.add(key)
    wanted = {(key, "NoSchedule") for key in no_schedule} | {(key, "NoExecute") for key in no_execute}
    kept = [each for each in node.spec.taints if not _is_ours(each) or (each.key, each.effect) in wanted]
    present = {(each.key, each.effect) for each in kept}
    added = [Taint(key=key, effect=effect, time_added=timestamp(now)) for key, effect in sorted(wanted - present)]
    return (*kept, *added)


def _is_ours(taint: Taint) -> bool:
    ours = {"NoSchedule": _OUR_NO_SCHEDULE, "NoExecute": _OUR_NO_EXECUTE}.get(taint.effect, frozenset())
    return taint.key in ours


class Leave(msgspec.Struct, frozen=True):
    """A pod must leave so many seconds after it was first seen under taints; ``force``: nobody is there to stop it."""

    pod: Pod
    after_s: float
    force: bool


def plan_evictions(node: Node, pods: Iterable[Pod], default_s: float) -> list[Leave]:
    """Return which pods must leave a node with NoExecute taints, and how soon.

    default_s: how long a pod that says nothing of not-ready and unreachable nodes stays on one. Pods of StatefulSets
    are never removed by force: two of one name must not run at once.
    """
    taints = [each for each in node.spec.taints if each.effect == "NoExecute"]
    dead = any(each.key == UNREACHABLE for each in taints)
    leaving = []
    for pod in pods:
        stays = [_stays_s(pod, taint, default_s) for taint in taints]
        limits = [each for each in stays if each is not None]
        if not limits:
            continue
        controller = controller_of(pod)
        force = dead and not (controller is not None and controller.kind == "StatefulSet")
        if force or not pod.metadata.deletion_timestamp:
            leaving.append(Leave(pod, min(limits), force))
    return leaving


def _stays_s(pod: Pod, taint: Taint, default_s: float) -> float | None:
    """Return how long the pod stays under ``taint``, in seconds; None: for ever."""
    covering = [each for each in pod.spec.tolerations if tolerates(each, taint)]
    if not covering:
        return default_s if taint.key in _OUR_NO_EXECUTE else 0.0
    limits = [each.toleration_seconds for each in covering if each.toleration_seconds is not None]
    return max(0.0, min(limits)) if limits else None
