"""What a large state costs a member: stalls of its event loop, start, memory, the size of its snapshot.

    .venv/bin/python benchmarks/snapshots.py [--keys 1000000] [--bytes 256]

One member starts from a disk with so many keys and takes a snapshot of them while clients write through its engine;
then a newcomer is brought level by that snapshot over loopback. A heartbeat that is late by as much as the longest
stall is what the rest of the group feels. Figures drift with the machine's load. Asserts nothing.
"""

import argparse
import asyncio
import contextlib
import gc
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from raft_store.disk.directory import OsDirectory
from raft_store.disk.identity import Identity, save_identity
from raft_store.disk.snapshot import write_snapshot
from raft_store.disk.storage import Storage
from raft_store.engine import Change, ChangeKind, Entry, Index, MemberId, Term
from raft_store.engines.native import NativeConfig, NativeEngine
from raft_store.machine import Machine, encode
from raft_store.mvcc.lease import LeaseClock
from raft_store.mvcc.requests import Compact, Put
from raft_store.raft.membership import founded
from raft_store.raft.messages import HardState, Save, SnapshotMark

TICK_S = 0.001
KEY = b"/registry/things/%09d"
LIVES = ("prepare", "first_life", "newcomer")


class Stalls:
    """How late the loop comes back to somebody who sleeps a millisecond, and for how much of that it worked itself.

    On a loaded machine most of the lateness is other processes' turn: what the loop's thread worked meanwhile is ours.
    """

    def __init__(self) -> None:
        self._late: list[float] = []
        self._busy: list[float] = []

    async def watch(self) -> None:
        while True:
            began, worked = time.perf_counter(), time.thread_time()
            await asyncio.sleep(TICK_S)
            self._late.append(time.perf_counter() - began - TICK_S)
            self._busy.append(time.thread_time() - worked)

    def take(self) -> dict[str, float]:
        late, self._late = sorted(self._late), []
        busy, self._busy = sorted(self._busy), []
        if not late:
            return {}
        return {
            "longest_stall_ms": round(late[-1] * 1e3, 1),
            "of_own_work_ms": round(busy[-1] * 1e3, 1),
            "p99_ms": round(late[len(late) * 99 // 100] * 1e3, 1),
            "p50_ms": round(late[len(late) // 2] * 1e3, 2),
        }


def rss_mb() -> int:
    with open("/proc/self/statm") as statm:  # noqa: PTH123 - procfs
        return int(statm.read().split()[1]) * resource.getpagesize() >> 20


def say(what: str, **figures: object) -> None:
    print(f"{what:44} " + "  ".join(f"{name} {value}" for name, value in figures.items()), flush=True)


def config(member: int, ports: list[int], folder: Path, **options: int) -> NativeConfig:
    return NativeConfig(
        member=MemberId(member),
        members={MemberId(i): f"http://127.0.0.1:{port}" for i, port in enumerate(ports, 1)},
        data_dir=folder / str(member),
        listen=f"127.0.0.1:{ports[member - 1]}",
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


async def prepare(arguments: argparse.Namespace, folder: Path) -> None:
    """Make the data directory of a member whose snapshot holds so many keys, half of them overwritten once."""
    machine, value, index = Machine(LeaseClock(time.monotonic)), bytes(arguments.bytes), 0
    began = time.perf_counter()
    for numbers in (range(arguments.keys), range(0, arguments.keys, 2)):
        for start in range(0, len(numbers), 1000):
            commands = [encode(Put(KEY % i, value)) for i in numbers[start : start + 1000]]
            machine.apply([Entry(Index(index + i), Term(1), command) for i, command in enumerate(commands, 1)])
            index += len(commands)
    if arguments.compact:
        machine.apply([Entry(Index(index + 1), Term(1), encode(Compact(machine.store.revision)))])
        machine.store.trim_all()
    say("applied", seconds=round(time.perf_counter() - began, 1), rss_mb=rss_mb())
    where = config(1, arguments.ports[:1], folder)
    urls = {member: (url,) for member, url in where.members.items()}
    directory = OsDirectory(where.data_dir)
    write_snapshot(directory, SnapshotMark(Index(1), Term(1), founded(urls)), machine.snapshot())
    storage = Storage(directory)
    storage.recover()
    storage.save(Save(HardState(Term(1)), (), None))
    storage.close()
    save_identity(directory, Identity(cluster=where.cluster, member=where.member, founders=urls))
    directory.close()


async def write_steadily(engine: NativeEngine, size: int) -> None:
    turn = 0
    while True:
        turn += 1
        await engine.propose(encode(Put(KEY % (turn % 1000), bytes(size))), timeout_s=60)


async def until(folder: Path, *, growing: bool) -> None:
    """Return once a snapshot is (not) being written in ``folder``."""
    while any(folder.glob("*.growing")) != growing:  # noqa: ASYNC110, ASYNC240 - nobody tells us
        await asyncio.sleep(0.01)


async def first_life(arguments: argparse.Namespace, folder: Path) -> None:
    stalls, before, began, worked = Stalls(), rss_mb(), time.perf_counter(), time.process_time()
    where = config(1, arguments.ports[:1], folder, snapshot_entries=arguments.entries)
    async with running(where) as (engine, machine):
        opened = time.perf_counter() - began
        await engine.read_barrier(timeout_s=60)
        took = time.perf_counter() - began
        say(
            "started from disk",
            opened_s=round(opened, 2),
            serves_after_s=round(took, 2),
            cpu_s=round(time.process_time() - worked, 2),
            keys=len(machine.store.index),
            rss_mb=rss_mb(),
            empty_rss_mb=before,
        )
        gc.collect()
        gc.freeze()  # as the program does
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


async def newcomer(arguments: argparse.Namespace, folder: Path) -> None:
    """A learner that has nothing: the leader streams its snapshot. Both share this process's loop."""
    stalls, ports = Stalls(), arguments.ports
    async with running(config(1, ports[:1], folder)) as (leader, _):
        await leader.read_barrier(timeout_s=60)
        url = f"http://127.0.0.1:{ports[1]}"
        change = Change(ChangeKind.ADD_LEARNER, MemberId(2), (url,))
        await leader.change_members([change], timeout_s=20, started=None)
        watching = asyncio.create_task(stalls.watch())
        began = time.perf_counter()
        where = msgspec.structs.replace(config(2, ports[:2], folder), joins=True)
        async with running(where) as (_, machine):
            while len(machine.store.index) < arguments.keys:  # noqa: ASYNC110 - nobody tells us
                await asyncio.sleep(0.01)
            took = time.perf_counter() - began
            say("a newcomer brought level by a snapshot", seconds=round(took, 1), **stalls.take())
        watching.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--bytes", type=int, default=256)
    parser.add_argument("--entries", type=int, default=8000, help="written before the snapshot that is measured")
    parser.add_argument("--compact", action="store_true", help="compact before the snapshot, as Kubernetes does")
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="where the member's disk is")
    parser.add_argument("--life", choices=LIVES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ports", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.life:
        uvloop.run(globals()[arguments.life](arguments, arguments.folder))
        return
    ports = [str(port) for port in free_ports(2)]  # the same in every life: the group's list has them
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        for life in LIVES:
            own = [sys.executable, __file__, *sys.argv[1:], "--life", life, "--folder", folder, "--ports", *ports]
            subprocess.run(own, check=True)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


if __name__ == "__main__":
    main()
