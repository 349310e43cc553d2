"""Which pods a DaemonSet should have on which nodes, and which go first when its template changes: pure decisions.

Pods are placed by the scheduler: each is made for one node, by an affinity to that node's name. A node with two pods is
either surging (an old pod waits for the new one beside it to become available) or a mistake that is put right.
Source: kubernetes.io, "DaemonSet"; "Perform a Rolling Update on a DaemonSet".
"""

from collections.abc import Callable, Iterable, Sequence

import msgspec
from msgspec.structs import replace

from api.kinds.apps import DaemonSet, DaemonSetStatus
from api.kinds.core import Node
from api.kinds.pods import Affinity, NodeAffinity, Pod, Toleration
from api.kinds.volumes import NodeSelector, NodeSelectorRequirement, NodeSelectorTerm
from api.placement import is_tolerated, required_nodes
from client.clock import seconds_of
from master.controllers.history import REVISION_LABEL
from master.controllers.intorstr import resolve
from master.controllers.ownership import reference_to_controller
from master.controllers.podstate import available_in_s, is_finished, is_ready
from master.controllers.replicas import pod_from
from master.scheduler.plugins.nodes import UNSCHEDULABLE
from master.scheduler.snapshot import NodeInfo

_NODE_NAME = "metadata.name"
# What befalls a node must not take its daemons away: they may be what puts it right.
_TOLERATED = (
    ("not-ready", "NoExecute"),
    ("unreachable", "NoExecute"),
    ("disk-pressure", "NoSchedule"),
    ("memory-pressure", "NoSchedule"),
    ("pid-pressure", "NoSchedule"),
    ("unschedulable", "NoSchedule"),
)


class Place(msgspec.Struct, frozen=True):
    """A node as a DaemonSet sees it."""

    node: str
    wanted: bool  # a pod should be here
    may_stay: bool  # a pod that is here already may go on
    pods: Sequence[Pod]  # of the DaemonSet, bound here or meant for here; the longest bound and oldest first


class Plan(msgspec.Struct, frozen=True):
    """Nodes to make pods for; pods to delete; those of them that have failed, of which an event tells."""

    create: Sequence[str] = ()
    delete: Sequence[Pod] = ()
    failed: Sequence[Pod] = ()


class Limits(msgspec.Struct, frozen=True):
    """How many nodes may have a second pod, or have no available one, while the template changes."""

    surge: int
    unavailable: int


def daemon_pod(ds: DaemonSet, node: str, revision: str) -> Pod:
    """Return the pod for one node. revision: the hash that names the template."""
    pod = pod_from(ds.spec.template, ds, reference_to_controller(ds))
    labels = {**pod.metadata.labels, REVISION_LABEL: revision}
    spec = replace(pod.spec, affinity=bound_to(pod.spec.affinity, node), tolerations=_tolerations(pod))
    return replace(pod, metadata=replace(pod.metadata, labels=labels), spec=spec)


def bound_to(affinity: Affinity | None, node: str) -> Affinity:
    """Return ``affinity`` with the node's name required beside the labels that it asks for."""
    return _with_field(affinity, NodeSelectorRequirement(key=_NODE_NAME, operator="In", values=(node,)))


def _with_field(affinity: Affinity | None, field: NodeSelectorRequirement) -> Affinity:
    affinity = affinity or Affinity()
    nodes = affinity.node_affinity or NodeAffinity()
    required = nodes.required_during_scheduling_ignored_during_execution
    terms = required.node_selector_terms if required is not None else ()
    bound = tuple(replace(each, match_fields=(field,)) for each in terms) or (NodeSelectorTerm(match_fields=(field,)),)
    selector = NodeSelector(node_selector_terms=bound)
    return replace(affinity, node_affinity=replace(nodes, required_during_scheduling_ignored_during_execution=selector))


def _tolerations(pod: Pod) -> tuple[Toleration, ...]:
    wanted = [*_TOLERATED, ("network-unavailable", "NoSchedule")] if pod.spec.host_network else _TOLERATED
    present = pod.spec.tolerations
    added = [Toleration(key=f"node.kubernetes.io/{key}", operator="Exists", effect=effect) for key, effect in wanted]
    return (*present, *(each for each in added if each not in present))


