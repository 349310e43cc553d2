"""What specs of networking, discovery and coordination kinds may not be."""

import ipaddress
from collections.abc import Callable, Mapping
from typing import Any

from api.errors import Fault
from api.faults import (
    ADDRESS_RULE,
    duplicate,
    forbidden,
    immutable,
    is_address,
    label_faults,
    not_negative,
    one_of,
    port_faults,
    positive,
    required,
    selector_faults,
    special_address_faults,
    subdomain_faults,
    unsupported,
    wrong,
)
from api.kinds.discovery import EndpointSlice
from api.kinds.networking import (
    HTTPIngressPath,
    Ingress,
    IngressBackend,
    IngressClass,
    NetworkPolicy,
    NetworkPolicyPeer,
    NetworkPolicyPort,
)

_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_MAX_ENDPOINTS, _MAX_ADDRESSES = 1000, 100


def _backend(backend: IngressBackend, field: str) -> list[Fault]:
    if (backend.service is None) == (backend.resource is None):
        if backend.service is not None:
            return [wrong(field, "", "cannot set both resource and service backends")]
        return [required(field, "port name or number is required")]
    if backend.service is None:
        return []
    faults = [] if backend.service.name else [required(f"{field}.service.name")]
    if backend.service.name and (why := label_faults(backend.service.name)):
        faults.append(wrong(f"{field}.service.name", backend.service.name, why))
    port = backend.service.port
    if port is None or (not port.name and not port.number):
        faults.append(required(f"{field}.service.port", "port name or number is required"))
    elif port.name and port.number:
        faults.append(wrong(f"{field}.service.port", "", "cannot set both port name & port number"))
    elif port.name:
        faults += port_faults(port.name, f"{field}.service.port.name")
    else:
        faults += port_faults(port.number, f"{field}.service.port.number")
    return faults


def _path(path: HTTPIngressPath, field: str) -> list[Fault]:
    faults = []
    if not path.path_type:
        faults.append(required(f"{field}.pathType", "pathType must be specified"))
    elif path.path_type not in _PATH_TYPES:
        faults.append(unsupported(f"{field}.pathType", path.path_type, _PATH_TYPES))
    may_be_empty = path.path_type not in ("Exact", "Prefix")
    if not path.path.startswith("/") and not (may_be_empty and not path.path):
        faults.append(wrong(f"{field}.path", path.path, "must be an absolute path"))
    return faults + _backend(path.backend, f"{field}.backend")


def _host(host: str, field: str) -> list[Fault]:
    if is_address(host):
        return [wrong(field, host, "must be a DNS name, not an IP address")]
    why = subdomain_faults(host.removeprefix("*."))
    return [wrong(field, host, why)] if why else []


def _ingress(obj: Ingress) -> list[Fault]:
    spec = obj.spec
    faults = []
    if not spec.rules and spec.default_backend is None:
        faults.append(wrong("spec", "", "either `defaultBackend` or `rules` must be specified"))
    if spec.default_backend is not None:
        faults += _backend(spec.default_backend, "spec.defaultBackend")
    for index, rule in enumerate(spec.rules):
        at = f"spec.rules[{index}]"
        if rule.host:
            faults += _host(rule.host, f"{at}.host")
        if rule.http is not None:
            if not rule.http.paths:
                faults.append(required(f"{at}.http.paths"))
            for number, path in enumerate(rule.http.paths):
                faults += _path(path, f"{at}.http.paths[{number}]")
    for index, tls in enumerate(spec.tls):
        for number, host in enumerate(tls.hosts):
            faults += _host(host, f"spec.tls[{index}].hosts[{number}]")
    if spec.ingress_class_name and (why := subdomain_faults(spec.ingress_class_name)):
        faults.append(wrong("spec.ingressClassName", spec.ingress_class_name, why))
    return faults


def _ingress_class(obj: IngressClass) -> list[Fault]:
    controller = obj.spec.controller
    if not controller:
        return [required("spec.controller")]
    domain, slash, path = controller.partition("/")
    if not slash or not path or subdomain_faults(domain):
        return [wrong("spec.controller", controller, 'must be a domain-prefixed path (such as "acme.io/foo")')]
    return []


def _ingress_class_change(old: IngressClass, new: IngressClass) -> list[Fault]:
    return immutable(old.spec.controller, new.spec.controller, "spec.controller")


def _policy_ports(ports: tuple[NetworkPolicyPort, ...], field: str) -> list[Fault]:
    faults = []
    for index, port in enumerate(ports):
        at = f"{field}[{index}]"
        if port.protocol not in _PROTOCOLS:
            faults.append(unsupported(f"{at}.protocol", port.protocol, _PROTOCOLS))
        if port.port is not None:
            faults += port_faults(port.port, f"{at}.port")
        if port.end_port is not None:
            if not isinstance(port.port, int):
                faults.append(wrong(f"{at}.endPort", port.end_port, "may not be specified when `port` is non-numeric"))
            elif port.end_port < port.port:
                faults.append(wrong(f"{at}.endPort", port.end_port, "must be greater than or equal to `port`"))
    return faults


