"""What specs of batch, autoscaling and policy kinds, and of the other controllers of pods, may not be."""

import zoneinfo
from collections.abc import Callable, Mapping
from typing import Any

from api import selectors
from api.cron import schedule_fault
from api.errors import Fault
from api.faults import (
    forbidden,
    immutable,
    not_negative,
    one_of,
    positive,
    required,
    selector_faults,
    share,
    wrong,
)
from api.kinds.autoscaling import HorizontalPodAutoscalerV2, MetricSpec, MetricTarget
from api.kinds.batch import CronJob, Job, JobSpec
from api.kinds.policy import PodDisruptionBudget
from api.validation_pods import template_faults

_CRON_NAME_LIMIT = 52  # eleven characters are left for what a job's name gets


def _job_spec(spec: JobSpec, field: str) -> list[Fault]:
    faults = not_negative(spec.parallelism, f"{field}.parallelism")
    faults += not_negative(spec.completions, f"{field}.completions")
    faults += not_negative(spec.active_deadline_seconds, f"{field}.activeDeadlineSeconds")
    faults += not_negative(spec.backoff_limit, f"{field}.backoffLimit")
    faults += not_negative(spec.ttl_seconds_after_finished, f"{field}.ttlSecondsAfterFinished")
    if spec.completion_mode:
        faults += one_of(spec.completion_mode, ("Indexed", "NonIndexed"), f"{field}.completionMode")
    if spec.completion_mode == "Indexed" and spec.completions is None:
        faults.append(required(f"{field}.completions", "when completion mode is Indexed"))
    if spec.backoff_limit_per_index is not None and spec.completion_mode != "Indexed":
        faults.append(
            wrong(f"{field}.backoffLimitPerIndex", spec.backoff_limit_per_index, "requires indexed completion mode")
        )
    return faults + template_faults(spec.template, f"{field}.template", restart=("Never", "OnFailure"))


def _job(obj: Job) -> list[Fault]:
    faults = _job_spec(obj.spec, "spec")
    faults += selector_faults(obj.spec.selector, "spec.selector")
    if obj.spec.selector is not None and not faults:
        labels = obj.spec.template.metadata.labels
        if not selectors.of_struct(obj.spec.selector).matches(labels):
            why = "`selector` does not match template `labels`"
            faults.append(wrong("spec.template.metadata.labels", dict(labels), why))
    return faults


def _job_change(old: Job, new: Job) -> list[Fault]:
    faults = immutable(old.spec.selector, new.spec.selector, "spec.selector")
    if not (old.spec.suspend and not old.status.start_time):
        faults += immutable(old.spec.template, new.spec.template, "spec.template")
    faults += immutable(old.spec.completion_mode, new.spec.completion_mode, "spec.completionMode")
    if old.spec.completions != new.spec.completions:
        elastic = new.spec.completion_mode == "Indexed" and new.spec.completions == new.spec.parallelism
        if not elastic:
            faults += immutable(old.spec.completions, new.spec.completions, "spec.completions")
    faults += immutable(old.spec.pod_failure_policy, new.spec.pod_failure_policy, "spec.podFailurePolicy")
    return faults + immutable(old.spec.managed_by, new.spec.managed_by, "spec.managedBy")


def _cron_job(obj: CronJob) -> list[Fault]:
    spec = obj.spec
    faults = []
    if len(obj.metadata.name) > _CRON_NAME_LIMIT:
        faults.append(wrong("metadata.name", obj.metadata.name, "must be no more than 52 characters"))
    if not spec.schedule:
        faults.append(required("spec.schedule"))
    elif "TZ" in spec.schedule:
        why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        faults.append(wrong("spec.schedule", spec.schedule, why))
    elif why := schedule_fault(spec.schedule):
        faults.append(wrong("spec.schedule", spec.schedule, why))
    if spec.time_zone and (spec.time_zone == "Local" or spec.time_zone not in zoneinfo.available_timezones()):
        faults.append(wrong("spec.timeZone", spec.time_zone, f"unknown time zone {spec.time_zone}"))
    faults += not_negative(spec.starting_deadline_seconds, "spec.startingDeadlineSeconds")
    faults += one_of(spec.concurrency_policy, ("Allow", "Forbid", "Replace"), "spec.concurrencyPolicy")
    faults += not_negative(spec.successful_jobs_history_limit, "spec.successfulJobsHistoryLimit")
    faults += not_negative(spec.failed_jobs_history_limit, "spec.failedJobsHistoryLimit")
    return faults + _job_spec(spec.job_template.spec, "spec.jobTemplate.spec")


