"""The agent's configuration file, ``node.toml``."""

from pathlib import Path

import msgspec

from node_agent.errors import NodeError


class BadConfig(NodeError):
    """The configuration cannot be used; the message names file, field and fix."""


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """PEM files. Without a pair of its own for serving, the client certificate serves the masters who dial in, too."""

    ca: Path
    cert: Path
    key: Path
    serving_cert: Path | None = None
    serving_key: Path | None = None

    @property
    def serving(self) -> tuple[Path, Path]:
        """Return certificate and key that the agent's own server shows."""
        if self.serving_cert is None or self.serving_key is None:
            return self.cert, self.key
        return self.serving_cert, self.serving_key

    @property
    def files(self) -> tuple[Path, ...]:
        """Return every file that is needed to run."""
        return tuple(dict.fromkeys((self.ca, self.cert, self.key, *self.serving)))


class Bootstrap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a node gets the certificates that ``[tls]`` names and that are not there yet.

    api: "address:port" of the masters' HTTPS API. token: a bootstrap token, ``id.secret``.
    """

    api: str
    token: str


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that tells one node from another.

    runtime: "docker" or "hollow" (no containers, everything else real). instance: what this agent's containers are
    labelled with; two agents on one engine need different ones. tls: without it everything is plain text, for tests.
    """

    name: str
    address: str
    masters: tuple[str, ...]
    tls: Tls | None = None
    bootstrap: Bootstrap | None = None
    listen: str = "0.0.0.0:10250"
    http_listen: str = ""  # where anybody may read /healthz and /metrics in plain HTTP; "": nowhere
    data_dir: Path = Path("/var/lib/trireme/node")
    runtime: str = "docker"
    docker_socket: str = "/var/run/docker.sock"
    sandbox_image: str = "trireme/tools:1"
    instance: str = ""
    static_pods: Path | None = None
    cluster_dns: str = "10.96.0.10"
    cluster_domain: str = "cluster.local"
    service_cidr: str = "10.96.0.0/16"
    pod_cidr: str = "10.244.0.0/16"
    heartbeat_s: float = 1.0
    max_pods: int = 110
    labels: dict[str, str] = {}


def load_config(path: Path) -> NodeConfig:
    """Read and check the file; raises BadConfig."""
    try:
        config = msgspec.toml.decode(path.read_bytes(), type=NodeConfig, dec_hook=_path)
    except OSError as exc:
        raise BadConfig(f"{path}: cannot be read: {exc.strerror}") from exc
    except (msgspec.ValidationError, msgspec.DecodeError) as exc:
        raise BadConfig(f"{path}: {exc}; correct this field") from exc
    _check(path, config)
    return config


def _path(wanted: type, value: object) -> object:
    if wanted is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(wanted)


def _check(path: Path, config: NodeConfig) -> None:
    if config.runtime not in {"docker", "hollow"}:
        raise BadConfig(f'{path}: field runtime is {config.runtime!r}; use "docker" or "hollow"')
    if not config.masters:
        raise BadConfig(f'{path}: field masters is empty; give at least one "ip:6444"')
    if config.heartbeat_s <= 0:
        raise BadConfig(f"{path}: field heartbeat_s is {config.heartbeat_s}; use a positive number of seconds")
    parse_address(path, "listen", config.listen)
    if config.http_listen:
        parse_address(path, "http_listen", config.http_listen)
    _check_tls(path, config)


def _check_tls(path: Path, config: NodeConfig) -> None:
    tls, bootstrap = config.tls, config.bootstrap
    if bootstrap is not None:
        parse_address(path, "bootstrap.api", bootstrap.api)
        if tls is None or tls.serving_cert is None or tls.serving_key is None:
            raise BadConfig(
                f"{path}: table bootstrap needs a table tls that says where the certificates go: ca, cert, key, "
                "serving_cert and serving_key"
            )
    if tls is None:
        return
    for file in (tls.ca,) if bootstrap is not None else tls.files:
        if not file.is_file():
            raise BadConfig(f"{path}: table tls names {file}, which is no file; put it there or correct the path")


def parse_address(path: Path, field: str, text: str) -> tuple[str, int]:
    """Return (host, port) of ``host:port``; raises BadConfig."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 <= int(port) < 65536:
        raise BadConfig(f'{path}: field {field} is {text!r}; use "ip:port"')
    return host, int(port)
