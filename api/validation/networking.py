"""What kinds of networking, discovery and coordination may not be."""

import ipaddress
from collections.abc import Callable, Mapping
from typing import Any

from api import names
from api.errors import Fault
from api.faults import (
    Printed,
    check,
    check_given,
    check_optional,
    cidr_faults,
    duplicate,
    forbidden,
    immutable,
    is_address,
    not_negative,
    one_of,
    plain_address_faults,
    port_faults,
    positive,
    required,
    selector_faults,
    too_long,
    too_many,
    unsupported,
    within,
    wrong,
)
from api.kinds.discovery import Endpoint, EndpointPort, EndpointSlice
from api.kinds.networking import (
    HTTPIngressPath,
    Ingress,
    IngressBackend,
    IngressClass,
    IngressClassParametersReference,
    IPBlock,
    NetworkPolicy,
    NetworkPolicyPeer,
    NetworkPolicyPort,
)
from api.kinds.volumes import TypedLocalObjectReference
from api.validation.containers import PROTOCOLS

_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_BAD_SEQUENCES, _BAD_ENDS = ("//", "/./", "/../", "%2f", "%2F"), ("/..", "/.")
_CLASS_ANNOTATION = "kubernetes.io/ingress.class"
_LONGEST_CONTROLLER = 250
_MOST_ENDPOINTS, _MOST_ADDRESSES, _MOST_PORTS = 1000, 100, 20_000


def _backend(backend: IngressBackend, field: str) -> list[Fault]:
    service, resource = backend.service, backend.resource
    if service is not None and resource is not None:
        return [wrong(field, "", "cannot set both resource and service backends")]
    if resource is not None:
        return _reference(resource, f"{field}.resource")
    if service is None:
        return [wrong(field, "", "resource or service backend is required")]
    faults = check_given(names.label_1035, service.name, f"{field}.service.name")
    port = service.port
    if port is None or (not port.name and not port.number):
        faults.append(required(field, "port name or number is required"))
    elif port.name and port.number:
        faults.append(wrong(field, "", "cannot set both port name & port number"))
    elif port.name:
        faults += port_faults(port.name, f"{field}.service.port.name")
    else:
        faults += port_faults(port.number, f"{field}.service.port.number")
    return faults


def _reference(ref: TypedLocalObjectReference | IngressClassParametersReference, field: str) -> list[Fault]:
    faults = check_optional(names.subdomain, ref.api_group, f"{field}.apiGroup")
    faults += check_given(names.path_segment, ref.kind, f"{field}.kind")
    return faults + check_given(names.path_segment, ref.name, f"{field}.name")


def _path(path: HTTPIngressPath, field: str) -> list[Fault]:
    at, text, faults = f"{field}.path", path.path, []
    if not path.path_type:
        return [required(f"{field}.pathType", "pathType must be specified")]
    if path.path_type not in _PATH_TYPES:
        faults.append(unsupported(f"{field}.pathType", path.path_type, _PATH_TYPES))
    elif not text.startswith("/") and (text or path.path_type != "ImplementationSpecific"):
        faults.append(wrong(at, text, "must be an absolute path"))
    if path.path_type in ("Exact", "Prefix"):
        faults += [wrong(at, text, f"must not contain '{each}'") for each in _BAD_SEQUENCES if each in text]
        faults += [wrong(at, text, f"cannot end with '{each}'") for each in _BAD_ENDS if text.endswith(each)]
    return faults + _backend(path.backend, f"{field}.backend")


def _host(host: str, field: str) -> list[Fault]:
    return check(names.wildcard if "*" in host else names.subdomain, host, field)


def _ingress(obj: Ingress) -> list[Fault]:
    spec, faults = obj.spec, []
    if not spec.rules and spec.default_backend is None:
        why = "either `defaultBackend` or `rules` must be specified"
        faults.append(wrong("spec", Printed("[]networking.IngressRule(nil)"), why))
    if spec.default_backend is not None:
        faults += _backend(spec.default_backend, "spec.defaultBackend")
    for index, rule in enumerate(spec.rules):
        at = f"spec.rules[{index}]"
        if is_address(rule.host):
            faults.append(wrong(f"{at}.host", rule.host, "must be a DNS name, not an IP address"))
        faults += _host(rule.host, f"{at}.host") if rule.host else []
        if rule.http is not None:
            if not rule.http.paths:
                faults.append(required(f"{at}.http.paths"))
            for number, path in enumerate(rule.http.paths):
                faults += _path(path, f"{at}.http.paths[{number}]")
    for index, tls in enumerate(spec.tls):
        for number, host in enumerate(tls.hosts):
            faults += _host(host, f"spec.tls[{index}].hosts[{number}]")
        faults += check_optional(names.subdomain, tls.secret_name, f"spec.tls[{index}].secretName")
    return faults + check_optional(names.subdomain, spec.ingress_class_name, "spec.ingressClassName")


