"""Create, update, patch and delete: every write as a read-modify-write of one object, in one store transaction.

A change is worked out upon the cached state first. If that turns out stale (the store refuses, or the change itself is
refused for reasons that a newer state might not give) it is worked out again upon the store's.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Protocol

import msgspec

from api import codec
from api import patch as patches
from api.defaults import apply_defaults
from api.errors import (
    MODIFIED,
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    Fault,
    RequestTooLarge,
    already_exists,
    conflict,
    invalid,
    not_found,
)
from api.kinds.table import Kind, Table
from api.meta import DeleteOptions, Resource
from api.validation import faults_on_create, faults_on_update
from master.access.user import User
from master.admission.chain import Attributes, Chain
from master.cache import WatchCache, place_prefix
from master.faces import as_kind, to_owner
from master.lifecycle import (
    Gone,
    Surroundings,
    check_preconditions,
    is_released,
    plan_delete,
    prepare_new,
    timestamp,
)
from master.maintenance import Leases
from master.objects import StoredObject, read_stored, to_store, without_revision
from master.rest.seam import Deleted, WriteOptions, Written
from master.scale import SCALE, scale_of, with_scale
from master.storage import Fence, Put, Refused, Remove, Storage, Value, Write
from master.strategy import strategy_of
from master.subresources import PREPARE

log = logging.getLogger(__name__)

ATTEMPTS = 8
MAX_OBJECT_BYTES = 1_500_000

Document = Mapping[str, Any]


class Claimant(Protocol):
    """Completes objects of a kind with what must be unique across the cluster, by keys in their own transaction."""

    def complete(self, old: Resource | None, new: Resource, avoid: Collection[str]) -> Resource:
        """Return ``new`` with all that it needs; ``avoid``: keys that were found to be taken. Raises Invalid."""

    def writes(self, old: Resource | None, new: Resource | None) -> list[Write]:
        """Return the writes that claim and give back."""

    def refusal(self, asked: Resource, refused: Refused) -> ApiError | None:
        """Return the refusal if what ``asked`` insists upon is taken; None to try with others."""


class Origin(msgspec.Struct, frozen=True):
    """The state that a change is worked out upon."""

    stored: StoredObject
    newest: bool  # read from the store just now; else the cache's, which may be behind


# What a change makes of an object: its new state, or nothing.
Outcome = Resource | Gone
Alter = Callable[[StoredObject], Awaitable[Outcome]]


class Writer:
    """Does the writes of every kind.

    claimants: place -> what completes its objects.
    """

    def __init__(
        self,
        table: Table,
        cache: WatchCache,
        storage: Storage,
        chain: Chain,
        *,
        leases: Leases,
        claimants: Mapping[tuple[str, str], Claimant] | None = None,
        world: Surroundings | None = None,
    ) -> None:
        self._table = table
        self._cache = cache
        self._storage = storage
        self._chain = chain
        self._leases = leases
        self._claimants = claimants or {}
        self._world = world or Surroundings()

    def timestamp(self) -> str:
        """Return the present time as objects carry it."""
        return timestamp(self._world.now())

    # Create

    async def create(
        self, kind: Kind, document: Document, *, namespace: str, options: WriteOptions, fence: Fence | None = None
    ) -> Written:
        """Store a new object; a generated name that is taken is generated again."""
        owner = self._owner(kind)
        obj, warnings = self._decode(kind, document, options)
        generated = not obj.metadata.name and bool(obj.metadata.generate_name)
        for attempt in range(ATTEMPTS):
            try:
                stored = await self._create(owner, obj, namespace, options, fence)
            except AlreadyExists:
                if not generated or attempt == ATTEMPTS - 1:
                    raise
            else:
                return Written(as_kind(stored, kind), created=True, warnings=warnings)
        raise AssertionError("the last attempt returns or raises")

    async def _create(
        self, owner: Kind, obj: Resource, namespace: str, options: WriteOptions, fence: Fence | None
    ) -> StoredObject:
        if owner.namespaced and obj.metadata.namespace not in ("", namespace):
            raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
        obj = prepare_new(owner, obj, namespace, self._world)
        attributes = Attributes(
            kind=owner,
            operation="CREATE",
            namespace=namespace,
            name=obj.metadata.name,
            user=options.user,
            dry_run=options.dry_run,
            obj=obj,
        )
        obj = await self._chain.mutate(attributes, obj)
        if faults := faults_on_create(owner, obj):
            raise invalid(owner.kind, obj.metadata.name, faults, group=owner.group)
        await self._chain.judge(msgspec.structs.replace(attributes, obj=obj))
        key, name = self._key(owner, namespace, obj.metadata.name), obj.metadata.name
        avoid: set[str] = set()
        claimant = self._claimants.get(owner.place)
        for _ in range(ATTEMPTS):
            full = obj if claimant is None else claimant.complete(None, obj, avoid)
            if options.dry_run:
                if await self._storage.get(key) is not None:
                    raise already_exists(owner.plural, name, group=owner.group)
                return _stored(owner, full, 0)
            data = _checked(to_store(full))
            lease = await self._leases.lease(strategy_of(owner).ttl_s)
            claims = [] if claimant is None else claimant.writes(None, full)
            try:
                revision = await self._storage.commit([Put(key, data, 0, lease), *claims], fence=fence)
            except Refused as refused:
                if refused.present[key] is not None:
                    raise already_exists(owner.plural, name, group=owner.group) from None
                if claimant is not None and (refusal := claimant.refusal(obj, refused)) is not None:
                    raise refusal from None
                avoid |= {each for each, present in refused.present.items() if present is not None}
            else:
                return _stored(owner, full, revision)
        raise conflict(owner.plural, name, "no free address or port was found", group=owner.group)

    # Update and patch

    async def update(
        self,
        kind: Kind,
        document: Document,
        *,
        namespace: str,
        name: str,
        subresource: str = "",
        options: WriteOptions,
        fence: Fence | None = None,
    ) -> Written:
        """Replace an object, or the part of it that ``subresource`` shows."""
        new, warnings = self._decode(SCALE if subresource == "scale" else kind, document, options)

        async def alter(old: StoredObject) -> Outcome:
            return await self._altered(kind, old, new, subresource, options)

        stored = await self.modify(kind, namespace, name, alter, dry_run=options.dry_run, fence=fence)
        return Written(_shown(stored, kind, subresource), warnings=warnings)

    async def patch(
        self,
        kind: Kind,
        patch: Any,
        patch_type: str,
        *,
        namespace: str,
        name: str,
        subresource: str = "",
        options: WriteOptions,
        fence: Fence | None = None,
    ) -> Written:
        """Change an object; ``patch_type``: "json", "merge" or "strategic"."""
        shown_kind = SCALE if subresource == "scale" else kind
        warnings: tuple[str, ...] = ()

        async def alter(old: StoredObject) -> Outcome:
            nonlocal warnings
            document = codec.to_document(_shown(old, kind, subresource).obj)
            patched = _patched(document, patch, patch_type, shown_kind)
            new, warnings = self._decode(shown_kind, patched, options)
            if new.metadata.name != old.name:
                fault = Fault("metadata.name", f'Invalid value: "{new.metadata.name}": field is immutable')
                raise invalid(kind.kind, old.name, [fault], group=kind.group)
            return await self._altered(kind, old, new, subresource, options)

        stored = await self.modify(kind, namespace, name, alter, dry_run=options.dry_run, fence=fence)
        return Written(_shown(stored, kind, subresource), warnings=warnings)

    async def _altered(
        self, kind: Kind, stored: StoredObject, new: Resource, subresource: str, options: WriteOptions
    ) -> Outcome:
        """Return what writing ``new`` to ``subresource`` makes of ``stored``."""
        owner, old = self._owner(kind), stored.obj
        _check_identity(owner, stored, new)
        if subresource == "scale":
            new, subresource = with_scale(old, new), ""
        new = PREPARE[subresource](owner, old, new)
        attributes = Attributes(
            kind=owner,
            operation="UPDATE",
            namespace=stored.namespace,
            name=stored.name,
            subresource=subresource,
            user=options.user,
            dry_run=options.dry_run,
            obj=new,
            old=old,
        )
        new = await self._chain.mutate(attributes, new)
        if (claimant := self._claimants.get(owner.place)) is not None and not subresource:
            new = claimant.complete(old, new, ())
        if subresource != "status" and (faults := faults_on_update(owner, _bare(old), new)):
            raise invalid(owner.kind, stored.name, faults, group=owner.group)
        await self._chain.judge(msgspec.structs.replace(attributes, obj=new))
        return Gone(new) if is_released(owner, new) else new

    # Delete

    async def delete(
        self,
        kind: Kind,
        *,
        namespace: str,
        name: str,
        options: DeleteOptions,
        user: User,
        fence: Fence | None = None,
    ) -> Deleted:
        """Delete an object, or begin to."""
        owner, dry_run = self._owner(kind), bool(options.dry_run)
        gone = False

        async def alter(stored: StoredObject) -> Outcome:
            nonlocal gone
            old = stored.obj
            check_preconditions(old, options, stored.revision)
            attributes = Attributes(
                kind=owner,
                operation="DELETE",
                namespace=namespace,
                name=name,
                user=user,
                dry_run=dry_run,
                old=old,
            )
            await self._chain.judge(attributes)
            outcome = plan_delete(owner, old, options, self._world.now())
            gone = isinstance(outcome, Gone)
            return outcome

        stored = await self.modify(kind, namespace, name, alter, dry_run=dry_run, fence=fence)
        return Deleted(as_kind(stored, kind), gone)

    # The common path

    async def modify(
        self, kind: Kind, namespace: str, name: str, alter: Alter, *, dry_run: bool = False, fence: Fence | None = None
    ) -> StoredObject:
        """Replace an object by what ``alter`` makes of it, which may be asked again upon a newer state."""
        owner = self._owner(kind)
        key = self._key(owner, namespace, name)
        cached = self._cache.place(owner).get(namespace, name)
        origin = Origin(cached, newest=False) if cached is not None else await self._load(owner, key, namespace, name)
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
                revision = await self._commit(owner, key, origin.stored, outcome, fence)
            except Refused as refused:
                present = refused.present[key]
                if present is None:
                    raise not_found(kind.plural, name, group=kind.group) from None
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

    async def _commit(self, owner: Kind, key: str, old: StoredObject, outcome: Outcome, fence: Fence | None) -> int:
        claimant = self._claimants.get(owner.place)
        new = None if isinstance(outcome, Gone) else outcome
        if new is None:
            write: Write = Remove(key, old.revision)
        else:
            lease = await self._leases.lease(strategy_of(owner).ttl_s)
            write = Put(key, _checked(to_store(new)), old.revision, lease)
        claims = [] if claimant is None else claimant.writes(old.obj, new)
        try:
            return await self._storage.commit([write, *claims], fence=fence)
        except Refused as refused:
            present = refused.present[key]
            only_claims = present is not None and present.revision == old.revision
            if (
                only_claims
                and claimant is not None
                and new is not None
                and (refusal := claimant.refusal(new, refused)) is not None
            ):
                raise refusal from None
            raise

    def _owner(self, kind: Kind) -> Kind:
        """Return the row whose struct is stored in the place of ``kind``."""
        return self._cache.place(kind).kind

    def _key(self, owner: Kind, namespace: str, name: str) -> str:
        middle = f"{namespace}/" if owner.namespaced else ""
        return f"{self._storage.prefix}{place_prefix(owner.place)}{middle}{name}"

    def _decode(self, kind: Kind, document: Document, options: WriteOptions) -> tuple[Resource, tuple[str, ...]]:
        """Return the object that ``document`` stands for, as its place stores it, and warnings."""
        unknown: list[str] | None = None if options.field_validation == "Ignore" else []
        if kind.stored_as is not None:
            # Faults are told in the words of the face that the client used.
            codec.decode(kind, document, unknown=unknown)
            kind, document = self._owner(kind), to_owner(kind, document)
            complete = dict(document)
            apply_defaults(kind, complete)
            return codec.decode(kind, complete), _warnings(unknown, options)
        complete = msgspec.json.decode(msgspec.json.encode(document))
        apply_defaults(kind, complete)
        obj = codec.decode(kind, complete, unknown=unknown)
        return obj, _warnings(unknown, options)


def _warnings(unknown: list[str] | None, options: WriteOptions) -> tuple[str, ...]:
    if unknown and options.field_validation == "Strict":
        raise BadRequest(f"strict decoding error: {', '.join(unknown)}")
    return tuple(unknown or ())


def _patched(document: dict[str, Any], patch: Any, patch_type: str, kind: Kind) -> dict[str, Any]:
    match patch_type:
        case "json":
            return patches.apply_json_patch(document, patch)
        case "merge":
            return patches.apply_merge_patch(document, patch)
        case "strategic":
            return patches.apply_strategic_merge(document, patch, kind.model)
        case "apply":
            raise BadRequest("server-side apply is not supported by this server yet: use kubectl apply without it")
    raise BadRequest(f"unknown patch type {patch_type!r}")


def _check_identity(owner: Kind, stored: StoredObject, new: Resource) -> None:
    """Raise if ``new`` was not made from this state of this object."""
    meta = new.metadata
    uid = stored.obj.metadata.uid
    if meta.uid and meta.uid != uid:
        why = f"Precondition failed: UID in precondition: {meta.uid}, UID in object meta: {uid}"
        raise conflict(owner.plural, stored.name, why, group=owner.group)
    if meta.resource_version and meta.resource_version != "0":
        if meta.resource_version != str(stored.revision):
            raise conflict(owner.plural, stored.name, MODIFIED, group=owner.group)
    elif not strategy_of(owner).unconditional_update:
        fault = Fault("metadata.resourceVersion", "Invalid value: 0x0: must be specified for an update")
        raise invalid(owner.kind, stored.name, [fault], group=owner.group)


def _checked(data: bytes) -> bytes:
    if len(data) > MAX_OBJECT_BYTES:
        raise RequestTooLarge(f"the object has {len(data)} bytes; the store takes at most {MAX_OBJECT_BYTES}")
    return data


def _bare(obj: Resource) -> Resource:
    meta = msgspec.structs.replace(obj.metadata, resource_version="")
    return msgspec.structs.replace(obj, metadata=meta)


def _shown(stored: StoredObject, kind: Kind, subresource: str) -> StoredObject:
    return scale_of(stored) if subresource == "scale" else as_kind(stored, kind)


def _stored(kind: Kind, obj: Resource, revision: int) -> StoredObject:
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
        last = _stored(kind, outcome.last, old.revision) if outcome.last is not None else old
        return last.at(revision) if revision else last
    return _stored(kind, outcome, revision or old.revision)
