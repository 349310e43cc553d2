"""Objects that are computed when somebody asks and stored nowhere: component statuses, and what nodes and pods use."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Any, Protocol, TypeVar

from api import codec
from api.errors import not_found
from api.kinds.core import ComponentCondition, ComponentStatus, Node
from api.kinds.metrics import ContainerMetrics, NodeMetrics, PodMetrics
from api.kinds.pods import Pod
from api.kinds.table import Kind
from api.meta import ObjectMeta, Resource
from master.lifecycle import timestamp
from master.objects import Selection, StoredObject
from master.rest.node_agents import NodeAgents
from trireme_pb.node import node_pb2

R = TypeVar("R", bound=Resource)
AGENT_S = 2.0  # an agent that takes longer to tell what it uses is left out
_AT_ONCE = 32


class Computed(Protocol):
    """Makes the objects of one kind."""

    async def all(self, selection: Selection) -> Sequence[Resource]:
        """Return at least the objects that are selected; raises ApiError."""


class Computer:
    """Answers get and list of computed kinds."""

    def __init__(self) -> None:
        self._sources: dict[tuple[str, str], Computed] = {}

    def add(self, place: tuple[str, str], source: Computed) -> None:
        """Let ``source`` make the objects of the kind at ``place``."""
        self._sources[place] = source

    def makes(self, kind: Kind) -> bool:
        """Return whether objects of ``kind`` are computed."""
        return kind.place in self._sources

    async def list(self, kind: Kind, selection: Selection) -> Sequence[StoredObject]:
        """Return the selected objects in key order."""
        made = [_as_stored(kind, obj) for obj in await self._sources[kind.place].all(selection)]
        return sorted((each for each in made if selection(each)), key=lambda each: each.key)

    async def get(self, kind: Kind, namespace: str, name: str) -> StoredObject:
        """Return one object; raises NotFound."""
        for each in await self.list(kind, Selection(namespace=namespace)):
            if each.name == name:
                return each
        raise not_found(kind.plural, name, group=kind.group)


def _as_stored(kind: Kind, obj: Resource) -> StoredObject:
    meta = obj.metadata
    return StoredObject(kind, namespace=meta.namespace, name=meta.name, data=codec.encode(obj), revision=0)


class Components:
    """What used to tell an administrator whether the control plane's parts work."""

    def __init__(self, problems: Callable[[], Mapping[str, str]]) -> None:
        self._problems = problems

    async def all(self, selection: Selection) -> Sequence[Resource]:
        """Return the parts that ``kubectl get componentstatuses`` always had."""
        del selection
        troubles = self._problems()
        parts = {"scheduler": "", "controller-manager": "", "etcd-0": troubles.get("store", "")}
        return [_component(name, trouble) for name, trouble in parts.items()]


def _component(name: str, trouble: str) -> ComponentStatus:
    condition = ComponentCondition(
        type="Healthy", status="False" if trouble else "True", message="" if trouble else "ok", error=trouble
    )
    return ComponentStatus(
        api_version="v1", kind="ComponentStatus", metadata=ObjectMeta(name=name), conditions=(condition,)
    )


class Usage:
    """Asks node agents what they and their pods use.

    nodes, pods: return what the cache has.
    """

    def __init__(
        self,
        agents: NodeAgents,
        *,
        nodes: Callable[[], Sequence[StoredObject]],
        pods: Callable[[], Sequence[StoredObject]],
    ) -> None:
        self._agents = agents
        self._nodes = nodes
        self._pods = pods

    async def of_nodes(self, selection: Selection) -> Sequence[Resource]:
        """Return the metrics of every node whose agent answers."""
        found = [each for each in self._nodes() if not selection.name or each.name == selection.name]
        answers = await self._ask([each.obj for each in found])
        return [_node_metrics(node, answers[node.name]) for node in found if node.name in answers]

    async def of_pods(self, selection: Selection) -> Sequence[Resource]:
        """Return the metrics of every running pod whose node's agent answers."""
        pods = [each for each in self._pods() if not selection.namespace or each.namespace == selection.namespace]
        wanted = {each.field("spec.nodeName") for each in pods}
        answers = await self._ask([each.obj for each in self._nodes() if each.name in wanted])
        made = (_pod_metrics(each, answers.get(each.field("spec.nodeName"))) for each in pods)
        return [each for each in made if each is not None]

    async def _ask(self, nodes: Sequence[Resource]) -> dict[str, node_pb2.StatsResponse]:
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def ask(node: Resource) -> node_pb2.StatsResponse | None:
            assert isinstance(node, Node)
            async with at_once:
                return await self._agents.stats(node, timeout_s=AGENT_S)

        answers = await asyncio.gather(*(ask(each) for each in nodes))
        return {node.metadata.name: answer for node, answer in zip(nodes, answers, strict=True) if answer is not None}


class NodeUsage:
    """``nodes`` of metrics.k8s.io."""

    def __init__(self, usage: Usage) -> None:
        self._usage = usage

    async def all(self, selection: Selection) -> Sequence[Resource]:
        """Return the metrics of nodes."""
        return await self._usage.of_nodes(selection)


class PodUsage:
    """``pods`` of metrics.k8s.io."""

    def __init__(self, usage: Usage) -> None:
        self._usage = usage

    async def all(self, selection: Selection) -> Sequence[Resource]:
        """Return the metrics of pods."""
        return await self._usage.of_pods(selection)


def _head(stored: StoredObject, kind: str, answer: node_pb2.StatsResponse) -> dict[str, Any]:
    sampled = timestamp(answer.sampled_at_unix_s)
    labels = dict(stored.labels)
    meta = ObjectMeta(name=stored.name, namespace=stored.namespace, labels=labels, creation_timestamp=sampled)
    return {
        "api_version": "metrics.k8s.io/v1beta1",
        "kind": kind,
        "metadata": meta,
        "timestamp": sampled,
        "window": f"{answer.window_s:.3f}".rstrip("0").rstrip(".") + "s",
    }


def _amounts(cpu_cores: float, memory_bytes: int) -> dict[str, str]:
    nano = (Decimal(cpu_cores) * 10**9).to_integral_value(ROUND_CEILING)
    return {"cpu": f"{nano}n" if nano else "0", "memory": f"{memory_bytes // 1024}Ki"}


def _node_metrics(node: StoredObject, answer: node_pb2.StatsResponse) -> Resource:
    usage = _amounts(answer.node_cpu_cores, answer.node_memory_working_set_bytes)
    return NodeMetrics(**_head(node, "NodeMetrics", answer), usage=usage)


def _pod_metrics(pod: StoredObject, answer: node_pb2.StatsResponse | None) -> Resource | None:
    if answer is None:
        return None
    obj = pod.obj
    assert isinstance(obj, Pod)
    mine = [each for each in answer.containers if each.container.pod_uid == obj.metadata.uid]
    if not mine:
        return None
    containers = tuple(
        ContainerMetrics(name=each.container.container, usage=_amounts(each.cpu_cores, each.memory_working_set_bytes))
        for each in mine
    )
    return PodMetrics(**_head(pod, "PodMetrics", answer), containers=containers)
