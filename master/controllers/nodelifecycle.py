"""Node lifecycle: who is heard of, who is not, and what becomes of the pods there.

Silence is measured by our own clock from the moment we saw a heartbeat change, so hosts need not agree on the time, and
a new leader gives every node a full grace period.
"""

import logging

import msgspec
from msgspec.structs import replace

from api.errors import ApiError, Conflict, NotFound
from api.kinds.coordination import Lease
from api.kinds.core import Node
from api.kinds.pods import Pod, PodCondition
from client.clock import timestamp
from client.resources import Resources
from client.runner import Runner
from master.controllers.context import Context
from master.controllers.disrupting import mark
from master.controllers.node_health import (
    Health,
    condition,
    health_of,
    plan_conditions,
    plan_evictions,
    plan_taints,
)
from master.controllers.podstate import is_ready
from master.disruptions import TAINTED, as_target

LEASES = "kube-node-lease"
# A timer of ours that fires so late means that we were asleep (paused, starved): nobody else's silence counts then.
STALL_S = 1.0

log = logging.getLogger(__name__)


class Beat(msgspec.Struct):
    """The last sign of life of a node's agent."""

    sign: tuple[str, str]  # the lease's renewal, the status' heartbeat
    at: float  # monotonic


class NodeLifecycleController:
    """Marks nodes that fall silent, keeps their taints, makes pods leave."""

    def __init__(self, context: Context) -> None:
        self._clock = context.clock
        self._grace_s = context.config.node_monitor_grace_s
        self._eviction_s = context.config.pod_eviction_s
        self._nodes = context.informers.of(Node)
        self._leases = context.informers.of(Lease, namespace=LEASES)
        self._pods = context.informers.of(Pod, indexes={"node": lambda pod: (pod.spec.node_name,)})
        self._recorder = context.recorder("node-controller")
        self._beats: dict[str, Beat] = {}
        self._healths: dict[str, Health] = {}
        self._due: dict[str, float] = {}  # node -> when its timer was to fire
        # node -> UID -> when we first saw the pod under taints from which it must leave (monotonic)
        self._tainted: dict[str, dict[str, float]] = {}
        self.runner = Runner(
            "nodelifecycle",
            self.reconcile,
            resources=context.resources,
            informers=context.informers,
            workers=4,
            clock=context.clock,
        )
        self._nodes.subscribe(self.runner.queue.add)
        self._leases.subscribe(self.runner.queue.add, _name)
        self._pods.subscribe(self.runner.queue.add, self._tainted_node_of)

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    def _tainted_node_of(self, before: Pod | None, after: Pod | None) -> tuple[str, ...]:
        """A pod that came to a node from which pods must leave concerns that node."""
        if after is None or not after.spec.node_name or (before is not None and before.spec.node_name):
            return ()
        node = self._nodes.get(after.spec.node_name)
        tainted = node is not None and any(each.effect == "NoExecute" for each in node.spec.taints)
        return (after.spec.node_name,) if tainted else ()

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Judge one node and act on it."""
        node = self._nodes.get(key)
        now = self._clock.monotonic()
        self._notice_stall(key, now)
        if node is None:
            self._forget(key)
            return None
        if key not in self._beats:
            self._tell(node, "Normal", "RegisteredNode", f"Node {key} event: Registered Node {key} in Controller")
        left_s = self._grace_s - (now - self._listen(node, now).at)
        health = health_of(node, silent=left_s <= 0)
        is_news = self._set_health(key, health)
        if left_s <= 0:
            node = await self._mark_silent(api, node)
        # An agent that speaks corrects its pods itself after the first time.
        if health is Health.UNREACHABLE or (health is Health.NOT_READY and is_news):
            await self._mark_pods(api, key)
        node = await self._taint(api, node, health)
        waits = [await self._evict(api, node)]
        if left_s > 0:
            waits.append(left_s)
            self._due[key] = now + left_s
        return min((each for each in waits if each is not None), default=None)

    # Listening.

    def _listen(self, node: Node, now: float) -> Beat:
        name = node.metadata.name
        lease = self._leases.get(f"{LEASES}/{name}")
        ready = condition(node, "Ready")
        # What we wrote ourselves is no sign of life.
        reported = ready.last_heartbeat_time if ready is not None and ready.status != "Unknown" else ""
        known = self._beats.get(name)
        sign = (lease.spec.renew_time if lease is not None else "", reported or (known.sign[1] if known else ""))
        if known is None or known.sign != sign:
            known = self._beats[name] = Beat(sign, now)
        return known

    def _notice_stall(self, key: str, now: float) -> None:
        late_s = now - self._due.pop(key, now)
        if late_s > STALL_S:
            log.warning("we were asleep, heartbeats are given more time late_s=%.1f", late_s)
            self._due.clear()
            for beat in self._beats.values():
                beat.at = now  # what came meanwhile is still to be read

    def _forget(self, key: str) -> None:
        for known in (self._beats, self._healths, self._due, self._tainted):
            known.pop(key, None)

    def _set_health(self, key: str, health: Health) -> bool:
        """Note a node's health and return whether it is news; whether anybody is well concerns every node."""
        before, is_news = self._anybody_well(), self._healths.get(key) is not health
        if is_news:
            log.info("node health node=%s health=%s", key, health.value)
        self._healths[key] = health
        if self._anybody_well() is not before:
            for name in self._nodes.keys():  # noqa: SIM118 - a cache, no dict
                self.runner.queue.add(name)
        return is_news

    def _anybody_well(self) -> bool:
        return any(each is Health.READY for each in self._healths.values())

    # Acting.

    async def _mark_silent(self, api: Resources, node: Node) -> Node:
        """Write that nobody knows how the node is."""
        conditions = plan_conditions(node, self._clock.time())
        if conditions == node.status.conditions:
            return node
        name = node.metadata.name
        fresh = replace(node, status=replace(node.status, conditions=tuple(conditions)))
        node = await api.update(fresh, subresource="status")
        self._tell(node, "Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        return node

    async def _mark_pods(self, api: Resources, name: str) -> None:
        """Take the node's pods out of service: their Ready condition, which nobody else would correct."""
        for pod in self._pods.indexed("node", name):
            if not is_ready(pod):
                continue
            others = [each for each in pod.status.conditions if each.type != "Ready"]
            down = PodCondition(
                type="Ready",
                status="False",
                reason="NodeNotReady",
                last_transition_time=timestamp(self._clock.time()),
            )
            fresh = replace(pod, status=replace(pod.status, conditions=(*others, down)))
            try:
                await api.update(fresh, subresource="status")
            except (NotFound, Conflict):
                continue  # it changed meanwhile; its event brings us back if it matters
            self._tell(pod, "Warning", "NodeNotReady", "Node is not ready")

    async def _taint(self, api: Resources, node: Node, health: Health) -> Node:
        taints = plan_taints(node, health, self._clock.time(), may_evict=self._anybody_well())
        if taints == node.spec.taints:
            return node
        return await api.update(replace(node, spec=replace(node.spec, taints=taints)))

    async def _evict(self, api: Resources, node: Node) -> float | None:
        """Make the pods leave whose time is up; return the seconds until the next one's is.

        Whoever drew the taint need not have our clock, and kubectl writes no time at all: a pod's time begins when we
        first see it under taints, so a new leader gives every pod the whole of it, as in Kubernetes.
        """
        name, now = node.metadata.name, self._clock.monotonic()
        leaves = plan_evictions(node, self._pods.indexed("node", name), self._eviction_s)
        before = self._tainted.pop(name, {})
        if not leaves:
            return None
        since = {leave.pod.metadata.uid: before.get(leave.pod.metadata.uid, now) for leave in leaves}
        self._tainted[name] = since
        waits = []
        for leave in leaves:
            left_s = since[leave.pod.metadata.uid] + leave.after_s - now
            if left_s > 0:
                waits.append(left_s)
            else:
                await self._remove(api, leave.pod, force=leave.force)
        return min(waits, default=None)

    async def _remove(self, api: Resources, pod: Pod, *, force: bool) -> None:
        meta = pod.metadata
        try:
            now = timestamp(self._clock.time())
            await mark(api, pod, lambda newest: as_target(newest, TAINTED, now))
            await api.delete(
                Pod, meta.name, namespace=meta.namespace, uid=meta.uid, grace_period_s=0 if force else None
            )
        except (NotFound, Conflict):
            return
        except ApiError as error:
            log.warning("pod not evicted pod=%s/%s why=%r", meta.namespace, meta.name, error.message)
            raise
        message = f"Marking for deletion Pod {meta.namespace}/{meta.name}"
        self._tell(pod, "Normal", "TaintManagerEviction", message)

    def _tell(self, about: Node | Pod, kind: str, reason: str, message: str) -> None:
        self._recorder.event(about, kind=kind, reason=reason, message=message)


def _name(before: Lease | None, after: Lease | None) -> tuple[str, ...]:
    lease = after or before
    return (lease.metadata.name,) if lease is not None else ()
