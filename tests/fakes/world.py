"""A whole control plane over ``MemoryResources``, with pods that agents pretend to run."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence

from msgspec.structs import replace

from api.kinds.coordination import Lease, LeaseSpec
from api.kinds.core import Node, NodeCondition, NodeStatus
from api.kinds.pods import Container, Pod, PodCondition, PodSpec, PodTemplateSpec
from api.meta import ObjectMeta
from client.clock import ManualClock, micro_timestamp, timestamp
from master.controllers.context import ControllerConfig
from master.controllers.manager import ROWS, ControllerManager, Row
from tests.fakes.resources import MemoryResources


def template(labels: dict[str, str], image: str = "web:1", **spec: object) -> PodTemplateSpec:
    """Return a template of one container."""
    containers = (Container(name="main", image=image),)
    return PodTemplateSpec(
        metadata=ObjectMeta(labels=labels),
        spec=PodSpec(**{"containers": containers, **spec}),  # type: ignore[arg-type]
    )


def ready_node(
    name: str, *, cpu: str = "4", memory: str = "8Gi", pods: str = "110", now: float = 0.0, **labels: str
) -> Node:
    """Return a node that reports ready."""
    moment = timestamp(now)
    return Node(
        metadata=ObjectMeta(name=name, labels={"kubernetes.io/hostname": name, **labels}),
        status=NodeStatus(
            capacity={"cpu": cpu, "memory": memory, "pods": pods},
            allocatable={"cpu": cpu, "memory": memory, "pods": pods},
            conditions=(
                NodeCondition(
                    type="Ready", status="True", reason="KubeletReady", message="kubelet is posting ready status",
                    last_heartbeat_time=moment, last_transition_time=moment,
                ),
            ),
        ),
    )  # fmt: skip


def with_ready(pod: Pod, status: str, now: float) -> Pod:
    """Return ``pod`` running, with that Ready condition."""
    others = tuple(each for each in pod.status.conditions if each.type != "Ready")
    ready = PodCondition(type="Ready", status=status, last_transition_time=timestamp(now))
    return replace(
        pod, status=replace(pod.status, phase="Running", pod_ip=pod.status.pod_ip, conditions=(*others, ready))
    )


class World:
    """The cluster of one test."""

    def __init__(self, *, rows: Sequence[Row] = ROWS, config: ControllerConfig | None = None, seed: int = 0) -> None:
        self.clock = ManualClock()
        self.resources = MemoryResources(clock=self.clock, seed=seed)
        self.manager = ControllerManager(
            self.resources, config or ControllerConfig(), self.clock, rows=rows, rng=random.Random(seed)
        )
        self._addresses = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Let the controllers run."""
        task = asyncio.create_task(self.manager.run())
        try:
            await self.settle()
            yield
            if task.done():
                task.result()
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def settle(self, quiet: int = 30) -> None:
        """Give the controllers turns until nothing has been written for a while; no time passes."""
        calm, seen = 0, -1
        while calm < quiet:
            await asyncio.sleep(0)
            calm = calm + 1 if self.resources.revision == seen else 0
            seen = self.resources.revision

    async def pass_time(self, seconds: float, step_s: float = 0.25) -> None:
        """Let time pass in small steps, with turns for everyone between."""
        until = self.clock.monotonic() + seconds
        while self.clock.monotonic() < until:
            self.clock.advance(min(step_s, until - self.clock.monotonic()))
            await self.settle()

    async def until(self, condition: Callable[[], bool], limit_s: float = 60.0) -> float:
        """Let time pass until ``condition`` holds; return how much did."""
        began = self.clock.monotonic()
        await self.settle()
        while not condition():
            assert self.clock.monotonic() - began < limit_s, "the condition never held"
            await self.pass_time(0.25)
        return self.clock.monotonic() - began

    async def heartbeat(self, *names: str) -> None:
        """Renew the leases of nodes, as their agents do."""
        for name in names:
            lease = self.resources.find(Lease, name, "kube-node-lease")
            spec = LeaseSpec(holder_identity=name, renew_time=micro_timestamp(self.clock.time()))
            if lease is None:
                meta = ObjectMeta(name=name, namespace="kube-node-lease")
                await self.resources.create(Lease(metadata=meta, spec=spec))
            else:
                await self.resources.update(replace(lease, spec=spec))

    async def run_pods(self, *, on: str = "", ready: bool = True) -> int:
        """Let agents start every bound pod and stop every deleted one; return how many they touched."""
        touched = 0
        for pod in self.resources.all(Pod):
            meta, node = pod.metadata, pod.spec.node_name
            if not node or on not in ("", node):
                continue
            if meta.deletion_timestamp:
                await self.resources.delete(Pod, meta.name, namespace=meta.namespace, grace_period_s=0)
                touched += 1
            elif pod.status.phase == "Pending":
                self._addresses += 1
                address = f"10.244.{self._addresses // 250}.{self._addresses % 250 + 1}"
                started = replace(pod, status=replace(pod.status, pod_ip=address))
                state = with_ready(started, "True" if ready else "False", self.clock.time())
                await self.resources.update(state, subresource="status")
                touched += 1
        return touched

    async def live(self, seconds: float = 2.0) -> None:
        """Let controllers and agents work together for a while."""
        until = self.clock.monotonic() + seconds
        while True:
            await self.settle()
            if not await self.run_pods() and self.clock.monotonic() >= until:
                return
            await self.settle()
            self.clock.advance(0.1)
