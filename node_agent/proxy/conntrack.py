"""Forgets UDP flows that point to endpoints which are gone.

A UDP "connection" lives in conntrack as long as packets flow, and a packet of a known flow never meets
the rules again. So a client that keeps its source port would send to a dead endpoint for ever, or past
a service that had no endpoint when the flow began. TCP heals itself by a reset.
"""

import logging
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from pyroute2.conntrack import Conntrack, NFCTAttrTuple
from pyroute2.netlink.exceptions import NetlinkError

from node_agent.errors import KernelRefused
from node_agent.proxy.rules import ProxyConfig, ServicePort, pick_endpoints

log = logging.getLogger(__name__)


class Flow(NamedTuple):
    """Where a flow was sent to and who answers.

    front: a service address, or "" for a node port (any local address). backend: the endpoint, or "" for
    a flow that no rule rewrote.
    """

    front: str
    front_port: int
    backend: str
    backend_port: int


def stale_flows(before: Iterable[ServicePort], after: Iterable[ServicePort], config: ProxyConfig) -> frozenset[Flow]:
    """Return the UDP flows that must be forgotten after the rules went from ``before`` to ``after``."""
    old, new = _by_front(before, config), _by_front(after, config)
    stale: set[Flow] = set()
    for (front, port), backends in old.items():
        left = new.get((front, port), frozenset())
        stale |= {Flow(front, port, ip, number) for ip, number in backends - left}
    for (front, port), backends in new.items():
        if backends and not old.get((front, port)):
            stale.add(Flow(front, port, "", 0))
    return frozenset(stale)


def is_stale(flow: Flow, stale: frozenset[Flow]) -> bool:
    """Whether a flow of the kernel, with both addresses given, is one of ``stale``."""
    if flow.front == flow.backend and flow.front_port == flow.backend_port:
        flow = flow._replace(backend="", backend_port=0)
    return flow in stale or flow._replace(front="") in stale


def forget_flows(stale: frozenset[Flow]) -> int:
    """Delete the stale flows from the kernel and return how many there were. Blocks.

    Raises KernelRefused if this kernel does not let us.
    """
    try:
        with Conntrack() as table:
            udp = NFCTAttrTuple(proto=socket.IPPROTO_UDP)
            doomed = [e for e in table.dump_entries(tuple_orig=udp) if is_stale(_flow_of(e), stale)]
            return sum(_forget(table, entry) for entry in doomed)
    except (NetlinkError, OSError) as exc:
        raise KernelRefused(f"conntrack: {exc}") from exc


FlowForgetter = Callable[[frozenset[Flow]], int]


def _by_front(
    services: Iterable[ServicePort], config: ProxyConfig
) -> Mapping[tuple[str, int], frozenset[tuple[str, int]]]:
    fronts: dict[tuple[str, int], frozenset[tuple[str, int]]] = {}
    for service in services:
        if service.protocol.upper() != "UDP" or not service.cluster_ip:
            continue
        cluster, local = pick_endpoints(service.endpoints, config.node)
        backends = frozenset((e.ip, e.port) for e in (*cluster, *local))
        addresses = (service.cluster_ip, *service.external_ips, *service.load_balancer_ips)
        fronts.update({(address, service.port): backends for address in addresses})
        if service.node_port:
            fronts["", service.node_port] = backends
    return fronts


def _flow_of(entry: Any) -> Flow:
    there, back = entry.tuple_orig, entry.tuple_reply
    return Flow(there.daddr, there.dport, back.saddr, back.sport)


def _forget(table: Any, entry: Any) -> bool:
    try:
        table.entry("del", tuple_orig=entry.tuple_orig)
    except NetlinkError as exc:
        if exc.code == 2:  # ENOENT: it ended meanwhile
            return False
        raise
    return True
