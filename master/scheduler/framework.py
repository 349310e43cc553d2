"""How a node is picked: filters say which nodes can take the pod, scores which of those should.

Everything here is a pure function of the pod and a snapshot. A filter or score is first *prepared* for one pod, which
does what need be done once (and says None if it has nothing to say about this pod), then asked about nodes.
Source: kubernetes.io, "Scheduling Framework".
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import msgspec

from master.scheduler.demands import PodInfo
from master.scheduler.snapshot import NodeInfo, Snapshot

Reasons = tuple[str, ...]  # why a node cannot take the pod; empty: it can
Check = Callable[[NodeInfo], Reasons]
Filter = Callable[[PodInfo, Snapshot], Check | None]
# (pod, snapshot, feasible nodes) -> a score of 0 to 100 for each of them, None: all alike
Score = Callable[[PodInfo, Snapshot, Sequence[NodeInfo]], Sequence[float] | None]

ENOUGH_FEASIBLE = 100  # so many feasible nodes are looked for at least...
ENOUGH_PERCENT = 5  # ...and this part of all nodes
PASSES: Reasons = ()


class FilterRule(msgspec.Struct, frozen=True):
    """One named filter; ``cured_by``: kinds of change after which a refused pod may fit."""

    name: str
    prepare: Filter
    cured_by: frozenset[str]


class ScoreRule(msgspec.Struct, frozen=True):
    """One named score and how much it counts."""

    name: str
    score: Score
    weight: int


class Profile(msgspec.Struct, frozen=True):
    """The rules in force, cheap filters first."""

    filters: Sequence[FilterRule]
    scores: Sequence[ScoreRule]


class Placed(msgspec.Struct, frozen=True):
    """The pod goes to ``node``; ``next_start`` is where the next search begins."""

    node: str
    next_start: int
    examined: int
    feasible: int


class Unplaceable(msgspec.Struct, frozen=True):
    """No node can take the pod; ``refused_by`` are the filters that said so."""

    message: str
    refused_by: frozenset[str]


def pick_node(
    pod: PodInfo,
    snapshot: Snapshot,
    profile: Profile,
    *,
    start: int,
    rng: random.Random,
    promised: Snapshot | None = None,
) -> Placed | Unplaceable:
    """Pick the best of enough feasible nodes; ``rng`` decides between equals.

    start: index of the node to begin with, so that all nodes get their turn though few are looked at.
    promised: the same nodes with the pods on them for which room is being made; the pod must fit beside those, and
    still without them, since they may never come.
    """
    if not snapshot.nodes:
        return Unplaceable("no nodes available to schedule pods", frozenset(["nodes"]))
    feasible, refusals, examined, refused_by = _search(pod, snapshot, profile, start, promised)
    if not feasible:
        return Unplaceable(_explain(len(snapshot.nodes), refusals), refused_by)
    next_start = (start + examined) % len(snapshot.nodes)
    best = feasible[0] if len(feasible) == 1 else _best(pod, snapshot, profile, feasible, rng)
    return Placed(best.name, next_start, examined, len(feasible))


def enough(nodes: int) -> int:
    """Return how many feasible nodes are worth scoring."""
    return max(ENOUGH_FEASIBLE, nodes * ENOUGH_PERCENT // 100)


def _search(
    pod: PodInfo, snapshot: Snapshot, profile: Profile, start: int, promised: Snapshot | None
) -> tuple[list[NodeInfo], Mapping[str, int], int, frozenset[str]]:
    """Return feasible nodes, reason -> nodes, how many were looked at, and the filters that refused."""
    prepared = _prepared(pod, snapshot, profile)
    fuller = _prepared(pod, promised, profile) if promised is not None else ()
    limit, count = enough(len(snapshot.nodes)), len(snapshot.nodes)
    feasible: list[NodeInfo] = []
    refusals: Counter[str] = Counter()
    refused_by: set[str] = set()
    examined = 0
    for offset in range(count):
        node = snapshot.nodes[(start + offset) % count]
        examined += 1
        refused = _refused(node, prepared)
        if refused is None and promised is not None:
            refused = _refused(promised.nodes[(start + offset) % count], fuller)
        if refused is not None:
            refused_by.add(refused[0])
            refusals.update(refused[1])
            continue
        feasible.append(node)
        if len(feasible) >= limit:
            break
    return feasible, refusals, examined, frozenset(refused_by)


def _prepared(pod: PodInfo, snapshot: Snapshot, profile: Profile) -> Sequence[tuple[str, Check]]:
    return [(rule.name, check) for rule in profile.filters if (check := rule.prepare(pod, snapshot)) is not None]


def _refused(node: NodeInfo, checks: Sequence[tuple[str, Check]]) -> tuple[str, Reasons] | None:
    """Return which filter refuses the pod this node, and why; None if it may go there."""
    for name, check in checks:
        if reasons := check(node):
            return name, reasons
    return None


def _explain(nodes: int, refusals: Mapping[str, int]) -> str:
    """Return the sentence that ``kubectl describe`` shows."""
    parts = sorted(f"{count} {reason}" for reason, count in refusals.items())
    return f"0/{nodes} nodes are available: {', '.join(parts)}."


def _best(
    pod: PodInfo, snapshot: Snapshot, profile: Profile, feasible: Sequence[NodeInfo], rng: random.Random
) -> NodeInfo:
    totals = [0.0] * len(feasible)
    for rule in profile.scores:
        scores = rule.score(pod, snapshot, feasible)
        if scores is not None:
            weight = rule.weight
            totals = [total + weight * score for total, score in zip(totals, scores, strict=True)]
    highest = max(totals)
    return feasible[rng.choice([n for n, total in enumerate(totals) if total >= highest - 1e-9])]


def normalized(raw: Sequence[float], *, reverse: bool = False) -> Sequence[float] | None:
    """Return ``raw`` stretched so that the highest becomes 100 (with ``reverse``: 0); None if all are zero."""
    highest = max(raw)
    if highest <= 0:
        return None
    return [100 * (highest - each) / highest if reverse else 100 * each / highest for each in raw]
