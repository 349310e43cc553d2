"""What services and their endpoints may not be, and what may change of a service's address."""

import ipaddress
from collections.abc import Callable, Mapping
from typing import Any

from api import names
from api.errors import Fault
from api.faults import (
    Printed,
    address_faults,
    check,
    check_given,
    check_optional,
    cidr_faults,
    duplicate,
    forbidden,
    label_map_faults,
    one_of,
    plain_address_faults,
    port_faults,
    required,
    shown,
    unsupported,
    within,
    wrong,
)
from api.kinds.core import EndpointAddress, EndpointPort, Endpoints, Service, ServicePort, ServiceSpec
from api.validation.containers import PROTOCOLS

_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_POLICIES = ("Cluster", "Local")
_FAMILIES = ("IPv4", "IPv6")
_FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
_LONGEST_AFFINITY_S = 86400
_ONLY_BALANCED = "may only be used when `type` is 'LoadBalancer'"
_SETTLED = "may not change once set"


def is_headless(spec: ServiceSpec) -> bool:
    """Return whether a service has no address on purpose."""
    return spec.cluster_ips == ("None",)


def needs_health_port(spec: ServiceSpec) -> bool:
    """Return whether a balancer asks each node whether it has endpoints of the service."""
    return spec.type == "LoadBalancer" and spec.external_traffic_policy == "Local"


def is_reached_from_outside(spec: ServiceSpec) -> bool:
    """Return whether a service has addresses or ports outside of the cluster."""
    return spec.type in ("LoadBalancer", "NodePort") or (spec.type == "ClusterIP" and bool(spec.external_ips))


def _service(obj: Service) -> list[Fault]:
    spec, faults = obj.spec, []
    if not spec.ports and not is_headless(spec) and spec.type != "ExternalName":
        faults.append(required("spec.ports"))
    if is_headless(spec) and spec.type in ("LoadBalancer", "NodePort"):
        why = f"may not be set to 'None' for {spec.type} services"
        faults.append(wrong("spec.clusterIPs[0]", "None", why))
    faults += _external_name_faults(spec) if spec.type == "ExternalName" else []
    taken: set[str] = set()
    for index, port in enumerate(spec.ports):
        faults += _port_faults(port, f"spec.ports[{index}]", taken, several=len(spec.ports) > 1)
    faults += label_map_faults(spec.selector, "spec.selector") + _affinity_faults(spec)
    if spec.type != "ExternalName":
        faults += address_field_faults(spec)
    for index, address in enumerate(spec.external_ips):
        faults += plain_address_faults(address, f"spec.externalIPs[{index}]")
    faults += one_of(spec.type, _TYPES, "spec.type") + _twin_faults(spec)
    return faults + _balancer_faults(spec) + _traffic_faults(spec)


def _external_name_faults(spec: ServiceSpec) -> list[Fault]:
    given = (
        ("clusterIPs", spec.cluster_ips),
        ("ipFamilies", spec.ip_families),
        ("ipFamilyPolicy", spec.ip_family_policy),
    )
    why = "may not be set for ExternalName services"
    faults = [forbidden(f"spec.{name}", why) for name, value in given if value]
    return faults + check_given(names.subdomain, spec.external_name.removesuffix("."), "spec.externalName")


def _port_faults(port: ServicePort, field: str, taken: set[str], *, several: bool) -> list[Fault]:
    faults: list[Fault] = []
    if several and not port.name:
        faults.append(required(f"{field}.name"))
    faults += check_optional(names.label, port.name, f"{field}.name")
    if port.name and port.name in taken:
        faults.append(duplicate(f"{field}.name", port.name))
    taken.add(port.name)
    faults += port_faults(port.port, f"{field}.port") + one_of(port.protocol, PROTOCOLS, f"{field}.protocol")
    faults += port_faults(port.target_port, f"{field}.targetPort")
    return faults + check_optional(names.qualified, port.app_protocol, f"{field}.appProtocol")


def _twin_faults(spec: ServiceSpec) -> list[Fault]:
    """Return the faults of ports that a service has twice, or may not have."""
    faults = []
    numbers: set[tuple[str, int]] = set()
    ports: set[tuple[str, int]] = set()
    for index, port in enumerate(spec.ports):
        at = f"spec.ports[{index}]"
        if port.node_port:
            if spec.type == "ClusterIP":
                faults.append(forbidden(f"{at}.nodePort", "may not be used when `type` is 'ClusterIP'"))
            if (port.protocol, port.node_port) in numbers:
                faults.append(duplicate(f"{at}.nodePort", port.node_port))
            numbers.add((port.protocol, port.node_port))
        if (port.protocol, port.port) in ports:
            go = (
                f'core.ServicePort{{Name:"", Protocol:{shown(port.protocol)}, AppProtocol:(*string)(nil), '
                f'Port:{port.port}, TargetPort:intstr.IntOrString{{Type:0, IntVal:0, StrVal:""}}, NodePort:0}}'
            )
            faults.append(duplicate(at, Printed(go)))
        ports.add((port.protocol, port.port))
    return faults


