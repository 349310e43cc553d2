"""One master, wired: store client, cache, registry, REST server, gRPC server, leadership."""

import asyncio
import contextlib
import gc
import logging
import random
import signal
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from api.errors import ApiError
from api.kinds.core import Node
from api.kinds.pods import Pod
from api.kinds.table import Table
from api.meta import Resource
from client.etcd import EtcdClient
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
from master.grpc_api import ResourcesService
from master.grpc_calls import SERVER_OPTIONS, server_credentials
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
from trireme_pb.cluster import cluster_pb2, cluster_pb2_grpc

log = logging.getLogger(__name__)

SHUTDOWN_S = 1.0
HEALTH_S = 0.5
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
    """Return the TLS of the REST server: a client may show a certificate of ours; raises CannotStart."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    try:
        context.load_cert_chain(config.tls.cert, config.tls.key)
        context.load_verify_locations(config.tls.client_ca)
    except (OSError, ssl.SSLError) as error:
        raise CannotStart(f"[tls] {error}: make the files readable, or correct their paths") from error
    return context


def _node_credentials(config: MasterConfig) -> grpc.ChannelCredentials | None:
    """Return the client side of mutual TLS towards node agents; raises CannotStart."""
    files = config.node_tls
    if files is None:
        return None
    try:
        return grpc.ssl_channel_credentials(
            root_certificates=files.ca.read_bytes(),
            private_key=files.key.read_bytes(),
            certificate_chain=files.cert.read_bytes(),
        )
    except OSError as error:
        raise CannotStart(f"[node_tls] {error}: make the files readable, or correct their paths") from error


class GrpcServer:
    """The gRPC services of a master, with health and reflection."""

    def __init__(self, config: MasterConfig, core: Core, client: EtcdClient, leadership: Leadership) -> None:
        self._config = config
        self._registry = core.registry
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        self._health = health.aio.HealthServicer()
        cluster_pb2_grpc.add_ResourcesServicer_to_server(
            ResourcesService(core.registry, core.authorizer, audit=core.access.audit), self._server
        )
        lab = LabService(config, client, core.registry, leadership, core.authorizer)
        cluster_pb2_grpc.add_LabServicer_to_server(lab, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [service.full_name for service in cluster_pb2.DESCRIPTOR.services_by_name.values()]
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)

    async def start(self) -> None:
        """Listen; raises CannotStart."""
        try:
            credentials = server_credentials(self._config.tls)
            self._server.add_secure_port(self._config.grpc_listen, credentials)
        except (OSError, RuntimeError) as error:
            raise CannotStart(f"grpc_listen: {error}: choose a free address and port") from error
        await self._server.start()
        log.info("gRPC server listens address=%s", self._config.grpc_listen)

    async def stop(self) -> None:
        """End every call and close."""
        await self._server.stop(SHUTDOWN_S)

    async def tell_health(self) -> None:
        """Keep the health service's answer true, until cancelled."""
        serving, absent = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        while True:
            ready = not any(self._registry.problems().values())
            await self._health.set(health.OVERALL_HEALTH, serving if ready else absent)
            await asyncio.sleep(HEALTH_S)


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
        # Here, because a master that never leads needs none of it in memory.
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
    tls = server_context(config)
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
        leadership = Leadership(client, name=config.name, endpoint=config.store_endpoints[0])
        grpc_server = GrpcServer(config, core, client, leadership)
        await grpc_server.start()
        stack.push_async_callback(grpc_server.stop)
        agents = NodeAgents(_node_credentials(config))
        stack.push_async_callback(agents.close)
        core.measure(agents)
        rest = RestServer(
            core.registry,
            core.access.authenticator,
            core.authorizer,
            agents=agents,
            address=config.api_address,
            documents=core.access.documents(config.api_address),
            audit=core.access.audit,
        )
        try:
            await rest.start(*config.rest_listen, tls)
        except OSError as error:
            raise CannotStart(f"rest_listen: {error}: choose a free address and port") from error
        stack.push_async_callback(rest.stop)
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(_collect_garbage(core.cache)),
                tasks.create_task(core.cache.run()),
                tasks.create_task(core.cache.probe()),
                tasks.create_task(BootObjects(config, core.registry).ensure()),
                tasks.create_task(grpc_server.tell_health()),
                tasks.create_task(leadership.run(Leader(config, core, client).lead)),
            ]
            if core.access.audit is not None:
                background.append(tasks.create_task(core.access.audit.run()))
            log.info("master runs name=%s store=%s", config.name, ",".join(config.store_endpoints))
            await stop.wait()
            log.info("master stops name=%s", config.name)
            for task in background:
                task.cancel()
