"""Puts a second, latency and CPU of three store members, beside a real etcd in the same run.

    .venv/bin/python benchmarks/store.py [native raftos etcd] [--seconds 5] [--clients 1 16 64]

Every store runs as three processes on this machine; the load is 256-byte puts over gRPC from one more process, each
client waiting for its answer. That process is a limit of its own (about 4,000 calls a second), so mind the CPU a put
as much as the rate. Figures drift with the machine's load; ratios within one run are what counts. Asserts nothing.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path

import grpc.aio
import msgspec
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.contract.kv.stores import Store, ours, real_etcd
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.etcdserverpb import rpc_pb2_grpc

STORES = ("native", "raftos", "etcd")
VALUE = bytes(256)
WARM_UP_S = 1.0


class Figures(msgspec.Struct, frozen=True):
    """One store under so many clients."""

    puts_s: float
    p50_ms: float
    p99_ms: float
    failed: int
    cpu_us: float  # of all members together, a put


def run_store(name: str, folder: Path) -> AbstractContextManager[Store]:
    return real_etcd(folder, members=3) if name == "etcd" else ours(folder, members=3, engine=name)


async def measure(store: Store, clients: int, seconds: float) -> Figures:
    latencies: list[float] = []
    failed = 0
    ends = time.perf_counter() + WARM_UP_S + seconds
    counts_from = ends - seconds

    async def client(number: int, kv: rpc_pb2_grpc.KVStub) -> None:
        nonlocal failed
        turn = 0
        while (began := time.perf_counter()) < ends:
            turn += 1
            try:
                await kv.Put(pb.PutRequest(key=b"bench/%d/%d" % (number, turn % 1000), value=VALUE), timeout=5)
            except grpc.aio.AioRpcError:
                failed += 1
                continue
            if began >= counts_from:
                latencies.append(time.perf_counter() - began)

    channels = [grpc.aio.insecure_channel(endpoint) for endpoint in store.endpoints]
    stubs = [rpc_pb2_grpc.KVStub(channel) for channel in channels]
    processes = [psutil.Process(process.pid) for process in store.processes.values()]
    work = [asyncio.create_task(client(i, stubs[i % len(stubs)])) for i in range(clients)]
    await asyncio.sleep(WARM_UP_S)
    cpu = sum(sum(process.cpu_times()[:2]) for process in processes)
    await asyncio.gather(*work)
    cpu = sum(sum(process.cpu_times()[:2]) for process in processes) - cpu
    for channel in channels:
        await channel.close()
    if len(latencies) < 2:
        return Figures(0.0, 0.0, 0.0, failed, 0.0)
    cuts = statistics.quantiles(latencies, n=100)
    return Figures(len(latencies) / seconds, cuts[49] * 1e3, cuts[98] * 1e3, failed, cpu / len(latencies) * 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description="Puts a second of three members, beside etcd.")
    parser.add_argument("stores", nargs="*", choices=[*STORES, []], help="native and etcd by default")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64])
    arguments = parser.parse_args()
    print(f"{'store':8} {'clients':>7} {'puts/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'CPU us':>7} {'failed':>6}")
    rates: dict[tuple[str, int], float] = {}
    for name in arguments.stores or ("native", "etcd"):
        with tempfile.TemporaryDirectory() as folder, run_store(name, Path(folder)) as store:
            for clients in arguments.clients:
                got = asyncio.run(measure(store, clients, arguments.seconds))
                rates[name, clients] = got.puts_s
                print(
                    f"{name:8} {clients:7} {got.puts_s:8.0f} {got.p50_ms:8.2f} {got.p99_ms:8.2f} "
                    f"{got.cpu_us:7.0f} {got.failed:6}",
                    flush=True,
                )
    for (name, clients), rate in rates.items():
        if name != "etcd" and rates.get(("etcd", clients)):
            print(f"{name} is {rate / rates['etcd', clients]:.2f} of etcd at {clients} clients")


if __name__ == "__main__":
    main()
