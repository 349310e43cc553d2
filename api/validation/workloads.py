"""What kinds that keep pods running may not be."""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from api import selectors
from api.errors import Fault
from api.faults import (
    forbidden,
    immutable,
    is_nothing,
    not_above_all,
    not_negative,
    one_of,
    required,
    selector_faults,
    share,
    unsupported,
    wrong,
)
from api.kinds.apps import (
    DaemonSet,
    DaemonSetUpdateStrategy,
    Deployment,
    DeploymentStrategy,
    ReplicaSet,
    StatefulSet,
    StatefulSetUpdateStrategy,
)
from api.kinds.core import ReplicationController
from api.kinds.pods import PodTemplateSpec
from api.meta import LabelSelector
from api.validation.claims import claim_spec_faults
from api.validation.pods import RESTART_POLICIES, template_faults

_NO_MATCH = "`selector` does not match template `labels`"


def _selector_faults(selector: LabelSelector, template: PodTemplateSpec) -> list[Fault]:
    """Return the faults of a selector that is missing, malformed, or misses its own template."""
    faults = selector_faults(selector, "spec.selector")
    labels = template.metadata.labels
    if not selector.match_labels and not selector.match_expressions:
        return [required("spec.selector"), wrong("spec.template.metadata.labels", labels, _NO_MATCH)]
    if not faults and not selectors.of_struct(selector).matches(labels):
        faults.append(wrong("spec.template.metadata.labels", labels, _NO_MATCH))
    return faults


