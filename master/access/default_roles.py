"""The roles and bindings that every cluster has, as data: what a role's users may, a row for each.

Masters make them when they are missing and put back what was taken out of them, unless an object says
``rbac.authorization.kubernetes.io/autoupdate: "false"``. Names and rules are the real server's, so that tools find what
they know; our own controllers run as the master that leads and need none of theirs. Source: kubernetes.io, "Using RBAC
Authorization", and the published list of the real server's default roles.
"""

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from api import selectors
from api.kinds.rbac import (
    AggregationRule,
    ClusterRole,
    ClusterRoleBinding,
    PolicyRule,
    Role,
    RoleBinding,
    RoleRef,
    Subject,
)
from api.meta import LabelSelector, ObjectMeta, Resource
from master.access.bootstrap_tokens import GROUP as BOOTSTRAPPERS
from master.access.controller_roles import (
    ACCESS_REVIEWS,
    APPS,
    BATCH,
    CERTIFICATES,
    CONTROLLER_ROLES,
    DISCOVERY,
    EVENTS,
    EVERY,
    POLICY,
    READ,
    SIGNERS,
    STORAGE,
    Rules,
)
from master.access.node_rules import NODES
from master.access.rules import make_rule as may
from master.access.user import AUTHENTICATED, SYSTEM_MASTERS, SYSTEM_NODES, UNAUTHENTICATED

GROUP = "rbac.authorization.k8s.io"
AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"
_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_KEPT = {AUTOUPDATE: "true"}

_WRITE = "create delete deletecollection patch update"
_ALL = f"{READ} {_WRITE}"
_EXTENSIONS = ("extensions",)
_NETWORKING = ("networking.k8s.io",)
_LEASES = ("coordination.k8s.io",)
_TOKENS = may("create", "tokenreviews", groups=("authentication.k8s.io",))
_HEALTH = "/healthz /livez /readyz"

