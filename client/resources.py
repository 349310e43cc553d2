"""Objects of the cluster as a program sees them: typed get, list, watch and writes, wherever the objects come from.

Two things implement this: ``client.remote.RemoteResources`` over gRPC to whichever master answers (node agents, tools),
and ``master.local.LocalResources`` over a master's own registry and watch cache (controllers, scheduler). Code written
against the protocol runs in either place, and in tests over a dictionary.

Refusals are ``api.errors.ApiError``, the same on both paths.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from enum import Enum
from typing import Any, Generic, NewType, Protocol, TypeVar

import msgspec

from api.kinds.authentication import TokenRequestSpec, TokenRequestStatus
from api.meta import Resource

R = TypeVar("R", bound=Resource)
Revision = NewType("Revision", int)


class EventType(Enum):
    """What happened to an object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"  # nothing happened up to this revision


class WatchEvent(msgspec.Struct, Generic[R], frozen=True):
    """One change; ``object`` of DELETED is the last state, of BOOKMARK it is None."""

    type: EventType
    object: R | None
    revision: Revision


class Listing(msgspec.Struct, Generic[R], frozen=True):
    """All objects asked for, as they were at ``revision``; ordered by namespace, then name."""

    items: Sequence[R]
    revision: Revision


class Resources(Protocol):
    """Typed access to every kind in the table."""

    async def get(self, model: type[R], name: str, *, namespace: str = "") -> R:
        """Return the newest state (a quorum read); raises NotFound."""

    async def list(
        self, model: type[R], *, namespace: str = "", label_selector: str = "", field_selector: str = ""
    ) -> Listing[R]:
        """Return what exists now, or in an informer's case at any recent revision; an empty namespace means all."""

    def watch(
        self,
        model: type[R],
        *,
        revision: Revision,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[WatchEvent[R]]:
        """Yield every change after ``revision``, in order, without gap or repeat, until closed.

        Bookmarks come now and then. Raises Expired when the history since ``revision`` is gone (list again),
        Unavailable when no master could be reached for a while.
        """

    async def create(self, obj: R) -> R:
        """Store a new object (its apiVersion and kind may be empty); raises AlreadyExists, Invalid, Forbidden."""

    async def update(self, obj: R, *, subresource: str = "") -> R:
        """Replace; with metadata.resourceVersion only if nobody wrote since (Conflict). ``subresource``: "status"..."""

    async def patch(
        self, model: type[R], name: str, patch: Mapping[str, Any], *, namespace: str = "", subresource: str = ""
    ) -> R:
        """Apply a JSON merge patch (RFC 7386) to the newest state; a resourceVersion in it is a precondition."""

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
        """Delete, if ``uid`` and ``resource_version`` are empty or match (Conflict).

        Returns though finalizers or grace may still hold it.
        """

    async def request_token(self, account: str, spec: TokenRequestSpec, *, namespace: str) -> TokenRequestStatus:
        """Return a new token of a service account; raises NotFound, Invalid, Forbidden."""

    async def bind(self, *, namespace: str, pod: str, uid: str, node: str) -> None:
        """Assign a pod to a node, once; raises Conflict if it has one or is another pod by now."""
