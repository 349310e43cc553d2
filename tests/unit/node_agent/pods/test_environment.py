"""Environment variables of a container."""

import base64

import msgspec
import pytest

from api.kinds.core import ConfigMap, Secret, Service
from api.kinds.pods import Container, Pod
from api.meta import ObjectMeta
from node_agent.pods.environment import (
    ConfigMissing,
    Facts,
    expand,
    needs_pod_ip,
    render_environment,
    service_variables,
)


def facts(**more: object) -> Facts:
    pod = msgspec.convert(
        {
            "metadata": {"name": "web", "namespace": "ns", "uid": "u", "labels": {"b": "2", "a": 'x"y'}},
            "spec": {
                "containers": [
                    {"name": "main", "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "250m"}}}
                ]
            },
        },
        Pod,
    )
    return Facts(pod=pod, node="node1", host_ip="10.0.0.1", pod_ip="10.244.0.9", allocatable={"cpu": "4"}, **more)


def container(*env: dict[str, object], **more: object) -> Container:
    return msgspec.convert({"name": "main", "env": list(env), **more}, Container)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$(X)", "$(X)"),
        ("a$b", "a$b"),
        ("$(A)$(A)", "11"),
        ("$$$(A)", "$1"),
        ("$(A", "$(A"),
    ],
)
def test_references(text: str, value: str) -> None:
    assert expand(text, {"A": "1"}) == value


def test_later_variables_see_earlier_ones_and_win() -> None:
    env = render_environment(
        container(
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)$(C)"},
            {"name": "C", "value": "3"},
            {"name": "A", "value": "2"},
        ),
        facts(),
    )
    assert env == {"A": "2", "B": "1$(C)", "C": "3"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "ns"),
        ("metadata.uid", "u"),
        ("spec.nodeName", "node1"),
        ("status.podIP", "10.244.0.9"),
        ("status.hostIP", "10.0.0.1"),
        ("metadata.labels['b']", "2"),
        ("metadata.labels['none']", ""),
        ("metadata.labels", 'a="x\\"y"\nb="2"'),
    ],
)
def test_fields_of_the_pod(path: str, value: str) -> None:
    of = container({"name": "F", "valueFrom": {"fieldRef": {"fieldPath": path}}})
    assert render_environment(of, facts()) == {"F": value}
    assert needs_pod_ip(of) == (path == "status.podIP")


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("limits.memory", "1Mi", "64"),
        ("limits.memory", "", str(64 << 20)),
        ("requests.cpu", "1m", "250"),
        ("requests.cpu", "", "1"),
        ("limits.cpu", "", "4"),
        ("requests.memory", "", "0"),
    ],
)
def test_resources_of_the_container(resource: str, divisor: str, value: str) -> None:
    of = container({"name": "R", "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": divisor}}})
    assert render_environment(of, facts()) == {"R": value}


def test_whole_objects_with_a_prefix() -> None:
    meta = ObjectMeta(name="it")
    around = facts(
        config_maps={"it": ConfigMap(metadata=meta, data={"k": "v"})},
        secrets={"it": Secret(metadata=meta, data={"s": base64.b64encode(b"x").decode()})},
    )
    of = container(envFrom=[{"configMapRef": {"name": "it"}, "prefix": "P_"}, {"secretRef": {"name": "it"}}])
    assert render_environment(of, around) == {"P_k": "v", "s": "x"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapKeyRef": {"name": "no", "key": "k"}}, 'configmap "no" not found'),
        ({"secretKeyRef": {"name": "no", "key": "k"}}, 'secret "no" not found'),
        ({"fieldRef": {"fieldPath": "spec.oops"}}, "unsupported fieldPath: spec.oops"),
    ],
)
def test_what_is_missing_is_named(source: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigMissing, match=message):
        render_environment(container({"name": "X", "valueFrom": source}), facts())


def test_what_is_optional_may_be_missing() -> None:
    source = {"configMapKeyRef": {"name": "no", "key": "k", "optional": True}}
    assert render_environment(container({"name": "X", "valueFrom": source}), facts()) == {}
    present = facts(config_maps={"no": ConfigMap(metadata=ObjectMeta(name="no"))})
    assert render_environment(container({"name": "X", "valueFrom": source}), present) == {}


def test_services() -> None:
    def service(name: str, namespace: str, ip: str) -> Service:
        spec = {"clusterIP": ip, "ports": [{"name": "http", "port": 80}, {"name": "m", "port": 9, "protocol": "UDP"}]}
        return msgspec.convert({"metadata": {"name": name, "namespace": namespace}, "spec": spec}, Service)

    services = (
        service("my-web", "ns", "10.96.0.5"),
        service("headless", "ns", "None"),
        service("far", "other", "10.96.0.6"),
        service("kubernetes", "default", "10.96.0.1"),
    )
    env = service_variables(services, "ns", all_links=True)
    assert env["MY_WEB_SERVICE_HOST"] == "10.96.0.5"
    assert env["MY_WEB_SERVICE_PORT_HTTP"] == "80"
    assert env["MY_WEB_PORT"] == "tcp://10.96.0.5:80"
    assert env["MY_WEB_PORT_9_UDP_PROTO"] == "udp"
    assert not any(name.startswith(("HEADLESS", "FAR")) for name in env)
    assert {name.split("_")[0] for name in service_variables(services, "ns", all_links=False)} == {"KUBERNETES"}
