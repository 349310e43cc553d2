"""The garbage collector at work: one key for each object that owns or is owned.

An owner is believed to be gone only after the store itself said so: caches of different kinds are not equally far, and
an object is never deleted for an owner that a lagging cache has not shown yet. What is deleted is the very state that
was judged (its resourceVersion is the condition): an owner that came meanwhile saves it.
"""

import asyncio
import logging
from collections.abc import Sequence

from api.errors import NotFound
from api.meta import OwnerReference, Resource
from client.resources import Resources
from client.runner import Runner
from master.controllers import ownership
from master.controllers.context import Context
from master.controllers.garbage_graph import Graph
from master.controllers.garbage_plan import (
    FOREGROUND,
    ORPHAN,
    Collect,
    Disown,
    Fate,
    Keep,
    blocks,
    fate_of,
    home_of,
    is_waiting,
    plan_dependent,
    without_owner,
)

# The store has an owner that no cache shows: one look more, when its event must have come.
_LAG_S = 5.0

log = logging.getLogger(__name__)


class GarbageCollector:
    """Removes what nobody owns any more."""

    def __init__(self, context: Context) -> None:
        self._table = context.table
        self._graph = Graph(context.resources, context.clock, context.table)
        self._recorder = context.recorder("garbage-collector-controller")
        self.runner = Runner(
            "garbagecollector",
            self.reconcile,
            resources=context.resources,
            informers=self._graph.informers,
            workers=8,
            clock=context.clock,
        )
        self._graph.subscribe(self.runner.queue.add)

    async def run(self) -> None:
        """Work until cancelled."""
        stop = self._table.subscribe(self._graph.follow_table)
        self._graph.follow_table()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._graph.informers.run(), name="informers of the garbage collector")
                group.create_task(self.runner.run(), name="workers of the garbage collector")
        finally:
            stop()

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Decide on one object: as an owner if it is being deleted, else as a dependent."""
        obj = self._graph.get(key)
        if obj is None:
            return None
        if obj.metadata.deletion_timestamp:
            return await self._let_go(api, obj)
        if all(self._seems_solid(obj, each) for each in obj.metadata.owner_references):
            return None
        return await self._judge(api, obj)

    def _seems_solid(self, obj: Resource, reference: OwnerReference) -> bool:
        return fate_of(self._graph.owner(obj, reference), reference) is Fate.SOLID

    # As a dependent

    async def _judge(self, api: Resources, obj: Resource) -> float | None:
        """Find out from the store what became of the owners, and do what follows."""
        try:
            fresh = await api.get(type(obj), obj.metadata.name, namespace=obj.metadata.namespace)
        except NotFound:
            return None
        if fresh.metadata.uid != obj.metadata.uid:
            return None
        references = fresh.metadata.owner_references
        fates = [await self._fate(api, fresh, each) for each in references]
        match plan_dependent(fresh, fates, self._graph.dependents(fresh.metadata.uid)):
            case Keep():
                pass
            case Disown(remaining):
                await ownership.set_owners(api, fresh, remaining)
            case Collect() as decision:
                await self._collect(api, fresh, decision)
                return None
        solid = (each for each, fate in zip(references, fates, strict=True) if fate is Fate.SOLID)
        return _LAG_S if any(self._graph.should_show(fresh, each) for each in solid) else None

    async def _fate(self, api: Resources, obj: Resource, reference: OwnerReference) -> Fate:
        """Return what the store knows of an owner."""
        kind = self._table.kind(reference.api_version, reference.kind)
        if kind is None or "get" not in kind.verbs:
            return Fate.SOLID  # a kind that we do not serve: nobody can tell
        namespace = home_of(obj, kind)
        if namespace is None:
            self._recorder.event(
                obj,
                kind="Warning",
                reason="OwnerRefInvalidNamespace",
                message=f"{reference.kind} {reference.name} is in a namespace and cannot own what is in none",
            )
            return Fate.SOLID
        try:
            owner = await api.get(kind.model, reference.name, namespace=namespace)
        except NotFound:
            return Fate.ABSENT
        return fate_of(owner, reference)

    async def _collect(self, api: Resources, obj: Resource, decision: Collect) -> None:
        if decision.unblocked and decision.unblocked != obj.metadata.owner_references:
            obj = await ownership.set_owners(api, obj, decision.unblocked)
        meta = obj.metadata
        try:
            await api.delete(
                type(obj),
                meta.name,
                namespace=meta.namespace,
                uid=meta.uid,
                resource_version=meta.resource_version,
                propagation=decision.propagation,
            )
        except NotFound:
            return
        log.info("garbage collected object=%s propagation=%s", self._graph.key(obj), decision.propagation)

    # As an owner that is being deleted

    async def _let_go(self, api: Resources, owner: Resource) -> float | None:
        """Do what the deletion said shall become of the dependents; when that is done let the owner go."""
        uid = owner.metadata.uid
        if ORPHAN in owner.metadata.finalizers:
            for each in await self._stored_dependents(api, owner):
                await _orphan(api, each, uid)
            await self._drop_finalizer(api, owner, ORPHAN)
        elif is_waiting(owner):
            blocking = [each for each in self._graph.dependents(uid) if blocks(each, uid)]
            if not blocking:
                blocking = [each for each in await self._stored_dependents(api, owner) if blocks(each, uid)]
            for each in blocking:
                if not each.metadata.deletion_timestamp:
                    self.runner.queue.add(self._graph.key(each))
            if not blocking:
                await self._drop_finalizer(api, owner, FOREGROUND)
            elif not any(blocks(each, uid) for each in self._graph.dependents(uid)):
                return _LAG_S
        return None

    async def _stored_dependents(self, api: Resources, owner: Resource) -> Sequence[Resource]:
        """Return what ``owner`` owns by the store's word: a dependent that no cache shows yet counts as well."""
        uid, namespace = owner.metadata.uid, owner.metadata.namespace
        found: list[Resource] = []
        for kind in tuple(self._graph.kinds.values()):
            if kind.namespaced or not namespace:
                listing = await api.list(kind.model, namespace=namespace)
                found += (
                    obj for obj in listing.items if any(each.uid == uid for each in obj.metadata.owner_references)
                )
        return found

    async def _drop_finalizer(self, api: Resources, obj: Resource, finalizer: str) -> None:
        meta = obj.metadata
        left = [each for each in meta.finalizers if each != finalizer]
        patch = {"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": left or None}}
        try:
            await api.patch(type(obj), meta.name, patch, namespace=meta.namespace)
        except NotFound:
            return
        log.info("dependents are done with, owner let go object=%s finalizer=%s", self._graph.key(obj), finalizer)


async def _orphan(api: Resources, dependent: Resource, owner_uid: str) -> None:
    try:
        await ownership.set_owners(api, dependent, without_owner(dependent, owner_uid))
    except NotFound:
        return  # it left by itself
