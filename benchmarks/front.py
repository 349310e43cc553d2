"""What the store's front costs a put: a read of a socket in, its answers out, without network, log and machine.

    .venv/bin/python benchmarks/front.py             CPU microseconds a put, for reads that bring 1, 4 and 16 of them
    .venv/bin/python benchmarks/front.py --calls     besides, a profile: functions called a put, and their time

In every turn each of 16 connections reads whole requests as h2load sends them: all headers, then all data. They pass
the connection, the front and the service, and wait where proposals wait; then all are told revisions, and the answers
are written.
"""

import argparse
import asyncio
import cProfile
import itertools
import pstats
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

from fastgrpc import frames
from fastgrpc.calls import call_fields, frame_message
from fastgrpc.hpack import Encoder
from fastgrpc.peer import Peer
from raft_store.engine import Done, Foresee, MemberId, Term
from raft_store.etcd_api.backend import Backend
from raft_store.etcd_api.fast_front import FastFront
from raft_store.etcd_api.front import LeaderGuard
from raft_store.etcd_api.services import UnaryMethod
from raft_store.etcd_api.writing import Writing, read_put
from raft_store.machine import Machine
from raft_store.mvcc.model import Revision
from raft_store.mvcc.requests import PutResult
from raft_store.raft.proposals import Origin, Proposal
from raft_store.waiting import Proposers
from trireme_pb.etcdserverpb import rpc_pb2 as pb

FIRST_REVISION = 1_000_000
CONNECTIONS = 16
ROUNDS, PUTS = 100, 768  # of each lot's size


class Waiting:
    """An engine as far as a put meets it: whoever proposes waits until ``settle``."""

    term = Term(7)

    def __init__(self) -> None:
        self._origin = Origin(1)
        self._proposers = Proposers(self._origin.submit)
        self._proposals: list[Proposal] = []
        self._revision = FIRST_REVISION

    def submit(
        self, items: Sequence[bytes], done: Done, *, timeout_s: float, foresee: Foresee | None = None
    ) -> Proposal:
        """See ``Engine.submit``."""
        del foresee  # that is not what is measured
        self._proposals.append(self._proposers.submit(items, done, until_s=timeout_s))
        return self._proposals[-1]

    def join(self, submitted: Proposal, items: Sequence[bytes], *, timeout_s: float) -> bool:
        """See ``Engine.join``."""
        return self._proposers.join(submitted, items, until_s=timeout_s)

    def settle(self, results: Sequence[PutResult]) -> None:
        """Tell everybody what came of it; ``results`` are as many as proposed."""
        proposals, self._proposals, at = self._proposals, [], 0
        self._origin.waiting.clear()
        for proposal in proposals:
            self._proposers.settle(proposal, results[at : at + len(proposal.items)])
            at += len(proposal.items)


class Wire:
    """A transport that counts."""

    def __init__(self) -> None:
        self.written = 0

    def write(self, data: bytes) -> None:
        """Take everything."""
        self.written += len(data)

    def get_extra_info(self, name: str) -> None:
        """Know nothing."""

    def is_closing(self) -> bool:
        """Return that nobody hangs up."""
        return False


class Client:
    """What a client sends."""

    def __init__(self, lot: int) -> None:
        self._encoder = Encoder()
        self._fields = call_fields("/etcdserverpb.KV/Put", authority="localhost:2379")
        self._lot = lot
        self._message = frame_message(pb.PutRequest(key=b"/benchmark/store/key", value=bytes(256)).SerializeToString())
        self._streams = itertools.count(1, 2)

    def greeting(self) -> bytes:
        """Return what comes first: everything the server may send at once, and a first call, so that all is known."""
        room = frames.window_update(0, 1 << 30)
        return frames.PREFACE + frames.settings({}) + room + self._calls(1)

    def read(self) -> bytes:
        """Return what a read of the socket brings."""
        return self._calls(self._lot)

    def _calls(self, count: int) -> bytes:
        streams = [next(self._streams) for _ in range(count)]
        blocks = [self._encoder.encode(self._fields) for _ in streams]
        heads = map(partial(frames.frame, frames.HEADERS, frames.END_HEADERS), streams, blocks)
        data = [frames.frame(frames.DATA, frames.END_STREAM, stream, self._message) for stream in streams]
        return b"".join([*heads, *data])


