"""Renders services into iptables chains, under the names that people know from kube-proxy.

The way of a packet:

    KUBE-SERVICES    every packet, on its way in or from this host: which service port is it for?
      cluster IP  -> KUBE-SVC-x  all ready endpoints (KUBE-SVL-x: this node's only, internal policy Local)
      external IP,
      node port   -> KUBE-EXT-x  masquerade, then KUBE-SVC-x; external policy Local: KUBE-SVL-x untouched
      source ranges  KUBE-FW-x   before KUBE-EXT-x of a load balancer that admits only some sources
    KUBE-SVC-x       one endpoint at random, or the one this client had (session affinity)
    KUBE-SEP-x       rewrites the destination; marks a pod that meets itself
    KUBE-POSTROUTING masquerades what was marked

Service ports without an endpoint have no nat rules; the filter table refuses them at once, so that a
client does not wait for a time-out.

Everything here is pure. Chain names are the field's: a hash of namespace, name, port and protocol.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from node_agent.proxy.ruleset import ChainId, Jump, Ruleset

OWNED_PREFIXES = (
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-POSTROUTING",
    "KUBE-MARK-MASQ",
    "KUBE-FORWARD",
    "KUBE-FIREWALL",
    "KUBE-PROXY-",
    "KUBE-SVC-",
    "KUBE-SVL-",
    "KUBE-EXT-",
    "KUBE-FW-",
    "KUBE-SEP-",
)
MARK = "0x4000/0x4000"
CANARY = "KUBE-PROXY-CANARY"
COMMENT_LIMIT = 200  # the match takes 255 characters


class Endpoint(msgspec.Struct, frozen=True):
    """One place that serves a service port.

    node: the node it runs on, "" if unknown. serving: answers although it is terminating; used only
    while no endpoint is ready.
    """

    ip: str
    port: int
    node: str = ""
    ready: bool = True
    serving: bool = False


class ServicePort(msgspec.Struct, frozen=True):
    """One port of one service with everything that its rules depend on.

    affinity_s: how long a client keeps its endpoint; 0 means no affinity. node_port: 0 means none.
    source_ranges: who may come through the load balancer addresses; () means everybody.
    """

    namespace: str
    name: str
    port: int
    port_name: str = ""
    protocol: str = "TCP"
    cluster_ip: str = ""
    node_port: int = 0
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()
    source_ranges: tuple[str, ...] = ()
    affinity_s: int = 0
    external_local: bool = False
    internal_local: bool = False
    endpoints: tuple[Endpoint, ...] = ()

    @property
    def label(self) -> str:
        """``namespace/name:port``, as in kube-proxy's comments and hashes."""
        return f"{self.namespace}/{self.name}" + (f":{self.port_name}" if self.port_name else "")


class ProxyConfig(msgspec.Struct, frozen=True):
    """What the rules of one node depend on beside the services.

    local_addresses: addresses served on this node by other means (the cluster DNS); no rule takes them.
    """

    node: str
    cluster_cidr: str
    local_addresses: frozenset[str] = frozenset()


class Chains(msgspec.Struct, frozen=True):
    """What one service port adds: chains of its own, and rules of the shared ones."""

    nat: dict[str, tuple[str, ...]] = {}
    services: tuple[str, ...] = ()
    node_ports: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    refused_outside: tuple[str, ...] = ()
    firewalled: tuple[str, ...] = ()


def chain_name(kind: str, *parts: str) -> str:
    """Return ``KUBE-<kind>-<16 characters of the base32 SHA-256 of the parts>``."""
    digest = hashlib.sha256("".join(parts).encode()).digest()
    return f"KUBE-{kind}-{base64.b32encode(digest).decode()[:16]}"


def render_rules(services: Iterable[ServicePort], config: ProxyConfig) -> Ruleset:
    """Return the complete rules of a node for these service ports, in any order."""
    return assemble(render_parts(services, config, {}).values())


