"""What amounts of resources may be called and may be: in containers, quotas, limits and nodes."""

from collections.abc import Collection, Mapping, Sequence

from api import names, quantity
from api.errors import Fault
from api.faults import NEGATIVE, check, duplicate, forbidden, not_found, one_of, required, wrong
from api.kinds.pods import ContainerResizePolicy, ResourceRequirements

_CONTAINER = frozenset({"cpu", "memory", "ephemeral-storage"})
_COUNTED = frozenset({
    "pods", "services", "services.nodeports", "services.loadbalancers", "replicationcontrollers", "resourcequotas",
    "secrets", "configmaps", "persistentvolumeclaims",
})  # fmt: skip
_QUOTA = (
    _CONTAINER
    | _COUNTED
    | {f"{side}.{name}" for side in ("requests", "limits") for name in _CONTAINER}
    | {"requests.storage"}
)
_STANDARD = _QUOTA | {"storage"}
_HUGE = "hugepages-"
# What a running container may get more or less of, and by which policies it does.
RESIZABLE = ("cpu", "memory")
IN_PLACE, BY_RESTART = "NotRequired", "RestartContainer"


def _is_huge(name: str) -> bool:
    return name.startswith(_HUGE)


def is_native(name: str) -> bool:
    """Return whether Kubernetes itself gives the resource called ``name``."""
    return "/" not in name or "kubernetes.io/" in name


def _is_extended(name: str) -> bool:
    return not is_native(name) and not name.startswith("requests.") and not names.qualified(f"requests.{name}")


def _name_faults(name: str, field: str) -> list[Fault]:
    faults = check(names.qualified, name, field)
    standard = name in _STANDARD or _is_huge(name) or name.startswith(f"requests.{_HUGE}")
    if not faults and "/" not in name and not standard:
        faults.append(wrong(field, name, "must be a standard resource type or fully qualified"))
    return faults


def container_name_faults(name: str, field: str) -> list[Fault]:
    """Return why a container cannot have a resource called ``name``."""
    faults = _name_faults(name, field)
    if "/" not in name:
        if name not in _CONTAINER and not _is_huge(name):
            faults.append(wrong(field, name, "must be a standard resource for containers"))
    elif not is_native(name) and not _is_extended(name):
        faults.append(wrong(field, name, "doesn't follow extended resource name standard"))
    return faults


def limited_name_faults(name: str, field: str, *, kind: str) -> list[Fault]:
    """Return why a limit range cannot limit what ``kind`` ("Pod", "PersistentVolumeClaim", ...) uses of a resource."""
    return container_name_faults(name, field) if kind in ("Pod", "Container") else _name_faults(name, field)


def quota_faults(amounts: Mapping[str, str], field: str) -> list[Fault]:
    """Return why ``amounts`` cannot be what a namespace may use at most."""
    faults: list[Fault] = []
    for name, amount in amounts.items():
        at = f"{field}[{name}]"
        faults += _name_faults(name, at)
        if "/" not in name and name not in _QUOTA and not _is_huge(name.removeprefix("requests.")):
            faults.append(wrong(at, name, "must be a standard resource for quota"))
        faults += amount_faults(name, amount, at)
    return faults


def amount_faults(name: str, amount: str, field: str) -> list[Fault]:
    """Return why there cannot be ``amount`` of the resource called ``name``."""
    value = quantity.parse(amount)
    faults = [wrong(field, amount, NEGATIVE)] if value < 0 else []
    if (name in _COUNTED or _is_extended(name)) and value.denominator != 1:
        faults.append(wrong(field, amount, "must be an integer"))
    return faults


def requirement_faults(needs: ResourceRequirements, field: str, *, claims: Collection[str] = ()) -> list[Fault]:
    """Return the faults of what a container requests and is limited to.

    claims: the names of the claims that its pod makes.
    """
    faults: list[Fault] = []
    for side, amounts in (("limits", needs.limits), ("requests", needs.requests)):
        for name, amount in amounts.items():
            at = f"{field}.{side}[{name}]"
            faults += container_name_faults(name, at) + amount_faults(name, amount, at)
            faults += _page_faults(name, amount, at)
            if side == "requests":
                faults += _request_faults(name, amount, needs.limits.get(name), field)
    named = needs.limits.keys() | needs.requests.keys()
    if any(map(_is_huge, named)) and not named & {"cpu", "memory"}:
        faults.append(forbidden(field, "HugePages require cpu or memory"))
    for index, claim in enumerate(needs.claims):
        if not claim.name:
            faults.append(required(f"{field}.claims[{index}]"))
        elif claim.name not in claims:
            listed = ": " + ", ".join(sorted(claims)) if claims else " which is empty"
            why = f"must be one of the names in pod.spec.resourceClaims{listed}"
            faults.append(not_found(f"{field}.claims[{index}]", claim.name, why))
    return faults


def _page_faults(name: str, amount: str, field: str) -> list[Fault]:
    size = name.removeprefix(_HUGE)
    if not _is_huge(name) or not quantity.is_valid(size) or quantity.parse(size) <= 0:
        return []
    pages = quantity.parse(amount) / quantity.parse(size)
    if pages.denominator == 1:
        return []
    return [wrong(field, amount, f"{amount} is not positive integer multiple of {name}")]


def _request_faults(name: str, amount: str, limit: str | None, field: str) -> list[Fault]:
    shared = is_native(name) and not _is_huge(name)  # what may be promised to more than can have it
    if limit is None:
        return [] if shared else [required(f"{field}.limits", "Limit must be set for non overcommitable resources")]
    asked, most = quantity.parse(amount), quantity.parse(limit)
    if asked != most and not shared:
        return [wrong(f"{field}.requests", amount, f"must be equal to {name} limit of {limit}")]
    if asked > most:
        return [wrong(f"{field}.requests", amount, f"must be less than or equal to {name} limit of {limit}")]
    return []


def resize_policy_faults(policies: Sequence[ContainerResizePolicy], field: str, *, pod_restarts: str) -> list[Fault]:
    """Return the faults of what a container says of its own resizing.

    pod_restarts: the restart policy of its pod; a pod that never restarts is never resized by restarting.
    """
    faults: list[Fault] = []
    taken: set[str] = set()
    for index, each in enumerate(policies):
        if each.resource_name in taken:
            faults.append(duplicate(f"{field}[{index}]", each.resource_name))
        taken.add(each.resource_name)
        faults += one_of(each.resource_name, RESIZABLE, field)
        faults += one_of(each.restart_policy, (IN_PLACE, BY_RESTART), field)
        if pod_restarts == "Never" and each.restart_policy != IN_PLACE:
            faults.append(wrong(field, each.restart_policy, "must be 'NotRequired' when `restartPolicy` is 'Never'"))
    return faults
