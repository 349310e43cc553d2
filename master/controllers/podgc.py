"""Pod garbage: pods whose node is gone for good, pods that were deleted before they had one, too many finished ones."""

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from api.errors import ApiError, Conflict, NotFound, Timeout, Unavailable
from api.kinds.core import Node
from api.kinds.pods import Pod
from client.clock import seconds_of, timestamp
from client.resources import Resources
from client.runner import Runner
from master.controllers.context import Context
from master.controllers.disrupting import mark
from master.controllers.podstate import is_finished
from master.disruptions import ORPHANED, Cause, as_target

PERIOD_S = 20.0
_KEY = "pods"


class Plan(msgspec.Struct, frozen=True):
    """Pods to remove now; nodes that pods name and that nobody knows."""

    remove: Sequence[Pod]
    missing: Sequence[str]


def plan_garbage(pods: Sequence[Pod], nodes: frozenset[str], kept: int) -> Plan:
    """Decide which pods are garbage; ``kept``: how many finished pods may stay, the youngest."""
    finished = sorted(
        (pod for pod in pods if is_finished(pod) and not pod.metadata.deletion_timestamp),
        key=lambda pod: (seconds_of(pod.metadata.creation_timestamp), pod.metadata.name),
    )
    surplus = finished[: max(0, len(finished) - kept)]
    unborn = [pod for pod in pods if pod.metadata.deletion_timestamp and not pod.spec.node_name]
    named = {pod.spec.node_name for pod in pods if pod.spec.node_name}
    return Plan([*surplus, *unborn], sorted(named - nodes))


class PodGcController:
    """Removes what no node agent will."""

    def __init__(self, context: Context) -> None:
        self._clock = context.clock
        self._quarantine_s = context.config.orphaned_pod_s
        self._kept = context.config.terminated_pods_kept
        self._pods = context.informers.of(Pod, indexes={"node": lambda pod: (pod.spec.node_name,)})
        self._nodes = context.informers.of(Node)
        self._missing: dict[str, float] = {}  # node -> since when it is missing, monotonic
        self.runner = Runner(
            "podgc",
            self.reconcile,
            resources=context.resources,
            informers=context.informers,
            workers=1,
            clock=context.clock,
        )
        self._nodes.subscribe(self.runner.queue.add, _if_gone)
        self.runner.queue.add(_KEY)

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    async def reconcile(self, key: str, api: Resources) -> float | None:  # noqa: ARG002 - one key for everything
        """Look at every pod; one that cannot be removed keeps no other. Raises the last refusal."""
        plan = plan_garbage(list(self._pods), frozenset(self._nodes.keys()), self._kept)
        doomed: list[tuple[Pod, Cause | None]] = [(pod, None) for pod in plan.remove]
        now = self._clock.monotonic()
        self._missing = {name: self._missing.get(name, now) for name in plan.missing}
        waits = [PERIOD_S]
        for name, since in self._missing.items():
            if (left_s := since + self._quarantine_s - now) > 0:
                waits.append(left_s)
            elif await _is_gone(api, name):
                doomed += [(pod, ORPHANED) for pod in self._pods.indexed("node", name)]
        failure: ApiError | None = None
        for pod, cause in doomed:
            try:
                await self._remove(api, pod, cause)
            except (Timeout, Unavailable):
                raise  # nobody answers: the others would only wait as long
            except ApiError as error:
                failure = error
        if failure is not None:
            raise failure
        return min(waits)

    async def _remove(self, api: Resources, pod: Pod, cause: Cause | None) -> None:
        """Remove a pod; one that has not ended has failed, and ``cause`` says why."""
        meta = pod.metadata
        try:
            if not is_finished(pod):
                await mark(api, pod, lambda newest: _failed(newest, cause, timestamp(self._clock.time())))
            await api.delete(Pod, meta.name, namespace=meta.namespace, uid=meta.uid, grace_period_s=0)
        except (NotFound, Conflict):
            return  # gone, or changed meanwhile: looked at again


def _failed(pod: Pod, cause: Cause | None, now: str) -> Pod:
    marked = as_target(pod, cause, now) if cause is not None else pod
    return replace(marked, status=replace(marked.status, phase="Failed"))


def _if_gone(before: Node | None, after: Node | None) -> tuple[str, ...]:  # noqa: ARG001 - one signature for all
    return (_KEY,) if after is None else ()


async def _is_gone(api: Resources, name: str) -> bool:
    """Return whether the store has no such node: our cache may lag."""
    try:
        await api.get(Node, name)
    except NotFound:
        return True
    return False
