"""Typed reads of the cluster's objects for those who decide upon them: tokens, authorization, admission."""

from collections.abc import Sequence
from typing import Protocol, TypeVar, cast

from api.errors import NotFound
from api.kinds.table import Kind, Table
from api.meta import Resource
from master.rest.seam import Page, Query, Stored

R = TypeVar("R", bound=Resource)


class Reads(Protocol):
    """Where objects are read: the reader of a master's cache, or a registry."""

    async def get(self, kind: Kind, *, namespace: str, name: str, resource_version: str = "") -> Stored:
        """Return one object; raises NotFound."""

    async def list(self, kind: Kind, query: Query) -> Page:
        """Return the objects that match."""


class Lookup:
    """Reads what the cache has now, without waiting for the store unless asked to."""

    def __init__(self, table: Table, reads: Reads) -> None:
        self.table = table
        self._reads = reads

    async def get(self, kind: Kind, *, namespace: str, name: str, resource_version: str = "") -> Stored:
        """Return one object; raises NotFound."""
        return await self._reads.get(kind, namespace=namespace, name=name, resource_version=resource_version)

    async def list(self, kind: Kind, query: Query) -> Page:
        """Return the objects that match."""
        return await self._reads.list(kind, query)

    async def cached(self, model: type[R], name: str, *, namespace: str = "") -> R | None:
        """Return an object as the cache has it."""
        return await self._get(model, name, namespace, "0")

    async def find(self, model: type[R], name: str, *, namespace: str = "") -> R | None:
        """Return an object as the cache has it, or as the store has it if the cache does not know it.

        Another master may have made it a moment ago.
        """
        found = await self._get(model, name, namespace, "0")
        return found if found is not None else await self._get(model, name, namespace, "")

    async def newest(self, model: type[R], name: str, *, namespace: str = "") -> R | None:
        """Return an object as the store has it now."""
        return await self._get(model, name, namespace, "")

    async def all(
        self,
        model: type[R],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        newest: bool = False,
    ) -> Sequence[R]:
        """Return the objects that match; ``newest``: as the store has them now."""
        query = Query(
            namespace=namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            resource_version="" if newest else "0",
        )
        page = await self._reads.list(self.table.of(model), query)
        return [cast("R", each.obj) for each in page.items]

    async def _get(self, model: type[R], name: str, namespace: str, version: str) -> R | None:
        kind = self.table.of(model)
        try:
            stored = await self._reads.get(kind, namespace=namespace, name=name, resource_version=version)
        except NotFound:
            return None
        return cast("R", stored.obj)
