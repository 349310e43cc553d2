"""Which pods stand behind a service, at which ports: the facts that Endpoints and EndpointSlices both show."""

from collections.abc import Iterable

import msgspec

from api.kinds.core import Service, ServicePort
from api.kinds.pods import Pod
from api.kinds.volumes import ObjectReference
from api.selectors import of_map
from client.informer import Concerns, Informer
from master.controllers.podstate import is_finished, is_ready

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
SERVICE_NAME = "kubernetes.io/service-name"
HEADLESS = "service.kubernetes.io/headless"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"


class Port(msgspec.Struct, frozen=True, order=True):
    """A service port as one pod offers it."""

    name: str
    protocol: str
    number: int
    app_protocol: str = ""


class Address(msgspec.Struct, frozen=True):
    """One pod of a service. ready: takes traffic; serving: would, were it not being stopped."""

    ip: str
    node: str
    hostname: str
    target: ObjectReference
    ready: bool
    serving: bool
    terminating: bool
    ports: tuple[Port, ...]  # sorted


def _number(port: ServicePort, pod: Pod) -> int | None:
    """Return the container port that ``port`` leads to; None if no container has a port of that name."""
    target = port.target_port if port.target_port not in (None, "", 0) else port.port
    if isinstance(target, int):
        return target
    for container in pod.spec.containers:
        for each in container.ports:
            if each.name == target and (each.protocol or "TCP") == (port.protocol or "TCP"):
                return each.container_port
    return None


def _ports(service: Service, pod: Pod) -> tuple[Port, ...]:
    found = [
        Port(port.name, port.protocol or "TCP", number, port.app_protocol)
        for port in service.spec.ports
        if (number := _number(port, pod)) is not None
    ]
    return tuple(sorted(found))


def addresses_of(service: Service, pods: Iterable[Pod]) -> list[Address]:
    """Return what stands behind ``service``, by IP; a pod that has none yet, or has finished, does not.

    A pod that the service's ports do not fit still counts where the service is headless: its name resolves.
    """
    found = []
    publishes = bool(service.spec.publish_not_ready_addresses)
    for pod in pods:
        if not pod.status.pod_ip or is_finished(pod):
            continue
        ports = _ports(service, pod)
        if service.spec.ports and not ports and service.spec.cluster_ip != "None":
            continue
        terminating = bool(pod.metadata.deletion_timestamp)
        serving = is_ready(pod)
        named = pod.spec.hostname and pod.spec.subdomain == service.metadata.name
        found.append(
            Address(
                ip=pod.status.pod_ip,
                node=pod.spec.node_name,
                hostname=pod.spec.hostname if named else "",
                target=ObjectReference(
                    kind="Pod", namespace=pod.metadata.namespace, name=pod.metadata.name, uid=pod.metadata.uid
                ),
                ready=publishes or (serving and not terminating),
                serving=serving,
                terminating=terminating,
                ports=ports,
            )
        )
    return sorted(found, key=lambda each: (each.ip, each.target.name))


def is_ours(service: Service) -> bool:
    """Return whether the service's endpoints follow from its selector; others are written by their owners."""
    return bool(service.spec.selector) and service.spec.type != "ExternalName"


def concerns_services(services: Informer[Service]) -> Concerns[Pod]:
    """Return which services' keys a change of a pod concerns: those that select, or selected, it."""

    def keys(before: Pod | None, after: Pod | None) -> Iterable[str]:
        if before is not None and after is not None and _looks_the_same(before, after):
            return ()
        found: dict[str, None] = {}
        for state in (before, after):
            if state is None:
                continue
            for service in services.indexed("namespace", state.metadata.namespace):
                selector = service.spec.selector
                if selector and of_map(selector).matches(state.metadata.labels):
                    found[f"{service.metadata.namespace}/{service.metadata.name}"] = None
        return found

    return keys


def _looks_the_same(before: Pod, after: Pod) -> bool:
    """Return whether endpoints show nothing of the change."""

    def shown(pod: Pod) -> tuple[object, ...]:
        meta = pod.metadata
        return (
            meta.uid,
            meta.labels,
            bool(meta.deletion_timestamp),
            pod.status.pod_ip,
            pod.spec,
            is_ready(pod),
            is_finished(pod),
        )

    return shown(before) == shown(after)
