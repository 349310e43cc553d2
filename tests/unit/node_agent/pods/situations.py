"""Pods, sandboxes and instances in the few words that a test of a decision needs."""

from typing import Any

import msgspec

from api.kinds.pods import Pod
from node_agent.pods.plan import DELAY_LABEL
from node_agent.pods.situation import Situation
from node_agent.runtime.base import Container, PodRef, Sandbox, State

NOW = 1_800_000_000.0
REF = PodRef("default", "web", "uid-1")


def pod(*containers: dict[str, Any], status: dict[str, Any] | None = None, **spec: Any) -> Pod:
    """Return a pod; without containers it has one called ``main``."""
    document = {
        "metadata": {"namespace": REF.namespace, "name": REF.name, "uid": REF.uid},
        "spec": {"containers": list(containers) or [{"name": "main", "image": "img:1"}], **spec},
        "status": status or {},
    }
    return msgspec.convert(document, Pod)


def sandbox(sandbox_id: str = "s0", *, running: bool = True, attempt: int = 0) -> Sandbox:
    return Sandbox(id=sandbox_id, pod=REF, attempt=attempt, running=running, pid=1 if running else 0)


def instance(
    name: str = "main", attempt: int = 0, *, state: State = State.RUNNING, exit_code: int = 0, **more: Any
) -> Container:
    """Return an instance that started 100 s ago; one that ended did so right now unless told."""
    delay_s = more.pop("delay_s", 0)
    fields: dict[str, Any] = {
        "id": f"{name}-{attempt}",
        "pod": REF,
        "name": name,
        "attempt": attempt,
        "sandbox_id": "s0",
        "state": state,
        "image": "img:1",
        "exit_code": exit_code,
        "created_at": NOW - 101,
        "started_at": 0.0 if state is State.CREATED else NOW - 100,
        "finished_at": NOW if state is State.EXITED else 0.0,
        "labels": {DELAY_LABEL: str(delay_s)},
    }
    return Container(**(fields | more))


def ended(name: str = "main", attempt: int = 0, exit_code: int = 0, **more: Any) -> Container:
    return instance(name, attempt, state=State.EXITED, exit_code=exit_code, **more)


def situation(of: Pod, *instances: Container, within: Sandbox | None = None, **more: Any) -> Situation:
    """Return a situation; instances of one container are given newest first."""
    containers: dict[str, list[Container]] = {}
    for each in instances:
        containers.setdefault(each.name, []).append(each)
    return Situation(pod=of, sandbox=within, containers=containers, now=more.pop("now", NOW), **more)
