"""Create, update, patch, apply and delete: what a client asks, as changes of one object each."""

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec

from api import apply as managed_fields
from api import codec
from api import patch as patches
from api.cautions import cautions
from api.defaults import completed
from api.errors import (
    MODIFIED,
    AlreadyExists,
    ApiError,
    BadRequest,
    Fault,
    MethodNotAllowed,
    NotFound,
    Timeout,
    UnsupportedMediaType,
    already_exists,
    conflict,
    invalid,
    no_unique_name,
)
from api.kinds.table import Kind
from api.meta import DeleteOptions, Resource
from api.validation.objects import (
    faults_of_face,
    faults_on_create,
    faults_on_resize,
    faults_on_status,
    faults_on_update,
)
from master import strictness
from master.access.authorization import Authorizer
from master.access.user import User
from master.admission.chain import Attributes, Chain, Ledger
from master.faces import as_kind, to_owner
from master.intents import check_same_life, life_of, part_for
from master.lifecycle import (
    Gone,
    Surroundings,
    check_preconditions,
    is_released,
    plan_delete,
    prepare_new,
    timestamp,
)
from master.managers import Managed, bare, document_to_apply_to, track_change, track_new, with_managed
from master.modify import ATTEMPTS, Beside, Modifier, Outcome, stored_as
from master.objects import StoredObject
from master.rest.seam import Deleted, WriteOptions, Written
from master.scale import SCALE, scale_of, with_scale
from master.storage import Fence, Refused
from master.strategy import strategy_of
from master.subresources import PREPARE

log = logging.getLogger(__name__)

Document = Mapping[str, Any]


