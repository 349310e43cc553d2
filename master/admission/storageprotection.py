"""Claims and volumes that are in use stay until they are not: each gets a finalizer when it is made.

The controllers of ``master/controllers/storageprotection.py`` take it away. Source: kubernetes.io, "Storage Object in
Use Protection".
"""

from collections.abc import Mapping

from msgspec.structs import replace

from api.meta import Resource
from master.admission.chain import Attributes, Rule

CLAIM, VOLUME = "kubernetes.io/pvc-protection", "kubernetes.io/pv-protection"
_FINALIZERS: Mapping[tuple[str, str], str] = {
    ("", "persistentvolumeclaims"): CLAIM,
    ("", "persistentvolumes"): VOLUME,
}


class StorageObjectInUse(Rule):
    """Gives new claims and volumes their finalizer."""

    async def mutate(self, attributes: Attributes, obj: Resource) -> Resource:
        """Return a new object with it."""
        finalizer = _FINALIZERS.get(attributes.kind.place)
        if finalizer is None or not attributes.creates:
            return obj
        return protected(obj, finalizer)


def protected(obj: Resource, finalizer: str) -> Resource:
    """Return ``obj`` with ``finalizer``."""
    meta = obj.metadata
    if finalizer in meta.finalizers:
        return obj
    return replace(obj, metadata=replace(meta, finalizers=(*meta.finalizers, finalizer)))
