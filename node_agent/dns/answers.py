"""Answers for the cluster's names, after the Kubernetes DNS specification 1.1.

A name is taken apart by its labels and looked up in the services; no record is made before somebody
asks for it. So a new snapshot costs one pass over the services, whatever they expand to.

    <zone>                                          SOA, NS, and dns-version as TXT
    <service>.<namespace>.svc.<zone>                A, AAAA: cluster IPs, or every ready endpoint (headless);
                                                    CNAME of an external name
    _<port>._<protocol>.<service>.<namespace>.svc.<zone>      SRV
    <hostname or 1-2-3-4>.<service>.<namespace>.svc.<zone>    A, AAAA of one endpoint
    <1-2-3-4>.<namespace>.pod.<zone>                A
    <reversed address>.in-addr.arpa                 PTR

A name that exists without records of the wanted type gets an empty answer, one that does not gets
NXDOMAIN, both with the zone's SOA so that resolvers may remember it.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

TTL_S = 5
SPEC_VERSION = "1.1.0"

NOERROR, NXDOMAIN = 0, 3


class DnsPort(msgspec.Struct, frozen=True):
    """A named port of a service or endpoint; unnamed ones have no SRV record."""

    name: str
    protocol: str
    port: int


class DnsEndpoint(msgspec.Struct, frozen=True):
    """An address behind a service. hostname: "" for one that has no name of its own."""

    ip: str
    hostname: str = ""
    ready: bool = True
    ports: tuple[DnsPort, ...] = ()

    @property
    def label(self) -> str:
        """The endpoint's label below its service."""
        return (self.hostname or self.ip.replace(".", "-").replace(":", "-")).lower()


class DnsService(msgspec.Struct, frozen=True):
    """What the names of one service depend on.

    cluster_ips: () for a headless service. external_name: set for type ExternalName only.
    """

    namespace: str
    name: str
    cluster_ips: tuple[str, ...] = ()
    external_name: str = ""
    ports: tuple[DnsPort, ...] = ()
    endpoints: tuple[DnsEndpoint, ...] = ()
    publish_not_ready: bool = False

    def live(self) -> list[DnsEndpoint]:
        """The endpoints that have names."""
        return [e for e in self.endpoints if e.ready or self.publish_not_ready]


class Record(NamedTuple):
    """One resource record. data: an address, a name, a text, or (priority, weight, port, name) for SRV."""

    name: str
    type: str
    data: str | tuple[int, int, int, str]
    ttl_s: int = TTL_S


class Answer(msgspec.Struct, frozen=True):
    """What to reply. negative: the zone's SOA goes into the authority section."""

    rcode: int
    records: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    negative: bool = False


class Zone(msgspec.Struct, frozen=True):
    """What this server is the authority for.

    networks: the pods' and services' CIDRs; reverse names of other addresses are not ours.
    """

    domain: str
    server_ip: str
    networks: tuple[str, ...] = ()


