"""The columns in which ``kubectl get`` shows each kind.

A layout is a line of column names and a function from object to cells. ``*`` marks a column of ``-o wide``, ``#`` one
that holds a number.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from api import cells as cells_of
from api import codec, conversion
from api.cells import Cells
from api.custom.kind import Custom, PrinterColumn
from api.custom.objects import CustomObject, to_plain
from api.durations import human, parse_time
from api.kinds.table import TABLE, Kind
from api.meta import Resource


class Column(msgspec.Struct, frozen=True):
    """One column of a table; those of a priority above 0 are shown with ``-o wide`` only."""

    name: str
    type: str = "string"
    format: str = ""
    priority: int = 0
    description: str = ""

    def definition(self) -> dict[str, Any]:
        """Return what a Table says of the column."""
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description or f"{self.name} of the object",
            "priority": self.priority,
        }


class _Layout(NamedTuple):
    columns: tuple[Column, ...]
    cells: Callable[[Any, float], Cells]


def of(kind: Kind) -> tuple[Column, ...]:
    """Return the columns of a kind."""
    return _layout(kind).columns


def cells(kind: Kind, obj: Resource, now: float) -> Cells:
    """Return the cells of one object, one for each column.

    now: seconds since 1970, for ages.
    """
    return _layout(kind).cells(_printed(kind, obj), now)


def _printed(kind: Kind, obj: Resource) -> Resource:
    """Return the object in the version that the columns are made for."""
    if kind.stored_as != (kind.group, kind.plural):
        return obj
    owner = TABLE.preferred(kind.group, kind.plural)
    assert owner is not None, kind
    return codec.decode(owner, conversion.stored(kind, owner, codec.to_document(obj)))


# Bounded: a custom kind's row is a new one whenever its definition changes.
@lru_cache(maxsize=512)
def _layout(kind: Kind) -> _Layout:
    if kind.custom is not None:
        return _custom_layout(kind.custom)
    names, write = _LAYOUTS.get((kind.group, kind.plural), _DEFAULT)
    return _Layout(tuple(_column(each.strip()) for each in names.split(",")), write)


_AGE = PrinterColumn("Age", "date", ".metadata.creationTimestamp", description="How long ago the object was created")


def _custom_layout(custom: Custom) -> _Layout:
    """Return the columns that a definition asks for, after the name; without any, the age."""
    own = custom.columns or (_AGE,)
    shown = (Column(each.name, each.type, each.format, each.priority, each.description) for each in own)

    def cells(obj: CustomObject, now: float) -> Cells:
        meta = msgspec.structs.replace(obj.metadata, managed_fields=())
        document = {**to_plain(obj), "metadata": msgspec.to_builtins(meta)}
        return [obj.metadata.name, *(_custom_cell(each, document, now) for each in own)]

    return _Layout((Column("Name", format="name"), *shown), cells)


def _custom_cell(column: PrinterColumn, document: Mapping[str, Any], now: float) -> Any:
    """Return what one column shows: a value of another type than the column's is not shown."""
    value = column.first(document)
    match column.type, value:
        case _, None:
            return None
        case "string", str():
            return value
        case "string", bool():
            return str(value).lower()
        case "string", _:
            return msgspec.json.encode(value).decode()
        case ("boolean", bool()) | ("integer" | "number", int()):
            return None if column.type != "boolean" and isinstance(value, bool) else value
        case "integer", float():
            return int(value)
        case "number", float():
            return value
        case "date", str():
            moment = parse_time(value)
            return "<invalid>" if moment is None else human(now - moment)
    return None


def _column(text: str) -> Column:
    name = text.rstrip("*#")
    return Column(
        name,
        type="integer" if "#" in text else "string",
        format="name" if name == "Name" else "",
        priority=1 if "*" in text else 0,
    )


