"""Is a schema structural, and are its keywords ones that definitions may use? All faults at once.

Source: kubernetes.io, "Specifying a structural schema", "Validation"; KEP-1111.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from api.custom.checking import faults_of, type_name
from api.custom.patterns import pattern_fault
from api.custom.pruning import prune
from api.custom.schema import parse
from api.errors import Fault
from api.faults import forbidden, required, unsupported, wrong

Document = Mapping[str, Any]

ROOT, ITEM, FIELD = "at the root", "for specified array items", "for specified object fields"
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_LIST_TYPES = ("atomic", "map", "set")
_MAP_TYPES = ("atomic", "granular")
_UNSUPPORTED = ("$ref", "additionalItems", "definitions", "dependencies", "id", "patternProperties")
# What may not stand below allOf, anyOf, oneOf and not: keyword -> why.
_NOT_NESTED = {
    "type": "must be empty to be structural",
    "additionalProperties": "must be undefined to be structural",
    "default": "must be undefined to be structural",
    "title": "must be empty to be structural",
    "description": "must be empty to be structural",
    "nullable": "must be false to be structural",
    "externalDocs": "must be undefined to be structural",
    "x-kubernetes-preserve-unknown-fields": "must be false to be structural",
    "x-kubernetes-embedded-resource": "must be false to be structural",
    "x-kubernetes-int-or-string": "must be false to be structural",
    "x-kubernetes-list-map-keys": "must be empty to be structural",
    "x-kubernetes-list-type": "must be undefined to be structural",
    "x-kubernetes-map-type": "must be undefined to be structural",
    "x-kubernetes-validations": "must be empty to be structural",
}
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]
_DEEPEST = 64


def schema_faults(schema: Document, path: str) -> list[Fault]:
    """Return everything that is wrong with a version's ``openAPIV3Schema``, which stands at ``path``."""
    faults = list(_keywords(schema, path, depth=0))
    if not faults:
        faults = [*_invariants(schema, ROOT, path), *_completeness(schema, path)]
    if not faults:
        faults = list(_defaults(schema, path))
    return faults


def _below(schema: Document, path: str) -> Iterator[tuple[Document, str]]:
    """Yield every schema directly below ``schema``, with its path."""
    for name, each in (schema.get("properties") or {}).items():
        yield each, f"{path}.properties[{name}]"
    for name in ("additionalProperties", "items", "not"):
        if isinstance(each := schema.get(name), Mapping):
            yield each, f"{path}.{name}"
    for name in ("allOf", "anyOf", "oneOf"):
        for index, each in enumerate(schema.get(name) or ()):
            yield each, f"{path}.{name}[{index}]"


