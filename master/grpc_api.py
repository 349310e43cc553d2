"""The cluster's objects over gRPC: ``trireme.cluster.Resources``, translated to the registry's verbs.

Calls pass the gate that requests over REST pass, and are asked in the same words; what a target lets one do is what its
path over REST would. What an object says is held to the same rules.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import msgspec

from api import apply as managed_fields
from api.errors import BadRequest, MethodNotAllowed, invalid
from api.faults import forbidden
from api.kinds.table import Kind
from api.meta import DeleteOptions, Preconditions
from client.resources import EventType
from fastgrpc.server import Call, Method
from master.access.user import User
from master.grpc_calls import Entrance, GrpcPassage, asked_by
from master.registry import Registry
from master.rest import http
from master.rest.documents import fit_to_url
from master.rest.handlers import list_body
from master.rest.negotiation import JSON
from master.rest.parameters import manager_faults
from master.rest.routes import Target, pick_verb, unknown_path
from master.rest.seam import Event, Query, Stored, WriteOptions
from trireme_pb.cluster import cluster_pb2 as pb

SERVICE = "trireme.cluster.Resources"
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


def _answer(passage: GrpcPassage, stored: Stored) -> pb.Object:
    """Return the object that answers a call, and let the audit log have it."""
    passage.answer = lambda: stored.json
    return _object(stored)


def _event(event: Event) -> pb.WatchEvent:
    shown = pb.Object(resource_version=event.revision) if event.stored is None else _object(event.stored)
    shown.resource_version = event.revision
    return pb.WatchEvent(type=_EVENT_TYPES[event.type], object=shown)


async def _document(data: bytes) -> Any:
    http.check_size(len(data))
    document = await http.parse_body(data, JSON)
    http.check_depth(document)
    return document


async def _fitting(kind: Kind, target: pb.Target, data: bytes, *, replaces: bool = False) -> dict[str, Any]:
    """Return the document that a request carries, made to agree with its target; see ``fit_to_url``."""
    place = Target(kind=kind, namespace=target.namespace, name=target.name, subresource=target.subresource)
    return fit_to_url(await _document(data), place, replaces=replaces)


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
    if target.name and verb in ("list", "watch"):
        raise BadRequest("a list has no name: select by metadata.name")
    # A new object's name may stand in the target, too.
    name = "" if verb in ("list", "watch") or (verb == "create" and not target.subresource) else target.name
    place = Target(kind=kind, namespace=target.namespace, name=name, subresource=target.subresource)
    if pick_verb(place, _METHODS.get(verb, "GET"), watch=verb == "watch") == "connect":
        raise MethodNotAllowed("streams to containers are opened over REST")


class ResourcesService:
    """Serves ``trireme.cluster.Resources``."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def methods(self, entrance: Entrance) -> Sequence[Method]:
        """Return the service's rows."""

        def begin(call: Call, request: Any) -> GrpcPassage:
            verb = call.head.path.rpartition("/")[2].lower()
            body = getattr(request, "json", b"")
            return GrpcPassage(call, asked_by(verb, request), version=request.target.version, body=body)

        unary: list[tuple[Any, Any]] = [
            (pb.GetRequest, self.get),
            (pb.ListRequest, self.list),
            (pb.CreateRequest, self.create),
            (pb.UpdateRequest, self.update),
            (pb.PatchRequest, self.patch),
            (pb.DeleteRequest, self.delete),
        ]
        rows: list[Method] = [
            entrance.unary(f"/{SERVICE}/{handler.__name__.capitalize()}", request, handler, begin)
            for request, handler in unary
        ]
        return [*rows, entrance.stream(f"/{SERVICE}/Watch", pb.WatchRequest, self.watch, begin)]

    async def _kind(self, request: Any, passage: GrpcPassage) -> Kind:
        """Return the kind that a request is about; raises NotFound, MethodNotAllowed, BadRequest."""
        target = request.target
        kind = self._find(target)
        if kind is None:
            await self._registry.catch_up()  # it may have been defined through another master
            kind = self._find(target)
        if kind is None or (target.subresource and target.subresource not in kind.subresources):
            raise unknown_path()
        _check_verb(kind, passage.verb, target)
        return kind

    def _find(self, target: pb.Target) -> Kind | None:
        table = self._registry.table
        if target.version:
            return table.resource(target.group, target.version, target.resource)
        return table.preferred(target.group, target.resource)

    async def get(self, request: pb.GetRequest, passage: GrpcPassage) -> pb.Object:
        """Return one object."""
        kind = await self._kind(request, passage)
        stored = await self._registry.get(
            kind,
            namespace=request.target.namespace,
            name=request.target.name,
            subresource=request.target.subresource,
            resource_version=_version(request.resource_version, any_version=request.any_version),
        )
        return _answer(passage, stored)

    async def list(self, request: pb.ListRequest, passage: GrpcPassage) -> pb.ListResponse:
        """Return the objects that match."""
        kind = await self._kind(request, passage)
        query = Query(
            namespace=request.target.namespace,
            label_selector=request.label_selector,
            field_selector=request.field_selector,
            resource_version=_version(request.resource_version, any_version=request.any_version),
            limit=max(0, request.limit),
            continue_token=request.continue_token,
        )
        page = await self._registry.list(kind, query)
        passage.answer = partial(list_body, kind, page)
        return pb.ListResponse(
            resource_version=page.revision,
            items=[_object(stored) for stored in page.items],
            continue_token=page.continue_token,
        )

    async def watch(self, request: pb.WatchRequest, passage: GrpcPassage) -> AsyncGenerator[pb.WatchEvent | None, None]:
        """Yield changes until the caller goes away; the next is asked for when the caller has room for it."""
        kind = await self._kind(request, passage)
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

    async def create(self, request: pb.CreateRequest, passage: GrpcPassage) -> pb.Object:
        """Store a new object, or act on one through a subresource."""
        kind = await self._kind(request, passage)
        target = request.target
        written = await self._registry.create(
            kind,
            await _fitting(kind, target, request.json),
            namespace=target.namespace,
            name=target.name if target.subresource else "",
            subresource=target.subresource,
            options=_options(passage.user, request),
        )
        return _answer(passage, written.stored)

    async def update(self, request: pb.UpdateRequest, passage: GrpcPassage) -> pb.Object:
        """Replace an object."""
        kind = await self._kind(request, passage)
        target = request.target
        written = await self._registry.update(
            kind,
            await _fitting(kind, target, request.json, replaces=True),
            namespace=target.namespace,
            name=target.name,
            subresource=target.subresource,
            options=_options(passage.user, request),
        )
        return _answer(passage, written.stored)

    async def patch(self, request: pb.PatchRequest, passage: GrpcPassage) -> pb.Object:
        """Change an object."""
        kind = await self._kind(request, passage)
        patch_type = _PATCH_TYPES.get(request.type)
        if patch_type is None:
            raise BadRequest("a patch needs a type: JSON, MERGE, STRATEGIC_MERGE or APPLY")
        patch = await _document(request.json)
        if not isinstance(patch, list if patch_type == "json" else dict):
            raise BadRequest("a JSON patch is a list of operations, any other patch an object")
        if patch_type == "apply":
            managed_fields.check_manager(request.field_manager)
            patch = await _fitting(kind, request.target, request.json)
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
            options=msgspec.structs.replace(_options(passage.user, request), force=request.force),
        )
        return _answer(passage, written.stored)

    async def delete(self, request: pb.DeleteRequest, passage: GrpcPassage) -> pb.DeleteResponse:
        """Delete an object, or begin to."""
        kind = await self._kind(request, passage)
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
            kind, namespace=request.target.namespace, name=request.target.name, options=options, user=passage.user
        )
        return pb.DeleteResponse(object=_answer(passage, deleted.stored), gone=deleted.gone)


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
