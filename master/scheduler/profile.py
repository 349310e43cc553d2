"""The rules of placement in force: a row each."""

from master.scheduler.framework import FilterRule, Profile, ScoreRule
from master.scheduler.plugins import nodes, pods, resources

# Kinds of change that may let a refused pod fit.
NODE = "node"  # a node came, or changed in what placement looks at
POD_GONE = "pod gone"  # room was made
POD_CAME = "pod came"  # somebody to be near

_ROOM = frozenset((NODE, POD_GONE))
_NODE = frozenset((NODE,))
_NEIGHBOURS = frozenset((NODE, POD_GONE, POD_CAME))

DEFAULT = Profile(
    filters=(
        FilterRule("NodeUnschedulable", nodes.unschedulable, _NODE),
        FilterRule("NodeName", nodes.node_name, _NODE),
        FilterRule("TaintToleration", nodes.taints, _NODE),
        FilterRule("NodeAffinity", nodes.affinity, _NODE),
        FilterRule("NodePorts", nodes.ports, _ROOM),
        FilterRule("NodeResourcesFit", resources.fit, _ROOM),
        FilterRule("PodTopologySpread", pods.spread, _NEIGHBOURS),
        FilterRule("InterPodAffinity", pods.affinity, _NEIGHBOURS),
    ),
    scores=(
        ScoreRule("TaintToleration", nodes.taint_score, 3),
        ScoreRule("NodeAffinity", nodes.affinity_score, 2),
        ScoreRule("PodTopologySpread", pods.spread_score, 2),
        ScoreRule("InterPodAffinity", pods.affinity_score, 2),
        ScoreRule("ReplicaSpread", pods.replica_score, 2),
        ScoreRule("NodeResourcesBalancedAllocation", resources.balanced_allocation, 1),
        ScoreRule("ImageLocality", nodes.image_locality, 1),
        ScoreRule("NodeResourcesFit", resources.least_allocated, 1),
    ),
)


def cured_by(refused_by: frozenset[str], profile: Profile = DEFAULT) -> frozenset[str]:
    """Return the kinds of change after which a pod that those filters refused is worth another try."""
    found = frozenset(kind for rule in profile.filters if rule.name in refused_by for kind in rule.cured_by)
    return found or _NODE