def _keywords(schema: Any, path: str, *, depth: int) -> Iterator[Fault]:
    """Yield what is wrong with single keywords, at every depth."""
    if not isinstance(schema, Mapping):
        yield Fault(path, f'Invalid value: "{type_name(schema)}": must be a schema object')
        return
    if depth > _DEEPEST:
        yield wrong(path, f"depth {depth}", f"schemas may not be nested deeper than {_DEEPEST}")
        return
    for name in _UNSUPPORTED:
        if schema.get(name):
            yield forbidden(f"{path}.{name}", f"{name} is not supported")
    kind = schema.get("type", "")
    if kind == "null":
        yield forbidden(f"{path}.type", "type cannot be set to null, use nullable as an alternative")
    elif kind and kind not in _TYPES:
        yield unsupported(f"{path}.type", kind, _TYPES)
    if schema.get("uniqueItems"):
        yield forbidden(
            f"{path}.uniqueItems", "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        )
    if isinstance(schema.get("items"), list):
        yield forbidden(f"{path}.items", "items must be a schema object and not an array")
    additional = schema.get("additionalProperties")
    if additional is False:
        yield forbidden(f"{path}.additionalProperties", "additionalProperties cannot be set to false")
    elif additional is not None and schema.get("properties"):
        why = "additionalProperties and properties are mutual exclusive"
        yield forbidden(f"{path}.additionalProperties", why)
    yield from _shapes(schema, path)
    yield from _list_rules(schema, path)
    for each, where in _below(schema, path):
        yield from _keywords(each, where, depth=depth + 1)


def _shapes(schema: Document, path: str) -> Iterator[Fault]:
    """Yield keywords whose own value has the wrong form; the struct has checked the simple types."""
    if (pattern := schema.get("pattern")) and (why := pattern_fault(pattern)):
        yield wrong(f"{path}.pattern", pattern, f"must be a valid regular expression, but isn't: {why}")
    if schema.get("x-kubernetes-preserve-unknown-fields") is False:
        yield wrong(f"{path}.x-kubernetes-preserve-unknown-fields", value=False, detail="must be true or undefined")
    map_type = schema.get("x-kubernetes-map-type")
    if map_type and map_type not in _MAP_TYPES:
        yield unsupported(f"{path}.x-kubernetes-map-type", map_type, _MAP_TYPES)
    if map_type and schema.get("type") != "object":
        yield wrong(f"{path}.type", schema.get("type", ""), "must be object if x-kubernetes-map-type is specified")
    for name in ("multipleOf",):
        if (step := schema.get(name)) is not None and step <= 0:
            yield wrong(f"{path}.{name}", step, "must be greater than 0")


def _list_rules(schema: Document, path: str) -> Iterator[Fault]:
    list_type, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or ()
    items = schema.get("items")
    items = items if isinstance(items, Mapping) else {}
    if list_type and schema.get("type") != "array":
        if schema.get("type"):
            yield wrong(f"{path}.type", schema["type"], "must be array if x-kubernetes-list-type is specified")
        else:
            yield required(f"{path}.type", "must be array if x-kubernetes-list-type is specified")
    if list_type and list_type not in _LIST_TYPES:
        yield unsupported(f"{path}.x-kubernetes-list-type", list_type, _LIST_TYPES)
    if list_type == "map":
        if not keys:
            yield required(f"{path}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map")
        if not items:
            yield required(f"{path}.items", "must have a schema if x-kubernetes-list-type is map")
        elif items.get("type") != "object":
            why = "must be object if parent array's x-kubernetes-list-type is map"
            yield wrong(f"{path}.items.type", items.get("type", ""), why)
        yield from _map_keys(items, keys, path)
    elif keys:
        yield wrong(
            f"{path}.x-kubernetes-list-type", list_type or "", "must be map if x-kubernetes-list-map-keys is non-empty"
        )
    if list_type == "set" and items.get("type") == "object" and items.get("x-kubernetes-map-type") != "atomic":
        why = "must be atomic as item of a list with x-kubernetes-list-type=set"
        yield wrong(f"{path}.items.x-kubernetes-map-type", items.get("x-kubernetes-map-type", ""), why)


def _map_keys(items: Document, keys: Sequence[str], path: str) -> Iterator[Fault]:
    """Yield what is wrong with the keys of a keyed list."""
    properties = items.get("properties") or {}
    for index, key in enumerate(keys):
        if key in keys[:index]:
            yield Fault(f"{path}.x-kubernetes-list-map-keys", f'Duplicate value: "{key}"', "FieldValueDuplicate")
        if key not in properties:
            why = "entries must all be names of item properties"
            yield wrong(f"{path}.x-kubernetes-list-map-keys", list(keys), why)
            continue
        where = f"{path}.items.properties[{key}]"
        if properties[key].get("type") not in ("string", "integer", "number", "boolean"):
            why = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            yield wrong(f"{where}.type", properties[key].get("type", ""), why)
        if key not in (items.get("required") or ()) and "default" not in properties[key]:
            why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            yield required(f"{where}.default", why)


def _is_int_or_string(schema: Document) -> bool:
    return bool(schema.get("x-kubernetes-int-or-string"))


def _invariants(schema: Document, level: str, path: str) -> Iterator[Fault]:
    """Yield where the structure itself (outside the junctors) is not that of a structural schema."""
    if schema.get("type") == "array" and schema.get("items") is None:
        yield required(f"{path}.items", "must be specified")
    if isinstance(items := schema.get("items"), Mapping):
        yield from _invariants(items, ITEM, f"{path}.items")
    for name, each in (schema.get("properties") or {}).items():
        yield from _invariants(each, FIELD, f"{path}.properties[{name}]")
    if (additional := schema.get("additionalProperties")) is not None:
        if level is ROOT:
            yield forbidden(f"{path}.additionalProperties", "must not be used at the root")
        if isinstance(additional, Mapping):
            yield from _invariants(additional, FIELD, f"{path}.additionalProperties")
    yield from _types(schema, level, path)
    yield from _junctors(schema, path)
    yield from _metadata(schema, level, path)


def _types(schema: Document, level: str, path: str) -> Iterator[Fault]:
    kind, embedded = schema.get("type", ""), schema.get("x-kubernetes-embedded-resource")
    preserve = schema.get("x-kubernetes-preserve-unknown-fields")
    if _is_int_or_string(schema):
        why = "must be false if x-kubernetes-int-or-string is true"
        for name in ("x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"):
            if schema.get(name):
                yield wrong(f"{path}.{name}", value=True, detail=why)
        if kind:
            yield forbidden(f"{path}.type", "must be empty if x-kubernetes-int-or-string is true")
    if embedded and kind != "object":
        why = "must be object if x-kubernetes-embedded-resource is true"
        yield wrong(f"{path}.type", kind, why) if kind else required(f"{path}.type", why)
    elif not kind and not _is_int_or_string(schema) and not preserve:
        yield required(f"{path}.type", f"must not be empty {level}")
    if embedded and schema.get("additionalProperties") is not None:
        yield forbidden(f"{path}.additionalProperties", "must not be used if x-kubernetes-embedded-resource is set")
    if embedded and not preserve and not schema.get("properties"):
        why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
        yield required(f"{path}.properties", why)
    if level is ROOT and kind and kind != "object":
        yield wrong(f"{path}.type", kind, "must be object at the root")


def _metadata(schema: Document, level: str, path: str) -> Iterator[Fault]:
    if level is not ROOT and not schema.get("x-kubernetes-embedded-resource"):
        return
    properties = schema.get("properties") or {}
    for name in ("kind", "apiVersion"):
        if name in properties and properties[name].get("type") != "string":
            yield wrong(f"{path}.properties[{name}].type", properties[name].get("type", ""), "must be string")
    metadata = properties.get("metadata")
    if metadata is None:
        return
    where = f"{path}.properties[metadata]"
    if metadata.get("type") != "object":
        yield wrong(f"{where}.type", metadata.get("type", ""), "must be object")
    if level is ROOT:
        more = set(metadata) - {"type", "properties", "description", "default"}
        if more or set(metadata.get("properties") or ()) - {"name", "generateName"}:
            why = "must not specify anything other than name and generateName, but metadata is implicitly specified"
            yield forbidden(where, why)


def _junctors(schema: Document, path: str, *, nested: bool = False) -> Iterator[Fault]:
    for name in ("anyOf", "allOf", "oneOf"):
        for index, each in enumerate(schema.get(name) or ()):
            if name == "anyOf" and schema["anyOf"] == _INT_OR_STRING and (nested or _is_int_or_string(schema)):
                continue
            first = name == "allOf" and index == 0 and each.get("anyOf") == _INT_OR_STRING
            if first and _is_int_or_string(schema):
                each = {key: value for key, value in each.items() if key != "anyOf"}  # noqa: PLW2901 - the allowed form
            yield from _nested(each, f"{path}.{name}[{index}]")
    if isinstance(negated := schema.get("not"), Mapping):
        yield from _nested(negated, f"{path}.not")


def _nested(schema: Document, path: str) -> Iterator[Fault]:
    """Yield what may not stand below a junctor."""
    for keyword, why in _NOT_NESTED.items():
        if schema.get(keyword) or (keyword == "default" and keyword in schema):
            yield forbidden(f"{path}.{keyword}", why)
    yield from _junctors(schema, path)
    if isinstance(items := schema.get("items"), Mapping):
        yield from _nested(items, f"{path}.items")
    for name, each in (schema.get("properties") or {}).items():
        if name == "metadata":
            yield forbidden(f"{path}.properties[metadata]", "must not be specified in a nested context")
        yield from _nested(each, f"{path}.properties[{name}]")


def _completeness(schema: Document, path: str) -> Iterator[Fault]:
    """Yield what junctors speak of and the structure does not."""
    for each, where in _below(schema, path):
        if where.startswith((f"{path}.allOf", f"{path}.anyOf", f"{path}.oneOf", f"{path}.not")):
            yield from _specified(each, where, schema, path)
        else:
            yield from _completeness(each, where)


def _specified(nested: Document, where: str, schema: Document, path: str) -> Iterator[Fault]:
    for each, here in _below(nested, where):
        name = here.removeprefix(where)
        if name.startswith((".allOf", ".anyOf", ".oneOf", ".not")):
            yield from _specified(each, here, schema, path)
            continue
        outside = {at.removeprefix(path): below for below, at in _below(schema, path)}.get(name)
        if outside is None:
            if not (name.startswith(".properties") and isinstance(schema.get("additionalProperties"), Mapping)):
                yield required(f"{path}{name}", f"because it is defined in {here}")
        else:
            yield from _specified(each, here, outside, f"{path}{name}")


def _defaults(schema: Document, path: str) -> Iterator[Fault]:
    """Yield defaults that the schema itself would refuse, or prune."""
    if "default" in schema:
        parsed = parse({key: value for key, value in schema.items() if key != "default"})
        value = schema["default"]
        pruned: list[str] = []
        prune(value if not isinstance(value, dict | list) else _copied(value), parsed, pruned=pruned)
        if pruned:
            yield wrong(f"{path}.default", value, "must not have unknown fields")
        yield from faults_of(value, parsed, path=f"{path}.default")
    for each, where in _below(schema, path):
        yield from _defaults(each, where)


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value
