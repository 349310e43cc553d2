"""The OpenAPI definitions against the models of the official client, which are made from the published document."""

import importlib
import inspect
import json
from pathlib import Path

import pytest

from api import descriptions, schema
from api.kinds.pods import PodSpec
from api.kinds.table import ROWS, TABLE
from api.shapes import fields_of
from api.struct import ApiStruct
from tests.unit.api.test_kinds import CANDIDATES
from tools import generate_descriptions
from tools.generate_kinds import MODULES

STRUCTS = [
    cls
    for module in MODULES
    for _, cls in inspect.getmembers(importlib.import_module(module), inspect.isclass)
    if issubclass(cls, ApiStruct) and cls.__module__ == module and cls.__name__ != "Resource"
]


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_required_fields_are_those_of_the_published_document(struct):
    ours = {each.name for each in fields_of(struct).values() if schema.is_required(struct, each)}
    published = [
        {model.attribute_map[name] for name, field in model.model_fields.items() if field.is_required()}
        for model in CANDIDATES[struct.__name__]
        if set(model.attribute_map.values()) == set(fields_of(struct))
    ]
    assert ours in published


def test_descriptions_are_those_of_the_published_document():
    committed = json.loads((Path(descriptions.__file__).parent / "descriptions.json").read_text())
    assert committed == generate_descriptions.describe_all()
    assert "description of a pod" in descriptions.of(PodSpec)[""]


def test_a_described_reference_stays_readable():
    for version, described in ((2, "$ref"), (3, "allOf")):
        pod = schema.definitions([TABLE.kind("v1", "Pod")], version=version)["io.k8s.api.core.v1.Pod"]
        assert described in pod["properties"]["spec"]
        assert pod["properties"]["spec"]["description"] == "PodSpec is a description of a pod."


def references(value):
    if isinstance(value, dict):
        for key, each in value.items():
            if key == "$ref" and isinstance(each, str):  # JSONSchemaProps has a field of that name
                yield each
            else:
                yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_every_reference_leads_to_a_definition():
    found = schema.definitions(ROWS, version=2)
    missing = {each.removeprefix("#/definitions/") for each in references(found)} - set(found)
    assert not missing
    assert len(found) > 300


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (("", "v1", "pods"), "io.k8s.api.core.v1.Pod"),
        (("apps", "v1", "deployments"), "io.k8s.api.apps.v1.Deployment"),
        (("autoscaling", "v2", "horizontalpodautoscalers"), "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler"),
        (("events.k8s.io", "v1", "events"), "io.k8s.api.events.v1.Event"),
        (("rbac.authorization.k8s.io", "v1", "roles"), "io.k8s.api.rbac.v1.Role"),
    ],
)
def test_kinds_bear_the_published_names(kind, name):
    row = TABLE.resource(*kind)
    found = schema.definitions([row], version=2)
    assert found[name]["x-kubernetes-group-version-kind"] == [
        {"group": row.group, "version": row.version, "kind": row.kind}
    ]


def test_lists_say_how_they_merge():
    found = schema.definitions(ROWS, version=2)
    containers = found["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert containers["x-kubernetes-patch-merge-key"] == "name"
    assert containers["x-kubernetes-patch-strategy"] == "merge"
    assert containers["x-kubernetes-list-map-keys"] == ["name"]
    tolerations = found["io.k8s.api.core.v1.PodSpec"]["properties"]["tolerations"]
    assert tolerations["x-kubernetes-list-type"] == "atomic"
    assert "x-kubernetes-patch-strategy" not in tolerations
    strategy = found["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"]
    assert strategy["x-kubernetes-patch-strategy"] == "retainKeys"


def test_what_may_be_of_two_types_says_so_where_it_can() -> None:
    name = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
    assert schema.definitions(TABLE, version=2)[name] == {"type": "string", "format": "int-or-string"}
    assert schema.definitions(TABLE, version=3)[name] == {
        "oneOf": [{"type": "integer"}, {"type": "string"}],
        "format": "int-or-string",
    }
