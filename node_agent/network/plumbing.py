"""Connects pods to the node's bridge, the way a CNI bridge plugin does.

One bridge per node carries the first address of the node's pod CIDR. A pod gets a veth pair: the host
end is a port of the bridge in hairpin mode (a pod may reach itself through its own service), the other
end is ``eth0`` in the sandbox's namespace with one address and a default route. MAC addresses are made
from the IPv4 address, so a reused address never meets a stale ARP entry, and the bridge's own does not
change when ports come and go.

The host end's alias holds pod key and address. So the kernel itself says who is plugged in, and
``recover`` needs no record of ours to be right.
"""

import asyncio
import hashlib
import ipaddress
import logging
import threading
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from node_agent.commands import run_command
from node_agent.errors import CommandFailed
from node_agent.network import kernel
from node_agent.network.addresses import AddressBook, AddressFile
from node_agent.network.host_ports import HostPort
from node_agent.network.kernel import Namespace
from node_agent.network.masquerade import PodFirewall

log = logging.getLogger(__name__)

BRIDGE = "trireme0"
POD_INTERFACE = "eth0"
HOST_PREFIX = "tri"
KEY_LIMIT = 128


class PodAddress(msgspec.Struct, frozen=True):
    """Where a pod is plugged in."""

    address: str
    prefix_length: int
    gateway: str
    mac: str
    host_interface: str


def mac_of(address: str) -> str:
    """Return the locally administered MAC address that belongs to an IPv4 address."""
    return ":".join(f"{octet:02x}" for octet in (0x0A, 0x58, *ipaddress.IPv4Address(address).packed))


def host_interface_of(pod_key: str) -> str:
    """Return the name of a pod's host-side interface; 14 characters, the kernel allows 15."""
    return HOST_PREFIX + hashlib.sha256(pod_key.encode()).hexdigest()[:11]


