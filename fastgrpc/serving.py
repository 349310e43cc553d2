"""What a server serves: methods as rows, and one call as its handler sees it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Protocol

import msgspec

from . import calls
from .asks import BatchMethod
from .calls import CallFailed, CallHead, MessageReader, Metadata, Status, frame_message
from .connection import Connection
from .events import Limits
from .hpack import Fields
from .silence import no_patience

MAX_QUEUED_BYTES = 256 << 10  # of one stream, either way, before its sender is made to wait


def _same(data: bytes) -> bytes:
    return data


class UnaryMethod(msgspec.Struct, frozen=True):
    """One message in, one out. Whatever ``encode`` is, a handler may also return bytes that are encoded already."""

    path: str  # "/package.Service/Method"
    handler: Callable[[Any, "Call"], Coroutine[Any, Any, Any]]
    decode: Callable[[bytes], Any] = _same
    encode: Callable[[Any], bytes] = _same
    inline: bool = False


class StreamMethod(msgspec.Struct, frozen=True):
    """Messages in, messages out; the handler takes the call's requests and sends by ``Call.send``."""

    path: str
    handler: Callable[["Call"], Coroutine[Any, Any, None]]
    decode: Callable[[bytes], Any] = _same
    encode: Callable[[Any], bytes] = _same
    many_requests: bool = True


Method = UnaryMethod | StreamMethod | BatchMethod


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a server grants its clients."""

    limits: Limits = Limits()
    max_message_bytes: int = 4 << 20
    max_partial_bytes: int = 256 << 20  # of messages that have begun to arrive, on one connection
    keepalive_s: float = 10.0  # a connection that was silent so long is pinged
    keepalive_timeout_s: float = 10.0  # and closed after so much more silence ...
    patience_s: Callable[[], float] = no_patience  # ... and this: how much longer clients may take now
    spare_files: int = 0  # descriptors that connections leave to the rest of the process; 0: they may take all
    drain_s: float = 0.1  # on the way out: how long new calls of clients that do not know yet are taken


class Receiver(Protocol):
    """Who is sent something on a stream, and can wait for room."""

    @property
    def stream(self) -> int:
        """Return the stream."""

    @property
    def gone(self) -> bool:
        """Return whether nobody waits for the answer any more."""

    def room(self) -> None:
        """What waited has gone out."""

    async def wait_for_room(self) -> None:
        """Wait for ``room``."""


class Link(Protocol):
    """The connection under a call."""

    http: Connection
    loop: asyncio.AbstractEventLoop
    memo: Any  # for whoever stands above: what it found out about the client, say

    @property
    def address(self) -> str:
        """Return "host:port" of the client."""

    @property
    def certificate(self) -> dict[str, Any]:
        """Return the client's verified certificate as ``ssl`` describes it; empty: it showed none."""

    @property
    def encoded_certificate(self) -> bytes:
        """Return the client's verified certificate in DER; empty: it showed none."""

    def consumed(self, stream: int, size: int) -> None:
        """See ``Connection.consumed``."""

    async def send(self, call: "Receiver", data: bytes) -> None:
        """Send data of a call; wait if too much is on its way already."""

    def push(self, stream: int, data: bytes) -> bool:
        """Send data of a call now, unless too much is on its way already; return False then."""

    def flush_soon(self) -> None:
        """Write at the end of this turn of the loop."""


class Sender:
    """Whoever sends on a stream, and waits while the client, or the way to it, is too slow."""

    __slots__ = ("_peer", "_waiting_for_room")

    def __init__(self, peer: Link) -> None:
        self._peer = peer
        self._waiting_for_room: list[asyncio.Future[None]] = []

    def room(self) -> None:
        """What waited has gone out."""
        waiting, self._waiting_for_room = self._waiting_for_room, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait_for_room(self) -> None:
        """Wait for ``room``."""
        future: asyncio.Future[None] = self._peer.loop.create_future()
        self._waiting_for_room.append(future)
        await future


