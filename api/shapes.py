"""What JSON each struct stands for, as data: the decoder, the patcher and the OpenAPI writer all walk these shapes."""

import sys
from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

import msgspec

from api.merge_keys import ListRule
from api.struct import ApiStruct


class Scalar(NamedTuple):
    """A JSON leaf."""

    # "string", "integer", "number", "boolean", "int-or-string", "quantity", "time", "micro-time", "bytes" (as base64)
    name: str


class AnyJson(NamedTuple):
    """Any JSON at all: a field whose shape the API leaves to somebody else."""

    raw: bool = False  # kept as its bytes, since hardly anybody looks inside


class ListOf(NamedTuple):
    """A JSON array."""

    items: "Shape"


class MapOf(NamedTuple):
    """A JSON object with free keys."""

    values: "Shape"


class StructOf(NamedTuple):
    """A JSON object with known fields; look them up with ``fields_of``, since structs may refer to themselves."""

    model: type[ApiStruct]


class ObjectOf(NamedTuple):
    """A JSON object whose fields a custom kind's schema names."""

    fields: Mapping[str, "tuple[Shape, ListRule | None]"]  # name -> shape, and how it merges if it is a list
    rest: "Shape"  # of any other field


class Deduced(NamedTuple):
    """JSON whose shape follows from the value: objects have fields, lists are taken as a whole."""


Shape = Scalar | AnyJson | ListOf | MapOf | StructOf | ObjectOf | Deduced


class Field(NamedTuple):
    """One field of a struct."""

    attribute: str  # Python name
    name: str  # JSON name
    shape: Shape
    required: bool


_SCALARS = {int: Scalar("integer"), float: Scalar("number"), bool: Scalar("boolean")}
# Attributes that hold quantities wherever they occur with a string shape.
_QUANTITIES = frozenset({
    "limits", "requests", "allocatable", "overhead", "hard", "used", "default_request", "max_limit_request_ratio",
    "size_limit", "divisor", "allocated_resources", "average_value", "maximum_volume_size", "capacity", "usage",
    "pod_fixed", "tolerance",
})  # fmt: skip
# Further ones, by struct: their names mean something else in other structs.
_QUANTITIES_OF = {
    "LimitRangeItem": {"default", "max", "min"},
    "MetricTarget": {"value"},
    "MetricValueStatus": {"value"},
    "VolumeResourceRequirements": {"limits", "requests"},
}
# Attributes that hold times with microseconds, by struct.
_MICRO_TIMES_OF = {
    "Event": {"event_time"},
    "EventSeries": {"last_observed_time"},
    "LeaseSpec": {"acquire_time", "renew_time"},
}
_TIMES = frozenset({"time", "time_added", "timestamp", "started_at", "finished_at", "disrupted_pods"})
# Attributes that hold bytes, written as base64, by struct.
_BYTES_OF = {
    "CertificateSigningRequestSpec": {"request"},
    "CertificateSigningRequestStatus": {"certificate"},
    "ConfigMap": {"binary_data"},
    "Secret": {"data"},
    "WebhookClientConfig": {"ca_bundle"},
}

# Fields that hold plain JSON and still have the shape of a struct of their module.
_JSON_IN_SHAPE = {("CustomResourceValidation", "open_apiv3_schema"): "JSONSchemaProps"}


def _text(model: type[ApiStruct], attribute: str) -> Scalar:
    """Return what a text in this field stands for."""
    if attribute in _QUANTITIES or attribute in _QUANTITIES_OF.get(model.__name__, ()):
        return Scalar("quantity")
    if attribute in _MICRO_TIMES_OF.get(model.__name__, ()):
        return Scalar("micro-time")
    if attribute in _TIMES or attribute.endswith(("_timestamp", "_time")):
        return Scalar("time")
    return Scalar("bytes" if attribute in _BYTES_OF.get(model.__name__, ()) else "string")


def _shape(annotation: Any, *, text: Scalar) -> Shape:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        members = [each for each in get_args(annotation) if each is not NoneType]
        return _shape(members[0], text=text) if len(members) == 1 else Scalar("int-or-string")
    if origin is tuple:
        return ListOf(_shape(get_args(annotation)[0], text=text))
    if origin is dict:
        return MapOf(_shape(get_args(annotation)[1], text=text))
    if isinstance(annotation, type) and issubclass(annotation, ApiStruct):
        return StructOf(annotation)
    if annotation is str:
        return text
    return _SCALARS.get(annotation) or AnyJson(raw=annotation is msgspec.Raw)


@cache
def fields_of(model: type[ApiStruct]) -> dict[str, Field]:
    """Return JSON name -> field, in the order of the struct."""
    fields = {}
    for info in msgspec.structs.fields(model):
        shape = _shape(info.type, text=_text(model, info.name))
        if (struct := _JSON_IN_SHAPE.get((model.__name__, info.name))) is not None:
            shape = StructOf(getattr(sys.modules[model.__module__], struct))
        # By the rules of ApiStruct a factory other than an empty container marks what is always written.
        required = info.default_factory is not msgspec.NODEFAULT and info.default_factory not in (dict, list)
        fields[info.encode_name] = Field(info.name, info.encode_name, shape, required)
    return fields
