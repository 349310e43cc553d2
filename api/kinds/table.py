"""The one table: every kind the cluster serves is a row.

Routes, storage keys, discovery, OpenAPI, printing, validation, field selectors and the gRPC API read it. A new kind is
a new row and its struct; each master's own ``Table`` gains rows for custom
resources at run time.
"""

from collections.abc import Callable, Iterable, Iterator

import msgspec

from api.custom.kind import Custom
from api.errors import NotFound
from api.kinds import (
    apps,
    authentication,
    authorization,
    autoscaling,
    batch,
    batch_v1beta1,
    certificates,
    coordination,
    core,
    discovery,
    discovery_v1beta1,
    events,
    extensions,
    metrics,
    networking,
    networking_v1beta1,
    pods,
    policy,
    policy_v1beta1,
    rbac,
    runtime,
    scheduling,
    storage,
    volumes,
)
from api.meta import Resource

STANDARD_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One served kind in one version."""

    group: str = ""  # "" is the core group
    version: str = "v1"
    kind: str
    plural: str
    singular: str = ""  # filled by the table: the kind in lower case
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    namespaced: bool = True
    model: type[Resource]
    verbs: tuple[str, ...] = STANDARD_VERBS
    subresources: tuple[str, ...] = ()
    deprecated: str = ""  # a warning to all who use it
    # Where its objects lie: kinds that are faces of the same objects (two versions, or core and events.k8s.io
    # events) share the place.
    stored_as: tuple[str, str] | None = None  # (group, plural); None: its own
    custom: Custom | None = None  # of a kind that a CustomResourceDefinition defines

    @property
    def group_version(self) -> str:
        """Return ``apps/v1``, or ``v1`` for the core group: an object's apiVersion."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def list_kind(self) -> str:
        """Return the kind of its lists."""
        return self.custom.list_kind if self.custom is not None else f"{self.kind}List"

    @property
    def place(self) -> tuple[str, str]:
        """Return (group, plural) of the place where its objects are stored."""
        return self.stored_as or (self.group, self.plural)


def _row(model: type[Resource], plural: str, short: str = "", **more: object) -> Kind:
    name = str(more.pop("kind", model.__name__))
    return Kind(
        kind=name,
        singular=name.lower(),
        plural=plural,
        short_names=tuple(short.split()),
        model=model,
        **more,  # type: ignore[arg-type]
    )


def _older(model: type[Resource], plural: str, short: str = "", *, group: str, since: str, **more: object) -> Kind:
    """Return the row of a version that only older clients ask for; its objects are stored as the first row's."""
    kind = str(more.setdefault("kind", model.__name__))
    return _row(
        model,
        plural,
        short,
        group=group,
        version="v1beta1",
        stored_as=(group, plural),
        deprecated=f"{group}/v1beta1 {kind} is deprecated in {since}; use {group}/v1 {kind}",
        **more,
    )


_ALL = ("all",)
_STATUS = ("status",)
_SCALE = ("status", "scale")
# Computed, not stored.
_READ = ("get", "list")
# Too much hangs on each for all of them to go with one request.
_ONE_BY_ONE = tuple(verb for verb in STANDARD_VERBS if verb != "deletecollection")
# Questions that are answered, not stored.
_ASKED = ("create",)

