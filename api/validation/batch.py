"""What jobs, and what makes them by the clock, may not be."""

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from api import names, selectors
from api.cron import schedule_fault
from api.errors import Fault
from api.faults import (
    check,
    duplicate,
    immutable,
    not_negative,
    one_of,
    required,
    selector_faults,
    too_long,
    too_many,
    unsupported,
    wrong,
)
from api.kinds.batch import (
    CronJob,
    Job,
    JobSpec,
    PodFailurePolicy,
    PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyRule,
)
from api.kinds.pods import Affinity, PodTemplateSpec
from api.validation.pods import RESTART_POLICIES, template_faults
from api.validation.success import success_faults

_LONGEST_CRON_NAME = 52  # eleven characters are left for what a job's name gets
_MOST_INDEXED = 100_000
_MOST_RULES, _MOST_CODES, _MOST_PATTERNS = 20, 255, 20
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_ONLY_INDEXED = "requires indexed completion mode"


def _job_spec(spec: JobSpec, field: str) -> list[Fault]:
    faults: list[Fault] = []
    for name, value in (
        ("parallelism", spec.parallelism),
        ("completions", spec.completions),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index),
        ("maxFailedIndexes", spec.max_failed_indexes),
    ):
        faults += not_negative(value, f"{field}.{name}")
    faults += _managed_by(spec.managed_by, f"{field}.managedBy") + _index_faults(spec, field)
    if spec.pod_failure_policy is not None:
        faults += _failure_faults(spec.pod_failure_policy, spec, f"{field}.podFailurePolicy.rules")
    if spec.pod_replacement_policy:
        policies = ("Failed",) if spec.pod_failure_policy is not None else ("Failed", "TerminatingOrFailed")
        faults += one_of(spec.pod_replacement_policy, policies, f"{field}.podReplacementPolicy")
    faults += template_faults(spec.template, f"{field}.template", restart=RESTART_POLICIES)
    return faults + _restart_faults(spec, f"{field}.template.spec.restartPolicy")


def _managed_by(controller: str, field: str) -> list[Fault]:
    if not controller:
        return []
    domain, slash, path = controller.partition("/")
    if not slash or not domain or not path:
        return [wrong(field, controller, 'must be a domain-prefixed path (such as "acme.io/foo")')]
    faults = check(names.subdomain, domain, field) + check(names.http_path, path, field)
    if len(controller) > names.LONGEST_LABEL:
        faults.append(too_long(field, names.LONGEST_LABEL))
    return faults


