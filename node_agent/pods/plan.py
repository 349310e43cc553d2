"""What to do next for one pod: pure, from what the API wants and what the runtime has.

The worker calls ``plan_pod`` whenever anything changed. It reads what *is*; lost or repeated events do no harm, and a
restarted agent that looks at the same containers decides the same. What must outlive the agent (restart count,
restart delay, what a container was made from) stands in the containers' labels.

Order of a pod's life: sandbox; init containers one after the other (those with restartPolicy Always stay and only
have to have started); the containers side by side. Containers added for debugging start as soon as there is a sandbox,
once, whatever the others do. At its end: containers, then the init containers that stayed, last
one first, then the sandbox.
"""

import hashlib
from collections.abc import Iterator, Mapping

import msgspec

from api.kinds.pods import Container as ContainerSpec
from api.kinds.pods import Pod
from node_agent.pods.situation import (
    RESIZE,
    SANDBOX,
    Failure,
    Health,
    Situation,
    is_finished,
    is_init_done,
    is_sidecar,
    policy_of,
    resize_due,
    should_restart,
)
from node_agent.runtime.base import Container, Limits, State

HASH_LABEL = "io.trireme.container.hash"
DELAY_LABEL = "io.trireme.container.restart-delay-s"
FIRST_DELAY_S = 10
MAX_DELAY_S = 300
QUIET_S = 600  # a container that ran this long starts with a clean record


class CreateSandbox(msgspec.Struct, frozen=True):
    """Make and start a sandbox, and plug it in."""

    attempt: int


class StopSandbox(msgspec.Struct, frozen=True):
    """Unplug and stop the sandbox."""

    sandbox_id: str


class StartContainer(msgspec.Struct, frozen=True):
    """Start a new instance; it may be prepared while the sandbox is still being made."""

    name: str
    attempt: int
    delay_s: int  # how long to wait should this instance end


class KillContainer(msgspec.Struct, frozen=True):
    """Stop an instance: preStop hook, signal, grace period. why: for the event, "" for none."""

    name: str
    container_id: str
    why: str


class UpdateContainer(msgspec.Struct, frozen=True):
    """Let a running instance have more or less."""

    name: str
    container_id: str
    limits: Limits


class RemoveContainer(msgspec.Struct, frozen=True):
    """Forget an instance that nobody will ask about."""

    container_id: str


Action = CreateSandbox | StopSandbox | StartContainer | KillContainer | UpdateContainer | RemoveContainer


class Waiting(msgspec.Struct, frozen=True):
    """Why a container does not run, in the words of its status."""

    reason: str
    message: str = ""


class Plan(msgspec.Struct, frozen=True):
    """What to do now, what to show, and when to look again although nothing happened (None: never)."""

    actions: tuple[Action, ...] = ()
    waiting: Mapping[str, Waiting] = {}
    wake_at: float | None = None
    ended: bool = False  # nothing runs and nothing is under way


def restart_delay(instance: Container, spec: ContainerSpec) -> int:
    """Return how many seconds after its end an instance is replaced; 0 after a quiet life, and by another image."""
    if instance.labels.get(HASH_LABEL, container_hash(spec)) != container_hash(spec):
        return 0
    if instance.finished_at - instance.started_at >= QUIET_S and instance.started_at:
        return 0
    return int(instance.labels.get(DELAY_LABEL, "0"))


def next_delay(delay_s: int) -> int:
    """Return the delay after one of ``delay_s``: 0, 10, 20, 40 ... 300."""
    return min(delay_s * 2, MAX_DELAY_S) if delay_s else FIRST_DELAY_S


def container_hash(spec: ContainerSpec) -> str:
    """Return what tells whether a running instance still is what the pod wants; only the image may change."""
    return hashlib.sha256(f"{spec.name}\0{spec.image}".encode()).hexdigest()[:16]


def plan_pod(s: Situation) -> Plan:
    """Decide what to do for the pod now."""
    if s.ending or is_finished(s):
        return _plan_end(s)
    return _Planner(s).plan()


