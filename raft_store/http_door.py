"""The HTTP/1.1 door: the JSON gateway, /health, /version and /metrics beside gRPC on the clients' port.

Our own front hands over every connection that does not begin as HTTP/2 does. grpcio's cannot, so with it these are
served at an address of their own (``http_listen``). The library behind the door takes 13 MB: it is loaded when the
first connection comes, and many members never see one.
"""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .etcd_api.front import CallCounts, LeaderGuard
from .etcd_api.gateway import Gateway
from .etcd_api.services import Method
from .observe import Handler
from .tls import TlsFiles

if TYPE_CHECKING:
    from .http_front import HttpFront


class HttpDoor:
    """Makes the protocols of HTTP connections to one member."""

    def __init__(
        self, methods: Sequence[Method], routes: Mapping[str, Handler], guard: LeaderGuard, calls: CallCounts
    ) -> None:
        self.methods = methods
        self._routes = routes
        self._guard = guard
        self._calls = calls
        self._front: HttpFront | None = None
        self._listener: asyncio.Server | None = None

    def protocol(self) -> asyncio.Protocol:
        """Return what serves one connection, whoever accepted it."""
        if self._front is None:
            from .http_front import HttpFront  # noqa: PLC0415

            self._front = HttpFront(Gateway(self.methods), self._routes, self._guard, self._calls)
        return self._front.protocol()

    async def listen(self, listen: str, tls: TlsFiles | None) -> int:
        """Take connections at "host:port"; return the port. Raises OSError naming the address."""
        host, _, port = listen.rpartition(":")
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(self.protocol, host.strip("[]"), int(port), ssl=_context(tls))
        except OSError as exc:
            raise OSError(f"http_listen {listen}: {exc}") from exc
        bound: int = self._listener.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """End every call."""
        if self._listener is not None:
            self._listener.close()
        if self._front is not None:
            await self._front.stop()


def _context(tls: TlsFiles | None) -> ssl.SSLContext | None:
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.cert, tls.key)
    context.load_verify_locations(tls.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context
