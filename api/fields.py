"""Which fields of a kind a field selector may name.

Every kind has metadata.name and, if namespaced, metadata.namespace; the rows below add what the real server adds.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from api.errors import BadRequest
from api.kinds.table import Kind
from api.meta import Resource
from api.selectors import FieldQuery

Getter = Callable[[Resource], str]


def _path(path: str) -> Getter:
    """Return a getter for a dotted Python path; absent values read as the empty string, booleans as Go prints them."""
    names = path.split(".")

    def get(obj: Resource) -> str:
        value: Any = obj
        for name in names:
            value = getattr(value, name, None)
        if isinstance(value, bool):
            return str(value).lower()
        return "" if value is None else str(value)

    return get


def _flag(path: str) -> Getter:
    """Return a getter for a boolean that is false where nothing is said."""
    get = _path(path)
    return lambda obj: get(obj) or "false"


def _either(first: str, second: str) -> Getter:
    """Return a getter for the first of two fields that says something."""
    one, other = _path(first), _path(second)
    return lambda obj: one(obj) or other(obj)


def _paths(**paths: str) -> dict[str, Getter]:
    return {label.replace("__", "."): _path(path) for label, path in paths.items()}


_INVOLVED = {
    f"{prefix}.{name}": _path(f"{attribute}.{python}")
    for prefix, attribute in (("involvedObject", "involved_object"), ("regarding", "regarding"))
    for name, python in (
        ("kind", "kind"), ("namespace", "namespace"), ("name", "name"), ("uid", "uid"),
        ("apiVersion", "api_version"), ("resourceVersion", "resource_version"), ("fieldPath", "field_path"),
    )
}  # fmt: skip
_OF_KIND: dict[tuple[str, str], Mapping[str, Getter]] = {
    ("", "pods"): _paths(
        spec__nodeName="spec.node_name",
        spec__restartPolicy="spec.restart_policy",
        spec__schedulerName="spec.scheduler_name",
        spec__serviceAccountName="spec.service_account_name",
        status__phase="status.phase",
        status__podIP="status.pod_ip",
        status__nominatedNodeName="status.nominated_node_name",
    )
    | {"spec.host": _path("spec.node_name"), "spec.hostNetwork": _flag("spec.host_network")}
    | {"status.podIPs": lambda _: ""},  # may be named and is never set: so it is in the real server
    ("", "nodes"): {"spec.unschedulable": _flag("spec.unschedulable")},
    ("", "namespaces"): _paths(status__phase="status.phase"),
    ("", "secrets"): _paths(type="type"),
    ("", "services"): _paths(spec__clusterIP="spec.cluster_ip", spec__type="spec.type"),
    ("", "replicationcontrollers"): _paths(status__replicas="status.replicas"),
    ("apps", "replicasets"): _paths(status__replicas="status.replicas"),
    ("batch", "jobs"): _paths(status__successful="status.succeeded"),
    ("", "events"): _INVOLVED
    | _paths(reason="reason", reportingComponent="reporting_component", type="type")
    | {"source": _either("source.component", "reporting_component")},
    ("events.k8s.io", "events"): _INVOLVED
    | _paths(reason="reason", reportingController="reporting_controller", type="type"),
    ("certificates.k8s.io", "certificatesigningrequests"): _paths(spec__signerName="spec.signer_name"),
}


# Bounded: a custom kind's row is a new one whenever its definition changes.
@lru_cache(maxsize=512)
def selectable(kind: Kind) -> Mapping[str, Getter]:
    """Return label -> getter for every field that ``kind`` can be selected by."""
    common = {"metadata.name": _path("metadata.name")}
    if kind.namespaced:
        common["metadata.namespace"] = _path("metadata.namespace")
    own = _OF_KIND.get((kind.group, kind.plural), {}) if kind.custom is None else kind.custom.selectable
    return common | dict(own)


def check(kind: Kind, query: FieldQuery) -> None:
    """Raise BadRequest, in the real server's words, for a field that ``kind`` cannot be selected by."""
    for each in query.requirements:
        if each.path not in selectable(kind):
            raise BadRequest(_refusal(kind, each.path))


# How the kinds that have fields of their own refuse others; all others name what they know.
_REFUSALS = {
    ("apps", "replicasets"): 'field label "{}" not supported for ReplicaSet',
    ("batch", "jobs"): 'field label "{}" not supported for batchv1.Job',
}


def _refusal(kind: Kind, path: str) -> str:
    if kind.place in _REFUSALS:
        return _REFUSALS[kind.place].format(path)
    if kind.custom is not None or (kind.group, kind.plural) in _OF_KIND:
        return f"field label not supported: {path}"
    known = ", ".join(f'"{each}"' for each in selectable(kind))
    return f'"{path}" is not a known field selector: only {known}'


def matches(kind: Kind, query: FieldQuery, obj: Resource) -> bool:
    """Return whether ``obj`` meets ``query``, which ``check`` has let pass."""
    getters = selectable(kind)
    return query.matches(lambda path: getters[path](obj))
