"""The registry: every verb on every kind in the table, for REST, gRPC and the controllers alike."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from api.errors import ApiError, MethodNotAllowed, NotFound, invalid
from api.faults import required
from api.kinds.pods import Binding
from api.kinds.table import Kind, Table
from api.meta import DeleteOptions
from master.access.token_requests import TokenRequests, refuse_unconfigured
from master.access.user import User
from master.bindings import Bindings
from master.cache import WatchCache
from master.computed import Components, Computer
from master.evictions import Evictions
from master.modify import Modifier
from master.objects import StoredObject
from master.reads import Reader, select
from master.rest.seam import Deleted, Event, Page, Query, WriteOptions, Written
from master.scale import scale_of
from master.storage import Fence, Storage
from master.writes import Writer

_DELETIONS_AT_ONCE = 16
# A store without quorum cannot say how new we are; then what we know has to do.
_CATCH_UP_S = 1.0


class Registry:
    """Implements ``master.rest.seam.Registry``."""

    def __init__(
        self,
        table: Table,
        cache: WatchCache,
        storage: Storage,
        reader: Reader,
        writer: Writer,
        modifier: Modifier,
        *,
        tokens: TokenRequests | None = None,
    ) -> None:
        self._tokens = tokens
        self._table = table
        self._cache = cache
        self._storage = storage
        self._reader = reader
        self._writer = writer
        self._bindings = Bindings(table, writer, modifier)
        self._evictions = Evictions(table, reader, writer, modifier)
        self.computer = Computer()
        self.computer.add(("", "componentstatuses"), Components(self.problems))

    @property
    def table(self) -> Table:
        """Return the kinds that are served."""
        return self._table

    @property
    def cache_revision(self) -> int:
        """Return up to where this master's cache knows everything."""
        return self._cache.revision

    async def get(
        self, kind: Kind, *, namespace: str, name: str, subresource: str = "", resource_version: str = ""
    ) -> StoredObject:
        """Return one object (of subresource "scale": its Scale); raises NotFound."""
        if self.computer.makes(kind):
            return await self.computer.get(kind, namespace, name)
        stored = await self._reader.get(kind, namespace=namespace, name=name, resource_version=resource_version)
        return scale_of(stored) if subresource == "scale" else stored

    async def list(self, kind: Kind, query: Query) -> Page:
        """Return the objects that match, in key order."""
        if self.computer.makes(kind):
            return Page(await self.computer.list(kind, select(kind, query)), 0)
        return await self._reader.list(kind, query)

    def watch(self, kind: Kind, query: Query) -> AsyncGenerator[Sequence[Event], None]:
        """Yield the changes in order; the first batch may be empty: the watch is open."""
        return self._reader.watch(kind, query)

    async def create(
        self,
        kind: Kind,
        document: Mapping[str, Any],
        *,
        namespace: str,
        name: str = "",
        subresource: str = "",
        options: WriteOptions,
        fence: Fence | None = None,
    ) -> Written:
        """Store a new object; with ``name`` and ``subresource`` act on an existing one (binding, eviction)."""
        match subresource:
            case "" if kind.model is Binding:
                bind = self._bindings.bind
                return await bind(document, namespace=namespace, name=_name_in(document), options=options, fence=fence)
            case "":
                return await self._writer.create(kind, document, namespace=namespace, options=options, fence=fence)
            case "binding":
                return await self._bindings.bind(document, namespace=namespace, name=name, options=options, fence=fence)
            case "eviction":
                return await self._evictions.evict(
                    document, namespace=namespace, name=name, options=options, fence=fence
                )
            case "token":
                if self._tokens is None:
                    raise refuse_unconfigured()
                return await self._tokens.create(document, namespace=namespace, name=name, options=options)
        raise MethodNotAllowed("the server does not allow this method on the requested resource")

    async def update(
        self,
        kind: Kind,
        document: Mapping[str, Any],
        *,
        namespace: str,
        name: str,
        subresource: str = "",
        options: WriteOptions,
        fence: Fence | None = None,
    ) -> Written:
        """Replace an object."""
        return await self._writer.update(
            kind, document, namespace=namespace, name=name, subresource=subresource, options=options, fence=fence
        )

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
        """Change an object; ``patch_type``: "json", "merge", "strategic" or "apply"."""
        if patch_type == "apply":
            return await self._writer.apply(
                kind, patch, namespace=namespace, name=name, subresource=subresource, options=options, fence=fence
            )
        return await self._writer.patch(
            kind,
            patch,
            patch_type,
            namespace=namespace,
            name=name,
            subresource=subresource,
            options=options,
            fence=fence,
        )

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
        return await self._writer.delete(kind, namespace=namespace, name=name, options=options, user=user, fence=fence)

    async def delete_collection(
        self, kind: Kind, query: Query, *, options: DeleteOptions, user: User, fence: Fence | None = None
    ) -> Sequence[StoredObject]:
        """Delete every object that matches; return their last states."""
        page = await self._reader.list(kind, query)
        at_once = asyncio.Semaphore(_DELETIONS_AT_ONCE)

        async def delete(stored: StoredObject) -> StoredObject | None:
            async with at_once:
                try:
                    deleted = await self.delete(
                        kind, namespace=stored.namespace, name=stored.name, options=options, user=user, fence=fence
                    )
                except NotFound:
                    return None
                assert isinstance(deleted.stored, StoredObject)
                return deleted.stored

        found = [each for each in page.items if isinstance(each, StoredObject)]
        results = await asyncio.gather(*(delete(each) for each in found))
        return [each for each in results if each is not None]

    async def catch_up(self) -> None:
        """Wait, not for long, until this master knows every kind that was served anywhere when the call was made."""
        with contextlib.suppress(ApiError, TimeoutError):
            async with asyncio.timeout(_CATCH_UP_S):
                await self._cache.fresh()

    def problems(self) -> Mapping[str, str]:
        """Return check -> what is wrong for each readiness check; an empty text is a passed check."""
        return {
            "watch-cache": "" if self._cache.synced else "the watch cache has not read the store yet",
            "store": "" if self._cache.connected and self._storage.has_quorum else "the store does not answer",
        }


def _name_in(document: Mapping[str, Any]) -> str:
    """Return the name of the object that a document is about; raises Invalid."""
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if not isinstance(name, str) or not name:
        raise invalid("Binding", "", [required("metadata.name")])
    return name
