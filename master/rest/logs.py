"""``kubectl logs``: the node agent's chunks as one plain text answer."""

import asyncio
import base64
from collections.abc import Mapping
from typing import Any

import grpc
from aiohttp import web

from api.durations import parse_time
from api.errors import BadRequest, Fault, invalid
from master.rest.agent_errors import refusal
from master.rest.node_agents import Stub
from master.rest.parameters import read_bool, read_int
from master.rest.upgrade import wants_websocket
from master.rest.watch import OpenStreams, send_or_cut
from trireme_pb.node import node_pb2

BASE64_PROTOCOL = "base64.binary.k8s.io"
WEBSOCKET_PROTOCOLS = ("binary.k8s.io", BASE64_PROTOCOL)
# How long a followed log may stay silent before the client learns at least that it is open.
HEADERS_WITHIN_S = 0.5


def read_request(query: Mapping[str, str], target: node_pb2.ContainerRef) -> node_pb2.LogsRequest:
    """Return what the query parameters ask of the node agent; raises Invalid for values that make no sense."""
    tail, limit, since = (read_int(query, name) for name in ("tailLines", "limitBytes", "sinceSeconds"))
    since_time = query.get("sinceTime", "")
    faults = []
    if tail is not None and tail < 0:
        faults.append(Fault("tailLines", f"Invalid value: {tail}: must be greater than or equal to 0"))
    if limit is not None and limit < 1:
        faults.append(Fault("limitBytes", f"Invalid value: {limit}: must be greater than 0"))
    if since is not None and since_time:
        faults.append(Fault("", "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"))
    elif since is not None and since < 1:
        faults.append(Fault("sinceSeconds", f"Invalid value: {since}: must be greater than 0"))
    if since_time and parse_time(since_time) is None:
        faults.append(Fault("sinceTime", f'Invalid value: "{since_time}": must be an RFC 3339 time'))
    if faults:
        raise invalid("PodLogOptions", target.pod, faults)
    request = node_pb2.LogsRequest(
        target=target,
        follow=read_bool(query, "follow"),
        previous=read_bool(query, "previous"),
        timestamps=read_bool(query, "timestamps"),
        since_time=since_time,
    )
    for name, value in (("tail_lines", tail), ("limit_bytes", limit), ("since_seconds", since)):
        if value is not None:
            setattr(request, name, value)
    return request


async def serve_logs(
    request: web.BaseRequest,
    stub: Stub,
    wanted: node_pb2.LogsRequest,
    *,
    node: str,
    headers: Mapping[str, str],
    streams: OpenStreams,
) -> web.StreamResponse:
    """Answer with the log. What goes wrong before its first bytes is answered as a Status, later it ends the log."""
    if wants_websocket(request):
        return await _serve_websocket(request, stub, wanted, node=node, streams=streams)
    if request.headers.get("Upgrade"):
        raise BadRequest("logs are served as plain text, or over a websocket")
    call: Any = stub.Logs(wanted)
    response = web.StreamResponse(
        headers={"Content-Type": "text/plain", "Cache-Control": "no-cache, private", **headers}
    )
    response.enable_chunked_encoding()
    reading = asyncio.ensure_future(call.read())
    try:
        await asyncio.wait({reading}, timeout=HEADERS_WITHIN_S if wanted.follow else None)
        if reading.done():
            reading.result()
        await response.prepare(request)
        with streams.added(call.cancel):
            while (chunk := await reading) is not grpc.aio.EOF:
                if chunk.data and not await send_or_cut(request, response, chunk.data):
                    break
                reading = asyncio.ensure_future(call.read())
    except grpc.aio.AioRpcError as error:
        if not response.prepared:
            raise refusal(error, node) from error
        if error.code() is not grpc.StatusCode.CANCELLED:
            await send_or_cut(request, response, f"\n{refusal(error, node).message}\n".encode())
    finally:
        reading.cancel()
        call.cancel()
    return response


async def _serve_websocket(
    request: web.BaseRequest, stub: Stub, wanted: node_pb2.LogsRequest, *, node: str, streams: OpenStreams
) -> web.StreamResponse:
    """Answer with the log, a message for each chunk; what goes wrong before the first is answered as a Status."""
    call: Any = stub.Logs(wanted)
    socket = web.WebSocketResponse(protocols=WEBSOCKET_PROTOCOLS, compress=False)
    reading = asyncio.ensure_future(call.read())
    leaving: asyncio.Task[None] | None = None
    try:
        await asyncio.wait({reading}, timeout=HEADERS_WITHIN_S)
        if reading.done():
            reading.result()
        await socket.prepare(request)
        leaving = asyncio.create_task(_until_closed(socket, call))
        with streams.added(call.cancel):
            while (chunk := await reading) is not grpc.aio.EOF:
                if socket.ws_protocol == BASE64_PROTOCOL:
                    await socket.send_str(base64.b64encode(chunk.data).decode())
                elif chunk.data:
                    await socket.send_bytes(chunk.data)
                reading = asyncio.ensure_future(call.read())
    except grpc.aio.AioRpcError as error:
        if not socket.prepared:
            raise refusal(error, node) from error
    except (ConnectionError, asyncio.CancelledError):
        if request.task.cancelling():
            raise
    finally:
        reading.cancel()
        call.cancel()
        if leaving is not None:
            leaving.cancel()
    await socket.close()
    return socket


async def _until_closed(socket: web.WebSocketResponse, call: Any) -> None:
    """End the call when the client goes away."""
    async for _ in socket:
        pass
    call.cancel()
