"""What kinds of scheduling, access and limits, and nodes and namespaces, may not be."""

from collections.abc import Callable, Mapping
from typing import Any

from api import names, quantity
from api.errors import Fault
from api.faults import (
    Printed,
    check,
    check_given,
    cidr_faults,
    duplicate,
    forbidden,
    immutable,
    label_map_faults,
    one_of,
    required,
    shown,
    unsupported,
    wrong,
)
from api.kinds.core import LimitRange, LimitRangeItem, Namespace, Node, ResourceQuota, ResourceQuotaSpec
from api.kinds.rbac import PolicyRule, Subject
from api.kinds.runtime import RuntimeClass
from api.kinds.scheduling import PriorityClass
from api.validation.placement import taints_faults, tolerations_faults
from api.validation.resources import amount_faults, limited_name_faults, quota_faults

_HIGHEST_USER_PRIORITY = 1_000_000_000
_SYSTEM_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
_ACCESS = "rbac.authorization.k8s.io"


def _node(obj: Node) -> list[Fault]:
    faults = taints_faults(obj.spec.taints, "metadata.taints")
    for side, amounts in (("capacity", obj.status.capacity), ("allocatable", obj.status.allocatable)):
        for name, amount in amounts.items():
            faults += amount_faults(name, amount, f"status.{side}.{name}")
    ranges = obj.spec.pod_cidrs
    for index, each in enumerate(ranges):
        faults += cidr_faults(each, f"spec.podCIDRs[{index}]")
        if each in ranges[:index]:
            faults.append(duplicate(f"spec.podCIDRs[{index}]", each))
    if len(ranges) > 1 and (len(ranges) > 2 or len({":" in each for each in ranges}) == 1):
        why = "may specify no more than one CIDR for each IP family"
        faults.append(wrong("spec.podCIDRs", ranges, why))
    return faults


def _node_change(old: Node, new: Node) -> list[Fault]:
    faults = []
    before, after = old.spec, new.spec
    if before.pod_cidrs and before.pod_cidrs != after.pod_cidrs:
        why = 'node updates may not change podCIDR except from "" to valid'
        faults.append(forbidden("spec.podCIDRs", why))
    if before.provider_id and before.provider_id != after.provider_id:
        why = 'node updates may not change providerID except from "" to valid'
        faults.append(forbidden("spec.providerID", why))
    return faults


def _namespace(obj: Namespace) -> list[Fault]:
    faults: list[Fault] = []
    for name in obj.spec.finalizers:
        faults += check(names.qualified, name, "spec.finalizers")
        if "/" not in name and name not in ("kubernetes", "orphan", "foregroundDeletion"):
            why = "name is neither a standard finalizer name nor is it fully qualified"
            faults.append(wrong("spec.finalizers", name, why))
    return faults


def _priority_class(obj: PriorityClass) -> list[Fault]:
    name, value, faults = obj.metadata.name, obj.value or 0, []
    if name.startswith("system-"):
        why = ""
        if name not in _SYSTEM_PRIORITIES:
            why = f"{name} is not a known system priority class"
        elif value != _SYSTEM_PRIORITIES[name]:
            why = f"value of {name} PriorityClass must be {_SYSTEM_PRIORITIES[name]}"
        elif obj.global_default:
            why = f"globalDefault of {name} PriorityClass must be false"
        if why:
            told = "priority class names with 'system-' prefix are reserved for system use only. error: "
            faults.append(forbidden("metadata.name", told + why))
    elif value > _HIGHEST_USER_PRIORITY:
        why = f"maximum allowed value of a user defined priority is {_HIGHEST_USER_PRIORITY}"
        faults.append(forbidden("value", why))
    return faults + one_of(obj.preemption_policy, ("PreemptLowerPriority", "Never"), "preemptionPolicy")


