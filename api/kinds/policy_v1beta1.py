"""policy/v1beta1: the older version of PodDisruptionBudget, with the same fields."""

from api.kinds import policy


class PodDisruptionBudget(policy.PodDisruptionBudget, frozen=True, kw_only=True):
    """Pod Disruption Budget."""
