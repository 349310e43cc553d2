"""What a resize may not change of a pod, in the real server's words."""

import json
from typing import Any

import pytest

from api.validation.objects import faults_on_resize
from tests.unit.api.validation.objects import CONTAINER, POD, an_object, changed, faults_of, said, texts

C, AT = "spec.containers.0", "spec.containers[0]"
BOTH = {"requests": {"cpu": "1", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "128Mi"}}
SIZED = changed(POD, f"{C}.resources", BOTH)
RESTARTS = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
SIDECAR = CONTAINER | {"name": "side", "restartPolicy": "Always", "resources": BOTH}
INIT = CONTAINER | {"name": "init", "resources": BOTH}
WITH_INIT = changed(SIZED, "spec.initContainers", [INIT, SIDECAR])
EQUAL = {"limits": BOTH["limits"], "requests": BOTH["limits"]}
GUARANTEED = changed(changed(SIZED, f"{C}.resources", EQUAL), "status", {"qosClass": "Guaranteed"})
RUNNING = {"containerStatuses": [{"name": "c", "state": {"running": {}}}]}
TOLD = {"containerStatuses": [{"name": "c", "state": {"running": {}}, "resources": BOTH}]}
MEMORY = f"{AT}.resources.limits[memory]: Forbidden: memory limits cannot be"

CHANGES: list[tuple[dict[str, Any], str, Any, list[str]]] = [
    (SIZED, f"{C}.resources.limits.cpu", "3", []),
    (SIZED, f"{C}.resources.requests.cpu", "500m", []),
    (SIZED, f"{C}.resources.limits.memory", "256Mi", []),
    (SIZED, f"{C}.resources.limits.memory", "0.125Gi", []),
    (SIZED, f"{C}.resizePolicy", RESTARTS, []),
    (SIZED, f"{C}.resources.limits.memory", "100Mi", [f"{MEMORY} decreased unless resizePolicy is RestartContainer"]),
    (changed(SIZED, f"{C}.resizePolicy", RESTARTS), f"{C}.resources.limits.memory", "100Mi", []),
    (changed(SIZED, f"{C}.resources.limits", {"cpu": "2"}), f"{C}.resources.limits", BOTH["limits"],
     [f"{MEMORY} added unless resizePolicy is RestartContainer"]),
    (changed(SIZED, f"{C}.resources.limits", {"memory": "128Mi"}), f"{C}.resources.limits", BOTH["limits"], []),
    (changed(SIZED, f"{C}.resources.limits", {"cpu": "2"}), f"{C}.resources.requests", {"cpu": "1"},
     [f"{AT}.resources.requests: Forbidden: resource requests cannot be removed"]),
    (SIZED, f"{C}.resources.limits", {"memory": "128Mi"},
     [f"{AT}.resources.limits: Forbidden: resource limits cannot be removed"]),
    (SIZED, f"{C}.resources.limits", BOTH["limits"] | {"ephemeral-storage": "1Gi"},
     ["spec: Forbidden: only cpu and memory resources are mutable"]),
    (SIZED, f"{C}.resources.requests.cpu", "3",
     [f'{AT}.resources.requests: Invalid value: "3": must be less than or equal to cpu limit of 2']),
    (GUARANTEED, f"{C}.resources.requests.cpu", "1",
     ['spec: Invalid value: "Guaranteed": Pod QOS Class may not change as a result of resizing']),
    (SIZED, f"{C}.name", "other", [f"{AT}.name: Forbidden: containers may not be renamed or reordered on resize"]),
    (SIZED, "spec.containers", [CONTAINER | {"resources": BOTH}, CONTAINER | {"name": "more"}],
     ["spec.containers: Forbidden: containers may not be added or removed on resize"]),
    (WITH_INIT, "spec.initContainers", [SIDECAR],
     ["spec.initContainers: Forbidden: initContainers may not be added or removed on resize"]),
    (WITH_INIT, "spec.initContainers.0.resources.limits.cpu", "4",
     ["spec: Forbidden: resources for non-sidecar init containers are immutable"]),
    (WITH_INIT, "spec.initContainers.1.resources.limits.cpu", "4", []),
    (WITH_INIT, "spec.initContainers.1.resources.limits.hugepages-2Mi", "2Mi",
     ["spec: Forbidden: only cpu and memory resources for sidecar containers are mutable"]),
    (changed(SIZED, "status", RUNNING), f"{C}.resources.limits.cpu", "3",
     ["spec: Forbidden: Pod running on node without support for resize"]),
    (changed(SIZED, "status", TOLD), f"{C}.resources.limits.cpu", "3", []),
    (changed(SIZED, "spec.resources", {"limits": {"cpu": "2"}}), f"{C}.resources.limits.cpu", "1",
     [": Forbidden: pods with pod-level resources cannot be resized"]),
    (changed(SIZED, "metadata.annotations", {"kubernetes.io/config.mirror": "x"}), f"{C}.resources.limits.cpu", "3",
     [": Forbidden: static pods cannot be resized"]),
]  # fmt: skip
POLICIES: list[tuple[Any, list[str]]] = [
    (RESTARTS, []),
    ([*RESTARTS, *RESTARTS], [f'{AT}.resizePolicy[1]: Duplicate value: "memory"']),
    ([{"resourceName": "disk", "restartPolicy": "NotRequired"}],
     [f'{AT}.resizePolicy: Unsupported value: "disk": supported values: "cpu", "memory"']),
    ([{"resourceName": "cpu", "restartPolicy": "Now"}],
     [f'{AT}.resizePolicy: Unsupported value: "Now": supported values: "NotRequired", "RestartContainer"']),
    ([{"resourceName": "", "restartPolicy": ""}],
     [f"{AT}.resizePolicy: Required value"]),
]  # fmt: skip


def _id(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)[:30]


@pytest.mark.parametrize(("old", "path", "value", "wanted"), CHANGES, ids=_id)
def test_changes(old: dict[str, Any], path: str, value: Any, wanted: list[str]) -> None:
    kind, before = an_object("Pod", old)
    _, after = an_object("Pod", changed(old, path, value))
    said(texts(faults_on_resize(kind, before, after)), wanted)


@pytest.mark.parametrize(("policies", "wanted"), POLICIES, ids=_id)
def test_policies(policies: Any, wanted: list[str]) -> None:
    said(faults_of("Pod", POD, f"{C}.resizePolicy", policies), wanted)


def test_a_pod_that_never_restarts_is_not_resized_by_restarting() -> None:
    why = "must be 'NotRequired' when `restartPolicy` is 'Never'"
    never = changed(POD, "spec.restartPolicy", "Never")
    found = faults_of("Pod", never, f"{C}.resizePolicy", RESTARTS)
    assert found == [f'{AT}.resizePolicy: Invalid value: "RestartContainer": {why}']
    init = [CONTAINER | {"name": "init", "resizePolicy": RESTARTS}]
    (told,) = faults_of("Pod", POD, "spec.initContainers", init)
    assert told.startswith("spec.initContainers[0].resizePolicy: Invalid value: ")
    assert told.endswith(": must not be set for init containers")
