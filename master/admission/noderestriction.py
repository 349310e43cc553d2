"""Node agents write only what belongs to their node: itself, its lease, the pods bound to it.

What kinds they may write at all is authorization's to say; whose objects, this rule's.
"""

from typing import cast

from api.errors import Forbidden
from api.kinds.pods import Pod
from api.meta import Resource
from master.admission.chain import Attributes, Rule

LEASES = "kube-node-lease"
MIRROR = "kubernetes.io/config.mirror"
_RESERVED_LABELS = "node-restriction.kubernetes.io/"


class NodeRestriction(Rule):
    """Refuses what a node agent does to another node's objects."""

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
            case ("coordination.k8s.io", "leases"):
                if attributes.namespace != LEASES or attributes.name != node:
                    why = f"can only access node lease with the same name as the requesting node in {LEASES}"
        if why:
            kind = attributes.kind
            raise Forbidden(
                f'{kind.plural} "{attributes.name}" is forbidden: node "{node}" {why}',
                group=kind.group,
                kind=kind.plural,
                name=attributes.name,
            )


def _node_fault(attributes: Attributes, node: str) -> str:
    if attributes.operation == "DELETE":
        return "is not allowed to delete nodes"
    if attributes.name != node:
        return f'is not allowed to modify node "{attributes.name}"'
    before, after = _reserved(attributes.old), _reserved(attributes.obj)
    if attributes.operation == "UPDATE" and before != after:
        return f"is not allowed to modify labels with the prefix {_RESERVED_LABELS}"
    return ""


def _reserved(obj: Resource | None) -> dict[str, str]:
    labels = obj.metadata.labels if obj is not None else {}
    return {key: value for key, value in labels.items() if key.startswith(_RESERVED_LABELS)}


def _pod_fault(attributes: Attributes, node: str) -> str:
    pod = cast("Pod", attributes.old if attributes.old is not None else attributes.obj)
    if attributes.operation == "CREATE":
        if MIRROR not in pod.metadata.annotations:
            return "can only create mirror pods"
        return "" if pod.spec.node_name == node else "can only create pods bound to itself"
    if attributes.operation == "UPDATE" and attributes.subresource != "status":
        return "can only update a pod's status"
    if pod.spec.node_name != node:
        return f'can only change pods with spec.nodeName set to itself, not "{pod.spec.node_name}"'
    return ""
