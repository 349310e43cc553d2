"""The Watch service: one stream, many watches."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

from raft_store.mvcc.model import Event, KeyValue, Revision
from raft_store.mvcc.notices import Canceled, Changes, Created, Notice, Progress, WatchSpec
from raft_store.mvcc.watch import WatchStream
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.mvccpb import kv_pb2

from .backend import MAX_REQUEST_BYTES, Backend, key_value
from .call import NO_CONTEXT, CallContext, Outlet
from .errors import RpcError

MAX_EVENTS_A_TURN = 200
MAX_BACKLOG = 256  # notices that wait to be sent before further requests are read

Send = Callable[[pb.WatchResponse | bytes], Awaitable[None]]


class WatchService:
    """etcdserverpb.Watch."""

    def __init__(self, backend: Backend, *, progress_interval_s: float) -> None:
        self._backend = backend
        self._progress_interval_s = progress_interval_s

    async def watch(self, requests: AsyncIterator[pb.WatchRequest], send: Send, call: CallContext = NO_CONTEXT) -> None:
        """Serve one stream until the client ends it; it may stop asking and go on listening."""
        await self._serve(requests, _Session(self._backend, send, call))

    async def encoded_watch(
        self, requests: AsyncIterator[pb.WatchRequest], outlet: Outlet, call: CallContext = NO_CONTEXT
    ) -> None:
        """See ``watch``; changes are sent as bytes, which all who listen to a change share, and as they happen."""
        await self._serve(requests, _Session(self._backend, outlet.send, call, push=outlet.push))

    async def _serve(self, requests: AsyncIterator[pb.WatchRequest], session: "_Session") -> None:
        reading = asyncio.create_task(session.read(requests))
        reading.add_done_callback(session.note_end)
        tasks = [reading, asyncio.create_task(session.tick(self._progress_interval_s))]
        try:
            await session.write()
        finally:
            session.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class _Session:
    """One stream: what it was asked, and what it says in which shape.

    push: sends bytes at once, if the client is not too slow; without it, messages are sent.
    """

    def __init__(
        self, backend: Backend, send: Send, call: CallContext, *, push: Callable[[bytes], bool] | None = None
    ) -> None:
        self._backend = backend
        self._answers = backend.answers
        self._send = send
        self._push = push
        self._call = call
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._stream: WatchStream = backend.machine.hub.open(self._wake.set, self._take if push else None)
        # What the stream had to say is on its way: nothing may come between, least of all between two fragments, where
        # Go's client would lose it.
        self._writing = False
        self._failure: BaseException | None = None  # of the requests: the stream ends with it
        self._with_prev: set[int] = set()
        self._fragmented: set[int] = set()

    async def read(self, requests: AsyncIterator[pb.WatchRequest]) -> None:
        async for request in requests:
            match request.WhichOneof("request_union"):
                case "create_request":
                    await self._create(request.create_request)
                case "cancel_request":
                    self._stream.cancel(request.cancel_request.watch_id)
                case "progress_request":
                    self._stream.request_progress()
            while self._stream.backlog > MAX_BACKLOG:
                self._room.clear()
                await self._room.wait()

    def note_end(self, reading: "asyncio.Task[None]") -> None:
        """The client has no more requests, or sent one that is none."""
        self._failure = None if reading.cancelled() else reading.exception()
        if self._failure is not None:
            self._wake.set()

    async def write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._failure is not None:
                raise self._failure
            self._writing = True
            events = 0
            while (notice := self._stream.next()) is not None:
                for response in self._responses(notice):
                    await self._send(response)
                self._room.set()
                if isinstance(notice, Changes):
                    events += len(notice.events)
                    if events > MAX_EVENTS_A_TURN:
                        events = 0
                        await asyncio.sleep(0)  # a long history must not keep the member from its other work
            self._writing = False

    def _take(self, watch_id: int, revision: Revision, events: Sequence[Event]) -> bool:
        """Send changes in the step that makes them, if the client can take them."""
        if self._push is None or self._writing or watch_id in self._fragmented:
            return False
        prev = self._prev if watch_id in self._with_prev else None
        try:
            return self._push(self._answers.changes(watch_id, revision, events, prev))
        except Exception as exc:  # noqa: BLE001 - it ends this stream; the change is being made for everybody
            self._failure = exc
            self._wake.set()
            return False

    async def tick(self, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s)
            self._stream.notify_progress()

    def close(self) -> None:
        self._backend.machine.hub.close(self._stream)

    async def _create(self, request: pb.WatchCreateRequest) -> None:
        filters = set(request.filters)
        key = request.key or b"\0"
        try:
            await self._backend.require_read(self._call, key, request.range_end)
        except RpcError as exc:
            self._stream.refuse(f"rpc error: code = {exc.code.label} desc = {exc.text}")
            return
        watch_id = self._stream.create(
            WatchSpec(
                key=key,
                end=request.range_end,
                start_revision=Revision(request.start_revision),
                puts=pb.WatchCreateRequest.NOPUT not in filters,
                deletes=pb.WatchCreateRequest.NODELETE not in filters,
                progress_notify=request.progress_notify,
            ),
            request.watch_id,
        )
        if watch_id is None:
            return
        for wished, ids in ((request.prev_kv, self._with_prev), (request.fragment, self._fragmented)):
            (ids.add if wished else ids.discard)(watch_id)

    def _responses(self, notice: Notice) -> Iterator[pb.WatchResponse | bytes]:
        if self._push is not None and isinstance(notice, Changes) and notice.watch_id not in self._fragmented:
            prev = self._prev if notice.watch_id in self._with_prev else None
            yield self._answers.changes(notice.watch_id, notice.revision, notice.events, prev)
            return
        header = self._backend.header(notice.revision)
        match notice:
            case Created():
                yield pb.WatchResponse(header=header, watch_id=notice.watch_id, created=True)
            case Canceled():
                yield pb.WatchResponse(
                    header=header,
                    watch_id=notice.watch_id,
                    created=notice.refused,
                    canceled=True,
                    compact_revision=notice.compact_revision,
                    cancel_reason=notice.reason,
                )
            case Progress():
                yield pb.WatchResponse(header=header, watch_id=notice.watch_id)
            case Changes():
                with_prev = notice.watch_id in self._with_prev
                events = [self._event(event, with_prev=with_prev) for event in notice.events]
                whole = pb.WatchResponse(header=header, watch_id=notice.watch_id, events=events)
                if notice.watch_id not in self._fragmented or whole.ByteSize() <= MAX_REQUEST_BYTES:
                    yield whole
                else:
                    yield from _fragments(whole)

    def _prev(self, event: Event) -> KeyValue | None:
        prev = event.prev
        if prev is not None and prev.mod_revision == event.kv.mod_revision:
            # Put and deleted in one transaction: what was there before it is meant.
            store, before = self._backend.machine.store, Revision(event.kv.mod_revision - 1)
            prev = store.index.get_at(event.kv.key, before) if before >= store.compact_revision else None
        return prev

    def _event(self, event: Event, *, with_prev: bool) -> kv_pb2.Event:
        prev = self._prev(event) if with_prev else None
        return kv_pb2.Event(
            type=kv_pb2.Event.DELETE if event.is_delete else kv_pb2.Event.PUT,
            kv=key_value(event.kv),
            prev_kv=key_value(prev) if prev is not None else None,
        )


def _fragments(whole: pb.WatchResponse) -> Iterator[pb.WatchResponse]:
    """Split a response; every part but the last is marked."""
    part = pb.WatchResponse(header=whole.header, watch_id=whole.watch_id)
    size = 0
    for event in whole.events:
        event_size = event.ByteSize()
        if part.events and size + event_size > MAX_REQUEST_BYTES:
            part.fragment = True
            yield part
            part = pb.WatchResponse(header=whole.header, watch_id=whole.watch_id)
            size = 0
        part.events.append(event)
        size += event_size
    yield part
