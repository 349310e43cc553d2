"""What the scheduler knows of nodes and of the pods on them.

``Cluster`` takes changes and hands out snapshots. A snapshot and everything in it is immutable: a change replaces the
one ``NodeInfo`` it concerns, so a snapshot costs one tuple. A pod that was just placed is *assumed*: it counts on its
node before its binding has come back through the watch, so two pods never get the same room.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from api.kinds.core import Node, Taint
from api.placement import NO_PORTS, HostPort, add, amounts
from master.scheduler.demands import NO_TERMS, PodInfo

NOT_READY = Taint(key="node.kubernetes.io/not-ready", effect="NoSchedule")


class NodeInfo(msgspec.Struct, frozen=True):
    """A node with everything on it."""

    node: Node
    name: str
    labels: Mapping[str, str]
    taints: Sequence[Taint]
    allocatable: Mapping[str, int]
    requested: Mapping[str, int] = {}
    score_cpu: int = 0
    score_memory: int = 0
    pods: Mapping[str, PodInfo] = {}  # by uid
    ports: frozenset[HostPort] = NO_PORTS
    controllers: Mapping[str, int] = {}  # uid of a controller -> its pods here
    images: Mapping[str, int] = {}  # name -> bytes

    def offers_the_same(self, other: "NodeInfo") -> bool:
        """Return whether both would be judged alike by filters, but for their pods."""
        return (
            self.labels == other.labels
            and self.taints == other.taints
            and self.allocatable == other.allocatable
            and self.node.spec.unschedulable == other.node.spec.unschedulable
        )


class Snapshot(msgspec.Struct, frozen=True):
    """The cluster at one moment."""

    nodes: Sequence[NodeInfo]
    namespaces: Mapping[str, Mapping[str, str]]  # name -> labels
    with_terms: Sequence[NodeInfo]  # nodes with pods that have affinity terms


def _taints_of(node: Node) -> Sequence[Taint]:
    """Return the node's taints, with not-ready where the condition says so and the taint has yet to come."""
    ready = next((each for each in node.status.conditions if each.type == "Ready"), None)
    taints = node.spec.taints
    if ready is None or ready.status == "True" or any(each.effect == "NoSchedule" for each in taints):
        return taints
    return (*taints, NOT_READY)


def node_info(node: Node, pods: Iterable[PodInfo] = ()) -> NodeInfo:
    """Return ``node`` with ``pods`` on it."""
    info = NodeInfo(
        node=node,
        name=node.metadata.name,
        labels=node.metadata.labels,
        taints=_taints_of(node),
        allocatable=amounts(node.status.allocatable or node.status.capacity),
        images={name: image.size_bytes or 0 for image in node.status.images for name in image.names},
    )
    for pod in pods:
        info = with_pod(info, pod)
    return info


def with_node(info: NodeInfo, node: Node) -> NodeInfo:
    """Return ``info`` with the node's new state and the same pods: what every heartbeat does."""
    fresh = node_info(node)
    return replace(
        info,
        node=node,
        labels=fresh.labels,
        taints=fresh.taints,
        allocatable=fresh.allocatable,
        images=fresh.images,
    )


def with_pod(info: NodeInfo, pod: PodInfo) -> NodeInfo:
    """Return ``info`` with ``pod`` on it, instead of a former state of the same pod."""
    if pod.uid in info.pods:
        info = without_pod(info, pod.uid)
    requested = dict(info.requested)
    add(requested, pod.requests)
    controllers = info.controllers
    if pod.controller:
        controllers = {**controllers, pod.controller: controllers.get(pod.controller, 0) + 1}
    return replace(
        info,
        requested=requested,
        score_cpu=info.score_cpu + pod.score_cpu,
        score_memory=info.score_memory + pod.score_memory,
        pods={**info.pods, pod.uid: pod},
        ports=info.ports | pod.ports if pod.ports else info.ports,
        controllers=controllers,
    )


def without_pod(info: NodeInfo, uid: str) -> NodeInfo:
    """Return ``info`` without that pod."""
    pods = dict(info.pods)
    gone = pods.pop(uid)
    requested = {name: value - gone.requests.get(name, 0) for name, value in info.requested.items()}
    controllers = dict(info.controllers)
    if gone.controller:
        controllers[gone.controller] -= 1
        if not controllers[gone.controller]:
            del controllers[gone.controller]
    return replace(
        info,
        requested=requested,
        score_cpu=info.score_cpu - gone.score_cpu,
        score_memory=info.score_memory - gone.score_memory,
        pods=pods,
        ports=frozenset(port for each in pods.values() for port in each.ports) if gone.ports else info.ports,
        controllers=controllers,
    )


