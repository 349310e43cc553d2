"""One request as its handler sees it, and the answer that lasts."""

import asyncio
from collections import deque
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote

from multidict import CIMultiDictProxy, MultiDict, MultiDictProxy

from .heads import Head, Malformed
from .inflating import Inflater, pick_inflater
from .writing import LAST_CHUNK, frame_chunk, may_have_body, render_head

# Reading from the client pauses when this much of a body waits for the handler.
HIGH_WATER_BYTES = 256 * 1024
MAX_QUERY_FIELDS = 1000
# Longer queries are parsed anew each time: the memory stays small whatever clients send.
_REMEMBERED_LETTERS = 1024


class Connection(Protocol):
    """What a request needs of the connection that it came over."""

    @property
    def transport(self) -> asyncio.Transport | None:
        """Return the way to the client; None when it has gone."""

    def write(self, data: bytes) -> None:
        """Send, whatever waits already; raises ConnectionResetError."""

    async def drain(self) -> None:
        """Wait while the client does not take what was sent; raises ConnectionResetError."""

    def resume_reading(self) -> None:
        """Go on reading: there is room again."""


class Target:
    """Where a request goes: path and query as the client wrote them."""

    __slots__ = ("raw_path", "raw_query_string")

    def __init__(self, target: str) -> None:
        if not target.startswith("/"):
            target = _origin_form(target)
        self.raw_path, _, self.raw_query_string = target.partition("#")[0].partition("?")

    @property
    def query(self) -> MultiDictProxy[str]:
        """Return the parameters; raises Malformed for more than anybody needs."""
        text = self.raw_query_string
        return _parse_query(text) if len(text) <= _REMEMBERED_LETTERS else _parse_query.__wrapped__(text)


def _origin_form(target: str) -> str:
    """Return the path of a target in absolute form, which servers have to take (RFC 9112, 3.2.2)."""
    scheme, colon, rest = target.partition("://")
    if colon and scheme.lower() in ("http", "https"):
        return "/" + rest.partition("/")[2]
    return target


@lru_cache(maxsize=512)
def _parse_query(text: str) -> MultiDictProxy[str]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="surrogateescape", max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        raise Malformed(400, f"a query has at most {MAX_QUERY_FIELDS} parameters") from None
    return MultiDictProxy(MultiDict(pairs))


class Body:
    """The body of one request: it may still be coming while the request is served."""

    __slots__ = ("_chunks", "_connection", "_failure", "_owes_continue", "_waiter", "ended", "waiting_bytes")

    def __init__(self, connection: Connection, *, owes_continue: bool) -> None:
        self._connection = connection
        self._chunks: deque[bytes] = deque()
        self._owes_continue = owes_continue
        self._waiter: asyncio.Future[None] | None = None
        self._failure: Exception | None = None  # why there will be no more of it
        self.ended = False
        self.waiting_bytes = 0  # that have come and were not read

    def put(self, data: bytes) -> None:
        """Take what came; all the same whether it is read."""
        self._owes_continue = False
        self._chunks.append(data)
        self.waiting_bytes += len(data)
        self._wake()

    def finish(self) -> None:
        """It is complete."""
        self.ended = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """No more of it will come: whoever reads on is told ``error``."""
        if not self.ended:
            self._failure = error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def read(self) -> bytes:
        """Return all that has come, waiting for something; empty at the end.

        Raises ConnectionResetError when the client has gone, Malformed when what comes is no body.
        """
        while not self._chunks and not self.ended:
            if self._failure is not None:
                raise self._failure
            if self._owes_continue:
                self._owes_continue = False
                self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        data = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        was_full = self.waiting_bytes > HIGH_WATER_BYTES
        self.waiting_bytes = 0
        if was_full:
            self._connection.resume_reading()
        return data


class Stream:
    """An answer that goes on until its handler returns it. One task writes at a time."""

    __slots__ = ("_bodiless", "_chunked", "_connection", "status")

    def __init__(self, connection: Connection, *, status: int, chunked: bool, bodiless: bool) -> None:
        self._connection = connection
        self._chunked = chunked
        self._bodiless = bodiless
        self.status = status

    async def write(self, data: bytes) -> None:
        """Send, waiting while the client does not take it; raises ConnectionError when it has gone."""
        if not data or self._bodiless:
            return
        self._connection.write(frame_chunk(data) if self._chunked else data)
        await self._connection.drain()

    def end(self) -> None:
        """Say that this was all."""
        if self._chunked:
            self._connection.write(LAST_CHUNK)


class Request:
    """One request; its handler answers with a Response, or begins a Stream and returns that.

    memo: what handlers keep about the connection, from one of its requests to the next.
    """

    __slots__ = (
        "_connection", "_inflater", "_read_before", "_target", "body", "headers", "keep_alive", "kept_body", "memo",
        "method", "minor", "path_qs", "stream",
    )  # fmt: skip

    def __init__(self, head: Head, connection: Connection, memo: dict[str, Any]) -> None:
        self._connection = connection
        self._target: Target | None = None
        self._inflater: Inflater | None = None
        self._read_before = False
        self.method = head.method
        self.path_qs = head.target
        self.headers: CIMultiDictProxy[str] = head.fields.headers
        self.minor = head.minor
        self.memo = memo
        self.keep_alive = head.keeps_alive
        self.body = Body(connection, owes_continue=head.fields.expects_continue and bool(head.minor))
        self.kept_body = b""  # the whole body, once a handler has read it
        self.stream: Stream | None = None

    @property
    def rel_url(self) -> Target:
        """Return path and query."""
        if self._target is None:
            self._target = Target(self.path_qs)
        return self._target

    @property
    def path(self) -> str:
        """Return the path as it is meant."""
        return unquote(self.rel_url.raw_path)

    @property
    def content_length(self) -> int | None:
        """Return how long the client says that the body is."""
        text = self.headers.get("Content-Length")
        return None if text is None else int(text)

    @property
    def connection(self) -> str:
        """Return what the answer says of the connection; a client of HTTP/1.0 has to be told that it stays."""
        if not self.keep_alive:
            return "close"
        return "" if self.minor else "keep-alive"

    @property
    def transport(self) -> asyncio.Transport | None:
        """Return the way to the client; None when it has gone."""
        return self._connection.transport

    @property
    def remote(self) -> str | None:
        """Return the client's address."""
        transport = self._connection.transport
        peer = transport.get_extra_info("peername") if transport is not None else None
        return str(peer[0]) if isinstance(peer, tuple) and peer else None

    async def read_some(self) -> bytes:
        """Return what has come of the body, inflated; empty at its end; raises ConnectionResetError, Malformed."""
        if not self._read_before:
            self._read_before = True
            self._inflater = pick_inflater(self.headers.get("Content-Encoding", ""))
        if self._inflater is None:
            return await self.body.read()
        while not (piece := self._inflater.take()):
            data = await self.body.read()
            if not data:
                self._inflater.finish()
                return b""
            self._inflater.feed(data)
        return piece

    async def begin(self, headers: dict[str, str], *, code: int = 200) -> Stream:
        """Begin an answer whose length is not known."""
        bodiless = self.method == "HEAD" or not may_have_body(code)
        chunked = self.minor > 0 and not bodiless
        # A body that nobody read cannot be told from the next request.
        self.keep_alive = self.keep_alive and (chunked or bodiless)
        head = render_head(code, headers.items(), length=None, chunked=chunked, connection=self.connection)
        self.stream = Stream(self._connection, status=code, chunked=chunked, bodiless=bodiless)
        self._connection.write(head)
        return self.stream