_VIEW: Rules = (
    may(
        READ,
        "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers "
        "replicationcontrollers/scale serviceaccounts services services/status",
    ),
    may(
        READ,
        "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status "
        "resourcequotas resourcequotas/status",
    ),
    may(READ, "namespaces"),
    may(READ, "endpointslices", groups=DISCOVERY),
    may(
        READ,
        "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets "
        "replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
        groups=APPS,
    ),
    may(READ, "horizontalpodautoscalers horizontalpodautoscalers/status", groups=("autoscaling",)),
    may(READ, "cronjobs cronjobs/status jobs jobs/status", groups=BATCH),
    may(
        READ,
        "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status "
        "networkpolicies replicasets replicasets/scale replicasets/status replicationcontrollers/scale",
        groups=_EXTENSIONS,
    ),
    may(READ, "poddisruptionbudgets poddisruptionbudgets/status", groups=POLICY),
    may(READ, "ingresses ingresses/status networkpolicies", groups=_NETWORKING),
)
_EDIT: Rules = (
    may(READ, "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
    may("impersonate", "serviceaccounts"),
    may(_WRITE, "pods pods/attach pods/exec pods/portforward pods/proxy"),
    may("create", "pods/eviction"),
    may(
        _WRITE,
        "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets "
        "serviceaccounts services services/proxy",
    ),
    may("create", "serviceaccounts/token"),
    may(
        _WRITE,
        "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets "
        "statefulsets/scale",
        groups=APPS,
    ),
    may(_WRITE, "horizontalpodautoscalers", groups=("autoscaling",)),
    may(_WRITE, "cronjobs jobs", groups=BATCH),
    may(
        _WRITE,
        "daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets "
        "replicasets/scale replicationcontrollers/scale",
        groups=_EXTENSIONS,
    ),
    may(_WRITE, "poddisruptionbudgets", groups=POLICY),
    may(_WRITE, "ingresses networkpolicies", groups=_NETWORKING),
    may(_ALL, "leases", groups=_LEASES),
)
_ADMIN: Rules = (
    may("create", "localsubjectaccessreviews", groups=("authorization.k8s.io",)),
    may(_ALL, "rolebindings roles", groups=(GROUP,)),
)
_SCHEDULER: Rules = (
    EVENTS,
    may("create", "leases", groups=_LEASES),
    may("get update", "leases", groups=_LEASES, names=("kube-scheduler",)),
    may(READ, "nodes"),
    may("delete get list watch", "pods"),
    may("create", "bindings pods/binding"),
    may("patch update", "pods/status"),
    may(READ, "replicationcontrollers services"),
    may(READ, "replicasets", groups=("apps", "extensions")),
    may(READ, "statefulsets", groups=APPS),
    may(READ, "poddisruptionbudgets", groups=POLICY),
    may(READ, "persistentvolumeclaims persistentvolumes"),
    _TOKENS,
    ACCESS_REVIEWS,
    may(READ, "csinodes", groups=STORAGE),
    may(READ, "namespaces"),
    may(READ, "csidrivers", groups=STORAGE),
    may(READ, "csistoragecapacities", groups=STORAGE),
)
_CONTROLLER_MANAGER: Rules = (
    EVENTS,
    may("create", "leases", groups=_LEASES),
    may("get update", "leases", groups=_LEASES, names=("kube-controller-manager",)),
    may("create", "secrets serviceaccounts"),
    may("delete", "secrets"),
    may("get", "configmaps namespaces secrets serviceaccounts"),
    may("update", "secrets serviceaccounts"),
    _TOKENS,
    ACCESS_REVIEWS,
    may("list watch", "*", groups=EVERY),
    may("create", "serviceaccounts/token"),
)

CLUSTER_ROLES: Mapping[str, Rules] = {
    "cluster-admin": (may("*", "*", groups=EVERY), may("*", paths="*")),
    "system:aggregate-to-admin": _ADMIN,
    "system:aggregate-to-edit": _EDIT,
    "system:aggregate-to-view": _VIEW,
    "system:auth-delegator": (_TOKENS, ACCESS_REVIEWS),
    "system:basic-user": (
        may("create", "selfsubjectaccessreviews selfsubjectrulesreviews", groups=("authorization.k8s.io",)),
        may("create", "selfsubjectreviews", groups=("authentication.k8s.io",)),
    ),
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": (
        may("create", "certificatesigningrequests/nodeclient", groups=CERTIFICATES),
    ),
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": (
        may("create", "certificatesigningrequests/selfnodeclient", groups=CERTIFICATES),
    ),
    **{
        f"system:certificates.k8s.io:{signer}-approver": (
            may("approve", "signers", groups=CERTIFICATES, names=(f"kubernetes.io/{signer}",)),
        )
        for signer in SIGNERS
    },
    "system:discovery": (
        may("get", paths=f"/api /api/* /apis /apis/* /openapi /openapi/* {_HEALTH} /version /version/"),
    ),
    "system:heapster": (may(READ, "events namespaces nodes pods"), may(READ, "deployments", groups=_EXTENSIONS)),
    "system:kube-aggregator": (may(READ, "endpoints services"),),
    "system:kube-controller-manager": _CONTROLLER_MANAGER,
    "system:kube-dns": (may("list watch", "endpoints services"),),
    "system:kube-scheduler": _SCHEDULER,
    "system:kubelet-api-admin": (
        may(READ, "nodes"),
        may("proxy", "nodes"),
        may("*", "nodes/log nodes/metrics nodes/proxy nodes/stats"),
    ),
    "system:monitoring": (
        may("get", paths="/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*"),
    ),
    "system:node": (
        *NODES,
        may(READ, "configmaps secrets"),
        may("create", "serviceaccounts/token"),
        may("create delete get patch update", "leases", groups=_LEASES),
        may("get", "persistentvolumeclaims persistentvolumes"),
        may("get patch update", "persistentvolumeclaims/status"),
        may("create delete get patch update", "csinodes", groups=STORAGE),
        may("get", "volumeattachments", groups=STORAGE),
    ),
    "system:node-bootstrapper": (may("create get list watch", "certificatesigningrequests", groups=CERTIFICATES),),
    "system:node-problem-detector": (may("get", "nodes"), may("patch", "nodes/status"), EVENTS),
    "system:node-proxier": (
        may("list watch", "endpoints services"),
        may(READ, "nodes"),
        EVENTS,
        may("list watch", "endpointslices", groups=DISCOVERY),
    ),
    "system:persistent-volume-provisioner": (
        may("create delete get list watch", "persistentvolumes"),
        may("get list update watch", "persistentvolumeclaims"),
        may(READ, "storageclasses", groups=STORAGE),
        may("watch", "events"),
        EVENTS,
    ),
    "system:public-info-viewer": (may("get", paths=f"{_HEALTH} /version /version/"),),
    "system:service-account-issuer-discovery": (
        may(
            "get",
            paths="/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks "
            "/openid/v1/jwks/",
        ),
    ),
    "system:volume-scheduler": (
        may("get list patch update watch", "persistentvolumes"),
        may(READ, "storageclasses", groups=STORAGE),
        may("get list patch update watch", "persistentvolumeclaims"),
    ),
}
# Roles that take up the rules of all that carry their label; each takes up those before it, too.
_AGGREGATED = ("view", "edit", "admin")
_TAKEN_UP_BY = {
    "system:aggregate-to-admin": "admin",
    "system:aggregate-to-edit": "edit",
    "system:aggregate-to-view": "view",
    "edit": "admin",
    "view": "edit",
}


