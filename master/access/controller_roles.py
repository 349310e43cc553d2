"""What the real server's controllers may, by their service account in kube-system: part of the default roles."""

from collections.abc import Mapping, Sequence

from api.kinds.rbac import PolicyRule
from master.access.rules import make_rule as may

Rules = Sequence[PolicyRule]

READ = "get list watch"
SIGNERS = ("kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving", "legacy-unknown")
APPS = ("apps",)
BATCH = ("batch",)
CERTIFICATES = ("certificates.k8s.io",)
DISCOVERY = ("discovery.k8s.io",)
POLICY = ("policy",)
RBAC = ("rbac.authorization.k8s.io",)
STORAGE = ("storage.k8s.io",)
EVERY = ("*",)
EVENTS = may("create patch update", "events", groups=("", "events.k8s.io"))
ACCESS_REVIEWS = may("create", "subjectaccessreviews", groups=("authorization.k8s.io",))
_OWNERS = ("apps", "extensions")


def _owner(plural: str, *, group: Sequence[str] = _OWNERS, verbs: str = "get list update watch") -> Rules:
    """Return what the controller of a kind that owns others may do to the kind itself."""
    return (
        may(verbs, plural, groups=group),
        may("update", f"{plural}/status", groups=group),
        may("update", f"{plural}/finalizers", groups=group),
    )


_KEEPS_PODS = may("create delete list patch watch", "pods")
_REVISIONS = may("create delete get list patch update watch", "controllerrevisions", groups=APPS)

