"""One pod's worker: looks, plans, starts what the plan says, shows the status; again whenever something changed.

The loop itself never waits for the slow things. Each operation (make the sandbox, start one container, stop one) is a
task; while it runs, its container's name is ``busy`` and the plan leaves it alone. So a deletion is seen while an image
is pulled, and one container's grace period does not delay its neighbour's restart.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import msgspec

from api.kinds.core import Node
from api.kinds.pods import Pod, PodStatus
from client.clock import seconds_of
from node_agent.errors import NodeError
from node_agent.pods.containers import all_containers, every_container, grace_period_s, pod_ref
from node_agent.pods.hooks import HookFailed, run_hook
from node_agent.pods.launch import Launcher, StartFailed
from node_agent.pods.operations import COMMIT, ENGINE_RETRY_S, KILL, PREPARE, Operations
from node_agent.pods.plan import (
    Action,
    CreateSandbox,
    KillContainer,
    Plan,
    RemoveContainer,
    StartContainer,
    StopSandbox,
    UpdateContainer,
    plan_pod,
)
from node_agent.pods.probes import Prober
from node_agent.pods.refusal import Refusal, place_of, refusal
from node_agent.pods.reporting import Reporter
from node_agent.pods.resizing import grant, resources_of, resources_told
from node_agent.pods.sandbox import PodSandbox
from node_agent.pods.situation import RESIZE, SANDBOX, Failure, Situation
from node_agent.pods.status import Appearance, build_status
from node_agent.pods.surroundings import Surroundings
from node_agent.pods.volumes import PodVolumes
from node_agent.runtime.base import Container, RuntimeFailed, State

log = logging.getLogger(__name__)

_ENDED = frozenset({"Succeeded", "Failed"})
_RESYNC_S = 60.0
_MIN_GRACE_S = 2.0
_RETRY_S, _RETRY_MAX_S = 1.0, 60.0
_DEADLINE_MESSAGE = "Pod was active on the node longer than the specified deadline"


class PodWorker:
    """Brings one pod to what the API wants. ``run`` returns when the pod is gone from this node.

    neighbours_of: gives the other pods whose room and ports are taken. is_static: it came from a file.
    gone: the API has no such pod any more; nothing is reported, everything is removed.
    """

    def __init__(
        self,
        pod: Pod,
        around: Surroundings,
        neighbours_of: Callable[[Pod], Collection[Pod]] = lambda _: (),
        *,
        is_static: bool = False,
        gone: bool = False,
    ) -> None:
        self._grant = grant(pod, resources_told(pod), around.limits.allocatable)
        self._pod = self._grant.pod
        self._around = around
        self._neighbours_of = neighbours_of
        self._is_static = is_static
        self._admitted = False
        self._left = False
        self._reporter = Reporter(around.api, self._pod, gone=gone)
        self._wake = asyncio.Event()
        self._ops = Operations(pod_ref(pod), on_end=self.poke)
        self._failures: dict[str, Failure] = {}
        self._deadline: float | None = None  # when whatever still runs is killed
        self._ended_because = ("", "")  # reason and message of an end that this node decided on
        self._volumes = PodVolumes(around.data_dir, pod.metadata.uid)
        self._launcher = Launcher(around, self._volumes)
        self._sandbox = PodSandbox(around, self._launcher)
        self._prober = Prober(around.ask, on_change=self.poke, record=self._record_probe)
        self.running: tuple[Container, ...] = ()
        """The instances that ran when last looked at."""
        self._messages: dict[str, str] = {}
        if pod.metadata.deletion_timestamp or gone:
            self._start_deletion()

    @property
    def pod(self) -> Pod:
        """The pod as the API last showed it, with the resources that this node grants."""
        return self._pod

    @property
    def status(self) -> PodStatus:
        """The newest status, written or not."""
        return self._reporter.newest

    @property
    def pod_ip(self) -> str:
        """The pod's address, "" while it has none."""
        return self._sandbox.address

    @property
    def takes_room(self) -> bool:
        """Whether what this pod asks for is nobody else's: it was let in, now or before us, and has not ended."""
        phases = {self._pod.status.phase, self.status.phase}
        return (self._admitted or self._was_in) and not (self._left or self._reporter.gone or phases & _ENDED)

    @property
    def _was_in(self) -> bool:
        """Whether an agent before us let the pod in: it has said so, whatever the engine still has of it."""
        return bool(self._pod.status.start_time)

    def update(self, pod: Pod) -> None:
        """Take what the API says now."""
        images = {each.name: each.image for each in every_container(self._pod.spec)}
        for each in every_container(pod.spec):
            if images.get(each.name) != each.image:
                # What went wrong went wrong with another image.
                self._failures.pop(each.name, None)
        refused = self._grant.refusal
        self._grant = grant(pod, resources_of(self._pod.spec), self._around.limits.allocatable)
        self._pod = pod = self._grant.pod
        if self._grant.refusal not in ("", refused):
            self._record("Warning", "ResizeInfeasible", self._grant.refusal)
        if pod.metadata.deletion_timestamp:
            self._start_deletion()
        self._reporter.follow(pod)
        self.poke()

    def vanish(self) -> None:
        """The API has no such pod any more: end it at once."""
        self._reporter.forget()
        self._start_deletion()
        self.poke()

    def evict(self, reason: str, message: str) -> None:
        """End the pod with phase Failed; its object stays."""
        if not self._ended_because[0]:
            self._ended_because = (reason, message)
            self._end_by(self._around.now() + grace_period_s(self._pod))
            self.poke()

    def poke(self) -> None:
        """Look again: the runtime, a probe or an object said that something changed."""
        self._wake.set()

    def _start_deletion(self) -> None:
        given = self._pod.metadata.deletion_grace_period_seconds
        grace_s = grace_period_s(self._pod) if given is None else given
        # Measured from when we learn of it: the masters' clocks need not be ours.
        self._end_by(self._around.now() + (0 if self._reporter.gone else grace_s))

    def _end_by(self, deadline: float) -> None:
        """End the pod; a later call can only shorten the time left."""
        if self._deadline is not None and deadline >= self._deadline - 1:
            return
        self._deadline = deadline
        self._ops.cut_short()

    @property
    def _ending(self) -> bool:
        return self._deadline is not None or self._pod.status.phase in _ENDED

    async def run(self) -> None:
        """Work until the pod is gone from this node; cancelling leaves its containers running."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            writer = tasks.create_task(self._reporter.run())
            try:
                await self._loop()
            finally:
                writer.cancel()
                self._prober.stop()
                self._ops.cancel()

    async def _loop(self) -> None:
        while True:
            self._wake.clear()
            try:
                plan = await self._step()
            except RuntimeFailed as exc:
                log.warning("pod not looked at pod=%s error=%s", pod_ref(self._pod), exc)
                await self._sleep(ENGINE_RETRY_S)
                continue
            if plan.ended and self._is_leaving():
                await self._leave()
                return
            wakes = [plan.wake_at, self._active_until(), None if self._ending else self._launcher.refresh_at]
            due = min((each for each in wakes if each is not None), default=None)
            wait_s = _RESYNC_S if due is None else min(due - self._around.now(), _RESYNC_S)
            await self._sleep(max(wait_s, 0.01))

    def _is_leaving(self) -> bool:
        return self._reporter.gone or bool(self._pod.metadata.deletion_timestamp)

    async def _sleep(self, seconds: float) -> None:
        """Wait until poked, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _step(self) -> Plan:
        """Look, plan, act, show."""
        at_work = self._ops.busy
        situation = await self._observe()
        await self._check_refusal(situation)
        self._check_deadline(situation)
        self._take_over(situation)
        # What was under way when we began to look may have ended since: what we saw of it is old, and a container that
        # has just been started would be started again.
        situation = msgspec.structs.replace(situation, busy=at_work | self._ops.busy, ending=self._ending)
        plan = plan_pod(situation)
        for action in plan.actions:
            self._begin(action)
        if not self._ending:
            self._launcher.refresh_if_due(self._tasks, self._pod, self._sandbox.address)
        self._show(situation, plan)
        return plan

    async def _observe(self) -> Situation:
        runtime, uid, enforced = self._around.runtime, self._pod.metadata.uid, self._launcher.enforced
        noted = frozenset(enforced)  # what is made while we look may be missing from what we see
        sandboxes, found = await asyncio.gather(runtime.sandboxes(uid), runtime.containers(uid))
        for gone in noted - {each.id for each in found}:
            enforced.pop(gone, None)
        containers: dict[str, list[Container]] = {}
        for each in found:
            containers.setdefault(each.name, []).append(each)
        await self._read_last_words(found)
        self.running = running = tuple(each for each in found if each.state is State.RUNNING)
        self._prober.sync(self._pod, () if self._ending else running, self._probe_address())
        for stale in sandboxes[1:]:
            if not stale.running:
                self._spawn(f"sandbox {stale.id}", runtime.remove_sandbox(stale.id))
        return Situation(
            pod=self._pod,
            sandbox=sandboxes[0] if sandboxes else None,
            containers=containers,
            now=self._around.now(),
            health=self._prober.health(running),
            busy=self._ops.busy,
            failures=dict(self._failures),
            ending=self._ending,
            limits={each.name: self._launcher.limits_of(self._pod, each) for each in all_containers(self._pod.spec)},
            enforced=enforced,
        )

    def _probe_address(self) -> str:
        return self._around.names.host_ip if self._pod.spec.host_network else self._sandbox.address

    def _active_until(self) -> float | None:
        """Return when the pod has been active for as long as it may."""
        limit, started = self._pod.spec.active_deadline_seconds, self.status.start_time
        return seconds_of(started) + limit if limit is not None and started and not self._ending else None

    def _check_deadline(self, s: Situation) -> None:
        until = self._active_until()
        if until is not None and s.now >= until:
            self._record("Normal", "DeadlineExceeded", _DEADLINE_MESSAGE)
            self.evict("DeadlineExceeded", _DEADLINE_MESSAGE)

    async def _check_refusal(self, s: Situation) -> None:
        """Let the pod in, or fail it; one that runs already was taken by somebody who knew better."""
        if self._admitted or self._ending:
            return
        is_new = s.sandbox is None and not self._was_in
        refused = self._refusal(self._around.node.node) if is_new else None
        if refused is not None and refused.of_node:
            refused = self._refusal(await self._around.node.look_at_node())
        if refused is None:
            # In the turn of the judgement: what we take is taken before the next one is judged.
            self._admitted = True
            return
        self._record("Warning", refused.reason, refused.message)
        self.evict(refused.reason, f"Pod was rejected: {refused.message}")

    def _refusal(self, node: Node | None) -> Refusal | None:
        place = place_of(node, self._around.names.node, self._around.limits.allocatable)
        return refusal(self._pod, place, self._neighbours_of(self._pod), is_static=self._is_static)

    def _take_over(self, s: Situation) -> None:
        """After a restart of the agent: the sandbox may have to be plugged in again, its address learnt."""
        found = s.sandbox
        if self._sandbox.is_known or found is None or not found.running or SANDBOX in self._ops.busy or self._ending:
            return
        self._sandbox.adopt(found)
        self._spawn(SANDBOX, self._sandbox.plug_in(self._pod, found))

    # Operations

    def _begin(self, action: Action) -> None:
        match action:
            case CreateSandbox(attempt):
                self._sandbox.expect()
                self._spawn(SANDBOX, self._create_sandbox(attempt))
            case StopSandbox(sandbox_id):
                self._spawn(SANDBOX, self._sandbox.stop(self._pod, sandbox_id))
            case StartContainer(name):
                self._spawn(name, self._start(action), phase=PREPARE)
            case KillContainer(name):
                self._spawn(name, self._kill(action), phase=KILL)
            case UpdateContainer(name):
                self._spawn(name, self._resize(action))
            case RemoveContainer(container_id):
                self._spawn(f"remove {container_id}", self._around.runtime.remove_container(container_id))

    def _spawn(self, name: str, work: Coroutine[Any, Any, None], phase: str = COMMIT) -> None:
        self._ops.start(self._tasks, name, work, phase=phase)

    async def _create_sandbox(self, attempt: int) -> None:
        try:
            await self._sandbox.create(self._pod, attempt)
        except NodeError as exc:
            self._note_failure(SANDBOX, "FailedCreatePodSandBox", exc)
            self._record("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {exc}")
        else:
            self._failures.pop(SANDBOX, None)

    def _note_failure(self, key: str, reason: str, exc: NodeError) -> None:
        """Let what failed be tried again, later each time."""
        before, now = self._failures.get(key), self._around.now()
        delay_s = min(before.delay_s * 2, _RETRY_MAX_S) if before else _RETRY_S
        self._failures[key] = Failure(
            reason=reason, message=str(exc), failed_at=now, retry_at=now + delay_s, delay_s=delay_s
        )

    async def _start(self, action: StartContainer) -> None:
        spec = self._launcher.spec_of(self._pod, action.name)
        try:
            await self._launcher.start(
                self._pod, action, before=self._failures.get(action.name), is_ending=lambda: self._ending
            )
        except StartFailed as exc:
            now = self._launcher.spec_of(self._pod, action.name)
            if exc.failure is not None and spec is not None and now is not None and now.image == spec.image:
                self._failures[action.name] = exc.failure
        else:
            self._failures.pop(action.name, None)

    async def _kill(self, action: KillContainer) -> None:
        now = self._around.now
        started, grace_s = now(), self._grace_s(action)
        if action.why:
            self._record("Normal", "Killing", action.why, action.name)
        spec = self._launcher.spec_of(self._pod, action.name)
        hook = spec.lifecycle.pre_stop if spec and spec.lifecycle else None
        if hook and spec and grace_s > 0:
            try:
                async with asyncio.timeout(grace_s):
                    await run_hook(hook, spec, action.container_id, self._probe_address(), self._around.runtime)
            except (HookFailed, NodeError, TimeoutError) as exc:
                self._record("Warning", "FailedPreStopHook", f"PreStopHook failed: {exc}", action.name)
        left_s = grace_s - (now() - started)
        # After a slow hook the process still gets a moment to end by itself.
        await self._around.runtime.stop_container(
            action.container_id, grace_s=left_s if not hook else max(left_s, min(grace_s, _MIN_GRACE_S))
        )

    async def _resize(self, action: UpdateContainer) -> None:
        key = RESIZE + action.name
        try:
            await self._around.runtime.update_container(action.container_id, action.limits)
        except RuntimeFailed as exc:
            self._note_failure(key, "ResizeError", exc)
            self._record("Warning", "ResizeError", f"Error resizing container: {exc}", action.name)
        else:
            self._failures.pop(key, None)
            self._launcher.enforced[action.container_id] = action.limits
            self._record("Normal", "ResizeCompleted", f"Resized container {action.name}", action.name)

    def _grace_s(self, action: KillContainer) -> float:
        if self._deadline is not None:
            return max(self._deadline - self._around.now(), 0)
        override = self._prober.grace_override(action.container_id)
        return grace_period_s(self._pod) if override is None else override

    # What others see

    async def _read_last_words(self, found: list[Container] | Any) -> None:
        ended = [c for c in found if c.state is State.EXITED and c.id not in self._messages]
        for container in ended:
            self._messages[container.id] = await self._launcher.last_words(self._pod, container)
        known = {container.id for container in found}
        self._messages = {key: text for key, text in self._messages.items() if key in known}

    def _show(self, situation: Situation, plan: Plan) -> None:
        if self._reporter.gone or (self._pod.status.phase in _ENDED and not situation.containers):
            return  # it ended before and its containers are gone: what the API says is all that is known
        reason, message = self._ended_because
        if not reason and self._pod.status.phase == "Failed":
            reason, message = self._pod.status.reason, self._pod.status.message
        # The times of conditions come from what we said last, not from what the API has seen of it.
        shown = msgspec.structs.replace(self._pod, status=self._reporter.last_shown())
        appearance = Appearance(
            host_ip=self._around.names.host_ip,
            pod_ip=self._sandbox.address,
            messages=self._messages,
            image_refs=self._launcher.image_refs,
            reason=reason,
            message=message,
            refusal=self._grant.refusal,
        )
        self._reporter.show(build_status(msgspec.structs.replace(situation, pod=shown), plan, appearance))

    async def _leave(self) -> None:
        """Everything has ended: say so, clean up, and let the API forget the pod."""
        await self._reporter.flush()
        await self._clean_up()
        self._left = True  # before the API lets go of it, and the scheduler sends another one in its place
        await self._reporter.finalize()
        log.info("pod removed pod=%s uid=%s", pod_ref(self._pod), self._pod.metadata.uid)

    async def _clean_up(self) -> None:
        for _ in range(1_000_000):
            try:
                await self._sandbox.remove(self._pod)
                await asyncio.to_thread(self._volumes.tear_down)
            except (NodeError, OSError) as exc:
                log.warning("pod not cleaned up pod=%s error=%s", pod_ref(self._pod), exc)
                await asyncio.sleep(ENGINE_RETRY_S)
            else:
                return

    def _record(self, kind: str, reason: str, message: str, container: str = "") -> None:
        self._launcher.record(self._pod, kind, reason, message, container)

    def _record_probe(self, container: str, reason: str, message: str) -> None:
        self._record("Warning", reason, message, container)
