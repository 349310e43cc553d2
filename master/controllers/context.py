"""What every controller is given."""

import random
from collections.abc import Callable

import msgspec

from api.kinds.table import TABLE, Table
from client.clock import Clock
from client.events import EventRecorder
from client.informer import SharedInformers
from client.resources import Resources
from master.access.authorization import Authorizer
from master.access.certificates import Signer
from master.access.tokens import ServiceAccountTokens


class ControllerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may set; the defaults suit a lab on one machine."""

    pod_cidr: str = "10.244.0.0/16"
    node_cidr_bits: int = 24  # prefix length of each node's part of pod_cidr
    node_monitor_grace_s: float = 4.0
    pod_eviction_s: float = 2.0
    orphaned_pod_s: float = 5.0  # how long pods may stay whose Node object is gone
    terminated_pods_kept: int = 12500
    api_address: str = ""  # "ip:port" under which the cluster tells newcomers to find it
    root_ca: str = ""  # PEM; published as kube-root-ca.crt in each namespace unless empty


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """Where controllers read, write, tell and take time from. ``recorder`` makes one for a component's name.

    tokens, signer and authorizer: what a master holds that only a few controllers need; None where it holds none.
    """

    resources: Resources
    informers: SharedInformers
    config: ControllerConfig
    clock: Clock
    rng: random.Random
    recorder: Callable[[str], EventRecorder]
    table: Table = TABLE  # the kinds that are served; custom ones come and go
    tokens: ServiceAccountTokens | None = None
    signer: Signer | None = None
    authorizer: Authorizer | None = None