class Snapshot:
    """The cluster's names at one moment; never changed after it is made.

    namespaces: those that exist beside the ones that have services; None answers pod names in any.
    """

    def __init__(
        self, zone: Zone, services: Iterable[DnsService] = (), namespaces: Iterable[str] | None = None
    ) -> None:
        self.zone = zone
        self._suffix = zone.domain.lower().strip(".").split(".")
        self._services = {(s.namespace, s.name): s for s in services}
        self._namespaces = {s.namespace for s in self._services.values()} | set(namespaces or ())
        self._any_namespace = namespaces is None
        self._networks = [ipaddress.ip_network(n) for n in zone.networks]
        self._names_of = _index_addresses(self._services, ".".join(self._suffix))

    def answer(self, name: str, wanted: str) -> Answer | None:
        """Answer a question of class IN; None if the name is not ours and somebody else must be asked.

        name: absolute, with or without the final dot, in any case. wanted: a type's name, ``A`` or ``ANY``.
        """
        labels = name.lower().rstrip(".").split(".")
        if labels[-2:] in (["in-addr", "arpa"], ["ip6", "arpa"]):
            return self._answer_reverse(name, labels, wanted)
        depth = len(self._suffix)
        if labels[-depth:] != self._suffix:
            return None
        found = self._look_up(labels[:-depth], name)
        if found is None:
            return Answer(NXDOMAIN, negative=True)
        records = tuple(r for r in found if r.type in (wanted, "CNAME") or wanted == "ANY")
        return Answer(NOERROR, records, self._addresses_of(records), negative=not records)

    def soa(self) -> Record:
        """The zone's SOA; its last number is how long a negative answer may be remembered."""
        domain = self.zone.domain.strip(".")
        text = f"ns.dns.{domain}. hostmaster.{domain}. 1 7200 1800 86400 {TTL_S}"
        return Record(domain, "SOA", text)

    def _look_up(self, labels: Sequence[str], name: str) -> list[Record] | None:
        """Return every record of a name in the zone, given without the zone; None if it does not exist."""
        match labels:
            case []:
                domain = self.zone.domain.strip(".")
                return [self.soa()._replace(name=name), Record(name, "NS", f"ns.dns.{domain}")]
            case ["dns-version"]:
                return [Record(name, "TXT", SPEC_VERSION)]
            case ["ns", "dns"]:
                return [_address(name, self.zone.server_ip)]
            case ["dns"] | ["svc"] | ["pod"]:
                return []
            case [namespace, "svc" | "pod"]:
                return [] if namespace in self._namespaces else None
            case [dashed, namespace, "pod"]:
                return self._pod(dashed, namespace, name)
            case [*rest, service, namespace, "svc"]:
                found = self._services.get((namespace, service))
                return None if found is None else self._service(found, rest, name)
            case _:
                return None

    def _pod(self, dashed: str, namespace: str, name: str) -> list[Record] | None:
        if not self._any_namespace and namespace not in self._namespaces:
            return None
        address = _undashed(dashed)
        return None if address is None else [_address(name, address)]

    def _service(self, service: DnsService, rest: Sequence[str], name: str) -> list[Record] | None:
        base = f"{service.name}.{service.namespace}.svc.{'.'.join(self._suffix)}"
        if service.external_name:
            return None if rest else [Record(name, "CNAME", service.external_name.rstrip("."))]
        match rest:
            case []:
                own = service.cluster_ips or _unique(e.ip for e in service.live())
                return [*(_address(name, ip) for ip in own), *_services_at(service, base, name, None, None)]
            case [protocol] if protocol in ("_tcp", "_udp", "_sctp"):
                return []
            case [port, protocol] if port.startswith("_") and protocol.startswith("_"):
                return _services_at(service, base, name, port[1:], protocol[1:]) or None
            case [endpoint]:
                return [_address(name, e.ip) for e in service.live() if e.label == endpoint] or None
            case _:
                return None

    def _answer_reverse(self, name: str, labels: Sequence[str], wanted: str) -> Answer | None:
        address = _unreversed(labels)
        targets = self._names_of.get(address, ())
        if not targets:
            ours = any(ipaddress.ip_address(address) in n for n in self._networks) if address else False
            return Answer(NXDOMAIN, negative=True) if ours else None
        records = tuple(Record(name, "PTR", t) for t in targets) if wanted in ("PTR", "ANY") else ()
        return Answer(NOERROR, records, negative=not records)

    def _addresses_of(self, records: Sequence[Record]) -> tuple[Record, ...]:
        """The addresses of the hosts that SRV and NS records name, to save the client a question."""
        targets = [r.data[3] for r in records if isinstance(r.data, tuple)]
        targets += [r.data for r in records if r.type == "NS" and isinstance(r.data, str)]
        found: list[Record] = []
        for target in _unique(targets):
            labels = target.split(".")[: -len(self._suffix)]
            found += [r for r in self._look_up(labels, target) or () if r.type in ("A", "AAAA")]
        return tuple(found)


def _services_at(
    service: DnsService, base: str, name: str, port_name: str | None, protocol: str | None
) -> list[Record]:
    """The SRV records of the ports that match; None matches every named port."""

    def matching(ports: Iterable[DnsPort]) -> list[DnsPort]:
        return [
            p
            for p in ports
            if p.name and port_name in (None, p.name.lower()) and protocol in (None, p.protocol.lower())
        ]

    if service.cluster_ips:
        targets = [(p.port, base) for p in matching(service.ports)]
    else:
        targets = [(p.port, f"{e.label}.{base}") for e in service.live() for p in matching(e.ports)]
    targets = list(dict.fromkeys(targets))
    # Equal shares of 100 let a client balance by weight.
    weight = 100 // len(targets) if targets else 0
    return [Record(name, "SRV", (0, max(weight, 1), port, target)) for port, target in targets]


def _address(name: str, ip: str) -> Record:
    return Record(name, "AAAA" if ":" in ip else "A", ip)


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _index_addresses(services: Mapping[tuple[str, str], DnsService], suffix: str) -> dict[str, tuple[str, ...]]:
    """Return address -> the names it has: a service's own, or an endpoint's below a headless service."""
    names: dict[str, tuple[str, ...]] = {}
    for service in services.values():
        base = f"{service.name}.{service.namespace}.svc.{suffix}"
        if service.cluster_ips:
            pairs = [(ip, base) for ip in service.cluster_ips]
        else:
            pairs = [(e.ip, f"{e.label}.{base}") for e in service.live()]
        for ip, name in pairs:
            names[ip] = (*names.get(ip, ()), name)
    return names


def _undashed(label: str) -> str | None:
    """Return the IPv4 or IPv6 address that ``1-2-3-4`` stands for, or None."""
    for text in (label.replace("-", "."), label.replace("-", ":")):
        try:
            return str(ipaddress.ip_address(text))
        except ValueError:
            continue
    return None


def _unreversed(labels: Sequence[str]) -> str:
    """Return the address of a complete reverse name, or ""."""
    parts = labels[-3::-1]
    text = ".".join(parts)
    if labels[-2] == "ip6":
        digits = "".join(parts)
        text = ":".join(digits[i : i + 4] for i in range(0, len(digits), 4))
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
