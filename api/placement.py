"""What pods ask of a node, and whether it will do: room, ports, labels, taints. Pure.

The scheduler asks before it places a pod, the node's agent before it runs one: a pod may name its node itself.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple, Protocol

from api import quantity
from api.kinds.core import Taint
from api.kinds.pods import Container, Pod, Toleration
from api.kinds.volumes import NodeSelectorRequirement, NodeSelectorTerm
from api.selectors import LabelQuery, Requirement, of_map

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - compared, never bound
_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "absent", "Gt": "gt", "Lt": "lt"}


class HasLabels(Protocol):
    """A node, to those who look for one."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""


class HostPort(NamedTuple):
    """A port of the node that a container takes."""

    ip: str
    protocol: str
    port: int


NO_PORTS: frozenset[HostPort] = frozenset()


@lru_cache(maxsize=4096)
def amount(resource: str, text: str) -> int:
    """Return a quantity as the integer that is added up."""
    return quantity.cpu_millis(text) if resource == "cpu" else quantity.whole(text)


def amounts(quantities: Mapping[str, str]) -> dict[str, int]:
    """Return every quantity of a resource list as an integer."""
    return {name: amount(name, text) for name, text in quantities.items()}


def container_requests(container: Container) -> dict[str, int]:
    """Return what one container asks for."""
    return amounts(container.resources.requests) if container.resources is not None else {}


def add(into: dict[str, int], more: Mapping[str, int]) -> None:
    """Add ``more`` of each resource to ``into``, in place."""
    for name, value in more.items():
        into[name] = into.get(name, 0) + value


def _at_least(into: dict[str, int], floor: Mapping[str, int]) -> None:
    for name, value in floor.items():
        into[name] = max(into.get(name, 0), value)


def requests_of(pod: Pod) -> dict[str, int]:
    """Return what the pod needs: its containers together, or its greediest moment of initialisation, plus overhead.

    Init containers that go on running (restartPolicy Always) count with the containers and with every later
    init container.
    """
    together: dict[str, int] = {}
    for container in pod.spec.containers:
        add(together, container_requests(container))
    staying: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in pod.spec.init_containers:
        needed = container_requests(container)
        if container.restart_policy == "Always":
            add(staying, needed)
            _at_least(peak, staying)
        else:
            add(needed, staying)
            _at_least(peak, needed)
    add(together, staying)
    _at_least(together, peak)
    add(together, amounts(pod.spec.overhead))
    return together


def host_ports_of(pod: Pod) -> frozenset[HostPort]:
    """Return the ports of the node that the pod takes: its containers', and those of init containers that stay."""
    staying = (each for each in pod.spec.init_containers if each.restart_policy == "Always")
    found = [
        HostPort(port.host_ip or ANY_ADDRESS, port.protocol or "TCP", port.host_port)
        for container in (*staying, *pod.spec.containers)
        for port in container.ports
        if port.host_port
    ]
    return frozenset(found) if found else NO_PORTS


def clashes(one: HostPort, other: HostPort) -> bool:
    """Return whether two ports of a node cannot both be had."""
    if (one.protocol, one.port) != (other.protocol, other.port):
        return False
    return one.ip == other.ip or ANY_ADDRESS in (one.ip, other.ip)


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Return whether ``toleration`` covers ``taint``: an empty key or effect covers all."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    return bool(toleration.key) and toleration.value == taint.value


def is_tolerated(tolerations: Iterable[Toleration], taint: Taint) -> bool:
    """Return whether any of ``tolerations`` covers ``taint``."""
    return any(tolerates(each, taint) for each in tolerations)


def _requirement(each: NodeSelectorRequirement) -> Requirement:
    return Requirement(each.key, _OPERATORS[each.operator], frozenset(each.values))


def term_matches(term: NodeSelectorTerm) -> Callable[[HasLabels], bool]:
    """Return the test of one term; an empty term matches nothing."""
    if not term.match_expressions and not term.match_fields:
        return lambda node: False  # noqa: ARG005 - one shape
    labels = LabelQuery(tuple(map(_requirement, term.match_expressions)))
    fields = LabelQuery(tuple(map(_requirement, term.match_fields)))
    return lambda node: labels.matches(node.labels) and fields.matches({"metadata.name": node.name})


def required_nodes(pod: Pod) -> Callable[[HasLabels], bool] | None:
    """Return the test for nodeSelector and required node affinity; None if the pod names neither."""
    selector = of_map(pod.spec.node_selector)
    affinity = pod.spec.affinity.node_affinity if pod.spec.affinity is not None else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity is not None else None
    if required is None:
        return (lambda node: selector.matches(node.labels)) if pod.spec.node_selector else None
    terms = [term_matches(each) for each in required.node_selector_terms]
    return lambda node: selector.matches(node.labels) and any(matches(node) for matches in terms)
