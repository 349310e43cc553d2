"""How connections enter: whether there is room for one more, then TLS, then whose certificate it shows.

Theory of operation
-------------------
Room is asked for when a connection is accepted, before its TLS begins: one whose client never says a word holds a
descriptor like any other. So every connection is taken plain, by a ``_Newcomer``, and TLS is put around it here.

``start_tls`` is driven by hand. Its first step has to be done before ``connection_made`` returns: uvloop reads from
then on, paused or not, and a task of its own would begin when the first bytes have come to the wrong protocol.
Whoever speaks TLS 1.3 sends its first data with the end of its handshake; asyncio hands that out before ``start_tls``
has returned, so it is kept until somebody is there to take it.
"""

import asyncio
import logging
import math
import resource
import ssl
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, cast

log = logging.getLogger(__name__)

HANDSHAKE_S = 10.0  # for all of it; asyncio would wait for a minute
BACKLOG = 1024

Admits = Callable[[Mapping[str, Any]], bool]  # whether a client with that verified certificate is served


class Room:
    """How many descriptors connections may take."""

    def __init__(self, spare_files: int) -> None:
        """spare_files: how many they leave to the rest of the process, but half of all at most; 0: none."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        bounded = spare_files and limit != resource.RLIM_INFINITY
        self.most_files: float = max(limit - spare_files, limit // 2) if bounded else math.inf
        self._full = False

    def has(self, transport: asyncio.BaseTransport) -> bool:
        """Return whether a connection leaves enough for the rest of the process.

        The kernel gives out the lowest number that is free: a high one says that nearly all are taken, by whatever.
        """
        made = transport.get_extra_info("socket")
        return made is None or self.has_for(made.fileno())

    def has_for(self, descriptor: int) -> bool:
        """See ``has``."""
        if descriptor >= self.most_files:
            if not self._full:
                log.warning("clients are refused: nearly all files are open descriptor=%d", descriptor)
            self._full = True
            return False
        if self._full and descriptor < self.most_files - self.most_files // 8:
            self._full = False
            log.info("clients are let in again")
        return True


class Entrance:
    """An address at which connections are taken.

    inside: makes the protocol of one that may enter.
    admits: says of a client's certificate whether its connection is kept; None: whom ``tls`` trusts is served.
    """

    def __init__(
        self,
        inside: Callable[[], asyncio.Protocol],
        room: Room,
        *,
        tls: ssl.SSLContext | None = None,
        admits: Admits | None = None,
    ) -> None:
        self.inside = inside
        self.room = room
        self.tls = tls
        self.admits = admits
        self.closed = False
        self.newcomers: set[_Newcomer] = set()  # whose TLS has begun and not ended
        self._listener: asyncio.Server | None = None

    async def open(self, host: str | None, port: int) -> int:
        """Begin to take connections; return the port. Raises OSError if the address cannot be had."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: _Newcomer(self), host, port, backlog=BACKLOG)
        bound: int = self._listener.sockets[0].getsockname()[1]
        return bound

    def close(self) -> None:
        """Take no more, and cut whoever has not entered yet; those inside stay."""
        self.closed = True
        if self._listener is not None:
            self._listener.close()
        for newcomer in tuple(self.newcomers):
            newcomer.cut()


class _Newcomer(asyncio.Protocol):
    """A connection that was just accepted."""

    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance
        self._plain: asyncio.Transport | None = None  # while its TLS is under way
        self._securing: Coroutine[Any, Any, asyncio.Transport | None] | None = None
        self._early = b""  # what came with the end of the handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Enter, or begin TLS."""
        plain = cast("asyncio.Transport", transport)  # uvloop's does not derive from it
        entrance = self._entrance
        if entrance.closed or not entrance.room.has(plain):
            _turn_away(plain)
        elif entrance.tls is None:
            self._enter(plain)
        else:
            self._plain = plain
            entrance.newcomers.add(self)
            self._securing = asyncio.get_running_loop().start_tls(
                plain, self, entrance.tls, server_side=True, ssl_handshake_timeout=HANDSHAKE_S
            )
            self._step(None)

    def data_received(self, data: bytes) -> None:
        """Keep what comes before ``start_tls`` has returned: no more than one read brings."""
        self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up; ``start_tls`` ends too, or has ended."""
        del exc
        self._leave()

    def cut(self) -> None:
        """Close the connection at once."""
        plain, securing = self._plain, self._securing
        self._leave()
        if plain is not None and securing is not None:
            plain.abort()
            securing.close()  # nobody would drive it to its end

    def _step(self, waited_for: "asyncio.Future[None] | None") -> None:
        """Drive ``start_tls`` to its next wait, or to its end."""
        del waited_for
        if self._securing is None:
            return
        try:
            future = self._securing.send(None)
        except StopIteration as stop:
            secured: asyncio.Transport | None = stop.value
            self._leave()
            if secured is not None and not secured.is_closing():  # else the client hung up meanwhile
                self._enter(secured)
        except OSError as exc:  # as all of TLS are
            self._leave()
            log.debug("no TLS reason=%s", exc)
        else:
            future._asyncio_future_blocking = False  # noqa: SLF001 - what a task does too when it takes a future
            future.add_done_callback(self._step)

    def _leave(self) -> None:
        self._plain = self._securing = None
        self._entrance.newcomers.discard(self)

    def _enter(self, transport: asyncio.Transport) -> None:
        """Hand the connection over to whom it is for, if its certificate will do."""
        entrance = self._entrance
        if entrance.admits is not None and not entrance.admits(transport.get_extra_info("peercert") or {}):
            _turn_away(transport)
            return
        protocol = entrance.inside()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        early, self._early = self._early, b""
        if early:
            try:
                protocol.data_received(early)
            except BaseException:
                transport.abort()  # as loops do when they hand out data, and nobody would answer any more
                raise


def _turn_away(transport: asyncio.Transport) -> None:
    transport.set_protocol(asyncio.Protocol())  # what it has sent already is for nobody
    transport.abort()
