"""Decisions about one pod: what is started, restarted, killed, and when to look again."""

from typing import Any

import pytest
from msgspec.structs import replace

from node_agent.pods.plan import (
    DELAY_LABEL,
    HASH_LABEL,
    CreateSandbox,
    KillContainer,
    RemoveContainer,
    StartContainer,
    StopSandbox,
    UpdateContainer,
    container_hash,
    duration,
    next_delay,
    plan_pod,
)
from node_agent.pods.situation import RESIZE, SANDBOX, Failure, Health
from node_agent.runtime.base import Limits, State
from tests.unit.node_agent.pods.situations import NOW, ended, instance, pod, sandbox, situation

MAIN = {"name": "main", "image": "img:1"}
INIT = {"name": "init", "image": "img:1"}
SIDE = {"name": "side", "image": "img:1", "restartPolicy": "Always"}


def test_a_new_pod_gets_sandbox_and_containers_in_one_go() -> None:
    plan = plan_pod(situation(pod(MAIN, {"name": "two", "image": "img:1"})))
    assert plan.actions == (CreateSandbox(0), StartContainer("main", 0, 0), StartContainer("two", 0, 0))
    assert plan.waiting["main"].reason == "ContainerCreating"


def test_what_is_under_way_is_left_alone() -> None:
    assert plan_pod(situation(pod(), busy=frozenset({SANDBOX, "main"}))).actions == ()


def test_a_running_pod_needs_nothing() -> None:
    plan = plan_pod(situation(pod(), instance(), within=sandbox()))
    assert (plan.actions, plan.waiting, plan.wake_at, plan.ended) == ((), {}, None, False)


@pytest.mark.parametrize(
    ("policy", "exit_code", "restarts"),
    [("Always", 0, True), ("Always", 1, True), ("OnFailure", 0, False), ("OnFailure", 1, True), ("Never", 1, False)],
)
def test_restart_policy(policy: str, exit_code: int, *, restarts: bool) -> None:
    # A second container keeps the pod from being finished.
    of = pod(MAIN, {"name": "two", "image": "img:1"}, restartPolicy=policy)
    plan = plan_pod(situation(of, ended(exit_code=exit_code), instance("two"), within=sandbox()))
    assert plan.actions == ((StartContainer("main", 1, 10),) if restarts else ())


def test_delays_double_to_five_minutes() -> None:
    delays = [0]
    while delays[-1] < 300:
        delays.append(next_delay(delays[-1]))
    assert delays == [0, 10, 20, 40, 80, 160, 300]
    assert next_delay(300) == 300


def test_a_delay_is_waited_for_and_explained() -> None:
    of = pod()
    crashed = ended(attempt=3, exit_code=1, delay_s=40, started_at=NOW - 2, finished_at=NOW - 1)
    early = plan_pod(situation(of, crashed, within=sandbox()))
    assert early.actions == ()
    assert early.wake_at == NOW + 39
    assert early.waiting["main"].reason == "CrashLoopBackOff"
    assert early.waiting["main"].message.startswith("back-off 40s restarting failed container=main pod=web_default(")
    due = plan_pod(situation(of, crashed, within=sandbox(), now=NOW + 39))
    assert due.actions == (StartContainer("main", 4, 80),)


def test_a_quiet_life_clears_the_record() -> None:
    lived = ended(attempt=7, exit_code=1, delay_s=300, started_at=NOW - 601, finished_at=NOW)
    assert plan_pod(situation(pod(), lived, within=sandbox())).actions == (StartContainer("main", 8, 10),)


def test_another_image_clears_the_record() -> None:
    labels = {DELAY_LABEL: "300", HASH_LABEL: container_hash(pod().spec.containers[0])}
    crashed = ended(attempt=7, exit_code=1, started_at=NOW - 2, finished_at=NOW - 1, labels=labels)
    other = pod({"name": "main", "image": "img:2"})
    assert plan_pod(situation(pod(), crashed, within=sandbox())).actions == ()
    assert plan_pod(situation(other, crashed, within=sandbox())).actions == (StartContainer("main", 8, 10),)


