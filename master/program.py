"""One master, wired: store client, cache, registry, REST server, gRPC server, leadership."""

import asyncio
import contextlib
import gc
import importlib
import logging
import random
import signal
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from api.errors import ApiError
from api.kinds.core import Node
from api.kinds.pods import Pod
from api.kinds.table import Table
from api.meta import Resource
from client.etcd import EtcdClient
from fastgrpc.server import server_tls
from master.access.assembly import Access, load_cipher
from master.access.token_requests import TokenRequests
from master.access.user import SYSTEM_MASTERS, User
from master.admission.plugins import Settings, make_chain
from master.allocation import ServiceClaims, ServiceNetwork
from master.boot import BootObjects
from master.cache import WatchCache
from master.computed import NodeUsage, PodUsage, Usage
from master.config import MasterConfig
from master.custom import CustomKinds
from master.grpc_server import GrpcServer
from master.lab_api import LabService
from master.leadership import Leadership
from master.lifecycle import Surroundings
from master.local import LocalResources
from master.maintenance import Leases, compact_history
from master.modify import Claimant, Modifier
from master.reads import Reader
from master.registry import Registry
from master.rest.node_agents import NodeAgents
from master.rest.server import RestServer
from master.storage import Fence, Storage
from master.writes import Writer

log = logging.getLogger(__name__)

_RESEAL_RETRY_S = 5.0
_FILLED_WITHIN_S = 10.0


class CannotStart(Exception):
    """Something that this master needs of its host is missing; the message says what to do."""


class Core:
    """The parts that hold state: everything between the store and the servers."""

    def __init__(self, config: MasterConfig, client: EtcdClient) -> None:
        table = Table()  # this master's own: custom kinds come and go
        self.storage = Storage(client, cipher=load_cipher(config.access))
        self.cache = WatchCache(table, self.storage)
        CustomKinds(table, self.cache)
        self.reader = Reader(self.cache, self.storage)
        world = Surroundings()
        self.access = Access(config.access, table, self.cache, self.reader)
        self.authorizer = self.access.authorizer
        modifier = Modifier(
            self.cache,
            self.storage,
            leases=Leases(client),
            claimants=_claimants(config, table, self.cache, world.rng),
        )
        self.chain = make_chain(
            self.access,
            modifier,
            find_namespace=_find_namespace(table, self.cache, self.reader),
            settings=Settings(toleration_s=max(0, round(config.pod_eviction_s)), masters=frozenset(config.masters)),
            rng=world.rng,
        )
        writer = Writer(modifier, self.chain, world=world, authorizer=self.authorizer)
        tokens = self.access.tokens
        self.registry = Registry(
            table,
            self.cache,
            self.storage,
            self.reader,
            writer,
            modifier,
            tokens=None if tokens is None else TokenRequests(table, tokens, self.access.lookup, self.chain),
        )

    def measure(self, agents: NodeAgents) -> None:
        """Serve metrics.k8s.io from what the node agents tell."""
        table = self.registry.table
        nodes, pods = (self.cache.place(table.of(model)).objects for model in (Node, Pod))
        usage = Usage(agents, nodes=lambda: list(nodes.values()), pods=lambda: list(pods.values()))
        self.registry.computer.add(("metrics.k8s.io", "nodes"), NodeUsage(usage))
        self.registry.computer.add(("metrics.k8s.io", "pods"), PodUsage(usage))


def _find_namespace(table: Table, cache: WatchCache, reader: Reader) -> Callable[[str], Awaitable[Resource | None]]:
    kind = table.preferred("", "namespaces")
    assert kind is not None

    async def find(name: str) -> Resource | None:
        if (found := reader.cached(kind, "", name)) is None:
            # Made through another master a moment ago, perhaps.
            await cache.fresh()
            found = reader.cached(kind, "", name)
        return found.obj if found is not None else None

    return find


def _claimants(
    config: MasterConfig, table: Table, cache: WatchCache, rng: random.Random
) -> Mapping[tuple[str, str], Claimant]:
    services = table.preferred("", "services")
    assert services is not None
    network = ServiceNetwork(config.service_cidr, config.node_ports)
    known = cache.place(services).objects
    return {services.place: ServiceClaims(network, lambda: (each.obj for each in known.values()), rng)}


def server_context(config: MasterConfig) -> ssl.SSLContext:
    """Return the TLS of one server: a client may show a certificate of ours; raises CannotStart."""
    tls = config.tls
    try:
        return server_tls(tls.cert, tls.key, tls.client_ca, optional=True)
    except OSError as error:
        raise CannotStart(f"[tls] {error}: make the files readable, or correct their paths") from error


