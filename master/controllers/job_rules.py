"""What a Job's policies say of pods that ended: which failures count, which end all, when enough is done.

Source: kubernetes.io, "Jobs": "Pod failure policy", "Success policy", "Backoff limit per index".
"""

from collections.abc import Iterable, Sequence

import msgspec

from api.kinds.batch import Job, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule
from api.kinds.pods import Pod
from client.clock import seconds_of
from client.informer import key_of
from master.controllers.job_indexes import covers, parse

_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 10.0, 600.0


class Verdict(msgspec.Struct, frozen=True):
    """What the failure policy does about one pod: Count, Ignore, FailIndex or FailJob, and why."""

    action: str = "Count"
    why: str = ""


def judge(job: Job, pod: Pod) -> Verdict:
    """Return what the first rule that knows the pod's failure says; without one it counts."""
    policy = job.spec.pod_failure_policy
    if policy is None or pod.status.phase != "Failed":
        return Verdict()
    for number, rule in enumerate(policy.rules):
        if why := _reason(rule, pod):
            return Verdict(rule.action, f"{why} matching {rule.action} rule at index {number}")
    return Verdict()


def _reason(rule: PodFailurePolicyRule, pod: Pod) -> str:
    if rule.on_exit_codes is not None:
        return _of_exit_codes(rule.on_exit_codes, pod)
    for pattern in rule.on_pod_conditions:
        for each in pod.status.conditions:
            if each.type == pattern.type and each.status == (pattern.status or "True"):
                return f"Pod {key_of(pod)} has condition {each.type}"
    return ""


def _of_exit_codes(wanted: PodFailurePolicyOnExitCodesRequirement, pod: Pod) -> str:
    for each in (*pod.status.init_container_statuses, *pod.status.container_statuses):
        ended = each.state.terminated if each.state is not None else None
        if ended is None or not ended.exit_code or wanted.container_name not in ("", each.name):
            continue
        if (ended.exit_code in wanted.values) == (wanted.operator == "In"):
            return f"Container {each.name} for pod {key_of(pod)} failed with exit code {ended.exit_code}"
    return ""


def enough(job: Job, completed: frozenset[int]) -> str:
    """Return which rule of the success policy the ``completed`` indexes meet, in words; "" if none."""
    policy = job.spec.success_policy
    count = job.spec.completions or 0
    for number, rule in enumerate(policy.rules if policy is not None else ()):
        wanted = parse(rule.succeeded_indexes, count) if rule.succeeded_indexes else frozenset(range(count))
        # A rule about indexes that no pod works on is met by nothing, not by everything.
        if wanted and covers(completed, wanted, rule.succeeded_count):
            return f"Matched rules at index {number}"
    return ""


def restarted_too_often(job: Job, pods: Iterable[Pod]) -> bool:
    """Return whether containers that restart in place have used up the backoff limit."""
    if job.spec.template.spec.restart_policy != "OnFailure":
        return False
    limit = 6 if job.spec.backoff_limit is None else job.spec.backoff_limit
    restarts = sum(
        each.restart_count
        for pod in pods
        if pod.status.phase in ("Pending", "Running")
        for each in (*pod.status.init_container_statuses, *pod.status.container_statuses)
    )
    return restarts > 0 if limit == 0 else restarts >= limit


def finished_at(pod: Pod) -> float:
    """Return when (seconds since the epoch) the last container of a pod ended; 0 if nothing tells."""
    states = [each.state.terminated for each in pod.status.container_statuses if each.state is not None]
    moments = [seconds_of(each.finished_at) for each in states if each is not None and each.finished_at]
    ready = next((each for each in pod.status.conditions if each.type == "Ready"), None)
    fallback = ready.last_transition_time if ready is not None else pod.metadata.deletion_timestamp
    return max(moments, default=seconds_of(fallback) if fallback else 0.0)


def backoff_s(ended: Sequence[Pod], now: float) -> float:
    """Return for how many seconds no new pod is made: longer with each failure since the last success.

    ended: the pods that succeeded or failed and count.
    """
    failures, last = 0, 0.0
    for pod in sorted(ended, key=finished_at):
        failures = 0 if pod.status.phase == "Succeeded" else min(failures + 1, 16)
        last = finished_at(pod)
    if not failures:
        return 0.0
    wait_s = min(_FIRST_BACKOFF_S * 2.0 ** (failures - 1), _LONGEST_BACKOFF_S)
    return max(0.0, last + wait_s - now)
