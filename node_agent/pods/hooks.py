"""Lifecycle hooks: what a container wants done after its start and before its end."""

import asyncio

from api.kinds.pods import Container, HTTPGetAction, LifecycleHandler
from node_agent.errors import NodeError
from node_agent.pods.checks import Verdict, check_command, check_tcp, resolve_port
from node_agent.pods.pages import get_page, url_of
from node_agent.runtime.base import ContainerRuntime


class HookFailed(NodeError):
    """The hook ran and failed."""


async def run_hook(
    handler: LifecycleHandler, container: Container, container_id: str, pod_ip: str, runtime: ContainerRuntime
) -> None:
    """Run a hook to its end; the caller bounds it. Raises HookFailed."""
    verdict = Verdict(ok=True)
    if handler.exec:
        verdict = await check_command(handler.exec, container_id, runtime)
    elif handler.http_get:
        verdict = await _call_page(handler.http_get, container, pod_ip)
    elif handler.tcp_socket:
        verdict = await check_tcp(handler.tcp_socket, container, pod_ip)
    elif handler.sleep:
        await asyncio.sleep(handler.sleep.seconds)
    if not verdict.ok:
        raise HookFailed(verdict.message)


async def _call_page(action: HTTPGetAction, container: Container, pod_ip: str) -> Verdict:
    """Call a page; that it answers is enough, whatever it says."""
    try:
        url = url_of(action, action.host or pod_ip, resolve_port(action.port, container))
        await get_page(url, action)
    except (OSError, EOFError, ValueError) as exc:
        return Verdict(ok=False, message=str(exc) or type(exc).__name__)
    return Verdict(ok=True)
