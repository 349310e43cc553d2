"""Keeping a number of equal pods: what ReplicaSet and ReplicationController have in common, as pure functions.

Source: kubernetes.io, "ReplicaSet", with its rules on which pods go first when there are too many.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import msgspec

from api.kinds.pods import Pod, PodTemplateSpec
from api.meta import ObjectMeta, OwnerReference, Resource
from api.selectors import LabelQuery
from client.clock import seconds_of
from master.controllers.podstate import available_in_s, is_active, is_ready, ready_since, restarts

BURST = 500  # creations or deletions in one round
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


class Wanted(msgspec.Struct, frozen=True):
    """What the spec of either kind says."""

    replicas: int
    min_ready_s: int
    query: LabelQuery
    template: PodTemplateSpec


class Counts(msgspec.Struct, frozen=True):
    """What either status counts; of active pods."""

    replicas: int
    fully_labeled: int
    ready: int
    available: int


class Plan(msgspec.Struct, frozen=True):
    """Pods to create or to delete, never both; when (seconds) a ready pod will have become available."""

    create: int
    delete: Sequence[Pod]
    again_s: float | None


def plan_replicas(wanted: Wanted, pods: Sequence[Pod], neighbours: Iterable[Pod], now: float) -> Plan:
    """Decide what brings the active ones of ``pods`` to the wanted count.

    neighbours: the pods of sibling sets (other revisions of one Deployment); where they crowd a node, ours there go
    first.
    """
    active = [pod for pod in pods if is_active(pod)]
    missing = wanted.replicas - len(active)
    waits = [left for pod in active if (left := available_in_s(pod, wanted.min_ready_s, now))]
    again_s = min(waits, default=None)
    if missing >= 0:
        return Plan(min(missing, BURST), (), again_s)
    return Plan(0, pick_doomed(active, neighbours, min(-missing, BURST), now), again_s)


def pick_doomed(active: Sequence[Pod], neighbours: Iterable[Pod], count: int, now: float) -> Sequence[Pod]:
    """Return the ``count`` pods whose loss costs least."""
    if count >= len(active):
        return active
    crowd = Counter(pod.spec.node_name for pod in neighbours if is_active(pod) and pod.spec.node_name)
    return sorted(active, key=_loss(crowd, now))[:count]


_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


def _loss(crowd: Counter[str], now: float) -> Callable[[Pod], tuple[object, ...]]:
    """Return a sort key: unassigned before assigned, pending before running, unready before ready, cheap before dear,
    crowded before spread, ready lately before ready long, much restarted before stable, young before old.
    """

    def key(pod: Pod) -> tuple[object, ...]:
        ready = is_ready(pod)
        return (
            bool(pod.spec.node_name),
            _PHASES.get(pod.status.phase, 0),
            ready,
            deletion_cost(pod),
            -crowd[pod.spec.node_name],
            _age_class(now - ready_since(pod)) if ready else 0,
            -restarts(pod),
            _age_class(now - seconds_of(pod.metadata.creation_timestamp)),
            pod.metadata.uid,
        )

    return key


def _age_class(age_s: float) -> int:
    """Return the binary order of magnitude of an age: ages in one class are as good as equal."""
    return int(math.log2(age_s)) if age_s >= 1 else 0


def deletion_cost(pod: Pod) -> int:
    """Return the pod's deletion cost; what cannot be read counts as none."""
    try:
        return int(pod.metadata.annotations.get(DELETION_COST, "0"))
    except ValueError:
        return 0


def count_pods(wanted: Wanted, pods: Iterable[Pod], now: float) -> Counts:
    """Return what the status says of ``pods``."""
    labels = wanted.template.metadata.labels.items()
    active = [pod for pod in pods if is_active(pod)]
    return Counts(
        replicas=len(active),
        fully_labeled=sum(labels <= pod.metadata.labels.items() for pod in active),
        ready=sum(map(is_ready, active)),
        available=sum(available_in_s(pod, wanted.min_ready_s, now) == 0 for pod in active),
    )


def pod_from(template: PodTemplateSpec, owner: Resource, reference: OwnerReference) -> Pod:
    """Return a pod as ``template`` says, to be named by the server after its owner."""
    meta = template.metadata
    prefix = f"{owner.metadata.name}-"
    return Pod(
        metadata=ObjectMeta(
            generate_name=prefix,
            namespace=owner.metadata.namespace,
            labels=meta.labels,
            annotations=meta.annotations,
            finalizers=meta.finalizers,
            owner_references=(reference,),
        ),
        spec=template.spec,
    )
