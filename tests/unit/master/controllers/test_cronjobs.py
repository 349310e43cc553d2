"""CronJobs: Jobs on time, one for each moment, as the policies say."""

from msgspec.structs import replace

from api.kinds.batch import CronJob, CronJobSpec, Job, JobCondition, JobSpec, JobTemplateSpec
from api.kinds.core import Event
from api.meta import ObjectMeta
from client.clock import timestamp
from master.controllers.cronjob import MOMENT, CronJobController
from master.controllers.manager import Row
from tests.fakes.world import World, template

ROWS = (Row("cronjob", CronJobController),)


def cronjob(schedule: str = "* * * * *", **spec: object) -> CronJob:
    given = {
        "schedule": schedule,
        "concurrency_policy": "Allow",
        "suspend": False,
        "successful_jobs_history_limit": 3,
        "failed_jobs_history_limit": 1,
        "job_template": JobTemplateSpec(
            metadata=ObjectMeta(labels={"of": "night"}), spec=JobSpec(template=template({}, restart_policy="Never"))
        ),
        **spec,
    }
    return CronJob(metadata=ObjectMeta(name="night", namespace="default"), spec=CronJobSpec(**given))  # type: ignore[arg-type]


def jobs(world: World) -> list[Job]:
    found = [job for job in world.resources.all(Job) if not job.metadata.deletion_timestamp]
    return sorted(found, key=lambda job: job.metadata.name)


def shown(world: World) -> CronJob:
    found = world.resources.find(CronJob, "night", "default")
    assert found is not None
    return found


def reasons(world: World) -> set[str]:
    return {event.reason for event in world.resources.all(Event)}


async def finish(world: World, job: Job, how: str = "Complete") -> None:
    now = timestamp(world.clock.time())
    status = replace(
        job.status,
        start_time=now,
        completion_time=now if how == "Complete" else "",
        conditions=(JobCondition(type=how, status="True"),),
    )
    await world.resources.update(replace(job, status=status), subresource="status")
    await world.settle()


async def test_every_minute_has_one_job_and_the_status_names_those_that_run() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(cronjob())
        await world.pass_time(121)
        first, second = jobs(world)
        assert first.metadata.labels == {"of": "night"}
        assert first.metadata.annotations[MOMENT].endswith(":00Z")
        assert first.metadata.name < second.metadata.name
        assert [each.name for each in shown(world).status.active] == [first.metadata.name, second.metadata.name]
        assert shown(world).status.last_schedule_time == second.metadata.annotations[MOMENT]
        await finish(world, first)
        assert [each.name for each in shown(world).status.active] == [second.metadata.name]
        assert shown(world).status.last_successful_time == timestamp(world.clock.time())
        await world.resources.delete(Job, second.metadata.name, namespace="default", propagation="Background")
        await world.settle()
        assert shown(world).status.active == ()
        assert {"SuccessfulCreate", "SawCompletedJob", "MissingJob"} <= reasons(world)


async def test_forbid_waits_and_replace_does_not() -> None:
    for policy, count in (("Forbid", 1), ("Replace", 1), ("Allow", 2)):
        world = World(rows=ROWS)
        async with world.running():
            await world.resources.create(cronjob(concurrency_policy=policy))
            await world.pass_time(61)
            (first,) = jobs(world)
            await world.pass_time(60)
            assert len(jobs(world)) == count
            assert (first.metadata.uid in {job.metadata.uid for job in jobs(world)}) is (policy != "Replace")
            if policy == "Forbid":
                assert "JobAlreadyActive" in reasons(world)
                await finish(world, first)
                await world.pass_time(60)
                assert len(jobs(world)) == 2


async def test_nothing_begins_while_suspended_and_only_the_latest_afterwards() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(cronjob(suspend=True))
        await world.pass_time(200)
        assert jobs(world) == []
        await world.resources.update(replace(shown(world), spec=replace(shown(world).spec, suspend=False)))
        await world.settle()
        assert len(jobs(world)) == 1


async def test_what_was_missed_for_too_long_is_left_out() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(cronjob("0 * * * *", suspend=True, starting_deadline_seconds=20))
        await world.pass_time(3600 + 30 - world.clock.time() % 3600, step_s=60)
        await world.resources.update(replace(shown(world), spec=replace(shown(world).spec, suspend=False)))
        await world.settle()
        assert jobs(world) == []


async def test_old_jobs_go_the_successful_and_the_failed_by_their_own_limits() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(cronjob(successful_jobs_history_limit=1, failed_jobs_history_limit=0))
        for how in ("Complete", "Failed", "Complete"):
            await world.pass_time(61)
            await finish(world, jobs(world)[-1], how)
        assert len(jobs(world)) == 1
        assert jobs(world)[0].status.conditions[0].type == "Complete"


async def test_a_zone_that_nobody_knows_is_told_of() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(cronjob(time_zone="Mars/Olympus"))
        await world.pass_time(61)
        assert jobs(world) == []
        assert "UnknownTimeZone" in reasons(world)