def _new_ingress(obj: Ingress) -> list[Fault]:
    annotated, named = obj.metadata.annotations.get(_CLASS_ANNOTATION), obj.spec.ingress_class_name
    if annotated is None or not named or annotated == named:
        return []
    why = "must match `ingressClassName` when both are specified"
    return [wrong(f"annotations.{_CLASS_ANNOTATION}", annotated, why)]


def _ingress_class(obj: IngressClass) -> list[Fault]:
    at, controller = "spec.controller", obj.spec.controller
    faults = [] if controller else [required(at)]
    if len(controller) > _LONGEST_CONTROLLER:
        faults.append(too_long(at, _LONGEST_CONTROLLER))
    domain, _, path = controller.partition("/")
    if controller and (not domain or not path):
        faults.append(wrong(at, controller, 'must be a domain-prefixed path (such as "acme.io/foo")'))
    elif controller:
        faults += check(names.subdomain, domain, at) + check(names.http_path, path, at)
    return faults + (_parameters(obj.spec.parameters) if obj.spec.parameters is not None else [])


def _parameters(ref: IngressClassParametersReference) -> list[Fault]:
    at = "spec.parameters"
    faults = _reference(ref, at) + one_of(ref.scope, ("Cluster", "Namespace"), f"{at}.scope")
    if ref.scope == "Namespace":
        if not ref.namespace:
            faults.append(required(f"{at}.namespace", "`parameters.scope` is set to 'Namespace'"))
        faults += check_optional(names.label, ref.namespace, f"{at}.namespace")
    elif ref.scope == "Cluster" and ref.namespace:
        faults.append(forbidden(f"{at}.namespace", "`parameters.scope` is set to 'Cluster'"))
    return faults


def _ingress_class_change(old: IngressClass, new: IngressClass) -> list[Fault]:
    return immutable(old.spec.controller, new.spec.controller, "spec.controller")


def _policy_port(port: NetworkPolicyPort, field: str) -> list[Fault]:
    faults: list[Fault] = []
    if port.protocol not in PROTOCOLS:
        faults.append(unsupported(f"{field}.protocol", port.protocol, ("TCP", "UDP", "SCTP")))
    if port.port is not None:
        faults += port_faults(port.port, f"{field}.port")
    if port.end_port is None:
        return faults
    at = f"{field}.endPort"
    if not isinstance(port.port, int):
        what = "not specified" if port.port is None else "non-numeric"
        return [*faults, wrong(at, port.end_port, f"may not be specified when `port` is {what}")]
    if port.end_port < port.port:
        faults.append(wrong(at, port.end_port, "must be greater than or equal to `port`"))
    return faults + within(port.end_port, 1, 65535, at)


def _policy_peer(peer: NetworkPolicyPeer, field: str) -> list[Fault]:
    given = [each for each in (peer.pod_selector, peer.namespace_selector, peer.ip_block) if each is not None]
    faults = selector_faults(peer.pod_selector, f"{field}.podSelector")
    faults += selector_faults(peer.namespace_selector, f"{field}.namespaceSelector")
    if peer.ip_block is not None:
        faults += _block(peer.ip_block, f"{field}.ipBlock")
    if not given:
        faults.append(required(field, "must specify a peer"))
    elif peer.ip_block is not None and len(given) > 1:
        faults.append(forbidden(field, "may not specify both ipBlock and another peer"))
    return faults


def _block(block: IPBlock, field: str) -> list[Fault]:
    if not block.cidr:
        return [required(f"{field}.cidr")]
    if faults := cidr_faults(block.cidr, f"{field}.cidr"):
        return faults
    outer = ipaddress.ip_network(block.cidr, strict=False)
    for index, each in enumerate(block.except_):
        at = f"{field}.except[{index}]"
        bad = cidr_faults(each, at)
        if not bad:
            inner = ipaddress.ip_network(each, strict=False)
            inside = inner.version == outer.version and inner.prefixlen > outer.prefixlen
            if not inside or inner.network_address not in outer:
                bad = [wrong(at, each, "must be a strict subset of `cidr`")]
        faults += bad
    return faults


