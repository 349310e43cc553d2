"""Read-modify-write of one object in one store transaction.

A change is worked out upon the cached state first. If that turns out stale (the store refuses, or the change itself is
refused for reasons that a newer state might not give) it is worked out again upon the store's.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Protocol

import msgspec

from api.custom.definitions import PLACE as DEFINITIONS
from api.errors import MODIFIED, ApiError, Conflict, MethodNotAllowed, NotFound, RequestTooLarge, conflict, not_found
from api.kinds.table import Kind
from api.meta import Resource
from master.cache import WatchCache, place_prefix
from master.faces import as_kind
from master.lifecycle import Gone
from master.maintenance import Leases
from master.objects import StoredObject, read_stored, to_store, without_revision
from master.storage import Fence, Put, Refused, Remove, Storage, Unchanged, Value, Write
from master.strategy import strategy_of

ATTEMPTS = 8
MAX_OBJECT_BYTES = 1_500_000


class Claimant(Protocol):
    """Completes objects of a kind with what must be unique across the cluster, by keys in their own transaction."""

    def complete(self, old: Resource | None, new: Resource, avoid: Collection[str]) -> Resource:
        """Return ``new`` with all that it needs; ``avoid``: keys that were found to be taken. Raises Invalid."""

    def writes(self, old: Resource | None, new: Resource | None) -> list[Write]:
        """Return the writes that claim and give back."""

    def refusal(self, asked: Resource, refused: Refused) -> ApiError | None:
        """Return the refusal if what ``asked`` insists upon is taken; None to try with others."""


class Beside(Protocol):
    """A change of another object that goes into the same transaction: both happen, or neither."""

    async def writes(self) -> Sequence[Write]:
        """Return it; asked again, for what is there by then, when the store has refused. Raises ApiError."""


class Origin(msgspec.Struct, frozen=True):
    """The state that a change is worked out upon."""

    stored: StoredObject
    newest: bool  # read from the store just now; else the cache's, which may be behind


# What a change makes of an object: its new state, or nothing.
Outcome = Resource | Gone
Alter = Callable[[StoredObject], Awaitable[Outcome]]


class Modifier:
    """Changes objects of every kind.

    claimants: place -> what completes its objects.
    """

    def __init__(
        self,
        cache: WatchCache,
        storage: Storage,
        *,
        leases: Leases,
        claimants: Mapping[tuple[str, str], Claimant],
    ) -> None:
        self._cache = cache
        self._storage = storage
        self._leases = leases
        self._claimants = claimants

    def claimant(self, owner: Kind) -> Claimant | None:
        """Return what completes objects of ``owner``, if anything does."""
        return self._claimants.get(owner.place)

    def owner(self, kind: Kind) -> Kind:
        """Return the row in whose form objects of ``kind`` are changed.

        That is the row whose struct is stored in its place; custom kinds are changed in the version that the client
        uses, and stored in the one that their definition says.
        """
        return kind if kind.custom is not None else self._cache.place(kind).kind

    def key(self, owner: Kind, namespace: str, name: str) -> str:
        """Return the store's key of an object."""
        middle = f"{namespace}/" if owner.namespaced else ""
        return f"{self._storage.prefix}{place_prefix(owner.place)}{middle}{name}"

    async def exists(self, key: str) -> bool:
        """Return whether the store has something under ``key``."""
        return await self._storage.get(key) is not None

    async def add(self, owner: Kind, key: str, obj: Resource, fence: Fence | None) -> StoredObject:
        """Store a new object with its claims; raises Refused."""
        claimant = self.claimant(owner)
        lease = await self._leases.lease(strategy_of(owner).ttl_s)
        claims = [] if claimant is None else claimant.writes(None, obj)
        relied = self._relied_upon(owner)
        writes = [Put(key, self._stored_bytes(owner, obj), 0, lease), *claims, *relied]
        try:
            revision = await self._storage.commit(writes, fence=fence)
        except Refused:
            if relied:
                await self._cache.fresh()  # the definition has changed and we did not know
            raise
        return stored_as(owner, obj, revision)

    def _relied_upon(self, owner: Kind) -> list[Write]:
        """Return what must not change while a new object of ``owner`` is stored: a custom kind's definition.

        Otherwise an object could come in behind the back of who empties a kind that is being deleted, and appear
        again in the next kind of that name. Raises NotFound, MethodNotAllowed.
        """
        if owner.custom is None:
            return []
        name = owner.custom.definition
        definition = self._cache.find(DEFINITIONS, name)
        if definition is None:
            raise NotFound("the server could not find the requested resource", group=owner.group, kind=owner.plural)
        if definition.obj.metadata.deletion_timestamp:
            raise MethodNotAllowed("create not allowed while custom resource definition is terminating")
        return [Unchanged(f"{self._storage.prefix}{place_prefix(DEFINITIONS)}{name}", definition.revision)]

    async def newest(self, kind: Kind, namespace: str, name: str) -> StoredObject:
        """Return an object as the store has it now; raises NotFound."""
        owner = self.owner(kind)
        return (await self._load(owner, self.key(owner, namespace, name), namespace, name)).stored

    def replacing(self, old: StoredObject, new: Resource) -> Write:
        """Return the write that puts ``new`` in the place of ``old``, of a kind whose objects claim nothing."""
        key = self.key(old.kind, old.namespace, old.name)
        return Put(key, self._stored_bytes(old.kind, new), old.revision)

    async def modify(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        alter: Alter,
        *,
        dry_run: bool = False,
        fence: Fence | None = None,
        beside: Beside | None = None,
    ) -> StoredObject:
        """Replace an object by what ``alter`` makes of it, which may be asked again upon a newer state."""
        owner = self.owner(kind)
        key = self.key(owner, namespace, name)
        cached = self._cache.place(owner).get(namespace, name)
        if cached is None:
            origin = await self._load(owner, key, namespace, name)
        else:
            origin = Origin(as_kind(cached, owner), newest=False)
        clashed: set[str] = set()
        for _ in range(ATTEMPTS):
            try:
                outcome = await alter(origin.stored)
                done = dry_run or _is_same(origin.stored, outcome)
            except ApiError:
                if (newer := await self._newer(owner, key, origin)) is None:
                    raise
                origin = newer
                continue
            if done:
                if (newer := await self._newer(owner, key, origin)) is None:
                    return _result(owner, origin.stored, outcome, 0)
                origin = newer
                continue
            try:
                more = await beside.writes() if beside is not None else ()
                revision = await self._commit(owner, key, origin.stored, outcome, fence, more)
            except Refused as refused:
                present = refused.present[key]
                if present is None:
                    raise not_found(kind.plural, name, group=kind.group) from None
                self._check_clash(owner, outcome, refused, clashed)
                origin = Origin(_from_value(owner, present, namespace, name), newest=True)
            else:
                return _result(owner, origin.stored, outcome, revision)
        raise conflict(kind.plural, name, MODIFIED, group=kind.group)

    async def _newer(self, owner: Kind, key: str, origin: Origin) -> Origin | None:
        """Return the store's state if ``origin`` is an older one."""
        if origin.newest:
            return None
        stored = origin.stored
        newer = await self._load(owner, key, stored.namespace, stored.name)
        return newer if newer.stored.revision != stored.revision else None

    async def _load(self, owner: Kind, key: str, namespace: str, name: str) -> Origin:
        value = await self._storage.get(key)
        if value is None:
            raise not_found(owner.plural, name, group=owner.group)
        return Origin(_from_value(owner, value, namespace, name), newest=True)

    async def _commit(
        self,
        owner: Kind,
        key: str,
        old: StoredObject,
        outcome: Outcome,
        fence: Fence | None,
        beside: Sequence[Write] = (),
    ) -> int:
        claimant = self.claimant(owner)
        new = None if isinstance(outcome, Gone) else outcome
        if new is None:
            write: Write = Remove(key, old.revision)
        else:
            lease = await self._leases.lease(strategy_of(owner).ttl_s)
            write = Put(key, self._stored_bytes(owner, new), old.revision, lease)
        claims = [] if claimant is None else claimant.writes(old.obj, new)
        return await self._storage.commit([write, *claims, *beside], fence=fence)

    def _stored_bytes(self, owner: Kind, obj: Resource) -> bytes:
        """Return ``obj`` as its place stores it; raises RequestTooLarge."""
        data, place = to_store(obj), self._cache.place(owner).kind
        return _checked(data if place is owner or owner.custom is None else read_stored(place, data))

    def _check_clash(self, owner: Kind, outcome: Outcome, refused: Refused, clashed: set[str]) -> None:
        """Raise the refusal of a claim that clashes a second time: it was not picked, somebody insists upon it."""
        taken = {key for key, present in refused.present.items() if present is not None}
        claimant = self.claimant(owner)
        if claimant is not None and not isinstance(outcome, Gone) and taken & clashed:
            refusal = claimant.refusal(outcome, refused)
            if refusal is not None:
                raise refusal
        clashed |= taken


