"""Stored objects as the kinds that share their place show them."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from api import codec, conversion
from api.kinds.table import Kind
from master.objects import StoredObject, read_stored, without_revision


@lru_cache(maxsize=512)
def _converted(kind: Kind, data: bytes) -> bytes:
    return msgspec.json.encode(conversion.shown(kind, msgspec.json.decode(data)))


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
    data = _converted(kind, without_revision(stored.json))
    return StoredObject(kind, namespace=stored.namespace, name=stored.name, data=data, revision=stored.revision)


def to_owner(kind: Kind, owner: Kind, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a client wrote as ``kind`` as ``owner``, whose objects are stored, has it; raises BadRequest."""
    try:
        return conversion.stored(kind, owner, document)
    except (AttributeError, KeyError, TypeError, ValueError):
        codec.decode(kind, document)  # says what has not the shape of its kind
        raise
