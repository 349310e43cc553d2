"""What a pod spec may not be, wherever it stands, in a pod or in a template, and what may change of a pod's."""

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from api import names
from api.errors import Fault
from api.faults import (
    address_faults,
    annotation_faults,
    check,
    check_optional,
    duplicate,
    forbidden,
    label_map_faults,
    one_of,
    required,
    unsupported,
    within,
    wrong,
)
from api.kinds.pods import (
    Affinity,
    Container,
    NodeAffinity,
    Pod,
    PodSpec,
    PodTemplateSpec,
    ResourceRequirements,
)
from api.kinds.volumes import (
    NodeSelectorTerm,
    PersistentVolumeClaimVolumeSource,
    Volume,
)
from api.validation.containers import Surroundings, containers_faults
from api.validation.placement import placement_faults
from api.validation.resources import requirement_faults
from api.validation.security import host_faults, pod_security_faults, system_faults
from api.validation.volumes import volumes_faults

RESTART_POLICIES = ("Always", "OnFailure", "Never")
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_MOST_NAMESERVERS, _MOST_SEARCHES, _LONGEST_SEARCH = 3, 32, 2048
_LONGEST_DEADLINE_S = 2**31 - 1
# What a stateful set adds to its pods by its claims, as far as the rules for containers care.
_CLAIMED = Volume(persistent_volume_claim=PersistentVolumeClaimVolumeSource())
MIRROR, _DELETION_COST = "kubernetes.io/config.mirror", "controller.kubernetes.io/pod-deletion-cost"


def pod_faults(pod: Pod) -> list[Fault]:
    """Return the faults of a pod, old or new."""
    spec = pod.spec
    faults = _annotations_faults(pod.metadata.annotations, spec, "metadata.annotations")
    faults += _spec_faults(spec, "spec", pod_name=pod.metadata.name, is_pod=True)
    if not spec.service_account_name:
        why = "must not be specified when serviceAccountName is not set"
        faults += [
            forbidden(f"spec.volumes[{index}].projected.sources[{number}].serviceAccountToken", why)
            for index, volume in enumerate(spec.volumes)
            for number, source in enumerate(volume.projected.sources if volume.projected is not None else ())
            if source.service_account_token is not None
        ]
    return faults


def new_pod_faults(pod: Pod) -> list[Fault]:
    """Return what only a new pod may not be."""
    faults = []
    if pod.spec.ephemeral_containers:
        faults.append(forbidden("spec.ephemeralContainers", "cannot be set on create"))
    if pod.spec.node_name and pod.spec.scheduling_gates:
        faults.append(forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared"))
    return faults


def template_faults(
    template: PodTemplateSpec,
    field: str,
    *,
    restart: Iterable[str] = ("Always",),
    owner: str = "",
    claims: Iterable[str] = (),
) -> list[Fault]:
    """Return the faults of a pod template.

    restart: the policies by which its pods may restart; owner: the kind whose pods have no deadline, if it is such a
    one; claims: names of volumes that are added to each pod.
    """
    spec = template.spec
    faults = label_map_faults(template.metadata.labels, f"{field}.labels")
    faults += annotation_faults(template.metadata.annotations, f"{field}.annotations")
    faults += _annotations_faults(template.metadata.annotations, spec, f"{field}.annotations")
    faults += _spec_faults(spec, f"{field}.spec", claims=claims)
    if spec.ephemeral_containers:
        why = "ephemeral containers not allowed in pod template"
        faults.append(forbidden(f"{field}.spec.ephemeralContainers", why))
    if spec.active_deadline_seconds is not None and owner:
        why = f"activeDeadlineSeconds in {owner} is not Supported"
        faults.append(forbidden(f"{field}.spec.activeDeadlineSeconds", why))
    if spec.restart_policy not in restart:
        faults.append(unsupported(f"{field}.spec.restartPolicy", spec.restart_policy, restart))
    return faults


def _annotations_faults(annotations: Mapping[str, str], spec: PodSpec, field: str) -> list[Fault]:
    faults = []
    if MIRROR in annotations and not spec.node_name:
        why = "must set spec.nodeName if mirror pod annotation is set"
        faults.append(wrong(f"{field}[{MIRROR}]", annotations[MIRROR], why))
    cost = annotations.get(_DELETION_COST, "0")
    digits = cost.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10 and -(2**31) <= int(cost) < 2**31):
        faults.append(wrong(f"{field}[{_DELETION_COST}]", cost, "must be a 32bit integer"))
    return faults


