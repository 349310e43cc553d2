"""Services' endpoints, namespaces, and what the garbage collector takes and leaves."""

import pytest
from msgspec.structs import replace

from api.kinds.apps import ReplicaSet
from api.kinds.core import ConfigMap, Endpoints, Namespace, Service, ServiceAccount, ServicePort, ServiceSpec
from api.kinds.discovery import EndpointSlice
from api.kinds.pods import Container, ContainerPort, Pod
from api.meta import ObjectMeta, OwnerReference
from master.controllers.context import ControllerConfig
from master.controllers.endpoints import EndpointsController
from master.controllers.endpointslices import EndpointSliceController
from master.controllers.garbagecollector import GarbageCollector
from master.controllers.manager import Row
from master.controllers.namespaces import FurnishingController, NamespaceController
from tests.fakes.world import World, with_ready

SERVICES = (Row("endpoints", EndpointsController), Row("endpointslice", EndpointSliceController))
NAMESPACES = (Row("namespace", NamespaceController),)
GARBAGE = (Row("garbagecollector", GarbageCollector),)


async def add_pod(world: World, name: str, ip: str, *, ready: bool = True, port: int = 8080) -> Pod:
    container = Container(name="main", image="web:1", ports=(ContainerPort(name="http", container_port=port),))
    meta = ObjectMeta(name=name, namespace="default", labels={"app": "web"})
    spec = replace(Pod().spec, containers=(container,), node_name="n1")
    pod = await world.resources.create(Pod(metadata=meta, spec=spec))
    pod = replace(pod, status=replace(pod.status, pod_ip=ip))
    state = with_ready(pod, "True" if ready else "False", world.clock.time())
    return await world.resources.update(state, subresource="status")


def service(**spec: object) -> Service:
    ports = (ServicePort(name="web", port=80, target_port="http"),)
    fields = {"selector": {"app": "web"}, "ports": ports, "cluster_ip": "10.96.0.5", **spec}
    return Service(metadata=ObjectMeta(name="web", namespace="default"), spec=ServiceSpec(**fields))  # type: ignore[arg-type]


def listed(world: World) -> tuple[list[str], list[str]]:
    """Return (ready, not ready) as ``ip:port`` of Endpoints."""
    found = world.resources.find(Endpoints, "web", "default")
    assert found is not None
    return (
        [f"{a.ip}:{p.port}" for s in found.subsets for a in s.addresses for p in s.ports],
        [f"{a.ip}:{p.port}" for s in found.subsets for a in s.not_ready_addresses for p in s.ports],
    )


def sliced(world: World) -> dict[str, tuple[bool | None, int | None]]:
    """Return ip -> (ready, port) over all slices."""
    return {
        each.addresses[0]: (each.conditions.ready if each.conditions else None, part.ports[0].port)
        for part in world.resources.all(EndpointSlice)
        for each in part.endpoints
    }


async def test_endpoints_follow_pods_by_named_port_and_readiness() -> None:
    world = World(rows=SERVICES)
    async with world.running():
        await world.resources.create(service())
        await add_pod(world, "a", "10.244.0.2")
        second = await add_pod(world, "b", "10.244.0.3", ready=False, port=9090)
        await world.settle()
        assert listed(world) == (["10.244.0.2:8080"], ["10.244.0.3:9090"])
        assert sliced(world) == {"10.244.0.2": (True, 8080), "10.244.0.3": (False, 9090)}
        await world.resources.update(with_ready(second, "True", world.clock.time()), subresource="status")
        await world.settle()
        assert listed(world) == (["10.244.0.2:8080", "10.244.0.3:9090"], [])
        await world.resources.delete(Pod, "a", namespace="default")  # has grace: still there, being stopped
        await world.settle()
        assert listed(world) == (["10.244.0.3:9090"], [])
        stopping = next(
            each
            for part in world.resources.all(EndpointSlice)
            for each in part.endpoints
            if each.addresses == ("10.244.0.2",)
        )
        assert stopping.conditions is not None
        assert (stopping.conditions.ready, stopping.conditions.serving, stopping.conditions.terminating) == (
            False,
            True,
            True,
        )


async def test_a_service_that_publishes_unready_addresses() -> None:
    world = World(rows=SERVICES)
    async with world.running():
        await world.resources.create(service(publish_not_ready_addresses=True, cluster_ip="None"))
        await add_pod(world, "a", "10.244.0.2", ready=False)
        await world.settle()
        assert listed(world) == (["10.244.0.2:8080"], [])
        assert sliced(world) == {"10.244.0.2": (True, 8080)}
        found = world.resources.find(Endpoints, "web", "default")
        assert found is not None
        assert "service.kubernetes.io/headless" in found.metadata.labels


