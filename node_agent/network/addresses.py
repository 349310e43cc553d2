"""Host-local address management: which pod of this node holds which address.

``AddressBook`` is a value and decides; ``AddressFile`` keeps one on disk. The book is saved before an
address is used, so a crash can only leak an address, never give one to two pods; ``retain`` takes the
leaked ones back.
"""

import ipaddress
import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from node_agent.errors import AddressesExhausted
from node_agent.network.host_ports import HostPort, OpenPorts

log = logging.getLogger(__name__)


class AddressBook(msgspec.Struct, frozen=True):
    """The leases of one pod CIDR: pod key -> address, and the node's ports that lead to these pods.

    last: the address given most recently; the search goes on behind it, so that an address rests as
    long as possible before the next pod gets it (peers may still hold connections to its last owner).
    """

    cidr: str
    leases: Mapping[str, str] = {}
    last: str = ""
    ports: Mapping[str, tuple[HostPort, ...]] = {}

    def __post_init__(self) -> None:
        if ipaddress.ip_network(self.cidr).version != 4:
            raise ValueError(f"pod CIDR {self.cidr}: only IPv4 is supported")
        if self.network.prefixlen > 30:
            raise ValueError(f"pod CIDR {self.cidr}: too small, it needs a gateway and at least one pod")

    @property
    def network(self) -> ipaddress.IPv4Network:
        """The pod CIDR, parsed."""
        return ipaddress.IPv4Network(self.cidr)

    @property
    def gateway(self) -> str:
        """The bridge's address: the first of the CIDR, never given to a pod."""
        return str(self.network[1])

    @property
    def open_ports(self) -> OpenPorts:
        """The node's ports that lead to pods, by the pods' addresses."""
        return {self.leases[key]: ports for key, ports in self.ports.items()}

    def assign(self, key: str, ports: tuple[HostPort, ...] = ()) -> "AddressBook":
        """Return a book in which ``key`` holds an address, the one it has already, if any, and these ports.

        Raises AddressesExhausted when every address is taken.
        """
        if key in self.leases:
            return self.with_ports(key, ports)
        first, final = int(self.network[2]), int(self.network[-2])
        taken = {int(ipaddress.IPv4Address(a)) for a in self.leases.values()}
        start = int(ipaddress.IPv4Address(self.last)) + 1 if self.last else first
        start = start if first <= start <= final else first
        for candidate in (*range(start, final + 1), *range(first, start)):
            if candidate not in taken:
                address = str(ipaddress.IPv4Address(candidate))
                book = msgspec.structs.replace(self, leases={**self.leases, key: address}, last=address)
                return book.with_ports(key, ports)
        raise AddressesExhausted(f"all {final - first + 1} addresses of {self.cidr} are taken")

    def with_ports(self, key: str, ports: tuple[HostPort, ...]) -> "AddressBook":
        """Return a book in which exactly these ports lead to ``key``; the same one if they do already."""
        if self.ports.get(key, ()) == ports:
            return self
        others = {k: p for k, p in self.ports.items() if k != key}
        return msgspec.structs.replace(self, ports={**others, key: ports} if ports else others)

    def release(self, key: str) -> "AddressBook":
        """Return a book without ``key``; the same one if it holds nothing."""
        if key not in self.leases:
            return self
        rest = {k: a for k, a in self.leases.items() if k != key}
        return msgspec.structs.replace(self.with_ports(key, ()), leases=rest)

    def retain(self, known: Collection[str], in_use: Mapping[str, str]) -> "AddressBook":
        """Return a book that holds the leases of ``known`` pods only.

        in_use: pod key -> address as the kernel has it. It wins over the book: a running pod keeps its
        address even if the book was lost.
        """
        plugged = {k: a for k, a in in_use.items() if k in known and self.holds(a)}
        held = set(plugged.values())
        waiting = {k: a for k, a in self.leases.items() if k in known and k not in plugged and a not in held}
        leases = {**waiting, **plugged}
        ports = {k: p for k, p in self.ports.items() if k in leases}
        return self if leases == self.leases else msgspec.structs.replace(self, leases=leases, ports=ports)

    def holds(self, address: str) -> bool:
        """Whether ``address`` is one that this book gives to pods."""
        number, network = int(ipaddress.IPv4Address(address)), self.network
        return int(network[2]) <= number <= int(network[-2])


class AddressFile:
    """An address book on disk, replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, cidr: str) -> AddressBook:
        """Return the saved book, or an empty one if there is none for this CIDR.

        A damaged file is set aside: the kernel knows the addresses in use (``retain``).
        """
        try:
            book = msgspec.json.decode(self.path.read_bytes(), type=AddressBook)
        except FileNotFoundError:
            return AddressBook(cidr)
        except (msgspec.DecodeError, ValueError) as exc:
            aside = self.path.with_suffix(".damaged")
            self.path.replace(aside)
            log.warning("address book damaged kept=%s error=%s", aside, exc)
            return AddressBook(cidr)
        if book.cidr != cidr:
            log.warning("pod CIDR changed old=%s new=%s leases_dropped=%d", book.cidr, cidr, len(book.leases))
            return AddressBook(cidr)
        return book

    def save(self, book: AddressBook) -> None:
        """Put ``book`` on disk; when this returns it survives a crash."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".new")
        with draft.open("wb") as file:
            file.write(msgspec.json.encode(book))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
