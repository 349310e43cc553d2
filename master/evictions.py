"""The eviction subresource: deleting a pod if its disruption budget allows.

A pod that has not started or has ended disrupts nobody; nor does one that is not healthy while enough others are. Such
a pod is deleted only as it was seen: it might have become healthy meanwhile, and count.

What an eviction takes from a budget is written in the transaction that deletes the pod, or marks it: a refused
precondition, a pod that has gone, a master that dies leave the budget as it was.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from msgspec.structs import replace

from api import codec
from api.errors import ApiError, Conflict, InternalError, NotFound
from api.kinds.pods import Pod
from api.kinds.policy import Eviction, PodDisruptionBudget
from api.kinds.table import Kind, Table
from api.meta import DeleteOptions, Preconditions, Resource
from master import budgets, strictness
from master.disruptions import EVICTED, as_target
from master.lifecycle import check_preconditions
from master.modify import Beside, Modifier
from master.objects import StoredObject
from master.reads import Reader
from master.rest.seam import Deleted, Query, WriteOptions, Written
from master.storage import Fence, Write
from master.writes import Writer

# How often a pod is looked at again that changed between look and deletion.
ATTEMPTS = 8


KIND = Kind(group="policy", kind="Eviction", plural="evictions", singular="eviction", model=Eviction)


class Evictions:
    """Evicts pods."""

    def __init__(self, table: Table, reader: Reader, writer: Writer, modifier: Modifier) -> None:
        pods, kept = table.preferred("", "pods"), table.preferred("policy", "poddisruptionbudgets")
        assert pods is not None, "pods are in every table"
        assert kept is not None, "budgets are in every table"
        self._pods, self._budgets = pods, kept
        self._reader = reader
        self._writer = writer
        self._modifier = modifier

    async def evict(
        self,
        document: Mapping[str, Any],
        *,
        namespace: str,
        name: str,
        options: WriteOptions,
        fence: Fence | None = None,
    ) -> Written:
        """Delete a pod if its budget allows; raises TooManyRequests if not."""
        unknown: list[str] = []
        asked = cast("Eviction", codec.decode(KIND, document, unknown=unknown))
        warnings = strictness.tell(KIND, document, options, unknown=unknown)
        wanted = asked.delete_options or DeleteOptions()
        if options.dry_run:  # kubectl says it in the body
            wanted = replace(wanted, dry_run=("All",))
        for _ in range(ATTEMPTS):
            stored = await self._reader.get(self._pods, namespace=namespace, name=name)
            # Looked at again when it goes. Here, so that nothing is asked of a budget for a pod that nobody means.
            check_preconditions(self._pods, stored.obj, wanted, stored.revision)
            pod = cast("Pod", stored.obj)
            exempt = _is_exempt(pod)
            budget = None if exempt else await self._budget_of(pod)
            spared = budget is not None and budgets.is_spared(_budget(budget.obj), pod)
            spending = None if budget is None or spared else self._spending(budget, name)
            if wanted.dry_run and spending is not None:
                await spending.writes()
            as_seen = spared or (exempt and _may_become_ready(pod))
            try:
                deleted = await self._delete(pod, wanted, options, as_seen=as_seen, fence=fence, beside=spending)
            except Conflict:
                if spared and budget is not None:
                    raise budgets.still_processed(budget.name) from None
            else:
                return Written(deleted.stored, warnings=warnings)
        raise budgets.still_processed(name)

    async def _budget_of(self, pod: Pod) -> StoredObject | None:
        """Return the budget that is about the pod, if there is one."""
        page = await self._reader.list(self._budgets, Query(namespace=pod.metadata.namespace))
        stored = (each for each in page.items if isinstance(each, StoredObject))
        matching = [each for each in stored if budgets.covers(_budget(each.obj), pod.metadata.labels)]
        if len(matching) > 1:
            raise InternalError(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            )
        return matching[0] if matching else None

    def _spending(self, budget: StoredObject, pod: str) -> "_Spending":
        return _Spending(self._modifier, budget, pod, self._writer.timestamp())

    async def _delete(
        self,
        pod: Pod,
        wanted: DeleteOptions,
        options: WriteOptions,
        *,
        as_seen: bool,
        fence: Fence | None,
        beside: Beside | None,
    ) -> Deleted:
        meta = pod.metadata
        # Never another pod that has taken its name: nobody has asked a budget about that one.
        before = replace(wanted.preconditions or Preconditions(), uid=meta.uid)
        if as_seen and not before.resource_version:
            before = replace(before, resource_version=meta.resource_version)
        return await self._writer.delete(
            self._pods,
            namespace=meta.namespace,
            name=meta.name,
            options=replace(wanted, preconditions=before),
            user=options.user,
            fence=fence,
            mark=lambda obj: as_target(cast("Pod", obj), EVICTED, self._writer.timestamp()),
            beside=beside,
        )


class _Spending:
    """One disruption, taken from a budget in the transaction that lets the pod go."""

    def __init__(self, modifier: Modifier, budget: StoredObject, pod: str, now: str) -> None:
        self._modifier = modifier
        self._budget = budget
        self._pod = pod
        self._now = now
        self._asked = False

    async def writes(self) -> Sequence[Write]:
        """Return the budget's change; raises TooManyRequests or Forbidden if it has nothing left."""
        if self._asked:
            await self._look_again()
        self._asked = True
        try:
            return [self._spent()]
        except ApiError:
            seen = self._budget.revision
            await self._look_again()
            if self._budget.revision == seen:
                raise
        return [self._spent()]

    async def _look_again(self) -> None:
        try:
            self._budget = await self._modifier.newest(self._budget.kind, self._budget.namespace, self._budget.name)
        except NotFound:
            # Gone meanwhile. Said as it is, clients would take it for the pod that is not there, and think it evicted.
            raise budgets.still_processed(self._budget.name) from None

    def _spent(self) -> Write:
        spent = budgets.spend(_budget(self._budget.obj), self._pod, self._now)
        return self._modifier.replacing(
            self._budget, replace(spent, metadata=replace(spent.metadata, resource_version=""))
        )


def _budget(obj: Resource) -> PodDisruptionBudget:
    return cast("PodDisruptionBudget", obj)


def _is_exempt(pod: Pod) -> bool:
    """Return whether no budget is asked: the pod does not serve anybody yet, or no more."""
    return pod.status.phase in ("Pending", "Succeeded", "Failed") or bool(pod.metadata.deletion_timestamp)


def _may_become_ready(pod: Pod) -> bool:
    return pod.status.phase not in ("Succeeded", "Failed") and not pod.metadata.deletion_timestamp
