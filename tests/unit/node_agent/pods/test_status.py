"""The status that kubectl and controllers see."""

from typing import Any

import msgspec
import pytest

from api.kinds.pods import PodStatus
from node_agent.pods.plan import plan_pod
from node_agent.pods.situation import Health, Situation
from node_agent.pods.status import Appearance, build_status, status_patch
from node_agent.runtime.base import State
from tests.unit.node_agent.pods.situations import ended, instance, pod, sandbox, situation

MAIN = {"name": "main", "image": "img:1"}
WELL = {"main-0": Health()}


def show(s: Situation, **more: Any) -> PodStatus:
    return build_status(s, plan_pod(s), Appearance(host_ip="10.0.0.1", **{"pod_ip": "10.244.0.5"} | more))


def conditions(status: PodStatus) -> dict[str, str]:
    return {condition.type: condition.status for condition in status.conditions}


def test_pending() -> None:
    status = show(situation(pod()), pod_ip="")
    assert status.phase == "Pending"
    assert status.container_statuses[0].state.waiting.reason == "ContainerCreating"
    assert conditions(status) == {
        "Initialized": "True",
        "Ready": "False",
        "ContainersReady": "False",
        "PodScheduled": "True",
    }
    assert (status.pod_ip, status.pod_ips, status.host_ip, status.qos_class) == ("", (), "10.0.0.1", "BestEffort")
    assert status.start_time == "2027-01-15T08:00:00Z"


def test_running_and_ready() -> None:
    status = show(situation(pod(), instance(image_id="sha256:1"), within=sandbox(), health=WELL))
    (main,) = status.container_statuses
    assert status.phase == "Running"
    assert (main.ready, main.started, main.restart_count) == (True, True, 0)
    assert main.container_id == "docker://main-0"
    assert main.image_id == "docker://sha256:1"
    assert main.state.running.started_at
    assert conditions(status)["Ready"] == "True"
    assert status.pod_ips[0].ip == status.pod_ip == "10.244.0.5"


def test_not_ready_says_which() -> None:
    status = show(situation(pod(), instance(), within=sandbox(), health={"main-0": Health(ready=False)}))
    ready = next(c for c in status.conditions if c.type == "Ready")
    assert (ready.status, ready.reason, ready.message) == (
        "False",
        "ContainersNotReady",
        "containers with unready status: [main]",
    )
    assert status.container_statuses[0].started


def test_a_condition_keeps_its_time_until_it_changes() -> None:
    of = pod(
        status={
            "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"},
                {"type": "Initialized", "status": "False", "lastTransitionTime": "2020-01-01T00:00:00Z"},
                {"type": "example.com/gate", "status": "True"},
            ]
        }
    )
    status = show(situation(of, instance(), within=sandbox(), health=WELL))
    times = {c.type: c.last_transition_time for c in status.conditions}
    assert times["Ready"] == "2020-01-01T00:00:00Z"
    assert times["Initialized"] == "2027-01-15T08:00:00Z"
    assert "example.com/gate" in times  # whose it is, it stays


@pytest.mark.parametrize(("gate", "ready"), [("True", "True"), ("False", "False")])
def test_readiness_gates(gate: str, ready: str) -> None:
    of = pod(readinessGates=[{"conditionType": "x/y"}], status={"conditions": [{"type": "x/y", "status": gate}]})
    status = show(situation(of, instance(), within=sandbox(), health=WELL))
    assert conditions(status)["ContainersReady"] == "True"
    assert conditions(status)["Ready"] == ready


@pytest.mark.parametrize(
    ("policy", "codes", "phase"),
    [
        ("Never", (0, 0), "Succeeded"),
        ("Never", (0, 1), "Failed"),
        ("OnFailure", (0, 0), "Succeeded"),
        ("OnFailure", (0, 1), "Running"),
    ],
)
def test_phase_of_what_ended(policy: str, codes: tuple[int, int], phase: str) -> None:
    of = pod(MAIN, MAIN | {"name": "two"}, restartPolicy=policy)
    found = (ended(exit_code=codes[0]), ended("two", exit_code=codes[1]))
    status = show(situation(of, *found, within=sandbox()))
    assert status.phase == phase
    if phase == "Succeeded":
        ready = next(c for c in status.conditions if c.type == "Ready")
        assert (ready.status, ready.reason) == ("False", "PodCompleted")


