"""Everything that connects the pods of this node, put together: network, routes, service rules, names."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from api.kinds.core import Node, Service
from node_agent.dns.answers import Snapshot, Zone
from node_agent.dns.model import dns_services
from node_agent.dns.server import DnsServer
from node_agent.dns.upstream import Forwarder, HostResolvers
from node_agent.network.addresses import AddressBook
from node_agent.network.local_address import add_local_address, remove_local_address
from node_agent.network.masquerade import PodFirewall, render_pod_rules
from node_agent.network.model import peers_of
from node_agent.network.plumbing import PodNetwork
from node_agent.network.routes import Routes
from node_agent.proxy.iptables import Iptables, find_backend
from node_agent.proxy.model import Backend, Key, service_ports
from node_agent.proxy.proxy import ServiceProxy
from node_agent.proxy.rules import ProxyConfig

log = logging.getLogger(__name__)


class ConnectivityConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What connecting pods depends on.

    pod_cidr: this node's share, from its Node object; cluster_cidr: all nodes' shares together.
    address: this host's address as its peers know it.
    """

    node: str
    address: str
    data_dir: Path
    pod_cidr: str
    cluster_cidr: str
    service_cidr: str
    cluster_dns: str
    cluster_domain: str = "cluster.local"


class Connectivity:
    """The node's network as one thing; use it as an async context manager.

    Leaving the context stops serving names and watching rules. Rules, routes and pods' interfaces stay,
    so that running pods go on being reached while the agent restarts; ``clean_up`` removes them.
    """

    pods: PodNetwork
    proxy: ServiceProxy
    routes: Routes

    def __init__(self, config: ConnectivityConfig) -> None:
        self._config = config
        self._zone = Zone(
            config.cluster_domain, config.cluster_dns, networks=(config.service_cidr, config.cluster_cidr)
        )
        resolvers = HostResolvers({config.cluster_dns})
        self.dns = DnsServer(Snapshot(self._zone), Forwarder(resolvers))
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Set everything up. Raises NodeError, or OSError if the DNS port is taken."""
        config = self._config
        iptables = Iptables(await asyncio.to_thread(find_backend))
        rules = render_pod_rules(
            pod_cidr=config.pod_cidr, cluster_cidr=config.cluster_cidr, service_cidr=config.service_cidr
        )
        firewall = PodFirewall(iptables, rules)
        self.pods = PodNetwork(data_dir=config.data_dir, pod_cidr=config.pod_cidr, firewall=firewall)
        self.routes = Routes(
            own_name=config.node,
            own_address=config.address,
            source_address=AddressBook(config.pod_cidr).gateway,
        )
        self.proxy = ServiceProxy(
            ProxyConfig(config.node, config.cluster_cidr, frozenset({config.cluster_dns})),
            iptables,
            on_look=firewall.ensure,
        )
        await self.pods.set_up()
        await add_local_address(config.cluster_dns)
        await self.dns.start(config.cluster_dns)
        self._watching = asyncio.create_task(self.proxy.run(), name="service-proxy")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop serving; what is programmed stays."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        await self.dns.stop()

    def update_services(
        self,
        services: Iterable[Service],
        backends: Mapping[Key, tuple[Backend, ...]],
        namespaces: Iterable[str] | None = None,
    ) -> int:
        """Take these as all services there are, for rules and for names; returns the rules' revision.

        backends: from ``node_agent.proxy.model.backends_of``. namespaces: those that exist; None if unknown.
        """
        known = tuple(services)
        self.dns.publish(Snapshot(self._zone, dns_services(known, backends), namespaces))
        return self.proxy.update(service_ports(known, backends))

    async def update_nodes(self, nodes: Iterable[Node]) -> None:
        """Take these as all nodes there are and keep routes to their pods. Raises KernelRefused."""
        await self.routes.update(peers_of(nodes))

    async def clean_up(self) -> None:
        """Remove every rule, route and interface of ours; call it after leaving the context."""
        await self.proxy.clean_up()
        await self.routes.clean_up()
        await remove_local_address()
        await self.pods.clean_up()
