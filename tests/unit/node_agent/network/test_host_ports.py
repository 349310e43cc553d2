"""Ports of the node that lead to pods: where packets land, and what is forgotten when they change."""

from typing import Any

import msgspec
import pytest

from api.kinds.pods import PodSpec
from node_agent.network.host_ports import HostPort, stale_flows, with_host_ports
from node_agent.network.masquerade import PodFirewall, render_pod_rules
from node_agent.network.model import host_ports_of
from node_agent.proxy.conntrack import Flow
from node_agent.proxy.iptables import Iptables
from tests.unit.node_agent.proxy.model_kernel import ModelHost
from tests.unit.node_agent.proxy.tracer import Outcome, Packet, trace

BASE = render_pod_rules(pod_cidr="10.244.1.0/24", cluster_cidr="10.244.0.0/16", service_cidr="10.96.0.0/16")
NODE, POD, OTHER, WORLD = "192.0.2.1", "10.244.1.5", "10.244.1.6", "198.51.100.1"
OPEN = {
    POD: (HostPort(8080, 80), HostPort(53, 5353, "UDP"), HostPort(9000, 90, address="127.0.0.1")),
    OTHER: (HostPort(8443, 443, address=NODE), HostPort(1, 1, address="fd00::1")),
}
RULES = with_host_ports(BASE, OPEN)


@pytest.mark.parametrize(
    ("packet", "target", "masqueraded"),
    [
        pytest.param(Packet(WORLD, NODE, 8080), f"{POD}:80", False, id="the client's address is kept"),
        pytest.param(Packet(OTHER, NODE, 8080), f"{POD}:80", False, id="from a pod of this node"),
        pytest.param(Packet(POD, NODE, 8080), f"{POD}:80", True, id="a pod that meets itself"),
        pytest.param(Packet(NODE, NODE, 8080), f"{POD}:80", False, id="from the node"),
        pytest.param(Packet("127.0.0.1", "127.0.0.1", 8080), f"{POD}:80", True, id="from the node's loopback"),
        pytest.param(Packet(WORLD, NODE, 53, "udp"), f"{POD}:5353", False, id="UDP"),
        pytest.param(Packet(WORLD, NODE, 53), f"{NODE}:53", False, id="not the other protocol"),
        pytest.param(Packet(WORLD, NODE, 8443), f"{OTHER}:443", False, id="one address"),
        pytest.param(Packet(NODE, "127.0.0.1", 8443), "127.0.0.1:8443", False, id="not at another address"),
        pytest.param(Packet("127.0.0.1", "127.0.0.1", 9000), f"{POD}:90", True, id="loopback only"),
        pytest.param(
            Packet(NODE, "127.0.0.1", 9000), f"{POD}:90", False, id="loopback, from another address of the node"
        ),
        pytest.param(Packet(WORLD, "127.0.0.1", 8080), "127.0.0.1:8080", False, id="all addresses, from a neighbour"),
        pytest.param(Packet(WORLD, "127.0.0.1", 9000), "127.0.0.1:9000", False, id="loopback, from a neighbour"),
        pytest.param(Packet(WORLD, NODE, 9000), f"{NODE}:9000", False, id="loopback, at the node's address"),
        pytest.param(Packet(POD, WORLD, 8080), f"{WORLD}:8080", True, id="another host's port"),
        pytest.param(Packet("127.0.0.1", "127.0.0.1", 7), "127.0.0.1:7", False, id="no port of ours"),
    ],
)
def test_where_packets_land(packet: Packet, target: str, *, masqueraded: bool) -> None:
    assert trace(RULES, packet, forward_policy="DROP") == {Outcome("ACCEPT", target, masqueraded): 1}


@pytest.mark.parametrize(
    "port",
    [
        pytest.param(HostPort(1, 1, address="192.0.2.1/0 -j ACCEPT\n-A INPUT -s 0.0.0.0"), id="more than an address"),
        pytest.param(HostPort(1, 1, address="node-1"), id="a name"),
        pytest.param(HostPort(1, 1, "UDP", "node-1"), id="UDP at a name"),
        pytest.param(HostPort(1, 1, "tcp -j ACCEPT\n-A INPUT -p all"), id="more than a protocol"),
    ],
)
def test_what_is_no_address_never_reaches_the_rules(port: HostPort) -> None:
    chains = with_host_ports(BASE, {POD: (port, HostPort(8080, 80))}).chains
    assert chains == with_host_ports(BASE, {POD: (HostPort(8080, 80),)}).chains
    assert stale_flows({}, {POD: (port,)}) == set()


def test_the_kernel_holds_what_is_open_and_nothing_else() -> None:
    host, forgotten = ModelHost(), []

    def forget(stale: frozenset[Flow]) -> int:
        forgotten.append(stale)
        return 0

    firewall = PodFirewall(Iptables("nft", host), BASE, forget=forget)
    firewall.ensure()
    firewall.open_ports(OPEN)
    assert _dispatched(host) == len(RULES.chains["nat", "TRIREME-HOSTPORTS"])
    assert not firewall.ensure()
    host.flush("nat")
    assert firewall.ensure()
    assert _dispatched(host) == len(RULES.chains["nat", "TRIREME-HOSTPORTS"])
    firewall.open_ports({})
    assert _dispatched(host) == 1
    assert not firewall.ensure()
    assert forgotten == [{Flow("", 53, "", 0)}, {Flow("", 53, POD, 5353)}]


def _dispatched(host: ModelHost) -> int:
    return sum(len(rules) for chain, rules in host.state.items() if chain.name == "TRIREME-HOSTPORTS")


def test_flows_of_a_port_that_moves_are_forgotten() -> None:
    one, two = HostPort(53, 5353, "UDP"), HostPort(53, 5353, "UDP", NODE)
    assert stale_flows({POD: (one,)}, {POD: (one,)}) == set()
    assert stale_flows({POD: (one,)}, {OTHER: (one,)}) == {Flow("", 53, POD, 5353), Flow("", 53, "", 0)}
    assert stale_flows({}, {POD: (two, HostPort(80, 80))}) == {Flow(NODE, 53, "", 0)}


def spec(**fields: Any) -> PodSpec:
    ports = [{"containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1"}, {"containerPort": 81}]
    return msgspec.convert({"containers": [{"name": "c", "ports": ports}], **fields}, PodSpec)


def test_what_a_pod_asks_for() -> None:
    assert host_ports_of(spec()) == (HostPort(8080, 80, "TCP", "127.0.0.1"),)
    assert host_ports_of(spec(hostNetwork=True)) == ()
