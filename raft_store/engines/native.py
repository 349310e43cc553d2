"""The native engine: Raft with a synced log, peers over gRPC."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from raft_store.engine import MemberId
from raft_store.tls import TlsFiles


class NativeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What one member needs to know before it starts."""

    member: MemberId
    members: Mapping[MemberId, str]  # every member, ourselves included -> "host:port" of its peer listener
    data_dir: Path
    listen: str  # "0.0.0.0:2380"
    cluster: str = "lab"  # members of different clusters refuse each other
    tls: TlsFiles | None = None  # None: plain text
    tick_ms: int = 20
    heartbeat_ticks: int = 3
    election_ticks: int = 13  # a follower waits this long, and up to twice as long, before it campaigns
    snapshot_entries: int = 20_000  # applied entries between two snapshots


class NativeEngine:
    """An ``Engine``; one instance is one life of one member."""

    def __init__(self, config: NativeConfig) -> None:
        self._config = config
