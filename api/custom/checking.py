"""Is a value what its schema asks for? All faults at once, in the words and at the paths of the real server.

On an update what has not changed is not held against an object: a schema that became stricter does not lock out
objects that are older than it ("ratcheting"). Source: kubernetes.io, "Validation" and "Validation ratcheting" of
CustomResourceDefinitions; the OpenAPI v3.0 keywords.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from api.custom.formats import FORMATS
from api.custom.patterns import found_in
from api.custom.schema import ABSENT, Schema, find_keyed, key_of, same
from api.errors import Fault
from api.faults import duplicate, required, shown, unsupported, wrong

Value = Any
_NUMBER_FORMATS = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}


def type_name(value: Value) -> str:
    """Return the JSON type of a value, as schemas name types."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list() | tuple():
            return "array"
    return "object"


def faults_of(value: Value, schema: Schema, *, path: str = "", old: Value = ABSENT) -> list[Fault]:
    """Return everything that is wrong with ``value``.

    old: what stood here before the update; ABSENT: nothing, or this is no update.
    """
    if old is not ABSENT and same(value, old):
        return []
    if value is None:
        return _null(schema, path)
    kind = type_name(value)
    if not _has_type(value, kind, schema):
        wanted = "integer,string" if schema.int_or_string else schema.type
        return [_type_fault(path, kind, wanted)]
    faults = _enum(value, schema, path) + _junctors(value, schema, path)
    match value:
        case str():
            faults += _string(value, schema, path)
        case Mapping():
            faults += _object(value, schema, path, old)
        case list():
            faults += _array(value, schema, path, old)
        case int() | float() if kind != "boolean":
            faults += _number(value, schema, path)
    return faults


def _has_type(value: Value, kind: str, schema: Schema) -> bool:
    if schema.int_or_string:
        return kind in ("integer", "string") or (kind == "number" and float(value).is_integer())
    if not schema.type or kind == schema.type:
        return True
    if schema.type == "number":
        return kind == "integer"
    return schema.type == "integer" and kind == "number" and float(value).is_integer()


def _null(schema: Schema, path: str) -> list[Fault]:
    if schema.nullable or not (schema.type or schema.int_or_string):
        return _enum(None, schema, path) if not schema.nullable else []
    wanted = "integer,string" if schema.int_or_string else schema.type
    return [_type_fault(path, "null", wanted)]


def _type_fault(path: str, found: str, wanted: str) -> Fault:
    why = f'Invalid value: "{found}": {path} in body must be of type {wanted}: "{found}"'
    return Fault(path, why, "FieldValueTypeInvalid")


def _enum(value: Value, schema: Schema, path: str) -> list[Fault]:
    allowed = schema.keywords.get("enum")
    if not allowed or any(same(value, each) for each in allowed):
        return []
    if all(isinstance(each, str) for each in allowed):
        return [unsupported(path, value, allowed)]
    names = ", ".join(shown(each) for each in allowed)
    return [Fault(path, f"Unsupported value: {shown(value)}: supported values: {names}", "FieldValueNotSupported")]


def _junctors(value: Value, schema: Schema, path: str) -> list[Fault]:
    """Return the faults of allOf, anyOf, oneOf and not; the real server names no field for these."""
    faults: list[Fault] = []
    where = path or "."
    broken = [each for part in schema.all_of if (each := faults_of(value, part, path=path))]
    if broken:
        faults += [_nowhere(f'"{where}" must validate all the schemas (allOf)'), *(f for each in broken for f in each)]
    if schema.any_of:
        results = [faults_of(value, part, path=path) for part in schema.any_of]
        if all(results):
            faults += [_nowhere(f'"{where}" must validate at least one schema (anyOf)'), *min(results, key=len)]
    if schema.one_of:
        results = [faults_of(value, part, path=path) for part in schema.one_of]
        valid = sum(not each for each in results)
        if valid == 0:
            faults += [
                _nowhere(f'"{where}" must validate one and only one schema (oneOf). Found none valid'),
                *min(results, key=len),
            ]
        elif valid > 1:
            faults.append(
                _nowhere(f'"{where}" must validate one and only one schema (oneOf). Found {valid} valid alternatives')
            )
    if schema.not_ is not None and not faults_of(value, schema.not_, path=path):
        faults.append(_nowhere(f'"{where}" must not validate the schema (not)'))
    return faults


def _nowhere(message: str) -> Fault:
    return Fault("<nil>", f'Invalid value: "": {message}')


def _string(value: str, schema: Schema, path: str) -> list[Fault]:
    keywords, faults = schema.keywords, []
    if (limit := keywords.get("maxLength")) is not None and len(value) > limit:
        faults.append(Fault(path, f"Too long: may not be more than {limit} bytes", "FieldValueTooLong"))
    if (limit := keywords.get("minLength")) is not None and len(value) < limit:
        faults.append(wrong(path, value, f"{path} in body should be at least {limit} chars long"))
    if (pattern := keywords.get("pattern")) and not found_in(pattern, value):
        faults.append(wrong(path, value, f"{path} in body should match '{pattern}'"))
    check = FORMATS.get(keywords.get("format", ""))
    if check is not None and not check(value):
        faults.append(
            Fault(
                path,
                f"Invalid value: {shown(value)}: {path} in body must be of type {keywords['format']}: {shown(value)}",
                "FieldValueTypeInvalid",
            )
        )
    return faults


