"""What autoscalers and disruption budgets may not be."""

from collections.abc import Callable, Mapping
from typing import Any

from api import names, quantity
from api.errors import Fault
from api.faults import (
    check,
    forbidden,
    not_above_all,
    one_of,
    required,
    selector_faults,
    share,
    unsupported,
    wrong,
)
from api.kinds.autoscaling import (
    CrossVersionObjectReferenceV2,
    HorizontalPodAutoscalerV2,
    HPAScalingRules,
    MetricIdentifier,
    MetricSpec,
    MetricTarget,
)
from api.kinds.policy import PodDisruptionBudget

_LONGEST_WINDOW_S, _LONGEST_PERIOD_S = 3600, 1800
_SOURCES = {  # type -> (attribute, JSON name)
    "ContainerResource": ("container_resource", "containerResource"),
    "External": ("external", "external"),
    "Object": ("object", "object"),
    "Pods": ("pods", "pods"),
    "Resource": ("resource", "resource"),
}


def _autoscaler(obj: HorizontalPodAutoscalerV2) -> list[Fault]:
    spec, faults = obj.spec, []
    if spec.min_replicas is not None and spec.min_replicas < 1:
        faults.append(wrong("spec.minReplicas", spec.min_replicas, "must be greater than or equal to 1"))
    if spec.max_replicas < 1:
        faults.append(wrong("spec.maxReplicas", spec.max_replicas, "must be greater than 0"))
    if spec.min_replicas is not None and spec.max_replicas < spec.min_replicas:
        why = "must be greater than or equal to `minReplicas`"
        faults.append(wrong("spec.maxReplicas", spec.max_replicas, why))
    faults += _reference(spec.scale_target_ref, "spec.scaleTargetRef")
    for index, metric in enumerate(spec.metrics):
        faults += _metric(metric, f"spec.metrics[{index}]")
    if spec.behavior is not None:
        faults += _behavior(spec.behavior.scale_up, "spec.behavior.scaleUp")
        faults += _behavior(spec.behavior.scale_down, "spec.behavior.scaleDown")
    return faults


def _reference(target: CrossVersionObjectReferenceV2, field: str) -> list[Fault]:
    faults: list[Fault] = []
    for name, text in (("kind", target.kind), ("name", target.name)):
        faults += check(names.path_segment, text, f"{field}.{name}") if text else [required(f"{field}.{name}")]
    if target.api_version.count("/") > 1:
        why = f"unexpected GroupVersion string: {target.api_version}"
        faults.append(wrong(f"{field}.apiVersion", target.api_version, why))
    return faults


def _metric(metric: MetricSpec, field: str) -> list[Fault]:
    if not metric.type:
        return [required(f"{field}.type", "must specify a metric source type")]
    if metric.type not in _SOURCES:
        return [unsupported(f"{field}.type", metric.type, _SOURCES)]
    faults: list[Fault] = []
    given = {name: getattr(metric, attribute) for attribute, name in _SOURCES.values()}
    given = {name: source for name, source in given.items() if source is not None}
    expected = _SOURCES[metric.type][1]
    if expected in given:
        faults += _SOURCE_RULES[metric.type](given[expected], f"{field}.{expected}")
    else:
        faults.append(required(f"{field}.{expected}", "must populate information for the given metric source"))
    others = sorted(given.keys() - {expected})
    return faults + [forbidden(f"{field}.{name}", "must populate the given metric source only") for name in others]


def _of_object(source: Any, field: str) -> list[Fault]:
    faults = _reference(source.described_object, f"{field}.describedObject")
    faults += _identifier(source.metric, f"{field}.metric") + _target(source.target, f"{field}.target")
    if not source.target.value and not source.target.average_value:
        why = "must set either a target value or averageValue"
        faults.append(required(f"{field}.target.averageValue", why))
    return faults


def _of_external(source: Any, field: str) -> list[Fault]:
    faults = _identifier(source.metric, f"{field}.metric") + _target(source.target, f"{field}.target")
    value, average = source.target.value, source.target.average_value
    if not value and not average:
        why = "must set either a target value for metric or a per-pod target"
        faults.append(required(f"{field}.target.averageValue", why))
    if value and average:
        why = "may not set both a target value for metric and a per-pod target"
        faults.append(forbidden(f"{field}.target.value", why))
    return faults


def _of_pods(source: Any, field: str) -> list[Fault]:
    faults = _identifier(source.metric, f"{field}.metric") + _target(source.target, f"{field}.target")
    average = source.target.average_value
    if not average or quantity.parse(average) <= 0:
        faults.append(required(f"{field}.target.averageValue", "must specify a positive target averageValue"))
    return faults