def _priority_class_change(old: PriorityClass, new: PriorityClass) -> list[Fault]:
    faults = []
    if (old.value or 0) != (new.value or 0):
        faults.append(forbidden("value", "may not be changed in an update."))
    return faults + immutable(old.preemption_policy, new.preemption_policy, "preemptionPolicy")


def _rules(rules: tuple[PolicyRule, ...], *, namespaced: bool) -> list[Fault]:
    faults = []
    for index, rule in enumerate(rules):
        at = f"rules[{index}]"
        if not rule.verbs:
            faults.append(required(f"{at}.verbs", "verbs must contain at least one value"))
        if rule.non_resource_urls:
            if namespaced:
                faults.append(
                    wrong(
                        f"{at}.nonResourceURLs",
                        list(rule.non_resource_urls),
                        "namespaced rules cannot apply to non-resource URLs",
                    )
                )
            if rule.api_groups or rule.resources or rule.resource_names:
                faults.append(
                    wrong(
                        f"{at}.nonResourceURLs",
                        list(rule.non_resource_urls),
                        "rules cannot apply to both regular resources and non-resource URLs",
                    )
                )
            continue
        if not rule.api_groups:
            faults.append(required(f"{at}.apiGroups", "resource rules must supply at least one api group"))
        if not rule.resources:
            faults.append(required(f"{at}.resources", "resource rules must supply at least one resource"))
    return faults


def _role(obj: Any) -> list[Fault]:
    return _rules(obj.rules, namespaced=True)


def _cluster_role(obj: Any) -> list[Fault]:
    return _rules(obj.rules, namespaced=False)


def _binding(obj: Any) -> list[Fault]:
    return _role_ref(obj, ("Role", "ClusterRole")) + _subjects(obj)


def _cluster_binding(obj: Any) -> list[Fault]:
    return _role_ref(obj, ("ClusterRole",)) + _subjects(obj)


def _role_ref(obj: Any, kinds: tuple[str, ...]) -> list[Fault]:
    ref, faults = obj.role_ref, []
    if ref.api_group != _ACCESS:
        faults.append(unsupported("roleRef.apiGroup", ref.api_group, (_ACCESS,)))
    if ref.kind not in kinds:
        faults.append(unsupported("roleRef.kind", ref.kind, kinds))
    return faults + check_given(names.path_segment, ref.name, "roleRef.name")


def _subjects(obj: Any) -> list[Fault]:
    faults: list[Fault] = []
    for index, subject in enumerate(obj.subjects):
        faults += _subject(subject, f"subjects[{index}]")
    return faults


def _subject(subject: Subject, field: str) -> list[Fault]:
    faults = [] if subject.name else [required(f"{field}.name")]
    group = "" if subject.kind == "ServiceAccount" else _ACCESS
    if subject.kind not in ("ServiceAccount", "User", "Group"):
        return [*faults, unsupported(f"{field}.kind", subject.kind, ("ServiceAccount", "User", "Group"))]
    if subject.api_group != group:
        faults.append(unsupported(f"{field}.apiGroup", subject.api_group, (group,)))
    if subject.kind == "ServiceAccount":
        faults += check(names.subdomain, subject.name, f"{field}.name") if subject.name else []
        faults += [] if subject.namespace else [required(f"{field}.namespace")]
    return faults


def _role_ref_change(old: Any, new: Any) -> list[Fault]:
    ref = new.role_ref
    if old.role_ref == ref:
        return []
    go = f"rbac.RoleRef{{APIGroup:{shown(ref.api_group)}, Kind:{shown(ref.kind)}, Name:{shown(ref.name)}}}"
    return [wrong("roleRef", Printed(go), "cannot change roleRef")]


def _limit_range(obj: LimitRange) -> list[Fault]:
    faults: list[Fault] = []
    taken: set[str] = set()
    for index, item in enumerate(obj.spec.limits):
        at = f"spec.limits[{index}]"
        faults += check(names.qualified, item.type, f"{at}.type")
        if not faults and "/" not in item.type and item.type not in ("Container", "PersistentVolumeClaim", "Pod"):
            faults.append(wrong(f"{at}.type", item.type, "must be a standard limit type or fully qualified"))
        if item.type in taken:
            faults.append(duplicate(f"{at}.type", item.type))
        taken.add(item.type)
        faults += _limit_names(item, at) + _limit_amounts(item, at)
    return faults


