"""What objects that only carry data may not be: config maps, secrets and events."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from api import base64_text, names
from api.errors import Fault
from api.faults import check, forbidden, immutable, required, too_long, wrong
from api.kinds.core import ConfigMap, Event, Secret

DATA_LIMIT_BYTES = 1024 * 1024
_FROZEN = "field is immutable when `immutable` is set"
_ACCOUNT_NAME = "kubernetes.io/service-account.name"
# type -> the keys that its secrets cannot do without
_SECRET_KEYS: Mapping[str, tuple[str, ...]] = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
}
_SHORT = 128  # characters of an event's action, reason and reporting instance
_LONGEST_NOTE = 1024


def _keys(data: Mapping[str, str], field: str) -> list[Fault]:
    return [fault for key in data for fault in check(names.data_key, key, f"{field}[{key}]")]


def _bytes(text: str) -> bytes:
    """Return the bytes of a base64 text; none for what older masters have let pass."""
    try:
        return base64_text.decode(text)
    except base64_text.IllegalBase64:
        return b""


def _config_map(obj: ConfigMap) -> list[Fault]:
    faults = _keys(obj.data, "data")
    why = "duplicate of key present in binaryData"
    faults += [wrong(f"data[{key}]", key, why) for key in obj.data if key in obj.binary_data]
    faults += _keys(obj.binary_data, "binaryData")
    size = sum(len(value.encode()) for value in obj.data.values())
    size += sum(len(_bytes(value)) for value in obj.binary_data.values())
    # The real server's word for the whole object is a path without a name.
    return [*faults, too_long("", DATA_LIMIT_BYTES)] if size > DATA_LIMIT_BYTES else faults


def _secret(obj: Secret) -> list[Fault]:
    faults = _keys(obj.data, "data")
    decoded = {key: _bytes(value) for key, value in obj.data.items()}
    if sum(len(value) for value in decoded.values()) > DATA_LIMIT_BYTES:
        faults.append(too_long("data", DATA_LIMIT_BYTES))
    missing = [key for key in _SECRET_KEYS.get(obj.type, ()) if key not in obj.data]
    match obj.type:
        case "kubernetes.io/service-account-token" if not obj.metadata.annotations.get(_ACCOUNT_NAME):
            faults.append(required(f"metadata.annotations[{_ACCOUNT_NAME}]"))
        case "kubernetes.io/basic-auth" if not obj.data.keys() & {"username", "password"}:
            missing = ["username", "password"]
        case "kubernetes.io/ssh-auth" if not obj.data.get("ssh-privatekey"):
            missing = ["ssh-privatekey"]
        case "kubernetes.io/dockerconfigjson" | "kubernetes.io/dockercfg" if not missing:
            (key,) = _SECRET_KEYS[obj.type]
            faults += _registry_faults(decoded[key], f"data[{key}]")
    return faults + [required(f"data[{key}]") for key in missing]


def _registry_faults(content: bytes, field: str) -> list[Fault]:
    """Return the fault of credentials for registries that are no JSON object."""
    try:
        good = isinstance(json.loads(content), dict)
        why = "json: cannot unmarshal the document into a map"
    except ValueError as error:
        good, why = False, "unexpected end of JSON input" if not content.strip() else str(error)
    return [] if good else [wrong(field, "<secret contents redacted>", why)]


def _frozen(old: ConfigMap | Secret, new: ConfigMap | Secret) -> list[Fault]:
    if not old.immutable:
        return []
    faults = [] if new.immutable else [forbidden("immutable", _FROZEN)]
    for attribute, name in (("data", "data"), ("binary_data", "binaryData")):
        if getattr(old, attribute, None) != getattr(new, attribute, None):
            faults.append(forbidden(name, _FROZEN))
    return faults


def _secret_change(old: Secret, new: Secret) -> list[Fault]:
    return immutable(old.type, new.type, "type") + _frozen(old, new)


def _event(obj: Event) -> list[Fault]:
    involved, namespace = obj.involved_object.namespace, obj.metadata.namespace
    elsewhere = wrong("involvedObject.namespace", involved, "does not match event.namespace")
    if not obj.event_time:  # written by an older client
        good = namespace in ("", "default") if not involved else involved == namespace
        return [] if good else [elsewhere]
    faults = [elsewhere] if not involved and namespace not in ("default", "kube-system") else []
    if not obj.reporting_component:
        faults.append(required("reportingController"))
    faults += check(names.qualified, obj.reporting_component, "reportingController")
    for name, text in (
        ("reportingInstance", obj.reporting_instance), ("action", obj.action), ("reason", obj.reason),
    ):  # fmt: skip
        if not text:
            faults.append(required(name))
        if len(text) > _SHORT:
            faults.append(wrong(name, "", f"can have at most {_SHORT} characters"))
    if len(obj.message) > _LONGEST_NOTE:
        faults.append(wrong("message", "", f"can have at most {_LONGEST_NOTE} characters"))
    return faults


SPEC_RULES: Mapping[tuple[str, str], Callable[[Any], list[Fault]]] = {
    ("", "configmaps"): _config_map,
    ("", "events"): _event,
    ("", "secrets"): _secret,
}
CHANGE_RULES: Mapping[tuple[str, str], Callable[[Any, Any], list[Fault]]] = {
    ("", "configmaps"): _frozen,
    ("", "secrets"): _secret_change,
}
