"""Defaults: what the API server writes into an object where its author wrote nothing.

Documents are filled in place before they are decoded, so that what is stored, shown and patched is complete. A rule is
a path and a value; ``[]`` in a path means each item of a list. A rule applies where the parent exists and the field is
absent or null. Source: the defaulting functions documented with each field of the published API.
"""

import base64
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

import msgspec

from api import codec
from api.kinds.table import Kind

Document = dict[str, Any]
Rule = tuple[str, Any]  # (path, value, or a function of the parent that returns a value or None for "leave it")


def _reach(document: Any, path: list[str]) -> Iterator[Document]:
    """Yield every map that ``path`` (without its last step) leads to."""
    if not isinstance(document, dict):
        return
    if not path:
        yield document
        return
    step, rest = path[0], path[1:]
    if step.endswith("[]"):
        items = document.get(step[:-2])
        for item in items if isinstance(items, list) else ():
            yield from _reach(item, rest)
    elif step == "*":
        for value in document.values():
            yield from _reach(value, rest)
    else:
        yield from _reach(document.get(step), rest)


def _fill(document: Document, rules: tuple[Rule, ...], prefix: str = "") -> None:
    for path, value in rules:
        *way, last = (prefix + path).split(".")
        for parent in _reach(document, way):
            if parent.get(last) is None:
                filled = value(parent) if callable(value) else value
                if filled is not None:
                    # Containers are copied: two objects must never share a default.
                    parent[last] = deepcopy(filled)


def _pull_policy(container: Document) -> str:
    """Return Always for images without a tag or tagged latest: they may change under their name."""
    name = str(container.get("image", "")).rpartition("/")[2]
    if "@" in name:
        return "IfNotPresent"
    tag = name.partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def _fill_requests(container: Document) -> None:
    resources = container.get("resources")
    if isinstance(resources, dict) and isinstance(resources.get("limits"), dict):
        resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}


_PROBE: tuple[Rule, ...] = (
    ("timeoutSeconds", 1),
    ("periodSeconds", 10),
    ("successThreshold", 1),
    ("failureThreshold", 3),
    ("httpGet.path", "/"),
    ("httpGet.scheme", "HTTP"),
    ("grpc.service", ""),
)
_CONTAINER: tuple[Rule, ...] = (
    ("imagePullPolicy", _pull_policy),
    ("terminationMessagePath", "/dev/termination-log"),
    ("terminationMessagePolicy", "File"),
    ("resources", {}),
    ("ports[].protocol", "TCP"),
    ("env[].valueFrom.fieldRef.apiVersion", "v1"),
    ("env[].valueFrom.resourceFieldRef.divisor", "0"),
    *(
        (f"{probe}.{path}", value)
        for probe in ("livenessProbe", "readinessProbe", "startupProbe")
        for path, value in _PROBE
    ),
    ("lifecycle.postStart.httpGet.path", "/"),
    ("lifecycle.postStart.httpGet.scheme", "HTTP"),
    ("lifecycle.preStop.httpGet.path", "/"),
    ("lifecycle.preStop.httpGet.scheme", "HTTP"),
)
_VOLUME: tuple[Rule, ...] = (
    ("secret.defaultMode", 0o644),
    ("configMap.defaultMode", 0o644),
    ("downwardAPI.defaultMode", 0o644),
    ("downwardAPI.items[].fieldRef.apiVersion", "v1"),
    ("projected.defaultMode", 0o644),
    ("projected.sources[].serviceAccountToken.expirationSeconds", 3600),
    ("projected.sources[].downwardAPI.items[].fieldRef.apiVersion", "v1"),
    ("hostPath.type", ""),
    ("ephemeral.volumeClaimTemplate.spec.volumeMode", "Filesystem"),
    ("emptyDir", lambda volume: {} if not volume.keys() - {"name"} else None),
)
_POD_SPEC: tuple[Rule, ...] = (
    ("restartPolicy", "Always"),
    ("dnsPolicy", "ClusterFirst"),
    ("schedulerName", "default-scheduler"),
    ("terminationGracePeriodSeconds", 30),
    ("securityContext", {}),
    ("enableServiceLinks", True),
    *(
        (f"{containers}[].{path}", value)
        for containers in ("containers", "initContainers", "ephemeralContainers")
        for path, value in _CONTAINER
    ),
    *((f"volumes[].{path}", value) for path, value in _VOLUME),
)


