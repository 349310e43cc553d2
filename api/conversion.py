"""Kinds that are several faces of the same stored objects: older versions, and core and events.k8s.io events.

One face is stored; a row here says how its documents turn into another's and back. Sources: the published API's notes
at the fields of both; "Deprecated API Migration Guide" on kubernetes.io.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from api.kinds.table import Kind

Document = dict[str, Any]
Convert = Callable[[Document], Document]


class Face(NamedTuple):
    """How the documents of one face and of the stored one turn into each other."""

    shown: Convert  # from stored
    stored: Convert  # to stored


def shown(kind: Kind, document: Document) -> Document:
    """Return a stored document as ``kind``, which is a face, shows it."""
    return _FACES[kind.group, kind.version, kind.plural].shown(document) | {"apiVersion": kind.group_version}


def stored(kind: Kind, owner: Kind, document: Mapping[str, Any]) -> Document:
    """Return what a client wrote as ``kind`` as ``owner``, whose objects are stored, has it."""
    if kind.stored_as is None:
        return dict(document)
    converted = _FACES[kind.group, kind.version, kind.plural].stored(dict(document))
    return converted | {"apiVersion": owner.group_version}


# -- events --------------------------------------------------------------------------------------------------------

# core -> events.k8s.io, where the names differ.
_RENAMED = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_BACK = {new: old for old, new in _RENAMED.items()}


def _renamed(document: Mapping[str, Any], names: Mapping[str, str]) -> Document:
    return {names.get(key, key): value for key, value in document.items()}


def _newer_event(document: Document) -> Document:
    newer = _renamed(document, _RENAMED)
    newer.setdefault("eventTime", None)
    if (series := newer.get("series")) is not None:
        newer["series"] = {"lastObservedTime": None, **series}
    return newer


def _core_event(document: Document) -> Document:
    core = _renamed(document, _BACK)
    core.setdefault("involvedObject", {})
    core.setdefault("metadata", {})
    return core


# -- autoscalers ---------------------------------------------------------------------------------------------------

_ALPHA = "autoscaling.alpha.kubernetes.io/"


def _is_cpu(metric: Mapping[str, Any]) -> bool:
    resource = metric.get("resource") or {}
    return (
        metric.get("type") == "Resource"
        and resource.get("name") == "cpu"
        and (resource.get("target") or {}).get("type") == "Utilization"
    )


def _autoscaler_v1(document: Document) -> Document:
    """What version 1 has no field for travels in annotations."""
    spec, status = dict(document.get("spec") or {}), dict(document.get("status") or {})
    metrics, behavior = spec.pop("metrics", []), spec.pop("behavior", None)
    current, conditions = status.pop("currentMetrics", None), status.pop("conditions", None)
    cpu = next((each for each in metrics if _is_cpu(each)), None)
    if cpu is not None:
        spec["targetCPUUtilizationPercentage"] = cpu["resource"]["target"].get("averageUtilization")
    for each in current or ():
        resource = each.get("resource") or {}
        if resource.get("name") == "cpu" and (used := (resource.get("current") or {}).get("averageUtilization")):
            status["currentCPUUtilizationPercentage"] = used
    kept = {
        "metrics": [each for each in metrics if each is not cpu],
        "behavior": behavior,
        "current-metrics": current,
        "conditions": conditions,
    }
    annotations = {f"{_ALPHA}{name}": json.dumps(value) for name, value in kept.items() if value}
    return _annotated(document, annotations) | {"spec": spec, "status": status}


def _annotated(document: Document, annotations: Mapping[str, str]) -> Document:
    metadata = dict(document.get("metadata") or {})
    if annotations:
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **annotations}
    return document | {"metadata": metadata}


def _autoscaler_v2(document: Document) -> Document:
    spec, status = dict(document.get("spec") or {}), dict(document.get("status") or {})
    metadata = dict(document.get("metadata") or {})
    annotations = dict(metadata.get("annotations") or {})
    told = {name: _told(annotations.pop(f"{_ALPHA}{name}", ""), shape) for name, shape in _TOLD.items()}
    if "annotations" in metadata:
        metadata["annotations"] = annotations
    percentage = spec.pop("targetCPUUtilizationPercentage", None)
    status.pop("currentCPUUtilizationPercentage", None)
    metrics = list(told["metrics"] or ())
    if percentage is not None:
        target = {"type": "Utilization", "averageUtilization": percentage}
        metrics.insert(0, {"type": "Resource", "resource": {"name": "cpu", "target": target}})
    spec |= {key: value for key, value in (("metrics", metrics), ("behavior", told["behavior"])) if value}
    for name, key in (("current-metrics", "currentMetrics"), ("conditions", "conditions")):
        if told[name]:
            status[key] = told[name]
    return document | {"metadata": metadata, "spec": spec, "status": status}


_TOLD = {"metrics": list, "behavior": dict, "current-metrics": list, "conditions": list}


def _told(text: Any, shape: type) -> Any:
    """Return what an annotation says, or None if it is unreadable: anybody may write annotations."""
    try:
        value = json.loads(text) if isinstance(text, str) and text else None
    except ValueError:
        return None
    if not isinstance(value, shape) or (isinstance(value, list) and not all(isinstance(each, dict) for each in value)):
        return None
    return value


# -- v1beta1 -------------------------------------------------------------------------------------------------------


def _same(document: Document) -> Document:
    return document


def _each(document: Document, key: str, change: Convert) -> Document:
    """Return ``document`` with every object of the list at ``key`` changed."""
    items = document.get(key)
    if not isinstance(items, list):
        return document
    return document | {key: [change(dict(each)) if isinstance(each, dict) else each for each in items]}


def _backend_v1beta1(backend: Document) -> Document:
    service = backend.pop("service", None)
    if isinstance(service, dict):
        port = service.get("port") or {}
        backend["serviceName"] = service.get("name", "")
        backend["servicePort"] = port.get("name") or port.get("number", 0)
    return backend


def _backend_v1(backend: Document) -> Document:
    name, port = backend.pop("serviceName", None), backend.pop("servicePort", None)
    if name or port:
        key = "name" if isinstance(port, str) else "number"
        backend["service"] = {"name": name or "", "port": {key: port} if port is not None else {}}
    return backend


def _ingress(convert: Convert, *, old: str, new: str) -> Convert:
    """Return the conversion of Ingresses that ``convert`` does for their backends; the default one is renamed."""

    def path(each: Document) -> Document:
        if not each.get("pathType"):
            each = each | {"pathType": "ImplementationSpecific"}  # the older version's default
        backend = each.get("backend")
        return each | {"backend": convert(dict(backend))} if isinstance(backend, dict) else each

    def rule(each: Document) -> Document:
        http = each.get("http")
        return each | {"http": _each(http, "paths", path)} if isinstance(http, dict) else each

    def ingress(document: Document) -> Document:
        spec = document.get("spec")
        if not isinstance(spec, dict):
            return document
        spec = _each(dict(spec), "rules", rule)
        backend = spec.pop(old, None)
        if isinstance(backend, dict):
            spec[new] = convert(dict(backend))
        return document | {"spec": spec}

    return ingress


_HOST, _ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"


def _endpoint_v1beta1(endpoint: Document) -> Document:
    topology = dict(endpoint.pop("deprecatedTopology", None) or {})
    if zone := endpoint.pop("zone", ""):
        topology[_ZONE] = zone
    if node := endpoint.get("nodeName"):
        topology[_HOST] = node
    return endpoint | ({"topology": topology} if topology else {})


def _endpoint_v1(endpoint: Document) -> Document:
    topology = endpoint.pop("topology", None)
    topology = dict(topology) if isinstance(topology, dict) else {}
    if zone := topology.pop(_ZONE, ""):
        endpoint["zone"] = zone
    if (node := topology.pop(_HOST, "")) and not endpoint.get("nodeName"):
        endpoint["nodeName"] = node
    return endpoint | ({"deprecatedTopology": topology} if topology else {})


# An empty selector selects nothing in v1beta1 and everything in v1: in v1 this requirement stands for nothing.
_NOTHING = {"key": "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match", "operator": "Exists"}
_EVERYTHING = _NOTHING | {"operator": "DoesNotExist"}


def _selected(convert: Callable[[Any], Any]) -> Convert:
    def budget(document: Document) -> Document:
        spec = document.get("spec")
        if not isinstance(spec, dict) or not isinstance(spec.get("selector"), dict):
            return document
        return document | {"spec": spec | {"selector": convert(spec["selector"])}}

    return budget


def _budget_selector_v1(selector: Document) -> Document:
    return {"matchExpressions": [_NOTHING]} if not any(selector.values()) else _plain(selector, _EVERYTHING)


def _budget_selector_v1beta1(selector: Document) -> Document:
    return {"matchExpressions": [_EVERYTHING]} if not any(selector.values()) else _plain(selector, _NOTHING)


def _plain(selector: Document, marker: Document) -> Document:
    return {} if selector == {"matchExpressions": [marker]} else selector


_FACES: Mapping[tuple[str, str, str], Face] = {
    ("events.k8s.io", "v1", "events"): Face(_newer_event, _core_event),
    ("autoscaling", "v1", "horizontalpodautoscalers"): Face(_autoscaler_v1, _autoscaler_v2),
    ("batch", "v1beta1", "cronjobs"): Face(_same, _same),
    ("policy", "v1beta1", "poddisruptionbudgets"): Face(
        _selected(_budget_selector_v1beta1), _selected(_budget_selector_v1)
    ),
    ("networking.k8s.io", "v1beta1", "ingresses"): Face(
        _ingress(_backend_v1beta1, old="defaultBackend", new="backend"),
        _ingress(_backend_v1, old="backend", new="defaultBackend"),
    ),
    ("discovery.k8s.io", "v1beta1", "endpointslices"): Face(
        lambda document: _each(document, "endpoints", _endpoint_v1beta1),
        lambda document: _each(document, "endpoints", _endpoint_v1),
    ),
}
