"""One node agent, wired: runtime, pods, network, registration, servers. Stopping it leaves pods running."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil

from api.kinds.core import Service
from api.kinds.pods import Pod
from client.channel import MasterChannel, TlsFiles
from client.clock import SystemClock
from client.events import EventRecorder
from client.informer import SharedInformers
from client.remote import RemoteResources
from client.resources import Resources
from node_agent.config import NodeConfig, parse_address
from node_agent.connectivity import HollowConnectivity, HostConnectivity
from node_agent.dns.resolv_conf import parse_resolv_conf
from node_agent.http import PUBLIC, TEXT, HttpServer, Page, render_metrics, render_pods
from node_agent.joining import join
from node_agent.pods.api_pods import ApiPods, MirrorPods
from node_agent.pods.checks import always_well, asking
from node_agent.pods.containers import NodeNames
from node_agent.pods.images import Images
from node_agent.pods.manager import PodManager
from node_agent.pods.objects import NamedObjects
from node_agent.pods.static import follow_manifests
from node_agent.pods.surroundings import NodeLimits, Surroundings
from node_agent.registration import (
    Facts,
    Health,
    Registrar,
    may_protect_from_oom,
    read_system,
    render_allocatable,
)
from node_agent.runtime.base import Container, ContainerRuntime, Image, RuntimeFailed, RuntimeVersion
from node_agent.runtime.docker_runtime import DockerRuntime
from node_agent.runtime.hollow import HollowRuntime
from node_agent.server import NodeAgentService, serve
from node_agent.statistics import Statistics
from node_agent.summary import render_summary

log = logging.getLogger(__name__)

_SAMPLE_S = 5.0
_IMAGES_S = 30.0
_RESOLV_CONF = Path("/etc/resolv.conf")
_HOSTS = Path("/etc/hosts")


def open_runtime(config: NodeConfig) -> ContainerRuntime:
    """Return the runtime that the configuration names."""
    if config.runtime == "hollow":
        return HollowRuntime(root_dir=str(config.data_dir))
    return DockerRuntime(
        agent=config.instance or config.name, socket=config.docker_socket, sandbox_image=config.sandbox_image
    )


class Agent:
    """The parts of one node agent; ``run`` starts them in their order."""

    def __init__(self, config: NodeConfig, resources: Resources) -> None:
        self._config = config
        self._clock = SystemClock()
        self._runtime = open_runtime(config)
        self._statistics = Statistics(config.data_dir)
        self._system = read_system()
        self._size = self._statistics.size(config.data_dir)
        self._version: RuntimeVersion | None = None
        self._images_seen: tuple[float, tuple[Image, ...]] = (0.0, ())
        self._engine_problem = ""
        informers = self._informers = SharedInformers(resources)
        pods = informers.of(Pod, field_selector=f"spec.nodeName={config.name}")
        self._recorder = EventRecorder(resources, component="kubelet", host=config.name)
        self._registrar = Registrar(
            resources,
            self._look,
            name=config.name,
            labels=config.labels,
            heartbeat_s=config.heartbeat_s,
            clock=self._clock,
        )
        hollow = config.runtime == "hollow"
        self._connectivity: HollowConnectivity | HostConnectivity = (
            HollowConnectivity(config, informers, self._registrar.refresh)
            if hollow
            else HostConnectivity(config, informers, pods, self._registrar.refresh)
        )
        self._images = Images(self._runtime)
        around = Surroundings(
            runtime=self._runtime,
            images=self._images,
            network=self._connectivity.network,
            objects=NamedObjects(resources, self._clock, informers.of(Service)),
            api=ApiPods(resources),
            recorder=self._recorder,
            node=self._registrar,
            names=NodeNames(
                node=config.name,
                host_ip=config.address,
                cluster_dns=config.cluster_dns,
                cluster_domain=config.cluster_domain,
                host_resolv_conf=parse_resolv_conf(_host_file(_RESOLV_CONF)),
                host_hosts=_host_file(_HOSTS),
            ),
            limits=NodeLimits(
                memory_capacity_bytes=self._size.memory_bytes,
                allocatable=render_allocatable(self._size, config.max_pods),
                negative_oom_score=may_protect_from_oom(),
            ),
            data_dir=config.data_dir,
            ask=always_well if hollow else asking(self._runtime),
        )
        self._manager = PodManager(around, pods, MirrorPods(resources))

    async def run(self) -> None:
        """Run until cancelled. Raises OSError if an address is taken."""
        config = self._config
        async with contextlib.AsyncExitStack() as stack:
            pages, secure = self._pages(), config.tls is not None
            service = NodeAgentService(self._manager, self._runtime, self._statistics, pages, secure=secure)
            stack.push_async_callback(await serve(service, config.listen, config.tls))
            if config.http_listen:
                http = HttpServer({path: page for path, page in pages.items() if path in PUBLIC})
                await http.start(*parse_address(Path("node.toml"), "http_listen", config.http_listen))
                stack.push_async_callback(http.stop)
            stack.push_async_callback(self._runtime.close)
            stack.push_async_callback(self._images.close)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._informers.run(), name="informers")
                tasks.create_task(self._recorder.run(), name="events")
                tasks.create_task(self._registrar.run(), name="registration")
                tasks.create_task(self._connectivity.run(), name="network")
                tasks.create_task(self._manager.run(), name="pods")
                tasks.create_task(self._sample(), name="statistics")
                if config.static_pods:
                    follow = follow_manifests(config.static_pods, config.name, self._manager.set_static)
                    tasks.create_task(follow, name="static pods")

    def _look(self) -> "asyncio.Task[Facts]":
        return asyncio.create_task(self._facts(), name="node facts")

    async def _facts(self) -> Facts:
        """Look at host and engine."""
        config = self._config
        try:
            self._version = await self._runtime.version()
            images = await self._images_now()
            self._engine_problem = ""
        except RuntimeFailed as exc:
            self._engine_problem = f"container runtime is down: {exc}"
            images = self._images_seen[1]
        problem = self._engine_problem or self._connectivity.problem
        pressure = await asyncio.to_thread(self._statistics.pressure, self._size)
        return Facts(
            name=config.name,
            address=config.address,
            port=parse_address(Path("node.toml"), "listen", config.listen)[1],
            max_pods=config.max_pods,
            system=self._system,
            size=self._size,
            runtime=self._version,
            images=images,
            health=Health(pressure=pressure, problem=problem),
        )

    async def _images_now(self) -> tuple[Image, ...]:
        at, images = self._images_seen
        if self._clock.monotonic() - at > _IMAGES_S or not images:
            images = tuple(await self._runtime.images())
            self._images_seen = (self._clock.monotonic(), images)
        return images

    def _running(self) -> list[Container]:
        return [container for _, worker in self._manager.pods() for container in worker.running]

    async def _sample(self) -> None:
        while True:
            await asyncio.to_thread(self._statistics.sample, self._running())
            await self._clock.sleep(_SAMPLE_S)

    def _pages(self) -> dict[str, Page]:
        async def healthz() -> tuple[str, bytes]:
            problem = self._engine_problem
            return ("", f"{problem}\n".encode()) if problem else (TEXT, b"ok")

        async def metrics() -> tuple[str, bytes]:
            sample = await asyncio.to_thread(self._statistics.measure, self._running())
            return TEXT, render_metrics(sample, self._manager.pods()).encode()

        async def pods() -> tuple[str, bytes]:
            return "application/json", render_pods(self._manager.pods())

        async def running_pods() -> tuple[str, bytes]:
            return "application/json", render_pods(each for each in self._manager.pods() if each[1].running)

        async def summary() -> tuple[str, bytes]:
            window = self._statistics.window
            if window is None:
                return "", b"statistics are not available yet\n"
            pressure = await asyncio.to_thread(self._statistics.pressure, self._size)
            pods = [(pod, worker.running) for pod, worker in self._manager.pods()]
            name, booted_at = self._config.name, psutil.boot_time()
            page = render_summary(window, pods, node=name, booted_at=booted_at, size=self._size, pressure=pressure)
            return "application/json", page

        return {
            "/healthz": healthz,
            "/metrics": metrics,
            "/pods": pods,
            "/runningpods": running_pods,
            "/runningpods/": running_pods,
            "/stats/summary": summary,
        }


def _host_file(path: Path) -> str:
    """Return the file's text, "" if this host has none."""
    try:
        return path.read_text()
    except OSError:
        return ""


@contextlib.asynccontextmanager
async def connected(config: NodeConfig) -> AsyncIterator[Resources]:
    """Yield the API as the masters serve it. Raises OSError if a certificate cannot be read."""
    tls = TlsFiles(config.tls.ca, config.tls.cert, config.tls.key) if config.tls else None
    channel = MasterChannel(config.masters, tls)
    try:
        yield RemoteResources(channel)
    finally:
        await channel.close()


async def run(config: NodeConfig) -> None:
    """Run one agent until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    joining = asyncio.create_task(join(config), name="joining")
    stopped = asyncio.create_task(stopping.wait(), name="stop signal")
    await asyncio.wait({joining, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not joining.done():
        joining.cancel()
        await asyncio.wait({joining})
        return
    joining.result()
    async with connected(config) as resources:
        agent = asyncio.create_task(Agent(config, resources).run(), name="agent")
        waiter = asyncio.create_task(stopping.wait(), name="stop signal")
        done, _ = await asyncio.wait({agent, waiter}, return_when=asyncio.FIRST_COMPLETED)
        if agent in done:
            waiter.cancel()
            agent.result()
        log.info("stopping, pods run on name=%s", config.name)
        agent.cancel()
        await asyncio.wait({agent})
