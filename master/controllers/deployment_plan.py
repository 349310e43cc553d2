"""What a Deployment does next: a pure function of the Deployment, its ReplicaSets and the time.

A round takes one step (make a ReplicaSet, scale some, clean up) and states the status; the step's own events bring the
next round. Rolling keeps two bounds at every moment: never more pods than ``replicas + maxSurge``, never fewer
available ones than ``replicas - maxUnavailable`` by the controller's doing. Source: kubernetes.io, "Deployment".
"""

import math
from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from api.kinds.apps import Deployment, ReplicaSet
from master.controllers import revisions
from master.controllers.intorstr import resolve
from master.controllers.ownership import changed
from master.controllers.revisions import DESIRED, MAXIMUM, by_age, revision_of


class CreateSet(msgspec.Struct, frozen=True):
    """Make the ReplicaSet of the present template."""

    rs: ReplicaSet


class UpdateSet(msgspec.Struct, frozen=True):
    """Write ``rs``, whose count was ``before``: an event tells of a changed count."""

    rs: ReplicaSet
    before: int


class DeleteSet(msgspec.Struct, frozen=True):
    """Forget an old revision."""

    rs: ReplicaSet


Action = CreateSet | UpdateSet | DeleteSet


class Bounds(msgspec.Struct, frozen=True):
    """How far a rollout may go beyond and below the wanted count."""

    surge: int
    unavailable: int


class Step(msgspec.Struct, frozen=True):
    """One round's doing. ``new`` and ``old`` are the sets as seen before it; revision: what the Deployment shows."""

    actions: Sequence[Action]
    new: ReplicaSet | None
    old: Sequence[ReplicaSet]
    revision: int


def count_of(rs: ReplicaSet) -> int:
    """Return the count that a set's spec asks for."""
    return 1 if rs.spec.replicas is None else rs.spec.replicas


def desired(deployment: Deployment) -> int:
    """Return the count that a Deployment asks for."""
    return 1 if deployment.spec.replicas is None else deployment.spec.replicas


def total(sets: Iterable[ReplicaSet]) -> int:
    """Return the pods that the specs of ``sets`` ask for together."""
    return sum(map(count_of, sets))


def available(sets: Iterable[ReplicaSet]) -> int:
    """Return the pods of ``sets`` that are available."""
    return sum(rs.status.available_replicas or 0 for rs in sets)


def active(sets: Iterable[ReplicaSet]) -> list[ReplicaSet]:
    """Return the sets that ask for any pods."""
    return [rs for rs in sets if count_of(rs) > 0]


def is_recreating(deployment: Deployment) -> bool:
    """Return whether the old pods must be gone before new ones come."""
    strategy = deployment.spec.strategy
    return strategy is not None and strategy.type == "Recreate"