async def test_a_headless_service_without_ports_still_names_its_pods() -> None:
    world = World(rows=SERVICES)
    async with world.running():
        await world.resources.create(service(ports=(), cluster_ip="None"))
        await add_pod(world, "a", "10.244.0.2")
        await world.settle()
        found = world.resources.find(Endpoints, "web", "default")
        assert found is not None
        assert [each.ip for each in found.subsets[0].addresses] == ["10.244.0.2"]


async def test_a_service_without_selector_is_its_owners_business() -> None:
    world = World(rows=SERVICES)
    await world.resources.create(Endpoints(metadata=ObjectMeta(name="web", namespace="default")))
    async with world.running():
        await world.resources.create(service(selector={}))
        await world.settle()
        found = world.resources.find(Endpoints, "web", "default")
        assert found is not None
        assert found.metadata.resource_version == "2"


async def test_endpoints_go_with_their_service() -> None:
    world = World(rows=SERVICES)
    async with world.running():
        await world.resources.create(service())
        await add_pod(world, "a", "10.244.0.2")
        await world.settle()
        assert world.resources.all(EndpointSlice)
        await world.resources.delete(Service, "web", namespace="default")
        await world.settle()
        assert world.resources.all(Endpoints) == []
        assert world.resources.all(EndpointSlice) == []


async def test_slices_hold_a_hundred_addresses_and_change_one_by_one() -> None:
    world = World(rows=SERVICES)
    for number in range(230):
        await add_pod(world, f"p{number:03}", f"10.244.{number // 200}.{number % 200 + 2}")
    await world.resources.create(service())
    async with world.running():
        sizes = sorted(len(part.endpoints) for part in world.resources.all(EndpointSlice))
        assert sizes == [30, 100, 100]
        world.resources.calls.clear()
        await world.resources.delete(Pod, "p005", namespace="default", grace_period_s=0)
        await world.settle()
        assert sum(len(part.endpoints) for part in world.resources.all(EndpointSlice)) == 229
        assert sum(kind == "EndpointSlice" and verb in ("create", "update", "delete")
                   for verb, kind, _ in world.resources.calls) <= 2  # fmt: skip


async def test_a_namespace_is_emptied_before_it_goes() -> None:
    world = World(rows=NAMESPACES)
    await world.resources.create(Namespace(metadata=ObjectMeta(name="shop")))
    await world.resources.create(ConfigMap(metadata=ObjectMeta(name="a", namespace="shop")))
    await world.resources.create(service().__class__(metadata=ObjectMeta(name="s", namespace="shop")))
    await world.resources.create(ConfigMap(metadata=ObjectMeta(name="other", namespace="default")))
    held = ObjectMeta(name="held", namespace="shop", finalizers=("example.com/hold",))
    await world.resources.create(ConfigMap(metadata=held))
    async with world.running():
        await world.resources.delete(Namespace, "shop")
        await world.pass_time(1)
        assert [each.metadata.name for each in world.resources.all(ConfigMap)] == ["other", "held"]
        namespace = world.resources.find(Namespace, "shop")
        assert namespace is not None
        told = {each.type: (each.status, each.message) for each in namespace.status.conditions}
        assert told["NamespaceFinalizersRemaining"][0] == "True"
        assert "example.com/hold in 1 resource instances" in told["NamespaceFinalizersRemaining"][1]
        await world.resources.patch(ConfigMap, "held", {"metadata": {"finalizers": None}}, namespace="shop")
        await world.pass_time(6)
        assert world.resources.find(Namespace, "shop") is None
        assert [each.metadata.name for each in world.resources.all(ConfigMap)] == ["other"]


async def test_a_namespace_goes_at_once_when_its_last_pod_does() -> None:
    world = World(rows=NAMESPACES)
    await world.resources.create(Namespace(metadata=ObjectMeta(name="default")))
    await add_pod(world, "p", "10.244.0.2")
    async with world.running():
        await world.resources.delete(Namespace, "default")
        await world.settle()
        pod = world.resources.find(Pod, "p", "default")
        assert pod is not None
        assert pod.metadata.deletion_timestamp
        await world.resources.delete(Pod, "p", namespace="default", grace_period_s=0)
        await world.settle()
        assert world.resources.find(Namespace, "default") is None


