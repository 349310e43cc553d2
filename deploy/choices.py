"""What the caller of ``up`` chose, checked before anything is touched."""

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import UsageError
from deploy.lab import Lab, StoreTls, check_size, plan_hosts, resize

MASTERS, NODES, ENGINE = 3, 2, "native"
LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Choices:
    """The options of ``up``; None and "" mean that the caller left it to us."""

    name: str
    masters: int | None = None
    nodes: int | None = None
    engine: str | None = None
    api_publish: str = ""
    store_endpoints: tuple[str, ...] = ()
    store_tls: StoreTls | None = None
    from_snapshot: Path | None = None

    def new_lab(self, subnet: str) -> Lab:
        """Return the lab to make on ``subnet``; raises UsageError if it cannot be."""
        masters = MASTERS if self.masters is None else self.masters
        nodes = NODES if self.nodes is None else self.nodes
        check_size(masters=masters, nodes=nodes)
        if self.store_endpoints and self.engine:
            raise UsageError("--engine chooses the lab's own store, --store-endpoints another one: give one of them")
        if self.from_snapshot is not None and (self.store_endpoints or self.engine == "raftos"):
            raise UsageError("--from-snapshot is for the lab's own store, with the native engine")
        check_port_free(self.api_publish)
        return Lab(
            name=self.name,
            driver="containers",
            engine=self.engine or ENGINE,
            subnet=subnet,
            hosts=plan_hosts(subnet, masters=masters, nodes=nodes),
            api_publish=self.api_publish,
            store_endpoints=self.store_endpoints,
            store_tls=self.store_tls,
            from_snapshot=self.from_snapshot is not None,
        )

    def change(self, lab: Lab) -> Lab:
        """Return ``lab`` as these choices want it; raises UsageError for what cannot change while it lives."""
        down = f"take it down first: trireme down --name {lab.name}"
        if lab.driver != "containers":
            raise UsageError(f"lab '{lab.name}' runs on VMs", hint="bring it up with: vagrant up")
        if self.api_publish and self.api_publish != lab.api_publish:
            raise UsageError(f"lab '{lab.name}' does not publish its API at {self.api_publish}", hint=down)
        if self.from_snapshot is not None and not (lab.from_snapshot and not lab.complete):
            raise UsageError(f"lab '{lab.name}' has data already; a snapshot is what a new lab begins with", hint=down)
        if self.store_endpoints and self.store_endpoints != lab.store_endpoints:
            raise UsageError(f"lab '{lab.name}' has another store", hint=down)
        return resize(lab, masters=self.masters, nodes=self.nodes, engine=self.engine)


def parse_publish(text: str) -> str:
    """Return ``[ADDRESS:]PORT`` as address:port, this machine's loopback by default."""
    if not text:
        return ""
    address, _, port = text.rpartition(":")
    if not (_is_ipv4(address or "127.0.0.1") and port.isdecimal() and 1 <= int(port) <= LAST_PORT):
        hint = "give a port (1 to 65535) or an IPv4 address and a port: --api-port 0.0.0.0:8443"
        raise UsageError(f"'{text}' is no port to publish the API at", hint=hint)
    return f"{address or '127.0.0.1'}:{int(port)}"


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def parse_endpoints(text: str) -> tuple[str, ...]:
    """Return the endpoints in ``HOST:PORT,...``; a scheme in front is taken off, certificates decide on TLS."""
    endpoints = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        bare = item.removeprefix("https://").removeprefix("http://").rstrip("/")
        host, _, port = bare.rpartition(":")
        if not host or not port.isdecimal():
            raise UsageError(f"'{item}' is no store endpoint", hint="--store-endpoints 192.0.2.1:2379,192.0.2.2:2379")
        endpoints.append(bare)
    return tuple(endpoints)


def parse_store_tls(ca: str, cert: str, key: str) -> StoreTls | None:
    """Return the files of an external store, all three or none; raises UsageError for one that cannot be read."""
    files = (ca, cert, key)
    if not any(files):
        return None
    if not all(files):
        raise UsageError("--store-ca, --store-cert and --store-key belong together: give all three or none")
    for file in files:
        if not Path(file).is_file():
            raise UsageError(f"there is no file {file}")
    return StoreTls(*(str(Path(file).resolve()) for file in files))


def check_port_free(publish: str) -> None:
    """Raise UsageError if something on this machine listens at ``publish`` already."""
    if not publish:
        return
    address, _, port = publish.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, int(port)))
        except OSError as exc:
            hint = "choose another port with --api-port"
            raise UsageError(f"the API cannot be published at {publish}: {exc.strerror}", hint=hint) from exc
