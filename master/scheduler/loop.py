"""The scheduler at work: caches feed the cluster's picture and the queue; pods are placed singly, bound side by side.

Placing is pure computation on one snapshot. The chosen node counts the pod at once (it is *assumed* there), so the next
pod can be placed while the binding is on its way; a binding that fails gives the room back.

A pod that fits nowhere may put out others of lower priority. Their room is *promised* to it until it is placed, so that
what replaces them does not get there first.
"""

import asyncio
import itertools
import logging
from collections.abc import Coroutine
from typing import Any

import msgspec

from api.errors import ApiError, NotFound, Timeout, Unavailable
from api.kinds.core import Namespace, Node
from api.kinds.pods import Pod, PodCondition
from client.clock import timestamp
from client.informer import key_of
from master.controllers.context import Context
from master.controllers.podstate import condition, is_finished
from master.scheduler.demands import PodInfo, pod_info
from master.scheduler.framework import Placed, Unplaceable, pick_node
from master.scheduler.preempting import Preemptor
from master.scheduler.preemption import Preemption
from master.scheduler.profile import DEFAULT, NODE, POD_CAME, POD_GONE, cured_by
from master.scheduler.queue import SchedulingQueue
from master.scheduler.snapshot import Cluster

NAME = "default-scheduler"
BINDINGS_AT_ONCE = 64
# So many pods are placed before the event loop gets its turn: bindings and events must not wait for a whole crowd.
TURN = 8
UNCERTAIN_S = 0.5

log = logging.getLogger(__name__)


