"""Filters and scores, one rule a row: which nodes can take a pod, which should, and why not the others."""

import random
from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from api.kinds.core import ContainerImage, Node, Taint
from api.kinds.pods import (
    Affinity,
    Container,
    ContainerPort,
    NodeAffinity,
    Pod,
    PodAffinity,
    PodAffinityTerm,
    PodAntiAffinity,
    PodSpec,
    PreferredSchedulingTerm,
    ResourceRequirements,
    Toleration,
    TopologySpreadConstraint,
    WeightedPodAffinityTerm,
)
from api.kinds.volumes import NodeSelector, NodeSelectorRequirement, NodeSelectorTerm
from api.meta import LabelSelector, ObjectMeta, OwnerReference
from api.placement import requests_of
from master.scheduler.demands import pod_info
from master.scheduler.framework import Placed, Unplaceable, pick_node
from master.scheduler.profile import DEFAULT
from master.scheduler.snapshot import Cluster
from tests.fakes.world import ready_node

HOST = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"


def pod(
    name: str = "p", *, cpu: str = "", memory: str = "", labels: Mapping[str, str] | None = None, namespace: str = "default",
    owner: str = "", ports: tuple[ContainerPort, ...] = (), image: str = "web:1", **spec: object,
) -> Pod:  # fmt: skip
    requests = {key: value for key, value in (("cpu", cpu), ("memory", memory)) if value}
    container = Container(name="main", image=image, resources=ResourceRequirements(requests=requests), ports=ports)
    owners = (OwnerReference(kind="ReplicaSet", name=owner, uid=owner, controller=True),) if owner else ()
    return Pod(
        metadata=ObjectMeta(
            name=name, namespace=namespace, uid=name, labels=dict(labels or {}), owner_references=owners
        ),
        spec=PodSpec(containers=(container,), **spec),  # type: ignore[arg-type]
    )


def node(name: str, *, cpu: str = "4", zone: str = "", taints: tuple[Taint, ...] = (), **labels: str) -> Node:
    made = ready_node(name, cpu=cpu, **({ZONE: zone} if zone else {}), **labels)
    return replace(made, spec=replace(made.spec, taints=taints))


def cluster(*nodes: Node, **pods: list[Pod]) -> Cluster:
    found = Cluster()
    for each in nodes:
        found.set_node(each.metadata.name, each)
    for name, on in pods.items():
        for each in on:
            found.put_pod(pod_info(each), name)
    return found


def place(where: Cluster, what: Pod, seed: int = 0) -> Placed | Unplaceable:
    return pick_node(pod_info(what), where.snapshot(), DEFAULT, start=0, rng=random.Random(seed))


def fits(where: Cluster, what: Pod) -> set[str]:
    """Return every node that can take the pod."""
    info, snapshot = pod_info(what), where.snapshot()
    checks = [check for rule in DEFAULT.filters if (check := rule.prepare(info, snapshot)) is not None]
    return {each.name for each in snapshot.nodes if not any(check(each) for check in checks)}


def chosen(where: Cluster, what: Pod) -> str:
    found = {choice.node for seed in range(8) if isinstance(choice := place(where, what, seed), Placed)}
    assert len(found) == 1, found
    return found.pop()


def why_not(where: Cluster, what: Pod) -> str:
    choice = place(where, what)
    assert isinstance(choice, Unplaceable), choice
    return choice.message


TAINT = Taint(key="dedicated", value="db", effect="NoSchedule")
ALIVE = {"app": "web"}
NEAR_WEB = PodAffinityTerm(label_selector=LabelSelector(match_labels=ALIVE), topology_key=HOST)
IN_ZONE = replace(NEAR_WEB, topology_key=ZONE)


def required(*terms: NodeSelectorTerm) -> Affinity:
    selector = NodeSelector(node_selector_terms=terms)
    return Affinity(node_affinity=NodeAffinity(required_during_scheduling_ignored_during_execution=selector))


def expression(key: str, operator: str, *values: str) -> NodeSelectorTerm:
    return NodeSelectorTerm(match_expressions=(NodeSelectorRequirement(key=key, operator=operator, values=values),))


def near(term: PodAffinityTerm) -> Affinity:
    return Affinity(pod_affinity=PodAffinity(required_during_scheduling_ignored_during_execution=(term,)))


def far(term: PodAffinityTerm) -> Affinity:
    return Affinity(pod_anti_affinity=PodAntiAffinity(required_during_scheduling_ignored_during_execution=(term,)))


