"""What a pod's status means to those who count pods."""

from api.kinds.pods import Pod, PodCondition
from client.clock import seconds_of


def is_active(pod: Pod) -> bool:
    """Return whether the pod runs or may still run: neither finished nor being deleted."""
    return pod.status.phase not in ("Succeeded", "Failed") and not pod.metadata.deletion_timestamp


def is_finished(pod: Pod) -> bool:
    """Return whether no container of the pod will run again."""
    return pod.status.phase in ("Succeeded", "Failed")


def condition(pod: Pod, type_: str) -> PodCondition | None:
    """Return the pod's condition of that type."""
    return next((each for each in pod.status.conditions if each.type == type_), None)


def is_ready(pod: Pod) -> bool:
    """Return whether the Ready condition is true."""
    ready = condition(pod, "Ready")
    return ready is not None and ready.status == "True"


def ready_since(pod: Pod) -> float:
    """Return since when (seconds since the epoch) the Ready condition has been what it is; 0 if there is none."""
    ready = condition(pod, "Ready")
    return seconds_of(ready.last_transition_time) if ready is not None else 0.0


def available_in_s(pod: Pod, min_ready_s: int, now: float) -> float | None:
    """Return in how many seconds a ready pod counts as available: 0 if it does now, None if it is not ready."""
    if not is_ready(pod):
        return None
    if min_ready_s <= 0:
        return 0.0
    return max(0.0, ready_since(pod) + min_ready_s - now)


def restarts(pod: Pod) -> int:
    """Return how often the most restarted container restarted."""
    return max((each.restart_count for each in pod.status.container_statuses), default=0)
