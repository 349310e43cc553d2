"""The store beside a real etcd: three members each on this machine's disk, in one run, as a table of ratios.

    .venv/bin/python benchmarks/store.py                              every row; eight minutes
    .venv/bin/python benchmarks/store.py put-64 watch --rounds 20     some rows
    .venv/bin/python benchmarks/store.py kill --kills 20 --fronts grpcio

Needs Debian's etcd-server and nghttp2-client: the load comes from h2load, which costs about 5 us a call, so that the
client is not the limit. Both stores run all the time and take turns within each row, short ones, for the machine's mood
changes by the minute: a ratio is the mean of each round's, with its standard error. Everything goes to the leader; N
clients are N calls under way on up to 16 connections. Asserts nothing but that the work was done: what h2load calls a
success may be an error of gRPC's.
"""

import argparse
import asyncio
import contextlib
import gc
import math
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.watchers import Watchers
from fastgrpc.calls import CallFailed, frame_message
from fastgrpc.channel import Channel, ChannelConfig
from tests.contract.kv.stores import Store, ours, real_etcd, start_again
from trireme_pb.etcdserverpb import rpc_pb2 as pb

WARM_UP_S = 1
KEY, LEADERSHIP = b"bench/key", b"bench/leader"
VALUE, OBJECT = bytes(range(256)), bytes(range(250)) * 8
RANGE_KEYS = 500


class Figures(msgspec.Struct, frozen=True):
    """What one store did in one turn."""

    rate: float  # a second; of a latency row: milliseconds
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    cpu_us: float = 0.0  # of all members together, a call


