"""CronJobs: a Job for each moment of the schedule, as the concurrency policy allows, and no more old ones than wanted.

The name of a Job tells its moment, so a moment has one Job at most, however often a round is repeated.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec.structs import replace

from api.errors import AlreadyExists, ApiError, NotFound
from api.kinds.batch import CronJob, Job
from api.kinds.volumes import ObjectReference
from api.meta import ObjectMeta
from client.clock import seconds_of, timestamp
from client.resources import Resources
from client.runner import Runner
from master.controllers import ownership
from master.controllers.context import Context
from master.controllers.cron_schedule import Schedule, latest_due, parse
from master.controllers.job_plan import condition, is_finished_job
from master.controllers.removal import remove

MOMENT = "batch.kubernetes.io/cronjob-scheduled-timestamp"  # a Job's annotation
_LATE_S = 0.1  # so long behind a moment we look, lest a clock that is a little behind finds it not come yet


class Timetable(msgspec.Struct, frozen=True):
    """A schedule in its zone."""

    schedule: Schedule
    zone: tzinfo

    def next_in_s(self, now: float) -> float | None:
        """Return when to look again."""
        moment = self.schedule.after(now, self.zone)
        return None if moment is None else moment - now + _LATE_S


def job_for(cron: CronJob, moment: float, zone: tzinfo) -> Job:
    """Return the Job of one moment of the schedule."""
    template = cron.spec.job_template
    when = datetime.fromtimestamp(moment, zone).isoformat().replace("+00:00", "Z")
    return Job(
        metadata=ObjectMeta(
            name=f"{cron.metadata.name}-{int(moment) // 60}",
            namespace=cron.metadata.namespace,
            labels=template.metadata.labels,
            annotations={**template.metadata.annotations, MOMENT: when},
            owner_references=(ownership.reference_to_controller(cron),),
        ),
        spec=template.spec,
    )


def plan_history(cron: CronJob, jobs: Sequence[Job]) -> list[Job]:
    """Return the finished Jobs that are more than the limits allow, the oldest of each sort."""
    doomed: list[Job] = []
    limits = {"Complete": cron.spec.successful_jobs_history_limit, "Failed": cron.spec.failed_jobs_history_limit}
    for type_, limit in limits.items():
        if limit is None:
            continue
        ended = [job for job in jobs if condition(job, type_) is not None and not job.metadata.deletion_timestamp]
        ended.sort(key=lambda job: (seconds_of(job.status.start_time), job.metadata.name))
        doomed += ended[: max(0, len(ended) - limit)]
    return doomed


class CronJobController:
    """Starts Jobs on time."""

    def __init__(self, context: Context) -> None:
        self._clock = context.clock
        self._crons = context.informers.of(CronJob)
        self._jobs = context.informers.of(Job)
        self._recorder = context.recorder("cronjob-controller")
        self.runner = Runner(
            "cronjob",
            self.reconcile,
            resources=context.resources,
            informers=context.informers,
            workers=5,
            clock=context.clock,
        )
        self._crons.subscribe(self.runner.queue.add)
        self._jobs.subscribe(self.runner.queue.add, _of_job)

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Bring one CronJob's history and status up to date, and start the Job that is due."""
        cron = self._crons.get(key)
        if cron is None:
            return None
        jobs = [job for job in self._jobs.owned_by(cron.metadata.uid) if _is_controlled(job, cron)]
        for job in plan_history(cron, jobs):
            await self._delete(api, cron, job)
        cron = await self._observe(api, cron, jobs)
        if cron.metadata.deletion_timestamp or cron.spec.suspend:
            return None
        timetable = self._timetable(cron)
        return None if timetable is None else await self._start_due(api, cron, jobs, timetable)

    def _timetable(self, cron: CronJob) -> Timetable | None:
        """Return when the CronJob is due; None, with an event, if nobody can tell."""
        try:
            zone = ZoneInfo(cron.spec.time_zone) if cron.spec.time_zone else UTC
        except (ZoneInfoNotFoundError, OSError, ValueError):
            what = f"invalid timeZone: {cron.spec.time_zone!r}: unknown time zone {cron.spec.time_zone}"
            self._tell(cron, "Warning", "UnknownTimeZone", what)
            return None
        try:
            return Timetable(parse(cron.spec.schedule), zone)
        except ValueError as error:
            what = f"unparseable schedule: {cron.spec.schedule!r} : {error}"
            self._tell(cron, "Warning", "UnparseableSchedule", what)
            return None

    async def _observe(self, api: Resources, cron: CronJob, jobs: Sequence[Job]) -> CronJob:
        """Write what became of the Jobs that were started: those that go on, and when one last succeeded."""
        by_uid = {job.metadata.uid: job for job in jobs}
        active = []
        for each in cron.status.active:
            job = by_uid.get(each.uid)
            if job is None and await self._is_there(api, each):
                active.append(each)  # our cache lags behind our own write
            elif job is None:
                self._tell(cron, "Warning", "MissingJob", f"Active job went missing: {each.name}")
            elif is_finished_job(job):
                ended = condition(job, "Complete", "Failed")
                how = ended.type if ended is not None else ""
                self._tell(cron, "Normal", "SawCompletedJob", f"Saw completed job: {each.name}, condition: {how}")
            else:
                active.append(each)
        won = [job.status.completion_time for job in jobs if condition(job, "Complete") is not None]
        last = max([cron.status.last_successful_time, *won], key=seconds_of)
        status = replace(cron.status, active=tuple(active), last_successful_time=last)
        if status == cron.status:
            return cron
        return await api.update(replace(cron, status=status), subresource="status")

    async def _is_there(self, api: Resources, reference: ObjectReference) -> bool:
        try:
            found = await api.get(Job, reference.name, namespace=reference.namespace)
        except NotFound:
            return False
        return found.metadata.uid == reference.uid

    async def _start_due(
        self, api: Resources, cron: CronJob, jobs: Sequence[Job], timetable: Timetable
    ) -> float | None:
        """Start the Job of the latest moment that has come, unless a policy speaks against it."""
        now, deadline_s = self._clock.time(), cron.spec.starting_deadline_seconds
        again_s = timetable.next_in_s(now)
        since = seconds_of(cron.status.last_schedule_time or cron.metadata.creation_timestamp)
        if deadline_s is not None:
            since = max(since, now - deadline_s)
        moment, many = latest_due(timetable.schedule, since, now, timetable.zone)
        if many:
            self._tell(cron, "Warning", "TooManyMissedTimes", "too many missed start times. Set or decrease "
                       ".spec.startingDeadlineSeconds or check clock skew")  # fmt: skip
        if moment is None or moment <= seconds_of(cron.status.last_schedule_time):
            return again_s
        if cron.status.active and cron.spec.concurrency_policy == "Forbid":
            self._tell(cron, "Normal", "JobAlreadyActive", "Not starting job because prior execution is running and "
                       "concurrency policy is Forbid")  # fmt: skip
            return again_s
        if cron.spec.concurrency_policy == "Replace":
            names = {each.uid for each in cron.status.active}
            for job in jobs:
                if job.metadata.uid in names:
                    await self._delete(api, cron, job)
            cron = replace(cron, status=replace(cron.status, active=()))
        made = await self._create(api, cron, job_for(cron, moment, timetable.zone))
        active = cron.status.active
        if made is not None and not is_finished_job(made) and all(each.uid != made.metadata.uid for each in active):
            active = (*active, _reference(made))
        status = replace(cron.status, active=active, last_schedule_time=timestamp(moment))
        await api.update(replace(cron, status=status), subresource="status")
        return again_s

    async def _create(self, api: Resources, cron: CronJob, job: Job) -> Job | None:
        """Return the Job, made now or by a round before; None if the name is somebody else's."""
        try:
            made = await api.create(job)
        except AlreadyExists:
            present = await api.get(Job, job.metadata.name, namespace=job.metadata.namespace)
            return present if _is_controlled(present, cron) else None
        except ApiError as error:
            self._tell(cron, "Warning", "FailedCreate", f"Error creating job: {error.message}")
            raise
        self._tell(cron, "Normal", "SuccessfulCreate", f"Created job {made.metadata.name}")
        return made

    async def _delete(self, api: Resources, cron: CronJob, job: Job) -> None:
        try:
            if not await remove(api, job, propagation="Background"):
                return
        except ApiError as error:
            self._tell(cron, "Warning", "FailedDelete", f"Deleted job: {error.message}")
            raise
        self._tell(cron, "Normal", "SuccessfulDelete", f"Deleted job {job.metadata.name}")

    def _tell(self, cron: CronJob, kind: str, reason: str, message: str) -> None:
        self._recorder.event(cron, kind=kind, reason=reason, message=message)


def _of_job(before: Job | None, after: Job | None) -> Sequence[str]:
    """A Job concerns the CronJob that made it."""
    found: dict[str, None] = {}
    for state in (before, after):
        owner = ownership.controller_of(state) if state is not None else None
        if state is not None and owner is not None and owner.kind == "CronJob":
            found[f"{state.metadata.namespace}/{owner.name}"] = None
    return tuple(found)


def _is_controlled(job: Job, cron: CronJob) -> bool:
    owner = ownership.controller_of(job)
    return owner is not None and owner.uid == cron.metadata.uid


def _reference(job: Job) -> ObjectReference:
    meta = job.metadata
    return ObjectReference(
        api_version="batch/v1",
        kind="Job",
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        resource_version=meta.resource_version,
    )
