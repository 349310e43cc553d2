"""What each kind's spec may not be, and what an update may not change: one row a kind."""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any

from api import quantity, selectors, validation_cluster, validation_network, validation_workloads
from api.custom.definition_rules import definition_change_faults, definition_faults
from api.errors import Fault
from api.faults import (
    ADDRESS_RULE,
    NEGATIVE,
    duplicate,
    forbidden,
    immutable,
    is_address,
    label_faults,
    label_map_faults,
    not_negative,
    one_of,
    port_faults,
    required,
    selector_faults,
    share,
    special_address_faults,
    subdomain_faults,
    too_long,
    unsupported,
    wrong,
)
from api.kinds.apps import Deployment, ReplicaSet, StatefulSet
from api.kinds.core import ConfigMap, Endpoints, ReplicationController, ResourceQuota, Secret, Service
from api.meta import LabelSelector
from api.validation_pods import pod_change_faults, pod_faults, template_faults
from api.validation_workloads import update_strategy_faults

_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_DATA_KEY_RULE = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
    "'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
DATA_LIMIT_BYTES = 1024 * 1024


def _selects(selector: LabelSelector, labels: Mapping[str, str], field: str) -> list[Fault]:
    """Return the faults of a selector that is empty, malformed, or misses its own template."""
    faults = selector_faults(selector, f"{field}.selector")
    if not selector.match_labels and not selector.match_expressions:
        faults.append(wrong(f"{field}.selector", {}, "empty selector is invalid for this kind of object"))
    elif not faults and not selectors.of_struct(selector).matches(labels):
        faults.append(
            wrong(f"{field}.template.metadata.labels", dict(labels), "`selector` does not match template `labels`")
        )
    return faults