def _deployment(obj: Deployment) -> list[Fault]:
    spec = obj.spec
    faults = not_negative(spec.replicas, "spec.replicas") + _selector_faults(spec.selector, spec.template)
    faults += template_faults(spec.template, "spec.template", owner="ReplicaSet")
    if spec.strategy is not None:
        faults += _strategy(spec.strategy, "spec.strategy")
    faults += not_negative(spec.min_ready_seconds, "spec.minReadySeconds")
    faults += not_negative(spec.revision_history_limit, "spec.revisionHistoryLimit")
    deadline = spec.progress_deadline_seconds
    faults += not_negative(deadline, "spec.progressDeadlineSeconds")
    if deadline is not None and deadline <= (spec.min_ready_seconds or 0):
        faults.append(wrong("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
    return faults


def _strategy(strategy: DeploymentStrategy, field: str) -> list[Fault]:
    rolling, at = strategy.rolling_update, f"{field}.rollingUpdate"
    if strategy.type == "Recreate":
        why = "may not be specified when strategy `type` is 'Recreate'"
        return [forbidden(at, why)] if rolling is not None else []
    if strategy.type != "RollingUpdate":
        return [unsupported(f"{field}.type", strategy.type, ("Recreate", "RollingUpdate"))]
    if rolling is None:
        return [required(at, "this should be defaulted and never be nil")]
    faults = share(rolling.max_unavailable, f"{at}.maxUnavailable") + share(rolling.max_surge, f"{at}.maxSurge")
    if is_nothing(rolling.max_unavailable) and is_nothing(rolling.max_surge):
        faults.append(wrong(f"{at}.maxUnavailable", rolling.max_unavailable, "may not be 0 when `maxSurge` is 0"))
    return faults + not_above_all(rolling.max_unavailable, f"{at}.maxUnavailable")


def _replica_set(obj: ReplicaSet) -> list[Fault]:
    faults = not_negative(obj.spec.replicas, "spec.replicas")
    faults += not_negative(obj.spec.min_ready_seconds, "spec.minReadySeconds")
    faults += _selector_faults(obj.spec.selector, obj.spec.template)
    return faults + template_faults(obj.spec.template, "spec.template", owner="ReplicaSet")


def _stateful_set(obj: StatefulSet) -> list[Fault]:
    spec, faults = obj.spec, []
    if not spec.pod_management_policy:
        faults.append(required("spec.podManagementPolicy"))
    elif spec.pod_management_policy not in ("OrderedReady", "Parallel"):
        why = "must be 'OrderedReady' or 'Parallel'"
        faults.append(wrong("spec.podManagementPolicy", spec.pod_management_policy, why))
    if spec.update_strategy is not None:
        faults += _stateful_update(spec.update_strategy, "spec.updateStrategy")
    kept = spec.persistent_volume_claim_retention_policy
    for name, policy in (("whenDeleted", kept.when_deleted), ("whenScaled", kept.when_scaled)) if kept else ():
        faults += one_of(policy, ("Delete", "Retain"), f"spec.persistentVolumeClaimRetentionPolicy.{name}")
    faults += not_negative(spec.replicas, "spec.replicas") + not_negative(
        spec.min_ready_seconds, "spec.minReadySeconds"
    )
    if spec.ordinals is not None:
        faults += not_negative(spec.ordinals.start, "spec.ordinals.start")
    faults += _selector_faults(spec.selector, spec.template)
    for index, claim in enumerate(spec.volume_claim_templates):
        faults += claim_spec_faults(claim.spec, f"spec.volumeClaimTemplates[{index}].spec")
    claims = [each.metadata.name for each in spec.volume_claim_templates]
    return faults + template_faults(spec.template, "spec.template", owner="StatefulSet", claims=claims)


def _stateful_update(strategy: StatefulSetUpdateStrategy, field: str) -> list[Fault]:
    rolling, at = strategy.rolling_update, f"{field}.rollingUpdate"
    if not strategy.type:
        return [required(field)]
    if strategy.type == "OnDelete":
        return [] if rolling is None else [wrong(at, rolling, "only allowed for updateStrategy 'RollingUpdate'")]
    if strategy.type != "RollingUpdate":
        return [wrong(field, strategy, "must be 'RollingUpdate' or 'OnDelete'")]
    if rolling is None:
        return []
    faults = not_negative(rolling.partition, f"{at}.partition")
    if rolling.max_unavailable is not None:
        faults += share(rolling.max_unavailable, f"{at}.maxUnavailable")
        if is_nothing(rolling.max_unavailable):
            faults.append(wrong(f"{at}.maxUnavailable", rolling.max_unavailable, "cannot be 0"))
        faults += not_above_all(rolling.max_unavailable, f"{at}.maxUnavailable")
    return faults


def _daemon_set(obj: DaemonSet) -> list[Fault]:
    spec = obj.spec
    faults = _selector_faults(spec.selector, spec.template)
    faults += template_faults(spec.template, "spec.template", owner="DaemonSet")
    faults += not_negative(spec.min_ready_seconds, "spec.minReadySeconds")
    if spec.update_strategy is not None:
        faults += _daemon_update(spec.update_strategy, "spec.updateStrategy")
    return faults + not_negative(spec.revision_history_limit, "spec.revisionHistoryLimit")


def _daemon_update(strategy: DaemonSetUpdateStrategy, field: str) -> list[Fault]:
    rolling, at = strategy.rolling_update, f"{field}.rollingUpdate"
    if strategy.type == "OnDelete":
        return []
    if strategy.type != "RollingUpdate":
        return [unsupported(field, strategy, ("RollingUpdate", "OnDelete"))]
    if rolling is None:
        return [required(at)]
    down, up = rolling.max_unavailable, rolling.max_surge
    faults = share(down, f"{at}.maxUnavailable") + share(up, f"{at}.maxSurge")
    faults += not_above_all(down, f"{at}.maxUnavailable") + not_above_all(up, f"{at}.maxSurge")
    if not is_nothing(down) and not is_nothing(up):
        faults.append(wrong(f"{at}.maxSurge", up, "may not be set when maxUnavailable is non-zero"))
    elif is_nothing(down) and is_nothing(up):
        faults.append(required(f"{at}.maxUnavailable", "cannot be 0 when maxSurge is 0"))
    return faults


def _replication_controller(obj: ReplicationController) -> list[Fault]:
    spec = obj.spec
    faults = not_negative(spec.min_ready_seconds, "spec.minReadySeconds")
    if not spec.selector:
        faults.append(required("spec.selector"))
    faults += not_negative(spec.replicas, "spec.replicas")
    labels = spec.template.metadata.labels
    if not selectors.of_map(spec.selector).matches(labels):
        faults.append(wrong("spec.template.metadata.labels", labels, _NO_MATCH))
    return faults + template_faults(spec.template, "spec.template", owner="ReplicationController")


def _pod_template(obj: Any) -> list[Fault]:
    return template_faults(obj.template, "template", restart=RESTART_POLICIES)


def _revision(obj: Any) -> list[Fault]:
    faults = [] if obj.data is not None else [required("data", "data is mandatory")]
    return faults + not_negative(obj.revision, "revision")


def _same_selector(old: Any, new: Any) -> list[Fault]:
    return immutable(old.spec.selector, new.spec.selector, "spec.selector")


_STATEFUL_CHANGES = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)


def _stateful_set_change(old: StatefulSet, new: StatefulSet) -> list[Fault]:
    before = old.spec
    settled = replace(
        new.spec,
        replicas=before.replicas,
        ordinals=before.ordinals,
        template=before.template,
        update_strategy=before.update_strategy,
        revision_history_limit=before.revision_history_limit,
        persistent_volume_claim_retention_policy=before.persistent_volume_claim_retention_policy,
        min_ready_seconds=before.min_ready_seconds,
    )
    return [] if settled == before else [forbidden("spec", _STATEFUL_CHANGES)]


def _revision_change(old: Any, new: Any) -> list[Fault]:
    return immutable(old.data, new.data, "data")


SPEC_RULES: Mapping[tuple[str, str], Callable[[Any], list[Fault]]] = {
    ("", "podtemplates"): _pod_template,
    ("", "replicationcontrollers"): _replication_controller,
    ("apps", "controllerrevisions"): _revision,
    ("apps", "daemonsets"): _daemon_set,
    ("apps", "deployments"): _deployment,
    ("apps", "replicasets"): _replica_set,
    ("apps", "statefulsets"): _stateful_set,
}
CHANGE_RULES: Mapping[tuple[str, str], Callable[[Any, Any], list[Fault]]] = {
    ("apps", "controllerrevisions"): _revision_change,
    ("apps", "daemonsets"): _same_selector,
    ("apps", "deployments"): _same_selector,
    ("apps", "replicasets"): _same_selector,
    ("apps", "statefulsets"): _stateful_set_change,
}