class _Planner:
    """Collects one plan for a pod that shall run."""

    def __init__(self, situation: Situation) -> None:
        self._s = situation
        self._actions: list[Action] = []
        self._waiting: dict[str, Waiting] = {}
        self._wakes: list[float] = []

    def plan(self) -> Plan:
        s = self._s
        self._sandbox()
        self._debuggers()
        initialized = self._init_containers()
        for spec in s.pod.spec.containers:
            if initialized:
                self._container(spec, policy_of(s.pod))
            elif s.current(spec.name) is None:
                self._waiting[spec.name] = Waiting("PodInitializing")
        self._actions += _plan_removals(s)
        return Plan(tuple(self._actions), self._waiting, min(self._wakes, default=None))

    def _sandbox(self) -> None:
        s = self._s
        if (s.sandbox is not None and s.sandbox.running) or SANDBOX in s.busy:
            return
        # Containers outlive the process whose namespaces they joined; in a dead sandbox nobody reaches them.
        left = [instance for instance in _running(s) if instance.name not in s.busy]
        self._actions += [
            KillContainer(i.name, i.id, "Pod sandbox changed, it will be killed and re-created.") for i in left
        ]
        failure = s.failures.get(SANDBOX)
        if failure and failure.retry_at > s.now:
            self._wakes.append(failure.retry_at)
            return
        self._actions.append(CreateSandbox(s.sandbox.attempt + 1 if s.sandbox else 0))

    def _debuggers(self) -> None:
        """Start what was added for debugging; what has run once is never started again."""
        for spec in self._s.pod.spec.ephemeral_containers:
            newest = self._s.newest(spec.name)
            if newest is not None and newest.state is not State.CREATED:
                continue
            self._waiting[spec.name] = Waiting("ContainerCreating")
            if spec.name in self._s.busy:
                continue
            if newest is not None:
                self._actions.append(RemoveContainer(newest.id))
            else:
                self._start(spec.name, 0, 0)

    def _init_containers(self) -> bool:
        """Go on with the init containers; True when the containers' turn has come."""
        s = self._s
        specs = s.pod.spec.init_containers
        running_already = any(s.current(spec.name) for spec in s.pod.spec.containers)
        for index, spec in enumerate(specs):
            if is_sidecar(spec):
                self._container(spec, "Always")
            elif running_already or is_init_done(s, spec):
                continue
            else:
                # OnFailure: an init container that ended well is done, whatever the pod's policy.
                self._container(spec, "Never" if policy_of(s.pod) == "Never" else "OnFailure")
            if not running_already and not is_init_done(s, spec):
                self._waiting |= {later.name: Waiting("PodInitializing") for later in specs[index + 1 :]}
                return False
        return True

    def _container(self, spec: ContainerSpec, policy: str) -> None:
        s = self._s
        newest, current = s.newest(spec.name), s.current(spec.name)
        if current is None or current.state is not State.RUNNING:
            self._waiting[spec.name] = Waiting(
                "ContainerCreating" if not s.pod.spec.init_containers else "PodInitializing"
            )
        if spec.name in s.busy or (newest and not current and newest.state is State.RUNNING):
            return
        if current is None:
            self._first_in_sandbox(spec, newest, policy)
        elif current.state is State.CREATED:
            self._actions.append(RemoveContainer(current.id))
        elif current.state is State.RUNNING:
            self._running(spec, current)
        elif should_restart(policy, current.exit_code):
            self._restart(spec, current)
        else:
            del self._waiting[spec.name]

    def _first_in_sandbox(self, spec: ContainerSpec, newest: Container | None, policy: str) -> None:
        if newest is None:
            self._start(spec.name, _attempts_before(self._s.pod, spec.name), 0)
        elif newest.state is State.CREATED:
            self._actions.append(RemoveContainer(newest.id))
        elif spec in self._s.pod.spec.init_containers or should_restart(policy, newest.exit_code):
            self._start(spec.name, newest.attempt + 1, restart_delay(newest, spec))
        else:
            del self._waiting[spec.name]

    def _running(self, spec: ContainerSpec, current: Container) -> None:
        health = self._s.health.get(current.id, Health())
        if current.labels.get(HASH_LABEL, container_hash(spec)) != container_hash(spec):
            why = f"Container {spec.name} definition changed, will be restarted"
            self._actions.append(KillContainer(spec.name, current.id, why))
        elif health.failed:
            self._actions.append(KillContainer(spec.name, current.id, health.failed))
        elif (limits := resize_due(self._s, current)) is not None:
            self._resize(spec, current, limits)

    def _resize(self, spec: ContainerSpec, current: Container, limits: Limits) -> None:
        failure = self._s.failures.get(RESIZE + spec.name)
        if failure is not None and failure.retry_at > self._s.now:
            self._wakes.append(failure.retry_at)
        elif _restarts_to_resize(spec, self._s.enforced.get(current.id, current.limits), limits):
            self._actions.append(KillContainer(spec.name, current.id, f"Container {spec.name} resize requires restart"))
        else:
            self._actions.append(UpdateContainer(spec.name, current.id, limits))

    def _restart(self, spec: ContainerSpec, ended: Container) -> None:
        delay_s = restart_delay(ended, spec)
        # Engine and agent share a clock; an end in the future means that it was set back, and waiting would last as
        # long as that.
        due = ended.finished_at + delay_s if ended.finished_at <= self._s.now + 1 else self._s.now
        if due > self._s.now:
            meta = self._s.pod.metadata
            message = (
                f"back-off {duration(delay_s)} restarting failed container={spec.name} "
                f"pod={meta.name}_{meta.namespace}({meta.uid})"
            )
            self._waiting[spec.name] = Waiting("CrashLoopBackOff", message)
            self._wakes.append(due)
            return
        self._start(spec.name, ended.attempt + 1, next_delay(delay_s))

    def _start(self, name: str, attempt: int, delay_s: int) -> None:
        s = self._s
        failure = s.failures.get(name)
        if failure is not None:
            self._waiting[name] = self._explain(failure)
            if failure.retry_at > s.now:
                self._wakes.append(failure.retry_at)
                return
        if (
            s.failures.get(SANDBOX)
            and not (s.sandbox and s.sandbox.running)
            and SANDBOX not in s.busy
            and not any(isinstance(action, CreateSandbox) for action in self._actions)
        ):
            return
        self._actions.append(StartContainer(name, attempt, delay_s))

    def _explain(self, failure: Failure) -> Waiting:
        shown_s = 1.0
        if failure.later_reason and self._s.now >= failure.failed_at + shown_s:
            return Waiting(failure.later_reason, failure.later_message)
        self._wakes.append(failure.failed_at + shown_s)
        return Waiting(failure.reason, failure.message)


