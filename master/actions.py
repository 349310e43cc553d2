"""What is done to pods through subresources that one only posts to: binding and eviction."""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import msgspec
from msgspec.structs import replace

from api import selectors
from api.errors import BadRequest, Fault, TooManyRequests, conflict, invalid
from api.kinds.pods import Pod, PodCondition
from api.kinds.policy import PodDisruptionBudget
from api.kinds.table import Kind, Table
from api.meta import DeleteOptions, Resource
from master.modify import Modifier, Outcome
from master.objects import StoredObject
from master.reads import Reader
from master.rest.seam import Query, WriteOptions, Written
from master.storage import Fence
from master.writes import Writer

M = TypeVar("M")


class _BindingTarget(msgspec.Struct, frozen=True):
    name: str = ""
    kind: str = "Node"


class _BindingMeta(msgspec.Struct, frozen=True):
    name: str = ""
    uid: str = ""
    annotations: dict[str, str] = {}
    labels: dict[str, str] = {}


class _Binding(msgspec.Struct, frozen=True):
    metadata: _BindingMeta = _BindingMeta()
    target: _BindingTarget = _BindingTarget()


class _Eviction(msgspec.Struct, frozen=True, rename="camel"):
    delete_options: DeleteOptions = DeleteOptions()


class PodActions:
    """Binds pods to nodes and evicts them."""

    def __init__(self, table: Table, reader: Reader, writer: Writer, modifier: Modifier) -> None:
        self._pods = _row(table, "", "pods")
        self._budgets = _row(table, "policy", "poddisruptionbudgets")
        self._reader = reader
        self._writer = writer
        self._modifier = modifier

    async def bind(
        self,
        document: Mapping[str, Any],
        *,
        namespace: str,
        name: str,
        options: WriteOptions,
        fence: Fence | None = None,
    ) -> Written:
        """Assign a pod to a node, once; raises Conflict if it has one, is being deleted, or is another pod by now."""
        binding = _read(document, _Binding, "Binding")
        if not binding.target.name or binding.target.kind not in ("", "Node"):
            fault = Fault("target.name", "Required value", "FieldValueRequired")
            raise invalid("Binding", name, [fault])

        async def alter(stored: StoredObject) -> Outcome:
            return _bound(stored, binding, self._writer.timestamp())

        stored = await self._modifier.modify(self._pods, namespace, name, alter, dry_run=options.dry_run, fence=fence)
        return Written(stored)

    async def evict(
        self,
        document: Mapping[str, Any],
        *,
        namespace: str,
        name: str,
        options: WriteOptions,
        fence: Fence | None = None,
    ) -> Written:
        """Delete a pod if its disruption budget allows; raises TooManyRequests if not."""
        eviction = _read(document, _Eviction, "Eviction")
        found = await self._reader.get(self._pods, namespace=namespace, name=name)
        pod = cast("Pod", found.obj)
        if not pod.metadata.deletion_timestamp and pod.status.phase not in ("Pending", "Succeeded", "Failed"):
            # kubectl says in the body that it only tries.
            dry_run = options.dry_run or bool(eviction.delete_options.dry_run)
            await self._spend(pod, dry_run=dry_run, fence=fence)
        wanted = eviction.delete_options
        if options.dry_run:
            wanted = replace(wanted, dry_run=("All",))
        deleted = await self._writer.delete(
            self._pods, namespace=namespace, name=name, options=wanted, user=options.user, fence=fence
        )
        return Written(deleted.stored)

    async def _spend(self, pod: Pod, *, dry_run: bool, fence: Fence | None) -> None:
        """Take one disruption from the pod's budget."""
        page = await self._reader.list(self._budgets, Query(namespace=pod.metadata.namespace))
        matching = [
            each
            for each in page.items
            if selectors.of_struct(_budget(each.obj).spec.selector).matches(pod.metadata.labels)
        ]
        if not matching:
            return
        if len(matching) > 1:
            raise BadRequest(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            )

        async def alter(stored: StoredObject) -> Outcome:
            return _spent(stored, pod, self._writer.timestamp())

        await self._modifier.modify(
            self._budgets,
            pod.metadata.namespace,
            matching[0].obj.metadata.name,
            alter,
            dry_run=dry_run,
            fence=fence,
        )


def _read(document: Mapping[str, Any], model: type[M], kind: str) -> M:
    """Return what a posted document says; raises BadRequest."""
    try:
        return msgspec.convert(document, model)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{kind} cannot be read: {error}") from None


def _row(table: Table, group: str, plural: str) -> Kind:
    kind = table.preferred(group, plural)
    assert kind is not None, f"{plural} of {group!r} is in every table"
    return kind


def _budget(obj: Resource) -> PodDisruptionBudget:
    return cast("PodDisruptionBudget", obj)


def _covers(budget: PodDisruptionBudget, labels: Mapping[str, str]) -> bool:
    return selectors.of_struct(budget.spec.selector).matches(labels)


def _bound(stored: StoredObject, binding: _Binding, now: str) -> Resource:
    pod = cast("Pod", stored.obj)
    meta = pod.metadata
    if binding.metadata.uid and binding.metadata.uid != meta.uid:
        why = f"Precondition failed: UID in precondition: {binding.metadata.uid}, UID in object meta: {meta.uid}"
        raise conflict("pods/binding", stored.name, why)
    if meta.deletion_timestamp:
        raise conflict("pods/binding", stored.name, f"pod {stored.name} is being deleted, cannot be assigned to a host")
    if pod.spec.node_name:
        why = f'pod {stored.name} is already assigned to node "{pod.spec.node_name}"'
        raise conflict("pods/binding", stored.name, why)
    kept = tuple(each for each in pod.status.conditions if each.type != "PodScheduled")
    scheduled = PodCondition(type="PodScheduled", status="True", last_transition_time=now)
    meta = replace(
        meta,
        annotations={**meta.annotations, **binding.metadata.annotations},
        labels={**meta.labels, **binding.metadata.labels},
        resource_version="",
    )
    return replace(
        pod,
        metadata=meta,
        spec=replace(pod.spec, node_name=binding.target.name),
        status=replace(pod.status, conditions=(*kept, scheduled)),
    )


def _spent(stored: StoredObject, pod: Pod, now: str) -> Resource:
    budget = _budget(stored.obj)
    status = budget.status
    if (status.observed_generation or 0) < (budget.metadata.generation or 0):
        raise TooManyRequests(
            f"Cannot evict pod as it would violate the pod's disruption budget. The disruption budget {stored.name} is "
            "still being processed by the server.",
            retry_after_s=10,
        )
    left = status.disruptions_allowed or 0
    if left <= 0:
        cause = Fault(
            "",
            f"The disruption budget {stored.name} needs {status.desired_healthy or 0} healthy pods and has "
            f"{status.current_healthy or 0} currently",
            "DisruptionBudget",
        )
        raise TooManyRequests(
            "Cannot evict pod as it would violate the pod's disruption budget.", causes=[cause], retry_after_s=10
        )
    spent = replace(
        status,
        disruptions_allowed=left - 1,
        disrupted_pods={**status.disrupted_pods, pod.metadata.name: now},
    )
    return replace(budget, metadata=replace(budget.metadata, resource_version=""), status=spent)
