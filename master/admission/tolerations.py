"""Tolerations that pods are given: for nodes that fall silent, and for the extended resources they ask for; and the
taint that a new node bears until it is ready.

Source: kubernetes.io, "Taints and Tolerations" and "Using Admission Controllers".
"""

from collections.abc import Iterable

from msgspec.structs import replace

from api.kinds.core import Node, Taint
from api.kinds.pods import Pod, Toleration
from api.meta import Resource
from master.admission.chain import Attributes, Rule

NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"


def with_default_tolerations(pod: Pod, seconds: int) -> Pod:
    """Return the pod tolerating for ``seconds`` that its node is not ready or unreachable, unless it says otherwise."""
    missing = [key for key in (NOT_READY, UNREACHABLE) if not _covered(pod.spec.tolerations, key)]
    if not missing:
        return pod
    given = (Toleration(key=key, operator="Exists", effect="NoExecute", toleration_seconds=seconds) for key in missing)
    return replace(pod, spec=replace(pod.spec, tolerations=(*pod.spec.tolerations, *given)))


def _covered(tolerations: Iterable[Toleration], key: str) -> bool:
    return any(each.key in ("", key) and each.effect in ("", "NoExecute") for each in tolerations)


def is_extended(name: str) -> bool:
    """Return whether a resource is one that a node's owner has added: a name with a domain that is not Kubernetes'."""
    return "/" in name and "kubernetes.io/" not in name and not name.startswith("requests.")


def with_extended_tolerations(pod: Pod) -> Pod:
    """Return the pod tolerating nodes that are kept for the extended resources it asks for."""
    wanted = sorted(
        {
            name
            for container in (*pod.spec.containers, *pod.spec.init_containers)
            if container.resources is not None
            for name in {**container.resources.requests, **container.resources.limits}
            if is_extended(name)
        }
    )
    missing = [
        name
        for name in wanted
        if not any(each.key == name and each.operator == "Exists" for each in pod.spec.tolerations)
    ]
    if not missing:
        return pod
    given = (Toleration(key=name, operator="Exists") for name in missing)
    return replace(pod, spec=replace(pod.spec, tolerations=(*pod.spec.tolerations, *given)))


class DefaultTolerationSeconds(Rule):
    """Says in every pod how long it stays on a node that has fallen silent."""

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds

    async def mutate(self, attributes: Attributes, obj: Resource) -> Resource:
        """Return a new or changed pod with the tolerations."""
        if not attributes.is_of("", "pods") or attributes.subresource or attributes.operation == "DELETE":
            return obj
        assert isinstance(obj, Pod), obj
        return with_default_tolerations(obj, self._seconds)


class ExtendedResourceToleration(Rule):
    """Lets pods onto the nodes that are tainted with the name of a resource they ask for."""

    async def mutate(self, attributes: Attributes, obj: Resource) -> Resource:
        """Return a new pod with the tolerations."""
        if not (attributes.is_of("", "pods") and attributes.creates):
            return obj
        assert isinstance(obj, Pod), obj
        return with_extended_tolerations(obj)


class TaintNodesByCondition(Rule):
    """Keeps pods off a new node until somebody has seen it ready."""

    async def mutate(self, attributes: Attributes, obj: Resource) -> Resource:
        """Return a new node with the taint."""
        if not (attributes.is_of("", "nodes") and attributes.creates):
            return obj
        assert isinstance(obj, Node), obj
        if any((each.key, each.effect) == (NOT_READY, "NoSchedule") for each in obj.spec.taints):
            return obj
        taint = Taint(key=NOT_READY, effect="NoSchedule")
        return replace(obj, spec=replace(obj.spec, taints=(*obj.spec.taints, taint)))
