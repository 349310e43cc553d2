"""How kinds differ in what the API server does to their objects: one row for each kind that differs.

A strategy's functions are pure; what every kind has in common (uid, timestamps, generation, finalizers) is in
``master.lifecycle``.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from api.custom.definitions import PLACE as DEFINITIONS
from api.custom.objects import CustomObject, with_field
from api.kinds.core import Namespace, NamespaceSpec, NamespaceStatus
from api.kinds.pods import Pod, PodStatus
from api.kinds.table import Kind
from api.meta import DeleteOptions, LabelSelector, Resource
from api.qos import qos_class
from api.struct import ApiStruct
from master import definitions
from master.service_fields import changed_service, new_service

DEFAULT_POD_GRACE_S = 30


def _unchanged(obj: Resource) -> Resource:
    return obj


def _new_one(old: Resource, new: Resource) -> Resource:  # noqa: ARG001 - one signature for all rows
    return new


def _not_graceful(obj: Resource, options: DeleteOptions) -> int | None:  # noqa: ARG001 - one signature for all rows
    return None


def _not_held(obj: Resource) -> bool:  # noqa: ARG001 - one signature for all rows
    return False


class Strategy(msgspec.Struct, frozen=True, kw_only=True):
    """What a kind's objects go through beside the common path."""

    on_create: Callable[[Resource], Resource] = _unchanged  # after the status has been reset
    on_change: Callable[[Resource, Resource], Resource] = _new_one  # old, new; after common fields have been kept
    keeps_status: bool = False  # a new object's status is its author's
    counts_generations: bool = False
    counts_annotations: bool = False  # a change of annotations is a new generation, too
    # What of the metadata a write to the status leaves alone; the rest it may change, and is no new generation.
    status_keeps: tuple[str, ...] = ()
    # Seconds of grace that a deletion gives; None: the kind knows no grace.
    grace_s: Callable[[Resource, DeleteOptions], int | None] = _not_graceful
    # Whether something beside metadata.finalizers keeps a deleted object in place.
    held: Callable[[Resource], bool] = _not_held
    orphans_by_default: bool = False  # deletion without a policy leaves dependents alone
    unconditional_update: bool = True  # an update may leave resourceVersion out
    create_on_update: bool = False  # an update of what is not there makes it
    on_delete: Callable[[Resource], Resource] = _unchanged  # of an object that has just been marked as being deleted
    ttl_s: int = 0  # the store forgets objects after so long; 0: never


def _new_pod(obj: Resource) -> Resource:
    pod = cast("Pod", obj)
    return replace(pod, status=PodStatus(phase="Pending", qos_class=qos_class(pod.spec)))


def _changed_pod(old: Resource, new: Resource) -> Resource:
    """Only the ephemeralcontainers subresource adds containers for debugging."""
    before, after = cast("Pod", old), cast("Pod", new)
    if before.spec.ephemeral_containers == after.spec.ephemeral_containers:
        return new
    return replace(after, spec=replace(after.spec, ephemeral_containers=before.spec.ephemeral_containers))


def _pod_grace(obj: Resource, options: DeleteOptions) -> int | None:
    pod = cast("Pod", obj)
    if not pod.spec.node_name or pod.status.phase in ("Failed", "Succeeded"):
        return 0
    wanted = options.grace_period_seconds
    if wanted is None:
        wanted = pod.spec.termination_grace_period_seconds
    if wanted is None:
        wanted = DEFAULT_POD_GRACE_S
    return 1 if wanted < 0 else wanted


def _new_namespace(obj: Resource) -> Resource:
    namespace = cast("Namespace", obj)
    finalizers = namespace.spec.finalizers
    if "kubernetes" not in finalizers:
        finalizers = (*finalizers, "kubernetes")
    # Selectors of network policies find a namespace by this label.
    labels = {**namespace.metadata.labels, "kubernetes.io/metadata.name": namespace.metadata.name}
    return replace(
        namespace,
        metadata=replace(namespace.metadata, labels=labels),
        spec=NamespaceSpec(finalizers=finalizers),
        status=NamespaceStatus(phase="Active"),
    )


def _changed_namespace(old: Resource, new: Resource) -> Resource:
    """Only the finalize subresource changes a namespace's own finalizers."""
    return replace(new, spec=cast("Namespace", old).spec)


def _changed_request(old: Resource, new: Resource) -> Resource:
    """What was asked for stays: approvers have read it."""
    return cast("Resource", replace(cast("Any", new), spec=cast("Any", old).spec))


def _namespace_held(obj: Resource) -> bool:
    return bool(cast("Namespace", obj).spec.finalizers)


def _leaving_namespace(obj: Resource) -> Resource:
    namespace = cast("Namespace", obj)
    return replace(namespace, status=replace(namespace.status, phase="Terminating"))


def _new_volume(obj: Resource) -> Resource:
    volume = cast("Any", obj)
    return cast("Resource", replace(volume, status=replace(volume.status, phase="Pending")))


_JOB_LABELS = "batch.kubernetes.io/"


def _new_job(obj: Resource) -> Resource:
    """Let a job select its pods by its own uid, unless its author says that he selects them."""
    job = cast("Any", obj)
    if job.spec.manual_selector:
        return obj
    meta = job.metadata
    uid = {"controller-uid": meta.uid, f"{_JOB_LABELS}controller-uid": meta.uid}
    name = {"job-name": meta.name, f"{_JOB_LABELS}job-name": meta.name}
    template = job.spec.template
    labels = {**template.metadata.labels, **uid, **name}
    template = replace(template, metadata=replace(template.metadata, labels=labels))
    selector = job.spec.selector or LabelSelector()
    selector = replace(selector, match_labels={**selector.match_labels, f"{_JOB_LABELS}controller-uid": meta.uid})
    return cast("Resource", replace(job, spec=replace(job.spec, template=template, selector=selector)))


