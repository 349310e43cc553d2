"""Kinds that are two faces of the same stored objects: core and events.k8s.io events.

The core face is stored. Source: the published API's notes at the fields of both.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from api.kinds.table import Kind
from master.objects import StoredObject, read_stored, without_revision

Document = dict[str, Any]
Convert = Callable[[Document], Document]

# core -> events.k8s.io, where the names differ.
_RENAMED = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_BACK = {new: old for old, new in _RENAMED.items()}


def _renamed(document: Mapping[str, Any], names: Mapping[str, str]) -> Document:
    return {names.get(key, key): value for key, value in document.items()}


def _to_newer(document: Document) -> Document:
    newer = _renamed(document, _RENAMED)
    newer["apiVersion"] = "events.k8s.io/v1"
    newer.setdefault("eventTime", "")
    return newer


def _to_core(document: Document) -> Document:
    core = _renamed(document, _BACK)
    core["apiVersion"] = "v1"
    core.setdefault("involvedObject", {})
    core.setdefault("metadata", {})
    return core


# (group, plural) of a face -> (from stored, to stored)
_FACES: Mapping[tuple[str, str], tuple[Convert, Convert]] = {("events.k8s.io", "events"): (_to_newer, _to_core)}


@lru_cache(maxsize=512)
def _converted(group: str, plural: str, data: bytes) -> bytes:
    shown, _ = _FACES[group, plural]
    return msgspec.json.encode(shown(msgspec.json.decode(data)))


# Objects that were stored in another version, or before their kind's definition was changed.
@lru_cache(maxsize=4096)
def _read_custom(kind: Kind, data: bytes) -> bytes:
    return read_stored(kind, data)


def shows_another(kind: Kind) -> bool:
    """Return whether objects in the place of ``kind`` may have to be made into its own: it is not sure to own it."""
    return kind.stored_as is not None or kind.custom is not None


def as_kind(stored: StoredObject, kind: Kind) -> StoredObject:
    """Return ``stored`` as ``kind``, which is stored in its place, shows it."""
    if stored.kind is kind or not shows_another(kind):
        return stored
    if kind.custom is not None:
        data = _read_custom(kind, without_revision(stored.json))
        return StoredObject(kind, namespace=stored.namespace, name=stored.name, data=data, revision=stored.revision)
    data = _converted(kind.group, kind.plural, without_revision(stored.json))
    return StoredObject(kind, namespace=stored.namespace, name=stored.name, data=data, revision=stored.revision)


def to_owner(kind: Kind, document: Mapping[str, Any]) -> Document:
    """Return what a client wrote as ``kind`` as the kind that owns the place stores it."""
    if kind.stored_as is None:
        return dict(document)
    _, stored = _FACES[kind.group, kind.plural]
    return stored(dict(document))
