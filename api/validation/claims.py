"""What claims for storage may not be, wherever they stand, and what may change of them."""

from msgspec.structs import replace

from api import names, quantity
from api.errors import Fault
from api.faults import (
    check,
    check_optional,
    forbidden,
    immutable,
    required,
    selector_faults,
    unsupported,
    wrong,
)
from api.kinds.volumes import (
    PersistentVolumeClaim,
    PersistentVolumeClaimSpec,
    TypedLocalObjectReference,
    TypedObjectReference,
)
from api.validation.resources import amount_faults

_ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
VOLUME_MODES = ("Block", "Filesystem")
_BETA_CLASS = "volume.beta.kubernetes.io/storage-class"


def mode_list_faults(modes: tuple[str, ...], field: str, *, detail: str = "") -> list[Fault]:
    """Return the faults of how a volume may be mounted; detail: what to say where nothing is said."""
    if not modes:
        return [required(field, detail)]
    faults = [unsupported(field, mode, _ACCESS_MODES) for mode in modes if mode not in _ACCESS_MODES]
    if "ReadWriteOncePod" in modes and set(modes) & set(_ACCESS_MODES[:-1]):
        faults.append(forbidden(field, "may not use ReadWriteOncePod with other access modes"))
    return faults


def claim_spec_faults(spec: PersistentVolumeClaimSpec, field: str) -> list[Fault]:
    """Return the faults of a defaulted claim's spec."""
    faults = mode_list_faults(spec.access_modes, f"{field}.accessModes", detail="at least 1 access mode is required")
    faults += selector_faults(spec.selector, f"{field}.selector")
    at = f"{field}.resources[storage]"
    amount = (spec.resources.requests if spec.resources is not None else {}).get("storage")
    if amount is None:
        faults.append(required(at))
    elif quantity.parse(amount) <= 0:
        faults.append(wrong(at, amount, "must be greater than zero"))
    else:
        faults += amount_faults("storage", amount, at)
    faults += check_optional(names.subdomain, spec.storage_class_name or "", f"{field}.storageClassName")
    if spec.volume_mode and spec.volume_mode not in VOLUME_MODES:
        faults.append(unsupported(f"{field}.volumeMode", spec.volume_mode, VOLUME_MODES))
    attributes = spec.volume_attributes_class_name or ""
    faults += check_optional(names.subdomain, attributes, f"{field}.volumeAttributesClassName")
    return faults + _data_faults(spec, field)


def _data_faults(spec: PersistentVolumeClaimSpec, field: str) -> list[Fault]:
    """Return the faults of what a claim's volume shall be filled from."""
    source, ref = spec.data_source, spec.data_source_ref
    faults = _source_faults(source, f"{field}.dataSource") + _source_faults(ref, f"{field}.dataSourceRef")
    if source is None or ref is None:
        return faults
    if ref.namespace:
        why = "may not be specified when dataSourceRef.namespace is specified"
        faults.append(wrong(field, f"{field}.dataSource", why))
    elif (source.api_group, source.kind, source.name) != (ref.api_group, ref.kind, ref.name):
        faults.append(wrong(field, f"{field}.dataSource", "must match dataSourceRef"))
    return faults


def _source_faults(source: TypedLocalObjectReference | TypedObjectReference | None, field: str) -> list[Fault]:
    if source is None:
        return []
    faults = [required(f"{field}.{name}") for name, text in (("name", source.name), ("kind", source.kind)) if not text]
    if source.api_group:
        faults += check(names.subdomain, source.api_group, f"{field}.apiGroup")
    elif source.kind != "PersistentVolumeClaim":
        why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
        faults.append(wrong(field, source.kind, why))
    return faults + check_optional(names.label, getattr(source, "namespace", ""), f"{field}.namespace")


def claim_faults(obj: PersistentVolumeClaim) -> list[Fault]:
    """Return the faults of a claim."""
    return claim_spec_faults(obj.spec, "spec")


def _requested(claim: PersistentVolumeClaim) -> str:
    return (claim.spec.resources.requests if claim.spec.resources is not None else {}).get("storage", "0")


def claim_change_faults(old: PersistentVolumeClaim, new: PersistentVolumeClaim) -> list[Fault]:
    """Return what an update changes of a claim and may not."""
    faults = []
    if _settled(old, new) != (
        old.spec if old.spec.volume_name else replace(old.spec, volume_name=new.spec.volume_name)
    ):
        why = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        faults.append(forbidden("spec", why))
    before, after = quantity.parse(_requested(old)), quantity.parse(_requested(new))
    # Down to what there is: so a user takes back a growth that the driver cannot give.
    if after < before and after <= quantity.parse(old.status.capacity.get("storage", "0")):
        why = "field can not be less than status.capacity"
        faults.append(forbidden("spec.resources.requests.storage", why))
    return faults + immutable(old.spec.volume_mode, new.spec.volume_mode, "volumeMode")


def _settled(old: PersistentVolumeClaim, new: PersistentVolumeClaim) -> PersistentVolumeClaimSpec:
    """Return the spec of ``new`` with what may change taken from ``old``."""
    spec = new.spec
    named = old.metadata.annotations.get(_BETA_CLASS)
    if old.spec.storage_class_name is None and spec.storage_class_name in (named or spec.storage_class_name, None):
        spec = replace(spec, storage_class_name=None)
    if new.status.phase != "Bound":
        return spec
    if spec.resources is not None and spec.resources.requests:
        requests = {**spec.resources.requests, "storage": _requested(old)}
        spec = replace(spec, resources=replace(spec.resources, requests=requests))
    if spec.volume_attributes_class_name is not None:
        spec = replace(spec, volume_attributes_class_name=old.spec.volume_attributes_class_name)
    return spec
