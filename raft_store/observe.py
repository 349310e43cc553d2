"""What operators and probes read over HTTP: /health, /version, /metrics.

Metric names are etcd's where the meaning is, so that dashboards made for etcd show this store; what only we have
starts with ``trireme_``. The HTTP is just enough for that: a library would cost every member 13 MB.
"""

import asyncio
import os
import resource
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from importlib.metadata import version
from urllib.parse import parse_qs, urlsplit

import msgspec

from fastgrpc.entrance import Room

from .counts import wal_syncs
from .engine import EngineError, MemberStatus
from .etcd_api.backend import Backend
from .etcd_api.front import SPARE_FILES, CallCounts
from .etcd_api.maintenance import CLUSTER_VERSION, ETCD_VERSION

HEALTH_S = 1.0
REQUEST_S = 5.0
MAX_HEAD_BYTES = 8 << 10
JSON, TEXT = "application/json", "text/plain; charset=utf-8"
PAGE_BYTES = resource.getpagesize()


class Answer(msgspec.Struct, frozen=True):
    """An HTTP response."""

    status: int
    content_type: str
    body: bytes

    def encoded(self) -> bytes:
        """Return its bytes on the wire; the connection ends with it."""
        head = (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\nContent-Type: {self.content_type}\r\n"
            f"Content-Length: {len(self.body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode("latin-1") + self.body


Query = Mapping[str, list[str]]
Handler = Callable[[Query], Awaitable[Answer]]


class Sample(msgspec.Struct, frozen=True):
    """One metric as it is now; ``values`` maps labels, as text, to numbers."""

    name: str
    kind: str  # "gauge", "counter" or "histogram"
    help: str
    values: dict[str, float]


class Observer:
    """Answers about one member."""

    def __init__(
        self,
        backend: Backend,
        calls: CallCounts,
        *,
        name: str,
        engine: str,
        quota_bytes: int,
        leader_changes: Callable[[], int],
    ) -> None:
        self._backend = backend
        self._calls = calls
        self._name = name
        self._engine = engine
        self._leader_changes = leader_changes
        self._quota_bytes = quota_bytes
        self._healthy = self._unhealthy = 0
        self._started = time.time()

    def routes(self) -> dict[str, Handler]:
        """Return who answers which path."""
        return {"/health": self._health, "/version": self._version, "/metrics": self._metrics}

    def client_routes(self) -> dict[str, Handler]:
        """Return ``routes``, and what is for clients alone."""
        return self.routes() | {"/trace": self._trace}

    async def _health(self, query: Query) -> Answer:
        """Healthy means no alarm, and that the group can agree on something now.

        ``?serializable=true`` is content with this member alone, ``?exclude=NOSPACE`` passes over an alarm.
        """
        reason = self._alarm(query.get("exclude", ()))
        if not reason and query.get("serializable") != ["true"]:
            reason = await self._disagreement()
        body = {"health": "false" if reason else "true", "reason": reason}
        if reason:
            self._unhealthy += 1
        else:
            self._healthy += 1
        return Answer(503 if reason else 200, JSON, msgspec.json.encode(body))

    def _alarm(self, excluded: Sequence[str]) -> str:
        raised = sorted({kind.name for _, kind in self._backend.machine.alarms} - set(excluded))
        return f"ALARM {raised[0]}" if raised else ""

    async def _disagreement(self) -> str:
        if not self._backend.engine.status().leader:
            return "RAFT NO LEADER"
        try:
            await self._backend.engine.read_barrier(timeout_s=HEALTH_S)
        except EngineError as exc:
            return f"QGET ERROR:{exc}"
        return ""

    async def _version(self, query: Query) -> Answer:
        del query
        body = {"etcdserver": ETCD_VERSION, "etcdcluster": CLUSTER_VERSION, "trireme": version("trireme")}
        return Answer(200, JSON, msgspec.json.encode(body))

    async def _trace(self, query: Query) -> Answer:
        """Return what the core says and hears; ``?after=``: the last look's ``next`` (see ``trace``)."""
        (after,) = query.get("after", ["0"])[-1:]
        try:
            found = self._backend.engine.trace(int(after) if after.isdecimal() else 0)
        except EngineError as exc:
            return Answer(503, "text/plain", f"{exc}\n".encode())
        if found is None:
            return Answer(404, "text/plain", b"this engine shows no messages\n")
        return Answer(200, JSON, msgspec.json.encode(found))

    async def _metrics(self, query: Query) -> Answer:
        del query
        return Answer(200, "text/plain; version=0.0.4; charset=utf-8", render(self._samples()).encode())

    def _samples(self) -> Iterator[Sample]:
        yield from self._group_samples()
        yield from self._store_samples()
        yield from self._applied_samples()
        yield Sample(
            "grpc_server_handled_total",
            "counter",
            "Calls that ended, by how.",
            {
                f'grpc_service="{service}",grpc_method="{method}",grpc_code="{code}"': count
                for (service, method, code), count in sorted(self._calls.items())
            },
        )
        yield from self._process_samples()
        labels = f'name="{self._name}",engine="{self._engine}",version="{version("trireme")}"'
        yield Sample("trireme_store_info", "gauge", "Which program this is.", {labels: 1})

    def _process_samples(self) -> Iterator[Sample]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        virtual, resident = _memory_bytes()
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - procfs, read at once
        yield _counter("process_cpu_seconds_total", "CPU used.", usage.ru_utime + usage.ru_stime)
        yield _gauge("process_resident_memory_bytes", "Memory held.", resident)
        yield _gauge("process_virtual_memory_bytes", "Memory mapped.", virtual)
        yield _gauge("process_start_time_seconds", "When the member started.", self._started)
        for name in ("process_open_fds", "os_fd_used"):
            yield _gauge(name, "File descriptors open.", used)
        for name in ("process_max_fds", "os_fd_limit"):
            yield _gauge(name, "File descriptors allowed.", limit)

    def _group_samples(self) -> Iterator[Sample]:
        status = self._backend.engine.status()
        leads = status.leader == self._backend.member
        yield _gauge("etcd_server_has_leader", "Whether a leader is known.", int(bool(status.leader)))
        yield _gauge("etcd_server_is_leader", "Whether this member leads.", int(leads))
        yield _counter(
            "etcd_server_leader_changes_seen_total", "Leaders followed since the start.", self._leader_changes()
        )
        yield _gauge("etcd_server_is_learner", "Whether this member only learns.", int(status.role == "learner"))
        member = f'server_id="{self._backend.member:x}"'
        yield Sample("etcd_server_id", "gauge", "The member's id.", {member: 1})
        yield Sample("etcd_server_version", "gauge", "The API's version.", {f'server_version="{ETCD_VERSION}"': 1})
        cluster = f'cluster_version="{CLUSTER_VERSION.rpartition(".")[0]}"'
        yield Sample("etcd_cluster_version", "gauge", "What all members have in common.", {cluster: 1})
        yield _counter("etcd_server_health_success", "Looks at /health that found all well.", self._healthy)
        yield _counter("etcd_server_health_failures", "Looks at /health that did not.", self._unhealthy)
        yield _gauge("etcd_server_proposals_pending", "Proposals waited for.", self._backend.proposals_pending)
        yield _counter("etcd_server_proposals_failed_total", "Proposals given up.", self._backend.proposals_failed)
        yield _gauge("etcd_server_proposals_committed_total", "Highest committed index.", status.commit_index)
        yield _gauge("etcd_server_proposals_applied_total", "Highest applied index.", status.applied_index)
        yield _gauge("trireme_raft_term", "The current term.", status.term)
        yield _gauge("trireme_raft_log_bytes", "Log kept on disk.", status.log_bytes)
        if status.silences:  # engines of others do not tell
            yield from _patience_samples(status)

        yield Sample(
            "etcd_disk_wal_fsync_duration_seconds",
            "histogram",
            "How long the log's syncs took.",
            {
                **{f'_bucket{{le="{bound}"}}': count for bound, count in wal_syncs.cumulative()},
                "_sum": wal_syncs.sum_s,
                "_count": sum(wal_syncs.counts),
            },
        )

    def _applied_samples(self) -> Iterator[Sample]:
        applied = self._backend.machine.applied
        yield _counter("etcd_mvcc_put_total", "Puts applied, those in transactions too.", applied.puts)
        yield _counter("etcd_mvcc_delete_total", "Deletions applied.", applied.deletes)
        yield _counter("etcd_mvcc_txn_total", "Transactions applied.", applied.txns)
        ranges = self._calls["etcdserverpb.KV", "Range", "OK"]
        yield _counter("etcd_mvcc_range_total", "Ranges that clients read from this member.", ranges)
        yield _counter("etcd_debugging_lease_granted_total", "Leases granted.", applied.leases_granted)
        yield _counter("etcd_debugging_lease_renewed_total", "Leases renewed.", applied.leases_renewed)
        yield _counter("etcd_debugging_lease_revoked_total", "Leases revoked.", applied.leases_revoked)
        yield _counter("etcd_debugging_server_lease_expired_total", "Leases that ran out.", applied.leases_expired)
        yield _gauge("etcd_debugging_auth_revision", "Of users and roles.", self._backend.machine.auth.revision)
        yield _gauge("etcd_server_quota_backend_bytes", "Size after which writes are refused.", self._quota_bytes)

    def _store_samples(self) -> Iterator[Sample]:
        machine = self._backend.machine
        store = machine.store
        streams, watchers = machine.hub.counts()
        yield _gauge("etcd_mvcc_db_total_size_in_bytes", "All versions held.", store.size_bytes)
        yield _gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Present versions.", store.size_in_use_bytes)
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
            # A histogram's rows have names and labels of their own, and bring both.
            ready = not labels or sample.kind == "histogram"
            lines.append(f"{sample.name}{labels} {value}" if ready else f"{sample.name}{{{labels}}} {value}")
    return "\n".join(lines) + "\n"


def _gauge(name: str, explanation: str, value: float) -> Sample:
    return Sample(name, "gauge", explanation, {"": value})


def _counter(name: str, explanation: str, value: float) -> Sample:
    return Sample(name, "counter", explanation, {"": value})


def _patience_samples(status: MemberStatus) -> Iterator[Sample]:
    yield _gauge(
        "trireme_raft_election_timeout_seconds",
        "Silence of a leader that this member bears now, at least; it adapts to the silences below.",
        status.election_timeout_s,
    )
    yield Sample(
        "trireme_raft_silence_seconds",
        "histogram",
        "How long a leader that lived was silent, or as the leader, a quorum of followers.",
        _histogram([(n * status.tick_s, count) for n, count in enumerate(status.silences, 1)]),
    )


def _histogram(counts: Sequence[tuple[float, int]]) -> dict[str, float]:
    """Return a histogram's rows; counts: (upper bound, how many below it) one by one, the last one's being any."""
    rows: dict[str, float] = {}
    total, sum_s = 0, 0.0
    for place, (bound_s, count) in enumerate(counts, 1):
        total += count
        sum_s += count * bound_s  # known to a tick
        rows[f'_bucket{{le="{bound_s:g}"}}' if place < len(counts) else '_bucket{le="+Inf"}'] = total
    return {**rows, "_sum": sum_s, "_count": total}


def _memory_bytes() -> tuple[int, int]:
    """Return what is mapped, and what of it is held."""
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - procfs, read at once
        mapped, resident = statm.read().split()[:2]
    return int(mapped) * PAGE_BYTES, int(resident) * PAGE_BYTES


async def serve(routes: Mapping[str, Handler], listen: str) -> asyncio.Server:
    """Answer GET requests at "host:port", one a connection. Raises OSError naming the address."""
    host, _, port = listen.rpartition(":")
    try:
        return await asyncio.start_server(_connected(routes), host.strip("[]"), int(port), limit=MAX_HEAD_BYTES)
    except OSError as exc:
        raise OSError(f"metrics_listen {listen}: {exc}") from exc


def _connected(
    routes: Mapping[str, Handler],
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    room = Room(SPARE_FILES)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not room.has(writer.transport):
            writer.transport.abort()
            return
        try:
            async with asyncio.timeout(REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                answer = await _answer(routes, head)
                writer.write(answer.encoded())
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            pass  # whoever asked has gone, or never asked
        finally:
            writer.close()

    return connected


async def _answer(routes: Mapping[str, Handler], head: bytes) -> Answer:
    method, _, rest = head.split(b"\r\n", 1)[0].decode("latin-1").partition(" ")
    if method != "GET":
        return Answer(405, TEXT, b"only GET\n")
    parts = urlsplit(rest.partition(" ")[0])
    handler = routes.get(parts.path)
    if handler is None:
        return Answer(404, TEXT, f"there is {', '.join(routes)}\n".encode())
    return await handler(parse_qs(parts.query))