def _limit_names(item: LimitRangeItem, field: str) -> list[Fault]:
    faults: list[Fault] = []
    for name, amounts in (("default", item.default), ("defaultRequest", item.default_request)):
        if item.type == "Pod" and amounts:
            faults.append(forbidden(f"{field}.{name}", "may not be specified when `type` is 'Pod'"))
    if item.type == "PersistentVolumeClaim" and "storage" not in item.min | item.max:
        why = "either minimum or maximum storage value is required, but neither was provided"
        faults.append(required(f"{field}.limits", why))
    for name, amounts in (
        ("max", item.max), ("min", item.min), ("default", item.default), ("defaultRequest", item.default_request),
        ("maxLimitRequestRatio", item.max_limit_request_ratio),
    ):  # fmt: skip
        for key in amounts:
            faults += limited_name_faults(key, f"{field}.{name}[{key}]", kind=item.type)
    return faults


def _limit_amounts(item: LimitRangeItem, field: str) -> list[Fault]:
    """Return the faults of amounts that do not fit between each other."""
    faults: list[Fault] = []
    sides = {"min": item.min, "max": item.max, "default": item.default, "defaultRequest": item.default_request}
    words = {"min": "min", "max": "max", "default": "default", "defaultRequest": "default request"}
    # (less, more, whose fault it is)
    for less, more, blamed in (
        ("min", "max", "min"), ("min", "defaultRequest", "defaultRequest"), ("defaultRequest", "max", "defaultRequest"),
        ("defaultRequest", "default", "defaultRequest"), ("min", "default", "default"), ("default", "max", "default"),
    ):  # fmt: skip
        for key, least in sides[less].items():
            most = sides[more].get(key)
            if most is None or quantity.parse(least) <= quantity.parse(most):
                continue
            limit = "default limit" if (less, more) == ("defaultRequest", "default") else words[more]
            why = f"{words[less]} value {least} is greater than {limit} value {most}"
            faults.append(wrong(f"{field}.{blamed}[{key}]", sides[blamed][key], why))
    for key, ratio in item.max_limit_request_ratio.items():
        at = f"{field}.maxLimitRequestRatio[{key}]"
        if quantity.parse(ratio) < 1:
            faults.append(wrong(at, ratio, f"ratio {ratio} is less than 1"))
        if key in item.min and key in item.max and quantity.parse(item.min[key]) > 0:
            highest = quantity.parse(item.max[key]) / quantity.parse(item.min[key])
            if quantity.parse(ratio) > highest:
                why = f"ratio {ratio} is greater than max/min = {float(highest):f}"
                faults.append(wrong(at, ratio, why))
    return faults


_SCOPES = frozenset({
    "BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating",
})  # fmt: skip
_CONTRARY = (frozenset({"BestEffort", "NotBestEffort"}), frozenset({"Terminating", "NotTerminating"}))
_EXISTS_ONLY = (
    "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "
    "ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
)
_OF_PODS = frozenset(
    {"pods", "cpu", "memory", "ephemeral-storage"}
    | {f"{side}.{name}" for side in ("requests", "limits") for name in ("cpu", "memory", "ephemeral-storage")}
)


def _scoped(scope: str, resource: str) -> bool:
    """Return whether ``resource`` can be counted within ``scope`` alone."""
    if "/" in resource or scope not in _SCOPES:
        return True
    return resource == "pods" if scope == "BestEffort" else resource in _OF_PODS or resource.startswith("requests.huge")


