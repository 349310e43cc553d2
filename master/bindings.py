"""The binding subresource: the scheduler's word on where a pod runs."""

from collections.abc import Mapping
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from api.errors import BadRequest, Fault, conflict, invalid
from api.kinds.pods import Binding, Pod, PodCondition
from api.kinds.table import Table
from api.meta import Resource
from master import strictness
from master.modify import Modifier, Outcome
from master.objects import StoredObject
from master.rest.seam import WriteOptions, Written
from master.storage import Fence
from master.writes import Writer


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


class Bindings:
    """Binds pods to nodes."""

    def __init__(self, table: Table, writer: Writer, modifier: Modifier) -> None:
        pods = table.preferred("", "pods")
        assert pods is not None, "pods are in every table"
        self._pods = pods
        self._kind = table.of(Binding)
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
        try:
            binding = msgspec.convert(document, _Binding)
        except msgspec.ValidationError as error:
            raise BadRequest(f"Binding cannot be read: {error}") from None
        warnings = strictness.tell_of(self._kind, document, options)
        if not binding.target.name or binding.target.kind not in ("", "Node"):
            fault = Fault("target.name", "Required value", "FieldValueRequired")
            raise invalid("Binding", name, [fault])

        async def alter(stored: StoredObject) -> Outcome:
            return _bound(stored, binding, self._writer.timestamp())

        stored = await self._modifier.modify(self._pods, namespace, name, alter, dry_run=options.dry_run, fence=fence)
        return Written(stored, warnings=warnings)


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
