"""What a large state costs a member: stalls of its event loop, start, memory, the size of its snapshot.

    .venv/bin/python benchmarks/snapshots.py [--keys 1000000] [--bytes 256]

One member in a process of its own takes a snapshot of so many keys while clients write through its engine, then starts
again from its disk; a second one is brought level by that snapshot over loopback. A heartbeat that is late by as much
as the longest stall is what the rest of the group feels. Figures drift with the machine's load. Asserts nothing.
"""

import argparse
import asyncio
import contextlib
import gc
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from raft_store.engine import MemberId
from raft_store.engines.native import NativeConfig, NativeEngine
from raft_store.machine import Machine, encode
from raft_store.mvcc.lease import LeaseClock
from raft_store.mvcc.model import Revision
from raft_store.mvcc.requests import Compact, Put

TICK_S = 0.001


class Stalls:
    """How late the loop comes back to somebody who sleeps a millisecond."""

    def __init__(self) -> None:
        self.latest: list[float] = []

    async def watch(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(TICK_S)
            self.latest.append(time.perf_counter() - began - TICK_S)

    def take(self) -> dict[str, float]:
        lates, self.latest = sorted(self.latest), []
        if not lates:
            return {}
        return {
            "longest_stall_ms": round(lates[-1] * 1e3, 1),
            "p999_ms": round(lates[len(lates) * 999 // 1000] * 1e3, 1),
            "p50_ms": round(lates[len(lates) // 2] * 1e3, 2),
        }


def rss_mb() -> int:
    with open("/proc/self/statm") as statm:  # noqa: PTH123 - procfs
        return int(statm.read().split()[1]) * resource.getpagesize() >> 20


def say(what: str, **figures: object) -> None:
    print(f"{what:44} " + "  ".join(f"{name} {value}" for name, value in figures.items()), flush=True)


def config(member: int, ports: list[int], folder: Path, **options: int) -> NativeConfig:
    addresses = {MemberId(i): f"127.0.0.1:{port}" for i, port in enumerate(ports, 1)}
    return NativeConfig(
        member=MemberId(member),
        members=addresses,
        data_dir=folder / str(member),
        listen=addresses[MemberId(member)],
        **options,
    )


@contextlib.asynccontextmanager
async def running(where: NativeConfig) -> AsyncIterator[tuple[NativeEngine, Machine]]:
    machine = Machine(LeaseClock(time.monotonic))
    engine = NativeEngine(where)
    await engine.start(machine)
    try:
        yield engine, machine
    finally:
        await engine.stop()


async def put_all(engine: NativeEngine, keys: int, size: int) -> None:
    value = bytes(size)
    for start in range(0, keys, 2000):
        await asyncio.gather(
            *(
                engine.propose(encode(Put(b"/registry/things/%09d" % i, value)), timeout_s=60)
                for i in range(start, min(start + 2000, keys))
            )
        )


async def write_steadily(engine: NativeEngine, size: int) -> None:
    turn = 0
    while True:
        turn += 1
        await engine.propose(encode(Put(b"/registry/things/%09d" % (turn % 1000), bytes(size))), timeout_s=60)


async def until(folder: Path, *, growing: bool) -> None:
    """Return once a snapshot is (not) being written in ``folder``."""
    while any(folder.glob("*.growing")) != growing:  # noqa: ASYNC110, ASYNC240 - nobody tells us
        await asyncio.sleep(0.01)


async def first_life(arguments: argparse.Namespace, folder: Path) -> None:
    stalls = Stalls()
    where = config(1, arguments.ports[:1], folder, snapshot_entries=arguments.keys + 1000)
    async with running(where) as (engine, machine):
        before = rss_mb()
        began = time.perf_counter()
        await put_all(engine, arguments.keys, arguments.bytes)
        say("written", seconds=round(time.perf_counter() - began, 1), rss_mb=rss_mb(), empty_rss_mb=before)
        if arguments.compact:
            await engine.propose(encode(Compact(Revision(machine.store.revision))), timeout_s=10)
        watcher = asyncio.create_task(stalls.watch())
        writers = [asyncio.create_task(write_steadily(engine, arguments.bytes)) for _ in range(8)]
        await asyncio.sleep(2)
        say("8 writers, no snapshot", **stalls.take())
        await until(folder / "1", growing=True)
        stalls.take()
        began = time.perf_counter()
        await until(folder / "1", growing=False)
        took = time.perf_counter() - began
        say("8 writers, while a snapshot is taken", seconds=round(took, 1), rss_mb=rss_mb(), **stalls.take())
        for task in (watcher, *writers):
            task.cancel()
        await asyncio.gather(watcher, *writers, return_exceptions=True)
    size = sum(file.stat().st_size for file in (folder / "1").glob("*.snapshot"))
    say("on disk", snapshot_mb=size >> 20, log_mb=sum(f.stat().st_size for f in (folder / "1").glob("*.wal")) >> 20)


async def second_life(arguments: argparse.Namespace, folder: Path) -> None:
    began = time.perf_counter()
    async with running(config(1, arguments.ports[:1], folder)) as (engine, machine):
        opened = time.perf_counter() - began
        await engine.read_barrier(timeout_s=60)
        took = time.perf_counter() - began
        gc.collect()
        say(
            "started from disk",
            opened_s=round(opened, 2),
            serves_after_s=round(took, 2),
            keys=len(machine.store.index),
            rss_mb=rss_mb(),
        )


async def newcomer(arguments: argparse.Namespace, folder: Path) -> None:
    """A follower that has nothing: the leader streams its snapshot."""
    shutil.copytree(folder / "1", folder / "2")
    (folder / "2" / "identity.json").unlink()
    stalls = Stalls()
    ports = arguments.ports
    async with running(config(1, ports, folder)) as _, running(config(2, ports, folder)) as (engine, _):
        # Two of three have the data and elect a leader; then the third one arrives. All three share this loop.
        await engine.read_barrier(timeout_s=60)
        watching = asyncio.create_task(stalls.watch())
        began = time.perf_counter()
        async with running(config(3, ports, folder)) as (third, machine):
            await third.read_barrier(timeout_s=120)
            say(
                "brought level by a snapshot",
                seconds=round(time.perf_counter() - began, 1),
                keys=len(machine.store.index),
                **stalls.take(),
            )
        watching.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--bytes", type=int, default=256)
    parser.add_argument("--compact", action="store_true", help="compact before the snapshot, as Kubernetes does")
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="where the member's disk is")
    parser.add_argument("--life", choices=["first_life", "second_life", "newcomer"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        arguments.ports = [each.getsockname()[1] for each in sockets]
    if arguments.life:
        uvloop.run(globals()[arguments.life](arguments, arguments.folder))
        return
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        for life in ("first_life", "second_life", "newcomer"):
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--life", life, "--folder", folder], check=True)


if __name__ == "__main__":
    main()
