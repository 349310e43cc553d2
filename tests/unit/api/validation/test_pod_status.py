"""What the status of a pod may not be told to be, in the real server's words."""

from typing import Any

import pytest

from api.validation.objects import faults_on_status
from tests.unit.api.validation.objects import CONTAINER, POD, an_object, changed, said, texts

ENDED, FAILED, RUNNING = (
    {"terminated": {"exitCode": 0}},
    {"terminated": {"exitCode": 1}},
    {"running": {}},
)
AGAIN = "state: Forbidden: may not be transitioned to non-terminated state"
SIDECAR = CONTAINER | {"name": "side", "restartPolicy": "Always"}
WITH_INIT = changed(POD, "spec.initContainers", [CONTAINER | {"name": "i"}, SIDECAR])


def pod(policy: str, **status: Any) -> dict[str, Any]:
    return changed(changed(WITH_INIT, "spec.restartPolicy", policy), "status", status)


def of(name: str, state: Any) -> list[dict[str, Any]]:
    return [{"name": name, "state": state}]


@pytest.mark.parametrize(
    ("policy", "field", "name", "before", "after", "refused"),
    [
        ("Never", "containerStatuses", "c", ENDED, RUNNING, True),
        ("Never", "containerStatuses", "c", FAILED, RUNNING, True),
        ("Never", "containerStatuses", "c", ENDED, FAILED, False),
        ("Never", "containerStatuses", "c", RUNNING, ENDED, False),
        ("OnFailure", "containerStatuses", "c", FAILED, RUNNING, False),
        ("OnFailure", "containerStatuses", "c", ENDED, RUNNING, True),
        ("Always", "containerStatuses", "c", ENDED, RUNNING, False),
        ("OnFailure", "initContainerStatuses", "i", ENDED, RUNNING, True),
        ("OnFailure", "initContainerStatuses", "side", ENDED, RUNNING, False),
        ("Always", "ephemeralContainerStatuses", "d", FAILED, RUNNING, True),
    ],
)
def test_what_has_ended_for_good_does_not_run_again(
    policy: str, field: str, name: str, before: Any, after: Any, *, refused: bool
) -> None:
    kind, old = an_object("Pod", pod(policy, **{field: of(name, before)}))
    _, new = an_object("Pod", pod(policy, **{field: of(name, after)}))
    said(texts(faults_on_status(kind, old, new)), [f"status.{field}[0].{AGAIN}"] if refused else [])


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        ({"conditions": [{"type": "Ready"}, {"type": "example.com/x"}, {"type": "DisruptionTarget"}]}, []),
        ({"conditions": [{"type": "a b"}]}, ['metadata.conditions[0].Type: Invalid value: "a b": name part']),
        ({"nominatedNodeName": "N"}, ['status.nominatedNodeName: Invalid value: "N": a lowercase RFC 1123 subdomain']),
        ({"qosClass": "Guaranteed"}, ['status.qosClass: Invalid value: "Guaranteed": field is immutable']),
        ({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}, []),
        ({"podIPs": [{"ip": "x"}]}, ['status.podIPs[0]: Invalid value: "x": must be a valid IP address']),
        (
            {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]},
            ['status.podIPs: Invalid value: []string{"10.0.0.1", "10.0.0.2"}: may specify no more than one IP'],
        ),
        (
            {"hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.2"}]},
            ['status.hostIPs[0].ip: Invalid value: "10.0.0.2": must be equal to `hostIP`'],
        ),
        (
            {"resourceClaimStatuses": [{"name": "a"}, {"name": "a"}]},
            [
                'status.resourceClaimStatuses[0].name: Invalid value: "a": must match the name of an entry',
                'status.resourceClaimStatuses[1].name: Invalid value: "a": must match the name of an entry',
                'status.resourceClaimStatuses[1].name: Duplicate value: "a"',
            ],
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_values(status: dict[str, Any], wanted: list[str]) -> None:
    kind, old = an_object("Pod", POD)
    _, new = an_object("Pod", changed(POD, "status", status))
    said(texts(faults_on_status(kind, old, new)), wanted)
