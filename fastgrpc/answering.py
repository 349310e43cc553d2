"""The calls of one connection of a server: how each begins, who works on it, and how it ends."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from typing import Any

from . import calls
from .asks import Ask, BatchMethod
from .calls import CallFailed, CallHead, Status, frame_message
from .connection import Connection
from .deadlines import BUCKET_S, Deadlines
from .events import DataReceived, HeadersReceived, RequestsReceived
from .frames import ErrorCode
from .headers import Headers
from .hosting import Hosting
from .serving import Call, Receiver, StreamMethod, UnaryMethod, decode
from .visits import Visit, Web

log = logging.getLogger(__name__)

MAX_WAITING_BYTES = 64 << 20  # of one connection; beyond it new calls are refused ...
LARGE_BYTES = 16 << 10  # ... and answers to those that had begun, if they are larger than this
MAX_VISITS = 100  # of one connection that are answered at once: nobody knows how large each page will be
BUSY = ((b":status", b"503"), (b"retry-after", b"1"))


class Answering(ABC):
    """A connection as far as it does not matter where its bytes come from and go to."""

    def __init__(self, server: Hosting) -> None:
        self._server = server
        self.loop = asyncio.get_running_loop()
        self.http = Connection(client=False, limits=server.config.limits)
        self.memo: Any = None  # for whoever stands above
        self._calls: dict[int, Call | Ask] = {}
        self._lots: dict[str, list[Ask]] = {}  # path -> what this read brought so far
        self._usual: Headers | None = None  # of the last call that came whole ...
        self._usual_head: CallHead
        self._usual_method: BatchMethod | None = None  # ... and which method that takes lots they call, if any
        self._taken_bytes = 0  # of them, and not called consumed yet
        self._partial_bytes = 0  # of messages that have begun to arrive
        self._visits: dict[int, Visit] = {}
        self._deadlines: Deadlines[Call | Ask] = Deadlines()
        self._deadline_timer: asyncio.TimerHandle | None = None

    @property
    @abstractmethod
    def address(self) -> str:
        """Return "host:port" of the client."""

    @property
    @abstractmethod
    def certificate(self) -> dict[str, Any]:
        """Return the client's verified certificate as ``ssl`` describes it; empty: it showed none."""

    @property
    @abstractmethod
    def encoded_certificate(self) -> bytes:
        """Return the client's verified certificate in DER; empty: it showed none."""

    @abstractmethod
    def consumed(self, stream: int, size: int) -> None:
        """See ``Connection.consumed``."""

    @abstractmethod
    async def send(self, call: Receiver, data: bytes) -> None:
        """Send data of a call; wait if too much is on its way already."""

    @abstractmethod
    def push(self, stream: int, data: bytes) -> bool:
        """Send data of a call now, unless too much is on its way already; return False then."""

    @abstractmethod
    def flush_soon(self) -> None:
        """Write at the end of this turn of the loop, everything at once."""

    @abstractmethod
    def flush(self) -> None:
        """Write now, or when all that this read brought is taken."""

    # -- how calls begin -----------------------------------------------------------------------------------------------

    def _begin_whole(self, event: RequestsReceived) -> None:
        """Begin calls whose only messages are there."""
        headers = event.headers
        if headers is not self._usual:  # a client says the same all the time
            self._usual, self._usual_head = headers, calls.read_call(headers)
            found = self._server.methods.get(self._usual_head.path)
            self._usual_method = found if type(found) is BatchMethod and self._usual_head.refusal is None else None
        head, method = self._usual_head, self._usual_method
        if method is None or self.http.waiting_bytes > MAX_WAITING_BYTES:
            for stream, data in zip(event.streams, event.contents, strict=True):
                self._begin_slowly(stream, headers, data)
            return
        known, lot = self._calls, self._lots.setdefault(method.path, [])
        messages = calls.only_messages(event.contents, self._server.config.max_message_bytes)
        for stream, data, message in zip(event.streams, event.contents, messages, strict=True):
            if message is None:
                self._begin_slowly(stream, headers, data)
                continue
            self._taken_bytes += len(data)
            ask = known[stream] = Ask(self, stream, head, method, message)
            if head.timeout_s is not None:
                self._set_deadline(ask, head.timeout_s)
            lot.append(ask)

    def _begin_lone(self, event: RequestsReceived) -> None:
        """Begin the only call that a read brought, and hand it over: what is done for many, by less."""
        method, content = self._usual_method, event.contents[0]
        if event.headers is self._usual and method is not None and self.http.waiting_bytes <= MAX_WAITING_BYTES:
            message = calls.only_message(content, self._server.config.max_message_bytes)
            if message is not None:
                stream, head = event.streams[0], self._usual_head
                ask = self._calls[stream] = Ask(self, stream, head, method, message)
                if head.timeout_s is not None:
                    self._set_deadline(ask, head.timeout_s)
                self._hand_out((ask,))
                self.http.consumed(0, len(content))  # it can wait, whoever asked cannot
                return
        self._begin_whole(event)
        if self._lots:
            self._hand_out_lots()

    def _begin_slowly(self, stream: int, headers: Headers, data: bytes) -> None:
        """Begin a call as if it had come in pieces."""
        self._begin(HeadersReceived(stream, headers, ended=False))
        self._take(DataReceived(stream, data, ended=True))

    def _hand_out_lots(self) -> None:
        """Hand over what this read brought."""
        self.http.consumed(0, self._taken_bytes)
        self._taken_bytes = 0
        lots, self._lots = self._lots, {}
        for brought in lots.values():
            lot = [ask for ask in brought if not ask.gone]  # given up in the same read
            if lot:
                self._hand_out(lot)

    def _hand_out(self, lot: Sequence[Ask]) -> None:
        try:
            lot[0].method.handler(lot)
        except Exception as exc:  # noqa: BLE001 - a handler's own error ends its calls, not the server
            for ask in lot:
                self._end(ask, _unexpected(ask, exc))

    def _begin(self, event: HeadersReceived) -> None:
        head = calls.read_call(event.headers)
        if head.refusal is not None:
            if head.plain and self._server.web is not None:
                self._begin_visit(event, self._server.web)
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
            self._start_unary(call)

    def _begin_visit(self, event: HeadersReceived, web: Web) -> None:
        """Answer a browser, or what looks like one."""
        if len(self._visits) >= MAX_VISITS or self.http.waiting_bytes > MAX_WAITING_BYTES:
            self.http.respond_without_data(event.stream, BUSY)
            return
        visit = self._visits[event.stream] = Visit(self, event.stream, event.headers, ended=event.ended)
        visit.task = self.loop.create_task(self._run_visit(visit, web))

    async def _run_visit(self, visit: Visit, web: Web) -> None:
        try:
            await web(visit)
        except asyncio.CancelledError:
            self._end_visit(visit, b"503")
        except Exception:
            log.exception("a page failed target=%s", visit.target)
            self._end_visit(visit, b"500")
        else:
            self._end_visit(visit)

    def _end_visit(self, visit: Visit, failure: bytes = b"") -> None:
        """End a visit; by a failure's status, or, if its answer has begun, in the middle of that."""
        if visit.gone:
            return
        if not visit.begun:
            self.http.respond_without_data(visit.stream, ((b":status", failure or b"500"),))
        elif failure:
            self.http.reset(visit.stream, ErrorCode.INTERNAL_ERROR)
        else:
            self.http.end_stream(visit.stream)
        self._forget_visit(visit)
        self.flush_soon()

    def _forget_visit(self, visit: Visit) -> None:
        self._visits.pop(visit.stream, None)
        if owed := visit.forget():
            self.http.consumed(0, owed)

    def _abandon_visit(self, visit: Visit) -> None:
        """Nobody waits for this page any more."""
        self._forget_visit(visit)
        if visit.task is not None:
            visit.task.cancel()

    def _take(self, event: DataReceived) -> None:
        call = self._calls.get(event.stream)
        if type(call) is Call and not event.ended and call.hand_out(event.data):
            return  # nearly all data of a stream that is handed out as it comes
        if not isinstance(call, Call):  # gone; or an ask, which takes nothing more; or none
            if (visit := self._visits.get(event.stream)) is not None:
                visit.feed(event.data, ended=event.ended)
                return
            self.http.consumed(event.stream, len(event.data))
            return
        one = event.ended and not isinstance(call.method, StreamMethod)
        if one and (message := call.whole_request(event.data)) is not None:
            self.http.consumed(event.stream, len(event.data))
            self._start_unary(call, message)
            return
        before = call.partial_bytes
        call.feed(event.data, ended=event.ended)
        self._partial_bytes += call.partial_bytes - before
        if self._partial_bytes > self._server.config.max_partial_bytes:
            # Who asks who sends all this sees whole messages only.
            self._cut(call, CallFailed(Status.RESOURCE_EXHAUSTED, "too many large requests arrive at once"))
            return
        if one:
            self._start_unary(call)

    def _refuse(self, stream: int, path: str, exc: CallFailed) -> None:
        self.http.respond_without_data(stream, calls.only_trailers(exc))
        if self._server.on_end is not None:
            self._server.on_end(path, exc.status, 1)

    def _start_unary(self, call: Call, message: bytes | None = None) -> None:
        method = call.method
        assert not isinstance(method, StreamMethod)
        try:
            if message is None:
                message = call.only_request()
            if isinstance(method, BatchMethod):
                self._ask(call, method, message)
                return
            request = decode(method, message)
        except CallFailed as exc:
            self._end(call, exc)
            return
        if method.inline:
            self._step(call, method.handler(request, call), None)
        else:
            # The handler is begun inside: a task may be cancelled before its first step.
            self._start(call, self._run_unary(call, method, request))

    def _ask(self, call: Call, method: BatchMethod, message: bytes) -> None:
        """Go on with a call, which came in pieces, as if it had come whole."""
        ask = self._calls[call.stream] = Ask(self, call.stream, call.head, method, message)
        self.http.consumed(0, call.forget())
        if call.deadline_s is not None:
            self._deadlines.discard(call, call.bucket)
            ask.deadline_s, ask.bucket = call.deadline_s, self._deadlines.add(ask, call.deadline_s)
        self._lots.setdefault(method.path, []).append(ask)

    # -- how they end --------------------------------------------------------------------------------------------------

    def answer(self, ask: Ask, message: bytes) -> None:
        """See ``Ask.answer``."""
        if len(message) > LARGE_BYTES and self.http.waiting_bytes > MAX_WAITING_BYTES:
            # A lot is begun before the first of it is answered.
            self._end(ask, CallFailed(Status.RESOURCE_EXHAUSTED, "answers wait to be taken"))
            return
        self._answer_all((ask,), (message,))
        self.flush_soon()

    def answer_all(self, asks: Sequence[Ask], messages: Sequence[bytes], *, at_once: bool) -> None:
        """See ``Ask.answer_all``."""
        if sum(map(len, messages)) > LARGE_BYTES:
            for ask, message in zip(asks, messages, strict=True):
                ask.answer(message)
            return
        self._answer_all(asks, messages)
        if at_once:
            self.flush()
        else:
            self.flush_soon()

    def _answer_all(self, asks: Sequence[Ask], messages: Sequence[bytes]) -> None:
        known = self._calls
        streams: list[int] = []
        told: list[bytes] = []
        for ask, message in zip(asks, messages, strict=True):
            if ask.gone:
                continue
            # What ``_drop`` does, by less: this is passed for nearly every call.
            ask.gone = True
            del known[ask.stream]
            if ask.deadline_s is not None:
                self._deadlines.discard(ask, ask.bucket)
            streams.append(ask.stream)
            told.append(message)
        if streams:
            self.http.respond_all(streams, calls.RESPONSE_HEAD, told, calls.OK_TRAILERS, calls.LEAD)
            if self._server.on_end is not None:
                self._server.on_end(asks[0].head.path, Status.OK, len(streams))

    def refuse(self, ask: Ask, exc: CallFailed) -> None:
        """See ``Ask.fail``."""
        self._end(ask, exc)

    def _step(self, call: Call, coroutine: Coroutine[Any, Any, Any], waited_for: "asyncio.Future[Any] | None") -> None:
        """Drive an inline handler to its next wait, or to its end."""
        del waited_for
        try:
            future = coroutine.send(None)
        except StopIteration as stop:
            self._answer(call, stop.value)
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

    def _answer(self, call: Call, response: Any) -> None:
        if call.gone:
            return
        assert isinstance(call.method, UnaryMethod)
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

    def _end(self, call: Call | Ask, exc: CallFailed | None) -> None:
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

    def _drop(self, call: Call | Ask, status: Status) -> None:
        if self._server.on_end is not None:
            self._server.on_end(call.head.path, status, 1)
        self._calls.pop(call.stream, None)
        if type(call) is Call:
            self._partial_bytes -= call.partial_bytes
        if call.deadline_s is not None:
            self._deadlines.discard(call, call.bucket)
        owed = call.forget()
        if owed:
            self.http.consumed(0, owed)

    def _abandon(self, call: Call | Ask) -> None:
        """Nobody waits for this call any more."""
        if call.gone:
            return
        self._drop(call, Status.CANCELLED)
        _stop(call)

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
            self._answer(call, response)

    async def _run_stream(self, call: Call, method: StreamMethod) -> None:
        # A failure that is kept in a local outlives the call: it refers to this frame, which would refer to it.
        try:
            await method.handler(call)
        except CallFailed as exc:
            self._end(call, exc)
        except asyncio.CancelledError:
            self._end(call, CallFailed(Status.CANCELLED, "the call was cancelled"))
        except Exception as exc:  # noqa: BLE001 - a handler's own error ends its call, not the server
            self._end(call, _unexpected(call, exc))
        else:
            self._end(call, None)

    # -- deadlines -----------------------------------------------------------------------------------------------------

    def _set_deadline(self, call: Call | Ask, timeout_s: float) -> None:
        call.deadline_s = self.loop.time() + timeout_s
        call.bucket = self._deadlines.add(call, call.deadline_s)
        if self._deadline_timer is None:
            self._deadline_timer = self.loop.call_later(BUCKET_S, self._look_at_deadlines)

    def _look_at_deadlines(self) -> None:
        self._deadline_timer = None
        for call in self._deadlines.due(self.loop.time()):
            self._cut(call, CallFailed(Status.DEADLINE_EXCEEDED, "the deadline has passed"))
        if self._deadlines:
            self._deadline_timer = self.loop.call_later(BUCKET_S, self._look_at_deadlines)

    def _cut(self, call: Call | Ask, exc: CallFailed) -> None:
        """End a call over its handler's head."""
        self._end(call, exc)
        _stop(call)


def _stop(call: Call | Ask) -> None:
    """End the task that works on a call, if there is one."""
    if type(call) is Call and call.task is not None:
        call.task.cancel()
        call.task = None  # it refers to what it worked on, if it had not begun yet


def _unexpected(call: Call | Ask, exc: Exception) -> CallFailed:
    log.error("handler failed path=%s", call.head.path, exc_info=exc)
    return CallFailed(Status.UNKNOWN, f"{type(exc).__name__}: {exc}")