def _group(name: str) -> Subject:
    return Subject(api_group=GROUP, kind="Group", name=name)


def _user(name: str) -> Subject:
    return Subject(api_group=GROUP, kind="User", name=name)


def _account(name: str) -> Subject:
    return Subject(kind="ServiceAccount", name=name, namespace="kube-system")


_NODE_CLIENT = "system:certificates.k8s.io:certificatesigningrequests"
# Binding -> (role, subjects). The last three let a new node in by a bootstrap token, as kubeadm's do.
BINDINGS: Mapping[str, tuple[str, tuple[Subject, ...]]] = {
    "cluster-admin": ("cluster-admin", (_group(SYSTEM_MASTERS),)),
    "system:basic-user": ("system:basic-user", (_group(AUTHENTICATED),)),
    "system:discovery": ("system:discovery", (_group(AUTHENTICATED),)),
    "system:kube-controller-manager": ("system:kube-controller-manager", (_user("system:kube-controller-manager"),)),
    "system:kube-dns": ("system:kube-dns", (_account("kube-dns"),)),
    "system:kube-scheduler": ("system:kube-scheduler", (_user("system:kube-scheduler"),)),
    "system:monitoring": ("system:monitoring", (_group("system:monitoring"),)),
    "system:node": ("system:node", ()),
    "system:node-proxier": ("system:node-proxier", (_user("system:kube-proxy"),)),
    "system:public-info-viewer": ("system:public-info-viewer", (_group(AUTHENTICATED), _group(UNAUTHENTICATED))),
    "system:service-account-issuer-discovery": (
        "system:service-account-issuer-discovery",
        (_group("system:serviceaccounts"),),
    ),
    "system:volume-scheduler": ("system:volume-scheduler", (_user("system:kube-scheduler"),)),
    "trireme:node-bootstrapper": ("system:node-bootstrapper", (_group(BOOTSTRAPPERS),)),
    "trireme:node-autoapprove-bootstrap": (f"{_NODE_CLIENT}:nodeclient", (_group(BOOTSTRAPPERS),)),
    "trireme:node-autoapprove-certificate-rotation": (f"{_NODE_CLIENT}:selfnodeclient", (_group(SYSTEM_NODES),)),
}

