"""StatefulSets: rounds that keep their revisions, take the planned step, and write the status."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from api.errors import AlreadyExists, ApiError
from api.kinds.apps import ControllerRevision, StatefulSet
from api.kinds.pods import Pod
from api.kinds.volumes import PersistentVolumeClaim
from api.selectors import LabelQuery, of_struct
from client.informer import Concerns, key_of
from client.resources import Resources
from client.runner import Runner
from master.controllers import history, ownership
from master.controllers.context import Context
from master.controllers.podcontrol import first_error, slow_start
from master.controllers.removal import remove
from master.controllers.stateful_plan import (
    CreatePod,
    DeletePod,
    MendPod,
    Revisions,
    claim_owners,
    claims_of,
    ordinal_of,
    ordinals,
    plan_status,
    plan_step,
    revision_of,
)


class StatefulSetController:
    """Keeps the numbered pods of each StatefulSet, and their claims."""

    def __init__(self, context: Context) -> None:
        self._clock = context.clock
        self._sets = context.informers.of(StatefulSet)
        self._pods = context.informers.of(Pod)
        self._claims = context.informers.of(PersistentVolumeClaim)
        self._revisions = context.informers.of(ControllerRevision)
        ownership.add_orphan_index(self._pods)
        ownership.add_orphan_index(self._revisions)
        self._recorder = context.recorder("statefulset-controller")
        self.runner = Runner(
            "statefulset",
            self.reconcile,
            resources=context.resources,
            informers=context.informers,
            workers=4,
            clock=context.clock,
        )
        self._sets.subscribe(self.runner.queue.add)
        concerns: Concerns[Any] = ownership.concerns_controllers(self._sets, "StatefulSet", _query_of)
        self._pods.subscribe(self.runner.queue.add, concerns)
        self._revisions.subscribe(self.runner.queue.add, concerns)

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Take the next step of one set."""
        sts = self._sets.get(key)
        if sts is None:
            return None
        query = _query_of(sts)
        if query.everything:
            self._tell(sts, "Warning", "SelectingAll", "This statefulset is selecting all pods. "
                       "A non-empty selector is required.")  # fmt: skip
            return None
        found = await history.claim(api, sts, query, self._revisions, partial(self._both, api, sts))
        if found is None:
            return None
        known, revisions = found
        # A pod whose name is no member's is none of ours, whatever its labels say.
        members = [
            pod for pod in ownership.candidates_of(self._pods, sts) if ordinal_of(sts, pod.metadata.name) is not None
        ]
        pods = await ownership.claim(api, sts, query, members)
        return await self._round(api, sts, revisions, known, pods)

    async def _both(self, api: Resources, sts: StatefulSet, known: Sequence[ControllerRevision]) -> Revisions:
        """Return the revisions that the set is between; a set that is leaving makes no new one."""
        if sts.metadata.deletion_timestamp:
            update = history.find(known, sts.spec.template) or history.new_revision(sts, 0)
        else:
            update = await history.keep_current(api, sts, known)
        current = next((each for each in known if each.metadata.name == sts.status.current_revision), update)
        return Revisions(current, update)

    async def _round(
        self,
        api: Resources,
        sts: StatefulSet,
        revisions: Revisions,
        known: Sequence[ControllerRevision],
        pods: Sequence[Pod],
    ) -> float | None:
        """Act on what is there; then write what the status says of it."""
        now = self._clock.time()
        plan = plan_step(sts, revisions, pods, now)
        error = await self._apply(api, sts, plan.actions, pods)
        if not sts.metadata.deletion_timestamp:
            live = {revision_of(pod) for pod in pods}
            live |= {revisions.current.metadata.name, revisions.update.metadata.name}
            await history.forget(api, history.plan_cleanup(known, live, sts.spec.revision_history_limit))
        status = plan_status(sts, revisions, pods, now)
        if status != sts.status:
            await api.update(replace(sts, status=status), subresource="status")
        if error is not None:
            raise error
        return plan.again_s

    async def _apply(
        self, api: Resources, sts: StatefulSet, actions: Sequence[CreatePod | DeletePod | MendPod], pods: Sequence[Pod]
    ) -> ApiError | None:
        """Do the actions; return the first refusal."""
        if not sts.metadata.deletion_timestamp:
            waiting = [pod for pod in pods if pod.status.phase == "Pending" and not pod.metadata.deletion_timestamp]
            await self._keep_claims(api, sts, pods, waiting)
        creations = iter([each for each in actions if isinstance(each, CreatePod)])
        count = sum(isinstance(each, CreatePod) for each in actions)
        others = [
            self._delete(api, sts, each) if isinstance(each, DeletePod) else _mend(api, each)
            for each in actions
            if not isinstance(each, CreatePod)
        ]
        error = await first_error(others)

        async def create() -> None:
            await self._create(api, sts, next(creations))

        return await slow_start(create, count) or error

    async def _keep_claims(self, api: Resources, sts: StatefulSet, pods: Sequence[Pod], waiting: Sequence[Pod]) -> None:
        """Make the claims that pods wait for, and let all claims of the set end with whom its policy says."""
        if not sts.spec.volume_claim_templates:
            return
        wanted = ordinals(sts)
        for pod in pods:
            ordinal = ordinal_of(sts, pod.metadata.name)
            assert ordinal is not None, pod.metadata.name
            if pod in waiting and ordinal in wanted:
                await self._make_claims(api, sts, pod, ordinal)
            for each in claims_of(sts, ordinal):
                claim = self._claims.get(key_of(each))
                if claim is None or claim.metadata.deletion_timestamp:
                    continue
                owners = claim_owners(sts, claim, pod if ordinal not in wanted else None)
                if owners != claim.metadata.owner_references:
                    await ownership.set_owners(api, claim, owners)

    async def _make_claims(self, api: Resources, sts: StatefulSet, pod: Pod, ordinal: int) -> None:
        """Make the claims of a pod that are not there."""
        for each in claims_of(sts, ordinal):
            what = f"Claim {each.metadata.name} Pod {pod.metadata.name} in StatefulSet {sts.metadata.name}"
            present = self._claims.get(key_of(each))
            if present is not None and not present.metadata.deletion_timestamp:
                continue
            claim = replace(each, metadata=replace(each.metadata, owner_references=claim_owners(sts, each, None)))
            try:
                await api.create(claim)
            except AlreadyExists:
                continue  # our cache lags behind our own write; one that is being deleted is made anew once it is gone
            except ApiError as error:
                self._tell(sts, "Warning", "FailedCreate", f"create {what} failed error: {error.message}")
                raise
            self._tell(sts, "Normal", "SuccessfulCreate", f"create {what} success")

    async def _create(self, api: Resources, sts: StatefulSet, action: CreatePod) -> None:
        what = f"create Pod {action.pod.metadata.name} in StatefulSet {sts.metadata.name}"
        try:
            await self._make_claims(api, sts, action.pod, action.ordinal)
            await api.create(action.pod)
        except ApiError as error:
            self._tell(sts, "Warning", "FailedCreate", f"{what} failed error: {error.message}")
            raise
        self._tell(sts, "Normal", "SuccessfulCreate", f"{what} successful")

    async def _delete(self, api: Resources, sts: StatefulSet, action: DeletePod) -> None:
        meta = action.pod.metadata
        if action.finished:
            reason = "RecreatingFailedPod" if action.pod.status.phase == "Failed" else "RecreatingTerminatedPod"
            word = "failed" if action.pod.status.phase == "Failed" else "terminated"
            message = f"StatefulSet {key_of(sts)} is recreating {word} Pod {meta.name}"
            self._tell(sts, "Warning" if word == "failed" else "Normal", reason, message)
        what = f"delete Pod {meta.name} in StatefulSet {sts.metadata.name}"
        try:
            if not await remove(api, action.pod):
                return
        except ApiError as error:
            self._tell(sts, "Warning", "FailedDelete", f"{what} failed error: {error.message}")
            raise
        self._tell(sts, "Normal", "SuccessfulDelete", f"{what} successful")

    def _tell(self, sts: StatefulSet, kind: str, reason: str, message: str) -> None:
        self._recorder.event(sts, kind=kind, reason=reason, message=message)


def _query_of(sts: StatefulSet) -> LabelQuery:
    return of_struct(sts.spec.selector)


async def _mend(api: Resources, action: MendPod) -> None:
    meta = action.pod.metadata
    patch = {"metadata": {"resourceVersion": meta.resource_version, "labels": dict(action.labels)}}
    await api.patch(Pod, meta.name, patch, namespace=meta.namespace)
