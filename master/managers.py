"""Account of who manages which field, kept at every write: managedFields between structs and documents."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from msgspec.structs import replace

from api import apply, codec
from api.apply import Entry
from api.kinds.table import Kind
from api.meta import ManagedFieldsEntry, Resource
from master.strategy import has_status, strategy_of, without_status

Managed = tuple[ManagedFieldsEntry, ...]
_RESET: Managed = (ManagedFieldsEntry(),)
_OPERATIONS = ("Apply", "Update")
# Fields that the real server's objects always have, whatever is in them; our structs may be without.
_STRATEGIES = {
    ("apps", "deployments"): "strategy",
    ("apps", "daemonsets"): "updateStrategy",
    ("apps", "statefulsets"): "updateStrategy",
}
BEFORE = "before-first-apply"


def with_managed(obj: Resource, managed: Managed) -> Resource:
    """Return ``obj`` with these managedFields."""
    return replace(obj, metadata=replace(obj.metadata, managed_fields=managed))


def bare(obj: Resource) -> Resource:
    """Return ``obj`` without resourceVersion: as it is stored."""
    return replace(obj, metadata=replace(obj.metadata, resource_version=""))


def _unmanaged(obj: Resource) -> Resource:
    return replace(obj, metadata=replace(obj.metadata, managed_fields=(), resource_version=""))


def _entries(managed: Managed) -> list[Entry]:
    found: list[Entry] = msgspec.json.decode(msgspec.json.encode(managed))
    return found


def _structs(entries: Sequence[Entry]) -> Managed:
    return msgspec.json.decode(msgspec.json.encode(entries), type=Managed)


@lru_cache(maxsize=512)  # bounded: custom kinds come and go
def _nothing(kind: Kind) -> Mapping[str, Any]:
    """Return the document of an object that says nothing: what a new one is compared with."""
    document = codec.to_document(kind.model())
    if (strategy := _STRATEGIES.get(kind.place)) is not None:
        document["spec"][strategy] = {}
    return document


def track_new(kind: Kind, obj: Resource, *, manager: str, now: str) -> Managed:
    """Return the managedFields of a new object as its author sent it; its status is not his."""
    if has_status(kind) and not strategy_of(kind).keeps_status:
        obj = without_status(kind, obj)
    document = codec.to_document(_unmanaged(obj))
    return _structs(apply.track_update(kind, _nothing(kind), document, entries=(), manager=manager, now=now))


def track_change(
    kind: Kind, old: Resource, new: Resource, sent: Managed, *, manager: str, now: str, subresource: str = ""
) -> Managed:
    """Return the managedFields after a write that is no apply.

    new: what the write makes of ``old``. sent: the managedFields that the client wrote; a client that does not know
    them sends none and keeps them, one empty entry clears them for good, and a subresource cannot change them.
    """
    before = old.metadata.managed_fields
    if not subresource and sent == _RESET:
        before = ()
    elif not subresource and sent and sent != before and _is_readable(sent):
        before = sent
    if not before or _unmanaged(old) == _unmanaged(new):
        return before
    entries = apply.track_update(
        kind,
        codec.to_document(_unmanaged(old)),
        codec.to_document(_unmanaged(new)),
        entries=_entries(before),
        manager=manager,
        now=now,
        subresource=subresource,
    )
    return _structs(entries)


def _is_readable(managed: Managed) -> bool:
    try:
        return all(
            entry.operation in _OPERATIONS
            and entry.fields_type == "FieldsV1"
            and _is_set(msgspec.json.decode(entry.fields_v1))
            for entry in managed
        )
    except msgspec.DecodeError:
        return False


def _is_set(fields: Any) -> bool:
    return isinstance(fields, dict) and all(
        step == "." or (step[:2] in ("f:", "k:", "v:", "i:") and _is_set(below)) for step, below in fields.items()
    )


def document_to_apply_to(kind: Kind, obj: Resource, now: str) -> dict[str, Any]:
    """Return the live document for an apply; what nobody accounts for belongs to whoever was there before."""
    document = codec.to_document(obj)
    if not obj.metadata.managed_fields:
        entries = apply.track_update(kind, _nothing(kind), document, entries=(), manager=BEFORE, now=now)
        document["metadata"]["managedFields"] = entries
    return document
