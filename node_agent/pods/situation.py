"""What is seen of one pod, and what that amounts to: finished, initialised, to be resized. Pure.

Plans (``node_agent.pods.plan``) and statuses (``node_agent.pods.status``) are made from the same situation, so what is
shown and what is done agree.
"""

from collections.abc import Mapping, Sequence

import msgspec

from api.kinds.pods import Container as ContainerSpec
from api.kinds.pods import Pod
from node_agent.runtime.base import Container, Limits, Sandbox, State

SANDBOX = ""  # its name among ``busy``
RESIZE = "resize "  # before a container's name among ``failures``: of its resize, not of its start


class Health(msgspec.Struct, frozen=True):
    """What the probes say of one running instance. failed: why it must be restarted, "" if it need not."""

    started: bool = True
    ready: bool = True
    failed: str = ""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no instance of a container: something before its start went wrong.

    reason: what is shown first (ErrImagePull); later_reason and later_message: what is shown while it waits.
    """

    reason: str
    message: str
    failed_at: float
    retry_at: float
    delay_s: float
    later_reason: str = ""
    later_message: str = ""


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a decision about one pod depends on.

    containers: container name -> its instances, newest first. health: container id -> what the probes say; a running
    instance without an entry has not been probed. busy: names of containers (``SANDBOX``: the sandbox) with an
    operation under way. ending: the pod is being deleted or was evicted. limits: container name -> what the kernel
    shall enforce; a container without an entry is left as it is. enforced: container id -> the limits that the engine
    took lately, which a kernel that lacks something lets it show otherwise.
    """

    pod: Pod
    sandbox: Sandbox | None
    containers: Mapping[str, Sequence[Container]]
    now: float
    health: Mapping[str, Health] = {}
    busy: frozenset[str] = frozenset()
    failures: Mapping[str, Failure] = {}
    ending: bool = False
    limits: Mapping[str, Limits] = {}
    enforced: Mapping[str, Limits] = {}

    def newest(self, name: str) -> Container | None:
        """Return the newest instance, of whichever sandbox."""
        instances = self.containers.get(name)
        return instances[0] if instances else None

    def current(self, name: str) -> Container | None:
        """Return the newest instance if it belongs to the running sandbox."""
        newest = self.newest(name)
        here = self.sandbox is not None and self.sandbox.running
        return newest if newest and here and newest.sandbox_id == self.sandbox.id else None  # type: ignore[union-attr]


def is_sidecar(spec: ContainerSpec) -> bool:
    """Whether an init container stays beside the containers."""
    return spec.restart_policy == "Always"


def should_restart(policy: str, exit_code: int) -> bool:
    """Whether an instance that ended with ``exit_code`` gets a successor."""
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def policy_of(pod: Pod) -> str:
    """Return the pod's restart policy."""
    return pod.spec.restart_policy or "Always"


def is_finished(s: Situation) -> bool:
    """Whether every container ended for good, or an init container did so with an error."""
    policy = policy_of(s.pod)
    if policy == "Always":
        return False
    if has_failed_init(s):
        return True
    newest = [s.newest(spec.name) for spec in s.pod.spec.containers]
    return bool(newest) and all(
        each is not None and each.state is State.EXITED and not should_restart(policy, each.exit_code)
        for each in newest
    )


def has_failed_init(s: Situation) -> bool:
    """Whether an init container ended with an error and may not be repeated."""
    if policy_of(s.pod) != "Never":
        return False
    newest = (s.newest(spec.name) for spec in s.pod.spec.init_containers if not is_sidecar(spec))
    return any(each is not None and each.state is State.EXITED and each.exit_code != 0 for each in newest)


def is_initialized(s: Situation) -> bool:
    """Whether the containers may run: all init containers ended well, those that stay have started."""
    if any(s.current(spec.name) for spec in s.pod.spec.containers):
        return True
    return all(is_init_done(s, spec) for spec in s.pod.spec.init_containers)


def is_init_done(s: Situation, spec: ContainerSpec) -> bool:
    """Whether an init container lets the next one begin: it ended well, or stays and has started."""
    instance = s.current(spec.name)
    if instance is None:
        return False
    if is_sidecar(spec):
        return instance.state is State.RUNNING and s.health.get(instance.id, Health(started=False)).started
    return instance.state is State.EXITED and instance.exit_code == 0


def resize_due(s: Situation, instance: Container) -> Limits | None:
    """Return the limits that a running instance should have and has not; None if it has them."""
    wanted = s.limits.get(instance.name)
    if wanted is None:
        return None
    enforced = s.enforced.get(instance.id, instance.limits)
    # What the out-of-memory killer thinks of a process is settled when it starts.
    wanted = msgspec.structs.replace(wanted, oom_score_adj=enforced.oom_score_adj)
    return None if wanted == enforced else wanted
