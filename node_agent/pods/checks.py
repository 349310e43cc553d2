"""The four ways to ask a container how it is: run a command, GET a page, open a connection, call its health service.

Each returns a verdict or raises TimeoutError through the caller's time-out; none of them decides what follows.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from typing import Protocol

import grpc
import msgspec
from grpc_health.v1 import health_pb2, health_pb2_grpc

from api.kinds.pods import Container, ExecAction, GRPCAction, HTTPGetAction, Probe, TCPSocketAction
from node_agent.pods.pages import get_page, url_of
from node_agent.runtime.base import ContainerRuntime, NotRunning

_OUTPUT_LIMIT = 10 * 1024


class Verdict(msgspec.Struct, frozen=True):
    """The answer; ``message`` says what was wrong, in the kubelet's words. warning: what is odd although it is well."""

    ok: bool
    message: str = ""
    warning: str = ""


class Ask(Protocol):
    """Runs a probe's check once."""

    async def __call__(self, probe: Probe, container: Container, container_id: str, pod_ip: str, /) -> Verdict:
        """Return the verdict."""


def asking(runtime: ContainerRuntime) -> Ask:
    """Return what really asks; commands run through ``runtime``."""

    async def ask(probe: Probe, container: Container, container_id: str, pod_ip: str, /) -> Verdict:
        if probe.exec:
            return await check_command(probe.exec, container_id, runtime)
        if probe.http_get:
            return await check_http(probe.http_get, container, pod_ip)
        if probe.tcp_socket:
            return await check_tcp(probe.tcp_socket, container, pod_ip)
        if probe.grpc:
            return await check_grpc(probe.grpc, pod_ip)
        return Verdict(ok=True)

    return ask


async def always_well(probe: Probe, container: Container, container_id: str, pod_ip: str, /) -> Verdict:  # noqa: ARG001
    """Answer for containers that do not exist."""
    return Verdict(ok=True)


async def check_command(action: ExecAction, container_id: str, runtime: ContainerRuntime) -> Verdict:
    """Run the command inside the container; exit status 0 is good."""
    try:
        session = await runtime.exec(container_id, action.command)
    except NotRunning as exc:
        return Verdict(ok=False, message=str(exc))
    output = bytearray()
    try:
        async for part in session.output():
            output += part.data[: _OUTPUT_LIMIT - len(output)]
        code = await session.exit_code()
    finally:
        await session.close()
    return Verdict(code == 0, output.decode(errors="replace"))


async def check_http(action: HTTPGetAction, container: Container, pod_ip: str) -> Verdict:
    """GET the page; a status from 200 to 299 is good, a redirect to another host is good with a warning."""
    url = url_of(action, action.host or pod_ip, resolve_port(action.port, container))
    try:
        page = await get_page(url, action)
    except (OSError, EOFError, ValueError, ssl.SSLError) as exc:
        return Verdict(ok=False, message=f'Get "{url}": {_reason(exc)}')
    if page.is_redirect:
        return Verdict(ok=True, warning=page.body or f"redirected with statuscode: {page.status}")
    return Verdict(200 <= page.status < 300, f"HTTP probe failed with statuscode: {page.status}")


async def check_tcp(action: TCPSocketAction, container: Container, pod_ip: str) -> Verdict:
    """Open a connection and close it again."""
    host, port = action.host or pod_ip, resolve_port(action.port, container)
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError as exc:
        return Verdict(ok=False, message=f"dial tcp {host}:{port}: {_reason(exc)}")
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return Verdict(ok=True)


async def check_grpc(action: GRPCAction, pod_ip: str) -> Verdict:
    """Ask the standard health service; SERVING is good."""
    async with grpc.aio.insecure_channel(f"{pod_ip}:{action.port}") as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=action.service)
            )
        except grpc.aio.AioRpcError as exc:
            return Verdict(ok=False, message=f"rpc error: code = {exc.code().name} desc = {exc.details()}")
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return Verdict(name == "SERVING", f"service unhealthy (responded with {name!r})")


def resolve_port(port: int | str, container: Container) -> int:
    """Return the number of a port given by number or by one of the container's port names."""
    if isinstance(port, int):
        return port
    if port.isdigit():
        return int(port)
    found = _named(container, port)
    if found is None:
        raise ValueError(f"container {container.name} has no port named {port!r}")
    return found


def _named(container: Container, name: str) -> int | None:
    ports: Sequence[int] = [each.container_port for each in container.ports if each.name == name]
    return ports[0] if ports else None


def _reason(exc: Exception) -> str:
    if isinstance(exc, ConnectionRefusedError):
        return "connect: connection refused"
    return getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