ROWS: tuple[Kind, ...] = (
    _row(
        pods.Pod,
        "pods",
        "po",
        categories=_ALL,
        subresources=(
            "status",
            "binding",
            "eviction",
            "ephemeralcontainers",
            "resize",
            "log",
            "exec",
            "attach",
            "portforward",
            "proxy",
        ),
    ),
    _row(
        core.Namespace,
        "namespaces",
        "ns",
        namespaced=False,
        verbs=_ONE_BY_ONE,
        subresources=("status", "finalize"),
    ),
    _row(core.Node, "nodes", "no", namespaced=False, subresources=("status", "proxy")),
    _row(core.Service, "services", "svc", categories=_ALL, subresources=("status", "proxy")),
    _row(core.Endpoints, "endpoints", "ep"),
    _row(core.Event, "events", "ev"),
    _row(core.ConfigMap, "configmaps", "cm"),
    _row(core.Secret, "secrets"),
    _row(core.ServiceAccount, "serviceaccounts", "sa", subresources=("token",)),
    _row(core.ReplicationController, "replicationcontrollers", "rc", categories=_ALL, subresources=_SCALE),
    _row(pods.PodTemplate, "podtemplates"),
    _row(
        core.ComponentStatus,
        "componentstatuses",
        "cs",
        namespaced=False,
        verbs=_READ,
        deprecated="v1 ComponentStatus is deprecated in v1.19+",
    ),
    _row(core.LimitRange, "limitranges", "limits"),
    _row(core.ResourceQuota, "resourcequotas", "quota", subresources=_STATUS),
    _row(volumes.PersistentVolume, "persistentvolumes", "pv", namespaced=False, subresources=_STATUS),
    _row(volumes.PersistentVolumeClaim, "persistentvolumeclaims", "pvc", subresources=_STATUS),
    _row(apps.Deployment, "deployments", "deploy", group="apps", categories=_ALL, subresources=_SCALE),
    _row(apps.ReplicaSet, "replicasets", "rs", group="apps", categories=_ALL, subresources=_SCALE),
    _row(apps.StatefulSet, "statefulsets", "sts", group="apps", categories=_ALL, subresources=_SCALE),
    _row(apps.DaemonSet, "daemonsets", "ds", group="apps", categories=_ALL, subresources=_STATUS),
    _row(apps.ControllerRevision, "controllerrevisions", group="apps"),
    _row(batch.Job, "jobs", group="batch", categories=_ALL, subresources=_STATUS),
    _row(batch.CronJob, "cronjobs", "cj", group="batch", categories=_ALL, subresources=_STATUS),
    _row(
        autoscaling.HorizontalPodAutoscalerV2,
        "horizontalpodautoscalers",
        "hpa",
        kind="HorizontalPodAutoscaler",
        group="autoscaling",
        version="v2",
        categories=_ALL,
        subresources=_STATUS,
    ),
    _row(
        autoscaling.HorizontalPodAutoscaler,
        "horizontalpodautoscalers",
        "hpa",
        group="autoscaling",
        categories=_ALL,
        subresources=_STATUS,
        stored_as=("autoscaling", "horizontalpodautoscalers"),
    ),
    _row(policy.PodDisruptionBudget, "poddisruptionbudgets", "pdb", group="policy", subresources=_STATUS),
    _row(networking.Ingress, "ingresses", "ing", group="networking.k8s.io", subresources=_STATUS),
    _row(networking.IngressClass, "ingressclasses", group="networking.k8s.io", namespaced=False),
    _row(networking.NetworkPolicy, "networkpolicies", "netpol", group="networking.k8s.io"),
    _row(discovery.EndpointSlice, "endpointslices", group="discovery.k8s.io"),
    _row(coordination.Lease, "leases", group="coordination.k8s.io"),
    _row(events.Event, "events", "ev", group="events.k8s.io", stored_as=("", "events")),
    _row(rbac.Role, "roles", group="rbac.authorization.k8s.io"),
    _row(rbac.RoleBinding, "rolebindings", group="rbac.authorization.k8s.io"),
    _row(rbac.ClusterRole, "clusterroles", group="rbac.authorization.k8s.io", namespaced=False),
    _row(rbac.ClusterRoleBinding, "clusterrolebindings", group="rbac.authorization.k8s.io", namespaced=False),
    _row(storage.StorageClass, "storageclasses", "sc", group="storage.k8s.io", namespaced=False),
    _row(storage.VolumeAttachment, "volumeattachments", group="storage.k8s.io", namespaced=False, subresources=_STATUS),
    _row(storage.CSIDriver, "csidrivers", group="storage.k8s.io", namespaced=False),
    _row(storage.CSINode, "csinodes", group="storage.k8s.io", namespaced=False),
    _row(storage.CSIStorageCapacity, "csistoragecapacities", group="storage.k8s.io"),
    _row(runtime.RuntimeClass, "runtimeclasses", group="node.k8s.io", namespaced=False),
    _row(scheduling.PriorityClass, "priorityclasses", "pc", group="scheduling.k8s.io", namespaced=False),
    _row(
        certificates.CertificateSigningRequest,
        "certificatesigningrequests",
        "csr",
        group="certificates.k8s.io",
        namespaced=False,
        subresources=("status", "approval"),
    ),
    _row(
        extensions.CustomResourceDefinition,
        "customresourcedefinitions",
        "crd crds",
        group="apiextensions.k8s.io",
        categories=("api-extensions",),
        namespaced=False,
        subresources=_STATUS,
    ),
    _older(
        batch_v1beta1.CronJob,
        "cronjobs",
        "cj",
        group="batch",
        categories=_ALL,
        subresources=_STATUS,
        since="v1.21+, unavailable in v1.25+",
    ),
    _older(
        policy_v1beta1.PodDisruptionBudget,
        "poddisruptionbudgets",
        "pdb",
        group="policy",
        subresources=_STATUS,
        since="v1.21+, unavailable in v1.25+",
    ),
    _older(
        networking_v1beta1.IngressV1beta1,
        "ingresses",
        "ing",
        kind="Ingress",
        group="networking.k8s.io",
        subresources=_STATUS,
        since="v1.19+, unavailable in v1.22+",
    ),
    _older(
        discovery_v1beta1.EndpointSliceV1beta1,
        "endpointslices",
        kind="EndpointSlice",
        group="discovery.k8s.io",
        since="v1.21+, unavailable in v1.25+",
    ),
    _row(metrics.NodeMetrics, "nodes", group="metrics.k8s.io", version="v1beta1", namespaced=False, verbs=_READ),
    _row(metrics.PodMetrics, "pods", group="metrics.k8s.io", version="v1beta1", verbs=_READ),
    *(
        _row(model, plural, group="authorization.k8s.io", namespaced=namespaced, verbs=_ASKED)
        for model, plural, namespaced in (
            (authorization.SelfSubjectAccessReview, "selfsubjectaccessreviews", False),
            (authorization.SelfSubjectRulesReview, "selfsubjectrulesreviews", False),
            (authorization.SubjectAccessReview, "subjectaccessreviews", False),
            (authorization.LocalSubjectAccessReview, "localsubjectaccessreviews", True),
        )
    ),
    _row(
        authentication.SelfSubjectReview,
        "selfsubjectreviews",
        group="authentication.k8s.io",
        namespaced=False,
        verbs=_ASKED,
    ),
    # Older schedulers bind so, by an object of its own; the pod's subresource does the same.
    _row(pods.Binding, "bindings", verbs=_ASKED),
    _row(authentication.TokenReview, "tokenreviews", group="authentication.k8s.io", namespaced=False, verbs=_ASKED),
)


