"""Bytes to and from whoever answers a proxied request: a pod's port through its node's agent, a connection of our own,
and TLS over either.
"""

import asyncio
import contextlib
import ssl
from typing import Any, Protocol

import grpc

from api.errors import Unavailable
from api.kinds.pods import Pod
from master.rest.agent_errors import refusal
from master.rest.node_agents import Stub
from trireme_pb.node import node_pb2

DIAL_S = 10.0
_READ_BYTES = 65536


class Pipe(Protocol):
    """Bytes to and from whoever answers."""

    async def read(self) -> bytes:
        """Return the next bytes; empty at the end."""

    async def write(self, data: bytes) -> None:
        """Send."""

    def close(self) -> None:
        """Hang up."""


class AgentPipe:
    """A port of a pod, through its node's agent."""

    def __init__(self, call: Any, node: str) -> None:
        self._call = call
        self._node = node

    @classmethod
    async def open(cls, stub: Stub, pod: Pod, port: int) -> "AgentPipe":
        """Connect; what goes wrong is told by the first read."""
        call: Any = stub.PortForward()
        meta = pod.metadata
        start = node_pb2.PortForwardStart(namespace=meta.namespace, pod=meta.name, port=port)
        pipe = cls(call, pod.spec.node_name)
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(node_pb2.PortForwardData(start=start))
            await call.initial_metadata()
        return pipe

    async def read(self) -> bytes:
        """Return the next bytes; raises ApiError if the agent could not connect."""
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                if message.WhichOneof("content") == "closed":
                    return b""
                if message.data:
                    return bytes(message.data)
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"error trying to reach service: {refusal(error, self._node).message}") from error
        return b""

    async def write(self, data: bytes) -> None:
        """Send; a call that has ended says so when it is read."""
        if not self._call.done():
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self._call.write(node_pb2.PortForwardData(data=data))

    def close(self) -> None:
        """Hang up."""
        self._call.cancel()


class SocketPipe:
    """A connection of our own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, host: str, port: int) -> "SocketPipe":
        """Connect; raises Unavailable."""
        try:
            async with asyncio.timeout(DIAL_S):
                return cls(*await asyncio.open_connection(host, port))
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"error trying to reach service: dial tcp {host}:{port}: {error or 'timeout'}") from error

    async def read(self) -> bytes:
        """Return the next bytes."""
        try:
            return await self._reader.read(_READ_BYTES)
        except OSError:
            return b""

    async def write(self, data: bytes) -> None:
        """Send."""
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


class TlsPipe:
    """TLS over another pipe. Whoever answers may show any certificate: a pod has none that we could know."""

    def __init__(self, inner: Pipe, host: str) -> None:
        self._inner = inner
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        # What TLS makes goes out in the order in which it was made, whoever asked for it.
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, inner: Pipe, host: str) -> "TlsPipe":
        """Shake hands; raises Unavailable."""
        pipe = cls(inner, host)
        try:
            async with asyncio.timeout(DIAL_S):
                await pipe._shake_hands()
        except (ssl.SSLError, TimeoutError) as error:
            raise Unavailable(f"error trying to reach service: TLS: {error or 'timeout'}") from error
        return pipe

    async def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._take()
            else:
                return await self._flush()

    async def _flush(self) -> None:
        async with self._turn:
            if data := self._outgoing.read():
                await self._inner.write(data)

    async def _take(self) -> None:
        if data := await self._inner.read():
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def read(self) -> bytes:
        """Return the next bytes."""
        while True:
            try:
                return self._tls.read(_READ_BYTES)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._take()
            except (ssl.SSLZeroReturnError, ssl.SSLError):
                return b""  # ended in order, or broken: HTTP says where an answer ends

    async def write(self, data: bytes) -> None:
        """Send."""
        with contextlib.suppress(ssl.SSLError):  # the next read finds the end
            self._tls.write(data)
        await self._flush()

    def close(self) -> None:
        """Hang up."""
        self._inner.close()
