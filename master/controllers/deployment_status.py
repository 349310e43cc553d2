"""A Deployment's status: counts, and the conditions by which people and ``kubectl rollout status`` see how it goes."""

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from api.errors import ApiError
from api.kinds.apps import Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet
from client.clock import seconds_of, timestamp
from master.controllers.deployment_plan import available, bounds_of, desired, total

NO_DEADLINE = 2**31 - 1
_FOUND = "NewReplicaSetAvailable"
_TIMED_OUT = "ProgressDeadlineExceeded"
_PAUSED, _RESUMED = "DeploymentPaused", "DeploymentResumed"
Conditions = tuple[DeploymentCondition, ...]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a round saw and did: ``created`` is a ReplicaSet just made, ``failure`` why one could not be made."""

    new: ReplicaSet | None
    old: Sequence[ReplicaSet]
    created: str = ""
    failure: ApiError | None = None


def find(conditions: Conditions, type_: str) -> DeploymentCondition | None:
    """Return the condition of that type."""
    return next((each for each in conditions if each.type == type_), None)


def with_condition(conditions: Conditions, new: DeploymentCondition) -> Conditions:
    """Return ``conditions`` with ``new``; one with the same status and reason stays as it was."""
    known = find(conditions, new.type)
    if known is not None and (known.status, known.reason) == (new.status, new.reason):
        return conditions
    if known is not None and known.status == new.status:
        new = replace(new, last_transition_time=known.last_transition_time)
    return (*(each for each in conditions if each.type != new.type), new)


def without_condition(conditions: Conditions, type_: str) -> Conditions:
    """Return ``conditions`` without that type."""
    return tuple(each for each in conditions if each.type != type_)


def _condition(type_: str, status: str, reason: str, message: str, now: float) -> DeploymentCondition:
    moment = timestamp(now)
    return DeploymentCondition(
        type=type_, status=status, reason=reason, message=message, last_update_time=moment, last_transition_time=moment
    )


def _progressing(status: str, reason: str, message: str, now: float) -> DeploymentCondition:
    return _condition("Progressing", status, reason, message, now)


def has_deadline(deployment: Deployment) -> bool:
    """Return whether a rollout that stands still is reported."""
    deadline = deployment.spec.progress_deadline_seconds
    return deadline is not None and deadline != NO_DEADLINE


def plan_status(deployment: Deployment, seen: Seen, now: float) -> DeploymentStatus:
    """Return the status that ``deployment`` should have after a round."""
    counted = _counted(deployment, seen, now)
    conditions = _pause(deployment, counted.conditions, now)
    if seen.failure is not None and has_deadline(deployment):
        failed = _progressing("False", "ReplicaSetCreateError", seen.failure.message, now)
        conditions = with_condition(conditions, failed)
    elif not has_deadline(deployment):
        conditions = without_condition(conditions, "Progressing")
    elif not deployment.spec.paused:
        conditions = _progress(deployment, replace(counted, conditions=conditions), seen, now)
    conditions = without_condition(conditions, "ReplicaFailure")
    if (failure := _replica_failure(seen)) is not None:
        conditions = (*conditions, failure)
    return replace(counted, conditions=conditions)


def _counted(deployment: Deployment, seen: Seen, now: float) -> DeploymentStatus:
    sets = [*seen.old, *([seen.new] if seen.new is not None else [])]
    up = available(sets)
    wanted = desired(deployment)
    if up >= wanted - bounds_of(deployment).unavailable:
        state = ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    else:
        state = ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    conditions = with_condition(deployment.status.conditions, _condition("Available", *state, now))
    return DeploymentStatus(
        observed_generation=deployment.metadata.generation,
        replicas=sum(rs.status.replicas for rs in sets) or None,
        updated_replicas=(seen.new.status.replicas if seen.new is not None else 0) or None,
        ready_replicas=sum(rs.status.ready_replicas or 0 for rs in sets) or None,
        available_replicas=up or None,
        unavailable_replicas=max(0, total(sets) - up) or None,
        collision_count=deployment.status.collision_count,
        conditions=conditions,
    )


def _pause(deployment: Deployment, conditions: Conditions, now: float) -> Conditions:
    """Note that a rollout was paused or resumed, so that the time between does not count as standing still."""
    if not has_deadline(deployment):
        return conditions
    known = find(conditions, "Progressing")
    if known is not None and known.reason == _TIMED_OUT:
        return conditions
    was_paused = known is not None and known.reason == _PAUSED
    if deployment.spec.paused and not was_paused:
        return with_condition(conditions, _progressing("Unknown", _PAUSED, "Deployment is paused", now))
    if not deployment.spec.paused and was_paused:
        return with_condition(conditions, _progressing("Unknown", _RESUMED, "Deployment is resumed", now))
    return conditions


def _progress(deployment: Deployment, status: DeploymentStatus, seen: Seen, now: float) -> Conditions:
    """Return the conditions with Progressing as the counts show it."""
    conditions = status.conditions
    known = find(conditions, "Progressing")
    if seen.created:
        message = f'Created new replica set "{seen.created}"'
        return with_condition(conditions, _progressing("True", "NewReplicaSetCreated", message, now))
    if known is None and seen.new is not None:
        message = f'Found new replica set "{seen.new.metadata.name}"'
        conditions = with_condition(conditions, _progressing("True", "FoundNewReplicaSet", message, now))
    if known is not None and known.reason == _FOUND and status.replicas == status.updated_replicas:
        return conditions  # a pod that dies after the rollout does not start another one
    subject = (
        f'ReplicaSet "{seen.new.metadata.name}"'
        if seen.new is not None
        else (f'Deployment "{deployment.metadata.name}"')
    )
    if is_complete(deployment, status):
        done = _progressing("True", _FOUND, f"{subject} has successfully progressed.", now)
        return with_condition(conditions, done)
    if _moved(deployment.status, status):
        moving = _progressing("True", "ReplicaSetUpdated", f"{subject} is progressing.", now)
        if known is not None and known.status == "True":
            moving = replace(moving, last_transition_time=known.last_transition_time)
        return (*without_condition(conditions, "Progressing"), moving)
    if _is_timed_out(deployment, find(conditions, "Progressing"), now):
        late = _progressing("False", _TIMED_OUT, f"{subject} has timed out progressing.", now)
        return with_condition(conditions, late)
    return conditions


def is_complete(deployment: Deployment, status: DeploymentStatus) -> bool:
    """Return whether ``status`` shows all wanted pods, and only those, of the present template and available."""
    wanted = desired(deployment)
    counts = (status.updated_replicas, status.replicas, status.available_replicas)
    return all((each or 0) == wanted for each in counts)


def _moved(before: DeploymentStatus, after: DeploymentStatus) -> bool:
    """Return whether more is new, less is old, or more is ready or available than before."""

    def old(status: DeploymentStatus) -> int:
        return (status.replicas or 0) - (status.updated_replicas or 0)

    return (
        (after.updated_replicas or 0) > (before.updated_replicas or 0)
        or old(after) < old(before)
        or (after.ready_replicas or 0) > (before.ready_replicas or 0)
        or (after.available_replicas or 0) > (before.available_replicas or 0)
    )


def _is_timed_out(deployment: Deployment, known: DeploymentCondition | None, now: float) -> bool:
    if known is None or known.reason in (_FOUND, _PAUSED):
        return False
    if known.reason == _TIMED_OUT:
        return True
    return seconds_of(known.last_update_time) + (deployment.spec.progress_deadline_seconds or 0) < now


def _replica_failure(seen: Seen) -> DeploymentCondition | None:
    """Return the failure that a ReplicaSet reports, the new one's first."""
    for rs in (*((seen.new,) if seen.new is not None else ()), *seen.old):
        for each in rs.status.conditions:
            if each.type == "ReplicaFailure":
                return DeploymentCondition(
                    type="ReplicaFailure",
                    status=each.status,
                    reason=each.reason,
                    message=each.message,
                    last_transition_time=each.last_transition_time,
                    last_update_time=each.last_transition_time,
                )
    return None


def again_in_s(deployment: Deployment, status: DeploymentStatus, now: float) -> float | None:
    """Return when to look again whether the rollout stands still too long."""
    known = find(status.conditions, "Progressing")
    if known is None or not has_deadline(deployment) or deployment.spec.paused:
        return None
    if known.reason in (_FOUND, _TIMED_OUT, _PAUSED):
        return None
    left = seconds_of(known.last_update_time) + (deployment.spec.progress_deadline_seconds or 0) - now
    return max(0.0, left) + 1.0  # timestamps are whole seconds
