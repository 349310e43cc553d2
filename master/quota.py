"""What counts against a resource quota, and which objects a quota is about. Pure.

Admission charges by it and the quota controller counts by it, so that the two never disagree.
Source: kubernetes.io, "Resource Quotas".
"""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from api import quantity
from api.kinds.core import ResourceQuota, ScopedResourceSelectorRequirement, Service
from api.kinds.pods import Pod, PodAffinityTerm
from api.kinds.table import Kind
from api.kinds.volumes import PersistentVolumeClaim
from api.meta import Resource
from api.qos import qos_class
from master.lifecycle import seconds
from master.resources import Amounts, added, parsed, pod_limits, pod_requests

ONE = Fraction(1)
_COMPUTE = ("cpu", "memory", "ephemeral-storage")
# Core kinds that may be counted by their plain name, too.
PLAIN_COUNTS = frozenset(
    "pods services replicationcontrollers resourcequotas secrets configmaps persistentvolumeclaims".split()
)
_CLASS_SUFFIX = ".storageclass.storage.k8s.io/"
_BETA_CLASS = "volume.beta.kubernetes.io/storage-class"


def count_name(group: str, plural: str) -> str:
    """Return the name under which objects of a resource are counted: ``count/deployments.apps``."""
    return f"count/{plural}.{group}" if group else f"count/{plural}"


def usage_of(kind: Kind, obj: Resource, now: float) -> dict[str, Fraction]:
    """Return what an object counts for, by the names that quotas use; nothing for a pod that has ended."""
    group, plural = kind.place
    counts = {count_name(group, plural): ONE}
    if not group and plural in PLAIN_COUNTS:
        counts[plural] = ONE
    match obj:
        case Pod():
            return {} if _has_ended(obj, now) else _pod_usage(obj, counts)
        case Service():
            return counts | _service_usage(obj)
        case PersistentVolumeClaim():
            return counts | _claim_usage(obj)
    return counts


def _has_ended(pod: Pod, now: float) -> bool:
    if pod.status.phase in ("Succeeded", "Failed"):
        return True
    # One that should have stopped long ago, on a node that nobody hears of, counts no more.
    gone = pod.metadata.deletion_timestamp
    return bool(gone) and now > seconds(gone) + (pod.metadata.deletion_grace_period_seconds or 0)


def _pod_usage(pod: Pod, counts: dict[str, Fraction]) -> dict[str, Fraction]:
    usage = dict(counts)
    for name, amount in pod_requests(pod).items():
        if name in _COMPUTE or name.startswith("hugepages-"):
            usage[name] = amount
        usage[f"requests.{name}"] = amount
    for name, amount in pod_limits(pod).items():
        if name in _COMPUTE:
            usage[f"limits.{name}"] = amount
    return usage


def _service_usage(service: Service) -> dict[str, Fraction]:
    if service.spec.type not in ("NodePort", "LoadBalancer"):
        return {}
    ports = Fraction(len(service.spec.ports))
    if service.spec.type == "NodePort":
        return {"services.nodeports": ports}
    if service.spec.allocate_load_balancer_node_ports is False:
        ports = Fraction(sum(1 for each in service.spec.ports if each.node_port))
    return {"services.loadbalancers": ONE, "services.nodeports": ports}


def _claim_usage(claim: PersistentVolumeClaim) -> dict[str, Fraction]:
    resources = claim.spec.resources
    requests = parsed(resources.requests) if resources is not None else {}
    usage = {"requests.storage": requests["storage"]} if "storage" in requests else {}
    name = claim.metadata.annotations.get(_BETA_CLASS) or claim.spec.storage_class_name
    if name:
        usage[f"{name}{_CLASS_SUFFIX}persistentvolumeclaims"] = ONE
        if "storage" in requests:
            usage[f"{name}{_CLASS_SUFFIX}requests.storage"] = requests["storage"]
    return usage


# Scopes


def is_about(quota: ResourceQuota, obj: Resource) -> bool:
    """Return whether a quota's scopes take in an object; only pods have any."""
    wanted = requirements(quota)
    if not wanted:
        return True
    return isinstance(obj, Pod) and all(_in_scope(each, obj) for each in wanted)


def requirements(quota: ResourceQuota) -> list[ScopedResourceSelectorRequirement]:
    """Return all of a quota's scopes in their longer form."""
    plain = [ScopedResourceSelectorRequirement(scope_name=name, operator="Exists") for name in quota.spec.scopes]
    selector = quota.spec.scope_selector
    return [*plain, *(selector.match_expressions if selector is not None else ())]


