"""A registry in memory: the contract of ``master.rest.seam`` without store, admission or validation."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from api import codec, errors, fields, patch, selectors
from api.kinds.table import TABLE, Kind, Table
from api.meta import DeleteOptions, Resource
from api.shapes import StructOf
from client.resources import EventType
from master import strictness
from master.access.user import User
from master.rest.seam import Deleted, Event, Page, Query, WriteOptions, Written


class Row(NamedTuple):
    kind: Kind
    obj: Resource
    revision: int

    @property
    def json(self) -> bytes:
        return codec.encode(self.obj)


class Change(NamedTuple):
    type: EventType
    row: Row


class FakeRegistry:
    """Objects in a dict; every change in a list, so that a watch is a walk along it."""

    def __init__(self, table: Table = TABLE) -> None:
        self.table = table
        self.revision = 100
        self.compacted = 0
        self.rows: dict[tuple[tuple[str, str], str, str], Row] = {}
        self.changes: list[Change] = []
        self.changed = asyncio.Event()
        self.trouble: dict[str, str] = {"cache": ""}
        self.calls: list[tuple[Any, ...]] = []
        self.refusal: errors.ApiError | None = None

    def furnish(self, objects: Iterable[Resource]) -> "FakeRegistry":
        """Have ``objects`` from the beginning; nobody sees them come."""
        for obj in objects:
            kind, meta = self.table.of(type(obj)), obj.metadata
            meta = msgspec.structs.replace(meta, uid=meta.uid or str(uuid.uuid4()), resource_version="1")
            self.rows[kind.place, meta.namespace, meta.name] = Row(kind, msgspec.structs.replace(obj, metadata=meta), 1)
        return self

    def _refuse(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def catch_up(self) -> None:
        pass

    def problems(self) -> Mapping[str, str]:
        return self.trouble

    def _selected(self, kind: Kind, query: Query, row: Row) -> bool:
        meta = row.obj.metadata
        return (
            row.kind.place == kind.place
            and (not query.namespace or meta.namespace == query.namespace)
            and selectors.parse_labels(query.label_selector).matches(meta.labels)
            and fields.matches(kind, self._fields(kind, query), row.obj)
        )

    def _fields(self, kind: Kind, query: Query) -> selectors.FieldQuery:
        parsed = selectors.parse_fields(query.field_selector)
        fields.check(kind, parsed)
        return parsed

    async def get(
        self, kind: Kind, *, namespace: str, name: str, subresource: str = "", resource_version: str = ""
    ) -> Row:
        self._refuse()
        try:
            return self.rows[kind.place, namespace, name]
        except KeyError:
            raise errors.not_found(kind.plural, name, group=kind.group) from None

    async def list(self, kind: Kind, query: Query) -> Page:
        self._refuse()
        found = [row for _, row in sorted(self.rows.items()) if self._selected(kind, query, row)]
        if query.continue_token:
            found = found[int(query.continue_token) :]
        if query.limit and len(found) > query.limit:
            start = int(query.continue_token or 0) + query.limit
            return Page(found[: query.limit], self.revision, str(start), len(found) - query.limit)
        return Page(found, self.revision)

    async def watch(self, kind: Kind, query: Query) -> AsyncGenerator[Sequence[Event], None]:
        self._refuse()
        start = int(query.resource_version or 0)
        if start and start < self.compacted:
            raise errors.Expired(f"too old resource version: {start} ({self.compacted})")
        position = next(
            (at for at, change in enumerate(self.changes) if change.row.revision > start), len(self.changes)
        )
        if start == 0 or query.initial_events:
            page = await self.list(kind, query)
            position = len(self.changes)
            yield [Event(EventType.ADDED, row, row.revision) for row in page.items]
            if query.initial_events:
                yield [Event(EventType.BOOKMARK, None, self.revision, initial_events_end=True)]
        while True:
            ready = [
                Event(change.type, change.row, change.row.revision)
                for change in self.changes[position:]
                if self._selected(kind, query, change.row)
            ]
            position = len(self.changes)
            if ready:
                yield ready
            self.changed.clear()
            await self.changed.wait()

    def _note(self, type_: EventType, row: Row) -> None:
        self.changes.append(Change(type_, row))
        self.changed.set()

    def _decode(self, kind: Kind, document: Mapping[str, Any]) -> tuple[Resource, Sequence[str]]:
        unknown: list[str] = []
        named = {"apiVersion": kind.group_version, "kind": kind.kind, **document}
        return codec.decode(kind, named, unknown=unknown), unknown

    def _put(self, kind: Kind, obj: Resource, type_: EventType, options: WriteOptions) -> Row:
        meta = obj.metadata
        self.revision += 1
        obj = msgspec.structs.replace(obj, metadata=msgspec.structs.replace(meta, resource_version=str(self.revision)))
        row = Row(kind, obj, self.revision)
        if not options.dry_run:
            self.rows[kind.place, meta.namespace, meta.name] = row
            self._note(type_, row)
        return row

    async def create(
        self,
        kind: Kind,
        document: Mapping[str, Any],
        *,
        namespace: str,
        name: str = "",
        subresource: str = "",
        options: WriteOptions,
    ) -> Written:
        self._refuse()
        self.calls.append(("create", kind.plural, namespace, name, subresource, document, options))
        if subresource:
            return Written(await self.get(kind, namespace=namespace, name=name))
        obj, unknown = self._decode(kind, document)
        warnings = strictness.tell(kind, document, options, unknown=unknown)
        meta = obj.metadata
        if (kind.place, meta.namespace, meta.name) in self.rows:
            raise errors.already_exists(kind.plural, meta.name, group=kind.group)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        obj = msgspec.structs.replace(
            obj, metadata=msgspec.structs.replace(meta, uid=str(uuid.uuid4()), creation_timestamp=stamp)
        )
        return Written(self._put(kind, obj, EventType.ADDED, options), True, tuple(warnings))

    async def update(
        self,
        kind: Kind,
        document: Mapping[str, Any],
        *,
        namespace: str,
        name: str,
        subresource: str = "",
        options: WriteOptions,
    ) -> Written:
        self._refuse()
        self.calls.append(("update", kind.plural, namespace, name, subresource, document, options))
        old = await self.get(kind, namespace=namespace, name=name)
        obj, unknown = self._decode(kind, document)
        warnings = strictness.tell(kind, document, options, unknown=unknown)
        if obj.metadata.resource_version not in ("", str(old.revision)):
            raise errors.conflict(kind.plural, name, errors.MODIFIED, group=kind.group)
        return Written(self._put(kind, obj, EventType.MODIFIED, options), False, tuple(warnings))

    async def patch(
        self,
        kind: Kind,
        patch_: Any,
        patch_type: str,
        *,
        namespace: str,
        name: str,
        subresource: str = "",
        options: WriteOptions,
    ) -> Written:
        self._refuse()
        self.calls.append(("patch", kind.plural, namespace, name, subresource, patch_, patch_type, options))
        old = await self.get(kind, namespace=namespace, name=name)
        document = codec.to_document(old.obj)
        match patch_type:
            case "json":
                document = patch.apply_json_patch(document, patch_)
            case "merge":
                document = patch.apply_merge_patch(document, patch_)
            case "strategic":
                document = patch.apply_strategic_merge(document, patch_, StructOf(kind.model).model)
            case _:
                raise errors.UnsupportedMediaType("the fake does not apply")
        obj, unknown = self._decode(kind, document)
        warnings = strictness.tell_of_patch(patch_, patch_type, options, patched=document, unknown=unknown)
        return Written(self._put(kind, obj, EventType.MODIFIED, options), False, tuple(warnings))

    async def delete(self, kind: Kind, *, namespace: str, name: str, options: DeleteOptions, user: User) -> Deleted:
        self._refuse()
        self.calls.append(("delete", kind.plural, namespace, name, options, user))
        row = await self.get(kind, namespace=namespace, name=name)
        if row.obj.metadata.finalizers:
            return Deleted(row, gone=False)
        del self.rows[kind.place, namespace, name]
        self.revision += 1
        meta = msgspec.structs.replace(row.obj.metadata, resource_version=str(self.revision))
        gone = Row(kind, msgspec.structs.replace(row.obj, metadata=meta), self.revision)
        self._note(EventType.DELETED, gone)
        return Deleted(gone, gone=True)

    async def delete_collection(self, kind: Kind, query: Query, *, options: DeleteOptions, user: User) -> Sequence[Row]:
        page = await self.list(kind, query)
        for row in page.items:
            meta = row.obj.metadata
            await self.delete(kind, namespace=meta.namespace, name=meta.name, options=options, user=user)
        return page.items