def _autoscaler(obj: HorizontalPodAutoscalerV2) -> list[Fault]:
    spec = obj.spec
    faults = []
    if spec.min_replicas is not None and spec.min_replicas < 1:
        faults.append(wrong("spec.minReplicas", spec.min_replicas, "must be greater than or equal to 1"))
    if spec.max_replicas < 1:
        faults.append(wrong("spec.maxReplicas", spec.max_replicas, "must be greater than 0"))
    if spec.min_replicas is not None and spec.max_replicas < spec.min_replicas:
        why = "must be greater than or equal to `minReplicas`"
        faults.append(wrong("spec.maxReplicas", spec.max_replicas, why))
    target = spec.scale_target_ref
    faults += [required(f"spec.scaleTargetRef.{name}") for name in ("kind", "name") if not getattr(target, name)]
    for index, metric in enumerate(spec.metrics):
        faults += _metric(metric, f"spec.metrics[{index}]")
    for name, rules in (
        ("scaleUp", spec.behavior.scale_up if spec.behavior else None),
        ("scaleDown", spec.behavior.scale_down if spec.behavior else None),
    ):
        if rules is not None:
            at = f"spec.behavior.{name}"
            faults += not_negative(rules.stabilization_window_seconds, f"{at}.stabilizationWindowSeconds")
            for index, policy in enumerate(rules.policies):
                faults += one_of(policy.type, ("Percent", "Pods"), f"{at}.policies[{index}].type")
                faults += positive(policy.value, f"{at}.policies[{index}].value")
                faults += positive(policy.period_seconds, f"{at}.policies[{index}].periodSeconds")
    return faults


_SOURCES = {
    "ContainerResource": "container_resource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}


def _metric(metric: MetricSpec, field: str) -> list[Fault]:
    if metric.type not in _SOURCES:
        return one_of(metric.type, tuple(_SOURCES), f"{field}.type")
    source: Any = getattr(metric, _SOURCES[metric.type])
    name = metric.type[0].lower() + metric.type[1:]
    if source is None:
        return [required(f"{field}.{name}", "must populate information for the given metric source")]
    faults = []
    if metric.type in ("Resource", "ContainerResource") and not source.name:
        faults.append(required(f"{field}.{name}.name", "must specify a resource name"))
    return faults + _target(source.target, f"{field}.{name}.target")


def _target(target: MetricTarget, field: str) -> list[Fault]:
    faults = one_of(target.type, ("AverageValue", "Utilization", "Value"), f"{field}.type")
    return faults + positive(target.average_utilization, f"{field}.averageUtilization")


def _budget(obj: PodDisruptionBudget) -> list[Fault]:
    spec = obj.spec
    faults = []
    if spec.min_available is not None and spec.max_unavailable is not None:
        faults.append(wrong("spec", "", "minAvailable and maxUnavailable cannot be both set"))
    faults += share(spec.min_available, "spec.minAvailable") + share(spec.max_unavailable, "spec.maxUnavailable")
    if spec.unhealthy_pod_eviction_policy:
        policies = ("AlwaysAllow", "IfHealthyBudget")
        faults += one_of(spec.unhealthy_pod_eviction_policy, policies, "spec.unhealthyPodEvictionPolicy")
    return faults + selector_faults(spec.selector, "spec.selector")


def _revision_change(old: Any, new: Any) -> list[Fault]:
    return immutable(old.data, new.data, "data")


def _revision(obj: Any) -> list[Fault]:
    faults = not_negative(obj.revision, "revision")
    return faults if obj.data is not None else [*faults, required("data", "data is mandatory")]


def update_strategy_faults(strategy: Any, field: str) -> list[Fault]:
    """Return the faults of how a stateful or daemon set replaces its pods."""
    if strategy is None:
        return []
    faults = one_of(strategy.type, ("OnDelete", "RollingUpdate"), f"{field}.type")
    rolling = strategy.rolling_update
    if rolling is not None and strategy.type == "OnDelete":
        faults.append(forbidden(f"{field}.rollingUpdate", "only allowed for updateStrategy 'RollingUpdate'"))
    if rolling is not None:
        faults += not_negative(getattr(rolling, "partition", None), f"{field}.rollingUpdate.partition")
        for attribute, name in (("max_unavailable", "maxUnavailable"), ("max_surge", "maxSurge")):
            faults += share(getattr(rolling, attribute, None), f"{field}.rollingUpdate.{name}")
    return faults


SPEC_RULES: Mapping[tuple[str, str], Callable[[Any], list[Fault]]] = {
    ("apps", "controllerrevisions"): _revision,
    ("batch", "jobs"): _job,
    ("batch", "cronjobs"): _cron_job,
    ("autoscaling", "horizontalpodautoscalers"): _autoscaler,
    ("policy", "poddisruptionbudgets"): _budget,
}
CHANGE_RULES: Mapping[tuple[str, str], Callable[[Any, Any], list[Fault]]] = {
    ("apps", "controllerrevisions"): _revision_change,
    ("batch", "jobs"): _job_change,
}
