"""A watch as a chunked stream of JSON lines."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, NamedTuple

from api import codec
from api.errors import ApiError
from api.kinds.table import Kind
from api.meta import ObjectMeta, Resource
from client.resources import EventType
from master.rest.http import encode_json
from master.rest.negotiation import Form
from master.rest.request import Origin, Request, Stream
from master.rest.seam import Event
from master.rest.tables import Printer, partial_metadata

log = logging.getLogger(__name__)

# A client that does not take what was written within this time is cut: it can ask again, we cannot buffer for it.
SLOW_CLIENT_S = 30.0
# About twice what one write costs, so that watches alone take no more than half of the processor.
_PAUSE_PER_STREAM_S = 80e-6
_SHORTEST_PAUSE_S = 0.005
_SMALL_BACKLOG = 32 * 1024  # bytes; well below where a connection makes its writers wait


class _Lines:
    """Writes the events of one watch as lines in the form the client asked for."""

    def __init__(self, kind: Kind, form: Form, include: str) -> None:
        self._kind = kind
        self._form = form
        self._printer = Printer(kind, version=form.version, include=include) if form.transform == "Table" else None
        self._first = True

    def write(self, event: Event) -> bytes:
        if event.type is EventType.BOOKMARK or event.stored is None:
            return _line("BOOKMARK", encode_json(self._bookmark(event)))
        if self._printer is not None:
            table = self._printer.table([event.stored], revision=event.revision, with_columns=self._first)
            self._first = False
            return _line(event.type.value, encode_json(table))
        if self._form.transform:
            return _line(event.type.value, encode_json(partial_metadata(event.stored.obj, self._form.version)))
        if not event.line:
            event.line = _line(event.type.value, event.stored.json)
        return event.line

    def _bookmark(self, event: Event) -> dict[str, Any]:
        ends = {"k8s.io/initial-events-end": "true"} if event.initial_events_end else {}
        if self._printer is not None:
            return self._marked_row(event.revision, ends)
        metadata: dict[str, Any] = {"resourceVersion": str(event.revision), "creationTimestamp": None}
        if ends:
            metadata["annotations"] = ends
        if self._form.transform:
            version = f"meta.k8s.io/{self._form.version}"
            return {"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": metadata}
        return {"kind": self._kind.kind, "apiVersion": self._kind.group_version, "metadata": metadata}

    def _marked_row(self, revision: int, annotations: dict[str, str]) -> dict[str, Any]:
        """Return a table of one row, an empty object, whose metadata are the bookmark's."""
        assert self._printer is not None
        meta = ObjectMeta(resource_version=str(revision), annotations=annotations)
        head = {"api_version": self._kind.group_version, "kind": self._kind.kind}
        obj = self._kind.model(metadata=meta, **head)
        table = self._printer.table(
            [_Mark(obj, codec.encode(obj), revision)], revision=revision, with_columns=self._first
        )
        self._first = False
        return table


class _Mark(NamedTuple):
    """The empty object of a bookmark, as if it were stored."""

    obj: Resource
    json: bytes
    revision: int


def _line(kind: str, obj: bytes) -> bytes:
    return b'{"type":"%b","object":%b}\n' % (kind.encode(), obj)


class Pacer:
    """Lets many wait for the same moment by one timer: each of a thousand armed its own for twice the cost."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    async def turn(self, pause_s: float) -> None:
        """Wait for the next moment: the one that others wait for already, or one in ``pause_s``."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_later(pause_s, self._go)
        moment: asyncio.Future[None] = loop.create_future()
        self._waiting.append(moment)
        await moment

    def _go(self) -> None:
        waiting, self._waiting = self._waiting, []
        for moment in waiting:
            if not moment.done():  # its watch may have ended meanwhile
                moment.set_result(None)


class OpenStreams:
    """The answers that last: so that a stopping server ends them properly instead of cutting connections."""

    def __init__(self) -> None:
        self._ends: set[Callable[[], None]] = set()
        self._pacer = Pacer()

    @contextmanager
    def added(self, end: Callable[[], None]) -> Iterator[None]:
        """Count a stream in while the context lasts; ``end`` ends it."""
        self._ends.add(end)
        try:
            yield
        finally:
            self._ends.discard(end)

    def end_all(self) -> None:
        """End every stream that is open now."""
        for end in tuple(self._ends):
            end()

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def pause_s(self) -> float:
        """Return how long a watch should gather events before it writes again, having just written.

        With a thousand watchers each event costs a thousand writes: gathered, they leave the processor to others.
        """
        pause_s = len(self._ends) * _PAUSE_PER_STREAM_S
        return pause_s if pause_s >= _SHORTEST_PAUSE_S else 0.0

    async def gather(self) -> None:
        """Let a watch that has just written wait until it may write again."""
        if pause_s := self.pause_s:
            await self._pacer.turn(pause_s)


async def stream_events(
    request: Request,
    events: AsyncGenerator[Sequence[Event], None],
    *,
    kind: Kind,
    form: Form,
    include: str,
    timeout_s: float,
    headers: dict[str, str],
    streams: OpenStreams,
) -> Stream:
    """Answer with ``events`` until they end, the time is up or the client goes away.

    A refusal that comes after the headers (history compacted, the store lost) travels as an ERROR event.
    """
    lines = _Lines(kind, form, include)
    response = await request.begin(
        {"Content-Type": "application/json", "Cache-Control": "no-cache, private", **headers}
    )
    try:
        async with asyncio.timeout(timeout_s) as deadline, aclosing(events):
            with streams.added(lambda: deadline.reschedule(0)):
                async for batch in events:
                    data = b"".join([lines.write(event) for event in batch])
                    if not data:
                        continue
                    if not await send_or_cut(request, response, data):
                        return response
                    await streams.gather()
    except (TimeoutError, ConnectionError):
        pass  # its time is up, or the client has left
    except ApiError as error:
        await send_or_cut(request, response, _line("ERROR", encode_json(error.status())))
    return response


async def send_or_cut(request: Origin, response: Stream, data: bytes) -> bool:
    """Write ``data``; return False if the client did not take it in time, and has been cut off."""
    transport = request.transport
    if transport is not None and transport.get_write_buffer_size() + len(data) < _SMALL_BACKLOG:
        await response.write(data)  # waits for nobody: a timer would cost more than the write
        return True
    try:
        async with asyncio.timeout(SLOW_CLIENT_S):
            await response.write(data)
    except TimeoutError:
        log.warning("client cut: too slow path=%s peer=%s", request.path, request.remote)
        if transport is not None:
            transport.abort()
        return False
    return True
