"""``kubectl exec`` and ``attach``: the client's streams, by SPDY or websocket, joined to the node agent's call."""

import asyncio
import base64
import binascii
import json
import logging
from collections.abc import Mapping
from typing import Any, Protocol

import grpc
from aiohttp import WSMsgType, web

from api.errors import BadRequest, InternalError
from master.rest.agent_errors import refusal
from master.rest.duplex import TakenOver
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

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
SPDY_PROTOCOLS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
WEBSOCKET_PROTOCOLS = (
    "v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "v3.channel.k8s.io",
    "v3.base64.channel.k8s.io", "v2.channel.k8s.io", "v2.base64.channel.k8s.io", "channel.k8s.io",
    "base64.channel.k8s.io",
)  # fmt: skip
# Those whose error stream carries a Status; older ones carry plain text.
_STATUS_PROTOCOLS = ("v4.", "v5.")
STREAMS_WITHIN_S = 30.0
SIZE_BYTES = 256  # of what tells a terminal's size


class Sink(Protocol):
    """Takes what the client sends."""

    async def stdin(self, data: bytes) -> None:
        """Take input."""

    async def stdin_closed(self) -> None:
        """Take the end of the input."""

    async def resize(self, width: int, height: int) -> None:
        """Take a new size of the client's terminal."""


class Peer(Protocol):
    """The client's side of one command, whichever way it speaks."""

    async def pump(self, sink: Sink) -> None:
        """Hand on what the client sends; return when the client has gone."""

    async def output(self, channel: int, data: bytes) -> None:
        """Send output on STDOUT or STDERR."""

    async def finish(self, status: Mapping[str, Any]) -> None:
        """Tell how the command ended, and hang up."""


def _parse_size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height), or None for what is no terminal size."""
    try:
        size = json.loads(data)
        width, height = int(size["Width"]), int(size["Height"])
    except (ValueError, TypeError, KeyError):
        return None
    return (width, height) if 0 < width < 65536 and 0 < height < 65536 else None


def _error_text(protocol: str, status: Mapping[str, Any]) -> bytes:
    if protocol.startswith(_STATUS_PROTOCOLS):
        return json.dumps(status).encode()
    return b"" if status["status"] == "Success" else str(status["message"]).encode()


class WebsocketPeer:
    """Channels as the first byte (or, in base64 forms, character) of each message."""

    def __init__(self, socket: web.WebSocketResponse, protocol: str) -> None:
        self._socket = socket
        self._protocol = protocol
        self._base64 = "base64" in protocol

    async def pump(self, sink: Sink) -> None:
        """Hand on messages until the socket closes."""
        async for message in self._socket:
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT) or not message.data:
                continue
            channel, data = self._split(message.data)
            if channel == STDIN:
                await sink.stdin(data)
            elif channel == RESIZE and (size := _parse_size(data)) is not None:
                await sink.resize(*size)
            elif channel == CLOSE and data == bytes([STDIN]):
                await sink.stdin_closed()

    def _split(self, data: str | bytes) -> tuple[int, bytes]:
        raw = data.encode() if isinstance(data, str) else bytes(data)
        if not self._base64:
            return raw[0], raw[1:]
        try:
            return raw[0] - ord("0"), base64.b64decode(raw[1:], validate=True)
        except binascii.Error:
            return -1, b""

    async def output(self, channel: int, data: bytes) -> None:
        """Send one message."""
        if self._base64:
            await self._socket.send_str(f"{channel}{base64.b64encode(data).decode()}")
        else:
            await self._socket.send_bytes(bytes([channel]) + data)

    async def finish(self, status: Mapping[str, Any]) -> None:
        """Send the status and close."""
        if text := _error_text(self._protocol, status):
            await self.output(ERROR, text)
        await self._socket.close()


class SpdyPeer:
    """One SPDY stream for each channel."""

    def __init__(self, session: SpdySession, streams: Mapping[str, SpdyStream], protocol: str) -> None:
        self._session = session
        self._streams = streams
        self._protocol = protocol
        self.gone = asyncio.Event()

    async def pump(self, sink: Sink) -> None:
        """Hand on stdin and resizes until the client has gone."""
        async with asyncio.TaskGroup() as tasks:
            if "stdin" in self._streams:
                tasks.create_task(self._pump_stdin(self._streams["stdin"], sink))
            if "resize" in self._streams:
                tasks.create_task(self._pump_sizes(self._streams["resize"], sink))
            tasks.create_task(self._wait_until_gone())

    async def _wait_until_gone(self) -> None:
        await self.gone.wait()

    async def _pump_stdin(self, stream: SpdyStream, sink: Sink) -> None:
        while data := await stream.read():
            await sink.stdin(data)
        await sink.stdin_closed()

    async def _pump_sizes(self, stream: SpdyStream, sink: Sink) -> None:
        buffered = b""
        while data := await stream.read():
            # One JSON object after the other; a frame need not hold a whole one.
            *lines, buffered = (buffered + data).replace(b"}", b"}\n").split(b"\n")
            if len(buffered) > SIZE_BYTES:
                buffered = b""  # no size, and no end of it to wait for
            for line in lines:
                if (size := _parse_size(line)) is not None:
                    await sink.resize(*size)

    async def output(self, channel: int, data: bytes) -> None:
        """Send on the stream of a channel, if the client opened it."""
        stream = self._streams.get("stdout" if channel == STDOUT else "stderr")
        if stream is not None:
            await stream.write(data)

    async def finish(self, status: Mapping[str, Any]) -> None:
        """End the output streams, then the error stream with the status, then the connection."""
        for name in ("stdout", "stderr"):
            if name in self._streams:
                await self._streams[name].finish()
        await self._streams["error"].write(_error_text(self._protocol, status))
        await self._streams["error"].finish()
        await self._session.close()


class _CallSink:
    """Writes the client's input into the call; one message at a time, as gRPC wants."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._turn = asyncio.Lock()

    async def _write(self, message: node_pb2.ExecInput) -> None:
        async with self._turn:
            if not self._call.done():  # a write that fails would hide what the agent said at the end
                await self._call.write(message)

    async def stdin(self, data: bytes) -> None:
        if data:
            await self._write(node_pb2.ExecInput(stdin=data))

    async def stdin_closed(self) -> None:
        await self._write(node_pb2.ExecInput(stdin_closed=True))

    async def resize(self, width: int, height: int) -> None:
        await self._write(node_pb2.ExecInput(resize=node_pb2.TerminalSize(width=width, height=height)))


