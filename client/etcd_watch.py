"""A watch that outlives any one member."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterator
from itertools import groupby
from types import TracebackType
from typing import Self

from client.etcd_endpoints import SILENT_S, Endpoint, EndpointLost, Endpoints
from client.etcd_rpc import WATCH, Stream
from client.etcd_types import Compacted, Event, KeyValue, Refused, WatchBatch
from fastgrpc.calls import CallFailed
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.mvccpb import kv_pb2

log = logging.getLogger(__name__)

CREATE_S = 2.0  # a member that has not confirmed a watch by then is left for another


class Watch:
    """An async iterator of WatchBatch, every revision once and in order, whichever member serves it.

    Use it as ``async with client.watch(...) as batches`` and iterate inside; leaving the block ends the watch.
    Raises Compacted when the revision to go on from is gone (list anew), Unavailable when no member could be reached
    for ``patience_s``.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        key: bytes,
        end: bytes,
        start_revision: int,
        previous: bool,
        patience_s: float,
    ) -> None:
        self._endpoints = endpoints
        self._key = key
        self._end = end
        self._previous = previous
        self._patience_s = patience_s
        self._next_revision = start_revision  # 0 until the store has told what "now" is
        self._stream: Stream | None = None
        self._progress_wanted = False
        self._closed = False
        self._iterating = False
        self._batches = self._run()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchBatch:
        self._iterating = True
        try:
            return await anext(self._batches)
        finally:
            self._iterating = False

    async def close(self) -> None:
        """End the watch; whoever iterates over it sees its end."""
        self._closed = True
        if self._stream is not None:
            self._stream.cancel()
        if not self._iterating:
            await self._batches.aclose()

    async def request_progress(self) -> None:
        """Ask for a batch without events that tells how far the watch is; lost if the member is lost now."""
        stream = self._stream
        if stream is None:
            self._progress_wanted = True
            return
        try:
            await stream.write(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
        except CallFailed:
            self._progress_wanted = True  # the next member is asked instead

    async def _run(self) -> AsyncGenerator[WatchBatch, None]:
        alive = time.monotonic()
        while not self._closed:
            endpoint = await self._endpoints.pick(alive + self._patience_s)
            try:
                async for batch in self._serve(endpoint):
                    alive = time.monotonic()
                    yield batch
                    alive = time.monotonic()
            except EndpointLost as exc:
                log.info("watch moves on next_revision=%d reason=%s", self._next_revision, exc)

    async def _serve(self, endpoint: Endpoint) -> AsyncGenerator[WatchBatch, None]:
        """Yield what one member tells, until it is lost (EndpointLost)."""
        await endpoint.connect(SILENT_S)
        stream = endpoint.stream(WATCH)
        try:
            with endpoint.watched(stream, SILENT_S):
                await self._create(stream, endpoint)
                self._stream = stream
                if self._closed:  # meanwhile, when there was nothing to be cancelled yet
                    return
                while (response := await stream.read()) is not None:
                    endpoint.heard()
                    for batch in self._batches_of(response):
                        yield batch
                raise EndpointLost(f"{endpoint.address}: ended the watch", maybe_applied=False)
        except CallFailed as exc:
            if self._closed:
                return
            endpoint.distrust(exc.message or exc.status.name)
            raise EndpointLost(f"{endpoint.address}: {exc.message}", maybe_applied=False) from exc
        finally:
            self._stream = None
            stream.cancel()

    async def _create(self, stream: Stream, endpoint: Endpoint) -> None:
        request = pb.WatchCreateRequest(
            key=self._key, range_end=self._end, start_revision=self._next_revision, prev_kv=self._previous
        )
        try:
            async with asyncio.timeout(CREATE_S):
                await stream.write(pb.WatchRequest(create_request=request))
                if self._progress_wanted:
                    self._progress_wanted = False
                    await stream.write(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
        except TimeoutError as exc:
            endpoint.distrust("does not take watches")
            raise EndpointLost(f"{endpoint.address}: does not take watches", maybe_applied=False) from exc

    def _batches_of(self, response: pb.WatchResponse) -> Iterator[WatchBatch]:
        if response.compact_revision:
            raise Compacted(response.cancel_reason or "compacted", response.compact_revision)
        if response.canceled:
            raise Refused(response.cancel_reason or "the store ended the watch")
        if response.created:
            if not self._next_revision:
                self._next_revision = response.header.revision + 1
                yield WatchBatch(response.header.revision)
            return
        if not response.events:
            # A member that lags behind where we are may say less than we know.
            if response.header.revision + 1 >= self._next_revision:
                self._next_revision = response.header.revision + 1
                yield WatchBatch(response.header.revision)
            return
        for revision, events in groupby(response.events, key=lambda event: event.kv.mod_revision):
            if revision >= self._next_revision:
                self._next_revision = revision + 1
                yield WatchBatch(revision, tuple(_event(event) for event in events))


def _event(event: kv_pb2.Event) -> Event:
    return Event(
        kv=key_value(event.kv),
        deleted=event.type == kv_pb2.Event.DELETE,
        previous=key_value(event.prev_kv) if event.HasField("prev_kv") else None,
    )


def key_value(kv: kv_pb2.KeyValue) -> KeyValue:
    """Return a version of a key without its wire form."""
    return KeyValue(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)
