"""A pod's status as the API shows it: pure, from the same situation that plans are made from."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from api.kinds.pods import (
    Container as ContainerSpec,
)
from api.kinds.pods import (
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    HostIP,
    Pod,
    PodCondition,
    PodIP,
    PodSpec,
    PodStatus,
    ResourceRequirements,
)
from api.qos import qos_class
from client.clock import timestamp
from node_agent.pods.containers import all_containers, ephemeral_containers
from node_agent.pods.plan import Plan, Waiting
from node_agent.pods.resizing import CONDITIONS, resize_conditions
from node_agent.pods.situation import (
    RESIZE,
    Health,
    Situation,
    has_failed_init,
    is_finished,
    is_initialized,
    is_sidecar,
    resize_due,
)
from node_agent.runtime.base import Container, State

_ENGINE = "docker"
_OWN_CONDITIONS = ("Initialized", "Ready", "ContainersReady", "PodScheduled", *CONDITIONS)
_MESSAGE_LIMIT = 4096


class Appearance(msgspec.Struct, frozen=True, kw_only=True):
    """What the status needs beside the situation.

    messages: container id -> its last words. images: image id -> what registries call it. reason, message: why the
    pod was ended by this node (Evicted, DeadlineExceeded), "" otherwise. refusal: why a resize is not granted, "" if
    it is.
    """

    host_ip: str
    pod_ip: str = ""
    messages: Mapping[str, str] = {}
    image_refs: Mapping[str, str] = {}
    reason: str = ""
    message: str = ""
    refusal: str = ""


def iso(unix_s: float) -> str:
    """Return whole seconds as the API writes times; "" for a time that has not come."""
    return timestamp(unix_s) if unix_s else ""


def build_status(s: Situation, plan: Plan, around: Appearance) -> PodStatus:
    """Return the pod's status; what did not change keeps its times from the pod's present status."""
    old = s.pod.status
    phase = _phase(s, around)
    init = tuple(_container_status(s, spec, plan, around, init=True) for spec in s.pod.spec.init_containers)
    main = tuple(_container_status(s, spec, plan, around, init=False) for spec in s.pod.spec.containers)
    if _was_refused(s, around):
        init = main = ()  # as the kubelet: else clients would show what they wait for instead of why it was refused
    debuggers = tuple(_debugger_status(s, spec, plan, around) for spec in ephemeral_containers(s.pod.spec))
    addressed = around.pod_ip and phase not in {"Succeeded", "Failed"}
    pod_ip = around.pod_ip if addressed or s.ending else old.pod_ip
    return msgspec.structs.replace(
        old,
        phase=phase,
        conditions=_conditions(s, phase, init, main, around.refusal),
        init_container_statuses=init,
        container_statuses=main,
        ephemeral_container_statuses=debuggers,
        host_ip=around.host_ip,
        host_ips=(HostIP(ip=around.host_ip),),
        pod_ip=pod_ip,
        pod_ips=(PodIP(ip=pod_ip),) if pod_ip else (),
        qos_class=old.qos_class or qos_class(s.pod.spec),
        start_time=old.start_time or iso(s.now),
        reason=around.reason,
        message=around.message,
        observed_generation=s.pod.metadata.generation,
    )


def _was_refused(s: Situation, around: Appearance) -> bool:
    """Return whether this node ended the pod before anything of it was made."""
    made = s.sandbox is not None or any(s.containers.values()) or s.pod.status.container_statuses
    return bool(around.reason) and not made


def _phase(s: Situation, around: Appearance) -> str:
    """Return the phase; one that ended never changes again."""
    if around.reason or s.pod.status.phase in {"Succeeded", "Failed"}:
        return "Failed" if around.reason else s.pod.status.phase
    if is_finished(s):
        return "Failed" if has_failed_init(s) or _any_failed(s) else "Succeeded"
    newest = [s.newest(spec.name) for spec in s.pod.spec.containers]
    if s.ending and not any(each and each.state is State.RUNNING for each in newest):
        return _phase_of_ended(newest, s.pod.status.phase)
    # Pending until every container has been started once, as long as nothing was.
    started = [each for each in newest if each is not None and each.state is not State.CREATED]
    return "Running" if started and (is_initialized(s) or s.pod.status.phase == "Running") else "Pending"


def _phase_of_ended(newest: Sequence[Container | None], before: str) -> str:
    if all(each is None for each in newest):
        return "Failed"
    if any(each is None or each.state is not State.EXITED for each in newest):
        return before or "Failed"
    return "Succeeded" if all(each is not None and each.exit_code == 0 for each in newest) else "Failed"


def _any_failed(s: Situation) -> bool:
    newest = (s.newest(spec.name) for spec in s.pod.spec.containers)
    return any(each is not None and each.exit_code != 0 for each in newest)


def _container_status(
    s: Situation, spec: ContainerSpec, plan: Plan, around: Appearance, *, init: bool
) -> ContainerStatus:
    instances = [i for i in s.containers.get(spec.name, ()) if i.state is not State.CREATED]
    newest = instances[0] if instances else None
    waiting = plan.waiting.get(spec.name)
    state, last = _states(instances, waiting, around, s)
    running = newest is not None and newest.state is State.RUNNING
    health = s.health.get(newest.id, Health(started=False, ready=False)) if newest and running else None
    if init and not is_sidecar(spec):
        ready = state.terminated is not None and state.terminated.exit_code == 0
        started = running
    else:
        ready, started = bool(health and health.ready), bool(health and health.started)
    return ContainerStatus(
        name=spec.name,
        image=newest.image if newest else spec.image,
        image_id=_image_id(newest, around),
        container_id=_container_id(newest),
        restart_count=newest.attempt if newest else 0,
        ready=ready,
        started=started,
        state=state,
        last_state=last,
        allocated_resources=dict(spec.resources.requests) if spec.resources is not None else {},
        resources=_resources(s, spec, newest) if newest is not None and running else None,
    )


def _resources(s: Situation, spec: ContainerSpec, running: Container) -> ResourceRequirements:
    """Return what a running container has: until a resize has been done, what it had before."""
    told = (*s.pod.status.init_container_statuses, *s.pod.status.container_statuses)
    before = next((each.resources for each in told if each.container_id == _container_id(running)), None)
    if before is not None and resize_due(s, running) is not None:
        return before
    return spec.resources or ResourceRequirements()


def _debugger_status(s: Situation, spec: ContainerSpec, plan: Plan, around: Appearance) -> ContainerStatus:
    """Return the status of a container added for debugging: it is never asked whether it is ready."""
    status = _container_status(s, spec, plan, around, init=False)
    return msgspec.structs.replace(status, ready=False, started=None, allocated_resources={}, resources=None)


def _states(
    instances: Sequence[Container], waiting: Waiting | None, around: Appearance, s: Situation
) -> tuple[ContainerState, ContainerState]:
    """Return (state, last state) of a container."""
    newest = instances[0] if instances else None
    earlier = instances[1] if len(instances) > 1 else None
    if newest is not None and newest.state is State.RUNNING:
        return ContainerState(running=ContainerStateRunning(started_at=iso(newest.started_at))), _ended(earlier, around)
    if newest is not None and (waiting is None or s.ending):
        return _ended(newest, around), _ended(earlier, around)
    reason = waiting or Waiting("ContainerCreating" if not s.pod.spec.init_containers else "PodInitializing")
    if (
        newest is not None
        and newest.state is State.EXITED
        and reason.reason in {"ContainerCreating", "PodInitializing"}
    ):
        # Between two lives without a delay: the end is what happened last.
        return _ended(newest, around), _ended(earlier, around)
    shown = ContainerStateWaiting(reason=reason.reason, message=reason.message)
    return ContainerState(waiting=shown), _ended(newest, around)


def _ended(instance: Container | None, around: Appearance) -> ContainerState:
    if instance is None or instance.state is not State.EXITED:
        return ContainerState()
    message = around.messages.get(instance.id, "") or instance.error
    return ContainerState(
        terminated=ContainerStateTerminated(
            container_id=_container_id(instance),
            exit_code=instance.exit_code,
            reason=_end_reason(instance),
            message=message[-_MESSAGE_LIMIT:],
            started_at=iso(instance.started_at),
            finished_at=iso(instance.finished_at or instance.created_at),
        )
    )


def _end_reason(instance: Container) -> str:
    if instance.oom_killed:
        return "OOMKilled"
    if instance.error and not instance.started_at:
        return "ContainerCannotRun"
    return "Error" if instance.exit_code else "Completed"


def _container_id(instance: Container | None) -> str:
    return f"{_ENGINE}://{instance.id}" if instance else ""


def _image_id(instance: Container | None, around: Appearance) -> str:
    if instance is None:
        return ""
    digest = around.image_refs.get(instance.image_id)
    return f"docker-pullable://{digest}" if digest else f"docker://{instance.image_id}"


def _conditions(
    s: Situation, phase: str, init: Sequence[ContainerStatus], main: Sequence[ContainerStatus], refusal: str
) -> tuple[PodCondition, ...]:
    spec, ended = s.pod.spec, phase in {"Succeeded", "Failed"}
    containers_ready = _containers_ready(spec, init, main, phase)
    wanted = (
        _initialized(s, init, phase),
        _ready(s.pod, containers_ready),
        containers_ready,
        PodCondition(type="PodScheduled", status="True"),
        *(() if ended else _resize_conditions(s, refusal)),
    )
    old = {condition.type: condition for condition in s.pod.status.conditions}
    others = [condition for condition in s.pod.status.conditions if condition.type not in _OWN_CONDITIONS]
    assert not (ended and containers_ready.status == "True"), s.pod.metadata.uid
    return (*(_dated(condition, old.get(condition.type), s.now) for condition in wanted), *others)


def _resize_conditions(s: Situation, refusal: str) -> tuple[PodCondition, ...]:
    running = [i for each in all_containers(s.pod.spec) if (i := s.current(each.name)) and i.state is State.RUNNING]
    due = [each.name for each in running if resize_due(s, each) is not None]
    failures = [s.failures[RESIZE + name].message for name in due if RESIZE + name in s.failures]
    return resize_conditions(refusal, failures, under_way=bool(due))


def _dated(condition: PodCondition, old: PodCondition | None, now: float) -> PodCondition:
    same = old is not None and old.status == condition.status and old.last_transition_time
    since = old.last_transition_time if same and old else iso(now)
    return msgspec.structs.replace(condition, last_transition_time=since)


def _initialized(s: Situation, init: Sequence[ContainerStatus], phase: str) -> PodCondition:
    if phase == "Succeeded":
        return PodCondition(type="Initialized", status="True", reason="PodCompleted")
    if not init or is_initialized(s) or (phase == "Failed" and not has_failed_init(s) and all(i.ready for i in init)):
        return PodCondition(type="Initialized", status="True")
    missing = [i.name for spec, i in zip(s.pod.spec.init_containers, init, strict=True) if not _counts(spec, i)]
    if not missing:
        return PodCondition(type="Initialized", status="True")
    message = f"containers with incomplete status: [{' '.join(missing)}]"
    return PodCondition(type="Initialized", status="False", reason="ContainersNotInitialized", message=message)


def _counts(spec: ContainerSpec, status: ContainerStatus) -> bool:
    return bool(status.started) if is_sidecar(spec) else status.ready


def _containers_ready(
    spec: PodSpec, init: Sequence[ContainerStatus], main: Sequence[ContainerStatus], phase: str
) -> PodCondition:
    kind = "ContainersReady"
    if phase in {"Succeeded", "Failed"}:
        reason = "PodCompleted" if phase == "Succeeded" else "PodFailed"
        return PodCondition(type=kind, status="False", reason=reason)
    sidecars = [i for each, i in zip(spec.init_containers, init, strict=True) if is_sidecar(each)]
    unready = [each.name for each in (*sidecars, *main) if not each.ready]
    if unready:
        message = f"containers with unready status: [{' '.join(unready)}]"
        return PodCondition(type=kind, status="False", reason="ContainersNotReady", message=message)
    return PodCondition(type=kind, status="True")


def _ready(pod: Pod, containers_ready: PodCondition) -> PodCondition:
    if containers_ready.status != "True":
        return msgspec.structs.replace(containers_ready, type="Ready")
    present = {condition.type: condition.status for condition in pod.status.conditions}
    gates = [gate.condition_type for gate in pod.spec.readiness_gates]
    closed = [gate for gate in gates if present.get(gate) != "True"]
    if closed:
        message = "; ".join(
            f'corresponding condition of pod readiness gate "{gate}" does not exist.' for gate in closed
        )
        return PodCondition(type="Ready", status="False", reason="ReadinessGatesNotReady", message=message)
    return PodCondition(type="Ready", status="True")


def status_patch(uid: str, old: Mapping[str, Any], new: PodStatus) -> dict[str, Any] | None:
    """Return the merge patch that leads from the ``old`` status document to ``new``; None if nothing changes."""
    document: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(new))
    changed = {key: value for key, value in document.items() if old.get(key) != value}
    changed |= dict.fromkeys(old.keys() - document.keys())
    return {"metadata": {"uid": uid}, "status": changed} if changed else None
