"""A pod's condition in one word and a few figures, as ``kubectl get pods`` shows it.

The word is the phase unless something says more: a reason on the pod, the init container it waits for, the state of
its containers, its deletion. Source: kubernetes.io, "Pod Lifecycle", and the output of kubectl.
"""

from typing import NamedTuple

from api.durations import human, parse_time
from api.kinds.pods import Container, ContainerState, ContainerStatus, Pod


class PodSummary(NamedTuple):
    """What one line shows."""

    status: str
    ready: int
    containers: int
    restarts: int
    last_restart_unix_s: float | None

    def restarts_text(self, now: float) -> str:
        """Return ``0``, or ``3 (5m ago)``."""
        if not self.restarts or self.last_restart_unix_s is None:
            return str(self.restarts)
        return f"{self.restarts} ({human(now - self.last_restart_unix_s)} ago)"


class _Tally:
    """Adds up ready containers and restarts."""

    def __init__(self) -> None:
        self.ready = 0
        self.restarts = 0
        self.last_restart_unix_s: float | None = None

    def add_restarts(self, status: ContainerStatus) -> None:
        self.restarts += status.restart_count
        ended = status.last_state.terminated if status.last_state else None
        if ended is not None and (at := parse_time(ended.finished_at)) is not None:
            self.last_restart_unix_s = max(at, self.last_restart_unix_s or at)


def is_sidecar(container: Container) -> bool:
    """Return whether an init container goes on running beside the others."""
    return container.restart_policy == "Always"


def summarize(pod: Pod) -> PodSummary:
    """Return the summary of one pod."""
    sidecars = {each.name for each in pod.spec.init_containers if is_sidecar(each)}
    inits, tally = _Tally(), _Tally()
    initializing = _initializing(pod, sidecars, inits, tally)
    reason = initializing or _scheduling(pod)
    if not initializing or _has_condition(pod, "Initialized"):
        reason = _running(pod, tally, reason)
    else:
        tally.restarts, tally.last_restart_unix_s = inits.restarts, inits.last_restart_unix_s
    if pod.metadata.deletion_timestamp:
        if pod.status.reason == "NodeLost":
            reason = "Unknown"
        elif pod.status.phase not in ("Succeeded", "Failed"):
            reason = "Terminating"
    total = len(pod.spec.containers) + len(sidecars)
    return PodSummary(reason, tally.ready, total, tally.restarts, tally.last_restart_unix_s)


def _scheduling(pod: Pod) -> str:
    for condition in pod.status.conditions:
        if condition.type == "PodScheduled" and condition.reason == "SchedulingGated":
            return "SchedulingGated"
    return pod.status.reason or pod.status.phase


def _has_condition(pod: Pod, wanted: str) -> bool:
    return any(each.type == wanted and each.status == "True" for each in pod.status.conditions)


def _initializing(pod: Pod, sidecars: set[str], inits: _Tally, tally: _Tally) -> str:
    """Return what the first unfinished init container is about, or an empty text when all are done.

    inits receives the restarts of all init containers so far, tally what counts of the sidecars.
    """
    for index, status in enumerate(pod.status.init_container_statuses):
        inits.add_restarts(status)
        if status.name in sidecars:
            tally.add_restarts(status)
        state = status.state or ContainerState()
        if state.terminated and state.terminated.exit_code == 0:
            continue
        if status.name in sidecars and status.started:
            tally.ready += status.ready
            continue
        if state.terminated:
            return "Init:" + _ended(state)
        if state.waiting and state.waiting.reason not in ("", "PodInitializing"):
            return "Init:" + state.waiting.reason
        return f"Init:{index}/{len(pod.spec.init_containers)}"
    return ""


def _ended(state: ContainerState) -> str:
    ended = state.terminated
    assert ended is not None
    if ended.reason:
        return ended.reason
    return f"Signal:{ended.signal}" if ended.signal else f"ExitCode:{ended.exit_code}"


def _running(pod: Pod, tally: _Tally, reason: str) -> str:
    """Return what the containers say, the first one having the last word; ``reason`` if they say nothing."""
    any_running = False
    for status in reversed(pod.status.container_statuses):
        tally.add_restarts(status)
        state = status.state or ContainerState()
        if state.waiting and state.waiting.reason:
            reason = state.waiting.reason
        elif state.terminated:
            reason = _ended(state)
        elif status.ready and state.running:
            any_running = True
            tally.ready += 1
    if reason == "Completed" and any_running:
        return "Running" if _has_condition(pod, "Ready") else "NotReady"
    return reason
