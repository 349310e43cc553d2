"""What the server writes where an author wrote nothing: a row for each rule that is easy to get wrong."""

import pytest

from api import codec
from tests.unit.api.validation.objects import CONTAINER, LABELLED, POD, SELECTOR, an_object, changed

C = "spec.containers.0"
PORTS = {"spec": {"ports": [{"port": 80}]}}
DEPLOYMENT = {"spec": {"selector": SELECTOR, "template": LABELLED | POD}}
STATEFUL = changed(DEPLOYMENT, "spec.volumeClaimTemplates", [{"metadata": {"name": "v"}, "spec": {}}])
LIMITED = changed(POD, f"{C}.resources", {"limits": {"cpu": "1"}})
MISSING = object()


def at(kind, document, path):
    """Return what stands at a dotted path of the defaulted object."""
    _, obj = an_object(kind, document)
    node = codec.to_document(obj)
    for step in path.split("."):
        node = node[int(step)] if isinstance(node, list) else node.get(step, MISSING)
        if node is MISSING:
            return MISSING
    return node


@pytest.mark.parametrize(
    ("kind", "document", "path", "expected"),
    [
        *(
            ("Pod", changed(POD, f"{C}.image", image), f"{C}.imagePullPolicy", policy)
            for image, policy in (
                ("a", "Always"), ("a:latest", "Always"), ("a:1", "IfNotPresent"), ("h:5000/a", "Always"),
                ("a@sha256:0", "IfNotPresent"), ("a:latest@sha256:0", "Always"),
            )
        ),
        ("Pod", changed(POD, "spec.restartPolicy", ""), "spec.restartPolicy", "Always"),
        ("Pod", changed(POD, f"{C}.livenessProbe", {"tcpSocket": {"port": 1}, "periodSeconds": 0}), f"{C}.livenessProbe",
         {"tcpSocket": {"port": 1}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}),
        ("Pod", POD, "spec.enableServiceLinks", True),
        ("Pod", LIMITED, f"{C}.resources.requests", {"cpu": "1"}),
        ("Pod", changed(changed(POD, "spec.hostNetwork", True), f"{C}.ports", [{"containerPort": 80}]), f"{C}.ports.0.hostPort", 80),
        # What depends on the pod alone stays out of templates, which controllers compare with what their authors wrote.
        ("PodTemplate", {"template": POD}, "template.spec.enableServiceLinks", MISSING),
        ("PodTemplate", {"template": LIMITED}, "template.spec.containers.0.resources.requests", MISSING),
        ("PodTemplate", {"template": POD}, "template.spec.dnsPolicy", "ClusterFirst"),
        ("Pod", changed(POD, "spec.volumes", [{"name": "v"}]), "spec.volumes.0.emptyDir", {}),
        ("Service", PORTS, "spec.ports.0.targetPort", 80),
        ("Service", changed(PORTS, "spec.ports.0.targetPort", 0), "spec.ports.0.targetPort", 80),
        ("Service", PORTS, "spec.externalTrafficPolicy", MISSING),
        ("Service", changed(PORTS, "spec.externalIPs", ["1.1.1.1"]), "spec.externalTrafficPolicy", "Cluster"),
        ("Service", changed(PORTS, "spec.type", "NodePort"), "spec.externalTrafficPolicy", "Cluster"),
        ("Service", changed(PORTS, "spec.sessionAffinity", "ClientIP"), "spec.sessionAffinityConfig.clientIP.timeoutSeconds", 10800),
        ("Service", changed(PORTS, "spec.sessionAffinityConfig", {"clientIP": {"timeoutSeconds": 5}}), "spec.sessionAffinityConfig", MISSING),
        ("Service", changed(PORTS, "spec.type", "LoadBalancer"), "spec.allocateLoadBalancerNodePorts", True),
        ("Service", {"spec": {"type": "ExternalName"}}, "spec.internalTrafficPolicy", MISSING),
        ("Service", changed(changed(PORTS, "spec.type", "LoadBalancer"), "status.loadBalancer.ingress", [{"ip": "1.1.1.1"}]),
         "status.loadBalancer.ingress.0.ipMode", "VIP"),
        ("Node", {"status": {"capacity": {"cpu": "4"}}}, "status.allocatable", {"cpu": "4"}),
        ("StatefulSet", STATEFUL, "spec.volumeClaimTemplates.0.kind", "PersistentVolumeClaim"),
        ("StatefulSet", changed(STATEFUL, "spec.persistentVolumeClaimRetentionPolicy", {"whenDeleted": "Delete"}),
         "spec.persistentVolumeClaimRetentionPolicy", {"whenDeleted": "Delete", "whenScaled": "Retain"}),
        ("StatefulSet", changed(STATEFUL, "spec.updateStrategy", {"rollingUpdate": {}}), "spec.updateStrategy.rollingUpdate.partition", 0),
        ("Job", {"spec": {"template": {"spec": {"containers": [CONTAINER]}}}}, "spec.backoffLimit", 6),
        ("Job", {"spec": {"template": {"spec": {}}, "backoffLimitPerIndex": 1}}, "spec.backoffLimit", 2147483647),
        ("HorizontalPodAutoscaler", {"spec": {"metrics": []}}, "spec.metrics.0.resource.target.averageUtilization", 80),
        ("NetworkPolicy", {"spec": {"policyTypes": []}}, "spec.policyTypes", ["Ingress"]),
        ("NetworkPolicy", {"spec": {"egress": [{}]}}, "spec.policyTypes", ["Ingress", "Egress"]),
        ("IngressClass", {"spec": {"controller": "a/b", "parameters": {"kind": "K", "name": "n"}}}, "spec.parameters.scope", "Cluster"),
        ("PersistentVolume", {"spec": {"rbd": {"image": "i", "monitors": ["m"]}}}, "spec.rbd.pool", "rbd"),
        ("RoleBinding", {"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "ServiceAccount", "name": "s"}]},
         "subjects.0.apiGroup", MISSING),
        ("RoleBinding", {"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "s"}]},
         "subjects.0.apiGroup", "rbac.authorization.k8s.io"),
        ("LimitRange", {"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Gi"}}]}},
         "spec.limits.0.defaultRequest", {"cpu": "2", "memory": "1Gi"}),
    ],
)  # fmt: skip
def test_defaults(kind, document, path, expected):
    assert at(kind, document, path) == expected