def _affinity_faults(spec: ServiceSpec) -> list[Fault]:
    config, at = spec.session_affinity_config, "spec.sessionAffinityConfig"
    if spec.session_affinity == "None" and config is not None:
        return [forbidden(at, "must not be set when session affinity is None")]
    if spec.session_affinity != "ClientIP":
        return one_of(spec.session_affinity, ("ClientIP", "None"), "spec.sessionAffinity")
    seconds = config.client_ip.timeout_seconds if config is not None and config.client_ip is not None else None
    if seconds is None:
        return [required(f"{at}.clientIP.timeoutSeconds", "when session affinity type is ClientIP")]
    if 0 < seconds <= _LONGEST_AFFINITY_S:
        return []
    why = f"must be greater than 0 and less than {_LONGEST_AFFINITY_S}"
    return [wrong(f"{at}.clientIP.timeoutSeconds", seconds, why)]


def address_field_faults(spec: ServiceSpec) -> list[Fault]:
    """Return where a service's addresses and their families do not fit together."""
    at, addresses, faults = "spec.clusterIPs", spec.cluster_ips, []
    if spec.cluster_ip and not addresses:
        faults.append(required(at))
    elif spec.cluster_ip and addresses[0] != spec.cluster_ip:
        faults.append(wrong(at, addresses, "first value must match `clusterIP`"))
    elif addresses and not spec.cluster_ip:
        faults.append(wrong(at, addresses, "must be empty when `clusterIP` is not specified"))
    for index, family in enumerate(spec.ip_families):
        if family not in _FAMILIES:
            faults.append(unsupported(f"spec.ipFamilies[{index}]", family, _FAMILIES))
        if family in spec.ip_families[:index]:
            faults.append(duplicate(f"spec.ipFamilies[{index}]", family))
    if spec.ip_family_policy and spec.ip_family_policy not in _FAMILY_POLICIES:
        faults.append(unsupported("spec.ipFamilyPolicy", spec.ip_family_policy, _FAMILY_POLICIES))
    bad: list[Fault] = []
    for index, address in enumerate(addresses):
        if index or address != "None":
            bad += address_faults(address, f"{at}[{index}]")
        elif len(addresses) > 1:
            bad.append(wrong(at, addresses, "'None' must be the first and only value"))
    if len(addresses) > 2:
        faults.append(wrong(at, addresses, "may only hold up to 2 values"))
    return faults + (bad or _version_faults(spec))


def _version_faults(spec: ServiceSpec) -> list[Fault]:
    at, addresses = "spec.clusterIPs", spec.cluster_ips
    if is_headless(spec):
        return []
    versions = [f"IPv{ipaddress.ip_address(each).version}" for each in addresses]
    faults = []
    if len(set(versions)) < len(versions):
        faults.append(wrong(at, addresses, "may specify no more than one IP for each IP family"))
    for index, (version, family) in enumerate(zip(versions, spec.ip_families, strict=False)):
        if family in _FAMILIES and version != family:
            why = f"expected an {family} value as indicated by `ipFamilies[{index}]`"
            faults.append(wrong(f"{at}[{index}]", addresses[index], why))
    return faults


def _balancer_faults(spec: ServiceSpec) -> list[Fault]:
    faults: list[Fault] = []
    balanced = spec.type == "LoadBalancer"
    ranges = spec.load_balancer_source_ranges
    if ranges and not balanced:
        faults.append(forbidden("spec.LoadBalancerSourceRanges", _ONLY_BALANCED))
    for index, each in enumerate(ranges):
        faults += cidr_faults(each.strip(), f"spec.LoadBalancerSourceRanges[{index}]")
    if spec.allocate_load_balancer_node_ports is not None and not balanced:
        faults.append(forbidden("spec.allocateLoadBalancerNodePorts", _ONLY_BALANCED))
    if spec.load_balancer_class:
        if not balanced:
            faults.append(forbidden("spec.loadBalancerClass", _ONLY_BALANCED))
        else:
            faults += check(names.qualified, spec.load_balancer_class, "spec.loadBalancerClass")
    return faults


