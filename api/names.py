"""What names, keys and other short texts may look like: each rule returns every reason why a text breaks it.

The reasons are the real server's words, which clients show and tests of clients look for.
"""

import re
from collections.abc import Callable

Rule = Callable[[str], list[str]]

LONGEST_LABEL, LONGEST_SUBDOMAIN, LONGEST_PORT_NAME = 63, 253, 15
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_KEY = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_DATA_KEY = "[-._a-zA-Z0-9]+"
_HEADER = "[-A-Za-z0-9]+"
_PERCENT = "[0-9]+%"
_HTTP_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"


def _must_match(why: str, pattern: str, *examples: str) -> str:
    shown = " or ".join(f"'{each}', " for each in examples)
    return f"{why} (e.g. {shown}regex used for validation is '{pattern}')"


LABEL_RULE = _must_match(
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character",
    _LABEL, "my-name", "123-abc",
)  # fmt: skip
LABEL_1035_RULE = _must_match(
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character",
    _LABEL_1035, "my-name", "abc-123",
)  # fmt: skip
SUBDOMAIN_RULE = _must_match(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character",
    _SUBDOMAIN, "example.com",
)  # fmt: skip
_WILDCARD_RULE = _must_match(
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
    "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
    rf"\*\.{_SUBDOMAIN}", "*.example.com",
)  # fmt: skip
_KEY_RULE = _must_match(
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
    _KEY, "MyName", "my.name", "123-abc",
)  # fmt: skip
_VALUE_RULE = _must_match(
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character",
    f"({_KEY})?", "MyValue", "my_value", "12345",
)  # fmt: skip
_DATA_KEY_RULE = _must_match(
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    _DATA_KEY, "key.name", "KEY_NAME", "key-name",
)  # fmt: skip
_HEADER_RULE = _must_match(
    "a valid HTTP header must consist of alphanumeric characters or '-'", _HEADER, "X-Header-Name"
)
_PERCENT_RULE = _must_match(
    "a valid percent string must be a numeric string followed by an ending '%'", _PERCENT, "1%", "93%"
)
_VARIABLE_RULE = "a valid environment variable name must consist only of printable ASCII characters other than '='"


def _longest(text: str, limit: int) -> list[str]:
    return [f"must be no more than {limit} characters"] if len(text) > limit else []


def _matches(pattern: str, text: str, why: str) -> list[str]:
    return [] if re.fullmatch(pattern, text) else [why]


def label(text: str) -> list[str]:
    """One part of a domain name, as RFC 1123 has it."""
    if re.fullmatch(_LABEL, text):
        return _longest(text, LONGEST_LABEL)
    why = "must not contain dots" if re.fullmatch(_SUBDOMAIN, text) else LABEL_RULE
    return [*_longest(text, LONGEST_LABEL), why]


def label_1035(text: str) -> list[str]:
    """One part of a domain name, as the older RFC 1035 has it: it starts with a letter."""
    return _longest(text, LONGEST_LABEL) + _matches(_LABEL_1035, text, LABEL_1035_RULE)


def subdomain(text: str) -> list[str]:
    """A domain name: what most objects are called by."""
    return _longest(text, LONGEST_SUBDOMAIN) + _matches(_SUBDOMAIN, text, SUBDOMAIN_RULE)


def wildcard(text: str) -> list[str]:
    """A domain name behind ``*.``."""
    return _longest(text, LONGEST_SUBDOMAIN) + _matches(rf"\*\.{_SUBDOMAIN}", text, _WILDCARD_RULE)


def qualified(text: str) -> list[str]:
    """A label's key: ``name`` or ``prefix/name``."""
    *prefixes, name = text.split("/")
    if len(prefixes) > 1:
        return [
            f"a qualified name {_KEY_RULE} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ]
    reasons = []
    for prefix in prefixes:
        reasons += [f"prefix part {each}" for each in (subdomain(prefix) if prefix else ["must be non-empty"])]
    if not name:
        reasons.append("name part must be non-empty")
    reasons += [f"name part {each}" for each in _longest(name, LONGEST_LABEL) + _matches(_KEY, name, _KEY_RULE)]
    return reasons


def label_value(text: str) -> list[str]:
    """A label's value; the empty text may be one."""
    return _longest(text, LONGEST_LABEL) + _matches(f"({_KEY})?", text, _VALUE_RULE)


def data_key(text: str) -> list[str]:
    """A key of a config map or a secret, which may become the name of a file."""
    reasons = _longest(text, LONGEST_SUBDOMAIN) + _matches(_DATA_KEY, text, _DATA_KEY_RULE)
    if text in (".", ".."):
        reasons.append(f"must not be '{text}'")
    elif text.startswith(".."):
        reasons.append("must not start with '..'")
    return reasons


def variable(text: str) -> list[str]:
    """The name of an environment variable."""
    return [] if re.fullmatch("[ -<>-~]+", text) else [_VARIABLE_RULE]


def header(text: str) -> list[str]:
    """The name of an HTTP header."""
    return _matches(_HEADER, text, _HEADER_RULE)


def percent(text: str) -> list[str]:
    """A percentage."""
    return _matches(_PERCENT, text, _PERCENT_RULE)


def port_name(text: str) -> list[str]:
    """A service's name as IANA has it."""
    reasons = _longest(text, LONGEST_PORT_NAME)
    reasons += _matches("[-a-z0-9]+", text, "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", text):
        reasons.append("must contain at least one letter (a-z)")
    if "--" in text:
        reasons.append("must not contain consecutive hyphens")
    if text.startswith("-") or text.endswith("-"):
        reasons.append("must not begin or end with a hyphen")
    return reasons


def path_segment(text: str) -> list[str]:
    """What can stand between two slashes of a URL."""
    if text in (".", ".."):
        return [f"may not be '{text}'"]
    return [f"may not contain '{each}'" for each in "/%" if each in text]


def http_path(text: str) -> list[str]:
    """The path of a URL as RFC 3986 has it."""
    return _matches(_HTTP_PATH, text, f"Invalid path (regex used for validation is '{_HTTP_PATH}')")


def anything(text: str) -> list[str]:  # noqa: ARG001 - a rule like the others
    """Any text at all."""
    return []


def as_prefix(rule: Rule) -> Rule:
    """Return the rule for what a generated name begins with: ``rule`` but for a dash at the end."""

    def check(text: str) -> list[str]:
        return rule(f"{text[:-2]}a" if len(text) > 1 and text.endswith("-") else text)

    return check
