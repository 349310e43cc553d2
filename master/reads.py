"""Get, list and watch: consistent, or as fresh as the client asks, from the cache wherever it can answer.

Continue tokens name the revision and the last key of the page before, so that a list in pages shows one state. The
cache has only the newest; older pages are read from the store's history.
"""

import base64
from collections.abc import AsyncGenerator, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from api import fields, selectors
from api.errors import BadRequest, Expired, not_found
from api.kinds.table import Kind
from client.resources import EventType
from master.cache import WatchCache, place_prefix
from master.changes import Watcher
from master.faces import as_kind, shows_another
from master.objects import Selection, StoredObject, Wanted, read_stored
from master.rest.seam import Event, Page, Query
from master.storage import Storage, Value

_STORE_PAGE = 500
_NEWEST = -1


class ExpiredList(Expired):
    """An old page; ``continue_token`` goes on from the same key in the newest state."""

    def __init__(self, message: str, continue_token: str) -> None:
        super().__init__(message)
        self.continue_token = continue_token

    def status(self) -> dict[str, Any]:
        """Return the Status object with the token where lists have theirs."""
        return {**super().status(), "metadata": {"continue": self.continue_token}}


class _Token(msgspec.Struct, frozen=True):
    """Where a list goes on."""

    rv: int  # of the state that the list shows; or _NEWEST: whatever is there by now
    start: str  # the last key of the page before


def _encode_token(token: _Token) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(token)).decode().rstrip("=")


def _decode_token(text: str) -> _Token:
    try:
        padded = text + "=" * (-len(text) % 4)
        token = msgspec.json.decode(base64.urlsafe_b64decode(padded), type=_Token)
    except (ValueError, msgspec.MsgspecError):
        raise BadRequest("continue key is not valid") from None
    if not 0 < token.rv < 2**63 and token.rv != _NEWEST:
        raise BadRequest("continue key is not valid: incorrect encoded start resourceVersion")
    return token


@lru_cache(maxsize=1024)
def _selection(kind: Kind, namespace: str, labels: str, field_text: str) -> Selection:
    """Return what a query selects; raises BadRequest. Node agents and informers ask the same again and again."""
    query = selectors.parse_fields(field_text)
    fields.check(kind, query)
    if kind.namespaced and not namespace:
        namespace = query.exact("metadata.namespace") or ""
    return Selection(namespace, selectors.parse_labels(labels), query)


def seen_as(kind: Kind, selection: Selection) -> Wanted:
    """Return the selection as a function of stored objects, which may be of another face of ``kind``."""
    if not shows_another(kind):
        return selection
    return lambda stored: selection(as_kind(stored, kind))


def select(kind: Kind, query: Query) -> Selection:
    """Return what a query selects; raises BadRequest."""
    return _selection(kind, query.namespace, query.label_selector, query.field_selector)


