"""Service addresses and node ports: picked at random, made unique by the store.

Each taken address and port is a key of its own, written and deleted in the same transaction as its Service: two masters
that pick the same one cannot both commit, and nothing leaks when one dies half way.
"""

import random
from collections.abc import Callable, Collection, Iterable
from ipaddress import IPv4Address, IPv4Network

import msgspec
from msgspec.structs import replace

from api.errors import ApiError, Fault, InternalError, invalid
from api.faults import wrong
from api.kinds.core import Service, ServicePort, ServiceSpec
from api.meta import Resource
from api.validation.services import address_field_faults, is_headless, needs_health_port
from master.service_fields import takes_address, takes_ports
from master.storage import Put, Refused, Remove, Write

PREFIX = "/registry-alloc/"
_ATTEMPTS = 16


class ServiceNetwork(msgspec.Struct, frozen=True):
    """What Services may take their addresses and ports from."""

    cidr: IPv4Network
    ports: range  # of node ports

    @property
    def first(self) -> str:
        """Return the address of the ``kubernetes`` Service."""
        return str(self.cidr[1])


def _has_address(spec: ServiceSpec) -> bool:
    return takes_address(spec) and spec.cluster_ip != "None"


def _takes_ports(spec: ServiceSpec) -> bool:
    return takes_ports(spec) and (spec.type == "NodePort" or spec.allocate_load_balancer_node_ports is not False)


def claims(service: Service | None) -> frozenset[str]:
    """Return the keys of everything that ``service`` has taken."""
    if service is None:
        return frozenset()
    keys = {f"{PREFIX}nodeports/{port.node_port}" for port in service.spec.ports if port.node_port}
    if _has_address(service.spec) and service.spec.cluster_ip:
        keys.add(f"{PREFIX}ips/{service.spec.cluster_ip}")
    if service.spec.health_check_node_port:
        keys.add(f"{PREFIX}nodeports/{service.spec.health_check_node_port}")
    return frozenset(keys)


def claim_writes(old: Service | None, new: Service | None) -> list[Write]:
    """Return the writes that turn the claims of ``old`` into those of ``new``."""
    before, after = claims(old), claims(new)
    owner = b""
    if new is not None:
        owner = f"{new.metadata.namespace}/{new.metadata.name}".encode()
    writes: list[Write] = [Remove(key, None) for key in sorted(before - after)]
    writes += [Put(key, owner, 0) for key in sorted(after - before)]
    return writes


def with_families(spec: ServiceSpec) -> ServiceSpec:
    """Return ``spec`` with the families of addresses that it leaves open: this cluster has IPv4 alone."""
    if not takes_address(spec):
        return spec
    families = spec.ip_families or ("IPv4",)
    policy = spec.ip_family_policy
    if is_headless(spec) and not spec.selector:
        # Whose endpoints somebody else writes down: of both families, unless it says otherwise.
        policy = policy or "RequireDualStack"
        if policy != "SingleStack" and len(families) < 2:
            families = (families[0], "IPv6" if families[0] == "IPv4" else "IPv4")
    return replace(spec, ip_families=families, ip_family_policy=policy or "SingleStack")


def _family_faults(spec: ServiceSpec) -> list[Fault]:
    """Return what is wrong with the families of addresses that a service asks for."""
    if not takes_address(spec) or (is_headless(spec) and not spec.selector):
        return []
    at = "spec.ipFamilyPolicy"
    inferred = tuple("IPv6" if ":" in each else "IPv4" for each in spec.cluster_ips if each != "None")
    families = spec.ip_families + inferred[len(spec.ip_families) :]
    found = [
        wrong(f"spec.ipFamilies[{index}]", each, "not configured on this cluster")
        for index, each in enumerate(families)
        if each != "IPv4"
    ]
    for name, given in (("clusterIPs", spec.cluster_ips), ("ipFamilies", spec.ip_families)):
        if len(given) > 1 and spec.ip_family_policy in ("", "SingleStack"):
            why = f"must be RequireDualStack or PreferDualStack when multiple `{name}` are specified"
            found.append(wrong(at, spec.ip_family_policy or None, why))
    if spec.ip_family_policy == "RequireDualStack":
        found.append(wrong(at, spec.ip_family_policy, "this cluster is not configured for dual-stack services"))
    return found


def faults(service: Service, network: ServiceNetwork) -> list[Fault]:
    """Return what is wrong with the address and ports that the author chose."""
    found = address_field_faults(service.spec) if takes_address(service.spec) else []
    found = found or _family_faults(service.spec)
    chosen = service.spec.cluster_ip
    if not found and _has_address(service.spec) and chosen and IPv4Address(chosen) not in network.cidr:
        why = (
            f"failed to allocate IP {chosen}: the provided IP ({chosen}) is not in the valid range. The range of valid "
            f"IPs is {network.cidr}"
        )
        found.append(wrong("spec.clusterIPs", [chosen], why))
    for index, port in enumerate(service.spec.ports):
        if port.node_port and port.node_port not in network.ports:
            why = (
                "provided port is not in the valid range. The range of valid ports is "
                f"{network.ports.start}-{network.ports.stop - 1}"
            )
            found.append(wrong(f"spec.ports[{index}].nodePort", port.node_port, why))
    return found