def _pod_spec(document: Document, prefix: str) -> None:
    """Fill the pod spec that lies at ``prefix`` ("spec." or "spec.template.spec.")."""
    _fill(document, _POD_SPEC, prefix)
    for spec in _reach(document, prefix.rstrip(".").split(".")):
        if spec.get("serviceAccountName") and not spec.get("serviceAccount"):
            spec["serviceAccount"] = spec["serviceAccountName"]
        elif spec.get("serviceAccount") and not spec.get("serviceAccountName"):
            spec["serviceAccountName"] = spec["serviceAccount"]
        for containers in ("containers", "initContainers"):
            for container in spec.get(containers) or ():
                if isinstance(container, dict):
                    _fill_requests(container)
                    _host_ports(spec, container)


def _host_ports(spec: Document, container: Document) -> None:
    """On the host's network a container port is a host port."""
    if spec.get("hostNetwork"):
        for port in container.get("ports") or ():
            if isinstance(port, dict) and port.get("hostPort") is None:
                port["hostPort"] = port.get("containerPort")


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


def _target_port(port: Document) -> Any:
    return port.get("port")


def _affinity_timeout(spec: Document) -> Document | None:
    return {"clientIP": {"timeoutSeconds": 10800}} if spec.get("sessionAffinity") == "ClientIP" else None


def _external_policy(spec: Document) -> str | None:
    return "Cluster" if spec.get("type") in ("NodePort", "LoadBalancer") else None


def _internal_policy(spec: Document) -> str | None:
    return None if spec.get("type") == "ExternalName" else "Cluster"


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
    _fill(document, (("ports[].protocol", "TCP"), ("ports[].name", "")))


_ROLE_REF_GROUP: tuple[Rule, ...] = (
    ("roleRef.apiGroup", "rbac.authorization.k8s.io"),
    ("subjects[].apiGroup", lambda s: "rbac.authorization.k8s.io" if s.get("kind") in ("User", "Group") else None),
)
_HISTORY: tuple[Rule, ...] = (("spec.revisionHistoryLimit", 10),)
_CLAIM_TEMPLATES: tuple[Rule, ...] = (
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
    for item in _reach(document, ["spec", "limits[]"]):
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
        ("spec.sessionAffinityConfig", _affinity_timeout),
        ("spec.ports[].protocol", "TCP"),
        ("spec.ports[].targetPort", _target_port),
        ("spec.externalTrafficPolicy", _external_policy),
        ("spec.internalTrafficPolicy", _internal_policy),
        ("spec.allocateLoadBalancerNodePorts", lambda spec: True if spec.get("type") == "LoadBalancer" else None),
    ),
    ("", "endpoints"): (("subsets[].ports[].protocol", "TCP"),),
    # The finalizer "kubernetes" is given to new namespaces alone: finalizing means taking it away.
    ("", "namespaces"): (("spec", {}), ("status", {}), ("status.phase", "Active")),
    ("", "nodes"): (("spec", {}), ("status", {})),
    ("", "secrets"): (("type", "Opaque"),),
    ("", "replicationcontrollers"): (("spec.replicas", 1),),
    ("", "persistentvolumes"): (
        ("status", {}),
        ("status.phase", "Pending"),
        ("spec.persistentVolumeReclaimPolicy", "Retain"),
        ("spec.volumeMode", "Filesystem"),
        ("spec.hostPath.type", ""),
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
        ("spec.persistentVolumeClaimRetentionPolicy", {"whenDeleted": "Retain", "whenScaled": "Retain"}),
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
        ("spec.backoffLimit", 6),
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
        ("spec.metrics", lambda spec: [_CPU_AT_80] if spec.get("metrics") is None else None),
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
    ("", "replicationcontrollers"): _template_labels,
    ("", "secrets"): _secret_data,
    ("", "limitranges"): _limits,
    ("discovery.k8s.io", "endpointslices"): _endpoint_slice_ports,
}


def apply_defaults(kind: Kind, document: Document) -> None:
    """Fill ``document``, an object of ``kind`` as its author wrote it, in place."""
    key = (kind.group, kind.plural)
    if prefix := POD_SPECS.get(key):
        _pod_spec(document, prefix)
    if function := _FUNCTIONS.get(key):
        function(document)
    _fill(document, RULES.get(key, ()))


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
