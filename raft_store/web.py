"""What plain HTTP is answered, whichever version brings it: the gateway's paths, and what the observer tells.

HTTP/1.1 comes by ``http_front``, HTTP/2 by our own front.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Protocol
from urllib.parse import parse_qs, unquote

from fastgrpc.hpack import Fields
from fastgrpc.server import Visit

from .etcd_api.backend import MAX_REQUEST_BYTES
from .etcd_api.call import CallContext, context_of
from .etcd_api.errors import RpcError
from .etcd_api.front import CallCounts, LeaderGuard
from .etcd_api.gateway import Gateway, refusal, stream_refusal
from .etcd_api.json_form import Cutter
from .etcd_api.services import Method, StreamMethod, UnaryMethod
from .observe import JSON, TEXT, Handler, Query

MAX_BODY_BYTES = 2 * MAX_REQUEST_BYTES  # base64 makes a third more of it
METADATA = "grpc-metadata-"
# So that pages of any origin may ask, as etcd's default has it.
CORS = {
    "access-control-allow-headers": "accept, content-type, authorization",
    "access-control-allow-methods": "POST, GET, OPTIONS, PUT, DELETE",
    "access-control-allow-origin": "*",
}


class Exchange(Protocol):
    """A request, and the way back: one ``answer``, or ``begin`` and then ``write`` as often as there is news."""

    @property
    def method(self) -> str:
        """Return "GET", say."""

    @property
    def path(self) -> str:
        """Return the path, decoded."""

    @property
    def query(self) -> Query:
        """Return the query, decoded."""

    def headers(self) -> Iterable[tuple[str, str]]:
        """Return the request's headers, with names in lower case."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives."""

    async def answer(self, status: int, content_type: str, content: bytes, *, allow: str = "") -> None:
        """Answer; ``allow`` says which methods there are instead."""

    async def begin(self, content_type: str) -> None:
        """Begin a stream."""

    async def write(self, data: bytes) -> None:
        """Send a part of it."""


class Web:
    """Answers for one member."""

    def __init__(self, gateway: Gateway, routes: Mapping[str, Handler], guard: LeaderGuard, calls: CallCounts) -> None:
        self._gateway = gateway
        self._routes = routes
        self._guard = guard
        self._calls = calls

    async def visit(self, visit: Visit) -> None:
        """Answer a request that came by HTTP/2."""
        await self.serve(_Visited(visit))

    async def serve(self, exchange: Exchange) -> None:
        """Answer a request."""
        route = self._routes.get(exchange.path)
        method = self._gateway.method(exchange.path)
        if exchange.method == "OPTIONS":
            await exchange.answer(200, TEXT, b"")
        elif route is not None:
            await _tell(exchange, route)
        elif method is None:
            await exchange.answer(404, TEXT, b"Not Found\n")
        elif exchange.method != "POST":
            await exchange.answer(405, TEXT, b"Method Not Allowed\n", allow="POST")
        elif isinstance(method, UnaryMethod):
            await self._unary(exchange, method)
        else:
            await self._stream(exchange, method)

    async def _unary(self, exchange: Exchange, method: UnaryMethod) -> None:
        status, failed, call = 200, None, _about(exchange)
        body = bytearray()
        async for chunk in exchange.chunks():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                await exchange.answer(413, TEXT, b"Request Entity Too Large\n")
                return
        try:
            self._guard.check(call)
            content = await self._gateway.answer(method, bytes(body), call)
        except RpcError as exc:
            failed = exc
            status, content = refusal(exc)
        self._count(method, failed)
        await exchange.answer(status, JSON, content)

    async def _stream(self, exchange: Exchange, method: StreamMethod) -> None:
        failed, begun, call = None, False, _about(exchange)

        async def write(line: bytes) -> None:
            # The head goes with the first line, as from etcd: what fails before has a status of its own.
            nonlocal begun
            if not begun:
                begun = True
                await exchange.begin(JSON)
            await exchange.write(line)

        try:
            requests = await self._gateway.requests(method, _values(exchange))
            guarded = self._guard.check(call)
        except RpcError as exc:
            self._count(method, exc)
            status, content = refusal(exc)
            await exchange.answer(status, JSON, content)
            return
        status, line = 200, b""
        try:
            running = self._gateway.stream(method, requests, write, call)
            await (self._guard.run(running) if guarded else running)
        except RpcError as exc:
            failed = exc
            status, line = stream_refusal(exc)
        self._count(method, failed)
        if not begun:
            await exchange.answer(status, JSON, line)
        elif line:
            await exchange.write(line)

    def _count(self, method: Method, exc: RpcError | None) -> None:
        code = "OK" if exc is None else exc.code.name
        self._calls[f"{method.package}.{method.service}", method.method, code] += 1


async def _tell(exchange: Exchange, route: Handler) -> None:
    if exchange.method not in ("GET", "HEAD"):
        await exchange.answer(405, TEXT, b"Method Not Allowed\n", allow="GET, HEAD")
        return
    answer = await route(exchange.query)
    await exchange.answer(answer.status, answer.content_type, answer.body)


def _about(exchange: Exchange) -> CallContext:
    """Return what the headers say; the certificate of a gateway's client does not count, as with etcd."""
    metadata: dict[str, str] = {}
    for name, value in exchange.headers():
        if name == "authorization":
            metadata[name] = value
        elif name.startswith(METADATA):
            metadata[name.removeprefix(METADATA)] = value
    return context_of(metadata)


async def _values(exchange: Exchange) -> AsyncIterator[bytes]:
    """Iterate over the JSON values of a body as they arrive; the last one may be none."""
    cutter = Cutter()
    async for chunk in exchange.chunks():
        for value in cutter.feed(chunk):
            yield value
        if cutter.size > MAX_BODY_BYTES:
            break
    if rest := cutter.rest():
        yield rest


def head(content_type: str, allow: str = "") -> dict[str, str]:
    """Return the fields of a response's head."""
    return CORS | {"content-type": content_type} | ({"allow": allow} if allow else {})


def _fields(content_type: str, allow: str = "") -> Fields:
    return tuple((name.encode(), value.encode()) for name, value in head(content_type, allow).items())


class _Visited:
    """An ``Exchange`` by HTTP/2."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        path, _, query = visit.target.partition("?")
        self.method = visit.method
        self.path = unquote(path)
        self.query: Query = parse_qs(query, keep_blank_values=True)

    def headers(self) -> Iterable[tuple[str, str]]:
        return ((name.decode("latin-1"), value.decode("latin-1")) for name, value in self._visit.headers.fields)

    def chunks(self) -> AsyncIterator[bytes]:
        return self._visit.chunks()

    async def answer(self, status: int, content_type: str, content: bytes, *, allow: str = "") -> None:
        await self._visit.answer(status, _fields(content_type, allow), content)

    async def begin(self, content_type: str) -> None:
        self._visit.begin(200, _fields(content_type))

    async def write(self, data: bytes) -> None:
        await self._visit.send(data)
