"""The scheduler never gives room away twice, whatever comes, goes and fails."""

import random
from collections import Counter

import pytest
from msgspec.structs import replace

from api.errors import Conflict, InternalError, Timeout
from api.kinds.core import Node
from api.kinds.pods import Container, ContainerPort, Pod, PodSpec, ResourceRequirements
from api.meta import ObjectMeta
from api.placement import requests_of
from master.controllers.manager import Row
from master.controllers.podstate import is_finished
from master.scheduler.loop import Scheduler
from tests.fakes.world import World, ready_node

ROWS = (Row("scheduler", Scheduler),)


def random_pod(name: str, rng: random.Random) -> Pod:
    requests = {"cpu": f"{rng.choice([100, 300, 700, 1500])}m", "memory": f"{rng.choice([64, 512, 1500])}Mi"}
    ports = (ContainerPort(container_port=80, host_port=80),) if rng.random() < 0.1 else ()
    container = Container(name="main", resources=ResourceRequirements(requests=requests), ports=ports)
    return Pod(
        metadata=ObjectMeta(name=name, namespace="default"),
        spec=PodSpec(containers=(container,), priority=rng.choice([None, 0, 100])),
    )


def check(world: World, sizes: dict[str, dict[str, int]]) -> None:
    """Assert that no node has more than it can take."""
    used: dict[str, Counter[str]] = {name: Counter() for name in sizes}
    ports: Counter[str] = Counter()
    for pod in world.resources.all(Pod):
        if not pod.spec.node_name or is_finished(pod):
            continue
        used[pod.spec.node_name].update({**requests_of(pod), "pods": 1})
        ports[pod.spec.node_name] += sum(bool(port.host_port) for port in pod.spec.containers[0].ports)
    for name, size in sizes.items():
        assert all(used[name][resource] <= limit for resource, limit in size.items()), (name, used[name], size)
        assert ports[name] <= 1


async def something(world: World, rng: random.Random, number: int) -> None:
    pods = world.resources.all(Pod)
    match rng.randrange(8):
        case 0 | 1 | 2 | 3:
            await world.resources.create(random_pod(f"p{number}", rng))
        case 4 if pods:
            await world.resources.delete(Pod, rng.choice(pods).metadata.name, namespace="default", grace_period_s=0)
        case 5 if pods:
            pod = rng.choice(pods)
            if pod.spec.node_name:
                done = replace(pod, status=replace(pod.status, phase="Succeeded"))
                await world.resources.update(done, subresource="status")
        case 6:
            error = rng.choice([InternalError("disk"), Conflict("changed"), Timeout("slow")])
            world.resources.refuse(error, verb="bind", times=rng.randint(1, 4))
        case 7:
            world.resources.break_watches()


@pytest.mark.parametrize("seed", range(30))
async def test_never_overcommitted_and_nobody_forgotten(seed: int) -> None:
    rng = random.Random(seed)
    world = World(rows=ROWS, seed=seed)
    sizes: dict[str, dict[str, int]] = {}
    for number in range(rng.randint(1, 5)):
        cpu, memory, count = rng.choice([1, 2, 4]), rng.choice([1, 2, 8]), rng.choice([3, 10])
        name = f"n{number}"
        await world.resources.create(ready_node(name, cpu=str(cpu), memory=f"{memory}Gi", pods=str(count)))
        sizes[name] = {"cpu": cpu * 1000, "memory": memory * 2**30, "pods": count}
    async with world.running():
        for number in range(80):
            await something(world, rng, number)
            await world.settle(rng.randint(1, 10))
            check(world, sizes)
            if rng.random() < 0.3:
                world.clock.advance(rng.random())
        # A node that takes everything: whoever waited must find it.
        await world.resources.create(ready_node("big", cpu="1000", memory="1000Gi", pods="1000"))
        sizes["big"] = {"cpu": 10**6, "memory": 1000 * 2**30, "pods": 1000}
        world.resources._refusals.clear()
        await world.pass_time(25, step_s=1)
        check(world, sizes)
        waiting = [pod for pod in world.resources.all(Pod) if not pod.spec.node_name]
        # The big node has one port 80, too.
        assert all(pod.spec.containers[0].ports for pod in waiting)
    assert len(world.resources.all(Node)) == len(sizes)
