"""What the sources of volumes may not be: those of pods and those of persistent volumes."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec

from api import names, quantity
from api.errors import Fault
from api.faults import (
    annotation_faults,
    check,
    check_given,
    duplicate,
    forbidden,
    label_map_faults,
    one_of,
    required,
    too_long,
    within,
    wrong,
)
from api.kinds.volumes import (
    PersistentVolumeClaimTemplate,
    SecretReference,
    Volume,
)
from api.validation.claims import claim_spec_faults
from api.validation.files import downward_faults, keyed_faults, projected_faults
from api.validation.paths import climb_faults, local_path_faults

_PARTITIONS = "must be between 1 and 255, inclusive"
_HOST_PATH_TYPES = (
    "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket",
)  # fmt: skip
_ISCSI_NAMES = {"iqn": r"iqn\.\d{4}-\d{2}\.[\w.-]+:[^,;*&$|\s]+", "eui": r"eui.\w{16}", "naa": r"naa.\w{32}"}


def volumes_faults(volumes: Sequence[Volume], pod_name: str, field: str) -> tuple[dict[str, Volume], list[Fault]]:
    """Return the volumes without faults by name, and the faults of the others.

    pod_name: "" in templates, whose pods have no names yet.
    """
    good: dict[str, Volume] = {}
    faults: list[Fault] = []
    made = {f"{pod_name}-{each.name}" for each in volumes if pod_name and each.ephemeral is not None}
    for index, volume in enumerate(volumes):
        at = f"{field}[{index}]"
        found = source_faults(volume, at)
        if volume.ephemeral is not None and pod_name and volume.name:
            claim = f"{pod_name}-{volume.name}"
            found += [wrong(f"{at}.name", volume.name, f'PVC name "{claim}": {why}') for why in names.subdomain(claim)]
        found += check_given(names.label, volume.name, f"{at}.name")
        if volume.name in good:
            found.append(duplicate(f"{at}.name", volume.name))
        if not found:
            good[volume.name] = volume
        claimed = volume.persistent_volume_claim
        if claimed is not None and claimed.claim_name in made:
            why = "must not reference a PVC that gets created for an ephemeral volume"
            found.append(wrong(f"{at}.persistentVolumeClaim.claimName", claimed.claim_name, why))
        faults += found
    return good, faults


def source_faults(volume: Any, field: str) -> list[Fault]:
    """Return the faults of where the contents of ``volume`` come from: a pod's volume or a persistent one's spec."""
    given = [(info.encode_name, getattr(volume, info.name)) for info in _sources_of(volume.__class__)]
    given = [(name, source) for name, source in given if source is not None]
    if not given:
        return [required(field, "must specify a volume type")]
    name, source = given[0]
    at = f"{field}.{_ODD_PATHS.get(name, name)}"
    faults = [required(f"{at}.{each}") for each in _NEEDED.get(name, ()) if not _at(source, each)]
    if rule := _RULES.get(name):
        faults += rule(source, at)
    return faults + [forbidden(f"{field}.{each}", "may not specify more than 1 volume type") for each, _ in given[1:]]


def sources(volume: Any) -> dict[str, Any]:
    """Return JSON name -> source of the sources that ``volume`` names."""
    infos = _sources_of(volume.__class__)
    return {info.encode_name: getattr(volume, info.name) for info in infos if getattr(volume, info.name) is not None}


@cache
def _sources_of(model: Any) -> list[msgspec.structs.FieldInfo]:
    """Return the fields of a struct that are sources, in the order in which the real server looks at them."""
    order = list(_ORDER)
    fields = [info for info in msgspec.structs.fields(model) if info.encode_name in _ORDER]
    return sorted(fields, key=lambda info: order.index(info.encode_name))


@cache
def _attributes(model: Any) -> dict[str, str]:
    return {info.encode_name: info.name for info in msgspec.structs.fields(model)}


def _at(source: Any, name: str) -> Any:
    return getattr(source, _attributes(source.__class__)[name])


_ORDER = (
    "emptyDir", "hostPath", "gitRepo", "gcePersistentDisk", "awsElasticBlockStore", "secret", "nfs", "iscsi",
    "glusterfs", "flocker", "persistentVolumeClaim", "rbd", "cinder", "cephfs", "quobyte", "downwardAPI", "fc",
    "flexVolume", "configMap", "azureFile", "vsphereVolume", "photonPersistentDisk", "portworxVolume", "azureDisk",
    "local", "storageos", "projected", "scaleIO", "csi", "ephemeral", "image",
)  # fmt: skip
_ODD_PATHS = {"gcePersistentDisk": "persistentDisk"}
# source -> the fields that it cannot do without
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "awsElasticBlockStore": ("volumeID",),
    "azureDisk": ("diskName", "diskURI"),
    "azureFile": ("secretName", "shareName"),
    "cephfs": ("monitors",),
    "cinder": ("volumeID",),
    "configMap": ("name",),
    "flexVolume": ("driver",),
    "gcePersistentDisk": ("pdName",),
    "gitRepo": ("repository",),
    "glusterfs": ("endpoints", "path"),
    "hostPath": ("path",),
    "iscsi": ("targetPortal", "iqn"),
    "local": ("path",),
    "nfs": ("server", "path"),
    "persistentVolumeClaim": ("claimName",),
    "photonPersistentDisk": ("pdID",),
    "portworxVolume": ("volumeID",),
    "quobyte": ("registry", "volume"),
    "rbd": ("monitors", "image"),
    "scaleIO": ("gateway", "system", "volumeName"),
    "secret": ("secretName",),
    "storageos": ("volumeName",),
    "vsphereVolume": ("volumePath",),
}


def _empty_dir(source: Any, field: str) -> list[Fault]:
    if source.size_limit and quantity.parse(source.size_limit) < 0:
        return [forbidden(f"{field}.sizeLimit", "SizeLimit field must be a valid resource quantity")]
    return []


def _host_path(source: Any, field: str) -> list[Fault]:
    if not source.path:
        return []
    faults = climb_faults(source.path, f"{field}.path")
    return faults + one_of(source.type, _HOST_PATH_TYPES, f"{field}.type")


def _disk(source: Any, field: str) -> list[Fault]:
    number = source.partition or 0
    return [] if 0 <= number <= 255 else [wrong(f"{field}.partition", number, _PARTITIONS)]


def _nfs(source: Any, field: str) -> list[Fault]:
    return [] if source.path.startswith("/") else [wrong(f"{field}.path", source.path, "must be an absolute path")]


def _iscsi(source: Any, field: str) -> list[Fault]:
    faults = _iscsi_name(source.iqn, f"{field}.iqn")
    faults += within(source.lun, 0, 255, f"{field}.lun")
    if (source.chap_auth_discovery or source.chap_auth_session) and source.secret_ref is None:
        faults.append(required(f"{field}.secretRef"))
    return faults + _iscsi_name(source.initiator_name, f"{field}.initiatorname")


def _iscsi_name(name: str, field: str) -> list[Fault]:
    if not name:
        return []
    pattern = _ISCSI_NAMES.get(name[:3])
    if pattern is None:
        return [wrong(field, name, "must be valid format starting with iqn, eui, or naa")]
    return [] if re.fullmatch(pattern, name) else [wrong(field, name, "must be valid format")]


def _fibre(source: Any, field: str) -> list[Fault]:
    names_given, ids = source.target_wwns, source.wwids
    if not names_given and not ids:
        return [required(f"{field}.targetWWNs", "must specify either targetWWNs or wwids, but not both")]
    faults = []
    if names_given and ids:
        why = "targetWWNs and wwids can not be specified simultaneously"
        faults.append(wrong(f"{field}.targetWWNs", names_given, why))
    if names_given and source.lun is None:
        faults.append(required(f"{field}.lun", "lun is required if targetWWNs is specified"))
    return faults + (within(source.lun, 0, 255, f"{field}.lun") if names_given else [])


def driver_faults(driver: str, field: str) -> list[Fault]:
    """Return the faults of the name of a storage driver."""
    faults = [] if driver else [required(field)]
    if len(driver) > names.LONGEST_LABEL:
        faults.append(too_long(field, names.LONGEST_LABEL))
    return faults + [wrong(field, driver, why) for why in names.subdomain(driver.lower())]


def _csi(source: Any, field: str) -> list[Fault]:
    faults = driver_faults(source.driver, f"{field}.driver")
    if not hasattr(source, "volume_handle"):
        ref = source.node_publish_secret_ref
        return faults + ([required(f"{field}.nodePublishSecretRef.name")] if ref is not None and not ref.name else [])
    if not source.volume_handle:
        faults.append(required(f"{field}.volumeHandle"))
    for name in ("controllerPublish", "controllerExpand", "nodePublish", "nodeExpand"):
        reference: SecretReference | None = _at(source, f"{name}SecretRef")
        if reference is not None:
            faults += check_given(names.subdomain, reference.name, f"{field}.{name}SecretRef.name")
            faults += check_given(names.label, reference.namespace, f"{field}.{name}SecretRef.namespace")
    return faults


def _flex(source: Any, field: str) -> list[Fault]:
    faults = []
    for key in source.options:
        domain = "." + key.partition("/")[0].lower()
        if domain.endswith((".kubernetes.io", ".k8s.io")):
            why = "kubernetes.io and k8s.io namespaces are reserved"
            faults.append(wrong(f"{field}.options[{key}]", key, why))
    return faults


def _local(source: Any, field: str) -> list[Fault]:
    return climb_faults(source.path, f"{field}.path")


def _git(source: Any, field: str) -> list[Fault]:
    return local_path_faults(source.directory, f"{field}.directory")


def _flocker(source: Any, field: str) -> list[Fault]:
    name, uuid = source.dataset_name, source.dataset_uuid
    if not name and not uuid:
        return [required(field, "one of datasetName and datasetUUID is required")]
    faults = []
    if name and uuid:
        why = "datasetName and datasetUUID can not be specified simultaneously"
        faults.append(wrong(field, "resource", why))
    if "/" in name:
        faults.append(wrong(f"{field}.datasetName", name, "must not contain '/'"))
    return faults


def _storage_os(source: Any, field: str) -> list[Fault]:
    return check(names.label, source.volume_name, f"{field}.volumeName") if source.volume_name else []


def _azure(source: Any, field: str) -> list[Fault]:
    faults = []
    for name, value, allowed in (
        ("cachingMode", source.caching_mode, ("None", "ReadOnly", "ReadWrite")),
        ("kind", source.kind, ("Dedicated", "Managed", "Shared")),
    ):
        faults += one_of(value, allowed, f"{field}.{name}") if value else []
    return faults


def _ephemeral(source: Any, field: str) -> list[Fault]:
    template: PersistentVolumeClaimTemplate | None = source.volume_claim_template
    if template is None:
        return [required(f"{field}.volumeClaimTemplate")]
    at = f"{field}.volumeClaimTemplate"
    faults = annotation_faults(template.metadata.annotations, f"{at}.metadata.annotations")
    faults += label_map_faults(template.metadata.labels, f"{at}.metadata.labels")
    allowed = ("annotations", "labels")
    faults += [
        forbidden(f"{at}.metadata.{info.encode_name}", "cannot be set")
        for info in msgspec.structs.fields(template.metadata)
        if info.name not in allowed and getattr(template.metadata, info.name) not in ("", None, (), {})
    ]
    return faults + claim_spec_faults(template.spec, f"{at}.spec")


def _image(source: Any, field: str) -> list[Fault]:
    if not source.pull_policy:
        return []
    return one_of(source.pull_policy, ("Always", "IfNotPresent", "Never"), f"{field}.pullPolicy")


_RULES: Mapping[str, Callable[[Any, str], list[Fault]]] = {
    "awsElasticBlockStore": _disk,
    "azureDisk": _azure,
    "configMap": keyed_faults,
    "csi": _csi,
    "downwardAPI": downward_faults,
    "emptyDir": _empty_dir,
    "ephemeral": _ephemeral,
    "fc": _fibre,
    "flexVolume": _flex,
    "flocker": _flocker,
    "gcePersistentDisk": _disk,
    "gitRepo": _git,
    "hostPath": _host_path,
    "image": _image,
    "iscsi": _iscsi,
    "local": _local,
    "nfs": _nfs,
    "projected": projected_faults,
    "secret": keyed_faults,
    "storageos": _storage_os,
}
