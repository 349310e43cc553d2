"""What a server-side apply says: of which object, and of which part of it."""

from collections.abc import Mapping
from typing import Any, cast

from api import codec
from api.custom.jsonpath import set_field
from api.errors import MODIFIED, BadRequest, conflict
from api.kinds.autoscaling import Scale
from api.kinds.table import Kind
from master.objects import StoredObject
from master.scale import SCALE
from master.strategy import has_status, strategy_of

Document = Mapping[str, Any]


def life_of(intent: Document) -> tuple[str, str]:
    """Return (uid, resourceVersion) that an intent insists upon."""
    meta = intent.get("metadata")
    if not isinstance(meta, Mapping):
        return "", ""
    return str(meta.get("uid") or ""), str(meta.get("resourceVersion") or "")


def check_same_life(kind: Kind, stored: StoredObject, intent: Document) -> None:
    """Raise Conflict if an intent is about another object, or another state, than ``stored``."""
    uid, version = life_of(intent)
    if uid not in ("", stored.obj.metadata.uid) or version not in ("", str(stored.revision)):
        raise conflict(kind.plural, stored.name, MODIFIED, group=kind.group)


def part_for(owner: Kind, intent: Document, subresource: str) -> dict[str, Any]:
    """Return what an intent says of the part of an object that ``subresource`` shows, as the object has it."""
    if not isinstance(intent.get("metadata", {}), Mapping):
        raise BadRequest(f"{owner.kind} cannot be applied: metadata must be an object")
    head = {key: intent[key] for key in ("apiVersion", "kind", "metadata") if key in intent}
    if subresource == "status":
        return head | ({"status": intent["status"]} if "status" in intent else {})
    if subresource == "scale":
        replicas = cast("Scale", codec.decode(SCALE, intent)).spec.replicas or 0
        head |= {"apiVersion": owner.group_version, "kind": owner.kind}
        if owner.custom is not None and owner.custom.scale is not None:
            set_field(head, owner.custom.scale.replicas, replicas)
            return head
        return head | {"spec": {"replicas": replicas}}
    if subresource == "resize":
        return head | _resizing(intent)
    if subresource:
        raise BadRequest(f"server-side apply to {owner.plural}/{subresource} is not supported: use a merge patch")
    unwritten = has_status(owner) and not strategy_of(owner).keeps_status
    return {key: value for key, value in intent.items() if key != "status" or not unwritten}


def _resizing(intent: Document) -> dict[str, Any]:
    """Return what an intent says of the resources of a pod's containers; of the rest a resize says nothing."""
    spec = intent.get("spec")
    if not isinstance(spec, Mapping):
        return {}
    return {
        "spec": {
            part: [
                {key: each[key] for key in ("name", "resources", "resizePolicy") if key in each}
                for each in spec[part]
                if isinstance(each, Mapping)
            ]
            for part in ("containers", "initContainers")
            if isinstance(spec.get(part), list)
        }
    }
