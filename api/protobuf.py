r"""Reading ``application/vnd.kubernetes.protobuf``: what kubectl's create commands and Go clients send.

The body is the magic ``k8s\0``, then an Unknown message: type, and the object's own message as bytes. The object is
read into the JSON document that the same client would have sent, so that everything behind it knows one form only.
Answers are JSON: every client that sends protobuf accepts that too.
Sources: kubernetes.io, "Alternate representations of resources"; protobuf.dev, "Encoding".
"""

import base64
import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from api import times
from api.errors import BadRequest, UnsupportedMediaType
from api.kinds.authentication import TokenRequest
from api.kinds.autoscaling import Scale
from api.kinds.pods import Binding
from api.kinds.policy import Eviction
from api.kinds.table import TABLE
from api.meta import DeleteOptions
from api.protobuf_fields import MEANT, NUMBERS
from api.shapes import AnyJson, ListOf, MapOf, Scalar, Shape, StructOf, fields_of
from api.struct import ApiStruct

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"
# What is sent to subresources, and options.
_BESIDE_THE_TABLE: dict[str, type[ApiStruct]] = {
    each.__name__: each for each in (Binding, DeleteOptions, Eviction, Scale, TokenRequest)
}


class _Malformed(Exception):
    """The bytes are no protobuf message."""


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return (value, next position)."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise _Malformed("a number does not end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _records(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, value): numbers as integers, everything with a length as bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        match tag & 7:
            case 0:
                value, at = _varint(data, at)
                yield tag >> 3, value
                continue
            case 1:
                size = 8
            case 2:
                size, at = _varint(data, at)
            case 5:
                size = 4
            case wire_type:
                raise _Malformed(f"wire type {wire_type} is unknown")
        if at + size > len(data):
            raise _Malformed("a field is longer than its message")
        yield tag >> 3, data[at : at + size]
        at += size


