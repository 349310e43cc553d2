"""What a pod may not ask of where it runs, and what a node may not ask of the pods that do."""

from collections.abc import Sequence

import msgspec

from api import names
from api.errors import Fault
from api.faults import (
    check,
    check_optional,
    duplicate,
    forbidden,
    label_map_faults,
    one_of,
    operator_faults,
    required,
    selector_faults,
    unsupported,
    wrong,
)
from api.kinds.core import Taint
from api.kinds.pods import (
    Affinity,
    PodAffinityTerm,
    PodSpec,
    Toleration,
    TopologySpreadConstraint,
)
from api.kinds.volumes import NodeSelector, NodeSelectorRequirement, NodeSelectorTerm
from api.meta import LabelSelector

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_MUST, _PREFER = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
_ACTIONS = ("DoNotSchedule", "ScheduleAnyway")
_IN_BOTH = "exists in both matchLabelKeys and labelSelector"
_NO_SELECTOR = "must not be specified when labelSelector is not set"
_POSITIVE = "must be greater than zero"


def placement_faults(spec: PodSpec, field: str) -> list[Fault]:
    """Return the faults of what a pod asks of where it runs."""
    faults = label_map_faults(spec.node_selector, f"{field}.nodeSelector")
    if spec.affinity is not None:
        faults += _affinity_faults(spec.affinity, f"{field}.affinity")
    for index, each in enumerate(spec.topology_spread_constraints):
        later = spec.topology_spread_constraints[index + 1 :]
        faults += _spread_faults(each, later, f"{field}.topologySpreadConstraints[{index}]")
    return faults + tolerations_faults(spec.tolerations, f"{field}.tolerations")


def _affinity_faults(affinity: Affinity, field: str) -> list[Fault]:
    faults: list[Fault] = []
    node = affinity.node_affinity
    if node is not None:
        if node.required_during_scheduling_ignored_during_execution is not None:
            wanted = node.required_during_scheduling_ignored_during_execution
            faults += node_selector_faults(wanted, f"{field}.nodeAffinity.{_MUST}")
        for index, each in enumerate(node.preferred_during_scheduling_ignored_during_execution):
            at = f"{field}.nodeAffinity.{_PREFER}[{index}]"
            faults += _weight_faults(each.weight, at)
            faults += _term_faults(each.preference, f"{at}.preference", values_too=False)
    for name, pods in (("podAffinity", affinity.pod_affinity), ("podAntiAffinity", affinity.pod_anti_affinity)):
        if pods is None:
            continue
        for index, term in enumerate(pods.required_during_scheduling_ignored_during_execution):
            faults += _pod_term_faults(term, f"{field}.{name}.{_MUST}[{index}]")
        for index, weighted in enumerate(pods.preferred_during_scheduling_ignored_during_execution):
            at = f"{field}.{name}.{_PREFER}[{index}]"
            faults += _weight_faults(weighted.weight, at)
            faults += _pod_term_faults(weighted.pod_affinity_term, f"{at}.podAffinityTerm")
    return faults


def _weight_faults(weight: int, field: str) -> list[Fault]:
    return [] if 1 <= weight <= 100 else [wrong(f"{field}.weight", weight, "must be in the range 1-100")]


def node_selector_faults(selector: NodeSelector, field: str) -> list[Fault]:
    """Return the faults of a selector of nodes."""
    at = f"{field}.nodeSelectorTerms"
    if not selector.node_selector_terms:
        return [required(at, "must have at least one node selector term")]
    faults: list[Fault] = []
    for index, term in enumerate(selector.node_selector_terms):
        faults += _term_faults(term, f"{at}[{index}]")
    return faults


def _term_faults(term: NodeSelectorTerm, field: str, *, values_too: bool = True) -> list[Fault]:
    faults: list[Fault] = []
    for index, each in enumerate(term.match_expressions):
        at = f"{field}.matchExpressions[{index}]"
        faults += operator_faults(each.operator, each.values, at, ordered=True)
        faults += check(names.qualified, each.key, f"{at}.key")
        for number, value in enumerate(each.values if values_too else ()):
            faults += check(names.label_value, value, f"{at}.values[{number}]")
    for index, each in enumerate(term.match_fields):
        faults += _field_term_faults(each, f"{field}.matchFields[{index}]")
    return faults


def _field_term_faults(term: NodeSelectorRequirement, field: str) -> list[Fault]:
    faults: list[Fault] = []
    if term.operator not in ("In", "NotIn"):
        faults.append(wrong(f"{field}.operator", term.operator, "not a valid selector operator"))
    elif len(term.values) != 1:
        why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
        faults.append(required(f"{field}.values", why))
    if term.key != "metadata.name":
        return [*faults, wrong(f"{field}.key", term.key, "not a valid field selector key")]
    for index, value in enumerate(term.values):
        faults += check(names.subdomain, value, f"{field}.values[{index}]")
    return faults


