"""Disruption budgets as values: whom one covers, what it says of itself, and what an eviction takes from it.

The controller writes a budget's status from what pods are doing (``master.controllers.disruption``); an eviction spends
from it in between (``master.evictions``). Both may write at any time, so ``disruptedPods`` tells the controller which
pods are as good as gone though they still look healthy.

Source: kubernetes.io, "Disruptions", "Specifying a Disruption Budget", "API-initiated Eviction".
"""

from collections.abc import Mapping

from msgspec.structs import replace

from api import selectors
from api.errors import Fault, Forbidden, TooManyRequests
from api.kinds.pods import Pod
from api.kinds.policy import PodDisruptionBudget, PodDisruptionBudgetStatus
from api.meta import Condition

ALLOWED = "DisruptionAllowed"
SUFFICIENT, INSUFFICIENT, SYNC_FAILED = "SufficientPods", "InsufficientPods", "SyncFailed"
ALWAYS_ALLOW = "AlwaysAllow"
# Evictions that the controller has not confirmed; more than these and something is wrong with it.
MAX_DISRUPTED = 2000
REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."
# How long a client waits for the controller to look at a budget that has just changed.
PROCESSED_IN_S = 10


def covers(budget: PodDisruptionBudget, labels: Mapping[str, str]) -> bool:
    """Return whether the budget is about pods with these labels: all if its selector is empty, none if it has none."""
    return selectors.of_struct(budget.spec.selector).matches(labels)


def with_condition(
    status: PodDisruptionBudgetStatus, now: str, *, failure: str | None = None
) -> PodDisruptionBudgetStatus:
    """Return ``status`` with the condition that goes with its figures.

    now: when the condition changed, if it does. failure: why the figures could not be made out; None if they could.
    """
    allowed = failure is None and (status.disruptions_allowed or 0) > 0
    reason = SYNC_FAILED if failure is not None else SUFFICIENT if allowed else INSUFFICIENT
    told = "True" if allowed else "False"
    before = next((each for each in status.conditions if each.type == ALLOWED), None)
    condition = Condition(
        type=ALLOWED,
        status=told,
        reason=reason,
        message=failure or "",
        observed_generation=status.observed_generation,
        last_transition_time=before.last_transition_time if before is not None and before.status == told else now,
    )
    others = tuple(each for each in status.conditions if each.type != ALLOWED)
    return replace(status, conditions=(*others, condition))


def is_spared(budget: PodDisruptionBudget, pod: Pod) -> bool:
    """Return whether a pod that is not healthy may go without asking what the budget has left.

    It serves nobody now, so its going disrupts nothing, as long as those that do serve are enough; or the budget's
    owner says that it may go in any case.
    """
    if _is_ready(pod):
        return False
    status = budget.status
    wanted, present = status.desired_healthy or 0, status.current_healthy or 0
    return budget.spec.unhealthy_pod_eviction_policy == ALWAYS_ALLOW or present >= wanted > 0


def _is_ready(pod: Pod) -> bool:
    return any(each.type == "Ready" and each.status == "True" for each in pod.status.conditions)


def spend(budget: PodDisruptionBudget, pod: str, now: str) -> PodDisruptionBudget:
    """Return the budget after the eviction of ``pod``; raises TooManyRequests if it has nothing left."""
    name, status = budget.metadata.name, budget.status
    if (status.observed_generation or 0) < (budget.metadata.generation or 0):
        raise still_processed(name)
    left, disrupted = status.disruptions_allowed or 0, status.disrupted_pods
    if left < 0:
        raise _forbidden(name, "pdb disruptions allowed is negative")
    if len(disrupted) > MAX_DISRUPTED:
        raise _forbidden(name, "DisruptedPods map too big - too many evictions not confirmed by PDB controller")
    if left == 0:
        # Without a time to wait: nobody knows when a pod becomes healthy, and clients have their own ideas of asking
        # again. (kubectl says why it waits only if its library does not already wait by itself.)
        wanted, present = status.desired_healthy or 0, status.current_healthy or 0
        why = f"The disruption budget {name} needs {wanted} healthy pods and has {present} currently"
        raise TooManyRequests(REFUSED, causes=[Fault("", why, "DisruptionBudget")])
    spent = replace(status, disruptions_allowed=left - 1, disrupted_pods={**disrupted, pod: now})
    return replace(budget, status=spent if left > 1 else with_condition(spent, now))


def still_processed(name: str) -> TooManyRequests:
    """Return what a client is told whose eviction meets a budget that the controller has not looked at yet."""
    why = f"The disruption budget {name} is still being processed by the server."
    return TooManyRequests(REFUSED, causes=[Fault("", why, "DisruptionBudget")], retry_after_s=PROCESSED_IN_S)


def _forbidden(name: str, why: str) -> Forbidden:
    return Forbidden(
        f'poddisruptionbudgets.policy "{name}" is forbidden: {why}',
        name=name, group="policy", kind="poddisruptionbudgets",
    )  # fmt: skip
