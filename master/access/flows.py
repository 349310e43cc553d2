"""Which requests belong together, and how many of each sort are served at once: rows, and a pure decision.

The rows are the real server's default flow schemas and priority levels, with one difference: there members of
system:masters are exempt from all limits; here only the cluster's own parts are, and an administrator's client is a
flow among others, because in a lab it is the client that gets out of hand. Source: kubernetes.io, "API Priority and
Fairness".
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from master.access.node_rules import LEASES
from master.access.rules import Request
from master.access.tokens import ACCOUNTS_GROUP
from master.access.user import AUTHENTICATED, SYSTEM_MASTERS, SYSTEM_NODES, User


class Level(NamedTuple):
    """Requests of one importance. seats: how many are served at once; 0: no limit."""

    name: str
    seats: int
    flows: int = 64  # that may wait at once
    waiting: int = 50  # requests of one flow that may wait

    @property
    def uid(self) -> str:
        """Return what clients see of it in a header."""
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}.prioritylevel.trireme"))


LEVELS: Sequence[Level] = (
    Level("exempt", 0),
    Level("node-high", 24, flows=2048),
    Level("system", 16, flows=2048),
    Level("leader-election", 8),
    Level("administrators", 32),
    Level("workload-high", 16),
    Level("workload-low", 32, flows=128),
    Level("global-default", 16, flows=128),
    Level("catch-all", 4, waiting=10),
)
LEVEL = {level.name: level for level in LEVELS}


class Schema(NamedTuple):
    """Requests that are treated alike. by: what tells flows within it apart: "user", "namespace" or nothing."""

    name: str
    level: str
    matches: Callable[[Request], bool]
    by: str = "user"

    @property
    def uid(self) -> str:
        """Return what clients see of it in a header."""
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}.flowschema.trireme"))


def _is_own(user: User) -> bool:
    return SYSTEM_MASTERS in user.groups and user.name.startswith("system:")


def _is_probe(request: Request) -> bool:
    return request.path.startswith(("/healthz", "/livez", "/readyz"))


def _is_node(request: Request) -> bool:
    return SYSTEM_NODES in request.user.groups


def _is_heartbeat(request: Request) -> bool:
    leases = request.resource == "leases" and request.namespace == LEASES
    return _is_node(request) and (leases or request.resource == "nodes")


def _elects(request: Request) -> bool:
    system = request.user.name in ("system:kube-controller-manager", "system:kube-scheduler")
    return system and request.resource == "leases" and request.namespace == "kube-system"


def _in_group(group: str) -> Callable[[Request], bool]:
    return lambda request: group in request.user.groups


SCHEMAS: Sequence[Schema] = (
    Schema("exempt", "exempt", lambda request: _is_own(request.user), by=""),
    Schema("probes", "exempt", _is_probe, by=""),
    Schema("system-leader-election", "leader-election", _elects),
    Schema("system-node-high", "node-high", _is_heartbeat),
    Schema("system-nodes", "system", _is_node),
    Schema("administrators", "administrators", _in_group(SYSTEM_MASTERS)),
    Schema("kube-system-service-accounts", "workload-high", _in_group(f"{ACCOUNTS_GROUP}:kube-system")),
    Schema("service-accounts", "workload-low", _in_group(ACCOUNTS_GROUP)),
    Schema("global-default", "global-default", _in_group(AUTHENTICATED)),
    Schema("catch-all", "catch-all", lambda _: True),
)
_HEADERS: Mapping[str, Mapping[str, str]] = {
    schema.name: {
        "X-Kubernetes-PF-FlowSchema-UID": schema.uid,
        "X-Kubernetes-PF-PriorityLevel-UID": LEVEL[schema.level].uid,
    }
    for schema in SCHEMAS
}


class Flow(NamedTuple):
    """Where a request belongs."""

    schema: Schema
    level: Level
    key: str  # of the flow within its level

    @property
    def headers(self) -> Mapping[str, str]:
        """Return what every answer says of it."""
        return _HEADERS[self.schema.name]


def classify(request: Request) -> Flow:
    """Return the flow of a request: the first schema that matches."""
    for schema in SCHEMAS:
        if schema.matches(request):
            break
    told = request.user.name if schema.by == "user" else request.namespace if schema.by == "namespace" else ""
    return Flow(schema, LEVEL[schema.level], f"{schema.name}/{told}")