def _pod_term_faults(term: PodAffinityTerm, field: str) -> list[Fault]:
    faults = selector_faults(term.label_selector, f"{field}.labelSelector")
    faults += selector_faults(term.namespace_selector, f"{field}.namespaceSelector")
    for namespace in term.namespaces:
        faults += check(names.label, namespace, f"{field}.namespace")
    for name, keys in (("matchLabelKeys", term.match_label_keys), ("mismatchLabelKeys", term.mismatch_label_keys)):
        if keys and term.label_selector is None:
            faults.append(forbidden(f"{field}.{name}", _NO_SELECTOR))
        elif keys:
            for index, key in enumerate(keys):
                faults += check(names.qualified, key, f"{field}.{name}[{index}]")
    for index, key in enumerate(term.match_label_keys):
        if key in term.mismatch_label_keys:
            why = "exists in both matchLabelKeys and mismatchLabelKeys"
            faults.append(wrong(f"{field}.matchLabelKeys[{index}]", key, why))
    if not term.topology_key:
        faults.append(required(f"{field}.topologyKey", "can not be empty"))
    return faults + check(names.qualified, term.topology_key, f"{field}.topologyKey")


def _spread_faults(
    constraint: TopologySpreadConstraint, later: Sequence[TopologySpreadConstraint], field: str
) -> list[Fault]:
    faults = []
    action = constraint.when_unsatisfiable
    if constraint.max_skew <= 0:
        faults.append(wrong(f"{field}.maxSkew", constraint.max_skew, _POSITIVE))
    if not constraint.topology_key:
        faults.append(required(f"{field}.topologyKey", "can not be empty"))
    if action not in _ACTIONS:
        faults.append(unsupported(f"{field}.whenUnsatisfiable", action, _ACTIONS))
    if any((each.topology_key, each.when_unsatisfiable) == (constraint.topology_key, action) for each in later):
        pair = f"{{{constraint.topology_key}, {action}}}"
        faults.append(duplicate(f"{field}.{{topologyKey, whenUnsatisfiable}}", pair))
    least = constraint.min_domains
    if least is not None and least <= 0:
        faults.append(wrong(f"{field}.minDomains", least, _POSITIVE))
    if least is not None and action != "DoNotSchedule":
        why = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
        faults.append(wrong(f"{field}.minDomains", least, why))
    for name, policy in (
        ("nodeAffinityPolicy", constraint.node_affinity_policy),
        ("nodeTaintsPolicy", constraint.node_taints_policy),
    ):
        faults += one_of(policy, ("Honor", "Ignore"), f"{field}.{name}") if policy else []
    faults += _spread_keys_faults(constraint, f"{field}.matchLabelKeys")
    return faults + selector_faults(constraint.label_selector, f"{field}.labelSelector")


def _spread_keys_faults(constraint: TopologySpreadConstraint, field: str) -> list[Fault]:
    selector = constraint.label_selector
    faults = [forbidden(field, _NO_SELECTOR)] if constraint.match_label_keys and selector is None else []
    selected = _keys_of(selector)
    for index, key in enumerate(constraint.match_label_keys):
        faults += check(names.qualified, key, f"{field}[{index}]")
        if key in selected:
            faults.append(wrong(f"{field}[{index}]", key, _IN_BOTH))
    return faults


def _keys_of(selector: LabelSelector | None) -> set[str]:
    return set() if selector is None else {*selector.match_labels, *(each.key for each in selector.match_expressions)}


def tolerations_faults(tolerations: Sequence[Toleration], field: str) -> list[Fault]:
    """Return the faults of the taints that a pod bears."""
    faults: list[Fault] = []
    for index, each in enumerate(tolerations):
        faults += _toleration_faults(each, f"{field}[{index}]")
    return faults


def _toleration_faults(toleration: Toleration, field: str) -> list[Fault]:
    at, operator = f"{field}.operator", toleration.operator
    faults = check_optional(names.qualified, toleration.key, f"{field}.key")
    if not toleration.key and operator != "Exists":
        why = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        faults.append(wrong(at, operator, why))
    if toleration.toleration_seconds is not None and toleration.effect != "NoExecute":
        why = "effect must be 'NoExecute' when `tolerationSeconds` is set"
        faults.append(wrong(f"{field}.effect", toleration.effect, why))
    if operator in ("", "Equal"):
        if reasons := names.label_value(toleration.value):
            faults.append(wrong(at, toleration.value, ";".join(reasons)))
    elif operator != "Exists":
        faults.append(unsupported(at, operator, ("Equal", "Exists")))
    elif toleration.value:
        faults.append(wrong(at, toleration.value, "value must be empty when `operator` is 'Exists'"))
    if toleration.effect:
        faults += one_of(toleration.effect, EFFECTS, f"{field}.effect")
    return faults


def taints_faults(taints: Sequence[Taint], field: str) -> list[Fault]:
    """Return the faults of what keeps pods off a node."""
    faults: list[Fault] = []
    taken: set[tuple[str, str]] = set()
    for index, taint in enumerate(taints):
        at = f"{field}[{index}]"
        faults += check(names.qualified, taint.key, f"{at}.key")
        if reasons := names.label_value(taint.value):
            faults.append(wrong(f"{at}.value", taint.value, ";".join(reasons)))
        faults += one_of(taint.effect, EFFECTS, f"{at}.effect")
        if (taint.key, taint.effect) in taken:
            fault = duplicate(at, taint)
            why = f"{fault.message}: taints must be unique by key and effect pair"
            faults.append(msgspec.structs.replace(fault, message=why))
        taken.add((taint.key, taint.effect))
    return faults
