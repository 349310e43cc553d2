"""EndpointSlices for Endpoints that somebody writes by hand: who reads slices alone finds those addresses, too.

Endpoints are mirrored if they belong to a service without a selector (a service with one has slices of its own), and
do not ask to be left alone. Source: kubernetes.io, "EndpointSlices", "EndpointSlice mirroring".
"""

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from msgspec.structs import replace

from api.kinds.core import EndpointAddress, Endpoints, EndpointSubset, Service
from api.kinds.discovery import Endpoint, EndpointConditions, EndpointPort, EndpointSlice
from api.meta import ObjectMeta
from client.informer import key_of
from client.resources import Resources
from client.runner import Runner
from master.controllers.addresses import MANAGED_BY, SERVICE_NAME, TRIGGER_TIME
from master.controllers.context import Context
from master.controllers.ownership import reference_to_controller
from master.controllers.removal import remove

CONTROLLER = "endpointslicemirroring-controller.k8s.io"
SKIP = "endpointslice.kubernetes.io/skip-mirror"
LARGEST = 100  # addresses of a slice
MOST = 1000  # mirrored addresses of a subset
_LEADER = "control-plane.alpha.kubernetes.io/leader"
_NOT_COPIED = frozenset({"kubectl.kubernetes.io/last-applied-configuration", TRIGGER_TIME})


def is_mirrored(endpoints: Endpoints, service: Service | None) -> bool:
    """Return whether ``endpoints`` are to be shown as slices. service: of the same name, if there is one."""
    meta = endpoints.metadata
    if service is None or service.spec.selector or meta.deletion_timestamp:
        return False
    return meta.labels.get(SKIP) != "true" and _LEADER not in meta.annotations


def plan_slices(endpoints: Endpoints) -> list[EndpointSlice]:
    """Return the slices that show what ``endpoints`` show, without names."""
    slices = []
    for subset in endpoints.subsets:
        ports = tuple(
            EndpointPort(name=port.name, port=port.port, protocol=port.protocol, app_protocol=port.app_protocol)
            for port in subset.ports
        )
        for family, found in _by_family(subset).items():
            for first in range(0, len(found), LARGEST):
                part, meta = tuple(found[first : first + LARGEST]), _meta(endpoints)
                slices.append(EndpointSlice(metadata=meta, address_type=family, endpoints=part, ports=ports))
    return slices


def _by_family(subset: EndpointSubset) -> dict[str, list[Endpoint]]:
    found: dict[str, list[Endpoint]] = {}
    both = [*((each, True) for each in subset.addresses), *((each, False) for each in subset.not_ready_addresses)]
    for address, ready in both[:MOST]:
        family = "IPv6" if ip_address(address.ip).version == 6 else "IPv4"
        found.setdefault(family, []).append(_endpoint(address, ready=ready))
    return found


def _endpoint(address: EndpointAddress, *, ready: bool) -> Endpoint:
    return Endpoint(
        addresses=(address.ip,),
        conditions=EndpointConditions(ready=ready),
        hostname=address.hostname,
        node_name=address.node_name,
        target_ref=address.target_ref,
    )


def _meta(endpoints: Endpoints) -> ObjectMeta:
    meta = endpoints.metadata
    return ObjectMeta(
        generate_name=f"{meta.name}-",
        namespace=meta.namespace,
        labels={**meta.labels, SERVICE_NAME: meta.name, MANAGED_BY: CONTROLLER},
        annotations={name: text for name, text in meta.annotations.items() if name not in _NOT_COPIED},
        owner_references=(reference_to_controller(endpoints),),
    )


def match(
    wanted: Iterable[EndpointSlice], present: Sequence[EndpointSlice]
) -> tuple[list[EndpointSlice], list[EndpointSlice], list[EndpointSlice]]:
    """Return (slices to make, to change, to delete): one of the same ports and family is changed, not made anew."""
    spare, create, update = list(present), [], []
    for each in wanted:
        alike = (old for old in spare if (old.ports, old.address_type) == (each.ports, each.address_type))
        old = next(alike, None)
        if old is None:
            create.append(each)
            continue
        spare.remove(old)
        meta = replace(old.metadata, labels=each.metadata.labels, annotations=each.metadata.annotations)
        fresh = replace(old, metadata=meta, endpoints=each.endpoints)
        if fresh != old:
            update.append(fresh)
    return create, update, spare


class EndpointMirroringController:
    """Keeps the slices of Endpoints that nobody else shows."""

    def __init__(self, context: Context) -> None:
        self._services = context.informers.of(Service)
        self._endpoints = context.informers.of(Endpoints)
        self._slices = context.informers.of(EndpointSlice, indexes={"mirrored": _by_mirrored})
        self.runner = Runner(
            "endpointslicemirroring",
            self.reconcile,
            resources=context.resources,
            informers=context.informers,
            workers=4,
            clock=context.clock,
        )
        # Endpoints, their service and their slices are found by one key.
        self._endpoints.subscribe(self.runner.queue.add)
        self._services.subscribe(self.runner.queue.add)
        self._slices.subscribe(self.runner.queue.add, _mirrored_of_change)

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Bring the slices of one Endpoints object up to date."""
        endpoints, present = self._endpoints.get(key), self._slices.indexed("mirrored", key)
        wanted: list[EndpointSlice] = []
        if endpoints is not None and is_mirrored(endpoints, self._services.get(key_of(endpoints))):
            wanted = plan_slices(endpoints)
        create, update, delete = match(wanted, sorted(present, key=key_of))
        for each in create:
            await api.create(each)
        for each in update:
            await api.update(each)
        for each in delete:
            await remove(api, each)
        return None


def _by_mirrored(slice_: EndpointSlice) -> Iterable[str]:
    """Index our own slices by the Endpoints that they show."""
    labels = slice_.metadata.labels
    if labels.get(MANAGED_BY) != CONTROLLER or SERVICE_NAME not in labels:
        return ()
    return (f"{slice_.metadata.namespace}/{labels[SERVICE_NAME]}",)


def _mirrored_of_change(before: EndpointSlice | None, after: EndpointSlice | None) -> Iterable[str]:
    return {key: None for state in (before, after) if state is not None for key in _by_mirrored(state)}
