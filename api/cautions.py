"""What a client is warned of in an object that is accepted: it means less, or something else, than it seems to.

Source: the warnings that the real server sends, in its words; clients show them to people.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from api import names, quantity
from api.defaults import POD_SPECS
from api.kinds.core import Service
from api.kinds.networking import Ingress
from api.kinds.pods import Container, Pod, PodSpec
from api.kinds.table import Kind
from api.meta import ObjectMeta, Resource

_INGRESS_CLASS = "kubernetes.io/ingress.class"
_OLD_LABELS = {
    "beta.kubernetes.io/arch": ("v1.14", "kubernetes.io/arch"),
    "beta.kubernetes.io/os": ("v1.14", "kubernetes.io/os"),
    "beta.kubernetes.io/instance-type": ("v1.17", "node.kubernetes.io/instance-type"),
    "failure-domain.beta.kubernetes.io/region": ("v1.17", "topology.kubernetes.io/region"),
    "failure-domain.beta.kubernetes.io/zone": ("v1.17", "topology.kubernetes.io/zone"),
}
_OLD_VOLUMES = (
    ("git_repo", "gitRepo", "deprecated in v1.11"),
    ("scale_io", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
)
# Kinds whose clients are warned when they create an object, not when they change it.
_ONLY_NEW = {("", "pods"), ("networking.k8s.io", "ingresses")}
_IN_BYTES = ("memory", "ephemeral-storage")


def cautions(kind: Kind, obj: Resource, old: Resource | None = None) -> list[str]:
    """Return what to warn of in ``obj``, which is new or takes the place of ``old``."""
    if kind.custom is not None:
        return _finalizers(obj.metadata, old.metadata if old is not None else ObjectMeta())
    if old is not None and kind.place in _ONLY_NEW:
        return []
    if old is not None and kind.place in POD_SPECS and old.metadata.generation == obj.metadata.generation:
        return []  # whoever wrote the template has been warned
    told = _OF_KIND[kind.place](obj) if kind.place in _OF_KIND else []
    prefix = POD_SPECS.get(kind.place)
    return told if prefix is None else told + _pod_spec(_at(obj, prefix), prefix.rstrip("."))


def _at(obj: Resource, prefix: str) -> PodSpec:
    node: Any = obj
    for step in prefix.rstrip(".").split("."):
        node = getattr(node, "job_template" if step == "jobTemplate" else step)
    return cast("PodSpec", node)


def _finalizers(new: ObjectMeta, old: ObjectMeta) -> list[str]:
    why = (
        "prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other "
        "finalizer writers"
    )
    standard = ("orphan", "foregroundDeletion", "kubernetes")
    added = [each for each in new.finalizers if "/" not in each and each not in (*old.finalizers, *standard)]
    return [f'metadata.finalizers: "{each}": {why}' for each in added]


def _pod_spec(spec: PodSpec, field: str) -> list[str]:
    told = [f"{field}.nodeSelector[{key}]: {_old_label(key)}" for key in spec.node_selector if key in _OLD_LABELS]
    for index, volume in enumerate(spec.volumes):
        for attribute, name, why in _OLD_VOLUMES:
            if getattr(volume, attribute) is not None:
                told.append(f"{field}.volumes[{index}].{name}: {why}")
    for index, alias in enumerate(spec.host_aliases):
        if alias.ip in [each.ip for each in spec.host_aliases[:index]]:
            told.append(f'{field}.hostAliases[{index}].ip: duplicate ip "{alias.ip}"')
    secrets = [each.name for each in spec.image_pull_secrets]
    for index, name in enumerate(secrets):
        at = f"{field}.imagePullSecrets[{index}].name"
        if not name:
            told.append(f'{at}: invalid empty name ""')
        elif name in secrets[:index]:
            told.append(f'{at}: duplicate name "{name}"')
    for index, constraint in enumerate(spec.topology_spread_constraints):
        if constraint.label_selector is None:
            at = f"{field}.topologySpreadConstraints[{index}].labelSelector"
            told.append(f"{at}: a null labelSelector results in matching no pod")
    if (spec.termination_grace_period_seconds or 0) < 0:
        why = "must be >= 0; negative values are invalid and will be treated as 1"
        told.append(f"{field}.terminationGracePeriodSeconds: {why}")
    for name, containers in (("initContainers", spec.init_containers), ("containers", spec.containers)):
        for index, container in enumerate(containers):
            told += _container(container, f"{field}.{name}[{index}]")
    return told


def _old_label(key: str) -> str:
    since, instead = _OLD_LABELS[key]
    return f'deprecated since {since}; use "{instead}" instead'


def _container(container: Container, field: str) -> list[str]:
    told = []
    resources = container.resources
    for side, amounts in (("limits", resources.limits), ("requests", resources.requests)) if resources else ():
        for name in _IN_BYTES:
            if name in amounts and quantity.parse(amounts[name]).denominator != 1:
                why = f'fractional byte value "{amounts[name]}" is invalid, must be an integer'
                told.append(f"{field}.resources.{side}[{name}]: {why}")
    variables = [each.name for each in container.env]
    for index, name in enumerate(variables):
        # A value that refers to the former one of the same name is meant so.
        if name in variables[:index] and f"$({name})" not in container.env[index].value:
            why = f'hides previous definition of "{name}", which may be dropped when using apply'
            told.append(f"{field}.env[{index}]: {why}")
    return told + _ports(container, field)


def _ports(container: Container, field: str) -> list[str]:
    told = []
    seen: dict[tuple[Any, ...], int] = {}
    for index, port in enumerate(container.ports):
        key = (port.container_port, port.protocol, port.host_port, port.host_ip)
        if key in seen:
            told.append(f"{field}.ports[{index}]: duplicate port definition with {field}.ports[{seen[key]}]")
        seen.setdefault(key, index)
    return told


def _pod(pod: Pod) -> list[str]:
    reasons: Sequence[str] = () if pod.spec.hostname else names.label(pod.metadata.name)
    if not reasons:
        return []
    why = "this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended"
    return [f"metadata.name: {why}: [{' '.join(reasons)}]"]


def _ingress(ingress: Ingress) -> list[str]:
    if _INGRESS_CLASS not in ingress.metadata.annotations:
        return []
    return [f"annotation \"{_INGRESS_CLASS}\" is deprecated, please use 'spec.ingressClassName' instead"]


def _service(service: Service) -> list[str]:
    spec, told = service.spec, []
    if spec.cluster_ip == "None":
        ignored = (
            ("loadBalancerIP", spec.load_balancer_ip),
            ("externalIPs", spec.external_ips),
            ("SessionAffinity", spec.session_affinity == "ClientIP"),
        )
        told += [f"spec.{name} is ignored for headless services" for name, value in ignored if value]
    if spec.type == "ExternalName" and spec.external_ips:
        told.append('spec.externalIPs is ignored when spec.type is "ExternalName"')
    return told


_OF_KIND: Mapping[tuple[str, str], Callable[[Any], list[str]]] = {
    ("", "pods"): _pod,
    ("", "services"): _service,
    ("networking.k8s.io", "ingresses"): _ingress,
}