def _in_scope(wanted: ScopedResourceSelectorRequirement, pod: Pod) -> bool:
    match wanted.scope_name:
        case "Terminating":
            return pod.spec.active_deadline_seconds is not None
        case "NotTerminating":
            return pod.spec.active_deadline_seconds is None
        case "BestEffort":
            return qos_class(pod.spec) == "BestEffort"
        case "NotBestEffort":
            return qos_class(pod.spec) != "BestEffort"
        case "CrossNamespacePodAffinity":
            return _reaches_other_namespaces(pod)
        case "PriorityClass":
            return _selects(wanted, pod.spec.priority_class_name)
    return False


def _selects(wanted: ScopedResourceSelectorRequirement, value: str) -> bool:
    match wanted.operator:
        case "In":
            return value in wanted.values
        case "NotIn":
            return value not in wanted.values
        case "DoesNotExist":
            return not value
    return bool(value)


def _reaches_other_namespaces(pod: Pod) -> bool:
    affinity = pod.spec.affinity
    if affinity is None:
        return False
    terms: list[PodAffinityTerm] = []
    for each in (affinity.pod_affinity, affinity.pod_anti_affinity):
        if each is not None:
            terms += each.required_during_scheduling_ignored_during_execution
            terms += [one.pod_affinity_term for one in each.preferred_during_scheduling_ignored_during_execution]
    return any(term.namespaces or term.namespace_selector is not None for term in terms)


# Deciding


def masked(amounts: Amounts, names: Iterable[str]) -> dict[str, Fraction]:
    """Return the amounts of ``names`` alone."""
    wanted = set(names)
    return {name: amount for name, amount in amounts.items() if name in wanted}


def increase(before: Amounts, after: Amounts) -> dict[str, Fraction]:
    """Return by how much each resource grows; those that do not are left out."""
    return {
        name: amount - before.get(name, Fraction())
        for name, amount in after.items()
        if amount > before.get(name, Fraction())
    }


def exceeded(quota: ResourceQuota, wanted: Amounts) -> str:
    """Return why ``wanted`` more does not fit into a quota, in the real server's words; empty if it fits."""
    hard, used = parsed(quota.status.hard), parsed(quota.status.used)
    over = [
        name
        for name, amount in wanted.items()
        if amount > 0 and name in hard and used.get(name, Fraction()) + amount > hard[name]
    ]
    if not over:
        return ""
    parts = (("requested", wanted), ("used", used), ("limited", hard))
    told = ", ".join(
        f"{what}: {pretty({name: amounts.get(name, Fraction()) for name in over})}" for what, amounts in parts
    )
    return f"exceeded quota: {quota.metadata.name}, {told}"


def pretty(amounts: Amounts) -> str:
    """Return ``cpu=1,memory=2Gi``."""
    return ",".join(f"{name}={shown(name, amounts[name])}" for name in sorted(amounts))


def shown(name: str, amount: Fraction) -> str:
    """Return an amount as quotas show it: bytes in binary steps, everything else as a decimal number."""
    if amount.denominator == 1 and ("memory" in name or "storage" in name or "hugepages" in name):
        return quantity.from_bytes(amount.numerator) if "claims" not in name else str(amount)
    if (amount * 1000).denominator == 1:
        return quantity.from_millis(int(amount * 1000))
    return quantity.canonical(f"{float(amount):.9f}")


def unsaid(quota: ResourceQuota, pod: Pod) -> str:
    """Return which containers leave open what a quota counts: ``limits.cpu for: a,b; memory for: b``."""
    problems = []
    for name in sorted(quota.status.hard):
        part, _, resource = (
            name.partition(".") if name.startswith(("requests.", "limits.")) else ("requests", ".", name)
        )
        if resource not in ("cpu", "memory"):
            continue
        silent = [
            container.name
            for container in (*pod.spec.init_containers, *pod.spec.containers)
            if resource not in (getattr(container.resources, part) if container.resources is not None else {})
        ]
        if silent:
            problems.append(f"{name} for: {','.join(sorted(silent))}")
    return "; ".join(problems)


def total(kinds: Iterable[tuple[Kind, Sequence[Resource]]], quota: ResourceQuota, now: float) -> dict[str, Fraction]:
    """Return what all objects of a quota's namespace count for, by the names that it limits."""
    usage: dict[str, Fraction] = dict.fromkeys(quota.spec.hard, Fraction())
    for kind, objects in kinds:
        for obj in objects:
            if is_about(quota, obj):
                usage = added(usage, masked(usage_of(kind, obj, now), quota.spec.hard))
    return usage


def as_text(amounts: Amounts) -> Mapping[str, str]:
    """Return amounts as a status writes them."""
    return {name: shown(name, amount) for name, amount in sorted(amounts.items())}
