"""A rolling update keeps its bounds at every single write, in whatever order pods get ready and specs change."""

import asyncio
import random

import pytest
from msgspec.structs import replace

from api.kinds.apps import Deployment, DeploymentSpec, DeploymentStrategy, ReplicaSet, RollingUpdateDeployment
from api.kinds.pods import Pod
from api.meta import LabelSelector, ObjectMeta
from master.controllers.deployment import DeploymentController
from master.controllers.deployment_plan import bounds_of
from master.controllers.manager import Row
from master.controllers.podstate import is_active, is_ready
from master.controllers.replicaset import replicaset_controller
from tests.fakes.world import World, template, with_ready

ROWS = (Row("replicaset", replicaset_controller), Row("deployment", DeploymentController))
LABELS = {"app": "web"}


class Watchman:
    """Looks at the pods after every turn of the event loop."""

    def __init__(self, world: World, most: int, least: int) -> None:
        self.world = world
        self.most = most
        self.least = least
        self.reached = False  # the lower bound holds from when it was first reached

    def look(self) -> None:
        active = [pod for pod in self.world.resources.all(Pod) if is_active(pod)]
        ready = sum(map(is_ready, active))
        assert len(active) <= self.most, f"{len(active)} pods, {self.most} allowed"
        self.reached = self.reached or ready >= self.least
        assert not self.reached or ready >= self.least, f"{ready} available, {self.least} promised"


async def get_ready(world: World, rng: random.Random, chance: float) -> None:
    """Let agents start some pods, make some ready and finish some deletions."""
    for pod in world.resources.all(Pod):
        meta = pod.metadata
        if not pod.spec.node_name:
            if meta.deletion_timestamp:
                continue
            await world.resources.bind(namespace="default", pod=meta.name, uid=meta.uid, node="n1")
        elif rng.random() > chance:
            continue
        elif meta.deletion_timestamp:
            await world.resources.delete(Pod, meta.name, namespace="default", grace_period_s=0)
        elif not is_ready(pod):
            await world.resources.update(with_ready(pod, "True", world.clock.time()), subresource="status")


@pytest.mark.parametrize("seed", range(25))
async def test_never_too_many_never_too_few(seed: int) -> None:
    """Goal: bounds hold under random readiness. Method: random sizes, surges and template changes in mid-rollout."""
    rng = random.Random(seed)
    replicas = rng.randint(1, 10)
    surge: int | str = rng.choice([0, 1, 3, "25%", "100%"])
    unavailable: int | str = rng.choice([0, 1, 2, "25%", "50%"])
    if surge == 0 and unavailable == 0:
        surge = 1
    strategy = DeploymentStrategy(
        type="RollingUpdate",
        rolling_update=RollingUpdateDeployment(max_surge=surge, max_unavailable=unavailable),
    )
    world = World(rows=ROWS, seed=seed)
    selector = LabelSelector(match_labels=LABELS)
    spec = DeploymentSpec(replicas=replicas, selector=selector, template=template(LABELS), strategy=strategy)
    made = await world.resources.create(Deployment(metadata=ObjectMeta(name="web", namespace="default"), spec=spec))
    bounds = bounds_of(made)
    watchman = Watchman(world, replicas + bounds.surge, replicas - bounds.unavailable)
    async with world.running():
        for round_ in range(60):
            if round_ in (15, 25, 32):
                present = world.resources.find(Deployment, "web", "default")
                assert present is not None
                changed = replace(present.spec, template=template(LABELS, f"web:{rng.randint(1, 3)}"))
                await world.resources.update(replace(present, spec=changed))
            for _ in range(rng.randint(1, 40)):
                await asyncio.sleep(0)
                watchman.look()
            await get_ready(world, rng, rng.random())
            watchman.look()
            world.clock.advance(0.2)
        for _ in range(30):
            await world.settle()
            watchman.look()
            await get_ready(world, rng, 1.0)
            world.clock.advance(0.2)
    assert watchman.reached
    final = world.resources.find(Deployment, "web", "default")
    assert final is not None
    assert (final.status.updated_replicas, final.status.available_replicas, final.status.replicas) == (replicas,) * 3
    wanted = final.spec.template.spec.containers[0].image
    assert {pod.spec.containers[0].image for pod in world.resources.all(Pod)} == {wanted}
    assert sum((rs.spec.replicas or 0) > 0 for rs in world.resources.all(ReplicaSet)) == 1