def target_of(pod: Pod) -> str:
    """Return the node that a daemon's pod runs on or is meant for; "" if it names none."""
    if pod.spec.node_name:
        return pod.spec.node_name
    nodes = pod.spec.affinity.node_affinity if pod.spec.affinity is not None else None
    required = nodes.required_during_scheduling_ignored_during_execution if nodes is not None else None
    for term in required.node_selector_terms if required is not None else ():
        for each in term.match_fields:
            if each.key == _NODE_NAME and each.operator == "In" and len(each.values) == 1:
                return each.values[0]
    return ""


def fitting(ds: DaemonSet) -> Callable[[Node], tuple[bool, bool]]:
    """Return the test of a node: (whether a pod should be there, whether one that is there may stay)."""
    pod = daemon_pod(ds, "", "")
    # Of its own node's name each pod is sure; what is left to ask is the same of every node.
    named = _with_field(ds.spec.template.spec.affinity, NodeSelectorRequirement(key=_NODE_NAME, operator="Exists"))
    matches = required_nodes(replace(pod, spec=replace(pod.spec, affinity=named)))
    assert matches is not None

    def fits(node: Node) -> tuple[bool, bool]:
        meta = node.metadata
        if pod.spec.node_name not in ("", meta.name):
            return False, False
        if not matches(NodeInfo(node=node, name=meta.name, labels=meta.labels, taints=(), allocatable={})):
            return False, False
        taints = [*node.spec.taints, *((UNSCHEDULABLE,) if node.spec.unschedulable else ())]
        hurting = [
            each
            for each in taints
            if each.effect in ("NoSchedule", "NoExecute") and not is_tolerated(pod.spec.tolerations, each)
        ]
        return not hurting, all(each.effect != "NoExecute" for each in hurting)

    return fits


def places(ds: DaemonSet, nodes: Iterable[Node], pods: Iterable[Pod]) -> list[Place]:
    """Return every node as ``ds`` sees it. pods: all that it owns."""
    there: dict[str, list[Pod]] = {}
    for pod in pods:
        there.setdefault(target_of(pod), []).append(pod)
    for here in there.values():
        here.sort(
            key=lambda pod: (not pod.spec.node_name, seconds_of(pod.metadata.creation_timestamp), pod.metadata.name)
        )
    fits = fitting(ds)
    return [Place(node.metadata.name, *fits(node), there.get(node.metadata.name, ())) for node in nodes]


def homeless(nodes: Iterable[Node], pods: Iterable[Pod]) -> list[Pod]:
    """Return the pods that wait for a node which is gone: nobody else would ever delete them."""
    names = {node.metadata.name for node in nodes}
    waiting = [pod for pod in pods if not pod.spec.node_name and not pod.metadata.deletion_timestamp]
    return [pod for pod in waiting if target_of(pod) not in names]


def plan_places(ds: DaemonSet, seen: Iterable[Place], revision: str, now: float) -> Plan:
    """Decide what brings every node to the pod that it should have, whatever that pod's template.

    A failed pod is deleted; a new one comes once it is gone.
    """
    create: list[str] = []
    delete: list[Pod] = []
    failed: list[Pod] = []
    for place in seen:
        staying = [pod for pod in place.pods if not pod.metadata.deletion_timestamp]
        if place.wanted and not place.pods:
            create.append(place.node)
        elif place.may_stay:
            ended = [pod for pod in staying if is_finished(pod)]
            failed += ended
            delete += ended
            delete += _excess(ds, [pod for pod in staying if not is_finished(pod)], revision, now)
        else:
            delete += staying
    return Plan(create, delete, failed)


def _excess(ds: DaemonSet, running: Sequence[Pod], revision: str, now: float) -> Sequence[Pod]:
    """Return the pods of one node that are too many: all but the oldest, or, surging, all but one old and one new."""
    if not limits_of(ds, 1).surge:
        return running[1:]
    if len(running) <= 1:
        return ()
    new = [pod for pod in running if is_current(pod, revision)]
    old = [pod for pod in running if not is_current(pod, revision)]
    extra = [*new[1:], *old[1:]]
    if new and old and (not is_ready(old[0]) or _is_available(ds, new[0], now)):
        extra.append(old[0])
    return extra


def is_current(pod: Pod, revision: str) -> bool:
    """Return whether ``pod`` was made from the template of that revision."""
    return pod.metadata.labels.get(REVISION_LABEL) == revision