def decode(body: bytes) -> dict[str, Any]:
    """Return the JSON document of the object in ``body``, whose envelope says what it is.

    Raises BadRequest (broken bytes), UnsupportedMediaType (a message that has no row here: the client may send JSON).
    """
    try:
        return _decode(body)
    except (_Malformed, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is no readable {MEDIA_TYPE}: {error}") from None


def _decode(body: bytes) -> dict[str, Any]:
    if not body.startswith(MAGIC):
        raise _Malformed("it does not begin with the four bytes 'k8s' and zero")
    names: dict[int, str] = {}
    raw = memoryview(b"")
    for number, value in _records(memoryview(body)[len(MAGIC) :]):
        if number == 1 and isinstance(value, memoryview):
            names = {field: bytes(text).decode() for field, text in _records(value) if isinstance(text, memoryview)}
        elif number == 2 and isinstance(value, memoryview):
            raw = value
    api_version, kind = names.get(1, ""), names.get(2, "")
    row = TABLE.kind(api_version, kind)
    model = row.model if row is not None else _BESIDE_THE_TABLE.get(kind)
    if model is None:
        raise UnsupportedMediaType(f"no protobuf form of {kind} in {api_version} is known here: send application/json")
    document: dict[str, Any] = {"apiVersion": api_version, "kind": kind}
    _message(raw, model.__name__, StructOf(model), document)
    return document


def _message(data: memoryview, message: str, shape: StructOf, into: dict[str, Any]) -> None:
    """Read one message into the JSON object ``into``."""
    module = shape.model.__module__.rpartition(".")[2]
    numbers = NUMBERS.get(f"{module}.{message}") or NUMBERS.get(message)
    if numbers is None and not data:
        return
    if numbers is None:
        raise UnsupportedMediaType(f"no protobuf form of {message} is known here: send application/json")
    for number, value in _records(data):
        name = numbers.get(number)
        if name is None:
            continue  # from a newer client: unknown fields are dropped, as protobuf's own rules have it
        if name.startswith("*"):
            if isinstance(value, memoryview):
                _message(value, name[1:], shape, into)
            continue
        field = fields_of(shape.model).get(name)
        if field is not None:
            _field(value, (shape.model.__name__, name), field.shape, into)


def _field(value: int | memoryview, owner: tuple[str, str], shape: Shape, into: dict[str, Any]) -> None:
    name = owner[1]
    match shape:
        case ListOf(Scalar("integer")) if isinstance(value, memoryview):
            into.setdefault(name, []).extend(_packed(value))
        case ListOf(items):
            into.setdefault(name, []).append(_value(value, owner, items))
        case MapOf(values):
            key, entry = _entry(value, owner, values)
            into.setdefault(name, {})[key] = entry
        case _:
            read = _value(value, owner, shape)
            meant = name in MEANT and not owner[0].rstrip("V2").endswith("Status")
            if isinstance(shape, StructOf) or meant or (read is not None and read not in (0, "")):
                into[name] = read


def _packed(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield _signed(value)


def _entry(value: int | memoryview, owner: tuple[str, str], shape: Shape) -> tuple[str, Any]:
    """Return one entry of a map."""
    fields = dict(_records(_bytes(value)))
    key = bytes(_bytes(fields.get(1, memoryview(b"")))).decode()
    inner = fields.get(2, memoryview(b""))
    if isinstance(shape, ListOf):  # a list as a map's value is a message of its own: ExtraValue
        return key, [_value(each, owner, shape.items) for number, each in _records(_bytes(inner)) if number == 1]
    return key, _value(inner, owner, shape)


def _value(value: int | memoryview, owner: tuple[str, str], shape: Shape) -> Any:
    match shape:
        case StructOf(model):
            document: dict[str, Any] = {}
            _message(_bytes(value), model.__name__, shape, document)
            return document
        case Scalar(name="boolean"):
            return bool(value)
        case Scalar(name="integer") if isinstance(value, int):
            return _signed(value)
        case Scalar(name="quantity"):
            return _text(dict(_records(_bytes(value))).get(1, memoryview(b"")))
        case Scalar(name="int-or-string"):
            return _int_or_string(_bytes(value))
        case Scalar(name="time" | "micro-time" as name):
            return _time(_bytes(value), micro=name == "micro-time")
        case Scalar(name="bytes"):
            return base64.b64encode(_bytes(value)).decode()
        case Scalar(name="string"):
            return _text(_bytes(value))
        case AnyJson():
            raw = dict(_records(_bytes(value))).get(1)
            return _json(_bytes(raw)) if raw else None
    raise _Malformed(f"{'.'.join(owner)} has the wrong type")


def _json(data: memoryview) -> Any:
    try:
        return msgspec.json.decode(data)
    except ValueError as error:
        raise _Malformed(f"what should be JSON is none: {error}") from None


def _time(data: memoryview, *, micro: bool) -> str | None:
    """Return a Time or MicroTime as RFC 3339; Go's zero time is written as an empty message."""
    fields = {number: value for number, value in _records(data) if isinstance(value, int)}
    seconds, nanos = _signed(fields.get(1, 0)), fields.get(2, 0)
    if not seconds and not nanos:
        return None
    if nanos >= 10**9:
        raise _Malformed("a time is out of range: a second has a thousand million nanoseconds")
    try:
        moment = dt.datetime.fromtimestamp(seconds, dt.UTC).replace(microsecond=nanos // 1000)
    except (OverflowError, ValueError, OSError) as error:
        raise _Malformed(f"a time is out of range: {error}") from None
    return times.written(moment, micro=micro)


def _int_or_string(data: memoryview) -> int | str:
    fields: Mapping[int, int | memoryview] = dict(_records(data))
    if fields.get(1, 0) == 1:
        return _text(fields.get(3, memoryview(b"")))
    number = fields.get(2, 0)
    return _signed(number) if isinstance(number, int) else 0


def _text(value: int | memoryview) -> str:
    return bytes(_bytes(value)).decode()


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _Malformed("a number stands where a text or a message should")
    return value


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
