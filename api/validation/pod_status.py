"""What the status of a pod may not be told to be, or not any more."""

import ipaddress
from collections.abc import Iterable, Sequence

from api import names
from api.errors import Fault
from api.faults import address_faults, check, duplicate, forbidden, immutable, is_address, wrong
from api.kinds.pods import ContainerStatus, Pod, PodStatus
from api.validation.pods import annotation_change_faults

_SYSTEM_CONDITIONS = ("PodScheduled", "Ready", "Initialized")
_ONE_OF_EACH = "may specify no more than one IP for each IP family"


def pod_status_faults(old: Pod, new: Pod) -> list[Fault]:
    """Return the faults of a write to a pod's status."""
    before, after = old.status, new.status
    faults = annotation_change_faults(old.metadata.annotations, new.metadata.annotations)
    for index, condition in enumerate(after.conditions):
        if condition.type not in _SYSTEM_CONDITIONS:
            # The real server names the field so.
            faults += check(names.qualified, condition.type, f"metadata.conditions[{index}].Type")
    if after.nominated_node_name not in ("", before.nominated_node_name):
        faults += check(names.subdomain, after.nominated_node_name, "status.nominatedNodeName")
    faults += immutable(before.qos_class, after.qos_class, "status.qosClass")
    return faults + _transition_faults(old, new) + _claims_faults(new) + _addresses_faults(after)


def _transition_faults(old: Pod, new: Pod) -> list[Fault]:
    """Return the faults of containers that run again and must not: some have waited for their end."""
    policy, before, after = old.spec.restart_policy, old.status, new.status
    sidecars = {each.name for each in old.spec.init_containers if each.restart_policy == "Always"}
    faults = _revived(before.container_statuses, after.container_statuses, "containerStatuses", policy)
    inits = before.init_container_statuses, after.init_container_statuses
    faults += _revived(*inits, "initContainerStatuses", policy, spared=sidecars)
    debuggers = before.ephemeral_container_statuses, after.ephemeral_container_statuses
    return faults + _revived(*debuggers, "ephemeralContainerStatuses", "Never")


def _revived(
    old: Sequence[ContainerStatus],
    new: Iterable[ContainerStatus],
    field: str,
    policy: str,
    *,
    spared: Iterable[str] = (),
) -> list[Fault]:
    if policy == "Always":
        return []
    alive = {each.name for each in new if each.state is None or each.state.terminated is None}
    faults = []
    for index, each in enumerate(old):
        ended = each.state.terminated if each.state is not None else None
        if ended is None or each.name in spared or (policy == "OnFailure" and ended.exit_code):
            continue
        if each.name in alive:
            why = "may not be transitioned to non-terminated state"
            faults.append(forbidden(f"status.{field}[{index}].state", why))
    return faults


def _claims_faults(pod: Pod) -> list[Fault]:
    made = {each.name for each in pod.spec.resource_claims}
    faults: list[Fault] = []
    taken: set[str] = set()
    for index, each in enumerate(pod.status.resource_claim_statuses):
        at = f"status.resourceClaimStatuses[{index}].name"
        if each.name not in made:
            faults.append(wrong(at, each.name, "must match the name of an entry in `spec.resourceClaims`"))
        if each.name in taken:
            faults.append(duplicate(at, each.name))
        taken.add(each.name)
        if each.resource_claim_name:
            faults += check(names.subdomain, each.resource_claim_name, at)
    return faults


def _addresses_faults(status: PodStatus) -> list[Fault]:
    faults: list[Fault] = []
    for name, addresses in (
        ("podIPs", [each.ip for each in status.pod_ips]),
        ("hostIPs", [each.ip for each in status.host_ips]),
    ):
        if name == "hostIPs" and addresses and status.host_ip != addresses[0]:
            faults.append(wrong("status.hostIPs[0].ip", addresses[0], "must be equal to `hostIP`"))
        for index, address in enumerate(addresses):
            faults += address_faults(address, f"status.{name}[{index}]")
        families = [ipaddress.ip_address(each).version for each in addresses if is_address(each)]
        if len(families) > len(set(families)):
            faults.append(wrong(f"status.{name}", addresses, _ONE_OF_EACH))
    return faults
