"""What a pod says about other pods near it: affinity, anti-affinity, even spread; and replicas that keep apart."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import msgspec

from api.kinds.pods import TopologySpreadConstraint
from api.placement import is_tolerated, required_nodes
from api.selectors import LabelQuery, Requirement, of_struct
from master.scheduler.demands import PodInfo, Term
from master.scheduler.framework import PASSES, Reasons, normalized
from master.scheduler.snapshot import NodeInfo, Snapshot

HOSTNAME = "kubernetes.io/hostname"
# What a required affinity of a pod that runs already adds to the score of a pod that it speaks of.
_REQUIRED_WEIGHT = 1

Check = Callable[[NodeInfo], Reasons]
Domain = tuple[str, str]  # (topology key, value)


def _count_domains(terms: Sequence[Term], snapshot: Snapshot) -> list[Counter[Domain]]:
    """Return for each term how many pods it speaks of run in each domain."""
    found: list[Counter[Domain]] = [Counter() for _ in terms]
    for node in snapshot.nodes:
        for term, counts in zip(terms, found, strict=True):
            value = node.labels.get(term.topology_key)
            if value is None:
                continue
            near = sum(term.matches(each.pod, snapshot.namespaces) for each in node.pods.values())
            if near:
                counts[term.topology_key, value] += near
    return found


def _guarded_domains(pod: PodInfo, snapshot: Snapshot) -> frozenset[Domain]:
    """Return the domains from which pods that run already keep ``pod`` away."""
    guarded = set()
    for node in snapshot.with_terms:
        for each in node.pods.values():
            for term in each.terms.anti:
                value = node.labels.get(term.topology_key)
                if value is not None and term.matches(pod.pod, snapshot.namespaces):
                    guarded.add((term.topology_key, value))
    return frozenset(guarded)


def affinity(pod: PodInfo, snapshot: Snapshot) -> Check | None:
    """Required pod affinity and anti-affinity, the pod's own and those of pods that run already."""
    near, far = pod.terms.affinity, pod.terms.anti
    guarded = _guarded_domains(pod, snapshot)
    if not near and not far and not guarded:
        return None
    near_counts, far_counts = _count_domains(near, snapshot), _count_domains(far, snapshot)
    # The first pod of a group that wants to be together has nobody to join.
    is_first = not any(near_counts) and all(term.matches(pod.pod, snapshot.namespaces) for term in near)

    def check(node: NodeInfo) -> Reasons:
        labels = node.labels
        for term, counts in zip(near, near_counts, strict=True):
            value = labels.get(term.topology_key)
            if value is None or not (is_first or counts[term.topology_key, value]):
                return ("node(s) didn't match pod affinity rules",)
        for term, counts in zip(far, far_counts, strict=True):
            value = labels.get(term.topology_key)
            if value is not None and counts[term.topology_key, value]:
                return ("node(s) didn't match pod anti-affinity rules",)
        if any(labels.get(key) == value for key, value in guarded):
            return ("node(s) didn't satisfy existing pods anti-affinity rules",)
        return PASSES

    return check


