"""A SPDY connection at work: streams that one can await, over any two-way byte stream."""

import asyncio
import logging
from collections.abc import Mapping

from master.rest.duplex import Duplex
from master.rest.spdy import (
    DataReceived,
    Event,
    Framer,
    GoingAway,
    PingReceived,
    SpdyError,
    StreamOpened,
    StreamReset,
)

log = logging.getLogger(__name__)

# Chunks that may wait in one stream; a full one holds up the connection, as there is no flow control to hold up less.
MAX_WAITING = 64
MAX_STREAMS = 512


class SpdyStream:
    """One stream that the client opened."""

    def __init__(self, session: "SpdySession", number: int, headers: Mapping[str, str]) -> None:
        self.number = number
        self.headers = headers
        self._session = session
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue(MAX_WAITING)
        self._ended = False
        self._finished = False

    async def read(self) -> bytes:
        """Return the next bytes; empty when the client has finished the stream."""
        if self._ended:
            return b""
        data = await self.incoming.get()
        self._ended = not data
        return data

    async def write(self, data: bytes) -> None:
        """Send on this stream."""
        if data and not self._finished:
            await self._session.send(self._session.framer.data(self.number, data))

    async def finish(self) -> None:
        """Half-close: nothing more will be sent."""
        if not self._finished:
            self._finished = True
            await self._session.send(self._session.framer.data(self.number, b"", finished=True))

    async def reset(self) -> None:
        """Give the stream up in both directions."""
        self._finished = True
        await self._session.send(self._session.framer.reset(self.number))
        self._session.forget(self)


class SpdySession:
    """Reads frames and hands them to their streams; ``run`` must be running for anything to arrive."""

    def __init__(self, duplex: Duplex) -> None:
        self.framer = Framer()
        self._duplex = duplex
        self._streams: dict[int, SpdyStream] = {}
        self._opened: asyncio.Queue[SpdyStream | None] = asyncio.Queue()
        self._last = 0
        self._no_more = False

    async def run(self) -> None:
        """Serve the connection until the client goes away; its streams then read as ended."""
        try:
            while data := await self._duplex.read():
                for event in self.framer.receive(data):
                    await self._handle(event)
        except (SpdyError, ConnectionError) as error:
            log.info("SPDY connection ended reason=%s", error)
        finally:
            self._end_opening()
            for stream in self._streams.values():
                _put_end(stream.incoming)

    async def accept(self) -> SpdyStream | None:
        """Return the next stream that the client opens; None when no more can come."""
        return await self._opened.get()

    async def send(self, data: bytes) -> None:
        """Write frames."""
        await self._duplex.write(data)

    async def close(self) -> None:
        """End the connection in order."""
        try:
            await self.send(self.framer.go_away(self._last))
        except ConnectionError:
            return
        await self._duplex.close()

    def forget(self, stream: SpdyStream) -> None:
        """Drop a stream that both sides are done with."""
        self._streams.pop(stream.number, None)

    async def _handle(self, event: Event) -> None:
        match event:
            case StreamOpened():
                await self._open(event)
            case DataReceived():
                stream = self._streams.get(event.stream)
                if stream is not None:
                    if event.data:
                        await stream.incoming.put(event.data)
                    if event.finished:
                        await stream.incoming.put(b"")
            case StreamReset():
                if (stream := self._streams.pop(event.stream, None)) is not None:
                    _put_end(stream.incoming)
            case PingReceived():
                await self.send(self.framer.ping(event.number))
            case GoingAway():
                self._end_opening()

    def _end_opening(self) -> None:
        if not self._no_more:
            self._no_more = True
            self._opened.put_nowait(None)

    async def _open(self, event: StreamOpened) -> None:
        # Streams that the client has reset by now may still wait to be accepted: they count as well.
        busy = max(len(self._streams), self._opened.qsize()) >= MAX_STREAMS
        if busy or self._no_more or event.stream in self._streams:
            await self.send(self.framer.reset(event.stream))
            return
        stream = SpdyStream(self, event.stream, event.headers)
        self._streams[event.stream] = stream
        self._last = max(self._last, event.stream)
        await self.send(self.framer.reply(event.stream))
        if event.finished:
            stream.incoming.put_nowait(b"")
        self._opened.put_nowait(stream)


def _put_end(queue: asyncio.Queue[bytes]) -> None:
    """Make a reader see the end even if its queue is full: what it has not read by now is lost with the connection."""
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(b"")
