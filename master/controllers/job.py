"""Jobs: rounds that count the pods that ended, take the planned step, and end the Job when it is decided."""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from api.errors import NotFound
from api.kinds.batch import Job
from api.kinds.pods import Pod
from api.meta import Resource
from api.selectors import LabelQuery, of_struct
from client.informer import Concerns
from client.resources import Resources
from client.runner import Runner
from master.controllers import ownership
from master.controllers.context import Context
from master.controllers.job_plan import (
    TRACKING,
    condition,
    expires_in_s,
    is_finished_job,
    is_tracked,
    plan_job,
)
from master.controllers.podcontrol import create_pod, delete_pod, first_error, slow_start
from master.controllers.podstate import is_finished

_NAME_LABEL = "batch.kubernetes.io/job-name"
_TRACKED = "tracked by job"


class JobController:
    """Runs the pods of each Job until enough of them have succeeded."""

    def __init__(self, context: Context) -> None:
        self._clock = context.clock
        self._jobs = context.informers.of(Job)
        self._pods = context.informers.of(Pod)
        ownership.add_orphan_index(self._pods)
        self._pods.add_index(_TRACKED, _job_of_tracked)
        self._recorder = context.recorder("job-controller")
        self.runner = Runner(
            "job",
            self.reconcile,
            resources=context.resources,
            informers=context.informers,
            workers=5,
            clock=context.clock,
        )
        self._jobs.subscribe(self.runner.queue.add)
        concerns: Concerns[Pod] = ownership.concerns_controllers(self._jobs, "Job", _query_of)
        self._pods.subscribe(self.runner.queue.add, concerns)
        self._pods.subscribe(self.runner.queue.add, _orphaned)

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Bring one Job a step further, or let go of the pods of one that is over."""
        job = self._jobs.get(key)
        await self._let_go(api, self._bereft(key, job))
        if job is None or job.spec.managed_by not in ("", "kubernetes.io/job-controller"):
            return None
        claims = ownership.plan_claims(job, _query_of(job), ownership.candidates_of(self._pods, job))
        # Whoever is released is counted by nobody, so nothing may hold it.
        claims = replace(claims, release=await self._let_go(api, claims.release))
        pods = await ownership.apply_claims(api, job, claims)
        if job.metadata.deletion_timestamp or is_finished_job(job):
            await self._let_go(api, pods)
            return await self._expire(api, job)
        adopted = [pod for pod in pods if not is_tracked(pod) and not is_finished(pod)]
        await self._hold(api, adopted)
        return await self._round(api, job, pods)

    def _bereft(self, key: str, job: Job | None) -> list[Pod]:
        """Return the tracked pods that a Job of this name left behind: nobody will count them."""
        leaving = job is None or bool(job.metadata.deletion_timestamp)
        found = []
        for pod in self._pods.indexed(_TRACKED, key):
            owner = ownership.controller_of(pod)
            if leaving if owner is None else (job is None or owner.uid != job.metadata.uid):
                found.append(pod)
        return found

    async def _round(self, api: Resources, job: Job, pods: Sequence[Pod]) -> float | None:
        """Count first, then act: a pod whose finalizer is gone must have been counted."""
        plan = plan_job(job, pods, self._clock.time())
        if plan.status != job.status:
            before, job = job, await api.update(replace(job, status=plan.status), subresource="status")
            self._tell_changes(before, job)
        await self._let_go(api, plan.release)
        error = await first_error([delete_pod(api, pod, owner=job, recorder=self._recorder) for pod in plan.delete])
        creations = iter(plan.create)

        async def create() -> None:
            await create_pod(api, next(creations), owner=job, recorder=self._recorder)

        error = await slow_start(create, len(plan.create)) or error
        if error is not None:
            raise error
        return plan.again_s

    async def _expire(self, api: Resources, job: Job) -> float | None:
        """Delete a finished Job, and its pods with it, when its time has come."""
        left = expires_in_s(job, self._clock.time())
        if left is None or job.metadata.deletion_timestamp:
            return None
        if left > 0:
            return left
        meta = job.metadata
        try:
            await api.delete(
                Job,
                meta.name,
                namespace=meta.namespace,
                uid=meta.uid,
                resource_version=meta.resource_version,
                propagation="Foreground",
            )
        except NotFound:
            return None
        return None

    async def _hold(self, api: Resources, pods: Iterable[Pod]) -> None:
        """Let no pod vanish before it is counted."""
        for pod in pods:
            if not pod.metadata.deletion_timestamp:
                await _set_finalizers(api, pod, (*pod.metadata.finalizers, TRACKING))

    async def _let_go(self, api: Resources, pods: Iterable[Pod]) -> list[Pod]:
        """Take our finalizer from ``pods``; return them as they are then, without those that were gone."""
        changed = [await _set_finalizers(api, pod, _others(pod)) if is_tracked(pod) else pod for pod in pods]
        return [pod for pod in changed if pod is not None]

    def _tell_changes(self, before: Job, after: Job) -> None:
        if (ended := condition(after, "Complete", "Failed")) is not None:
            if ended.type == "Complete":
                self._tell(after, "Normal", "Completed", "Job completed")
            else:
                self._tell(after, "Warning", ended.reason, ended.message)
        elif (condition(before, "Suspended") is None) != (condition(after, "Suspended") is None):
            word = "Suspended" if condition(after, "Suspended") is not None else "Resumed"
            self._tell(after, "Normal", word, f"Job {word.lower()}")

    def _tell(self, about: Resource, kind: str, reason: str, message: str) -> None:
        self._recorder.event(about, kind=kind, reason=reason, message=message)


def _query_of(job: Job) -> LabelQuery:
    return of_struct(job.spec.selector)


def _job_of_tracked(pod: Pod) -> Iterable[str]:
    """Return the key of the Job that a tracked pod names as its controller, or was made by if it has none."""
    if not is_tracked(pod):
        return ()
    owner = ownership.controller_of(pod)
    if owner is not None and owner.kind != "Job":
        return ()
    name = owner.name if owner is not None else pod.metadata.labels.get(_NAME_LABEL, "")
    return (f"{pod.metadata.namespace}/{name}",) if name else ()


def _orphaned(before: Pod | None, after: Pod | None) -> Iterable[str]:  # noqa: ARG001 - one shape for all
    """A tracked pod without a controller concerns the Job that made it: it may be gone."""
    return () if after is None or ownership.controller_of(after) is not None else _job_of_tracked(after)


def _others(pod: Pod) -> tuple[str, ...]:
    """Return the pod's finalizers without ours."""
    return tuple(each for each in pod.metadata.finalizers if each != TRACKING)


async def _set_finalizers(api: Resources, pod: Pod, finalizers: Sequence[str]) -> Pod | None:
    """Return the pod with these finalizers; None if it is gone, or another pod by now."""
    meta = pod.metadata
    patch = {
        "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": list(finalizers) or None}
    }
    try:
        return await api.patch(Pod, meta.name, patch, namespace=meta.namespace)
    except NotFound:
        return None
