"""Endpoints written by hand, shown as slices."""

import pytest
from msgspec.structs import replace

from api.kinds.core import EndpointAddress, EndpointPort, Endpoints, EndpointSubset, Service, ServicePort, ServiceSpec
from api.kinds.discovery import EndpointSlice
from api.meta import ObjectMeta
from master.controllers.endpointmirroring import CONTROLLER, SKIP, EndpointMirroringController
from master.controllers.manager import Row
from tests.fakes.world import World

ROWS = (Row("mirroring", EndpointMirroringController),)


def service(**selector: str) -> Service:
    spec = ServiceSpec(ports=(ServicePort(port=80, name="web"),), selector=selector, cluster_ip="10.96.0.9")
    return Service(metadata=ObjectMeta(name="outside", namespace="default"), spec=spec)


def endpoints(*addresses: str, not_ready: tuple[str, ...] = (), **labels: str) -> Endpoints:
    subset = EndpointSubset(
        addresses=tuple(EndpointAddress(ip=each) for each in addresses),
        not_ready_addresses=tuple(EndpointAddress(ip=each) for each in not_ready),
        ports=(EndpointPort(name="web", port=8080, protocol="TCP"),),
    )
    meta = ObjectMeta(name="outside", namespace="default", labels=labels, annotations={"by": "hand"})
    return Endpoints(metadata=meta, subsets=(subset,))


def slices(world: World) -> list[EndpointSlice]:
    return sorted(world.resources.all(EndpointSlice), key=lambda each: (each.address_type, each.metadata.name))


def shown(world: World) -> list[tuple[str, bool | None]]:
    return [
        (each.addresses[0], each.conditions.ready if each.conditions else None)
        for slice_ in slices(world)
        for each in slice_.endpoints
    ]


async def test_slices_follow_endpoints_through_their_life() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(service())
        made = await world.resources.create(
            endpoints("192.0.2.1", "2001:db8::1", not_ready=("192.0.2.2",), own="label")
        )
        await world.settle()
        assert shown(world) == [("192.0.2.1", True), ("192.0.2.2", False), ("2001:db8::1", True)]
        assert [each.address_type for each in slices(world)] == ["IPv4", "IPv6"]
        meta = slices(world)[0].metadata
        assert meta.labels == {
            "own": "label",
            "kubernetes.io/service-name": "outside",
            "endpointslice.kubernetes.io/managed-by": CONTROLLER,
        }
        assert (meta.annotations, meta.owner_references[0].uid) == ({"by": "hand"}, made.metadata.uid)
        name = meta.name
        changed = replace(made, subsets=endpoints("192.0.2.3").subsets)
        await world.resources.update(changed)
        await world.settle()
        assert shown(world) == [("192.0.2.3", True)]
        assert slices(world)[0].metadata.name == name  # changed, not made anew
        await world.resources.delete(Endpoints, "outside", namespace="default")
        await world.settle()
        assert slices(world) == []


async def test_a_slice_that_was_tampered_with_is_put_right() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(service())
        await world.resources.create(endpoints("192.0.2.1"))
        await world.settle()
        await world.resources.update(replace(slices(world)[0], endpoints=()))
        await world.settle()
        assert shown(world) == [("192.0.2.1", True)]


@pytest.mark.parametrize(
    ("of", "given"),
    [
        (service(app="web"), endpoints("192.0.2.1")),
        (service(), endpoints("192.0.2.1", **{SKIP: "true"})),
        (None, endpoints("192.0.2.1")),
    ],
    ids=["the service has slices of its own", "not wanted", "no service"],
)
async def test_who_is_not_mirrored(of: Service | None, given: Endpoints) -> None:
    world = World(rows=ROWS)
    async with world.running():
        if of is not None:
            await world.resources.create(of)
        await world.resources.create(given)
        await world.settle()
        assert slices(world) == []


async def test_many_addresses_take_several_slices() -> None:
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(service())
        await world.resources.create(endpoints(*(f"192.0.2.{number}" for number in range(1, 251))))
        await world.settle()
        assert sorted(len(each.endpoints) for each in slices(world)) == [50, 100, 100]
