"""One connection of a server: bytes from the socket become calls, what calls answer becomes bytes."""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, cast

from . import calls
from .calls import CallFailed, Status, frame_message
from .connection import Connection
from .deadlines import BUCKET_S, Deadlines
from .events import (
    ConnectionEnded,
    DataReceived,
    Event,
    HeadersReceived,
    PingAcknowledged,
    SendProgress,
    StreamEnded,
    TrailersReceived,
)
from .frames import PREFACE
from .serving import MAX_QUEUED_BYTES, Call, Method, Page, ServerConfig, StreamMethod, UnaryMethod, Web, decode

log = logging.getLogger(__name__)

MAX_WAITING_BYTES = 64 << 20  # of one connection; beyond it new calls are refused
DRAIN_PING = b"draining"
KEEPALIVE_PING = b"are you?"


Admits = Callable[[Mapping[str, Any]], bool]  # whether a client with that verified certificate is served


class Hosting:
    """What all connections of a server share."""

    def __init__(
        self,
        methods: dict[str, Method],
        config: ServerConfig,
        on_end: Callable[[str, Status], None] | None,
        other_protocol: Callable[[], asyncio.Protocol] | None,
        web: Web | None,
    ) -> None:
        self.methods = methods
        self.config = config
        self.on_end = on_end
        self.other_protocol = other_protocol
        self.web = web
        self.peers: set[Peer] = set()
        self.deserted = asyncio.Event()  # no connection is open
        self.deserted.set()
        self.stopping = False
        self._services = {path.rpartition("/")[0] for path in methods}

    def arrived(self, peer: "Peer") -> None:
        """Note a connection."""
        self.peers.add(peer)
        self.deserted.clear()

    def left(self, peer: "Peer") -> None:
        """Forget one."""
        self.peers.discard(peer)
        if not self.peers:
            self.deserted.set()

    def unknown(self, path: str) -> CallFailed:
        """Return how a call of a method that does not exist ends."""
        service, _, method = path.rpartition("/")
        if service in self._services:
            return CallFailed(Status.UNIMPLEMENTED, f"unknown method {method} for service {service[1:]}")
        return CallFailed(Status.UNIMPLEMENTED, f"unknown service {service[1:]}")