class Bench:
    """One store under test."""

    def __init__(self, name: str, store: Store, scratch: Path) -> None:
        self.name = name
        self.store = store
        self.scratch = scratch

    async def call(self, service: str, method: str, request: pb.PutRequest, endpoint: str | None = None) -> bytes:
        channel = Channel(endpoint or self.store.endpoints[0])
        try:
            path = f"/etcdserverpb.{service}/{method}"
            return await channel.unary(path, request.SerializeToString(), timeout_s=10)
        finally:
            await channel.close()

    async def leader(self) -> str:
        for _ in range(400):
            for endpoint in self.store.endpoints:
                with contextlib.suppress(CallFailed):
                    status = pb.StatusResponse.FromString(
                        await self.call("Maintenance", "Status", pb.StatusRequest(), endpoint)
                    )
                    if status.leader and status.leader == status.header.member_id:
                        return endpoint
            await asyncio.sleep(0.05)
        raise SystemExit(f"{self.name}: nobody leads")

    async def revision(self) -> int:
        answer = await self.call("KV", "Range", pb.RangeRequest(key=KEY, count_only=True), await self.leader())
        return pb.RangeResponse.FromString(answer).header.revision

    def cpu_s(self) -> float:
        return sum(sum(psutil.Process(process.pid).cpu_times()[:2]) for process in self.store.processes.values())

    async def load(self, method: str, request: pb.PutRequest, clients: int, seconds: int, answer_bytes: int) -> Figures:
        """Send one request again and again; return what came of it."""
        leader = await self.leader()
        body, log = self.scratch / "body", self.scratch / "log"
        body.write_bytes(frame_message(request.SerializeToString()))
        log.unlink(missing_ok=True)
        connections = min(clients, 16)
        command = ["h2load", "-c", str(connections), "-m", str(clients // connections), "-D", str(seconds)]
        command += ["--warm-up-time", str(WARM_UP_S), "-d", str(body), "--log-file", str(log)]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        command.append(f"http://{leader}/etcdserverpb.KV/{method}")
        before_s = self.cpu_s()
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        output, _ = await process.communicate()
        cpu_s = self.cpu_s() - before_s
        rows = [line.split() for line in log.read_text().splitlines()]
        latencies_ms = sorted(int(row[2]) / 1000 for row in rows if row[1] == "200")
        done = len(latencies_ms)
        if not done or len(rows) - done > clients:  # those that the end of the run cut off
            raise SystemExit(f"{self.name} {method}: {len(rows) - done} of {len(rows)} calls failed\n{output.decode()}")
        traffic = re.search(r"\((\d+)\) total", output.decode())
        got_bytes = int(traffic.group(1)) if traffic else 0
        if got_bytes / done < answer_bytes:
            raise SystemExit(f"{self.name} {method}: {got_bytes / done:.0f} bytes an answer; {answer_bytes} expected")
        # The members worked for the warm-up too.
        calls = done * (seconds + WARM_UP_S) / seconds
        return Figures(done / seconds, latencies_ms[done // 2], latencies_ms[done * 99 // 100], cpu_s / calls * 1e6)


# -- the rows --------------------------------------------------------------------------------------------------------


async def put(bench: Bench, seconds: int, clients: int) -> Figures:
    before = await bench.revision()
    figures = await bench.load("Put", pb.PutRequest(key=KEY, value=VALUE), clients, seconds, 40)
    made = await bench.revision() - before
    if made < figures.rate * seconds:
        raise SystemExit(f"{bench.name}: {figures.rate * seconds:.0f} puts made {made} revisions")
    return figures


async def get(bench: Bench, seconds: int, *, serializable: bool) -> Figures:
    await bench.call("KV", "Put", pb.PutRequest(key=KEY, value=VALUE))
    request = pb.RangeRequest(key=KEY, serializable=serializable)
    return await bench.load("Range", request, 64, seconds, len(VALUE))


async def ranges(bench: Bench, seconds: int) -> Figures:
    for i in range(RANGE_KEYS):
        await bench.call("KV", "Put", pb.PutRequest(key=b"range/%04d" % i, value=VALUE))
    request = pb.RangeRequest(key=b"range/", range_end=b"range0")
    return await bench.load("Range", request, 16, seconds, RANGE_KEYS * len(VALUE))


async def txn(bench: Bench, seconds: int) -> Figures:
    """Write an object as a master does: if the leadership record is still ours, put."""
    record = await bench.call("KV", "Put", pb.PutRequest(key=LEADERSHIP, value=b"me"))
    ours_since = pb.PutResponse.FromString(record).header.revision
    compare = pb.Compare(key=LEADERSHIP, target=pb.Compare.MOD, result=pb.Compare.EQUAL, mod_revision=ours_since)
    operation = pb.RequestOp(request_put=pb.PutRequest(key=KEY, value=OBJECT))
    before = await bench.revision()
    figures = await bench.load("Txn", pb.TxnRequest(compare=[compare], success=[operation]), 64, seconds, 40)
    if await bench.revision() - before < figures.rate * seconds:
        raise SystemExit(f"{bench.name}: transactions did not write")
    return figures


async def watch(bench: Bench, seconds: int) -> Figures:
    """100 watchers on one key: how many events reach them a second, and how soon a single one does."""
    leader = await bench.leader()
    watchers = await Watchers.connect(leader, key=KEY, connections=10, each=10)
    latencies_ms = []
    for i in range(100):
        mark = b"single/%08d" % i
        began = time.perf_counter()
        arriving = watchers.expect(mark)
        await bench.call("KV", "Put", pb.PutRequest(key=KEY, value=mark), leader)
        latencies_ms += [(at - began) * 1000 for at in await arriving]
    cpu_s, began, events = bench.cpu_s(), time.perf_counter(), 0
    body = bench.scratch / "body"
    body.write_bytes(frame_message(pb.PutRequest(key=KEY, value=VALUE).SerializeToString()))
    count, turn = 1000, 0
    while time.perf_counter() - began < seconds:
        turn += 1
        command = ["h2load", "-c", "4", "-m", "4", "-n", str(count), "-d", str(body)]
        command += ["-H", "content-type: application/grpc", f"http://{leader}/etcdserverpb.KV/Put"]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
        await process.wait()
        mark = b"turn/%08d" % turn
        arriving = watchers.expect(mark)
        await bench.call("KV", "Put", pb.PutRequest(key=KEY, value=mark), leader)
        await arriving
        events += (count + 1) * watchers.count
    elapsed_s = time.perf_counter() - began
    watchers.close()
    latencies_ms.sort()
    return Figures(
        events / elapsed_s,
        latencies_ms[len(latencies_ms) // 2],
        latencies_ms[len(latencies_ms) * 99 // 100],
        (bench.cpu_s() - cpu_s) / events * 1e6,
    )


async def idle(bench: Bench, seconds: int) -> Figures:
    await asyncio.sleep(1)
    before_s = bench.cpu_s()
    await asyncio.sleep(max(seconds, 10))
    return Figures((bench.cpu_s() - before_s) / max(seconds, 10) * 100)


async def kill_once(bench: Bench) -> float:
    """Kill the leader; return how long it took until a put was acknowledged that began after that, in milliseconds."""
    leader = await bench.leader()
    others = [endpoint for endpoint in bench.store.endpoints if endpoint != leader]
    channels = [Channel(endpoint, config=ChannelConfig(connect_timeout_s=1)) for endpoint in others]
    request = pb.PutRequest(key=KEY, value=VALUE).SerializeToString()
    for channel in channels:
        await channel.unary("/etcdserverpb.KV/Put", request, timeout_s=10)
    acknowledged: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def write(channel: Channel) -> None:
        with contextlib.suppress(CallFailed):
            await channel.unary("/etcdserverpb.KV/Put", request, timeout_s=15)
            if not acknowledged.done():
                acknowledged.set_result(time.perf_counter())

    bench.store.processes[leader].kill()
    killed = time.perf_counter()
    writes = []
    # Writes to an etcd that has just lost its leader hang until they time out, so new ones are begun all the time.
    while not acknowledged.done():
        writes += [asyncio.create_task(write(channel)) for channel in channels]
        await asyncio.wait([acknowledged], timeout=0.01)
    for task in writes:
        task.cancel()
    await asyncio.gather(*writes, return_exceptions=True)
    for channel in channels:
        await channel.close()
    bench.store.processes[leader].wait()
    start_again(bench.store, leader)
    return (acknowledged.result() - killed) * 1000


async def kill(bench: Bench, kills: int) -> Figures:
    gaps_ms = sorted([await kill_once(bench) for _ in range(kills)])
    return Figures(statistics.median(gaps_ms), gaps_ms[0], gaps_ms[-1])


class Row(msgspec.Struct, frozen=True):
    """One line of the table."""

    name: str
    what: str
    target: str
    better: int  # 1: more is better; -1: less
    run: Callable[..., object]


ROWS = (
    Row("put-1", "put 256 B, 1 client, /s", ">= 1.3", 1, lambda b, s, _: put(b, s, 1)),
    Row("put-64", "put 256 B, 64 clients, /s", ">= 2.5", 1, lambda b, s, _: put(b, s, 64)),
    Row("put-256", "put 256 B, 256 clients, /s", ">= 3.0", 1, lambda b, s, _: put(b, s, 256)),
    Row("get", "linearizable get, 64 clients, /s", ">= 2.0", 1, lambda b, s, _: get(b, s, serializable=False)),
    Row("get-any", "serializable get, 64 clients, /s", ">= 3.0", 1, lambda b, s, _: get(b, s, serializable=True)),
    Row("range", "range of 500 keys, 16 clients, /s", ">= 1.0", 1, lambda b, s, _: ranges(b, s)),
    Row("watch", "100 watchers, events/s", ">= 2.0", 1, lambda b, s, _: watch(b, s)),
    Row("txn", "compare + put 2 kB, 64 clients, /s", ">= 2.0", 1, lambda b, s, _: txn(b, s)),
    Row("idle", "idle, % of a core", "<= 2 %", -1, lambda b, s, _: idle(b, s)),
    Row("kill", "leader killed to next put, ms", "<= 0.3", -1, lambda b, _, k: kill(b, k)),
)


def merged(turns: list[Figures]) -> Figures:
    """Return the mean of several turns."""
    return Figures(*(statistics.fmean(getattr(turn, field) for turn in turns) for field in Figures.__struct_fields__))


def ratio(got: list[Figures], theirs: list[Figures]) -> str:
    """Return the mean of the rounds' ratios of rates with its standard error, and the ratio of the mean p99s."""
    ratios = [mine.rate / its.rate for mine, its in zip(got, theirs, strict=True)]
    error = f"{statistics.stdev(ratios) / math.sqrt(len(ratios)):5.2f}" if len(ratios) > 1 else " " * 5
    their_p99_ms = merged(theirs).p99_ms
    tail = f"{merged(got).p99_ms / their_p99_ms:5.2f}" if their_p99_ms else " " * 5
    return f"{statistics.fmean(ratios):6.2f} {error} {tail}"


async def measure(benches: list[Bench], rows: list[Row], *, seconds: int, rounds: int, kills: int) -> None:
    heads = f"{'rate':>9} {'p50 ms':>8} {'p99 ms':>8} {'CPU us':>7} {'ratio':>6} {'+-':>5} {'p99':>5}  wanted"
    print(f"{'':36} {'store':12} {heads}")
    for row in rows:
        turns: dict[str, list[Figures]] = {bench.name: [] for bench in benches}
        for round_ in range(1 if row.name in ("idle", "kill") else rounds):
            for bench in benches if round_ % 2 == 0 else reversed(benches):
                turns[bench.name].append(await row.run(bench, seconds, kills))  # type: ignore[misc]
        theirs = turns.get("etcd")
        for name, found in turns.items():
            got = merged(found)
            line = f"{row.what:36} {name:12} {got.rate:9.1f} {got.p50_ms:8.2f} {got.p99_ms:8.2f} {got.cpu_us:7.1f}"
            if theirs and name != "etcd":
                line += f" {ratio(found, theirs)}  {row.target}"
            print(line, flush=True)


@contextlib.contextmanager
def stores(folder: Path, names: list[str]) -> Iterator[list[Bench]]:
    with contextlib.ExitStack() as stack:
        benches = []
        for name in names:
            home = folder / name
            (home / "scratch").mkdir(parents=True)
            running = (
                real_etcd(home, members=3) if name == "etcd" else ours(home, members=3, engine="native", front=name)
            )
            benches.append(Bench(name, stack.enter_context(running), home / "scratch"))
        yield benches


def main() -> None:
    known = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"some of {', '.join(known)}; all by default")
    parser.add_argument("--seconds", type=int, default=2, help="a turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each store in each row, but for idle and kill")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--fronts", nargs="+", default=["fast"], choices=["fast", "grpcio"])
    parser.add_argument("--alone", action="store_true", help="without etcd")
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="on the disk to be used")
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - set(known):
        parser.error(f"there is no row {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if arguments.rounds < 1 or arguments.seconds < 1:
        parser.error("--rounds and --seconds have to be 1 or more")
    if shutil.which("h2load") is None:
        parser.error("h2load is missing: apt-get install nghttp2-client")
    rows = [row for row in ROWS if not arguments.rows or row.name in arguments.rows]
    names = [*([] if arguments.alone else ["etcd"]), *arguments.fronts]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the members end too, and leave no files
    gc.disable()  # a collection takes 10 to 40 ms here, and would be taken for a store's slowest answer
    print(f"load average {os.getloadavg()[0]:.1f} before; {arguments.seconds} s a turn")
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder, stores(Path(folder), names) as benches:
        uvloop.run(measure(benches, rows, seconds=arguments.seconds, rounds=arguments.rounds, kills=arguments.kills))


if __name__ == "__main__":
    main()
