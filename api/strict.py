"""Refusals of strict field validation, in the real server's words."""

import json
from collections.abc import Iterable
from typing import Any

from api.errors import BadRequest, Invalid, invalid
from api.faults import wrong
from api.kinds.table import Kind


def strict_fault(kind: Kind, texts: Iterable[str]) -> BadRequest:
    """Return the refusal of an object with fields that are unknown, or stand twice, to who wants none of them."""
    why = f"strict decoding error: {', '.join(texts)}"
    return BadRequest(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {why}')


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
