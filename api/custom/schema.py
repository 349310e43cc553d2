"""A structural schema: what a custom kind says of its objects, parsed once from a definition's JSON.

The structure (types, properties, items, defaults) decides what is kept and filled in; the value validations (ranges,
patterns, enums and what stands under allOf, anyOf, oneOf, not) decide what is accepted. Source: kubernetes.io,
"Specifying a structural schema"; KEP-1111.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

ABSENT = object()

# Keywords that a value alone is held against; the schema keeps them as they were written.
VALUE_KEYWORDS = (
    "enum", "exclusiveMaximum", "exclusiveMinimum", "format", "maxItems", "maxLength", "maxProperties", "maximum",
    "minItems", "minLength", "minProperties", "minimum", "multipleOf", "pattern", "required", "uniqueItems",
)  # fmt: skip


class Rule(msgspec.Struct, frozen=True, rename="camel"):
    """One CEL rule of ``x-kubernetes-validations``."""

    rule: str = ""
    message: str = ""
    message_expression: str = ""
    reason: str = ""
    field_path: str = ""
    optional_old_self: bool | None = None


class Schema(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """One node of a schema; compared and hashed by identity, so that it may key caches."""

    type: str = ""
    properties: Mapping[str, "Schema"] = {}
    additional: "Schema | None" = None  # what every value of a map must be
    items: "Schema | None" = None
    nullable: bool = False
    default: Any = ABSENT
    preserve_unknown: bool = False
    embedded: bool = False  # holds a whole object: apiVersion, kind, metadata
    int_or_string: bool = False
    list_type: str = ""  # "set", "map" or "atomic"
    list_keys: tuple[str, ...] = ()
    map_type: str = ""
    rules: tuple[Rule, ...] = ()
    all_of: tuple["Schema", ...] = ()
    any_of: tuple["Schema", ...] = ()
    one_of: tuple["Schema", ...] = ()
    not_: "Schema | None" = None
    keywords: Mapping[str, Any] = {}  # those of VALUE_KEYWORDS that are set

    @property
    def keeps_anything(self) -> bool:
        """Return whether fields that the schema does not name stay."""
        return self.preserve_unknown or self.additional is not None


def _several(document: Mapping[str, Any], name: str) -> tuple[Schema, ...]:
    return tuple(parse(each) for each in document.get(name) or ())


def parse(document: Mapping[str, Any]) -> Schema:
    """Return the schema of an ``openAPIV3Schema`` document that validation has let pass."""
    additional = document.get("additionalProperties")
    items = document.get("items")
    default = document.get("default", ABSENT)
    return Schema(
        type=document.get("type", ""),
        properties={name: parse(each) for name, each in (document.get("properties") or {}).items()},
        additional=parse(additional) if isinstance(additional, Mapping) else ANYTHING if additional is True else None,
        items=parse(items) if isinstance(items, Mapping) else None,
        nullable=bool(document.get("nullable")),
        default=default,
        preserve_unknown=bool(document.get("x-kubernetes-preserve-unknown-fields")),
        embedded=bool(document.get("x-kubernetes-embedded-resource")),
        int_or_string=bool(document.get("x-kubernetes-int-or-string")),
        list_type=document.get("x-kubernetes-list-type") or "",
        list_keys=tuple(document.get("x-kubernetes-list-map-keys") or ()),
        map_type=document.get("x-kubernetes-map-type") or "",
        rules=tuple(msgspec.convert(document.get("x-kubernetes-validations") or (), tuple[Rule, ...])),
        all_of=_several(document, "allOf"),
        any_of=_several(document, "anyOf"),
        one_of=_several(document, "oneOf"),
        not_=parse(document["not"]) if document.get("not") else None,
        keywords={name: document[name] for name in VALUE_KEYWORDS if document.get(name) not in (None, (), [])},
    )


ANYTHING = Schema(preserve_unknown=True)


def same(left: Any, right: Any) -> bool:
    """Return whether two JSON values are equal as JSON: 1 is 1.0, but not true."""
    match left, right:
        case (bool(), _) | (_, bool()):
            return left is right
        case (Mapping(), Mapping()):
            return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
        case ((list() | tuple()), (list() | tuple())):
            return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def key_of(item: Any, schema: Schema) -> dict[str, Any]:
    """Return what tells ``item`` of a keyed list from the others: key -> value, defaults filled in."""
    assert schema.items is not None
    found = {}
    for name in schema.list_keys:
        value = item.get(name, ABSENT) if isinstance(item, Mapping) else ABSENT
        if value is ABSENT and name in schema.items.properties:
            value = schema.items.properties[name].default
        if value is not ABSENT:
            found[name] = value
    return found


def find_keyed(items: Sequence[Any], key: Mapping[str, Any], schema: Schema) -> Any:
    """Return the item of a keyed list that has ``key``, or ABSENT."""
    return next((each for each in items if same(key_of(each, schema), key)), ABSENT)


def has_rules(schema: Schema) -> bool:
    """Return whether a schema has rules at any depth."""
    below = (*schema.properties.values(), *(each for each in (schema.items, schema.additional) if each is not None))
    return bool(schema.rules) or any(has_rules(each) for each in below)
