"""What clients of OpenAPI v2 are told of a custom kind: nothing that makes them refuse what the server takes."""

import pytest

from api.custom.published import published

OPEN = "x-kubernetes-preserve-unknown-fields"
TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        pytest.param({"type": "object", OPEN: True, "properties": {"a": TEXT}}, {OPEN: True}, id="any fields"),
        pytest.param({"type": "array", OPEN: True, "items": TEXT}, {OPEN: True}, id="any items"),
        pytest.param({"type": "string", "nullable": True, "format": "date"}, {}, id="maybe null"),
        pytest.param(
            {"type": "object", "required": ["a", "b"], "properties": {"a": {**TEXT, "nullable": True}, "b": TEXT}},
            {"type": "object", "required": ["b"], "properties": {"a": {}, "b": TEXT}},
            id="null is there and not there",
        ),
        pytest.param(
            {"type": "object", "required": ["a"], "additionalProperties": {**TEXT, "nullable": True}},
            {"type": "object", "additionalProperties": {}},
            id="null in a map",
        ),
        pytest.param(
            {"type": "object", "required": ["a"], "properties": {"a": TEXT}},
            {"type": "object", "required": ["a"], "properties": {"a": TEXT}},
            id="all else",
        ),
    ],
)
def test_v2_is_told(schema, told):
    whole = published({"type": "object", "properties": {"spec": schema}}, {"kind": TEXT}, version=2)
    assert whole == {"type": "object", "properties": {"spec": told, "kind": TEXT}}


def test_v2_is_told_nothing_of_a_kind_with_any_fields():
    anything = {"type": "object", OPEN: True, "description": "d", "properties": {"a": TEXT}}
    assert published(anything, {"kind": TEXT}, version=2) == {"type": "object"}
    assert set(published(anything, {"kind": TEXT}, version=3)["properties"]) == {"a", "kind"}
