"""What a Job does next: a pure function of the Job, its pods and the time.

A pod that ended is counted once, whoever deletes it: it has a finalizer until the status says that it was counted. So a
round first moves uids whose finalizer is gone into the counters, then notes those that ended since as uncounted; after
that status is written their finalizers go. A Job that is decided (enough succeeded, or too much failed) says so at
once, stops its pods, and is Complete or Failed when they have gone and all are counted.
Source: kubernetes.io, "Jobs"; "Pod backoff failure policy"; "Tracking of Jobs with finalizers".
"""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from api.kinds.batch import Job, JobCondition, JobStatus, UncountedTerminatedPods
from api.kinds.pods import Container, EnvVar, EnvVarSource, Pod
from api.kinds.volumes import ObjectFieldSelector
from client.clock import seconds_of, timestamp
from master.controllers import job_indexes
from master.controllers.job_indexes import FAILURES, INDEX, failures_before, index_of
from master.controllers.job_rules import Verdict, backoff_s, enough, judge, restarted_too_often
from master.controllers.ownership import reference_to_controller
from master.controllers.podstate import is_active, is_finished, is_ready
from master.controllers.replicas import BURST, pick_doomed, pod_from

TRACKING = "batch.kubernetes.io/job-tracking"
DEFAULT_BACKOFF_LIMIT = 6
_ENOUGH, _TOO_MUCH = "SuccessCriteriaMet", "FailureTarget"


class Tally(msgspec.Struct, frozen=True):
    """How far the work is: counted pods and those that are about to be."""

    succeeded: int
    failed: int
    completed: frozenset[int]  # indexes, as the next two; empty for Jobs without them
    failed_indexes: frozenset[int]
    uncounted: UncountedTerminatedPods
    fatal: str  # why the failure policy ends the Job; "" if it does not
    release: Sequence[Pod]  # whose finalizers may go once the status is written


class Plan(msgspec.Struct, frozen=True):
    """One round: the status first, then all else; when (seconds) to look again."""

    status: JobStatus
    create: Sequence[Pod] = ()
    delete: Sequence[Pod] = ()
    release: Sequence[Pod] = ()
    again_s: float | None = None


def condition(job: Job, *types: str) -> JobCondition | None:
    """Return the first true condition of any of ``types``."""
    return next((each for each in job.status.conditions if each.type in types and each.status == "True"), None)


def is_finished_job(job: Job) -> bool:
    """Return whether the Job is Complete or Failed."""
    return condition(job, "Complete", "Failed") is not None


def is_indexed(job: Job) -> bool:
    """Return whether each pod works on a part of its own."""
    return job.spec.completion_mode == "Indexed"


def is_tracked(pod: Pod) -> bool:
    """Return whether the pod waits to be counted before it may vanish."""
    return TRACKING in pod.metadata.finalizers


def _failed(job: Job, pod: Pod) -> bool:
    if pod.status.phase == "Failed":
        return True
    # One that is being deleted may never get as far as Failed, unless the author waits for that.
    waits = job.spec.pod_replacement_policy == "Failed"
    return bool(pod.metadata.deletion_timestamp) and pod.status.phase != "Succeeded" and not waits