class Picker:
    """Picks what a Service still lacks.

    taken: keys of claims that are known to be taken; a stale answer costs an attempt, never a clash.
    """

    def __init__(self, network: ServiceNetwork, rng: random.Random) -> None:
        self._network = network
        self._rng = rng

    def fill(self, service: Service, taken: Collection[str]) -> Service:
        """Return ``service`` with an address and node ports; raises InternalError when there are none left."""
        spec = with_families(service.spec)
        if _has_address(spec):
            address = spec.cluster_ip or self._address(taken)
            spec = replace(spec, cluster_ip=address, cluster_ips=(address,))
        if _takes_ports(spec):
            spec = replace(spec, ports=self._ports(spec.ports, taken))
        if needs_health_port(spec) and not spec.health_check_node_port:
            here = {f"{PREFIX}nodeports/{each.node_port}" for each in spec.ports}
            spec = replace(spec, health_check_node_port=self._port({*taken, *here}))
        return replace(service, spec=spec)

    def _ports(self, ports: Iterable[ServicePort], taken: Collection[str]) -> tuple[ServicePort, ...]:
        filled: list[ServicePort] = []
        for port in ports:
            if not port.node_port:
                # One number may serve the same port over TCP and UDP.
                twin = next((each.node_port for each in filled if each.port == port.port), None)
                if twin is not None and all(
                    each.protocol != port.protocol for each in filled if each.node_port == twin
                ):
                    filled.append(replace(port, node_port=twin))
                    continue
                here = {f"{PREFIX}nodeports/{each.node_port}" for each in filled}
                filled.append(replace(port, node_port=self._port({*taken, *here})))
            else:
                filled.append(port)
        return tuple(filled)

    def _address(self, taken: Collection[str]) -> str:
        size = self._network.cidr.num_addresses
        # The first addresses are left to those who ask for them by number: the API itself, DNS.
        reserved = min(max(16, size // 16), 256) if size > 64 else 2
        number = self._pick(range(reserved, size - 1), lambda n: f"{PREFIX}ips/{self._network.cidr[n]}" in taken)
        if number is None:
            number = self._pick(range(2, reserved), lambda n: f"{PREFIX}ips/{self._network.cidr[n]}" in taken)
        if number is None:
            raise InternalError("failed to allocate a serviceIP: range is full")
        return str(self._network.cidr[number])

    def _port(self, taken: Collection[str]) -> int:
        number = self._pick(self._network.ports, lambda n: f"{PREFIX}nodeports/{n}" in taken)
        if number is None:
            raise InternalError("failed to allocate a nodePort: range is full")
        return number

    def _pick(self, numbers: range, is_taken: Callable[[int], bool]) -> int | None:
        """Return a free number: a random one, or after unlucky draws the first."""
        if not numbers:
            return None
        for _ in range(_ATTEMPTS):
            number = self._rng.choice(numbers)
            if not is_taken(number):
                return number
        return next((number for number in numbers if not is_taken(number)), None)


class ServiceClaims:
    """Completes Services on their way into the store; see ``master.writes.Claimant``.

    known: returns the Services that exist, as the cache has them.
    """

    def __init__(self, network: ServiceNetwork, known: Callable[[], Iterable[Resource]], rng: random.Random) -> None:
        self._network = network
        self._picker = Picker(network, rng)
        self._known = known

    def complete(self, old: Resource | None, new: Resource, avoid: Collection[str]) -> Resource:
        """Return ``new`` with its address and ports; raises Invalid for chosen ones out of range."""
        service = _some_service(new)
        if found := faults(service, self._network):
            raise invalid("Service", service.metadata.name, found)
        taken = set(avoid)
        for each in self._known():
            taken |= claims(_some_service(each))
        return self._picker.fill(service, taken - claims(_service(old)))

    def writes(self, old: Resource | None, new: Resource | None) -> list[Write]:
        """Return what takes and gives back addresses and ports."""
        return claim_writes(_service(old), _service(new))

    def refusal(self, asked: Resource, refused: Refused) -> ApiError | None:
        """Return why ``asked`` cannot have what it named itself; None if only picked ones clashed: pick again."""
        service = _some_service(asked)
        chosen = claims(service)
        for key, present in refused.present.items():
            if key in chosen and present is not None:
                return _taken(service, key)
        return None


def _some_service(obj: Resource) -> Service:
    assert isinstance(obj, Service), f"{obj.kind} where a Service belongs"
    return obj


def _service(obj: Resource | None) -> Service | None:
    return None if obj is None else _some_service(obj)


def _taken(service: Service, key: str) -> ApiError:
    number = key.rpartition("/")[2]
    if "/ips/" in key:
        why = f"failed to allocate IP {number}: provided IP is already allocated"
        fault = wrong("spec.clusterIPs", [number], why)
    else:
        index = next((n for n, port in enumerate(service.spec.ports) if str(port.node_port) == number), 0)
        fault = wrong(f"spec.ports[{index}].nodePort", int(number), "provided port is already allocated")
    return invalid("Service", service.metadata.name, [fault])
