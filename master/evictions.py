"""The eviction subresource: deleting a pod if its disruption budget allows.

A pod that has not started or has ended disrupts nobody; nor does one that is not healthy while enough others are. Such
a pod is deleted only as it was seen: it might have become healthy meanwhile, and count.
"""

from collections.abc import Mapping
from typing import Any, cast

from msgspec.structs import replace

from api import codec
from api.errors import Conflict, InternalError, NotFound
from api.kinds.pods import Pod, PodCondition
from api.kinds.policy import Eviction, PodDisruptionBudget
from api.kinds.table import Kind, Table
from api.meta import DeleteOptions, Preconditions, Resource
from master import budgets, strictness
from master.modify import Modifier, Outcome
from master.objects import StoredObject
from master.reads import Reader
from master.rest.seam import Deleted, Query, WriteOptions, Written
from master.storage import Fence
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
            pod = cast("Pod", (await self._reader.get(self._pods, namespace=namespace, name=name)).obj)
            exempt = _is_exempt(pod)
            sparing = None if exempt else await self._ask(pod, dry_run=bool(wanted.dry_run), fence=fence)
            as_seen = sparing is not None or (exempt and _may_become_ready(pod))
            try:
                deleted = await self._delete(pod, wanted, options, as_seen=as_seen, fence=fence)
            except Conflict:
                if not as_seen or _insists(wanted):
                    raise
                if sparing is not None:
                    raise budgets.still_processed(sparing) from None
            else:
                return Written(deleted.stored, warnings=warnings)
        raise budgets.still_processed(name)

    async def _ask(self, pod: Pod, *, dry_run: bool, fence: Fence | None) -> str | None:
        """Take one disruption from the pod's budget; return the budget's name if it spares the pod from that."""
        page = await self._reader.list(self._budgets, Query(namespace=pod.metadata.namespace))
        matching = [found for each in page.items if budgets.covers(found := _budget(each.obj), pod.metadata.labels)]
        if not matching:
            return None
        if len(matching) > 1:
            raise InternalError(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            )
        name = matching[0].metadata.name
        if budgets.is_spared(matching[0], pod):
            return name

        async def alter(stored: StoredObject) -> Outcome:
            budget = budgets.spend(_budget(stored.obj), pod.metadata.name, self._writer.timestamp())
            return replace(budget, metadata=replace(budget.metadata, resource_version=""))

        try:
            await self._modifier.modify(
                self._budgets, pod.metadata.namespace, name, alter, dry_run=dry_run, fence=fence
            )
        except NotFound:
            # Gone meanwhile. Said as it is, clients would take it for the pod that is not there, and think it evicted.
            raise budgets.still_processed(name) from None
        return None

    async def _delete(
        self, pod: Pod, wanted: DeleteOptions, options: WriteOptions, *, as_seen: bool, fence: Fence | None
    ) -> Deleted:
        meta = pod.metadata
        if as_seen and not _insists(wanted):
            before = wanted.preconditions or Preconditions()
            wanted = replace(wanted, preconditions=replace(before, resource_version=meta.resource_version))
        return await self._writer.delete(
            self._pods,
            namespace=meta.namespace,
            name=meta.name,
            options=wanted,
            user=options.user,
            fence=fence,
            mark=lambda obj: _as_target(cast("Pod", obj), self._writer.timestamp()),
        )


def _budget(obj: Resource) -> PodDisruptionBudget:
    return cast("PodDisruptionBudget", obj)


def _is_exempt(pod: Pod) -> bool:
    """Return whether no budget is asked: the pod does not serve anybody yet, or no more."""
    return pod.status.phase in ("Pending", "Succeeded", "Failed") or bool(pod.metadata.deletion_timestamp)


def _may_become_ready(pod: Pod) -> bool:
    return pod.status.phase not in ("Succeeded", "Failed") and not pod.metadata.deletion_timestamp


def _insists(wanted: DeleteOptions) -> bool:
    """Return whether the client itself names the state of the pod that it means."""
    return wanted.preconditions is not None and bool(wanted.preconditions.resource_version)


def _as_target(pod: Pod, now: str) -> Pod:
    """Return the pod with the condition that tells why it goes."""
    condition = PodCondition(
        type="DisruptionTarget",
        status="True",
        reason="EvictionByEvictionAPI",
        message="Eviction API: evicting",
        last_transition_time=now,
        observed_generation=pod.metadata.generation,
    )
    others = tuple(each for each in pod.status.conditions if each.type != condition.type)
    return replace(pod, status=replace(pod.status, conditions=(*others, condition)))
