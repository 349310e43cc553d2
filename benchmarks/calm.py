"""Three members under full CPU load, for as long as you like: does anybody call an election that nobody needs?

    .venv/bin/python benchmarks/calm.py --minutes 60             as many busy processes as there are cores
    .venv/bin/python benchmarks/calm.py --minutes 5 --busy 8     a machine that is badly overloaded

Somebody writes 20 times a second meanwhile. Printed: changes of term, campaigns that the members' logs tell of (a
pre-vote that nobody granted disturbs nobody), and the slowest put.
"""

import argparse
import asyncio
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fastgrpc.calls import CallFailed
from fastgrpc.channel import Channel
from tests.contract.kv.stores import Store, ours
from trireme_pb.etcdserverpb import rpc_pb2 as pb

PAUSE_S = 0.05


def be_busy() -> None:
    while True:
        pass


async def watch(store: Store, minutes: float) -> tuple[list[int], float, int]:
    """Write through a follower or leader, whoever comes first; return the terms seen, the slowest put, failures."""
    channel = Channel(store.endpoints[0])
    request = pb.PutRequest(key=b"calm", value=bytes(256)).SerializeToString()
    terms: list[int] = []
    slowest_s, failed = 0.0, 0
    ends = time.monotonic() + minutes * 60
    while (began := time.monotonic()) < ends:
        try:
            answer = pb.PutResponse.FromString(await channel.unary("/etcdserverpb.KV/Put", request, timeout_s=10))
            slowest_s = max(slowest_s, time.monotonic() - began)
            if answer.header.raft_term not in terms[-1:]:
                terms.append(answer.header.raft_term)
                print(f"{minutes * 60 - (ends - began):7.1f} s: term {terms[-1]}", flush=True)
        except CallFailed as exc:
            failed += 1
            print(f"a put failed: {exc}", flush=True)
        await asyncio.sleep(PAUSE_S)
    await channel.close()
    return terms, slowest_s, failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--busy", type=int, default=os.cpu_count() or 1, help="processes that do nothing but spin")
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="on the disk to be used")
    arguments = parser.parse_args()
    busy = [multiprocessing.Process(target=be_busy, daemon=True) for _ in range(arguments.busy)]
    with (
        tempfile.TemporaryDirectory(dir=arguments.dir) as folder,
        ours(Path(folder), members=3, engine="native") as store,
    ):
        for process in busy:
            process.start()
        terms, slowest_s, failed = asyncio.run(watch(store, arguments.minutes))
        for process in busy:
            process.kill()
        logs = "".join(path.read_text() for path in Path(folder).glob("*.log"))
        print(
            f"{arguments.minutes:g} minutes, load average {os.getloadavg()[0]:.1f}: {len(terms) - 1} changes of term, "
            f"{logs.count('campaigns')} campaigns with the first, {failed} puts failed, "
            f"slowest {slowest_s * 1000:.0f} ms"
        )


if __name__ == "__main__":
    main()