class Bench:
    """A front and its connections."""

    def __init__(self) -> None:
        self.engine = Waiting()
        self.calls: Counter[tuple[str, str, str]] = Counter()
        machine = Machine(cast("Any", SimpleNamespace(now=time.monotonic)))
        backend = Backend(
            engine=cast("Any", self.engine),
            machine=machine,
            cluster_id=0xCDF818194E3A8C32,
            member=MemberId(0x8E9E05C52164694D),
            request_timeout_s=5.0,
        )

        async def alone(*_: Any) -> Any:
            raise AssertionError("these go by the lot")

        answer_puts = backend.answers.puts
        writing = Writing(backend, request=pb.PutRequest, read=read_put, encode=answer_puts, one_by_one=alone)
        front = FastFront(
            [UnaryMethod("KV", "Put", pb.PutRequest, alone, encoded=alone, batch=writing.take)],
            LeaderGuard(cast("Any", None)),
            self.calls,
            other_protocol=cast("Any", None),
            web=cast("Any", None),
            inline=True,
        )
        self.wire = Wire()
        self._peers = [Peer(front._server._hosting) for _ in range(CONNECTIONS)]  # noqa: SLF001 - without sockets
        for peer in self._peers:
            peer.connection_made(cast("asyncio.Transport", self.wire))

    async def turn(self, read: bytes, results: Sequence[PutResult]) -> float:
        """Let every connection read the same, and be answered with ``results``; return the CPU time in seconds."""
        begin_s = time.process_time()
        for peer in self._peers:
            peer.data_received(read)
        await asyncio.sleep(0)  # all is proposed
        self.engine.settle(results)
        await asyncio.sleep(0)  # the answers are written
        return time.process_time() - begin_s


async def measure(lot: int, puts: int, profile: cProfile.Profile | None) -> float:
    """Return CPU seconds a put: the least of all rounds, which the machine's other work disturbed least."""
    bench, client, spent_s = Bench(), Client(lot), list[float]()
    turns = puts // lot // CONNECTIONS
    results = [PutResult(Revision(FIRST_REVISION + i), None) for i in range(lot * CONNECTIONS)]
    await bench.turn(client.greeting(), results[:CONNECTIONS])
    before = bench.wire.written
    for _ in range(ROUNDS):
        reads = [client.read() for _ in range(turns)]
        if profile is not None:
            profile.enable()
        spent_s.append(sum([await bench.turn(read, results) for read in reads]) / puts)
        if profile is not None:
            profile.disable()
    answered = {("etcdserverpb.KV", "Put", "OK"): CONNECTIONS + ROUNDS * turns * lot * CONNECTIONS}
    assert bench.calls == answered, bench.calls
    assert bench.wire.written - before > ROUNDS * puts * 3 * frames.HEADER_BYTES, "answers were not written"
    return min(spent_s)


async def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", action="store_true", help="profile besides")
    parser.add_argument("--lots", type=int, nargs="+", default=[1, 4, 16], help="puts a read (1 4 16)")
    arguments = parser.parse_args()
    for lot in arguments.lots:
        print(f"lots of {lot:2}: {await measure(lot, PUTS, None) * 1e6:5.2f} us a put")
        if arguments.calls:
            profile = cProfile.Profile()
            await measure(lot, PUTS, profile)
            stats = pstats.Stats(profile)
            print(f"  {stats.total_calls / ROUNDS / PUTS:.1f} calls a put")  # type: ignore[attr-defined]
            stats.sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    asyncio.run(main())
