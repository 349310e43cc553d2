"""Operators, and conversions between types."""

import ipaddress
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from api.cel.registry import FUNCTIONS, as_key, named, need
from api.cel.syntax import Uint
from api.cel.values import (
    CelError,
    Optional,
    Type,
    checked_int,
    equal,
    is_number,
    type_of,
)
from api.custom import formats
from api.durations import parse_time

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

FUNCTIONS["_==_"] = equal
FUNCTIONS["_!=_"] = lambda left, right: not equal(left, right)


def compare(left: Any, right: Any) -> int:
    """Return -1, 0 or 1; raises TypeError for values that have no order."""
    if not (is_number(left) and is_number(right)) and type_of(left) != type_of(right):
        raise TypeError(left)
    if isinstance(left, list | dict | Type | Optional) or left is None:
        raise TypeError(left)
    return int(left > right) - int(left < right)


FUNCTIONS["_<_"] = lambda left, right: compare(left, right) < 0
FUNCTIONS["_<=_"] = lambda left, right: compare(left, right) <= 0
FUNCTIONS["_>_"] = lambda left, right: compare(left, right) > 0
FUNCTIONS["_>=_"] = lambda left, right: compare(left, right) >= 0


@named("!_")
def _not(value: Any) -> bool:
    need(bool, value)
    return not value


@named("@in")
def is_in(value: Any, within: Any) -> bool:
    """Return whether a list has a value, or a map a key."""
    if isinstance(within, dict):
        return any(equal(value, key) for key in within) if is_number(value) else value in within
    need(list, within)
    return any(equal(value, each) for each in within)


@named("_[_]")
def _index(value: Any, key: Any) -> Any:
    key = as_key(key)
    if isinstance(value, Optional):
        return _index(value.value, key) if value.present else value
    if isinstance(value, list):
        need(int, key)
        if not 0 <= key < len(value):
            raise CelError(f"index out of bounds: {key}")
        return value[key]
    need(dict, value)
    if key not in value:
        raise CelError(f"no such key: {key}")
    return value[key]


def _whole(result: int, *operands: Any) -> int:
    if any(isinstance(each, Uint) for each in operands):
        if not 0 <= result < 2**64:
            raise CelError("unsigned integer overflow")
        return Uint(result)
    return checked_int(result)


def _same_numbers(left: Any, right: Any) -> None:
    if not (is_number(left) and is_number(right)) or type_of(left) != type_of(right):
        raise TypeError(left)


@named("_+_")
def add(left: Any, right: Any) -> Any:
    """Return the sum, or what follows from joining."""
    joined: Any = left
    if isinstance(left, str | bytes | list):
        need(type(left), right)
        return joined + right
    if isinstance(left, datetime | timedelta):
        need(datetime | timedelta, right)
        return joined + right
    _same_numbers(left, right)
    return joined + right if isinstance(left, float) else _whole(joined + right, left)


@named("_-_")
def _subtract(left: Any, right: Any) -> Any:
    if isinstance(left, datetime | timedelta) and isinstance(right, datetime | timedelta):
        span: Any = left
        return span - right
    _same_numbers(left, right)
    return left - right if isinstance(left, float) else _whole(left - right, left)


@named("-_")
def _negate(value: Any) -> Any:
    if isinstance(value, Uint) or not is_number(value):
        raise TypeError(value)
    return -value if isinstance(value, float) else checked_int(-value)


@named("_*_")
def _multiply(left: Any, right: Any) -> Any:
    _same_numbers(left, right)
    return left * right if isinstance(left, float) else _whole(left * right, left)


@named("_/_")
def _divide(left: Any, right: Any) -> Any:
    _same_numbers(left, right)
    if isinstance(left, float):
        if right == 0:
            return (
                math.nan if left == 0 or math.isnan(left) else math.copysign(math.inf, left) * math.copysign(1, right)
            )
        return left / right
    if right == 0:
        raise CelError("division by zero")
    quotient = abs(left) // abs(right)  # towards zero
    return _whole(quotient if (left < 0) == (right < 0) else -quotient, left)


@named("_%_")
def _modulo(left: Any, right: Any) -> Any:
    _same_numbers(left, right)
    need(int, left, right)
    if right == 0:
        raise CelError("modulus by zero")
    return _whole(abs(left) % abs(right) * (-1 if left < 0 else 1), left)


@named("int")
def _int(value: Any) -> int:
    match value:
        case bool():
            raise TypeError(value)
        case str() if re.fullmatch(r"[-+]?\d+", value):
            return checked_int(int(value))
        case float() | int():
            return checked_int(int(value))
        case datetime():
            return int((value - _EPOCH).total_seconds())
        case str():
            raise CelError(f"cannot convert {value!r} to int")
    raise TypeError(value)


@named("uint")
def _uint(value: Any) -> Uint:
    number = int(value) if isinstance(value, str | float) else value
    need(int, number)
    if not 0 <= number < 2**64:
        raise CelError("unsigned integer overflow")
    return Uint(number)


@named("double")
def _double(value: Any) -> float:
    if not (isinstance(value, str) or is_number(value)):
        raise TypeError(value)
    return float(value)


@named("bool")
def _bool(value: Any) -> bool:
    if isinstance(value, str):
        if value not in ("1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False"):
            raise CelError(f"cannot convert {value!r} to bool")
        return value in ("1", "t", "T", "true", "TRUE", "True")
    need(bool, value)
    return bool(value)


@named("string")
def to_string(value: Any) -> str:
    """Return the text of a value."""
    match value:
        case str():
            return value
        case bool():
            return str(value).lower()
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)
        case int():
            return str(int(value))
        case bytes():
            return value.decode()
        case datetime():
            text = value.astimezone(UTC).isoformat().replace("+00:00", "Z")
            return re.sub(r"(\.\d*?)0+Z", r"\1Z", text)
        case timedelta():
            seconds = value.total_seconds()
            return f"{int(seconds) if seconds.is_integer() else seconds}s"
        case ipaddress.IPv4Address() | ipaddress.IPv6Address() | ipaddress.IPv4Network() | ipaddress.IPv6Network():
            return str(value)
    raise TypeError(value)


@named("bytes")
def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


@named("type")
def _type(value: Any) -> Type:
    return Type(type_of(value))


@named("dyn")
def _dyn(value: Any) -> Any:
    return value


@named("timestamp")
def timestamp(value: Any) -> datetime:
    """Return a moment from its RFC 3339 text or from seconds since 1970."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return _EPOCH + timedelta(seconds=value)
    if parse_time(value) is None or not formats.FORMATS["date-time"](value):
        raise CelError(f"cannot convert {value!r} to timestamp")
    return datetime.fromisoformat(value).astimezone(UTC)


@named("duration")
def duration(value: Any) -> timedelta:
    """Return a span from its text: ``1h30m``."""
    if isinstance(value, timedelta):
        return value
    sign, text = (-1, value[1:]) if value.startswith("-") else (1, value.removeprefix("+"))
    parts = _DURATION.findall(text)
    if text != "0" and (not parts or "".join(number + unit for number, unit in parts) != text):
        raise CelError(f"cannot convert {value!r} to duration")
    return timedelta(seconds=sign * sum(float(number) * _UNITS_S[unit] for number, unit in parts))
