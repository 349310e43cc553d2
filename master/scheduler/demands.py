"""What one pod asks of the place where it is to run: room, ports of the node, company. Pure.

It is worked out once for each pod, and looked up for every node that is asked whether it will do.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from api.kinds.pods import Pod, PodAffinityTerm, WeightedPodAffinityTerm
from api.meta import ObjectMeta
from api.placement import HostPort, container_requests, host_ports_of, requests_of
from api.selectors import LabelQuery, Requirement, of_struct
from client.informer import key_of

# What a container without requests counts for in scores, never in filters.
NONZERO_CPU_MILLIS = 100
NONZERO_MEMORY_BYTES = 200 * 1024 * 1024


class Term(msgspec.Struct, frozen=True):
    """A pod affinity term made ready for matching; weight is 0 for a required one, negative against."""

    query: LabelQuery
    namespaces: frozenset[str]
    namespace_query: LabelQuery | None
    topology_key: str
    weight: int = 0

    def matches(self, pod: Pod, namespaces: Mapping[str, Mapping[str, str]]) -> bool:
        """Return whether ``pod`` is one that this term speaks of; ``namespaces``: name -> labels."""
        meta = pod.metadata
        if meta.namespace not in self.namespaces and (
            self.namespace_query is None or not self.namespace_query.matches(namespaces.get(meta.namespace, {}))
        ):
            return False
        return self.query.matches(meta.labels)


class Terms(msgspec.Struct, frozen=True):
    """All that one pod says about other pods."""

    affinity: Sequence[Term] = ()
    anti: Sequence[Term] = ()
    preferred: Sequence[Term] = ()  # with positive and negative weights


NO_TERMS = Terms()


class PodInfo(msgspec.Struct, frozen=True):
    """A pod with what placement asks of it, computed once."""

    pod: Pod
    key: str
    uid: str
    requests: Mapping[str, int]  # cpu in thousandths, all else in units
    score_cpu: int
    score_memory: int
    ports: frozenset[HostPort]
    terms: Terms
    controller: str  # uid of the controller, "" for a bare pod


def _term(term: PodAffinityTerm, meta: ObjectMeta, weight: int = 0) -> Term:
    query = of_struct(term.label_selector)
    extra = [
        Requirement(key, operator, frozenset([meta.labels[key]]))
        for keys, operator in ((term.match_label_keys, "in"), (term.mismatch_label_keys, "notin"))
        for key in keys
        if key in meta.labels
    ]
    if extra and query.requirements is not None:
        query = LabelQuery((*query.requirements, *extra))
    selects = term.namespace_selector
    own = not term.namespaces and selects is None
    return Term(
        query=query,
        namespaces=frozenset([meta.namespace] if own else term.namespaces),
        namespace_query=of_struct(selects) if selects is not None else None,
        topology_key=term.topology_key,
        weight=weight,
    )


def _weighted(terms: Iterable[WeightedPodAffinityTerm], meta: ObjectMeta, sign: int) -> list[Term]:
    return [_term(each.pod_affinity_term, meta, sign * each.weight) for each in terms]


def _terms_of(pod: Pod) -> Terms:
    affinity = pod.spec.affinity
    if affinity is None or (affinity.pod_affinity is None and affinity.pod_anti_affinity is None):
        return NO_TERMS
    near, far, meta = affinity.pod_affinity, affinity.pod_anti_affinity, pod.metadata
    preferred: list[Term] = []
    if near is not None:
        preferred += _weighted(near.preferred_during_scheduling_ignored_during_execution, meta, 1)
    if far is not None:
        preferred += _weighted(far.preferred_during_scheduling_ignored_during_execution, meta, -1)
    return Terms(
        affinity=[_term(t, meta) for t in near.required_during_scheduling_ignored_during_execution] if near else (),
        anti=[_term(t, meta) for t in far.required_during_scheduling_ignored_during_execution] if far else (),
        preferred=preferred,
    )


def pod_info(pod: Pod) -> PodInfo:
    """Return ``pod`` ready for placement."""
    cpu = memory = 0
    for container in pod.spec.containers:
        requests = container_requests(container)
        cpu += requests.get("cpu", NONZERO_CPU_MILLIS)
        memory += requests.get("memory", NONZERO_MEMORY_BYTES)
    controller = next((ref.uid for ref in pod.metadata.owner_references if ref.controller), "")
    return PodInfo(
        pod=pod,
        key=key_of(pod),
        uid=pod.metadata.uid,
        requests=requests_of(pod),
        score_cpu=cpu,
        score_memory=memory,
        ports=host_ports_of(pod),
        terms=_terms_of(pod),
        controller=controller,
    )
