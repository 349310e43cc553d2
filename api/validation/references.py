"""Where the values of environment variables and files may come from."""

from collections.abc import Sequence
from typing import Any

from api import names, quantity
from api.errors import Fault
from api.faults import check, check_given, required, unsupported, wrong
from api.kinds.pods import EnvFromSource, EnvVar, EnvVarSource
from api.kinds.volumes import ObjectFieldSelector, ResourceFieldSelector

# What the API can tell of a pod's fields; of these a variable, or a file, may show some.
_KNOWN_FIELDS = frozenset({
    "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName",
    "spec.restartPolicy", "spec.serviceAccountName", "spec.schedulerName", "status.phase", "status.hostIP",
    "status.hostIPs", "status.podIP", "status.podIPs",
})  # fmt: skip
_IN_VARIABLES = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP",
    "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
IN_FILES = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
_RESOURCES = (
    "limits.cpu", "limits.ephemeral-storage", "limits.memory",
    "requests.cpu", "requests.ephemeral-storage", "requests.memory",
)  # fmt: skip
_HUGE_PAGES = ("limits.hugepages-", "requests.hugepages-")
_UNITS = ("1", *(f"1{prefix}" for prefix in "kMGTPE"), *(f"1{prefix}i" for prefix in "KMGTPE"))


def env_faults(variables: Sequence[EnvVar], field: str) -> list[Fault]:
    """Return the faults of a container's environment."""
    faults: list[Fault] = []
    for index, each in enumerate(variables):
        at = f"{field}[{index}]"
        faults += check_given(names.variable, each.name, f"{at}.name")
        if each.value_from is not None:
            faults += _source_faults(each.value_from, f"{at}.valueFrom", value=each.value)
    return faults


def _source_faults(source: EnvVarSource, field: str, *, value: str) -> list[Fault]:
    faults: list[Fault] = []
    given = [source.field_ref, source.resource_field_ref, source.config_map_key_ref, source.secret_key_ref]
    if source.field_ref is not None:
        faults += field_faults(source.field_ref, f"{field}.fieldRef", _IN_VARIABLES)
    if source.resource_field_ref is not None:
        faults += resource_faults(source.resource_field_ref, f"{field}.resourceFieldRef")
    for name, key in (("configMapKeyRef", source.config_map_key_ref), ("secretKeyRef", source.secret_key_ref)):
        if key is not None:
            faults += check(names.subdomain, key.name, f"{field}.{name}.name")
            faults += check_given(names.data_key, key.key, f"{field}.{name}.key")
    count = sum(each is not None for each in given)
    if not count and source.file_key_ref is None:
        why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        faults.append(wrong(field, "", why))
    elif value:
        faults.append(wrong(field, "", "may not be specified when `value` is not empty"))
    elif count > 1:
        faults.append(wrong(field, "", "may not have more than one field specified at a time"))
    return faults


def field_faults(ref: ObjectFieldSelector, field: str, allowed: Sequence[str]) -> list[Fault]:
    """Return the faults of a reference to a field of the pod, which must be one of ``allowed`` or in a map."""
    if not ref.api_version:
        return [required(f"{field}.apiVersion")]
    if not ref.field_path:
        return [required(f"{field}.fieldPath")]
    path, bracket, key = ref.field_path.partition("['")
    subscript = bool(bracket) and key.endswith("']")
    why = ""
    if ref.api_version != "v1":
        why = f"unsupported pod version: {ref.api_version}"
    elif subscript and path not in ("metadata.annotations", "metadata.labels"):
        why = f"field label does not support subscript: {ref.field_path}"
    elif not subscript and ref.field_path not in _KNOWN_FIELDS and ref.field_path != "spec.host":
        why = f"field label not supported: {ref.field_path}"
    if why:
        return [wrong(f"{field}.fieldPath", ref.field_path, f"error converting fieldPath: {why}")]
    if subscript:
        key = key.removesuffix("']")
        return [wrong(field, key, each) for each in names.qualified(key.lower() if "annotations" in path else key)]
    path = "spec.nodeName" if path == "spec.host" else path
    return [] if path in allowed else [unsupported(f"{field}.fieldPath", path, allowed)]


def resource_faults(ref: ResourceFieldSelector, field: str, *, in_file: bool = False) -> list[Fault]:
    """Return the faults of a reference to what a container asks for; a file has to say of which."""
    faults = []
    if in_file and not ref.container_name:
        faults.append(required(f"{field}.containerName"))
    elif not ref.resource:
        faults.append(required(f"{field}.resource"))
    elif ref.resource not in _RESOURCES and not ref.resource.startswith(_HUGE_PAGES):
        faults.append(unsupported(f"{field}.resource", ref.resource, _RESOURCES))
    if ref.divisor and quantity.parse(ref.divisor) != 0:
        what = ref.resource.partition(".")[2]
        units = ("1m", "1") if what == "cpu" else _UNITS
        named = {"cpu": "cpu", "memory": "memory", "ephemeral-storage": "local ephemeral storage"}.get(
            what, "hugepages"
        )
        if ref.divisor not in units:
            listed = "1m and 1" if what == "cpu" else ", ".join(units)
            why = f"only divisor's values {listed} are supported with the {named} resource"
            faults.append(wrong(f"{field}.divisor", ref.resource, why))
    return faults


def env_from_faults(sources: Sequence[EnvFromSource], field: str) -> list[Fault]:
    """Return the faults of where whole sets of variables come from."""
    faults: list[Fault] = []
    rule = names.as_prefix(names.subdomain)
    for index, each in enumerate(sources):
        at = f"{field}[{index}]"
        if each.prefix:
            faults += check(names.variable, each.prefix, f"{at}.prefix")
        refs: list[tuple[str, Any]] = [("configMapRef", each.config_map_ref), ("secretRef", each.secret_ref)]
        given = [(name, ref) for name, ref in refs if ref is not None]
        for name, ref in given:
            faults += check_given(rule, ref.name, f"{at}.{name}.name")
        if not given:
            faults.append(wrong(field, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(given) > 1:
            faults.append(wrong(field, "", "may not have more than one field specified at a time"))
    return faults
