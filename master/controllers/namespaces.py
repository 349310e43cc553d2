"""Namespaces: emptied before they go, and furnished with what every namespace has."""

import contextlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec
from msgspec.structs import replace

from api.errors import ApiError, Conflict, MethodNotAllowed, NotFound
from api.kinds.core import ConfigMap, Namespace, NamespaceCondition, ServiceAccount
from api.kinds.pods import Pod
from api.kinds.table import Kind, Table
from api.meta import ObjectMeta, Resource
from client.clock import timestamp
from client.resources import Resources
from client.runner import Runner
from master.controllers.context import Context

FINALIZER = "kubernetes"
ROOT_CA = "kube-root-ca.crt"
# While something stays, what is left is counted again after so long, besides when a pod goes.
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 5.0
# type -> (reason when there is a problem, reason and message when there is none)
_CONDITIONS = {
    "NamespaceDeletionDiscoveryFailure": (
        "DiscoveryFailed",
        "ResourcesDiscovered",
        "All resources successfully discovered",
    ),
    "NamespaceDeletionContentFailure": (
        "ContentDeletionFailed",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    "NamespaceContentRemaining": ("SomeResourcesRemain", "ContentRemoved", "All content successfully removed"),
    "NamespaceFinalizersRemaining": (
        "SomeFinalizersRemain",
        "ContentHasNoFinalizers",
        "All content-preserving finalizers finished",
    ),
}

log = logging.getLogger(__name__)


class Left(msgspec.Struct, frozen=True):
    """What a namespace still holds after everything in it was deleted."""

    kinds: Mapping[str, int]  # resource -> objects
    finalizers: Mapping[str, int]  # finalizer -> objects that it keeps
    failures: Iterable[str] = ()


def plan_conditions(namespace: Namespace, left: Left, now: float) -> tuple[NamespaceCondition, ...]:
    """Return the conditions that tell why a namespace is still there."""
    kinds = ", ".join(f"{name} has {count} resource instances" for name, count in sorted(left.kinds.items()))
    held = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(left.finalizers.items()))
    problems = {
        "NamespaceDeletionContentFailure": ", ".join(left.failures),
        "NamespaceContentRemaining": f"Some resources are remaining: {kinds}" if kinds else "",
        "NamespaceFinalizersRemaining": f"Some content in the namespace has finalizers remaining: {held}"
        if held
        else "",
    }
    known = {each.type: each for each in namespace.status.conditions}
    for type_, (bad, fine, message) in _CONDITIONS.items():
        problem = problems.get(type_, "")
        status = "True" if problem else "False"
        before = known.get(type_)
        moment = before.last_transition_time if before is not None and before.status == status else timestamp(now)
        known[type_] = NamespaceCondition(
            type=type_,
            status=status,
            reason=bad if problem else fine,
            message=problem or message,
            last_transition_time=moment,
        )
    return tuple(known.values())


def _kinds_inside(table: Table) -> list[Kind]:
    """Return the kinds to empty a namespace of: pods first, so that they stop while the rest goes."""
    kinds = [each for each in table.places() if each.namespaced and "delete" in each.verbs]
    return sorted(kinds, key=lambda each: each.model is not Pod)