async def test_every_namespace_is_furnished() -> None:
    world = World(rows=(Row("sa", FurnishingController),), config=ControllerConfig(root_ca="PEM"))
    await world.resources.create(Namespace(metadata=ObjectMeta(name="shop")))
    async with world.running():
        assert world.resources.find(ServiceAccount, "default", "shop") is not None
        await world.resources.delete(ServiceAccount, "default", namespace="shop")
        await world.resources.patch(ConfigMap, "kube-root-ca.crt", {"data": {"ca.crt": "x"}}, namespace="shop")
        await world.settle()
        assert world.resources.find(ServiceAccount, "default", "shop") is not None
        published = world.resources.find(ConfigMap, "kube-root-ca.crt", "shop")
        assert published is not None
        assert published.data == {"ca.crt": "PEM"}


def owned(name: str, *owners: ReplicaSet | ConfigMap, blocking: bool = False) -> ConfigMap:
    references = tuple(
        OwnerReference(
            api_version="apps/v1" if isinstance(each, ReplicaSet) else "v1",
            kind=type(each).__name__,
            name=each.metadata.name,
            uid=each.metadata.uid,
            block_owner_deletion=blocking or None,
        )
        for each in owners
    )
    return ConfigMap(metadata=ObjectMeta(name=name, namespace="default", owner_references=references))


def names(world: World) -> list[str]:
    return [each.metadata.name for each in world.resources.all(ConfigMap)]


async def make(world: World, name: str, *owners: ConfigMap, blocking: bool = False) -> ConfigMap:
    return await world.resources.create(owned(name, *owners, blocking=blocking))


async def test_dependents_go_after_their_owner() -> None:
    world = World(rows=GARBAGE)
    async with world.running():
        top = await make(world, "top")
        middle = await make(world, "middle", top)
        await make(world, "leaf", middle)
        await make(world, "stranger")
        await world.settle()
        await world.resources.delete(ConfigMap, "top", namespace="default", propagation="Background")
        await world.settle()
        assert names(world) == ["stranger"]


async def test_one_living_owner_is_enough() -> None:
    world = World(rows=GARBAGE)
    async with world.running():
        one, two = await make(world, "one"), await make(world, "two")
        await make(world, "child", one, two)
        await world.resources.delete(ConfigMap, "one", namespace="default", propagation="Background")
        await world.settle()
        child = world.resources.find(ConfigMap, "child", "default")
        assert child is not None
        assert [each.name for each in child.metadata.owner_references] == ["two"]


async def test_an_owner_of_the_same_name_is_another_owner() -> None:
    world = World(rows=GARBAGE)
    first = await make(world, "owner")
    await make(world, "child", first)
    await world.resources.delete(ConfigMap, "owner", namespace="default")
    await make(world, "owner")
    async with world.running():
        await world.settle()
        assert names(world) == ["owner"]


async def test_orphaning_leaves_dependents_without_owner() -> None:
    world = World(rows=GARBAGE)
    async with world.running():
        await make(world, "child", await make(world, "owner"))
        await world.resources.delete(ConfigMap, "owner", namespace="default", propagation="Orphan")
        await world.settle()
        child = world.resources.find(ConfigMap, "child", "default")
        assert child is not None
        assert child.metadata.owner_references == ()
        assert names(world) == ["child"]


async def test_in_the_foreground_the_owner_goes_last() -> None:
    world = World(rows=GARBAGE)
    async with world.running():
        owner = await make(world, "owner")
        child = owned("child", owner, blocking=True)
        held = replace(child, metadata=replace(child.metadata, finalizers=("example.com/hold",)))
        await world.resources.create(held)
        await make(world, "loose", owner)
        await world.settle()
        await world.resources.delete(ConfigMap, "owner", namespace="default", propagation="Foreground")
        await world.settle()
        assert "owner" in names(world)
        marked = world.resources.find(ConfigMap, "child", "default")
        assert marked is not None
        assert marked.metadata.deletion_timestamp
        await world.resources.patch(ConfigMap, "child", {"metadata": {"finalizers": None}}, namespace="default")
        await world.settle()
        assert names(world) == []


@pytest.mark.parametrize("kind", ["Widget", "Gadget"])
async def test_an_owner_of_a_kind_that_we_do_not_serve_counts_as_living(kind: str) -> None:
    world = World(rows=GARBAGE)
    reference = OwnerReference(api_version="example.com/v1", kind=kind, name="x", uid="u")
    await world.resources.create(
        ConfigMap(metadata=ObjectMeta(name="child", namespace="default", owner_references=(reference,)))
    )
    async with world.running():
        await world.settle()
        assert names(world) == ["child"]
