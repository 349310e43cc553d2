"""What a write to an object, or to one of its subresources, may change: one row each."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from msgspec.structs import replace

from api.kinds.pods import Container
from api.kinds.table import Kind
from api.meta import Resource
from master.lifecycle import prepare_change, prepare_status

# Conditions of a signing request that its approvers write and its signers do not.
DECISIONS = ("Approved", "Denied")
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


def _resize(kind: Kind, old: Resource, new: Resource) -> Resource:
    """Only what containers get of resources, and how; whether the containers are the same ones is for validation."""
    wanted: Any = cast("Any", new).spec
    kept: Any = prepare_change(kind, old, old)
    spec = replace(
        kept.spec,
        containers=_resized(kept.spec.containers, wanted.containers),
        init_containers=_resized(kept.spec.init_containers, wanted.init_containers),
    )
    if spec == kept.spec:
        return cast("Resource", kept)
    meta = replace(kept.metadata, generation=(kept.metadata.generation or 0) + 1)
    return cast("Resource", replace(kept, metadata=meta, spec=spec))


def _resized(old: Sequence[Container], new: Sequence[Container]) -> Sequence[Container]:
    """Return the containers of ``old`` with the resources of ``new``; ``new`` itself if they are not the same."""
    if [each.name for each in old] != [each.name for each in new]:
        return new
    return tuple(
        replace(mine, resources=theirs.resources, resize_policy=theirs.resize_policy)
        for mine, theirs in zip(old, new, strict=True)
    )


def _approval(kind: Kind, old: Resource, new: Resource) -> Resource:
    """Of a signing request's status all conditions, the decision among them, but not the certificate."""
    status = replace(cast("Any", old).status, conditions=cast("Any", new).status.conditions)
    return _status(kind, old, cast("Resource", replace(cast("Any", new), status=status)))


def _csr_status(kind: Kind, old: Resource, new: Resource) -> Resource:
    """Everything of a signing request's status but whether it is approved or denied."""
    decided = {each.type: each for each in cast("Any", old).status.conditions if each.type in DECISIONS}
    told = cast("Any", new).status.conditions
    others = [each for each in told if each.type in decided or each.type not in DECISIONS]
    left_out = (each for name, each in decided.items() if name not in {one.type for one in told})
    conditions = (*left_out, *(decided.get(each.type, each) for each in others))
    status = replace(cast("Any", new).status, conditions=conditions)
    return _status(kind, old, cast("Resource", replace(cast("Any", new), status=status)))


def _pod_status(kind: Kind, old: Resource, new: Resource) -> Resource:
    """Keep what older agents leave out of the status, and what nobody but the server says."""
    before, after = cast("Any", old).status, cast("Any", new).status
    status = replace(
        after,
        qos_class=after.qos_class or before.qos_class,
        observed_generation=after.observed_generation or before.observed_generation,
    )
    return _status(kind, old, cast("Resource", replace(cast("Any", new), status=status)))


_STATUS: Mapping[tuple[str, str], Prepare] = {
    ("", "pods"): _pod_status,
    ("certificates.k8s.io", "certificatesigningrequests"): _csr_status,
}


def _of_status(kind: Kind, old: Resource, new: Resource) -> Resource:
    return _STATUS.get(kind.place, _status)(kind, old, new)


def _without_revision(obj: Resource) -> Resource:
    return replace(obj, metadata=replace(obj.metadata, resource_version=""))


PREPARE: Mapping[str, Prepare] = {
    "": prepare_change,
    "status": _of_status,
    "approval": _approval,
    "finalize": _finalize,
    "ephemeralcontainers": _ephemeral_containers,
    "resize": _resize,
}
