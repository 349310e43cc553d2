"""Pruning, defaulting and checking of custom objects, against slow and obvious twins and another's validator."""

import copy
from typing import Any

import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st

from api.custom.checking import faults_of
from api.custom.pruning import drop_nulls, fill, prune
from api.custom.schema import parse
from api.custom.structure import schema_faults

SETTINGS = settings(max_examples=400)
NAMES = st.sampled_from(["a", "b", "c", "d"])
NUMBERS = st.integers(-3, 6) | st.sampled_from([0.5, 2.5])
TEXTS = st.text(alphabet="ab", max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)


def optional(keywords: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=keywords)


NULLABLE = {"nullable": st.just(True)}
STRING = optional(
    NULLABLE
    | {
        "minLength": st.integers(0, 3),
        "maxLength": st.integers(0, 3),
        "pattern": st.sampled_from(["^a", "b$", "a+"]),
        "enum": st.lists(TEXTS, min_size=1, max_size=3),
    }
).map(lambda keywords: {"type": "string", **keywords})
BOUNDS = {
    "minimum": st.integers(-2, 4),
    "maximum": st.integers(-2, 4),
    "multipleOf": st.sampled_from([2, 3]),
    "exclusiveMinimum": st.just(True),
    "exclusiveMaximum": st.just(True),
}


def bounded(type_: str) -> st.SearchStrategy[dict[str, Any]]:
    def fit(keywords: dict[str, Any]) -> dict[str, Any]:
        for bound in ("Minimum", "Maximum"):
            if bound.lower() not in keywords:
                keywords.pop(f"exclusive{bound}", None)
        return {"type": type_, **keywords}

    return optional(NULLABLE | BOUNDS).map(fit)


LEAVES = st.one_of(
    STRING, bounded("integer"), bounded("number"), optional(NULLABLE).map(lambda more: {"type": "boolean", **more})
)


