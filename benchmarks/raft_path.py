"""What consensus itself costs: proposals handed to three native engines in three processes, fsync on, no RPC front.

    python benchmarks/raft_path.py                 puts per second and latency for 1, 16, 64 and 256 proposers
    python benchmarks/raft_path.py --kills 10      besides: the leader is killed with SIGKILL, how long nobody can write

Proposers run in the leader's own process. In the second part one proposer writes through a follower, one proposal after
the other; the gap is the time between the last acknowledgement before the kill and the first one after it.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import uvloop

from raft_store.engine import EngineError, Entry, MemberId
from raft_store.engines.native import NativeConfig, NativeEngine


class Count:
    """The cheapest machine: counts."""

    def __init__(self) -> None:
        self.count = 0

    def apply(self, entries: Sequence[Entry], *, wanted: bool = True) -> Sequence[object]:
        del wanted  # cheap as they are
        self.count += len(entries)
        return [self.count] * len(entries)

    def foresee(self, items: Sequence[bytes]) -> Sequence[object]:
        del items
        return ()

    def snapshot(self) -> Iterator[bytes]:
        return iter([b"%d" % self.count])

    def begin_restore(self) -> "Count":
        return self

    def feed(self, chunk: bytes) -> None:
        self.count = int(chunk)

    def finish(self) -> None:
        pass


async def load(engine: NativeEngine, proposers: int, seconds: float, size: int) -> dict[str, float]:
    end = time.monotonic() + seconds
    latencies: list[float] = []
    value = b"x" * size

    async def propose() -> None:
        while time.monotonic() < end:
            begun = time.perf_counter()
            await engine.propose(value, timeout_s=10)
            latencies.append(time.perf_counter() - begun)

    cpu = time.process_time()
    await asyncio.gather(*(propose() for _ in range(proposers)))
    latencies.sort()
    return {
        "puts_per_s": round(len(latencies) / seconds),
        "p50_ms": round(latencies[len(latencies) // 2] * 1000, 2),
        "p99_ms": round(latencies[len(latencies) * 99 // 100] * 1000, 2),
        "leader_cpu_us": round((time.process_time() - cpu) / len(latencies) * 1e6, 1),
    }


async def stamps(engine: NativeEngine, seconds: float) -> list[float]:
    """Propose one after the other; return when each was acknowledged (CLOCK_MONOTONIC is the machine's)."""
    end = time.monotonic() + seconds
    acknowledged: list[float] = []
    while time.monotonic() < end:
        with contextlib.suppress(EngineError):
            await engine.propose(b"x" * 256, timeout_s=10)
            acknowledged.append(time.monotonic())
    return acknowledged


async def serve(arguments: argparse.Namespace) -> None:
    addresses = {MemberId(i): f"127.0.0.1:{port}" for i, port in enumerate(arguments.ports, 1)}
    member = MemberId(arguments.member)
    engine = NativeEngine(
        NativeConfig(member=member, members=addresses, data_dir=arguments.data, listen=addresses[member])
    )
    await engine.start(Count())
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = json.loads(line)
        answer: Any
        match command.pop("do"):
            case "status":
                status = engine.status()
                answer = {"role": status.role, "leader": status.leader, "term": status.term}
            case "load":
                answer = await load(engine, **command)
            case "stamps":
                answer = await stamps(engine, **command)
        print(json.dumps(answer), flush=True)
    await engine.stop()


class Child:
    def __init__(self, member: int, ports: list[int], data: Path) -> None:
        self.member, self._ports, self._data = member, ports, data

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            "--member",
            str(self.member),
            "--data",
            str(self._data / str(self.member)),
            "--ports",
            *map(str, self._ports),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=1 << 24,
        )

    async def ask(self, do: str, **fields: float) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
        line = await self.process.stdout.readline()
        if not line:
            raise SystemExit(f"member {self.member} ended with status {await self.process.wait()}")
        return json.loads(line)

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), 5)
            return
        await self.kill()


async def leader_of(children: list[Child]) -> Child:
    while True:
        for child in children:
            if (await child.ask("status"))["role"] == "leader":
                return child
        await asyncio.sleep(0.05)


async def kill_leader(children: list[Child]) -> float:
    """Return how long nobody could write, in seconds."""
    leader = await leader_of(children)
    follower = next(child for child in children if child is not leader)
    writing = asyncio.create_task(follower.ask("stamps", seconds=4))
    await asyncio.sleep(1.5)
    killed = time.monotonic()
    await leader.kill()
    acknowledged = await writing
    before = max(stamp for stamp in acknowledged if stamp <= killed)
    after = [stamp for stamp in acknowledged if stamp > killed + 0.02]
    await leader.start()
    await leader.ask("status")
    await asyncio.sleep(1)
    return min(after) - before if after else float("inf")


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


async def run(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        children = [Child(i, arguments.ports, Path(folder)) for i in (1, 2, 3)]
        try:
            for child in children:
                await child.start()
            print(f"load average {os.getloadavg()[0]:.1f}, {arguments.size} bytes a proposal")
            for proposers in arguments.proposers:
                leader = await leader_of(children)
                result = await leader.ask("load", proposers=proposers, seconds=arguments.seconds, size=arguments.size)
                print(f"{proposers:4} proposers: " + "  ".join(f"{key} {value}" for key, value in result.items()))
            gaps = [await kill_leader(children) for _ in range(arguments.kills)]
            if gaps:
                print(f"leader killed {len(gaps)} times: gap in acknowledged writes, seconds:")
                print("  " + " ".join(f"{gap:.2f}" for gap in gaps) + f"  median {statistics.median(gaps):.2f}")
        finally:
            for child in children:
                if child.process.returncode is None:
                    await child.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proposers", type=int, nargs="*", default=[1, 16, 64, 256])
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="where the members' disks are")
    parser.add_argument("--member", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ports", type=int, nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.member:
        uvloop.run(serve(arguments))
    else:
        arguments.ports = free_ports(3)
        uvloop.run(run(arguments))


if __name__ == "__main__":
    main()