class Scheduler:
    """Gives every pod that asks for ``default-scheduler`` its node."""

    def __init__(self, context: Context) -> None:
        self._resources = context.resources
        self._clock = context.clock
        self._rng = context.rng
        self._informers = context.informers
        self._recorder = context.recorder(NAME)
        self.cluster = Cluster()
        self._preemptor = Preemptor(context, self.cluster, self._recorder)
        self.queue = SchedulingQueue(context.clock)
        self._pods = context.informers.of(Pod)
        self._nodes = context.informers.of(Node)
        self._namespaces = context.informers.of(Namespace)
        self._start = 0
        self._assumed: set[str] = set()  # uids whose binding the cache has not shown yet
        self._uids: dict[str, str] = {}  # key -> uid of the pod that the cluster counts
        self._bindings = asyncio.Semaphore(BINDINGS_AT_ONCE)
        self._marks: dict[str, tuple[Pod, str]] = {}  # key -> pod, why it waits: conditions to write
        self._marked = asyncio.Event()
        self._nodes.subscribe(self._node_changed)
        self._namespaces.subscribe(self._namespace_changed)
        self._pods.subscribe(self._pod_changed)

    async def run(self) -> None:
        """Place pods until cancelled."""
        await self._informers.wait_synced()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write_marks(), name="scheduling conditions")
            for turn in itertools.count(1):
                key = await self.queue.pop()
                if (choice := self._place(key)) is not None:
                    await self._bindings.acquire()
                    group.create_task(choice, name=f"place {key}")
                if turn % TURN == 0:
                    await asyncio.sleep(0)

    # Changes.

    def _node_changed(self, name: str) -> None:
        node = self._nodes.get(name)
        before = self.cluster.node(name)
        self.cluster.set_node(name, node)
        after = self.cluster.node(name)
        if after is not None and (before is None or not after.offers_the_same(before)):
            self.queue.changed(NODE)

    def _namespace_changed(self, name: str) -> None:
        namespace = self._namespaces.get(name)
        self.cluster.set_namespace(name, namespace.metadata.labels if namespace is not None else None)

    def _pod_changed(self, key: str) -> None:
        pod = self._pods.get(key)
        counted = self._uids.get(key)
        if counted is not None and (pod is None or pod.metadata.uid != counted or is_finished(pod)):
            del self._uids[key]
            self._assumed.discard(counted)
            self.cluster.remove_pod(counted)
            self._preemptor.gone(counted)
            self.queue.changed(POD_GONE)
        if pod is None or is_finished(pod):
            self._leave(key)
        elif pod.spec.node_name:
            self._count(pod)
            self.queue.remove(key)
        elif pod.metadata.uid not in self._assumed:
            self._want(pod)

    def _count(self, pod: Pod) -> None:
        """Count a bound pod on its node."""
        uid = pod.metadata.uid
        is_new = self.cluster.node_of(uid) != pod.spec.node_name
        self.cluster.take_back(key_of(pod))
        self._assumed.discard(uid)
        self._uids[key_of(pod)] = uid
        self.cluster.put_pod(pod_info(pod), pod.spec.node_name)
        if is_new:
            self.queue.changed(POD_CAME)

    def _want(self, pod: Pod) -> None:
        """Queue a pod that has no node yet."""
        key = key_of(pod)
        ours = pod.spec.scheduler_name in ("", NAME)
        if not ours or pod.metadata.deletion_timestamp or pod.spec.scheduling_gates:
            self._leave(key)
            return
        if pod.status.nominated_node_name:
            # Also by a scheduler before this one.
            self.cluster.promise(pod_info(pod), pod.status.nominated_node_name)
        self.queue.add(key, pod.spec.priority or 0, (pod.metadata.uid, pod.spec, pod.metadata.labels))

    def _leave(self, key: str) -> None:
        """Let a pod wait no more; room that was kept for it others may have."""
        self.queue.remove(key)
        if self.cluster.take_back(key):
            self.queue.changed(POD_GONE)

    # Placing.

    def _place(self, key: str) -> Coroutine[Any, Any, None] | None:
        """Pick a node for one pod and assume it there; return what is to be written, None if it just has to wait."""
        pod = self._pods.get(key)
        if pod is None or pod.spec.node_name or pod.metadata.uid in self._assumed:
            self.queue.remove(key)
            return None
        info = pod_info(pod)
        promised = self.cluster.promised(info)
        match pick_node(info, self.cluster.snapshot(), DEFAULT, start=self._start, rng=self._rng, promised=promised):
            case Placed() as placed:
                self._start = placed.next_start
                self.cluster.take_back(key)
                self._assumed.add(info.uid)
                self._uids[key] = info.uid
                self.cluster.put_pod(info, placed.node)
                return self._bind(info, placed.node)
            case Unplaceable(message, refused_by):
                self.queue.park(key, cured_by(refused_by))
                self._recorder.event(pod, kind="Warning", reason="FailedScheduling", message=message)
                self._mark(pod, message)
                if (preemption := self._preemptor.plan(info, self._start)) is not None:
                    return self._preempt(info, preemption)
                if pod.status.nominated_node_name and not self.cluster.promised_node(key):
                    return self._give_up(pod)
        return None

    async def _give_up(self, pod: Pod) -> None:
        """Say that no room is kept any more for a pod that nobody can be put out for."""
        try:
            await self._preemptor.nominate(pod, None)
        finally:
            self._bindings.release()

    async def _preempt(self, info: PodInfo, preemption: Preemption) -> None:
        """Put others out; if that fails the pod is tried again as if it had never been planned."""
        try:
            await self._preemptor.carry_out(info, preemption)
        except ApiError as error:
            log.warning("preemption failed pod=%s node=%s why=%r", info.key, preemption.node, error.message)
            self.queue.retry(info.key)
        finally:
            self._bindings.release()

    def _mark(self, pod: Pod, message: str) -> None:
        """Let the pod's PodScheduled condition say why it waits, if it does not yet."""
        known = condition(pod, "PodScheduled")
        if known is not None and known.status == "False" and known.message == message:
            return
        self._marks[key_of(pod)] = (pod, message)
        self._marked.set()

    async def _write_marks(self) -> None:
        while True:
            await self._marked.wait()
            self._marked.clear()
            while self._marks:
                key = next(iter(self._marks))
                pod, message = self._marks.pop(key)
                try:
                    await self._write_mark(pod, message)
                except ApiError as error:
                    # The next try of the pod says it again.
                    log.debug("condition not written pod=%s why=%r", key, error.message)

    async def _write_mark(self, pod: Pod, message: str) -> None:
        meta = pod.metadata
        known = condition(pod, "PodScheduled")
        since = known.last_transition_time if known is not None and known.status == "False" else ""
        mark = PodCondition(
            type="PodScheduled",
            status="False",
            reason="Unschedulable",
            message=message,
            last_transition_time=since or timestamp(self._clock.time()),
        )
        others = [each for each in pod.status.conditions if each.type != "PodScheduled"]
        patch = {
            "metadata": {"resourceVersion": meta.resource_version},
            "status": {"conditions": msgspec.to_builtins([*others, mark])},
        }
        await self._resources.patch(Pod, meta.name, patch, namespace=meta.namespace, subresource="status")

    # Binding.

    async def _bind(self, info: PodInfo, node: str) -> None:
        """Write one binding; if it fails give the room back and try the pod again."""
        meta = info.pod.metadata
        try:
            await self._resources.bind(namespace=meta.namespace, pod=meta.name, uid=info.uid, node=node)
        except NotFound:
            self._release(info)
            self.queue.remove(info.key)
        except (Timeout, Unavailable) as error:
            log.warning("binding uncertain pod=%s node=%s why=%r", info.key, node, error.message)
            await self._clear_up(info)
        except ApiError as error:
            log.info("binding refused pod=%s node=%s why=%r", info.key, node, error.message)
            self._release(info)
            self.queue.retry(info.key)
        else:
            self.queue.remove(info.key)
            message = f"Successfully assigned {info.key} to {node}"
            self._recorder.event(info.pod, kind="Normal", reason="Scheduled", message=message)
        finally:
            self._bindings.release()

    async def _clear_up(self, info: PodInfo) -> None:
        """Find out what became of a binding whose outcome nobody told; until then the room stays taken."""
        meta = info.pod.metadata
        while info.uid in self._assumed:
            try:
                fresh = await self._resources.get(Pod, meta.name, namespace=meta.namespace)
            except NotFound:
                break
            except ApiError:
                await self._clock.sleep(UNCERTAIN_S)
                continue
            if fresh.metadata.uid == info.uid and fresh.spec.node_name:
                return  # bound: the watch will show it
            break
        self._release(info)
        self.queue.retry(info.key)

    def _release(self, info: PodInfo) -> None:
        """Give the room of an assumed pod back."""
        if info.uid in self._assumed:
            self._assumed.discard(info.uid)
            self._uids.pop(info.key, None)
            self.cluster.remove_pod(info.uid)
            self.queue.changed(POD_GONE)
