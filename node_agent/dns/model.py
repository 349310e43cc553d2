"""From API objects to what DNS needs: the names of services, and how a pod's resolver is set up."""

from collections.abc import Iterable, Mapping

from api.kinds.core import Service
from api.kinds.pods import Pod
from node_agent.dns.answers import DnsEndpoint, DnsPort, DnsService
from node_agent.dns.resolv_conf import ResolvConf, render_pod_resolv_conf
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


def pod_resolv_conf(pod: Pod, *, cluster_dns: str, cluster_domain: str, host: ResolvConf) -> str:
    """Return the text of the pod's ``resolv.conf``. Raises ValueError for a dnsPolicy that cannot work."""
    asked = pod.spec.dns_config
    config = (
        ResolvConf(
            asked.nameservers,
            asked.searches,
            tuple(f"{o.name}:{o.value}" if o.value else o.name for o in asked.options),
        )
        if asked
        else None
    )
    return render_pod_resolv_conf(
        policy=pod.spec.dns_policy or "ClusterFirst",
        namespace=pod.metadata.namespace,
        cluster_dns=cluster_dns,
        cluster_domain=cluster_domain,
        host=host,
        host_network=bool(pod.spec.host_network),
        config=config,
    )