def bounds_of(deployment: Deployment) -> Bounds:
    """Return the rollout's bounds; a surge rounds up, unavailability down, and both cannot be zero."""
    if is_recreating(deployment) or desired(deployment) == 0:
        return Bounds(0, 0)
    rolling = deployment.spec.strategy.rolling_update if deployment.spec.strategy is not None else None
    count = desired(deployment)
    surge = resolve(rolling.max_surge if rolling is not None else None, count, absent="25%", up=True)
    unavailable = resolve(rolling.max_unavailable if rolling is not None else None, count, absent="25%", up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return Bounds(surge, min(unavailable, count))


def plan_step(deployment: Deployment, sets: Sequence[ReplicaSet], *, old_pods_remain: bool) -> Step:
    """Decide this round's step.

    sets: every ReplicaSet that the Deployment controls. old_pods_remain: whether a pod of another template still runs
    or is being stopped; only Recreate asks.
    """
    new = revisions.find_new(deployment, sets)
    old = [rs for rs in by_age(sets) if new is None or rs.metadata.uid != new.metadata.uid]
    if deployment.spec.paused or _is_scaled(deployment, sets):
        actions = _scale(deployment, new, old)
        if deployment.spec.paused and not actions:
            actions = _clean_up(deployment, old)
        if deployment.spec.paused or actions:
            return Step(actions, new, old, revision_of(new if new is not None else deployment))
    if is_recreating(deployment):
        actions = _recreate(deployment, new, old, old_pods_remain=old_pods_remain)
    else:
        actions = _roll(deployment, new, old)
    if not actions and is_complete(deployment, new, old):
        actions = _clean_up(deployment, old)
    made = [each.rs for each in actions if isinstance(each, CreateSet) or (new is not None and _is_same(each.rs, new))]
    return Step(actions, new, old, revision_of(made[0] if made else new if new is not None else deployment))


def _is_same(one: ReplicaSet, other: ReplicaSet) -> bool:
    return one.metadata.uid == other.metadata.uid


def is_complete(deployment: Deployment, new: ReplicaSet | None, old: Sequence[ReplicaSet]) -> bool:
    """Return whether every wanted pod runs the present template and no other pod is left."""
    if new is None:
        return False
    count = desired(deployment)
    everyone = sum(rs.status.replicas for rs in (new, *old))
    return new.status.replicas == count == everyone == available((new, *old))


def _refreshed(deployment: Deployment, new: ReplicaSet, old: Sequence[ReplicaSet]) -> ReplicaSet:
    """Return the new set with the annotations and minReadySeconds that it should have."""
    annotations = revisions.annotate(new.metadata.annotations, deployment, revisions.next_revision(old))
    refreshed = changed(new, annotations=annotations)
    if (new.spec.min_ready_seconds or 0) != (deployment.spec.min_ready_seconds or 0):
        refreshed = replace(refreshed, spec=replace(new.spec, min_ready_seconds=deployment.spec.min_ready_seconds))
    return refreshed


def _resized(deployment: Deployment, rs: ReplicaSet, count: int) -> ReplicaSet:
    """Return ``rs`` asking for ``count`` pods, annotated with the Deployment's present size."""
    wanted = desired(deployment)
    limits = revisions.replica_limits(wanted, wanted + bounds_of(deployment).surge)
    rs = changed(rs, annotations={**rs.metadata.annotations, **limits})
    return replace(rs, spec=replace(rs.spec, replicas=count))


def _updates(pairs: Iterable[tuple[ReplicaSet, ReplicaSet]]) -> list[Action]:
    return [UpdateSet(after, count_of(before)) for before, after in pairs if after != before]


def _create(deployment: Deployment, old: Sequence[ReplicaSet]) -> list[Action]:
    count = _new_count(deployment, 0, old)
    maximum = desired(deployment) + bounds_of(deployment).surge
    return [CreateSet(revisions.new_replicaset(deployment, old, count, maximum))]


def _new_count(deployment: Deployment, present: int, others: Sequence[ReplicaSet]) -> int:
    """Return how many pods the new set may have now."""
    wanted = desired(deployment)
    if is_recreating(deployment):
        return wanted
    room = wanted + bounds_of(deployment).surge - present - total(others)
    return present + max(0, min(room, wanted - present))


def _roll(deployment: Deployment, new: ReplicaSet | None, old: Sequence[ReplicaSet]) -> list[Action]:
    """Take a step of a rolling update: up with the new, and only if that is done, down with the old."""
    if new is None:
        return _create(deployment, old)
    wanted, present = desired(deployment), count_of(new)
    target = wanted if present > wanted else _new_count(deployment, present, old)
    refreshed = _refreshed(deployment, new, old)
    if target != present:
        return _updates([(new, _resized(deployment, refreshed, target))])
    if refreshed != new:
        return _updates([(new, refreshed)])
    counts = plan_scale_down(replicas=wanted, bounds=bounds_of(deployment), new=new, old=by_age(active(old)))
    return _updates((rs, _resized(deployment, rs, counts[rs.metadata.uid])) for rs in old if rs.metadata.uid in counts)


def plan_scale_down(*, replicas: int, bounds: Bounds, new: ReplicaSet, old: Sequence[ReplicaSet]) -> dict[str, int]:
    """Return uid -> count of the old sets that may shrink now.

    First go pods that do not serve anyway, then available ones as long as enough stay available.
    """
    everyone = (new, *old)
    at_least = replicas - bounds.unavailable
    new_missing = count_of(new) - (new.status.available_replicas or 0)
    spare = total(everyone) - at_least - new_missing
    if spare <= 0:
        return {}
    counts = {rs.metadata.uid: count_of(rs) for rs in old}
    for rs in old:
        idle = max(0, count_of(rs) - (rs.status.available_replicas or 0))
        taken = min(idle, spare)
        counts[rs.metadata.uid] -= taken
        spare -= taken
    excess = min(available(everyone) - at_least, spare)
    for rs in old:
        taken = max(0, min(counts[rs.metadata.uid], excess))
        counts[rs.metadata.uid] -= taken
        excess -= taken
    return {rs.metadata.uid: counts[rs.metadata.uid] for rs in old if counts[rs.metadata.uid] != count_of(rs)}


def _recreate(
    deployment: Deployment, new: ReplicaSet | None, old: Sequence[ReplicaSet], *, old_pods_remain: bool
) -> list[Action]:
    """Take a step of a recreation: all old pods go, then all new ones come."""
    if running := active(old):
        return _updates((rs, _resized(deployment, rs, 0)) for rs in running)
    if old_pods_remain:
        return []
    if new is None:
        return _create(deployment, old)
    refreshed = _refreshed(deployment, new, old)
    if count_of(new) != desired(deployment):
        refreshed = _resized(deployment, refreshed, desired(deployment))
    return _updates([(new, refreshed)])


def _is_scaled(deployment: Deployment, sets: Sequence[ReplicaSet]) -> bool:
    """Return whether the wanted count changed since the sets were given theirs."""
    wanted = str(desired(deployment))
    return any(rs.metadata.annotations.get(DESIRED, wanted) != wanted for rs in active(sets))


def _scale(deployment: Deployment, new: ReplicaSet | None, old: Sequence[ReplicaSet]) -> list[Action]:
    """Follow a change of the wanted count in the middle of whatever the rollout is at."""
    if (only := _only_set(new, old)) is not None:
        if count_of(only) == desired(deployment):
            # The size is right but its annotation may tell of another one.
            return (
                _updates([(only, _resized(deployment, only, count_of(only)))]) if _is_scaled(deployment, [only]) else []
            )
        return _updates([(only, _resized(deployment, only, desired(deployment)))])
    if new is not None and _is_saturated(deployment, new):
        return _updates((rs, _resized(deployment, rs, 0)) for rs in active(old))
    if is_recreating(deployment):
        return []
    sets = active([*old, *([new] if new is not None else [])])
    counts = plan_proportions(deployment, sets)
    return _updates((rs, _resized(deployment, rs, counts[rs.metadata.uid])) for rs in sets)


def _only_set(new: ReplicaSet | None, old: Sequence[ReplicaSet]) -> ReplicaSet | None:
    """Return the one set with pods; with none the new or else the latest; None if several have pods."""
    running = active([*old, *([new] if new is not None else [])])
    if len(running) > 1:
        return None
    if running:
        return running[0]
    return new if new is not None else (by_age(old)[-1] if old else None)


def _is_saturated(deployment: Deployment, new: ReplicaSet) -> bool:
    wanted = desired(deployment)
    return (
        count_of(new) == wanted
        and new.metadata.annotations.get(DESIRED) == str(wanted)
        and (new.status.available_replicas or 0) == wanted
    )


def plan_proportions(deployment: Deployment, sets: Sequence[ReplicaSet]) -> dict[str, int]:
    """Return uid -> count when a change of size is shared among ``sets`` in proportion to their sizes.

    What rounding leaves over goes to the largest set; among equals, growth favours the newer, shrinking the older.
    """
    wanted = desired(deployment)
    allowed = wanted + bounds_of(deployment).surge if wanted > 0 else 0
    change = allowed - total(sets)
    ordered = by_age(sets)
    if change > 0:
        ordered.reverse()
    ordered.sort(key=count_of, reverse=True)
    counts: dict[str, int] = {}
    given = 0
    for rs in ordered:
        share = _share(deployment, rs, change=change, given=given) if change else 0
        counts[rs.metadata.uid] = count_of(rs) + share
        given += share
    if ordered and change:
        largest = ordered[0].metadata.uid
        counts[largest] = max(0, counts[largest] + change - given)
    return counts


def _share(deployment: Deployment, rs: ReplicaSet, *, change: int, given: int) -> int:
    """Return what ``rs`` gets of a ``change`` of which ``given`` is taken; negative when shrinking."""
    left = change - given
    if count_of(rs) == 0 or left == 0:
        return 0
    wanted = desired(deployment)
    if wanted == 0:
        share = -count_of(rs)
    else:
        size = wanted + bounds_of(deployment).surge
        annotated = rs.metadata.annotations.get(MAXIMUM, "")
        before = int(annotated) if annotated.isdecimal() else (deployment.status.replicas or 0)
        share = _round(count_of(rs) * size / before) - count_of(rs) if before else 0
    return min(share, left) if change > 0 else max(share, left)


def _round(value: float) -> int:
    """Round half away from zero; ``round`` would go to the even neighbour."""
    return math.floor(value + 0.5)


def _clean_up(deployment: Deployment, old: Sequence[ReplicaSet]) -> list[Action]:
    """Forget the oldest revisions beyond the history limit, if nothing of theirs is left."""
    limit = deployment.spec.revision_history_limit
    if limit is None:
        return []
    alive = sorted((rs for rs in old if not rs.metadata.deletion_timestamp), key=revision_of)
    surplus = alive[: max(0, len(alive) - limit)]
    return [
        DeleteSet(rs)
        for rs in surplus
        if not rs.status.replicas
        and count_of(rs) == 0
        and (rs.metadata.generation or 0) <= (rs.status.observed_generation or 0)
    ]