def render_parts(
    services: Iterable[ServicePort], config: ProxyConfig, known: Mapping[ServicePort, Chains]
) -> dict[ServicePort, Chains]:
    """Return each service port's part, in order; what ``known`` has of the same config is not rendered again.

    A change of one endpoint among 1,000 services costs 5 ms so, and 120 without.
    """
    return {s: known.get(s) or render_service(s, config) for s in sorted(services, key=_order)}


def render_service(service: ServicePort, config: ProxyConfig) -> Chains:
    """Return what one service port adds to the rules."""
    if not service.cluster_ip or service.cluster_ip in config.local_addresses:
        return Chains()
    cluster, local = pick_endpoints(service.endpoints, config.node)
    if not cluster:
        return _render_refusal(service)
    protocol = service.protocol.lower()
    names = {kind: chain_name(kind, service.label, protocol) for kind in ("SVC", "SVL", "EXT", "FW")}
    exposed = bool(service.node_port or service.external_ips or service.load_balancer_ips)
    needs_local = service.internal_local or (exposed and service.external_local)
    nat = {names["SVC"]: _render_choice(service, cluster, config)}
    if needs_local and local:
        nat[names["SVL"]] = _render_choice(service, local, config)
    if exposed:
        nat[names["EXT"]] = _render_external(service, names, config, has_local=bool(local))
    for endpoint in {*cluster, *(local if needs_local else ())}:
        nat[_endpoint_chain(service, endpoint)] = _render_endpoint(service, endpoint)
    if service.load_balancer_ips and service.source_ranges:
        nat[names["FW"]] = tuple(
            f"-s {source} {_comment(service, 'source range')} -j {names['EXT']}" for source in service.source_ranges
        )
    entrance = names["SVL"] if service.internal_local else names["SVC"]
    return Chains(
        nat=nat,
        services=_render_entrances(service, names, entrance if entrance in nat else ""),
        node_ports=_render_node_port(service, names),
        refused=() if entrance in nat else (_refuse_cluster_ip(service, "DROP", "has no local endpoints"),),
        refused_outside=()
        if local or not service.external_local
        else _refuse_outside(service, "DROP", "has no local endpoints"),
        firewalled=_render_firewalled(service),
    )


