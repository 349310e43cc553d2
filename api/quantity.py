"""Resource quantities: ``500m``, ``1.5Gi``, ``2e3``, ``0.1``.

A quantity is a decimal number with a binary (Ki, Mi, ...) or decimal (n, u, m, k, M, ...) suffix or an exponent. What
is compared or added up is the exact fraction; what is shown keeps the suffix family it was written in.
Source: apimachinery's resource.Quantity, whose canonical form is: no fraction, the largest suffix that allows it.
"""

import math
import re
from fractions import Fraction

_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_DECIMAL = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1),
    "k": Fraction(10**3), "M": Fraction(10**6), "G": Fraction(10**9), "T": Fraction(10**12),
    "P": Fraction(10**15), "E": Fraction(10**18),
}  # fmt: skip
_TEXT = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d{1,3})|([KMGTPE]i|[numkMGTPE]))?", re.ASCII)
_NANO = Fraction(1, 10**9)


def _split(text: str) -> tuple[Fraction, str]:
    """Return (number before the suffix, suffix); an exponent counts as a suffix ``e3``."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no quantity: quantities look like 500m, 1.5Gi, 2e3 or 0.1")
    number, exponent, suffix = match.groups()
    return Fraction(number), exponent or suffix or ""


def parse(text: str) -> Fraction:
    """Return the exact value; raises ValueError."""
    number, suffix = _split(text)
    if suffix[:1] in ("e", "E") and suffix not in ("E", "Ei"):
        return number * Fraction(10) ** int(suffix[1:])
    return number * (_BINARY[suffix] if suffix in _BINARY else _DECIMAL[suffix])


def is_valid(text: str) -> bool:
    """Return whether ``text`` can be read as a quantity."""
    return _TEXT.fullmatch(text) is not None


def cpu_millis(text: str) -> int:
    """Return thousandths of a CPU, rounded up."""
    return math.ceil(parse(text) * 1000)


def whole(text: str) -> int:
    """Return the value rounded up: bytes of memory, a count of pods."""
    return math.ceil(parse(text))


def canonical(text: str) -> str:
    """Return the form in which the API server stores ``text``: ``1000m`` -> ``1``, ``1024Mi`` -> ``1Gi``.

    Fractions finer than a billionth are rounded up, as the real server does.
    """
    _, suffix = _split(text)
    value = parse(text)
    value = Fraction(math.ceil(value / _NANO)) * _NANO
    if suffix in _BINARY and abs(value) >= 1024 and value.denominator == 1:
        return _largest(value, [*reversed(_BINARY.items())])
    if suffix[:1] in ("e", "E") and suffix not in ("E", "Ei"):
        exponent = next((e for e in range(18, -10, -3) if (value / Fraction(10) ** e).denominator == 1), -9)
        return f"{value / Fraction(10) ** exponent}" + (f"e{exponent}" if exponent and value else "")
    return _largest(value, sorted(_DECIMAL.items(), key=lambda item: -item[1]))


def _largest(value: Fraction, suffixes: list[tuple[str, Fraction]] | list[tuple[str, int]]) -> str:
    """Return ``value`` with the largest suffix that leaves a whole number; the bare number when none does."""
    if value == 0:
        return "0"
    for suffix, factor in suffixes:
        if (value / factor).denominator == 1:
            return f"{value / factor}{suffix}"
    return f"{value}"


def from_millis(millis: int) -> str:
    """Return thousandths as a canonical quantity: 1500 -> ``1500m``, 2000 -> ``2``."""
    return canonical(f"{millis}m")


def from_bytes(count: int) -> str:
    """Return a number of bytes as a canonical binary quantity: 2 GiB -> ``2Gi``, 1000 -> ``1000``."""
    return _largest(Fraction(count), [*reversed(_BINARY.items())]) if count >= 1024 else str(count)
