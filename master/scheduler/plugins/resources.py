"""Room: CPU, memory, number of pods and whatever else a node offers in amounts."""

from collections.abc import Callable, Sequence

from master.scheduler.demands import PodInfo
from master.scheduler.framework import PASSES, Reasons
from master.scheduler.snapshot import NodeInfo, Snapshot

# Nodes of an agent that reports no limit take as many as Kubernetes' default.
DEFAULT_PODS = 110


def fit(pod: PodInfo, snapshot: Snapshot) -> Callable[[NodeInfo], Reasons]:  # noqa: ARG001 - one shape for all filters
    """Every request must fit into what is allocatable and not requested by others."""
    wanted = [(name, value) for name, value in pod.requests.items() if value > 0]

    def check(node: NodeInfo) -> Reasons:
        if len(node.pods) >= node.allocatable.get("pods", DEFAULT_PODS):
            return ("Too many pods", *lacking(node))
        for name, value in wanted:
            if value > node.allocatable.get(name, 0) - node.requested.get(name, 0):
                return lacking(node)
        return PASSES

    def lacking(node: NodeInfo) -> Reasons:
        return tuple(
            f"Insufficient {name}"
            for name, value in wanted
            if value > node.allocatable.get(name, 0) - node.requested.get(name, 0)
        )

    return check


def least_allocated(pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Sequence[float]:  # noqa: ARG001 - one shape for all scores
    """Prefer the node that stays emptiest."""
    cpu, memory = pod.score_cpu, pod.score_memory
    scores = []
    for node in nodes:
        cpu_all, memory_all = node.allocatable.get("cpu", 0), node.allocatable.get("memory", 0)
        cpu_left = max(0.0, cpu_all - node.score_cpu - cpu) / cpu_all if cpu_all else 0.0
        memory_left = max(0.0, memory_all - node.score_memory - memory) / memory_all if memory_all else 0.0
        scores.append(50 * (cpu_left + memory_left))
    return scores


def balanced_allocation(pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Sequence[float]:  # noqa: ARG001 - one shape for all scores
    """Prefer the node whose CPU and memory run out at the same time."""
    cpu, memory = pod.score_cpu, pod.score_memory
    scores = []
    for node in nodes:
        cpu_all, memory_all = node.allocatable.get("cpu", 0), node.allocatable.get("memory", 0)
        cpu_part = min(1.0, (node.score_cpu + cpu) / cpu_all) if cpu_all else 1.0
        memory_part = min(1.0, (node.score_memory + memory) / memory_all) if memory_all else 1.0
        scores.append(100 * (1 - abs(cpu_part - memory_part) / 2))
    return scores
