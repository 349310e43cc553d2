"""What a node grants of a resize, and what the pod's status says of it."""

from typing import Any

import msgspec
import pytest

from api.kinds.pods import PodStatus, ResourceRequirements
from node_agent.pods.plan import plan_pod
from node_agent.pods.resizing import grant, resources_of, resources_told
from node_agent.pods.situation import RESIZE, Failure, Situation
from node_agent.pods.status import Appearance, build_status
from node_agent.runtime.base import Limits
from tests.unit.node_agent.pods.situations import NOW, instance, pod, sandbox, situation

ALLOCATABLE = {"cpu": "2", "memory": "1Gi"}
SMALL, LARGE = ({"requests": {"cpu": cpu, "memory": "64Mi"}} for cpu in ("1", "3"))


def sized(resources: dict[str, Any], **more: Any) -> Any:
    return pod({"name": "main", "image": "img:1", "resources": resources}, **more)


@pytest.mark.parametrize(
    ("before", "wanted", "refusal"),
    [
        (SMALL, {"requests": {"cpu": "2", "memory": "1Gi"}}, ""),
        (SMALL, LARGE, "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000"),
        (
            SMALL,
            {"requests": {"cpu": "1", "memory": "2Gi"}},
            "Node didn't have enough capacity: memory, requested: 2147483648, capacity: 1073741824",
        ),
        (LARGE, LARGE, ""),  # it was placed here so: whoever did that knows why
    ],
)
def test_a_node_grants_what_it_has(before: dict[str, Any], wanted: dict[str, Any], refusal: str) -> None:
    made = grant(sized(wanted), resources_of(sized(before).spec), ALLOCATABLE)
    assert made.refusal == refusal
    assert resources_of(made.pod.spec) == resources_of(sized(before if refusal else wanted).spec)


def test_sidecars_and_overhead_count() -> None:
    side = {"name": "side", "image": "i", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}}
    more = {"initContainers": [side], "overhead": {"cpu": "1m"}}
    made = grant(sized(SMALL, **more), resources_of(sized({}).spec), ALLOCATABLE)
    assert made.refusal == "Node didn't have enough capacity: cpu, requested: 2001, capacity: 2000"


def test_a_new_agent_knows_from_the_status_what_was_granted() -> None:
    told = {"containerStatuses": [{"name": "main", "resources": SMALL}]}
    waiting = sized(LARGE, status=told)
    made = grant(waiting, resources_told(waiting), ALLOCATABLE)
    assert made.refusal
    assert resources_of(made.pod.spec) == {"main": msgspec.convert(SMALL, ResourceRequirements)}
    assert not grant(sized(LARGE), {}, ALLOCATABLE).refusal


def show(s: Situation, refusal: str = "") -> PodStatus:
    return build_status(s, plan_pod(s), Appearance(host_ip="10.0.0.1", pod_ip="10.244.0.5", refusal=refusal))


def resizes(status: PodStatus) -> list[tuple[str, str, str]]:
    return [(c.type, c.reason, c.message) for c in status.conditions if c.type.startswith("PodResize")]


def test_status_follows_a_resize() -> None:
    of = sized(SMALL)
    first = show(situation(of, instance(), within=sandbox(), limits={"main": Limits()}))
    (main,) = first.container_statuses
    assert (main.resources, main.allocated_resources) == (of.spec.containers[0].resources, SMALL["requests"])
    assert resizes(first) == []
    larger = msgspec.structs.replace(sized({"requests": {"cpu": "2"}}), status=first)
    under_way = situation(larger, instance(), within=sandbox(), limits={"main": Limits(cpu_shares=2048)})
    second = show(under_way)
    assert second.container_statuses[0].resources == main.resources
    assert second.container_statuses[0].allocated_resources == {"cpu": "2"}
    assert resizes(second) == [("PodResizeInProgress", "", "")]
    failure = Failure(reason="ResizeError", message="no", failed_at=NOW, retry_at=NOW + 2, delay_s=2)
    third = show(msgspec.structs.replace(under_way, failures={f"{RESIZE}main": failure}))
    assert resizes(third) == [("PodResizeInProgress", "Error", "no")]
    after = msgspec.structs.replace(larger, status=third)
    done = instance(limits=Limits(cpu_shares=2048))
    last = show(situation(after, done, within=sandbox(), limits={"main": Limits(cpu_shares=2048)}))
    assert last.container_statuses[0].resources == larger.spec.containers[0].resources
    assert resizes(last) == []


def test_a_refusal_is_told_as_a_condition() -> None:
    status = show(situation(sized(SMALL), instance(), within=sandbox()), refusal="too large")
    assert resizes(status) == [("PodResizePending", "Infeasible", "too large")]