def spread(skew: int, key: str = HOST, when: str = "DoNotSchedule", **more: object) -> TopologySpreadConstraint:
    return TopologySpreadConstraint(
        max_skew=skew, topology_key=key, when_unsatisfiable=when, label_selector=LabelSelector(match_labels=ALIVE),
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


def web(name: str, **more: object) -> Pod:
    return pod(name, labels=ALIVE, **more)  # type: ignore[arg-type]


PORT = (ContainerPort(container_port=80, host_port=80, protocol="TCP"),)


@pytest.mark.parametrize(
    ("where", "what", "wanted"),
    [
        pytest.param(cluster(node("a", cpu="2"), node("b", cpu="1")), pod(cpu="1500m"), {"a"}, id="cpu"),
        pytest.param(cluster(node("a"), node("b"), a=[pod("x", cpu="3")]), pod(cpu="1500m"), {"b"}, id="cpu in use"),
        pytest.param(cluster(node("a"), a=[pod("x", cpu="3")]), pod(cpu="1"), {"a"}, id="exactly full"),
        pytest.param(cluster(node("a")), pod(memory="9Gi"), set(), id="memory"),
        pytest.param(cluster(node("a"), node("b")), pod(node_selector={HOST: "b"}), {"b"}, id="node selector"),
        pytest.param(
            cluster(node("a", disk="ssd"), node("b", disk="hdd"), node("c")),
            pod(affinity=required(expression("disk", "In", "ssd", "nvme"))), {"a"}, id="affinity In",
        ),
        pytest.param(
            cluster(node("a", disk="ssd"), node("b", disk="hdd"), node("c")),
            pod(affinity=required(expression("disk", "NotIn", "ssd"))), {"b", "c"}, id="affinity NotIn takes the absent",
        ),
        pytest.param(
            cluster(node("a", size="3"), node("b", size="10")),
            pod(affinity=required(expression("size", "Gt", "5"), expression("size", "Lt", "2"))), {"b"}, id="terms are ORed",
        ),
        pytest.param(cluster(node("a")), pod(affinity=required(NodeSelectorTerm())), set(), id="an empty term matches nothing"),
        pytest.param(cluster(node("a", taints=(TAINT,)), node("b")), pod(), {"b"}, id="taint"),
        pytest.param(
            cluster(node("a", taints=(TAINT,))), pod(tolerations=(Toleration(key="dedicated", value="db"),)), {"a"},
            id="tolerated by value",
        ),
        pytest.param(
            cluster(node("a", taints=(TAINT,))), pod(tolerations=(Toleration(key="dedicated", value="web"),)), set(),
            id="another value",
        ),
        pytest.param(
            cluster(node("a", taints=(TAINT,))), pod(tolerations=(Toleration(operator="Exists"),)), {"a"}, id="tolerates all"
        ),
        pytest.param(
            cluster(node("a", taints=(replace(TAINT, effect="PreferNoSchedule"),))), pod(), {"a"}, id="a soft taint"
        ),
        pytest.param(cluster(node("a"), node("b"), a=[pod("x", ports=PORT)]), pod(ports=PORT), {"b"}, id="host port taken"),
        pytest.param(
            cluster(node("a"), a=[pod("x", ports=PORT)]), pod(ports=(replace(PORT[0], protocol="UDP"),)), {"a"},
            id="another protocol",
        ),
        pytest.param(
            cluster(node("a"), a=[pod("x", ports=(replace(PORT[0], host_ip="10.0.0.1"),))]),
            pod(ports=(replace(PORT[0], host_ip="10.0.0.2"),)), {"a"}, id="another address",
        ),
        pytest.param(cluster(node("a"), node("b"), b=[web("x")]), pod(affinity=near(NEAR_WEB)), {"b"}, id="near a pod"),
        pytest.param(
            cluster(node("a", zone="1"), node("b", zone="1"), node("c", zone="2"), a=[web("x")]),
            pod(affinity=near(IN_ZONE)), {"a", "b"}, id="in its zone",
        ),
        pytest.param(cluster(node("a")), pod(affinity=near(NEAR_WEB)), set(), id="nobody to be near"),
        pytest.param(cluster(node("a")), web("p", affinity=near(NEAR_WEB)), {"a"}, id="the first of its own kind"),
        pytest.param(
            cluster(node("a"), a=[web("x", namespace="other")]), pod(affinity=near(NEAR_WEB)), set(), id="another namespace"
        ),
        pytest.param(cluster(node("a"), node("b"), b=[web("x")]), pod(affinity=far(NEAR_WEB)), {"a"}, id="away from a pod"),
        pytest.param(
            cluster(node("a"), node("b"), b=[pod("x", affinity=far(NEAR_WEB))]), web("p"), {"a"}, id="a running pod objects"
        ),
        pytest.param(
            cluster(node("a"), node("b"), a=[web("x"), web("y")], b=[web("z")]),
            web("p", topology_spread_constraints=(spread(1),)), {"b"}, id="spread evenly",
        ),
        pytest.param(
            cluster(node("a"), node("b"), a=[web("x"), web("y")], b=[web("z")]),
            web("p", topology_spread_constraints=(spread(2),)), {"a", "b"}, id="within the skew",
        ),
        pytest.param(
            cluster(node("a", zone="1"), node("b"), a=[web("x")]),
            web("p", topology_spread_constraints=(spread(1, ZONE),)), {"a"}, id="a node without the key",
        ),
        pytest.param(
            cluster(node("a"), a=[web("x")]), web("p", topology_spread_constraints=(spread(1, min_domains=2),)), set(),
            id="too few domains count as an empty one",
        ),
    ],
)  # fmt: skip
def test_which_nodes_can(where: Cluster, what: Pod, wanted: set[str]) -> None:
    assert fits(where, what) == wanted


def test_a_node_that_is_full_of_pods() -> None:
    where = Cluster()
    where.set_node("a", ready_node("a", pods="2"))
    for name in ("x", "y"):
        where.put_pod(pod_info(pod(name)), "a")
    assert why_not(where, pod()) == "0/1 nodes are available: 1 Too many pods."


def test_a_node_whose_agent_is_not_ready_takes_nobody_though_its_taint_is_still_to_come() -> None:
    down = ready_node("a")
    conditions = tuple(replace(each, status="Unknown") for each in down.status.conditions)
    where = cluster(replace(down, status=replace(down.status, conditions=conditions)))
    assert (
        why_not(where, pod())
        == "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }."
    )


def test_why_not_is_said_in_the_real_schedulers_words() -> None:
    cordoned = node("c")
    nodes = (node("a", cpu="1"), node("b", cpu="1"), replace(cordoned, spec=replace(cordoned.spec, unschedulable=True)))
    assert why_not(cluster(*nodes[:2]), pod(cpu="2")) == "0/2 nodes are available: 2 Insufficient cpu."
    assert why_not(cluster(*nodes), pod(cpu="2", memory="99Gi")) == (
        "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu, 2 Insufficient memory."
    )
    assert why_not(Cluster(), pod()) == "no nodes available to schedule pods"


@pytest.mark.parametrize(
    ("where", "what", "wanted"),
    [
        pytest.param(cluster(node("a"), node("b"), a=[pod("x", cpu="2")]), pod(), "b", id="the emptier"),
        pytest.param(
            cluster(node("a"), node("b"), a=[pod("x", owner="rs")], b=[pod("y", cpu="500m")]), pod(owner="rs"), "b",
            id="away from its replicas",
        ),
        pytest.param(
            cluster(node("a", taints=(replace(TAINT, effect="PreferNoSchedule"),)), node("b")), pod(), "b", id="no soft taint"
        ),
        pytest.param(
            cluster(node("a"), node("b", disk="ssd")),
            pod(affinity=Affinity(node_affinity=NodeAffinity(preferred_during_scheduling_ignored_during_execution=(
                PreferredSchedulingTerm(weight=1, preference=expression("disk", "Exists")),)))),
            "b", id="preferred node",
        ),
        pytest.param(
            cluster(node("a"), node("b"), b=[web("x")]),
            pod(affinity=Affinity(pod_affinity=PodAffinity(preferred_during_scheduling_ignored_during_execution=(
                WeightedPodAffinityTerm(weight=100, pod_affinity_term=NEAR_WEB),)))),
            "b", id="preferred neighbour",
        ),
        pytest.param(
            cluster(node("a"), node("b"), a=[web("x")], b=[pod("y", cpu="1")]),
            web("p", topology_spread_constraints=(spread(1, when="ScheduleAnyway"),)), "b", id="soft spread",
        ),
    ],
)  # fmt: skip
def test_which_node_should(where: Cluster, what: Pod, wanted: str) -> None:
    assert chosen(where, what) == wanted


def test_an_image_that_is_there_counts() -> None:
    has = ready_node("b")
    images = (ContainerImage(names=("web:1",), size_bytes=900 * 2**20),)
    where = cluster(ready_node("a"), replace(has, status=replace(has.status, images=images)))
    assert chosen(where, pod()) == "b"


def test_equals_are_decided_by_the_given_random_alone() -> None:
    where = cluster(*(node(f"n{number}") for number in range(10)))
    assert place(where, pod(), 1) == place(where, pod(), 1)
    assert len({choice.node for seed in range(30) if isinstance(choice := place(where, pod(), seed), Placed)}) > 3


def test_a_large_cluster_is_sampled_and_everybody_gets_a_turn() -> None:
    where = cluster(*(node(f"n{number}") for number in range(1000)))
    choice = place(where, pod())
    assert isinstance(choice, Placed)
    assert (choice.examined, choice.feasible, choice.next_start) == (100, 100, 100)


def test_init_containers_and_sidecars_count_at_their_peak() -> None:
    def container(cpu: str, restart: str = "") -> Container:
        return Container(name=cpu, resources=ResourceRequirements(requests={"cpu": cpu}), restart_policy=restart)

    inits = (container("1"), container("500m", "Always"), container("3"))
    spec = PodSpec(containers=(container("1"), container("1")), init_containers=inits, overhead={"cpu": "100m"})
    assert requests_of(Pod(spec=spec))["cpu"] == 3600  # the last init container beside the sidecar, and overhead


def test_room_comes_back_when_a_pod_goes() -> None:
    where = cluster(node("a"), a=[pod("x", cpu="3", ports=PORT, owner="rs")])
    empty = cluster(node("a")).node("a")
    where.remove_pod("x")
    left = where.node("a")
    assert left is not None
    assert empty is not None
    assert {name: value for name, value in left.requested.items() if value} == {}
    assert (left.ports, left.pods, left.controllers, left.score_cpu) == (empty.ports, empty.pods, empty.controllers, 0)
