"""``Resources`` over gRPC to whichever master answers.

Reads and watches simply go on at the next master: a watch resumes after the last revision that it has seen. A write is
repeated when surely nothing happened, or when repeating it does no harm; if a repeated write is refused because its
first attempt had gone through after all, the object says so, and the write has succeeded. What remains in doubt is
``Timeout``.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec

from api import codec
from api.errors import AlreadyExists, Conflict, NotFound, Timeout, TooManyRequests, Unavailable
from api.kinds.authentication import TokenRequest, TokenRequestSpec, TokenRequestStatus
from api.kinds.core import ServiceAccount
from api.kinds.pods import Binding, Pod
from api.kinds.table import TABLE, Kind, Table
from api.kinds.volumes import ObjectReference
from api.meta import ObjectMeta, Resource
from client.channel import Lost, MasterChannel, Retrying
from client.resources import EventType, Listing, Revision, WatchEvent
from trireme_pb.cluster import cluster_pb2 as pb

R = TypeVar("R", bound=Resource)

PATIENCE_S = 10.0  # how long a call goes from master to master before it gives up
SILENT_S = 25.0  # masters send bookmarks more often than that

_EVENTS = {
    pb.WatchEvent.ADDED: EventType.ADDED,
    pb.WatchEvent.MODIFIED: EventType.MODIFIED,
    pb.WatchEvent.DELETED: EventType.DELETED,
    pb.WatchEvent.BOOKMARK: EventType.BOOKMARK,
}

log = logging.getLogger(__name__)


class RemoteResources:
    """The cluster's objects, as the masters serve them."""

    def __init__(self, channel: MasterChannel, *, table: Table = TABLE, patience_s: float = PATIENCE_S) -> None:
        self._channel = channel
        self._table = table
        self._patience_s = patience_s

    def _target(self, kind: Kind, namespace: str, name: str = "", subresource: str = "") -> pb.Target:
        return pb.Target(
            group=kind.group,
            version=kind.version,
            resource=kind.plural,
            namespace=namespace,
            name=name,
            subresource=subresource,
        )

    async def _call(self, method: str, request: Any, *, repeatable: bool) -> tuple[Any, bool]:
        """Return (answer, whether an attempt before it may have been carried out).

        repeatable: whether to try again after an attempt with unknown outcome. Raises ApiError; one that follows a
        doubtful attempt has the attribute ``doubtful``.
        """
        retrying = self._channel.retrying(self._patience_s)
        doubtful = False
        while True:
            try:
                return await self._channel.unary(method, request), doubtful
            except Lost as lost:
                doubtful = doubtful or lost.maybe_applied
                why = str(lost)
            # A master without a store, or with too many who wait for their turn: surely nothing happened.
            except (Unavailable, TooManyRequests) as error:
                why = error.message
            except (AlreadyExists, Conflict, NotFound) as error:
                raise _Refused(error, doubtful=doubtful) from error
            if doubtful and not repeatable:
                raise Timeout(f"nobody knows whether the {method} was carried out: {why}")
            if not await retrying.next():
                if doubtful and method not in ("Get", "List"):
                    raise Timeout(f"no master answered for {self._patience_s:g} s, it may have happened: {why}")
                raise Unavailable(f"no master answered for {self._patience_s:g} s: {why}")

    async def get(self, model: type[R], name: str, *, namespace: str = "") -> R:
        """Return the newest state; raises NotFound."""
        request = pb.GetRequest(target=self._target(self._table.of(model), namespace, name))
        answer, _ = await _plain(self._call("Get", request, repeatable=True))
        return self._read(model, answer)

    async def list(
        self, model: type[R], *, namespace: str = "", label_selector: str = "", field_selector: str = ""
    ) -> Listing[R]:
        """Return what exists now."""
        request = pb.ListRequest(
            target=self._target(self._table.of(model), namespace),
            label_selector=label_selector,
            field_selector=field_selector,
        )
        answer, _ = await _plain(self._call("List", request, repeatable=True))
        return Listing([self._read(model, each) for each in answer.items], Revision(answer.resource_version))

    async def watch(
        self,
        model: type[R],
        *,
        revision: Revision,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[WatchEvent[R]]:
        """Yield every change after ``revision``, from whichever master; raises Expired, Unavailable."""
        seen = int(revision)
        retrying: Retrying | None = None  # from when the last message came
        while True:
            request = pb.WatchRequest(
                target=self._target(self._table.of(model), namespace),
                label_selector=label_selector,
                field_selector=field_selector,
                resource_version=seen,
                bookmarks=True,
            )
            why = "the master ended the watch"
            stream = self._channel.stream("Watch", request, silent_s=SILENT_S)
            try:
                async for message in stream:
                    retrying = None
                    event = self._event(model, message)
                    seen = max(seen, event.revision)
                    yield event
            except Lost as lost:
                why = str(lost)
            except (Unavailable, TooManyRequests) as error:
                why = error.message
            finally:
                await _close(stream)
            retrying = retrying or self._channel.retrying(self._patience_s)
            if not await retrying.next():
                raise Unavailable(f"no master could be watched for {self._patience_s:g} s: {why}")

    def _event(self, model: type[R], message: pb.WatchEvent) -> WatchEvent[R]:
        kind = _EVENTS[message.type]
        revision = Revision(message.object.resource_version)
        return WatchEvent(kind, None if kind is EventType.BOOKMARK else self._read(model, message.object), revision)

    async def create(self, obj: R) -> R:
        """Store a new object."""
        meta = obj.metadata
        kind = self._table.of(type(obj))
        request = pb.CreateRequest(target=self._target(kind, meta.namespace), json=self._json(kind, obj))
        try:
            # Without a name of its own a second attempt would make a second object.
            answer, _ = await self._call("Create", request, repeatable=bool(meta.name))
        except _Refused as refused:
            if refused.doubtful and isinstance(refused.error, AlreadyExists):
                return await self._ours(type(obj), obj, refused)
            raise refused.error from None
        return self._read(type(obj), answer)

    async def update(self, obj: R, *, subresource: str = "") -> R:
        """Replace an object, or a part of it."""
        meta = obj.metadata
        kind = self._table.of(type(obj))
        target = self._target(kind, meta.namespace, meta.name, subresource)
        request = pb.UpdateRequest(target=target, json=self._json(kind, obj))
        try:
            answer, _ = await self._call("Update", request, repeatable=True)
        except _Refused as refused:
            if refused.doubtful and isinstance(refused.error, Conflict):
                return await self._ours(type(obj), obj, refused, part=subresource)
            raise refused.error from None
        return self._read(type(obj), answer)

    async def patch(
        self, model: type[R], name: str, patch: Mapping[str, Any], *, namespace: str = "", subresource: str = ""
    ) -> R:
        """Apply a merge patch; it says what shall be, so that applying it twice is applying it."""
        target = self._target(self._table.of(model), namespace, name, subresource)
        request = pb.PatchRequest(target=target, type=pb.PatchRequest.MERGE, json=msgspec.json.encode(patch))
        try:
            answer, _ = await self._call("Patch", request, repeatable=True)
        except _Refused as refused:
            if refused.doubtful and isinstance(refused.error, Conflict):
                present = await self.get(model, name, namespace=namespace)
                if _contains(codec.to_document(present), patch):
                    return present
            raise refused.error from None
        return self._read(model, answer)

    async def delete(
        self,
        model: type[R],
        name: str,
        *,
        namespace: str = "",
        uid: str = "",
        resource_version: str = "",
        grace_period_s: int | None = None,
        propagation: str = "",
    ) -> None:
        """Delete; an attempt in doubt is repeated only with a uid, since the name may have a new object by then."""
        request = pb.DeleteRequest(
            target=self._target(self._table.of(model), namespace, name),
            grace_period_s=grace_period_s,
            propagation_policy=propagation,
            precondition_uid=uid,
            precondition_resource_version=resource_version,
        )
        try:
            await self._call("Delete", request, repeatable=bool(uid))
        except _Refused as refused:
            if not refused.doubtful:
                raise refused.error from None

    async def request_token(self, account: str, spec: TokenRequestSpec, *, namespace: str) -> TokenRequestStatus:
        """Return a new token; asked twice in doubt the first one is never used."""
        target = self._target(self._table.of(ServiceAccount), namespace, account, "token")
        asked = TokenRequest(api_version="authentication.k8s.io/v1", kind="TokenRequest", spec=spec)
        request = pb.CreateRequest(target=target, json=codec.encode(asked))
        answer, _ = await _plain(self._call("Create", request, repeatable=True))
        return msgspec.json.decode(answer.json, type=TokenRequest).status

    async def bind(self, *, namespace: str, pod: str, uid: str, node: str) -> None:
        """Assign a pod to a node."""
        binding = Binding(
            api_version="v1",
            kind="Binding",
            metadata=ObjectMeta(name=pod, namespace=namespace, uid=uid),
            target=ObjectReference(api_version="v1", kind="Node", name=node),
        )
        target = self._target(self._table.of(Pod), namespace, pod, "binding")
        request = pb.CreateRequest(target=target, json=codec.encode(binding))
        try:
            await self._call("Create", request, repeatable=True)
        except _Refused as refused:
            if refused.doubtful and isinstance(refused.error, Conflict):
                present = await self.get(Pod, pod, namespace=namespace)
                if (present.metadata.uid, present.spec.node_name) == (uid, node):
                    return
            raise refused.error from None

    async def _ours(self, model: type[R], obj: R, refused: "_Refused", *, part: str = "") -> R:
        """Return the object if it is what we wanted to write: our attempt in doubt went through. Else refuse.

        Everything that we set must be there; the server may have added its own.
        """
        meta = obj.metadata
        present = await self.get(model, meta.name, namespace=meta.namespace)
        wanted = codec.to_document(obj)
        if part:
            wanted = {part: wanted.get(part, {})}
        elif isinstance(wanted.get("metadata"), dict):
            kept = ("name", "namespace", "labels", "annotations", "ownerReferences", "finalizers")
            wanted["metadata"] = {name: each for name, each in wanted["metadata"].items() if name in kept}
            wanted.pop("status", None)
        wanted.pop("apiVersion", None)
        wanted.pop("kind", None)
        if _contains(codec.to_document(present), wanted):
            log.info("write had gone through kind=%s name=%s", model.__name__, meta.name)
            return present
        raise refused.error from None

    def _json(self, kind: Kind, obj: Resource) -> bytes:
        return codec.encode(msgspec.structs.replace(obj, api_version=kind.group_version, kind=kind.kind))

    def _read(self, model: type[R], message: pb.Object) -> R:
        obj = codec.from_json(self._table.of(model), message.json)
        assert isinstance(obj, model), (model, type(obj))
        return obj


class _Refused(Exception):
    """A refusal that an attempt in doubt may itself have caused."""

    def __init__(self, error: AlreadyExists | Conflict | NotFound, *, doubtful: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.doubtful = doubtful


async def _plain(call: Awaitable[tuple[Any, bool]]) -> tuple[Any, bool]:
    """Raise refusals as they are: a read cannot have caused one."""
    try:
        return await call
    except _Refused as refused:
        raise refused.error from None


async def _close(stream: AsyncIterator[Any]) -> None:
    close: Callable[[], Awaitable[None]] | None = getattr(stream, "aclose", None)
    if close is not None:
        await asyncio.shield(close())


def _contains(present: Any, wanted: Any) -> bool:
    """Return whether ``present`` has everything that ``wanted`` says; null says that there is nothing."""
    if isinstance(wanted, Mapping):
        return isinstance(present, Mapping) and all(
            (name == "resourceVersion")
            or (_is_empty(present.get(name)) if value is None else _contains(present.get(name, _absent(value)), value))
            for name, value in wanted.items()
        )
    if isinstance(wanted, list | tuple):
        return (
            isinstance(present, list)
            and len(present) == len(wanted)
            and all(_contains(one, other) for one, other in zip(present, wanted, strict=True))
        )
    return bool(present == wanted)


def _absent(value: Any) -> Any:
    """Return what an absent field stands for beside ``value``: an empty container of its kind."""
    return {} if isinstance(value, Mapping) else [] if isinstance(value, list | tuple) else None


def _is_empty(value: Any) -> bool:
    return value is None or value in ({}, [], "")