# Service account in kube-system -> what the controller of that name may.
CONTROLLER_ROLES: Mapping[str, Rules] = {
    "attachdetach-controller": (
        may("list watch", "persistentvolumeclaims persistentvolumes"),
        may(READ, "nodes"),
        may("patch update", "nodes/status"),
        may("list watch", "pods"),
        EVENTS,
        may("create delete get list watch", "volumeattachments", groups=STORAGE),
        may(READ, "csidrivers", groups=STORAGE),
        may(READ, "csinodes", groups=STORAGE),
    ),
    "certificate-controller": (
        may("delete get list watch", "certificatesigningrequests", groups=CERTIFICATES),
        may(
            "update",
            "certificatesigningrequests/approval certificatesigningrequests/status",
            groups=CERTIFICATES,
        ),
        may("approve", "signers", groups=CERTIFICATES, names=("kubernetes.io/kube-apiserver-client-kubelet",)),
        may("sign", "signers", groups=CERTIFICATES, names=tuple(f"kubernetes.io/{each}" for each in SIGNERS)),
        ACCESS_REVIEWS,
        EVENTS,
    ),
    "clusterrole-aggregation-controller": (may("escalate get list patch update watch", "clusterroles", groups=RBAC),),
    "cronjob-controller": (
        may("get list update watch", "cronjobs", groups=BATCH),
        may("create delete get list patch update watch", "jobs", groups=BATCH),
        may("update", "cronjobs/status", groups=BATCH),
        may("update", "cronjobs/finalizers", groups=BATCH),
        may("delete list watch", "pods"),
        EVENTS,
    ),
    "daemon-set-controller": (
        *_owner("daemonsets", verbs=READ),
        may("list watch", "nodes"),
        _KEEPS_PODS,
        may("create", "pods/binding"),
        _REVISIONS,
        EVENTS,
    ),
    "deployment-controller": (
        *_owner("deployments"),
        may("create delete get list patch update watch", "replicasets", groups=_OWNERS),
        may("get list update watch", "pods"),
        EVENTS,
    ),
    "disruption-controller": (
        may(READ, "deployments", groups=_OWNERS),
        may(READ, "replicasets", groups=_OWNERS),
        may(READ, "replicationcontrollers"),
        may(READ, "poddisruptionbudgets", groups=POLICY),
        may(READ, "statefulsets", groups=APPS),
        may("update", "poddisruptionbudgets/status", groups=POLICY),
        may("patch update", "pods/status"),
        may("get", "*/scale", groups=EVERY),
        EVENTS,
    ),
    "endpoint-controller": (
        may(READ, "pods services"),
        may("create delete get list update watch", "endpoints"),
        may("create", "endpoints/restricted"),
        EVENTS,
    ),
    "endpointslice-controller": (
        may(READ, "nodes pods services"),
        may("update", "services/finalizers"),
        may("create delete get list update watch", "endpointslices", groups=DISCOVERY),
        EVENTS,
    ),
    "endpointslicemirroring-controller": (
        may(READ, "endpoints services"),
        may("update", "services/finalizers"),
        may("update", "endpoints/finalizers"),
        may("create delete get list update watch", "endpointslices", groups=DISCOVERY),
        EVENTS,
    ),
    "ephemeral-volume-controller": (
        may(READ, "pods"),
        may("update", "pods/finalizers"),
        may("create get list watch", "persistentvolumeclaims"),
        EVENTS,
    ),
    "expand-controller": (
        may("get list patch update watch", "persistentvolumes"),
        may("patch update", "persistentvolumeclaims/status"),
        may(READ, "persistentvolumeclaims"),
        EVENTS,
    ),
    "generic-garbage-collector": (may("delete get list patch update watch", "*", groups=EVERY), EVENTS),
    "horizontal-pod-autoscaler": (
        may(READ, "horizontalpodautoscalers", groups=("autoscaling",)),
        may("update", "horizontalpodautoscalers/status", groups=("autoscaling",)),
        may("get update", "*/scale", groups=EVERY),
        may("list watch", "pods"),
        may("list watch", "pods", groups=("metrics.k8s.io",)),
        may(READ, "*", groups=("custom.metrics.k8s.io",)),
        may(READ, "*", groups=("external.metrics.k8s.io",)),
        EVENTS,
    ),
    "job-controller": (
        *_owner("jobs", group=BATCH, verbs="get list patch update watch"),
        _KEEPS_PODS,
        EVENTS,
    ),
    "legacy-service-account-token-cleaner": (
        may("get", "configmaps", names=("kube-apiserver-legacy-service-account-token-tracking",)),
        may("delete patch", "secrets"),
    ),
    "namespace-controller": (
        may("delete get list watch", "namespaces"),
        may("update", "namespaces/finalize namespaces/status"),
        may("delete deletecollection get list watch", "*", groups=EVERY),
    ),
    "node-controller": (
        may("delete get list patch update watch", "nodes"),
        may("patch update", "nodes/status"),
        may("patch update", "pods/status"),
        may("delete get list watch", "pods"),
        EVENTS,
    ),
    "persistent-volume-binder": (
        may("create delete get list update watch", "persistentvolumes"),
        may("update", "persistentvolumes/status"),
        may("get list update watch", "persistentvolumeclaims"),
        may("update", "persistentvolumeclaims/status"),
        may("create delete get list watch", "pods"),
        may(READ, "storageclasses", groups=STORAGE),
        may("list watch", "nodes"),
        EVENTS,
        may("watch", "events"),
    ),
    "pod-garbage-collector": (may("delete list watch", "pods"), may(READ, "nodes"), may("patch", "pods/status")),
    "pv-protection-controller": (may("get list update watch", "persistentvolumes"), EVENTS),
    "pvc-protection-controller": (
        may("get list update watch", "persistentvolumeclaims"),
        may("update", "persistentvolumeclaims/status"),
        may(READ, "pods"),
        EVENTS,
    ),
    "replicaset-controller": (*_owner("replicasets"), _KEEPS_PODS, EVENTS),
    "replication-controller": (*_owner("replicationcontrollers", group=("",)), _KEEPS_PODS, EVENTS),
    "resourcequota-controller": (
        may("list watch", "*", groups=EVERY),
        may("update", "resourcequotas/status"),
        EVENTS,
    ),
    "root-ca-cert-publisher": (may("create update", "configmaps"), EVENTS),
    "route-controller": (may("list watch", "nodes"), may("patch", "nodes/status"), EVENTS),
    "service-account-controller": (may("create", "serviceaccounts"), EVENTS),
    "service-controller": (
        may(READ, "services"),
        may("patch update", "services/status"),
        may("list watch", "nodes"),
        EVENTS,
    ),
    "statefulset-controller": (
        may("list watch", "pods"),
        *_owner("statefulsets", group=APPS, verbs=READ),
        may("create delete get patch update", "pods"),
        _REVISIONS,
        may("create get list watch", "persistentvolumeclaims"),
        may("delete update", "persistentvolumeclaims"),
        may("update", "pods/finalizers"),
        EVENTS,
    ),
    "ttl-after-finished-controller": (may("delete get list watch", "jobs", groups=BATCH), EVENTS),
    "ttl-controller": (may("list patch update watch", "nodes"), EVENTS),
}
