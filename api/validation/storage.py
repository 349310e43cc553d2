"""What kinds of storage may not be: volumes, claims, classes, drivers and attachments."""

import posixpath
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from api import names, quantity
from api.errors import Fault
from api.faults import (
    check,
    check_given,
    check_optional,
    duplicate,
    forbidden,
    immutable,
    not_negative,
    one_of,
    required,
    selector_faults,
    too_long,
    unsupported,
    wrong,
)
from api.kinds.storage import (
    CSIDriver,
    CSINode,
    CSINodeDriver,
    CSIStorageCapacity,
    StorageClass,
    TopologySelectorTerm,
    VolumeAttachment,
)
from api.kinds.volumes import PersistentVolume, PersistentVolumeSpec
from api.validation.claims import VOLUME_MODES, claim_change_faults, claim_faults, mode_list_faults
from api.validation.placement import node_selector_faults
from api.validation.volumes import driver_faults, source_faults, sources

_RECLAIM_POLICIES = ("Delete", "Recycle", "Retain")
_BINDING_MODES = ("Immediate", "WaitForFirstConsumer")
_LONGEST_PARAMETERS_BYTES = 256 * 1024
_LONGEST_NODE_ID = 192


def _volume(obj: PersistentVolume) -> list[Fault]:
    spec = obj.spec
    faults = mode_list_faults(spec.access_modes, "spec.accessModes") + _capacity_faults(spec)
    policy = spec.persistent_volume_reclaim_policy
    if policy:
        faults += one_of(policy, _RECLAIM_POLICIES, "spec.persistentVolumeReclaimPolicy")
    if spec.node_affinity is not None:
        if spec.node_affinity.required is None:
            faults.append(required("spec.nodeAffinity.required", "must specify required node constraints"))
        else:
            faults += node_selector_faults(spec.node_affinity.required, "spec.nodeAffinity.required")
    faults += source_faults(spec, "spec")
    if spec.local is not None and spec.node_affinity is None:
        faults.append(required("spec.nodeAffinity", "Local volume requires node affinity"))
    if spec.host_path is not None and posixpath.normpath(spec.host_path.path) == "/" and policy == "Recycle":
        why = "may not be 'recycle' for a hostPath mount of '/'"
        faults.append(forbidden("spec.persistentVolumeReclaimPolicy", why))
    faults += check_optional(names.subdomain, spec.storage_class_name or "", "spec.storageClassName")
    if spec.volume_mode and spec.volume_mode not in VOLUME_MODES:
        faults.append(unsupported("spec.volumeMode", spec.volume_mode, VOLUME_MODES))
    return faults


def _capacity_faults(spec: PersistentVolumeSpec) -> list[Fault]:
    at, faults = "spec.capacity", []
    if not spec.capacity:
        faults.append(required(at))
    if spec.capacity.keys() != {"storage"}:
        faults.append(unsupported(at, spec.capacity, ("storage",)))
    for name, amount in spec.capacity.items():
        if quantity.parse(amount) < 0:
            faults.append(wrong(f"{at}[{name}]", quantity.whole(amount), "must be a valid resource quantity"))
        if quantity.parse(amount) <= 0:
            faults.append(wrong(f"{at}[{name}]", amount, "must be greater than zero"))
    return faults


def _volume_change(old: PersistentVolume, new: PersistentVolume) -> list[Fault]:
    before, after = old.spec, new.spec
    if before.csi is not None and after.csi is not None and before.csi.controller_expand_secret_ref is None:
        after = replace(after, csi=replace(after.csi, controller_expand_secret_ref=None))  # may be given later
    faults = []
    if sources(before) != sources(after):
        why = "spec.persistentvolumesource is immutable after creation"
        faults.append(forbidden("spec.persistentvolumesource", why))
    faults += immutable(before.volume_mode, after.volume_mode, "volumeMode")
    if before.node_affinity is not None and before.node_affinity != after.node_affinity:
        why = "field is immutable, except for updating from beta label to GA"
        faults.append(wrong("nodeAffinity", after.node_affinity, why))
    return faults


def _storage_class(obj: StorageClass) -> list[Fault]:
    reasons = names.qualified(obj.provisioner.lower()) if obj.provisioner else []
    faults = [wrong("provisioner", obj.provisioner, why) for why in reasons]
    if not obj.provisioner:
        faults.append(required("provisioner"))
    faults += [wrong("parameters", key, "field can not be empty.") for key in obj.parameters if not key]
    if sum(len(key) + len(value) for key, value in obj.parameters.items()) > _LONGEST_PARAMETERS_BYTES:
        faults.append(too_long("parameters", _LONGEST_PARAMETERS_BYTES))
    if obj.reclaim_policy:
        faults += one_of(obj.reclaim_policy, ("Delete", "Retain"), "reclaimPolicy")
    faults += one_of(obj.volume_binding_mode, _BINDING_MODES, "volumeBindingMode")
    for index, term in enumerate(obj.allowed_topologies):
        faults += _topology(term, f"allowedTopologies[{index}].matchLabelExpressions")
        if term in obj.allowed_topologies[:index]:
            faults.append(duplicate(f"allowedTopologies[{index}].matchLabelExpressions", ""))
    return faults


def _topology(term: TopologySelectorTerm, field: str) -> list[Fault]:
    faults: list[Fault] = []
    taken: set[str] = set()
    for index, each in enumerate(term.match_label_expressions):
        at = f"{field}[{index}]"
        if not each.values:
            faults.append(required(f"{at}.values"))
        for number, value in enumerate(each.values):
            if value in each.values[:number]:
                faults.append(duplicate(f"{at}.values[{number}]", value))
        faults += check(names.qualified, each.key, f"{at}.key")
        if each.key in taken:
            faults.append(duplicate(f"{at}.key", each.key))
        taken.add(each.key)
    return faults


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


