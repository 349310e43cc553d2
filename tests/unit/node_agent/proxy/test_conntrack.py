import msgspec
import pytest

from node_agent.proxy.conntrack import Flow, is_stale, stale_flows
from node_agent.proxy.rules import Endpoint, ProxyConfig, ServicePort

CONFIG = ProxyConfig(node="node1", cluster_cidr="10.244.0.0/16")
A, B = Endpoint("10.244.1.5", 53), Endpoint("10.244.1.6", 53)
DNS = ServicePort("kube-system", "dns", 53, protocol="UDP", cluster_ip="10.96.0.9", endpoints=(A, B))


def stale(before: ServicePort | None, after: ServicePort | None) -> frozenset[Flow]:
    return stale_flows([before] if before else [], [after] if after else [], CONFIG)


def change(**changes: object) -> ServicePort:
    return msgspec.structs.replace(DNS, **changes)


def test_a_removed_endpoint_makes_its_flows_stale() -> None:
    assert stale(DNS, change(endpoints=(B,))) == {Flow("10.96.0.9", 53, A.ip, 53)}
    assert stale(DNS, DNS) == frozenset()
    assert stale(DNS, change(endpoints=(msgspec.structs.replace(A, ready=False), B))) != frozenset()


def test_a_removed_service_makes_all_its_flows_stale() -> None:
    assert {f.backend for f in stale(DNS, None)} == {A.ip, B.ip}


def test_the_first_endpoint_makes_flows_stale_that_went_past_the_service() -> None:
    assert stale(change(endpoints=()), change(endpoints=(A,))) == {Flow("10.96.0.9", 53, "", 0)}
    assert stale(change(endpoints=(A,)), DNS) == frozenset()


def test_every_way_to_the_service_counts() -> None:
    open_ = change(node_port=30053, external_ips=("203.0.113.5",), endpoints=(A,))
    fronts = {(f.front, f.front_port) for f in stale(open_, None)}
    assert fronts == {("10.96.0.9", 53), ("203.0.113.5", 53), ("", 30053)}


@pytest.mark.parametrize("protocol", ["TCP", "SCTP"])
def test_other_protocols_notice_by_themselves(protocol: str) -> None:
    assert stale(change(protocol=protocol), None) == frozenset()


@pytest.mark.parametrize(
    ("flow", "expected"),
    [
        pytest.param(Flow("10.96.0.9", 53, "10.244.1.5", 53), True, id="through the service"),
        pytest.param(Flow("10.96.0.9", 53, "10.244.1.6", 53), False, id="to another endpoint"),
        pytest.param(Flow("10.244.1.5", 53, "10.244.1.5", 53), False, id="directly to the endpoint"),
        pytest.param(Flow("192.0.2.1", 30053, "10.244.1.5", 53), True, id="through the node port"),
        pytest.param(Flow("192.0.2.1", 53, "10.244.1.5", 53), False, id="another port of the node"),
        pytest.param(Flow("10.96.0.7", 53, "10.96.0.7", 53), True, id="past a service that had no endpoint"),
    ],
)
def test_which_flows_of_the_kernel_are_stale(flow: Flow, expected: object) -> None:
    found = {Flow("10.96.0.9", 53, "10.244.1.5", 53), Flow("", 30053, "10.244.1.5", 53), Flow("10.96.0.7", 53, "", 0)}
    assert is_stale(flow, frozenset(found)) is expected
