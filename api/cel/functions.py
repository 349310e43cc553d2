"""The functions and operators of expressions: the standard's, and the libraries that Kubernetes adds.

A row's function takes values as they are and raises for types that it does not take; ``invoke`` turns whatever Python
refuses into the language's own error, and makes long arguments pay.
"""

import ipaddress
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from functools import cmp_to_key
from itertools import pairwise
from typing import Any, TypeVar
from urllib.parse import SplitResult, parse_qs, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from api import quantity
from api.cel.syntax import Uint
from api.cel.values import (
    Address,
    Budget,
    CelError,
    Network,
    Optional,
    Quantity,
    Type,
    checked_int,
    equal,
    is_number,
    no_overload,
    type_of,
)
from api.custom import formats
from api.custom.patterns import all_found, found_in, pattern_fault
from api.durations import parse_time

Function = Callable[..., Any]
FUNCTIONS: dict[str, Function] = {}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CHARACTERS_A_STEP = 10
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


F = TypeVar("F", bound=Function)


def _named(*names: str) -> Callable[[F], F]:
    def enter(function: F) -> F:
        for name in names:
            FUNCTIONS[name] = function
        return function

    return enter


def invoke(name: str, function: Function, values: list[Any], budget: Budget) -> Any:
    """Return what ``function`` makes of ``values``; raises CelError."""
    size = sum(len(each) for each in values if isinstance(each, str | bytes | list | dict))
    budget.spend(1 + size // _CHARACTERS_A_STEP)
    try:
        return function(*values)
    except CelError:
        raise
    except (TypeError, AttributeError, KeyError):
        raise no_overload(name, *values) from None
    except (ValueError, OverflowError, ArithmeticError) as error:
        raise CelError(f"{name}: {error}") from None


def as_key(value: Any) -> Any:
    """Return ``value`` as the key of a map or the index of a list."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str | int | bool):
        return value
    raise CelError(f"unsupported key type: {type_of(value)}")


def _need(kind: Any, *values: Any) -> None:
    """Raise TypeError unless every value is of ``kind``; a bool is no number."""
    for each in values:
        if not isinstance(each, kind) or (isinstance(each, bool) and kind is not bool):
            raise TypeError(each)


# -- operators ------------------------------------------------------------------------------------------------------

FUNCTIONS["_==_"] = equal
FUNCTIONS["_!=_"] = lambda left, right: not equal(left, right)


def _compare(left: Any, right: Any) -> int:
    if not (is_number(left) and is_number(right)) and type_of(left) != type_of(right):
        raise TypeError(left)
    if isinstance(left, list | dict | Type | Optional) or left is None:
        raise TypeError(left)
    return int(left > right) - int(left < right)


FUNCTIONS["_<_"] = lambda left, right: _compare(left, right) < 0
FUNCTIONS["_<=_"] = lambda left, right: _compare(left, right) <= 0
FUNCTIONS["_>_"] = lambda left, right: _compare(left, right) > 0
FUNCTIONS["_>=_"] = lambda left, right: _compare(left, right) >= 0


@_named("!_")
def _not(value: Any) -> bool:
    _need(bool, value)
    return not value


@_named("@in")
def _in(value: Any, within: Any) -> bool:
    if isinstance(within, dict):
        return any(equal(value, key) for key in within) if is_number(value) else value in within
    _need(list, within)
    return any(equal(value, each) for each in within)


@_named("_[_]")
def _index(value: Any, key: Any) -> Any:
    key = as_key(key)
    if isinstance(value, Optional):
        return _index(value.value, key) if value.present else value
    if isinstance(value, list):
        _need(int, key)
        if not 0 <= key < len(value):
            raise CelError(f"index out of bounds: {key}")
        return value[key]
    _need(dict, value)
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


@_named("_+_")
def _add(left: Any, right: Any) -> Any:
    joined: Any = left
    if isinstance(left, str | bytes | list):
        _need(type(left), right)
        return joined + right
    if isinstance(left, datetime | timedelta):
        _need(datetime | timedelta, right)
        return joined + right
    _same_numbers(left, right)
    return joined + right if isinstance(left, float) else _whole(joined + right, left)


@_named("_-_")
def _subtract(left: Any, right: Any) -> Any:
    if isinstance(left, datetime | timedelta) and isinstance(right, datetime | timedelta):
        span: Any = left
        return span - right
    _same_numbers(left, right)
    return left - right if isinstance(left, float) else _whole(left - right, left)


@_named("-_")
def _negate(value: Any) -> Any:
    if isinstance(value, Uint) or not is_number(value):
        raise TypeError(value)
    return -value if isinstance(value, float) else checked_int(-value)


@_named("_*_")
def _multiply(left: Any, right: Any) -> Any:
    _same_numbers(left, right)
    return left * right if isinstance(left, float) else _whole(left * right, left)


@_named("_/_")
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


@_named("_%_")
def _modulo(left: Any, right: Any) -> Any:
    _same_numbers(left, right)
    _need(int, left, right)
    if right == 0:
        raise CelError("modulus by zero")
    return _whole(abs(left) % abs(right) * (-1 if left < 0 else 1), left)


# -- conversions ----------------------------------------------------------------------------------------------------


@_named("int")
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


@_named("uint")
def _uint(value: Any) -> Uint:
    number = int(value) if isinstance(value, str | float) else value
    _need(int, number)
    if not 0 <= number < 2**64:
        raise CelError("unsigned integer overflow")
    return Uint(number)


@_named("double")
def _double(value: Any) -> float:
    if not (isinstance(value, str) or is_number(value)):
        raise TypeError(value)
    return float(value)


@_named("bool")
def _bool(value: Any) -> bool:
    if isinstance(value, str):
        if value not in ("1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False"):
            raise CelError(f"cannot convert {value!r} to bool")
        return value in ("1", "t", "T", "true", "TRUE", "True")
    _need(bool, value)
    return bool(value)


@_named("string")
def _string(value: Any) -> str:
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


@_named("bytes")
def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


@_named("type")
def _type(value: Any) -> Type:
    return Type(type_of(value))


@_named("dyn")
def _dyn(value: Any) -> Any:
    return value


@_named("timestamp")
def timestamp(value: Any) -> datetime:
    """Return a moment from its RFC 3339 text or from seconds since 1970."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return _EPOCH + timedelta(seconds=value)
    if parse_time(value) is None or not formats.FORMATS["date-time"](value):
        raise CelError(f"cannot convert {value!r} to timestamp")
    return datetime.fromisoformat(value).astimezone(UTC)


@_named("duration")
def duration(value: Any) -> timedelta:
    """Return a span from its text: ``1h30m``."""
    if isinstance(value, timedelta):
        return value
    sign, text = (-1, value[1:]) if value.startswith("-") else (1, value.removeprefix("+"))
    parts = _DURATION.findall(text)
    if text != "0" and (not parts or "".join(number + unit for number, unit in parts) != text):
        raise CelError(f"cannot convert {value!r} to duration")
    return timedelta(seconds=sign * sum(float(number) * _UNITS_S[unit] for number, unit in parts))


# -- strings --------------------------------------------------------------------------------------------------------


@_named("size")
def _size(value: Any) -> int:
    _need(str | bytes | list | dict, value)
    return len(value)


@_named("startsWith")
def _starts(text: Any, part: Any) -> bool:
    _need(str, text, part)
    return bool(text.startswith(part))


@_named("endsWith")
def _ends(text: Any, part: Any) -> bool:
    _need(str, text, part)
    return bool(text.endswith(part))


@_named("contains", "containsCIDR", "containsIP")
def _contains(whole: Any, part: Any) -> bool:
    if isinstance(whole, Network):
        if isinstance(part, str):
            part = _network(part) if "/" in part else _address(part)
        inner: Any = part
        return bool(inner.subnet_of(whole)) if isinstance(part, Network) else part in whole
    _need(str, whole, part)
    return part in whole


@_named("matches")
def _matches(text: Any, pattern: Any) -> bool:
    _need(str, text, pattern)
    if why := pattern_fault(pattern):
        raise CelError(why)
    return bool(found_in(pattern, text))


@_named("find")
def _find(text: Any, pattern: Any) -> str:
    found: list[str] = _find_all(text, pattern, 1)
    return found[0] if found else ""


@_named("findAll")
def _find_all(text: Any, pattern: Any, limit: int = -1) -> list[str]:
    _need(str, text, pattern)
    if why := pattern_fault(pattern):
        raise CelError(why)
    found = all_found(pattern, text)
    return found if limit < 0 else found[:limit]


@_named("charAt")
def _char_at(text: Any, index: int) -> str:
    _need(str, text)
    if not 0 <= index <= len(text):
        raise CelError(f"index out of range: {index}")
    return str(text[index : index + 1])


@_named("indexOf")
def _index_of(whole: Any, part: Any, start: int = 0) -> int:
    if isinstance(whole, list):
        return next((n for n, each in enumerate(whole) if equal(each, part)), -1)
    _need(str, whole, part)
    return int(whole.find(part, start))


@_named("lastIndexOf")
def _last_index_of(whole: Any, part: Any, start: int | None = None) -> int:
    if isinstance(whole, list):
        return next((n for n in range(len(whole) - 1, -1, -1) if equal(whole[n], part)), -1)
    _need(str, whole, part)
    return int(whole.rfind(part) if start is None else whole.rfind(part, 0, start + len(part)))


@_named("lowerAscii")
def _lower(text: Any) -> str:
    _need(str, text)
    return "".join(each.lower() if each.isascii() else each for each in text)


@_named("upperAscii")
def _upper(text: Any) -> str:
    _need(str, text)
    return "".join(each.upper() if each.isascii() else each for each in text)


@_named("replace")
def _replace(text: Any, old: Any, new: Any, limit: int = -1) -> str:
    _need(str, text, old, new)
    return str(text.replace(old, new, limit))


@_named("split")
def _split(text: Any, separator: Any, limit: int = -1) -> list[str]:
    _need(str, text, separator)
    if limit in (0, 1):
        return [text] if limit else []
    if not separator:
        return list(text) if limit < 0 else [*text[: limit - 1], text[limit - 1 :]]
    return list(text.split(separator, limit - 1 if limit > 0 else -1))


@_named("join")
def _join(parts: Any, separator: str = "") -> str:
    _need(list, parts)
    _need(str, separator, *parts)
    return separator.join(parts)


@_named("substring")
def _substring(text: Any, start: int, end: int | None = None) -> str:
    _need(str, text)
    end = len(text) if end is None else end
    if not 0 <= start <= end <= len(text):
        raise CelError(f"index out of range: {start}")
    return str(text[start:end])


@_named("trim")
def _trim(text: Any) -> str:
    _need(str, text)
    return str(text.strip())


@_named("reverse")
def _reverse(value: Any) -> Any:
    _need(str | list, value)
    return value[::-1]


@_named("format")
def _format(template: Any, values: Any) -> str:
    _need(str, template)
    _need(list, values)
    left = list(values)

    def write(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        if not left:
            raise CelError("index out of range in format")
        value, verb = left.pop(0), match["verb"]
        match verb:
            case "s":
                return _shown(value)
            case "d":
                return str(int(value))
            case "f" | "e":
                return f"{float(value):.{match['precision'] or 6}{verb}}"
            case "b":
                return f"{int(value):b}"
            case "o":
                return f"{int(value):o}"
        text = (
            value.encode().hex()
            if isinstance(value, str)
            else value.hex()
            if isinstance(value, bytes)
            else f"{value:x}"
        )
        return text.upper() if verb == "X" else text

    return re.sub(r"%%|%(?:\.(?P<precision>\d+))?(?P<verb>[sdfebxXo])", write, template)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_shown(key)}: {_shown(each)}" for key, each in sorted(value.items())) + "}"
    return "null" if value is None else value.name if isinstance(value, Type) else _string(value)


