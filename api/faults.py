"""The vocabulary of validation: faults in the real server's words, and the rules that many kinds share."""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from api import names
from api.errors import BadRequest, Fault, Invalid, invalid
from api.meta import LabelSelector
from api.names import Rule

ANNOTATIONS_LIMIT_BYTES = 256 * 1024


def required(field: str, detail: str = "") -> Fault:
    """Return the fault of a field that is missing."""
    return Fault(field, f"Required value{f': {detail}' if detail else ''}", "FieldValueRequired")


def wrong(field: str, value: Any, detail: str) -> Fault:
    """Return the fault of a field whose ``value`` breaks a rule."""
    return Fault(field, f"Invalid value: {shown(value)}: {detail}", "FieldValueInvalid")


def unsupported(field: str, value: Any, allowed: Iterable[str]) -> Fault:
    """Return the fault of a field that must be one of ``allowed``, which are told in their order."""
    known = ", ".join(f'"{each}"' for each in allowed)
    return Fault(field, f"Unsupported value: {shown(value)}: supported values: {known}", "FieldValueNotSupported")


def duplicate(field: str, value: Any) -> Fault:
    """Return the fault of a value that stands twice where it may stand once."""
    return Fault(field, f"Duplicate value: {shown(value)}", "FieldValueDuplicate")


def forbidden(field: str, detail: str) -> Fault:
    """Return the fault of a field that may not be set, or changed, here."""
    return Fault(field, f"Forbidden: {detail}", "FieldValueForbidden")


def too_long(field: str, limit: int) -> Fault:
    """Return the fault of a value with more than ``limit`` bytes."""
    return Fault(field, f"Too long: may not be more than {limit} bytes", "FieldValueTooLong")


class Printed(str):
    """A value in the very text that is shown of it."""

    __slots__ = ()


def shown(value: Any) -> str:
    """Return ``value`` as the real server, a Go program, prints it in a fault."""
    match value:
        case Printed():
            return str(value)
        case str():
            return _quoted(value)
        case bool():
            return str(value).lower()
        case None:
            return '"null"'
        case int() | float():
            return str(value)
        case LabelSelector():
            return _shown_selector(value)
        case Mapping() if all(isinstance(each, str) for each in value.values()):
            return f"map[string]string{{{', '.join(f'{shown(key)}:{shown(value[key])}' for key in sorted(value))}}}"
        case list() | tuple() if all(isinstance(each, str) for each in value):
            return f"[]string{{{', '.join(map(shown, value))}}}"
    # Go would print the whole struct, in a form that nobody reads; this is what the newest servers do.
    return msgspec.json.encode(value).decode()


_ESCAPES = {
    '"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
}  # fmt: skip


def _quoted(text: str) -> str:
    """Return ``text`` as Go quotes it."""
    return f'"{"".join(_escaped(each) for each in text)}"'


def _escaped(letter: str) -> str:
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    if letter.isprintable():
        return letter
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _shown_selector(selector: LabelSelector) -> str:
    labels = shown(selector.match_labels) if selector.match_labels else "map[string]string(nil)"
    kind = "[]v1.LabelSelectorRequirement"
    each = (
        f"v1.LabelSelectorRequirement{{Key:{shown(one.key)}, Operator:{shown(one.operator)}, "
        f"Values:{shown(one.values) if one.values else '[]string(nil)'}}}"
        for one in selector.match_expressions
    )
    listed = f"{kind}{{{', '.join(each)}}}" if selector.match_expressions else f"{kind}(nil)"
    return f"v1.LabelSelector{{MatchLabels:{labels}, MatchExpressions:{listed}}}"


def check(rule: Rule, text: str, field: str) -> list[Fault]:
    """Return a fault for each reason why ``text`` breaks ``rule``."""
    return [wrong(field, text, why) for why in rule(text)]


def check_given(rule: Rule, text: str, field: str) -> list[Fault]:
    """Return the faults of a text that must be given and follow ``rule``."""
    return check(rule, text, field) if text else [required(field)]


def check_optional(rule: Rule, text: str, field: str) -> list[Fault]:
    """Return the faults of a text that must follow ``rule`` if it is given."""
    return check(rule, text, field) if text else []


