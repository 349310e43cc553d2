"""Two-way byte streams over a client's connection once HTTP is done with it: raw after an upgrade, or in websocket
messages.
"""

import asyncio
from collections import deque
from typing import Protocol

from aiohttp import WSMsgType, web

# Reading from the client pauses when this much waits for whoever takes it.
HIGH_WATER_BYTES = 1 << 20


class Duplex(Protocol):
    """Bytes in both directions."""

    async def read(self) -> bytes:
        """Return the next bytes; empty when the peer has gone."""

    async def write(self, data: bytes) -> None:
        """Send, waiting while the peer does not take it; raises ConnectionError when it has gone."""

    async def close(self) -> None:
        """End the connection after what was written."""


class RawConnection(asyncio.Protocol):
    """The connection itself, taken over from the HTTP server by ``take_over``."""

    def __init__(self, transport: asyncio.Transport, http: asyncio.Protocol) -> None:
        self._transport = transport
        self._http = http  # still owns the bookkeeping of the connection
        self._chunks: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = False

    def data_received(self, data: bytes) -> None:
        """Keep what the client sent."""
        self._chunks.append(data)
        self._waiting_bytes += len(data)
        self._arrived.set()
        if self._waiting_bytes > HIGH_WATER_BYTES:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Take the client's half-close for its end, as TLS does."""
        self._lost = True
        self._arrived.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake whoever waits, and let the HTTP server forget the connection, which cancels its handler."""
        self._lost = True
        self._arrived.set()
        self._writable.set()
        self._http.connection_lost(exc)

    def pause_writing(self) -> None:
        """Stop writers: the client does not take what was sent."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let writers go on."""
        self._writable.set()

    async def read(self) -> bytes:
        """Return all bytes that have come; empty at the end."""
        while not self._chunks:
            if self._lost:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        data = b"".join(self._chunks)
        self._chunks.clear()
        if self._waiting_bytes > HIGH_WATER_BYTES and not self._lost:
            self._transport.resume_reading()
        self._waiting_bytes = 0
        return data

    async def write(self, data: bytes) -> None:
        """Send, in order of the calls."""
        if self._lost:
            raise ConnectionResetError("the client has gone")
        self._transport.write(data)
        await self._writable.wait()

    async def close(self) -> None:
        """Close after what was written."""
        self._transport.close()


class TakenOver(web.StreamResponse):
    """What a handler returns when it has answered on the connection itself: the HTTP server writes nothing more."""

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write no headers."""
        del request

    async def write_eof(self, data: bytes = b"") -> None:
        """Write no end."""
        del data

    @property
    def keep_alive(self) -> bool | None:
        """Tell the HTTP server to wait for no other request."""
        return False


def take_over(request: web.BaseRequest, head: bytes) -> RawConnection:
    """Send ``head`` (the 101 answer) and return the connection, which the HTTP server reads no longer.

    Nothing may be awaited between the two, or bytes that arrive meanwhile would be parsed as HTTP.
    """
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client has gone")
    connection = RawConnection(transport, request.protocol)
    transport.write(head)
    transport.set_protocol(connection)
    return connection


class WebsocketConnection:
    """A byte stream cut into binary messages."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        """Return the next message's bytes."""
        while True:
            message = await self._socket.receive()
            match message.type:
                case WSMsgType.BINARY if message.data:
                    return bytes(message.data)
                case WSMsgType.BINARY | WSMsgType.TEXT | WSMsgType.PING | WSMsgType.PONG:
                    continue
            return b""

    async def write(self, data: bytes) -> None:
        """Send one message."""
        await self._socket.send_bytes(data)

    async def close(self) -> None:
        """Close in order."""
        await self._socket.close()
