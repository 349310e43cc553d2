"""Which pods a node refuses, and in which words."""

import msgspec
import pytest

from api.kinds.core import Taint
from api.kinds.pods import Pod
from node_agent.pods.refusal import Place, place_of, refusal

PLACE = Place(
    name="n1",
    allocatable={"cpu": "2", "memory": "4Gi", "ephemeral-storage": "10Gi", "pods": "3"},
    labels={"disk": "ssd", "kubernetes.io/os": "linux"},
    taints=(),
)
HERE, ELSEWHERE = {"disk": "ssd"}, {"disk": "hdd"}


def pod(*requests, ports=(), **spec):
    containers = [
        {"name": f"c{n}", "image": "i", "resources": {"requests": each}} for n, each in enumerate(requests or ({},))
    ]
    containers[0]["ports"] = [{"containerPort": 80, **port} for port in ports]
    return msgspec.convert({"metadata": {"name": "p"}, "spec": {"containers": containers, **spec}}, Pod)


def sidecar(port):
    ports = [{"containerPort": 80, "hostPort": port}]
    return {"name": "beside", "image": "i", "restartPolicy": "Always", "ports": ports}


def required(*expressions, fields=()):
    term = {"matchExpressions": list(expressions), "matchFields": list(fields)}
    rule = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    return {"affinity": {"nodeAffinity": rule}}


def tainted(effect, value="v"):
    return msgspec.structs.replace(PLACE, taints=(Taint(key="k", value=value, effect=effect),))


ROOM = "Node didn't have enough resource: "
PORTS = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
AFFINITY = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"


@pytest.mark.parametrize(
    ("wanted", "neighbours", "reason", "message"),
    [
        pytest.param(pod({"cpu": "2", "memory": "4Gi"}), [], "", "", id="all of it"),
        pytest.param(
            pod({"cpu": "1500m"}, {"cpu": "1"}), [], "OutOfcpu",
            ROOM + "cpu, requested: 2500, used: 0, capacity: 2000", id="more processors than there are",
        ),
        pytest.param(
            pod({"cpu": "1"}), [pod({"cpu": "700m"}), pod({"cpu": "400m"})], "OutOfcpu",
            ROOM + "cpu, requested: 1000, used: 1100, capacity: 2000", id="more than is left",
        ),
        pytest.param(
            pod({"memory": "1Gi"}), [pod({"memory": "3584Mi"})], "OutOfmemory",
            ROOM + "memory, requested: 1073741824, used: 3758096384, capacity: 4294967296", id="memory",
        ),
        pytest.param(
            pod({"ephemeral-storage": "11Gi"}), [], "OutOfephemeral-storage",
            ROOM + "ephemeral-storage, requested: 11811160064, used: 0, capacity: 10737418240", id="disk",
        ),
        pytest.param(pod(), [pod({"cpu": "3"})], "", "", id="who asks for nothing fits anywhere"),
        pytest.param(
            pod({"cpu": "9"}), [pod()] * 3, "OutOfpods",
            ROOM + "pods, requested: 1, used: 3, capacity: 3", id="as many pods as there may be",
        ),
        pytest.param(
            pod({"memory": "5Gi", "ephemeral-storage": "11Gi"}), [], "OutOfmemory",
            ROOM + "memory, requested: 5368709120, used: 0, capacity: 4294967296", id="memory comes before disk",
        ),
        pytest.param(pod({"example.com/gpu": "1"}), [], "", "", id="what others hand out"),
        pytest.param(pod(nodeSelector=HERE), [], "", "", id="our labels"),
        pytest.param(pod(nodeSelector=ELSEWHERE), [], "NodeAffinity", AFFINITY, id="other labels"),
        pytest.param(
            pod(**required({"key": "disk", "operator": "NotIn", "values": ["ssd"]})), [],
            "NodeAffinity", AFFINITY, id="any but ours",
        ),
        pytest.param(
            pod(**required(fields=[{"key": "metadata.name", "operator": "In", "values": ["n1"]}])), [], "", "",
            id="this very node",
        ),
        pytest.param(pod(ports=[{"hostPort": 80}]), [pod(ports=[{"hostPort": 80}])], "NodePorts", PORTS, id="port"),
        pytest.param(pod(ports=[{}]), [pod(ports=[{}])], "", "", id="ports of their own"),
        pytest.param(
            pod(ports=[{"hostPort": 80}]), [pod(ports=[{"hostPort": 80, "protocol": "UDP"}])], "", "", id="protocols",
        ),
        pytest.param(
            pod(ports=[{"hostPort": 80, "hostIP": "10.0.0.1"}]), [pod(ports=[{"hostPort": 80, "hostIP": "10.0.0.2"}])],
            "", "", id="other addresses",
        ),
        pytest.param(
            pod(ports=[{"hostPort": 80, "hostIP": "10.0.0.1"}]), [pod(ports=[{"hostPort": 80}])],
            "NodePorts", PORTS, id="one address of all",
        ),
        pytest.param(
            pod(ports=[{"hostPort": 80}]), [pod(initContainers=[sidecar(80)])], "NodePorts", PORTS, id="a sidecar's port",
        ),
        pytest.param(
            pod(ports=[{"hostPort": 80}]), [pod(initContainers=[{**sidecar(80), "restartPolicy": ""}])], "", "",
            id="a port of what ends before the pod begins",
        ),
        pytest.param(pod(os={"name": "windows"}, nodeSelector=ELSEWHERE), [], "PodOSNotSupported",
                     "Failed to admit pod as the OS field doesn't match node OS", id="what we cannot comes first"),
        pytest.param(pod({"cpu": "9"}, nodeSelector=ELSEWHERE), [], "OutOfcpu",
                     ROOM + "cpu, requested: 9000, used: 0, capacity: 2000", id="room comes before labels"),
    ],
)  # fmt: skip
def test_what_the_node_lacks(wanted, neighbours, reason, message):
    found = refusal(wanted, PLACE, neighbours)
    assert (found.reason, found.message) == (reason, message) if reason else found is None


TOLERATION = {"tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute"}]}


@pytest.mark.parametrize(
    ("wanted", "place", "is_static", "refused"),
    [
        pytest.param(pod(), tainted("NoExecute"), False, True, id="barred"),
        pytest.param(pod(**TOLERATION), tainted("NoExecute"), False, False, id="tolerated"),
        pytest.param(pod(), tainted("NoExecute"), True, False, id="from a file"),
        pytest.param(pod(), tainted("NoSchedule"), False, False, id="the scheduler's business"),
    ],
)
def test_taints(wanted, place, is_static, refused):
    found = refusal(wanted, place, is_static=is_static)
    assert (found is not None) == refused
    if found is not None:
        assert found.reason == "TaintToleration"
        assert found.message == "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"


def test_what_hangs_on_the_nodes_object_is_judged_anew_and_the_rest_is_not():
    assert refusal(pod(nodeSelector=ELSEWHERE), PLACE).of_node
    assert refusal(pod(), tainted("NoExecute")).of_node
    assert not refusal(pod({"cpu": "9"}), PLACE).of_node


def test_a_node_that_nobody_has_told_us_of_refuses_nobody_by_its_labels():
    assert refusal(pod(nodeSelector=ELSEWHERE), place_of(None, "n1", PLACE.allocatable)) is None
