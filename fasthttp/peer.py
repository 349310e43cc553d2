"""One connection of a server: its requests in their order, one at a time, and what becomes of it.

Requests that come before their turn wait, as many as MAX_PIPELINED and as much as HIGH_WATER_BYTES of a body; then the
connection is not read until there is room. A client that does not take its answer is not served another one.

Every wait has an end. What the front waits for is looked after here: heads that do not come (deadline), answers that
are not taken; what a handler waits for, a body say, is the handler's to limit.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec

from .heads import Head, Malformed
from .reading import MAX_HEAD_BYTES, Data, End, Reader
from .request import HIGH_WATER_BYTES, Request
from .writing import Response, may_have_body, render_head

log = logging.getLogger(__name__)

MAX_PIPELINED = 16
_JOINED_BYTES = 64 * 1024  # a body up to this goes out in one piece with its head

# Returns a Response; or anything else once it has begun a stream, which ends then.
Handler = Callable[[Request], Awaitable[object]]


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """How long a front waits, and for how much."""

    max_head_bytes: int = MAX_HEAD_BYTES
    head_s: float = 20.0  # from a connection, or the first byte of a request, to the end of its head
    keepalive_s: float = 180.0  # between requests
    write_s: float = 30.0  # for a client to take a whole answer before it gets another
    linger_s: float = 2.0  # for a client to read why its body was not wanted


class Hosting(msgspec.Struct, kw_only=True):
    """What all connections of a server share.

    handler: answers a request; what it raises, but for ConnectionError, is a fault of ours.
    refuse: makes the answer to what is no request, from status and reason.
    hands_over: says of a head whether the connection is for ``other_protocol`` from there on.
    """

    handler: Handler
    refuse: Callable[[int, str], Response]
    config: Config
    hands_over: Callable[[Head], bool] = lambda head: False  # noqa: ARG005
    other_protocol: Callable[[], asyncio.Protocol] | None = None
    peers: set["Peer"] = msgspec.field(default_factory=set)
    stopping: bool = False


class Peer(asyncio.Protocol):
    """The server's end of one connection."""

    def __init__(self, hosting: Hosting) -> None:
        self._hosting = hosting
        self._loop = asyncio.get_running_loop()
        self._reader = Reader(max_head_bytes=hosting.config.max_head_bytes)
        self._transport: asyncio.Transport | None = None
        self._memo: dict[str, Any] = {}
        self._waiting: deque[Request] = deque()  # behind the one that is served
        self._arriving: Request | None = None  # whose body is still to come
        self._serving: Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._next_owner: Head | None = None  # with this head another protocol takes the connection over
        self._refusal: Malformed | None = None  # to be told behind the answers that are due
        self._served = False  # any request at all
        self._reading = True
        self._closing = False  # nothing that comes is looked at any more
        self._drained: asyncio.Future[None] | None = None  # not None: the client does not take what was sent
        self._deadline: float | None = None

    # -- the transport tells ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not derive from it
        self._hosting.peers.add(self)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up what is served."""
        del exc
        self._hosting.peers.discard(self)
        self._transport = None
        self._closing = True
        self._waiting.clear()
        for request in (self._serving, self._arriving):
            if request is not None:
                request.body.fail(ConnectionResetError("the client has gone"))
        self.resume_writing()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Take requests out of what came."""
        if self._closing:
            return
        was_idle = self._serving is None and self._reader.between_requests
        self._reader.feed(data)
        self._read_on()
        if was_idle and self._serving is None and not self._reader.between_requests:
            self._wait_for_head()  # it has begun: the time between requests does not count for it

    def eof_received(self) -> bool:
        """Take the client's half-close for its end, as TLS does."""
        return False

    def pause_writing(self) -> None:
        """Let writers wait: the client does not take what was sent."""
        if self._drained is None:
            self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        """Let writers go on."""
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)
        if self._serving is None and drained is not None and not self._closing:
            self._next()

    # -- what requests need ----------------------------------------------------------------------------------------

    @property
    def transport(self) -> asyncio.Transport | None:
        """Return the way to the client; None when it has gone."""
        return self._transport

    def write(self, data: bytes) -> None:
        """Send, whatever waits already; raises ConnectionResetError."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait while the client does not take what was sent; raises ConnectionResetError."""
        if self._drained is not None:
            await asyncio.shield(self._drained)
            if self._transport is None:
                raise ConnectionResetError("the client has gone")

    def resume_reading(self) -> None:
        """Go on reading: there is room again."""
        if not self._reading and self._transport is not None and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()
        self._read_on()

    # -- requests --------------------------------------------------------------------------------------------------

    def _read_on(self) -> None:
        """Take events until there is nothing more, or no room for more."""
        try:
            while self._has_room():
                match self._reader.next_event():
                    case Head() as head:
                        self._on_head(head)
                    case Data(data=data):
                        assert self._arriving is not None
                        self._arriving.body.put(data)
                    case End():
                        assert self._arriving is not None
                        self._arriving.body.finish()
                        self._arriving = None
                    case None:
                        return
        except Malformed as error:
            self._refusal = error
            if self._arriving is not None:
                self._arriving.body.fail(error)  # its answer is the last one
            elif self._serving is None:
                self._next()
            return
        self._pause_reading()

    def _has_room(self) -> bool:
        if self._closing or self._next_owner is not None or self._refusal is not None:
            return False
        if self._arriving is not None:
            return self._arriving.body.waiting_bytes <= HIGH_WATER_BYTES
        return len(self._waiting) < MAX_PIPELINED

    def _pause_reading(self) -> None:
        if self._reading and not self._closing and self._transport is not None and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    def _on_head(self, head: Head) -> None:
        if self._hosting.other_protocol is not None and self._hosting.hands_over(head):
            self._next_owner = head
            if self._serving is None:
                self._next()
            return
        self._arriving = request = Request(head, self, self._memo)
        if self._serving is None and self._drained is None:
            self._start(request)
        else:
            self._waiting.append(request)

    def _start(self, request: Request) -> None:
        self._serving = request
        self._served = True
        self._deadline = None
        self._task = self._loop.create_task(self._serve(request))

    async def _serve(self, request: Request) -> None:
        try:
            answer = await self._hosting.handler(request)
            self._answer(request, answer)
        except Malformed as error:
            if request.stream is None:
                self._refuse(error)
            else:
                self.abort()
        except ConnectionError:
            self.abort()
        except Exception:
            log.exception("handler failed method=%s target=%s", request.method, request.path_qs)
            self.abort()
        else:
            self._serving = self._task = None
            self._after(request)

    def _answer(self, request: Request, answer: object) -> None:
        request.keep_alive = request.keep_alive and request.body.ended and not self._hosting.stopping
        if not isinstance(answer, Response):
            assert request.stream is not None, answer
            request.stream.end()
            return
        body = answer.body if may_have_body(answer.code) else b""
        # A 304 tells nothing of the length: it would be that of a body which is not there (RFC 9110, 8.6).
        length = len(body) if may_have_body(answer.code) else None
        head = render_head(answer.code, answer.headers, length=length, chunked=False, connection=request.connection)
        if request.method == "HEAD" or not body:
            self.write(head)
        elif len(body) <= _JOINED_BYTES:
            self.write(head + body)
        else:
            self.write(head)
            self.write(body)

    def _after(self, request: Request) -> None:
        """Go on when an answer is written."""
        if request.keep_alive and not self._hosting.stopping:
            self._next()
        elif request.body.ended and not self._has_unread:
            self.close()
        else:
            self._linger()

    @property
    def _has_unread(self) -> bool:
        """Return whether the client has sent more than was asked for: closing upon it would reset the connection."""
        return bool(self._waiting) or not self._reading or not self._reader.between_requests

    def _next(self) -> None:
        """Serve the next request, if there is one and the client has taken the last answer."""
        if self._drained is not None:
            self._deadline = self._loop.time() + self._hosting.config.write_s
        elif self._waiting:
            self._start(self._waiting.popleft())
            self.resume_reading()
        elif self._next_owner is not None:
            self._hand_over(self._next_owner)
        elif self._refusal is not None:
            self._refuse(self._refusal)
        else:
            self._wait_for_head()
            self.resume_reading()

    def _wait_for_head(self) -> None:
        config = self._hosting.config
        idle = self._served and self._reader.between_requests
        self._deadline = self._loop.time() + (config.keepalive_s if idle else config.head_s)

    # -- ends ------------------------------------------------------------------------------------------------------

    def _hand_over(self, head: Head) -> None:
        transport, other = self._transport, self._hosting.other_protocol
        assert other is not None
        if transport is None or transport.is_closing():
            return
        self._closing = True
        self._hosting.peers.discard(self)
        if not self._reading:
            transport.resume_reading()
        protocol = other()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(head.raw + self._reader.take_rest())

    def _refuse(self, error: Malformed) -> None:
        """Tell a client that its bytes are no request, and listen to it no more."""
        answer = self._hosting.refuse(error.code, error.reason)
        head = render_head(answer.code, answer.headers, length=len(answer.body), chunked=False, connection="close")
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(head + answer.body)
        self._linger()

    def _linger(self) -> None:
        """Close a little later: closing with bytes unread would take our answer from the client (RFC 9112, 9.6)."""
        self._closing = True
        config = self._hosting.config
        self._deadline = self._loop.time() + (config.linger_s if self._drained is None else config.write_s)
        if not self._reading and self._transport is not None and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()
        if self._transport is not None and not self._transport.is_closing() and self._transport.can_write_eof():
            self._transport.write_eof()  # the client knows that nothing more comes, and need not wait for our time

    def close(self) -> None:
        """Close when everything is written, or the client has had time to take it."""
        self._closing = True
        self._deadline = self._loop.time() + self._hosting.config.write_s
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def drain_and_close(self) -> None:
        """Close now if nothing is served, else behind the answer."""
        if self._serving is None:
            self.close()

    def check(self, now: float) -> None:
        """Give up what has taken too long."""
        if self._deadline is None or now < self._deadline or self._transport is None:
            return
        self._deadline = None
        if self._drained is not None or self._transport.is_closing():
            self.abort()
        elif self._closing or self._reader.between_requests:
            self.close()
        else:
            self._refuse(Malformed(408, "the request did not come in time"))

    @property
    def task(self) -> asyncio.Task[None] | None:
        """Return the task of the request that is served."""
        return self._task
