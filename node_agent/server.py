"""The NodeAgent service: what a master asks of this node, over mutual TLS.

Only masters and administrators are answered, by the group that their certificates name: a name alone anybody might
get signed. What a user may do was decided by the master that passes it on.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import grpc
from cryptography import x509
from cryptography.x509.oid import NameOID

from node_agent.config import Tls
from node_agent.http import Page
from node_agent.network import kernel
from node_agent.pods.containers import every_container
from node_agent.pods.manager import PodManager
from node_agent.pods.worker import PodWorker
from node_agent.runtime.base import (
    Container,
    ContainerRuntime,
    LogOptions,
    NoSuchContainer,
    NotRunning,
    RuntimeFailed,
    Session,
    State,
    Stderr,
)
from node_agent.statistics import Statistics, cores_used
from trireme_pb.node import node_pb2, node_pb2_grpc

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
ADMINISTRATORS = "system:masters"
_CHUNK_BYTES = 32 * 1024
_CONNECT_S = 5.0
_STOP_S = 1.0
# How long a call stays open for what its client still sends when all has been said.
_LINGER_S = 10.0
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


@lru_cache(maxsize=256)
def identity_of(certificate: bytes) -> tuple[str, frozenset[str]]:
    """Return (user, groups) that a PEM certificate stands for: of several common names the last, as masters read it."""
    subject = x509.load_pem_x509_certificate(certificate).subject
    names = [str(each.value) for each in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = frozenset(str(each.value) for each in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
    return names[-1] if names else "", groups


def is_admitted(groups: frozenset[str]) -> bool:
    """Whether this node answers a member of these groups."""
    return ADMINISTRATORS in groups


class NodeAgentService(node_pb2_grpc.NodeAgentServicer):
    """Answers masters.

    pages: path -> what is to be read there. secure: clients show certificates, and those decide.
    """

    def __init__(
        self,
        manager: PodManager,
        runtime: ContainerRuntime,
        statistics: Statistics,
        pages: Mapping[str, Page],
        *,
        secure: bool,
    ) -> None:
        self._manager = manager
        self._runtime = runtime
        self._statistics = statistics
        self._pages = pages
        self._secure = secure

    # The methods bear the contract's names.

    async def Logs(  # noqa: N802
        self, request: node_pb2.LogsRequest, context: Context
    ) -> AsyncIterator[node_pb2.Chunk]:
        """Stream a container's output."""
        await self._admit(context)
        async with _refusals(context):
            container = await self._instance(request.target, context, previous=request.previous)
            left = request.limit_bytes if request.HasField("limit_bytes") else None
            async with contextlib.aclosing(self._runtime.logs(container.id, log_options(request))) as output:
                async for part in output:
                    data = part.data if left is None else part.data[:left]
                    left = None if left is None else left - len(data)
                    yield node_pb2.Chunk(data=data)
                    if left == 0:
                        return

    async def Exec(  # noqa: N802
        self, request_iterator: AsyncIterator[node_pb2.ExecInput], context: Context
    ) -> AsyncIterator[node_pb2.ExecOutput]:
        """Run a command in a container, or attach to its own process."""
        await self._admit(context)
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("input") != "start":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must say what to start")
        async with _refusals(context):
            session = await self._open(first.start, context)
            await context.send_initial_metadata(())
            pump = asyncio.create_task(_pump_input(request_iterator, session), name="exec input")
            try:
                async for part in session.output():
                    for at in range(0, len(part.data), _CHUNK_BYTES):
                        piece = part.data[at : at + _CHUNK_BYTES]
                        is_error = isinstance(part, Stderr)
                        yield node_pb2.ExecOutput(stderr=piece) if is_error else node_pb2.ExecOutput(stdout=piece)
                yield node_pb2.ExecOutput(exit_code=await session.exit_code())
                await asyncio.wait({pump}, timeout=_LINGER_S)
            finally:
                pump.cancel()
                await session.close()

    async def _open(self, start: node_pb2.ExecStart, context: Context) -> Session:
        container = await self._instance(start.target, context, previous=False)
        if container.state is not State.RUNNING:
            raise NotRunning(f'container "{container.name}" is not running')
        if not start.command:
            return await self._runtime.attach(container.id, stdin=start.stdin)
        return await self._runtime.exec(container.id, list(start.command), tty=start.tty, stdin=start.stdin)

    async def PortForward(  # noqa: N802
        self, request_iterator: AsyncIterator[node_pb2.PortForwardData], context: Context
    ) -> AsyncIterator[node_pb2.PortForwardData]:
        """Connect to a port as the pod itself would, on its own loopback."""
        await self._admit(context)
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("content") != "start" or not 0 < first.start.port < 65536:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must name pod and port")
        start = first.start
        worker = await self._worker(start.namespace, start.pod, "", context)
        try:
            reader, writer = await self._connect(worker, start.port, context)
        except OSError as exc:
            await _abort(
                context, grpc.StatusCode.FAILED_PRECONDITION, f"port {start.port} of {start.pod}: {exc.strerror or exc}"
            )
        await context.send_initial_metadata(())
        pump = asyncio.create_task(_pump_port(request_iterator, writer), name="port-forward input")
        try:
            async for data in _until_closed(reader, start.port):
                yield node_pb2.PortForwardData(data=data)
            yield node_pb2.PortForwardData(closed=True)
            await asyncio.wait({pump}, timeout=_LINGER_S)
        finally:
            pump.cancel()
            writer.close()

    async def _connect(
        self, worker: PodWorker, port: int, context: Context
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sandboxes = await self._runtime.sandboxes(worker.pod.metadata.uid)
        if not sandboxes or not sandboxes[0].pid:
            await _abort(context, grpc.StatusCode.FAILED_PRECONDITION, "the pod has no running sandbox")
        connected = await asyncio.to_thread(_connect_inside, sandboxes[0].pid, port)
        return await asyncio.open_connection(sock=connected)

    async def Stats(  # noqa: N802
        self,
        request: node_pb2.StatsRequest,  # noqa: ARG002
        context: Context,
    ) -> node_pb2.StatsResponse:
        """Return the last sample, with rates since the one before."""
        await self._admit(context)
        window = self._statistics.window
        if window is None:
            await _abort(context, grpc.StatusCode.UNAVAILABLE, "metrics are not available yet")
        before, after = window
        span_s = after.at - before.at
        answer = node_pb2.StatsResponse(
            sampled_at_unix_s=after.at,
            window_s=span_s,
            node_cpu_cores=cores_used(before.node, after.node, span_s),
            node_memory_working_set_bytes=after.node.working_set_bytes,
        )
        for pod, worker in self._manager.pods():
            for container in worker.running:
                usage, earlier = after.containers.get(container.id), before.containers.get(container.id)
                if usage is None or earlier is None:
                    continue
                answer.containers.add(
                    container=node_pb2.ContainerRef(
                        namespace=pod.metadata.namespace,
                        pod=pod.metadata.name,
                        container=container.name,
                        pod_uid=pod.metadata.uid,
                    ),
                    cpu_cores=cores_used(earlier, usage, span_s),
                    memory_working_set_bytes=usage.working_set_bytes,
                )
        return answer

    async def Page(  # noqa: N802
        self, request: node_pb2.PageRequest, context: Context
    ) -> AsyncIterator[node_pb2.PagePart]:
        """Show one of the agent's own pages."""
        await self._admit(context)
        page = self._pages.get(request.path)
        if page is None:
            await _abort(context, grpc.StatusCode.NOT_FOUND, f"the agent has no page {request.path}")
        kind, body = await page()
        yield node_pb2.PagePart(content_type=kind, data=body[:_CHUNK_BYTES])
        for at in range(_CHUNK_BYTES, len(body), _CHUNK_BYTES):
            yield node_pb2.PagePart(data=body[at : at + _CHUNK_BYTES])

    async def _admit(self, context: Context) -> None:
        if not self._secure:
            return
        certificates = list(context.auth_context().get("x509_pem_cert", []))
        user, groups = identity_of(certificates[0]) if certificates else ("", frozenset())
        if not is_admitted(groups):
            await _abort(context, grpc.StatusCode.PERMISSION_DENIED, f'user "{user}" may not talk to this node')

    async def _worker(self, namespace: str, name: str, uid: str, context: Context) -> PodWorker:
        # The API's image of a pod from a file has another UID than the pod itself.
        worker = self._manager.find(namespace, name, uid) or self._manager.find(namespace, name)
        if worker is None:
            await _abort(context, grpc.StatusCode.NOT_FOUND, f'pod "{namespace}/{name}" is not on this node')
        return worker

    async def _instance(self, target: node_pb2.ContainerRef, context: Context, *, previous: bool) -> Container:
        """Return the instance that a request means: the newest, or the one before the last restart."""
        worker = await self._worker(target.namespace, target.pod, target.pod_uid, context)
        pod = worker.pod
        name = target.container or _default_container(worker)
        if name not in {each.name for each in every_container(pod.spec)}:
            await _abort(
                context, grpc.StatusCode.NOT_FOUND, f"container {name} is not valid for pod {pod.metadata.name}"
            )
        found = [c for c in await self._runtime.containers(pod.metadata.uid) if c.name == name]
        started = [c for c in found if c.state is not State.CREATED]
        if previous:
            if len(started) < 2:
                message = f'previous terminated container "{name}" in pod "{pod.metadata.name}" not found'
                await _abort(context, grpc.StatusCode.FAILED_PRECONDITION, message)
            return started[1]
        if not started:
            message = f'container "{name}" in pod "{pod.metadata.name}" is waiting to start: {_waiting(worker, name)}'
            await _abort(context, grpc.StatusCode.FAILED_PRECONDITION, message)
        return started[0]


def log_options(request: node_pb2.LogsRequest) -> LogOptions:
    """Return which part of the output is meant; raises ValueError for a time that is none."""
    since = 0.0
    if request.HasField("since_seconds"):
        since = datetime.now().timestamp() - request.since_seconds  # noqa: DTZ005 - only its Unix seconds are used
    elif request.since_time:
        since = datetime.fromisoformat(request.since_time).timestamp()
    return LogOptions(
        follow=request.follow,
        timestamps=request.timestamps,
        tail_lines=request.tail_lines if request.HasField("tail_lines") else None,
        since=since,
    )


def _default_container(worker: PodWorker) -> str:
    named = worker.pod.metadata.annotations.get(_DEFAULT_CONTAINER, "")
    return named or worker.pod.spec.containers[0].name


def _waiting(worker: PodWorker, name: str) -> str:
    status = worker.status
    for each in (*status.init_container_statuses, *status.container_statuses, *status.ephemeral_container_statuses):
        if each.name == name and each.state and each.state.waiting:
            return each.state.waiting.reason
    return "ContainerCreating"


def _connect_inside(pid: int, port: int) -> socket.socket:
    """Return a connection to the loopback of a process's network namespace; it stays there wherever it is used."""
    with kernel.namespace_file(pid) as descriptor:
        connected = kernel.run_inside(
            descriptor, lambda: socket.create_connection(("127.0.0.1", port), timeout=_CONNECT_S)
        )
    connected.setblocking(False)
    return connected


async def _pump_input(requests: AsyncIterator[node_pb2.ExecInput], session: Session) -> None:
    """Hand on what the client sends, to its end: a call that ended before would hide from it how it ended."""
    is_open = True
    async for request in requests:
        try:
            match request.WhichOneof("input"):
                case "stdin" if is_open:
                    await session.write(request.stdin)
                case "stdin_closed":
                    await session.close_stdin()
                case "resize":
                    await session.resize(width=request.resize.width, height=request.resize.height)
        except RuntimeFailed as exc:
            # The process may end while its user still types.
            is_open = False
            log.debug("exec input ended error=%s", exc)
    await session.close_stdin()


async def _until_closed(reader: asyncio.StreamReader, port: int) -> AsyncIterator[bytes]:
    """Yield what comes from a port of the pod until either side closes."""
    try:
        while data := await reader.read(_CHUNK_BYTES):
            yield data
    except OSError as exc:
        log.debug("forwarded connection broke port=%d error=%s", port, exc)


async def _pump_port(requests: AsyncIterator[node_pb2.PortForwardData], writer: asyncio.StreamWriter) -> None:
    """Hand on what the client sends, to its end, whether the pod takes it or not."""
    is_open = True
    async for request in requests:
        try:
            if request.closed:
                writer.write_eof()
            elif is_open:
                writer.write(request.data)
                await writer.drain()
        except OSError as exc:
            is_open = False
            log.debug("forwarded connection takes no more error=%s", exc)


@contextlib.asynccontextmanager
async def _refusals(context: Context) -> AsyncIterator[None]:
    """Turn the runtime's refusals into the contract's statuses."""
    try:
        yield
    except NoSuchContainer as exc:
        await _abort(context, grpc.StatusCode.NOT_FOUND, str(exc))
    except NotRunning as exc:
        await _abort(context, grpc.StatusCode.FAILED_PRECONDITION, str(exc))
    except RuntimeFailed as exc:
        await _abort(context, grpc.StatusCode.INTERNAL, str(exc))
    except ValueError as exc:
        await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(exc))


async def _abort(context: Context, code: grpc.StatusCode, message: str) -> NoReturn:
    await context.abort(code, message)
    raise AssertionError(code)  # abort raises


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    certificate, key = tls.serving
    return grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())], root_certificates=tls.ca.read_bytes(), require_client_auth=True
    )


async def serve(service: NodeAgentService, listen: str, tls: Tls | None) -> Callable[[], Awaitable[None]]:
    """Listen and return how to stop; raises OSError if the address is taken."""
    options = [("grpc.keepalive_time_ms", 10_000), ("grpc.keepalive_timeout_ms", 5_000), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(options=options)
    node_pb2_grpc.add_NodeAgentServicer_to_server(service, server)
    try:
        port = server.add_secure_port(listen, _credentials(tls)) if tls else server.add_insecure_port(listen)
    except RuntimeError as exc:
        raise OSError(f"cannot listen on {listen}: {exc}") from exc
    await server.start()
    log.info("node service listening address=%s port=%d tls=%s", listen, port, tls is not None)

    async def stop() -> None:
        await server.stop(_STOP_S)

    return stop
