"""Service addresses and node ports: picked at random, made unique by the store.

Each taken address and port is a key of its own, written and deleted in the same transaction as its Service: two masters
that pick the same one cannot both commit, and nothing leaks when one dies half way.
"""

import random
from collections.abc import Callable, Collection, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network

import msgspec
from msgspec.structs import replace

from api.errors import ApiError, Fault, InternalError, invalid
from api.kinds.core import Service, ServicePort
from api.meta import Resource
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


def _takes_address(service: Service) -> bool:
    return service.spec.type in ("ClusterIP", "NodePort", "LoadBalancer") and service.spec.cluster_ip != "None"


def _takes_ports(service: Service) -> bool:
    return service.spec.type == "NodePort" or (
        service.spec.type == "LoadBalancer" and service.spec.allocate_load_balancer_node_ports is not False
    )


def claims(service: Service | None) -> frozenset[str]:
    """Return the keys of everything that ``service`` has taken."""
    if service is None:
        return frozenset()
    keys = {f"{PREFIX}nodeports/{port.node_port}" for port in service.spec.ports if port.node_port}
    if _takes_address(service) and service.spec.cluster_ip:
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


def prepare(old: Service | None, new: Service) -> Service:
    """Return ``new`` with what it may not choose or must give back, before anything is picked.

    A Service keeps its address and ports through updates that do not mention them, as the real server has it.
    """
    spec = new.spec
    if spec.type == "ExternalName":
        ports = tuple(replace(port, node_port=None) for port in spec.ports)
        spec = replace(spec, cluster_ip="", cluster_ips=(), ports=ports, ip_families=(), ip_family_policy="")
        return replace(new, spec=spec)
    if old is not None and not spec.cluster_ip and _takes_address(old):
        spec = replace(spec, cluster_ip=old.spec.cluster_ip, cluster_ips=old.spec.cluster_ips)
    new = replace(new, spec=spec)
    if not _takes_ports(new):
        ports = tuple(replace(port, node_port=None) for port in spec.ports) if old is not None else spec.ports
        return replace(new, spec=replace(spec, ports=ports))
    if old is not None:
        new = replace(new, spec=replace(spec, ports=tuple(_inherited(port, old.spec.ports) for port in spec.ports)))
    return new


def _inherited(port: ServicePort, old: Sequence[ServicePort]) -> ServicePort:
    """Return ``port`` with the node port that it had; named ports are told apart by name, others by number."""
    if port.node_port:
        return port
    same = (each for each in old if (each.name, each.port, each.protocol) == (port.name, port.port, port.protocol))
    found = next(same, None)
    return replace(port, node_port=found.node_port) if found is not None else port


def faults(service: Service, network: ServiceNetwork) -> list[Fault]:
    """Return what is wrong with the address and ports that the author chose."""
    found = []
    chosen = service.spec.cluster_ip
    if _takes_address(service) and chosen:
        try:
            inside = IPv4Address(chosen) in network.cidr
        except ValueError:
            inside = False
        if not inside:
            why = (
                f'Invalid value: ["{chosen}"]: failed to allocate IP {chosen}: the provided IP ({chosen}) is not in '
                f"the valid range. The range of valid IPs is {network.cidr}"
            )
            found.append(Fault("spec.clusterIPs", why))
    for index, port in enumerate(service.spec.ports):
        if port.node_port and port.node_port not in network.ports:
            why = (
                f"Invalid value: {port.node_port}: provided port is not in the valid range. The range of valid ports "
                f"is {network.ports.start}-{network.ports.stop - 1}"
            )
            found.append(Fault(f"spec.ports[{index}].nodePort", why))
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
        spec = service.spec
        if _takes_address(service):
            address = spec.cluster_ip or self._address(taken)
            spec = replace(
                spec,
                cluster_ip=address,
                cluster_ips=(address,),
                ip_families=spec.ip_families or ("IPv4",),
                ip_family_policy=spec.ip_family_policy or "SingleStack",
            )
        elif spec.cluster_ip == "None":
            spec = replace(
                spec,
                cluster_ips=("None",),
                ip_families=spec.ip_families or ("IPv4",),
                ip_family_policy=spec.ip_family_policy or "SingleStack",
            )
        if _takes_ports(service):
            spec = replace(spec, ports=self._ports(spec.ports, taken))
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
        service = prepare(_service(old), _some_service(new))
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
        why = f'Invalid value: ["{number}"]: failed to allocate IP {number}: provided IP is already allocated'
        fault = Fault("spec.clusterIPs", why)
    else:
        index = next((n for n, port in enumerate(service.spec.ports) if str(port.node_port) == number), 0)
        why = f"Invalid value: {number}: provided port is already allocated"
        fault = Fault(f"spec.ports[{index}].nodePort", why)
    return invalid("Service", service.metadata.name, [fault])
