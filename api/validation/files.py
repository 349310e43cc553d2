"""What volumes whose files the node writes may not be: keys of objects, what a pod is told of itself, tokens."""

from typing import Any

from api.errors import Fault
from api.faults import forbidden, required, selector_faults, wrong
from api.kinds.volumes import (
    DownwardAPIVolumeFile,
    KeyToPath,
    ProjectedVolumeSource,
    ServiceAccountTokenProjection,
    VolumeProjection,
)
from api.validation.paths import file_path_faults, mode_faults
from api.validation.references import IN_FILES, field_faults, resource_faults

_SHORTEST_TOKEN_S, _LONGEST_TOKEN_S = 600, 2**32


def keyed_faults(source: Any, field: str) -> list[Fault]:
    """Return the faults of the keys of a config map or a secret as files."""
    faults = mode_faults(source.default_mode, f"{field}.defaultMode")
    for index, item in enumerate(source.items):
        faults += _file(item, f"{field}.items[{index}]")
    return faults


def _file(item: KeyToPath, field: str) -> list[Fault]:
    faults = [required(f"{field}.{name}") for name, value in (("key", item.key), ("path", item.path)) if not value]
    return faults + file_path_faults(item.path, f"{field}.path") + mode_faults(item.mode, f"{field}.mode")


def downward_faults(source: Any, field: str) -> list[Fault]:
    """Return the faults of what a pod is told of itself in files."""
    faults = mode_faults(source.default_mode, f"{field}.defaultMode")
    for item in source.items:
        faults += _downward_file(item, field)
    return faults


def _downward_file(item: DownwardAPIVolumeFile, field: str) -> list[Fault]:
    faults = [] if item.path else [required(f"{field}.path")]
    faults += file_path_faults(item.path, f"{field}.path")
    if item.field_ref is not None:
        faults += field_faults(item.field_ref, f"{field}.fieldRef", IN_FILES)
        if item.resource_field_ref is not None:
            why = "fieldRef and resourceFieldRef can not be specified simultaneously"
            faults.append(wrong(field, "resource", why))
    elif item.resource_field_ref is not None:
        faults += resource_faults(item.resource_field_ref, f"{field}.resourceFieldRef", in_file=True)
    else:
        faults.append(required(field, "one of fieldRef and resourceFieldRef is required"))
    return faults + mode_faults(item.mode, f"{field}.mode")


def projected_faults(source: ProjectedVolumeSource, field: str) -> list[Fault]:
    """Return the faults of several sources in one volume."""
    faults = mode_faults(source.default_mode, f"{field}.defaultMode")
    taken: set[str] = set()
    for index, each in enumerate(source.sources):
        at = f"{field}.sources[{index}]"
        found, paths = _projection(each, at, field)
        faults += found
        for path, owner in paths:
            if path in taken:
                faults.append(wrong(field, owner, "conflicting duplicate paths"))
            taken.add(path)
        parts = (each.secret, each.config_map, each.downward_api, each.service_account_token, each.cluster_trust_bundle)
        if sum(part is not None for part in parts) > 1:
            faults.append(forbidden(at, "may not specify more than 1 volume type per source"))
    return faults


def _projection(source: VolumeProjection, field: str, volume: str) -> tuple[list[Fault], list[tuple[str, str]]]:
    """Return the faults of one source of a projected volume, and (path, what to call it by) of its files."""
    faults: list[Fault] = []
    paths: list[tuple[str, str]] = []
    for name, keys in (("secret", source.secret), ("configMap", source.config_map)):
        if keys is not None:
            faults += [] if keys.name else [required(f"{field}.{name}.name")]
            for index, item in enumerate(keys.items):
                faults += _file(item, f"{field}.{name}.items[{index}]")
            paths += [(item.path, keys.name) for item in keys.items if item.path]
    for file in source.downward_api.items if source.downward_api is not None else ():
        faults += _downward_file(file, f"{field}.downwardAPI")
        paths += [(file.path, file.path)] if file.path else []
    if source.service_account_token is not None:
        faults += _token(source.service_account_token, f"{field}.serviceAccountToken", volume)
    bundle = source.cluster_trust_bundle
    if bundle is not None:
        at = f"{field}.clusterTrustBundle"
        if bundle.name and bundle.signer_name:
            faults.append(wrong(at, bundle, "only one of name and signerName may be used"))
        elif not bundle.name and not bundle.signer_name:
            faults.append(required(at, "either name or signerName must be specified"))
        faults += selector_faults(bundle.label_selector, f"{at}.labelSelector")
        faults += [] if bundle.path else [required(f"{at}.path")]
        faults += file_path_faults(bundle.path, f"{at}.path")
        paths.append((bundle.path, bundle.path))
    return faults, paths


def _token(token: ServiceAccountTokenProjection, field: str, volume: str) -> list[Fault]:
    faults = []
    seconds = token.expiration_seconds or 0
    if seconds < _SHORTEST_TOKEN_S:
        why = "may not specify a duration less than 10 minutes"
        faults.append(wrong(f"{field}.expirationSeconds", seconds, why))
    if seconds > _LONGEST_TOKEN_S:
        why = "may not specify a duration larger than 2^32 seconds"
        faults.append(wrong(f"{field}.expirationSeconds", seconds, why))
    # The real server tells of these at the volume, not at the token.
    return faults + (file_path_faults(token.path, f"{volume}.path") if token.path else [required(f"{volume}.path")])
