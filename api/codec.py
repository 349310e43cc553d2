"""JSON documents to structs and back.

Two ways in. What a client sends is walked against the struct's shape: unknown fields are collected for the caller to
ignore, warn of or refuse, wrong types are refused in the words of the real server, ``null`` means absent, quantities
and bytes take their canonical form. What the store returns was walked when it came in and is decoded at full speed.
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import msgspec

from api import base64_text, quantity, times
from api.custom.objects import CustomObject, from_bytes, to_plain
from api.custom.pruning import ROOT
from api.errors import BadRequest
from api.kinds.table import Kind
from api.meta import ObjectMeta, Resource
from api.shapes import AnyJson, Deduced, ListOf, MapOf, ObjectOf, Scalar, Shape, StructOf, fields_of

_encoder = msgspec.json.Encoder()


class _WrongType(Exception):
    """A value that cannot stand where it was found."""

    def __init__(self, path: str, found: object, wanted: str) -> None:
        super().__init__(f"cannot unmarshal {json_type(found)} into field {path.lstrip('.')} of type {wanted}")


def json_type(value: object) -> str:
    """Return what Go calls the form that a value has in JSON."""
    match value:
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list() | tuple():
            return "array"
    return "object"


class _Walker:
    """Prunes one document to its shape; ``unknown`` collects what was not known."""

    def __init__(self, unknown: list[str] | None) -> None:
        self._unknown = unknown

    def walk(self, value: Any, shape: Shape, path: str) -> Any:
        match shape:
            case AnyJson(raw):
                return msgspec.Raw(_encoder.encode(value)) if raw else value
            case ObjectOf() | Deduced():
                return value  # a custom kind's own schema sees to it
            case Scalar():
                return self._scalar(value, shape.name, path)
            case ListOf(items):
                if not isinstance(value, list | tuple):
                    raise _WrongType(path, value, "array")
                return [self._item(each, items, f"{path}[{index}]") for index, each in enumerate(value)]
            case MapOf(values):
                if not isinstance(value, Mapping):
                    raise _WrongType(path, value, "map")
                return {key: self._item(each, values, f"{path}.{key}") for key, each in value.items()}
            case StructOf(model):
                return self._struct(value, model, path)

    def _item(self, value: Any, shape: Shape, path: str) -> Any:
        # Go decodes a null inside a list or map to the zero value of its type.
        if value is None and not isinstance(shape, AnyJson):
            return _ZERO.get(shape.name, "") if isinstance(shape, Scalar) else {} if isinstance(shape, StructOf) else []
        return self.walk(value, shape, path)

    def _struct(self, value: Any, model: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise _WrongType(path, value, model.__name__)
        fields = fields_of(model)
        kept = {}
        for name, each in value.items():
            field = fields.get(name)
            if field is None:
                if self._unknown is not None:
                    self._unknown.append(f'unknown field "{f"{path}.{name}".lstrip(".")}"')
            elif each is not None:
                kept[name] = self.walk(each, field.shape, f"{path}.{name}")
        return kept

    def _scalar(self, value: Any, name: str, path: str) -> Any:
        match name:
            case "string" if isinstance(value, str):
                return value
            case "boolean" if isinstance(value, bool):
                return value
            case "integer" if isinstance(value, int) and not isinstance(value, bool) and -_END <= value < _END:
                return value
            case "integer" if isinstance(value, float) and value.is_integer() and -_END <= value < _END:
                return int(value)
            case "number" if isinstance(value, int | float) and not isinstance(value, bool):
                return value
            case "int-or-string" if isinstance(value, int | str) and not isinstance(value, bool):
                return value
            case "bytes" if isinstance(value, str):
                return base64_text.canonical(value)
            case "quantity" if isinstance(value, str | int | float) and not isinstance(value, bool):
                return _quantity(str(value), path)
            case "time" | "micro-time" if isinstance(value, str):
                return _time(value, path, micro=name == "micro-time")
        raise _WrongType(path, value, name)


def _quantity(text: str, path: str) -> str:
    try:
        return quantity.canonical(text)
    except ValueError:
        raise _WrongType(path, text, "quantity") from None


def _time(text: str, path: str, *, micro: bool) -> str:
    try:
        return times.canonical(text, micro=micro)
    except ValueError:
        raise _WrongType(path, text, "MicroTime" if micro else "Time") from None


_END = 2**63  # of the integers that a field can hold
_ZERO = {"boolean": False, "integer": 0, "number": 0.0, "int-or-string": 0, "quantity": "0"}


def decode(kind: Kind, document: Mapping[str, Any], *, unknown: list[str] | None = None) -> Resource:
    """Return the struct that a client's ``document`` stands for.

    unknown: receives a text such as ``unknown field "spec.foo"`` for each field that the kind has not.
    Raises BadRequest where a value has the wrong type.
    """
    try:
        if kind.custom is not None:
            return _decode_custom(kind, document, unknown)
        kept = _Walker(unknown).walk(document, StructOf(kind.model), "")
        return msgspec.convert(kept, kind.model)
    except (_WrongType, msgspec.ValidationError) as error:
        raise _unreadable(kind, f"json: {error}") from None
    except base64_text.IllegalBase64 as error:
        raise _unreadable(kind, str(error)) from None


def _unreadable(kind: Kind, why: str) -> BadRequest:
    return BadRequest(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {why}')


def _decode_custom(kind: Kind, document: Mapping[str, Any], unknown: list[str] | None) -> CustomObject:
    """Return a custom object: the metadata as every object's, the rest as its kind's schema makes it."""
    assert kind.custom is not None
    assert issubclass(kind.model, CustomObject), kind
    walker = _Walker(unknown)
    head = {name: document.get(name) or "" for name in ("apiVersion", "kind")}
    for name, value in head.items():
        if not isinstance(value, str):
            raise _WrongType(name, value, "string")
    metadata = walker.walk(document.get("metadata") or {}, StructOf(ObjectMeta), "metadata")
    content = {name: each for name, each in document.items() if name not in ROOT}
    content = msgspec.json.decode(_encoder.encode(content))
    pruned: list[str] = []
    kind.custom.complete(content, pruned=pruned)
    if unknown is not None:
        unknown += (f'unknown field "{path}"' for path in pruned)
    return kind.model(
        api_version=head["apiVersion"],
        kind=head["kind"],
        metadata=msgspec.convert(metadata, ObjectMeta),
        content=content,
    )


@cache
def _decoder(model: type[Resource]) -> Callable[[bytes], Resource]:
    if issubclass(model, CustomObject):
        return partial(from_bytes, model)
    return msgspec.json.Decoder(model).decode


def read_model(model: type[Resource], data: bytes) -> Resource:
    """Return the object of a struct that the store holds as ``data``; raises ValueError."""
    return _decoder(model)(data)


def from_json(kind: Kind, data: bytes) -> Resource:
    """Return the object that the store holds as ``data``."""
    return read_model(kind.model, data)


def encode(obj: Resource) -> bytes:
    """Return ``obj`` as compact JSON."""
    return _encoder.encode(to_plain(obj) if isinstance(obj, CustomObject) else obj)


def to_document(obj: Resource) -> dict[str, Any]:
    """Return ``obj`` as plain dicts, lists and scalars that the caller may change."""
    document: dict[str, Any] = msgspec.json.decode(encode(obj))
    return document