def _traffic_faults(spec: ServiceSpec) -> list[Fault]:
    faults, policy = [], spec.external_traffic_policy
    if is_reached_from_outside(spec):
        faults += one_of(policy, _POLICIES, "spec.externalTrafficPolicy")
    elif policy:
        why = "may only be set for externally-accessible services"
        faults.append(wrong("spec.externalTrafficPolicy", policy, why))
    number = spec.health_check_node_port
    if number and not needs_health_port(spec):
        why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        faults.append(wrong("spec.healthCheckNodePort", number, why))
    elif number:
        faults += within(number, 1, 65535, "spec.healthCheckNodePort")
    if spec.internal_traffic_policy and spec.internal_traffic_policy not in _POLICIES:
        faults.append(unsupported("spec.internalTrafficPolicy", spec.internal_traffic_policy, _POLICIES))
    if spec.traffic_distribution and spec.traffic_distribution != "PreferClose":
        faults.append(unsupported("spec.trafficDistribution", spec.traffic_distribution, ("PreferClose",)))
    return faults


def _service_change(old: Service, new: Service) -> list[Fault]:
    before, after, faults = old.spec, new.spec, []
    if "ExternalName" not in (before.type, after.type) and not (is_headless(before) and is_headless(after)):
        faults += _addresses_change(before, after)
        if is_headless(before) == is_headless(after):
            faults += _families_change(before, after)
    if before.type == after.type == "LoadBalancer" and before.load_balancer_class != after.load_balancer_class:
        faults.append(wrong("spec.loadBalancerClass", after.load_balancer_class or None, _SETTLED))
    kept = (None, before.health_check_node_port)
    if needs_health_port(before) and needs_health_port(after) and after.health_check_node_port not in kept:
        faults.append(forbidden("spec.healthCheckNodePort", "field is immutable"))
    return faults


def _addresses_change(before: ServiceSpec, after: ServiceSpec) -> list[Fault]:
    old, new, at = before.cluster_ips, after.cluster_ips, "spec.clusterIPs"
    if len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [wrong(f"{at}[{index}]", new, _SETTLED) for index, (mine, theirs) in pairs if mine != theirs]
    if not new:
        return [wrong(f"{at}[0]", new, "primary clusterIP can not be unset")]
    faults = [wrong(f"{at}[0]", new, _SETTLED)] if old and old[0] != new[0] else []
    if len(old) > len(new) == 1 and after.ip_family_policy != "SingleStack":
        why = "must be set to 'SingleStack' when releasing the secondary clusterIP"
        faults.append(wrong("spec.ipFamilyPolicy", after.ip_family_policy or None, why))
    return faults


def _families_change(before: ServiceSpec, after: ServiceSpec) -> list[Fault]:
    old, new, at = before.ip_families, after.ip_families, "spec.ipFamilies[0]"
    if not new or not old or new[0] == old[0]:
        return []
    return [wrong(at, new, _SETTLED)]


def _endpoints(obj: Endpoints) -> list[Fault]:
    faults: list[Fault] = []
    for index, subset in enumerate(obj.subsets):
        at = f"subsets[{index}]"
        if not subset.addresses and not subset.not_ready_addresses:
            faults.append(required(at, "must specify `addresses` or `notReadyAddresses`"))
        for name, addresses in (("addresses", subset.addresses), ("notReadyAddresses", subset.not_ready_addresses)):
            for number, address in enumerate(addresses):
                faults += _endpoint(address, f"{at}.{name}[{number}]")
        for number, port in enumerate(subset.ports):
            faults += _endpoint_port(port, f"{at}.ports[{number}]", several=len(subset.ports) > 1)
    return faults


def _endpoint(address: EndpointAddress, field: str) -> list[Fault]:
    faults = plain_address_faults(address.ip, f"{field}.ip")
    faults += check_optional(names.label, address.hostname, f"{field}.hostname")
    return faults + check_optional(names.subdomain, address.node_name, f"{field}.nodeName")


def _endpoint_port(port: EndpointPort, field: str, *, several: bool) -> list[Fault]:
    faults = [required(f"{field}.name")] if several and not port.name else []
    faults += check_optional(names.label, port.name, f"{field}.name")
    faults += port_faults(port.port, f"{field}.port") + one_of(port.protocol, PROTOCOLS, f"{field}.protocol")
    return faults + check_optional(names.qualified, port.app_protocol, f"{field}.appProtocol")


SPEC_RULES: Mapping[tuple[str, str], Callable[[Any], list[Fault]]] = {
    ("", "services"): _service,
    ("", "endpoints"): _endpoints,
}
CHANGE_RULES: Mapping[tuple[str, str], Callable[[Any, Any], list[Fault]]] = {
    ("", "services"): _service_change,
}