def _spec_faults(
    spec: PodSpec, field: str, *, pod_name: str = "", is_pod: bool = False, claims: Iterable[str] = ()
) -> list[Fault]:
    """Return the faults of a defaulted pod spec."""
    volumes, faults = volumes_faults(spec.volumes, pod_name, f"{field}.volumes")
    volumes |= {name: _CLAIMED for name in claims if name not in volumes}
    faults += containers_faults(Surroundings(spec, volumes, is_pod), field)
    faults += one_of(spec.restart_policy, RESTART_POLICIES, f"{field}.restartPolicy")
    faults += one_of(spec.dns_policy, _DNS_POLICIES, f"{field}.dnsPolicy")
    faults += pod_security_faults(spec.security_context, spec, f"{field}.securityContext")
    faults += placement_faults(spec, field) + _dns_faults(spec, f"{field}.dnsConfig") + _gates_faults(spec, field)
    faults += host_faults(spec, field) + system_faults(spec, field)
    for rule, name, value in (
        (names.subdomain, "serviceAccountName", spec.service_account_name),
        (names.subdomain, "nodeName", spec.node_name),
        (names.label, "hostname", spec.hostname),
        (names.label, "subdomain", spec.subdomain),
        (names.subdomain, "priorityClassName", spec.priority_class_name),
        (names.subdomain, "runtimeClassName", spec.runtime_class_name),
    ):
        faults += check_optional(rule, value, f"{field}.{name}")
    faults += within(spec.active_deadline_seconds, 1, _LONGEST_DEADLINE_S, f"{field}.activeDeadlineSeconds")
    for index, alias in enumerate(spec.host_aliases):
        faults += address_faults(alias.ip, f"{field}.hostAliases[{index}].ip")
        for number, host in enumerate(alias.hostnames):
            faults += check(names.subdomain, host, f"{field}.hostAliases[{index}].hostnames[{number}]")
    if spec.preemption_policy:
        faults += one_of(spec.preemption_policy, ("PreemptLowerPriority", "Never"), f"{field}.preemptionPolicy")
    if spec.overhead:
        faults += requirement_faults(ResourceRequirements(limits=spec.overhead), f"{field}.overhead")
    return faults


def _gates_faults(spec: PodSpec, field: str) -> list[Fault]:
    faults: list[Fault] = []
    for index, ready in enumerate(spec.readiness_gates):
        faults += check(names.qualified, ready.condition_type, f"{field}.readinessGates[{index}].conditionType")
    taken: set[str] = set()
    for index, gate in enumerate(spec.scheduling_gates):
        at = f"{field}.schedulingGates[{index}]"
        faults += check(names.qualified, gate.name, at)
        if gate.name in taken:
            faults.append(duplicate(at, gate.name))
        taken.add(gate.name)
    return faults


def _dns_faults(spec: PodSpec, field: str) -> list[Fault]:
    config = spec.dns_config
    if spec.dns_policy == "None":
        if config is None:
            return [required(field, "must provide `dnsConfig` when `dnsPolicy` is None")]
        if not config.nameservers:
            why = "must provide at least one DNS nameserver when `dnsPolicy` is None"
            return [required(f"{field}.nameservers", why)]
    if config is None:
        return []
    faults = []
    if len(config.nameservers) > _MOST_NAMESERVERS:
        why = f"must not have more than {_MOST_NAMESERVERS} nameservers"
        faults.append(wrong(f"{field}.nameservers", config.nameservers, why))
    for index, address in enumerate(config.nameservers):
        faults += address_faults(address, f"{field}.nameservers[{index}]")
    if len(config.searches) > _MOST_SEARCHES:
        why = f"must not have more than {_MOST_SEARCHES} search paths"
        faults.append(wrong(f"{field}.searches", config.searches, why))
    if len(" ".join(config.searches)) > _LONGEST_SEARCH:
        why = f"must not have more than {_LONGEST_SEARCH} characters (including spaces) in the search list"
        faults.append(wrong(f"{field}.searches", config.searches, why))
    for index, search in enumerate(config.searches):
        faults += check(names.subdomain, search.removesuffix("."), f"{field}.searches[{index}]")
    for index, option in enumerate(config.options):
        if not option.name:
            faults.append(required(f"{field}.options[{index}]", "must not be empty"))
    return faults


_POD_CHANGES = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def pod_change_faults(old: Pod, new: Pod) -> list[Fault]:
    """Return what an update changes of a pod and may not."""
    before, after = old.spec, new.spec
    faults = annotation_change_faults(old.metadata.annotations, new.metadata.annotations)
    for name, mine, theirs in (
        ("containers", before.containers, after.containers),
        ("initContainers", before.init_containers, after.init_containers),
    ):
        if len(mine) != len(theirs):
            return [*faults, forbidden(f"spec.{name}", "pod updates may not add or remove containers")]
    faults += _deadline_change_faults(before.active_deadline_seconds, after.active_deadline_seconds)
    borne = {replace(each, toleration_seconds=None) for each in after.tolerations}
    if any(replace(each, toleration_seconds=None) not in borne for each in before.tolerations):
        why = "existing toleration can not be modified except its tolerationSeconds"
        faults.append(forbidden("spec.tolerations", why))
    gates = {each.name for each in before.scheduling_gates}
    faults += [
        forbidden(
            f"spec.schedulingGates[{index}].name",
            f"only deletion is allowed, but found new scheduling gate '{each.name}'",
        )
        for index, each in enumerate(after.scheduling_gates)
        if each.name not in gates
    ]
    faults += _debugger_change_faults(before, after)
    settled = _settled(before, after)
    if gates:
        faults += _gated_faults(before, after)
        settled = _as_if_gated(before, settled)
    return faults if settled == before else [*faults, forbidden("spec", _POD_CHANGES)]


