"""What the resize subresource may change of a pod: how much CPU and memory its containers get, and nothing else.

Source: KEP-1287; the rules and their words are those of the release in which it became beta (1.33).
"""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from api import quantity
from api.errors import Fault
from api.faults import forbidden, wrong
from api.kinds.pods import Container, ContainerResizePolicy, ContainerStatus, Pod, ResourceRequirements
from api.qos import qos_class
from api.validation.pods import MIRROR, pod_faults
from api.validation.resources import BY_RESTART, RESIZABLE

_NOTHING = ResourceRequirements()
_ONLY = "only cpu and memory resources are mutable"
_ONLY_SIDECARS = "only cpu and memory resources for sidecar containers are mutable"
_NO_INIT = "resources for non-sidecar init containers are immutable"


def resize_faults(old: Pod, new: Pod) -> list[Fault]:
    """Return what is wrong with a resize that makes ``new`` of ``old``."""
    if why := _never_resized(old, new):
        return [forbidden("", why)]
    lists = (
        ("containers", old.spec.containers, new.spec.containers),
        ("initContainers", old.spec.init_containers, new.spec.init_containers),
    )
    faults = pod_faults(new)
    moved = [fault for name, before, after in lists for fault in _order_faults(before, after, name)]
    if moved:
        return faults + moved
    if (old.status.qos_class or qos_class(old.spec)) != qos_class(new.spec):
        why = "Pod QOS Class may not change as a result of resizing"
        faults.append(wrong("spec", new.status.qos_class, why))
    if not _is_supported(old.status.container_statuses):
        faults.append(forbidden("spec", "Pod running on node without support for resize"))
    for name, before, after in lists:
        for index, (mine, theirs) in enumerate(zip(before, after, strict=True)):
            faults += _container_faults(mine, theirs, f"spec.{name}[{index}].resources", init=name != "containers")
    return faults


def _never_resized(old: Pod, new: Pod) -> str:
    if any(each.spec.resources and (each.spec.resources.requests or each.spec.resources.limits) for each in (old, new)):
        return "pods with pod-level resources cannot be resized"
    if MIRROR in old.metadata.annotations:
        return "static pods cannot be resized"
    return "windows pods cannot be resized" if old.spec.os is not None and old.spec.os.name == "windows" else ""


def _order_faults(old: Sequence[Container], new: Sequence[Container], name: str) -> list[Fault]:
    if len(old) != len(new):
        return [forbidden(f"spec.{name}", f"{name} may not be added or removed on resize")]
    return [
        forbidden(f"spec.{name}[{index}].name", f"{name} may not be renamed or reordered on resize")
        for index, (mine, theirs) in enumerate(zip(old, new, strict=True))
        if mine.name != theirs.name
    ]


def _is_supported(statuses: Sequence[ContainerStatus]) -> bool:
    """Return whether the pod's node resizes: an agent that does tells of every running container what it has."""
    running = next((each for each in statuses if each.state is not None and each.state.running is not None), None)
    return running is None or running.resources is not None


def _container_faults(old: Container, new: Container, field: str, *, init: bool) -> list[Fault]:
    sidecar = old.restart_policy == "Always"
    if init and not sidecar:
        return [] if old == new else [forbidden("spec", _NO_INIT)]
    before, after = old.resources or _NOTHING, new.resources or _NOTHING
    faults = [
        forbidden(f"{field}.{part}", f"resource {part} cannot be removed")
        for part in ("requests", "limits")
        if getattr(before, part).keys() - getattr(after, part).keys()
    ]
    faults += _memory_limit_faults(before.limits, after.limits, new.resize_policy, f"{field}.limits[memory]")
    others = replace(new, resources=old.resources, resize_policy=old.resize_policy)
    if others != old or _fixed(before) != _fixed(after):
        faults.append(forbidden("spec", _ONLY_SIDECARS if init else _ONLY))
    return faults


def _memory_limit_faults(
    old: Mapping[str, str], new: Mapping[str, str], policies: Sequence[ContainerResizePolicy], field: str
) -> list[Fault]:
    """Return the fault of a process that would have to do with less memory than it may have already, and lives on."""
    restarts = any((each.resource_name, each.restart_policy) == ("memory", BY_RESTART) for each in policies)
    if restarts or "memory" not in new:
        return []
    if "memory" not in old:
        return [forbidden(field, f"memory limits cannot be added unless resizePolicy is {BY_RESTART}")]
    if quantity.parse(new["memory"]) < quantity.parse(old["memory"]):
        return [forbidden(field, f"memory limits cannot be decreased unless resizePolicy is {BY_RESTART}")]
    return []


def _fixed(resources: ResourceRequirements) -> tuple[object, ...]:
    """Return what of a container's resources stays as it is."""

    def others(amounts: Mapping[str, str]) -> dict[str, object]:
        return {name: quantity.parse(text) for name, text in amounts.items() if name not in RESIZABLE}

    return others(resources.limits), others(resources.requests), resources.claims
