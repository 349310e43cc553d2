"""The cluster's objects over gRPC: ``trireme.cluster.Resources``, translated to the registry's verbs.

What a caller may do is asked of the same authorizer as over REST, in the same words; what a target lets one do is what
its path over REST would. What an object says is held to the same rules.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec

from api import apply as managed_fields
from api.errors import BadRequest, MethodNotAllowed, invalid
from api.faults import forbidden
from api.kinds.table import Kind
from api.meta import DeleteOptions, Preconditions
from client.resources import EventType
from master.access.audit import AuditLog
from master.access.authorization import Authorizer
from master.access.fairness import Fairness
from master.access.flows import classify
from master.access.user import User
from master.grpc_calls import Context, asked_by, caller, refusing, refusing_stream
from master.registry import Registry
from master.rest import http
from master.rest.documents import fit_to_url
from master.rest.negotiation import JSON
from master.rest.parameters import manager_faults
from master.rest.routes import Target, pick_verb, unknown_path
from master.rest.seam import Event, Query, Stored, WriteOptions
from trireme_pb.cluster import cluster_pb2 as pb
from trireme_pb.cluster import cluster_pb2_grpc as rpc

_PATCH_TYPES = {
    pb.PatchRequest.JSON: "json",
    pb.PatchRequest.MERGE: "merge",
    pb.PatchRequest.STRATEGIC_MERGE: "strategic",
    pb.PatchRequest.APPLY: "apply",
}
_EVENT_TYPES = {
    EventType.ADDED: pb.WatchEvent.ADDED,
    EventType.MODIFIED: pb.WatchEvent.MODIFIED,
    EventType.DELETED: pb.WatchEvent.DELETED,
    EventType.BOOKMARK: pb.WatchEvent.BOOKMARK,
}


def _object(stored: Stored) -> pb.Object:
    meta = stored.obj.metadata
    return pb.Object(
        api_version=stored.obj.api_version,
        kind=stored.obj.kind,
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        resource_version=stored.revision,
        json=stored.json,
    )


def _event(event: Event) -> pb.WatchEvent:
    shown = pb.Object(resource_version=event.revision) if event.stored is None else _object(event.stored)
    shown.resource_version = event.revision
    return pb.WatchEvent(type=_EVENT_TYPES[event.type], object=shown)


def _document(data: bytes) -> Any:
    document = http.parse_document(data, JSON)
    http.check_depth(document)
    return document


def _fitting(kind: Kind, target: pb.Target, data: bytes, *, replaces: bool = False) -> dict[str, Any]:
    """Return the document that a request carries, made to agree with its target; see ``fit_to_url``."""
    place = Target(kind=kind, namespace=target.namespace, name=target.name, subresource=target.subresource)
    return fit_to_url(_document(data), place, replaces=replaces)


# What REST is asked by, which says what each subresource lets one do.
_METHODS = {"create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE"}


def _check_verb(kind: Kind, verb: str, target: pb.Target) -> None:
    """Raise MethodNotAllowed or BadRequest for what REST would not do with such a target either."""
    # Reviews are asked over REST: here they would be stored, and with them the tokens that they are about.
    if "get" not in kind.verbs:
        raise MethodNotAllowed("the server does not allow this method on the requested resource")
    if target.namespace and not kind.namespaced:
        raise BadRequest(f"{kind.plural} have no namespace")
    if kind.namespaced and not target.namespace and verb not in ("list", "watch"):
        raise BadRequest("a namespace is required")
    if not target.name and (target.subresource or verb not in ("list", "watch", "create")):
        raise BadRequest("a name is required")
    if target.subresource and verb in ("list", "watch"):
        raise MethodNotAllowed("the server does not allow this method on the requested resource")
    # A new object's name may stand in the target, too.
    name = "" if verb in ("list", "watch") or (verb == "create" and not target.subresource) else target.name
    place = Target(kind=kind, namespace=target.namespace, name=name, subresource=target.subresource)
    if pick_verb(place, _METHODS.get(verb, "GET"), watch=verb == "watch") == "connect":
        raise MethodNotAllowed("streams to containers are opened over REST")


class ResourcesService(rpc.ResourcesServicer):
    """Serves ``trireme.cluster.Resources``."""

    def __init__(self, registry: Registry, authorizer: Authorizer, *, audit: AuditLog | None = None) -> None:
        self._registry = registry
        self._authorizer = authorizer
        self._fairness = Fairness()
        self.audit = audit

    @asynccontextmanager
    async def _admitted(
        self, context: Context, method: str, request: Any, *, lasting: bool = False
    ) -> AsyncIterator[tuple[Kind, User]]:
        """Hold the caller's seat; yield the kind that a request is about, and the caller.

        lasting: the call goes on for as long as its caller likes; it only waits for its turn.
        Raises Unauthorized, Forbidden, NotFound, MethodNotAllowed, BadRequest, TooManyRequests.
        """
        user, target = caller(context), request.target
        asked = asked_by(method, request, user)
        async with self._fairness.seat(classify(asked), lasting=lasting):
            await self._authorizer.check(asked)
            kind = self._find(target)
            if kind is None:
                await self._registry.catch_up()  # it may have been defined through another master
                kind = self._find(target)
            if kind is None or (target.subresource and target.subresource not in kind.subresources):
                raise unknown_path()
            _check_verb(kind, asked.verb, target)
            yield kind, user

    def _find(self, target: pb.Target) -> Kind | None:
        table = self._registry.table
        if target.version:
            return table.resource(target.group, target.version, target.resource)
        return table.preferred(target.group, target.resource)

    @refusing
    async def Get(self, request: pb.GetRequest, context: Context) -> pb.Object:  # noqa: N802 - the contract's name
        """Return one object."""
        async with self._admitted(context, "Get", request) as (kind, _):
            stored = await self._registry.get(
                kind,
                namespace=request.target.namespace,
                name=request.target.name,
                subresource=request.target.subresource,
                resource_version=_version(request.resource_version, any_version=request.any_version),
            )
            return _object(stored)

    @refusing
    async def List(self, request: pb.ListRequest, context: Context) -> pb.ListResponse:  # noqa: N802 - the contract's name
        """Return the objects that match."""
        async with self._admitted(context, "List", request) as (kind, _):
            query = Query(
                namespace=request.target.namespace,
                label_selector=request.label_selector,
                field_selector=request.field_selector,
                resource_version=_version(request.resource_version, any_version=request.any_version),
                limit=max(0, request.limit),
                continue_token=request.continue_token,
            )
            page = await self._registry.list(kind, query)
            return pb.ListResponse(
                resource_version=page.revision,
                items=[_object(stored) for stored in page.items],
                continue_token=page.continue_token,
            )

    @refusing_stream
    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.WatchEvent | None]:  # noqa: N802 - the contract's name
        """Yield changes until the caller goes away; the next is asked for when the caller has room for it."""
        async with self._admitted(context, "Watch", request, lasting=True) as (kind, _):
            query = Query(
                namespace=request.target.namespace,
                label_selector=request.label_selector,
                field_selector=request.field_selector,
                resource_version=str(request.resource_version) if request.resource_version > 0 else "",
                bookmarks=request.bookmarks,
            )
            async with aclosing(self._registry.watch(kind, query)) as batches:
                async for batch in batches:
                    if not batch:
                        yield None
                    for event in batch:
                        yield _event(event)

    @refusing
    async def Create(self, request: pb.CreateRequest, context: Context) -> pb.Object:  # noqa: N802 - the contract's name
        """Store a new object, or act on one through a subresource."""
        async with self._admitted(context, "Create", request) as (kind, user):
            target = request.target
            written = await self._registry.create(
                kind,
                _fitting(kind, target, request.json),
                namespace=target.namespace,
                name=target.name if target.subresource else "",
                subresource=target.subresource,
                options=_options(user, request),
            )
            return _object(written.stored)

    @refusing
    async def Update(self, request: pb.UpdateRequest, context: Context) -> pb.Object:  # noqa: N802 - the contract's name
        """Replace an object."""
        async with self._admitted(context, "Update", request) as (kind, user):
            target = request.target
            written = await self._registry.update(
                kind,
                _fitting(kind, target, request.json, replaces=True),
                namespace=target.namespace,
                name=target.name,
                subresource=target.subresource,
                options=_options(user, request),
            )
            return _object(written.stored)

    @refusing
    async def Patch(self, request: pb.PatchRequest, context: Context) -> pb.Object:  # noqa: N802 - the contract's name
        """Change an object."""
        async with self._admitted(context, "Patch", request) as (kind, user):
            patch_type = _PATCH_TYPES.get(request.type)
            if patch_type is None:
                raise BadRequest("a patch needs a type: JSON, MERGE, STRATEGIC_MERGE or APPLY")
            patch = _document(request.json)
            if not isinstance(patch, list if patch_type == "json" else dict):
                raise BadRequest("a JSON patch is a list of operations, any other patch an object")
            if patch_type == "apply":
                managed_fields.check_manager(request.field_manager)
                patch = _fitting(kind, request.target, request.json)
            elif request.force:
                fault = forbidden("force", "may not be specified for non-apply patch")
                raise invalid("PatchOptions", "", [fault], group="meta.k8s.io")
            written = await self._registry.patch(
                kind,
                patch,
                patch_type,
                namespace=request.target.namespace,
                name=request.target.name,
                subresource=request.target.subresource,
                options=msgspec.structs.replace(_options(user, request), force=request.force),
            )
            return _object(written.stored)

    @refusing
    async def Delete(self, request: pb.DeleteRequest, context: Context) -> pb.DeleteResponse:  # noqa: N802 - the contract's name
        """Delete an object, or begin to."""
        async with self._admitted(context, "Delete", request) as (kind, user):
            if request.propagation_policy not in ("", "Orphan", "Background", "Foreground"):
                raise BadRequest(f"unknown propagation policy {request.propagation_policy!r}")
            uid, version = request.precondition_uid, request.precondition_resource_version
            options = DeleteOptions(
                grace_period_seconds=request.grace_period_s if request.HasField("grace_period_s") else None,
                propagation_policy=request.propagation_policy,
                preconditions=Preconditions(uid=uid, resource_version=version) if uid or version else None,
                dry_run=("All",) if request.dry_run else (),
            )
            deleted = await self._registry.delete(
                kind, namespace=request.target.namespace, name=request.target.name, options=options, user=user
            )
            return pb.DeleteResponse(object=_object(deleted.stored), gone=deleted.gone)


def _version(revision: int, *, any_version: bool) -> str:
    if any_version:
        return "0"
    return str(revision) if revision > 0 else ""


def _options(user: User, request: pb.CreateRequest | pb.UpdateRequest | pb.PatchRequest) -> WriteOptions:
    if faults := manager_faults(request.field_manager):
        options = type(request).__name__.replace("Request", "Options")
        raise invalid(options, "", faults, group="meta.k8s.io")
    manager = request.field_manager or ("kubelet" if user.name.startswith("system:node:") else user.name)
    return WriteOptions(user=user, dry_run=request.dry_run, field_manager=manager, field_validation="Ignore")