class Writer:
    """Does the writes of every kind.

    authorizer: asked when an update or an apply turns out to create its object; None: whoever may do those may create.
    """

    def __init__(
        self,
        modifier: Modifier,
        chain: Chain,
        *,
        world: Surroundings | None = None,
        authorizer: Authorizer | None = None,
    ) -> None:
        self._modifier = modifier
        self._chain = chain
        self._authorizer = authorizer
        self._world = world or Surroundings()

    def timestamp(self) -> str:
        """Return the present time as objects carry it."""
        return timestamp(self._world.now())

    @contextlib.asynccontextmanager
    async def _on_account(self, namespace: str) -> AsyncIterator[Ledger]:
        """Give a ledger to a write; what it was charged is given back if nothing comes of it."""
        ledger = Ledger()
        try:
            yield ledger
        except Timeout:
            raise  # it may have happened: who counts what is there finds out
        except ApiError:
            await self._chain.give_back(namespace, ledger)
            raise

    # Create

    async def create(
        self, kind: Kind, document: Document, *, namespace: str, options: WriteOptions, fence: Fence | None = None
    ) -> Written:
        """Store a new object; a generated name that is taken is generated again."""
        owner = self._modifier.owner(kind)
        if owner.custom is not None and owner.custom.terminating:
            raise MethodNotAllowed("create not allowed while custom resource definition is terminating")
        obj, unknown = self._decode(kind, document)
        warnings = strictness.tell(kind, document, options, unknown=unknown)
        managed = track_new(owner, obj, manager=options.field_manager, now=self.timestamp())
        generated = not obj.metadata.name and bool(obj.metadata.generate_name)
        async with self._on_account(namespace) as ledger:
            for attempt in range(ATTEMPTS):
                try:
                    stored = await self._create(kind, obj, namespace, options, fence, managed=managed, ledger=ledger)
                except AlreadyExists as taken:
                    if not generated:
                        raise
                    if attempt == ATTEMPTS - 1:
                        raise no_unique_name(owner.plural, taken.name, group=owner.group) from None
                else:
                    warnings = (*warnings, *cautions(owner, stored.obj))
                    return Written(as_kind(stored, kind), created=True, warnings=warnings)
        raise AssertionError("the last attempt returns or raises")

    async def _create(
        self,
        kind: Kind,
        obj: Resource,
        namespace: str,
        options: WriteOptions,
        fence: Fence | None,
        *,
        managed: Managed,
        ledger: Ledger,
    ) -> StoredObject:
        owner = self._modifier.owner(kind)
        if owner.namespaced and obj.metadata.namespace not in ("", namespace):
            raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
        obj = with_managed(prepare_new(owner, obj, namespace, self._world), managed)
        attributes = Attributes(
            kind=owner,
            operation="CREATE",
            namespace=namespace,
            name=obj.metadata.name,
            user=options.user,
            dry_run=options.dry_run,
            obj=obj,
            ledger=ledger,
        )
        obj = await self._chain.mutate(attributes, obj)
        if faults := faults_on_create(owner, obj) + faults_of_face(kind, None, obj):
            raise invalid(owner.kind, obj.metadata.name, faults, group=owner.group)
        await self._chain.judge(msgspec.structs.replace(attributes, obj=obj))
        return await self._claimed(owner, obj, options, fence)

    async def _claimed(self, owner: Kind, obj: Resource, options: WriteOptions, fence: Fence | None) -> StoredObject:
        """Store a new object with all that it needs; what it left open is picked again while others are faster."""
        name = obj.metadata.name
        key = self._modifier.key(owner, obj.metadata.namespace, name)
        claimant = self._modifier.claimant(owner)
        avoid: set[str] = set()
        for _ in range(ATTEMPTS):
            full = obj if claimant is None else claimant.complete(None, obj, avoid)
            if options.dry_run:
                if await self._modifier.exists(key):
                    raise already_exists(owner.plural, name, group=owner.group)
                return stored_as(owner, full, 0)
            try:
                return await self._modifier.add(owner, key, full, fence)
            except Refused as refused:
                if refused.present[key] is not None:
                    raise already_exists(owner.plural, name, group=owner.group) from None
                if claimant is not None and (refusal := claimant.refusal(obj, refused)) is not None:
                    raise refusal from None
                avoid |= {each for each, present in refused.present.items() if present is not None}
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
        shown_kind = SCALE if subresource == "scale" else kind
        new, unknown = self._decode(shown_kind, document)
        warnings = strictness.tell(shown_kind, document, options, unknown=unknown)
        told: list[str] = []

        async def alter(old: StoredObject) -> Outcome:
            return await self._altered(kind, old, new, subresource, options, ledger=ledger, told=told)

        try:
            async with self._on_account(namespace) as ledger:
                stored = await self._modifier.modify(kind, namespace, name, alter, dry_run=options.dry_run, fence=fence)
        except NotFound:
            made_by_update = not subresource and strategy_of(self._modifier.owner(kind)).create_on_update
            if not made_by_update or new.metadata.uid or new.metadata.resource_version:
                raise
            await self._check_may_create(kind, namespace, name, options.user)
            return await self.create(kind, document, namespace=namespace, options=options, fence=fence)
        return Written(_shown(stored, kind, subresource), warnings=(*warnings, *told))

    async def apply(
        self,
        kind: Kind,
        intent: Document,
        *,
        namespace: str,
        name: str,
        subresource: str = "",
        options: WriteOptions,
        fence: Fence | None = None,
    ) -> Written:
        """Bring a manager's intent into an object, which is created if there is none."""
        managed_fields.check_manager(options.field_manager)
        owner = self._modifier.owner(kind)
        intent = part_for(owner, to_owner(kind, owner, intent), subresource)
        told: list[str] = []

        async def alter(old: StoredObject) -> Outcome:
            check_same_life(kind, old, intent)
            live = document_to_apply_to(owner, old.obj, self.timestamp())
            document = self._applied(owner, live, intent, subresource, options)
            new = self._decode_applied(owner, document)
            strictness.tell_of_apply(options)
            managed = new.metadata.managed_fields
            return await self._altered(kind, old, new, subresource, options, ledger=ledger, told=told, managed=managed)

        async with self._on_account(namespace) as ledger:
            for _ in range(ATTEMPTS):
                try:
                    stored = await self._modifier.modify(
                        kind, namespace, name, alter, dry_run=options.dry_run, fence=fence
                    )
                except NotFound:
                    if subresource or life_of(intent) != ("", ""):
                        raise
                else:
                    warnings = (*strictness.tell_of_apply(options), *told)
                    return Written(_shown(stored, kind, subresource), warnings=warnings)
                await self._check_may_create(kind, namespace, name, options.user)
                new = self._decode_applied(owner, self._applied(owner, None, intent, "", options))
                new = msgspec.structs.replace(new, metadata=msgspec.structs.replace(new.metadata, name=name))
                warnings = strictness.tell_of_apply(options)
                try:
                    managed = new.metadata.managed_fields
                    made = await self._create(kind, new, namespace, options, fence, managed=managed, ledger=ledger)
                except AlreadyExists:
                    continue
                return Written(as_kind(made, kind), created=True, warnings=(*warnings, *cautions(owner, made.obj)))
            raise conflict(kind.plural, name, MODIFIED, group=kind.group)

    async def _check_may_create(self, kind: Kind, namespace: str, name: str, user: User) -> None:
        """Raise Forbidden: the server has asked only whether ``user`` may update or patch."""
        if self._authorizer is not None:
            await self._authorizer.authorize(user, "create", kind.group, kind.plural, "", namespace, name)

    def _applied(
        self, kind: Kind, live: Document | None, intent: Document, subresource: str, options: WriteOptions
    ) -> Document:
        return managed_fields.apply(
            kind,
            live,
            intent,
            manager=options.field_manager,
            now=self.timestamp(),
            force=options.force,
            subresource=subresource,
        )

    def _decode_applied(self, owner: Kind, document: Document) -> Resource:
        """Return the object that an apply came to; raises BadRequest for a field that the kind has not."""
        unknown: list[str] = []
        obj = codec.decode(owner, completed(owner, document), unknown=unknown)
        if unknown:
            meta = obj.metadata
            what = f"{meta.namespace}/{meta.name}; {owner.group_version}, Kind={owner.kind}"
            path = unknown[0].partition('"')[2].rstrip('"')
            raise BadRequest(f"failed to create typed patch object ({what}): .{path}: field not declared in schema")
        return obj

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
        told: list[str] = []

        async def alter(old: StoredObject) -> Outcome:
            nonlocal warnings
            document = codec.to_document(_shown(old, kind, subresource).obj)
            patched = _patched(document, patch, patch_type, shown_kind)
            new, unknown = self._decode(shown_kind, patched)
            warnings = strictness.tell_of_patch(patch, patch_type, options, patched=patched, unknown=unknown)
            if new.metadata.name != old.name:
                fault = Fault("metadata.name", f'Invalid value: "{new.metadata.name}": field is immutable')
                raise invalid(kind.kind, old.name, [fault], group=kind.group)
            return await self._altered(kind, old, new, subresource, options, ledger=ledger, told=told)

        async with self._on_account(namespace) as ledger:
            stored = await self._modifier.modify(kind, namespace, name, alter, dry_run=options.dry_run, fence=fence)
        return Written(_shown(stored, kind, subresource), warnings=(*warnings, *told))

    async def _altered(
        self,
        kind: Kind,
        stored: StoredObject,
        new: Resource,
        subresource: str,
        options: WriteOptions,
        *,
        ledger: Ledger,
        told: list[str],
        managed: Managed | None = None,
    ) -> Outcome:
        """Return what writing ``new`` to ``subresource`` makes of ``stored``.

        told: filled with what to warn of in the object that comes of it.
        managed: the managedFields that an apply has worked out; None: the write is no apply.
        """
        owner, old = self._modifier.owner(kind), stored.obj
        _check_identity(owner, stored, new)
        via, sent = subresource, new.metadata.managed_fields
        if subresource == "scale":
            new, subresource = new if managed is not None else with_scale(owner, old, new), ""
        new = PREPARE[subresource](owner, old, new)
        if managed is None:
            managed = track_change(
                owner, old, new, sent, manager=options.field_manager, now=self.timestamp(), subresource=via
            )
        new = with_managed(new, managed)
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
            ledger=ledger,
        )
        new = await self._chain.mutate(attributes, new)
        if (claimant := self._modifier.claimant(owner)) is not None and not subresource:
            new = claimant.complete(old, new, ())
        if faults := _judge_of(owner, subresource)(owner, bare(old), new) + faults_of_face(kind, old, new):
            raise invalid(owner.kind, stored.name, faults, group=owner.group)
        await self._chain.judge(msgspec.structs.replace(attributes, obj=new))
        told[:] = [] if subresource else cautions(owner, new, old)
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
        mark: Callable[[Resource], Resource] = lambda obj: obj,
        beside: Beside | None = None,
    ) -> Deleted:
        """Delete an object, or begin to.

        mark: makes of the object what is left of it while it is being deleted. beside: what happens in the same step.
        """
        owner, dry_run = self._modifier.owner(kind), bool(options.dry_run)
        gone = False

        async def alter(stored: StoredObject) -> Outcome:
            nonlocal gone
            old = stored.obj
            check_preconditions(owner, old, options, stored.revision)
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
            outcome = plan_delete(owner, mark(old), options, self._world.now())
            gone = isinstance(outcome, Gone)
            return outcome

        stored = await self._modifier.modify(kind, namespace, name, alter, dry_run=dry_run, fence=fence, beside=beside)
        return Deleted(as_kind(stored, kind), gone)

    def _decode(self, kind: Kind, document: Document) -> tuple[Resource, list[str]]:
        """Return the object that ``document`` stands for, as its place stores it, and what is unknown in it."""
        unknown: list[str] = []
        if kind.stored_as is not None:
            # Faults are told in the words of the face that the client used.
            codec.decode(kind, document, unknown=unknown)
            owner = self._modifier.owner(kind)
            kind, document = owner, to_owner(kind, owner, document)
            return codec.decode(kind, completed(kind, document)), unknown
        return codec.decode(kind, completed(kind, document), unknown=unknown), unknown


def _patched(document: dict[str, Any], patch: Any, patch_type: str, kind: Kind) -> dict[str, Any]:
    match patch_type:
        case "json":
            return patches.apply_json_patch(document, patch)
        case "merge":
            return patches.apply_merge_patch(document, patch)
        case "strategic" if kind.custom is not None:
            raise UnsupportedMediaType(
                "the body of the request was in an unknown format - accepted media types include: "
                "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
            )
        case "strategic":
            return patches.apply_strategic_merge(document, patch, kind.model)
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


def _judge_of(owner: Kind, subresource: str) -> Callable[[Kind, Resource, Resource], list[Fault]]:
    """Return what tells everything that is wrong with a write to ``subresource``."""
    if subresource == "resize":
        return faults_on_resize
    return faults_on_status if subresource == "status" and owner.custom is None else faults_on_update


def _shown(stored: StoredObject, kind: Kind, subresource: str) -> StoredObject:
    return scale_of(stored) if subresource == "scale" else as_kind(stored, kind)
