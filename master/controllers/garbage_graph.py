"""Who owns whom, over every kind that is stored: what the garbage collector knows.

Caches of its own, which keep of each object only what the graph is made of: a cluster's secrets and templates are not
held a second time for the sake of a few uids.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

from msgspec.structs import replace

from api.kinds.table import Kind, Table
from api.meta import ObjectMeta, OwnerReference, Resource
from client.clock import Clock
from client.informer import Informer, SharedInformers, key_of
from client.resources import Resources
from master.controllers.garbage_plan import home_of, is_waiting

# Events are many, own nothing and are owned by nobody.
_IGNORED = (("", "events"),)


@lru_cache(maxsize=512)
def _blank(model: type[Resource]) -> Resource:
    return model()


def essentials(obj: Resource) -> Resource:
    """Return ``obj`` without all that says nothing about owners; whatever is left out is shared."""
    meta = obj.metadata
    return replace(
        _blank(type(obj)),
        metadata=ObjectMeta(
            name=meta.name,
            namespace=meta.namespace,
            uid=meta.uid,
            resource_version=meta.resource_version,
            owner_references=meta.owner_references,
            finalizers=meta.finalizers,
            deletion_timestamp=meta.deletion_timestamp,
        ),
    )


def _resource(kind: Kind) -> str:
    return f"{kind.plural}.{kind.group}"


def _is_collected(kind: Kind) -> bool:
    return kind.stored_as is None and "watch" in kind.verbs and kind.place not in _IGNORED


class Graph:
    """Owners and dependents, as the caches have them."""

    def __init__(self, resources: Resources, clock: Clock, table: Table) -> None:
        self.informers = SharedInformers(resources, clock=clock, transform=essentials)
        self.kinds: dict[str, Kind] = {}
        self._table = table
        self._caches: dict[str, Informer[Any]] = {}
        self._receivers: list[Callable[[str], None]] = []
        self.follow_table()

    def follow_table(self) -> None:
        """Keep a cache of every kind that is served now, and of no other: custom kinds come and go."""
        served = {_resource(kind): kind for kind in self._table.places() if _is_collected(kind)}
        for name in [
            name for name, kind in self.kinds.items() if name not in served or served[name].model != kind.model
        ]:
            self.informers.forget(self.kinds.pop(name).model)
            del self._caches[name]
        for name, kind in served.items():
            self.kinds[name] = kind
            if name not in self._caches:
                self._caches[name] = self.informers.of(kind.model)
                for receive in self._receivers:
                    self._caches[name].subscribe(receive, self._concerned)

    def subscribe(self, receive: Callable[[str], None]) -> None:
        """Hand ``receive`` the keys of the objects that each change concerns."""
        self._receivers.append(receive)
        for each in self._caches.values():
            each.subscribe(receive, self._concerned)

    def key(self, obj: Resource) -> str:
        """Return ``<plural>.<group>|<namespace/name>``: the key of ``obj`` among objects of all kinds."""
        return f"{_resource(self._table.of(type(obj)))}|{key_of(obj)}"

    def get(self, key: str) -> Resource | None:
        """Return the object of a ``node_key``."""
        resource, _, place = key.partition("|")
        cache = self._caches.get(resource)
        return cache.get(place) if cache is not None else None

    def dependents(self, uid: str) -> list[Resource]:
        """Return what names ``uid`` as an owner."""
        return [obj for each in self._caches.values() for obj in each.owned_by(uid)]

    def owner(self, dependent: Resource, reference: OwnerReference) -> Resource | None:
        """Return the object that ``reference`` means, if the caches have it."""
        if (place := self._place(dependent, reference)) is None:
            return None
        owner = self._caches[place[0]].get(place[1])
        return owner if owner is not None and owner.metadata.uid == reference.uid else None

    def should_show(self, dependent: Resource, reference: OwnerReference) -> bool:
        """Return whether an owner, being of a kind that is cached, is not in its cache: nobody will tell of its end."""
        return self._place(dependent, reference) is not None and self.owner(dependent, reference) is None

    def _place(self, dependent: Resource, reference: OwnerReference) -> tuple[str, str] | None:
        """Return the cache and the key in it of an owner."""
        kind = self._table.kind(reference.api_version, reference.kind)
        if kind is None or not _is_collected(kind) or (namespace := home_of(dependent, kind)) is None:
            return None
        return _resource(kind), f"{namespace}/{reference.name}" if namespace else reference.name

    def _concerned(self, before: Resource | None, after: Resource | None) -> Iterator[str]:
        """Yield the object itself, the owners that wait for it, the dependents of one that leaves."""
        if before is not None and after is not None and _bonds(before) == _bonds(after):
            return
        if after is not None and (after.metadata.owner_references or after.metadata.deletion_timestamp):
            yield self.key(after)
        if before is not None:
            yield from self._waiting_owners(before)
        leaving = after or before
        assert leaving is not None
        if after is None or after.metadata.deletion_timestamp:
            for dependent in self.dependents(leaving.metadata.uid):
                yield self.key(dependent)

    def _waiting_owners(self, dependent: Resource) -> Iterable[str]:
        for reference in dependent.metadata.owner_references:
            if (owner := self.owner(dependent, reference)) is not None and is_waiting(owner):
                yield self.key(owner)


def _bonds(obj: Resource) -> tuple[object, ...]:
    """Return what a decision depends on: heartbeats and statuses pass by."""
    meta = obj.metadata
    return meta.uid, meta.owner_references, meta.finalizers, meta.deletion_timestamp
