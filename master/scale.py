"""The scale subresource: autoscaling/v1 Scale as a view of anything with replicas."""

from typing import Any, cast

from msgspec.structs import replace

from api import codec
from api.errors import Fault, invalid
from api.kinds.autoscaling import Scale, ScaleSpec, ScaleStatus
from api.kinds.table import Kind
from api.meta import LabelSelector, ObjectMeta, Resource
from master.objects import StoredObject

SCALE = Kind(group="autoscaling", version="v1", kind="Scale", singular="scale", plural="scales", model=Scale)


def scale_of(stored: StoredObject) -> StoredObject:
    """Return the Scale of an object."""
    obj: Any = stored.obj
    meta = stored.obj.metadata
    scale = Scale(
        api_version=SCALE.group_version,
        kind=SCALE.kind,
        metadata=ObjectMeta(
            name=meta.name, namespace=meta.namespace, uid=meta.uid, creation_timestamp=meta.creation_timestamp
        ),
        spec=ScaleSpec(replicas=obj.spec.replicas or None),
        status=ScaleStatus(replicas=obj.status.replicas or 0, selector=_selector_text(obj.spec.selector)),
    )
    return StoredObject(
        SCALE, namespace=stored.namespace, name=stored.name, data=codec.encode(scale), revision=stored.revision
    )


def _selector_text(selector: LabelSelector | dict[str, str] | None) -> str:
    """Return a selector as query text."""
    if selector is None:
        return ""
    if isinstance(selector, dict):
        return ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
    parts = [f"{key}={value}" for key, value in sorted(selector.match_labels.items())]
    words = {"In": "in", "NotIn": "notin"}
    for each in selector.match_expressions:
        if each.operator in words:
            parts.append(f"{each.key} {words[each.operator]} ({','.join(sorted(each.values))})")
        else:
            parts.append(each.key if each.operator == "Exists" else f"!{each.key}")
    return ",".join(parts)


def with_scale(obj: Resource, scale: Resource) -> Resource:
    """Return ``obj`` with the replicas of ``scale``; raises Invalid for a negative number."""
    replicas = cast("Scale", scale).spec.replicas or 0
    if replicas < 0:
        why = f"Invalid value: {replicas}: must be greater than or equal to 0"
        raise invalid("Scale", obj.metadata.name, [Fault("spec.replicas", why)], group="autoscaling")
    return replace(obj, spec=replace(cast("Any", obj).spec, replicas=replicas))
