"""A pod's resources may change while it runs: what this node grants of that, and what it says of it. Pure.

A resize that the node could never bear is not granted: the pod goes on with what it has, and a condition says why. One
that is granted reaches the kernel container by container (``node_agent.pods.plan``).
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction

import msgspec
from msgspec.structs import replace

from api import quantity
from api.kinds.pods import Container, Pod, PodCondition, PodSpec, ResourceRequirements
from node_agent.pods.containers import all_containers

PENDING, IN_PROGRESS = "PodResizePending", "PodResizeInProgress"
CONDITIONS = (PENDING, IN_PROGRESS)
_NOTHING = ResourceRequirements()
Resources = Mapping[str, ResourceRequirements]  # container -> what it has


class Grant(msgspec.Struct, frozen=True):
    """A pod with the resources that it gets. refusal: why these are not the ones it wants, "" if they are."""

    pod: Pod
    refusal: str = ""


def resources_of(spec: PodSpec) -> Resources:
    """Return what the containers of a pod ask for."""
    return {each.name: each.resources or _NOTHING for each in all_containers(spec)}


def resources_told(pod: Pod) -> Resources:
    """Return what the pod's status says that its containers have: all that is known after a restart of the agent."""
    statuses = (*pod.status.init_container_statuses, *pod.status.container_statuses)
    return {each.name: each.resources for each in statuses if each.resources is not None}


def grant(pod: Pod, before: Resources, allocatable: Mapping[str, str]) -> Grant:
    """Return the pod as this node runs it, given what its containers had ``before``."""
    wanted = resources_of(pod.spec)
    if all(before.get(name, asked) == asked for name, asked in wanted.items()):
        return Grant(pod)
    if not (refusal := _infeasible(pod.spec, allocatable)):
        return Grant(pod)
    spec = replace(
        pod.spec,
        containers=_with(pod.spec.containers, before),
        init_containers=_with(pod.spec.init_containers, before),
    )
    return Grant(replace(pod, spec=spec), refusal)


def _with(containers: Iterable[Container], resources: Resources) -> tuple[Container, ...]:
    return tuple(replace(each, resources=resources.get(each.name, each.resources)) for each in containers)


def _infeasible(spec: PodSpec, allocatable: Mapping[str, str]) -> str:
    """Return why the whole node would not do for the pod, "" if it would."""
    beside = [each for each in spec.init_containers if each.restart_policy == "Always"]
    for name in ("cpu", "memory"):
        amounts = [each.resources.requests.get(name, "0") for each in (*spec.containers, *beside) if each.resources]
        asked = sum(map(quantity.parse, (*amounts, spec.overhead.get(name, "0"))), start=Fraction())
        if name in allocatable and asked > quantity.parse(allocatable[name]):
            unit = 1000 if name == "cpu" else 1
            capacity = int(quantity.parse(allocatable[name]) * unit)
            requested = f"requested: {int(asked * unit)}, capacity: {capacity}"
            return f"Node didn't have enough capacity: {name}, {requested}"
    return ""


def resize_conditions(refusal: str, failures: Iterable[str], *, under_way: bool) -> tuple[PodCondition, ...]:
    """Return what is said of a resize. failures: why containers could not be resized; they are tried again."""
    found = []
    if refusal:
        found.append(PodCondition(type=PENDING, status="True", reason="Infeasible", message=refusal))
    message = "; ".join(failures)
    if under_way or message:
        reason = "Error" if message else ""
        found.append(PodCondition(type=IN_PROGRESS, status="True", reason=reason, message=message))
    return tuple(found)