def _attachment(obj: VolumeAttachment) -> list[Fault]:
    spec, at = obj.spec, "spec.source"
    faults = driver_faults(spec.attacher, "spec.attacher") if spec.attacher else [required("spec.attacher")]
    why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
    name, inline = spec.source.persistent_volume_name, spec.source.inline_volume_spec
    if not name and inline is None:
        faults.append(required(at, why))
    elif name and inline is not None:
        faults.append(forbidden(at, why))
    faults += check_optional(names.subdomain, name, f"{at}.persistentVolumeName")
    return faults + check(names.subdomain, spec.node_name, "spec.nodeName")


def _attachment_change(old: VolumeAttachment, new: VolumeAttachment) -> list[Fault]:
    return immutable(old.spec, new.spec, "spec")


def _driver(obj: CSIDriver) -> list[Fault]:
    spec = obj.spec
    faults = driver_faults(obj.metadata.name, "metadata.name")
    for index, mode in enumerate(spec.volume_lifecycle_modes):
        if mode not in ("Ephemeral", "Persistent"):
            faults.append(unsupported("spec.volumeLifecycleModes", mode, ("Ephemeral", "Persistent")))
        if mode in spec.volume_lifecycle_modes[:index]:
            faults.append(duplicate("spec.volumeLifecycleModes", mode))
    policies = ("File", "None", "ReadWriteOnceWithFSType")
    if spec.fs_group_policy:
        faults += one_of(spec.fs_group_policy, policies, "spec.fsGroupPolicy")
    audiences = [each.audience for each in spec.token_requests]
    for index, each in enumerate(spec.token_requests):
        at = f"spec.tokenRequests[{index}]"
        if each.audience in audiences[:index]:
            faults.append(duplicate(f"{at}.audience", each.audience))
        if each.expiration_seconds is not None and each.expiration_seconds < 600:
            why = "may not specify a duration less than 10 minutes"
            faults.append(wrong(f"{at}.expirationSeconds", each.expiration_seconds, why))
    return faults


def _driver_change(old: CSIDriver, new: CSIDriver) -> list[Fault]:
    before, after = old.spec, new.spec
    faults = immutable(before.attach_required, after.attach_required, "spec.attachedRequired")
    return faults + immutable(before.volume_lifecycle_modes, after.volume_lifecycle_modes, "spec.volumeLifecycleModes")


def _node(obj: CSINode) -> list[Fault]:
    faults: list[Fault] = []
    taken: set[str] = set()
    for index, driver in enumerate(obj.spec.drivers):
        faults += _node_driver(driver, f"spec.drivers[{index}]", taken)
    return faults


def _node_driver(driver: CSINodeDriver, field: str, taken: set[str]) -> list[Fault]:
    faults = driver_faults(driver.name, f"{field}.name")
    if not driver.node_id:
        faults.append(required(f"{field}.nodeID"))
    if len(driver.node_id) > _LONGEST_NODE_ID:
        why = f"must be {_LONGEST_NODE_ID} characters or less"
        faults.append(wrong(f"{field}.nodeID", driver.node_id, why))
    if driver.allocatable is not None:
        faults += not_negative(driver.allocatable.count, f"{field}.allocatable.count")
    if driver.name in taken:
        faults.append(duplicate(f"{field}.name", driver.name))
    taken.add(driver.name)
    for index, key in enumerate(driver.topology_keys):
        faults += check_given(names.qualified, key, field)
        if key in driver.topology_keys[:index]:
            faults.append(duplicate(field, key))
    return faults


def _node_change(old: CSINode, new: CSINode) -> list[Fault]:
    before = {each.name: each for each in old.spec.drivers}
    changed = [each for each in new.spec.drivers if before.get(each.name, each) != each]
    return [wrong("CSINodeDriver", each, "field is immutable") for each in changed]


def _room(obj: CSIStorageCapacity) -> list[Fault]:
    faults = selector_faults(obj.node_topology, "nodeTopology")
    faults += check(names.subdomain, obj.storage_class_name, "storageClassName")
    for name, amount in (("capacity", obj.capacity), ("maximumVolumeSize", obj.maximum_volume_size)):
        if amount and quantity.parse(amount) < 0:
            faults.append(wrong(name, amount, "must be greater than or equal to 0"))
    return faults


def _room_change(old: CSIStorageCapacity, new: CSIStorageCapacity) -> list[Fault]:
    faults = immutable(old.node_topology, new.node_topology, "nodeTopology")
    return faults + immutable(old.storage_class_name, new.storage_class_name, "storageClassName")


_GROUP = "storage.k8s.io"
SPEC_RULES: Mapping[tuple[str, str], Callable[[Any], list[Fault]]] = {
    ("", "persistentvolumes"): _volume,
    ("", "persistentvolumeclaims"): claim_faults,
    (_GROUP, "storageclasses"): _storage_class,
    (_GROUP, "volumeattachments"): _attachment,
    (_GROUP, "csidrivers"): _driver,
    (_GROUP, "csinodes"): _node,
    (_GROUP, "csistoragecapacities"): _room,
}
CHANGE_RULES: Mapping[tuple[str, str], Callable[[Any, Any], list[Fault]]] = {
    ("", "persistentvolumes"): _volume_change,
    ("", "persistentvolumeclaims"): claim_change_faults,
    (_GROUP, "storageclasses"): _storage_class_change,
    (_GROUP, "volumeattachments"): _attachment_change,
    (_GROUP, "csidrivers"): _driver_change,
    (_GROUP, "csinodes"): _node_change,
    (_GROUP, "csistoragecapacities"): _room_change,
}
