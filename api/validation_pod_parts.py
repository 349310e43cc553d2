"""What the parts of a pod spec beside its containers may not be: volumes' sources, affinity, spreading, security."""

from collections.abc import Iterable
from typing import Any

from api import quantity
from api.errors import Fault
from api.faults import (
    ADDRESS_RULE,
    forbidden,
    is_address,
    label_map_faults,
    not_negative,
    one_of,
    required,
    selector_faults,
    wrong,
)
from api.kinds.pods import Container, EnvVar, PodAffinityTerm, PodSpec
from api.kinds.volumes import NodeSelectorTerm, Volume

# source -> the fields that it cannot do without
_NEEDED: dict[str, tuple[tuple[str, str], ...]] = {
    "config_map": (("name", "name"),),
    "host_path": (("path", "path"),),
    "iscsi": (("target_portal", "targetPortal"), ("iqn", "iqn")),
    "nfs": (("server", "server"), ("path", "path")),
    "persistent_volume_claim": (("claim_name", "claimName"),),
    "secret": (("secret_name", "secretName"),),
    "csi": (("driver", "driver"),),
}
_JSON = {"config_map": "configMap", "host_path": "hostPath", "persistent_volume_claim": "persistentVolumeClaim"}


def source_faults(volume: Volume, field: str) -> list[Fault]:
    """Return what a volume's source lacks."""
    faults = []
    for attribute, needed in _NEEDED.items():
        source = getattr(volume, attribute)
        if source is not None:
            at = f"{field}.{_JSON.get(attribute, attribute)}"
            faults += [required(f"{at}.{json}") for name, json in needed if not getattr(source, name)]
    if volume.host_path is not None and ".." in volume.host_path.path.split("/"):
        faults.append(wrong(f"{field}.hostPath.path", volume.host_path.path, "must not contain '..'"))
    limit = volume.empty_dir.size_limit if volume.empty_dir is not None else ""
    if limit and quantity.parse(limit) < 0:
        faults.append(forbidden(f"{field}.emptyDir.sizeLimit", "SizeLimit field must be a valid resource quantity"))
    return faults


def env_faults(env: EnvVar, field: str) -> list[Fault]:
    """Return the faults of where a variable's value comes from."""
    source = env.value_from
    if source is None:
        return []
    refs = (
        ("fieldRef", source.field_ref, "field_path", "fieldPath"),
        ("resourceFieldRef", source.resource_field_ref, "resource", "resource"),
        ("configMapKeyRef", source.config_map_key_ref, "key", "key"),
        ("secretKeyRef", source.secret_key_ref, "key", "key"),
    )
    given: list[tuple[str, Any, str, str]] = [each for each in refs if each[1] is not None]
    if len(given) > 1:
        return [wrong(field, "", "may not have more than one field specified at a time")]
    if not given and source.file_key_ref is None:
        return [
            wrong(field, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`")
        ]
    return [required(f"{field}.{name}.{json}") for name, ref, attribute, json in given if not getattr(ref, attribute)]


def security_faults(container: Container, field: str) -> list[Fault]:
    """Return the faults of a container's security context."""
    context = container.security_context
    if context is None:
        return []
    faults = []
    for attribute, json in (("run_as_user", "runAsUser"), ("run_as_group", "runAsGroup")):
        faults += not_negative(getattr(context, attribute), f"{field}.{json}")
    if context.allow_privilege_escalation is False and context.privileged:
        why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        faults.append(wrong(field, "", why))
    return faults


def placement_faults(spec: PodSpec, field: str) -> list[Fault]:
    """Return the faults of what a pod asks of where it runs."""
    return _spread_faults(spec, f"{field}.topologySpreadConstraints") + _affinity_faults(spec, f"{field}.affinity")


def _spread_faults(spec: PodSpec, field: str) -> list[Fault]:
    faults = []
    for index, each in enumerate(spec.topology_spread_constraints):
        at = f"{field}[{index}]"
        if each.max_skew <= 0:
            faults.append(wrong(f"{at}.maxSkew", each.max_skew, "must be greater than zero"))
        if not each.topology_key:
            faults.append(required(f"{at}.topologyKey", "can not be empty"))
        faults += one_of(each.when_unsatisfiable, ("DoNotSchedule", "ScheduleAnyway"), f"{at}.whenUnsatisfiable")
        faults += selector_faults(each.label_selector, f"{at}.labelSelector")
    return faults


def _affinity_faults(spec: PodSpec, field: str) -> list[Fault]:
    affinity = spec.affinity
    if affinity is None:
        return []
    faults = []
    node = affinity.node_affinity
    must, prefer = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
    if node is not None:
        wanted = node.required_during_scheduling_ignored_during_execution
        if wanted is not None:
            at = f"{field}.nodeAffinity.{must}.nodeSelectorTerms"
            if not wanted.node_selector_terms:
                faults.append(required(at, "must have at least one node selector term"))
            for index, term in enumerate(wanted.node_selector_terms):
                faults += _term_faults(term, f"{at}[{index}]")
        for index, each in enumerate(node.preferred_during_scheduling_ignored_during_execution):
            at = f"{field}.nodeAffinity.{prefer}[{index}]"
            faults += _weight_faults(each.weight, at) + _term_faults(each.preference, f"{at}.preference")
    for name, pods in (("podAffinity", affinity.pod_affinity), ("podAntiAffinity", affinity.pod_anti_affinity)):
        if pods is None:
            continue
        faults += _pod_terms(pods.required_during_scheduling_ignored_during_execution, f"{field}.{name}.{must}")
        for index, weighted in enumerate(pods.preferred_during_scheduling_ignored_during_execution):
            at = f"{field}.{name}.{prefer}[{index}]"
            faults += _weight_faults(weighted.weight, at)
            faults += _pod_term(weighted.pod_affinity_term, f"{at}.podAffinityTerm")
    return faults


def _weight_faults(weight: int, field: str) -> list[Fault]:
    return [] if 1 <= weight <= 100 else [wrong(f"{field}.weight", weight, "must be in the range 1-100")]


def _pod_terms(terms: Iterable[PodAffinityTerm], field: str) -> list[Fault]:
    return [fault for index, term in enumerate(terms) for fault in _pod_term(term, f"{field}[{index}]")]


def _pod_term(term: PodAffinityTerm, field: str) -> list[Fault]:
    faults = [] if term.topology_key else [required(f"{field}.topologyKey", "can not be empty")]
    return faults + selector_faults(term.label_selector, f"{field}.labelSelector")


def _term_faults(term: NodeSelectorTerm, field: str) -> list[Fault]:
    faults = []
    for index, each in enumerate(term.match_expressions):
        at = f"{field}.matchExpressions[{index}]"
        if each.operator in ("In", "NotIn"):
            if not each.values:
                faults.append(required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif each.operator in ("Exists", "DoesNotExist"):
            if each.values:
                why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                faults.append(forbidden(f"{at}.values", why))
        elif each.operator in ("Gt", "Lt"):
            if len(each.values) != 1:
                why = "must be specified single value when `operator` is 'Lt' or 'Gt'"
                faults.append(required(f"{at}.values", why))
        else:
            faults.append(wrong(f"{at}.operator", each.operator, "not a valid selector operator"))
        faults += label_map_faults({each.key: ""}, f"{at}.key")
    return faults


def host_alias_faults(spec: PodSpec, field: str) -> list[Fault]:
    """Return the faults of the lines that a pod wants in its hosts file."""
    return [
        wrong(f"{field}[{index}].ip", each.ip, ADDRESS_RULE)
        for index, each in enumerate(spec.host_aliases)
        if not is_address(each.ip)
    ]