class Reader:
    """Answers reads of every kind."""

    def __init__(self, cache: WatchCache, storage: Storage) -> None:
        self._cache = cache
        self._storage = storage

    async def get(self, kind: Kind, *, namespace: str, name: str, resource_version: str = "") -> StoredObject:
        """Return one object; raises NotFound."""
        await self._wait(resource_version)
        found = self._cache.place(kind).get(namespace, name)
        if found is None:
            raise not_found(kind.plural, name, group=kind.group)
        return as_kind(found, kind)

    def cached(self, kind: Kind, namespace: str, name: str) -> StoredObject | None:
        """Return one object as the cache has it right now."""
        return self._cache.place(kind).get(namespace, name)

    async def list(self, kind: Kind, query: Query) -> Page:
        """Return a page of the objects that match."""
        selection = select(kind, query)
        if query.continue_token:
            if query.resource_version not in ("", "0"):
                raise BadRequest("specifying resource version is not allowed when using continue")
            token = _decode_token(query.continue_token)
            if token.rv == _NEWEST:
                await self._cache.fresh()
                return self._page(kind, selection, query.limit, after=token.start)
            await self._cache.reach(token.rv)
            if token.rv == self._cache.revision:
                return self._page(kind, selection, query.limit, after=token.start)
            return await self._old_page(kind, selection, query.limit, token)
        if self._is_exact(query):
            revision = int(query.resource_version)
            await self._cache.reach(revision)
            if revision != self._cache.revision:
                return await self._old_page(kind, selection, query.limit, _Token(revision, ""))
        else:
            await self._wait(query.resource_version)
        return self._page(kind, selection, query.limit, after="")

    @staticmethod
    def _is_exact(query: Query) -> bool:
        if query.resource_version in ("", "0"):
            return False
        return query.resource_version_match == "Exact" or (not query.resource_version_match and query.limit > 0)

    async def _wait(self, resource_version: str) -> None:
        """Wait until the cache is as fresh as asked."""
        if resource_version == "":
            await self._cache.fresh()
        else:
            await self._cache.reach(int(resource_version))

    def _page(self, kind: Kind, selection: Selection, limit: int, *, after: str) -> Page:
        place, revision = self._cache.place(kind), self._cache.revision
        found = place.select(selection, seen_as(kind, selection), after=after)
        if not limit:
            return Page([as_kind(each, kind) for each in found] if shows_another(kind) else list(found), revision)
        items: list[StoredObject] = []
        for each in found:
            if len(items) == limit:
                token = _encode_token(_Token(revision, items[-1].key))
                remaining = place.count(selection, after=items[-1].key) if selection.unfiltered else None
                return Page(items, revision, token, remaining)
            items.append(as_kind(each, kind))
        return Page(items, revision)

    async def _old_page(self, kind: Kind, selection: Selection, limit: int, token: _Token) -> Page:
        """Return a page of the state at an older revision, from the store; raises Expired."""
        prefix = self._storage.prefix + place_prefix(kind.place)
        wanted, owner = seen_as(kind, selection), self._cache.place(kind).kind
        within = prefix + (f"{selection.namespace}/" if selection.namespace else "")
        unselected = selection.labels.everything and selection.fields.everything
        items: list[StoredObject] = []
        after, size, more = token.start, limit or _STORE_PAGE, True
        while more:
            try:
                after_key = prefix + after if after and prefix + after >= within else ""
                values, more, left, _ = await self._storage.page(within, after=after_key, revision=token.rv, limit=size)
            except Expired as error:
                raise self._expired(token) from error
            for read, value in enumerate(values, start=1):
                stored = _from_value(owner, value, prefix)
                if stored is not None and wanted(stored):
                    items.append(as_kind(stored, kind))
                after = value.key.removeprefix(prefix)
                if limit and len(items) >= limit and (left + len(values) - read):
                    follow = _encode_token(_Token(token.rv, after))
                    return Page(items, token.rv, follow, left + len(values) - read if unselected else None)
            # A selector may match next to nothing: a page of one object must not cost a question for each key.
            size = min(size * 2, max(_STORE_PAGE, limit))
        return Page(items, token.rv)

    @staticmethod
    def _expired(token: _Token) -> Expired:
        """Return the refusal, with a token that goes on from the same key in the newest state."""
        if not token.start:
            return Expired("The resourceVersion for the provided list is too old.")
        return ExpiredList(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list "
            "without the continue parameter, or use the continue token in this response to retrieve the remainder of "
            "the results. Continuing with the provided token results in an inconsistent list - objects that were "
            "created, modified, or deleted between the time the first chunk was returned and now may show up in the "
            "list.",
            _encode_token(_Token(_NEWEST, token.start)),
        )

    async def watch(self, kind: Kind, query: Query) -> AsyncGenerator[Sequence[Event], None]:
        """Yield batches of changes; the first one, which may be empty, comes when the watch is open."""
        selection = select(kind, query)
        watcher = await self._open(kind, query, selection)
        last = self._cache.last_bookmark(watcher, end_s=query.timeout_s)
        try:
            yield ()
            while (batch := await watcher.next_batch()) is not None:
                yield [_event_as(event, kind) for event in batch] if shows_another(kind) else batch
        finally:
            if last is not None:
                last.cancel()
            self._cache.close(kind, watcher)

    async def _open(self, kind: Kind, query: Query, selection: Selection) -> Watcher:
        wanted = seen_as(kind, selection)
        if query.initial_events:
            await self._wait(query.resource_version)
            return self._cache.watch_from_now(
                kind, selection, wanted, bookmarks=query.bookmarks, mark_end=query.bookmarks
            )
        if query.initial_events is None and query.resource_version in ("", "0"):
            await self._wait(query.resource_version)
            return self._cache.watch_from_now(kind, selection, wanted, bookmarks=query.bookmarks, mark_end=False)
        if query.resource_version in ("", "0"):
            await self._wait(query.resource_version)
            revision = self._cache.revision
        else:
            revision = int(query.resource_version)
            await self._cache.reach(revision)
        return self._cache.watch_since(kind, selection, wanted, revision, bookmarks=query.bookmarks)


def _from_value(kind: Kind, value: Value, prefix: str) -> StoredObject | None:
    namespace, slash, name = value.key.removeprefix(prefix).partition("/")
    try:
        data = read_stored(kind, value.data)
    except ValueError:
        return None
    return StoredObject(
        kind,
        namespace=namespace if slash else "",
        name=name if slash else namespace,
        data=data,
        revision=value.revision,
    )


def _event_as(event: Event, kind: Kind) -> Event:
    if event.stored is None or event.type is EventType.BOOKMARK:
        return event
    assert isinstance(event.stored, StoredObject)
    return msgspec.structs.replace(event, stored=as_kind(event.stored, kind))
