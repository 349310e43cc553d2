"""The cluster's objects over gRPC: ``trireme.cluster.Resources``, translated to the registry's verbs.

The caller is whom its client certificate names; what it may do is asked of the same authorizer as over REST. Refusals
travel as a gRPC status with the Kubernetes Status object in the trailing metadata.
"""

import functools
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
import msgspec

from api.errors import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    Expired,
    Forbidden,
    InternalError,
    Invalid,
    MethodNotAllowed,
    NotFound,
    RequestTooLarge,
    Timeout,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from api.kinds.table import Kind
from api.meta import DeleteOptions, Preconditions
from client.resources import EventType
from master.access.audit import AuditLog
from master.access.authentication import with_authenticated
from master.access.authorization import Authorizer
from master.access.user import ANONYMOUS, User
from master.config import ServerTls
from master.grpc_audit import Call
from master.registry import Registry
from master.rest.handlers import fit_to_url
from master.rest.routes import Target
from master.rest.seam import Event, Query, Stored, WriteOptions
from trireme_pb.cluster import cluster_pb2 as pb
from trireme_pb.cluster import cluster_pb2_grpc as rpc

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Request = TypeVar("Request")
Response = TypeVar("Response")

STATUS_KEY = "trireme-status-bin"
CODES: Mapping[type[ApiError], grpc.StatusCode] = {
    BadRequest: grpc.StatusCode.INVALID_ARGUMENT,
    Unauthorized: grpc.StatusCode.UNAUTHENTICATED,
    Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    NotFound: grpc.StatusCode.NOT_FOUND,
    MethodNotAllowed: grpc.StatusCode.UNIMPLEMENTED,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    Conflict: grpc.StatusCode.ABORTED,
    Expired: grpc.StatusCode.OUT_OF_RANGE,
    RequestTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    TooManyRequests: grpc.StatusCode.RESOURCE_EXHAUSTED,
    InternalError: grpc.StatusCode.INTERNAL,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    Timeout: grpc.StatusCode.DEADLINE_EXCEEDED,
}
SERVER_OPTIONS = (
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
)
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


def server_credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Return what the server listens with: clients must show a certificate of ours. Raises OSError."""
    return grpc.ssl_server_credentials(
        [(Path(tls.key).read_bytes(), Path(tls.cert).read_bytes())],
        root_certificates=Path(tls.client_ca).read_bytes(),
        require_client_auth=True,
    )


_NAME_PART = re.compile(r"(?:^|[,+])\s*([A-Za-z0-9.]+)=((?:\\.|[^,+\\])*)")
_ESCAPED = re.compile(rb"\\([0-9A-Fa-f]{2}|.)", re.DOTALL)


def _unescaped(text: str) -> str:
    """Return an attribute's value without RFC 2253's escapes: a character, or a byte of UTF-8 in hexadecimal."""

    def plain(match: re.Match[bytes]) -> bytes:
        return bytes.fromhex(match[1].decode()) if len(match[1]) == 2 else match[1]

    return _ESCAPED.sub(plain, text.encode()).decode(errors="replace")


def user_of_subject(subject: str) -> User | None:
    """Return the user that a certificate's subject (as RFC 2253 writes it, last part first) names, or None."""
    names, groups = [], []
    for key, escaped in _NAME_PART.findall(subject):
        value = _unescaped(escaped)
        if key == "CN":
            names.append(value)
        elif key == "O":
            groups.append(value)
    return with_authenticated(User(names[0], tuple(groups))) if names else None


def caller(context: Context) -> User:
    """Return the user behind a call; raises Unauthorized."""
    subject = next(iter(context.auth_context().get("x509_subject", ())), b"")
    user = user_of_subject(subject.decode(errors="replace"))
    if user is None:
        raise Unauthorized("Unauthorized: show a client certificate with a common name")
    return user


async def refuse(context: Context, error: ApiError) -> None:
    """End the call with ``error``."""
    packed = pb.Error(status_json=msgspec.json.encode(error.status())).SerializeToString()
    code = CODES.get(type(error), grpc.StatusCode.INTERNAL)
    for kind, each in CODES.items():
        if isinstance(error, kind):
            code = each
            break
    await context.abort(code, error.message, trailing_metadata=((STATUS_KEY, packed),))


Method = Callable[[Any, Request, Context], Awaitable[Response]]


