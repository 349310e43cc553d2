"""What a client writes in one version it reads in that version again, and in the other as the other has it."""

import copy

import pytest

from api import codec, conversion
from api.kinds.table import TABLE
from api.validation.objects import faults_on_create

META = {"name": "a", "namespace": "default"}
OLD_BACKEND = {"serviceName": "web", "servicePort": "http"}
NEW_BACKEND = {"service": {"name": "web", "port": {"name": "http"}}}
CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}
PODS = {"type": "Pods", "pods": {"metric": {"name": "x"}, "target": {"type": "AverageValue", "averageValue": "1"}}}
TARGET = {"kind": "Deployment", "name": "web"}
CASES = [
    pytest.param(
        ("networking.k8s.io", "v1beta1", "ingresses"),
        {"spec": {"backend": {"serviceName": "web", "servicePort": 80},
                  "rules": [{"host": "a.b", "http": {"paths": [{"path": "/", "pathType": "Exact", "backend": OLD_BACKEND}]}}]}},
        {"spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}},
                  "rules": [{"host": "a.b", "http": {"paths": [{"path": "/", "pathType": "Exact", "backend": NEW_BACKEND}]}}]}},
        id="ingress",
    ),
    pytest.param(
        ("discovery.k8s.io", "v1beta1", "endpointslices"),
        {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "n", "topology": {
            "kubernetes.io/hostname": "n", "topology.kubernetes.io/zone": "z", "x": "y"}}]},
        {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "n", "zone": "z",
                                               "deprecatedTopology": {"x": "y"}}]},
        id="slice",
    ),
    pytest.param(
        ("policy", "v1beta1", "poddisruptionbudgets"),
        {"spec": {"selector": {}}},
        {"spec": {"selector": {"matchExpressions": [
            {"key": "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match", "operator": "Exists"}]}}},
        id="a budget that selects nothing",
    ),
    pytest.param(
        ("autoscaling", "v1", "horizontalpodautoscalers"),
        {"spec": {"maxReplicas": 3, "scaleTargetRef": TARGET, "targetCPUUtilizationPercentage": 50}, "status": {}},
        {"spec": {"maxReplicas": 3, "scaleTargetRef": TARGET, "metrics": [CPU]}, "status": {}},
        id="autoscaler",
    ),
    pytest.param(("batch", "v1beta1", "cronjobs"), {"spec": {"schedule": "@daily"}}, {"spec": {"schedule": "@daily"}}, id="cron"),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "older", "newer"), CASES)
def test_both_ways(resource, older, newer):
    kind, owner = TABLE.resource(*resource), TABLE.preferred(resource[0], resource[2])
    shown = {"apiVersion": kind.group_version, "kind": kind.kind, "metadata": META} | older
    stored = {"apiVersion": owner.group_version, "kind": owner.kind, "metadata": META} | newer
    assert conversion.stored(kind, owner, copy.deepcopy(shown)) == stored
    assert conversion.shown(kind, copy.deepcopy(stored)) == shown
    assert codec.to_document(codec.decode(kind, shown))["metadata"] == META


def test_what_an_older_version_cannot_say_survives_it():
    kind, owner = (
        TABLE.resource("autoscaling", "v1", "horizontalpodautoscalers"),
        TABLE.preferred("autoscaling", "horizontalpodautoscalers"),
    )
    spec = {
        "maxReplicas": 3,
        "scaleTargetRef": TARGET,
        "metrics": [CPU, PODS],
        "behavior": {"scaleDown": {"selectPolicy": "Max"}},
    }
    status = {"conditions": [{"type": "AbleToScale", "status": "True"}]}
    stored = {"apiVersion": "autoscaling/v2", "kind": kind.kind, "metadata": META, "spec": spec, "status": status}
    shown = conversion.shown(kind, copy.deepcopy(stored))
    assert shown["spec"] == {"maxReplicas": 3, "scaleTargetRef": TARGET, "targetCPUUtilizationPercentage": 50}
    again = conversion.stored(kind, owner, shown)
    assert (again["spec"], again["status"]) == (spec, status)
    assert again["metadata"] == META | {"annotations": {}}


@pytest.mark.parametrize("text", ["x", "[1]", '{"a": 1}', "null"])
def test_annotations_that_anybody_may_write_do_no_harm(text):
    kind, owner = (
        TABLE.resource("autoscaling", "v1", "horizontalpodautoscalers"),
        TABLE.preferred("autoscaling", "horizontalpodautoscalers"),
    )
    annotations = {f"autoscaling.alpha.kubernetes.io/{name}": text for name in ("metrics", "behavior", "conditions")}
    written = {"metadata": META | {"annotations": annotations}, "spec": {"maxReplicas": 1, "scaleTargetRef": TARGET}}
    faults = faults_on_create(owner, codec.decode(owner, conversion.stored(kind, owner, written)))
    assert [fault for fault in faults if "annotations" in fault.field] == []


def test_every_older_face_has_a_conversion():
    for kind in TABLE:
        if kind.stored_as is not None:
            assert (kind.group, kind.version, kind.plural) in conversion._FACES