def tally(job: Job, pods: Sequence[Pod]) -> Tally:
    """Return what has been done, counting each pod once."""
    status, indexed = job.status, is_indexed(job)
    before = status.uncounted_terminated_pods or UncountedTerminatedPods()
    tracked = {pod.metadata.uid: pod for pod in pods if is_tracked(pod)}
    won = tuple(uid for uid in before.succeeded if uid in tracked)
    lost = tuple(uid for uid in before.failed if uid in tracked)
    counted_won = (status.succeeded or 0) + len(before.succeeded) - len(won)
    counted_lost = (status.failed or 0) + len(before.failed) - len(lost)
    count = job.spec.completions or 0
    completed = job_indexes.parse(status.completed_indexes, count) if indexed else frozenset()
    failed_indexes = job_indexes.parse(status.failed_indexes, count) if indexed else frozenset()
    ignored, fatal = [], ""
    for uid, pod in tracked.items():
        if uid in lost:
            continue  # also where one that was counted as it was deleted has come to a good end since
        if pod.status.phase == "Succeeded":
            if indexed:
                completed |= {index for index in (index_of(pod),) if index is not None and index < count}
            elif uid not in won:
                won = (*won, uid)
        elif _failed(job, pod):
            verdict = judge(job, pod)
            if verdict.action == "Ignore":
                ignored.append(uid)
                continue
            fatal = fatal or (verdict.why if verdict.action == "FailJob" else "")
            failed_indexes |= _failed_index(job, pod, verdict)
            lost = (*lost, uid)
    failed_indexes -= completed
    settled = {uid: pod for uid, pod in tracked.items() if uid in won or uid in lost or uid in ignored}
    settled |= {uid: pod for uid, pod in tracked.items() if indexed and pod.status.phase == "Succeeded"}
    return Tally(
        succeeded=len(completed) if indexed else counted_won + len(won),
        failed=counted_lost + len(lost),
        completed=completed,
        failed_indexes=failed_indexes,
        uncounted=UncountedTerminatedPods(succeeded=won, failed=lost),
        fatal=fatal,
        release=[pod for pod in settled.values() if not _is_last_of_index(job, pod, pods, completed | failed_indexes)],
    )


def _failed_index(job: Job, pod: Pod, verdict: Verdict) -> frozenset[int]:
    """Return the pod's index if it has failed for good."""
    limit, index = job.spec.backoff_limit_per_index, index_of(pod)
    if limit is None or index is None:
        return frozenset()
    return frozenset({index}) if verdict.action == "FailIndex" or failures_before(pod) >= limit else frozenset()


def _is_last_of_index(job: Job, pod: Pod, pods: Iterable[Pod], done: frozenset[int]) -> bool:
    """Return whether only this failed pod still tells how often its index has failed."""
    index = index_of(pod)
    if job.spec.backoff_limit_per_index is None or index is None or index in done or _is_decided(job):
        return False
    others = (each for each in pods if each is not pod and index_of(each) == index)
    return not any(failures_before(each) > failures_before(pod) for each in others)


def _is_decided(job: Job) -> bool:
    return condition(job, _ENOUGH, _TOO_MUCH, "Complete", "Failed") is not None


def decide(job: Job, done: Tally, pods: Sequence[Pod], now: float) -> JobCondition | None:
    """Return the condition that says that, and why, the Job is to end; None if it goes on."""
    if (known := condition(job, _ENOUGH, _TOO_MUCH)) is not None:
        return known
    if why := done.fatal:
        return _condition(_TOO_MUCH, "PodFailurePolicy", why, now)
    if is_indexed(job) and (rule := enough(job, done.completed)):
        return _condition(_ENOUGH, "SuccessPolicy", rule, now)
    per_index = job.spec.backoff_limit_per_index is not None
    limit = job.spec.backoff_limit
    limit = limit if limit is not None else 2**31 - 1 if per_index else DEFAULT_BACKOFF_LIMIT
    if done.failed > limit or restarted_too_often(job, pods):
        return _condition(_TOO_MUCH, "BackoffLimitExceeded", "Job has reached the specified backoff limit", now)
    if (left := _deadline_s(job, now)) is not None and left <= 0:
        return _condition(_TOO_MUCH, "DeadlineExceeded", "Job was active longer than specified deadline", now)
    most = job.spec.max_failed_indexes
    if most is not None and len(done.failed_indexes) > most:
        why = "Job has exceeded the specified maximal number of failed indexes"
        return _condition(_TOO_MUCH, "MaxFailedIndexesExceeded", why, now)
    if any(not is_finished(pod) for pod in pods):
        return None
    count = job.spec.completions
    if done.failed_indexes and count is not None and len(done.completed | done.failed_indexes) >= count:
        return _condition(_TOO_MUCH, "FailedIndexes", "Job has failed indexes", now)
    if done.succeeded > 0 if count is None else done.succeeded >= count:
        return _condition(_ENOUGH, "CompletionsReached", "Reached expected number of succeeded pods", now)
    return None


def _condition(type_: str, reason: str, message: str, now: float, status: str = "True") -> JobCondition:
    moment = timestamp(now)
    return JobCondition(
        type=type_, status=status, reason=reason, message=message, last_probe_time=moment, last_transition_time=moment
    )


