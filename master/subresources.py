"""What a write to an object, or to one of its subresources, may change: one row each."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from msgspec.structs import replace

from api.kinds.table import Kind
from api.meta import Resource
from master.lifecycle import prepare_change, prepare_status

Prepare = Callable[[Kind, Resource, Resource], Resource]


def _status(kind: Kind, old: Resource, new: Resource) -> Resource:
    return _without_revision(prepare_status(kind, old, new))


def _finalize(kind: Kind, old: Resource, new: Resource) -> Resource:  # noqa: ARG001 - one signature for all rows
    """Only a namespace's own finalizers."""
    finalizers = cast("Any", new).spec.finalizers
    return _without_revision(replace(old, spec=replace(cast("Any", old).spec, finalizers=finalizers)))


def _ephemeral_containers(kind: Kind, old: Resource, new: Resource) -> Resource:
    containers = cast("Any", new).spec.ephemeral_containers
    kept: Any = prepare_change(kind, old, old)
    if containers == kept.spec.ephemeral_containers:
        return cast("Resource", kept)
    meta = replace(kept.metadata, generation=(kept.metadata.generation or 0) + 1)
    return cast("Resource", replace(kept, metadata=meta, spec=replace(kept.spec, ephemeral_containers=containers)))


def _without_revision(obj: Resource) -> Resource:
    return replace(obj, metadata=replace(obj.metadata, resource_version=""))


PREPARE: Mapping[str, Prepare] = {
    "": prepare_change,
    "status": _status,
    "finalize": _finalize,
    "ephemeralcontainers": _ephemeral_containers,
}
