"""Who controls what: owner references, and what a selector may adopt or must release.

Source: kubernetes.io, "Owners and Dependents"; the adoption rules of "ReplicaSet".
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from msgspec.structs import replace

from api.errors import NotFound
from api.kinds.table import TABLE
from api.meta import OwnerReference, Resource
from api.selectors import LabelQuery
from client.informer import Concerns, Informer
from client.resources import Resources

R = TypeVar("R", bound=Resource)
O = TypeVar("O", bound=Resource)  # noqa: E741 - the owner


class Claims(msgspec.Struct, Generic[R], frozen=True):
    """What a controller owns by now, what it should take and what it should let go."""

    owned: Sequence[R]
    adopt: Sequence[R]
    release: Sequence[R]


def reference_to_controller(owner: Resource) -> OwnerReference:
    """Return the reference that makes ``owner`` the controller of an object."""
    row = TABLE.of(type(owner))
    return OwnerReference(
        api_version=row.group_version,
        kind=row.kind,
        name=owner.metadata.name,
        uid=owner.metadata.uid,
        controller=True,
        block_owner_deletion=True,
    )


def controller_of(obj: Resource) -> OwnerReference | None:
    """Return the one reference that is marked as the controller."""
    return next((each for each in obj.metadata.owner_references if each.controller), None)


def plan_claims(owner: Resource, query: LabelQuery, candidates: Iterable[R]) -> Claims[R]:
    """Decide which ``candidates`` (objects of the owner's namespace) belong to ``owner``.

    An owner that is being deleted takes and releases nothing; an object that is being deleted is not adopted.
    """
    uid, leaving = owner.metadata.uid, bool(owner.metadata.deletion_timestamp)
    owned, adopt, release = [], [], []
    for each in candidates:
        controller = controller_of(each)
        matches = query.matches(each.metadata.labels)
        if controller is not None:
            if controller.uid != uid:
                continue
            if matches:
                owned.append(each)
            elif not leaving:
                release.append(each)
        elif matches and not leaving and not each.metadata.deletion_timestamp:
            adopt.append(each)
    return Claims(owned, adopt, release)


async def apply_claims(api: Resources, owner: O, claims: Claims[R]) -> Sequence[R]:
    """Adopt and release as planned; return what ``owner`` controls now.

    Adoption first reads the owner anew: a cache that lags must not hand objects to an owner that is gone.
    """
    owned = list(claims.owned)
    if claims.adopt and await is_still_there(api, owner):
        for each in claims.adopt:
            references = (*each.metadata.owner_references, reference_to_controller(owner))
            owned.append(await set_owners(api, each, references))
    for each in claims.release:
        references = tuple(ref for ref in each.metadata.owner_references if ref.uid != owner.metadata.uid)
        try:
            await set_owners(api, each, references)
        except NotFound:
            continue  # it left by itself
    return owned


async def claim(api: Resources, owner: O, query: LabelQuery, candidates: Iterable[R]) -> Sequence[R]:
    """Return what ``owner`` controls of ``candidates``, once it has adopted and released what it should."""
    return await apply_claims(api, owner, plan_claims(owner, query, candidates))


async def is_still_there(api: Resources, obj: Resource) -> bool:
    """Return whether the store has this very object, not being deleted."""
    try:
        fresh = await api.get(type(obj), obj.metadata.name, namespace=obj.metadata.namespace)
    except NotFound:
        return False
    return fresh.metadata.uid == obj.metadata.uid and not fresh.metadata.deletion_timestamp


async def set_owners(api: Resources, obj: R, references: tuple[OwnerReference, ...]) -> R:
    """Give ``obj``, if it is still as we know it (Conflict), these owners."""
    meta = obj.metadata
    patch = {
        "metadata": {
            "resourceVersion": meta.resource_version,
            "ownerReferences": [msgspec.to_builtins(each) for each in references] or None,
        }
    }
    return await api.patch(type(obj), meta.name, patch, namespace=meta.namespace)


def add_orphan_index(informer: Informer[R]) -> None:
    """Index by namespace the objects that no controller has."""

    def index(obj: R) -> Iterable[str]:
        return () if controller_of(obj) is not None else (obj.metadata.namespace,)

    informer.add_index("uncontrolled", index)


def candidates_of(informer: Informer[R], owner: Resource) -> list[R]:
    """Return what ``owner`` might own: what it owns now and what nobody controls in its namespace."""
    return informer.owned_by(owner.metadata.uid) + informer.indexed("uncontrolled", owner.metadata.namespace)


def concerns_controllers(owners: Informer[O], kind: str, query_of: Callable[[O], LabelQuery]) -> Concerns[R]:
    """Return which keys of ``kind`` a change of a dependent concerns: its controllers, or who may adopt it."""

    def keys(before: R | None, after: R | None) -> Iterable[str]:
        found: dict[str, None] = {}
        for state in (before, after):
            if state is None:
                continue
            controller = controller_of(state)
            if controller is not None:
                if controller.kind == kind:
                    found[f"{state.metadata.namespace}/{controller.name}"] = None
            elif _may_be_adopted_anew(before, after):
                for owner in owners.indexed("namespace", state.metadata.namespace):
                    if query_of(owner).matches(state.metadata.labels):
                        found[f"{state.metadata.namespace}/{owner.metadata.name}"] = None
        return found

    return keys


def _may_be_adopted_anew(before: Resource | None, after: Resource | None) -> bool:
    """Return whether labels or owners changed: an orphan's other changes concern nobody."""
    if after is None or before is None:
        return after is not None
    return (
        before.metadata.labels != after.metadata.labels
        or before.metadata.owner_references != after.metadata.owner_references
    )


def changed(obj: R, **fields: Any) -> R:
    """Return ``obj`` with some metadata fields replaced."""
    return replace(obj, metadata=replace(obj.metadata, **fields))
