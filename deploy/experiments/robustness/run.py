"""One round: clients work while members are tormented; then everything is mended, read back, and judged."""

import asyncio
import math
import time
from pathlib import Path
from random import Random

import grpc.aio
import msgspec

from deploy.experiments.robustness.checks import Judgement, judge
from deploy.experiments.robustness.clients import TTL_S, KvClient, Records, Watcher, hold_leases
from deploy.experiments.robustness.members import Members, NotReady
from deploy.experiments.robustness.nemesis import Fault, torment
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.etcdserverpb import rpc_pb2_grpc as rpc

CATCH_UP_S = 30.0
CHECK_S = 60.0


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """How much happens in a round."""

    clients: int = 4
    readers: int = 0  # who only read
    holders: int = 2
    watchers: int = 3
    faults: tuple[Fault, ...]
    for_s: float


class Mark(msgspec.Struct, frozen=True):
    """A moment worth a line."""

    at_s: float
    what: str


class Round(msgspec.Struct, frozen=True):
    """What one round did, saw, and proved."""

    number: int
    seed: int
    began_s: float
    marks: tuple[Mark, ...]
    judgement: Judgement
    records: Records
    served: bool  # in the end


class _Play:
    """Everybody who takes part in one round, and what was noted down."""

    def __init__(self, members: Members, number: int, seed: int, shape: Shape) -> None:
        self.members = members
        self.prefix = f"r{number}/"
        self.records = Records(operations=[], watches=[], holds=[])
        self.marks: list[Mark] = []
        self.faults: list[str] = []
        self.began_s = time.monotonic()
        self._number = number
        self._seed = seed
        self._shape = shape
        self._working = True

    def chance(self, who: str) -> Random:
        """Return one participant's own randomness, which is the same for a seed."""
        return Random(f"{self._seed}/{self._number}{who}")  # noqa: S311 - has to be repeatable

    def watchers(self, *, start: int) -> list[Watcher]:
        """Return watchers of everything from revision ``start`` on."""
        return [
            Watcher(self.members.channels, self.records, self.chance(f"/w{n}"), prefix=self.prefix, start=start)
            for n in range(self._shape.watchers)
        ]

    async def work(self) -> None:
        """Let clients work while members are tormented, until all is mended."""
        async with asyncio.TaskGroup() as working:
            for client in self._clients():
                working.create_task(client.run(self._is_over))
            for n in range(self._shape.holders):
                working.create_task(self._hold(n))
            try:
                await torment(
                    self.members, self.chance(""), faults=self._shape.faults, for_s=self._shape.for_s, mark=self._mark
                )
                await self.members.ready()
                self._mark("all members serve again")
            except NotReady as exc:
                self.faults.append(str(exc))
            finally:
                self._working = False

    def _clients(self) -> list[KvClient]:
        shape, channels = self._shape, self.members.channels
        return [
            KvClient(
                f"r{self._number}c{n}",
                channels,
                self.records,
                self.chance(f"/c{n}"),
                prefix=self.prefix,
                writes=n < shape.clients,
            )
            for n in range(shape.clients + shape.readers)
        ]

    async def _hold(self, n: int) -> None:
        channels, chance = self.members.channels, self.chance(f"/h{n}")
        await hold_leases(f"h{n}", channels, self.records, chance, prefix=self.prefix, until=self._is_over)

    def _is_over(self) -> bool:
        return not self._working

    def _mark(self, what: str) -> None:
        self.marks.append(Mark(time.monotonic() - self.began_s, what))


async def run_round(members: Members, number: int, seed: int, shape: Shape) -> Round:
    """Run one round on members that serve; raises NotReady if they do not. Whether they do after it, is judged."""
    play = _Play(members, number, seed, shape)
    final: dict[str, str] | None = None
    revision, watched = 0, False
    _, start = await read_all(members, play.prefix)
    watchers = play.watchers(start=start + 1)
    async with asyncio.TaskGroup() as watching:
        for watcher in watchers:
            watching.create_task(watcher.run(lambda: watched))
        try:
            await play.work()
            await asyncio.sleep(TTL_S * 2)  # for the last leases to run out
            final, revision = await _settled(members, play.prefix)
            await _until_heard(watchers, revision)
            play.faults += await _differing_members(members, revision)
        except NotReady as exc:
            play.faults.append(str(exc))
        finally:
            watched = True
    judgement = _judge(play, watchers, final=final, revision=revision, start=start)
    return Round(number, seed, play.began_s, tuple(play.marks), judgement, play.records, served=final is not None)