def refusing(method: Method[Request, Response]) -> Method[Request, Response]:
    """Let a method raise ApiError; anything else that it raises is our own fault, and said so without details."""

    @functools.wraps(method)
    async def wrapped(self: Any, request: Request, context: Context) -> Response:
        call = Call(method.__name__)
        try:
            response = await method(self, request, context)
        except ApiError as error:
            _tell(self, call, request, context, error.code)
            await refuse(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception:
            log.exception("gRPC call failed method=%s", method.__name__)
            await refuse(context, InternalError("an error on the server has prevented the request from succeeding"))
        else:
            _tell(self, call, request, context, 200)
            return response
        raise AssertionError("refuse raises")

    return wrapped


def _tell(service: Any, call: Call, request: Any, context: Context, code: int) -> None:
    """Tell the audit log of a call, if the service has one."""
    audit: AuditLog | None = getattr(service, "audit", None)
    target = getattr(request, "target", None)
    if audit is None or target is None:
        return
    try:
        user = caller(context)
    except Unauthorized:
        user = ANONYMOUS
    call.tell(audit, target, user=user, peer=context.peer(), code=code, body=getattr(request, "json", b""))


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
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise BadRequest(f"the object is not valid JSON: {error}") from None


def _fitting(kind: Kind, target: pb.Target, data: bytes) -> dict[str, Any]:
    """Return the document that a request carries, made to agree with its target."""
    place = Target(kind=kind, namespace=target.namespace, name=target.name, subresource=target.subresource)
    return fit_to_url(_document(data), place)


class ResourcesService(rpc.ResourcesServicer):
    """Serves ``trireme.cluster.Resources``."""

    def __init__(self, registry: Registry, authorizer: Authorizer, *, audit: AuditLog | None = None) -> None:
        self._registry = registry
        self._authorizer = authorizer
        self.audit = audit

    async def _admit(self, context: Context, verb: str, target: pb.Target) -> tuple[Kind, User]:
        """Return the kind that ``target`` names and the caller; raises Unauthorized, Forbidden, NotFound."""
        user = caller(context)
        await self._authorizer.authorize(
            user, verb, target.group, target.resource, target.subresource, target.namespace, target.name
        )
        kind = self._find(target)
        if kind is None:
            await self._registry.catch_up()  # it may have been defined through another master
            kind = self._find(target)
        if kind is None or (target.subresource and target.subresource not in kind.subresources):
            raise NotFound("the server could not find the requested resource", group=target.group, kind=target.resource)
        # Reviews are asked over REST: here they would be stored, and with them the tokens that they are about.
        if not target.subresource and (verb not in kind.verbs or "get" not in kind.verbs):
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        if target.namespace and not kind.namespaced:
            raise BadRequest(f"{kind.plural} have no namespace")
        named = bool(target.name) or verb in ("list", "watch", "create")
        if kind.namespaced and not target.namespace and verb not in ("list", "watch"):
            raise BadRequest("a namespace is required")
        if not named:
            raise BadRequest("a name is required")
        return kind, user

    def _find(self, target: pb.Target) -> Kind | None:
        table = self._registry.table
        if target.version:
            return table.resource(target.group, target.version, target.resource)
        return table.preferred(target.group, target.resource)

    @refusing
    async def Get(self, request: pb.GetRequest, context: Context) -> pb.Object:  # noqa: N802 - the contract's name
        """Return one object."""
        kind, _ = await self._admit(context, "get", request.target)
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
        kind, _ = await self._admit(context, "list", request.target)
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

    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.WatchEvent]:  # noqa: N802 - the contract's name
        """Yield changes until the caller goes away."""
        try:
            kind, _ = await self._admit(context, "watch", request.target)
            query = Query(
                namespace=request.target.namespace,
                label_selector=request.label_selector,
                field_selector=request.field_selector,
                resource_version=str(request.resource_version) if request.resource_version else "",
                bookmarks=request.bookmarks,
            )
            batches = self._registry.watch(kind, query)
            try:
                async for batch in batches:
                    if not batch:
                        await context.send_initial_metadata(())  # the watch is open
                    for event in batch:
                        yield _event(event)
            finally:
                await batches.aclose()
        except ApiError as error:
            await refuse(context, error)

    @refusing
    async def Create(self, request: pb.CreateRequest, context: Context) -> pb.Object:  # noqa: N802 - the contract's name
        """Store a new object, or act on one through a subresource."""
        kind, user = await self._admit(context, "create", request.target)
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
        kind, user = await self._admit(context, "update", request.target)
        target = request.target
        written = await self._registry.update(
            kind,
            _fitting(kind, target, request.json),
            namespace=target.namespace,
            name=target.name,
            subresource=target.subresource,
            options=_options(user, request),
        )
        return _object(written.stored)

    @refusing
    async def Patch(self, request: pb.PatchRequest, context: Context) -> pb.Object:  # noqa: N802 - the contract's name
        """Change an object."""
        kind, user = await self._admit(context, "patch", request.target)
        patch_type = _PATCH_TYPES.get(request.type)
        if patch_type is None:
            raise BadRequest("a patch needs a type: JSON, MERGE, STRATEGIC_MERGE or APPLY")
        patch = _document(request.json)
        if not isinstance(patch, list if patch_type == "json" else dict):
            raise BadRequest("a JSON patch is a list of operations, any other patch an object")
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
        kind, user = await self._admit(context, "delete", request.target)
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
    manager = request.field_manager or ("kubelet" if user.name.startswith("system:node:") else user.name)
    return WriteOptions(user=user, dry_run=request.dry_run, field_manager=manager, field_validation="Ignore")