def lists(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    limits = {"minItems": st.integers(0, 2), "maxItems": st.integers(0, 3)}
    return st.builds(lambda items, more: {"type": "array", "items": items, **more}, inner, optional(NULLABLE | limits))


def objects(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    def make(properties: dict[str, Any], more: dict[str, Any], junctors: dict[str, Any]) -> dict[str, Any]:
        known = {
            name: [{**each, "required": [key for key in each["required"] if key in properties]} for each in parts]
            for name, parts in junctors.items()
        }
        return {"type": "object", "properties": properties, **more, **known}

    limits = {
        "required": st.lists(NAMES, max_size=2, unique=True),
        "minProperties": st.integers(0, 2),
        "maxProperties": st.integers(1, 4),
        "x-kubernetes-preserve-unknown-fields": st.just(True),
    }
    alternatives = st.lists(
        st.lists(NAMES, max_size=2, unique=True).map(lambda names: {"required": names}), min_size=1, max_size=2
    )
    junctors = optional({"anyOf": alternatives, "oneOf": alternatives, "allOf": alternatives})
    named = st.builds(make, st.dictionaries(NAMES, inner, max_size=3), optional(NULLABLE | limits), junctors)
    maps = st.builds(lambda each: {"type": "object", "additionalProperties": each}, inner)
    return named | maps


SCHEMAS = st.recursive(LEAVES, lambda inner: lists(inner) | objects(inner), max_leaves=8)
ROOTS = objects(SCHEMAS).filter(lambda schema: "properties" in schema)


def judged(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema as JSON Schema draft 4 has it: null is a type."""
    found = {
        name: value
        for name, value in schema.items()
        if name not in ("nullable", "properties", "items", "additionalProperties", "default")
        and not (name == "required" and not value)
    }
    for name in ("anyOf", "oneOf", "allOf"):
        if name in found:
            found[name] = [judged(each) for each in found[name]]
    if "properties" in schema:
        found["properties"] = {name: judged(each) for name, each in schema["properties"].items()}
    for name in ("items", "additionalProperties"):
        if name in schema:
            found[name] = judged(schema[name])
    if schema.get("nullable"):
        return {"anyOf": [{"enum": [None]}, found]}
    return found


@SETTINGS
@given(schema=SCHEMAS, value=VALUES)
def test_what_is_right_is_right_to_another_validator(schema: dict[str, Any], value: Any) -> None:
    """Goal: we accept exactly what JSON Schema accepts."""
    valid = jsonschema.Draft4Validator(judged(schema)).is_valid(value)
    assert (faults_of(value, parse(schema)) == []) is valid


@SETTINGS
@given(schema=SCHEMAS, old=VALUES, new=VALUES)
def test_an_update_is_held_to_what_it_changes(schema: dict[str, Any], old: Any, new: Any) -> None:
    """Goal: an update has no fault that creating the same would not have, and none if nothing changes."""
    parsed = parse(schema)
    created = [(each.field, each.message) for each in faults_of(new, parsed)]
    updated = [(each.field, each.message) for each in faults_of(new, parsed, old=old)]
    assert [each for each in updated if each not in created and each[0] != "<nil>"] == []
    assert faults_of(new, parsed, old=copy.deepcopy(new)) == []


def pruned_twin(value: Any, schema: dict[str, Any]) -> Any:
    if isinstance(value, list) and "items" in schema:
        return [pruned_twin(each, schema["items"]) for each in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for name, each in value.items():
        if name in schema.get("properties", {}):
            found[name] = pruned_twin(each, schema["properties"][name])
        elif "additionalProperties" in schema:
            found[name] = pruned_twin(each, schema["additionalProperties"])
        elif schema.get("x-kubernetes-preserve-unknown-fields"):
            found[name] = each
    return found


@SETTINGS
@given(schema=SCHEMAS, value=VALUES)
def test_pruning_leaves_what_the_schema_knows(schema: dict[str, Any], value: Any) -> None:
    expected = pruned_twin(value, schema)
    told: list[str] = []
    before = copy.deepcopy(value)
    prune(value, parse(schema), pruned=told)
    assert value == expected
    assert bool(told) is (value != before)
    again: list[str] = []
    prune(value, parse(schema), pruned=again)
    assert again == []


def with_defaults(schema: dict[str, Any], draw: Any) -> dict[str, Any]:
    """Return the schema with defaults at some of its fields, which need not be right."""
    found = dict(schema)
    if "properties" in schema:
        found["properties"] = {}
        for name, each in schema["properties"].items():
            below = with_defaults(each, draw)
            if draw(st.booleans()):
                below["default"] = draw(VALUES.filter(lambda value: value is not None))
            found["properties"][name] = below
    for name in ("items", "additionalProperties"):
        if name in schema:
            found[name] = with_defaults(schema[name], draw)
    return found


def filled_twin(value: Any, schema: dict[str, Any]) -> Any:
    if isinstance(value, list) and "items" in schema:
        return [filled_twin(each, schema["items"]) for each in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties", {})
    found = {}
    for name in {**value, **properties}:
        below = properties.get(name, schema.get("additionalProperties"))
        present = value.get(name)
        if present is None and below is not None and not (name in value and below.get("nullable")):
            if "default" in below:
                found[name] = filled_twin(copy.deepcopy(below["default"]), below)
                continue
            if name in properties:
                if name in value and below.get("x-kubernetes-preserve-unknown-fields"):
                    found[name] = None
                continue
        found[name] = present if below is None else filled_twin(present, below)
    return found


@SETTINGS
@given(schema=SCHEMAS, value=VALUES, data=st.data())
def test_defaults_fill_what_is_missing(schema: dict[str, Any], value: Any, data: st.DataObject) -> None:
    schema = with_defaults(schema, data.draw)
    expected = filled_twin(value, schema)
    parsed = parse(schema)
    drop_nulls(value, parsed)
    fill(value, parsed)
    once = copy.deepcopy(value)
    fill(value, parsed)
    assert value == once
    # A default may itself hold nulls, which nobody drops from it.
    drop_nulls(value, parsed)
    drop_nulls(expected, parsed)
    assert value == expected


@SETTINGS
@given(schema=ROOTS)
def test_schemas_of_this_form_are_structural(schema: dict[str, Any]) -> None:
    schema.pop("nullable", None)
    assert [
        fault for fault in schema_faults(schema, "s") if "must be" in fault.message and ".type" in fault.field
    ] == []
