"""Resource quotas' status: what is limited, and how much of it is used.

Admission charges before an object is stored, so for a moment a quota shows more than there is: the object is on its
way. A count taken in that moment must not be written, or the same room would be given away twice. So the count may
raise ``used`` at any time, but lowers it only by what was seen to go, or when nobody has charged for longer than a
write can be on its way.
"""

import logging
from collections.abc import Iterable, Sequence
from fractions import Fraction

from msgspec.structs import replace

from api.errors import NotFound
from api.kinds.core import ConfigMap, ReplicationController, ResourceQuota, Secret, Service
from api.kinds.pods import Pod
from api.kinds.table import Kind
from api.kinds.volumes import PersistentVolumeClaim
from api.meta import Resource
from client.resources import Resources
from client.runner import Runner
from master.controllers.context import Context
from master.quota import as_text, count_name, is_about, masked, total, usage_of
from master.resources import Amounts, added, parsed

log = logging.getLogger(__name__)

# Longer than a write to the store is tried (``master.storage.WRITE_TIMEOUT_S``).
SETTLED_S = 12.0
# Kinds that are counted but not followed are asked for so often.
POLL_S = 5.0
_FOLLOWED: Sequence[type[Resource]] = (Pod, Service, PersistentVolumeClaim, ConfigMap, Secret, ReplicationController)


def plan_used(used: Amounts, counted: Amounts, released: Amounts, *, settled: bool) -> dict[str, Fraction]:
    """Return what a quota's status should show.

    counted: what all objects that are there count for. released: what was seen to go since ``used`` was written.
    settled: nobody can be on the way between charge and object.
    """
    if settled:
        return dict(counted)
    left = {name: amount - released.get(name, Fraction()) for name, amount in used.items()}
    return {name: max(amount, left.get(name, amount)) for name, amount in counted.items()}


class ResourceQuotaController:
    """Keeps the status of every quota."""

    def __init__(self, context: Context) -> None:
        self._clock = context.clock
        self._table = context.table
        self._quotas = context.informers.of(ResourceQuota)
        self._followed = {model: context.informers.of(model) for model in _FOLLOWED}
        self._released: dict[str, dict[str, Fraction]] = {}  # quota -> what went
        self._seen: dict[str, tuple[str, float]] = {}  # quota -> (resourceVersion, since when it is known)
        self.runner = Runner(
            "resourcequota",
            self.reconcile,
            resources=context.resources,
            informers=context.informers,
            workers=2,
            clock=context.clock,
        )
        self._quotas.subscribe(self.runner.queue.add)
        for informer in self._followed.values():
            informer.subscribe(self.runner.queue.add, self._concerned)

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    def _concerned(self, before: Resource | None, after: Resource | None) -> Iterable[str]:
        """Return the quotas that a change concerns, and note what it gives back to them."""
        obj = after if after is not None else before
        assert obj is not None
        quotas = [each for each in self._quotas if each.metadata.namespace == obj.metadata.namespace]
        if before is not None and quotas:
            kind, now = self._table.of(type(obj)), self._clock.time()
            for quota in quotas:
                was = usage_of(kind, before, now) if is_about(quota, before) else {}
                still = usage_of(kind, after, now) if after is not None and is_about(quota, after) else {}
                gone = {name: amount - still.get(name, Fraction()) for name, amount in was.items()}
                freed = masked({name: amount for name, amount in gone.items() if amount > 0}, quota.spec.hard)
                if freed:
                    key = _key(quota)
                    self._released[key] = added(self._released.get(key, {}), freed)
        return [_key(each) for each in quotas]

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Write the status of one quota, if it is not what it should be."""
        quota = self._quotas.get(key)
        if quota is None:
            self._released.pop(key, None)
            self._seen.pop(key, None)
            return None
        now, version = self._clock.monotonic(), quota.metadata.resource_version
        known, since = self._seen.get(key, ("", now))
        if known != version:
            self._seen[key] = (version, now)
            since = now
        settled = now - since >= SETTLED_S
        others = await self._others(api, quota)
        counted = total([*self._objects(quota.metadata.namespace), *others], quota, self._clock.time())
        released = self._released.pop(key, {})
        used = plan_used(parsed(quota.status.used), counted, released, settled=settled)
        status = replace(quota.status, hard=quota.spec.hard, used=dict(as_text(used)))
        if status != quota.status:
            try:
                await api.update(replace(quota, status=status), subresource="status")
            except NotFound:
                return None
            except Exception:
                self._released[key] = added(self._released.get(key, {}), released)
                raise
        if not settled and as_text(counted) != as_text(used):
            return SETTLED_S - (now - since) + 0.1
        return POLL_S if others else None

    def _objects(self, namespace: str) -> list[tuple[Kind, Sequence[Resource]]]:
        return [
            (self._table.of(model), [each for each in informer if each.metadata.namespace == namespace])
            for model, informer in self._followed.items()
        ]

    async def _others(self, api: Resources, quota: ResourceQuota) -> list[tuple[Kind, Sequence[Resource]]]:
        """Return the objects of counted kinds that are not followed."""
        found: list[tuple[Kind, Sequence[Resource]]] = []
        names = set(quota.spec.hard)
        for kind in self._table:
            if kind.model in _FOLLOWED or kind.stored_as is not None or not kind.namespaced or "list" not in kind.verbs:
                continue
            plain = {kind.plural} if not kind.group else set()
            if names & {count_name(kind.group, kind.plural), *plain}:
                listing = await api.list(kind.model, namespace=quota.metadata.namespace)
                found.append((kind, listing.items))
        return found


def _key(quota: ResourceQuota) -> str:
    return f"{quota.metadata.namespace}/{quota.metadata.name}"