class Table:
    """Finds kinds by what a request, an object or a reference names."""

    def __init__(self, rows: Iterable[Kind] = ROWS) -> None:
        self._by_resource: dict[tuple[str, str, str], Kind] = {}
        self._by_kind: dict[tuple[str, str], Kind] = {}
        self._by_model: dict[type[Resource], Kind] = {}
        self._listeners: list[Callable[[], None]] = []
        self.version = 0  # grows with every change
        for row in rows:
            self.add(row)

    def add(self, row: Kind) -> None:
        """Serve one kind more; raises ValueError if its resource or its kind is served already."""
        resource = (row.group, row.version, row.plural)
        if resource in self._by_resource or (row.group_version, row.kind) in self._by_kind:
            raise ValueError(f"{row.plural} of {row.group_version} is in the table already")
        self._by_resource[resource] = row
        self._by_kind[row.group_version, row.kind] = row
        self._by_model.setdefault(row.model, row)
        self._tell()

    def remove(self, row: Kind) -> None:
        """Serve ``row`` no more."""
        del self._by_resource[row.group, row.version, row.plural]
        del self._by_kind[row.group_version, row.kind]
        if self._by_model.get(row.model) is row:
            del self._by_model[row.model]
            # Versions of a custom kind share their struct.
            if (other := next((each for each in self if each.model is row.model), None)) is not None:
                self._by_model[row.model] = other
        self._tell()

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after every change; return how to stop."""
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop

    def _tell(self) -> None:
        self.version += 1
        for listener in tuple(self._listeners):
            listener()

    def __iter__(self) -> Iterator[Kind]:
        return iter(tuple(self._by_resource.values()))

    def resource(self, group: str, version: str, plural: str) -> Kind | None:
        """Return the kind served at ``/apis/<group>/<version>/.../<plural>``."""
        return self._by_resource.get((group, version, plural))

    def preferred(self, group: str, plural: str) -> Kind | None:
        """Return ``plural`` of ``group`` in its preferred version: the first row of the table."""
        return next((row for row in self if (row.group, row.plural) == (group, plural)), None)

    def kind(self, api_version: str, kind: str) -> Kind | None:
        """Return the row that an object's apiVersion and kind name."""
        return self._by_kind.get((api_version, kind))

    def of(self, model: type[Resource]) -> Kind:
        """Return the row of a struct; raises NotFound for one of a custom kind that is served no more."""
        found = self._by_model.get(model)
        if found is None:
            raise NotFound(f"the server does not serve {model.__name__}")
        return found

    def know(self, row: Kind) -> None:
        """Let ``of`` and ``defined_by`` find a row that is not served: of a definition without a served version."""
        self._by_model.setdefault(row.model, row)

    def defined_by(self, definition: str) -> Kind | None:
        """Return a row of the custom kind that a definition of this name defines, if it is established."""
        found = (
            row for row in self._by_model.values() if row.custom is not None and row.custom.definition == definition
        )
        return next(found, None)

    def unknow(self, row: Kind) -> None:
        """Take back ``know``."""
        if self._by_model.get(row.model) is row:
            del self._by_model[row.model]

    def places(self) -> Iterator[Kind]:
        """Yield one row for each place where objects lie: the row that owns it, or that clients prefer."""
        seen = set()
        for row in self:
            if row.stored_as is None and row.place not in seen:
                seen.add(row.place)
                yield row


TABLE = Table()