# -- lists ----------------------------------------------------------------------------------------------------------


@_named("isSorted")
def _is_sorted(values: Any) -> bool:
    _need(list, values)
    return all(_compare(left, right) <= 0 for left, right in pairwise(values))


@_named("sum")
def _sum(values: Any) -> Any:
    _need(list, values)
    if not values:
        return 0
    total = values[0]
    for each in values[1:]:
        total = _add(total, each)
    return total


@_named("min")
def _min(values: Any) -> Any:
    return _ordered(values)[0]


@_named("max")
def _max(values: Any) -> Any:
    return _ordered(values)[-1]


def _ordered(values: Any) -> Sequence[Any]:
    _need(list, values)
    if not values:
        raise CelError("min or max called on empty list")
    return sorted(values, key=cmp_to_key(_compare))


@_named("distinct")
def _distinct(values: Any) -> list[Any]:
    _need(list, values)
    found: list[Any] = []
    for each in values:
        if not any(equal(each, other) for other in found):
            found.append(each)
    return found


@_named("flatten")
def _flatten(values: Any) -> list[Any]:
    _need(list, values)
    return [inner for each in values for inner in (each if isinstance(each, list) else [each])]


@_named("slice")
def _slice(values: Any, start: int, end: int) -> list[Any]:
    _need(list, values)
    if not 0 <= start <= end <= len(values):
        raise CelError(f"cannot slice({start}, {end}), list has {len(values)} elements")
    return list(values[start:end])


