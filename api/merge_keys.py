"""How lists merge: the facts behind strategic merge patch, server-side apply and the OpenAPI extensions.

The real types carry them as struct tags; the client models that the kinds are generated from do not, so they stand
here. (struct, attribute) -> how. Source: the ``x-kubernetes-patch-*`` and ``x-kubernetes-list-*`` extensions of the
published OpenAPI document.
"""

from typing import Any, NamedTuple


class ListRule(NamedTuple):
    """How one list merges."""

    patch_key: str = ""  # strategic merge: the field that tells items apart; "" with merge=True: a list of scalars
    merge: bool = True  # strategic merge: merged (True) or replaced as a whole (False)
    map_keys: tuple[str, ...] = ()  # server-side apply: list-type map, with these keys
    set_: bool = False  # server-side apply: list-type set
    retain_keys: bool = False  # strategic merge: $retainKeys applies
    key_defaults: tuple[tuple[str, Any], ...] = ()  # what keys stand for that an item leaves out


def _keyed(key: str, *map_keys: str) -> ListRule:
    return ListRule(key, map_keys=map_keys or (key,))


_CONDITIONS = _keyed("type")
_CONTAINERS = _keyed("name")
_HEALTH = _keyed("status", "status", "reason")
_SET = ListRule(merge=False, set_=True)

