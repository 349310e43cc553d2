"""The condition by which a pod tells why it was made to go, whoever made it: DisruptionTarget.

Job controllers and people read it after the pod has ended. Source: kubernetes.io, "Disruptions", "Pod disruption
conditions"; reasons and messages are the real controllers'.
"""

from typing import NamedTuple

from msgspec.structs import replace

from api.kinds.pods import Pod, PodCondition

TARGET = "DisruptionTarget"


class Cause(NamedTuple):
    """Why a pod goes."""

    reason: str
    message: str


EVICTED = Cause("EvictionByEvictionAPI", "Eviction API: evicting")
TAINTED = Cause("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
PREEMPTED = Cause("PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod")
ORPHANED = Cause("DeletionByPodGC", "PodGC: node no longer exists")


def as_target(pod: Pod, cause: Cause, now: str) -> Pod:
    """Return the pod with the condition; its time is when it was first made to go."""
    before = next((each for each in pod.status.conditions if each.type == TARGET), None)
    known = before is not None and before.status == "True"
    condition = PodCondition(
        type=TARGET,
        status="True",
        reason=cause.reason,
        message=cause.message,
        last_transition_time=before.last_transition_time if before is not None and known else now,
        observed_generation=pod.metadata.generation,
    )
    others = tuple(each for each in pod.status.conditions if each.type != TARGET)
    return replace(pod, status=replace(pod.status, conditions=(*others, condition)))