class NamespaceController:
    """Deletes what is in a namespace that is to go, then lets it go."""

    def __init__(self, context: Context) -> None:
        self._clock = context.clock
        self._table = context.table
        self._namespaces = context.informers.of(Namespace)
        self._pods = context.informers.of(Pod)
        self._rounds: Counter[str] = Counter()
        self.runner = Runner(
            "namespace",
            self.reconcile,
            resources=context.resources,
            informers=context.informers,
            workers=4,
            clock=context.clock,
        )
        self._namespaces.subscribe(self.runner.queue.add)
        self._pods.subscribe(self.runner.queue.add, self._of_gone_pod)

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    def _of_gone_pod(self, before: Pod | None, after: Pod | None) -> Iterable[str]:
        if before is None or after is not None:
            return ()
        namespace = self._namespaces.get(before.metadata.namespace)
        leaving = namespace is not None and bool(namespace.metadata.deletion_timestamp)
        return (before.metadata.namespace,) if leaving else ()

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Empty one namespace that is being deleted; when nothing is left give it free."""
        namespace = self._namespaces.get(key)
        if namespace is None or not namespace.metadata.deletion_timestamp:
            self._rounds.pop(key, None)
            return None
        if FINALIZER not in namespace.spec.finalizers:
            return None
        left = await self._empty(api, key)
        if left.kinds or left.failures:
            conditions = plan_conditions(namespace, left, self._clock.time())
            if conditions != namespace.status.conditions:
                status = replace(namespace.status, conditions=conditions)
                await api.update(replace(namespace, status=status), subresource="status")
            self._rounds[key] += 1
            return float(min(FIRST_WAIT_S * 2 ** min(self._rounds[key] - 1, 10), LONGEST_WAIT_S))
        finalizers = tuple(each for each in namespace.spec.finalizers if each != FINALIZER)
        released = replace(namespace, spec=replace(namespace.spec, finalizers=finalizers))
        with contextlib.suppress(NotFound):
            await api.update(released, subresource="finalize")
        log.info("namespace emptied name=%s", key)
        return None

    async def _empty(self, api: Resources, namespace: str) -> Left:
        """Delete everything in ``namespace`` and return what is left."""
        failures: list[str] = []
        for kind in _kinds_inside(self._table):
            for obj in (await api.list(kind.model, namespace=namespace)).items:
                if not obj.metadata.deletion_timestamp:
                    failures += await _delete(api, kind, obj)
        kinds: Counter[str] = Counter()
        finalizers: Counter[str] = Counter()
        for kind in _kinds_inside(self._table):
            for obj in (await api.list(kind.model, namespace=namespace)).items:
                kinds[f"{kind.plural}.{kind.group}"] += 1
                finalizers.update(obj.metadata.finalizers)
        return Left(kinds, finalizers, failures)


async def _delete(api: Resources, kind: Kind, obj: Resource) -> list[str]:
    """Delete one object; return why it could not be, nothing if it was."""
    meta = obj.metadata
    try:
        await api.delete(kind.model, meta.name, namespace=meta.namespace, uid=meta.uid, propagation="Background")
    except (NotFound, Conflict, MethodNotAllowed):
        return []
    except ApiError as error:
        return [error.message]
    return []


class FurnishingController:
    """Gives every namespace its service account ``default`` and, if configured, the cluster's CA certificate."""

    def __init__(self, context: Context) -> None:
        self._root_ca = context.config.root_ca
        self._namespaces = context.informers.of(Namespace)
        self._accounts = context.informers.of(ServiceAccount)
        self._maps = context.informers.of(ConfigMap)
        self.runner = Runner(
            "serviceaccount",
            self.reconcile,
            resources=context.resources,
            informers=context.informers,
            workers=2,
            clock=context.clock,
        )
        self._namespaces.subscribe(self.runner.queue.add)
        self._accounts.subscribe(self.runner.queue.add, _home)
        self._maps.subscribe(self.runner.queue.add, _home)

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Make in one namespace what is missing."""
        namespace = self._namespaces.get(key)
        if namespace is None or namespace.metadata.deletion_timestamp:
            return None
        if self._accounts.get(f"{key}/default") is None:
            await api.create(ServiceAccount(metadata=ObjectMeta(name="default", namespace=key)))
        if not self._root_ca:
            return None
        data = {"ca.crt": self._root_ca}
        present = self._maps.get(f"{key}/{ROOT_CA}")
        if present is None:
            await api.create(ConfigMap(metadata=ObjectMeta(name=ROOT_CA, namespace=key), data=data))
        elif present.data != data:
            await api.update(replace(present, data=data))
        return None


def _home(before: Resource | None, after: Resource | None) -> Iterable[str]:
    """Concern the namespace of what goes or changes, if it is one of ours."""
    obj = before
    if obj is None or obj.metadata.name not in ("default", ROOT_CA):
        return ()
    return (obj.metadata.namespace,) if after is None or isinstance(obj, ConfigMap) else ()
