import pytest

from api import codec
from api.defaults import apply_defaults
from api.kinds.table import TABLE
from api.validation.objects import faults_on_create, faults_on_update


def _object(kind, spec, **metadata):
    group_version = {"Deployment": "apps/v1"}.get(kind, "v1")
    row = TABLE.kind(group_version, kind)
    document = {"metadata": {"name": "a", "namespace": "default"} | metadata} | spec
    apply_defaults(row, document)
    return row, codec.decode(row, document)


def _faults(kind, spec, **metadata):
    return {(fault.field, fault.reason) for fault in faults_on_create(*_object(kind, spec, **metadata))}


GOOD = {"spec": {"containers": [{"name": "a", "image": "i"}]}}


@pytest.mark.parametrize(
    ("kind", "spec", "metadata", "expected"),
    [
        ("Pod", GOOD, {}, set()),
        ("Pod", GOOD, {"name": "A_b"}, {("metadata.name", "FieldValueInvalid")}),
        ("Pod", GOOD, {"labels": {"a": "-"}}, {("metadata.labels", "FieldValueInvalid")}),
        ("Pod", {"spec": {}}, {}, {("spec.containers", "FieldValueRequired")}),
        ("Pod", {"spec": {"containers": [{"name": "a"}]}}, {}, {("spec.containers[0].image", "FieldValueRequired")}),
        (
            "Pod",
            {"spec": {"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i"}]}},
            {},
            {("spec.containers[1].name", "FieldValueDuplicate")},
        ),
        (
            "Pod",
            {"spec": {"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 70000}],
                                      "volumeMounts": [{"name": "v", "mountPath": "/x"}]}], "restartPolicy": "Maybe"}},
            {},
            {("spec.containers[0].ports[0].containerPort", "FieldValueInvalid"),
             ("spec.containers[0].volumeMounts[0].name", "FieldValueNotFound"),
             ("spec.restartPolicy", "FieldValueNotSupported")},
        ),
        (
            "Pod",
            {"spec": {"containers": [{"name": "a", "image": "i",
                                      "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}]}},
            {},
            {("spec.containers[0].resources.requests", "FieldValueInvalid")},
        ),
        ("Service", {"spec": {}}, {}, {("spec.ports", "FieldValueRequired")}),
        ("Service", {"spec": {"ports": [{"port": 80}]}}, {"name": "1a"}, {("metadata.name", "FieldValueInvalid")}),
        (
            "Service",
            {"spec": {"ports": [{"port": 80}, {"port": 80}]}},
            {},
            {("spec.ports[0].name", "FieldValueRequired"), ("spec.ports[1].name", "FieldValueRequired"),
             ("spec.ports[1]", "FieldValueDuplicate")},
        ),
        (
            "Deployment",
            {"spec": {"selector": {"matchLabels": {"a": "b"}}, "replicas": -1,
                      "template": {"metadata": {"labels": {"a": "c"}}, **GOOD}}},
            {},
            {("spec.replicas", "FieldValueInvalid"), ("spec.template.metadata.labels", "FieldValueInvalid")},
        ),
        ("ConfigMap", {"data": {"a/b": "x"}}, {}, {("data[a/b]", "FieldValueInvalid")}),
    ],
)  # fmt: skip
def test_every_fault_is_named(kind, spec, metadata, expected):
    assert _faults(kind, spec, **metadata) == expected


@pytest.mark.parametrize(
    ("kind", "old", "new", "fields"),
    [
        ("Pod", GOOD, {"spec": {"containers": [{"name": "a", "image": "j"}]}}, set()),
        ("Pod", GOOD, {"spec": {"containers": [{"name": "a", "image": "i", "command": ["x"]}]}}, {"spec"}),
        ("Pod", GOOD, {"spec": {**GOOD["spec"], "nodeName": "n"}}, {"spec"}),
        ("ConfigMap", {"data": {"a": "1"}, "immutable": True}, {"data": {"a": "2"}, "immutable": True}, {"data"}),
        (
            "Service",
            {"spec": {"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "ports": [{"port": 80}]}},
            {"spec": {"clusterIP": "10.96.0.6", "clusterIPs": ["10.96.0.6"], "ports": [{"port": 80}]}},
            {"spec.clusterIPs[0]"},
        ),
    ],
)
def test_what_an_update_may_not_change(kind, old, new, fields):
    import copy

    row, before = _object(kind, copy.deepcopy(old))
    _, after = _object(kind, copy.deepcopy(new))
    assert {fault.field for fault in faults_on_update(row, before, after)} == fields