def affinity_score(pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Sequence[float] | None:
    """Prefer domains by the weights of preferred terms, the pod's own and those of pods that run already."""
    worth: Counter[Domain] = Counter()
    for term, counts in zip(pod.terms.preferred, _count_domains(pod.terms.preferred, snapshot), strict=True):
        for domain, count in counts.items():
            worth[domain] += term.weight * count
    for node in snapshot.with_terms:
        for each in node.pods.values():
            _add_theirs(worth, each, pod, node, snapshot)
    if not worth:
        return None
    raw = [sum(value for (key, name), value in worth.items() if node.labels.get(key) == name) for node in nodes]
    low = min(raw)
    return normalized([each - low for each in raw])


def _add_theirs(worth: Counter[Domain], other: PodInfo, pod: PodInfo, node: NodeInfo, snapshot: Snapshot) -> None:
    for term in (*other.terms.preferred, *other.terms.affinity):
        value = node.labels.get(term.topology_key)
        if value is not None and term.matches(pod.pod, snapshot.namespaces):
            worth[term.topology_key, value] += term.weight or _REQUIRED_WEIGHT


class Constraint(msgspec.Struct, frozen=True):
    """A topology spread constraint made ready."""

    key: str
    max_skew: int
    min_domains: int
    query: LabelQuery
    honours_affinity: bool
    honours_taints: bool


def _constraints(pod: PodInfo, action: str) -> list[Constraint]:
    """Return the pod's constraints with that whenUnsatisfiable."""
    return [
        _constraint(each, pod.pod.metadata.labels)
        for each in pod.pod.spec.topology_spread_constraints
        if each.when_unsatisfiable == action
    ]


def _constraint(each: TopologySpreadConstraint, labels: Mapping[str, str]) -> Constraint:
    query = of_struct(each.label_selector)
    extra = tuple(Requirement(key, "in", frozenset([labels[key]])) for key in each.match_label_keys if key in labels)
    return Constraint(
        key=each.topology_key,
        max_skew=each.max_skew,
        min_domains=each.min_domains or 1,
        query=LabelQuery((*query.requirements, *extra)) if query.requirements is not None else query,
        honours_affinity=each.node_affinity_policy != "Ignore",
        honours_taints=each.node_taints_policy == "Honor",
    )


def _matching(node: NodeInfo, namespace: str, query: LabelQuery) -> int:
    """Return how many pods of ``namespace`` on ``node`` meet ``query``; those being deleted do not count."""
    return sum(
        each.pod.metadata.namespace == namespace
        and not each.pod.metadata.deletion_timestamp
        and query.matches(each.pod.metadata.labels)
        for each in node.pods.values()
    )


def _spread(pod: PodInfo, constraint: Constraint, nodes: Sequence[NodeInfo]) -> Counter[str]:
    """Return value of the topology key -> matching pods, over the nodes that count for the pod."""
    may_run = required_nodes(pod.pod) if constraint.honours_affinity else None
    tolerations = pod.pod.spec.tolerations
    counts: Counter[str] = Counter()
    for node in nodes:
        value = node.labels.get(constraint.key)
        if value is None or (may_run is not None and not may_run(node)):
            continue
        hard = (each for each in node.taints if each.effect != "PreferNoSchedule")
        if constraint.honours_taints and not all(is_tolerated(tolerations, taint) for taint in hard):
            continue
        # A domain without a pod counts, too: adding zero makes it known.
        counts[value] += _matching(node, pod.pod.metadata.namespace, constraint.query)
    return counts


def spread(pod: PodInfo, snapshot: Snapshot) -> Check | None:
    """DoNotSchedule constraints: no domain may have more than maxSkew pods more than the emptiest."""
    constraints = _constraints(pod, "DoNotSchedule")
    if not constraints:
        return None
    prepared = [(each, _spread(pod, each, snapshot.nodes)) for each in constraints]

    def check(node: NodeInfo) -> Reasons:
        for constraint, counts in prepared:
            value = node.labels.get(constraint.key)
            if value is None:
                return ("node(s) didn't match pod topology spread constraints (missing required label)",)
            fewest = 0 if len(counts) < constraint.min_domains else min(counts.values(), default=0)
            itself = constraint.query.matches(pod.pod.metadata.labels)
            if counts[value] + itself - fewest > constraint.max_skew:
                return ("node(s) didn't match pod topology spread constraints",)
        return PASSES

    return check


def spread_score(pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Sequence[float] | None:
    """ScheduleAnyway constraints: prefer domains with few matching pods."""
    constraints = _constraints(pod, "ScheduleAnyway")
    if not constraints:
        return None
    raw = [0.0] * len(nodes)
    lacking: set[int] = set()
    for constraint in constraints:
        counts = _spread(pod, constraint, snapshot.nodes)
        weight = math.log(len(counts) + 2)
        for place, node in enumerate(nodes):
            value = node.labels.get(constraint.key)
            if value is None:
                lacking.add(place)
            else:
                raw[place] += counts[value] * weight + constraint.max_skew - 1
    present = [each for place, each in enumerate(raw) if place not in lacking]
    if not present:
        return None
    low, high = min(present), max(present)
    if high == 0:
        return None
    return [0.0 if place in lacking else 100 * (high + low - each) / high for place, each in enumerate(raw)]


def replica_score(pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Sequence[float] | None:  # noqa: ARG001 - one shape for all scores
    """Prefer nodes with few pods of the same controller, so that replicas spread without being told."""
    if not pod.controller:
        return None
    return normalized([node.controllers.get(pod.controller, 0) for node in nodes], reverse=True)
