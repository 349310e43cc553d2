"""The garbage collector at work: caches of every kind, one key for each object that owns or is owned.

An owner is believed to be gone only after the store itself said so: caches of different kinds are not equally far, and
an object is never deleted for an owner that a lagging cache has not shown yet.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from api.errors import Conflict, MethodNotAllowed, NotFound
from api.kinds.table import TABLE, Kind
from api.meta import OwnerReference, Resource
from client.informer import Concerns, Informer, split_key
from client.resources import Resources
from client.runner import Runner
from master.controllers.context import Context
from master.controllers.garbage_plan import (
    FOREGROUND,
    ORPHAN,
    Collect,
    Disown,
    Fate,
    Keep,
    blocks,
    fate_of,
    plan_dependent,
    without_owner,
)

# Events are many, own nothing and are owned by nobody.
_IGNORED = (("", "events"), ("events.k8s.io", "events"))
_REMEMBERED = 2000

log = logging.getLogger(__name__)


class GarbageCollector:
    """Removes what nobody owns any more."""

    def __init__(self, context: Context) -> None:
        self._kinds: Mapping[str, Kind] = {
            f"{kind.plural}.{kind.group}": kind
            for kind in TABLE
            if (kind.group, kind.plural) not in _IGNORED and kind.stored_as is None and "watch" in kind.verbs
        }
        self._caches: Mapping[str, Informer[Any]] = {
            name: context.informers.of(kind.model) for name, kind in self._kinds.items()
        }
        # Uids that the store said are gone: they never come back.
        self._absent: OrderedDict[str, None] = OrderedDict()
        self.runner = Runner(
            "garbagecollector",
            self.reconcile,
            resources=context.resources,
            informers=context.informers,
            workers=8,
            clock=context.clock,
        )
        for name, cache in self._caches.items():
            cache.subscribe(self.runner.queue.add, self._concerns(name))

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    def _concerns(self, kind: str) -> Concerns[Resource]:
        """Return the keys ``<resource>|<namespace/name>`` that a change of an object of ``kind`` concerns."""

        def keys(before: Resource | None, after: Resource | None) -> Iterable[str]:
            if before is not None and after is not None and _same_bonds(before, after):
                return
            obj = after or before
            assert obj is not None
            if after is not None and (after.metadata.owner_references or after.metadata.deletion_timestamp):
                yield _key(kind, after)
            if after is None or after.metadata.deletion_timestamp:
                for name, dependent in self._dependents(obj.metadata.uid):
                    yield _key(name, dependent)
            for reference in obj.metadata.owner_references if after is None else ():
                # An owner that waits for us may go on.
                if (owner := self._cached_owner(obj, reference)) is not None and owner[1].metadata.deletion_timestamp:
                    yield _key(*owner)

        return keys

    def _dependents(self, uid: str) -> list[tuple[str, Resource]]:
        return [(name, obj) for name, cache in self._caches.items() for obj in cache.owned_by(uid)]

    def _kind_of(self, reference: OwnerReference) -> str | None:
        kind = TABLE.kind(reference.api_version, reference.kind)
        name = f"{kind.plural}.{kind.group}" if kind is not None else ""
        return name if name in self._kinds else None

    def _place(self, obj: Resource, reference: OwnerReference) -> tuple[str, str] | None:
        """Return (kind, key) of where the owner is, if we know its kind: beside ``obj``, or in no namespace."""
        name = self._kind_of(reference)
        if name is None:
            return None
        namespace = obj.metadata.namespace if self._kinds[name].namespaced else ""
        return name, f"{namespace}/{reference.name}" if namespace else reference.name

    def _cached_owner(self, obj: Resource, reference: OwnerReference) -> tuple[str, Resource] | None:
        place = self._place(obj, reference)
        owner = self._caches[place[0]].get(place[1]) if place is not None else None
        return (
            (place[0], owner)
            if place is not None and owner is not None and owner.metadata.uid == reference.uid
            else None
        )

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Decide on one object, as a dependent and as an owner that is being deleted."""
        name, _, place = key.partition("|")
        obj = self._caches[name].get(place)
        if obj is None:
            return None
        if obj.metadata.deletion_timestamp and ORPHAN in obj.metadata.finalizers:
            await self._orphan(api, name, obj)
            return None
        if obj.metadata.deletion_timestamp and FOREGROUND in obj.metadata.finalizers:
            await self._delete_in_foreground(api, name, obj)
        fates = [await self._fate(api, obj, each) for each in obj.metadata.owner_references]
        blocking = any(blocks(each, obj.metadata.uid) for _, each in self._dependents(obj.metadata.uid))
        decision = plan_dependent(obj, fates, blocks_others=blocking)
        match decision:
            case Keep():
                pass
            case Disown(remaining):
                await self._set_owners(api, obj, remaining)
            case Collect(propagation):
                await self._collect(api, obj, propagation)
        return None

    async def _fate(self, api: Resources, obj: Resource, reference: OwnerReference) -> Fate:
        """Return what is known of an owner; absence is confirmed by the store."""
        if reference.uid in self._absent:
            return Fate.ABSENT
        place = self._place(obj, reference)
        if place is None:
            return Fate.SOLID  # a kind that we do not serve: nobody can tell
        owner = self._caches[place[0]].get(place[1])
        fate = fate_of(owner, reference)
        if fate is not Fate.ABSENT:
            return fate
        namespace, name = split_key(place[1])
        try:
            owner = await api.get(self._kinds[place[0]].model, name, namespace=namespace)
        except NotFound:
            owner = None
        fate = fate_of(owner, reference)
        if fate is Fate.ABSENT:
            self._absent[reference.uid] = None
            if len(self._absent) > _REMEMBERED:
                self._absent.popitem(last=False)
        return fate

    async def _collect(self, api: Resources, obj: Resource, propagation: str) -> None:
        meta = obj.metadata
        log.info("collected kind=%s name=%s/%s", obj.kind, meta.namespace, meta.name)
        try:
            await api.delete(type(obj), meta.name, namespace=meta.namespace, uid=meta.uid, propagation=propagation)
        except (NotFound, Conflict, MethodNotAllowed):
            return

    async def _orphan(self, api: Resources, name: str, obj: Resource) -> None:
        """Let the dependents of an owner that goes stay on their own."""
        uid = obj.metadata.uid
        for _, dependent in self._dependents(uid):
            await self._set_owners(api, dependent, without_owner(dependent, uid))
        # A dependent may have come that our cache has not shown; the store's list is the last word.
        if await self._has_dependents(api, obj):
            self.runner.queue.add_after(_key(name, obj), 0.2)
            return
        await self._drop_finalizer(api, obj, ORPHAN)

    async def _has_dependents(self, api: Resources, obj: Resource) -> bool:
        """Return whether the store has a dependent of a kind of which we saw any before."""
        uid, namespace = obj.metadata.uid, obj.metadata.namespace
        for name, kind in self._kinds.items():
            if len(self._caches[name]) == 0 or (namespace and not kind.namespaced):
                continue
            listing = await api.list(kind.model, namespace=namespace)
            if any(each.uid == uid for item in listing.items for each in item.metadata.owner_references):
                return True
        return False

    async def _delete_in_foreground(self, api: Resources, name: str, obj: Resource) -> None:
        """Let an owner go once no dependent that blocks it is left."""
        blocking = [(kind, each) for kind, each in self._dependents(obj.metadata.uid) if blocks(each, obj.metadata.uid)]
        for kind, each in blocking:
            if not each.metadata.deletion_timestamp:
                self.runner.queue.add(_key(kind, each))
        if not blocking:
            log.debug("no dependent blocks any more kind=%s name=%s", name, obj.metadata.name)
            await self._drop_finalizer(api, obj, FOREGROUND)

    @staticmethod
    async def _set_owners(api: Resources, obj: Resource, references: tuple[OwnerReference, ...]) -> None:
        meta = obj.metadata
        patch = {
            "metadata": {
                "resourceVersion": meta.resource_version,
                "ownerReferences": [msgspec.to_builtins(each) for each in references] or None,
            }
        }
        try:
            await api.patch(type(obj), meta.name, patch, namespace=meta.namespace)
        except NotFound:
            return

    @staticmethod
    async def _drop_finalizer(api: Resources, obj: Resource, finalizer: str) -> None:
        meta = obj.metadata
        left = [each for each in meta.finalizers if each != finalizer]
        patch = {"metadata": {"resourceVersion": meta.resource_version, "finalizers": left or None}}
        try:
            await api.patch(type(obj), meta.name, patch, namespace=meta.namespace)
        except NotFound:
            return


def _key(kind: str, obj: Resource) -> str:
    meta = obj.metadata
    return f"{kind}|{meta.namespace}/{meta.name}" if meta.namespace else f"{kind}|{meta.name}"


def _same_bonds(before: Resource, after: Resource) -> bool:
    """Return whether nothing changed that this controller looks at: heartbeats and statuses pass by."""
    one, other = before.metadata, after.metadata
    return (one.uid, one.owner_references, one.finalizers, one.deletion_timestamp) == (
        other.uid,
        other.owner_references,
        other.finalizers,
        other.deletion_timestamp,
    )