def _index_faults(spec: JobSpec, field: str) -> list[Fault]:
    """Return the faults of how a job counts what is done."""
    mode, faults = spec.completion_mode, []
    if mode and mode not in ("Indexed", "NonIndexed"):
        faults.append(unsupported(f"{field}.completionMode", mode, ("Indexed", "NonIndexed")))
    if mode == "Indexed":
        if spec.completions is None:
            faults.append(required(f"{field}.completions", "when completion mode is Indexed"))
        if (spec.parallelism or 0) > _MOST_INDEXED:
            why = f"must be less than or equal to {_MOST_INDEXED} when completion mode is Indexed"
            faults.append(wrong(f"{field}.parallelism", spec.parallelism, why))
        if spec.success_policy is not None:
            faults += success_faults(spec, f"{field}.successPolicy")
    else:
        for name, value in (
            ("backoffLimitPerIndex", spec.backoff_limit_per_index),
            ("maxFailedIndexes", spec.max_failed_indexes),
        ):
            if value is not None:
                faults.append(wrong(f"{field}.{name}", value, _ONLY_INDEXED))
        if spec.success_policy is not None:
            faults.append(wrong(f"{field}.successPolicy", spec.success_policy, _ONLY_INDEXED))
    if spec.max_failed_indexes is not None:
        if spec.completions is not None and spec.max_failed_indexes > spec.completions:
            why = "must be less than or equal to completions"
            faults.append(wrong(f"{field}.maxFailedIndexes", spec.max_failed_indexes, why))
        if spec.backoff_limit_per_index is None:
            faults.append(required(f"{field}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
    return faults


def _restart_faults(spec: JobSpec, field: str) -> list[Fault]:
    policy = spec.template.spec.restart_policy
    if policy in ("Always", ""):  # which it is where nothing is said
        return [required(field, 'valid values: "OnFailure", "Never"')]
    if policy not in RESTART_POLICIES:
        return [unsupported(field, policy, ("OnFailure", "Never"))]
    if spec.pod_failure_policy is not None and policy != "Never":
        return [wrong(field, policy, 'only "Never" is supported when podFailurePolicy is specified')]
    return []


def _failure_faults(policy: PodFailurePolicy, spec: JobSpec, field: str) -> list[Fault]:
    faults: list[Fault] = []
    if len(policy.rules) > _MOST_RULES:
        faults.append(too_many(field, len(policy.rules), _MOST_RULES))
    pod = spec.template.spec
    containers = {each.name for each in (*pod.containers, *pod.init_containers)}
    for index, rule in enumerate(policy.rules):
        faults += _failure_rule(rule, spec, containers, f"{field}[{index}]")
    return faults


def _failure_rule(rule: PodFailurePolicyRule, spec: JobSpec, containers: Collection[str], field: str) -> list[Fault]:
    faults: list[Fault] = []
    if not rule.action:
        faults.append(required(f"{field}.action", 'valid values: ["Count" "FailIndex" "FailJob" "Ignore"]'))
    elif rule.action not in _ACTIONS:
        faults.append(unsupported(f"{field}.action", rule.action, _ACTIONS))
    elif rule.action == "FailIndex" and spec.backoff_limit_per_index is None:
        why = "requires the backoffLimitPerIndex to be set"
        faults.append(wrong(f"{field}.action", rule.action, why))
    if rule.on_exit_codes is not None:
        faults += _codes(rule.on_exit_codes, containers, f"{field}.onExitCodes")
    if len(rule.on_pod_conditions) > _MOST_PATTERNS:
        faults.append(too_many(f"{field}.onPodConditions", len(rule.on_pod_conditions), _MOST_PATTERNS))
    for index, pattern in enumerate(rule.on_pod_conditions):
        at = f"{field}.onPodConditions[{index}]"
        faults += check(names.qualified, pattern.type, f"{at}.type")
        faults += one_of(pattern.status, ("False", "True", "Unknown"), f"{at}.status")
    if rule.on_exit_codes is not None and rule.on_pod_conditions:
        faults.append(wrong(field, rule, "specifying both OnExitCodes and OnPodConditions is not supported"))
    elif rule.on_exit_codes is None and not rule.on_pod_conditions:
        faults.append(wrong(field, rule, "specifying one of OnExitCodes and OnPodConditions is required"))
    return faults


def _codes(rule: PodFailurePolicyOnExitCodesRequirement, containers: Collection[str], field: str) -> list[Fault]:
    faults: list[Fault] = []
    if not rule.operator:
        faults.append(required(f"{field}.operator", 'valid values: ["In" "NotIn"]'))
    elif rule.operator not in ("In", "NotIn"):
        faults.append(unsupported(f"{field}.operator", rule.operator, ("In", "NotIn")))
    if rule.container_name and rule.container_name not in containers:
        why = "must be one of the container or init container names in the pod template"
        faults.append(wrong(f"{field}.containerName", rule.container_name, why))
    at, codes = f"{field}.values", rule.values
    if not codes:
        faults.append(wrong(at, codes, "at least one value is required"))
    elif len(codes) > _MOST_CODES:
        faults.append(too_many(at, len(codes), _MOST_CODES))
    for index, code in enumerate(codes):
        if rule.operator == "In" and code == 0:
            faults.append(wrong(f"{at}[{index}]", code, "must not be 0 for the In operator"))
        if code in codes[:index]:
            faults.append(duplicate(f"{at}[{index}]", code))
    return faults if list(codes) == sorted(codes) else [*faults, wrong(at, codes, "must be ordered")]


def _job(obj: Job) -> list[Fault]:
    spec = obj.spec
    faults: list[Fault] = []
    if spec.completion_mode == "Indexed" and spec.completions:
        last = f"{obj.metadata.name}-{spec.completions - 1}"
        if names.label(last):
            why = f"will not able to create pod with invalid DNS label: {last}"
            faults.append(wrong("metadata.name", obj.metadata.name, why))
    faults += _job_spec(spec, "spec")
    if spec.selector is None:
        return [*faults, required("spec.selector")]
    selection = selector_faults(spec.selector, "spec.selector")
    labels = spec.template.metadata.labels
    if not selection and not selectors.of_struct(spec.selector).matches(labels):
        why = "`selector` does not match template `labels`"
        selection.append(wrong("spec.template.metadata.labels", labels, why))
    return faults + selection


def _job_change(old: Job, new: Job) -> list[Fault]:
    before, after = old.spec, new.spec
    faults = _completions_change(before, after) + immutable(before.selector, after.selector, "spec.selector")
    template = after.template
    if before.suspend and not old.status.start_time:
        template = _placed_as(before.template, template)
    if template != before.template:
        faults.append(wrong("spec.template", after.template, "field is immutable"))
    for attribute, name in (
        ("completion_mode", "completionMode"), ("pod_failure_policy", "podFailurePolicy"),
        ("backoff_limit_per_index", "backoffLimitPerIndex"), ("managed_by", "managedBy"),
        ("success_policy", "successPolicy"),
    ):  # fmt: skip
        faults += immutable(getattr(before, attribute), getattr(after, attribute), f"spec.{name}")
    return faults


def _completions_change(before: JobSpec, after: JobSpec) -> list[Fault]:
    if after.completion_mode != "Indexed":
        return immutable(before.completions, after.completions, "spec.completions")
    if after.completions in (before.completions, after.parallelism, None):
        return []
    return [wrong("spec.completions", after.completions, "can only be modified in tandem with spec.parallelism")]


def _placed_as(old: PodTemplateSpec, new: PodTemplateSpec) -> PodTemplateSpec:
    """Return ``new`` with what may change before a suspended job starts taken from ``old``: where its pods may run."""
    wanted = old.spec.affinity.node_affinity if old.spec.affinity is not None else None
    affinity = replace(new.spec.affinity or Affinity(), node_affinity=wanted)
    spec = replace(
        new.spec,
        affinity=old.spec.affinity if affinity == (old.spec.affinity or Affinity()) else affinity,
        node_selector=old.spec.node_selector,
        tolerations=old.spec.tolerations,
        scheduling_gates=old.spec.scheduling_gates,
    )
    labelled = replace(new.metadata, labels=old.metadata.labels, annotations=old.metadata.annotations)
    return replace(new, metadata=labelled, spec=spec)


def _cron_job(obj: CronJob) -> list[Fault]:
    spec = obj.spec
    faults = _schedule(spec.schedule, spec.time_zone)
    faults += not_negative(spec.starting_deadline_seconds, "spec.startingDeadlineSeconds")
    faults += _zone(spec.time_zone, "spec.timeZone")
    faults += one_of(spec.concurrency_policy, ("Allow", "Forbid", "Replace"), "spec.concurrencyPolicy")
    faults += _job_spec(spec.job_template.spec, "spec.jobTemplate.spec")
    if spec.job_template.spec.manual_selector:
        faults.append(unsupported("spec.jobTemplate.spec.manualSelector", value=True, allowed=("nil", "false")))
    faults += not_negative(spec.successful_jobs_history_limit, "spec.successfulJobsHistoryLimit")
    return faults + not_negative(spec.failed_jobs_history_limit, "spec.failedJobsHistoryLimit")


def _new_cron_job(obj: CronJob) -> list[Fault]:
    if len(obj.metadata.name) <= _LONGEST_CRON_NAME:
        return []
    return [wrong("metadata.name", obj.metadata.name, f"must be no more than {_LONGEST_CRON_NAME} characters")]


def _schedule(schedule: str, zone: str) -> list[Fault]:
    if not schedule:
        return [required("spec.schedule")]
    if "TZ" in schedule:
        why = (
            "cannot use both timeZone field and TZ or CRON_TZ in schedule"
            if zone
            else "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        )
        return [wrong("spec.schedule", schedule, why)]
    return [wrong("spec.schedule", schedule, why)] if (why := schedule_fault(schedule)) else []


def _zone(zone: str, field: str) -> list[Fault]:
    if zone.lower() == "local":
        why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        return [wrong(field, zone, why)]
    return [wrong(field, zone, f"unknown time zone {zone}")] if zone and not _is_zone(zone) else []


@lru_cache(maxsize=256)
def _is_zone(name: str) -> bool:
    """Return whether there is such a zone. Making the list of all of them would read hundreds of files."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # no such zone, no name of one, or a folder of them
        return False
    return True


SPEC_RULES: Mapping[tuple[str, str], Callable[[Any], list[Fault]]] = {
    ("batch", "jobs"): _job,
    ("batch", "cronjobs"): _cron_job,
}
CREATE_RULES: Mapping[tuple[str, str], Callable[[Any], list[Fault]]] = {
    ("batch", "cronjobs"): _new_cron_job,
}
CHANGE_RULES: Mapping[tuple[str, str], Callable[[Any, Any], list[Fault]]] = {
    ("batch", "jobs"): _job_change,
}