_LOCKING = may("create get list update watch", "leases", groups=_LEASES)
# (namespace, role) -> (rules, subjects of the binding of the same name; none: no binding).
NAMESPACED: Mapping[tuple[str, str], tuple[Rules, tuple[Subject, ...]]] = {
    ("kube-public", "system:controller:bootstrap-signer"): (
        (may(READ, "configmaps"), may("update", "configmaps", names=("cluster-info",)), EVENTS),
        (_account("bootstrap-signer"),),
    ),
    # Whoever wants to join reads the cluster's address and authority before anybody knows them.
    ("kube-public", "trireme:cluster-info"): (
        (may("get", "configmaps", names=("cluster-info",)),),
        (_user("system:anonymous"), _group(BOOTSTRAPPERS)),
    ),
    ("kube-system", "extension-apiserver-authentication-reader"): (
        (may(READ, "configmaps", names=("extension-apiserver-authentication",)),),
        (_user("system:kube-controller-manager"), _user("system:kube-scheduler")),
    ),
    ("kube-system", "system::leader-locking-kube-controller-manager"): (
        (_LOCKING,),
        (_user("system:kube-controller-manager"), _account("kube-controller-manager")),
    ),
    ("kube-system", "system::leader-locking-kube-scheduler"): (
        (_LOCKING,),
        (_user("system:kube-scheduler"), _account("kube-scheduler")),
    ),
    ("kube-system", "system:controller:bootstrap-signer"): (
        (may(READ, "secrets"),),
        (_account("bootstrap-signer"),),
    ),
    ("kube-system", "system:controller:cloud-provider"): (
        (may("create get list watch", "configmaps"),),
        (_account("cloud-provider"),),
    ),
    ("kube-system", "system:controller:token-cleaner"): (
        (may("delete get list watch", "secrets"), EVENTS),
        (_account("token-cleaner"),),
    ),
}


def _meta(name: str, namespace: str = "", **labels: str) -> ObjectMeta:
    return ObjectMeta(name=name, namespace=namespace, labels={**_LABELS, **labels}, annotations=_KEPT)


def _cluster_role(name: str, rules: Rules) -> ClusterRole:
    taken_up = {f"{AGGREGATE}{_TAKEN_UP_BY[name]}": "true"} if name in _TAKEN_UP_BY else {}
    meta = ObjectMeta(name=name, labels={**_LABELS, **taken_up}, annotations=_KEPT)
    if name not in _AGGREGATED:
        return ClusterRole(metadata=meta, rules=tuple(rules))
    selector = LabelSelector(match_labels={f"{AGGREGATE}{name}": "true"})
    return ClusterRole(metadata=meta, aggregation_rule=AggregationRule(cluster_role_selectors=(selector,)))


def _reference(kind: str, name: str) -> RoleRef:
    return RoleRef(api_group=GROUP, kind=kind, name=name)


def default_objects() -> list[Resource]:
    """Return every role and binding, roles first; aggregated roles have the rules that the others give them."""
    plain = {**CLUSTER_ROLES, **{f"system:controller:{name}": rules for name, rules in CONTROLLER_ROLES.items()}}
    roles = {name: _cluster_role(name, rules) for name, rules in plain.items()}
    for name in _AGGREGATED:
        empty = _cluster_role(name, ())
        roles[name] = replace(empty, rules=aggregated_rules(empty, roles.values()))
    bindings = {
        **BINDINGS,
        **{f"system:controller:{name}": (f"system:controller:{name}", (_account(name),)) for name in CONTROLLER_ROLES},
    }
    return [
        *roles.values(),
        *(
            Role(metadata=_meta(name, namespace), rules=tuple(rules))
            for (namespace, name), (rules, _) in NAMESPACED.items()
        ),
        *(
            ClusterRoleBinding(metadata=_meta(name), role_ref=_reference("ClusterRole", role), subjects=subjects)
            for name, (role, subjects) in bindings.items()
        ),
        *(
            RoleBinding(metadata=_meta(name, namespace), role_ref=_reference("Role", name), subjects=subjects)
            for (namespace, name), (_, subjects) in NAMESPACED.items()
        ),
    ]


def aggregated_rules(role: ClusterRole, roles: Iterable[ClusterRole]) -> tuple[PolicyRule, ...]:
    """Return the rules of all ``roles`` that an aggregating role selects, in the order of their names, each once."""
    assert role.aggregation_rule is not None
    wanted = [selectors.of_struct(each) for each in role.aggregation_rule.cluster_role_selectors]
    rules: dict[PolicyRule, None] = {}
    for each in sorted(roles, key=lambda found: found.metadata.name):
        if each.metadata.name != role.metadata.name and any(one.matches(each.metadata.labels) for one in wanted):
            rules |= dict.fromkeys(each.rules)
    return tuple(rules)