def exit_status(code: int) -> dict[str, Any]:
    """Return the Status by which a client learns a command's exit code."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


async def run_command(stub: Stub, start: node_pb2.ExecStart, peer: Peer, *, node: str) -> None:
    """Join one command's call to the client until either ends."""
    call: Any = stub.Exec()
    input_task: asyncio.Task[None] | None = None
    try:
        await call.write(node_pb2.ExecInput(start=start))
        await call.initial_metadata()
        input_task = asyncio.create_task(_pump_or_cancel(peer, call))
        status = await _copy_output(call, peer, node)
    except grpc.aio.AioRpcError as error:
        status = refusal(error, node).status()
    finally:
        if input_task is not None:
            input_task.cancel()
            await asyncio.gather(input_task, return_exceptions=True)
        call.cancel()
    await peer.finish(status)


async def _pump_or_cancel(peer: Peer, call: Any) -> None:
    """Pump input; when the client has gone, nobody waits for the command any longer."""
    try:
        await peer.pump(_CallSink(call))
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError, ConnectionError):
        return  # the call ended first; its outcome says why
    call.cancel()


async def _copy_output(call: Any, peer: Peer, node: str) -> dict[str, Any]:
    async for message in call:
        match message.WhichOneof("output"):
            case "stdout":
                await peer.output(STDOUT, message.stdout)
            case "stderr":
                await peer.output(STDERR, message.stderr)
            case "exit_code":
                return exit_status(message.exit_code)
    return InternalError(f"the agent of node {node} did not say how the command ended").status()


async def serve_command(
    request: web.BaseRequest,
    stub: Stub,
    start: node_pb2.ExecStart,
    *,
    node: str,
) -> web.StreamResponse:
    """Upgrade the connection as the client asks, and run the command over it."""
    if wants_websocket(request):
        return await _serve_websocket(request, stub, start, node=node)
    check_spdy(request)
    return await _serve_spdy(request, stub, start, node=node)


async def _serve_websocket(
    request: web.BaseRequest, stub: Stub, start: node_pb2.ExecStart, *, node: str
) -> web.StreamResponse:
    offered = offered_subprotocols(request)
    if offered and not any(each in WEBSOCKET_PROTOCOLS for each in offered):
        raise BadRequest(f"no websocket protocol of {list(offered)} is served; these are: {list(WEBSOCKET_PROTOCOLS)}")
    socket = web.WebSocketResponse(protocols=WEBSOCKET_PROTOCOLS, compress=False, max_msg_size=1 << 22)
    await socket.prepare(request)
    peer = WebsocketPeer(socket, socket.ws_protocol or "channel.k8s.io")
    # An empty message tells the client that the streams are open.
    await peer.output(STDOUT if start.stdout else STDERR if start.stderr else ERROR, b"")
    await run_command(stub, start, peer, node=node)
    return socket


async def _serve_spdy(
    request: web.BaseRequest, stub: Stub, start: node_pb2.ExecStart, *, node: str
) -> web.StreamResponse:
    protocol = pick_spdy_protocol(request, SPDY_PROTOCOLS)
    connection = take_over_spdy(request, protocol)
    session = SpdySession(connection)
    reader = asyncio.create_task(session.run())
    try:
        streams = await _expected_streams(session, start, protocol)
        if streams is not None:
            peer = SpdyPeer(session, streams, protocol)
            reader.add_done_callback(lambda _: peer.gone.set())
            await run_command(stub, start, peer, node=node)
    except ConnectionError:
        log.debug("client left a command node=%s", node)
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        await connection.close()
    return TakenOver()


async def _expected_streams(
    session: SpdySession, start: node_pb2.ExecStart, protocol: str
) -> dict[str, SpdyStream] | None:
    """Return stream type -> stream once the client has opened all it said it would; None if it does not."""
    expected = {"error"} | {
        name for name, wanted in (("stdin", start.stdin), ("stdout", start.stdout), ("stderr", start.stderr)) if wanted
    }
    if start.tty and protocol.startswith(("v3.", *_STATUS_PROTOCOLS)):
        expected.add("resize")
    found: dict[str, SpdyStream] = {}
    try:
        async with asyncio.timeout(STREAMS_WITHIN_S):
            while expected - set(found):
                stream = await session.accept()
                if stream is None:
                    return None
                kind = stream.headers.get("streamtype", "")
                if kind in expected and kind not in found:
                    found[kind] = stream
                else:
                    await stream.reset()
    except TimeoutError:
        return None
    return found
