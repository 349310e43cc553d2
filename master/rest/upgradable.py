"""The connections that become something else than HTTP: aiohttp speaks websockets, and lets go of what SPDY takes over.

``fasthttp`` hands them over with the bytes that came; they stay here until they end, whatever else they ask. Imported
when there is the first one: a master that nobody talks through is ready sooner, and smaller.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler
from multidict import MultiMapping

from api.errors import BadRequest
from fasthttp.inflating import Inflater, pick_inflater
from fasthttp.reading import MAX_HEAD_BYTES
from fasthttp.writing import CONTINUE, Response
from master.access.user import User
from master.rest.request import Request, Stream
from master.rest.routes import Target


def _not_the_clients_fault(record: logging.LogRecord) -> bool:
    """Keep aiohttp from logging a traceback for each request that is no HTTP: the client gets its 400."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


_log = logging.getLogger(__name__)
_log.addFilter(_not_the_clients_fault)


class Call(NamedTuple):
    """One request for what a client talks through, authenticated and authorized."""

    request: "UpgradableRequest"
    user: User
    target: Target
    query: MultiMapping[str]
    headers: dict[str, str]  # that every answer carries


Serve = Callable[[Request], Awaitable[Response | Stream]]


class UpgradableRequest(web.BaseRequest):
    """A request that may take its connection over, in the shape of ``master.rest.request.Request`` as well."""

    memo: dict[str, Any]
    kept_body: bytes
    owes_continue: bool  # the client waits for a word before it sends the body
    is_broken: bool  # where the next request begins is not known
    inflater: Inflater | None

    async def read_some(self) -> bytes:
        """Return what has come of the body, inflated; empty at its end. Raises BadRequest, Malformed."""
        if self.inflater is None:
            return await self.read_as_sent()
        while not (piece := self.inflater.take()):
            data = await self.read_as_sent()
            if not data:
                self.inflater.finish()
                return b""
            self.inflater.feed(data)
        return piece

    async def read_as_sent(self) -> bytes:
        """Return what has come of the body; empty at its end. Raises BadRequest for one that is not what it says."""
        if self.owes_continue and self.transport is not None:
            self.owes_continue = False
            self.transport.write(CONTINUE)
        try:
            return await self.content.readany()
        except web.RequestPayloadError as error:
            self.is_broken = True
            self.content.feed_eof()  # nothing more of it can be read, so aiohttp shall not try to
            why = " ".join(str(error).split())
            raise BadRequest(f"the body of the request cannot be read: {why}") from None

    async def begin(self, headers: dict[str, str]) -> Stream:
        """Begin an answer whose length is not known, with status 200."""
        response = web.StreamResponse(headers=headers)
        response.enable_chunked_encoding()
        await response.prepare(self)
        return response


class UpgradableServer:
    """Makes the protocol of each connection that is handed over.

    serve: what answers requests everywhere else, too.
    """

    def __init__(self, serve: Serve, *, keepalive_s: float) -> None:
        self._serve = serve
        self._server = web.Server(
            self._handle,
            request_factory=_make_request,
            handler_cancellation=True,
            keepalive_timeout=keepalive_s,
            # What was taken from the connection before is taken here, too: commands in a URL may be long.
            max_line_size=MAX_HEAD_BYTES,
            max_field_size=MAX_HEAD_BYTES,
            auto_decompress=False,  # what is passed on stays as it is
            access_log=None,
            logger=_log,
        )

    def __call__(self) -> RequestHandler:
        """Return the protocol for one connection."""
        return self._server()

    async def stop(self, grace_s: float) -> None:
        """Let requests finish for a while, close."""
        self._server.pre_shutdown()
        await self._server.shutdown(grace_s)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request, UpgradableRequest), request
        answer = await self._serve(request)
        if not isinstance(answer, Response):
            return cast("web.StreamResponse", answer)
        response = web.Response(status=answer.code, body=answer.body)
        for name, value in answer.headers:
            if name == "Content-Type":
                response.headers[name] = value
            else:
                response.headers.add(name, value)
        if request.is_broken:
            response.force_close()
        return response


def _make_request(
    message: RawRequestMessage, payload: StreamReader, protocol: RequestHandler, writer: AbstractStreamWriter, task: Any
) -> UpgradableRequest:
    request = UpgradableRequest(message, payload, protocol, writer, task, protocol._loop)  # noqa: SLF001 - as aiohttp's own does
    request.memo, request.kept_body, request.is_broken = {}, b"", False
    request.inflater = pick_inflater(message.headers.get("Content-Encoding", ""))
    request.owes_continue = message.headers.get("Expect", "").lower() == "100-continue"
    return request
