"""What a lab is: its hosts, their roles and addresses, and the few choices made when it was brought up.

Everything here is a value; ``state.py`` keeps it on disk and the host drivers make it real.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from deploy.errors import UsageError

Role = Literal["entry", "master", "node"]
ROLES: tuple[Role, ...] = ("entry", "master", "node")
Network = ipaddress.IPv4Network

API_PORT = 6443  # REST over TLS, on every master and on the entry host
GRPC_PORT = 6444
STORE_PORT = 2379
PEER_PORT = 2380
STORE_METRICS_PORT = 2381
AGENT_PORT = 10250

POD_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
KUBERNETES_SERVICE = "10.96.0.1"  # first address of SERVICE_CIDR: the API itself, as pods see it
CLUSTER_DNS = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"

# Where a role's addresses begin in the lab's /24; .1 is the network's gateway.
FIRST_ADDRESS: dict[Role, int] = {"entry": 10, "master": 11, "node": 21}
MAX_MASTERS = 7
MAX_NODES = 200
# Candidates for a lab's network: neither Docker's default pools nor POD_CIDR and SERVICE_CIDR lie here.
SUBNETS = ipaddress.IPv4Network("10.89.0.0/16")

# Programs each role runs, as their log folders are called.
PROGRAMS: dict[Role, tuple[str, ...]] = {
    "entry": ("haproxy",),
    "master": ("master", "raft_store"),
    "node": ("node_agent", "dockerd"),
}
BALANCER_PROGRAMS = ("haproxy", "keepalived")  # beside each master where there is no entry host


class Host(msgspec.Struct, frozen=True):
    """One host; its name is its DNS name, and its address never changes."""

    name: str
    role: Role
    address: str


class StoreTls(msgspec.Struct, frozen=True):
    """Files on this machine with which the masters talk to an external store."""

    ca: str
    cert: str
    key: str


class Lab(msgspec.Struct, frozen=True):
    """A lab as ``lab.json`` keeps it."""

    name: str
    driver: Literal["containers", "vagrant"]
    engine: str  # of the store: "native" or "raftos"
    subnet: str
    hosts: tuple[Host, ...]
    api_publish: str = ""  # "address:port" on this machine at which the API is published as well
    store_endpoints: tuple[str, ...] = ()  # an external store; empty: the lab's own
    store_tls: StoreTls | None = None
    folder: str = ""  # of the Vagrantfile, driver "vagrant" only
    virtual_address: str = ""  # kept by keepalived on one of the masters, where there is no entry host
    from_snapshot: bool = False  # its store began with one
    complete: bool = False  # once every node was Ready; from then on a failing ``up`` removes nothing

    def of_role(self, role: Role) -> tuple[Host, ...]:
        """Return the hosts of ``role`` in their order."""
        return tuple(host for host in self.hosts if host.role == role)

    @property
    def masters(self) -> tuple[Host, ...]:
        """Return the masters; never empty."""
        return self.of_role("master")

    @property
    def nodes(self) -> tuple[Host, ...]:
        """Return the nodes."""
        return self.of_role("node")

    @property
    def api_address(self) -> str:
        """Return the one address of the control plane."""
        return self.virtual_address or self.of_role("entry")[0].address

    @property
    def api_url(self) -> str:
        """Return the URL that the kubeconfig names."""
        return f"https://{self.api_address}:{API_PORT}"

    def programs(self, host: Host) -> tuple[str, ...]:
        """Return the programs that ``host`` runs."""
        programs = PROGRAMS[host.role]
        if host.role == "master" and self.store_endpoints:
            programs = tuple(name for name in programs if name != "raft_store")
        return programs + (BALANCER_PROGRAMS if host.role == "master" and self.virtual_address else ())

    def host(self, name: str) -> Host:
        """Return the host called ``name``; raises UsageError naming those that there are."""
        for host in self.hosts:
            if host.name == name:
                return host
        names = ", ".join(host.name for host in self.hosts)
        raise UsageError(f"lab '{self.name}' has no host called '{name}'", hint=f"its hosts are: {names}")


def check_name(name: str) -> str:
    """Return ``name`` if it may name a lab: it becomes part of container, network and volume names."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?", name):
        raise UsageError(
            f"'{name}' cannot be a lab's name",
            hint="use 1 to 30 lower-case letters, digits and inner hyphens, for example: --name lab2",
        )
    return name


