"""The agent's own pages: /healthz, /metrics (Prometheus text), /pods, /runningpods and /stats/summary.

Masters read them over mutual TLS. Where the configuration says so, plain HTTP shows those that tell nothing that is
for few eyes: what pods are made of, the values in their environment among it, is not shown there.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping

import msgspec

from api.kinds.pods import Pod
from node_agent.pods.worker import PodWorker
from node_agent.statistics import Sample

log = logging.getLogger(__name__)

Page = Callable[[], Awaitable[tuple[str, bytes]]]
_HEAD_S = 5.0
_CONNECTIONS = 64
# What anybody may read.
PUBLIC = frozenset({"/healthz", "/metrics"})
TEXT = "text/plain; version=0.0.4; charset=utf-8"
_FAMILIES = (
    ("node_cpu_usage_seconds_total", "counter", "Cumulative CPU time of the node in seconds."),
    ("node_memory_working_set_bytes", "gauge", "Memory of the node in use that cannot be dropped."),
    ("container_cpu_usage_seconds_total", "counter", "Cumulative CPU time of a container in seconds."),
    ("container_memory_working_set_bytes", "gauge", "Memory of a container in use that cannot be dropped."),
    ("container_start_time_seconds", "gauge", "Start of a container, Unix seconds."),
    ("kubelet_running_pods", "gauge", "Pods with a running container."),
    ("kubelet_running_containers", "gauge", "Running containers."),
)


def render_metrics(sample: Sample, pods: Iterable[tuple[Pod, PodWorker]]) -> str:
    """Return the metrics in Prometheus' text format."""
    values: dict[str, list[tuple[Mapping[str, str], float]]] = {name: [] for name, _, _ in _FAMILIES}
    values["node_cpu_usage_seconds_total"].append(({}, sample.node.cpu_s))
    values["node_memory_working_set_bytes"].append(({}, sample.node.working_set_bytes))
    running_pods = running_containers = 0
    for pod, worker in pods:
        running_pods += bool(worker.running)
        running_containers += len(worker.running)
        for container in worker.running:
            usage = sample.containers.get(container.id)
            labels = {"container": container.name, "namespace": pod.metadata.namespace, "pod": pod.metadata.name}
            values["container_start_time_seconds"].append((labels, container.started_at))
            if usage is not None:
                values["container_cpu_usage_seconds_total"].append((labels, usage.cpu_s))
                values["container_memory_working_set_bytes"].append((labels, usage.working_set_bytes))
    values["kubelet_running_pods"].append(({}, running_pods))
    values["kubelet_running_containers"].append(({}, running_containers))
    lines = []
    for name, kind, text in _FAMILIES:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        lines += [f"{name}{_labels(labels)} {value:.15g}" for labels, value in values[name]]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}" if labels else ""


def render_pods(pods: Iterable[tuple[Pod, PodWorker]]) -> bytes:
    """Return a PodList of what this node runs, with the status that it would write."""
    items = [msgspec.structs.replace(pod, status=worker.status) for pod, worker in pods]
    return msgspec.json.encode({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})


class HttpServer:
    """Serves pages by path; one request a connection."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = pages
        self._server: asyncio.Server | None = None
        self._slots = asyncio.Semaphore(_CONNECTIONS)

    async def start(self, host: str, port: int) -> int:
        """Listen and return the port."""
        self._server = await asyncio.start_server(self._serve, host, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self._slots, asyncio.timeout(_HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(head))
                await writer.drain()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as exc:
            log.debug("HTTP request dropped error=%r", exc)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.split(b" ", 1)[0].split(b"?", 1)[0].decode("latin-1")
        if method not in {b"GET", b"HEAD"}:
            return _response("405 Method Not Allowed", TEXT, b"only GET\n", head_only=False)
        page = self._pages.get(path)
        if page is None:
            return _response("404 Not Found", TEXT, b"not found\n", head_only=False)
        kind, body = await page()
        status = "200 OK" if kind else "503 Service Unavailable"
        return _response(status, kind or TEXT, body, head_only=method == b"HEAD")


def _response(status: str, kind: str, body: bytes, *, head_only: bool) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + (b"" if head_only else body)
