"""Figures of one master's REST API: writes, reads, lists, watches, memory, start.

    .venv/bin/python benchmarks/api.py [write read list watch latency memory start] [--seconds 4] [--clients 16]
                                        [--store memory|native] [--objects 10000] [--masters 1]

A store member, the masters and this client run as processes on one machine, over TLS; the first master is measured. The
client is a limit of its own, so mind the master's CPU a request as much as the rate. Figures drift with the machine's
load; ratios within one run are what counts. Asserts nothing.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.clients import cluster as clusters

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
WATCHERS, EVENTS_S = 1000, 100
WARM_S = 20
STARTS = 3


class Connection:
    """One keep-alive connection that speaks just enough HTTP, cheaply."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, cluster: clusters.Cluster) -> "Connection":
        context = ssl.create_default_context(cafile=str(cluster.files / "ca.crt"))
        context.load_cert_chain(cluster.files / "admin.crt", cluster.files / "admin.key")
        port = int(cluster.url.rpartition(":")[2])
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=1 << 26))

    async def send(self, method: str, path: str, body: bytes = b"") -> None:
        lines = (
            f"{method} {path} HTTP/1.1",
            "Host: x",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        )
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        await self._writer.drain()

    async def head(self) -> dict[str, str]:
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines[1:] if line)}
        return fields | {"": lines[0].split(" ")[1]}

    async def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        await self.send(method, path, body)
        head = await self.head()
        answer = await self._reader.readexactly(int(head["content-length"]))
        if not head[""].startswith("2"):
            raise RuntimeError(f"{method} {path}: {head['']} {answer[:300]!r}")
        return answer

    async def line(self) -> bytes:
        """Return the next chunk of a watch."""
        size = int(await self._reader.readuntil(b"\r\n"), 16)
        data = await self._reader.readexactly(size)
        await self._reader.readexactly(2)
        return data

    def close(self) -> None:
        self._writer.close()


def config_map(name: str) -> bytes:
    return json.dumps({"metadata": {"name": name}, "data": {"key": "value" * 20}}).encode()


def pod(number: int) -> bytes:
    container = {
        "name": "main",
        "image": "registry.example/app:1",
        "env": [{"name": f"V{n}", "value": "some value"} for n in range(5)],
        "ports": [{"containerPort": 8080}],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
    }
    labels = {"app": f"app-{number % 20}", "tier": "backend"}
    return json.dumps(
        {"metadata": {"name": f"pod-{number}", "labels": labels}, "spec": {"containers": [container]}}
    ).encode()


Step = Callable[[Connection, int], Coroutine[Any, Any, Any]]


async def rate(cluster: clusters.Cluster, clients: int, seconds: float, step: Step) -> str:
    """Return how often a second ``clients`` did ``step``, how long it took, and what it cost the master."""
    connections = [await Connection.open(cluster) for _ in range(clients)]
    process = psutil.Process(cluster.master.pid)
    latencies: list[float] = []
    numbers = iter(range(1 << 30))
    ends = time.perf_counter() + seconds

    async def client(connection: Connection) -> None:
        while (began := time.perf_counter()) < ends:
            await step(connection, next(numbers))
            latencies.append(time.perf_counter() - began)

    used = sum(process.cpu_times()[:2])
    await asyncio.gather(*(client(each) for each in connections))
    used = sum(process.cpu_times()[:2]) - used
    for each in connections:
        each.close()
    cuts = statistics.quantiles(latencies, n=100)
    return (
        f"{len(latencies) / seconds:8.0f}/s   p50 {cuts[49] * 1e3:6.2f} ms   p99 {cuts[98] * 1e3:6.2f} ms   "
        f"master CPU {used / len(latencies) * 1e6:5.0f} us each"
    )