class Peer(asyncio.Protocol):
    """One connection of a server."""

    def __init__(self, server: Hosting, admits: Admits | None = None) -> None:
        self._server = server
        self._admits = admits
        self.loop = asyncio.get_running_loop()
        self.http = Connection(client=False, limits=server.config.limits)
        self.memo: Any = None  # for whoever stands above
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, Call] = {}
        self._pages: set[asyncio.Task[None]] = set()
        self._early: bytes | None = b""  # what came before it was clear that this is HTTP/2
        self._flush_due = False
        self._writable = True
        self._deadlines: Deadlines[Call] = Deadlines()
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._heard_s = self.loop.time()

    # -- who is there --------------------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Return "host:port" of the client."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name)

    @property
    def certificate(self) -> dict[str, Any]:
        """Return the client's verified certificate as ``ssl`` describes it; empty: it showed none."""
        found = self._transport.get_extra_info("peercert") if self._transport is not None else None
        return found or {}

    # -- asyncio's side ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not derive from it
        if self._admits is not None and not self._admits(self.certificate):
            self._transport.set_protocol(asyncio.Protocol())  # what it has sent already is for nobody
            self._transport.abort()
            return
        self._server.arrived(self)
        made = transport.get_extra_info("socket")
        if made is not None and made.family in (socket.AF_INET, socket.AF_INET6):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._server.stopping:
            self.hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """End: nobody waits for any answer."""
        del exc
        self._server.left(self)
        self._transport = None
        for call in tuple(self._calls.values()):
            self._abandon(call)
        for page in self._pages:
            page.cancel()

    def pause_writing(self) -> None:
        """Take nothing in while the client takes nothing."""
        self._writable = False
        if self._transport is not None:
            self._transport.pause_reading()  # answers that nobody takes must not pile up

    def resume_writing(self) -> None:
        """Go on."""
        self._writable = True
        if self._transport is not None:
            self._transport.resume_reading()
        for call in tuple(self._calls.values()):
            call.room()

    def eof_received(self) -> bool:
        """Hang up too."""
        return False

    def data_received(self, data: bytes) -> None:
        """Take everything that one read brought."""
        if self._early is not None:
            data = self._early + data
            if not PREFACE.startswith(data[: len(PREFACE)]):
                self._hand_over(data)
                return
            if len(data) < len(PREFACE):
                self._early = data
                return
            self._early = None
        self._heard_s = now_s = self.loop.time()
        for event in self.http.receive(data, now_s):
            if type(event) is DataReceived:  # these two are nearly all
                self._take(event)
            elif type(event) is HeadersReceived:
                self._begin(event)
            else:
                self._note(event)
        self._flush()
        if self.http.ended:
            self.hang_up()

    def _note(self, event: Event) -> None:
        match event:
            case TrailersReceived():
                self._take(DataReceived(event.stream, b"", ended=True))
            case StreamEnded():
                call = self._calls.get(event.stream)
                if call is not None:
                    self._abandon(call)
            case SendProgress():
                call = self._calls.get(event.stream)
                if call is not None:
                    call.room()
            case PingAcknowledged():
                if event.payload == DRAIN_PING:
                    self._finish_drain()
            case ConnectionEnded():
                log.info("connection ended peer=%s reason=%s", self.address, event.reason)
            case _:
                pass  # a client that goes away closes when it is done

    def _hand_over(self, data: bytes) -> None:
        """The client speaks something else than HTTP/2."""
        transport = self._transport
        if transport is None:
            return
        if self._server.other_protocol is None:
            self.hang_up()
            return
        self._server.left(self)
        self._transport = None
        protocol = self._server.other_protocol()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(data)

    # -- calls ---------------------------------------------------------------------------------------------------------

    def _begin(self, event: HeadersReceived) -> None:
        head = calls.read_call(event.headers)
        if head.refusal is not None:
            if self._server.web is not None and event.headers.pseudo[b":method"] == b"GET":
                self._begin_page(event.stream, self._server.web(head.path))
                return
            self.http.respond_without_data(event.stream, head.refusal)
            return
        method = self._server.methods.get(head.path)
        if method is None:
            self._refuse(event.stream, head.path, self._server.unknown(head.path))
            return
        if self.http.waiting_bytes > MAX_WAITING_BYTES:
            self._refuse(event.stream, head.path, CallFailed(Status.RESOURCE_EXHAUSTED, "answers wait to be taken"))
            return
        call = Call(self, event.stream, head, method, self._server.config.max_message_bytes)
        self._calls[event.stream] = call
        if head.timeout_s is not None:
            self._set_deadline(call, head.timeout_s)
        if event.ended:
            call.end()
        if isinstance(method, StreamMethod):
            self._start(call, self._run_stream(call, method))
        elif event.ended:
            self._start_unary(call, method)

    def _begin_page(self, stream: int, page: Coroutine[Any, Any, Page]) -> None:
        """Answer a browser, or what looks like one."""

        async def answer() -> None:
            try:
                status, content_type, content = await page
            except Exception:
                log.exception("page failed")
                status, content_type, content = 500, "text/plain", b"internal error\n"
            fields = ((b":status", b"%d" % status), (b"content-type", content_type.encode()))
            self.http.send_headers(stream, (*fields, (b"content-length", b"%d" % len(content))))
            self.http.send_data(stream, content)
            self.http.end_stream(stream)
            self.flush_soon()

        task = self.loop.create_task(answer())
        self._pages.add(task)
        task.add_done_callback(self._pages.discard)

    def _take(self, event: DataReceived) -> None:
        call = self._calls.get(event.stream)
        if call is None:
            self.http.consumed(event.stream, len(event.data))
            return
        method = call.method
        if event.ended and isinstance(method, UnaryMethod):
            request = call.whole_request(event.data)
            if request is not None:
                self.http.consumed(event.stream, len(event.data))
                self._start_unary(call, method, request)
                return
        call.feed(event.data, ended=event.ended)
        if event.ended and isinstance(method, UnaryMethod):
            self._start_unary(call, method)

    def _refuse(self, stream: int, path: str, exc: CallFailed) -> None:
        self.http.respond_without_data(stream, calls.only_trailers(exc))
        if self._server.on_end is not None:
            self._server.on_end(path, exc.status)

    def _start_unary(self, call: Call, method: UnaryMethod, message: bytes | None = None) -> None:
        try:
            request = decode(method, call.only_request() if message is None else message)
        except CallFailed as exc:
            self._end(call, exc)
            return
        if method.direct is not None and self._take_directly(call, method.direct, request):
            return
        if method.inline:
            self._step(call, method.handler(request, call), None)
        else:
            # The handler is begun inside: a task may be cancelled before its first step.
            self._start(call, self._run_unary(call, method, request))

    def _take_directly(self, call: Call, direct: Callable[[Any, Call], bool], request: Any) -> bool:
        try:
            return direct(request, call)
        except CallFailed as exc:
            self.fail(call, exc)
        except Exception as exc:  # noqa: BLE001 - a handler's own error ends its call, not the server
            self.fail(call, _unexpected(call, exc))
        return True

    def _step(self, call: Call, coroutine: Coroutine[Any, Any, Any], waited_for: "asyncio.Future[Any] | None") -> None:
        """Drive an inline handler to its next wait, or to its end."""
        del waited_for
        try:
            future = coroutine.send(None)
        except StopIteration as stop:
            self.answer(call, stop.value)
        except CallFailed as exc:
            self._end(call, exc)
        except Exception as exc:  # noqa: BLE001 - a handler's own error ends its call, not the server
            self._end(call, _unexpected(call, exc))
        else:
            if future is None:  # a bare yield, as sleep(0) does
                self.loop.call_soon(self._step, call, coroutine, None)
            else:
                future._asyncio_future_blocking = False  # noqa: SLF001 - what a task does too when it takes a future
                future.add_done_callback(lambda done: self._step(call, coroutine, done))

    def answer(self, call: Call, response: Any) -> None:
        """See ``Call.answer``."""
        if call.gone:
            return
        data = response if isinstance(response, bytes) else call.method.encode(response)
        if call.head_sent or call.trailing_metadata:
            if not call.head_sent:
                self.http.send_headers(call.stream, calls.RESPONSE_HEAD)
            self.http.send_data(call.stream, frame_message(data))
            self.http.end_stream(call.stream, calls.trailers(Status.OK, metadata=call.trailing_metadata))
        else:
            self.http.respond(call.stream, calls.RESPONSE_HEAD, frame_message(data), calls.OK_TRAILERS)
        self._drop(call, Status.OK)
        self.flush_soon()

    def fail(self, call: Call, exc: CallFailed) -> None:
        """See ``Call.fail``."""
        self._end(call, exc)

    def _end(self, call: Call, exc: CallFailed | None) -> None:
        """End a call; with its failure, if there is one."""
        if call.gone:
            return
        if call.head_sent:
            fields = calls.failure(exc) if exc else calls.trailers(Status.OK, metadata=call.trailing_metadata)
            self.http.end_stream(call.stream, fields)
        elif exc is not None:
            self.http.respond_without_data(call.stream, calls.only_trailers(exc))
        else:
            self.http.send_headers(call.stream, calls.RESPONSE_HEAD)
            self.http.end_stream(call.stream, calls.trailers(Status.OK, metadata=call.trailing_metadata))
        self._drop(call, Status.OK if exc is None else exc.status)
        self.flush_soon()

    def _drop(self, call: Call, status: Status) -> None:
        if self._server.on_end is not None:
            self._server.on_end(call.head.path, status)
        self._calls.pop(call.stream, None)
        if call.deadline_s is not None:
            self._deadlines.discard(call, call.bucket)
        owed = call.forget()
        if owed:
            self.http.consumed(0, owed)

    def _abandon(self, call: Call) -> None:
        """Nobody waits for this call any more."""
        if call.gone:
            return
        self._drop(call, Status.CANCELLED)
        if call.task is not None:
            call.task.cancel()

    # -- calls in tasks of their own -----------------------------------------------------------------------------------

    def _start(self, call: Call, coroutine: Coroutine[Any, Any, None]) -> None:
        call.task = self.loop.create_task(coroutine)

    async def _run_unary(self, call: Call, method: UnaryMethod, request: Any) -> None:
        try:
            response = await method.handler(request, call)
        except CallFailed as exc:
            self._end(call, exc)
        except asyncio.CancelledError:
            self._end(call, CallFailed(Status.CANCELLED, "the call was cancelled"))
        except Exception as exc:  # noqa: BLE001 - a handler's own error ends its call, not the server
            self._end(call, _unexpected(call, exc))
        else:
            self.answer(call, response)

    async def _run_stream(self, call: Call, method: StreamMethod) -> None:
        failure: CallFailed | None = None
        try:
            await method.handler(call)
        except CallFailed as exc:
            failure = exc
        except asyncio.CancelledError:
            failure = CallFailed(Status.CANCELLED, "the call was cancelled")
        except Exception as exc:  # noqa: BLE001 - a handler's own error ends its call, not the server
            failure = _unexpected(call, exc)
        self._end(call, failure)

    # -- deadlines -----------------------------------------------------------------------------------------------------

    def _set_deadline(self, call: Call, timeout_s: float) -> None:
        call.deadline_s = self.loop.time() + timeout_s
        call.bucket = self._deadlines.add(call, call.deadline_s)
        if self._deadline_timer is None:
            self._deadline_timer = self.loop.call_later(BUCKET_S, self._look_at_deadlines)

    def _look_at_deadlines(self) -> None:
        self._deadline_timer = None
        for call in self._deadlines.due(self.loop.time()):
            self._cut(call, CallFailed(Status.DEADLINE_EXCEEDED, "the deadline has passed"))
        if self._deadlines and self._transport is not None:
            self._deadline_timer = self.loop.call_later(BUCKET_S, self._look_at_deadlines)

    def _cut(self, call: Call, exc: CallFailed) -> None:
        """End a call over its handler's head."""
        self._end(call, exc)
        if call.task is not None:
            call.task.cancel()

    # -- bytes out -----------------------------------------------------------------------------------------------------

    def consumed(self, stream: int, size: int) -> None:
        """See ``Connection.consumed``."""
        self.http.consumed(stream, size)
        self.flush_soon()

    async def send(self, call: Call, data: bytes) -> None:
        """Send data of a call; wait if too much is on its way already."""
        self.http.send_data(call.stream, data)
        self.flush_soon()
        while not call.gone and (not self._writable or self.http.queued_bytes(call.stream) > MAX_QUEUED_BYTES):
            await call.wait_for_room()

    def flush_soon(self) -> None:
        """Write at the end of this turn of the loop, everything at once."""
        if not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        data = self.http.take_output()
        # uvloop, unlike asyncio, refuses to write once a transport is closing.
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
        if self.http.going_away and not self.http.open_streams:
            self.hang_up()

    # -- the end -------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Let the client know that it should go elsewhere, and finish what it has begun."""
        if self._early is not None:
            self.hang_up()
            return
        self.http.announce_end()
        self.http.ping(DRAIN_PING)  # when it comes back, the client has seen the announcement
        self._flush()
        self.loop.call_later(self._server.config.drain_s, self._finish_drain)

    def _finish_drain(self) -> None:
        if not self.http.going_away:
            self.http.go_away()
            self.flush_soon()

    def abandon(self) -> list[asyncio.Task[None]]:
        """End every call with UNAVAILABLE; return the tasks that are ending."""
        open_calls = list(self._calls.values())
        for call in open_calls:
            self._cut(call, CallFailed(Status.UNAVAILABLE, "the server is shutting down"))
        self._flush()
        return [call.task for call in open_calls if call.task is not None]

    def hang_up(self) -> None:
        """Close the connection once everything is written."""
        if self._transport is not None:
            self._transport.close()

    def check_alive(self, keepalive_s: float, timeout_s: float) -> None:
        """Ask a silent client for a sign of life, or give it up."""
        silent_s = self.loop.time() - self._heard_s
        if silent_s > keepalive_s + timeout_s and self._transport is not None:
            log.info("closing a silent connection peer=%s silent_s=%.0f", self.address, silent_s)
            self._transport.abort()
        elif silent_s > keepalive_s and self._early is None:
            self.http.ping(KEEPALIVE_PING)
            self._flush()


def _unexpected(call: Call, exc: Exception) -> CallFailed:
    log.error("handler failed path=%s", call.head.path, exc_info=exc)
    return CallFailed(Status.UNKNOWN, f"{type(exc).__name__}: {exc}")
