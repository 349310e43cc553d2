"""From the API's Service objects and their backends to what DNS names are made of."""

from collections.abc import Iterable, Mapping

from api.kinds.core import Service
from node_agent.dns.answers import DnsEndpoint, DnsPort, DnsService
from node_agent.proxy.model import Backend, Key, key_of


def dns_services(services: Iterable[Service], backends: Mapping[Key, tuple[Backend, ...]]) -> tuple[DnsService, ...]:
    """Return the services as DNS sees them; one whose cluster IP is not assigned yet has no name."""
    return tuple(
        dns_service(service, backends.get(key_of(service), ()))
        for service in services
        if service.spec.cluster_ip or service.spec.type == "ExternalName"
    )


def dns_service(service: Service, backends: tuple[Backend, ...]) -> DnsService:
    """Return one service as DNS sees it."""
    spec, (namespace, name) = service.spec, key_of(service)
    if spec.type == "ExternalName":
        return DnsService(namespace, name, external_name=spec.external_name)
    addresses = spec.cluster_ips or (spec.cluster_ip,)
    return DnsService(
        namespace,
        name,
        cluster_ips=tuple(a for a in addresses if a != "None"),
        ports=tuple(DnsPort(p.name, p.protocol or "TCP", p.port) for p in spec.ports),
        endpoints=tuple(
            DnsEndpoint(b.ip, b.hostname, b.ready, tuple(DnsPort(p.name, p.protocol, p.port) for p in b.ports))
            for b in backends
        ),
        publish_not_ready=bool(spec.publish_not_ready_addresses),
    )
