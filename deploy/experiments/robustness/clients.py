"""Clients that write, read, transact, hold leases and watch, and note down all they see. Times: one monotonic clock."""

import asyncio
import itertools
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from random import Random

import grpc
import grpc.aio
import msgspec

from deploy.experiments.linearizability import (
    Compare,
    Delete,
    Found,
    Get,
    Operation,
    Put,
    Request,
    Response,
    Step,
)
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.etcdserverpb import rpc_pb2_grpc as rpc
from trireme_pb.mvccpb import kv_pb2

Channels = Mapping[str, grpc.aio.Channel]

ATTEMPT_S = 1.5
PAUSE_S = (0.002, 0.02)
AFTER_FAILURE_S = 0.05
TTL_S = 2
MOVE_S = (1.0, 6.0)  # a watcher changes to another member so often
CERTAIN = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)


class Change(msgspec.Struct, frozen=True):
    """One event as a watcher saw it; ``version`` 0: a deletion. ``prev``: the revision it replaced, 0: none told."""

    key: str
    value: str
    version: int
    mod_revision: int
    prev: int


class Batch(msgspec.Struct, frozen=True, tag=True):
    """One response with events."""

    at_s: float
    revision: int  # in its header
    changes: tuple[Change, ...]


class Progress(msgspec.Struct, frozen=True, tag=True):
    """Everything up to ``revision`` has been told."""

    revision: int


class Gap(msgspec.Struct, frozen=True, tag=True):
    """The history before ``revision`` was compacted away before it was told."""

    revision: int


class Hold(msgspec.Struct):
    """A key that a lease keeps: alive at least until ``until_s``, unless its holder ended it at ``revoked_s``."""

    key: str
    until_s: float
    revoked_s: float = math.inf


class Records(msgspec.Struct):
    """All that was seen in one round."""

    operations: list[Operation] = []
    watches: list[list[Batch | Progress | Gap]] = []
    holds: list[Hold] = []


class KvClient:
    """One thing at a time, at one member until that fails."""

    def __init__(
        self, name: str, channels: Channels, records: Records, random: Random, *, prefix: str, writes: bool = True
    ) -> None:
        self._writes = writes
        self._name = name
        self._channels = channels
        self._records = records
        self._random = random
        self._prefix = prefix
        self._numbers = itertools.count(1)
        self._mods: dict[str, int] = {}

    async def run(self, until: Callable[[], bool]) -> None:
        """Work until told to stop."""
        where = self._random.choice(list(self._channels))
        while not until():
            if where not in self._channels or not await self._do(self._draw(), where):
                where = self._random.choice(list(self._channels))
                await asyncio.sleep(AFTER_FAILURE_S)
            await asyncio.sleep(self._random.uniform(*PAUSE_S))

    def _draw(self) -> Request:
        key = f"{self._prefix}k/{self._random.randrange(5)}"
        one, two = f"{self._prefix}t/0", f"{self._prefix}t/1"
        kind = self._random.random() if self._writes else 0.5
        if kind < 0.35:
            return Request((Put(key, self._value()),))
        if kind < 0.65:
            return Request((Get(key),))
        if kind < 0.70:
            return Request((Delete(key),))
        if kind < 0.88:
            return Request((Put(key, self._value()),), (Compare(key, self._mods.get(key, 0)),), (Get(key),))
        compare = (Compare(one, self._mods.get(one, 0)),) if kind < 0.95 else ()
        return Request((Put(one, self._value()), Put(two, self._value()), Get(one)), compare, (Get(one), Get(two)))

    def _value(self) -> str:
        return f"{self._name}.{next(self._numbers)}"

    async def _do(self, request: Request, where: str) -> bool:
        """Make one request; return whether it was answered."""
        reads = all(isinstance(step, Get) for step in request.success)
        called = time.monotonic()
        try:
            response = await ask(self._channels[where], request)
        except grpc.aio.AioRpcError as exc:
            if not reads and exc.code() not in CERTAIN and not _never_sent(exc):
                self._note(called, math.inf, request, None)
            return False
        self._note(called, time.monotonic(), request, response)
        for step, found in zip(_reads(request, response), response.found, strict=True):
            self._mods[step.key] = found.mod_revision if found is not None else 0
        return True

    def _note(self, called: float, returned: float, request: Request, response: Response | None) -> None:
        self._records.operations.append(Operation(self._name, called, returned, request, response))


async def ask(channel: grpc.aio.Channel, request: Request) -> Response:
    """Ask a member, in the plainest way that the store has for it. Raises AioRpcError."""
    kv = rpc.KVStub(channel)
    if not request.compares and len(request.success) == 1:
        match request.success[0]:
            case Put(key=key, value=value):
                put = await kv.Put(pb.PutRequest(key=key.encode(), value=value.encode()), timeout=ATTEMPT_S)
                return Response(put.header.revision, succeeded=True)
            case Delete(key=key):
                gone = await kv.DeleteRange(pb.DeleteRangeRequest(key=key.encode()), timeout=ATTEMPT_S)
                return Response(gone.header.revision, succeeded=True)
            case Get(key=key):
                read = await kv.Range(pb.RangeRequest(key=key.encode()), timeout=ATTEMPT_S)
                return Response(read.header.revision, succeeded=True, found=(_found(read.kvs),))
    compares = [
        pb.Compare(
            key=each.key.encode(), target=pb.Compare.MOD, result=pb.Compare.EQUAL, mod_revision=each.mod_revision
        )
        for each in request.compares
    ]
    answer = await kv.Txn(
        pb.TxnRequest(compare=compares, success=map(_op, request.success), failure=map(_op, request.failure)),
        timeout=ATTEMPT_S,
    )
    found = [_found(each.response_range.kvs) for each in answer.responses if each.HasField("response_range")]
    return Response(answer.header.revision, succeeded=answer.succeeded, found=tuple(found))


