"""What a CustomResourceDefinition may not say: each row a change of a right one, and the fault that names it."""

import copy

import pytest

from api import codec
from api.custom.definition_rules import definition_change_faults, definition_faults
from api.defaults import apply_defaults
from api.kinds.table import TABLE

KIND = TABLE.kind("apiextensions.k8s.io/v1", "CustomResourceDefinition")
SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "size": {"type": "integer", "minimum": 1},
                "color": {"type": "string"},
                "ports": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
                },
            },
        },
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}


def document(change=lambda spec: None):
    spec = {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": copy.deepcopy(SCHEMA)}}
        ],
    }
    change(spec)
    found = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "spec": spec}
    found["metadata"] = {"name": f"{spec['names']['plural']}.{spec['group']}"}
    apply_defaults(KIND, found)
    return found


def faults(change=lambda spec: None):
    return [(each.field, each.message) for each in definition_faults(codec.decode(KIND, document(change)))]


def schema_of(spec):
    return spec["versions"][0]["schema"]["openAPIV3Schema"]


def field(name, schema):
    def change(spec):
        schema_of(spec)["properties"]["spec"]["properties"][name] = schema

    return change


def more(**keywords):
    def change(spec):
        schema_of(spec).update(keywords)

    return change


def version(**keywords):
    def change(spec):
        spec["versions"][0].update(keywords)

    return change


def test_a_right_definition_is_accepted_and_completed():
    assert faults() == []
    names = document()["spec"]["names"]
    assert (names["singular"], names["listKind"]) == ("widget", "WidgetList")


ROOT = "spec.validation.openAPIV3Schema"
SPEC = f"{ROOT}.properties[spec].properties"