def check_size(*, masters: int, nodes: int) -> None:
    """Raise UsageError unless a lab of that size can be built."""
    if not 1 <= masters <= MAX_MASTERS:
        raise UsageError(f"a lab has 1 to {MAX_MASTERS} masters, not {masters}", hint="3 survive the loss of one")
    if not 0 <= nodes <= MAX_NODES:
        raise UsageError(f"a lab has 0 to {MAX_NODES} nodes, not {nodes}")


def plan_hosts(subnet: str, *, masters: int, nodes: int, entry: bool = True) -> tuple[Host, ...]:
    """Return the hosts of a lab on ``subnet`` (a /24) with their fixed addresses."""
    network = ipaddress.IPv4Network(subnet)
    hosts = [Host("entry", "entry", str(network[FIRST_ADDRESS["entry"]]))] if entry else []
    hosts += [Host(f"master{i + 1}", "master", str(network[FIRST_ADDRESS["master"] + i])) for i in range(masters)]
    hosts += [Host(f"node{i + 1}", "node", str(network[FIRST_ADDRESS["node"] + i])) for i in range(nodes)]
    return tuple(hosts)


def pick_subnet(taken: Iterable[Network]) -> str:
    """Return a /24 that overlaps none of ``taken`` (networks of the engine, routes of this machine)."""
    occupied = list(taken)
    for candidate in SUBNETS.subnets(new_prefix=24):
        if not any(candidate.overlaps(network) for network in occupied):
            return str(candidate)
    raise UsageError(f"no free /24 is left in {SUBNETS}", hint="take labs down that are no longer needed: trireme list")


def routed_networks(proc_net_route: str) -> list[Network]:
    """Return the destinations in the text of ``/proc/net/route``, the default route left out."""
    networks = []
    for line in proc_net_route.splitlines()[1:]:
        fields = line.split()
        destination, mask = _little_endian(fields[1]), _little_endian(fields[7])
        if int(mask) != 0:
            networks.append(ipaddress.IPv4Network((int(destination) & int(mask), str(mask))))
    return networks


def _little_endian(hexadecimal: str) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int.from_bytes(bytes.fromhex(hexadecimal), "little"))


def resize(lab: Lab, *, masters: int | None, nodes: int | None, engine: str | None) -> Lab:
    """Return ``lab`` with more nodes; raises UsageError for what cannot change while a lab lives."""
    down = f"take it down first: trireme down --name {lab.name}"
    if masters is not None and masters != len(lab.masters):
        raise UsageError(f"lab '{lab.name}' has {len(lab.masters)} masters and cannot get {masters}", hint=down)
    if engine is not None and engine != lab.engine:
        raise UsageError(f"lab '{lab.name}' runs the {lab.engine} store and cannot change to {engine}", hint=down)
    if nodes is None or nodes == len(lab.nodes):
        return lab
    if nodes < len(lab.nodes):
        raise UsageError(f"lab '{lab.name}' has {len(lab.nodes)} nodes and cannot shrink to {nodes}", hint=down)
    check_size(masters=len(lab.masters), nodes=nodes)
    hosts = plan_hosts(lab.subnet, masters=len(lab.masters), nodes=nodes, entry=bool(lab.of_role("entry")))
    return msgspec.structs.replace(lab, hosts=hosts)


def pick_hosts(lab: Lab, names: Sequence[str]) -> tuple[Host, ...]:
    """Return the named hosts, each once, in the order given; raises UsageError for the first unknown one."""
    return tuple(lab.host(name) for name in dict.fromkeys(names))
