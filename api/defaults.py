"""Defaults: what the API server writes into an object where its author wrote nothing.

Documents are filled in place before they are decoded, so that what is stored, shown and patched is complete. A rule is
a path and a value; ``[]`` in a path means each item of a list. A rule applies where the parent exists and the field
says nothing: it is absent, null, or as empty as Go's zero value of its kind, which clients in Go cannot tell from
nothing. Source: the defaulting functions documented with each field of the published API.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from api import codec
from api.filling import Document, Rule, fill, reach
from api.kinds.table import Kind
from api.pod_defaults import AZURE_DISK, RBD, fill_pod, fill_pod_spec


def _template_labels(document: Document) -> None:
    """A ReplicationController without selector or labels of its own takes its template's."""
    spec = document.get("spec")
    if not isinstance(spec, dict):
        return
    template = spec.get("template")
    labels = ((template or {}).get("metadata") or {}).get("labels")
    if labels:
        if not spec.get("selector"):
            spec["selector"] = dict(labels)
        metadata = document.setdefault("metadata", {})
        if not metadata.get("labels"):
            metadata["labels"] = dict(labels)


def _service(document: Document) -> None:
    """Fill what depends on a service's other fields; its type is filled by now."""
    for spec in reach(document, ["spec"]):
        _session_affinity(spec)
        kind = spec.get("type")
        outside = kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and spec.get("externalIPs"))
        if outside and not spec.get("externalTrafficPolicy"):
            spec["externalTrafficPolicy"] = "Cluster"
        for port in reach(spec, ["ports[]"]):
            port["targetPort"] = port.get("targetPort") or port.get("port")
        if kind == "LoadBalancer":
            for entry in reach(document, ["status", "loadBalancer", "ingress[]"]):
                if entry.get("ip") and not entry.get("ipMode"):
                    entry["ipMode"] = "VIP"


def _session_affinity(spec: Document) -> None:
    if spec.get("sessionAffinity") == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec.get("sessionAffinity") == "ClientIP":
        seconds = [each.get("timeoutSeconds") for each in reach(spec, ["sessionAffinityConfig", "clientIP"])]
        if seconds in ([], [None]):
            spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": 10800}}


def _internal_policy(spec: Document) -> str | None:
    return "Cluster" if spec.get("type") in ("ClusterIP", "NodePort", "LoadBalancer") else None


def _only_balanced(value: Any) -> Callable[[Document], Any]:
    """Return a default of services that a balancer leads to."""
    return lambda spec: value if spec.get("type") == "LoadBalancer" else None


def _secret_data(document: Document) -> None:
    """``stringData`` is a way of writing ``data``; it is never stored."""
    plain = document.get("stringData")
    if plain is None or not all(isinstance(each, str) for each in plain.values()):
        return  # what is no text is refused by decoding
    del document["stringData"]
    data = document.get("data") or {}
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
    if data or encoded:
        document["data"] = {**data, **encoded}


def _endpoint_slice_ports(document: Document) -> None:
    fill(document, (("ports[].protocol", "TCP"), ("ports[].name", "")))


_ROLE_REF_GROUP: tuple[Rule, ...] = (
    ("roleRef.apiGroup", "rbac.authorization.k8s.io"),
    ("subjects[].apiGroup", lambda s: "rbac.authorization.k8s.io" if s.get("kind") in ("User", "Group") else None),
)
_HISTORY: tuple[Rule, ...] = (("spec.revisionHistoryLimit", 10),)
_CLAIM_TEMPLATES: tuple[Rule, ...] = (
    ("spec.volumeClaimTemplates[].apiVersion", "v1"),
    ("spec.volumeClaimTemplates[].kind", "PersistentVolumeClaim"),
    ("spec.volumeClaimTemplates[].spec.volumeMode", "Filesystem"),
    ("spec.volumeClaimTemplates[].status.phase", "Pending"),
)


_CPU_AT_80 = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
}


def _scaling(kind: str, value: int) -> Document:
    return {"type": kind, "value": value, "periodSeconds": 15}


def _limits(document: Document) -> None:
    """A limit of containers says by its maximum what their limit usually is, and by that what their request is."""
    for item in reach(document, ["spec", "limits[]"]):
        if item.get("type") != "Container":
            continue
        usual = {**(item.get("max") or {}), **(item.get("default") or {})}
        asked = {**(item.get("min") or {}), **usual, **(item.get("defaultRequest") or {})}
        item |= {key: value for key, value in (("default", usual), ("defaultRequest", asked)) if value}