class Call(Sender):
    """One call, as its handler sees it."""

    __slots__ = (
        "_ended",
        "_failure",
        "_gone",
        "_head_sent",
        "_max_bytes",
        "_owed",
        "_queued",
        "_queued_bytes",
        "_reader",
        "_sink",
        "_wake",
        "bucket",
        "deadline_s",
        "head",
        "method",
        "stream",
        "task",
        "trailing_metadata",
    )

    def __init__(self, peer: Link, stream: int, head: CallHead, method: Method, max_bytes: int) -> None:
        super().__init__(peer)
        self.stream = stream
        self.head = head
        self.method = method
        self.deadline_s: float | None = None  # by the loop's clock
        self.bucket = 0
        self.task: asyncio.Task[None] | None = None
        self.trailing_metadata: Metadata = ()
        self._max_bytes = max_bytes
        self._reader: MessageReader | None = None  # once a message comes in pieces
        self._queued: deque[bytes] = deque()
        self._queued_bytes = 0
        self._owed = 0  # bytes received that the connection was not told are consumed
        self._ended = False  # the client has no more requests
        self._failure: Exception | None = None  # what goes wrong when the queue is read to its end
        self._wake: asyncio.Future[None] | None = None
        self._sink: Callable[[Any], None] | None = None
        self._head_sent = False
        self._gone = False  # nobody listens any more

    @property
    def metadata(self) -> Metadata:
        """Return what the client sent along."""
        return self.head.metadata

    @property
    def peer(self) -> Link:
        """Return the connection's other end."""
        return self._peer

    @property
    def time_left_s(self) -> float | None:
        """Return the time until the client's deadline; None: it set none."""
        return None if self.deadline_s is None else self.deadline_s - self._peer.loop.time()

    @property
    def gone(self) -> bool:
        """Return whether nobody waits for the answer any more."""
        return self._gone

    async def requests(self) -> AsyncIterator[Any]:
        """Iterate over the requests, decoded. Raises CallFailed for one that cannot be."""
        while True:
            while not self._queued:
                if self._failure is not None:
                    raise self._failure
                if self._ended:
                    return
                self._wake = self._peer.loop.create_future()
                await self._wake
            message = self._queued.popleft()
            self._queued_bytes -= len(message)
            if self._owed and self._queued_bytes <= MAX_QUEUED_BYTES:
                self._peer.consumed(self.stream, self._owed)
                self._owed = 0
            yield decode(self.method, message)

    async def hand_to(self, take: Callable[[Any], None]) -> None:
        """Hand each request to ``take`` in the very turn in which it arrives; return when the client has no more.

        Raises CallFailed for a request that cannot be decoded, and whatever ``take`` raises.
        """
        while self._queued:
            take(decode(self.method, self._queued.popleft()))
        self._queued_bytes = 0
        if self._owed:
            self._peer.consumed(self.stream, self._owed)
            self._owed = 0
        self._sink = take
        while not self._ended and self._failure is None:
            self._wake = self._peer.loop.create_future()
            await self._wake
        if self._failure is not None:
            raise self._failure

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Begin the response before its first message."""
        self._begin(calls.metadata_fields(metadata))
        self._peer.flush_soon()

    async def send(self, message: Any) -> None:
        """Send one message; waits while the client, or the way to it, is too slow."""
        if self._gone:
            return
        if not self._head_sent:
            self._begin(())
        data = message if isinstance(message, bytes) else self.method.encode(message)
        await self._peer.send(self, frame_message(data))

    def push(self, message: bytes) -> bool:
        """Send a message, encoded already, at once; return False if that has to wait: the client is too slow."""
        if self._gone:
            return True
        if not self._head_sent:
            self._begin(())
        return self._peer.push(self.stream, frame_message(message))

    def _begin(self, metadata: Fields) -> None:
        assert not self._head_sent, "a response begins once"
        self._head_sent = True
        self._peer.http.send_headers(self.stream, calls.RESPONSE_HEAD + metadata)

    # -- what the connection tells -----------------------------------------------------------------------------------

    def whole_request(self, data: bytes) -> bytes | None:
        """Return the one message of a call if ``data``, its first and last, is just that."""
        return None if self._reader is not None else calls.only_message(data, self._max_bytes)

    def hand_out(self, data: bytes) -> bool:
        """Hand out data that is just one request; return False, and take nothing, if it is not, or goes elsewhere."""
        reader = self._reader
        if self._sink is None or self._ended or (reader is not None and not reader.empty):
            return False
        if (message := calls.only_message(data, self._max_bytes)) is None:
            return False
        taken = self._hand_out(self._sink, (message,))
        self._peer.http.consumed(self.stream, len(data))
        if not taken:
            self.end()
        return True

    def feed(self, data: bytes, *, ended: bool) -> None:
        """Take data of a stream of requests."""
        if self._reader is None:
            self._reader = MessageReader(max_bytes=self._max_bytes, encoding=self.head.encoding)
        try:
            messages = self._reader.feed(data)
        except CallFailed as exc:
            self._failure, self._ended = exc, True
            messages = []
        if self._sink is not None:
            self._hand_out(self._sink, messages)
            messages = []
        for message in messages:
            self._queued_bytes += len(message)
        self._queued.extend(messages)
        if self._queued_bytes <= MAX_QUEUED_BYTES:
            self._peer.http.consumed(self.stream, len(data))
        else:
            self._owed += len(data)
        if ended:
            self.end()
        if self._wake is not None and not self._wake.done() and (messages or self._ended):
            self._wake.set_result(None)

    def _hand_out(self, take: Callable[[Any], None], messages: Sequence[bytes]) -> bool:
        """Hand messages out; return whether all were taken. If not, the call is over."""
        try:
            for message in messages:
                take(decode(self.method, message))
        except Exception as exc:  # noqa: BLE001 - raised again where the handler waits
            self._failure, self._ended = exc, True
            return False
        return True

    def end(self) -> None:
        """The client has no more requests."""
        self._ended = True
        if self._reader is not None and not self._reader.empty and self._failure is None:
            self._failure = CallFailed(Status.INTERNAL, "the requests end inside a message")
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def only_request(self) -> bytes:
        """Return the one message of a call that must have just one. Raises CallFailed."""
        if self._failure is not None:
            raise self._failure
        if len(self._queued) != 1:
            raise CallFailed(Status.UNIMPLEMENTED, f"{len(self._queued)} requests; this method takes one")
        return self._queued.popleft()

    def forget(self) -> int:
        """Nobody listens any more; return how many bytes are still to be called consumed."""
        self._gone = True
        self._failure = None  # it refers to who raised it, and so to this call
        owed, self._owed = self._owed, 0
        self.room()
        return owed

    @property
    def partial_bytes(self) -> int:
        """Return how much of a message has arrived that is not whole yet."""
        return self._reader.waiting_bytes if self._reader is not None else 0

    @property
    def head_sent(self) -> bool:
        """Return whether the response has begun."""
        return self._head_sent


def decode(method: Method, message: bytes) -> Any:
    """Return a request as the handler takes it. Raises CallFailed."""
    try:
        return method.decode(message)
    except Exception as exc:
        raise CallFailed(Status.INTERNAL, f"a request cannot be decoded: {exc}") from exc