def test_a_clock_that_was_set_back_holds_nothing_up() -> None:
    odd = ended(exit_code=1, delay_s=10, started_at=NOW, finished_at=NOW + 300)
    assert plan_pod(situation(pod(), odd, within=sandbox())).actions == (StartContainer("main", 1, 20),)


def test_init_containers_one_after_the_other() -> None:
    of = pod(MAIN, initContainers=[INIT, INIT | {"name": "more"}])
    first = plan_pod(situation(of))
    assert first.actions == (CreateSandbox(0), StartContainer("init", 0, 0))
    assert {name: w.reason for name, w in first.waiting.items()} == dict.fromkeys(
        ("init", "more", "main"), "PodInitializing"
    )
    running = plan_pod(situation(of, instance("init"), within=sandbox()))
    assert running.actions == ()
    second = plan_pod(situation(of, ended("init"), within=sandbox()))
    assert second.actions == (StartContainer("more", 0, 0),)
    third = plan_pod(situation(of, ended("init"), ended("more"), within=sandbox()))
    assert third.actions == (StartContainer("main", 0, 0),)


@pytest.mark.parametrize(("policy", "again"), [("Always", True), ("OnFailure", True), ("Never", False)])
def test_a_failed_init_container(policy: str, *, again: bool) -> None:
    of = pod(MAIN, initContainers=[INIT], restartPolicy=policy)
    plan = plan_pod(situation(of, ended("init", exit_code=1), within=sandbox()))
    assert plan.actions == ((StartContainer("init", 1, 10),) if again else (StopSandbox("s0"),))


def test_init_containers_do_not_run_again_beside_running_containers() -> None:
    of = pod(MAIN, initContainers=[INIT])
    # The engine has already forgotten the init container.
    assert plan_pod(situation(of, instance(), within=sandbox())).actions == ()


def test_a_sidecar_must_have_started_and_is_restarted() -> None:
    of = pod(MAIN, initContainers=[SIDE], restartPolicy="Never")
    side = instance("side")
    waiting = plan_pod(situation(of, side, within=sandbox(), health={side.id: Health(started=False, ready=False)}))
    assert waiting.actions == ()
    started = plan_pod(situation(of, side, within=sandbox(), health={side.id: Health()}))
    assert started.actions == (StartContainer("main", 0, 0),)
    again = plan_pod(situation(of, ended("side", exit_code=1), instance(), within=sandbox()))
    assert again.actions == (StartContainer("side", 1, 10),)


@pytest.mark.parametrize("health", [Health(ready=False), Health()])
def test_readiness_restarts_nothing(health: Health) -> None:
    assert plan_pod(situation(pod(), instance(), within=sandbox(), health={"main-0": health})).actions == ()


def test_a_failed_probe_kills() -> None:
    why = "Container main failed liveness probe, will be restarted"
    plan = plan_pod(situation(pod(), instance(), within=sandbox(), health={"main-0": Health(failed=why)}))
    assert plan.actions == (KillContainer("main", "main-0", why),)


def test_a_new_image_replaces_the_instance() -> None:
    of = pod()
    label = {"io.trireme.container.hash": container_hash(of.spec.containers[0])}
    assert plan_pod(situation(of, instance(labels=label), within=sandbox())).actions == ()
    changed = pod({"name": "main", "image": "img:2"})
    (kill,) = plan_pod(situation(changed, instance(labels=label), within=sandbox())).actions
    assert isinstance(kill, KillContainer)
    assert "definition changed" in kill.why


def test_a_dead_sandbox_is_replaced_and_its_containers_with_it() -> None:
    plan = plan_pod(situation(pod(), ended(exit_code=255, attempt=2), within=sandbox(running=False)))
    assert plan.actions == (CreateSandbox(1), StartContainer("main", 3, 0))


def test_what_outlives_its_sandbox_is_killed_first() -> None:
    plan = plan_pod(situation(pod(), instance(), within=sandbox(running=False)))
    assert [type(action) for action in plan.actions] == [KillContainer, CreateSandbox]


def test_a_finished_job_keeps_its_end_when_the_sandbox_dies() -> None:
    of = pod(restartPolicy="OnFailure")
    assert plan_pod(situation(of, ended(), within=sandbox(running=False))).actions == ()


