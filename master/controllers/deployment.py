"""Deployments: rounds that read the ReplicaSets, take the planned step, write the status."""

import logging
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from api.errors import AlreadyExists, ApiError
from api.kinds.apps import Deployment, ReplicaSet
from api.kinds.pods import Pod
from api.meta import Resource
from api.selectors import of_struct
from client.informer import Concerns
from client.resources import Resources
from client.runner import Runner
from master.controllers import deployment_status, ownership, revisions
from master.controllers.context import Context
from master.controllers.deployment_plan import (
    CreateSet,
    DeleteSet,
    Step,
    UpdateSet,
    count_of,
    is_recreating,
    plan_step,
)
from master.controllers.podstate import is_finished
from master.controllers.removal import remove

log = logging.getLogger(__name__)


class DeploymentController:
    """Rolls templates out."""

    def __init__(self, context: Context) -> None:
        self._clock = context.clock
        self._deployments = context.informers.of(Deployment)
        self._sets = context.informers.of(ReplicaSet)
        self._pods = context.informers.of(Pod)
        ownership.add_orphan_index(self._sets)
        self._recorder = context.recorder("deployment-controller")
        self.runner = Runner(
            "deployment",
            self.reconcile,
            resources=context.resources,
            informers=context.informers,
            workers=8,
            clock=context.clock,
        )
        self._deployments.subscribe(self.runner.queue.add)
        concerns: Concerns[ReplicaSet] = ownership.concerns_controllers(
            self._deployments, "Deployment", lambda each: of_struct(each.spec.selector)
        )
        self._sets.subscribe(self.runner.queue.add, concerns)
        self._pods.subscribe(self.runner.queue.add, self._of_gone_pod)

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    def _of_gone_pod(self, before: Pod | None, after: Pod | None) -> Iterable[str]:
        """A pod that is gone concerns its Deployment if that waits for old pods to go."""
        if before is None or (after is not None and not is_finished(after)):
            return ()
        reference = ownership.controller_of(before)
        rs = self._sets.get(f"{before.metadata.namespace}/{reference.name}") if reference is not None else None
        owner = ownership.controller_of(rs) if rs is not None else None
        if owner is None:
            return ()
        key = f"{before.metadata.namespace}/{owner.name}"
        deployment = self._deployments.get(key)
        return (key,) if deployment is not None and is_recreating(deployment) else ()

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Take the next step of one rollout."""
        deployment = self._deployments.get(key)
        if deployment is None:
            return None
        query = of_struct(deployment.spec.selector)
        if query.everything:
            self._tell(deployment, "Warning", "SelectingAll", "This deployment is selecting all pods. "
                       "A non-empty selector is required.")  # fmt: skip
            return None
        sets = await ownership.claim(api, deployment, query, ownership.candidates_of(self._sets, deployment))
        if deployment.metadata.deletion_timestamp:
            new = revisions.find_new(deployment, sets)
            old = [rs for rs in sets if rs is not new]
            return await self._write_status(api, deployment, deployment_status.Seen(new=new, old=old))
        step = plan_step(deployment, sets, old_pods_remain=self._old_pods_remain(deployment, sets))
        seen = await self._apply(api, deployment, step)
        if seen is None:
            return None
        deployment = await self._show_revision(api, deployment, step.revision)
        again_s = await self._write_status(api, deployment, seen)
        if seen.failure is not None:
            raise seen.failure
        return again_s

    def _old_pods_remain(self, deployment: Deployment, sets: Sequence[ReplicaSet]) -> bool:
        if not is_recreating(deployment):
            return False
        new = revisions.find_new(deployment, sets)
        return any(
            not is_finished(pod)
            for rs in sets
            if new is None or rs.metadata.uid != new.metadata.uid
            for pod in self._pods.owned_by(rs.metadata.uid)
        )

    async def _apply(self, api: Resources, deployment: Deployment, step: Step) -> deployment_status.Seen | None:
        """Do the step; None if the Deployment has to be looked at anew first."""
        created, failure = "", None
        new, old = step.new, list(step.old)
        for action in step.actions:
            match action:
                case CreateSet(rs):
                    try:
                        new = await self._create(api, deployment, rs)
                    except ApiError as error:
                        failure = error
                        continue
                    if new is None:
                        return None
                    created = new.metadata.name
                case UpdateSet(rs, before):
                    rs = await self._update(api, deployment, rs, before)
                    if new is not None and rs.metadata.uid == new.metadata.uid:
                        new = rs
                    else:
                        old = [rs if each.metadata.uid == rs.metadata.uid else each for each in old]
                case DeleteSet(rs):
                    await remove(api, rs)
                    old = [each for each in old if each.metadata.uid != rs.metadata.uid]
        return deployment_status.Seen(new=new, old=old, created=created, failure=failure)

    async def _create(self, api: Resources, deployment: Deployment, rs: ReplicaSet) -> ReplicaSet | None:
        """Make the new ReplicaSet; None if its name belongs to another template, which the next round avoids."""
        try:
            made = await api.create(rs)
        except AlreadyExists:
            meta = rs.metadata
            present = await api.get(ReplicaSet, meta.name, namespace=meta.namespace)
            controller = ownership.controller_of(present)
            ours = controller is not None and controller.uid == deployment.metadata.uid
            if ours and revisions.bare_template(present) == deployment.spec.template:
                return present  # our cache lags behind our own write
            collisions = (deployment.status.collision_count or 0) + 1
            status = replace(deployment.status, collision_count=collisions)
            await api.update(replace(deployment, status=status), subresource="status")
            log.info("template hash collides deployment=%s replicaset=%s", deployment.metadata.name, meta.name)
            return None
        except ApiError as error:
            why = f'Failed to create new replica set "{rs.metadata.name}": {error.message}'
            self._tell(deployment, "Warning", "ReplicaSetCreateError", why)
            raise
        if count_of(made):
            self._tell_scaled(deployment, made, 0)
        return made

    async def _update(self, api: Resources, deployment: Deployment, rs: ReplicaSet, before: int) -> ReplicaSet:
        written = await api.update(rs)
        if count_of(rs) != before:
            self._tell_scaled(deployment, rs, before)
        return written

    async def _show_revision(self, api: Resources, deployment: Deployment, revision: int) -> Deployment:
        """Keep the Deployment's own revision annotation up to date.

        Through the status: elsewhere a change of annotations is a new generation of a Deployment.
        """
        if not revision or revisions.revision_of(deployment) == revision:
            return deployment
        meta = deployment.metadata
        patch = {"metadata": {"annotations": {revisions.REVISION: str(revision)}}}
        return await api.patch(Deployment, meta.name, patch, namespace=meta.namespace, subresource="status")

    async def _write_status(self, api: Resources, deployment: Deployment, seen: deployment_status.Seen) -> float | None:
        now = self._clock.time()
        status = deployment_status.plan_status(deployment, seen, now)
        if status != deployment.status:
            await api.update(replace(deployment, status=status), subresource="status")
        return deployment_status.again_in_s(deployment, status, now)

    def _tell_scaled(self, deployment: Deployment, rs: ReplicaSet, before: int) -> None:
        direction = "up" if count_of(rs) > before else "down"
        message = f"Scaled {direction} replica set {rs.metadata.name} from {before} to {count_of(rs)}"
        self._tell(deployment, "Normal", "ScalingReplicaSet", message)

    def _tell(self, about: Resource, kind: str, reason: str, message: str) -> None:
        self._recorder.event(about, kind=kind, reason=reason, message=message)