def annotation_change_faults(old: Mapping[str, str], new: Mapping[str, str]) -> list[Fault]:
    """Return the fault of a pod that becomes, or ceases to be, the mirror of one that its node runs by itself."""
    at = f"metadata.annotations[{MIRROR}]"
    if old.get(MIRROR) == new.get(MIRROR):
        return []
    return [forbidden(at, f"may not {'remove or update' if MIRROR in old else 'add'} mirror pod annotation")]


def _deadline_change_faults(old: int | None, new: int | None) -> list[Fault]:
    at = "spec.activeDeadlineSeconds"
    if new is None:
        why = "must not update from a positive integer to nil value"
        return [] if old is None else [wrong(at, new, why)]
    return [wrong(at, new, "must be less than or equal to previous value")] if old is not None and new > old else []


def _debugger_change_faults(old: PodSpec, new: PodSpec) -> list[Fault]:
    at, known, faults = "spec.ephemeralContainers", {each.name: each for each in new.ephemeral_containers}, []
    for each in old.ephemeral_containers:
        if each.name not in known:
            faults.append(forbidden(at, f'existing ephemeral containers "{each.name}" may not be removed\n'))
        elif known[each.name] != each:
            faults.append(forbidden(at, f'existing ephemeral containers "{each.name}" may not be changed\n'))
    return faults


def _settled(old: PodSpec, new: PodSpec) -> PodSpec:
    """Return ``new`` with everything that may change taken from ``old``."""

    def with_images(mine: Sequence[Container], theirs: Sequence[Container]) -> tuple[Container, ...]:
        return tuple(replace(each, image=other.image) for each, other in zip(mine, theirs, strict=True))

    grace_s = new.termination_grace_period_seconds
    if (old.termination_grace_period_seconds or 0) < 0 and grace_s == 1:
        grace_s = old.termination_grace_period_seconds
    return replace(
        new,
        containers=with_images(new.containers, old.containers),
        init_containers=with_images(new.init_containers, old.init_containers),
        active_deadline_seconds=old.active_deadline_seconds,
        tolerations=old.tolerations,
        scheduling_gates=old.scheduling_gates,
        ephemeral_containers=old.ephemeral_containers,
        termination_grace_period_seconds=grace_s,
    )


def _as_if_gated(old: PodSpec, new: PodSpec) -> PodSpec:
    """Return ``new`` with what may change while gates hold a pod back taken from ``old``."""
    affinity = new.affinity
    kept = old.affinity.node_affinity if old.affinity is not None else None
    if affinity is not None:
        affinity = replace(affinity, node_affinity=kept)
        if old.affinity is None and affinity.pod_affinity is None and affinity.pod_anti_affinity is None:
            affinity = None
    elif kept is not None:
        affinity = Affinity(node_affinity=kept)
    return replace(new, node_selector=old.node_selector, affinity=affinity)


def _gated_faults(old: PodSpec, new: PodSpec) -> list[Fault]:
    """Return the faults of changes to where a gated pod may run: it can only be narrowed."""
    faults = []
    if any(new.node_selector.get(key) != value for key, value in old.node_selector.items()):
        why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
        faults.append(wrong("spec.nodeSelector", new.node_selector, why))
    before = _required_terms(old.affinity.node_affinity if old.affinity is not None else None)
    after = _required_terms(new.affinity.node_affinity if new.affinity is not None else None)
    at = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
    if before and len(before) != len(after):
        why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed"
        return [*faults, wrong(at, after, why)]
    why = "only additions are allowed (no mutations or deletions)"
    for index, (mine, theirs) in enumerate(zip(before, after, strict=False)):
        if not _only_adds(mine, theirs):
            faults.append(wrong(f"{at}[{index}]", theirs, why))
    return faults


def _required_terms(affinity: NodeAffinity | None) -> tuple[NodeSelectorTerm, ...]:
    wanted = affinity.required_during_scheduling_ignored_during_execution if affinity is not None else None
    return wanted.node_selector_terms if wanted is not None else ()


def _only_adds(old: NodeSelectorTerm, new: NodeSelectorTerm) -> bool:
    if not old.match_expressions and not old.match_fields:
        return not new.match_expressions and not new.match_fields
    return (
        new.match_expressions[: len(old.match_expressions)] == old.match_expressions
        and new.match_fields[: len(old.match_fields)] == old.match_fields
    )
