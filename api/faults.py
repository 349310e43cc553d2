"""The vocabulary of validation: faults in the real server's words, and the rules that many kinds share."""

import ipaddress
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from api import selectors
from api.errors import BadRequest, Fault, Invalid, invalid
from api.meta import LabelSelector

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")

LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
LABEL_1035_RULE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_KEY_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_LABEL_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
ANNOTATIONS_LIMIT_BYTES = 256 * 1024


def required(field: str, detail: str = "") -> Fault:
    """Return the fault of a field that is missing."""
    return Fault(field, f"Required value{f': {detail}' if detail else ''}", "FieldValueRequired")


def wrong(field: str, value: Any, detail: str) -> Fault:
    """Return the fault of a field whose ``value`` breaks a rule."""
    return Fault(field, f"Invalid value: {shown(value)}: {detail}", "FieldValueInvalid")


def unsupported(field: str, value: Any, allowed: Iterable[str]) -> Fault:
    """Return the fault of a field that must be one of ``allowed``."""
    names = ", ".join(f'"{each}"' for each in sorted(allowed))
    return Fault(field, f"Unsupported value: {shown(value)}: supported values: {names}", "FieldValueNotSupported")


def duplicate(field: str, value: Any) -> Fault:
    """Return the fault of a value that stands twice where it may stand once."""
    return Fault(field, f"Duplicate value: {shown(value)}", "FieldValueDuplicate")


def forbidden(field: str, detail: str) -> Fault:
    """Return the fault of a field that may not be set, or changed, here."""
    return Fault(field, f"Forbidden: {detail}", "FieldValueForbidden")


def too_long(field: str, limit: int) -> Fault:
    """Return the fault of a value with more than ``limit`` bytes."""
    return Fault(field, f"Too long: may not be more than {limit} bytes", "FieldValueTooLong")


def shown(value: Any) -> str:
    """Return ``value`` as the real server prints it in a fault."""
    match value:
        case str():
            return f'"{value}"'
        case bool():
            return str(value).lower()
        case None:
            return "null"
        case int() | float():
            return str(value)
    return repr(value)


def label_faults(name: str) -> str:
    """Return why ``name`` is no RFC 1123 label; "" if it is one."""
    if len(name) > 63:
        return "must be no more than 63 characters"
    return "" if _LABEL.fullmatch(name) else LABEL_RULE


def label_1035_faults(name: str) -> str:
    """Return why ``name`` is no RFC 1035 label; "" if it is one."""
    if len(name) > 63:
        return "must be no more than 63 characters"
    return "" if _LABEL_1035.fullmatch(name) else LABEL_1035_RULE


def subdomain_faults(name: str) -> str:
    """Return why ``name`` is no RFC 1123 subdomain; "" if it is one."""
    if len(name) > 253:
        return "must be no more than 253 characters"
    return "" if _SUBDOMAIN.fullmatch(name) else SUBDOMAIN_RULE


def label_map_faults(labels: Mapping[str, str], field: str) -> list[Fault]:
    """Return the faults of a map of labels."""
    faults = [wrong(field, key, _LABEL_KEY_RULE) for key in labels if not selectors.is_label_key(key)]
    faults += [
        wrong(field, value, _LABEL_VALUE_RULE) for value in labels.values() if not selectors.is_label_value(value)
    ]
    return faults


def selector_faults(selector: LabelSelector | None, field: str) -> list[Fault]:
    """Return the faults of an object's label selector."""
    if selector is None:
        return []
    faults = label_map_faults(selector.match_labels, f"{field}.matchLabels")
    for index, each in enumerate(selector.match_expressions):
        at = f"{field}.matchExpressions[{index}]"
        if each.operator in ("In", "NotIn"):
            if not each.values:
                faults.append(required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif each.operator in ("Exists", "DoesNotExist"):
            if each.values:
                faults.append(
                    forbidden(f"{at}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
                )
        else:
            faults.append(wrong(f"{at}.operator", each.operator, "not a valid selector operator"))
        if not selectors.is_label_key(each.key):
            faults.append(wrong(f"{at}.key", each.key, _LABEL_KEY_RULE))
    return faults


def annotation_faults(annotations: Mapping[str, str], field: str) -> list[Fault]:
    """Return the faults of a map of annotations: keys like labels', values of any shape within a total size."""
    faults = [wrong(field, key, _LABEL_KEY_RULE) for key in annotations if not selectors.is_label_key(key.lower())]
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > ANNOTATIONS_LIMIT_BYTES:
        faults.append(too_long(field, ANNOTATIONS_LIMIT_BYTES))
    return faults


def strict_fault(kind: str, version: str, texts: Iterable[str]) -> BadRequest:
    """Return the refusal of an object with fields that are unknown, or stand twice, to who wants none of them."""
    why = f"strict decoding error: {', '.join(texts)}"
    return BadRequest(f'{kind} in version "{version}" cannot be handled as a {kind}: {why}')


def strict_patch_fault(patch: Any, texts: Iterable[str]) -> Invalid:
    """Return the same refusal for a patch."""
    text = json.dumps(patch, separators=(",", ":")) if isinstance(patch, list) else _go(patch)
    return invalid("", "", [wrong("patch", text, f"strict decoding error: {', '.join(texts)}")])


def _go(value: Any) -> str:
    """Return ``value`` as Go prints it."""
    match value:
        case dict():
            return f"map[{' '.join(f'{key}:{_go(value[key])}' for key in sorted(value))}]"
        case list():
            return f"[{' '.join(map(_go, value))}]"
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
    if isinstance(value, str):
        if re.fullmatch(r"[0-9]+%", value):
            return []
        return [wrong(field, value, "a valid percent string must be a numeric string followed by an ending '%'")]
    return not_negative(value, field)


def one_of(value: str, allowed: Iterable[str], field: str) -> list[Fault]:
    """Return the fault of a value that is none of ``allowed``; of one that must be given and is not, the other."""
    if value in allowed:
        return []
    return [unsupported(field, value, allowed) if value else required(field)]


ADDRESS_RULE = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"


def is_address(text: str) -> bool:
    """Return whether ``text`` is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


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
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([a-z0-9]|-(?!-))*(?<!-)")
_PORT_RULE = "must be between 1 and 65535, inclusive"


def port_faults(port: int | str | None, field: str) -> list[Fault]:
    """Return the faults of a port given by number or by name."""
    if isinstance(port, str):
        good = len(port) <= 15 and _PORT_NAME.fullmatch(port)
        return (
            []
            if good
            else [wrong(field, port, "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")]
        )
    return [] if port is not None and 0 < port < 65536 else [wrong(field, port, _PORT_RULE)]


_IMMUTABLE = "field is immutable"


def immutable(old: object, new: object, field: str) -> list[Fault]:
    """Return the fault of a field that an update changes and may not."""
    return [] if old == new else [wrong(field, _plain(new), _IMMUTABLE)]


def _plain(value: object) -> object:
    return msgspec.json.decode(msgspec.json.encode(value))  # raw JSON inside is read, too
