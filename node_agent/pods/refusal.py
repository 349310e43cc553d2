"""Which pods this node does not take, whoever sent them here: pure.

A pod that is refused fails at once and for good; its owner, if it has one, makes another. The scheduler never sends one
for which there is no room; but a pod may name its node itself, and a node's labels, taints and pods may have changed.
Whoever runs already stays. As in the kubelet, taints count for pods that the API sent alone, and resources of
which this agent knows nothing (a device plugin's, say) are left to whoever hands them out.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from api.kinds.core import Node, Taint
from api.kinds.pods import Pod
from api.placement import add, amounts, clashes, host_ports_of, is_tolerated, requests_of, required_nodes

# Sysctls that belong to the pod's namespaces alone and can harm nobody beside it; no setting of ours allows others.
SAFE_SYSCTLS = frozenset(
    """
    kernel.shm_rmid_forced net.ipv4.ip_local_port_range net.ipv4.ip_unprivileged_port_start net.ipv4.tcp_syncookies
    net.ipv4.ping_group_range net.ipv4.ip_local_reserved_ports net.ipv4.tcp_keepalive_time net.ipv4.tcp_fin_timeout
    net.ipv4.tcp_keepalive_intvl net.ipv4.tcp_keepalive_probes net.ipv4.tcp_rmem net.ipv4.tcp_wmem
    """.split()
)

_FIRST = ("pods", "cpu", "memory", "ephemeral-storage")  # of resources, in the kubelet's order


class Refusal(NamedTuple):
    """Why, in a word and in a sentence."""

    reason: str
    message: str
    of_node: bool = False  # on account of what we knew of the node's own object: it may have changed meanwhile


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """The node, as far as pods may be refused by it. labels, taints: None while nobody has told us."""

    name: str
    allocatable: Mapping[str, str] = {}
    labels: Mapping[str, str] | None = None
    taints: Sequence[Taint] | None = None


def place_of(node: Node | None, name: str, allocatable: Mapping[str, str]) -> Place:
    """Return the node as its object shows it, if we know that; its room is what this agent found."""
    if node is None:
        return Place(name=name, allocatable=allocatable)
    return Place(name=name, allocatable=allocatable, labels=node.metadata.labels, taints=node.spec.taints)


def refusal(pod: Pod, place: Place, neighbours: Collection[Pod] = (), *, is_static: bool = False) -> Refusal | None:
    """Return why this node does not run the pod; None if it does.

    neighbours: all other pods that were let in and have not ended. is_static: it came from a file.
    """
    return _ability(pod) or next(_lacks(pod, place, neighbours, is_static=is_static), None)


def _ability(pod: Pod) -> Refusal | None:
    system = pod.spec.os.name if pod.spec.os else ""
    if system not in {"", "linux"}:
        return Refusal("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")
    context = pod.spec.security_context
    for each in context.sysctls if context else ():
        if each.name.replace("/", ".") not in SAFE_SYSCTLS:
            return Refusal("SysctlForbidden", f'forbidden sysctl: "{each.name}" not allowlisted')
    return None


def _lacks(pod: Pod, place: Place, neighbours: Collection[Pod], *, is_static: bool) -> Iterator[Refusal]:
    """Iterate over all that the node lacks for the pod, in the kubelet's order and words."""
    yield from _room(pod, amounts(place.allocatable), neighbours)
    if place.labels is not None and (fits := required_nodes(pod)) is not None and not fits(_Labelled(place)):
        yield _failed("NodeAffinity", "node(s) didn't match Pod's node affinity/selector", of_node=True)
    taken = [port for each in neighbours for port in host_ports_of(each)]
    if any(clashes(wanted, port) for wanted in host_ports_of(pod) for port in taken):
        yield _failed("NodePorts", "node(s) didn't have free ports for the requested pod ports")
    # Other effects are for the scheduler: who is sent here in spite of them may stay.
    barred = [taint for taint in place.taints or () if taint.effect == "NoExecute"]
    if not is_static and not all(is_tolerated(pod.spec.tolerations, taint) for taint in barred):
        yield _failed("TaintToleration", "node(s) had taints that the pod didn't tolerate", of_node=True)


def _room(pod: Pod, allocatable: Mapping[str, int], neighbours: Collection[Pod]) -> Iterator[Refusal]:
    used: dict[str, int] = {"pods": len(neighbours)}
    for each in neighbours:
        add(used, requests_of(each))
    wanted = {"pods": 1, **requests_of(pod)}
    for name in (*(each for each in _FIRST if each in wanted), *sorted(wanted.keys() - set(_FIRST))):
        asked, taken = wanted[name], used.get(name, 0)
        if name in allocatable and asked > 0 and asked > allocatable[name] - taken:
            amount = f"requested: {asked}, used: {taken}, capacity: {allocatable[name]}"
            yield Refusal(f"OutOf{name}", f"Node didn't have enough resource: {name}, {amount}")


def _failed(name: str, why: str, *, of_node: bool = False) -> Refusal:
    return Refusal(name, f"Predicate {name} failed: {why}", of_node)


class _Labelled:
    """A place whose labels are known."""

    def __init__(self, place: Place) -> None:
        self.name = place.name
        self.labels = place.labels or {}