class PodNetwork:
    """The pod network of one node.

    pod_cidr: this node's share of the cluster's pod addresses.
    pod_key: names a pod in every call; its UID is what suits (at most 128 characters, no blanks).
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        pod_cidr: str,
        firewall: PodFirewall,
        mtu: int | None = None,
        bridge: str = BRIDGE,
    ) -> None:
        self._file = AddressFile(data_dir / "network" / "addresses.json")
        self._book = AddressBook(pod_cidr)
        # Held while the book changes and is saved; attach runs in several threads.
        self._book_lock = threading.Lock()
        self._firewall = firewall
        self._mtu = mtu
        self.bridge = bridge

    async def set_up(self) -> None:
        """Make bridge, sysctls and firewall chains; what is there already stays as it is."""
        await asyncio.to_thread(self._set_up)

    async def attach(self, sandbox: Namespace, pod_key: str, ports: tuple[HostPort, ...] = ()) -> PodAddress:
        """Plug the pod whose sandbox is given (process id or namespace file) into the network.

        ports: the node's ports that lead to it, until it is unplugged.
        Repeating it gives the same answer. Raises AddressesExhausted, KernelRefused; then nothing is left.
        """
        _check_key(pod_key)
        return await asyncio.to_thread(self._attach, sandbox, pod_key, ports)

    async def detach(self, pod_key: str) -> None:
        """Unplug the pod and free its address; no error if it is not there."""
        _check_key(pod_key)
        await asyncio.to_thread(self._detach, pod_key)

    async def recover(self, known_pods: Collection[str]) -> frozenset[str]:
        """After a restart: unplug and free everything of pods not in ``known_pods``.

        Returns the known pods that are plugged in; the others need ``attach``.
        """
        return await asyncio.to_thread(self._recover, frozenset(known_pods))

    async def clean_up(self) -> None:
        """Remove bridge, pod interfaces and firewall chains. Leases stay on disk."""
        await asyncio.to_thread(self._clean_up)

    def address_of(self, pod_key: str) -> str | None:
        """Return the address that the pod holds, if any."""
        return self._book.leases.get(pod_key)

    def ensure_firewall(self) -> bool:
        """Write the firewall chains again if somebody flushed them; whether that was needed. Blocks."""
        return self._firewall.ensure()

    def _set_up(self) -> None:
        with self._book_lock:
            self._book = self._file.load(self._book.cidr)
        self._mtu = self._mtu or kernel.uplink_mtu()
        kernel.write_sysctl("net/ipv4/ip_forward", "1")
        _let_iptables_see_the_bridge()
        with kernel.netlink(f"set up bridge {self.bridge}") as socket:
            index = kernel.link_index(socket, self.bridge)
            if index is None:
                socket.link("add", ifname=self.bridge, kind="bridge", mtu=self._mtu)
                index = kernel.link_index(socket, self.bridge)
                log.info("bridge created name=%s address=%s", self.bridge, self._book.gateway)
            socket.link("set", index=index, address=mac_of(self._book.gateway), state="up")
            self._keep_only_gateway(socket, index)
        self._firewall.open_ports(self._book.open_ports)

    def _keep_only_gateway(self, socket: Any, index: int | None) -> None:
        wanted = (self._book.gateway, self._book.network.prefixlen)
        present = {(a.get("address"), a["prefixlen"]) for a in socket.get_addr(index=index, family=2)}
        for address, length in present - {wanted}:
            socket.addr("del", index=index, address=address, prefixlen=length)
        if wanted not in present:
            socket.addr("add", index=index, address=wanted[0], prefixlen=wanted[1])

    def _attach(self, sandbox: Namespace, pod_key: str, ports: tuple[HostPort, ...]) -> PodAddress:
        with self._book_lock:
            fresh = pod_key not in self._book.leases
            book = self._book.assign(pod_key, ports)
            self._keep(book)
        pod = PodAddress(
            address=book.leases[pod_key],
            prefix_length=book.network.prefixlen,
            gateway=book.gateway,
            mac=mac_of(book.leases[pod_key]),
            host_interface=host_interface_of(pod_key),
        )
        try:
            with kernel.namespace_file(sandbox) as namespace:
                self._plug(namespace, pod, f"{pod_key} {pod.address}")
        except BaseException:
            if fresh:
                self._detach(pod_key)
            raise
        log.info("pod attached pod=%s address=%s interface=%s", pod_key, pod.address, pod.host_interface)
        return pod

    def _plug(self, namespace: int, pod: PodAddress, alias: str) -> None:
        with kernel.netlink(f"plug {pod.host_interface} into {self.bridge}") as socket:
            index = kernel.link_index(socket, pod.host_interface)
            if index is not None:
                if kernel.run_inside(namespace, partial(_is_plugged, pod, index)):
                    return
                socket.link("del", index=index)  # left from an earlier sandbox of this pod
            peer = {"ifname": POD_INTERFACE, "net_ns_fd": namespace, "mtu": self._mtu, "address": pod.mac}
            socket.link("add", ifname=pod.host_interface, kind="veth", mtu=self._mtu, peer=peer)
            index = kernel.link_index(socket, pod.host_interface)
            master = kernel.link_index(socket, self.bridge)
            try:
                socket.link("set", index=index, ifalias=alias, master=master, state="up")
                socket.brport("set", index=index, mode=1)  # hairpin
                kernel.run_inside(namespace, partial(_configure_inside, pod))
            except BaseException:
                socket.link("del", index=index)
                raise

    def _detach(self, pod_key: str) -> None:
        name = host_interface_of(pod_key)
        with kernel.netlink(f"unplug {name}") as socket:
            _delete_link(socket, name)
        with self._book_lock:
            book = self._book.release(pod_key)
            if book is not self._book:
                self._keep(book)
                log.info("pod detached pod=%s", pod_key)

    def _keep(self, book: AddressBook) -> None:
        """Take ``book`` for the present one, on disk and in the kernel; the caller holds the lock.

        It is the present one only when all is done: else whoever tries again would find nothing left to do.
        """
        if book is self._book:
            return
        if book.open_ports != self._book.open_ports:
            self._firewall.open_ports(book.open_ports)
        self._file.save(book)
        self._book = book

    def _recover(self, known: frozenset[str]) -> frozenset[str]:
        with kernel.netlink("look for plugged pods") as socket:
            in_use = _plugged_pods(socket, self.bridge)
            for pod_key in in_use.keys() - known:
                _delete_link(socket, host_interface_of(pod_key))
                log.info("leaked interface removed pod=%s", pod_key)
        with self._book_lock:
            book = self._book.retain(known, in_use)
            if book is not self._book:
                log.info("address book recovered leases=%d were=%d", len(book.leases), len(self._book.leases))
                self._keep(book)
        return frozenset(in_use.keys() & known)

    def _clean_up(self) -> None:
        with kernel.netlink(f"remove bridge {self.bridge}") as socket:
            for pod_key in _plugged_pods(socket, self.bridge):
                _delete_link(socket, host_interface_of(pod_key))
            _delete_link(socket, self.bridge)
        self._firewall.remove()


def _let_iptables_see_the_bridge() -> None:
    """Send bridged packets through iptables.

    Otherwise a pod's answer to a pod of the same node that asked through a service goes straight over the
    bridge, without the service's address put back, and is thrown away.
    """
    key = "net/bridge/bridge-nf-call-iptables"
    if kernel.write_sysctl(key, "1"):
        return
    try:
        run_command(["modprobe", "br_netfilter"])
    except CommandFailed as exc:
        log.warning("module br_netfilter not loaded error=%s", exc)
    if not kernel.write_sysctl(key, "1"):
        log.warning("bridged packets bypass iptables: services fail between pods of this node")


def _check_key(pod_key: str) -> None:
    if not pod_key or len(pod_key) > KEY_LIMIT or any(c.isspace() for c in pod_key):
        raise ValueError(f"pod key {pod_key!r}: needs 1 to {KEY_LIMIT} characters, none of them blank")


def _delete_link(socket: Any, name: str) -> None:
    index = kernel.link_index(socket, name)
    if index is None:
        return
    try:
        socket.link("del", index=index)
    except kernel.NetlinkError as exc:
        # The sandbox may end, and take the pair with it, between look-up and removal.
        if exc.code != kernel.NO_SUCH_DEVICE:
            raise


def _plugged_pods(socket: Any, bridge: str) -> dict[str, str]:
    """Return pod key -> address of every pod interface on the bridge, from the interfaces' aliases."""
    master = kernel.link_index(socket, bridge)
    found = {}
    for link in socket.get_links():
        alias = (link.get("ifalias") or "").split(" ")
        name = link.get("ifname") or ""
        if name.startswith(HOST_PREFIX) and link.get("master") == master and len(alias) == 2:
            found[alias[0]] = alias[1]
    return found


def _is_plugged(pod: PodAddress, host_index: int) -> bool:
    """Whether this namespace holds the other end of the host interface, with the pod's address."""
    with kernel.netlink("look at the pod's interface") as socket:
        index = kernel.link_index(socket, POD_INTERFACE)
        if index is None or socket.get_links(index)[0].get("link") != host_index:
            return False
        return any(a.get("address") == pod.address for a in socket.get_addr(index=index, family=2))


def _configure_inside(pod: PodAddress) -> None:
    with kernel.netlink(f"configure {POD_INTERFACE} with {pod.address}") as socket:
        socket.link("set", index=kernel.link_index(socket, "lo"), state="up")
        index = kernel.link_index(socket, POD_INTERFACE)
        socket.link("set", index=index, state="up")
        socket.addr("add", index=index, address=pod.address, prefixlen=pod.prefix_length)
        socket.route("add", dst="0.0.0.0/0", gateway=pod.gateway, oif=index)
