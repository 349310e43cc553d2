"""The HTTP/1.1 door: the JSON gateway, /health, /version and /metrics beside gRPC on the clients' port.

Our own front hands over every connection that does not begin as HTTP/2 does. grpcio's cannot, so with it these are
served at an address of their own (``http_listen``). The library behind the door takes 13 MB: it is loaded when the
first connection comes, and many members never see one. That takes a quarter of a second of CPU, longer than a leader
may be silent: so a thread loads it, and whoever knocks meanwhile waits.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from fastgrpc.entrance import Entrance, Room
from fastgrpc.server import server_tls

from .etcd_api.front import SPARE_FILES, CallCounts, LeaderGuard
from .etcd_api.gateway import Gateway
from .etcd_api.services import Method
from .observe import Handler
from .tls import TlsFiles
from .web import Web

if TYPE_CHECKING:
    from .http_front import HttpFront

log = logging.getLogger(__name__)


class HttpDoor:
    """Makes the protocols of HTTP connections to one member."""

    def __init__(
        self, methods: Sequence[Method], routes: Mapping[str, Handler], guard: LeaderGuard, calls: CallCounts
    ) -> None:
        self.methods = methods
        self.web = Web(Gateway(methods), routes, guard, calls)  # by HTTP/2 nothing else is needed
        self._loading: asyncio.Task[HttpFront] | None = None
        self._entrance: Entrance | None = None
        self._closed = False

    def protocol(self) -> asyncio.Protocol:
        """Return what serves one connection, whoever accepted it; over TLS that may begin much later."""
        return _Guest(self)

    def front(self) -> "asyncio.Task[HttpFront] | None":
        """Return what serves connections, or will; None: nothing does any more."""
        if self._closed:
            return None
        if self._loading is None or (self._loading.done() and _failed(self._loading)):
            self._loading = asyncio.create_task(self._load())
        return self._loading

    async def _load(self) -> "HttpFront":
        try:
            make = await asyncio.to_thread(self._load_library)
        except Exception:
            log.exception("cannot serve HTTP")
            raise
        return make(self.web)

    def _load_library(self) -> "type[HttpFront]":
        from .http_front import HttpFront  # noqa: PLC0415

        return HttpFront

    async def listen(self, listen: str, tls: TlsFiles | None) -> int:
        """Take connections at "host:port"; return the port. Raises OSError naming the address."""
        host, _, port = listen.rpartition(":")
        try:
            context = None if tls is None else server_tls(str(tls.cert), str(tls.key), str(tls.ca))
            self._entrance = Entrance(self.protocol, Room(SPARE_FILES), tls=context)
            return await self._entrance.open(host.strip("[]"), int(port))
        except OSError as exc:
            raise OSError(f"http_listen {listen}: {exc}") from exc

    async def stop(self) -> None:
        """End every call; whoever knocks from now on, or waits still, is sent away."""
        self._closed = True
        if self._entrance is not None:
            self._entrance.close()
        if (loading := self._loading) is not None:
            await asyncio.wait({loading})
            if not _failed(loading):
                await loading.result().stop()


class _Guest(asyncio.Protocol):
    """A connection that has just begun: it is sent on, or waits, or is sent away, as the door stands in that moment.

    While it waits for the library it takes only what is there already of what its client says.
    """

    def __init__(self, door: HttpDoor) -> None:
        self._door = door
        self._early = b""
        self._transport: asyncio.Transport | None = None
        self._entered: asyncio.Protocol | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Go on, or wait."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not derive from it
        front = self._door.front()
        if front is None:
            self._transport.abort()
        elif front.done():
            self._enter(front.result(), self._transport)
        else:
            self._transport.pause_reading()
            front.add_done_callback(self._go_on)

    def data_received(self, data: bytes) -> None:
        """Keep what came before the wait, or pass it on: our own front brings it only now."""
        if self._entered is not None:
            self._entered.data_received(data)
        else:
            self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        del exc
        self._transport = None

    def _go_on(self, loaded: "asyncio.Task[HttpFront]") -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if _failed(loaded) or self._door.front() is None:
            transport.abort()
            return
        self._enter(loaded.result(), transport)
        transport.resume_reading()

    def _enter(self, front: "HttpFront", transport: asyncio.Transport) -> None:
        self._entered = front.protocol()
        transport.set_protocol(self._entered)
        self._entered.connection_made(transport)
        if self._early:
            self._entered.data_received(self._early)


def _failed(loading: "asyncio.Task[HttpFront]") -> bool:
    return loading.cancelled() or loading.exception() is not None
