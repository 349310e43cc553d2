"""What a master is told by its configuration file."""

import tomllib
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import msgspec

from client.etcd import TlsFiles, TransportName
from master.access.assembly import AccessConfig


class ConfigError(Exception):
    """The file cannot be used; the message names the file, the field and what to do."""


class _ClientTls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ca: str
    cert: str
    key: str

    def files(self) -> TlsFiles:
        return TlsFiles(Path(self.ca), Path(self.cert), Path(self.key))


class ServerTls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """PEM files of the servers: who may call, and who we are."""

    client_ca: str
    cert: str
    key: str


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    address: str
    api_address: str = ""
    rest_listen: str = "0.0.0.0:6443"
    grpc_listen: str = "0.0.0.0:6444"
    store_endpoints: list[str]
    store_tls: _ClientTls | None = None
    store_transport: TransportName = "fast"
    tls: ServerTls
    node_tls: _ClientTls | None = None
    access: AccessConfig = AccessConfig()
    masters: dict[str, str] = {}
    pod_cidr: str = "10.244.0.0/16"
    service_cidr: str = "10.96.0.0/16"
    node_port_range: str = "30000-32767"
    cluster_dns: str = "10.96.0.10"
    cluster_domain: str = "cluster.local"
    node_monitor_grace_s: float = 4.0
    pod_eviction_s: float = 2.0


class MasterConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One master's configuration, checked."""

    name: str
    address: str  # under which the other hosts reach this master
    api_address: str  # "ip:port" under which clients reach the API
    rest_listen: tuple[str, int]
    grpc_listen: tuple[str, int]
    store_endpoints: tuple[str, ...]  # our own member first
    store_tls: TlsFiles | None
    store_transport: TransportName  # what speaks gRPC to the store
    tls: ServerTls
    node_tls: TlsFiles | None
    access: AccessConfig  # keys and rules of who may do what
    masters: dict[str, str]  # name -> "ip:port" of its gRPC server
    pod_cidr: IPv4Network
    service_cidr: IPv4Network
    node_ports: range
    cluster_dns: str
    cluster_domain: str
    node_monitor_grace_s: float
    pod_eviction_s: float


def load(path: Path) -> MasterConfig:
    """Return the configuration in ``path``; raises ConfigError."""
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}): give the path of a master.toml") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML ({error}): correct that line") from error
    return parse(data, str(path))


def parse(data: dict[str, Any], source: str) -> MasterConfig:
    """Return the configuration that ``data`` says; ``source`` names it in errors."""
    try:
        file = msgspec.convert(data, _File)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {error}: add, remove or correct that field") from error
    try:
        return MasterConfig(
            name=_name(file.name),
            address=_checked("address", file.address, lambda: str(IPv4Address(file.address)), "an IPv4 address"),
            api_address=_address("api_address", file.api_address or f"{file.address}:6443"),
            rest_listen=_host_port("rest_listen", file.rest_listen),
            grpc_listen=_host_port("grpc_listen", file.grpc_listen),
            store_endpoints=_endpoints(file.store_endpoints),
            store_tls=file.store_tls.files() if file.store_tls is not None else None,
            store_transport=file.store_transport,
            tls=file.tls,
            node_tls=file.node_tls.files() if file.node_tls is not None else None,
            access=file.access,
            masters={name: _address(f"masters.{name}", each) for name, each in file.masters.items()},
            pod_cidr=_network("pod_cidr", file.pod_cidr),
            service_cidr=_network("service_cidr", file.service_cidr),
            node_ports=_ports(file.node_port_range),
            cluster_dns=file.cluster_dns,
            cluster_domain=file.cluster_domain,
            node_monitor_grace_s=file.node_monitor_grace_s,
            pod_eviction_s=file.pod_eviction_s,
        )
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from error


def _checked(field: str, text: str, read: Any, wanted: str) -> Any:
    try:
        return read()
    except ValueError:
        raise ValueError(f"{field} = {text!r}: write {wanted}") from None


def _name(text: str) -> str:
    if not text:
        raise ValueError("name is empty: write this master's name, such as master1")
    return text


def _host_port(field: str, text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ValueError(f'{field} = {text!r}: write "address:port"')
    return host.strip("[]"), int(port)


def _address(field: str, text: str) -> str:
    _host_port(field, text)
    return text


def _endpoints(endpoints: list[str]) -> tuple[str, ...]:
    if not endpoints:
        raise ValueError('store_endpoints is empty: write the store members\' addresses, such as "10.89.7.11:2379"')
    bare = (each.removeprefix("https://").removeprefix("http://") for each in endpoints)
    return tuple(_address("store_endpoints", each) for each in bare)


def _network(field: str, text: str) -> IPv4Network:
    network: IPv4Network = _checked(field, text, lambda: IPv4Network(text), 'a network such as "10.96.0.0/16"')
    return network


def _ports(text: str) -> range:
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) < 65536):
        raise ValueError(f'node_port_range = {text!r}: write "first-last", such as "30000-32767"')
    return range(int(first), int(last) + 1)