def _of_resource(source: Any, field: str) -> list[Fault]:
    faults = [] if source.name else [required(f"{field}.name", "must specify a resource name")]
    if not getattr(source, "container", "-"):
        faults.append(required(f"{field}.container", "must specify a container"))
    faults += _target(source.target, f"{field}.target")
    share_of, average = source.target.average_utilization, source.target.average_value
    if share_of is None and not average:
        why = "must set either a target raw value or a target utilization"
        faults.append(required(f"{field}.target.averageUtilization", why))
    if share_of is not None and average:
        why = "may not set both a target raw value and a target utilization"
        faults.append(forbidden(f"{field}.target.averageValue", why))
    return faults


_SOURCE_RULES: Mapping[str, Callable[[Any, str], list[Fault]]] = {
    "ContainerResource": _of_resource,
    "External": _of_external,
    "Object": _of_object,
    "Pods": _of_pods,
    "Resource": _of_resource,
}


def _identifier(metric: MetricIdentifier, field: str) -> list[Fault]:
    at = f"{field}.name"
    faults = check(names.path_segment, metric.name, at) if metric.name else [required(at)]
    return faults + selector_faults(metric.selector, f"{field}.selector")


def _target(target: MetricTarget, field: str) -> list[Fault]:
    faults: list[Fault] = []
    if not target.type:
        faults.append(required(f"{field}.type", "must specify a metric target type"))
    elif target.type not in ("Utilization", "Value", "AverageValue"):
        faults.append(wrong(f"{field}.type", target.type, "must be either Utilization, Value, or AverageValue"))
    for name, amount in (("value", target.value), ("averageValue", target.average_value)):
        if amount and quantity.parse(amount) <= 0:
            faults.append(wrong(f"{field}.{name}", amount, "must be positive"))
    if target.average_utilization is not None and target.average_utilization < 1:
        faults.append(wrong(f"{field}.averageUtilization", target.average_utilization, "must be greater than 0"))
    return faults


def _behavior(rules: HPAScalingRules | None, field: str) -> list[Fault]:
    if rules is None:
        return []
    faults: list[Fault] = []
    window, at = rules.stabilization_window_seconds, f"{field}.stabilizationWindowSeconds"
    if window is not None and window < 0:
        faults.append(wrong(at, window, "must be greater than or equal to zero"))
    if (window or 0) > _LONGEST_WINDOW_S:
        faults.append(wrong(at, window, f"must be less than or equal to {_LONGEST_WINDOW_S}"))
    if rules.select_policy:
        faults += one_of(rules.select_policy, ("Disabled", "Max", "Min"), f"{field}.selectPolicy")
    if not rules.policies:
        faults.append(required(f"{field}.policies", "must specify at least one Policy"))
    for index, policy in enumerate(rules.policies):
        at = f"{field}.policies[{index}]"
        if policy.type not in ("Percent", "Pods"):
            faults.append(unsupported(f"{at}.type", policy.type, ("Percent", "Pods")))
        for name, number in (("value", policy.value), ("periodSeconds", policy.period_seconds)):
            if number <= 0:
                faults.append(wrong(f"{at}.{name}", number, "must be greater than zero"))
        if policy.period_seconds > _LONGEST_PERIOD_S:
            why = f"must be less than or equal to {_LONGEST_PERIOD_S}"
            faults.append(wrong(f"{at}.periodSeconds", policy.period_seconds, why))
    return faults


def _budget(obj: PodDisruptionBudget) -> list[Fault]:
    spec, faults = obj.spec, []
    if spec.min_available is not None and spec.max_unavailable is not None:
        faults.append(wrong("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
    for name, value in (("minAvailable", spec.min_available), ("maxUnavailable", spec.max_unavailable)):
        faults += share(value, f"spec.{name}") + not_above_all(value, f"spec.{name}")
    faults += selector_faults(spec.selector, "spec.selector")
    if spec.unhealthy_pod_eviction_policy:
        policies = ("AlwaysAllow", "IfHealthyBudget")
        faults += one_of(spec.unhealthy_pod_eviction_policy, policies, "spec.unhealthyPodEvictionPolicy")
    return faults


SPEC_RULES: Mapping[tuple[str, str], Callable[[Any], list[Fault]]] = {
    ("autoscaling", "horizontalpodautoscalers"): _autoscaler,
    ("policy", "poddisruptionbudgets"): _budget,
}
