"""Which objects go because their owners went: pure decisions about one object at a time.

Source: kubernetes.io, "Garbage Collection", "Owners and Dependents".
"""

from collections.abc import Sequence
from enum import Enum

import msgspec

from api.kinds.table import Kind
from api.meta import OwnerReference, Resource

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


class Fate(Enum):
    """What is known of an owner."""

    SOLID = "solid"  # it lives, or nobody can tell
    WAITING = "waiting"  # it is being deleted and waits for its dependents to go first
    ABSENT = "absent"  # it is gone, or its name belongs to another object


class Keep(msgspec.Struct, frozen=True):
    """Nothing to do."""


class Disown(msgspec.Struct, frozen=True):
    """Owners that are gone are no owners; others remain."""

    remaining: tuple[OwnerReference, ...]


class Collect(msgspec.Struct, frozen=True):
    """The object goes; ``propagation`` says how its own dependents do.

    unblocked: references that block no owner, to be written first: the object waits for one that waits for it.
    """

    propagation: str
    unblocked: tuple[OwnerReference, ...] = ()


Decision = Keep | Disown | Collect


def is_waiting(obj: Resource) -> bool:
    """Return whether ``obj`` is being deleted and waits for its dependents to go first."""
    return bool(obj.metadata.deletion_timestamp) and FOREGROUND in obj.metadata.finalizers


def fate_of(owner: Resource | None, reference: OwnerReference) -> Fate:
    """Return the fate of the object that ``reference`` names, as it was found; None: there is none."""
    if owner is None or owner.metadata.uid != reference.uid:
        return Fate.ABSENT
    return Fate.WAITING if is_waiting(owner) else Fate.SOLID


def home_of(dependent: Resource, owner_kind: Kind) -> str | None:
    """Return the namespace to look for an owner in: the dependent's own, or "" for owners that have none.

    None: an owner inside a namespace cannot own what is outside of all, so nobody can tell whether it exists.
    """
    if not owner_kind.namespaced:
        return ""
    return dependent.metadata.namespace or None


def plan_dependent(obj: Resource, fates: Sequence[Fate], dependents: Sequence[Resource] = ()) -> Decision:
    """Decide what becomes of ``obj``; ``fates`` go with its owner references, in order.

    dependents: the objects that ``obj`` itself owns.
    """
    meta = obj.metadata
    references = meta.owner_references
    assert len(fates) == len(references), (fates, references)
    if not references or meta.deletion_timestamp:
        return Keep()
    if Fate.SOLID in fates:
        remaining = tuple(each for each, fate in zip(references, fates, strict=True) if fate is Fate.SOLID)
        return Keep() if len(remaining) == len(references) else Disown(remaining)
    if Fate.WAITING in fates and dependents:
        circle = any(is_waiting(each) for each in dependents)
        return Collect("Foreground", unblocked_references(obj) if circle else ())
    if ORPHAN in meta.finalizers:
        return Collect("Orphan")
    return Collect("Foreground" if FOREGROUND in meta.finalizers else "Background")


def unblocked_references(obj: Resource) -> tuple[OwnerReference, ...]:
    """Return the owner references of ``obj``, none of which blocks its owner."""
    return tuple(msgspec.structs.replace(each, block_owner_deletion=False) for each in obj.metadata.owner_references)


def blocks(dependent: Resource, owner_uid: str) -> bool:
    """Return whether ``dependent`` must go before the owner may."""
    return any(each.uid == owner_uid and each.block_owner_deletion for each in dependent.metadata.owner_references)


def without_owner(obj: Resource, uid: str) -> tuple[OwnerReference, ...]:
    """Return the owner references of ``obj`` but for ``uid``."""
    return tuple(each for each in obj.metadata.owner_references if each.uid != uid)