def pick_endpoints(endpoints: Sequence[Endpoint], node: str) -> tuple[tuple[Endpoint, ...], tuple[Endpoint, ...]]:
    """Return the endpoints to use for cluster-wide and for node-local traffic, each sorted, no repeats.

    Ready ones; if there is none, those that terminate but still serve.
    """

    def usable(candidates: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
        found = list(candidates)
        chosen = [e for e in found if e.ready] or [e for e in found if e.serving]
        unique = {(e.ip, e.port): e for e in chosen}
        return tuple(unique[key] for key in sorted(unique))

    return usable(endpoints), usable(e for e in endpoints if e.node == node)


def assemble(parts: Iterable[Chains]) -> Ruleset:
    """Join the service ports' parts and the fixed chains into one ruleset."""
    nat: dict[str, tuple[str, ...]] = {}
    services: list[str] = []
    node_ports: list[str] = []
    refused: list[str] = []
    refused_outside: list[str] = []
    firewalled: list[str] = []
    for part in parts:
        nat.update(part.nat)
        services += part.services
        node_ports += part.node_ports
        refused += part.refused
        refused_outside += part.refused_outside
        firewalled += part.firewalled
    # Node ports come last: an address of this host may also be a service's external IP.
    services.append(
        '-m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" '
        "-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
    )
    chains = {
        **{ChainId("nat", name): rules for name, rules in nat.items()},
        **_FIXED_CHAINS,
        ChainId("nat", "KUBE-SERVICES"): tuple(services),
        ChainId("nat", "KUBE-NODEPORTS"): tuple(node_ports),
        ChainId("filter", "KUBE-SERVICES"): tuple(refused),
        ChainId("filter", "KUBE-EXTERNAL-SERVICES"): tuple(refused_outside),
        ChainId("filter", "KUBE-PROXY-FIREWALL"): tuple(firewalled),
    }
    return Ruleset(chains, _JUMPS)


_FIXED_CHAINS = {
    ChainId("nat", CANARY): ("-j RETURN",),
    ChainId("filter", CANARY): ("-j RETURN",),
    ChainId("nat", "KUBE-MARK-MASQ"): ("-j MARK --set-xmark 0x4000/0x4000",),
    ChainId("nat", "KUBE-POSTROUTING"): (
        f"-m mark ! --mark {MARK} -j RETURN",
        # The mark goes before a packet that passes the stack twice (through a tunnel) is seen again.
        "-j MARK --set-xmark 0x4000/0x0",
        '-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully',
    ),
    ChainId("filter", "KUBE-FORWARD"): (
        # A late answer that conntrack no longer knows would reach the client from the pod's own address
        # and make it reset a healthy connection.
        "-m conntrack --ctstate INVALID -j DROP",
        f'-m comment --comment "kubernetes forwarding rules" -m mark --mark {MARK} -j ACCEPT',
        (
            '-m comment --comment "kubernetes forwarding conntrack rule" '
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
        ),
    ),
    ChainId("filter", "KUBE-FIREWALL"): (
        # route_localnet opens 127.0.0.0/8 to the link; only our own node ports may use that.
        (
            '! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections" '
            "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
        ),
    ),
}

_NEW = "-m conntrack --ctstate NEW"
_PORTALS = '-m comment --comment "kubernetes service portals"'
_OUTSIDE = '-m comment --comment "kubernetes externally-visible service portals"'
_JUMPS = (
    Jump("nat", "PREROUTING", "KUBE-SERVICES", _PORTALS),
    Jump("nat", "OUTPUT", "KUBE-SERVICES", _PORTALS),
    Jump("nat", "POSTROUTING", "KUBE-POSTROUTING", '-m comment --comment "kubernetes postrouting rules"'),
    Jump("filter", "INPUT", "KUBE-PROXY-FIREWALL", _NEW),
    Jump("filter", "INPUT", "KUBE-EXTERNAL-SERVICES", f"{_NEW} {_OUTSIDE}"),
    Jump("filter", "INPUT", "KUBE-FIREWALL"),
    Jump("filter", "FORWARD", "KUBE-PROXY-FIREWALL", _NEW),
    Jump("filter", "FORWARD", "KUBE-FORWARD", '-m comment --comment "kubernetes forwarding rules"'),
    Jump("filter", "FORWARD", "KUBE-SERVICES", f"{_NEW} {_PORTALS}"),
    Jump("filter", "FORWARD", "KUBE-EXTERNAL-SERVICES", f"{_NEW} {_OUTSIDE}"),
    Jump("filter", "OUTPUT", "KUBE-PROXY-FIREWALL", _NEW),
    Jump("filter", "OUTPUT", "KUBE-SERVICES", f"{_NEW} {_PORTALS}"),
    Jump("filter", "OUTPUT", "KUBE-FIREWALL"),
)


def _order(service: ServicePort) -> tuple[str, str, str, str]:
    return (service.namespace, service.name, service.port_name, service.protocol)


def _comment(service: ServicePort, what: str = "") -> str:
    text = f"{service.label} {what}".strip()[:COMMENT_LIMIT]
    return f'-m comment --comment "{text}"'


def _match(service: ServicePort, port: int) -> str:
    protocol = service.protocol.lower()
    return f"-m {protocol} -p {protocol} --dport {port}"


def _endpoint_chain(service: ServicePort, endpoint: Endpoint) -> str:
    return chain_name("SEP", service.label, service.protocol.lower(), f"{endpoint.ip}:{endpoint.port}")


def _render_choice(service: ServicePort, endpoints: Sequence[Endpoint], config: ProxyConfig) -> tuple[str, ...]:
    """The chain that picks one of ``endpoints``, each equally likely."""
    comment = _comment(service)
    rules = [
        (
            f"{_comment(service, 'cluster IP')} {_match(service, service.port)} "
            f"-d {service.cluster_ip}/32 ! -s {config.cluster_cidr} -j KUBE-MARK-MASQ"
        )
    ]
    chains = [_endpoint_chain(service, e) for e in endpoints]
    if service.affinity_s:
        rules += [
            f"{comment} -m recent --name {chain} --rcheck --seconds {service.affinity_s} --reap -j {chain}"
            for chain in chains
        ]
    for i, chain in enumerate(chains):
        left = len(chains) - i
        chance = f"-m statistic --mode random --probability {1 / left:.10f} " if left > 1 else ""
        rules.append(f"{comment} {chance}-j {chain}")
    return tuple(rules)


def _render_endpoint(service: ServicePort, endpoint: Endpoint) -> tuple[str, ...]:
    protocol = service.protocol.lower()
    chain = _endpoint_chain(service, endpoint)
    remember = f"-m recent --name {chain} --set " if service.affinity_s else ""
    return (
        f"{_comment(service)} -s {endpoint.ip}/32 -j KUBE-MARK-MASQ",
        (
            f"{_comment(service)} {remember}-m {protocol} -p {protocol} "
            f"-j DNAT --to-destination {endpoint.ip}:{endpoint.port}"
        ),
    )


def _render_external(
    service: ServicePort, names: dict[str, str], config: ProxyConfig, *, has_local: bool
) -> tuple[str, ...]:
    """The chain that traffic from outside the cluster goes through."""
    if not service.external_local:
        # The endpoint may be on another node: without masquerade it would answer past this one.
        masquerade = f"{_comment(service, 'external traffic')} -j KUBE-MARK-MASQ"
        return (masquerade, f"-j {names['SVC']}")
    rules = [
        # Pods and this host itself are not "outside": they may use every endpoint.
        f"{_comment(service, 'pod traffic')} -s {config.cluster_cidr} -j {names['SVC']}",
        f"{_comment(service, 'host traffic')} -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ",
        f"{_comment(service, 'host traffic')} -m addrtype --src-type LOCAL -j {names['SVC']}",
    ]
    if has_local:
        rules.append(f"-j {names['SVL']}")
    return tuple(rules)


def _render_entrances(service: ServicePort, names: dict[str, str], entrance: str) -> tuple[str, ...]:
    match = _match(service, service.port)
    rules = []
    if entrance:
        rules.append(f"{_comment(service, 'cluster IP')} {match} -d {service.cluster_ip}/32 -j {entrance}")
    rules += [f"{_comment(service, 'external IP')} {match} -d {ip}/32 -j {names['EXT']}" for ip in service.external_ips]
    balancer = names["FW"] if service.source_ranges else names["EXT"]
    rules += [
        f"{_comment(service, 'loadbalancer IP')} {match} -d {ip}/32 -j {balancer}" for ip in service.load_balancer_ips
    ]
    return tuple(rules)


def _render_node_port(service: ServicePort, names: dict[str, str]) -> tuple[str, ...]:
    if not service.node_port:
        return ()
    return (f"{_comment(service)} {_match(service, service.node_port)} -j {names['EXT']}",)


def _render_firewalled(service: ServicePort) -> tuple[str, ...]:
    """Filter rules for sources that a load balancer does not admit; they still carry its address."""
    if not service.source_ranges:
        return ()
    return tuple(
        f"{_comment(service, 'traffic not accepted')} {_match(service, service.port)} -d {ip}/32 -j DROP"
        for ip in service.load_balancer_ips
    )


def _render_refusal(service: ServicePort) -> Chains:
    return Chains(
        refused=(_refuse_cluster_ip(service, "REJECT", "has no endpoints"),),
        refused_outside=_refuse_outside(service, "REJECT", "has no endpoints"),
    )


def _refuse_cluster_ip(service: ServicePort, target: str, why: str) -> str:
    return f"{_comment(service, why)} {_match(service, service.port)} -d {service.cluster_ip}/32 -j {target}"


def _refuse_outside(service: ServicePort, target: str, why: str) -> tuple[str, ...]:
    comment = _comment(service, why)
    rules = [
        f"{comment} {_match(service, service.port)} -d {ip}/32 -j {target}"
        for ip in (*service.external_ips, *service.load_balancer_ips)
    ]
    if service.node_port:
        local = "-m addrtype --dst-type LOCAL"
        rules.append(f"{comment} {local} {_match(service, service.node_port)} -j {target}")
    return tuple(rules)