def _op(step: Step) -> pb.RequestOp:
    match step:
        case Put(key=key, value=value):
            return pb.RequestOp(request_put=pb.PutRequest(key=key.encode(), value=value.encode()))
        case Delete(key=key):
            return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key.encode()))
        case Get(key=key):
            return pb.RequestOp(request_range=pb.RangeRequest(key=key.encode()))


def _reads(request: Request, response: Response) -> list[Step]:
    branch = request.success if response.succeeded else request.failure
    return [step for step in branch if isinstance(step, Get)]


def _found(kvs: Sequence[kv_pb2.KeyValue]) -> Found | None:
    return Found(kvs[0].value.decode(), kvs[0].version, kvs[0].mod_revision) if kvs else None


def _never_sent(error: grpc.aio.AioRpcError) -> bool:
    return error.code() is grpc.StatusCode.UNAVAILABLE and "failed to connect" in (error.details() or "").lower()


async def hold_leases(
    name: str, channels: Channels, records: Records, random: Random, *, prefix: str, until: Callable[[], bool]
) -> None:
    """Hold one lease after the other, each with a key; let some run out, and end some."""
    for number in itertools.count(1):
        if until():
            return
        try:
            await _hold_one(f"{prefix}lease/{name}/{number}", channels, records, random, until)
        except (grpc.aio.AioRpcError, TimeoutError):
            await asyncio.sleep(AFTER_FAILURE_S)


async def _hold_one(key: str, channels: Channels, records: Records, random: Random, until: Callable[[], bool]) -> None:
    channel = channels[random.choice(list(channels))]
    sent = time.monotonic()
    lease = await rpc.LeaseStub(channel).LeaseGrant(pb.LeaseGrantRequest(TTL=TTL_S), timeout=ATTEMPT_S)
    hold = Hold(key, sent + lease.TTL)
    put = pb.PutRequest(key=key.encode(), value=key.encode(), lease=lease.ID)
    await rpc.KVStub(channel).Put(put, timeout=ATTEMPT_S)
    records.holds.append(hold)
    for _ in range(random.randrange(8)):
        await asyncio.sleep(0.4)
        if until():
            return
        sent = time.monotonic()
        try:
            async with asyncio.timeout(ATTEMPT_S):
                ttl = await _keep_alive(channels[random.choice(list(channels))], lease.ID)
        except (grpc.aio.AioRpcError, TimeoutError):
            continue
        if ttl == 0:
            return  # it ran out; whether too early, its key's deletion will tell
        hold.until_s = max(hold.until_s, sent + ttl)
    if random.random() < 0.3:
        hold.revoked_s = time.monotonic()
        channel = channels[random.choice(list(channels))]
        await rpc.LeaseStub(channel).LeaseRevoke(pb.LeaseRevokeRequest(ID=lease.ID), timeout=ATTEMPT_S)


async def _keep_alive(channel: grpc.aio.Channel, lease: int) -> int:
    async def once() -> AsyncIterator[pb.LeaseKeepAliveRequest]:
        yield pb.LeaseKeepAliveRequest(ID=lease)

    async for answer in rpc.LeaseStub(channel).LeaseKeepAlive(once()):
        return int(answer.TTL)
    return 0


class Watcher:
    """One watch of everything under a prefix, over many connections to many members."""

    def __init__(self, channels: Channels, records: Records, random: Random, *, prefix: str, start: int) -> None:
        self._channels = channels
        self._random = random
        self._prefix = prefix
        self._log: list[Batch | Progress | Gap] = []
        records.watches.append(self._log)
        self.next_revision = start

    async def run(self, until: Callable[[], bool]) -> None:
        """Watch until told to stop, and a little longer: until nothing is under way."""
        while not until():
            where = self._random.choice(list(self._channels))
            try:
                async with asyncio.timeout(self._random.uniform(*MOVE_S)):
                    await self._watch(self._channels[where])
            except (grpc.aio.AioRpcError, TimeoutError, asyncio.InvalidStateError):
                await asyncio.sleep(AFTER_FAILURE_S)

    async def _watch(self, channel: grpc.aio.Channel) -> None:
        prefix = self._prefix.encode()
        create = pb.WatchCreateRequest(
            key=prefix,
            range_end=prefix[:-1] + bytes([prefix[-1] + 1]),
            start_revision=self.next_revision,
            prev_kv=True,
            progress_notify=True,
        )
        ended = asyncio.Event()

        async def requests() -> AsyncIterator[pb.WatchRequest]:
            yield pb.WatchRequest(create_request=create)
            await ended.wait()

        call = rpc.WatchStub(channel).Watch(requests())
        try:
            async for response in call:
                if response.canceled:
                    if response.compact_revision:
                        self._log.append(Gap(response.compact_revision))
                        self.next_revision = response.compact_revision
                    return
                if not response.created:
                    self._hear(response)
        finally:
            ended.set()
            call.cancel()

    def _hear(self, response: pb.WatchResponse) -> None:
        if not response.events:
            self._log.append(Progress(response.header.revision))
            self.next_revision = max(self.next_revision, response.header.revision + 1)
            return
        changes = tuple(
            Change(
                event.kv.key.decode(),
                event.kv.value.decode(),
                0 if event.type == kv_pb2.Event.DELETE else event.kv.version,
                event.kv.mod_revision,
                event.prev_kv.mod_revision,
            )
            for event in response.events
        )
        self._log.append(Batch(time.monotonic(), response.header.revision, changes))
        self.next_revision = changes[-1].mod_revision + 1
