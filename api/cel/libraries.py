"""Times, optional values, quantities, URLs and addresses."""

import ipaddress
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from api import quantity
from api.cel.registry import FUNCTIONS, Function, named, need
from api.cel.values import (
    Address,
    CelError,
    Network,
    Optional,
    Quantity,
    checked_int,
)


def _zone(name: str) -> timezone | ZoneInfo:
    if found := re.fullmatch(r"([+-]?)(\d\d):(\d\d)", name):
        offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
        return timezone(-offset if found[1] == "-" else offset)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of them
        raise CelError(f"unknown time zone {name}") from None


def _part(of_time: Callable[[datetime], int], of_span: Callable[[timedelta], int] | None = None) -> Function:
    def get(value: Any, zone: str = "UTC") -> int:
        if isinstance(value, timedelta) and of_span is not None:
            return of_span(value)
        need(datetime, value)
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


@named("optional.of")
def _of(value: Any) -> Optional:
    return Optional(present=True, value=value)


@named("optional.none")
def _none() -> Optional:
    return Optional(present=False)


@named("optional.ofNonZeroValue")
def _of_non_zero(value: Any) -> Optional:
    return Optional(present=False) if not value else Optional(present=True, value=value)


@named("hasValue")
def _has_value(value: Any) -> bool:
    need(Optional, value)
    return bool(value.present)


@named("value")
def _value(value: Any) -> Any:
    need(Optional, value)
    if not value.present:
        raise CelError("optional.none() dereference")
    return value.value


@named("orValue")
def _or_value(value: Any, other: Any) -> Any:
    need(Optional, value)
    return value.value if value.present else other


@named("or")
def _or(value: Any, other: Any) -> Any:
    need(Optional, value, other)
    return value if value.present else other


@named("quantity")
def _quantity(text: Any) -> Quantity:
    need(str, text)
    return Quantity(quantity.parse(text))


@named("isQuantity")
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
    need(int, value)
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


@named("url")
def _url(text: Any) -> SplitResult:
    need(str, text)
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


@named("ip")
def _address(value: Any) -> Address:
    if isinstance(value, Network):
        return value.network_address
    need(str, value)
    return ipaddress.ip_address(value)


@named("cidr")
def _network(text: Any) -> Network:
    need(str, text)
    if "/" not in text:
        raise CelError(f"network address parse error: {text}")
    return ipaddress.ip_network(text, strict=False)


@named("containsCIDR", "containsIP")
def _contains(whole: Any, part: Any) -> bool:
    need(Network, whole)
    if isinstance(part, str):
        part = _network(part) if "/" in part else _address(part)
    return bool(part.subnet_of(whole)) if isinstance(part, Network) else part in whole


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
