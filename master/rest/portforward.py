"""``kubectl port-forward``: each forwarded connection joined to a call of the node agent.

Three ways to speak: SPDY frames on the raw connection, the same frames inside websocket messages (kubectl since 1.31),
and one pair of websocket channels for each port (client libraries).
"""

import asyncio
import base64
import binascii
import logging
import struct
from typing import Any, Protocol

import grpc
from aiohttp import WSMsgType, web

from api.errors import BadRequest
from master.rest.agent_errors import refusal
from master.rest.duplex import Duplex, TakenOver, WebsocketConnection
from master.rest.node_agents import Stub
from master.rest.spdy_session import SpdySession, SpdyStream
from master.rest.upgrade import (
    check_spdy,
    offered_subprotocols,
    pick_spdy_protocol,
    take_over_spdy,
    wants_websocket,
)
from trireme_pb.node import node_pb2

log = logging.getLogger(__name__)

SPDY_PROTOCOL = "portforward.k8s.io"
TUNNELLED = f"SPDY/3.1+{SPDY_PROTOCOL}"
CHANNEL_PROTOCOLS = (
    "v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io",
)  # fmt: skip
PAIR_WITHIN_S = 30.0
MAX_WAITING = 64  # chunks from the client, for each port


class Forwarder:
    """Forwards ports of one pod."""

    def __init__(self, stub: Stub, *, namespace: str, pod: str, node: str) -> None:
        self._stub = stub
        self._namespace = namespace
        self._pod = pod
        self._node = node

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Upgrade the connection as the client asks, and forward until it goes away."""
        if not wants_websocket(request):
            check_spdy(request)
            protocol = pick_spdy_protocol(request, (SPDY_PROTOCOL,))
            connection = take_over_spdy(request, protocol)
            await self._serve_spdy(connection)
            return TakenOver()
        offered = offered_subprotocols(request)
        if TUNNELLED in offered:
            socket = web.WebSocketResponse(protocols=(TUNNELLED,), compress=False, max_msg_size=1 << 22)
            await socket.prepare(request)
            await self._serve_spdy(WebsocketConnection(socket))
            return socket
        if not any(each in CHANNEL_PROTOCOLS for each in offered):
            served = [TUNNELLED, *CHANNEL_PROTOCOLS]
            raise BadRequest(f"no websocket protocol of {list(offered)} is served; these are: {served}")
        ports = parse_ports(request.rel_url.query.getall("ports", []))
        socket = web.WebSocketResponse(protocols=CHANNEL_PROTOCOLS, compress=False, max_msg_size=1 << 22)
        await socket.prepare(request)
        await self._serve_channels(socket, ports, base64_="base64" in (socket.ws_protocol or ""))
        return socket

    async def _serve_spdy(self, duplex: Duplex) -> None:
        session = SpdySession(duplex)
        async with asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(session.run())
            accepting = tasks.create_task(self._accept_pairs(session, tasks))
            try:
                await reader
            finally:
                accepting.cancel()
        await session.close()

    async def _accept_pairs(self, session: SpdySession, tasks: asyncio.TaskGroup) -> None:
        """Join error and data streams that bear the same request number, and forward each pair."""
        loop = asyncio.get_running_loop()
        halves: dict[str, tuple[float, SpdyStream]] = {}
        while (stream := await session.accept()) is not None:
            for key, (since, half) in list(halves.items()):
                if loop.time() - since > PAIR_WITHIN_S:
                    del halves[key]
                    await half.reset()
            # Old clients number no requests: their error stream comes right before its data stream.
            key = stream.headers.get("requestid", "") or str((stream.number - 1) // 4)
            if key not in halves:
                halves[key] = (loop.time(), stream)
                continue
            _, first = halves.pop(key)
            pair = {each.headers.get("streamtype", ""): each for each in (first, stream)}
            if set(pair) != {"error", "data"}:
                await first.reset()
                await stream.reset()
                continue
            tasks.create_task(self._forward_pair(session, pair["error"], pair["data"]))

    async def _forward_pair(self, session: SpdySession, error: SpdyStream, data: SpdyStream) -> None:
        text = data.headers.get("port", "")
        try:
            if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536):
                await error.write(f"{text!r} is not a port".encode())
            else:
                problem = await self.forward(int(text), data)
                await error.write(problem.encode())
            await data.finish()
            await error.finish()
        except ConnectionError:
            log.debug("client left a forwarded connection pod=%s/%s", self._namespace, self._pod)
        finally:
            session.forget(data)
            session.forget(error)

    async def forward(self, port: int, side: "Side") -> str:
        """Copy both ways between a client's stream and a port of the pod; return what went wrong, or nothing."""
        call: Any = self._stub.PortForward()
        start = node_pb2.PortForwardStart(namespace=self._namespace, pod=self._pod, port=port)
        upstream: asyncio.Task[None] | None = None
        try:
            await call.write(node_pb2.PortForwardData(start=start))
            await call.initial_metadata()
            upstream = asyncio.create_task(_copy_in(side, call))
            async for message in call:
                match message.WhichOneof("content"):
                    case "data":
                        await side.write(message.data)
                    case "closed":
                        # The pod says no more. Clients close their side only once this is over.
                        await side.finish()
                        break
        except grpc.aio.AioRpcError as error:
            return f"an error occurred forwarding {port}: {refusal(error, self._node).message}"
        finally:
            if upstream is not None:
                upstream.cancel()
                await asyncio.gather(upstream, return_exceptions=True)
            call.cancel()
        return ""

    async def _serve_channels(self, socket: web.WebSocketResponse, ports: list[int], *, base64_: bool) -> None:
        channels = [_Channel(socket, 2 * index, base64_=base64_) for index in range(len(ports))]
        for channel, port in zip(channels, ports, strict=True):
            await channel.greet(port)
        forwards = asyncio.gather(*map(self._forward_channel, ports, channels), return_exceptions=True)
        # A channel has no end of its own: when nothing is forwarded any more, the socket's end tells the client.
        ending = asyncio.create_task(_close_after(forwards, socket))
        try:
            async for message in socket:
                number, data = _split(message.data, base64_=base64_)
                if message.type in (WSMsgType.BINARY, WSMsgType.TEXT) and number % 2 == 0 and number // 2 < len(ports):
                    await channels[number // 2].take(data)
        finally:
            forwards.cancel()
            ending.cancel()
            await asyncio.gather(forwards, ending, return_exceptions=True)
            await socket.close()

    async def _forward_channel(self, port: int, channel: "_Channel") -> None:
        try:
            if problem := await self.forward(port, channel):
                await channel.send(1, problem.encode())
        finally:
            channel.end()


class Side(Protocol):
    """The client's end of one forwarded connection."""

    async def read(self) -> bytes:
        """Return the next bytes; empty at the end."""

    async def write(self, data: bytes) -> None:
        """Send."""

    async def finish(self) -> None:
        """Send nothing more."""


async def _copy_in(side: Side, call: Any) -> None:
    while data := await side.read():
        if call.done():  # a write that fails would hide what the agent said at the end
            return
        await call.write(node_pb2.PortForwardData(data=data))
    if not call.done():
        await call.write(node_pb2.PortForwardData(closed=True))


async def _close_after(work: "asyncio.Future[Any]", socket: web.WebSocketResponse) -> None:
    await asyncio.wait({work})
    await socket.close()


class _Channel:
    """Two websocket channels: data, and one number higher errors."""

    def __init__(self, socket: web.WebSocketResponse, number: int, *, base64_: bool) -> None:
        self._socket = socket
        self._number = number
        self._base64 = base64_
        self._incoming: asyncio.Queue[bytes] = asyncio.Queue(MAX_WAITING)
        self._ended = False

    async def take(self, data: bytes) -> None:
        """Take what the client sends; waits while the pod does not. An empty message says nothing."""
        if data and not self._ended:
            await self._incoming.put(data)

    def end(self) -> None:
        """Take nothing more, and let go whoever waits to hand something in."""
        self._ended = True
        while not self._incoming.empty():
            self._incoming.get_nowait()

    async def greet(self, port: int) -> None:
        """Tell the port on both channels, which is how the client knows that they are open."""
        for offset in (0, 1):
            await self.send(offset, struct.pack("<H", port))

    async def send(self, offset: int, data: bytes) -> None:
        number = self._number + offset
        if self._base64:
            await self._socket.send_str(chr(ord("0") + number) + base64.b64encode(data).decode())
        else:
            await self._socket.send_bytes(bytes([number]) + data)

    async def read(self) -> bytes:
        return await self._incoming.get()

    async def write(self, data: bytes) -> None:
        await self.send(0, data)

    async def finish(self) -> None:
        """Do nothing: a channel cannot be half-closed."""


def _split(data: Any, *, base64_: bool) -> tuple[int, bytes]:
    raw = data.encode() if isinstance(data, str) else bytes(data or b"")
    if not raw:
        return -1, b""
    if not base64_:
        return raw[0], raw[1:]
    try:
        return raw[0] - ord("0"), base64.b64decode(raw[1:], validate=True)
    except binascii.Error:
        return -1, b""


def parse_ports(texts: list[str]) -> list[int]:
    """Return the ports of a ``ports`` query parameter, given several times or with commas."""
    words = [word for text in texts for word in text.split(",")]
    if not words:
        raise BadRequest('query parameter "port" is required')
    if len(words) > 64:
        raise BadRequest("at most 64 ports can be forwarded over one connection")
    ports = []
    for word in words:
        if not (word.isascii() and word.isdigit() and 0 < int(word[:6]) < 65536):
            raise BadRequest(f"unable to parse {word!r} as a port")
        ports.append(int(word))
    return ports