def _number(value: float, schema: Schema, path: str) -> list[Fault]:
    keywords, faults = schema.keywords, []
    if (limit := keywords.get("maximum")) is not None:
        if keywords.get("exclusiveMaximum") and value >= limit:
            faults.append(wrong(path, value, f"{path} in body should be less than {_plain(limit)}"))
        elif value > limit:
            faults.append(wrong(path, value, f"{path} in body should be less than or equal to {_plain(limit)}"))
    if (limit := keywords.get("minimum")) is not None:
        if keywords.get("exclusiveMinimum") and value <= limit:
            faults.append(wrong(path, value, f"{path} in body should be greater than {_plain(limit)}"))
        elif value < limit:
            faults.append(wrong(path, value, f"{path} in body should be greater than or equal to {_plain(limit)}"))
    # In decimals, as they are written: 0.3 is a multiple of 0.1.
    if (step := keywords.get("multipleOf")) and Decimal(str(value)) % Decimal(str(step)):
        faults.append(wrong(path, value, f"{path} in body should be a multiple of {_plain(step)}"))
    bounds = _NUMBER_FORMATS.get(keywords.get("format", ""))
    if bounds is not None and not bounds[0] <= value <= bounds[1]:
        faults.append(
            wrong(path, value, f"Checked value must be of type integer with format {keywords['format']} in {path}")
        )
    return faults


def _plain(number: float) -> str:
    return str(int(number)) if isinstance(number, float) and number.is_integer() else str(number)


def _object(value: Mapping[str, Any], schema: Schema, path: str, old: Value) -> list[Fault]:
    keywords = schema.keywords
    faults = [
        required(f"{path}.{name}" if path else name) for name in keywords.get("required", ()) if name not in value
    ]
    if (limit := keywords.get("maxProperties")) is not None and len(value) > limit:
        faults.append(Fault(path, f"Too many: {len(value)}: must have at most {limit} items", "FieldValueTooMany"))
    if (limit := keywords.get("minProperties")) is not None and len(value) < limit:
        faults.append(wrong(path, "object", f"{path} in body should have at least {limit} properties"))
    before = old if isinstance(old, Mapping) else {}
    for name, each in value.items():
        below = schema.properties.get(name, schema.additional)
        if below is not None:
            here = f"{path}.{name}" if path else name
            faults += faults_of(each, below, path=here, old=before.get(name, ABSENT))
    return faults


def _array(value: Sequence[Any], schema: Schema, path: str, old: Value) -> list[Fault]:
    keywords, faults = schema.keywords, []
    if (limit := keywords.get("maxItems")) is not None and len(value) > limit:
        faults.append(Fault(path, f"Too many: {len(value)}: must have at most {limit} items", "FieldValueTooMany"))
    if (limit := keywords.get("minItems")) is not None and len(value) < limit:
        faults.append(wrong(path, "array", f"{path} in body should have at least {limit} items"))
    if keywords.get("uniqueItems") and any(_repeats(value)):
        faults.append(wrong(path, "array", f"{path} in body shouldn't contain duplicates"))
    faults += _list_type(value, schema, path)
    if schema.items is not None:
        for index, item in enumerate(value):
            before = ABSENT
            if schema.list_type == "map" and isinstance(old, list):
                before = find_keyed(old, key_of(item, schema), schema)
            faults += faults_of(item, schema.items, path=f"{path}[{index}]", old=before)
    return faults


def _repeats(values: Sequence[Any]) -> list[bool]:
    """Return for each value whether an equal one stands before it."""
    return [any(same(each, other) for other in values[:index]) for index, each in enumerate(values)]


def _list_type(value: Sequence[Any], schema: Schema, path: str) -> list[Fault]:
    """Return the faults of a set with a value twice, and of a keyed list with a key twice."""
    if schema.list_type == "set":
        keys: Sequence[Any] = value
    elif schema.list_type == "map" and schema.items is not None:
        keys = [key_of(each, schema) for each in value]
    else:
        return []
    return [_duplicate(f"{path}[{index}]", keys[index]) for index, repeated in enumerate(_repeats(keys)) if repeated]


def _duplicate(path: str, key: Any) -> Fault:
    if not isinstance(key, Mapping):
        return duplicate(path, key)
    shown_key = ", ".join(f'"{name}":{shown(value)}' for name, value in sorted(key.items()))
    return Fault(path, f"Duplicate value: map[string]interface {{}}{{{shown_key}}}", "FieldValueDuplicate")