def test_init_containers_run_again_in_a_new_sandbox() -> None:
    of = pod(MAIN, initContainers=[INIT])
    plan = plan_pod(situation(of, ended("init"), ended(exit_code=255), within=sandbox(running=False)))
    assert plan.actions == (CreateSandbox(1), StartContainer("init", 1, 0))


def test_counting_goes_on_when_the_engine_lost_everything() -> None:
    status = {
        "containerStatuses": [
            {"name": "main", "image": "i", "imageID": "", "ready": True, "restartCount": 4, "containerID": "docker://x"}
        ]
    }
    assert plan_pod(situation(pod(status=status))).actions[1] == StartContainer("main", 5, 0)


def test_a_failure_is_shown_then_its_back_off() -> None:
    failure = Failure(
        reason="ErrImagePull",
        message="no route",
        failed_at=NOW,
        retry_at=NOW + 10,
        delay_s=10,
        later_reason="ImagePullBackOff",
        later_message='Back-off pulling image "img:1"',
    )
    of, there = pod(), sandbox()
    first = plan_pod(situation(of, within=there, failures={"main": failure}))
    assert (first.actions, first.waiting["main"].reason, first.wake_at) == ((), "ErrImagePull", NOW + 1)
    later = plan_pod(situation(of, within=there, failures={"main": failure}, now=NOW + 1))
    assert (later.waiting["main"].reason, later.wake_at) == ("ImagePullBackOff", NOW + 10)
    due = plan_pod(situation(of, within=there, failures={"main": failure}, now=NOW + 10))
    assert due.actions == (StartContainer("main", 0, 0),)


def test_nothing_starts_while_the_sandbox_cannot_be_made() -> None:
    failure = Failure(reason="FailedCreatePodSandBox", message="", failed_at=NOW, retry_at=NOW + 2, delay_s=2)
    plan = plan_pod(situation(pod(), failures={SANDBOX: failure}))
    assert (plan.actions, plan.wake_at) == ((), NOW + 2)
    assert plan_pod(situation(pod(), failures={SANDBOX: failure}, now=NOW + 2)).actions[0] == CreateSandbox(0)


def test_a_half_made_container_is_made_again() -> None:
    plan = plan_pod(situation(pod(), instance(state=State.CREATED), within=sandbox()))
    assert plan.actions == (RemoveContainer("main-0"),)


def test_old_instances_go_and_the_one_before_stays() -> None:
    found = [instance(attempt=3), ended(attempt=2), ended(attempt=1), ended(attempt=0)]
    plan = plan_pod(situation(pod(), *found, within=sandbox()))
    assert plan.actions == (RemoveContainer("main-1"), RemoveContainer("main-0"))


def test_the_end_containers_then_sidecars_backwards_then_sandbox() -> None:
    of = pod(MAIN, initContainers=[SIDE, SIDE | {"name": "side2"}])
    there = sandbox()
    plan = plan_pod(situation(of, instance(), instance("side"), instance("side2"), within=there, ending=True))
    assert [action.name for action in plan.actions if isinstance(action, KillContainer)] == ["main"]
    plan = plan_pod(situation(of, ended(), instance("side"), instance("side2"), within=there, ending=True))
    assert plan.actions == (KillContainer("side2", "side2-0", "Stopping container side2"),)
    plan = plan_pod(situation(of, ended(), instance("side"), ended("side2"), within=there, ending=True))
    assert plan.actions == (KillContainer("side", "side-0", "Stopping container side"),)
    over = (ended(), ended("side"), ended("side2"))
    assert plan_pod(situation(of, *over, within=there, ending=True)).actions == (StopSandbox("s0"),)
    assert plan_pod(situation(of, *over, within=sandbox(running=False), ending=True)).ended


DEBUGGER = {"name": "debugger", "image": "img:1", "targetContainerName": "main"}


