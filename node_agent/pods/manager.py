"""All pods of this node: one worker each, the engine's events to whom they concern, nothing left of pods long gone.

A pod is its UID: a name that was deleted and made anew has two workers for a while, the old one going, the new one
coming.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable

import msgspec

from api.kinds.pods import Container as ContainerSpec
from api.kinds.pods import Pod, PodSpec
from api.meta import ObjectMeta
from client.informer import Informer
from node_agent.errors import NodeError
from node_agent.pods.api_pods import MIRROR
from node_agent.pods.surroundings import PodApi, Surroundings
from node_agent.pods.volumes import leftover_pods
from node_agent.pods.worker import PodWorker
from node_agent.runtime.base import Container, PodRef, Sandbox

log = logging.getLogger(__name__)

_RETRY_S = (0.1, 0.2, 0.5, 1.0, 2.0)
_STOP_S = 3.0


class PodManager:
    """Owns the workers.

    pods: this node's pods. mirrors: how pods that came from files are shown to the API.
    """

    def __init__(self, around: Surroundings, pods: Informer[Pod], mirrors: PodApi) -> None:
        self._around = around
        self._informer = pods
        self._mirrors = mirrors
        self._workers: dict[str, PodWorker] = {}
        self._by_key: dict[str, str] = {}  # key -> UID of the pod that bears the name now
        self._static: dict[str, Pod] = {}
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Work until cancelled; containers run on."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self._follow_engine(), name="engine events")
            for pod in self._static.values():
                self._start(pod, self._mirrors)
            await self._informer.synced.wait()
            stop = self._informer.subscribe(self._changed)
            try:
                await self._remove_strangers()
                await asyncio.Event().wait()
            finally:
                stop()
                self._tasks = None

    def pods(self) -> Iterable[tuple[Pod, PodWorker]]:
        """Return every pod that has a worker, as the API last showed it."""
        return [(worker.pod, worker) for worker in self._workers.values()]

    def find(self, namespace: str, name: str, uid: str = "") -> PodWorker | None:
        """Return the worker of a pod by name, or by UID if one is given."""
        if uid:
            return self._workers.get(uid)
        candidates = [w for w in self._workers.values() if _name(w.pod) == (namespace, name)]
        current = self._by_key.get(f"{namespace}/{name}", "")
        return self._workers.get(current) or (candidates[-1] if candidates else None)

    def set_static(self, pods: Iterable[Pod]) -> None:
        """Run exactly these pods from files, beside those from the API."""
        wanted = {pod.metadata.uid: pod for pod in pods}
        for uid in self._static.keys() - wanted.keys():
            if uid in self._workers:
                # The file is gone: the mirror goes with the pod.
                self._workers[uid].update(_deleted(self._static[uid]))
        for uid in wanted.keys() - self._static.keys():
            if self._tasks is not None:
                self._start(wanted[uid], self._mirrors)
        self._static = wanted

    def _changed(self, key: str) -> None:
        pod = self._informer.get(key)
        if pod is not None and MIRROR in pod.metadata.annotations:
            return
        uid = pod.metadata.uid if pod else ""
        before = self._by_key.get(key, "")
        if before and before != uid:
            del self._by_key[key]
            if before in self._workers:
                self._workers[before].vanish()
        if pod is None:
            return
        self._by_key[key] = uid
        if uid in self._workers:
            self._workers[uid].update(pod)
        else:
            self._start(pod, self._around.api)

    def _neighbours_of(self, pod: Pod) -> list[Pod]:
        """Return the other pods whose room and ports are taken."""
        others = (worker for uid, worker in self._workers.items() if uid != pod.metadata.uid)
        return [worker.pod for worker in others if worker.takes_room]

    def _start(self, pod: Pod, api: PodApi, *, gone: bool = False) -> None:
        if self._tasks is None:
            return
        around = msgspec.structs.replace(self._around, api=api)
        worker = self._workers[pod.metadata.uid] = PodWorker(
            pod, around, self._neighbours_of, is_static=api is self._mirrors, gone=gone
        )
        self._tasks.create_task(self._work(worker), name=f"pod {pod.metadata.namespace}/{pod.metadata.name}")

    async def _work(self, worker: PodWorker) -> None:
        uid, failed = worker.pod.metadata.uid, False
        try:
            await worker.run()
        except Exception:
            # One pod that we cannot handle must not take the node down; it is looked at anew, from the start.
            failed = True
            log.exception("pod worker failed pod=%s/%s", *_name(worker.pod))
            await asyncio.sleep(_RETRY_S[-1])
        finally:
            if self._workers.get(uid) is worker:
                del self._workers[uid]
        # A pod that stays needs a worker, whatever became of this one; that a pod is gone we may learn a little later.
        current = self._informer.get(f"{worker.pod.metadata.namespace}/{worker.pod.metadata.name}")
        if current is not None and current.metadata.uid == uid and (failed or not current.metadata.deletion_timestamp):
            self._start(current, self._around.api)

    async def _remove_strangers(self) -> None:
        """End what the engine and the disk hold of pods that nobody knows any more."""
        known = {pod.metadata.uid for pod in self._informer} | self._static.keys()
        for pod in await self._leftovers():
            if pod.metadata.uid not in known and pod.metadata.uid not in self._workers:
                log.info("pod of the past removed pod=%s/%s", pod.metadata.namespace, pod.metadata.name)
                self._start(pod, self._around.api, gone=True)

    async def _leftovers(self) -> list[Pod]:
        for pause_s in (*_RETRY_S, *[_RETRY_S[-1]] * 1000):
            try:
                sandboxes = await self._around.runtime.sandboxes()
                containers = await self._around.runtime.containers()
            except NodeError as exc:
                log.warning("leftovers not looked for retry_s=%.1f error=%s", pause_s, exc)
                await asyncio.sleep(pause_s)
            else:
                found = {pod.metadata.uid: pod for pod in pods_from_engine(sandboxes, containers)}
                on_disk = await asyncio.to_thread(leftover_pods, self._around.data_dir)
                return [*found.values(), *(_remembered(PodRef("", "", uid), ()) for uid in on_disk if uid not in found)]
        return []

    async def _follow_engine(self) -> None:
        """Wake whom an event concerns; after a gap in the events, everybody."""
        failures = 0
        while True:
            try:
                async with contextlib.aclosing(self._around.runtime.events()) as events:
                    async for event in events:
                        failures = 0
                        self._wake(event.pod_uid)
            except NodeError as exc:
                log.warning("engine events interrupted error=%s", exc)
            await asyncio.sleep(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
            failures += 1

    def _wake(self, uid: str) -> None:
        if uid:
            worker = self._workers.get(uid)
            if worker is not None:
                worker.poke()
            return
        for worker in self._workers.values():
            worker.poke()


def pods_from_engine(sandboxes: Iterable[Sandbox], containers: Iterable[Container]) -> list[Pod]:
    """Return the pods that the engine's containers belong to, as far as their labels tell."""
    names: dict[PodRef, dict[str, None]] = {}
    for sandbox in sandboxes:
        names.setdefault(sandbox.pod, {})
    for container in containers:
        names.setdefault(container.pod, {})[container.name] = None
    return [_remembered(ref, tuple(found)) for ref, found in names.items()]


def _remembered(ref: PodRef, containers: tuple[str, ...]) -> Pod:
    spec = PodSpec(containers=tuple(ContainerSpec(name=name) for name in containers))
    return Pod(metadata=ObjectMeta(namespace=ref.namespace, name=ref.name, uid=ref.uid), spec=spec)


def _deleted(pod: Pod) -> Pod:
    meta = msgspec.structs.replace(pod.metadata, deletion_timestamp="1970-01-01T00:00:00Z")
    return msgspec.structs.replace(pod, metadata=meta)


def _name(pod: Pod) -> tuple[str, str]:
    return pod.metadata.namespace, pod.metadata.name
