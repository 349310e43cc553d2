"""How many pods a second the scheduler places: the decision alone, and the whole loop over objects in memory.

.venv/bin/python -m benchmarks.scheduler --nodes 1000 --pods 2000
"""

import argparse
import asyncio
import random
import statistics
import time
from collections import Counter

from api.kinds.apps import ReplicaSet
from api.kinds.pods import Container, Pod, PodSpec, ResourceRequirements
from api.meta import ObjectMeta, OwnerReference
from client.clock import SystemClock
from master.controllers.manager import ControllerManager, Row
from master.scheduler.demands import pod_info
from master.scheduler.framework import Placed, pick_node
from master.scheduler.loop import Scheduler
from master.scheduler.profile import DEFAULT
from master.scheduler.snapshot import Cluster
from tests.fakes.resources import MemoryResources
from tests.fakes.world import ready_node


def pod(number: int) -> Pod:
    """Return one of many replicas of twenty sets."""
    owner = f"set-{number % 20}"
    requests = {"cpu": "100m", "memory": "64Mi"}
    return Pod(
        metadata=ObjectMeta(
            name=f"p{number}",
            namespace="default",
            uid=f"p{number}",
            labels={"app": owner},
            owner_references=(
                OwnerReference(api_version="apps/v1", kind=ReplicaSet.__name__, name=owner, uid=owner, controller=True),
            ),
        ),
        spec=PodSpec(
            containers=(Container(name="c", image="web:1", resources=ResourceRequirements(requests=requests)),)
        ),
    )


def decide(nodes: int, pods: int) -> None:
    """Place pods on a picture of the cluster, without writing anything."""
    cluster, rng = Cluster(), random.Random(1)
    for number in range(nodes):
        cluster.set_node(f"n{number}", ready_node(f"n{number}"))
    start, took, on = 0, [], Counter[str]()
    began = time.perf_counter()
    for number in range(pods):
        at = time.perf_counter()
        info = pod_info(pod(number))
        choice = pick_node(info, cluster.snapshot(), DEFAULT, start=start, rng=rng)
        assert isinstance(choice, Placed), choice
        cluster.put_pod(info, choice.node)
        start = choice.next_start
        on[choice.node] += 1
        took.append(time.perf_counter() - at)
    spent = time.perf_counter() - began
    took.sort()
    print(
        f"decisions: {pods} pods, {nodes} nodes: {pods / spent:,.0f} pods/s, "
        f"p50 {statistics.median(took) * 1e3:.2f} ms, p99 {took[len(took) * 99 // 100] * 1e3:.2f} ms, "
        f"pods on a node {min(on[f'n{n}'] for n in range(nodes))} to {max(on.values())}"
    )


async def loop(nodes: int, pods: int) -> None:
    """Let the real loop bind pods that arrive all at once."""
    memory = MemoryResources(defaults=False)
    for number in range(nodes):
        await memory.create(ready_node(f"n{number}"))
    manager = ControllerManager(memory, clock=SystemClock(), rows=(Row("scheduler", Scheduler),), rng=random.Random(1))
    task = asyncio.create_task(manager.run())
    await asyncio.sleep(0.5)
    began = time.perf_counter()
    for number in range(pods):
        await memory.create(pod(number))
    while any(not each.spec.node_name for each in memory.all(Pod)):  # noqa: ASYNC110 - looks from outside
        await asyncio.sleep(0.05)
    spent = time.perf_counter() - began
    print(f"whole loop, in memory: {pods} pods, {nodes} nodes: {pods / spent:,.0f} pods/s")
    task.cancel()
    await asyncio.wait((task,))


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=2000)
    given = parser.parse_args()
    decide(given.nodes, given.pods)
    asyncio.run(loop(given.nodes, given.pods))


if __name__ == "__main__":
    main()
