"""EndpointSlices: a service's addresses in objects of at most a hundred, so that one pod's change is a small write."""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from api.kinds.core import Node, Service
from api.kinds.discovery import Endpoint, EndpointConditions, EndpointPort, EndpointSlice
from api.kinds.pods import Pod
from api.meta import ObjectMeta
from api.selectors import of_map
from client.informer import Informer
from client.resources import Resources
from client.runner import Runner
from master.controllers.addresses import (
    HEADLESS,
    MANAGED_BY,
    SERVICE_NAME,
    Address,
    Port,
    addresses_of,
    concerns_services,
    is_ours,
)
from master.controllers.context import Context
from master.controllers.ownership import reference_to_controller
from master.controllers.removal import remove

CONTROLLER = "endpointslice-controller.k8s.io"
LARGEST = 100
ZONE = "topology.kubernetes.io/zone"


class Plan(msgspec.Struct, frozen=True):
    """What to write."""

    create: Sequence[EndpointSlice]
    update: Sequence[EndpointSlice]
    delete: Sequence[EndpointSlice]


def _endpoint(each: Address, zone: str) -> Endpoint:
    return Endpoint(
        addresses=(each.ip,),
        conditions=EndpointConditions(ready=each.ready, serving=each.serving, terminating=each.terminating),
        hostname=each.hostname,
        node_name=each.node,
        target_ref=each.target,
        zone=zone,
    )


def _ports(ports: Iterable[Port]) -> tuple[EndpointPort, ...]:
    return tuple(
        EndpointPort(name=port.name, port=port.number, protocol=port.protocol, app_protocol=port.app_protocol)
        for port in ports
    )


def plan_slices(
    service: Service, addresses: Sequence[Address], present: Sequence[EndpointSlice], zones: dict[str, str]
) -> Plan:
    """Decide how the slices of ``service`` change; an address stays in the slice that it is in.

    zones: node -> zone, where known.
    """
    labels = _labels(service)
    create: list[EndpointSlice] = []
    update: list[EndpointSlice] = []
    kept: set[str] = set()
    groups: dict[tuple[Port, ...], list[Address]] = {}
    for each in addresses:
        groups.setdefault(each.ports, []).append(each)
    for ports, group in sorted(groups.items() or [((), [])]):
        shown = _ports(ports)
        wanted = {each.target.uid: _endpoint(each, zones.get(each.node, "")) for each in group}
        slices = [each for each in present if each.ports == shown and each.address_type == "IPv4"]
        for slice_ in slices:
            endpoints = [found for old in slice_.endpoints if (found := wanted.pop(_uid(old), None)) is not None]
            while wanted and len(endpoints) < LARGEST:
                endpoints.append(wanted.pop(next(iter(wanted))))
            if not endpoints and (kept or slice_ is not slices[-1]):
                continue  # one empty slice says that there is nothing; more say no more
            kept.add(slice_.metadata.uid)
            fresh = _changed(slice_, labels, endpoints)
            if fresh != slice_:
                update.append(fresh)
        rest = list(wanted.values())
        if rest or not (kept or create):
            firsts = range(0, max(1, len(rest)), LARGEST)
            create += [_new(service, labels, shown, rest[first : first + LARGEST]) for first in firsts]
    return Plan(create, update, [each for each in present if each.metadata.uid not in kept])


def _uid(endpoint: Endpoint) -> str:
    return endpoint.target_ref.uid if endpoint.target_ref is not None else ""


def _labels(service: Service) -> dict[str, str]:
    labels = {**service.metadata.labels, SERVICE_NAME: service.metadata.name, MANAGED_BY: CONTROLLER}
    if service.spec.cluster_ip == "None":
        labels[HEADLESS] = ""
    return labels


def _changed(slice_: EndpointSlice, labels: dict[str, str], endpoints: Sequence[Endpoint]) -> EndpointSlice:
    return replace(slice_, metadata=replace(slice_.metadata, labels=labels), endpoints=tuple(endpoints))


def _new(
    service: Service, labels: dict[str, str], ports: tuple[EndpointPort, ...], endpoints: Sequence[Endpoint]
) -> EndpointSlice:
    return EndpointSlice(
        metadata=ObjectMeta(
            generate_name=f"{service.metadata.name}-",
            namespace=service.metadata.namespace,
            labels=labels,
            owner_references=(reference_to_controller(service),),
        ),
        address_type="IPv4",
        endpoints=tuple(endpoints),
        ports=ports,
    )


class EndpointSliceController:
    """Keeps the EndpointSlices of services with a selector."""

    def __init__(self, context: Context) -> None:
        self._services = context.informers.of(Service)
        self._slices = context.informers.of(EndpointSlice, indexes={"service": _by_service})
        self._pods = context.informers.of(Pod)
        self._nodes: Informer[Node] = context.informers.of(Node)
        self.runner = Runner(
            "endpointslice",
            self.reconcile,
            resources=context.resources,
            informers=context.informers,
            workers=8,
            clock=context.clock,
        )
        self._services.subscribe(self.runner.queue.add)
        self._slices.subscribe(self.runner.queue.add, _service_of_change)
        self._pods.subscribe(self.runner.queue.add, concerns_services(self._services))

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Bring the slices of one service up to date; those of a service that is gone go, too."""
        service, present = self._services.get(key), self._slices.indexed("service", key)
        if service is None or not is_ours(service):
            for each in present:
                await remove(api, each)
            return None
        pods = self._pods.in_namespace(service.metadata.namespace, of_map(service.spec.selector))
        addresses = addresses_of(service, pods)
        zones = {node.metadata.name: node.metadata.labels.get(ZONE, "") for node in self._nodes}
        plan = plan_slices(service, addresses, sorted(present, key=lambda each: each.metadata.name), zones)
        for each in plan.create:
            await api.create(each)
        for each in plan.update:
            await api.update(each)
        for each in plan.delete:
            await remove(api, each)
        return None


def _by_service(slice_: EndpointSlice) -> Iterable[str]:
    """Index our own slices by their service's key."""
    labels = slice_.metadata.labels
    if labels.get(MANAGED_BY) != CONTROLLER or SERVICE_NAME not in labels:
        return ()
    return (f"{slice_.metadata.namespace}/{labels[SERVICE_NAME]}",)


def _service_of_change(before: EndpointSlice | None, after: EndpointSlice | None) -> Iterable[str]:
    return {key: None for state in (before, after) if state is not None for key in _by_service(state)}
