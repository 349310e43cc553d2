"""Where packets land: each test walks them through the rendered rules."""

import msgspec
import pytest

from node_agent.proxy.rules import Endpoint, ProxyConfig, ServicePort, chain_name, render_rules
from node_agent.proxy.ruleset import ChainId
from tests.unit.node_agent.proxy.tracer import Outcome, Packet, targets, trace

NODE = "192.0.2.1"
POD = "10.244.1.7"
OTHER_POD = "10.244.2.7"
CLIENT = "198.51.100.9"
VIP = "10.96.0.20"
CONFIG = ProxyConfig(node="node1", cluster_cidr="10.244.0.0/16")

HERE = Endpoint("10.244.1.5", 8080, "node1")
THERE = Endpoint("10.244.2.5", 8080, "node2")
FAR = Endpoint("10.244.3.5", 8080, "node3")
WEB = ServicePort("default", "web", 80, port_name="http", cluster_ip=VIP, node_port=30080, endpoints=(HERE, THERE, FAR))


def change(service: ServicePort = WEB, **changes: object) -> ServicePort:
    return msgspec.structs.replace(service, **changes)


def to(service: ServicePort, source: str, target: str = VIP, port: int = 80, **options: object) -> dict[str, float]:
    return targets(render_rules([service], CONFIG), Packet(source, target, port, **options))


def masqueraded(service: ServicePort, source: str, target: str = VIP, port: int = 80) -> set[bool]:
    found = trace(render_rules([service], CONFIG), Packet(source, target, port))
    return {o.masqueraded for o in found}


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        # The names that kube-proxy gives; people look for them.
        (("SVC", "ns1/svc1:p80", "tcp"), "KUBE-SVC-XPGD46QRK7WJZT7O"),
        (("SVC", "kube-system/kube-dns:dns", "udp"), "KUBE-SVC-TCOU7JCQXEZGVUNU"),
        (("SVC", "default/kubernetes:https", "tcp"), "KUBE-SVC-NPX46M4PTMTKRN6Y"),
        (("SEP", "ns1/svc1:p80", "tcp", "10.180.0.1:80"), "KUBE-SEP-SXIVWICOYRO3J4NJ"),
    ],
)
def test_chain_names_are_kube_proxy_s(parts: tuple[str, ...], name: str) -> None:
    assert chain_name(*parts) == name


@pytest.mark.parametrize("source", [POD, OTHER_POD, NODE, CLIENT])
@pytest.mark.parametrize(("target", "port"), [(VIP, 80), (NODE, 30080), ("127.0.0.1", 30080)])
def test_every_endpoint_is_equally_likely(source: str, target: str, port: int) -> None:
    third = pytest.approx(1 / 3, abs=1e-6)
    assert to(WEB, source, target, port) == {
        "10.244.1.5:8080": third,
        "10.244.2.5:8080": third,
        "10.244.3.5:8080": third,
    }


@pytest.mark.parametrize(
    ("source", "target", "port", "expected"),
    [
        pytest.param(POD, VIP, 80, "no", id="a pod keeps its address"),
        pytest.param(OTHER_POD, VIP, 80, "no", id="whatever its node"),
        pytest.param(NODE, VIP, 80, "yes", id="the host is masqueraded: its address may be on no route back"),
        pytest.param(CLIENT, VIP, 80, "yes", id="so is a client outside"),
        pytest.param(CLIENT, NODE, 30080, "yes", id="a node port's answer must come back through this node"),
        pytest.param(HERE.ip, VIP, 80, "yes", id="a pod that meets itself must not see its own address"),
    ],
)
def test_who_is_masqueraded(source: str, target: str, port: int, expected: str) -> None:
    assert masqueraded(change(endpoints=(HERE,)), source, target, port) == {expected == "yes"}


