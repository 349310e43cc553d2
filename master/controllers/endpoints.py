"""Endpoints: the older list of a service's addresses, one object for each service with a selector."""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from api.kinds.core import EndpointAddress, EndpointPort, Endpoints, EndpointSubset, Service
from api.kinds.pods import Pod
from api.meta import ObjectMeta
from api.selectors import of_map
from client.informer import key_of
from client.resources import Resources
from client.runner import Runner
from master.controllers.addresses import HEADLESS, Address, Port, addresses_of, concerns_services, is_ours
from master.controllers.context import Context
from master.controllers.removal import remove


def _address(each: Address) -> EndpointAddress:
    return EndpointAddress(ip=each.ip, node_name=each.node, hostname=each.hostname, target_ref=each.target)


def plan_subsets(addresses: Sequence[Address]) -> tuple[EndpointSubset, ...]:
    """Group addresses by the ports that they offer; ready ones apart from the others.

    A pod that is being stopped is shown nowhere: this older form has no word for it.
    """
    groups: dict[tuple[Port, ...], list[Address]] = {}
    for each in addresses:
        if each.ready or not each.terminating:
            groups.setdefault(each.ports, []).append(each)
    return tuple(
        EndpointSubset(
            addresses=tuple(_address(each) for each in group if each.ready),
            not_ready_addresses=tuple(_address(each) for each in group if not each.ready),
            ports=tuple(
                EndpointPort(name=port.name, port=port.number, protocol=port.protocol, app_protocol=port.app_protocol)
                for port in ports
            ),
        )
        for ports, group in sorted(groups.items())
    )


def plan_endpoints(service: Service, addresses: Sequence[Address], present: Endpoints | None) -> Endpoints:
    """Return the Endpoints that ``service`` should have."""
    labels = dict(service.metadata.labels)
    if service.spec.cluster_ip == "None":
        labels[HEADLESS] = ""
    subsets = plan_subsets(addresses)
    if present is None:
        meta = ObjectMeta(name=service.metadata.name, namespace=service.metadata.namespace, labels=labels)
        return Endpoints(metadata=meta, subsets=subsets)
    return replace(present, metadata=replace(present.metadata, labels=labels), subsets=subsets)


class EndpointsController:
    """Keeps the Endpoints of services with a selector."""

    def __init__(self, context: Context) -> None:
        self._services = context.informers.of(Service)
        self._endpoints = context.informers.of(Endpoints)
        self._pods = context.informers.of(Pod)
        self.runner = Runner(
            "endpoints",
            self.reconcile,
            resources=context.resources,
            informers=context.informers,
            workers=8,
            clock=context.clock,
        )
        self._services.subscribe(self.runner.queue.add)
        self._endpoints.subscribe(self.runner.queue.add, self._of_known_service)
        self._pods.subscribe(self.runner.queue.add, concerns_services(self._services))

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    def _of_known_service(self, before: Endpoints | None, after: Endpoints | None) -> Iterable[str]:
        """Endpoints may be there before their service; they go only when the service does."""
        key = key_of(after or before or Endpoints())
        return () if self._services.get(key) is None else (key,)

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Bring the Endpoints of one service up to date; those of a service that is gone go, too."""
        service, present = self._services.get(key), self._endpoints.get(key)
        if service is None:
            if present is not None:
                await remove(api, present)
            return None
        if not is_ours(service):
            return None
        pods = self._pods.in_namespace(service.metadata.namespace, of_map(service.spec.selector))
        wanted = plan_endpoints(service, addresses_of(service, pods), present)
        if present is None:
            await api.create(wanted)
        elif wanted != present:
            await api.update(wanted)
        return None
