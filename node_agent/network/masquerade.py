"""The firewall chains that pods need whatever services exist.

Pods keep their address towards other pods and take the node's towards everything else. Forwarding is
allowed explicitly, because Docker sets the policy of FORWARD to DROP.
"""

import logging
import threading

from node_agent.errors import NodeError
from node_agent.network.host_ports import OpenPorts, stale_flows, with_host_ports
from node_agent.proxy.conntrack import Flow, FlowForgetter, forget_flows
from node_agent.proxy.iptables import Iptables
from node_agent.proxy.ruleset import ChainId, Jump, Ruleset

log = logging.getLogger(__name__)

POSTROUTING = ChainId("nat", "TRIREME-POSTROUTING")
FORWARD = ChainId("filter", "TRIREME-FORWARD")
PREFIXES = ("TRIREME-",)


def render_pod_rules(*, pod_cidr: str, cluster_cidr: str, service_cidr: str) -> Ruleset:
    """Return the chains of one node, none of whose ports leads to a pod yet.

    pod_cidr: this node's share; cluster_cidr: all pods'; service_cidr: the virtual addresses. A packet
    still addressed to one of those has met no service: accepting it would send it out to the world.
    """
    rules = Ruleset(
        chains={
            POSTROUTING: (
                f"-s {pod_cidr} -d {cluster_cidr} -j RETURN",
                f"-s {pod_cidr} -d 224.0.0.0/4 -j RETURN",
                f"-s {pod_cidr} -j MASQUERADE --random-fully",
            ),
            FORWARD: (
                f"-d {service_cidr} -j RETURN",
                f"-s {cluster_cidr} -j ACCEPT",
                f"-d {cluster_cidr} -j ACCEPT",
            ),
        },
        jumps=(
            Jump("nat", "POSTROUTING", POSTROUTING.name),
            Jump("filter", "FORWARD", FORWARD.name),
        ),
    )
    return with_host_ports(rules, {})


class PodFirewall:
    """Keeps the pod network's chains in the kernel. Blocks."""

    def __init__(self, iptables: Iptables, rules: Ruleset, *, forget: FlowForgetter = forget_flows) -> None:
        self._iptables = iptables
        self._rules = rules
        self._forget = forget
        self._open: OpenPorts = {}
        # The service proxy looks after the chains while pods come and go.
        self._lock = threading.Lock()

    def open_ports(self, ports: OpenPorts) -> None:
        """Let exactly these ports of the node lead to pods, whatever the kernel holds."""
        with self._lock:
            rules = with_host_ports(self._rules, ports)
            self._iptables.replace(rules, PREFIXES)
            stale = stale_flows(self._open, ports)
            self._rules, self._open = rules, dict(ports)
        if stale:
            self._forget_flows(stale)

    def ensure(self) -> bool:
        """Write the chains unless they are there already; whether that was needed."""
        with self._lock:
            missing = [c.name for c in self._rules.chains if not self._iptables.has_rules(*c)]
            # Asking for a jump to a chain that is not there is an error of its own.
            if not missing:
                missing = [f"{j.origin} to {j.target}" for j in self._rules.jumps if not self._iptables.has_jump(j)]
            if missing:
                self._iptables.replace(self._rules, PREFIXES)
                log.info("pod firewall written missing=%s", ",".join(missing))
            return bool(missing)

    def remove(self) -> None:
        """Remove the chains and the jumps into them."""
        with self._lock:
            self._iptables.remove(PREFIXES)

    def _forget_flows(self, stale: frozenset[Flow]) -> None:
        try:
            self._forget(stale)
        except NodeError as exc:
            # The rules are right; only clients that keep a UDP source port go on sending to the old place.
            log.warning("stale UDP flows kept candidates=%d error=%s", len(stale), exc)
