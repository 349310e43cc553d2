"""What expressions compute with, and what may go wrong.

int, float, str, bytes, bool, None, list, dict and ``datetime``/``timedelta`` stand for themselves. Everything that is
particular to the language, above all that ``true`` is no number, is in these functions.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, NamedTuple
from urllib.parse import SplitResult

from api.cel.syntax import Uint

INT_RANGE = (-(2**63), 2**63 - 1)
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class CelError(Exception):
    """An expression has no value."""


class OverBudget(CelError):
    """An expression took more steps than it may; nothing absorbs this."""


class Type(NamedTuple):
    """A type as a value: what ``type(x)`` returns."""

    name: str


class Optional(NamedTuple):
    """A value that may be missing: of ``a.?b``, of ``oldSelf`` with optionalOldSelf."""

    present: bool
    value: Any = None


class Quantity(NamedTuple):
    """A resource quantity."""

    number: Fraction


class Budget:
    """How many steps are left, shared by all that is evaluated for one request."""

    __slots__ = ("left",)

    def __init__(self, steps: int) -> None:
        self.left = steps

    def spend(self, steps: int) -> None:
        """Take steps; raises OverBudget."""
        self.left -= steps
        if self.left < 0:
            raise OverBudget("operation cancelled: actual cost limit exceeded")


def type_of(value: Any) -> str:
    """Return the name of a value's type."""
    for kind, name in _TYPES:
        if isinstance(value, kind):
            return name
    return "null_type" if value is None else type(value).__name__.lower()


_TYPES: tuple[tuple[Any, str], ...] = (
    (bool, "bool"), (Uint, "uint"), (int, "int"), (float, "double"), (str, "string"), (bytes, "bytes"), (list, "list"),
    (dict, "map"), (datetime, "google.protobuf.Timestamp"), (timedelta, "google.protobuf.Duration"), (Type, "type"),
    (Optional, "optional_type"), (Quantity, "kubernetes.Quantity"), (SplitResult, "kubernetes.URL"),
    ((IPv4Address, IPv6Address), "net.IP"), ((IPv4Network, IPv6Network), "net.CIDR"),
)  # fmt: skip


def is_number(value: Any) -> bool:
    """Return whether a value is int, uint or double."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def equal(left: Any, right: Any) -> bool:
    """Return whether two values are equal: numbers by their value, everything else only to its own type."""
    if is_number(left) and is_number(right):
        return bool(left == right)
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(equal(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return type_of(left) == type_of(right) and bool(left == right)


def no_overload(function: str, *values: Any) -> CelError:
    """Return the error of a function that does not take these types."""
    return CelError(f"no such overload: {function}({', '.join(type_of(each) for each in values)})")


def checked_int(number: int) -> int:
    """Return ``number``; raises CelError if it has more than 64 bits."""
    if not INT_RANGE[0] <= number <= INT_RANGE[1]:
        raise CelError("integer overflow")
    return number
