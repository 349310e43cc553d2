"""What handlers see of a request, whichever server took it: our own (``fasthttp``), or aiohttp's.

Ours serves nearly everything. aiohttp's gets the connections that become something else than HTTP, or whose bodies are
passed on as they come: ``master.rest.upgradable``.
"""

import asyncio
from typing import Any, Protocol

from multidict import CIMultiDictProxy, MultiMapping


class Target(Protocol):
    """Where a request goes."""

    @property
    def raw_path(self) -> str:
        """Return the path as the client wrote it."""

    @property
    def raw_query_string(self) -> str:
        """Return what follows the question mark as the client wrote it."""

    @property
    def query(self) -> MultiMapping[str]:
        """Return the parameters."""


class Stream(Protocol):
    """An answer that goes on until the handler returns it."""

    @property
    def status(self) -> int:
        """Return its HTTP status."""

    async def write(self, data: bytes) -> None:
        """Send, waiting while the client does not take it; raises ConnectionError when it has gone."""


class Origin(Protocol):
    """Whom an answer goes to."""

    @property
    def path(self) -> str:
        """Return the path as it is meant."""

    @property
    def transport(self) -> asyncio.Transport | None:
        """Return the way to the client; None when it has gone."""

    @property
    def remote(self) -> str | None:
        """Return the client's address."""


class Request(Origin, Protocol):
    """One request.

    memo: what is kept from one request of a connection to the next.
    kept_body: the whole body, once ``master.rest.http.read_body`` has read it.
    """

    memo: dict[str, Any]
    kept_body: bytes

    @property
    def method(self) -> str:
        """Return the method in capitals."""

    @property
    def rel_url(self) -> Target:
        """Return path and query."""

    @property
    def path_qs(self) -> str:
        """Return path and query in one."""

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """Return the header fields."""

    @property
    def content_length(self) -> int | None:
        """Return how long the client says that the body is."""

    async def read_some(self) -> bytes:
        """Return what has come of the body; empty at its end."""

    async def begin(self, headers: dict[str, str]) -> Stream:
        """Begin an answer whose length is not known, with status 200."""