class Cluster:
    """The present state, fed by changes of nodes and pods and by the scheduler's own decisions."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeInfo] = {}
        self._waiting: dict[str, dict[str, PodInfo]] = {}  # pods on nodes that we have not seen yet, by node
        self._where: dict[str, str] = {}  # pod uid -> node
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._with_terms: dict[str, int] = {}  # node -> its pods with terms
        self._promises: dict[str, tuple[PodInfo, str]] = {}  # key -> a pod, and where room is kept for it
        self._snapshot: Snapshot | None = None

    def snapshot(self) -> Snapshot:
        """Return the state of this moment."""
        if self._snapshot is None:
            nodes = tuple(self._nodes.values())
            with_terms = tuple(self._nodes[name] for name in self._with_terms if name in self._nodes)
            self._snapshot = Snapshot(nodes, dict(self._namespaces), with_terms)
        return self._snapshot

    def promised(self, pod: PodInfo) -> Snapshot | None:
        """Return the state with the pods on their nodes that have been promised room before ``pod``; None if none has.

        Those of its own priority and above come before it.
        """
        if not self._promises:
            return None
        own = pod.pod.spec.priority or 0
        nodes = dict(self._nodes)
        with_terms = set(self._with_terms)
        for other, name in self._promises.values():
            if other.key != pod.key and (other.pod.spec.priority or 0) >= own and name in nodes:
                nodes[name] = with_pod(nodes[name], other)
                if other.terms is not NO_TERMS:
                    with_terms.add(name)
        if all(nodes[name] is each for name, each in self._nodes.items()):
            return None
        return Snapshot(
            tuple(nodes.values()), dict(self._namespaces), tuple(nodes[name] for name in with_terms if name in nodes)
        )

    def promise(self, pod: PodInfo, node: str) -> None:
        """Keep room on ``node`` for a pod until it is placed or the promise is taken back."""
        self._promises[pod.key] = (pod, node)

    def take_back(self, key: str) -> bool:
        """Keep no room for the pod of that key any more; return whether some was kept."""
        return self._promises.pop(key, None) is not None

    def promised_node(self, key: str) -> str:
        """Return where room is kept for the pod of that key; "" if nowhere."""
        found = self._promises.get(key)
        return found[1] if found is not None else ""

    def promised_below(self, node: str, priority: int) -> list[PodInfo]:
        """Return the pods of lower priority that have been promised room on ``node``."""
        promises = [pod for pod, name in self._promises.values() if name == node]
        return [pod for pod in promises if (pod.pod.spec.priority or 0) < priority]

    def node_of(self, uid: str) -> str:
        """Return where that pod is, or is assumed to be; "" if nowhere."""
        return self._where.get(uid, "")

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        """Take a namespace's labels, None if it is gone."""
        if labels is None:
            self._namespaces.pop(name, None)
        else:
            self._namespaces[name] = labels
        self._snapshot = None

    def node(self, name: str) -> NodeInfo | None:
        """Return a node as it is known now."""
        return self._nodes.get(name)

    def set_node(self, name: str, node: Node | None) -> None:
        """Take a node's new state, None if it is gone; pods that it had stay in mind until they are gone, too."""
        self._snapshot = None
        before = self._nodes.get(name)
        if node is None:
            if self._nodes.pop(name, None) is not None and before is not None and before.pods:
                self._waiting[name] = dict(before.pods)
        elif before is not None and before.node.metadata.uid == node.metadata.uid:
            self._nodes[name] = with_node(before, node)
        else:
            pods = before.pods if before is not None else self._waiting.pop(name, {})
            self._nodes[name] = node_info(node, pods.values())

    def put_pod(self, pod: PodInfo, node: str) -> None:
        """Let ``pod`` count on ``node``: bound, or assumed."""
        if (present := self._where.get(pod.uid)) is not None and present != node:
            self.remove_pod(pod.uid)
        self._snapshot = None
        known = present == node
        self._where[pod.uid] = node
        if node in self._nodes:
            self._nodes[node] = with_pod(self._nodes[node], pod)
        else:
            self._waiting.setdefault(node, {})[pod.uid] = pod
        if pod.terms is not NO_TERMS and not known:
            self._with_terms[node] = self._with_terms.get(node, 0) + 1

    def remove_pod(self, uid: str) -> None:
        """Let a pod count nowhere: gone, finished, or not bound after all."""
        node = self._where.pop(uid, None)
        if node is None:
            return
        self._snapshot = None
        if node in self._nodes:
            gone = self._nodes[node].pods[uid]
            self._nodes[node] = without_pod(self._nodes[node], uid)
        else:
            gone = self._waiting[node].pop(uid)
            if not self._waiting[node]:
                del self._waiting[node]
        if gone.terms is not NO_TERMS:
            self._with_terms[node] -= 1
            if not self._with_terms[node]:
                del self._with_terms[node]
