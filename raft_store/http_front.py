"""HTTP/1.1 by aiohttp: the paths of the gateway and of the observer. Loaded by ``http_door`` when it is needed."""

import asyncio
import codecs
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiohttp import web

from .etcd_api.backend import MAX_REQUEST_BYTES
from .etcd_api.call import CallContext, context_of
from .etcd_api.errors import Code, RpcError
from .etcd_api.front import CallCounts, LeaderGuard
from .etcd_api.gateway import Gateway, refusal, split_json, stream_refusal
from .etcd_api.services import Method, StreamMethod, UnaryMethod
from .observe import Handler, Query

MAX_BODY_BYTES = 2 * MAX_REQUEST_BYTES  # base64 makes a third more of it
JSON = "application/json"
METADATA = "grpc-metadata-"
STOP_S = 1.0


class HttpFront:
    """Serves one member's gateway and what its observer tells."""

    def __init__(self, gateway: Gateway, routes: Mapping[str, Handler], guard: LeaderGuard, calls: CallCounts) -> None:
        self._gateway = gateway
        self._routes = routes
        self._guard = guard
        self._calls = calls
        # Whoever hangs up ends the call: a watch has perhaps nothing to write for hours.
        self._server = web.Server(self._handle, request_factory=_request, handler_cancellation=True, access_log=None)

    def protocol(self) -> asyncio.Protocol:
        """Return what serves one connection."""
        return self._server()

    async def stop(self) -> None:
        """End every call."""
        await self._server.shutdown(STOP_S)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        route = self._routes.get(request.path)
        if route is not None:
            return await self._tell(request, route)
        method = self._gateway.method(request.path)
        if method is None:
            return web.Response(status=404, text="Not Found\n")
        if request.method != "POST":
            return web.Response(status=405, text="Method Not Allowed\n")
        call = _about(request)
        if isinstance(method, UnaryMethod):
            return await self._unary(request, method, call)
        return await self._stream(request, method, call)

    async def _tell(self, request: web.BaseRequest, route: Handler) -> web.Response:
        if request.method != "GET":
            return web.Response(status=405, text="Method Not Allowed\n", headers={"Allow": "GET"})
        query: Query = {name: request.query.getall(name) for name in request.query}
        answer = await route(query)
        return web.Response(status=answer.status, body=answer.body, headers={"Content-Type": answer.content_type})

    async def _unary(self, request: web.BaseRequest, method: UnaryMethod, call: CallContext) -> web.Response:
        status, failed = 200, None
        try:
            self._guard.check(call)
            body = await self._gateway.answer(method, await request.read(), call)
        except RpcError as exc:
            failed = exc
            status, body = refusal(exc)
        self._count(method, failed)
        return web.Response(status=status, body=body, content_type=JSON)

    async def _stream(self, request: web.BaseRequest, method: StreamMethod, call: CallContext) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": JSON})
        failed = None
        try:
            guarded = self._guard.check(call)
            await response.prepare(request)
            running = self._gateway.stream(method, _bodies(request), response.write, call)
            await (self._guard.run(running) if guarded else running)
        except RpcError as exc:
            failed = exc
            if not response.prepared:
                status, body = refusal(exc)
                return web.Response(status=status, body=body, content_type=JSON)
            await response.write(stream_refusal(exc))
        self._count(method, failed)
        await response.write_eof()
        return response

    def _count(self, method: Method, exc: RpcError | None) -> None:
        self._calls[_names(method, "OK" if exc is None else exc.code.name)] += 1


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY_BYTES)


def _names(method: Method, code: str) -> tuple[str, str, str]:
    return f"{method.package}.{method.service}", method.method, code


def _about(request: web.BaseRequest) -> CallContext:
    """Return what the headers say; the certificate of a gateway's client does not count, as with etcd."""
    metadata: dict[str, str] = {}
    for name, value in request.headers.items():
        lower = name.lower()
        if lower == "authorization":
            metadata[lower] = value
        elif lower.startswith(METADATA):
            metadata[lower.removeprefix(METADATA)] = value
    return context_of(metadata)


async def _bodies(request: web.BaseRequest) -> AsyncIterator[bytes]:
    """Iterate over the JSON values of a body as they arrive. Raises RpcError for what is none."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    async for chunk in request.content.iter_any():
        values, rest = split_json(rest + decoder.decode(chunk))
        for value in values:
            yield value.encode()
        if len(rest) > MAX_BODY_BYTES:
            break
    if rest:
        raise RpcError(Code.INVALID_ARGUMENT, f"this is no JSON: {rest[:40]}")