LIST_RULES: dict[tuple[str, str], ListRule] = {
    ("ObjectMeta", "finalizers"): ListRule(set_=True),
    ("ObjectMeta", "owner_references"): _keyed("uid"),
    ("PodSpec", "containers"): _CONTAINERS,
    ("PodSpec", "init_containers"): _CONTAINERS,
    ("PodSpec", "ephemeral_containers"): _CONTAINERS,
    ("PodSpec", "volumes"): ListRule("name", map_keys=("name",), retain_keys=True),
    ("PodSpec", "image_pull_secrets"): _keyed("name"),
    ("PodSpec", "host_aliases"): _keyed("ip"),
    ("PodSpec", "topology_spread_constraints"): _keyed("topologyKey", "topologyKey", "whenUnsatisfiable"),
    ("PodSpec", "readiness_gates"): ListRule(merge=False),
    ("PodSpec", "resource_claims"): ListRule("name", map_keys=("name",), retain_keys=True),
    ("PodSpec", "scheduling_gates"): _keyed("name"),
    ("PodSpec", "eviction_responders"): _keyed("name"),
    ("PodSecurityContext", "sysctls"): ListRule(merge=False),
    ("PodStatus", "conditions"): _CONDITIONS,
    ("PodStatus", "pod_ips"): _keyed("ip"),
    ("PodStatus", "host_ips"): ListRule("ip"),
    ("PodStatus", "resource_claim_statuses"): ListRule("name", map_keys=("name",), retain_keys=True),
    ("PodStatus", "node_allocatable_resource_claim_statuses"): _keyed("resourceClaimName"),
    ("PodStatus", "volume_health"): ListRule(merge=False, map_keys=("name",)),
    ("PodVolumeHealth", "health_conditions"): _HEALTH,
    ("VolumeHealthStatus", "health_conditions"): _HEALTH,
    ("NodeAllocatableResourceClaimStatus", "containers"): _SET,
    ("NodeAllocatableResourceClaimStatus", "mapping"): _keyed("name"),
    ("NodeAllocatableResourceClaimStatus", "overhead"): _keyed("name"),
    ("ContainerStatus", "allocated_resources_status"): _keyed("name"),
    ("ContainerStatus", "volume_mounts"): _keyed("mountPath"),
    ("ResourceStatus", "resources"): ListRule(merge=False, map_keys=("resourceID",)),
    ("ContainerRestartRuleOnExitCodes", "values"): _SET,
    ("VolumeMount", "bind_mount_options"): _SET,
    ("NodePodPreemptionPolicy", "disable_resize_preemption"): _SET,
    ("Container", "env"): _keyed("name"),
    ("Container", "ports"): _keyed("containerPort", "containerPort", "protocol"),
    ("Container", "volume_mounts"): _keyed("mountPath"),
    ("Container", "volume_devices"): _keyed("devicePath"),
    ("EphemeralContainer", "env"): _keyed("name"),
    ("EphemeralContainer", "ports"): _keyed("containerPort", "containerPort", "protocol"),
    ("EphemeralContainer", "volume_mounts"): _keyed("mountPath"),
    ("EphemeralContainer", "volume_devices"): _keyed("devicePath"),
    ("ResourceRequirements", "claims"): ListRule(merge=False, map_keys=("name",)),
    ("ProjectedVolumeSource", "sources"): ListRule(merge=False),
    ("ServiceSpec", "ports"): _keyed("port", "port", "protocol"),
    ("ServiceStatus", "conditions"): _CONDITIONS,
    ("ServiceAccount", "secrets"): _keyed("name"),
    ("NodeSpec", "pod_cidrs"): ListRule(set_=True),
    ("NodeStatus", "conditions"): _CONDITIONS,
    ("NodeStatus", "addresses"): _keyed("type"),
    ("NamespaceStatus", "conditions"): _CONDITIONS,
    ("ReplicationControllerStatus", "conditions"): _CONDITIONS,
    ("PersistentVolumeClaimStatus", "conditions"): _CONDITIONS,
    ("ComponentStatus", "conditions"): _CONDITIONS,
    ("DeploymentStatus", "conditions"): _CONDITIONS,
    ("ReplicaSetStatus", "conditions"): _CONDITIONS,
    ("StatefulSetStatus", "conditions"): _CONDITIONS,
    ("DaemonSetStatus", "conditions"): _CONDITIONS,
    ("JobStatus", "conditions"): ListRule("type"),
    ("JobSchedulingConfiguration", "resource_claims"): _keyed("name"),
    ("PodFailurePolicyOnExitCodesRequirement", "values"): _SET,
    ("UncountedTerminatedPods", "failed"): _SET,
    ("UncountedTerminatedPods", "succeeded"): _SET,
    ("PodDisruptionBudgetStatus", "conditions"): _CONDITIONS,
    ("HorizontalPodAutoscalerStatusV2", "conditions"): _CONDITIONS,
    ("CustomResourceDefinitionStatus", "conditions"): _CONDITIONS,
    ("CertificateSigningRequestStatus", "conditions"): ListRule(merge=False, map_keys=("type",)),
    ("EndpointSlice", "endpoints"): ListRule(merge=False),
    ("ServiceAccount", "image_pull_secrets"): ListRule(merge=False),
    ("Endpoint", "addresses"): _SET,
    ("CSIDriverSpec", "volume_lifecycle_modes"): _SET,
    ("CSINodeSpec", "drivers"): _keyed("name"),
    ("CSINodeStatus", "storage_health"): _keyed("name"),
    ("JSONSchemaProps", "x_kubernetes_validations"): _keyed("rule"),
}
# Structs of which a patch that lists $retainKeys keeps no other field.
RETAIN_KEYS = frozenset({("DeploymentSpec", "strategy")})


# Structs that server-side apply takes as a whole: references and selectors make sense only together.
ATOMIC_STRUCTS = frozenset(
    """
    LabelSelector NodeSelector NodeSelectorTerm ObjectReference LocalObjectReference ConfigMapKeySelector
    SecretKeySelector FileKeySelector ObjectFieldSelector ResourceFieldSelector TypedLocalObjectReference ScopeSelector
    SecretReference EndpointAddress EndpointPort TopologySelectorTerm CrossVersionObjectReference
    RoleRef Subject ServiceBackendPort OwnerReference EvictionResponder
""".split()
)
# Maps that it takes as a whole: (struct, attribute).
ATOMIC_MAPS = frozenset({
    ("PodSpec", "node_selector"), ("ServiceSpec", "selector"), ("ReplicationControllerSpec", "selector"),
    ("Scheduling", "node_selector"),
})  # fmt: skip
# Fields in which one of those structs is taken field by field all the same.
GRANULAR = frozenset({("PersistentVolumeSpec", "claim_ref")})


def list_rule(struct: str, attribute: str) -> ListRule | None:
    """Return how the list at ``attribute`` of ``struct`` merges; None: it is replaced as a whole."""
    return LIST_RULES.get((struct, attribute))
