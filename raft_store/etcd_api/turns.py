"""Taking turns: whoever has the oldest key under a prefix is next; the others wait for the keys before theirs to go.

What etcd's clients do as a recipe (``concurrency.Mutex``, ``concurrency.Election``), done by the server for the
services Lock and Election, by the same requests and under the caller's permissions.
"""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import msgspec

from raft_store.mvcc.model import Event, Revision
from raft_store.mvcc.notices import Canceled, Changes, WatchSpec
from trireme_pb.etcdserverpb import rpc_pb2 as pb

from .backend import Backend
from .call import CallContext
from .errors import COMPACTED, SESSION_EXPIRED, RpcError
from .kv import KvService
from .lease import LeaseService

SESSION_TTL_S = 60  # of a lease made for a caller who brought none


class Place(msgspec.Struct, frozen=True):
    """A key of one's own in the line, and the revision in which it was created."""

    key: bytes
    revision: int
    lease: int
    header: pb.ResponseHeader
    is_first: bool
    value: bytes  # as it was found, if it was there before


class Turns:
    """Lines of callers, one a prefix."""

    def __init__(self, backend: Backend, kv: KvService, lease: LeaseService) -> None:
        self._backend = backend
        self._kv = kv
        self._lease = lease
        self._afterwards: set[asyncio.Task[Any]] = set()

    async def session(self, call: CallContext) -> int:
        """Return a lease made for a caller who brought none. Raises RpcError."""
        return (await self._lease.grant(pb.LeaseGrantRequest(TTL=SESSION_TTL_S), call)).ID

    async def queue_up(self, prefix: bytes, lease: int, value: bytes, call: CallContext) -> Place:
        """Take the place of ``lease`` in the line, or find it taken already. Raises RpcError."""
        if not lease:
            lease = await self.session(call)
        key = prefix + b"%x" % lease
        first = pb.RequestOp(request_range=_oldest(prefix))
        response = await self._kv.txn(
            pb.TxnRequest(
                compare=[created(key, 0)],
                success=[pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, lease=lease)), first],
                failure=[pb.RequestOp(request_range=pb.RangeRequest(key=key)), first],
            ),
            call,
        )
        revision = response.header.revision
        if not response.succeeded:
            (mine,) = response.responses[0].response_range.kvs
            revision, value = mine.create_revision, mine.value
        oldest = response.responses[1].response_range.kvs
        is_first = not oldest or oldest[0].create_revision == revision
        return Place(key, revision, lease, response.header, is_first, value)

    async def wait(self, prefix: bytes, place: Place, call: CallContext) -> pb.ResponseHeader:
        """Return once every older key of the line is gone; if that fails or is given up, leave the line."""
        with self._leaving_on_failure(place, call):
            return await self._wait(prefix, place.revision - 1, call)

    async def hold(self, prefix: bytes, place: Place, call: CallContext) -> pb.ResponseHeader:
        """Wait likewise, for a place that must not be lost meanwhile: who holds it relies on being alone."""
        with self._leaving_on_failure(place, call):
            await self._wait(prefix, place.revision - 1, call)
            mine = await self._kv.range(pb.RangeRequest(key=place.key), call)
        if not mine.kvs:
            raise RpcError(*SESSION_EXPIRED)
        return mine.header

    async def leave(self, key: bytes, revision: int, call: CallContext) -> pb.ResponseHeader:
        """Delete a key if it still is the one of ``revision``. Raises RpcError."""
        deletion = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))
        response = await self._kv.txn(pb.TxnRequest(compare=[created(key, revision)], success=[deletion]), call)
        return response.header

    async def first(self, prefix: bytes, call: CallContext) -> pb.RangeResponse:
        """Return the oldest key of the line, if there is any. Raises RpcError."""
        return await self._kv.range(_oldest(prefix), call)

    async def events(
        self, key: bytes, end: bytes, start: int, call: CallContext
    ) -> AsyncGenerator[tuple[int, Event], None]:
        """Iterate over the changes from revision ``start`` on, each with the store's revision then. Raises RpcError."""
        await self._backend.require_read(call, key, end)
        wake = asyncio.Event()
        hub = self._backend.machine.hub
        stream = hub.open(wake.set)
        try:
            stream.create(WatchSpec(key=key, end=end, start_revision=Revision(start)))
            while True:
                while (notice := stream.next()) is not None:
                    match notice:
                        case Canceled():
                            raise RpcError(*COMPACTED)
                        case Changes():
                            for event in notice.events:
                                yield notice.revision, event
                await wake.wait()
                wake.clear()
        finally:
            hub.close(stream)

    @contextmanager
    def _leaving_on_failure(self, place: Place, call: CallContext) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._later(self.leave(place.key, place.revision, call))
            raise

    async def _wait(self, prefix: bytes, newest: int, call: CallContext) -> pb.ResponseHeader:
        while True:
            response = await self._kv.range(_newest(prefix, newest), call)
            if not response.kvs:
                return response.header
            async with aclosing(self.events(response.kvs[0].key, b"", response.header.revision, call)) as events:
                async for _, event in events:
                    if event.is_delete:
                        break

    def _later(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        self._afterwards.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._afterwards.discard(task)
        if not task.cancelled():
            task.exception()  # a place that could not be given up ends with its lease


def created(key: bytes, revision: int) -> pb.Compare:
    """Return the condition that ``key`` was created in ``revision``; 0: that it does not exist."""
    return pb.Compare(key=key, target=pb.Compare.CREATE, result=pb.Compare.EQUAL, create_revision=revision)


def prefix_end(prefix: bytes) -> bytes:
    """Return the end of the range of all keys that start with ``prefix``, which ends with a slash."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def _oldest(prefix: bytes) -> pb.RangeRequest:
    return pb.RangeRequest(
        key=prefix,
        range_end=prefix_end(prefix),
        limit=1,
        sort_order=pb.RangeRequest.ASCEND,
        sort_target=pb.RangeRequest.CREATE,
    )


def _newest(prefix: bytes, newest: int) -> pb.RangeRequest:
    return pb.RangeRequest(
        key=prefix,
        range_end=prefix_end(prefix),
        limit=1,
        sort_order=pb.RangeRequest.DESCEND,
        sort_target=pb.RangeRequest.CREATE,
        max_create_revision=newest,
    )
