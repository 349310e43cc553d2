"""An asyncio gRPC server.

One protocol object a connection. All frames of one read are taken together: whatever calls they begin are begun before
anything is written, so handlers that gather work (a batch for a disk, say) gather all of it; and what those calls
answer goes out in one write for each connection and turn of the loop.

A handler gets decoded requests and a ``Call``. Streaming handlers run in a task of their own. So do unary ones, unless
their row says ``inline``: then the coroutine is driven right here, which costs a fifth. An inline handler may await
futures, but nothing that needs a task (``asyncio.timeout``, ``TaskGroup``), and it must come to an end by itself: a
client that gives up is not waited for, but the handler is not cancelled either. A ``BatchMethod`` has no coroutine at
all: it is handed calls by the lot, and answers them when it likes.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Iterable

from .asks import Ask, BatchMethod
from .calls import Status
from .deadlines import until_beat_s
from .entrance import Admits, Entrance, Room
from .hosting import Hosting
from .peer import Peer
from .serving import Call, Method, ServerConfig, StreamMethod, UnaryMethod
from .visits import Visit, Web

__all__ = [
    "Ask",
    "BatchMethod",
    "Call",
    "Method",
    "Server",
    "ServerConfig",
    "StreamMethod",
    "UnaryMethod",
    "Visit",
    "Web",
    "server_tls",
]

CLOSE_S = 0.2  # how long a client's half of a closing connection is waited for: TLS ends it with a word from each side

log = logging.getLogger(__name__)


class Server:
    """Serves methods on any number of addresses.

    on_end: called with path and status of calls that end, and how many they are.
    other_protocol: makes the protocol for connections that do not speak HTTP/2; without it they are closed.
    web: answers requests that come by HTTP/2 and are no calls; without it they are refused.
    """

    def __init__(
        self,
        methods: Iterable[Method],
        *,
        config: ServerConfig | None = None,
        on_end: Callable[[str, Status, int], None] | None = None,
        other_protocol: Callable[[], asyncio.Protocol] | None = None,
        web: Web | None = None,
    ) -> None:
        self._hosting = Hosting(
            {method.path: method for method in methods}, config or ServerConfig(), on_end, other_protocol, web
        )
        self._room = Room(self._hosting.config.spare_files)
        self._entrances: list[Entrance] = []
        self._keeper: asyncio.Task[None] | None = None

    async def listen(
        self, host: str | None, port: int, *, tls: ssl.SSLContext | None = None, admits: Admits | None = None
    ) -> int:
        """Begin to serve; return the port. Raises OSError if the address cannot be had.

        admits: says of a client's certificate whether its connection is kept; None: whom ``tls`` trusts is served.
        """
        if tls is not None:
            tls.set_alpn_protocols(["h2", "http/1.1"] if self._hosting.other_protocol else ["h2"])
        entrance = Entrance(lambda: Peer(self._hosting), self._room, tls=tls, admits=admits)
        bound = await entrance.open(host, port)
        self._entrances.append(entrance)
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_alive())
        return bound

    async def stop(self, grace_s: float) -> None:
        """Take nothing new, let calls finish for ``grace_s``, then end what is left with UNAVAILABLE."""
        for entrance in self._entrances:
            entrance.close()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        for peer in tuple(self._hosting.peers):
            peer.drain()
        await self._deserted(grace_s)
        tasks = [task for peer in tuple(self._hosting.peers) for task in peer.abandon()]
        await asyncio.gather(*tasks, return_exceptions=True)
        for peer in tuple(self._hosting.peers):
            peer.hang_up()
        await self._deserted(CLOSE_S)
        for peer in tuple(self._hosting.peers):
            peer.cut()
        await asyncio.sleep(0)  # a transport that was cut is closed in the next turn

    async def _deserted(self, within_s: float) -> None:
        """Return when no connection is open, or the time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._hosting.deserted.wait()

    async def _keep_alive(self) -> None:
        config = self._hosting.config
        every_s = min(config.keepalive_s, config.keepalive_timeout_s) / 2
        while True:
            await asyncio.sleep(until_beat_s(asyncio.get_running_loop().time(), every_s))
            timeout_s = config.keepalive_timeout_s + config.patience_s()
            for peer in tuple(self._hosting.peers):
                try:
                    peer.check_alive(config.keepalive_s, timeout_s, every_s=every_s)
                except Exception:
                    # One connection's fault; the others would never be looked at again.
                    log.exception("cannot look after a connection")
                    peer.hang_up()


def server_tls(cert: str, key: str, ca: str | None = None, *, optional: bool = False) -> ssl.SSLContext:
    """Return a TLS context from PEM files; with ``ca``, clients have to show a certificate of that authority.

    optional: they may come without one. One of another authority is refused all the same.
    Raises OSError, which ``ssl.SSLError`` is too, for files that cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # From 3.13 on Python asks for extensions of certificates that Go, and openssl unless told to, do not insist on.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.load_cert_chain(cert, key)
    if ca is not None:
        context.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
    return context