RULES: Mapping[tuple[str, str], tuple[Rule, ...]] = {
    ("", "pods"): (),
    ("", "services"): (
        ("spec.type", "ClusterIP"),
        ("spec.sessionAffinity", "None"),
        ("spec.ports[].protocol", "TCP"),
        ("spec.internalTrafficPolicy", _internal_policy),
        ("spec.allocateLoadBalancerNodePorts", _only_balanced(value=True)),
    ),
    ("", "endpoints"): (("subsets[].ports[].protocol", "TCP"),),
    # The finalizer "kubernetes" is given to new namespaces alone: finalizing means taking it away.
    ("", "namespaces"): (("spec", {}), ("status", {}), ("status.phase", "Active")),
    ("", "nodes"): (("spec", {}), ("status", {}), ("status.allocatable", lambda status: status.get("capacity"))),
    ("", "secrets"): (("type", "Opaque"),),
    ("", "replicationcontrollers"): (("spec.replicas", 1),),
    ("", "persistentvolumes"): (
        ("status", {}),
        ("status.phase", "Pending"),
        ("spec.persistentVolumeReclaimPolicy", "Retain"),
        ("spec.volumeMode", "Filesystem"),
        ("spec.hostPath.type", ""),
        ("spec.iscsi.iscsiInterface", "default"),
        *((f"spec.{path}", value) for path, value in (*RBD, *AZURE_DISK)),
        ("spec.scaleIO.storageMode", "ThinProvisioned"),
        ("spec.scaleIO.fsType", "xfs"),
    ),
    ("", "persistentvolumeclaims"): (("status", {}), ("status.phase", "Pending"), ("spec.volumeMode", "Filesystem")),
    ("apps", "deployments"): (
        ("spec.replicas", 1),
        ("spec.strategy", {}),
        ("spec.strategy.type", "RollingUpdate"),
        ("spec.strategy.rollingUpdate", lambda strategy: {} if strategy.get("type") == "RollingUpdate" else None),
        ("spec.strategy.rollingUpdate.maxUnavailable", "25%"),
        ("spec.strategy.rollingUpdate.maxSurge", "25%"),
        ("spec.progressDeadlineSeconds", 600),
        *_HISTORY,
    ),
    ("apps", "replicasets"): (("spec.replicas", 1),),
    ("apps", "statefulsets"): (
        ("spec.replicas", 1),
        ("spec.podManagementPolicy", "OrderedReady"),
        ("spec.updateStrategy", {"type": "RollingUpdate"}),
        ("spec.updateStrategy.type", "RollingUpdate"),
        ("spec.updateStrategy.rollingUpdate", lambda s: {"partition": 0} if s.get("type") == "RollingUpdate" else None),
        ("spec.updateStrategy.rollingUpdate.partition", 0),
        ("spec.persistentVolumeClaimRetentionPolicy", {}),
        ("spec.persistentVolumeClaimRetentionPolicy.whenDeleted", "Retain"),
        ("spec.persistentVolumeClaimRetentionPolicy.whenScaled", "Retain"),
        *_HISTORY,
        *_CLAIM_TEMPLATES,
    ),
    ("apps", "daemonsets"): (
        ("spec.updateStrategy", {"type": "RollingUpdate"}),
        ("spec.updateStrategy.type", "RollingUpdate"),
        ("spec.updateStrategy.rollingUpdate", lambda s: {} if s.get("type") == "RollingUpdate" else None),
        ("spec.updateStrategy.rollingUpdate.maxUnavailable", 1),
        ("spec.updateStrategy.rollingUpdate.maxSurge", 0),
        *_HISTORY,
    ),
    ("batch", "jobs"): (
        ("spec.completions", lambda spec: 1 if spec.get("parallelism") is None else None),
        ("spec.parallelism", 1),
        # Where each index has a limit of its own there is none for all of them.
        ("spec.backoffLimit", lambda spec: 6 if spec.get("backoffLimitPerIndex") is None else 2**31 - 1),
        ("spec.completionMode", "NonIndexed"),
        ("spec.suspend", False),
        ("spec.podReplacementPolicy", lambda s: "Failed" if s.get("podFailurePolicy") else "TerminatingOrFailed"),
        ("spec.podFailurePolicy.rules[].onPodConditions[].status", "True"),
    ),
    ("batch", "cronjobs"): (
        ("spec.concurrencyPolicy", "Allow"),
        ("spec.suspend", False),
        ("spec.successfulJobsHistoryLimit", 3),
        ("spec.failedJobsHistoryLimit", 1),
    ),
    ("autoscaling", "horizontalpodautoscalers"): (
        ("spec.minReplicas", 1),
        ("spec.metrics", [_CPU_AT_80]),
        ("spec.behavior.scaleUp", {}),
        ("spec.behavior.scaleUp.stabilizationWindowSeconds", 0),
        ("spec.behavior.scaleUp.selectPolicy", "Max"),
        ("spec.behavior.scaleUp.policies", [_scaling("Pods", 4), _scaling("Percent", 100)]),
        ("spec.behavior.scaleDown", {}),
        ("spec.behavior.scaleDown.selectPolicy", "Max"),
        ("spec.behavior.scaleDown.policies", [_scaling("Percent", 100)]),
    ),
    ("networking.k8s.io", "networkpolicies"): (
        ("spec.policyTypes", lambda spec: ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]),
        ("spec.ingress[].ports[].protocol", "TCP"),
        ("spec.egress[].ports[].protocol", "TCP"),
    ),
    ("networking.k8s.io", "ingressclasses"): (("spec.parameters.scope", "Cluster"),),
    ("rbac.authorization.k8s.io", "rolebindings"): _ROLE_REF_GROUP,
    ("rbac.authorization.k8s.io", "clusterrolebindings"): _ROLE_REF_GROUP,
    ("apiextensions.k8s.io", "customresourcedefinitions"): (
        ("spec.names.singular", lambda names: str(names.get("kind") or "").lower() or None),
        ("spec.names.listKind", lambda names: f"{names['kind']}List" if names.get("kind") else None),
        ("spec.conversion", {"strategy": "None"}),
    ),
    ("storage.k8s.io", "storageclasses"): (("reclaimPolicy", "Delete"), ("volumeBindingMode", "Immediate")),
    ("storage.k8s.io", "csidrivers"): (
        ("spec.attachRequired", True),
        ("spec.podInfoOnMount", False),
        ("spec.storageCapacity", False),
        ("spec.fsGroupPolicy", "ReadWriteOnceWithFSType"),
        ("spec.volumeLifecycleModes", ["Persistent"]),
        ("spec.requiresRepublish", False),
        ("spec.seLinuxMount", False),
    ),
    ("scheduling.k8s.io", "priorityclasses"): (("preemptionPolicy", "PreemptLowerPriority"),),
}


