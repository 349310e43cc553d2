"""The string formats that schemas of custom kinds may ask for; any other format asks nothing.

Source: the list of formats in the ``format`` field's description of CustomResourceDefinition.
"""

import base64
import binascii
import ipaddress
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import date
from urllib.parse import urlsplit

from api import names

_HOSTNAME = re.compile(r"([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*")
_EMAIL = re.compile(r"[^@\s<>]+@[^@\s<>]+")
_DURATION = re.compile(
    r"[-+]?(\d+(\.\d*)?|\.\d+)\s*(ns|us|µs|ms|s|m|h|d|w|nanos?(econds?)?|micros?(econds?)?|millis?(econds?)?|seconds?|"
    r"secs?|minutes?|mins?|hours?|hrs?|days?|weeks?|wks?)"
    r"((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))*"
)
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_RGB = re.compile(r"rgb\(\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*\)")


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return check


_is_interface = _parses(ipaddress.ip_interface)
_is_date = _parses(date.fromisoformat)


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda text: compiled.fullmatch(text) is not None


def _uri(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme or text.startswith("/")) and not re.search(r"\s", text)


def _date_time(text: str) -> bool:
    if not _DATE_TIME.fullmatch(text):
        return False
    if not _is_date(text[:10]):
        return False
    hour, minute, second = int(text[11:13]), int(text[14:16]), int(text[17:19])
    return hour < 24 and minute < 60 and second < 61


def _byte(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        return False
    return text.isascii()


def _uuid(version: int) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            found = uuid.UUID(text)
        except ValueError:
            return False
        return len(text) in (32, 36) and (not version or found.version == version)

    return check


def _digits(text: str) -> str:
    return re.sub(r"[\s-]", "", text)


def _isbn10(text: str) -> bool:
    digits = _digits(text)
    if not re.fullmatch(r"\d{9}[\dX]", digits):
        return False
    return sum((10 - n) * (10 if each == "X" else int(each)) for n, each in enumerate(digits)) % 11 == 0


def _isbn13(text: str) -> bool:
    digits = _digits(text)
    return (
        bool(re.fullmatch(r"\d{13}", digits))
        and sum(int(d) * (3 if n % 2 else 1) for n, d in enumerate(digits)) % 10 == 0
    )


def _credit_card(text: str) -> bool:
    digits = _digits(text)
    if not re.fullmatch(r"\d{13,19}", digits):
        return False
    doubled = [int(each) * (2 if n % 2 else 1) for n, each in enumerate(reversed(digits))]
    return sum(each - 9 if each > 9 else each for each in doubled) % 10 == 0


def _rgb(text: str) -> bool:
    found = _RGB.fullmatch(text)
    return found is not None and all(int(each) <= 255 for each in found.groups())


def _mac(text: str) -> bool:
    return bool(
        re.fullmatch(
            r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}([:-][0-9A-Fa-f]{2}){0,14}|([0-9A-Fa-f]{4}\.){2,4}[0-9A-Fa-f]{4}",
            text,
        )
    )


FORMATS: Mapping[str, Callable[[str], bool]] = {
    "bsonobjectid": _matches(r"[0-9a-fA-F]{24}"),
    "byte": _byte,
    "cidr": lambda text: "/" in text and _is_interface(text),
    "creditcard": _credit_card,
    "date": lambda text: len(text) == 10 and _is_date(text),
    "date-time": _date_time,
    "datetime": _date_time,
    "duration": lambda text: _DURATION.fullmatch(text) is not None or text == "0",
    "email": lambda text: _EMAIL.fullmatch(text) is not None,
    "hexcolor": _matches(r"#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})"),
    "hostname": lambda text: len(text) <= 255 and _HOSTNAME.fullmatch(text) is not None,
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "isbn": lambda text: _isbn10(text) or _isbn13(text),
    "isbn10": _isbn10,
    "isbn13": _isbn13,
    "k8s-long-name": lambda text: not names.subdomain(text),
    "k8s-short-name": lambda text: not names.label(text),
    "mac": _mac,
    "rgbcolor": _rgb,
    "ssn": _matches(r"\d{3}[- ]?\d{2}[- ]?\d{4}"),
    "uri": _uri,
    "uuid": _uuid(0),
    "uuid3": _uuid(3),
    "uuid4": _uuid(4),
    "uuid5": _uuid(5),
}
