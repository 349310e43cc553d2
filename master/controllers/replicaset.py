"""ReplicaSets and ReplicationControllers: the same work on two kinds.

A round claims pods, creates or deletes what the count asks for, and writes the status.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec
from msgspec.structs import replace

from api.errors import ApiError
from api.kinds.apps import ReplicaSet, ReplicaSetCondition, ReplicaSetStatus
from api.kinds.core import ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus
from api.kinds.pods import Pod
from api.selectors import LabelQuery, of_map, of_struct
from client.clock import timestamp
from client.events import EventRecorder
from client.informer import Informer
from client.resources import Resources
from client.runner import Runner
from master.controllers import ownership
from master.controllers.context import Context
from master.controllers.podcontrol import create_pod, delete_pod, first_error, slow_start
from master.controllers.replicas import Counts, Plan, Wanted, count_pods, plan_replicas, pod_from

S = TypeVar("S", ReplicaSet, ReplicationController)
Condition = ReplicaSetCondition | ReplicationControllerCondition

log = logging.getLogger(__name__)


class Failure(msgspec.Struct, frozen=True):
    """Why a round could not bring the count about: the ReplicaFailure condition."""

    reason: str
    error: ApiError


def wanted_by_replicaset(obj: ReplicaSet) -> Wanted:
    """Return what a ReplicaSet asks for."""
    spec = obj.spec
    replicas = 1 if spec.replicas is None else spec.replicas
    return Wanted(replicas, spec.min_ready_seconds or 0, of_struct(spec.selector), spec.template)


def wanted_by_controller(obj: ReplicationController) -> Wanted:
    """Return what a ReplicationController asks for; without a selector it owns nothing."""
    spec = obj.spec
    query = of_map(spec.selector) if spec.selector else LabelQuery(None)
    replicas = 1 if spec.replicas is None else spec.replicas
    return Wanted(replicas, spec.min_ready_seconds or 0, query, spec.template)


def plan_conditions(
    present: Sequence[Condition], failure: Failure | None, make: type[Condition], now: float
) -> tuple[Condition, ...]:
    """Return the conditions after a round: ReplicaFailure is set or cleared, others stay."""
    others = tuple(each for each in present if each.type != "ReplicaFailure")
    if failure is None:
        return others
    known = next((each for each in present if each.type == "ReplicaFailure"), None)
    if known is not None and known.reason == failure.reason:
        return tuple(present)
    return (
        *others,
        make(
            type="ReplicaFailure",
            status="True",
            reason=failure.reason,
            message=failure.error.message,
            last_transition_time=timestamp(now),
        ),
    )


def plan_status(obj: S, counts: Counts, failure: Failure | None, now: float) -> S:
    """Return ``obj`` with the status that it should have."""
    make_status, make_condition = (
        (ReplicaSetStatus, ReplicaSetCondition)
        if isinstance(obj, ReplicaSet)
        else (ReplicationControllerStatus, ReplicationControllerCondition)
    )
    status = make_status(
        replicas=counts.replicas,
        fully_labeled_replicas=counts.fully_labeled or None,
        ready_replicas=counts.ready or None,
        available_replicas=counts.available or None,
        observed_generation=obj.metadata.generation,
        conditions=plan_conditions(obj.status.conditions, failure, make_condition, now),  # type: ignore[arg-type]
    )
    return replace(obj, status=status)


class ReplicaController(Generic[S]):
    """Keeps the pods of one of the two kinds."""

    def __init__(
        self, context: Context, model: type[S], wanted: Callable[[S], Wanted], *, name: str, workers: int = 8
    ) -> None:
        self._clock = context.clock
        self._wanted: Callable[[S], Wanted] = wanted
        self._sets: Informer[S] = context.informers.of(model)
        self._pods = context.informers.of(Pod)
        ownership.add_orphan_index(self._pods)
        self._recorder: EventRecorder = context.recorder(f"{name}-controller")
        self.runner = Runner(
            name,
            self.reconcile,
            resources=context.resources,
            informers=context.informers,
            workers=workers,
            clock=context.clock,
        )
        self._sets.subscribe(self.runner.queue.add)
        concerns = ownership.concerns_controllers(self._sets, model.__name__, lambda each: wanted(each).query)
        self._pods.subscribe(self.runner.queue.add, concerns)

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Bring the pods of one set to its count, then its status up to date."""
        obj = self._sets.get(key)
        if obj is None:
            return None
        wanted = self._wanted(obj)
        pods = await ownership.claim(api, obj, wanted.query, ownership.candidates_of(self._pods, obj))
        now = self._clock.time()
        plan = plan_replicas(wanted, pods, self._neighbours(obj), now)
        failure = None
        if not obj.metadata.deletion_timestamp:
            failure = await self._apply(api, obj, wanted, plan)
        updated = plan_status(obj, count_pods(wanted, pods, now), failure, now)
        if updated.status != obj.status:
            await api.update(updated, subresource="status")
        if failure is not None:
            raise failure.error
        return plan.again_s

    def _neighbours(self, obj: S) -> Sequence[Pod]:
        """Return the pods of every set with the same controller as ``obj``."""
        controller = ownership.controller_of(obj)
        if controller is None:
            return self._pods.owned_by(obj.metadata.uid)
        siblings = self._sets.owned_by(controller.uid)
        return [pod for each in siblings for pod in self._pods.owned_by(each.metadata.uid)]

    async def _apply(self, api: Resources, obj: S, wanted: Wanted, plan: Plan) -> Failure | None:
        if plan.create:
            return await self._create(api, obj, wanted, plan.create)
        return await self._delete(api, obj, plan.delete)

    async def _create(self, api: Resources, obj: S, wanted: Wanted, count: int) -> Failure | None:
        pod = pod_from(wanted.template, obj, ownership.reference_to_controller(obj))

        async def create() -> None:
            await create_pod(api, pod, owner=obj, recorder=self._recorder)

        error = await slow_start(create, count)
        return None if error is None else Failure("FailedCreate", error)

    async def _delete(self, api: Resources, obj: S, doomed: Sequence[Pod]) -> Failure | None:
        error = await first_error([delete_pod(api, pod, owner=obj, recorder=self._recorder) for pod in doomed])
        return None if error is None else Failure("FailedDelete", error)


def replicaset_controller(context: Context) -> ReplicaController[ReplicaSet]:
    """Return the controller of ReplicaSets."""
    return ReplicaController(context, ReplicaSet, wanted_by_replicaset, name="replicaset")


def replication_controller(context: Context) -> ReplicaController[ReplicationController]:
    """Return the controller of ReplicationControllers."""
    return ReplicaController(context, ReplicationController, wanted_by_controller, name="replication")