def test_other_ports_protocols_and_addresses_pass_untouched() -> None:
    assert to(WEB, POD, VIP, 81) == {f"{VIP}:81": 1}
    assert to(WEB, POD, VIP, 80, protocol="udp") == {f"{VIP}:80": 1}
    assert to(WEB, POD, CLIENT, 30080) == {f"{CLIENT}:30080": 1}, "a node port belongs to this host's addresses"
    assert trace(render_rules([WEB], CONFIG), Packet(POD, OTHER_POD, 80)) == {Outcome("ACCEPT", f"{OTHER_POD}:80"): 1}


@pytest.mark.parametrize("protocol", ["TCP", "UDP", "SCTP"])
def test_each_protocol_has_rules_of_its_own(protocol: str) -> None:
    services = [
        change(protocol=p, endpoints=(Endpoint("10.244.1.5", n),)) for n, p in enumerate(("TCP", "UDP", "SCTP"), 1)
    ]
    rules = render_rules(services, CONFIG)
    number = ("TCP", "UDP", "SCTP").index(protocol) + 1
    assert targets(rules, Packet(POD, VIP, 80, protocol=protocol.lower())) == {f"10.244.1.5:{number}": 1}


class TestWithoutEndpoints:
    @pytest.mark.parametrize("source", [POD, NODE, CLIENT])
    @pytest.mark.parametrize(("target", "port"), [(VIP, 80), (NODE, 30080), ("203.0.113.5", 80)])
    def test_clients_are_refused(self, source: str, target: str, port: int) -> None:
        empty = change(endpoints=(), external_ips=("203.0.113.5",))
        if (source, target) == (NODE, "203.0.113.5"):
            # As with kube-proxy: to the host itself that address is just somewhere outside.
            assert to(empty, source, target, port) == {f"{target}:{port}": 1}
        else:
            assert to(empty, source, target, port) == {"REJECT": 1}

    def test_known_connections_go_on(self) -> None:
        assert to(change(endpoints=()), POD, state="ESTABLISHED") == {f"{VIP}:80": 1}

    def test_unready_endpoints_do_not_count(self) -> None:
        assert to(change(endpoints=(Endpoint("10.244.1.5", 80, ready=False),)), POD) == {"REJECT": 1}

    def test_terminating_ones_serve_while_nobody_is_ready(self) -> None:
        leaving = Endpoint("10.244.1.6", 80, "node1", ready=False, serving=True)
        assert to(change(endpoints=(leaving,)), POD) == {"10.244.1.6:80": 1}
        assert to(change(endpoints=(leaving, HERE)), POD) == {"10.244.1.5:8080": 1}


class TestExternalPolicyLocal:
    SERVICE = change(external_local=True, endpoints=(HERE, THERE))

    def test_outside_clients_reach_this_node_s_endpoint_with_their_address(self) -> None:
        found = trace(render_rules([self.SERVICE], CONFIG), Packet(CLIENT, NODE, 30080))
        assert found == {Outcome("ACCEPT", "10.244.1.5:8080", masqueraded=False): 1}

    @pytest.mark.parametrize("source", [POD, NODE])
    def test_pods_and_host_reach_all(self, source: str) -> None:
        half = pytest.approx(0.5)
        expected = {"10.244.1.5:8080": half, "10.244.2.5:8080": half}
        assert to(self.SERVICE, source, NODE, 30080) == expected

    def test_the_cluster_ip_reaches_all(self) -> None:
        assert len(to(self.SERVICE, CLIENT)) == 2

    def test_without_one_here_packets_are_dropped(self) -> None:
        away = change(self.SERVICE, endpoints=(THERE,))
        assert to(away, CLIENT, NODE, 30080) == {"DROP": 1}, "a balancer must go to another node, not give up"
        assert to(away, POD, NODE, 30080) == {"10.244.2.5:8080": 1}


class TestInternalPolicyLocal:
    def test_only_this_node_s_endpoints(self) -> None:
        assert to(change(internal_local=True), POD) == {"10.244.1.5:8080": 1}

    def test_dropped_without_one_here(self) -> None:
        assert to(change(internal_local=True, endpoints=(THERE,)), POD) == {"DROP": 1}

    def test_node_ports_still_reach_all(self) -> None:
        assert len(to(change(internal_local=True), CLIENT, NODE, 30080)) == 3