def label_map_faults(labels: Mapping[str, str], field: str) -> list[Fault]:
    """Return the faults of a map of labels."""
    faults: list[Fault] = []
    for key, value in labels.items():
        faults += check(names.qualified, key, field) + check(names.label_value, value, field)
    return faults


def selector_faults(selector: LabelSelector | None, field: str) -> list[Fault]:
    """Return the faults of an object's label selector."""
    if selector is None:
        return []
    faults = label_map_faults(selector.match_labels, f"{field}.matchLabels")
    for index, each in enumerate(selector.match_expressions):
        at = f"{field}.matchExpressions[{index}]"
        faults += operator_faults(each.operator, each.values, at)
        faults += check(names.qualified, each.key, f"{at}.key")
        for number, value in enumerate(each.values):
            faults += check(names.label_value, value, f"{at}.values[{number}]")
    return faults


def operator_faults(operator: str, values: Sequence[str], field: str, *, ordered: bool = False) -> list[Fault]:
    """Return the faults of how a selector compares, and with how many values; ordered: Gt and Lt may be used."""
    if operator in ("In", "NotIn"):
        return [] if values else [required(f"{field}.values", "must be specified when `operator` is 'In' or 'NotIn'")]
    if operator in ("Exists", "DoesNotExist"):
        why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        return [forbidden(f"{field}.values", why)] if values else []
    if ordered and operator in ("Gt", "Lt"):
        why = "must be specified single value when `operator` is 'Lt' or 'Gt'"
        return [] if len(values) == 1 else [required(f"{field}.values", why)]
    return [wrong(f"{field}.operator", operator, "not a valid selector operator")]


def annotation_faults(annotations: Mapping[str, str], field: str) -> list[Fault]:
    """Return the faults of a map of annotations: keys like labels', values of any shape within a total size."""
    faults = [wrong(field, key, why) for key in annotations for why in names.qualified(key.lower())]
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > ANNOTATIONS_LIMIT_BYTES:
        faults.append(too_long(field, ANNOTATIONS_LIMIT_BYTES))
    return faults


def strict_fault(kind: str, version: str, texts: Iterable[str]) -> BadRequest:
    """Return the refusal of an object with fields that are unknown, or stand twice, to who wants none of them."""
    why = f"strict decoding error: {', '.join(texts)}"
    return BadRequest(f'{kind} in version "{version}" cannot be handled as a {kind}: {why}')


def strict_texts(document: Any, *, repeated: Iterable[str], unknown: Iterable[str]) -> list[str]:
    """Return what a strict client is told of its document: fields that stand twice or are unknown, as they come in it.

    A field that is unknown is not told of as repeated, too, nor is anything in it. Lines of YAML come first: they are
    seen before any field.
    """
    lost = tuple(_path_in(text) for text in unknown)
    within = tuple(f"{path}{sign}" for path in lost for sign in ".[")
    known = (text for text in repeated if _path_in(text) not in lost and not _path_in(text).startswith(within))
    texts = [*unknown, *known]
    places = {path: number for number, path in enumerate(_paths(document, ""))}
    return sorted(texts, key=lambda text: places.get(_path_in(text), -1))


def _path_in(text: str) -> str:
    """Return the path that ``unknown field "spec.x"`` tells of; of a line of YAML nothing."""
    return "" if text.startswith("line ") else text.partition('"')[2].removesuffix('"')


