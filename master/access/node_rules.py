"""What node agents may: fixed rules for all of them, and the objects that the pods bound to their node refer to. Pure.

That an agent writes only what belongs to its node is admission's to see. Source: kubernetes.io, "Using Node
Authorization".
"""

from collections.abc import Iterable, Iterator

from api.kinds.pods import Container, EphemeralContainer, Pod
from master.access.rules import Request, make_rule

_READ = "get list watch"
_STORAGE = ("storage.k8s.io",)

NODES = (
    make_rule("get", paths="/metrics"),
    make_rule(_READ, "services endpoints namespaces pods"),
    make_rule(_READ, "endpointslices", groups=("discovery.k8s.io",)),
    make_rule(_READ, "networkpolicies", groups=("networking.k8s.io",)),
    make_rule(f"{_READ} create update patch", "nodes"),
    make_rule("get update patch", "nodes/status"),
    make_rule("create delete", "pods"),
    make_rule("get update patch", "pods/status"),
    make_rule("create", "pods/eviction"),
    make_rule("create update patch", "events", groups=("", "events.k8s.io")),
    make_rule("create get list watch", "certificatesigningrequests", groups=("certificates.k8s.io",)),
    make_rule(_READ, "runtimeclasses", groups=("node.k8s.io",)),
    make_rule(_READ, "csidrivers storageclasses", groups=_STORAGE),
    make_rule("create", "subjectaccessreviews localsubjectaccessreviews", groups=("authorization.k8s.io",)),
    make_rule("create", "tokenreviews", groups=("authentication.k8s.io",)),
)
LEASES = "kube-node-lease"
MIRROR = "kubernetes.io/config.mirror"
_OWN_VERBS = ("get", "create", "update", "patch", "delete")


def owns(node: str, request: Request) -> bool:
    """Return whether a request is about an object that only the node's own agent may touch."""
    match request.group, request.resource:
        case "coordination.k8s.io", "leases":
            mine = request.namespace == LEASES and request.name in ("", node)
            # A name that is still in the body is admission's to check.
            return mine and request.verb in _OWN_VERBS and (bool(request.name) or request.verb == "create")
        case "storage.k8s.io", "csinodes":
            return request.verb in _OWN_VERBS and request.name in ("", node)
    return False


def pods_reach(pods: Iterable[Pod], request: Request) -> bool:
    """Return whether one of ``pods``, all bound to the node, refers to the namespaced object of a request.

    Mirror pods are made by the agent itself: what they refer to opens nothing.
    """
    pods = [each for each in pods if MIRROR not in each.metadata.annotations]
    wanted = (request.resource, request.subresource)
    if request.group or not request.name:
        return False
    if wanted == ("serviceaccounts", "token"):
        return request.verb == "create" and any(_account(pod) == request.name for pod in pods)
    if request.verb not in ("get", "list", "watch"):
        return wanted == ("persistentvolumeclaims", "status") and any(request.name in claims_of(pod) for pod in pods)
    match wanted:
        case "secrets", "":
            return any(request.name in secrets_of(pod) for pod in pods)
        case "configmaps", "":
            return any(request.name in config_maps_of(pod) for pod in pods)
        case "serviceaccounts", "":
            return any(request.name == _account(pod) for pod in pods)
        case "persistentvolumeclaims", "" | "status":
            return any(request.name in claims_of(pod) for pod in pods)
    return False


def _account(pod: Pod) -> str:
    return pod.spec.service_account_name or "default"


def claims_of(pod: Pod) -> frozenset[str]:
    """Return the names of the claims whose volumes a pod uses; an ephemeral one is named after pod and volume."""
    names = {each.persistent_volume_claim.claim_name for each in pod.spec.volumes if each.persistent_volume_claim}
    return frozenset(names | {f"{pod.metadata.name}-{each.name}" for each in pod.spec.volumes if each.ephemeral})


def secrets_of(pod: Pod) -> frozenset[str]:
    """Return the names of the secrets that a pod's node has to read to run it."""
    names = {each.name for each in pod.spec.image_pull_secrets} | set(_environment(pod, "secret"))
    for volume in pod.spec.volumes:
        if volume.secret:
            names.add(volume.secret.secret_name)
        for source in volume.projected.sources if volume.projected else ():
            if source.secret:
                names.add(source.secret.name)
    return frozenset(names)


def config_maps_of(pod: Pod) -> frozenset[str]:
    """Return the names of the config maps that a pod's node has to read to run it."""
    names = set(_environment(pod, "config_map"))
    for volume in pod.spec.volumes:
        if volume.config_map:
            names.add(volume.config_map.name)
        for source in volume.projected.sources if volume.projected else ():
            if source.config_map:
                names.add(source.config_map.name)
    return frozenset(names)


def _environment(pod: Pod, what: str) -> Iterator[str]:
    """Yield the names of the secrets or config maps that containers take variables from."""
    containers: tuple[Container | EphemeralContainer, ...] = (
        *pod.spec.containers,
        *pod.spec.init_containers,
        *pod.spec.ephemeral_containers,
    )
    for container in containers:
        for source in container.env_from:
            if (whole := getattr(source, f"{what}_ref")) is not None:
                yield whole.name
        for variable in container.env:
            if variable.value_from and (one := getattr(variable.value_from, f"{what}_key_ref")) is not None:
                yield one.name