def _quota(obj: ResourceQuota) -> list[Fault]:
    spec = obj.spec
    faults = quota_faults(spec.hard, "spec.hard")
    for scope in spec.scopes:
        if scope not in _SCOPES:
            faults.append(wrong("spec.scopes", spec.scopes, "unsupported scope"))
        if not all(_scoped(scope, name) for name in spec.hard):
            faults.append(wrong("spec.scopes", spec.scopes, "unsupported scope applied to resource"))
    if any(pair <= set(spec.scopes) for pair in _CONTRARY):
        faults.append(wrong("spec.scopes", spec.scopes, "conflicting scopes"))
    return faults + _scope_selector(spec, "spec.scopeSelector.matchExpressions")


def _scope_selector(spec: ResourceQuotaSpec, field: str) -> list[Fault]:
    terms = spec.scope_selector.match_expressions if spec.scope_selector is not None else ()
    faults = []
    for each in terms:
        if each.scope_name not in _SCOPES:
            faults.append(wrong(f"{field}.scopeName", each.scope_name, "unsupported scope"))
        if not all(_scoped(each.scope_name, name) for name in spec.hard):
            faults.append(wrong(field, spec.scope_selector, "unsupported scope applied to resource"))
        if each.scope_name in _SCOPES - {"PriorityClass"} and each.operator != "Exists":
            faults.append(wrong(f"{field}.operator", each.operator, _EXISTS_ONLY))
        if each.operator in ("In", "NotIn"):
            if not each.values:
                why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
                faults.append(required(f"{field}.values", why))
        elif each.operator not in ("Exists", "DoesNotExist"):
            faults.append(wrong(f"{field}.operator", each.operator, "not a valid selector operator"))
        elif each.values:
            why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
            faults.append(wrong(f"{field}.values", each.values, why))
    if any(pair <= {each.scope_name for each in terms} for pair in _CONTRARY):
        faults.append(wrong("spec.scopeSelector.scopes", spec.scopes, "conflicting scopes"))
    return faults


def _quota_change(old: ResourceQuota, new: ResourceQuota) -> list[Fault]:
    if set(old.spec.scopes) == set(new.spec.scopes):
        return []
    return [wrong("spec.scopes", new.spec.scopes, "field is immutable")]


def _runtime_class(obj: RuntimeClass) -> list[Fault]:
    faults = check(names.label, obj.handler, "handler")
    for name, amount in (obj.overhead.pod_fixed if obj.overhead is not None else {}).items():
        faults += amount_faults(name, amount, f"overhead.podFixed[{name}]")
    if obj.scheduling is not None:
        faults += label_map_faults(obj.scheduling.node_selector, "scheduling.nodeSelector")
        faults += tolerations_faults(obj.scheduling.tolerations, "scheduling.tolerations")
    return faults


def _runtime_class_change(old: RuntimeClass, new: RuntimeClass) -> list[Fault]:
    return immutable(old.handler, new.handler, "handler")


SPEC_RULES: Mapping[tuple[str, str], Callable[[Any], list[Fault]]] = {
    ("", "limitranges"): _limit_range,
    ("", "namespaces"): _namespace,
    ("", "nodes"): _node,
    ("", "resourcequotas"): _quota,
    ("node.k8s.io", "runtimeclasses"): _runtime_class,
    (_ACCESS, "roles"): _role,
    (_ACCESS, "clusterroles"): _cluster_role,
    (_ACCESS, "rolebindings"): _binding,
    (_ACCESS, "clusterrolebindings"): _cluster_binding,
    ("scheduling.k8s.io", "priorityclasses"): _priority_class,
}
CHANGE_RULES: Mapping[tuple[str, str], Callable[[Any, Any], list[Fault]]] = {
    ("", "nodes"): _node_change,
    ("", "resourcequotas"): _quota_change,
    ("node.k8s.io", "runtimeclasses"): _runtime_class_change,
    (_ACCESS, "rolebindings"): _role_ref_change,
    (_ACCESS, "clusterrolebindings"): _role_ref_change,
    ("scheduling.k8s.io", "priorityclasses"): _priority_class_change,
}