def _judge(
    play: _Play, watchers: list[Watcher], *, final: dict[str, str] | None, revision: int, start: int
) -> Judgement:
    """Judge what was noted down, and what was seen in the end."""
    judgement = judge(
        play.records,
        final=final,
        final_revision=revision,
        start_revision=start + 1,
        now=time.monotonic,
        limit_s=CHECK_S,
    )
    silent = [n for n, watcher in enumerate(watchers, 1) if watcher.next_revision <= revision]
    if silent:
        play.faults.append(f"watchers {silent} did not hear of everything within {CATCH_UP_S:.0f} s")
    return msgspec.structs.replace(judgement, faults=(*judgement.faults, *play.faults))


async def read_all(members: Members, prefix: str) -> tuple[dict[str, str], int]:
    """Return everything under ``prefix``, and the revision; asks members in turn. Raises NotReady."""
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    request = pb.RangeRequest(key=prefix.encode(), range_end=end.encode())
    deadline = time.monotonic() + CATCH_UP_S
    while time.monotonic() < deadline:
        for channel in list(members.channels.values()):
            try:
                answer = await rpc.KVStub(channel).Range(request, timeout=5)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.1)
            else:
                return {kv.key.decode(): kv.value.decode() for kv in answer.kvs}, int(answer.header.revision)
    raise NotReady(f"no member answers a read within {CATCH_UP_S:.0f} s; see the logs in {members.folder}")


async def _settled(members: Members, prefix: str) -> tuple[dict[str, str], int]:
    """Return the state once leases have run out: until then it may still change by itself."""
    deadline = time.monotonic() + CATCH_UP_S
    while True:
        final, revision = await read_all(members, prefix)
        if not any("/lease/" in key or key.startswith(f"{prefix}lease/") for key in final):
            return final, revision
        if time.monotonic() > deadline:
            return final, revision
        await asyncio.sleep(0.5)


async def _until_heard(watchers: list[Watcher], revision: int) -> None:
    deadline = time.monotonic() + CATCH_UP_S
    while any(watcher.next_revision <= revision for watcher in watchers) and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.1)


async def _differing_members(members: Members, revision: int) -> list[str]:
    """Compare what the members hold, by a checksum of all of it up to one revision."""
    deadline = time.monotonic() + CATCH_UP_S
    hashes: dict[str, tuple[int, int]] = {}
    for name, channel in members.channels.items():
        try:
            answer = await _checksum(channel, revision, deadline)
        except grpc.aio.AioRpcError as exc:
            return [f"member {name} tells no checksum: {exc.details()}"]
        hashes[name] = (answer.hash, answer.compact_revision)
    if len({checksum for checksum, _ in hashes.values()}) > 1 and len({at for _, at in hashes.values()}) == 1:
        return [f"members differ at revision {revision}: {hashes}"]
    return []


async def _checksum(channel: grpc.aio.Channel, revision: int, deadline: float) -> pb.HashKVResponse:
    """Ask one member, until ``deadline`` (monotonic seconds) also one that has not come as far yet."""
    while True:
        try:
            return await rpc.MaintenanceStub(channel).HashKV(pb.HashKVRequest(revision=revision), timeout=10)
        except grpc.aio.AioRpcError as exc:
            if exc.code() is not grpc.StatusCode.OUT_OF_RANGE or time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)


def write_history(folder: Path, each: Round) -> Path:
    """Write all that a round saw, one JSON object a line, times in seconds from its start; return the file."""
    path = folder / f"history-{each.number}.jsonl"
    lines = [msgspec.json.encode({"mark": mark}) for mark in each.marks]
    for operation in each.records.operations:
        returned = None if operation.returned_s == math.inf else operation.returned_s - each.began_s
        row = msgspec.to_builtins(operation) | {"called_s": operation.called_s - each.began_s, "returned_s": returned}
        lines.append(msgspec.json.encode({"operation": row}))
    for number, log in enumerate(each.records.watches, 1):
        lines += [msgspec.json.encode({"watcher": number, "heard": record}) for record in log]
    lines += [msgspec.json.encode({"lease": hold}) for hold in each.records.holds]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path
