"""Putting pods out for one of higher priority: whom, the room that is promised meanwhile, and the writes."""

import logging

from api.errors import ApiError, NotFound
from api.kinds.pods import Pod
from api.kinds.policy import PodDisruptionBudget
from client.clock import timestamp
from client.events import EventRecorder
from master.controllers.context import Context
from master.controllers.disrupting import mark
from master.disruptions import PREEMPTED, as_target
from master.scheduler.demands import PodInfo
from master.scheduler.preemption import Preemption, may_preempt, plan_preemption, priority_of
from master.scheduler.profile import DEFAULT, POD_GONE
from master.scheduler.snapshot import Cluster

log = logging.getLogger(__name__)


class Preemptor:
    """Decides who has to go for a pod, promises it their room, and sends them off."""

    def __init__(self, context: Context, cluster: Cluster, recorder: EventRecorder) -> None:
        self._resources = context.resources
        self._clock = context.clock
        self._budgets = context.informers.of(PodDisruptionBudget)
        self._cluster = cluster
        self._recorder = recorder
        self._leaving: set[str] = set()  # uids of pods whose deletion has been asked for

    def gone(self, uid: str) -> None:
        """A pod is no longer there."""
        self._leaving.discard(uid)

    def plan(self, info: PodInfo, start: int) -> Preemption | None:
        """Return whom to put out for a pod that fits nowhere, having promised it their room; None for nobody."""
        waits_on = self._cluster.promised_node(info.key)
        if not may_preempt(info, self._cluster.node(waits_on), self._leaving):
            return None
        snapshot = self._cluster.promised(info) or self._cluster.snapshot()
        budgets: dict[str, list[PodDisruptionBudget]] = {}
        for each in self._budgets:
            budgets.setdefault(each.metadata.namespace, []).append(each)
        found = plan_preemption(info, snapshot, DEFAULT, curable=POD_GONE, budgets=budgets, start=start)
        if found is None:
            self._cluster.take_back(info.key)
            return None
        self._cluster.promise(info, found.node)
        self._leaving.update(each.uid for each in found.victims)
        return found

    async def carry_out(self, info: PodInfo, preemption: Preemption) -> None:
        """Say where the pod will go and delete its victims; raises ApiError if one of them could not be deleted."""
        await self.nominate(info.pod, preemption.node)
        # Who was promised the same room and is less important has to look for another.
        for other in self._cluster.promised_below(preemption.node, priority_of(info.pod)):
            self._cluster.take_back(other.key)
            await self.nominate(other.pod, None)
        failure: ApiError | None = None
        for victim in preemption.victims:
            try:
                await self._put_out(victim.pod, info, preemption.node)
            except NotFound:
                continue
            except ApiError as error:
                self._leaving.discard(victim.uid)
                failure = error
        if failure is not None:
            raise failure

    async def nominate(self, pod: Pod, node: str | None) -> None:
        """Write for which node a pod waits; None: for none in particular."""
        meta = pod.metadata
        patch = {"metadata": {"uid": meta.uid}, "status": {"nominatedNodeName": node}}
        try:
            await self._resources.patch(Pod, meta.name, patch, namespace=meta.namespace, subresource="status")
        except ApiError as error:
            # Only others read it; the promise is kept here.
            log.info("nominated node not written pod=%s node=%s why=%r", meta.name, node, error.message)

    async def _put_out(self, victim: Pod, info: PodInfo, node: str) -> None:
        meta = victim.metadata
        log.info("preempting victim=%s/%s for=%s node=%s", meta.namespace, meta.name, info.key, node)
        if not meta.deletion_timestamp:
            now = timestamp(self._clock.time())
            # Not what our cache knows: the node's agent may have told something newer meanwhile.
            await mark(self._resources, victim, lambda newest: as_target(newest, PREEMPTED, now))
        await self._resources.delete(Pod, meta.name, namespace=meta.namespace, uid=meta.uid)
        message = f"Preempted by pod {info.uid} on node {node}"
        self._recorder.event(victim, kind="Normal", reason="Preempted", message=message)