def _policy_peers(peers: tuple[NetworkPolicyPeer, ...], field: str) -> list[Fault]:
    faults = []
    for index, peer in enumerate(peers):
        at = f"{field}[{index}]"
        given = [each for each in (peer.pod_selector, peer.namespace_selector, peer.ip_block) if each is not None]
        if not given:
            faults.append(required(at, "must specify a peer"))
        if peer.ip_block is not None and len(given) > 1:
            faults.append(forbidden(at, "may not specify both ipBlock and another peer"))
        faults += selector_faults(peer.pod_selector, f"{at}.podSelector")
        faults += selector_faults(peer.namespace_selector, f"{at}.namespaceSelector")
        if peer.ip_block is not None:
            faults += _cidr(peer.ip_block.cidr, f"{at}.ipBlock.cidr")
            for number, each in enumerate(peer.ip_block.except_):
                faults += _cidr(each, f"{at}.ipBlock.except[{number}]", within=peer.ip_block.cidr)
    return faults


def _cidr(text: str, field: str, *, within: str = "") -> list[Fault]:
    if not text:
        return [required(field)]
    try:
        network = ipaddress.ip_network(text, strict=False)
        outer = ipaddress.ip_network(within, strict=False) if within else None
    except ValueError:
        return [wrong(field, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")]
    if outer is not None and (outer.version != network.version or not network.subnet_of(outer)):  # type: ignore[arg-type]
        return [wrong(field, text, "must be a strict subset of `cidr`")]
    return []


def _network_policy(obj: NetworkPolicy) -> list[Fault]:
    spec = obj.spec
    faults = selector_faults(spec.pod_selector, "spec.podSelector")
    for index, rule in enumerate(spec.ingress):
        faults += _policy_ports(rule.ports, f"spec.ingress[{index}].ports")
        faults += _policy_peers(rule.from_, f"spec.ingress[{index}].from")
    for index, egress in enumerate(spec.egress):
        faults += _policy_ports(egress.ports, f"spec.egress[{index}].ports")
        faults += _policy_peers(egress.to, f"spec.egress[{index}].to")
    for index, each in enumerate(spec.policy_types):
        faults += one_of(each, ("Egress", "Ingress"), f"spec.policyTypes[{index}]")
    return faults


def _slice(obj: EndpointSlice) -> list[Fault]:
    faults = one_of(obj.address_type, ("FQDN", "IPv4", "IPv6"), "addressType")
    if len(obj.endpoints) > _MAX_ENDPOINTS:
        faults.append(
            Fault(
                "endpoints",
                f"Too many: {len(obj.endpoints)}: must have at most {_MAX_ENDPOINTS} items",
                "FieldValueTooMany",
            )
        )
    for index, endpoint in enumerate(obj.endpoints):
        at = f"endpoints[{index}].addresses"
        if not endpoint.addresses:
            faults.append(required(at, "must contain at least 1 address"))
        if len(endpoint.addresses) > _MAX_ADDRESSES:
            faults.append(
                Fault(
                    at,
                    f"Too many: {len(endpoint.addresses)}: must have at most {_MAX_ADDRESSES} items",
                    "FieldValueTooMany",
                )
            )
        for number, address in enumerate(endpoint.addresses):
            faults += _slice_address(address, obj.address_type, f"{at}[{number}]")
    names: set[str] = set()
    for index, port in enumerate(obj.ports):
        at = f"ports[{index}]"
        if (port.name or "") in names:
            faults.append(duplicate(f"{at}.name", port.name))
        names.add(port.name or "")
        if port.name and (why := label_faults(port.name)):
            faults.append(wrong(f"{at}.name", port.name, why))
        faults += one_of(port.protocol, _PROTOCOLS, f"{at}.protocol")
    return faults


def _slice_address(address: str, kind: str, field: str) -> list[Fault]:
    if kind == "FQDN":
        return [wrong(field, address, why)] if (why := subdomain_faults(address)) else []
    versions = {"IPv4": 4, "IPv6": 6}
    if not is_address(address):
        return [wrong(field, address, ADDRESS_RULE)]
    if kind in versions and ipaddress.ip_address(address).version != versions[kind]:
        return [wrong(field, address, f"must be an {kind} address")]
    return special_address_faults(address, field)


def _slice_change(old: EndpointSlice, new: EndpointSlice) -> list[Fault]:
    return immutable(old.address_type, new.address_type, "addressType")


def _lease(obj: Any) -> list[Fault]:
    spec = obj.spec
    if spec is None:
        return []
    faults = positive(spec.lease_duration_seconds, "spec.leaseDurationSeconds")
    return faults + not_negative(spec.lease_transitions, "spec.leaseTransitions")


SPEC_RULES: Mapping[tuple[str, str], Callable[[Any], list[Fault]]] = {
    ("networking.k8s.io", "ingresses"): _ingress,
    ("networking.k8s.io", "ingressclasses"): _ingress_class,
    ("networking.k8s.io", "networkpolicies"): _network_policy,
    ("discovery.k8s.io", "endpointslices"): _slice,
    ("coordination.k8s.io", "leases"): _lease,
}
CHANGE_RULES: Mapping[tuple[str, str], Callable[[Any, Any], list[Fault]]] = {
    ("networking.k8s.io", "ingressclasses"): _ingress_class_change,
    ("discovery.k8s.io", "endpointslices"): _slice_change,
}
