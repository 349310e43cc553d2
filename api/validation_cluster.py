"""What specs of storage, scheduling, access and limits may not be."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from api import quantity
from api.errors import Fault
from api.faults import (
    duplicate,
    forbidden,
    immutable,
    label_faults,
    one_of,
    required,
    selector_faults,
    wrong,
)
from api.kinds.core import LimitRange
from api.kinds.rbac import PolicyRule
from api.kinds.scheduling import PriorityClass
from api.kinds.storage import StorageClass
from api.kinds.volumes import PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec

_ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_HIGHEST_USER_PRIORITY = 1_000_000_000
_NOT_SOURCES = frozenset({
    "access_modes", "capacity", "claim_ref", "mount_options", "node_affinity", "persistent_volume_reclaim_policy",
    "storage_class_name", "volume_attributes_class_name", "volume_mode",
})  # fmt: skip


def _storage_class(obj: StorageClass) -> list[Fault]:
    faults = [] if obj.provisioner else [required("provisioner")]
    faults += one_of(obj.reclaim_policy, ("Delete", "Retain"), "reclaimPolicy")
    return faults + one_of(obj.volume_binding_mode, ("Immediate", "WaitForFirstConsumer"), "volumeBindingMode")


def _storage_class_change(old: StorageClass, new: StorageClass) -> list[Fault]:
    faults = [
        forbidden(name, f"updates to {name} are forbidden.")
        for name, attribute in (
            ("parameters", "parameters"),
            ("provisioner", "provisioner"),
            ("reclaimPolicy", "reclaim_policy"),
        )
        if getattr(old, attribute) != getattr(new, attribute)
    ]
    return faults + immutable(old.volume_binding_mode, new.volume_binding_mode, "volumeBindingMode")


def _access_modes(modes: tuple[str, ...], field: str) -> list[Fault]:
    if not modes:
        return [required(field, "at least 1 access mode is required")]
    faults = [fault for index, mode in enumerate(modes) for fault in one_of(mode, _ACCESS_MODES, f"{field}[{index}]")]
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        faults.append(forbidden(field, "may not use ReadWriteOncePod with other access modes"))
    return faults


def _storage(amounts: Mapping[str, str], field: str) -> list[Fault]:
    if "storage" not in amounts:
        return [required(f"{field}[storage]")]
    if quantity.parse(amounts["storage"]) <= 0:
        return [wrong(f"{field}[storage]", amounts["storage"], "must be greater than zero")]
    return []


def _claim_spec(spec: PersistentVolumeClaimSpec, field: str) -> list[Fault]:
    faults = _access_modes(spec.access_modes, f"{field}.accessModes")
    faults += selector_faults(spec.selector, f"{field}.selector")
    requests = spec.resources.requests if spec.resources is not None else {}
    faults += (
        _storage(requests, f"{field}.resources.requests") if requests else [required(f"{field}.resources[storage]")]
    )
    return faults + one_of(spec.volume_mode, ("Block", "Filesystem"), f"{field}.volumeMode")


def _claim(obj: PersistentVolumeClaim) -> list[Fault]:
    return _claim_spec(obj.spec, "spec")


def _claim_change(old: PersistentVolumeClaim, new: PersistentVolumeClaim) -> list[Fault]:
    # The binder fills in the volume, and the class where none was asked for.
    settled = replace(
        new.spec,
        resources=old.spec.resources,
        volume_name=old.spec.volume_name or new.spec.volume_name,
        volume_attributes_class_name=old.spec.volume_attributes_class_name,
        storage_class_name=(
            new.spec.storage_class_name if old.spec.storage_class_name is None else old.spec.storage_class_name
        ),
    )
    moved = (old.spec.volume_name and new.spec.volume_name != old.spec.volume_name) or (
        old.spec.storage_class_name is not None and new.spec.storage_class_name != old.spec.storage_class_name
    )
    if (
        settled != replace(old.spec, volume_name=settled.volume_name, storage_class_name=settled.storage_class_name)
        or moved
    ):
        why = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        return [forbidden("spec", why)]
    return _shrunk(old, new)


def _shrunk(old: PersistentVolumeClaim, new: PersistentVolumeClaim) -> list[Fault]:
    before, after = (
        (each.spec.resources.requests if each.spec.resources else {}).get("storage", "0") for each in (old, new)
    )
    if quantity.parse(after) < quantity.parse(before):
        return [forbidden("spec.resources.requests.storage", "field can not be less than status.capacity")]
    return []


def _sources(spec: Any) -> list[str]:
    return [
        info.encode_name
        for info in msgspec.structs.fields(spec)
        if info.name not in _NOT_SOURCES and getattr(spec, info.name) is not None
    ]


def _volume(obj: PersistentVolume) -> list[Fault]:
    spec = obj.spec
    faults = _access_modes(spec.access_modes, "spec.accessModes")
    faults += _storage(spec.capacity, "spec.capacity") if spec.capacity else [required("spec.capacity")]
    sources = _sources(spec)
    if not sources:
        faults.append(required("spec", "must specify a volume type"))
    faults += [forbidden(f"spec.{name}", "may not specify more than 1 volume type") for name in sources[1:]]
    if spec.host_path is not None and not spec.host_path.path:
        faults.append(required("spec.hostPath.path"))
    if spec.local is not None and spec.node_affinity is None:
        faults.append(required("spec.nodeAffinity", "Local volume requires node affinity"))
    faults += one_of(
        spec.persistent_volume_reclaim_policy, ("Delete", "Recycle", "Retain"), "spec.persistentVolumeReclaimPolicy"
    )
    return faults + one_of(spec.volume_mode, ("Block", "Filesystem"), "spec.volumeMode")


def _volume_change(old: PersistentVolume, new: PersistentVolume) -> list[Fault]:
    changed = [name for name in {*_sources(old.spec), *_sources(new.spec)} if _part(old, name) != _part(new, name)]
    faults = []
    if changed:
        faults.append(
            forbidden("spec.persistentvolumesource", "spec.persistentvolumesource is immutable after creation")
        )
    return faults + immutable(old.spec.volume_mode, new.spec.volume_mode, "spec.volumeMode")


def _part(volume: PersistentVolume, name: str) -> Any:
    return next(
        getattr(volume.spec, info.name) for info in msgspec.structs.fields(volume.spec) if info.encode_name == name
    )


def _priority_class(obj: PriorityClass) -> list[Fault]:
    name, faults = obj.metadata.name, []
    if name.startswith("system-") and name not in ("system-cluster-critical", "system-node-critical"):
        why = "priority class names with 'system-' prefix are reserved for system use only"
        faults.append(forbidden("metadata.name", why))
    elif (obj.value or 0) > _HIGHEST_USER_PRIORITY and not name.startswith("system-"):
        why = f"maximum allowed value of a user defined priority is {_HIGHEST_USER_PRIORITY}"
        faults.append(forbidden("value", why))
    return faults + one_of(obj.preemption_policy, ("Never", "PreemptLowerPriority"), "preemptionPolicy")


def _priority_class_change(old: PriorityClass, new: PriorityClass) -> list[Fault]:
    faults = []
    if (old.value or 0) != (new.value or 0):
        faults.append(forbidden("value", "may not be changed in an update."))
    return faults + immutable(old.preemption_policy, new.preemption_policy, "preemptionPolicy")


def _rules(rules: tuple[PolicyRule, ...], *, namespaced: bool) -> list[Fault]:
    faults = []
    for index, rule in enumerate(rules):
        at = f"rules[{index}]"
        if not rule.verbs:
            faults.append(required(f"{at}.verbs", "verbs must contain at least one value"))
        if rule.non_resource_urls:
            if namespaced:
                faults.append(
                    wrong(
                        f"{at}.nonResourceURLs",
                        list(rule.non_resource_urls),
                        "namespaced rules cannot apply to non-resource URLs",
                    )
                )
            if rule.api_groups or rule.resources or rule.resource_names:
                faults.append(
                    wrong(
                        f"{at}.nonResourceURLs",
                        list(rule.non_resource_urls),
                        "rules cannot apply to both regular resources and non-resource URLs",
                    )
                )
            continue
        if not rule.api_groups:
            faults.append(required(f"{at}.apiGroups", "resource rules must supply at least one api group"))
        if not rule.resources:
            faults.append(required(f"{at}.resources", "resource rules must supply at least one resource"))
    return faults


def _role(obj: Any) -> list[Fault]:
    return _rules(obj.rules, namespaced=True)


def _cluster_role(obj: Any) -> list[Fault]:
    return _rules(obj.rules, namespaced=False)


_LIMITED = ("Container", "PersistentVolumeClaim", "Pod")


def _limit_range(obj: LimitRange) -> list[Fault]:
    faults = []
    types: set[str] = set()
    for index, item in enumerate(obj.spec.limits):
        at = f"spec.limits[{index}]"
        if item.type in types:
            faults.append(duplicate(f"{at}.type", item.type))
        types.add(item.type)
        if item.type not in _LIMITED and "/" not in item.type:
            faults += one_of(item.type, _LIMITED, f"{at}.type")
        if item.type == "Pod":
            for name, amounts in (("default", item.default), ("defaultRequest", item.default_request)):
                if amounts:
                    faults.append(forbidden(f"{at}.{name}", "may not be specified when `type` is 'Pod'"))
        for name, least in item.min.items():
            if name in item.max and quantity.parse(least) > quantity.parse(item.max[name]):
                why = f"min value {least} is greater than max value {item.max[name]}"
                faults.append(wrong(f"{at}.min[{name}]", least, why))
        for name, usual in item.default.items():
            if name in item.max and quantity.parse(usual) > quantity.parse(item.max[name]):
                why = f"default value {usual} is greater than max value {item.max[name]}"
                faults.append(wrong(f"{at}.default[{name}]", usual, why))
            if name in item.default_request and quantity.parse(item.default_request[name]) > quantity.parse(usual):
                asked = item.default_request[name]
                why = f"default request value {asked} is greater than default limit value {usual}"
                faults.append(wrong(f"{at}.defaultRequest[{name}]", asked, why))
    return faults


def _runtime_class(obj: Any) -> list[Fault]:
    if not obj.handler:
        return [required("handler")]
    return [wrong("handler", obj.handler, why)] if (why := label_faults(obj.handler)) else []


def _runtime_class_change(old: Any, new: Any) -> list[Fault]:
    return immutable(old.handler, new.handler, "handler")


def _attachment(obj: Any) -> list[Fault]:
    faults = [] if obj.spec.attacher else [required("spec.attacher")]
    if not obj.spec.node_name:
        faults.append(required("spec.nodeName"))
    source = obj.spec.source
    if not source.persistent_volume_name and source.inline_volume_spec is None:
        faults.append(required("spec.source", "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
    return faults


def _attachment_change(old: Any, new: Any) -> list[Fault]:
    return [] if old.spec == new.spec else [wrong("spec", "", "field is immutable")]


SPEC_RULES: Mapping[tuple[str, str], Callable[[Any], list[Fault]]] = {
    ("", "persistentvolumes"): _volume,
    ("", "persistentvolumeclaims"): _claim,
    ("", "limitranges"): _limit_range,
    ("storage.k8s.io", "storageclasses"): _storage_class,
    ("storage.k8s.io", "volumeattachments"): _attachment,
    ("scheduling.k8s.io", "priorityclasses"): _priority_class,
    ("node.k8s.io", "runtimeclasses"): _runtime_class,
    ("rbac.authorization.k8s.io", "roles"): _role,
    ("rbac.authorization.k8s.io", "clusterroles"): _cluster_role,
}
CHANGE_RULES: Mapping[tuple[str, str], Callable[[Any, Any], list[Fault]]] = {
    ("", "persistentvolumes"): _volume_change,
    ("", "persistentvolumeclaims"): _claim_change,
    ("storage.k8s.io", "storageclasses"): _storage_class_change,
    ("storage.k8s.io", "volumeattachments"): _attachment_change,
    ("scheduling.k8s.io", "priorityclasses"): _priority_class_change,
    ("node.k8s.io", "runtimeclasses"): _runtime_class_change,
}
