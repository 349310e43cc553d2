"""What the status of an object may not be told to be."""

from collections.abc import Callable, Mapping
from typing import Any

from api import names
from api.errors import Fault
from api.faults import address_faults, check, forbidden, is_address, not_negative, one_of, required, wrong
from api.kinds.core import LoadBalancerIngress, Namespace, Service
from api.kinds.networking import Ingress
from api.validation.pod_status import pod_status_faults

_COUNTS = {
    "replicas": "replicas",
    "fully_labeled_replicas": "fullyLabeledReplicas",
    "ready_replicas": "readyReplicas",
    "available_replicas": "availableReplicas",
    "current_replicas": "currentReplicas",
    "updated_replicas": "updatedReplicas",
    "unavailable_replicas": "unavailableReplicas",
    "observed_generation": "observedGeneration",
    "collision_count": "collisionCount",
}
# What counts some of the replicas, and so cannot count more.
_PARTS = ("fully_labeled_replicas", "ready_replicas", "available_replicas", "current_replicas", "updated_replicas")


def _replicas(old: Any, new: Any) -> list[Fault]:
    status, faults = new.status, []
    for attribute, name in _COUNTS.items():
        faults += not_negative(getattr(status, attribute, None), f"status.{name}")
    for attribute in _PARTS:
        count = getattr(status, attribute, None) or 0
        if count > (status.replicas or 0):
            why = "cannot be greater than status.replicas"
            faults.append(wrong(f"status.{_COUNTS[attribute]}", count, why))
    available = status.available_replicas or 0
    if available > (status.ready_replicas or 0):
        faults.append(wrong("status.availableReplicas", available, "cannot be greater than readyReplicas"))
    before, after = (getattr(each.status, "collision_count", None) or 0 for each in (old, new))
    if after < before:
        faults.append(wrong("status.collisionCount", after, "cannot be decremented"))
    return faults


_DAEMONS = {
    "current_number_scheduled": "currentNumberScheduled",
    "number_misscheduled": "numberMisscheduled",
    "desired_number_scheduled": "desiredNumberScheduled",
    "number_ready": "numberReady",
    "updated_number_scheduled": "updatedNumberScheduled",
    "number_available": "numberAvailable",
    "number_unavailable": "numberUnavailable",
    "observed_generation": "observedGeneration",
    "collision_count": "collisionCount",
}


def _daemons(old: Any, new: Any) -> list[Fault]:  # noqa: ARG001 - one signature for all rows
    faults: list[Fault] = []
    for attribute, name in _DAEMONS.items():
        faults += not_negative(getattr(new.status, attribute), f"status.{name}")
    return faults


def _namespace(old: Namespace, new: Namespace) -> list[Fault]:
    leaving = bool(old.metadata.deletion_timestamp)
    phase = "Terminating" if leaving else "Active"
    if new.status.phase == phase:
        return []
    why = f"may only be '{phase}' if `deletionTimestamp` is {'not ' if leaving else ''}empty"
    return [wrong("status.Phase", new.status.phase, why)]


def _service(old: Service, new: Service) -> list[Fault]:
    entries = new.status.load_balancer.ingress if new.status.load_balancer is not None else ()
    at = "status.loadBalancer.ingress"
    if entries and old.spec.type != "LoadBalancer":
        return [forbidden(at, "may only be used when `spec.type` is 'LoadBalancer'")]
    faults: list[Fault] = []
    for index, entry in enumerate(entries):
        faults += _entry(entry, f"{at}[{index}]") + _entry_mode(entry, f"{at}[{index}].ipMode")
    return faults


def _ingress(old: Ingress, new: Ingress) -> list[Fault]:  # noqa: ARG001 - one signature for all rows
    entries = new.status.load_balancer.ingress if new.status.load_balancer is not None else ()
    faults: list[Fault] = []
    for index, entry in enumerate(entries):
        faults += _entry(entry, f"status.loadBalancer.ingress[{index}]")
    return faults


def _entry(entry: Any, field: str) -> list[Fault]:
    faults = address_faults(entry.ip, f"{field}.ip") if entry.ip else []
    if entry.hostname:
        faults += check(names.subdomain, entry.hostname, f"{field}.hostname")
    if is_address(entry.hostname):
        faults.append(wrong(f"{field}.hostname", entry.hostname, "must be a DNS name, not an IP address"))
    return faults


def _entry_mode(entry: LoadBalancerIngress, field: str) -> list[Fault]:
    if not entry.ip_mode:
        return [required(field, "must be specified when `ip` is set")] if entry.ip else []
    if not entry.ip:
        return [forbidden(field, "may not be specified when `ip` is not set")]
    return one_of(entry.ip_mode, ("Proxy", "VIP"), field)


STATUS_RULES: Mapping[tuple[str, str], Callable[[Any, Any], list[Fault]]] = {
    ("", "namespaces"): _namespace,
    ("", "pods"): pod_status_faults,
    ("", "replicationcontrollers"): _replicas,
    ("", "services"): _service,
    ("apps", "daemonsets"): _daemons,
    ("apps", "deployments"): _replicas,
    ("apps", "replicasets"): _replicas,
    ("apps", "statefulsets"): _replicas,
    ("networking.k8s.io", "ingresses"): _ingress,
}
