"""The cluster's objects for code that runs inside a master: controllers, scheduler, boot."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar

from api import codec
from api.kinds.authentication import TokenRequest, TokenRequestSpec, TokenRequestStatus
from api.kinds.core import ServiceAccount
from api.kinds.pods import Pod
from api.kinds.table import Kind
from api.meta import DeleteOptions, Preconditions, Resource
from client.resources import Listing, Revision, WatchEvent
from master.access.user import User
from master.registry import Registry
from master.rest.seam import Query, Stored, WriteOptions
from master.storage import Fence

R = TypeVar("R", bound=Resource)
MANAGER = "kube-controller-manager"  # the same on whichever master leads


class LocalResources:
    """Implements ``client.resources.Resources`` over this master's registry.

    fence: carried by every write; when it does not hold any more a write raises ``master.storage.Fenced``.
    """

    def __init__(self, registry: Registry, user: User, *, fence: Fence | None = None) -> None:
        self._registry = registry
        self._user = user
        self._fence = fence
        self._options = WriteOptions(user=user, field_manager=MANAGER, field_validation="Ignore")

    async def get(self, model: type[R], name: str, *, namespace: str = "") -> R:
        """Return the newest state; raises NotFound."""
        return _as(model, await self._registry.get(self._kind(model), namespace=namespace, name=name))

    async def list(
        self, model: type[R], *, namespace: str = "", label_selector: str = "", field_selector: str = ""
    ) -> Listing[R]:
        """Return what exists now."""
        query = Query(namespace=namespace, label_selector=label_selector, field_selector=field_selector)
        page = await self._registry.list(self._kind(model), query)
        return Listing([_as(model, stored) for stored in page.items], Revision(page.revision))

    async def watch(
        self,
        model: type[R],
        *,
        revision: Revision,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[WatchEvent[R]]:
        """Yield every change after ``revision``; raises Expired."""
        query = Query(
            namespace=namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            resource_version=str(revision),
            bookmarks=True,
        )
        batches = self._registry.watch(self._kind(model), query)
        try:
            async for batch in batches:
                for event in batch:
                    obj = None if event.stored is None else _as(model, event.stored)
                    yield WatchEvent(event.type, obj, Revision(event.revision))
        finally:
            await batches.aclose()

    async def create(self, obj: R) -> R:
        """Store a new object; raises AlreadyExists, Invalid, Forbidden."""
        written = await self._registry.create(
            self._kind(type(obj)),
            codec.to_document(obj),
            namespace=obj.metadata.namespace,
            options=self._options,
            fence=self._fence,
        )
        return _as(type(obj), written.stored)

    async def update(self, obj: R, *, subresource: str = "") -> R:
        """Replace; with metadata.resourceVersion only if nobody wrote since (Conflict)."""
        written = await self._registry.update(
            self._kind(type(obj)),
            codec.to_document(obj),
            namespace=obj.metadata.namespace,
            name=obj.metadata.name,
            subresource=subresource,
            options=self._options,
            fence=self._fence,
        )
        return _as(type(obj), written.stored)

    async def patch(
        self, model: type[R], name: str, patch: Mapping[str, Any], *, namespace: str = "", subresource: str = ""
    ) -> R:
        """Apply a JSON merge patch to the newest state; a resourceVersion in it is a precondition."""
        written = await self._registry.patch(
            self._kind(model),
            patch,
            "merge",
            namespace=namespace,
            name=name,
            subresource=subresource,
            options=self._options,
            fence=self._fence,
        )
        return _as(model, written.stored)

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
        """Delete, if ``uid`` and ``resource_version`` are empty or match (Conflict)."""
        options = DeleteOptions(
            grace_period_seconds=grace_period_s,
            propagation_policy=propagation,
            preconditions=Preconditions(uid=uid, resource_version=resource_version),
        )
        await self._registry.delete(
            self._kind(model), namespace=namespace, name=name, options=options, user=self._user, fence=self._fence
        )

    async def request_token(self, account: str, spec: TokenRequestSpec, *, namespace: str) -> TokenRequestStatus:
        """Return a new token of a service account; raises NotFound, Invalid, Forbidden."""
        asked = TokenRequest(api_version="authentication.k8s.io/v1", kind="TokenRequest", spec=spec)
        written = await self._registry.create(
            self._kind(ServiceAccount),
            codec.to_document(asked),
            namespace=namespace,
            name=account,
            subresource="token",
            options=self._options,
            fence=self._fence,
        )
        return _as(TokenRequest, written.stored).status

    async def bind(self, *, namespace: str, pod: str, uid: str, node: str) -> None:
        """Assign a pod to a node, once; raises Conflict if it has one or is another pod by now."""
        binding = {"metadata": {"name": pod, "uid": uid}, "target": {"kind": "Node", "name": node}}
        await self._registry.create(
            self._kind(Pod),
            binding,
            namespace=namespace,
            name=pod,
            subresource="binding",
            options=self._options,
            fence=self._fence,
        )

    def _kind(self, model: type[Resource]) -> Kind:
        return self._registry.table.of(model)


def _as(model: type[R], stored: Stored) -> R:
    obj = stored.obj
    assert isinstance(obj, model), f"{type(obj).__name__} where {model.__name__} belongs"
    return obj
