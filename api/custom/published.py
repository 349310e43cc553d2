"""A custom kind's schema as OpenAPI publishes it: whole in v3, without what its clients cannot read in v2.

Source: kubernetes.io, "Publish Validation Schema in OpenAPI".
"""

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]
Document = Mapping[str, Any]

_SUBSCHEMAS = ("items", "additionalProperties", "not")
_LISTS = ("allOf", "anyOf", "oneOf")
# What clients of v2 stumble over: their parsers know no null, no alternatives and no defaults.
_NOT_IN_V2 = (*_LISTS, "not", "nullable", "default", "x-kubernetes-validations")


def root_name(group: str, version: str, kind: str) -> str:
    """Return the definition name: ``com.example.stable.v1.CronTab``."""
    return ".".join((*reversed(group.split(".")), version, kind))


def published(document: Document, head: Document, *, version: int) -> Schema:
    """Return the schema of a whole object; ``head``: properties that every object has. ``version``: 2 or 3."""
    if version == 2 and (document.get("x-kubernetes-preserve-unknown-fields") or not document):
        # Clients of v2 would refuse every field that is not listed.
        return {"type": "object"}
    schema = _v2(document) if version == 2 else _v3(document, head)
    return {**schema, "type": "object", "properties": {**(schema.get("properties") or {}), **head}}


def _v3(document: Document, head: Document) -> Schema:
    schema: Schema = {}
    for name, value in document.items():
        if name == "properties":
            schema[name] = {key: _v3(each, head) for key, each in value.items()}
        elif name in _SUBSCHEMAS and isinstance(value, Mapping):
            schema[name] = _v3(value, head)
        elif name in _LISTS:
            schema[name] = [_v3(each, head) for each in value]
        else:
            schema[name] = value
    if document.get("x-kubernetes-embedded-resource"):
        schema["properties"] = {**(schema.get("properties") or {}), **head}
    if document.get("x-kubernetes-int-or-string") and not schema.get("anyOf"):
        schema["oneOf" if "oneOf" not in schema else "anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return schema


def _v2(document: Document) -> Schema:
    schema: Schema = {}
    shapeless = bool(document.get("nullable") or document.get("x-kubernetes-int-or-string"))
    open_ended = bool(document.get("x-kubernetes-preserve-unknown-fields"))
    for name, value in document.items():
        if name in _NOT_IN_V2:
            continue
        if shapeless and name in ("type", "format", "items", "properties", "additionalProperties", "required"):
            continue
        if open_ended and (name in ("items", "properties", "required") or (name, value) == ("type", "object")):
            # They take an object with a type to have just the fields that are listed.
            continue
        if name == "properties":
            schema[name] = {key: _v2(each) for key, each in value.items()}
        elif name in ("items", "additionalProperties") and isinstance(value, Mapping):
            schema[name] = _v2(value)
        elif name == "additionalProperties":
            schema[name] = {}
        elif name == "required":
            if required := _never_null(document):
                schema[name] = required
        else:
            schema[name] = value
    if schema.get("type") == "array" and "items" not in schema:
        del schema["type"]
    return schema


def _never_null(document: Document) -> list[str]:
    """Return the required properties less those that may be null: who knows no null takes it for absence."""
    rest = document.get("additionalProperties")
    if isinstance(rest, Mapping) and rest.get("nullable"):
        return []
    properties = document.get("properties") or {}
    return [name for name in document["required"] if not (properties.get(name) or {}).get("nullable")]
