"""What a pod says about the node itself: name, labels, ports, images; and what a node says about pods: taints."""

from collections.abc import Callable, Sequence

from api.kinds.core import Taint
from api.placement import clashes, is_tolerated, required_nodes, term_matches
from master.scheduler.demands import PodInfo
from master.scheduler.framework import PASSES, Reasons, normalized
from master.scheduler.snapshot import NodeInfo, Snapshot

UNSCHEDULABLE = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")
# An image weighs between these sizes; beyond, it makes no difference.
_SMALL_IMAGE, _LARGE_IMAGE = 23 * 1024 * 1024, 1000 * 1024 * 1024

Check = Callable[[NodeInfo], Reasons]


def node_name(pod: PodInfo, snapshot: Snapshot) -> Check | None:  # noqa: ARG001 - one shape for all filters
    """A pod that names its node goes nowhere else."""
    wanted = pod.pod.spec.node_name
    if not wanted:
        return None
    return lambda node: PASSES if node.name == wanted else ("node(s) didn't match the requested node name",)


def unschedulable(pod: PodInfo, snapshot: Snapshot) -> Check | None:  # noqa: ARG001 - one shape for all filters
    """A cordoned node takes only pods that tolerate that."""
    if is_tolerated(pod.pod.spec.tolerations, UNSCHEDULABLE):
        return None
    return lambda node: ("node(s) were unschedulable",) if node.node.spec.unschedulable else PASSES


def taints(pod: PodInfo, snapshot: Snapshot) -> Check:  # noqa: ARG001 - one shape for all filters
    """Every NoSchedule and NoExecute taint must be tolerated."""
    tolerations = pod.pod.spec.tolerations

    def check(node: NodeInfo) -> Reasons:
        for taint in node.taints:
            if taint.effect != "PreferNoSchedule" and not is_tolerated(tolerations, taint):
                return (f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}",)
        return PASSES

    return check


def taint_score(pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Sequence[float] | None:  # noqa: ARG001 - one shape for all scores
    """Prefer nodes with fewer PreferNoSchedule taints that the pod does not tolerate."""
    soft = [each for each in pod.pod.spec.tolerations if each.effect in ("", "PreferNoSchedule")]
    raw = [
        sum(taint.effect == "PreferNoSchedule" and not is_tolerated(soft, taint) for taint in node.taints)
        if node.taints
        else 0
        for node in nodes
    ]
    return normalized(raw, reverse=True)


def affinity(pod: PodInfo, snapshot: Snapshot) -> Check | None:  # noqa: ARG001 - one shape for all filters
    """Labels must be as nodeSelector and the required node affinity say."""
    matches = required_nodes(pod.pod)
    if matches is None:
        return None
    return lambda node: PASSES if matches(node) else ("node(s) didn't match Pod's node affinity/selector",)


def affinity_score(pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Sequence[float] | None:  # noqa: ARG001 - one shape for all scores
    """Prefer nodes by the weights of the preferred terms that they match."""
    affinity = pod.pod.spec.affinity.node_affinity if pod.pod.spec.affinity is not None else None
    if affinity is None or not affinity.preferred_during_scheduling_ignored_during_execution:
        return None
    terms = [
        (each.weight, term_matches(each.preference))
        for each in affinity.preferred_during_scheduling_ignored_during_execution
    ]
    return normalized([sum(weight for weight, matches in terms if matches(node)) for node in nodes])


def ports(pod: PodInfo, snapshot: Snapshot) -> Check | None:  # noqa: ARG001 - one shape for all filters
    """Host ports must be free."""
    if not pod.ports:
        return None

    def check(node: NodeInfo) -> Reasons:
        if any(clashes(wanted, taken) for wanted in pod.ports for taken in node.ports):
            return ("node(s) didn't have free ports for the requested pod ports",)
        return PASSES

    return check


def image_locality(pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Sequence[float] | None:
    """Prefer nodes that have the images; less so for images that few nodes have, lest they all crowd there."""
    names = [_full_name(each.image) for each in (*pod.pod.spec.containers, *pod.pod.spec.init_containers)]
    if not any(node.images for node in nodes):
        return None
    spread = {
        name: sum(name in node.images for node in snapshot.nodes) / len(snapshot.nodes) for name in dict.fromkeys(names)
    }
    if not any(spread.values()):
        return None
    high = _LARGE_IMAGE * max(1, len(names))
    raw = [sum(node.images.get(name, 0) * spread[name] for name in names) for node in nodes]
    return [100 * (min(max(each, _SMALL_IMAGE), high) - _SMALL_IMAGE) / (high - _SMALL_IMAGE) for each in raw]


def _full_name(image: str) -> str:
    """Return an image's name with its tag, as nodes report it."""
    return image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"