class _Counter(asyncio.Protocol):
    """Counts the events of one watch, as cheaply as Python can."""

    def __init__(self, total: int) -> None:
        self._left = total
        self.open = asyncio.get_running_loop().create_future()
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        path = f"{MAPS}?watch=1&labelSelector=watched"
        transport.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if not self.open.done():
            self.open.set_result(None)
        self._left -= data.count(b'{"type":')
        if self._left <= 0 and not self.done.done():
            self.done.set_result(None)


def _watch_all(files: str, url: str, total: int, told: Any) -> None:
    """Watch with many connections, in a process of its own; tell when all watch, and when all have seen all."""

    async def run() -> None:
        context = ssl.create_default_context(cafile=f"{files}/ca.crt")
        context.load_cert_chain(f"{files}/admin.crt", f"{files}/admin.key")
        loop, port = asyncio.get_running_loop(), int(url.rpartition(":")[2])
        counters = []
        for _ in range(WATCHERS):
            _, counter = await loop.create_connection(lambda: _Counter(total), "127.0.0.1", port, ssl=context)
            counters.append(counter)
        await asyncio.gather(*(each.open for each in counters))
        told.put("open")
        await asyncio.gather(*(each.done for each in counters))
        told.put("done")

    uvloop.run(run())


class Benchmarks:
    def __init__(self, cluster: clusters.Cluster, arguments: argparse.Namespace) -> None:
        self.cluster = cluster
        self.clients = arguments.clients
        self.seconds = arguments.seconds
        self.objects = arguments.objects

    async def write(self) -> None:
        run = time.monotonic_ns()
        text = await rate(
            self.cluster, self.clients, self.seconds, lambda c, n: c.ask("POST", MAPS, config_map(f"m-{run}-{n}"))
        )
        print(f"create ConfigMap, {self.clients} clients   {text}", flush=True)

    async def read(self) -> None:
        connection = await Connection.open(self.cluster)
        await connection.ask("POST", MAPS, config_map("read"))
        text = await rate(self.cluster, self.clients, self.seconds, lambda c, _: c.ask("GET", f"{MAPS}/read"))
        print(f"get ConfigMap, {self.clients} clients      {text}", flush=True)
        connection.close()

    async def _fill(self, count: int, first: int = 0) -> None:
        connections = [await Connection.open(self.cluster) for _ in range(16)]
        numbers = iter(range(first, first + count))

        async def fill(connection: Connection) -> None:
            for number in numbers:
                await connection.ask("POST", PODS, pod(number))

        await asyncio.gather(*(fill(each) for each in connections))
        for each in connections:
            each.close()

    async def list(self) -> None:
        await self._fill(1000)
        connection = await Connection.open(self.cluster)
        await self._settled(connection)
        times, size = [], 0
        for _ in range(20):
            began = time.perf_counter()
            size = len(await connection.ask("GET", PODS))
            times.append(time.perf_counter() - began)
        print(f"list of 1,000 pods, {size / 1e6:.2f} MB        p50 {statistics.median(times) * 1e3:.1f} ms", flush=True)
        connection.close()

    async def _settled(self, connection: Connection) -> None:
        """Wait until nothing changes the pods: the scheduler tells each one that there is no node."""
        seen, limit = b"", time.monotonic() + 60
        while time.monotonic() < limit:
            pods = (await connection.ask("GET", PODS)).partition(b'"items":')[2]  # the list's own revision goes on
            if pods == seen:
                return
            seen = pods
            await asyncio.sleep(1)

    async def latency(self) -> None:
        watching, writing = await Connection.open(self.cluster), await Connection.open(self.cluster)
        await watching.send("GET", f"{MAPS}?watch=1&fieldSelector=metadata.name=lag")
        await watching.head()
        body = json.loads(await writing.ask("POST", MAPS, config_map("lag")))
        await watching.line()
        lags = []
        for turn in range(200):
            body["data"]["key"] = str(turn)
            event = asyncio.create_task(self._arrival(watching))
            await writing.ask("PUT", f"{MAPS}/lag", json.dumps({**body, "metadata": {"name": "lag"}}).encode())
            acknowledged = time.perf_counter()
            lags.append(await event - acknowledged)
        print(
            f"write acknowledged to event received      p50 {statistics.median(lags) * 1e3:.2f} ms   "
            f"p99 {statistics.quantiles(lags, n=100)[98] * 1e3:.2f} ms",
            flush=True,
        )
        watching.close()
        writing.close()

    @staticmethod
    async def _arrival(connection: Connection) -> float:
        await connection.line()
        return time.perf_counter()

    async def watch(self) -> None:
        total = int(EVENTS_S * self.seconds)
        told: multiprocessing.Queue[Any] = multiprocessing.Queue()
        watchers = multiprocessing.Process(
            target=_watch_all, args=(str(self.cluster.files), self.cluster.url, total, told)
        )
        watchers.start()
        await asyncio.to_thread(told.get)  # all watch
        writer = await Connection.open(self.cluster)
        process = psutil.Process(self.cluster.master.pid)
        used = sum(process.cpu_times()[:2])
        began = time.perf_counter()
        document = {
            "metadata": {"name": f"watched-{time.monotonic_ns()}", "labels": {"watched": "yes"}},
            "data": {"at": "0"},
        }
        await writer.ask("POST", MAPS, json.dumps(document).encode())
        for turn in range(1, total):
            await asyncio.sleep(max(0.0, began + turn / EVENTS_S - time.perf_counter()))
            document["data"]["at"] = str(turn)
            await writer.ask("PUT", f"{MAPS}/{document['metadata']['name']}", json.dumps(document).encode())
        written = time.perf_counter() - began
        await asyncio.to_thread(told.get)  # all have seen all
        done = time.perf_counter() - began
        used = sum(process.cpu_times()[:2]) - used
        watchers.join()
        print(
            f"{WATCHERS} watchers, {total / written:.0f} events/s of {EVENTS_S} wanted   "
            f"{total * WATCHERS / done:,.0f} deliveries/s   last event {done - written:.2f} s after the last write   "
            f"master CPU {used / total / WATCHERS * 1e6:.1f} us a delivery",
            flush=True,
        )
        writer.close()

    async def memory(self) -> None:
        process = psutil.Process(self.cluster.master.pid)
        # A master loads what only some clients need some seconds after its start, and each part upon its first use.
        await self._fill(100, first=90_000)
        await asyncio.sleep(WARM_S)
        before = process.memory_info().rss
        await self._fill(self.objects, first=100_000)
        await asyncio.sleep(1)
        grown = process.memory_info().rss - before
        print(
            f"memory for {self.objects} pods more             {grown / 1e6:.0f} MB   "
            f"whole master {(before + grown) / 1e6:.0f} MB",
            flush=True,
        )

    async def start(self) -> None:
        await self._fill(self.objects, first=200_000)
        for _ in range(STARTS):
            took = await asyncio.to_thread(self.cluster.restart_master)
            used = psutil.Process(self.cluster.master.pid).cpu_times()
            print(
                f"master ready with {self.objects} objects or more    {took:.2f} s after its process starts   "
                f"CPU until then {used.user + used.system:.2f} s",
                flush=True,
            )
            await asyncio.sleep(1)  # what it goes on with when it is ready is not the next start's


@contextlib.contextmanager
def compiled(folder: Path) -> Iterator[None]:
    """Let the programs keep what they compile, as an installed master has it: else a start compiles all of it."""
    before = dict(os.environ)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


NAMES = ("write", "read", "list", "latency", "watch", "memory", "start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=NAMES, help=", ".join(NAMES))
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--masters", type=int, default=1, help="that run; only the first is asked")
    parser.add_argument("--store", default="memory", choices=("memory", "native"))
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        compiled(Path(folder)),
        clusters.running(Path(folder), nodes=0, masters=arguments.masters, engine=arguments.store) as cluster,
    ):
        benchmarks = Benchmarks(cluster, arguments)
        for name in arguments.what:
            asyncio.run(getattr(benchmarks, name)())


if __name__ == "__main__":
    main()