def test_a_debugger_starts_beside_whatever_there_is_and_only_once() -> None:
    of = pod(MAIN, initContainers=[{"name": "init", "image": "img:1"}], ephemeralContainers=[DEBUGGER])
    stuck = instance("init")
    assert plan_pod(situation(of, stuck, within=sandbox())).actions == (StartContainer("debugger", 0, 0),)
    assert plan_pod(situation(of, stuck, within=sandbox(), busy=frozenset({"debugger"}))).actions == ()
    half_made = instance("debugger", state=State.CREATED)
    assert plan_pod(situation(of, stuck, half_made, within=sandbox())).actions == (RemoveContainer("debugger-0"),)
    for left in (instance("debugger"), ended("debugger", exit_code=1)):
        assert plan_pod(situation(of, stuck, left, within=sandbox())).actions == ()


def test_a_debugger_ends_with_its_pod_and_does_not_keep_it() -> None:
    of = pod(MAIN, ephemeralContainers=[DEBUGGER], restartPolicy="Never")
    plan = plan_pod(situation(of, ended(), instance("debugger"), within=sandbox()))
    assert plan.actions == (KillContainer("debugger", "debugger-0", "Stopping container debugger"),)


@pytest.mark.parametrize("more", [{"busy": frozenset({"main"})}, {"busy": frozenset({SANDBOX})}])
def test_the_end_waits_for_what_is_under_way(more: dict[str, Any]) -> None:
    plan = plan_pod(situation(pod(), ended(), within=sandbox(), ending=True, **more))
    assert (plan.actions, plan.ended) == ((), False)


def test_a_finished_pod_gives_its_sandbox_back() -> None:
    of = pod(restartPolicy="Never")
    assert plan_pod(situation(of, ended(exit_code=1), within=sandbox())).actions == (StopSandbox("s0"),)


@pytest.mark.parametrize(("seconds", "text"), [(10, "10s"), (80, "1m20s"), (300, "5m0s")])
def test_durations(seconds: int, text: str) -> None:
    assert duration(seconds) == text


MORE = Limits(cpu_shares=512, cpu_quota_us=50_000, memory_bytes=1 << 20)


def test_what_runs_with_other_limits_gets_those_of_its_pod() -> None:
    sized = instance(limits=Limits(cpu_shares=2, oom_score_adj=7))
    wanted = replace(MORE, oom_score_adj=7)
    plan = plan_pod(situation(pod(), sized, within=sandbox(), limits={"main": MORE}))
    assert plan.actions == (UpdateContainer("main", "main-0", wanted),)
    # What the engine took is in force, though the kernel lacks something and the engine shows it otherwise.
    taken = situation(pod(), sized, within=sandbox(), limits={"main": MORE}, enforced={"main-0": wanted})
    assert plan_pod(taken).actions == ()
    assert plan_pod(situation(pod(), ended(limits=Limits()), within=sandbox(), limits={"main": MORE})).actions == (
        StartContainer("main", 1, 10),
    )


@pytest.mark.parametrize(("resource", "restarts"), [("cpu", False), ("memory", True)])
def test_a_container_restarts_if_that_is_how_it_is_resized(resource: str, *, restarts: bool) -> None:
    policy = [{"resourceName": resource, "restartPolicy": "RestartContainer"}]
    of = pod(MAIN | {"resizePolicy": policy})
    sized = instance(limits=Limits(memory_bytes=1))
    plan = plan_pod(situation(of, sized, within=sandbox(), limits={"main": Limits(memory_bytes=2)}))
    (action,) = plan.actions
    if restarts:
        assert action == KillContainer("main", "main-0", "Container main resize requires restart")
    else:
        assert isinstance(action, UpdateContainer)


def test_a_resize_that_failed_is_tried_again_later() -> None:
    failure = Failure(reason="ResizeError", message="no", failed_at=NOW, retry_at=NOW + 2, delay_s=2)
    failures = {f"{RESIZE}main": failure}
    of, sized = pod(), instance(limits=Limits())
    early = plan_pod(situation(of, sized, within=sandbox(), limits={"main": MORE}, failures=failures))
    assert (early.actions, early.wake_at) == ((), NOW + 2)
    late = plan_pod(situation(of, sized, within=sandbox(), limits={"main": MORE}, failures=failures, now=NOW + 2))
    assert [type(each) for each in late.actions] == [UpdateContainer]