_COUNTING = Strategy(counts_generations=True)
_CONDITIONAL = Strategy(unconditional_update=False)
_PLAIN = Strategy()
_OF_AUTHORS = ("annotations", "finalizers", "labels", "owner_references")
_CUSTOM = Strategy(counts_generations=True, unconditional_update=False, status_keeps=_OF_AUTHORS)
_ACCESS = Strategy(create_on_update=True)

STRATEGIES: Mapping[tuple[str, str], Strategy] = {
    ("", "pods"): Strategy(
        on_create=_new_pod,
        on_change=_changed_pod,
        grace_s=_pod_grace,
        counts_generations=True,
        status_keeps=("owner_references",),
    ),
    ("", "podtemplates"): _COUNTING,
    ("", "namespaces"): Strategy(
        on_create=_new_namespace, on_change=_changed_namespace, on_delete=_leaving_namespace, held=_namespace_held
    ),
    ("", "nodes"): Strategy(keeps_status=True),
    ("", "events"): Strategy(ttl_s=3600, create_on_update=True),
    ("", "endpoints"): Strategy(create_on_update=True),
    ("", "limitranges"): Strategy(create_on_update=True),
    ("", "services"): Strategy(on_create=new_service, on_change=changed_service, create_on_update=True),
    ("", "replicationcontrollers"): Strategy(counts_generations=True, orphans_by_default=True),
    ("", "persistentvolumes"): Strategy(on_create=_new_volume),
    ("", "persistentvolumeclaims"): Strategy(on_create=_new_volume),
    ("apps", "deployments"): Strategy(counts_generations=True, counts_annotations=True, status_keeps=("labels",)),
    ("apps", "replicasets"): _COUNTING,
    ("apps", "statefulsets"): _COUNTING,
    ("apps", "daemonsets"): _COUNTING,
    ("batch", "jobs"): Strategy(on_create=_new_job, counts_generations=True, orphans_by_default=True),
    ("batch", "cronjobs"): _COUNTING,
    ("policy", "poddisruptionbudgets"): Strategy(counts_generations=True, unconditional_update=False),
    ("autoscaling", "horizontalpodautoscalers"): _PLAIN,
    ("networking.k8s.io", "ingresses"): _COUNTING,
    ("networking.k8s.io", "ingressclasses"): _COUNTING,
    ("networking.k8s.io", "networkpolicies"): _COUNTING,
    ("discovery.k8s.io", "endpointslices"): _COUNTING,
    DEFINITIONS: Strategy(
        on_create=definitions.on_create,
        on_change=definitions.on_change,
        on_delete=definitions.on_delete,
        counts_generations=True,
        unconditional_update=False,
        status_keeps=_OF_AUTHORS,
    ),
    ("certificates.k8s.io", "certificatesigningrequests"): Strategy(on_change=_changed_request),
    ("coordination.k8s.io", "leases"): Strategy(unconditional_update=False, create_on_update=True),
    ("node.k8s.io", "runtimeclasses"): _CONDITIONAL,
    ("rbac.authorization.k8s.io", "clusterrolebindings"): _ACCESS,
    ("rbac.authorization.k8s.io", "clusterroles"): _ACCESS,
    ("rbac.authorization.k8s.io", "rolebindings"): _ACCESS,
    ("rbac.authorization.k8s.io", "roles"): _ACCESS,
    ("scheduling.k8s.io", "priorityclasses"): _COUNTING,
    ("storage.k8s.io", "csidrivers"): Strategy(counts_generations=True, unconditional_update=False),
    ("storage.k8s.io", "csinodes"): _CONDITIONAL,
    ("storage.k8s.io", "csistoragecapacities"): _CONDITIONAL,
    ("storage.k8s.io", "volumeattachments"): _CONDITIONAL,
}


def strategy_of(kind: Kind) -> Strategy:
    """Return what is special about ``kind``; custom resources count generations."""
    return _CUSTOM if kind.custom is not None else STRATEGIES.get(kind.place, _PLAIN)


def has_status(kind: Kind) -> bool:
    """Return whether spec and status of ``kind`` are written separately."""
    return "status" in kind.subresources


def spec_of(obj: Resource) -> tuple[object, ...]:
    """Return everything of ``obj`` that is neither metadata nor status."""
    if isinstance(obj, CustomObject):
        return (obj.content,)  # with the status: where it is written separately an update has the old one
    skipped = ("api_version", "kind", "metadata", "status")
    return tuple(getattr(obj, name) for name in obj.__struct_fields__ if name not in skipped)


def with_status_of(obj: Resource, other: Resource) -> Resource:
    """Return ``obj`` with the status of ``other``."""
    if isinstance(obj, CustomObject):
        return with_field(obj, "status", cast("CustomObject", other).status)
    return replace(obj, status=cast("Any", other).status)


def without_status(kind: Kind, obj: Resource) -> Resource:
    """Return ``obj`` with the status that an object of ``kind`` begins with."""
    if isinstance(obj, CustomObject):
        return with_field(obj, "status", None)
    empty: ApiStruct = cast("Any", kind.model()).status
    return replace(obj, status=empty)