# Where each kind's pod spec lies.
POD_SPECS: Mapping[tuple[str, str], str] = {
    ("", "pods"): "spec.",
    ("", "podtemplates"): "template.spec.",
    ("", "replicationcontrollers"): "spec.template.spec.",
    ("apps", "deployments"): "spec.template.spec.",
    ("apps", "replicasets"): "spec.template.spec.",
    ("apps", "statefulsets"): "spec.template.spec.",
    ("apps", "daemonsets"): "spec.template.spec.",
    ("batch", "jobs"): "spec.template.spec.",
    ("batch", "cronjobs"): "spec.jobTemplate.spec.template.spec.",
}
_FUNCTIONS: Mapping[tuple[str, str], Callable[[Document], None]] = {
    ("", "pods"): fill_pod,
    ("", "replicationcontrollers"): _template_labels,
    ("", "secrets"): _secret_data,
    ("", "limitranges"): _limits,
    ("discovery.k8s.io", "endpointslices"): _endpoint_slice_ports,
}
# What depends on fields that have defaults of their own.
_LAST: Mapping[tuple[str, str], Callable[[Document], None]] = {("", "services"): _service}


def apply_defaults(kind: Kind, document: Document) -> None:
    """Fill ``document``, an object of ``kind`` as its author wrote it, in place."""
    key = (kind.group, kind.plural)
    if prefix := POD_SPECS.get(key):
        fill_pod_spec(document, prefix)
    if function := _FUNCTIONS.get(key):
        function(document)
    fill(document, RULES.get(key, ()))
    if function := _LAST.get(key):
        function(document)


def completed(kind: Kind, document: Mapping[str, Any]) -> Document:
    """Return a copy of ``document`` with every default; raises BadRequest where it has not the shape of its kind."""
    copy: Document = msgspec.json.decode(msgspec.json.encode(document))
    try:
        apply_defaults(kind, copy)
    except (AttributeError, KeyError, TypeError):
        # A rule met a text where the kind has a map, say: decoding tells of it in the words of the real server.
        codec.decode(kind, document)
        raise
    return copy
