"""The way to the other nodes' pods: a route over the shared link, VXLAN where there is none.

``plan_paths`` decides per peer, ``plan_changes`` compares with what the kernel holds; ``Routes`` applies.
Routes are marked with a protocol number of our own, so nobody else's are touched.

VXLAN needs no exchange of addresses: the MAC of a node's VXLAN interface is made from its host address,
and the gateway on the far side is the first address of the peer's pod CIDR, as on its bridge.
"""

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, assert_never

import msgspec

from node_agent.network import kernel

log = logging.getLogger(__name__)

ROUTE_PROTOCOL = 84
VXLAN_DEVICE = "trireme.vxlan"
VXLAN_ID = 84
VXLAN_PORT = 8472
VXLAN_OVERHEAD = 50
ONLINK = 4  # RTNH_F_ONLINK: the gateway is on that link although no address says so


class Peer(msgspec.Struct, frozen=True):
    """Another node: where its host is and which pods it has."""

    name: str
    host_address: str
    pod_cidr: str


class Direct(msgspec.Struct, frozen=True, order=True):
    """The peer's host is on a link that we share."""

    pod_cidr: str
    gateway: str


class Tunnel(msgspec.Struct, frozen=True, order=True):
    """The peer's host is behind a router."""

    pod_cidr: str
    host_address: str

    @property
    def gateway(self) -> str:
        """The peer's bridge address."""
        return str(ipaddress.IPv4Network(self.pod_cidr)[1])


Path = Direct | Tunnel


class Add(msgspec.Struct, frozen=True):
    """Make a path that the kernel lacks."""

    path: Path


class Remove(msgspec.Struct, frozen=True):
    """Remove a path that leads nowhere any more."""

    path: Path


Change = Add | Remove


def plan_paths(*, own_name: str, own_networks: Sequence[str], peers: Iterable[Peer]) -> frozenset[Path]:
    """Decide how each peer is reached.

    own_networks: the networks of this host's own interfaces, ``address/length``. A peer without a pod
    CIDR yet, or with one that another peer (by name) has already, gets no path.
    """
    networks = [ipaddress.ip_interface(n).network for n in own_networks]
    paths: dict[str, Path] = {}
    for peer in sorted(peers, key=lambda p: p.name):
        if peer.name == own_name or not peer.pod_cidr or not peer.host_address or peer.pod_cidr in paths:
            continue
        shared = any(ipaddress.ip_address(peer.host_address) in network for network in networks)
        paths[peer.pod_cidr] = (
            Direct(peer.pod_cidr, peer.host_address) if shared else Tunnel(peer.pod_cidr, peer.host_address)
        )
    return frozenset(paths.values())


def plan_changes(current: Collection[Path], wanted: Collection[Path]) -> list[Change]:
    """Return what leads from ``current`` to ``wanted``: removals first, as a CIDR may change its way."""
    gone = sorted(set(current) - set(wanted), key=lambda p: p.pod_cidr)
    new = sorted(set(wanted) - set(current), key=lambda p: p.pod_cidr)
    return [*(Remove(p) for p in gone), *(Add(p) for p in new)]


