"""DaemonSets: rounds that keep their revisions, give every node its pod, and take the next step of an update."""

from collections.abc import Iterable, Sequence
from functools import partial

import msgspec
from msgspec.structs import replace

from api.errors import ApiError
from api.kinds.apps import ControllerRevision, DaemonSet
from api.kinds.core import Node
from api.kinds.pods import Pod
from api.selectors import of_struct
from client.informer import key_of
from client.resources import Resources
from client.runner import Runner
from master.controllers import history, ownership
from master.controllers.context import Context
from master.controllers.daemon_plan import (
    Plan,
    again_in_s,
    daemon_pod,
    homeless,
    is_current,
    places,
    plan_places,
    plan_status,
    plan_update,
)
from master.controllers.podcontrol import create_pod, delete_pod, first_error, slow_start
from master.controllers.replicas import BURST

_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 1.0, 900.0


class _Failing(msgspec.Struct, frozen=True):
    """How a node has treated its daemon: when its next failed pod may go."""

    delay_s: float
    until: float  # monotonic


class DaemonSetController:
    """Keeps a pod of each DaemonSet on every node that it is for."""

    def __init__(self, context: Context) -> None:
        self._clock = context.clock
        self._sets = context.informers.of(DaemonSet)
        self._nodes = context.informers.of(Node)
        self._pods = context.informers.of(Pod)
        self._revisions = context.informers.of(ControllerRevision)
        ownership.add_orphan_index(self._pods)
        ownership.add_orphan_index(self._revisions)
        self._recorder = context.recorder("daemonset-controller")
        # A node that makes every pod fail must not get one after another: (DaemonSet's uid, node) -> how it went.
        self._failing: dict[tuple[str, str], _Failing] = {}
        self.runner = Runner(
            "daemonset",
            self.reconcile,
            resources=context.resources,
            informers=context.informers,
            workers=2,
            clock=context.clock,
        )
        self._sets.subscribe(self.runner.queue.add)
        self._nodes.subscribe(self.runner.queue.add, self._of_node)
        for dependents in (self._pods, self._revisions):
            concerns = ownership.concerns_controllers(self._sets, "DaemonSet", lambda ds: of_struct(ds.spec.selector))
            dependents.subscribe(self.runner.queue.add, concerns)

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    def _of_node(self, before: Node | None, after: Node | None) -> Iterable[str]:
        """A node that comes, goes, or changes its labels or taints concerns every DaemonSet."""
        if before is not None and after is not None:
            same = before.metadata.labels == after.metadata.labels and before.spec == after.spec
            if same:
                return ()
        return self._sets.keys()

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Bring one DaemonSet's pods and status up to date."""
        ds = self._sets.get(key)
        if ds is None or ds.metadata.deletion_timestamp:
            # What becomes of the pods is for the garbage collector to do.
            known = {each.metadata.uid for each in self._sets}
            self._failing = {place: how for place, how in self._failing.items() if place[0] in known}
            return None
        query = of_struct(ds.spec.selector)
        if query.everything:
            self._tell(ds, "Warning", "SelectingAll", "This daemon set is selecting all pods. "
                       "A non-empty selector is required.")  # fmt: skip
            return None
        found = await history.claim(api, ds, query, self._revisions, partial(history.keep_current, api, ds))
        if found is None:
            return None
        revisions, current = found
        pods = await ownership.claim(api, ds, query, ownership.candidates_of(self._pods, ds))
        return await self._round(api, ds, current, revisions, pods)

    async def _round(
        self,
        api: Resources,
        ds: DaemonSet,
        current: ControllerRevision,
        revisions: Sequence[ControllerRevision],
        pods: Sequence[Pod],
    ) -> float | None:
        """Act on what is there; then write what the status says of it."""
        now, nodes = self._clock.time(), tuple(self._nodes)
        revision = current.metadata.labels[history.REVISION_LABEL]
        seen = places(ds, nodes, pods)
        plan, wait_s = self._held_back(ds, plan_places(ds, seen, revision, now))
        if not plan.create and not plan.delete:
            plan = plan_update(ds, seen, revision, now)
        error = await self._apply(api, ds, revision, replace(plan, delete=[*plan.delete, *homeless(nodes, pods)]))
        live = {each.metadata.name for each in revisions for pod in pods if is_current(pod, _hash_of(each))}
        doomed = history.plan_cleanup(revisions, live | {current.metadata.name}, ds.spec.revision_history_limit)
        await history.forget(api, doomed)
        status = plan_status(ds, seen, revision, now)
        if status != ds.status:
            await api.update(replace(ds, status=status), subresource="status")
        if error is not None:
            raise error
        waits = [each for each in (wait_s, again_in_s(ds, seen, now)) if each is not None]
        return min(waits, default=None)

    def _held_back(self, ds: DaemonSet, plan: Plan) -> tuple[Plan, float | None]:
        """Return the plan without failed pods whose turn has not come, and in how many seconds the next one's comes."""
        now, waits, held = self._clock.monotonic(), list[float](), set[str]()
        for pod in plan.failed:
            place = (ds.metadata.uid, pod.spec.node_name)
            known = self._failing.get(place)
            if known is not None and now < known.until:
                held.add(pod.metadata.uid)
                waits.append(known.until - now)
                continue
            # Quiet for as long again as it had to wait last: what went wrong is over.
            over = known is None or now > known.until + 2 * known.delay_s
            delay_s = _FIRST_BACKOFF_S if over or known is None else min(2 * known.delay_s, _LONGEST_BACKOFF_S)
            self._failing[place] = _Failing(delay_s, now + delay_s)
            self._tell(ds, "Warning", "FailedDaemonPod", f"Found failed daemon pod {key_of(pod)} on node "
                       f"{pod.spec.node_name}, will try to kill it")  # fmt: skip
        delete = [pod for pod in plan.delete if pod.metadata.uid not in held]
        return replace(plan, delete=delete), min(waits, default=None)

    async def _apply(self, api: Resources, ds: DaemonSet, revision: str, plan: Plan) -> ApiError | None:
        targets = iter(plan.create)

        async def create() -> None:
            pod = daemon_pod(ds, next(targets), revision)
            await create_pod(api, pod, owner=ds, recorder=self._recorder)

        doomed = plan.delete[:BURST]
        error = await first_error([delete_pod(api, pod, owner=ds, recorder=self._recorder) for pod in doomed])
        return await slow_start(create, min(len(plan.create), BURST)) or error

    def _tell(self, ds: DaemonSet, kind: str, reason: str, message: str) -> None:
        self._recorder.event(ds, kind=kind, reason=reason, message=message)


def _hash_of(revision: ControllerRevision) -> str:
    return revision.metadata.labels.get(history.REVISION_LABEL, "")