def _network_policy(obj: NetworkPolicy) -> list[Fault]:
    spec = obj.spec
    faults = selector_faults(spec.pod_selector, "spec.podSelector")
    rules = [(f"spec.ingress[{index}]", "from", each.ports, each.from_) for index, each in enumerate(spec.ingress)]
    rules += [(f"spec.egress[{index}]", "to", each.ports, each.to) for index, each in enumerate(spec.egress)]
    for at, side, ports, peers in rules:
        for index, port in enumerate(ports):
            faults += _policy_port(port, f"{at}.ports[{index}]")
        for index, peer in enumerate(peers):
            faults += _policy_peer(peer, f"{at}.{side}[{index}]")
    types = spec.policy_types
    if len(types) > 2:
        return [*faults, wrong("spec.policyTypes", types, "may not specify more than two policyTypes")]
    for index, each in enumerate(types):
        if each not in ("Ingress", "Egress"):
            faults.append(unsupported(f"spec.policyTypes[{index}]", each, ("Ingress", "Egress")))
    return faults


def _slice(obj: EndpointSlice) -> list[Fault]:
    faults = one_of(obj.address_type, ("FQDN", "IPv4", "IPv6"), "addressType")
    if len(obj.endpoints) > _MOST_ENDPOINTS:
        return [*faults, too_many("endpoints", len(obj.endpoints), _MOST_ENDPOINTS)]
    for index, endpoint in enumerate(obj.endpoints):
        faults += _endpoint(endpoint, obj.address_type, f"endpoints[{index}]")
    if len(obj.ports) > _MOST_PORTS:
        return [*faults, too_many("ports", len(obj.ports), _MOST_PORTS)]
    taken: set[str] = set()
    for index, port in enumerate(obj.ports):
        faults += _slice_port(port, f"ports[{index}]", taken)
    return faults


def _endpoint(endpoint: Endpoint, kind: str, field: str) -> list[Fault]:
    at, faults = f"{field}.addresses", []
    if not endpoint.addresses:
        faults.append(required(at, "must contain at least 1 address"))
    elif len(endpoint.addresses) > _MOST_ADDRESSES:
        faults.append(too_many(at, len(endpoint.addresses), _MOST_ADDRESSES))
    for index, address in enumerate(endpoint.addresses):
        faults += _slice_address(address, kind, f"{at}[{index}]")
        if address in endpoint.addresses[:index]:
            faults.append(duplicate(f"{at}[{index}]", address))
    faults += check_optional(names.subdomain, endpoint.node_name, f"{field}.nodeName")
    return faults + check_optional(names.label, endpoint.hostname, f"{field}.hostname")


def _slice_address(address: str, kind: str, field: str) -> list[Fault]:
    if kind == "FQDN":
        faults = check(names.subdomain, address.removesuffix("."), field)
        if not faults and "." not in address.removesuffix("."):
            why = "should be a domain with at least two segments separated by dots"
            faults.append(wrong(field, address, why))
        return faults
    if kind not in ("IPv4", "IPv6"):
        return []
    if not is_address(address) or f"IPv{ipaddress.ip_address(address).version}" != kind:
        return [wrong(field, address, f"must be a valid {kind} address")]
    return plain_address_faults(address, field)


def _slice_port(port: EndpointPort, field: str, taken: set[str]) -> list[Fault]:
    name = port.name or ""
    faults = check_optional(names.label, name, f"{field}.name")
    if name in taken:
        faults.append(duplicate(f"{field}.name", name))
    taken.add(name)
    faults += one_of(port.protocol, PROTOCOLS, f"{field}.protocol")
    return faults + check_optional(names.qualified, port.app_protocol, f"{field}.appProtocol")


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
CREATE_RULES: Mapping[tuple[str, str], Callable[[Any], list[Fault]]] = {
    ("networking.k8s.io", "ingresses"): _new_ingress,
}
CHANGE_RULES: Mapping[tuple[str, str], Callable[[Any, Any], list[Fault]]] = {
    ("networking.k8s.io", "ingressclasses"): _ingress_class_change,
    ("discovery.k8s.io", "endpointslices"): _slice_change,
}