def _paths(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            at = f"{path}.{key}" if path else key
            yield at
            yield from _paths(each, at)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _paths(each, f"{path}[{index}]")


def strict_patch_fault(patch: str, texts: Iterable[str]) -> Invalid:
    """Return the same refusal for a patch; ``patch`` is how it is shown."""
    return invalid("", "", [wrong("patch", patch, f"strict decoding error: {', '.join(texts)}")])


def as_go(value: Any) -> str:
    """Return a JSON value as Go prints it."""
    match value:
        case dict():
            return f"map[{' '.join(f'{key}:{as_go(value[key])}' for key in sorted(value))}]"
        case list():
            return f"[{' '.join(map(as_go, value))}]"
        case None:
            return "<nil>"
        case bool():
            return str(value).lower()
    return str(value)


NEGATIVE = "must be greater than or equal to 0"


def not_negative(value: int | None, field: str) -> list[Fault]:
    """Return the fault of a number below zero."""
    return [wrong(field, value, NEGATIVE)] if value is not None and value < 0 else []


def positive(value: int | None, field: str) -> list[Fault]:
    """Return the fault of a number that is given and not above zero."""
    return [wrong(field, value, "must be greater than 0")] if value is not None and value <= 0 else []


def share(value: int | str | None, field: str) -> list[Fault]:
    """Return the faults of a count or percentage."""
    if not isinstance(value, str):
        return not_negative(value, field)
    return check(names.percent, value, field)


def not_above_all(value: int | str | None, field: str) -> list[Fault]:
    """Return the fault of a percentage above a hundred."""
    if not isinstance(value, str) or names.percent(value) or int(value[:-1]) <= 100:
        return []
    return [wrong(field, value, "must not be greater than 100%")]


def is_nothing(value: int | str | None) -> bool:
    """Return whether a count or percentage is zero."""
    return not int(value[:-1]) if isinstance(value, str) and not names.percent(value) else value in (None, 0)


def within(value: int | None, least: int, most: int, field: str) -> list[Fault]:
    """Return the fault of a number that is given and not one of ``least`` to ``most``."""
    if value is None or least <= value <= most:
        return []
    return [wrong(field, value, f"must be between {least} and {most}, inclusive")]


def one_of(value: str, allowed: Iterable[str], field: str) -> list[Fault]:
    """Return the fault of a value that is none of ``allowed``; of one that must be given and is not, the other."""
    if value in allowed:
        return []
    return [unsupported(field, value, allowed) if value else required(field)]


ADDRESS_RULE = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
_CIDR_RULE = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"


def is_address(text: str) -> bool:
    """Return whether ``text`` is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def address_faults(text: str, field: str) -> list[Fault]:
    """Return the fault of a text that is no IP address."""
    return [] if is_address(text) else [wrong(field, text, ADDRESS_RULE)]


def special_address_faults(text: str, field: str) -> list[Fault]:
    """Return the fault of an address that no endpoint may have: it would lead every client of a service to itself."""
    address = ipaddress.ip_address(text)
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_unspecified:
        return [wrong(field, text, f"may not be unspecified ({text})")]
    if address.is_loopback:
        return [wrong(field, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)")]
    if address.is_link_local:
        return [wrong(field, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")]
    if any(address.version == each.version and address in each for each in _LINK_LOCAL_MULTICAST):
        return [wrong(field, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")]
    return []


_LINK_LOCAL_MULTICAST = (ipaddress.ip_network("224.0.0.0/24"), ipaddress.ip_network("ff02::/16"))


def plain_address_faults(text: str, field: str) -> list[Fault]:
    """Return the faults of an address that others shall reach."""
    return address_faults(text, field) or special_address_faults(text, field)


def cidr_faults(text: str, field: str) -> list[Fault]:
    """Return the fault of a text that is no address range."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        good = False
    else:
        good = "/" in text
    return [] if good else [wrong(field, text, _CIDR_RULE)]


def port_faults(port: int | str | None, field: str) -> list[Fault]:
    """Return the faults of a port given by number or by name."""
    if isinstance(port, str):
        return check(names.port_name, port, field)
    return within(port or 0, 1, 65535, field)


_IMMUTABLE = "field is immutable"


def immutable(old: object, new: object, field: str) -> list[Fault]:
    """Return the fault of a field that an update changes and may not."""
    return [] if old == new else [wrong(field, new, _IMMUTABLE)]


def too_many(field: str, count: int, limit: int) -> Fault:
    """Return the fault of a list with more than ``limit`` items."""
    return Fault(field, f"Too many: {count}: must have at most {limit} items", "FieldValueTooMany")


def not_found(field: str, value: Any, detail: str = "") -> Fault:
    """Return the fault of a reference to something that is not there."""
    return Fault(field, f"Not found: {shown(value)}{f': {detail}' if detail else ''}", "FieldValueNotFound")
