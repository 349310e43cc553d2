"""HTTP/1.1 by aiohttp. Loaded by ``http_door`` when it is needed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError

from .observe import Query
from .web import Web, head

STOP_S = 1.0

log = logging.getLogger(__name__)


class HttpFront:
    """Serves one member's gateway and what its observer tells."""

    def __init__(self, web_: Web) -> None:
        self._web = web_
        # Whoever hangs up ends the call: a watch has perhaps nothing to write for hours.
        self._server = web.Server(
            self._handle,
            request_factory=_request,
            handler_cancellation=True,
            auto_decompress=False,  # etcd takes bodies as they are, and so do we by HTTP/2
            access_log=None,
            logger=_Log(log, {}),
        )

    def protocol(self) -> asyncio.Protocol:
        """Return what serves one connection."""
        return self._server()

    async def stop(self) -> None:
        """End every call."""
        await self._server.shutdown(STOP_S)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        exchange = _Exchange(request)
        await self._web.serve(exchange)
        if exchange.streams:
            await exchange.response.write_eof()
        return exchange.response


class _Log(logging.LoggerAdapter[logging.Logger]):
    """What the library logs: whatever a client says that is no HTTP is told to it, and is no fault of ours."""

    def exception(self, msg: object, *args: object, exc_info: Any = True, **more: Any) -> None:
        if isinstance(exc_info, HttpProcessingError):
            self.debug(f"{msg} reason=%r", *args, exc_info)
        else:
            super().exception(msg, *args, exc_info=exc_info, **more)


class _Exchange:
    """A ``web.Exchange`` by HTTP/1.1."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self.method = request.method
        self.path = request.path
        self.query: Query = {name: request.query.getall(name) for name in request.query}
        self.response: web.StreamResponse
        self.streams = False

    def headers(self) -> Iterable[tuple[str, str]]:
        return ((name.lower(), value) for name, value in self._request.headers.items())

    def chunks(self) -> AsyncIterator[bytes]:
        return aiter(self._request.content.iter_any())

    async def answer(self, status: int, content_type: str, content: bytes, *, allow: str = "") -> None:
        self.response = web.Response(status=status, body=content, headers=head(content_type, allow))

    async def begin(self, content_type: str) -> None:
        self.response, self.streams = web.StreamResponse(headers=head(content_type)), True
        await self.response.prepare(self._request)

    async def write(self, data: bytes) -> None:
        await self.response.write(data)


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    return web.BaseRequest(message, payload, protocol, writer, task, asyncio.get_running_loop())
