"""Node agents write only what belongs to their node: itself, its lease, the pods bound to it, tokens of these pods.

What kinds they may write at all is authorization's to say; whose objects, this rule's. Source: kubernetes.io, "Using
Admission Controllers", NodeRestriction.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import cast

from api.kinds.authentication import TokenRequest
from api.kinds.core import Node
from api.kinds.pods import Pod
from api.meta import Resource
from master.access.node_rules import MIRROR, claims_of, config_maps_of, secrets_of
from master.admission.chain import Attributes, Rule, refusal

LEASES = "kube-node-lease"
_RESERVED_LABELS = "node-restriction.kubernetes.io/"
# Labels of Kubernetes' own domains that an agent may put on its node.
_OWN_LABELS = frozenset(
    """
    kubernetes.io/hostname kubernetes.io/arch kubernetes.io/os beta.kubernetes.io/arch beta.kubernetes.io/os
    beta.kubernetes.io/instance-type node.kubernetes.io/instance-type failure-domain.beta.kubernetes.io/region
    failure-domain.beta.kubernetes.io/zone topology.kubernetes.io/region topology.kubernetes.io/zone
    node.kubernetes.io/windows-build
    """.split()
)
_OWN_PREFIXES = ("kubelet.kubernetes.io/", "node.kubernetes.io/")

FindPod = Callable[[str, str], Awaitable[Pod | None]]


class NodeRestriction(Rule):
    """Refuses what a node agent does to another node's objects.

    find: returns a pod by namespace and name, as fresh as can be.
    """

    def __init__(self, find: FindPod) -> None:
        self._find = find

    async def judge(self, attributes: Attributes) -> None:
        """Raise Forbidden."""
        node = attributes.user.node
        if not node:
            return
        why = ""
        match attributes.kind.place:
            case ("", "nodes"):
                why = _node_fault(attributes, node)
            case ("", "pods"):
                why = _pod_fault(attributes, node)
            case ("", "serviceaccounts"):
                why = await self._token_fault(attributes, node)
            case ("coordination.k8s.io", "leases"):
                if attributes.namespace != LEASES or attributes.name != node:
                    why = f"can only access node lease with the same name as the requesting node in {LEASES}"
            case ("storage.k8s.io", "csinodes"):
                if attributes.name != node:
                    why = "can only access CSINode with the same name as the requesting node"
        if why:
            raise refusal(attributes, f'node "{node}" {why}')

    async def _token_fault(self, attributes: Attributes, node: str) -> str:
        if attributes.subresource != "token" or not isinstance(attributes.obj, TokenRequest):
            return ""
        bound = attributes.obj.spec.bound_object_ref
        if bound is None or (bound.api_version, bound.kind) != ("v1", "Pod") or not bound.name:
            return "requested token not bound to a pod"
        if not bound.uid:
            return "requested token with a pod binding without a uid"
        pod = await self._find(attributes.namespace, bound.name)
        if pod is None or pod.metadata.uid != bound.uid:
            return f"requested token bound to a pod that is not there: {bound.name}, uid {bound.uid}"
        if pod.spec.node_name != node:
            return "requested token bound to a pod scheduled on a different node"
        return _audience_fault(attributes.obj.spec.audiences, pod)


def _audience_fault(audiences: tuple[str, ...], pod: Pod) -> str:
    """Return why a node may not have a token for ``audiences``: it gets those that the pod itself mounts."""
    if len(audiences) > 1:
        return "may only request 0 or 1 audiences"
    wanted = audiences[0] if audiences else ""
    sources = (source for volume in pod.spec.volumes if volume.projected for source in volume.projected.sources)
    mounted = {each.service_account_token.audience for each in sources if each.service_account_token}
    return "" if wanted in mounted else f'audience "{wanted}" not found in pod spec volume'


def _node_fault(attributes: Attributes, node: str) -> str:
    if attributes.operation == "DELETE":
        return "is not allowed to delete nodes"
    if attributes.name != node:
        return f'is not allowed to modify node "{attributes.name}"'
    before, after = _labels(attributes.old), _labels(attributes.obj)
    changed = {key for key in {**before, **after} if before.get(key) != after.get(key)}
    reserved = sorted(key for key in changed if _is_reserved(key))
    if reserved:
        verb = "set" if attributes.operation == "CREATE" else "modify"
        return f"is not allowed to {verb} the following labels: {', '.join(reserved)}"
    if attributes.operation == "UPDATE":  # a write to the status changes metadata, too
        old, new = cast("Node", attributes.old), cast("Node", attributes.obj)
        if old.spec.taints != new.spec.taints:
            return "is not allowed to modify taints"
        if old.metadata.owner_references != new.metadata.owner_references:
            return "is not allowed to modify ownerReferences"
    return ""


def _labels(obj: Resource | None) -> Mapping[str, str]:
    return obj.metadata.labels if obj is not None else {}


def _is_reserved(key: str) -> bool:
    """Return whether a label is out of an agent's hands: what workloads are kept apart by, and Kubernetes' own."""
    domain = key.partition("/")[0] if "/" in key else ""
    if key.startswith(_RESERVED_LABELS) or domain.endswith(".node-restriction.kubernetes.io"):
        return True
    if domain in ("kubernetes.io", "k8s.io") or domain.endswith((".kubernetes.io", ".k8s.io")):
        return key not in _OWN_LABELS and not key.startswith(_OWN_PREFIXES)
    return False


def _pod_fault(attributes: Attributes, node: str) -> str:
    pod = cast("Pod", attributes.old if attributes.old is not None else attributes.obj)
    if attributes.operation == "CREATE":
        return _mirror_fault(pod, node)
    if attributes.operation == "UPDATE" and attributes.subresource != "status":
        return "can only update a pod's status"
    if pod.spec.node_name != node:
        return f'can only change pods with spec.nodeName set to itself, not "{pod.spec.node_name}"'
    if attributes.operation == "UPDATE" and _labels(attributes.old) != _labels(attributes.obj):
        return "cannot update labels through pod status"
    return ""


def _mirror_fault(pod: Pod, node: str) -> str:
    """Return why an agent may not make a pod: it tells of those that run on its node already, and of nothing secret."""
    if MIRROR not in pod.metadata.annotations:
        return "can only create mirror pods"
    if pod.spec.node_name != node:
        return "can only create pods bound to itself"
    if pod.spec.service_account_name:
        return "can not create pods that reference a service account"
    if _reads_objects(pod):
        return "can not create pods that reference secrets, config maps or claims"
    return ""


def _reads_objects(pod: Pod) -> bool:
    """Return whether a pod would let its node read anything: exactly what authorization takes from pods."""
    return bool(secrets_of(pod) or config_maps_of(pod) or claims_of(pod))
