"""An asyncio gRPC client: one connection to one server, made anew when it is needed.

What fails is told by ``CallFailed``: UNAVAILABLE means that nobody can be reached; where a call may have been taken up
before the connection broke, the message says so, for the server may have done what was asked. Why nobody was reached
is its ``__cause__``: ConnectionRefusedError, say.
"""

import asyncio
import ssl
from functools import partial
from typing import Any

from . import calls
from .calling import ClientCall
from .calls import CallFailed, Metadata, Status
from .connection import Refused
from .wire import ChannelConfig, Wire

__all__ = ["Channel", "ChannelConfig", "ClientCall", "client_tls"]

_MOST_CONNECTIONS = 3  # on which one call waits for its turn: servers go away now and then, but not all the time


class Channel:
    """Calls to one server.

    target: "host:port". tls: with it, everything is encrypted; server_name: what the server's certificate has to name,
    if that is not the target's host.
    """

    def __init__(
        self,
        target: str,
        *,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        config: ChannelConfig | None = None,
    ) -> None:
        host, _, port = target.rpartition(":")
        self.target = target
        self._host, self._port = host.strip("[]"), int(port)
        self._tls = tls
        if tls is not None:
            tls.set_alpn_protocols(["h2"])
        self._server_name = server_name
        self._config = config or ChannelConfig()
        self._wire: Wire | None = None  # for new calls, while it is alive
        self._wires: set[Wire] = set()  # this one, and those that are going away with calls under way
        self._connecting: asyncio.Task[Wire | CallFailed] | None = None  # whoever wants to call waits for the same
        self._closed = False

    async def connect(self) -> None:
        """Be connected. Raises CallFailed (UNAVAILABLE)."""
        await self._connected(None)

    @property
    def connected(self) -> bool:
        """Return whether a connection stands, as far as is known."""
        return self._wire is not None and self._wire.is_alive

    @property
    def peer_certificate(self) -> dict[str, Any]:
        """Return the server's verified certificate as ``ssl`` describes it; empty while there is none."""
        transport = self._wire.transport if self._wire is not None else None
        return (transport.get_extra_info("peercert") if transport is not None else None) or {}

    async def unary(
        self, path: str, request: bytes, *, timeout_s: float | None = None, metadata: Metadata = ()
    ) -> bytes:
        """Send one message, return the one that answers it. Raises CallFailed."""
        call = await self.start(path, timeout_s=timeout_s, metadata=metadata)
        try:
            await call.send(request, end=True)
            response = await call.receive()
            if response is None:
                raise CallFailed(Status.INTERNAL, "no message came")
            if await call.receive() is not None:
                raise CallFailed(Status.INTERNAL, "more than one message came")
        finally:
            call.cancel()
        return response

    async def start(self, path: str, *, timeout_s: float | None = None, metadata: Metadata = ()) -> ClientCall:
        """Begin a call of any kind, to end within ``timeout_s``. Raises CallFailed (UNAVAILABLE, DEADLINE_EXCEEDED).

        While the server takes no more calls at once, it waits for its turn; nothing of it is sent then.
        """
        call = self.start_now(path, timeout_s=timeout_s, metadata=metadata)
        return call if call is not None else await self._start_later(path, timeout_s, metadata)

    def start_now(self, path: str, *, timeout_s: float | None = None, metadata: Metadata = ()) -> ClientCall | None:
        """Begin a call as ``start`` does, if it would not have to wait for anything; else return None."""
        wire = self._wire
        if wire is None or not wire.is_alive:
            return None
        try:
            return self._begin(wire, path, timeout_s, metadata)
        except Refused:
            return None

    async def _start_later(self, path: str, timeout_s: float | None, metadata: Metadata) -> ClientCall:
        until_s = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        for _ in range(_MOST_CONNECTIONS):
            wire = await self._connected(_left_s(until_s))
            begin = partial(self._begin_by, wire, path, until_s, metadata)
            call = await wire.turns.wait(begin, _left_s(until_s))
            if call is not None:
                return call
        raise CallFailed(Status.UNAVAILABLE, f"{self.target} goes away before a call can begin, again and again")

    def _begin_by(self, wire: Wire, path: str, until_s: float | None, metadata: Metadata) -> ClientCall:
        return self._begin(wire, path, _left_s(until_s), metadata)

    def _begin(self, wire: Wire, path: str, timeout_s: float | None, metadata: Metadata) -> ClientCall:
        """Begin a call here and now. Raises Refused."""
        scheme = "http" if self._tls is None else "https"
        fields = calls.call_fields(path, authority=self.target, scheme=scheme, metadata=metadata, timeout_s=timeout_s)
        stream = wire.http.open(fields)
        call = wire.calls[stream] = ClientCall(wire, stream, self._config.max_message_bytes)
        if timeout_s is not None:
            call.set_timeout(timeout_s)
        wire.flush_soon()
        return call

    async def close(self) -> None:
        """Hang up, on connections that are going away too; calls under way fail."""
        self._closed = True
        if (connecting := self._connecting) is not None:
            connecting.cancel()
            await asyncio.wait({connecting})
        for wire in tuple(self._wires):
            wire.close("this channel is closed")
        self._wire = None
        await asyncio.sleep(0)

    async def _connected(self, timeout_s: float | None) -> Wire:
        if self._closed:
            raise CallFailed(Status.UNAVAILABLE, "this channel is closed")
        if self._wire is not None and self._wire.is_alive:
            return self._wire
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
        connecting = self._connecting
        done, _ = await asyncio.wait({connecting}, timeout=timeout_s)
        if not done:
            raise CallFailed(Status.DEADLINE_EXCEEDED, f"{self.target} was not reached in time")
        if connecting.cancelled():
            raise CallFailed(Status.UNAVAILABLE, "this channel is closed")
        made = connecting.result()
        if isinstance(made, CallFailed):
            raise CallFailed(made.status, made.message) from made.__cause__
        if not made.is_alive:
            raise CallFailed(Status.UNAVAILABLE, f"{self.target} hung up at once")
        return made

    async def _connect(self) -> Wire | CallFailed:
        """Return a failure instead of raising it: there may be nobody left to hear of it."""
        loop = asyncio.get_running_loop()
        name = (self._server_name or self._host) if self._tls is not None else None
        try:
            async with asyncio.timeout(self._config.connect_timeout_s + self._config.patience_s()):
                _, wire = await loop.create_connection(
                    lambda: Wire(self._config, self._lost),
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=name,
                )
        except (OSError, TimeoutError, ssl.SSLError, UnicodeError) as exc:  # the last of a name that can be none
            failed = CallFailed(Status.UNAVAILABLE, f"{self.target} cannot be reached: {exc or 'timed out'}")
            failed.__cause__ = exc
            return failed
        finally:
            self._connecting = None
        if wire.transport is not None:  # it may be lost already
            self._wire = wire
            self._wires.add(wire)
        return wire

    def _lost(self, wire: Wire) -> None:
        self._wires.discard(wire)
        if self._wire is wire:
            self._wire = None


def _left_s(until_s: float | None) -> float | None:
    return None if until_s is None else until_s - asyncio.get_running_loop().time()


def client_tls(ca: str, cert: str | None = None, key: str | None = None) -> ssl.SSLContext:
    """Return a TLS context from PEM files: whom to trust, and who we are if the server wants to know."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context