def _restarts_to_resize(spec: ContainerSpec, before: Limits, after: Limits) -> bool:
    changed = {
        "cpu": (before.cpu_shares, before.cpu_quota_us) != (after.cpu_shares, after.cpu_quota_us),
        "memory": before.memory_bytes != after.memory_bytes,
    }
    return any(each.restart_policy == "RestartContainer" and changed[each.resource_name] for each in spec.resize_policy)


def _attempts_before(pod: Pod, name: str) -> int:
    """Return how often the container was started according to the API: the engine may have lost everything."""
    status = pod.status
    known = (*status.init_container_statuses, *status.container_statuses)
    return next((each.restart_count + 1 for each in known if each.name == name and each.container_id), 0)


def _running(s: Situation) -> Iterator[Container]:
    return (i for instances in s.containers.values() for i in instances if i.state is State.RUNNING)


def _plan_removals(s: Situation) -> list[Action]:
    """Keep the newest instance and the one before it (its state and output can be asked for)."""
    return [
        RemoveContainer(instance.id)
        for name, instances in s.containers.items()
        if name not in s.busy
        for instance in instances[2:]
        if instance.state is not State.RUNNING
    ]


def _plan_end(s: Situation) -> Plan:
    sidecars = [spec.name for spec in s.pod.spec.init_containers if is_sidecar(spec)]
    running = {i.name: i for i in _running(s)}
    plain = [instance for name, instance in running.items() if name not in sidecars]
    staying = [name for name in sidecars if name in running]
    # The last sidecar that started is the first to go.
    turn = plain or [running[name] for name in staying[-1:]]
    actions: list[Action] = [
        KillContainer(i.name, i.id, f"Stopping container {i.name}") for i in turn if i.name not in s.busy
    ]
    created = [i for instances in s.containers.values() for i in instances if i.state is State.CREATED]
    actions += [RemoveContainer(i.id) for i in created if i.name not in s.busy]
    idle = not running and not created and not s.busy
    if idle and s.sandbox is not None and s.sandbox.running:
        return Plan((StopSandbox(s.sandbox.id),))
    return Plan(tuple(actions), ended=idle)


def duration(seconds: int) -> str:
    """Return Go's notation: 10s, 1m20s, 5m0s."""
    minutes, rest = divmod(seconds, 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
