"""Jobs, from the object to the pods, to the count of those that ended, to the end."""

import pytest
from msgspec.structs import replace

from api.kinds.batch import (
    Job,
    JobSpec,
    JobStatus,
    PodFailurePolicy,
    PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyRule,
    SuccessPolicy,
    SuccessPolicyRule,
    UncountedTerminatedPods,
)
from api.kinds.pods import ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus
from api.meta import LabelSelector, ObjectMeta
from client.clock import timestamp
from master.controllers import job_indexes
from master.controllers.job import JobController
from master.controllers.job_plan import TRACKING, tally
from master.controllers.job_rules import enough
from master.controllers.manager import Row
from tests.fakes.world import World, template

ROWS = (Row("job", JobController),)
LABELS = {"batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "sum"}


def job(**spec: object) -> Job:
    given = {
        "parallelism": 1,
        "completions": 1,
        "backoff_limit": 6,
        "completion_mode": "NonIndexed",
        "suspend": False,
        "pod_replacement_policy": "TerminatingOrFailed",
        "selector": LabelSelector(match_labels=LABELS),
        "template": template(LABELS, restart_policy="Never"),
        **spec,
    }
    return Job(metadata=ObjectMeta(name="sum", namespace="default"), spec=JobSpec(**given))  # type: ignore[arg-type]


async def agents(world: World) -> None:
    """Bind and start pods, and end deleted ones."""
    await world.settle()
    for pod in world.resources.all(Pod):
        if not pod.spec.node_name and not pod.metadata.deletion_timestamp:
            await world.resources.bind(namespace="default", pod=pod.metadata.name, uid=pod.metadata.uid, node="n1")
    await world.run_pods()
    await world.settle()


async def end(world: World, pod: Pod, phase: str, code: int = 0) -> None:
    ended = ContainerStateTerminated(exit_code=code, finished_at=timestamp(world.clock.time()))
    status = replace(
        pod.status,
        phase=phase,
        conditions=(),
        container_statuses=(ContainerStatus(name="main", state=ContainerState(terminated=ended)),),
    )
    await world.resources.update(replace(pod, status=status), subresource="status")
    await world.settle()


def shown(world: World) -> Job:
    found = world.resources.find(Job, "sum", "default")
    assert found is not None
    return found


def running(world: World) -> list[Pod]:
    found = [pod for pod in world.resources.all(Pod) if pod.status.phase == "Running"]
    return sorted(found, key=lambda pod: (pod.metadata.annotations.get(job_indexes.INDEX, ""), pod.metadata.name))


def held(world: World, index: str) -> int:
    """Return how many pods of an index may not vanish."""
    found = [pod for pod in world.resources.all(Pod) if pod.metadata.annotations.get(job_indexes.INDEX) == index]
    return sum(TRACKING in pod.metadata.finalizers for pod in found)


def true_conditions(world: World) -> dict[str, str]:
    return {each.type: each.reason for each in shown(world).status.conditions if each.status == "True"}


async def test_each_success_counts_once_and_the_last_completes() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(job(parallelism=2, completions=3))
        await agents(world)
        assert len(running(world)) == 2
        assert all(TRACKING in pod.metadata.finalizers for pod in running(world))
        for succeeded in (1, 2, 3):
            assert shown(world).status.active == min(2, 4 - succeeded)
            await end(world, running(world)[0], "Succeeded")
            await agents(world)
            assert shown(world).status.succeeded == succeeded
        status = shown(world).status
        assert true_conditions(world) == {"SuccessCriteriaMet": "CompletionsReached", "Complete": "CompletionsReached"}
        assert (status.active, status.failed) == (None, None)
        assert status.completion_time >= status.start_time != ""
        assert not any(pod.metadata.finalizers for pod in world.resources.all(Pod))


async def test_a_deleted_pod_is_counted_before_it_goes() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(job(completions=2))
        await agents(world)
        (first,) = running(world)
        await world.resources.delete(Pod, first.metadata.name, namespace="default")
        await agents(world)
        assert shown(world).status.failed == 1
        assert world.resources.find(Pod, first.metadata.name, "default") is None
        await world.pass_time(11)
        await agents(world)
        assert len(running(world)) == 1


@pytest.mark.parametrize("mode", ["NonIndexed", "Indexed"])
def test_a_pod_that_counts_as_failed_does_not_count_as_succeeded_too(mode: str) -> None:
    meta = ObjectMeta(
        name="sum-0",
        uid="p",
        deletion_timestamp="2026-01-01T00:00:00Z",
        finalizers=(TRACKING,),
        annotations={job_indexes.INDEX: "0"},
    )
    noted = JobStatus(uncounted_terminated_pods=UncountedTerminatedPods(failed=("p",)))
    counted = tally(
        replace(job(completion_mode=mode), status=noted), [Pod(metadata=meta, status=PodStatus(phase="Succeeded"))]
    )
    assert (counted.succeeded, counted.failed, counted.completed) == (0, 1, frozenset())
    assert [pod.metadata.uid for pod in counted.release] == ["p"]


async def test_failures_wait_longer_each_time_and_then_fail_the_job() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(job(backoff_limit=2))
        for wait_s in (10, 20, None):
            await agents(world)
            await end(world, running(world)[0], "Failed", 1)
            if wait_s is not None:
                await world.pass_time(wait_s - 2)
                assert running(world) == []
                assert not any(pod.status.phase == "Pending" for pod in world.resources.all(Pod))
                await world.pass_time(3)
        assert true_conditions(world) == {"FailureTarget": "BackoffLimitExceeded", "Failed": "BackoffLimitExceeded"}
        assert shown(world).status.failed == 3


async def test_one_success_is_enough_without_completions() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(job(parallelism=3, completions=None))
        await agents(world)
        await end(world, running(world)[0], "Succeeded")
        await agents(world)
        assert len(running(world)) == 2
        assert "Complete" not in true_conditions(world)
        for pod in running(world):
            await end(world, pod, "Succeeded")
        assert "Complete" in true_conditions(world)
        assert shown(world).status.succeeded == 3


async def test_a_deadline_stops_everything() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(job(parallelism=2, completions=4, active_deadline_seconds=5))
        await agents(world)
        await world.pass_time(6)
        assert true_conditions(world) == {"FailureTarget": "DeadlineExceeded"}  # until the pods have gone
        await agents(world)
        assert true_conditions(world)["Failed"] == "DeadlineExceeded"
        assert world.resources.all(Pod) == []


async def test_restarts_in_place_use_up_the_limit() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(job(backoff_limit=2, template=template(LABELS, restart_policy="OnFailure")))
        await agents(world)
        (pod,) = running(world)
        statuses = (ContainerStatus(name="main", restart_count=2),)
        await world.resources.update(
            replace(pod, status=replace(pod.status, container_statuses=statuses)), subresource="status"
        )
        await agents(world)
        assert true_conditions(world)["Failed"] == "BackoffLimitExceeded"


async def test_suspending_stops_the_pods_and_resuming_begins_anew() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(job(parallelism=2, completions=2))
        await agents(world)
        await world.resources.update(replace(shown(world), spec=replace(shown(world).spec, suspend=True)))
        await agents(world)
        await agents(world)
        assert world.resources.all(Pod) == []
        assert true_conditions(world) == {"Suspended": "JobSuspended"}
        assert (shown(world).status.start_time, shown(world).status.active) == ("", None)
        await world.resources.update(replace(shown(world), spec=replace(shown(world).spec, suspend=False)))
        await world.pass_time(60)
        await agents(world)
        assert len(running(world)) == 2
        assert true_conditions(world) == {}
        assert shown(world).status.start_time != ""


async def test_indexes_are_worked_off_one_by_one() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(job(parallelism=2, completions=3, completion_mode="Indexed"))
        await agents(world)
        first, second = running(world)
        assert (first.spec.hostname, second.metadata.annotations[job_indexes.INDEX]) == ("sum-0", "1")
        assert first.spec.containers[0].env[0].name == "JOB_COMPLETION_INDEX"
        await end(world, second, "Succeeded")
        await agents(world)
        assert [pod.spec.hostname for pod in running(world)] == ["sum-0", "sum-2"]
        assert shown(world).status.completed_indexes == "1"
        for pod in running(world):
            await end(world, pod, "Succeeded")
        assert (shown(world).status.completed_indexes, shown(world).status.succeeded) == ("0-2", 3)
        assert "Complete" in true_conditions(world)


async def test_an_index_that_fails_too_often_does_not_stop_the_others() -> None:
    world = World(rows=ROWS)
    indexed = {"completions": 2, "parallelism": 2, "completion_mode": "Indexed", "backoff_limit": None}
    async with world.running():
        await world.resources.create(job(**indexed, backoff_limit_per_index=1))
        await agents(world)
        await end(world, running(world)[0], "Failed", 1)
        assert held(world, "0") == 1  # only this pod tells that the index has failed once
        await world.pass_time(11)
        await agents(world)
        again = running(world)[0]
        assert again.metadata.annotations[job_indexes.FAILURES] == "1"
        await end(world, again, "Failed", 1)
        assert shown(world).status.failed_indexes == "0"
        assert held(world, "0") == 0
        assert "Failed" not in true_conditions(world)
        await end(world, running(world)[0], "Succeeded")
        assert true_conditions(world)["Failed"] == "FailedIndexes"
        assert not any(TRACKING in pod.metadata.finalizers for pod in world.resources.all(Pod))


@pytest.mark.parametrize(
    ("action", "code", "failed", "ends"),
    [("FailJob", 42, 1, True), ("Ignore", 42, None, False), ("Count", 42, 1, False), ("FailJob", 1, 1, False)],
)
async def test_the_failure_policy(action: str, code: int, failed: int | None, ends: bool) -> None:  # noqa: FBT001 - a row's value
    codes = PodFailurePolicyOnExitCodesRequirement(operator="In", values=(42,))
    policy = PodFailurePolicy(rules=(PodFailurePolicyRule(action=action, on_exit_codes=codes),))
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(job(pod_failure_policy=policy))
        await agents(world)
        await end(world, running(world)[0], "Failed", code)
        await agents(world)
        assert shown(world).status.failed == failed
        assert true_conditions(world).get("Failed") == ("PodFailurePolicy" if ends else None)
        assert len(running(world)) == int(action == "Ignore")  # one that does not count does not wait either


async def test_the_success_policy_ends_a_job_early() -> None:
    policy = SuccessPolicy(rules=(SuccessPolicyRule(succeeded_indexes="1-2", succeeded_count=1),))
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(
            job(parallelism=3, completions=3, completion_mode="Indexed", success_policy=policy)
        )
        await agents(world)
        await end(world, running(world)[0], "Succeeded")
        assert "SuccessCriteriaMet" not in true_conditions(world)
        await end(world, running(world)[1], "Succeeded")
        await agents(world)
        await agents(world)
        assert true_conditions(world) == {"SuccessCriteriaMet": "SuccessPolicy", "Complete": "SuccessPolicy"}
        assert shown(world).status.completed_indexes == "0,2"


async def test_replacements_wait_for_the_failed_if_the_author_says_so() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(job(pod_replacement_policy="Failed"))
        await agents(world)
        (pod,) = running(world)
        await world.resources.delete(Pod, pod.metadata.name, namespace="default")
        await world.settle()
        assert (shown(world).status.failed, shown(world).status.terminating) == (None, 1)
        assert len(world.resources.all(Pod)) == 1


async def test_orphans_are_adopted_and_strangers_released_without_our_finalizer() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(job())
        await agents(world)
        (pod,) = running(world)
        orphan = replace(pod, metadata=replace(pod.metadata, owner_references=(), finalizers=()))
        await world.resources.update(orphan)
        await world.settle()
        (pod,) = world.resources.all(Pod)
        assert pod.metadata.owner_references[0].name == "sum"
        assert pod.metadata.finalizers == (TRACKING,)
        await world.resources.update(replace(pod, metadata=replace(pod.metadata, labels={})))
        await agents(world)
        released = world.resources.find(Pod, pod.metadata.name, "default")
        assert released is not None
        assert (released.metadata.owner_references, released.metadata.finalizers) == ((), ())


async def test_pods_of_a_job_that_is_gone_are_let_go() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(job(parallelism=2, completions=2))
        await agents(world)
        await world.resources.delete(Job, "sum", namespace="default")
        await world.settle()
        assert [pod.metadata.finalizers for pod in world.resources.all(Pod)] == [(), ()]


async def test_a_finished_job_is_deleted_in_time() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(job(ttl_seconds_after_finished=30))
        await agents(world)
        await end(world, running(world)[0], "Succeeded")
        await world.pass_time(25)
        assert shown(world)
        await world.pass_time(10)
        found = world.resources.find(Job, "sum", "default")
        assert found is None or found.metadata.deletion_timestamp


@pytest.mark.parametrize(
    ("text", "below", "indexes", "again"),
    [
        ("", 5, set(), ""),
        ("0-2,4", 5, {0, 1, 2, 4}, "0-2,4"),
        ("0,1", 5, {0, 1}, "0,1"),
        ("1-9", 4, {1, 2, 3}, "1-3"),
        ("x,2-,3", 5, {2, 3}, "2,3"),
    ],
)
def test_indexes_are_read_and_written(text: str, below: int, indexes: set[int], again: str) -> None:
    assert job_indexes.parse(text, below) == indexes
    assert job_indexes.render(indexes) == again


@pytest.mark.timeout(20)  # it takes minutes, or no time
def test_indexes_that_are_named_again_and_again_are_read_once() -> None:
    assert job_indexes.parse("0-99999," * 20_000, 100_000) == frozenset(range(100_000))
    assert job_indexes.parse("3-5,0-9,4", 100) == frozenset(range(10))
    assert job_indexes.parse(f"2-{'9' * 5000}", 4) == {2, 3}


@pytest.mark.parametrize(("indexes", "met"), [("1", True), ("0-1", False), ("7", False), ("x", False)])
def test_a_success_policy_is_met_by_indexes_that_there_are(indexes: str, *, met: bool) -> None:
    policy = SuccessPolicy(rules=(SuccessPolicyRule(succeeded_indexes=indexes),))
    assert bool(enough(job(completions=3, completion_mode="Indexed", success_policy=policy), frozenset({1}))) is met