def _deployment(obj: Deployment) -> list[Fault]:
    spec = obj.spec
    faults = not_negative(spec.replicas, "spec.replicas") + not_negative(spec.min_ready_seconds, "spec.minReadySeconds")
    faults += not_negative(spec.revision_history_limit, "spec.revisionHistoryLimit")
    faults += _selects(spec.selector, spec.template.metadata.labels, "spec")
    faults += template_faults(spec.template, "spec.template")
    deadline = spec.progress_deadline_seconds
    if deadline is not None and deadline <= (spec.min_ready_seconds or 0):
        faults.append(wrong("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
    strategy = spec.strategy
    if strategy is not None and strategy.type not in ("Recreate", "RollingUpdate"):
        faults.append(unsupported("spec.strategy.type", strategy.type, ("Recreate", "RollingUpdate")))
    if strategy is not None and strategy.rolling_update is not None:
        at = "spec.strategy.rollingUpdate"
        if strategy.type == "Recreate":
            faults.append(forbidden(at, "may not be specified when strategy `type` is 'Recreate'"))
        surge, unavailable = strategy.rolling_update.max_surge, strategy.rolling_update.max_unavailable
        faults += share(surge, f"{at}.maxSurge") + share(unavailable, f"{at}.maxUnavailable")
        if surge in (0, "0%") and unavailable in (0, "0%"):
            faults.append(wrong(f"{at}.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0"))
    return faults


def _replica_set(obj: ReplicaSet) -> list[Fault]:
    faults = not_negative(obj.spec.replicas, "spec.replicas")
    template = obj.spec.template
    return (
        faults
        + _selects(obj.spec.selector, template.metadata.labels, "spec")
        + template_faults(template, "spec.template")
    )


def _stateful_set(obj: StatefulSet) -> list[Fault]:
    faults = not_negative(obj.spec.replicas, "spec.replicas")
    faults += one_of(obj.spec.pod_management_policy, ("OrderedReady", "Parallel"), "spec.podManagementPolicy")
    faults += update_strategy_faults(obj.spec.update_strategy, "spec.updateStrategy")
    faults += not_negative(obj.spec.min_ready_seconds, "spec.minReadySeconds")
    template = obj.spec.template
    return (
        faults
        + _selects(obj.spec.selector, template.metadata.labels, "spec")
        + template_faults(template, "spec.template")
    )


def _daemon_set(obj: Any) -> list[Fault]:
    template = obj.spec.template
    faults = _selects(obj.spec.selector, template.metadata.labels, "spec") + template_faults(template, "spec.template")
    faults += update_strategy_faults(obj.spec.update_strategy, "spec.updateStrategy")
    return faults + not_negative(obj.spec.min_ready_seconds, "spec.minReadySeconds")


def _replication_controller(obj: ReplicationController) -> list[Fault]:
    faults = not_negative(obj.spec.replicas, "spec.replicas")
    if not obj.spec.selector:
        faults.append(required("spec.selector"))
    template = obj.spec.template
    if not selectors.of_map(obj.spec.selector).matches(template.metadata.labels):
        labels = dict(template.metadata.labels)
        faults.append(wrong("spec.template.metadata.labels", labels, "`selector` does not match template `labels`"))
    return faults + template_faults(template, "spec.template")


def _service(obj: Service) -> list[Fault]:
    spec = obj.spec
    types = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    faults = [] if spec.type in types else [unsupported("spec.type", spec.type, types)]
    if spec.type == "ExternalName":
        if why := subdomain_faults(spec.external_name.rstrip(".")):
            faults.append(wrong("spec.externalName", spec.external_name, why))
    elif not spec.ports and spec.cluster_ip != "None":
        faults.append(required("spec.ports"))
    faults += label_map_faults(spec.selector, "spec.selector") + _service_port_faults(obj)
    if spec.session_affinity not in ("ClientIP", "None"):
        faults.append(unsupported("spec.sessionAffinity", spec.session_affinity, ("ClientIP", "None")))
    if spec.external_traffic_policy not in ("", "Cluster", "Local"):
        faults.append(unsupported("spec.externalTrafficPolicy", spec.external_traffic_policy, ("Cluster", "Local")))
    if spec.cluster_ip not in ("", "None") and not is_address(spec.cluster_ip):
        faults.append(wrong("spec.clusterIPs[0]", spec.cluster_ip, ADDRESS_RULE))
    if spec.cluster_ip == "None" and spec.type in ("NodePort", "LoadBalancer"):
        faults.append(wrong("spec.clusterIPs[0]", "None", "may not be set to 'None' for LoadBalancer services"))
    for index, address in enumerate(spec.external_ips):
        if not is_address(address):
            faults.append(
                wrong(
                    f"spec.externalIPs[{index}]",
                    address,
                    ADDRESS_RULE,
                )
            )
    return faults


def _service_port_faults(obj: Service) -> list[Fault]:
    faults = []
    names: set[str] = set()
    taken: set[tuple[str, int]] = set()
    for index, port in enumerate(obj.spec.ports):
        at = f"spec.ports[{index}]"
        if not port.name and len(obj.spec.ports) > 1:
            faults.append(required(f"{at}.name"))
        elif port.name and (why := label_faults(port.name)):
            faults.append(wrong(f"{at}.name", port.name, why))
        elif port.name in names:
            faults.append(duplicate(f"{at}.name", port.name))
        names.add(port.name)
        faults += port_faults(port.port, f"{at}.port")
        if port.target_port is not None:
            faults += port_faults(port.target_port, f"{at}.targetPort")
        if port.protocol not in ("SCTP", "TCP", "UDP"):
            faults.append(unsupported(f"{at}.protocol", port.protocol, ("SCTP", "TCP", "UDP")))
        if port.node_port and obj.spec.type not in ("NodePort", "LoadBalancer"):
            faults.append(forbidden(f"{at}.nodePort", "may not be used when `type` is 'ClusterIP'"))
        if (port.protocol, port.port) in taken:
            faults.append(duplicate(at, f"{port.protocol}/{port.port}"))
        taken.add((port.protocol, port.port))
    return faults


def _endpoints(obj: Endpoints) -> list[Fault]:
    faults = []
    for index, subset in enumerate(obj.subsets):
        at = f"subsets[{index}]"
        if not subset.addresses and not subset.not_ready_addresses:
            faults.append(required(at, "must specify `addresses` or `notReadyAddresses`"))
        for name, addresses in (("addresses", subset.addresses), ("notReadyAddresses", subset.not_ready_addresses)):
            for number, address in enumerate(addresses):
                where = f"{at}.{name}[{number}].ip"
                if not is_address(address.ip):
                    faults.append(wrong(where, address.ip, ADDRESS_RULE))
                else:
                    faults += special_address_faults(address.ip, where)
        for number, port in enumerate(subset.ports):
            if not port.name and len(subset.ports) > 1:
                faults.append(required(f"{at}.ports[{number}].name"))
            faults += port_faults(port.port, f"{at}.ports[{number}].port")
    return faults


def _data_faults(keys: Mapping[str, Any], field: str) -> list[Fault]:
    return [
        wrong(f"{field}[{key}]", key, _DATA_KEY_RULE) for key in keys if not _DATA_KEY.fullmatch(key) or len(key) > 253
    ]


def _config_map(obj: ConfigMap) -> list[Fault]:
    faults = _data_faults(obj.data, "data") + _data_faults(obj.binary_data, "binaryData")
    faults += [
        wrong("binaryData", key, "duplicate of key present in data") for key in obj.binary_data if key in obj.data
    ]
    size = sum(len(value) for value in (*obj.data.values(), *obj.binary_data.values()))
    return [*faults, too_long("", DATA_LIMIT_BYTES)] if size > DATA_LIMIT_BYTES else faults


_SECRET_KEYS = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


def _secret(obj: Secret) -> list[Fault]:
    faults = _data_faults(obj.data, "data")
    for key, value in obj.data.items():
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            faults.append(wrong(f"data[{key}]", "", "must be base64"))
    faults += [required(f"data[{key}]") for key in _SECRET_KEYS.get(obj.type, ()) if key not in obj.data]
    if sum(len(value) for value in obj.data.values()) * 3 // 4 > DATA_LIMIT_BYTES:
        faults.append(too_long("data", DATA_LIMIT_BYTES))
    return faults


def _quota(obj: ResourceQuota) -> list[Fault]:
    hard = obj.spec.hard
    return [wrong(f"spec.hard[{name}]", text, NEGATIVE) for name, text in hard.items() if quantity.parse(text) < 0]


def _event(obj: Any) -> list[Fault]:
    involved = getattr(obj, "involved_object", None) or getattr(obj, "regarding", None)
    if involved is not None and involved.namespace and involved.namespace != obj.metadata.namespace:
        return [wrong("involvedObject.namespace", involved.namespace, "does not match event.namespace")]
    return []


def _binding_roles(obj: Any) -> list[Fault]:
    faults = []
    if not obj.role_ref.name:
        faults.append(required("roleRef.name"))
    if obj.role_ref.kind not in ("Role", "ClusterRole"):
        faults.append(unsupported("roleRef.kind", obj.role_ref.kind, ("ClusterRole", "Role")))
    for index, subject in enumerate(obj.subjects):
        if not subject.name:
            faults.append(required(f"subjects[{index}].name"))
        if subject.kind not in ("User", "Group", "ServiceAccount"):
            faults.append(unsupported(f"subjects[{index}].kind", subject.kind, ("Group", "ServiceAccount", "User")))
        if subject.kind == "ServiceAccount" and not subject.namespace:
            faults.append(required(f"subjects[{index}].namespace"))
    return faults


SPEC_RULES: Mapping[tuple[str, str], Callable[[Any], list[Fault]]] = {
    **validation_cluster.SPEC_RULES,
    **validation_network.SPEC_RULES,
    **validation_workloads.SPEC_RULES,
    ("apiextensions.k8s.io", "customresourcedefinitions"): definition_faults,
    ("", "pods"): pod_faults,
    ("", "podtemplates"): lambda obj: template_faults(
        obj.template, "template", restart=("Always", "OnFailure", "Never")
    ),
    ("", "services"): _service,
    ("", "endpoints"): _endpoints,
    ("", "configmaps"): _config_map,
    ("", "secrets"): _secret,
    ("", "events"): _event,
    ("", "resourcequotas"): _quota,
    ("", "replicationcontrollers"): _replication_controller,
    ("apps", "deployments"): _deployment,
    ("apps", "replicasets"): _replica_set,
    ("apps", "statefulsets"): _stateful_set,
    ("apps", "daemonsets"): _daemon_set,
    ("rbac.authorization.k8s.io", "rolebindings"): _binding_roles,
    ("rbac.authorization.k8s.io", "clusterrolebindings"): _binding_roles,
}


def _same_selector(old: Any, new: Any) -> list[Fault]:
    return immutable(old.spec.selector, new.spec.selector, "spec.selector")


def _same_cluster_ip(old: Service, new: Service) -> list[Fault]:
    if old.spec.type == "ExternalName" or new.spec.type == "ExternalName" or not old.spec.cluster_ip:
        return []
    return immutable(old.spec.cluster_ip, new.spec.cluster_ip, "spec.clusterIPs[0]")


def _frozen_data(old: ConfigMap | Secret, new: ConfigMap | Secret) -> list[Fault]:
    if not old.immutable:
        return []
    faults = [] if new.immutable else [forbidden("immutable", "field is immutable when `immutable` is set")]
    changed = old.data != new.data or getattr(old, "binary_data", {}) != getattr(new, "binary_data", {})
    return [*faults, forbidden("data", "field is immutable when `immutable` is set")] if changed else faults


def _secret_change(old: Secret, new: Secret) -> list[Fault]:
    return immutable(old.type, new.type, "type") + _frozen_data(old, new)


def _stateful_set_change(old: StatefulSet, new: StatefulSet) -> list[Fault]:
    fixed = ("selector", "service_name", "pod_management_policy", "volume_claim_templates")
    if all(getattr(old.spec, name) == getattr(new.spec, name) for name in fixed):
        return []
    return [
        forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
            "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        )
    ]


def _role_ref_change(old: Any, new: Any) -> list[Fault]:
    return [] if old.role_ref == new.role_ref else [wrong("roleRef", new.role_ref.name, "cannot change roleRef")]


def _node_change(old: Any, new: Any) -> list[Fault]:
    if old.spec.pod_cidr and old.spec.pod_cidr != new.spec.pod_cidr:
        return [forbidden("spec.podCIDRs", 'node updates may not change podCIDR except from "" to valid')]
    return []


CHANGE_RULES: Mapping[tuple[str, str], Callable[[Any, Any], list[Fault]]] = {
    **validation_cluster.CHANGE_RULES,
    **validation_network.CHANGE_RULES,
    **validation_workloads.CHANGE_RULES,
    ("apiextensions.k8s.io", "customresourcedefinitions"): definition_change_faults,
    ("", "pods"): pod_change_faults,
    ("", "nodes"): _node_change,
    ("", "services"): _same_cluster_ip,
    ("", "configmaps"): _frozen_data,
    ("", "secrets"): _secret_change,
    ("apps", "deployments"): _same_selector,
    ("apps", "replicasets"): _same_selector,
    ("apps", "statefulsets"): _stateful_set_change,
    ("apps", "daemonsets"): _same_selector,
    ("rbac.authorization.k8s.io", "rolebindings"): _role_ref_change,
    ("rbac.authorization.k8s.io", "clusterrolebindings"): _role_ref_change,
}
