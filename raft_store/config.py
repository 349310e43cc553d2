"""The configuration file of one member: TOML, decoded strictly."""

import hashlib
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from .backups import BackupPlan
from .engine import MemberId
from .tls import TlsFiles

ENGINES = ("native", "raftos", "memory")
FRONTS = ("fast", "grpcio")


class ConfigError(Exception):
    """The file cannot be used; the message names it, the field, and what to do."""


class TlsTable(TlsFiles, frozen=True, forbid_unknown_fields=True):
    """``[client_tls]`` or ``[peer_tls]``: paths of PEM files."""


class RaftTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[raft]``: the engine's clock; absent fields are the engine's own defaults."""

    tick_ms: int | None = None
    heartbeat_ticks: int | None = None
    election_ticks: int | None = None
    election_stretch: int | None = None
    snapshot_entries: int | None = None
    lease_reads: bool | None = None  # quicker, and wrong if clocks run apart by a tenth or stand still: docs/members.md


class TestingTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[testing]``: faults for robustness runs; never in a store that somebody needs."""

    disk_orders: Path | None = None  # see ``disk.faults``


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One member of one store."""

    name: str
    members: dict[str, str]  # name -> URL of its peer listener; the same file everywhere but for ``name``
    initial_snapshot: Path | None = None  # a new cluster's: what its members' empty data directories begin with
    initial_cluster_state: Literal["new", "existing"] = "new"  # existing: ask ``members`` for the group, and join it
    strict_reconfig_check: bool = True  # refuse changes of the group after which it might not be able to agree
    data_dir: Path
    client_url: str  # where clients reach this member; told to everyone through the log
    cluster: str = "lab"  # members of different clusters never talk
    client_listen: str = "0.0.0.0:2379"
    peer_listen: str = "0.0.0.0:2380"
    metrics_listen: str | None = None
    http_listen: str | None = None  # the API as JSON over HTTP, /health, /version and /metrics, under client_tls
    engine: str = "native"
    front: str = "fast"  # the server that clients talk to: our own, or grpcio's
    client_tls: TlsTable | None = None
    peer_tls: TlsTable | None = None
    raft: RaftTable = RaftTable()
    testing: TestingTable = TestingTable()
    backup: BackupPlan | None = None
    request_timeout_s: float = 5.0
    auth_token_ttl_s: float = 300.0  # a token that is not shown for so long is forgotten
    watch_progress_s: float = 600.0  # between notices to idle watches that wished for them
    corrupt_check_s: float = 600.0  # between two comparisons of the members' states; 0: never
    quota_bytes: int = 0  # 0: none; beyond it writes are refused until space is made and the alarm cleared

    @property
    def member(self) -> MemberId:
        """Return this member's id if it is one of those that found the cluster; others are given one when added."""
        return member_id(self.cluster, self.name)


def member_id(cluster: str, name: str) -> MemberId:
    """Return the id of a member; it follows from the names, so every file gives the same."""
    return MemberId(_hash64(f"member/{cluster}/{name}"))


def cluster_id(cluster: str) -> int:
    """Return the id that all members of a cluster show."""
    return _hash64(f"cluster/{cluster}")


def _hash64(text: str) -> int:
    # Never 0, which means "none" on the wire.
    return int.from_bytes(hashlib.sha1(text.encode(), usedforsecurity=False).digest()[:8], "big") or 1


def load_config(path: Path) -> Config:
    """Read and check a file. Raises ConfigError."""
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read ({exc.strerror}); give its path with --config") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: is not TOML: {exc}; correct that line") from exc
    try:
        config = msgspec.convert(fields, Config, dec_hook=_decode)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"{path}: {exc}; correct that field") from exc
    _check(path, config)
    return config


def _check(path: Path, config: Config) -> None:
    if config.name not in config.members:
        known = ", ".join(sorted(config.members))
        raise ConfigError(f"{path}: name {config.name!r} is not in [members] ({known}); add it there")
    if config.engine not in ENGINES:
        raise ConfigError(f"{path}: engine {config.engine!r} is unknown; use one of {', '.join(ENGINES)}")
    restricted = config.client_tls is not None and config.client_tls.restricted
    if restricted and (config.front != "fast" or config.http_listen):
        raise ConfigError(
            f"{path}: client_tls.groups and client_tls.names are kept by front 'fast' alone; use it, and no http_listen"
        )
    if config.front not in FRONTS:
        raise ConfigError(f"{path}: front {config.front!r} is unknown; use one of {', '.join(FRONTS)}")
    if config.initial_cluster_state == "existing" and config.engine != "native":
        raise ConfigError(f"{path}: engine {config.engine!r} has no group that one could join; use 'native'")
    if config.initial_snapshot is not None:
        if config.engine != "native" or config.initial_cluster_state != "new":
            raise ConfigError(f"{path}: initial_snapshot is for a new cluster of engine 'native'; remove it")
        if not config.initial_snapshot.is_file():
            raise ConfigError(f"{path}: initial_snapshot {str(config.initial_snapshot)!r} does not exist; correct it")
    if config.backup is not None and not (config.backup.every_s > 0 and config.backup.keep > 0):
        raise ConfigError(f"{path}: backup.every_s and backup.keep must be positive; correct them")
    if config.engine == "memory" and len(config.members) > 1:
        raise ConfigError(f"{path}: engine 'memory' is a group of one; leave one entry in [members]")
    for field, listen in (
        ("client_listen", config.client_listen),
        ("peer_listen", config.peer_listen),
        ("metrics_listen", config.metrics_listen),
        ("http_listen", config.http_listen),
    ):
        if listen is not None and not _is_address(listen):
            raise ConfigError(f'{path}: {field} {listen!r} is no address; write it as "host:port"')
    for name, url in config.members.items():
        if not _is_address(peer_address(url)):
            raise ConfigError(f'{path}: members.{name} {url!r} is no URL; write it as "https://host:2380"')
    for table, tls in (("client_tls", config.client_tls), ("peer_tls", config.peer_tls)):
        for field in ("ca", "cert", "key") if tls is not None else ():
            file = getattr(tls, field)
            if not file.is_file():
                raise ConfigError(f"{path}: {table}.{field} {str(file)!r} does not exist; make it or correct the path")


def peer_address(url: str) -> str:
    """Return the "host:port" of a URL; one without a scheme is an address already."""
    return url.split("://", 1)[-1].rstrip("/")


def _is_address(text: str) -> bool:
    host, colon, port = text.rpartition(":")
    return bool(host and colon) and port.isdigit() and int(port) < 1 << 16


def _decode(wanted: type, value: Any) -> Any:
    if wanted is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(wanted)