def test_crash_loop() -> None:
    crashed = ended(attempt=2, exit_code=3, delay_s=20, oom_killed=True)
    status = show(situation(pod(), crashed, ended(attempt=1), within=sandbox()), messages={"main-2": "last words"})
    (main,) = status.container_statuses
    assert status.phase == "Running"
    assert main.restart_count == 2
    assert main.state.waiting.reason == "CrashLoopBackOff"
    last = main.last_state.terminated
    assert (last.exit_code, last.reason, last.message, last.container_id) == (
        3,
        "OOMKilled",
        "last words",
        "docker://main-2",
    )


def test_after_a_restart_the_last_state_is_the_one_before() -> None:
    status = show(
        situation(pod(), instance(attempt=1), ended(exit_code=9), within=sandbox(), health={"main-1": Health()})
    )
    (main,) = status.container_statuses
    assert (main.restart_count, main.state.running is not None) == (1, True)
    assert (main.last_state.terminated.exit_code, main.last_state.terminated.reason) == (9, "Error")


def test_a_start_that_the_engine_refused() -> None:
    refused = ended(exit_code=127, error="exec: no such file", started_at=0.0, finished_at=0.0, delay_s=10)
    status = show(situation(pod(restartPolicy="Never"), refused, within=sandbox()))
    state = status.container_statuses[0].state.terminated
    assert (state.reason, state.message) == ("ContainerCannotRun", "exec: no such file")
    assert status.phase == "Failed"


def test_init_containers_hold_the_pod_pending() -> None:
    of = pod(MAIN, initContainers=[MAIN | {"name": "init"}])
    status = show(situation(of, instance("init"), within=sandbox()))
    assert status.phase == "Pending"
    initialized = next(c for c in status.conditions if c.type == "Initialized")
    assert (initialized.status, initialized.reason) == ("False", "ContainersNotInitialized")
    assert initialized.message == "containers with incomplete status: [init]"
    assert status.container_statuses[0].state.waiting.reason == "PodInitializing"
    done = show(situation(of, ended("init"), instance(), within=sandbox(), health=WELL))
    assert conditions(done)["Initialized"] == "True"
    assert done.init_container_statuses[0].ready
    assert done.phase == "Running"


def test_an_evicted_pod() -> None:
    s = situation(pod(), ended(exit_code=137), within=sandbox(running=False), ending=True)
    status = show(s, reason="DeadlineExceeded", message="too long")
    assert (status.phase, status.reason, status.message) == ("Failed", "DeadlineExceeded", "too long")


def test_a_pod_that_ended_stays_so() -> None:
    of = pod(status={"phase": "Succeeded"})
    assert show(situation(of, ended(), within=sandbox(running=False), ending=True)).phase == "Succeeded"


def test_a_deleted_pod_shows_how_it_ended() -> None:
    s = situation(pod(), ended(exit_code=137), within=sandbox(running=False), ending=True)
    status = show(s)
    assert status.container_statuses[0].state.terminated.exit_code == 137
    assert status.phase == "Failed"


def test_created_is_not_started() -> None:
    s = situation(pod(), instance(state=State.CREATED), within=sandbox(), busy=frozenset({"main"}))
    status = show(s)
    assert (status.phase, status.container_statuses[0].container_id) == ("Pending", "")


def test_the_patch_has_what_changed_and_removes_what_went() -> None:
    old = show(situation(pod()), pod_ip="", reason="", message="gone soon")
    new = show(situation(pod()), pod_ip="10.1.1.1")
    document = msgspec.json.decode(msgspec.json.encode(old))
    patch = status_patch("uid-1", document, new)
    assert patch["metadata"] == {"uid": "uid-1"}
    assert patch["status"] == {"podIP": "10.1.1.1", "podIPs": [{"ip": "10.1.1.1"}], "message": None}
    assert status_patch("uid-1", msgspec.json.decode(msgspec.json.encode(new)), new) is None


def test_a_debugger_has_a_status_of_its_own_and_says_nothing_of_the_pod() -> None:
    of = pod(MAIN, ephemeralContainers=[{"name": "debugger", "image": "img:1"}])
    waiting = show(situation(of, instance(), within=sandbox(), health=WELL))
    assert waiting.ephemeral_container_statuses[0].state.waiting.reason == "ContainerCreating"
    assert conditions(waiting)["Ready"] == "True"
    over = show(situation(of, instance(), ended("debugger", exit_code=3), within=sandbox(), health=WELL))
    (debugger,) = over.ephemeral_container_statuses
    assert (debugger.name, debugger.ready, debugger.started) == ("debugger", False, None)
    assert debugger.state.terminated.exit_code == 3
    assert (over.phase, len(over.container_statuses)) == ("Running", 1)
