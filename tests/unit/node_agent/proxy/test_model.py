"""From API objects to rules and names."""

from typing import Any

import pytest

from api.kinds.core import (
    ClientIPConfig,
    EndpointAddress,
    EndpointPort,
    Endpoints,
    EndpointSubset,
    LoadBalancerIngress,
    LoadBalancerStatus,
    Service,
    ServiceSpec,
    ServiceStatus,
    SessionAffinityConfig,
)
from api.kinds.core import ServicePort as ApiPort
from api.kinds.discovery import Endpoint as SliceEndpoint
from api.kinds.discovery import EndpointConditions, EndpointSlice
from api.kinds.discovery import EndpointPort as SlicePort
from api.meta import ObjectMeta
from node_agent.dns.answers import DnsEndpoint, DnsPort, DnsService
from node_agent.dns.model import dns_services
from node_agent.proxy.model import (
    Backend,
    BackendPort,
    backends_of,
    backends_of_slices,
    key_of,
    ports_of,
    service_ports,
)
from node_agent.proxy.rules import Endpoint, ServicePort

META = ObjectMeta(namespace="default", name="web")
HTTP = ApiPort(name="http", port=80, protocol="TCP", node_port=30080)
BACKEND = Backend("10.244.1.5", (BackendPort("http", "TCP", 8080),), node="node1")


def service(meta: ObjectMeta = META, status: ServiceStatus | None = None, **spec: Any) -> Service:
    fields = {"cluster_ip": "10.96.0.20", "ports": (HTTP,), "type": "ClusterIP"} | spec
    return Service(metadata=meta, spec=ServiceSpec(**fields), status=status or ServiceStatus())


def test_a_plain_service() -> None:
    assert service_ports([service()], {("default", "web"): (BACKEND,)}) == (
        ServicePort(
            "default", "web", 80, "http", "TCP", "10.96.0.20", 30080, endpoints=(Endpoint("10.244.1.5", 8080, "node1"),)
        ),
    )


def test_everything_that_a_service_can_ask_for() -> None:
    full = service(
        type="LoadBalancer",
        external_ips=("203.0.113.5", "fd00::5"),
        load_balancer_source_ranges=("198.51.100.0/24", " 192.0.2.7/32 "),
        session_affinity="ClientIP",
        session_affinity_config=SessionAffinityConfig(client_ip=ClientIPConfig(timeout_seconds=60)),
        external_traffic_policy="Local",
        internal_traffic_policy="Local",
        status=ServiceStatus(load_balancer=LoadBalancerStatus(ingress=(LoadBalancerIngress(ip="203.0.113.6"),))),
    )
    (port,) = ports_of(full, ())
    assert (port.external_ips, port.load_balancer_ips) == (("203.0.113.5",), ("203.0.113.6",))
    assert port.source_ranges == ("198.51.100.0/24", "192.0.2.7/32")
    assert (port.affinity_s, port.external_local, port.internal_local) == (60, True, True)
    (port,) = ports_of(service(session_affinity="ClientIP"), ())
    assert port.affinity_s == 10_800


def test_source_ranges_that_are_none_admit_nobody() -> None:
    (port,) = ports_of(service(load_balancer_source_ranges=("fd00::/8",)), ())
    assert port.source_ranges == ("0.0.0.0/32",), "no range at all would admit everybody"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"cluster_ip": "None"}, id="headless"),
        pytest.param({"cluster_ip": ""}, id="not assigned yet"),
        pytest.param({"type": "ExternalName", "cluster_ip": "", "external_name": "example.com"}, id="external name"),
        pytest.param({"cluster_ip": "fd00::1"}, id="IPv6 only"),
        pytest.param({"cluster_ip": "1.2.3.4 -j ACCEPT"}, id="not an address"),
        pytest.param({"meta": ObjectMeta(namespace="default", name='x" -j ACCEPT\n')}, id="not a name"),
        pytest.param({"ports": (ApiPort(name="x\n", port=80),)}, id="not a port name"),
        pytest.param({"ports": (ApiPort(port=80, protocol="ICMP"),)}, id="not a protocol"),
    ],
)
def test_services_without_rules(changes: dict[str, Any]) -> None:
    assert ports_of(service(**changes), (BACKEND,)) == ()


@pytest.mark.parametrize("label", ["service-proxy-name", "headless"])
def test_services_that_others_serve_have_no_rules(label: str) -> None:
    marked = ObjectMeta(namespace="default", name="web", labels={f"service.kubernetes.io/{label}": ""})
    assert ports_of(service(marked), (BACKEND,)) == ()


def test_a_named_port_has_the_endpoints_of_its_name_only() -> None:
    backend = Backend(
        "10.244.1.5", (BackendPort("http", "TCP", 1), BackendPort("http", "UDP", 2), BackendPort("x", "TCP", 3))
    )
    (port,) = ports_of(service(), (backend,))
    assert [e.port for e in port.endpoints] == [1]


def test_endpoints_objects() -> None:
    found = backends_of(
        Endpoints(
            metadata=META,
            subsets=(
                EndpointSubset(
                    addresses=(EndpointAddress(ip="10.244.1.5", node_name="node1", hostname="a"),),
                    not_ready_addresses=(EndpointAddress(ip="10.244.1.6"),),
                    ports=(EndpointPort(name="http", port=8080, protocol="TCP"),),
                ),
            ),
        )
    )
    ports = (BackendPort("http", "TCP", 8080),)
    assert found == (
        Backend("10.244.1.5", ports, "a", "node1", ready=True),
        Backend("10.244.1.6", ports, ready=False),
    )


@pytest.mark.parametrize(
    ("conditions", "ready", "serving"),
    [
        (None, True, False),
        (EndpointConditions(), True, False),
        (EndpointConditions(ready=True, serving=True), True, False),
        (EndpointConditions(ready=False), False, False),
        (EndpointConditions(ready=False, serving=True, terminating=True), False, True),
        (EndpointConditions(ready=False, serving=False, terminating=True), False, False),
    ],
)
def test_endpoint_slices(conditions: EndpointConditions | None, ready: object, serving: object) -> None:
    part = EndpointSlice(
        metadata=META,
        endpoints=(SliceEndpoint(addresses=("10.244.1.5",), conditions=conditions, node_name="node1"),),
        ports=(SlicePort(name="http", port=8080, protocol="TCP"), SlicePort(name="all")),
    )
    (found,) = backends_of_slices([part])
    assert found == Backend("10.244.1.5", BACKEND.ports, node="node1", ready=bool(ready), serving=bool(serving))


def test_names() -> None:
    headless = service(ObjectMeta(namespace="prod", name="db"), cluster_ip="None", publish_not_ready_addresses=True)
    external = service(ObjectMeta(namespace="prod", name="ext"), type="ExternalName", external_name="example.com")
    pending = service(ObjectMeta(namespace="prod", name="new"), cluster_ip="")
    backend = Backend("10.244.1.5", (BackendPort("http", "TCP", 8080),), hostname="db-0", ready=False)
    assert dns_services([service(), headless, external, pending], {key_of(headless): (backend,)}) == (
        DnsService("default", "web", ("10.96.0.20",), ports=(DnsPort("http", "TCP", 80),)),
        DnsService(
            "prod",
            "db",
            ports=(DnsPort("http", "TCP", 80),),
            endpoints=(DnsEndpoint("10.244.1.5", "db-0", ready=False, ports=(DnsPort("http", "TCP", 8080),)),),
            publish_not_ready=True,
        ),
        DnsService("prod", "ext", external_name="example.com"),
    )
