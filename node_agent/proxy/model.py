"""From the API's Service, Endpoints and EndpointSlice objects to what the rules and names are made of.

What the API server would not have admitted (a name or an address that is none) is left out with a
warning: these values become lines of iptables input.
"""

import ipaddress
import logging
import re
from collections.abc import Iterable, Mapping

import msgspec

from api.kinds.core import Endpoints, Service
from api.kinds.discovery import EndpointSlice
from node_agent.proxy.rules import Endpoint, ServicePort

log = logging.getLogger(__name__)

AFFINITY_S = 10_800
PROTOCOLS = ("TCP", "UDP", "SCTP")
# Services with either label are somebody else's to serve.
_NOT_OURS = ("service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")

Key = tuple[str, str]
"""Namespace and name."""


class BackendPort(msgspec.Struct, frozen=True):
    """A port that a backend listens on; ``name`` is the service port's."""

    name: str
    protocol: str
    port: int


class Backend(msgspec.Struct, frozen=True):
    """One address behind a service, whichever object told of it."""

    ip: str
    ports: tuple[BackendPort, ...]
    hostname: str = ""
    node: str = ""
    ready: bool = True
    serving: bool = False


def backends_of(endpoints: Endpoints) -> tuple[Backend, ...]:
    """Return the backends of one Endpoints object."""
    found = []
    for subset in endpoints.subsets:
        ports = tuple(BackendPort(p.name, p.protocol or "TCP", p.port) for p in subset.ports)
        both = ((subset.addresses, True), (subset.not_ready_addresses, False))
        found += [Backend(a.ip, ports, a.hostname, a.node_name, ready) for group, ready in both for a in group]
    return tuple(found)


def backends_of_slices(slices: Iterable[EndpointSlice]) -> tuple[Backend, ...]:
    """Return the backends of a service's EndpointSlices; an unset condition counts as its default."""
    found = []
    for part in slices:
        ports = tuple(BackendPort(p.name or "", p.protocol or "TCP", p.port) for p in part.ports if p.port)
        for endpoint in part.endpoints:
            said = endpoint.conditions
            ready = said is None or said.ready is not False
            serving = said is not None and bool(said.serving) and bool(said.terminating)
            found += [
                Backend(ip, ports, endpoint.hostname, endpoint.node_name, ready, serving) for ip in endpoint.addresses
            ]
    return tuple(found)


def key_of(resource: Service | Endpoints) -> Key:
    """Return what services and their endpoints are matched by."""
    return resource.metadata.namespace, resource.metadata.name


def service_ports(services: Iterable[Service], backends: Mapping[Key, tuple[Backend, ...]]) -> tuple[ServicePort, ...]:
    """Return every port that needs rules: none for headless services, external names, and what others serve."""
    return tuple(port for service in services for port in ports_of(service, backends.get(key_of(service), ())))


def ports_of(service: Service, backends: tuple[Backend, ...]) -> tuple[ServicePort, ...]:
    """Return the ports of one service that need rules."""
    spec, (namespace, name) = service.spec, key_of(service)
    if spec.type == "ExternalName" or spec.cluster_ip in ("", "None"):
        return ()
    if any(label in service.metadata.labels for label in _NOT_OURS):
        return ()
    if not (_NAME.fullmatch(namespace) and _NAME.fullmatch(name) and is_ipv4(spec.cluster_ip)):
        log.warning("service left out namespace=%r name=%r cluster_ip=%r", namespace, name, spec.cluster_ip)
        return ()
    balancer = service.status.load_balancer
    fixed = ServicePort(
        namespace=namespace,
        name=name,
        port=0,
        cluster_ip=spec.cluster_ip,
        external_ips=_addresses(spec.external_ips),
        load_balancer_ips=_addresses(i.ip for i in balancer.ingress if i.ip) if balancer else (),
        source_ranges=_networks(spec.load_balancer_source_ranges),
        affinity_s=_affinity_s(service),
        external_local=spec.external_traffic_policy == "Local",
        internal_local=spec.internal_traffic_policy == "Local",
    )
    return tuple(
        msgspec.structs.replace(
            fixed,
            port=port.port,
            port_name=port.name,
            protocol=port.protocol or "TCP",
            node_port=port.node_port or 0,
            endpoints=_endpoints(backends, port.name, port.protocol or "TCP"),
        )
        for port in spec.ports
        if (port.protocol or "TCP") in PROTOCOLS and (not port.name or _NAME.fullmatch(port.name))
    )


def is_ipv4(text: str) -> bool:
    """Whether ``text`` is an IPv4 address."""
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _affinity_s(service: Service) -> int:
    if service.spec.session_affinity != "ClientIP":
        return 0
    config = service.spec.session_affinity_config
    said = config.client_ip.timeout_seconds if config and config.client_ip else None
    return said or AFFINITY_S


def _endpoints(backends: tuple[Backend, ...], port_name: str, protocol: str) -> tuple[Endpoint, ...]:
    return tuple(
        Endpoint(b.ip, p.port, b.node, b.ready, b.serving)
        for b in backends
        if is_ipv4(b.ip)
        for p in b.ports
        if p.name == port_name and p.protocol == protocol
    )


def _addresses(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(t for t in texts if is_ipv4(t))


def _networks(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the IPv4 networks; one that admits nobody if ranges were given and none is IPv4."""
    given = [t.strip() for t in texts]
    kept = []
    for text in given:
        try:
            kept.append(str(ipaddress.IPv4Network(text, strict=False)))
        except ValueError:
            log.warning("source range left out range=%r", text)
    return tuple(kept) or (("0.0.0.0/32",) if given else ())
