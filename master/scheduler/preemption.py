"""Whom a pod that fits nowhere may put out: pods of lower priority on one node, as few and as unimportant as will do.

On each node that could take the pod if all those of lower priority were gone, as many as possible are spared: first
those whose going would break a disruption budget, the more important before the less. Of the nodes the one is taken
whose loss is smallest. Pure functions of a snapshot.
Source: kubernetes.io, "Pod Priority and Preemption".
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from api.kinds.pods import Pod
from api.kinds.policy import PodDisruptionBudget
from master.budgets import covers
from master.scheduler.demands import PodInfo
from master.scheduler.framework import FilterRule, Profile
from master.scheduler.snapshot import NodeInfo, Snapshot, with_pod, without_pod

# On so many nodes, and this part of all, victims are looked for; more would only find a slightly smaller loss.
ENOUGH_CANDIDATES = 100
ENOUGH_PERCENT = 10


class Preemption(msgspec.Struct, frozen=True):
    """The pod gets its room on ``node`` when ``victims`` have gone."""

    node: str
    victims: Sequence[PodInfo]  # most important first


class Loss(NamedTuple):
    """What victims cost; the smaller, the better."""

    violations: int  # of disruption budgets
    highest_priority: int
    priorities: int  # together
    victims: int


def priority_of(pod: Pod) -> int:
    """Return a pod's priority."""
    return pod.spec.priority or 0


def importance(pod: Pod) -> tuple[int, str]:
    """Return a key by which the most important pod sorts first: the highest priority, then the one that began first."""
    return -priority_of(pod), pod.status.start_time or pod.metadata.creation_timestamp


def may_preempt(pod: PodInfo, nominated: NodeInfo | None, leaving: frozenset[str] | set[str]) -> bool:
    """Return whether a pod may put others out now: not while those that it has put out are on their way.

    nominated: the node whose room it waits for. leaving: uids of pods whose deletion has been asked for.
    """
    if pod.pod.spec.preemption_policy == "Never":
        return False
    if nominated is None:
        return True
    own = priority_of(pod.pod)
    return not any(
        priority_of(each.pod) < own and (each.pod.metadata.deletion_timestamp or each.uid in leaving)
        for each in nominated.pods.values()
    )


def plan_preemption(
    pod: PodInfo,
    snapshot: Snapshot,
    profile: Profile,
    *,
    curable: str,
    budgets: Mapping[str, Sequence[PodDisruptionBudget]],
    start: int,
) -> Preemption | None:
    """Return the smallest loss that lets ``pod`` in; None if no node would take it even then.

    curable: the kind of change that victims bring; filters that it cannot cure are asked as things are.
    budgets: namespace -> its disruption budgets. start: index of the node to begin with.
    """
    own = priority_of(pod.pod)
    lasting = [
        check
        for rule in profile.filters
        if curable not in rule.cured_by and (check := rule.prepare(pod, snapshot)) is not None
    ]
    rules = [rule for rule in profile.filters if curable in rule.cured_by]
    count = len(snapshot.nodes)
    limit = max(ENOUGH_CANDIDATES, count * ENOUGH_PERCENT // 100)
    found: list[tuple[Loss, Preemption]] = []
    for offset in range(count):
        at = (start + offset) % count
        node = snapshot.nodes[at]
        lower = [each for each in node.pods.values() if priority_of(each.pod) < own]
        if not lower or any(check(node) for check in lasting):
            continue
        if (candidate := _on_node(pod, at, lower, snapshot, rules, budgets)) is not None:
            found.append(candidate)
            if len(found) >= limit:
                break
    if not found:
        return None
    least = min(loss for loss, _ in found)
    return max((each for loss, each in found if loss == least), key=_latest_begin)


def _latest_begin(preemption: Preemption) -> str:
    """Return when the most important victim began: who has run longest should stay."""
    return importance(preemption.victims[0].pod)[1]


def _on_node(
    pod: PodInfo,
    at: int,
    lower: Sequence[PodInfo],
    snapshot: Snapshot,
    rules: Sequence[FilterRule],
    budgets: Mapping[str, Sequence[PodDisruptionBudget]],
) -> tuple[Loss, Preemption] | None:
    """Return the victims on one node and what they cost; None if the pod would not fit without all of ``lower``.

    at: the node's place in the snapshot.
    """
    node = bare = snapshot.nodes[at]
    for each in lower:
        bare = without_pod(bare, each.uid)
    if not _fits(pod, bare, at, snapshot, rules):
        return None
    ranked = sorted(lower, key=lambda each: importance(each.pod))
    breaking, others = split_by_budgets(ranked, budgets)
    victims: list[PodInfo] = []
    violations = 0
    for each in (*breaking, *others):
        fuller = with_pod(bare, each)
        if _fits(pod, fuller, at, snapshot, rules):
            bare = fuller
            continue
        victims.append(each)
        violations += each in breaking
    victims.sort(key=lambda each: importance(each.pod))
    if not victims:
        # It fits as things are: what kept it away is gone already.
        return None
    priorities = [priority_of(each.pod) for each in victims]
    loss = Loss(violations, max(priorities), sum(priorities), len(victims))
    return loss, Preemption(node.name, victims)


def _fits(pod: PodInfo, node: NodeInfo, at: int, snapshot: Snapshot, rules: Iterable[FilterRule]) -> bool:
    """Return whether ``node``, which differs from the one at that place in the snapshot, would take the pod."""
    changed = replace(
        snapshot,
        # Copied and not searched: this is asked for every pod of every candidate, and nodes may be thousands.
        nodes=(*snapshot.nodes[:at], node, *snapshot.nodes[at + 1 :]),
        with_terms=tuple(node if each.name == node.name else each for each in snapshot.with_terms),
    )
    checks = (check for rule in rules if (check := rule.prepare(pod, changed)) is not None)
    return not any(check(node) for check in checks)


def split_by_budgets(
    pods: Sequence[PodInfo], budgets: Mapping[str, Sequence[PodDisruptionBudget]]
) -> tuple[list[PodInfo], list[PodInfo]]:
    """Return the pods whose going, in this order, breaks a budget, and the others."""
    left = {budget.metadata.uid: budget.status.disruptions_allowed or 0 for each in budgets.values() for budget in each}
    breaking: list[PodInfo] = []
    others: list[PodInfo] = []
    for each in pods:
        meta = each.pod.metadata
        concerned = [
            budget.metadata.uid
            for budget in budgets.get(meta.namespace, ())
            # Of one that was evicted already the budget has taken note.
            if covers(budget, meta.labels) and meta.name not in budget.status.disrupted_pods
        ]
        for uid in concerned:
            left[uid] -= 1
        (breaking if any(left[uid] < 0 for uid in concerned) else others).append(each)
    return breaking, others