class Routes:
    """Keeps this host's routes to the other nodes' pods.

    own_address: this host's address as the peers know it; source_address: the bridge's address, which
    the host uses towards pods behind a tunnel. repair_s: how long an update with unchanged peers takes the
    kernel's routes for granted; nodes report every second, and each report ends here.
    """

    def __init__(
        self,
        *,
        own_name: str,
        own_address: str,
        source_address: str,
        repair_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own_name = own_name
        self._own_address = own_address
        self._source_address = source_address
        self._repair_s = repair_s
        self._clock = clock
        self._lock = asyncio.Lock()
        # The peers of the latest update that succeeded, and when that was.
        self._peers: frozenset[Peer] = frozenset()
        self._looked_at = float("-inf")

    async def update(self, peers: Iterable[Peer]) -> int:
        """Bring the kernel's routes to what ``peers`` need; returns the number of changes.

        Raises KernelRefused; what was done before stays, and the next update continues.
        """
        nodes = frozenset(peers)
        async with self._lock:
            if nodes == self._peers and self._clock() - self._looked_at < self._repair_s:
                return 0
            changes = await asyncio.to_thread(self._update, nodes)
            self._peers, self._looked_at = nodes, self._clock()
            return changes

    async def clean_up(self) -> None:
        """Remove every route of ours and the VXLAN interface."""
        async with self._lock:
            self._looked_at = float("-inf")
            await asyncio.to_thread(self._clean_up)

    def _update(self, peers: frozenset[Peer]) -> int:
        with kernel.netlink("update routes to pods") as socket:
            networks = _own_networks(socket)
            wanted = plan_paths(own_name=self._own_name, own_networks=networks, peers=peers)
            changes = plan_changes(_current_paths(socket), wanted)
            for change in changes:
                self._apply(socket, change)
        return len(changes)

    def _apply(self, socket: Any, change: Change) -> None:
        path = change.path
        match change:
            case Add() if isinstance(path, Tunnel):
                self._add_tunnel(socket, path)
            case Add():
                socket.route("replace", dst=path.pod_cidr, gateway=path.gateway, proto=ROUTE_PROTOCOL)
            case Remove():
                if isinstance(path, Tunnel):
                    _forget_neighbour(socket, path)
                socket.route("del", dst=path.pod_cidr, gateway=path.gateway, proto=ROUTE_PROTOCOL)
            case _:
                assert_never(change)
        log.info("route changed action=%s path=%s", type(change).__name__.lower(), path)

    def _add_tunnel(self, socket: Any, path: Tunnel) -> None:
        device = self._vxlan(socket)
        mac = mac_of_host(path.host_address)
        # The frame's destination first, then who answers for the gateway, then the route itself.
        try:
            socket.fdb("add", ifindex=device, lladdr=mac, dst=path.host_address)
        except kernel.NetlinkError as exc:
            if exc.code != kernel.EXISTS:  # the address makes the MAC, so what is there is right
                raise
        socket.neigh("replace", ifindex=device, dst=path.gateway, lladdr=mac, state=PERMANENT)
        socket.route(
            "replace",
            dst=path.pod_cidr,
            gateway=path.gateway,
            oif=device,
            flags=ONLINK,
            prefsrc=self._source_address,
            proto=ROUTE_PROTOCOL,
        )

    def _vxlan(self, socket: Any) -> int:
        """Return the index of the VXLAN interface; make it if it is not there."""
        index = kernel.link_index(socket, VXLAN_DEVICE)
        if index is None:
            socket.link(
                "add",
                ifname=VXLAN_DEVICE,
                kind="vxlan",
                vxlan_id=VXLAN_ID,
                vxlan_port=VXLAN_PORT,
                vxlan_local=self._own_address,
                vxlan_learning=False,
                address=mac_of_host(self._own_address),
                mtu=kernel.uplink_mtu() - VXLAN_OVERHEAD,
            )
            index = kernel.link_index(socket, VXLAN_DEVICE)
            assert index is not None, VXLAN_DEVICE
            log.info("VXLAN interface created name=%s id=%d port=%d", VXLAN_DEVICE, VXLAN_ID, VXLAN_PORT)
        socket.link("set", index=index, state="up")
        return index

    def _clean_up(self) -> None:
        with kernel.netlink("remove routes to pods") as socket:
            for path in _current_paths(socket):
                self._apply(socket, Remove(path))
            index = kernel.link_index(socket, VXLAN_DEVICE)
            if index is not None:
                socket.link("del", index=index)


PERMANENT = 0x80  # NUD_PERMANENT


def mac_of_host(address: str) -> str:
    """Return the MAC address of the VXLAN interface on the host with this address."""
    return ":".join(f"{octet:02x}" for octet in (0x0A, 0x54, *ipaddress.IPv4Address(address).packed))


def _own_networks(socket: Any) -> list[str]:
    return [f"{a.get('address')}/{a['prefixlen']}" for a in socket.get_addr(family=2) if a.get("address")]


def _current_paths(socket: Any) -> frozenset[Path]:
    """Read our routes; one through the VXLAN interface is a tunnel whose host the FDB knows."""
    device = kernel.link_index(socket, VXLAN_DEVICE)
    hosts = {}
    if device is not None:
        hosts = {e.get("lladdr"): e.get("dst") for e in socket.fdb("dump", ifindex=device)}
        hosts = {mac: dst for mac, dst in hosts.items() if dst}
    neighbours = (
        {n.get("dst"): n.get("lladdr") for n in socket.get_neighbours(ifindex=device, family=2)}
        if device is not None
        else {}
    )
    paths: set[Path] = set()
    for route in socket.get_routes(family=2, proto=ROUTE_PROTOCOL):
        cidr, gateway = f"{route.get('dst')}/{route['dst_len']}", route.get("gateway")
        if device is not None and route.get("oif") == device:
            # Without its neighbour entry the tunnel is broken: an unknown host has it made again.
            paths.add(Tunnel(cidr, hosts.get(neighbours.get(gateway), "")))
        else:
            paths.add(Direct(cidr, gateway))
    return frozenset(paths)


def _forget_neighbour(socket: Any, path: Tunnel) -> None:
    device = kernel.link_index(socket, VXLAN_DEVICE)
    if device is None or not path.host_address:
        return
    mac = mac_of_host(path.host_address)
    for command, entry in (
        (socket.neigh, {"ifindex": device, "dst": path.gateway, "lladdr": mac}),
        (socket.fdb, {"ifindex": device, "lladdr": mac, "dst": path.host_address}),
    ):
        try:
            command("del", **entry)
        except kernel.NetlinkError as exc:
            if exc.code not in (kernel.NO_SUCH_DEVICE, kernel.NO_SUCH_ENTRY):
                raise
