"""Stored objects as the kinds that share their place show them."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from api import conversion
from api.kinds.table import Kind
from master.objects import StoredObject, without_revision


@lru_cache(maxsize=512)
def _converted(kind: Kind, data: bytes) -> bytes:
    return msgspec.json.encode(conversion.shown(kind, msgspec.json.decode(data)))


def as_kind(stored: StoredObject, kind: Kind) -> StoredObject:
    """Return ``stored`` as ``kind``, which is stored in its place, shows it."""
    if stored.kind is kind or kind.stored_as is None:
        return stored
    data = _converted(kind, without_revision(stored.json))
    return StoredObject(kind, namespace=stored.namespace, name=stored.name, data=data, revision=stored.revision)


def to_owner(kind: Kind, owner: Kind, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a client wrote as ``kind`` as ``owner``, whose objects are stored, has it."""
    return conversion.stored(kind, owner, document)