class Leader:
    """What runs on the leading master alone."""

    def __init__(self, config: MasterConfig, core: Core, client: EtcdClient) -> None:
        self._config = config
        self._core = core
        self._client = client
        self._root_ca = Path(config.tls.client_ca).read_text()

    async def lead(self, fence: Fence) -> None:
        """Run until cancelled; every write carries ``fence``."""
        # What is loaded and begun below would keep clients waiting who only want to be served.
        await self._core.cache.filled.wait()
        # Here, because a master that never leads needs none of it in memory; and in a thread, because it takes a while.
        await asyncio.to_thread(importlib.import_module, "master.controllers.manager")
        from master.controllers.context import ControllerConfig  # noqa: PLC0415
        from master.controllers.manager import ControllerManager  # noqa: PLC0415

        config = self._config
        user = User(f"system:master:{config.name}", (SYSTEM_MASTERS,))
        settings = ControllerConfig(
            pod_cidr=str(config.pod_cidr),
            node_monitor_grace_s=config.node_monitor_grace_s,
            pod_eviction_s=config.pod_eviction_s,
            api_address=config.api_address,
            root_ca=self._root_ca,
        )
        resources = LocalResources(self._core.registry, user, fence=fence)
        access = self._core.access
        controllers = ControllerManager(
            resources,
            settings,
            table=self._core.registry.table,
            tokens=access.tokens,
            signer=access.signer,
            authorizer=access.authorizer,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(controllers.run())
            tasks.create_task(compact_history(self._client))
            tasks.create_task(self._reseal(fence))

    async def _reseal(self, fence: Fence) -> None:
        """Bring secrets that an older key sealed, or none, under the key that writes."""
        while True:
            try:
                count = await self._core.storage.reseal(fence=fence)
            except ApiError as error:
                log.warning("secrets not sealed anew yet error=%s", error)
                await asyncio.sleep(_RESEAL_RETRY_S)
            else:
                if count:
                    log.info("secrets sealed anew count=%d", count)
                return


async def _collect_garbage(cache: WatchCache) -> None:
    """Begin to collect garbage once the cache is filled, or the store keeps us waiting; what lives by then stays."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_FILLED_WITHIN_S):
            await cache.filled.wait()
    gc.freeze()
    # By default there would be a look through the young objects every few requests.
    gc.set_threshold(10_000, 20, 20)
    gc.enable()


async def run(config: MasterConfig) -> None:
    """Serve until SIGTERM or SIGINT; raises CannotStart."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        try:
            client = EtcdClient(config.store_endpoints, config.store_tls, transport=config.store_transport)
        except OSError as error:
            raise CannotStart(f"[store_tls] {error}: make the files readable, or correct their paths") from error
        stack.push_async_callback(client.close)
        try:
            core = Core(config, client)
        except (OSError, ValueError) as error:
            raise CannotStart(f"[access] {error}: make the files readable, or correct their paths") from error
        audit = core.access.audit
        if audit is not None:
            stack.callback(audit.close)  # after the servers, which end calls when they stop
        leadership = Leadership(client, name=config.name, endpoint=config.store_endpoints[0])
        grpc_server = GrpcServer(
            core.registry, core.access.gate, lab=LabService(config, client, core.registry, leadership)
        )
        await _start_servers(config, core, grpc_server, stack)
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(_collect_garbage(core.cache)),
                tasks.create_task(core.cache.run()),
                tasks.create_task(core.storage.probe()),
                tasks.create_task(BootObjects(config, core.registry).ensure()),
                tasks.create_task(grpc_server.tell_health()),
                tasks.create_task(leadership.run(Leader(config, core, client).lead)),
            ]
            if audit is not None:
                background.append(tasks.create_task(audit.run()))
            log.info("master runs name=%s store=%s", config.name, ",".join(config.store_endpoints))
            await stop.wait()
            log.info("master stops name=%s", config.name)
            for task in background:
                task.cancel()


async def _start_servers(config: MasterConfig, core: Core, grpc_server: GrpcServer, stack: AsyncExitStack) -> None:
    """Listen, and let ``stack`` stop it; raises CannotStart."""
    try:
        await grpc_server.start(*config.grpc_listen, server_context(config))
    except OSError as error:
        raise CannotStart(f"grpc_listen: {error}: choose a free address and port") from error
    stack.push_async_callback(grpc_server.stop)
    try:
        agents = NodeAgents(config.node_tls)
    except OSError as error:
        raise CannotStart(f"[node_tls] {error}: make the files readable, or correct their paths") from error
    stack.push_async_callback(agents.close)
    core.measure(agents)
    rest = RestServer(
        core.registry,
        core.access.gate,
        agents=agents,
        address=config.api_address,
        documents=core.access.documents(config.api_address),
    )
    try:
        await rest.start(*config.rest_listen, server_context(config))
    except OSError as error:
        raise CannotStart(f"rest_listen: {error}: choose a free address and port") from error
    stack.push_async_callback(rest.stop)
