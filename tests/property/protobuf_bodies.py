"""Writes any object of a kind as protobuf, as a Go client would; now and then a field has another type on the wire."""

import random
from typing import Any

from api import protobuf
from api.kinds.table import Kind
from api.protobuf_fields import NUMBERS
from api.shapes import AnyJson, ListOf, MapOf, Scalar, Shape, StructOf, fields_of

_TEXTS = ("", "a", "b", "default", "10.96.0.7", "50%", "Always", "TCP", "\u00e9", "x" * 300)
_NUMBERS = (0, 1, 2, 80, 30001, 2**31, 2**63 - 1, 2**64 - 1)
_JSON = (b"", b"{}", b'{"a":1}', b"[", b"NaN", b"\xff", b'{"a":1}{', b"[" * 5000)


def varint(number: int) -> bytes:
    data = b""
    while number >= 0x80:
        data += bytes([number & 0x7F | 0x80])
        number >>= 7
    return data + bytes([number])


def record(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def body(kind: Kind, name: str, rng: random.Random, *, odd: float) -> bytes:
    """Return an object of ``kind`` with that name."""
    numbers = {each: number for number, each in NUMBERS["ObjectMeta"].items()}
    message = Writer(rng, odd).message(kind.model, 0, leave=("metadata",))
    own = {each: number for number, each in _numbers(kind.model).items()}
    if "metadata" in own:
        message += record(own["metadata"], record(numbers["name"], name.encode()))
    described = record(1, kind.group_version.encode()) + record(2, kind.kind.encode())
    return protobuf.MAGIC + record(1, described) + record(2, message)


def _numbers(model: type) -> dict[int, str]:
    module = model.__module__.rpartition(".")[2]
    return dict(NUMBERS.get(f"{module}.{model.__name__}") or NUMBERS.get(model.__name__) or {})


class Writer:
    """Writes messages at random."""

    def __init__(self, rng: random.Random, odd: float) -> None:
        self._rng = rng
        self._odd = odd

    def message(self, model: type, depth: int, *, leave: tuple[str, ...] = ()) -> bytes:
        """Return some of the fields of ``model``."""
        data, fields = b"", fields_of(model)
        for number, name in _numbers(model).items():
            field = fields.get(name)
            if field is None or name in leave or depth > 7 or self._rng.random() > (0.8 if depth < 2 else 0.5 / depth):
                continue
            for _ in range(self._rng.choice((1, 1, 2)) if isinstance(field.shape, ListOf | MapOf) else 1):
                data += record(number, self._value(field.shape, depth))
        return data

    def _value(self, shape: Shape, depth: int) -> int | bytes:
        rng = self._rng
        if rng.random() < self._odd:
            return rng.choice((0, 2**64 - 1, b"", b"\xff\xfe", b"\x08", bytes(rng.randrange(256) for _ in range(9))))
        match shape:
            case StructOf(model):
                return self.message(model, depth + 1)
            case ListOf(items):
                return self._value(items, depth)
            case MapOf(values):
                return record(1, rng.choice(_TEXTS).encode()) + record(2, self._value(values, depth))
            case Scalar("integer" | "number" | "boolean"):
                return rng.choice(_NUMBERS)
            case Scalar("quantity"):
                return record(1, rng.choice(("1", "1Gi", "x", "-1")).encode())
            case Scalar("int-or-string"):
                return record(1, rng.choice((0, 1))) + record(2, rng.choice(_NUMBERS)) + record(3, b"http")
            case Scalar("time" | "micro-time"):
                seconds = rng.choice((0, 1, 1_800_000_000, 2**40, 2**64 - 62_135_596_800, 2**63))
                return record(1, seconds) + record(2, rng.choice(_NUMBERS))
            case AnyJson():
                return record(1, rng.choice(_JSON))
        return rng.choice(_TEXTS).encode()


def any_kind(rows: Any, rng: random.Random) -> Kind:
    """Return a kind that one can create by protobuf."""
    known = [row for row in rows if "create" in row.verbs and row.custom is None and _numbers(row.model)]
    chosen: Kind = rng.choice(known)
    return chosen