class TestSessionAffinity:
    SERVICE = change(affinity_s=60)

    @pytest.mark.parametrize("endpoint", [HERE, THERE, FAR])
    def test_a_known_client_returns_to_its_endpoint(self, endpoint: Endpoint) -> None:
        name = chain_name("SEP", "default/web:http", "tcp", f"{endpoint.ip}:{endpoint.port}")
        known = to(self.SERVICE, CLIENT, remembered=frozenset({name}))
        assert known == {f"{endpoint.ip}:{endpoint.port}": 1}

    def test_the_endpoint_s_chain_remembers_what_the_service_s_chain_looks_up(self) -> None:
        rules = render_rules([self.SERVICE], CONFIG)
        for chain, lines in rules.chains.items():
            if chain.name.startswith("KUBE-SEP-"):
                assert any(f"--name {chain.name} --set" in line for line in lines)
        assert len(to(self.SERVICE, CLIENT)) == 3


class TestLoadBalancer:
    SERVICE = change(load_balancer_ips=("203.0.113.6",), source_ranges=("198.51.100.0/24",))

    def test_admitted_sources_get_in(self) -> None:
        assert len(to(self.SERVICE, CLIENT, "203.0.113.6")) == 3

    def test_others_are_dropped_there_only(self) -> None:
        assert to(self.SERVICE, "192.0.2.77", "203.0.113.6") == {"DROP": 1}
        assert len(to(self.SERVICE, "192.0.2.77", NODE, 30080)) == 3

    def test_without_ranges_everybody_gets_in(self) -> None:
        assert len(to(change(self.SERVICE, source_ranges=()), "192.0.2.77", "203.0.113.6")) == 3


def test_addresses_served_by_other_means_are_left_alone() -> None:
    """The cluster DNS listens on the node itself; a Service of that address must not take it away."""
    config = msgspec.structs.replace(CONFIG, local_addresses=frozenset({VIP}))
    for service in (WEB, change(endpoints=())):
        assert targets(render_rules([service], config), Packet(POD, VIP, 80)) == {f"{VIP}:80": 1}


def test_an_external_ip_that_is_an_address_of_this_node_wins_over_node_ports() -> None:
    other = change(
        name="other", cluster_ip="10.96.0.21", node_port=0, port=30080, external_ips=(NODE,), endpoints=(FAR,)
    )
    assert targets(render_rules([WEB, other], CONFIG), Packet(CLIENT, NODE, 30080)) == {"10.244.3.5:8080": 1}


def test_the_host_s_loopback_is_closed_to_the_link() -> None:
    """route_localnet makes 127.0.0.0/8 reachable from the link; only node ports may be."""
    rules = render_rules([WEB], CONFIG)
    assert targets(rules, Packet(CLIENT, "127.0.0.1", 6443)) == {"DROP": 1}
    assert targets(rules, Packet("127.0.0.1", "127.0.0.1", 6443)) == {"127.0.0.1:6443": 1}


def test_the_same_services_in_any_order_give_the_same_rules() -> None:
    other = change(name="other", cluster_ip="10.96.0.21", node_port=30081)
    assert render_rules([WEB, other], CONFIG) == render_rules([other, WEB], CONFIG)
    turned = change(endpoints=(FAR, HERE, THERE))
    assert render_rules([turned], CONFIG) == render_rules([WEB], CONFIG)


def test_long_names_fit_a_comment() -> None:
    service = change(namespace="n" * 63, name="s" * 63, port_name="p" * 63)
    rules = render_rules([service], CONFIG)
    comments = [line.split('"')[1] for lines in rules.chains.values() for line in lines if '"' in line]
    assert max(map(len, comments)) <= 255
    assert ChainId("nat", chain_name("SVC", service.label, "tcp")) in rules.chains
