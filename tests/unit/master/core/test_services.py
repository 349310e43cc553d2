"""What becomes of a Service's addresses and ports: what it keeps, gives back, is given and is refused."""

import random
from ipaddress import IPv4Network

import msgspec
import pytest

from api.errors import Invalid
from api.kinds.core import Service
from master.allocation import ServiceClaims, ServiceNetwork
from master.service_fields import changed_service, new_service

NETWORK = ServiceNetwork(IPv4Network("10.96.0.0/16"), range(30000, 32768))
PORT = {"name": "a", "port": 80, "protocol": "TCP"}
GIVEN = {"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ports": [PORT | {"nodePort": 30001}],
         "externalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}  # fmt: skip


def service(**spec):
    return msgspec.convert({"metadata": {"name": "s", "namespace": "d"}, "spec": spec}, Service)


def shown(made, *names):
    spec = msgspec.json.decode(msgspec.json.encode(made))["spec"]
    return tuple(spec.get(name) for name in names)


@pytest.mark.parametrize(
    ("new", "names", "expected"),
    [
        ({"type": "NodePort", "ports": [PORT]}, ("clusterIP", "clusterIPs"), ("10.96.0.9", ["10.96.0.9"])),
        # Node ports follow the name of a port, whatever else changes of it.
        ({"type": "NodePort", "ports": [PORT | {"port": 81}]}, ("ports",), ([PORT | {"port": 81, "nodePort": 30001}],)),
        ({"type": "NodePort", "ports": [PORT | {"name": "b"}]}, ("ports",), ([PORT | {"name": "b"}],)),
        # What only came back is given up with the type that needed it; what was changed is left to be judged.
        (GIVEN | {"type": "ClusterIP"}, ("ports", "externalTrafficPolicy"), ([PORT], None)),
        (GIVEN | {"type": "ClusterIP", "ports": [PORT | {"nodePort": 30002}]}, ("ports",), ([PORT | {"nodePort": 30002}],)),
        (GIVEN | {"type": "ExternalName"}, ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"), (None,) * 4),
        # Older clients know the one address alone.
        (GIVEN | {"clusterIP": "10.96.0.8"}, ("clusterIPs",), (["10.96.0.8"],)),
    ],
)  # fmt: skip
def test_an_update_keeps_what_was_given(new, names, expected):
    assert shown(changed_service(service(**GIVEN), service(**new)), *names) == expected


def test_a_new_service_tells_its_address_in_both_ways():
    assert shown(new_service(service(clusterIP="None")), "clusterIPs") == (["None"],)


@pytest.mark.parametrize(
    ("spec", "names", "expected"),
    [
        ({"type": "ClusterIP", "selector": {"a": "b"}, "clusterIP": "None", "clusterIPs": ["None"]},
         ("ipFamilies", "ipFamilyPolicy"), (["IPv4"], "SingleStack")),
        ({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"]},
         ("ipFamilies", "ipFamilyPolicy"), (["IPv4", "IPv6"], "RequireDualStack")),
        ({"type": "ClusterIP", "ipFamilyPolicy": "PreferDualStack"}, ("ipFamilies", "ipFamilyPolicy"), (["IPv4"], "PreferDualStack")),
        ({"type": "ExternalName", "externalName": "a.b"}, ("clusterIP", "ipFamilies"), (None, None)),
    ],
)  # fmt: skip
def test_families_are_filled_in(spec, names, expected):
    claims = ServiceClaims(NETWORK, lambda: (), random.Random(1))
    assert shown(claims.complete(None, service(**spec), ()), *names) == expected


def test_a_balancer_of_local_endpoints_gets_a_port_to_ask_at():
    claims = ServiceClaims(NETWORK, lambda: (), random.Random(1))
    made = claims.complete(None, service(type="LoadBalancer", externalTrafficPolicy="Local", ports=[PORT]), ())
    assert made.spec.health_check_node_port in NETWORK.ports
    assert made.spec.health_check_node_port != made.spec.ports[0].node_port


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"clusterIP": "10.1.0.1", "clusterIPs": ["10.1.0.1"]},
         ('spec.clusterIPs: Invalid value: []string{"10.1.0.1"}: failed to allocate IP 10.1.0.1: the provided IP (10.1.0.1) is '
         "not in the valid range. The range of valid IPs is 10.96.0.0/16")),
        ({"ipFamilies": ["IPv6"]}, 'spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster'),
        ({"ipFamilyPolicy": "RequireDualStack"},
         'spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services'),
        ({"ports": [PORT | {"nodePort": 80}], "type": "NodePort"}, ("spec.ports[0].nodePort: Invalid value: 80: provided port is "
         "not in the valid range. The range of valid ports is 30000-32767")),
    ],
)  # fmt: skip
def test_what_the_cluster_has_not_is_refused(spec, why):
    claims = ServiceClaims(NETWORK, lambda: (), random.Random(1))
    with pytest.raises(Invalid) as refused:
        claims.complete(None, service(**{"type": "ClusterIP", **spec}), ())
    assert refused.value.message == f'Service "s" is invalid: {why}'
