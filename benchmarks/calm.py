"""Three members under full CPU load, for as long as you like: does anybody call an election that nobody needs?

    .venv/bin/python benchmarks/calm.py --minutes 60             as many busy processes as there are cores
    .venv/bin/python benchmarks/calm.py --minutes 5 --busy 8     a machine that is badly overloaded
    .venv/bin/python benchmarks/calm.py --minutes 5 --busy 8 --raft 'election_stretch = 1'     without adapting

Each of those, and of the members, has a session of its own, as services have: Linux shares its CPUs among sessions
before it does so among their processes, and a store that shares one with whoever spins is hardly run at all.

Somebody writes 20 times a second meanwhile. Printed, every minute and at the end: changes of term, campaigns that the
members' logs tell of (a pre-vote that nobody granted disturbs nobody), the slowest put; and of each member the time-out
that it has come to, and the longest silences of a leader that it has borne.
"""

import argparse
import asyncio
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fastgrpc.calls import CallFailed
from fastgrpc.channel import Channel
from tests.contract.kv.stores import Store, ours
from trireme_pb.etcdserverpb import rpc_pb2 as pb

PAUSE_S = 0.05
REPORT_S = 60.0
LONGEST = 5  # silences told of each member
LOOK_S = 1.0
NEWS = ("campaigns", "became leader", "stepped down", "lost its quorum", "lost stream", "closing a silent")


class Seen(msgspec.Struct):
    """What the writer saw."""

    terms: list[int] = []
    slowest_s: float = 0.0
    failed: int = 0


def be_busy() -> None:
    os.setsid()
    while True:
        pass


async def write(store: Store, minutes: float, seen: Seen) -> None:
    """Write through a follower or leader, whoever comes first."""
    channel = Channel(store.endpoints[0])
    request = pb.PutRequest(key=b"calm", value=bytes(256)).SerializeToString()
    started = time.monotonic()
    while (began := time.monotonic()) < started + minutes * 60:
        try:
            answer = pb.PutResponse.FromString(await channel.unary("/etcdserverpb.KV/Put", request, timeout_s=10))
            seen.slowest_s = max(seen.slowest_s, time.monotonic() - began)
            if answer.header.raft_term not in seen.terms[-1:]:
                seen.terms.append(answer.header.raft_term)
                print(f"{time.monotonic() - started:7.1f} s: term {seen.terms[-1]}", flush=True)
        except CallFailed as exc:
            seen.failed += 1
            print(f"{time.monotonic() - started:7.1f} s: a put failed: {exc}", flush=True)
        await asyncio.sleep(PAUSE_S)
    await channel.close()


async def report(store: Store, folder: Path, seen: Seen) -> None:
    """Print what the members say of elections, and every minute how things stand, until cancelled."""
    told: dict[Path, int] = {}
    due = (started := time.monotonic()) + REPORT_S
    while True:
        await asyncio.sleep(LOOK_S)
        tell_news(folder, told)
        if (now := time.monotonic()) >= due:
            due += REPORT_S
            state = await asyncio.to_thread(summary, store, folder, seen)
            print(f"{(now - started) / 60:5.1f} minutes: {state}", flush=True)


def tell_news(folder: Path, told: dict[Path, int]) -> None:
    """Print the lines that matter and are new since the last look; told: log -> how much of it was looked at."""
    for path in sorted(folder.glob("*.log")):
        with path.open() as log:
            log.seek(told.get(path, 0))
            for line in log.read().splitlines():
                if any(word in line for word in NEWS):
                    print(f"{path.stem}: {line}", flush=True)
            told[path] = log.tell()


def summary(store: Store, folder: Path, seen: Seen) -> str:
    logs = "".join(path.read_text() for path in folder.glob("*.log"))
    return (
        f"load average {os.getloadavg()[0]:.1f}: {len(seen.terms) - 1} changes of term, "
        f"{logs.count('campaigns')} campaigns with the first, {seen.failed} puts failed, "
        f"slowest {seen.slowest_s * 1000:.0f} ms; " + "; ".join(patience(endpoint) for endpoint in store.http)
    )


def patience(endpoint: str) -> str:
    """Return a member's time-out, and the longest silences that it has seen, as its metrics tell them."""
    with urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=10) as response:
        text = response.read().decode()
    longest = [f"{count} x {bound}" for bound, count in silences(text) if count][-LONGEST:]
    (timeout,) = (line.split()[1] for line in text.splitlines() if line.startswith("trireme_raft_election_timeout_s"))
    return f"time-out {float(timeout):g} s, silences below {', '.join(longest)} s"


def silences(text: str) -> Iterator[tuple[str, int]]:
    """Yield (upper bound in seconds, how many) of the histogram's buckets, in order."""
    before = 0
    for line in text.splitlines():
        if line.startswith("trireme_raft_silence_seconds_bucket"):
            count = int(float(line.split()[1]))
            yield line.split('"')[1], count - before
            before = count


async def watch(store: Store, folder: Path, minutes: float) -> None:
    seen = Seen()
    reporter = asyncio.create_task(report(store, folder, seen))
    await write(store, minutes, seen)
    reporter.cancel()
    print(f"{minutes:g} minutes: {summary(store, folder, seen)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--busy", type=int, default=os.cpu_count() or 1, help="processes that do nothing but spin")
    parser.add_argument(
        "--dir", type=Path, default=None, help="on the disk to be used; the system's for temporary files by default"
    )
    parser.add_argument("--raft", default="", help="a line for the members' [raft] table")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # members, whoever spins and the folder end with us, too
    busy = [multiprocessing.Process(target=be_busy, daemon=True) for _ in range(arguments.busy)]
    with (
        tempfile.TemporaryDirectory(dir=arguments.dir) as folder,
        ours(Path(folder), members=3, engine="native", raft=arguments.raft) as store,
    ):
        for process in busy:
            process.start()
        try:
            asyncio.run(watch(store, Path(folder), arguments.minutes))
        finally:
            for process in busy:
                process.kill()


if __name__ == "__main__":
    main()
