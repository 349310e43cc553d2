"""What becomes of a Service's fields before it is judged: what goes together is made to agree.

A Service keeps its address and ports through updates that do not mention them, and gives back what its new type has no
use for, unless the client says otherwise. Source: the documented behaviour of the Service API, "Service" and "IPv4/IPv6
dual-stack" on kubernetes.io.
"""

from typing import cast

from msgspec.structs import replace

from api.kinds.core import Service, ServicePort, ServiceSpec
from api.meta import Resource
from api.validation.services import is_reached_from_outside, needs_health_port


def takes_address(spec: ServiceSpec) -> bool:
    """Return whether a service of this type has an address, or says that it has none."""
    return spec.type != "ExternalName"


def takes_ports(spec: ServiceSpec) -> bool:
    """Return whether a service of this type is reached by ports of the nodes."""
    return spec.type in ("NodePort", "LoadBalancer")


def new_service(obj: Resource) -> Resource:
    """Return a new service whose addresses are told in both ways."""
    service = cast("Service", obj)
    spec = service.spec
    if not spec.cluster_ip or spec.cluster_ips:
        return obj
    return cast("Resource", replace(service, spec=replace(spec, cluster_ips=(spec.cluster_ip,))))


def changed_service(old: Resource, new: Resource) -> Resource:
    """Return what an update makes of a service."""
    before, after = cast("Service", old).spec, cast("Service", new).spec
    after = _without_unused(before, _in_step(before, _kept(before, after)))
    return cast("Resource", replace(cast("Service", new), spec=after))


def _kept(old: ServiceSpec, new: ServiceSpec) -> ServiceSpec:
    """Return ``new`` with what it does not mention and was given."""
    if takes_address(old) and takes_address(new):
        if not new.cluster_ip:
            new = replace(new, cluster_ip=old.cluster_ip)
        if not new.cluster_ips and new.cluster_ip == old.cluster_ip:
            new = replace(new, cluster_ips=old.cluster_ips)
    if takes_ports(old) and takes_ports(new):
        new = replace(new, ports=_kept_ports(old.ports, new.ports))
    if needs_health_port(old) and needs_health_port(new) and not new.health_check_node_port:
        new = replace(new, health_check_node_port=old.health_check_node_port)
    return new


def _kept_ports(old: tuple[ServicePort, ...], new: tuple[ServicePort, ...]) -> tuple[ServicePort, ...]:
    """Return ``new`` with the node ports of the old ports of the same names, where nobody else uses them."""
    by_name = {each.name: each.node_port for each in old}
    used = {each.node_port for each in new} & {each.node_port for each in old}
    kept = []
    for port in new:
        number = by_name.get(port.name)
        if not port.node_port and number and number not in used:
            used.add(number)
            port = replace(port, node_port=number)  # noqa: PLW2901 - the same port, completed
        kept.append(port)
    return tuple(kept)


def _in_step(old: ServiceSpec, new: ServiceSpec) -> ServiceSpec:
    """Return ``new`` with the list of addresses following the one address that older clients know."""
    if new.cluster_ip != old.cluster_ip and new.cluster_ips == old.cluster_ips:
        return replace(new, cluster_ips=(new.cluster_ip,) if new.cluster_ip else ())
    return new


def _without_unused(old: ServiceSpec, new: ServiceSpec) -> ServiceSpec:
    """Return ``new`` without what its type has no use for and the client only sent back."""
    if takes_address(old) and not takes_address(new):
        if (old.cluster_ip, old.cluster_ips) == (new.cluster_ip, new.cluster_ips):
            new = replace(new, cluster_ip="", cluster_ips=())
        if old.ip_families == new.ip_families:
            new = replace(new, ip_families=())
        if old.ip_family_policy == new.ip_family_policy:
            new = replace(new, ip_family_policy="")
    numbers = [{each.node_port for each in spec.ports if each.node_port} for spec in (old, new)]
    if takes_ports(old) and not takes_ports(new) and numbers[0] == numbers[1]:
        new = replace(new, ports=tuple(replace(each, node_port=None) for each in new.ports))
    for attribute, uses, nothing in (
        ("health_check_node_port", needs_health_port, None),
        ("allocate_load_balancer_node_ports", _is_balanced, None),
        ("load_balancer_class", _is_balanced, ""),
        ("external_traffic_policy", is_reached_from_outside, ""),
    ):
        if uses(old) and not uses(new) and getattr(old, attribute) == getattr(new, attribute):
            new = replace(new, **{attribute: nothing})
    return new


def _is_balanced(spec: ServiceSpec) -> bool:
    return spec.type == "LoadBalancer"