@pytest.mark.parametrize(
    ("change", "at", "says"),
    [
        (lambda spec: spec.update(group="example"), "spec.group", "should be a domain with at least one dot"),
        (lambda spec: spec.update(group="Example.com"), "spec.group", "lowercase RFC 1123 subdomain"),
        (lambda spec: spec.update(scope="World"), "spec.scope", 'supported values: "Cluster", "Namespaced"'),
        (lambda spec: spec.update(scope=""), "spec.scope", "Required value"),
        (lambda spec: spec["names"].update(kind="_x"), "spec.names.kind", "may have mixed case"),
        (lambda spec: spec["names"].update(listKind="Widget"), "spec.names.listKind", "may not be the same"),
        (lambda spec: spec["names"].update(shortNames=["A"]), "spec.names.shortNames[0]", "DNS-1035"),
        (lambda spec: spec["versions"].append({**spec["versions"][0]}), "spec.versions", "unique version names"),
        (lambda spec: spec["versions"][0].update(storage=False), "spec.versions", "exactly one version marked as storage"),
        (version(name="1"), "spec.versions[0].name", "DNS-1035"),
        (version(schema={}), "spec.versions[0].schema.openAPIV3Schema", "schemas are required"),
        (version(deprecationWarning="x"), "spec.versions[0].deprecationWarning", "only be set for deprecated"),
        (
            lambda spec: spec.update(conversion={"strategy": "Webhook"}),
            "spec.conversion.strategy", "conversion by webhook is not supported",
        ),
        (lambda spec: spec.update(preserveUnknownFields=True), "spec.preserveUnknownFields", "cannot set to true"),
        (
            version(subresources={"scale": {"specReplicasPath": ".status.n", "statusReplicasPath": ".status.n"}}),
            "spec.versions[0].subresources.scale.specReplicasPath", "should be a json path under .spec",
        ),
        (
            version(additionalPrinterColumns=[{"name": "a", "type": "text", "jsonPath": ".spec"}]),
            "spec.versions[0].additionalPrinterColumns[0].type", "must be one of",
        ),
        (
            version(additionalPrinterColumns=[{"name": "a", "type": "string", "jsonPath": "spec"}]),
            "spec.versions[0].additionalPrinterColumns[0].jsonPath", "unrecognized character",
        ),
        (version(selectableFields=[{"jsonPath": ".spec.ports"}]), "spec.versions[0].selectableFields[0].jsonPath", "of type"),
        (more(type="array", items={"type": "string"}), f"{ROOT}.type", "must be object at the root"),
        (more(type=""), f"{ROOT}.type", "must not be empty at the root"),
        (more(additionalProperties={"type": "string"}), f"{ROOT}.additionalProperties", "mutual exclusive"),
        (field("a", {}), f"{SPEC}[a].type", "must not be empty for specified object fields"),
        (field("a", {"type": "array"}), f"{SPEC}[a].items", "must be specified"),
        (field("a", {"type": "array", "items": {}}), f"{SPEC}[a].items.type", "for specified array items"),
        (field("a", {"type": "text"}), f"{SPEC}[a].type", "Unsupported value"),
        (field("a", {"type": "null"}), f"{SPEC}[a].type", "use nullable as an alternative"),
        (field("a", {"type": "string", "pattern": "("}), f"{SPEC}[a].pattern", "must be a valid regular expression"),
        (field("a", {"type": "string", "default": 1}), f"{SPEC}[a].default", "must be of type string"),
        (field("a", {"type": "array", "uniqueItems": True, "items": {"type": "string"}}), f"{SPEC}[a].uniqueItems", "quadratic"),
        (field("a", {"$ref": "#/x", "type": "object"}), f"{SPEC}[a].$ref", "$ref is not supported"),
        (field("a", {"type": "integer", "x-kubernetes-int-or-string": True}), f"{SPEC}[a].type", "must be empty"),
        (field("a", {"x-kubernetes-embedded-resource": True}), f"{SPEC}[a].type", "must be object if"),
        (
            field("a", {"type": "object", "properties": {"b": {"type": "string"}}, "default": {"c": 1}}),
            f"{SPEC}[a].default", "must not have unknown fields",
        ),
        (
            more(oneOf=[{"properties": {"metadata": {"properties": {"name": {"pattern": "a"}}}}}]),
            f"{ROOT}.oneOf[0].properties[metadata]", "must not be specified in a nested context",
        ),
        (
            field("a", {"type": "string", "anyOf": [{"type": "string"}]}),
            f"{SPEC}[a].anyOf[0].type", "must be empty to be structural",
        ),
        (
            field("a", {"type": "object", "oneOf": [{"properties": {"b": {"minimum": 1}}}]}),
            f"{SPEC}[a].properties[b]", f"because it is defined in {SPEC}[a].oneOf[0].properties[b]",
        ),
        (
            field("a", {"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}}),
            f"{SPEC}[a].x-kubernetes-list-map-keys", "must not be empty",
        ),
        (
            field("a", {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
                "items": {"type": "object", "properties": {"n": {"type": "string"}}},
            }),
            f"{SPEC}[a].items.properties[n].default", "must have a default or be a required property",
        ),
        (
            lambda spec: schema_of(spec)["properties"].update(metadata={"type": "object", "properties": {"labels": {"type": "object"}}}),
            f"{ROOT}.properties[metadata]", "name and generateName",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(change, at, says):
    assert any(where == at and says in message for where, message in faults(change)), faults(change)


def test_int_or_string_may_be_spelled_out():
    spelled = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
    assert faults(field("a", spelled)) == []
    wrapped = {"x-kubernetes-int-or-string": True, "allOf": [{"anyOf": spelled["anyOf"]}, {"pattern": "x"}]}
    assert faults(field("a", wrapped)) == []


def test_all_faults_come_at_once():
    def change(spec):
        spec["group"] = "nodot"
        spec["scope"] = "x"
        spec["versions"][0]["storage"] = False
        field("a", {"type": "text"})(spec)

    assert {"spec.group", "spec.scope", "spec.versions", f"{SPEC}[a].type"} <= {where for where, _ in faults(change)}


def test_different_versions_name_their_own_schema():
    def change(spec):
        other = copy.deepcopy(spec["versions"][0])
        other |= {"name": "v2", "storage": False}
        other["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["a"] = {"type": "text"}
        spec["versions"].append(other)

    assert [where for where, _ in faults(change)] == [
        "spec.versions[1].schema.openAPIV3Schema.properties[spec].properties[a].type"
    ]


def test_protected_groups_need_approval():
    def change(spec):
        spec["group"] = "things.k8s.io"

    assert [where for where, _ in faults(change)] == ["metadata.annotations[api-approved.kubernetes.io]"]


@pytest.mark.parametrize(
    ("change", "at"),
    [
        (lambda new: new["spec"].update(scope="Cluster"), "spec.scope"),
        (lambda new: new["spec"]["names"].update(kind="Gadget"), "spec.names.kind"),
        (lambda new: new["spec"].update(group="example.org"), "spec.group"),
        (lambda new: new["spec"]["versions"][0].update(name="v2"), "status.storedVersions[0]"),
    ],
)
def test_what_an_update_may_not_change(change, at):
    old = document()
    old["status"] = {"storedVersions": ["v1"], "conditions": [{"type": "Established", "status": "True"}]}
    new = copy.deepcopy(old)
    change(new)
    found = definition_change_faults(codec.decode(KIND, old), codec.decode(KIND, new))
    assert [each.field for each in found] == [at]


def test_whole_numbers_of_a_schema_stay_whole():
    decoded = codec.to_document(codec.decode(KIND, document()))
    assert "1.0" not in str(decoded)
    unknown = []
    codec.decode(KIND, document(field("a", {"type": "string", "colour": 1})), unknown=unknown)
    assert unknown == ['unknown field "spec.versions[0].schema.openAPIV3Schema.properties.spec.properties.a.colour"']