_TEMPLATE = "Containers*, Images*, Selector*"
_EVENT = "Last Seen, Type, Reason, Object, Subobject*, Source*, Message, First Seen*, Count#*, Name*"
_VOLUME = (
    "Name, Capacity, Access Modes, Reclaim Policy, Status, Claim, StorageClass, VolumeAttributesClass, Reason, Age, "
    "VolumeMode*"
)
_RBAC = "rbac.authorization.k8s.io"
_DEFAULT: tuple[str, Callable[[Any, float], Cells]] = ("Name, Age", cells_of.plain)
_LAYOUTS: Mapping[tuple[str, str], tuple[str, Callable[[Any, float], Cells]]] = {
    ("", "pods"): ("Name, Ready, Status, Restarts, Age, IP*, Node*, Nominated Node*, Readiness Gates*", cells_of.pod),
    ("", "nodes"): (
        "Name, Status, Roles, Age, Version, Internal-IP*, External-IP*, OS-Image*, Kernel-Version*, Container-Runtime*",
        cells_of.node,
    ),
    ("", "namespaces"): ("Name, Status, Age", cells_of.namespace),
    ("", "services"): ("Name, Type, Cluster-IP, External-IP, Port(s), Age, Selector*", cells_of.service),
    ("", "endpoints"): ("Name, Endpoints, Age", cells_of.endpoints),
    ("", "events"): (_EVENT, cells_of.event),
    ("", "configmaps"): ("Name, Data#, Age", cells_of.config_map),
    ("", "secrets"): ("Name, Type, Data#, Age", cells_of.secret),
    ("", "serviceaccounts"): ("Name, Secrets#, Age", cells_of.service_account),
    ("", "replicationcontrollers"): (
        f"Name, Desired#, Current#, Ready#, Age, {_TEMPLATE}",
        cells_of.replication_controller,
    ),
    ("", "podtemplates"): ("Name, Containers, Images, Pod Labels", cells_of.pod_template),
    ("", "limitranges"): ("Name, Created At", cells_of.created_at),
    ("", "resourcequotas"): ("Name, Request, Limit, Age", cells_of.resource_quota),
    ("", "persistentvolumes"): (
        _VOLUME,
        cells_of.persistent_volume,
    ),
    ("", "persistentvolumeclaims"): (
        "Name, Status, Volume, Capacity, Access Modes, StorageClass, VolumeAttributesClass, Age, VolumeMode*",
        cells_of.persistent_volume_claim,
    ),
    ("apps", "deployments"): (f"Name, Ready, Up-to-date#, Available#, Age, {_TEMPLATE}", cells_of.deployment),
    ("apps", "replicasets"): (f"Name, Desired#, Current#, Ready#, Age, {_TEMPLATE}", cells_of.replica_set),
    ("apps", "statefulsets"): ("Name, Ready, Age, Containers*, Images*", cells_of.stateful_set),
    ("apps", "daemonsets"): (
        f"Name, Desired#, Current#, Ready#, Up-to-date#, Available#, Node Selector, Age, {_TEMPLATE}",
        cells_of.daemon_set,
    ),
    ("apps", "controllerrevisions"): ("Name, Controller, Revision#, Age", cells_of.controller_revision),
    ("batch", "jobs"): (f"Name, Status, Completions, Duration, Age, {_TEMPLATE}", cells_of.job),
    ("batch", "cronjobs"): (
        f"Name, Schedule, Timezone, Suspend, Active#, Last Schedule, Age, {_TEMPLATE}",
        cells_of.cron_job,
    ),
    ("autoscaling", "horizontalpodautoscalers"): (
        "Name, Reference, Targets, MinPods, MaxPods#, Replicas#, Age",
        cells_of.autoscaler,
    ),
    ("policy", "poddisruptionbudgets"): (
        "Name, Min Available, Max Unavailable, Allowed Disruptions#, Age",
        cells_of.disruption_budget,
    ),
    ("networking.k8s.io", "ingresses"): ("Name, Class, Hosts, Address, Ports, Age", cells_of.ingress),
    ("networking.k8s.io", "ingressclasses"): ("Name, Controller, Parameters, Age", cells_of.ingress_class),
    ("networking.k8s.io", "networkpolicies"): ("Name, Pod-Selector, Age", cells_of.network_policy),
    ("discovery.k8s.io", "endpointslices"): ("Name, AddressType, Ports, Endpoints, Age", cells_of.endpoint_slice),
    ("coordination.k8s.io", "leases"): ("Name, Holder, Age", cells_of.lease),
    ("events.k8s.io", "events"): (_EVENT, cells_of.new_event),
    (_RBAC, "roles"): ("Name, Created At", cells_of.created_at),
    (_RBAC, "clusterroles"): ("Name, Created At", cells_of.created_at),
    (_RBAC, "rolebindings"): ("Name, Role, Age, Users*, Groups*, ServiceAccounts*", cells_of.binding),
    (_RBAC, "clusterrolebindings"): ("Name, Role, Age, Users*, Groups*, ServiceAccounts*", cells_of.binding),
    ("", "componentstatuses"): ("Name, Status, Message, Error", cells_of.component_status),
    ("storage.k8s.io", "volumeattachments"): ("Name, Attacher, PV, Node, Attached, Age", cells_of.volume_attachment),
    ("storage.k8s.io", "csidrivers"): (
        "Name, AttachRequired, PodInfoOnMount, StorageCapacity, TokenRequests, RequiresRepublish, Modes, Age",
        cells_of.csi_driver,
    ),
    ("storage.k8s.io", "csinodes"): ("Name, Drivers#, Age", cells_of.csi_node),
    ("storage.k8s.io", "csistoragecapacities"): ("Name, StorageClassName, Capacity", cells_of.storage_capacity),
    ("node.k8s.io", "runtimeclasses"): ("Name, Handler, Age", cells_of.runtime_class),
    ("certificates.k8s.io", "certificatesigningrequests"): (
        "Name, Age, SignerName, Requestor, RequestedDuration, Condition",
        cells_of.signing_request,
    ),
    ("apiextensions.k8s.io", "customresourcedefinitions"): ("Name, Created At", cells_of.created_at),
    ("storage.k8s.io", "storageclasses"): (
        "Name, Provisioner, ReclaimPolicy, VolumeBindingMode, AllowVolumeExpansion, Age",
        cells_of.storage_class,
    ),
    ("scheduling.k8s.io", "priorityclasses"): (
        "Name, Value#, Global-Default, Age, PreemptionPolicy",
        cells_of.priority_class,
    ),
}
