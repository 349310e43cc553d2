"""What the REST server needs of the registry: the verbs, in terms of kinds, documents and stored bytes.

Every refusal is an ``api.errors.ApiError``. Documents are plain JSON values as the client sent them; the registry
decodes, defaults, validates and admits. Answers carry the object as the stored JSON bytes, so that a list is one join.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from api.kinds.table import Kind, Table
from api.meta import DeleteOptions, Resource
from client.resources import EventType
from master.access.user import User


class Stored(Protocol):
    """One object as the store has it, seen as one kind."""

    @property
    def json(self) -> bytes:
        """Return the whole object, resourceVersion, apiVersion and kind included, as compact JSON."""

    @property
    def obj(self) -> Resource:
        """Return the decoded object; shared, so read-only."""

    @property
    def revision(self) -> int:
        """Return its resourceVersion."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which objects a list or watch asks for, and how fresh."""

    namespace: str = ""  # "" means all
    label_selector: str = ""
    field_selector: str = ""
    resource_version: str = ""  # "" newest, "0" any, "n" not older than n (or exactly, by the match)
    resource_version_match: str = ""
    limit: int = 0
    continue_token: str = ""
    bookmarks: bool = False
    initial_events: bool | None = None  # watch: sendInitialEvents
    timeout_s: float = 0.0  # watch: after which it is ended; 0: nobody has said


class Page(msgspec.Struct, frozen=True):
    """One answer to a list."""

    items: Sequence[Stored]
    revision: int
    continue_token: str = ""
    remaining: int | None = None


class Event(msgspec.Struct):
    """One change as a watcher of some selector sees it; ``stored`` is None for BOOKMARK."""

    type: EventType
    stored: Stored | None
    revision: int
    initial_events_end: bool = False  # this BOOKMARK closes the initial events
    line: bytes = b""  # as most watchers receive it, once somebody has written it


class WriteOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What every write may say beside the object."""

    user: User
    dry_run: bool = False
    field_manager: str = ""
    field_validation: str = ""  # "Strict", "Warn", "Ignore" or ""
    repeated: tuple[str, ...] = ()  # a text for each field that stands twice in what the client sent
    force: bool = False  # apply: take fields over from their managers


class Written(msgspec.Struct, frozen=True):
    """The outcome of a write."""

    stored: Stored
    created: bool = False
    warnings: tuple[str, ...] = ()


class Deleted(msgspec.Struct, frozen=True):
    """The outcome of a delete: ``stored`` is its last state; still there if finalizers or a grace period hold it."""

    stored: Stored
    gone: bool


class Registry(Protocol):
    """The verbs on every kind in the table."""

    @property
    def table(self) -> Table:
        """Return the kinds that are served."""

    async def get(
        self, kind: Kind, *, namespace: str, name: str, subresource: str = "", resource_version: str = ""
    ) -> Stored:
        """Return one object (of subresource "scale": its Scale); raises NotFound."""

    async def list(self, kind: Kind, query: Query) -> Page:
        """Return the objects that match, ordered by namespace, then name; raises Expired for an old continue token."""

    def watch(self, kind: Kind, query: Query) -> AsyncGenerator[Sequence[Event], None]:
        """Yield the changes in order, those that are ready together in one batch; raises Expired."""

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
        """Store a new object; with ``name`` and ``subresource`` act on an existing one (binding, eviction)."""

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
        """Replace an object."""

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
    ) -> Written:
        """Change an object; ``patch_type``: "json", "merge", "strategic" or "apply"."""

    async def delete(self, kind: Kind, *, namespace: str, name: str, options: DeleteOptions, user: User) -> Deleted:
        """Delete an object, or begin to."""

    async def delete_collection(
        self, kind: Kind, query: Query, *, options: DeleteOptions, user: User
    ) -> Sequence[Stored]:
        """Delete every object that matches; return their last states."""

    async def catch_up(self) -> None:
        """Wait, not for long, until this master knows every kind that was served anywhere when the call was made."""

    def problems(self) -> Mapping[str, str]:
        """Return check -> what is wrong for each readiness check; an empty text is a passed check."""
