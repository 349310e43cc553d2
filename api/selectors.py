"""Label and field selectors: from query text or an object's selector to something that matches.

Grammar of label selectors: ``a``, ``!a``, ``a=b``, ``a==b``, ``a!=b``, ``a in (b,c)``, ``a notin (b,c)``, ``a>1``,
``a<1``, joined by commas; all must hold. Field selectors know ``=``, ``==`` and ``!=`` only.
Source: kubernetes.io, "Labels and Selectors" and "Field Selectors".
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from api.errors import BadRequest
from api.meta import LabelSelector


class Requirement(NamedTuple):
    """One condition on one label."""

    key: str
    operator: str  # "in", "notin", "exists", "absent", "gt", "lt"
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether ``labels`` meet it; an absent label meets ``notin``, as on the real server."""
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value in self.values
            case "notin":
                return value not in self.values
            case "exists":
                return value is not None
            case "absent":
                return value is None
            case "gt" | "lt":
                return _compares(value, self.operator, next(iter(self.values)))
        raise AssertionError(f"operator {self.operator!r}")


def _compares(value: str | None, operator: str, bound: str) -> bool:
    try:
        number = int(value or "")
    except ValueError:
        return False
    return number > int(bound) if operator == "gt" else number < int(bound)


class LabelQuery(NamedTuple):
    """A conjunction of requirements; ``None`` matches nothing, an empty one everything."""

    requirements: tuple[Requirement, ...] | None = ()

    @property
    def everything(self) -> bool:
        """Return whether no labels need be looked at."""
        return self.requirements == ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether ``labels`` meet every requirement."""
        return self.requirements is not None and all(each.matches(labels) for each in self.requirements)


_TOKEN = re.compile(r"\s*(==|!=|=|!|,|\(|\)|>|<|[^\s=!,()<>]+)")
_NAME = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def is_label_key(key: str) -> bool:
    """Return whether ``key`` is ``name`` or ``prefix/name`` within the real server's rules."""
    prefix, slash, name = key.rpartition("/")
    if slash and not (prefix and len(prefix) <= 253 and _PREFIX.fullmatch(prefix)):
        return False
    return len(name) <= 63 and _NAME.fullmatch(name) is not None


def is_label_value(value: str) -> bool:
    """Return whether ``value`` may be a label's value; the empty string may."""
    return value == "" or (len(value) <= 63 and _NAME.fullmatch(value) is not None)


class _Parser:
    """Recursive descent over the tokens of one label selector."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = self._split(text)
        self.position = 0

    def _split(self, text: str) -> list[str]:
        tokens, position = [], 0
        while position < len(text.rstrip()):
            if (match := _TOKEN.match(text, position)) is None:
                raise self.error(f"cannot read {text[position:]!r}")
            tokens.append(match[1])
            position = match.end()
        return tokens

    def error(self, why: str) -> BadRequest:
        return BadRequest(f"unable to parse requirement: {why} in label selector {self.text!r}")

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.position += 1
        return token

    def parse(self) -> LabelQuery:
        requirements: list[Requirement] = []
        while self.peek():
            requirements.append(self.requirement())
            if (token := self.take()) not in ("", ","):
                raise self.error(f"found {token!r}, expected: ',' or the end")
            if token == "," and not self.peek():
                raise self.error("found the end, expected: identifier after ','")
        return LabelQuery(tuple(requirements))

    def requirement(self) -> Requirement:
        if self.peek() == "!":
            self.take()
            return Requirement(self.key(), "absent")
        key = self.key()
        match self.peek():
            case "" | ",":
                return Requirement(key, "exists")
            case "=" | "==":
                self.take()
                return Requirement(key, "in", frozenset([self.value()]))
            case "!=":
                self.take()
                return Requirement(key, "notin", frozenset([self.value()]))
            case ">" | "<" as sign:
                self.take()
                return self.bound(key, sign)
            case "in" | "notin" as operator:
                self.take()
                return Requirement(key, operator, self.values())
        raise self.error(f"found {self.peek()!r}, expected: in, notin, =, ==, !=, gt, lt")

    def key(self) -> str:
        key = self.take()
        if not is_label_key(key):
            raise self.error(f"invalid label key {key!r}")
        return key

    def value(self) -> str:
        if self.peek() in ("", ","):
            return ""
        value = self.take()
        if not is_label_value(value):
            raise self.error(f"invalid label value {value!r}")
        return value

    def bound(self, key: str, sign: str) -> Requirement:
        value = self.value()
        if re.fullmatch(r"-?[0-9]+", value) is None:
            raise self.error(f"for {sign!r} the value must be an integer, not {value!r}")
        return Requirement(key, "gt" if sign == ">" else "lt", frozenset([value]))

    def values(self) -> frozenset[str]:
        if (token := self.take()) != "(":
            raise self.error(f"found {token!r}, expected: '('")
        values = [self.value() if self.peek() != ")" else ""]
        while (token := self.take()) == ",":
            values.append(self.value() if self.peek() != ")" else "")
        if token != ")":
            raise self.error(f"found {token!r}, expected: ',' or ')'")
        return frozenset(values)


def parse_labels(text: str) -> LabelQuery:
    """Return what a ``labelSelector`` query parameter asks for; empty text matches everything."""
    return _Parser(text).parse()


def of_map(wanted: Mapping[str, str]) -> LabelQuery:
    """Return the query for equality with every pair, as Services and ReplicationControllers select."""
    return LabelQuery(tuple(Requirement(key, "in", frozenset([value])) for key, value in sorted(wanted.items())))


_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "absent"}


def of_struct(selector: LabelSelector | None) -> LabelQuery:
    """Return the query of an object's selector; an absent one selects nothing, an empty one everything."""
    if selector is None:
        return LabelQuery(None)
    expressions = [
        Requirement(each.key, _OPERATORS[each.operator], frozenset(each.values)) for each in selector.match_expressions
    ]
    return LabelQuery((*(of_map(selector.match_labels).requirements or ()), *expressions))


class FieldRequirement(NamedTuple):
    """One condition on one field."""

    path: str
    value: str
    equal: bool


class FieldQuery(NamedTuple):
    """A conjunction of field requirements; an empty one matches everything."""

    requirements: tuple[FieldRequirement, ...] = ()

    @property
    def everything(self) -> bool:
        """Return whether no field need be looked at."""
        return not self.requirements

    def matches(self, get: Callable[[str], str]) -> bool:
        """Return whether the object behind ``get`` (path -> value as text) meets every requirement."""
        return all((get(each.path) == each.value) == each.equal for each in self.requirements)

    def exact(self, path: str) -> str | None:
        """Return the one value that ``path`` must have, if the query fixes it."""
        return next((each.value for each in self.requirements if each.path == path and each.equal), None)


_FIELD = re.compile(r"(?P<path>[^=!]+)(?P<sign>==|!=|=)(?P<value>.*)")


def parse_fields(text: str) -> FieldQuery:
    """Return what a ``fieldSelector`` query parameter asks for; backslash escapes comma, equals sign and itself."""
    requirements = []
    for part in re.split(r"(?<!\\),", text):
        if not part:
            continue
        if (match := _FIELD.fullmatch(part)) is None:
            raise BadRequest(f"invalid field selector {text!r}: {part!r} has none of =, == and !=")
        value = re.sub(r"\\([\\,=])", r"\1", match["value"])
        requirements.append(FieldRequirement(match["path"].strip(), value, match["sign"] != "!="))
    return FieldQuery(tuple(requirements))
