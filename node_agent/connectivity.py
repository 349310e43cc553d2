"""Everything of a node's network that follows the API: pod network, routes, service rules, names.

It comes up in the order in which the masters tell: the pod CIDR first, then peers and services. A part that the
kernel refuses is tried again; until the pod network stands, pods wait in ``attach`` and the node is not ready.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

from api.kinds.core import Endpoints, Node, Service
from api.kinds.discovery import EndpointSlice
from api.kinds.pods import Pod
from client.informer import Informer, SharedInformers
from node_agent.config import NodeConfig
from node_agent.dns.answers import Snapshot, Zone
from node_agent.dns.model import dns_services
from node_agent.dns.server import DnsServer
from node_agent.dns.upstream import Forwarder, HostResolvers
from node_agent.errors import NodeError
from node_agent.network.addresses import AddressBook
from node_agent.network.host_ports import HostPort
from node_agent.network.local_address import add_local_address
from node_agent.network.masquerade import PodFirewall, render_pod_rules
from node_agent.network.model import peers_of
from node_agent.network.plumbing import PodAddress, PodNetwork, host_interface_of, mac_of
from node_agent.network.routes import Routes
from node_agent.pods.surroundings import Network
from node_agent.proxy.iptables import Iptables, find_backend
from node_agent.proxy.model import Backend, Key, backends_of, backends_of_slices, key_of, service_ports
from node_agent.proxy.proxy import ServiceProxy
from node_agent.proxy.rules import ProxyConfig

log = logging.getLogger(__name__)

_RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0)
_SERVICE_LABEL = "kubernetes.io/service-name"


class LateNetwork:
    """A network for pods that may be asked before it stands: whoever asks waits."""

    def __init__(self) -> None:
        self._network: Network | None = None
        self._ready = asyncio.Event()

    def stand(self, network: Network) -> None:
        """The network stands."""
        self._network = network
        self._ready.set()

    @property
    def is_ready(self) -> bool:
        """Whether pods can be plugged in."""
        return self._network is not None

    async def attach(self, sandbox: int, pod_key: str, ports: tuple[HostPort, ...] = ()) -> Any:
        """Plug a pod in, once that is possible."""
        await self._ready.wait()
        assert self._network is not None
        return await self._network.attach(sandbox, pod_key, ports)

    async def detach(self, pod_key: str) -> None:
        """Unplug a pod; before the network stands nobody is plugged in by us, and ``recover`` sees to the past."""
        if self._network is not None:
            await self._network.detach(pod_key)


class HollowNetwork:
    """Gives addresses and plugs nothing in."""

    def __init__(self, pod_cidr: str) -> None:
        self._book = AddressBook(pod_cidr)

    async def attach(
        self,
        sandbox: int,  # noqa: ARG002 - there is no process
        pod_key: str,
        ports: tuple[HostPort, ...] = (),  # noqa: ARG002 - nobody would answer
    ) -> PodAddress:
        """Assign an address."""
        self._book = self._book.assign(pod_key)
        address = self._book.leases[pod_key]
        length = self._book.network.prefixlen
        return PodAddress(address, length, self._book.gateway, mac_of(address), host_interface_of(pod_key))

    async def detach(self, pod_key: str) -> None:
        """Free the address."""
        self._book = self._book.release(pod_key)


class Connectivity(Protocol):
    """What the program runs and asks."""

    @property
    def network(self) -> LateNetwork:
        """Where pods are plugged in."""

    @property
    def problem(self) -> str:
        """Why pods cannot be plugged in, "" if they can."""

    async def run(self) -> None:
        """Bring the network up and keep it right until cancelled."""


class _Base:
    """What both kinds share: waiting for this node's pod CIDR."""

    def __init__(self, config: NodeConfig, informers: SharedInformers, on_change: Callable[[], None]) -> None:
        self._config = config
        self._nodes = informers.of(Node)
        self._on_change = on_change
        self.network = LateNetwork()
        self._trouble = "no pod CIDR assigned to this node yet"

    @property
    def problem(self) -> str:
        """Why pods cannot be plugged in, "" if they can."""
        return "" if self.network.is_ready else f"container runtime network not ready: {self._trouble}"

    async def _pod_cidr(self) -> str:
        name = self._config.name

        def assigned() -> bool:
            node = self._nodes.get(name)
            return node is not None and bool(node.spec.pod_cidr)

        await self._nodes.wait_until(assigned)
        node = self._nodes.get(name)
        assert node is not None, name
        return node.spec.pod_cidr

    def _stand(self, network: Network) -> None:
        self.network.stand(network)
        self._on_change()

    async def _insist(self, what: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Repeat ``work`` until the kernel takes it."""
        for pause_s in (*_RETRY_S, *[_RETRY_S[-1]] * 100_000):
            try:
                await work()
            except (NodeError, OSError) as exc:
                self._trouble = f"{what}: {exc}"
                log.warning("network part not set up part=%r retry_s=%.1f error=%s", what, pause_s, exc)
                self._on_change()
                await asyncio.sleep(pause_s)
            else:
                return


class HollowConnectivity(_Base):
    """Addresses only: no bridge, no rules, no names."""

    async def run(self) -> None:
        """Give addresses as soon as there are some to give."""
        self._stand(HollowNetwork(await self._pod_cidr()))


class HostConnectivity(_Base):
    """The real network of a host."""

    def __init__(
        self, config: NodeConfig, informers: SharedInformers, pods: Informer[Pod], on_change: Callable[[], None]
    ) -> None:
        super().__init__(config, informers, on_change)
        self._pods = pods
        self.services = informers.of(Service)
        self._endpoints = informers.of(Endpoints)
        self._slices = informers.of(EndpointSlice)
        self._services_changed = asyncio.Event()
        self._nodes_changed = asyncio.Event()

    async def run(self) -> None:
        """Bring everything up, then follow the API until cancelled."""
        config = self._config
        iptables = Iptables(await asyncio.to_thread(find_backend))
        pod_cidr = await self._pod_cidr()
        rules = render_pod_rules(pod_cidr=pod_cidr, cluster_cidr=config.pod_cidr, service_cidr=config.service_cidr)
        network = PodNetwork(data_dir=config.data_dir, pod_cidr=pod_cidr, firewall=PodFirewall(iptables, rules))
        await self._insist("pod network", network.set_up)
        await self._pods.synced.wait()
        known = frozenset(pod.metadata.uid for pod in self._pods)
        await self._insist("pods plugged in before", lambda: network.recover(known))
        self._stand(network)
        log.info("pod network stands pod_cidr=%s", pod_cidr)
        proxy = ServiceProxy(
            ProxyConfig(config.name, config.pod_cidr, frozenset({config.cluster_dns})),
            iptables,
            on_look=network.ensure_firewall,
        )
        gateway = AddressBook(pod_cidr).gateway
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(proxy.run(), name="service proxy")
            tasks.create_task(self._follow_services(proxy), name="services")
            tasks.create_task(self._follow_nodes(gateway), name="routes")

    async def _follow_services(self, proxy: ServiceProxy) -> None:
        zone = Zone(
            self._config.cluster_domain,
            self._config.cluster_dns,
            networks=(self._config.pod_cidr, self._config.service_cidr),
        )
        dns = DnsServer(Snapshot(zone), Forwarder(HostResolvers({self._config.cluster_dns})))

        async def listen() -> None:
            await add_local_address(self._config.cluster_dns)
            await dns.start(self._config.cluster_dns)

        try:
            await self._insist("cluster DNS", listen)
            informers: tuple[Informer[Any], ...] = (self.services, self._endpoints, self._slices)
            await asyncio.gather(*(informer.synced.wait() for informer in informers))
            for informer in informers:
                informer.subscribe(lambda _: self._services_changed.set())
            while True:
                self._services_changed.clear()
                backends = join_backends(self._endpoints, self._slices)
                proxy.update(service_ports(self.services, backends))
                dns.publish(Snapshot(zone, dns_services(self.services, backends)))
                await self._services_changed.wait()
        finally:
            await dns.stop()

    async def _follow_nodes(self, gateway: str) -> None:
        routes = Routes(own_name=self._config.name, own_address=self._config.address, source_address=gateway)
        self._nodes.subscribe(lambda _: self._nodes_changed.set())
        while True:
            self._nodes_changed.clear()
            await self._insist("routes to other nodes", lambda: routes.update(peers_of(self._nodes)))
            await self._nodes_changed.wait()


def join_backends(endpoints: Iterable[Endpoints], slices: Iterable[EndpointSlice]) -> dict[Key, tuple[Backend, ...]]:
    """Return (namespace, service) -> backends; a service that has slices is described by them alone."""
    found = {key_of(each): backends_of(each) for each in endpoints}
    grouped: dict[Key, list[EndpointSlice]] = {}
    for each in slices:
        service = each.metadata.labels.get(_SERVICE_LABEL, "")
        grouped.setdefault((each.metadata.namespace, service), []).append(each)
    return found | {key: backends_of_slices(group) for key, group in grouped.items()}