def _deadline_s(job: Job, now: float) -> float | None:
    """Return how many seconds the Job may still be active; None if nothing limits it."""
    if job.spec.active_deadline_seconds is None or not job.status.start_time or job.spec.suspend:
        return None
    return seconds_of(job.status.start_time) + job.spec.active_deadline_seconds - now


def plan_job(job: Job, pods: Sequence[Pod], now: float) -> Plan:
    """Decide one round of a Job that is not finished. pods: all that it owns."""
    done = tally(job, pods)
    active = [pod for pod in pods if is_active(pod)]
    ending = decide(job, done, pods, now)
    create: Sequence[Pod] = ()
    delete: Sequence[Pod] = ()
    waits = [left for left in (_deadline_s(job, now),) if left is not None and left > 0]
    if ending is not None or job.spec.suspend:
        delete = active
    else:
        create, delete, wait_s = _plan_pods(job, done, pods, active, now)
        waits += [wait_s] if wait_s else []
    status = _status(job, done, pods, ending, now)
    running = [pod for pod in active if pod not in delete]
    status = replace(status, active=len(running) + len(create) or None, ready=sum(map(is_ready, running)))
    return Plan(status, create, delete, done.release, min(waits, default=None))


def _plan_pods(
    job: Job, done: Tally, pods: Sequence[Pod], active: Sequence[Pod], now: float
) -> tuple[Sequence[Pod], Sequence[Pod], float]:
    """Return (pods to make, pods to delete, for how many seconds none is made because others failed)."""
    going = [pod for pod in pods if pod.metadata.deletion_timestamp and not is_finished(pod)]
    held = going if job.spec.pod_replacement_policy == "Failed" else []
    wanted = _wanted(job, done, len(active))
    surplus: Sequence[Pod] = ()
    if is_indexed(job):
        surplus = _surplus(job, done, active)
        active = [pod for pod in active if pod not in surplus]
    if (excess := len(active) - wanted) > 0:
        return (), [*surplus, *pick_doomed(active, (), excess, now)], 0.0
    room = min(wanted - len(active) - len(held), BURST)
    if room <= 0:
        return (), surplus, 0.0
    ended = [pod for pod in pods if is_finished(pod) and judge(job, pod).action != "Ignore"]
    if job.spec.backoff_limit_per_index is None and (wait_s := backoff_s(ended, now)):
        return (), surplus, wait_s
    if not is_indexed(job):
        return [new_pod(job)] * room, surplus, 0.0
    create, wait_s = _indexed(job, done, [*active, *held], ended, room, now)
    return create, surplus, wait_s


def _wanted(job: Job, done: Tally, active: int) -> int:
    """Return how many pods should work now."""
    parallelism = 1 if job.spec.parallelism is None else job.spec.parallelism
    if job.spec.completions is None:
        # One success says that the work is done: the others finish, and no more begin.
        return min(active, parallelism) if done.succeeded else parallelism
    return max(0, min(job.spec.completions - done.succeeded - len(done.failed_indexes), parallelism))


def _surplus(job: Job, done: Tally, active: Iterable[Pod]) -> list[Pod]:
    """Return active pods that work on what is done, on what does not exist, or on the same as another."""
    surplus, seen = [], set(done.completed | done.failed_indexes)
    for pod in sorted(active, key=lambda each: not is_ready(each)):
        index = index_of(pod)
        if index is None or index >= (job.spec.completions or 0) or index in seen:
            surplus.append(pod)
        else:
            seen.add(index)
    return surplus


def _indexed(
    job: Job, done: Tally, taken: Iterable[Pod], ended: Sequence[Pod], room: int, now: float
) -> tuple[list[Pod], float]:
    """Return (the pods for the first indexes that nobody works on, seconds until one that failed may try again)."""
    busy = {index_of(pod) for pod in taken} | done.completed | done.failed_indexes
    per_index = job.spec.backoff_limit_per_index is not None
    create: list[Pod] = []
    waits: list[float] = []
    for index in range(job.spec.completions or 0):
        if len(create) == room:
            break
        if index in busy:
            continue
        failures = [pod for pod in ended if per_index and index_of(pod) == index]
        if wait_s := backoff_s(failures, now):
            waits.append(wait_s)
            continue
        tried = max((failures_before(pod) + 1 for pod in failures), default=0)
        create.append(new_pod(job, index=index, failures=tried if per_index else None))
    return create, min(waits, default=0.0)


