"""An asyncio server of HTTP/1.1."""

import asyncio
import contextlib
import logging
import ssl

from .peer import Config, Handler, Hosting, Peer

__all__ = ["Config", "Handler", "Hosting", "Server"]

log = logging.getLogger(__name__)

SWEEP_S = 1.0
HANDSHAKE_S = 20.0


class Server:
    """Serves on any number of addresses until it is stopped."""

    def __init__(self, hosting: Hosting) -> None:
        self._hosting = hosting
        self._listeners: list[asyncio.Server] = []
        self._sweeper: asyncio.Task[None] | None = None

    async def listen(self, host: str | None, port: int, *, tls: ssl.SSLContext | None = None) -> tuple[str, int]:
        """Begin to serve; return address and port. Raises OSError if the address cannot be had."""
        if tls is not None:
            tls.set_alpn_protocols(["http/1.1"])
        listener = await asyncio.get_running_loop().create_server(
            lambda: Peer(self._hosting),
            host,
            port,
            ssl=tls,
            backlog=1024,
            reuse_address=True,
            ssl_handshake_timeout=HANDSHAKE_S if tls is not None else None,
        )
        self._listeners.append(listener)
        if self._sweeper is None:
            self._sweeper = asyncio.create_task(self._sweep())
        bound = listener.sockets[0].getsockname()
        return bound[0], bound[1]

    async def stop(self, grace_s: float) -> None:
        """Take nothing new, let requests finish for ``grace_s``, then cut what is left."""
        self._hosting.stopping = True
        for listener in self._listeners:
            listener.close()
        for peer in tuple(self._hosting.peers):
            peer.drain_and_close()
        tasks = [peer.task for peer in self._hosting.peers if peer.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for peer in tuple(self._hosting.peers):
            peer.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_S)
            for peer in tuple(self._hosting.peers):
                _look_after(peer, loop.time())


def _look_after(peer: Peer, now: float) -> None:
    """Check one connection; a fault of ours there costs that connection, and no other one its limits."""
    try:
        peer.check(now)
    except Exception:
        log.exception("connection not looked after, cut")
        with contextlib.suppress(Exception):
            peer.abort()