def _checked(data: bytes) -> bytes:
    if len(data) > MAX_OBJECT_BYTES:
        raise RequestTooLarge(f"the object has {len(data)} bytes; the store takes at most {MAX_OBJECT_BYTES}")
    return data


def stored_as(kind: Kind, obj: Resource, revision: int) -> StoredObject:
    """Return ``obj`` as the store has it at ``revision``; 0: it was not written."""
    meta = obj.metadata
    return StoredObject(
        kind,
        namespace=meta.namespace if kind.namespaced else "",
        name=meta.name,
        data=to_store(obj),
        revision=revision,
    )


def _from_value(kind: Kind, value: Value, namespace: str, name: str) -> StoredObject:
    try:
        data = read_stored(kind, value.data)
    except ValueError as error:
        raise Conflict(f"what the store holds under {value.key} cannot be read: {error}") from error
    return StoredObject(kind, namespace=namespace, name=name, data=data, revision=value.revision)


def _is_same(stored: StoredObject, outcome: Outcome) -> bool:
    return not isinstance(outcome, Gone) and to_store(outcome) == without_revision(stored.json)


def _result(kind: Kind, old: StoredObject, outcome: Outcome, revision: int) -> StoredObject:
    """Return the object after a change; revision 0: nothing was written."""
    if isinstance(outcome, Gone):
        last = stored_as(kind, outcome.last, old.revision) if outcome.last is not None else old
        return last.at(revision) if revision else last
    return stored_as(kind, outcome, revision or old.revision)