@_named("sets.contains")
def _sets_contains(left: Any, right: Any) -> bool:
    return all(_in(each, left) for each in right)


@_named("sets.equivalent")
def _sets_equivalent(left: Any, right: Any) -> bool:
    return bool(_sets_contains(left, right) and _sets_contains(right, left))


@_named("sets.intersects")
def _sets_intersects(left: Any, right: Any) -> bool:
    return any(_in(each, left) for each in right)


# -- times ----------------------------------------------------------------------------------------------------------


def _zone(name: str) -> timezone | ZoneInfo:
    if found := re.fullmatch(r"([+-]?)(\d\d):(\d\d)", name):
        offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
        return timezone(-offset if found[1] == "-" else offset)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise CelError(f"unknown time zone {name}") from None


def _part(of_time: Callable[[datetime], int], of_span: Callable[[timedelta], int] | None = None) -> Function:
    def get(value: Any, zone: str = "UTC") -> int:
        if isinstance(value, timedelta) and of_span is not None:
            return of_span(value)
        _need(datetime, value)
        return of_time(value.astimezone(_zone(zone)))

    return get


FUNCTIONS |= {
    "getFullYear": _part(lambda time: time.year),
    "getMonth": _part(lambda time: time.month - 1),
    "getDate": _part(lambda time: time.day),
    "getDayOfMonth": _part(lambda time: time.day - 1),
    "getDayOfWeek": _part(lambda time: time.isoweekday() % 7),
    "getDayOfYear": _part(lambda time: time.timetuple().tm_yday - 1),
    "getHours": _part(lambda time: time.hour, lambda span: int(span.total_seconds() // 3600)),
    "getMinutes": _part(lambda time: time.minute, lambda span: int(span.total_seconds() // 60)),
    "getSeconds": _part(lambda time: time.second, lambda span: int(span.total_seconds())),
    "getMilliseconds": _part(lambda time: time.microsecond // 1000, lambda span: span.microseconds // 1000),
}

# -- optional values ------------------------------------------------------------------------------------------------


@_named("optional.of")
def _of(value: Any) -> Optional:
    return Optional(present=True, value=value)


@_named("optional.none")
def _none() -> Optional:
    return Optional(present=False)


@_named("optional.ofNonZeroValue")
def _of_non_zero(value: Any) -> Optional:
    return Optional(present=False) if not value else Optional(present=True, value=value)


@_named("hasValue")
def _has_value(value: Any) -> bool:
    _need(Optional, value)
    return bool(value.present)


@_named("value")
def _value(value: Any) -> Any:
    _need(Optional, value)
    if not value.present:
        raise CelError("optional.none() dereference")
    return value.value


@_named("orValue")
def _or_value(value: Any, other: Any) -> Any:
    _need(Optional, value)
    return value.value if value.present else other


@_named("or")
def _or(value: Any, other: Any) -> Any:
    _need(Optional, value, other)
    return value if value.present else other


# -- quantities, URLs, addresses --------------------------------------------------------------------------------------


@_named("quantity")
def _quantity(text: Any) -> Quantity:
    _need(str, text)
    return Quantity(quantity.parse(text))


@_named("isQuantity")
def _is_quantity(text: Any) -> bool:
    return _succeeds(_quantity, text)


def _succeeds(function: Function, *values: Any) -> bool:
    try:
        function(*values)
    except (CelError, ValueError, ArithmeticError):
        return False
    return True


def _with_number(value: Any) -> Fraction:
    if isinstance(value, Quantity):
        return value.number
    _need(int, value)
    return Fraction(value)


FUNCTIONS |= {
    "sign": lambda value: int(value.number > 0) - int(value.number < 0),
    "isInteger": lambda value: value.number.denominator == 1,
    "asInteger": lambda value: checked_int(int(value.number)),
    "asApproximateFloat": lambda value: float(value.number),
    "add": lambda value, other: Quantity(value.number + _with_number(other)),
    "sub": lambda value, other: Quantity(value.number - _with_number(other)),
    "isLessThan": lambda value, other: value.number < other.number,
    "isGreaterThan": lambda value, other: value.number > other.number,
    "compareTo": lambda value, other: int(value.number > other.number) - int(value.number < other.number),
}


@_named("url")
def _url(text: Any) -> SplitResult:
    _need(str, text)
    parts: SplitResult = urlsplit(text)
    if not (parts.scheme or text.startswith("/")):
        raise CelError(f"URL parse error during conversion from string: parse {text!r}: invalid URI for request")
    return parts


FUNCTIONS |= {
    "isURL": lambda text: _succeeds(_url, text),
    "getScheme": lambda url: url.scheme,
    "getHost": lambda url: url.netloc.rpartition("@")[2],
    "getHostname": lambda url: url.hostname or "",
    "getPort": lambda url: str(url.port or ""),
    "getEscapedPath": lambda url: url.path,
    "getQuery": lambda url: parse_qs(url.query, keep_blank_values=True),
}


@_named("ip")
def _address(value: Any) -> Address:
    if isinstance(value, Network):
        return value.network_address
    _need(str, value)
    return ipaddress.ip_address(value)


@_named("cidr")
def _network(text: Any) -> Network:
    _need(str, text)
    if "/" not in text:
        raise CelError(f"network address parse error: {text}")
    return ipaddress.ip_network(text, strict=False)


FUNCTIONS |= {
    "isIP": lambda text: _succeeds(_address, text),
    "isCIDR": lambda text: _succeeds(_network, text),
    "ip.isCanonical": lambda text: str(_address(text)) == text,
    "family": lambda address: address.version,
    "isUnspecified": lambda address: address.is_unspecified,
    "isLoopback": lambda address: address.is_loopback,
    "isLinkLocalMulticast": lambda address: address.is_multicast and address.is_link_local,
    "isLinkLocalUnicast": lambda address: address.is_link_local and not address.is_multicast,
    "isGlobalUnicast": lambda address: not (address.is_multicast or address.is_unspecified or address.is_loopback),
    "prefixLength": lambda network: network.prefixlen,
    "masked": lambda network: network,
}