def new_pod(job: Job, *, index: int | None = None, failures: int | None = None) -> Pod:
    """Return a pod of the Job; with its index, and how often that failed before, where the Job has them."""
    pod = pod_from(job.spec.template, job, reference_to_controller(job))
    meta = replace(pod.metadata, finalizers=(*pod.metadata.finalizers, TRACKING))
    if index is None:
        return replace(pod, metadata=meta)
    annotations = {**meta.annotations, INDEX: str(index)}
    if failures is not None:
        annotations[FAILURES] = str(failures)
    name = f"{job.metadata.name}-{index}"
    meta = replace(meta, generate_name=f"{name}-", annotations=annotations, labels={**meta.labels, INDEX: str(index)})
    spec = replace(
        pod.spec,
        hostname=name,
        containers=tuple(map(_with_index, pod.spec.containers)),
        init_containers=tuple(map(_with_index, pod.spec.init_containers)),
    )
    return replace(pod, metadata=meta, spec=spec)


def _with_index(container: Container) -> Container:
    name = "JOB_COMPLETION_INDEX"
    if any(each.name == name for each in container.env):
        return container
    source = EnvVarSource(field_ref=ObjectFieldSelector(field_path=f"metadata.annotations['{INDEX}']"))
    return replace(container, env=(*container.env, EnvVar(name=name, value_from=source)))


def _status(job: Job, done: Tally, pods: Sequence[Pod], ending: JobCondition | None, now: float) -> JobStatus:
    """Return the status but for what depends on the pods that this round makes and deletes."""
    uncounted, indexed = done.uncounted, is_indexed(job)
    pending = bool(uncounted.succeeded or uncounted.failed)
    going = sum(bool(pod.metadata.deletion_timestamp) and not is_finished(pod) for pod in pods)
    status = replace(
        job.status,
        succeeded=(done.succeeded - len(uncounted.succeeded)) or None,
        failed=(done.failed - len(uncounted.failed)) or None,
        terminating=going,
        uncounted_terminated_pods=uncounted,
        completed_indexes=job_indexes.render(done.completed) if indexed else "",
        failed_indexes=job_indexes.render(done.failed_indexes) if job.spec.backoff_limit_per_index is not None else "",
        conditions=_conditions(job, now),
    )
    if ending is None:
        return replace(status, start_time="" if job.spec.suspend else status.start_time or timestamp(now))
    conditions = status.conditions if ending in status.conditions else (*status.conditions, ending)
    status = replace(status, conditions=conditions, start_time=status.start_time or timestamp(now))
    if pending or any(not is_finished(pod) for pod in pods):
        return status
    won = ending.type == _ENOUGH
    last = _condition("Complete" if won else "Failed", ending.reason, ending.message, now)
    return replace(status, conditions=(*conditions, last), completion_time=timestamp(now) if won else "", terminating=0)


def _conditions(job: Job, now: float) -> tuple[JobCondition, ...]:
    """Return the conditions with Suspended as the spec has it; one that was never suspended has none."""
    known = next((each for each in job.status.conditions if each.type == "Suspended"), None)
    wanted = "True" if job.spec.suspend else "False"
    if (known.status if known is not None else "False") == wanted:
        return job.status.conditions
    reason, message = ("JobSuspended", "Job suspended") if job.spec.suspend else ("JobResumed", "Job resumed")
    others = tuple(each for each in job.status.conditions if each is not known)
    return (*others, _condition("Suspended", reason, message, now, wanted))


def expires_in_s(job: Job, now: float) -> float | None:
    """Return in how many seconds a finished Job is to be deleted; None if it stays."""
    ended = condition(job, "Complete", "Failed")
    if ended is None or job.spec.ttl_seconds_after_finished is None:
        return None
    return max(0.0, seconds_of(ended.last_transition_time) + job.spec.ttl_seconds_after_finished - now)
