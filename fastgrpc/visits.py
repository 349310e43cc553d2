"""A request by plain HTTP/2, no call of gRPC's, as whoever answers it sees it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from .headers import Headers
from .hpack import Fields
from .serving import Link, Sender

LINGER_S, LINGER_BYTES = 2.0, 16 << 20  # for a client to end a body that is not wanted


class Visit(Sender):
    """One request, and the way back. What is sent to a client that has gone is dropped."""

    __slots__ = (
        "_arrived",
        "_ended",
        "_wake",
        "begun",
        "gone",
        "headers",
        "stream",
        "task",
    )

    def __init__(self, peer: Link, stream: int, headers: Headers, *, ended: bool) -> None:
        super().__init__(peer)
        self.stream = stream
        self.headers = headers
        self.task: asyncio.Task[None] | None = None
        self.begun = False  # the response's headers are sent
        self.gone = False  # nobody waits for the rest of it
        self._arrived = bytearray()  # of the body, and not taken yet; the client's windows bound it
        self._ended = ended
        self._wake: asyncio.Future[None] | None = None

    @property
    def method(self) -> str:
        """Return "GET", say."""
        return self.headers.pseudo[b":method"].decode("latin-1")

    @property
    def target(self) -> str:
        """Return path and query, as they were sent."""
        return self.headers.pseudo[b":path"].decode("latin-1")

    async def chunks(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives; the client may send as much anew."""
        while True:
            while not self._arrived:
                if self._ended:
                    return
                self._wake = self._peer.loop.create_future()
                await self._wake
            chunk = bytes(self._arrived)
            self._arrived.clear()
            self._peer.consumed(self.stream, len(chunk))
            yield chunk

    async def answer(self, status: int, fields: Fields, content: bytes) -> None:
        """Answer with all there is to say, once the client has said what it has."""
        await self._linger()
        self.begin(status, (*fields, (b"content-length", b"%d" % len(content))))
        if self.method != "HEAD":
            await self.send(content)

    async def _linger(self) -> None:
        """Throw away what comes of the body still: some clients (curl 7) take an answer amid theirs for a fault."""
        left = LINGER_BYTES
        if not self._ended:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    async for chunk in self.chunks():
                        left -= len(chunk)
                        if left <= 0:
                            return

    def begin(self, status: int, fields: Fields) -> None:
        """Begin to answer; the end comes when the handler returns."""
        assert not self.begun, "a response begins once"
        if not self.gone:
            self.begun = True
            self._peer.http.send_headers(self.stream, ((b":status", b"%d" % status), *fields))
            self._peer.flush_soon()

    async def send(self, data: bytes) -> None:
        """Send a part of the content; waits while the client, or the way to it, is too slow."""
        if not self.gone:
            await self._peer.send(self, data)

    # -- what the connection tells -----------------------------------------------------------------------------------

    def feed(self, data: bytes, *, ended: bool) -> None:
        """Take a part of the body."""
        self._arrived += data
        self._ended = self._ended or ended
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def forget(self) -> int:
        """Nobody listens any more; return how many bytes of the body are still to be called consumed."""
        self.gone = True
        owed = len(self._arrived)
        self._arrived.clear()
        self.room()
        return owed


Web = Callable[[Visit], Coroutine[Any, Any, None]]  # what answers plain requests
