"""One master, wired: store client, cache, registry, REST server, gRPC server, leadership."""

import asyncio
import logging
import random
import signal
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack

from api.kinds.table import TABLE, Table
from api.meta import Resource
from client.etcd import EtcdClient
from master.access.authentication import Authenticator
from master.access.authorization import Authorizer
from master.access.policies import RegistryPolicies
from master.admission.chain import Chain
from master.admission.namespace import NamespaceLifecycle
from master.allocation import ServiceClaims, ServiceNetwork
from master.boot import BootObjects
from master.cache import WatchCache
from master.config import MasterConfig
from master.lifecycle import Surroundings
from master.reads import Reader
from master.registry import Registry
from master.rest.server import RestServer
from master.storage import Storage
from master.writes import Claimant, Writer

log = logging.getLogger(__name__)


class CannotStart(Exception):
    """Something that this master needs of its host is missing; the message says what to do."""


class Core:
    """The parts that hold state: everything between the store and the servers."""

    def __init__(self, config: MasterConfig, client: EtcdClient, *, table: Table = TABLE) -> None:
        self.storage = Storage(client)
        self.cache = WatchCache(table, self.storage)
        self.reader = Reader(self.cache, self.storage)
        world = Surroundings()
        chain = Chain([NamespaceLifecycle(_find_namespace(table, self.cache, self.reader))])
        writer = Writer(
            table,
            self.cache,
            self.storage,
            chain,
            claimants=_claimants(config, table, self.cache, world.rng),
            world=world,
        )
        self.registry = Registry(table, self.cache, self.reader, writer)


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


async def run(config: MasterConfig) -> None:
    """Serve until SIGTERM or SIGINT; raises CannotStart."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    tls = server_context(config)
    async with AsyncExitStack() as stack:
        try:
            client = EtcdClient(config.store_endpoints, config.store_tls)
        except OSError as error:
            raise CannotStart(f"[store_tls] {error}: make the files readable, or correct their paths") from error
        stack.push_async_callback(client.close)
        core = Core(config, client)
        rest = RestServer(
            core.registry,
            Authenticator(),
            Authorizer(RegistryPolicies(core.registry)),
            address=config.api_address,
        )
        try:
            await rest.start(*config.rest_listen, tls)
        except OSError as error:
            raise CannotStart(f"rest_listen: {error}: choose a free address and port") from error
        stack.push_async_callback(rest.stop)
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(core.cache.run()),
                tasks.create_task(BootObjects(config, core.registry).ensure()),
            ]
            log.info("master runs name=%s store=%s", config.name, ",".join(config.store_endpoints))
            await stop.wait()
            log.info("master stops name=%s", config.name)
            for task in background:
                task.cancel()
