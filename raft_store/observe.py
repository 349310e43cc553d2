"""What operators and probes read over HTTP: /health, /version, /metrics.

Metric names are etcd's where the meaning is, so that dashboards made for etcd show this store; what only we have
starts with ``trireme_``.
"""

import resource
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version

import msgspec
from aiohttp import web

from .engine import EngineError
from .etcd_api.backend import Backend
from .etcd_api.front import CallCounts
from .etcd_api.maintenance import ETCD_VERSION

HEALTH_S = 1.0
PAGE_BYTES = resource.getpagesize()


class Sample(msgspec.Struct, frozen=True):
    """One metric as it is now; ``values`` maps labels, as text, to numbers."""

    name: str
    kind: str  # "gauge" or "counter"
    help: str
    values: dict[str, float]


class Observer:
    """Answers about one member."""

    def __init__(
        self, backend: Backend, calls: CallCounts, *, name: str, engine: str, leader_changes: Callable[[], int]
    ) -> None:
        self._backend = backend
        self._calls = calls
        self._name = name
        self._engine = engine
        self._leader_changes = leader_changes
        self._started = time.time()

    def app(self) -> web.Application:
        """Return the HTTP application."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/version", self._version),
                web.get("/metrics", self._metrics),
            ]
        )
        return app

    async def _health(self, request: web.Request) -> web.Response:
        """Healthy means that the group can agree on something now; ``?serializable=true`` asks for less."""
        reason = ""
        if not self._backend.engine.status().leader:
            reason = "RAFT NO LEADER"
        elif request.query.get("serializable") != "true":
            try:
                await self._backend.engine.read_barrier(timeout_s=HEALTH_S)
            except EngineError as exc:
                reason = f"QGET ERROR:{exc}"
        alarms = self._backend.machine.alarms
        if not reason and alarms:
            reason = f"ALARM {', '.join(sorted(kind.name for _, kind in alarms))}"
        body = {"health": "false" if reason else "true", "reason": reason}
        return web.json_response(body, status=503 if reason else 200)

    async def _version(self, request: web.Request) -> web.Response:
        del request
        return web.json_response(
            {"etcdserver": ETCD_VERSION, "etcdcluster": ETCD_VERSION, "trireme": version("trireme")}
        )

    async def _metrics(self, request: web.Request) -> web.Response:
        del request
        return web.Response(text=render(self._samples()), content_type="text/plain", charset="utf-8")

    def _samples(self) -> Iterator[Sample]:
        yield from self._group_samples()
        yield from self._store_samples()
        yield Sample(
            "grpc_server_handled_total",
            "counter",
            "Calls that ended, by how.",
            {
                f'grpc_service="{service}",grpc_method="{method}",grpc_code="{code}"': count
                for (service, method, code), count in sorted(self._calls.items())
            },
        )
        usage = resource.getrusage(resource.RUSAGE_SELF)
        yield _counter("process_cpu_seconds_total", "CPU used.", usage.ru_utime + usage.ru_stime)
        yield _gauge("process_resident_memory_bytes", "Memory held.", _resident_bytes())
        yield _gauge("process_start_time_seconds", "When the member started.", self._started)
        labels = f'name="{self._name}",engine="{self._engine}",version="{version("trireme")}"'
        yield Sample("trireme_store_info", "gauge", "Which program this is.", {labels: 1})

    def _group_samples(self) -> Iterator[Sample]:
        status = self._backend.engine.status()
        leads = status.leader == self._backend.member
        yield _gauge("etcd_server_has_leader", "Whether a leader is known.", int(bool(status.leader)))
        yield _gauge("etcd_server_is_leader", "Whether this member leads.", int(leads))
        yield _counter(
            "etcd_server_leader_changes_seen_total", "Leaders followed since the start.", self._leader_changes()
        )
        yield _gauge("etcd_server_proposals_committed_total", "Highest committed index.", status.commit_index)
        yield _gauge("etcd_server_proposals_applied_total", "Highest applied index.", status.applied_index)
        yield _gauge("trireme_raft_term", "The current term.", status.term)
        yield _gauge("trireme_raft_log_bytes", "Log kept on disk.", status.log_bytes)

    def _store_samples(self) -> Iterator[Sample]:
        machine = self._backend.machine
        store = machine.store
        streams, watchers = machine.hub.counts()
        yield _gauge("etcd_mvcc_db_total_size_in_bytes", "All versions held.", store.held_bytes)
        yield _gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Present versions.", store.live_bytes)
        yield _gauge("etcd_debugging_mvcc_keys_total", "Keys that exist.", len(store.index))
        yield _gauge("etcd_debugging_mvcc_current_revision", "The newest revision.", store.revision)
        yield _gauge("etcd_debugging_mvcc_compact_revision", "The last compaction's.", store.compact_revision)
        yield _gauge("etcd_debugging_mvcc_watch_stream_total", "Watch streams open.", streams)
        yield _gauge("etcd_debugging_mvcc_watcher_total", "Watches open.", watchers)
        yield _gauge("trireme_store_leases", "Leases in force.", len(machine.leases))


def render(samples: Iterator[Sample]) -> str:
    """Return Prometheus' text format."""
    lines: list[str] = []
    for sample in samples:
        lines.append(f"# HELP {sample.name} {sample.help}")
        lines.append(f"# TYPE {sample.name} {sample.kind}")
        for labels, value in sample.values.items():
            lines.append(f"{sample.name}{{{labels}}} {value}" if labels else f"{sample.name} {value}")
    return "\n".join(lines) + "\n"


def _gauge(name: str, explanation: str, value: float) -> Sample:
    return Sample(name, "gauge", explanation, {"": value})


def _counter(name: str, explanation: str, value: float) -> Sample:
    return Sample(name, "counter", explanation, {"": value})


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - procfs, read at once
        return int(statm.read().split()[1]) * PAGE_BYTES


async def serve(app: web.Application, listen: str) -> web.AppRunner:
    """Serve ``app`` at "host:port". Raises OSError naming the address."""
    host, _, port = listen.rpartition(":")
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host.strip("[]"), int(port), shutdown_timeout=1.0).start()
    except OSError as exc:
        await runner.cleanup()
        raise OSError(f"metrics_listen {listen}: {exc}") from exc
    return runner