def _is_available(ds: DaemonSet, pod: Pod, now: float) -> bool:
    return available_in_s(pod, ds.spec.min_ready_seconds or 0, now) == 0


def limits_of(ds: DaemonSet, wanted: int) -> Limits:
    """Return the update's limits for ``wanted`` nodes; percentages round up."""
    strategy = ds.spec.update_strategy
    if strategy is not None and strategy.type == "OnDelete":
        return Limits(0, 0)
    rolling = strategy.rolling_update if strategy is not None else None
    surge = resolve(rolling.max_surge if rolling is not None else None, wanted, absent=0, up=True)
    unavailable = resolve(rolling.max_unavailable if rolling is not None else None, wanted, absent=1, up=True)
    return Limits(surge, unavailable if surge or unavailable else 1)


def plan_update(ds: DaemonSet, seen: Sequence[Place], revision: str, now: float) -> Plan:
    """Decide the next step from old templates to the one of ``revision``.

    To be asked once ``plan_places`` finds nothing to do: it makes the pods that come after those deleted here.
    """
    strategy = ds.spec.update_strategy
    if strategy is not None and strategy.type == "OnDelete":
        return Plan()
    limits = limits_of(ds, sum(place.wanted for place in seen))
    held = [place for place in seen if place.pods]
    return _surge(ds, held, revision, now, limits) if limits.surge else _replace(ds, held, revision, now, limits)


def _both(place: Place, revision: str) -> tuple[Sequence[Pod], Sequence[Pod]]:
    """Return (new pods, old pods) of a node that are not being deleted."""
    staying = [pod for pod in place.pods if not pod.metadata.deletion_timestamp]
    new = [pod for pod in staying if is_current(pod, revision)]
    return new, [pod for pod in staying if not is_current(pod, revision)]


def _replace(ds: DaemonSet, seen: Iterable[Place], revision: str, now: float, limits: Limits) -> Plan:
    """Delete old pods: those that serve nobody at once, others as long as enough nodes are served."""
    unavailable, free, candidates = 0, list[Pod](), list[Pod]()
    for place in seen:
        new, old = _both(place, revision)
        if len(new) + len(old) != 1:
            unavailable += 1  # a pod is going or coming here
        elif new:
            unavailable += not _is_available(ds, new[0], now)
        else:
            (candidates if _is_available(ds, old[0], now) else free).append(old[0])
    return Plan(delete=[*free, *candidates[: max(0, limits.unavailable - unavailable)]])


def _surge(ds: DaemonSet, seen: Iterable[Place], revision: str, now: float, limits: Limits) -> Plan:
    """Make new pods beside old ones, and delete an old one as soon as the new one serves."""
    surging, free, candidates, done = 0, list[str](), list[str](), list[Pod]()
    for place in seen:
        new, old = _both(place, revision)
        if len(new) > 1 or len(old) > 1:
            surging += 1
        elif old and not new:
            (candidates if _is_available(ds, old[0], now) else free).append(place.node)
        elif old and _is_available(ds, new[0], now):
            done.append(old[0])
        elif old:
            surging += 1
    return Plan(create=[*free, *candidates[: max(0, limits.surge - surging)]], delete=done)


def plan_status(ds: DaemonSet, seen: Sequence[Place], revision: str, now: float) -> DaemonSetStatus:
    """Return the status; of each node its first pod counts."""
    wanted = [place for place in seen if place.wanted]
    first = [place.pods[0] for place in wanted if place.pods]
    available = sum(_is_available(ds, pod, now) for pod in first)
    return replace(
        ds.status,
        desired_number_scheduled=len(wanted),
        current_number_scheduled=len(first),
        number_misscheduled=sum(bool(place.pods) and not place.wanted for place in seen),
        number_ready=sum(map(is_ready, first)),
        number_available=available or None,
        number_unavailable=(len(wanted) - available) or None,
        updated_number_scheduled=sum(is_current(pod, revision) for pod in first) or None,
        observed_generation=ds.metadata.generation,
    )


def again_in_s(ds: DaemonSet, seen: Iterable[Place], now: float) -> float | None:
    """Return when (seconds) the next ready pod will have been so for long enough to count."""
    pods = [pod for place in seen for pod in place.pods if not pod.metadata.deletion_timestamp]
    waits = [available_in_s(pod, ds.spec.min_ready_seconds or 0, now) for pod in pods]
    return min(filter(None, waits), default=None)
