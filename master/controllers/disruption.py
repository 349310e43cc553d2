"""Disruption budgets' status: how many pods there should be, how many are healthy, how many may go."""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from api.errors import InternalError, NotFound
from api.kinds.apps import Deployment, ReplicaSet, StatefulSet
from api.kinds.core import ReplicationController
from api.kinds.pods import Pod
from api.kinds.policy import PodDisruptionBudget, PodDisruptionBudgetStatus
from api.meta import OwnerReference, Resource
from api.selectors import of_struct
from client.informer import key_of
from client.resources import Resources
from client.runner import Runner
from master.budgets import covers
from master.controllers.context import Context
from master.controllers.disruption_plan import (
    Scale,
    Uncountable,
    counts_scales,
    plan_failure,
    plan_status,
    unmanaged,
)
from master.controllers.ownership import controller_of
from master.scale import replicas_of

_SCALED: Sequence[type[Resource]] = (ReplicaSet, Deployment, StatefulSet, ReplicationController)
_UNMANAGED = (
    "Pods selected by this PodDisruptionBudget (selector: %s) were found to be unmanaged. As a result, the status of "
    "the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please "
    'set ".spec.minAvailable" field of the PDB to an integer value.'
)


class DisruptionController:
    """Keeps the status of every disruption budget."""

    def __init__(self, context: Context) -> None:
        self._clock = context.clock
        self._table = context.table
        self._recorder = context.recorder("controllermanager")
        self._budgets = context.informers.of(PodDisruptionBudget)
        self._pods = context.informers.of(Pod)
        self._scaled = {model: context.informers.of(model) for model in _SCALED}
        self.runner = Runner(
            "disruption",
            self.reconcile,
            resources=context.resources,
            informers=context.informers,
            workers=4,
            clock=context.clock,
        )
        self._budgets.subscribe(self.runner.queue.add)
        self._pods.subscribe(self.runner.queue.add, self._covering)

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    def _covering(self, before: Pod | None, after: Pod | None) -> Iterable[str]:
        """Return the budgets that a pod is or was about."""
        states = [each for each in (before, after) if each is not None]
        return [
            key_of(budget)
            for budget in self._budgets.indexed("namespace", states[0].metadata.namespace)
            if any(covers(budget, each.metadata.labels) for each in states)
        ]

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Bring the status of one budget up to date."""
        budget = self._budgets.get(key)
        if budget is None:
            return None
        pods = self._pods.in_namespace(budget.metadata.namespace, of_struct(budget.spec.selector))
        if not pods:
            self._tell(budget, "Normal", "NoPods", "No matching pods found")
        now = self._clock.time()
        try:
            plan = plan_status(budget, pods, await self._scales(api, budget, pods), now)
        except Uncountable as why:
            message = f"Failed to calculate the number of expected pods: {why}"
            self._tell(budget, "Warning", "CalculateExpectedPodCountFailed", message)
            await _write(api, budget, plan_failure(budget, str(why), now))
            raise InternalError(message) from why
        for pod in plan.not_deleted:
            self._tell(pod, "Warning", "NotDeleted", f"Pod was expected by PDB {key} to be deleted but it wasn't")
        await _write(api, budget, plan.status)
        return plan.again_s

    async def _scales(self, api: Resources, budget: PodDisruptionBudget, pods: Sequence[Pod]) -> dict[str, Scale]:
        """Return UID of a pod's controller -> how many pods are wanted there, without controllers that nobody knows."""
        if not counts_scales(budget):
            return {}
        if unmanaged(pods):
            self._tell(budget, "Warning", "UnmanagedPods", _UNMANAGED % budget.spec.selector)
        references = {found.uid: found for pod in pods if (found := controller_of(pod)) is not None}
        namespace = budget.metadata.namespace
        scales = {uid: await self._scale(api, each, namespace) for uid, each in references.items()}
        return {uid: scale for uid, scale in scales.items() if scale is not None}

    async def _scale(self, api: Resources, reference: OwnerReference, namespace: str) -> Scale | None:
        """Return what the owner wants that a reference names; of a ReplicaSet with a Deployment what that one wants."""
        kind = self._table.kind(reference.api_version, reference.kind)
        if kind is None:
            return None
        if (informer := self._scaled.get(kind.model)) is not None:
            owner = informer.get(f"{namespace}/{reference.name}")
        elif "scale" in kind.subresources:
            owner = await _get(api, kind.model, reference.name, namespace)
        else:
            return None
        if owner is None or owner.metadata.uid != reference.uid:
            return None
        if isinstance(owner, ReplicaSet) and (above := controller_of(owner)) is not None:
            return await self._scale(api, above, namespace)
        return Scale(owner.metadata.uid, replicas_of(kind, owner))

    def _tell(self, about: Resource, kind: str, reason: str, message: str) -> None:
        self._recorder.event(about, kind=kind, reason=reason, message=message)


async def _get(api: Resources, model: type[Resource], name: str, namespace: str) -> Resource | None:
    try:
        return await api.get(model, name, namespace=namespace)
    except NotFound:
        return None


async def _write(api: Resources, budget: PodDisruptionBudget, status: PodDisruptionBudgetStatus) -> None:
    if status == budget.status:
        return
    try:
        await api.update(replace(budget, status=status), subresource="status")
    except NotFound:
        return
