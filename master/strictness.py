"""What a client is told of fields that are unknown, or stand twice: refused, warned of, or nothing, as it asks.

An object is judged as it was sent; a patch where it has been applied, for only then are its fields known. Source:
kubernetes.io, "Server Side Field Validation"; the texts are the real server's.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from api import codec
from api.errors import BadRequest
from api.faults import as_go, strict_fault, strict_patch_fault, strict_texts
from api.kinds.table import Kind
from master.rest.seam import WriteOptions

Texts = tuple[str, ...]
_OPERATION = frozenset({"op", "path", "from", "value"})


def listens(options: WriteOptions) -> bool:
    """Return whether the client wants to know."""
    return options.field_validation != "Ignore"


def tell(kind: Kind, document: Any, options: WriteOptions, *, unknown: Sequence[str]) -> Texts:
    """Return what to warn of in an object of ``kind``; raises BadRequest for a client that wants no such thing.

    unknown: what ``codec.decode`` said of the document.
    """
    if not (unknown or options.repeated) or not listens(options):
        return ()
    texts = tuple(strict_texts(document, repeated=options.repeated, unknown=unknown))
    if options.field_validation == "Strict":
        raise strict_fault(kind.kind, kind.version, texts)
    return texts


def tell_of(kind: Kind, document: Mapping[str, Any], options: WriteOptions) -> Texts:
    """Do as ``tell`` does for a document that nobody has decoded yet; raises BadRequest also if it cannot be."""
    unknown: list[str] = []
    if listens(options):
        codec.decode(kind, document, unknown=unknown)
    return tell(kind, document, options, unknown=unknown)


def tell_of_patch(
    patch: Any, patch_type: str, options: WriteOptions, *, patched: Mapping[str, Any], unknown: Iterable[str]
) -> Texts:
    """Return what to warn of in a patch and in what came of it; raises Invalid for a client that wants no such thing.

    patch_type: "json", "merge" or "strategic". unknown: what ``codec.decode`` said of ``patched``.
    """
    if not listens(options):
        return ()
    sent: Sequence[str] = options.repeated
    if patch_type == "json":
        odd = _unknown_in_operations(patch)
        sent = [f"json patch {text}" for text in strict_texts(patch, repeated=options.repeated, unknown=odd)]
    texts = (*sent, *unknown)
    if texts and options.field_validation == "Strict":
        shown = as_go(patch) if patch_type == "strategic" else msgspec.json.encode(patched).decode()
        raise strict_patch_fault(shown, texts)
    return texts


def _unknown_in_operations(patch: Any) -> list[str]:
    return [
        f'unknown field "[{index}].{name}"'
        for index, operation in enumerate(patch)
        if isinstance(operation, Mapping)
        for name in operation
        if name not in _OPERATION
    ]


def tell_of_apply(options: WriteOptions) -> Texts:
    """Return what to warn of in an applied intent, whose unknown fields are refused anyway; raises BadRequest."""
    if options.repeated and options.field_validation == "Strict":
        lines = "".join(f"\n  {text}" for text in options.repeated)
        raise BadRequest(f"error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:{lines}")
    return options.repeated if listens(options) else ()
