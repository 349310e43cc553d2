"""Lets claims and volumes that are being deleted go once nothing uses them.

A claim is used by pods that are on a node and have not finished; one without a node will not be started with a claim
that goes. A volume is used while it is bound to a claim. What was made before there was protection gets it late.
"""

import contextlib
from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from api.errors import Conflict, NotFound
from api.kinds.pods import Pod
from api.kinds.volumes import PersistentVolume, PersistentVolumeClaim
from api.meta import Resource
from client.resources import Resources
from client.runner import Runner
from master.access.node_rules import claims_of
from master.admission.storageprotection import CLAIM, VOLUME, protected
from master.controllers.context import Context
from master.controllers.podstate import is_finished


def uses(pod: Pod, claim: str) -> bool:
    """Return whether ``pod`` keeps the claim of that name in its namespace alive."""
    return bool(pod.spec.node_name) and not is_finished(pod) and claim in claims_of(pod)


def plan_finalizer(obj: Resource, finalizer: str, *, in_use: bool) -> Resource | None:
    """Return ``obj`` as it should be; None if it is so already."""
    meta = obj.metadata
    if not meta.deletion_timestamp:
        wanted = protected(obj, finalizer)
        return wanted if wanted is not obj else None
    if in_use or finalizer not in meta.finalizers:
        return None
    return replace(obj, metadata=replace(meta, finalizers=tuple(each for each in meta.finalizers if each != finalizer)))


class ClaimProtection:
    """Watches over claims."""

    def __init__(self, context: Context) -> None:
        self._claims = context.informers.of(PersistentVolumeClaim)
        self._pods = context.informers.of(Pod, indexes={"claim": _claim_keys})
        self.runner = _runner("pvc-protection", self.reconcile, context)
        self._claims.subscribe(self.runner.queue.add)
        self._pods.subscribe(self.runner.queue.add, _claims_concerned)

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Put one claim's finalizer right."""
        claim = self._claims.get(key)
        if claim is None:
            return None
        name, namespace = claim.metadata.name, claim.metadata.namespace
        in_use = any(uses(pod, name) for pod in self._pods.indexed("claim", key))
        wanted = plan_finalizer(claim, CLAIM, in_use=in_use)
        if wanted is not None and claim.metadata.deletion_timestamp:
            # Our cache may lag behind a pod that was just started with it: the store knows.
            pods = (await api.list(Pod, namespace=namespace)).items
            wanted = plan_finalizer(claim, CLAIM, in_use=any(uses(pod, name) for pod in pods))
        await _write(wanted, api)
        return None


class VolumeProtection:
    """Watches over volumes."""

    def __init__(self, context: Context) -> None:
        self._volumes = context.informers.of(PersistentVolume)
        self.runner = _runner("pv-protection", self.reconcile, context)
        self._volumes.subscribe(self.runner.queue.add)

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Put one volume's finalizer right."""
        volume = self._volumes.get(key)
        if volume is not None:
            await _write(plan_finalizer(volume, VOLUME, in_use=volume.status.phase == "Bound"), api)
        return None


def _runner(name: str, reconcile: Any, context: Context) -> Runner:
    return Runner(
        name, reconcile, resources=context.resources, informers=context.informers, workers=1, clock=context.clock
    )


async def _write(wanted: Resource | None, api: Resources) -> None:
    """Write; somebody else's change meanwhile brings the object back into the queue."""
    if wanted is not None:
        with contextlib.suppress(NotFound, Conflict):
            await api.update(wanted)


def _claim_keys(pod: Pod) -> Iterable[str]:
    return [f"{pod.metadata.namespace}/{name}" for name in claims_of(pod)]


def _claims_concerned(before: Pod | None, after: Pod | None) -> Iterable[str]:
    return {key for pod in (before, after) if pod is not None for key in _claim_keys(pod)}
