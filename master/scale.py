"""The scale subresource: autoscaling/v1 Scale as a view of anything with replicas."""

from typing import Any, cast

from msgspec.structs import replace

from api import codec
from api.custom import jsonpath
from api.custom.objects import CustomObject, as_document
from api.errors import Fault, invalid
from api.kinds.autoscaling import Scale, ScaleSpec, ScaleStatus
from api.kinds.table import Kind
from api.meta import LabelSelector, ObjectMeta, Resource
from master.objects import StoredObject

SCALE = Kind(group="autoscaling", version="v1", kind="Scale", singular="scale", plural="scales", model=Scale)


def scale_of(stored: StoredObject) -> StoredObject:
    """Return the Scale of an object."""
    if stored.kind.custom is not None:
        return _custom_scale(stored)
    obj: Any = stored.obj
    status = ScaleStatus(replicas=obj.status.replicas or 0, selector=_selector_text(obj.spec.selector))
    return _scale(stored, ScaleSpec(replicas=obj.spec.replicas or None), status)


def _custom_scale(stored: StoredObject) -> StoredObject:
    """Return the Scale of a custom object, from the fields that its definition names."""
    assert stored.kind.custom is not None
    paths = stored.kind.custom.scale
    assert paths is not None, stored.kind
    content = cast("CustomObject", stored.obj).content
    replicas = jsonpath.get_field(content, paths.replicas)
    present = jsonpath.get_field(content, paths.status_replicas)
    selector = jsonpath.get_field(content, paths.selector) if paths.selector else None
    return _scale(
        stored,
        ScaleSpec(replicas=_whole(replicas) or None),
        ScaleStatus(replicas=_whole(present), selector=selector if isinstance(selector, str) else ""),
    )


def replicas_of(kind: Kind, obj: Resource) -> int:
    """Return how many replicas ``obj``, of ``kind``, wants."""
    if kind.custom is None:
        replicas = cast("Any", obj).spec.replicas
        return 1 if replicas is None else int(replicas)
    assert kind.custom.scale is not None, kind
    return _whole(jsonpath.get_field(cast("CustomObject", obj).content, kind.custom.scale.replicas))


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _scale(stored: StoredObject, spec: ScaleSpec, status: ScaleStatus) -> StoredObject:
    meta = stored.obj.metadata
    scale = Scale(
        api_version=SCALE.group_version,
        kind=SCALE.kind,
        metadata=ObjectMeta(
            name=meta.name, namespace=meta.namespace, uid=meta.uid, creation_timestamp=meta.creation_timestamp
        ),
        spec=spec,
        status=status,
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


def with_scale(kind: Kind, obj: Resource, scale: Resource) -> Resource:
    """Return ``obj``, of ``kind``, with the replicas of ``scale``; raises Invalid for a negative number."""
    replicas = cast("Scale", scale).spec.replicas or 0
    if replicas < 0:
        why = f"Invalid value: {replicas}: must be greater than or equal to 0"
        raise invalid("Scale", obj.metadata.name, [Fault("spec.replicas", why)], group="autoscaling")
    if kind.custom is not None and isinstance(obj, CustomObject):
        assert kind.custom.scale is not None, kind
        content = as_document(obj.content)
        jsonpath.set_field(content, kind.custom.scale.replicas, replicas)
        return replace(obj, content=content)
    return replace(obj, spec=replace(cast("Any", obj).spec, replicas=replicas))
