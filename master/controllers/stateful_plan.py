"""What a StatefulSet does next: a pure function of the set, its two revisions, its pods and the time.

Every pod has an ordinal, and with it a name, a hostname and claims of its own that outlive it. An ordered set
(``OrderedReady``) goes one step at a time: a pod comes when all before it are available, the last goes first, and an
update replaces the last first. A parallel set does not wait when it scales; updates wait in either.
Source: kubernetes.io, "StatefulSet".
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from api.kinds.apps import ControllerRevision, StatefulSet, StatefulSetStatus
from api.kinds.pods import Pod
from api.kinds.volumes import PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Volume
from api.meta import OwnerReference
from master.controllers.history import REVISION_LABEL, template_of
from master.controllers.ownership import reference_to_controller
from master.controllers.podstate import available_in_s, is_finished, is_ready
from master.controllers.replicas import pod_from

NAME_LABEL = "statefulset.kubernetes.io/pod-name"
INDEX_LABEL = "apps.kubernetes.io/pod-index"
_ORDINAL = re.compile(r"(0|[1-9][0-9]{0,9})")


class CreatePod(msgspec.Struct, frozen=True):
    """Make a pod, after its claims."""

    pod: Pod
    ordinal: int


class DeletePod(msgspec.Struct, frozen=True):
    """Delete a pod; ``finished``: because it has ended and another takes its place, of which an event tells."""

    pod: Pod
    ordinal: int
    finished: bool = False


class MendPod(msgspec.Struct, frozen=True):
    """Give a pod, an adopted one perhaps, the labels that it is known by."""

    pod: Pod
    labels: Mapping[str, str]


Action = CreatePod | DeletePod | MendPod


class Revisions(msgspec.Struct, frozen=True):
    """``current``: what the set ran before the update that is going on; ``update``: what the spec says."""

    current: ControllerRevision
    update: ControllerRevision


class Plan(msgspec.Struct, frozen=True):
    """One round's doing, in this order; when (seconds) waiting for a pod to become available is over."""

    actions: Sequence[Action] = ()
    again_s: float | None = None


def ordinal_of(sts: StatefulSet, name: str) -> int | None:
    """Return the ordinal that a pod's name gives it in ``sts``; None if it is no name of that set."""
    prefix = f"{sts.metadata.name}-"
    rest = name.removeprefix(prefix)
    return int(rest) if name.startswith(prefix) and _ORDINAL.fullmatch(rest) else None


def ordinals(sts: StatefulSet) -> range:
    """Return the ordinals that the set should have."""
    start = sts.spec.ordinals.start or 0 if sts.spec.ordinals is not None else 0
    return range(start, start + (1 if sts.spec.replicas is None else sts.spec.replicas))


def is_ordered(sts: StatefulSet) -> bool:
    """Return whether pods come and go one by one."""
    return sts.spec.pod_management_policy != "Parallel"


def revision_of(pod: Pod) -> str:
    """Return the name of the revision that a pod was made from."""
    return pod.metadata.labels.get(REVISION_LABEL, "")


def member(sts: StatefulSet, ordinal: int, revision: ControllerRevision) -> Pod:
    """Return the pod with ``ordinal``, from the template of ``revision``."""
    name = f"{sts.metadata.name}-{ordinal}"
    pod = pod_from(template_of(revision), sts, reference_to_controller(sts))
    labels = {**pod.metadata.labels, **_identity(name, ordinal), REVISION_LABEL: revision.metadata.name}
    claims = tuple(
        Volume(name=each.metadata.name, persistent_volume_claim=PersistentVolumeClaimVolumeSource(claim_name=of))
        for each, of in _claims(sts, ordinal)
    )
    own = {each.name for each in claims}
    volumes = (*(each for each in pod.spec.volumes if each.name not in own), *claims)
    spec = replace(pod.spec, hostname=name, subdomain=sts.spec.service_name, volumes=volumes)
    return replace(pod, metadata=replace(pod.metadata, name=name, generate_name="", labels=labels), spec=spec)


def _identity(name: str, ordinal: int) -> dict[str, str]:
    return {NAME_LABEL: name, INDEX_LABEL: str(ordinal)}


def _claims(sts: StatefulSet, ordinal: int) -> Iterable[tuple[PersistentVolumeClaim, str]]:
    """Yield (template, the name of the claim that is made of it)."""
    for template in sts.spec.volume_claim_templates:
        yield template, f"{template.metadata.name}-{sts.metadata.name}-{ordinal}"


def claims_of(sts: StatefulSet, ordinal: int) -> list[PersistentVolumeClaim]:
    """Return the claims that the pod with ``ordinal`` mounts, as they are made; nobody owns them so far."""
    selected = sts.spec.selector.match_labels
    return [
        replace(
            template,
            metadata=replace(
                template.metadata,
                name=name,
                namespace=sts.metadata.namespace,
                labels={**template.metadata.labels, **selected},
            ),
        )
        for template, name in _claims(sts, ordinal)
    ]


def claim_owners(sts: StatefulSet, claim: PersistentVolumeClaim, pod: Pod | None) -> tuple[OwnerReference, ...]:
    """Return whose end is the claim's end, by the set's retention policy. pod: the claim's, if it is scaled away."""
    policy = sts.spec.persistent_volume_claim_retention_policy
    scaled = policy is not None and policy.when_scaled == "Delete" and pod is not None
    deleted = policy is not None and policy.when_deleted == "Delete" and not scaled
    others = tuple(
        each
        for each in claim.metadata.owner_references
        if each.uid != sts.metadata.uid and not (each.kind == "Pod" and ordinal_of(sts, each.name) is not None)
    )
    if scaled and pod is not None:
        meta = pod.metadata
        return (*others, OwnerReference(api_version="v1", kind="Pod", name=meta.name, uid=meta.uid))
    if deleted:
        return (*others, replace(reference_to_controller(sts), block_owner_deletion=None))
    return others


def plan_step(sts: StatefulSet, revisions: Revisions, pods: Iterable[Pod], now: float) -> Plan:
    """Decide one round. pods: all that the set owns."""
    if sts.metadata.deletion_timestamp:
        return Plan()
    present = {ordinal: pod for pod in pods if (ordinal := ordinal_of(sts, pod.metadata.name)) is not None}
    scaling, blocked, again_s = _fill(sts, revisions, present, now)
    if not blocked:
        shrinking, blocked = _shrink(sts, present, now)
        scaling += shrinking
    if not blocked and not scaling:
        scaling = _update(sts, revisions, present, now)
    return Plan(scaling, again_s)


def _fill(
    sts: StatefulSet, revisions: Revisions, present: Mapping[int, Pod], now: float
) -> tuple[list[Action], bool, float | None]:
    """Return (what every wanted ordinal needs, whether all else has to wait for it, in how many seconds to look)."""
    actions: list[Action] = []
    waits: list[float] = []
    for ordinal in ordinals(sts):
        pod = present.get(ordinal)
        if pod is None:
            actions.append(CreatePod(member(sts, ordinal, _revision_for(sts, revisions, ordinal)), ordinal))
        elif is_finished(pod):
            if not pod.metadata.deletion_timestamp:
                actions.append(DeletePod(pod, ordinal, finished=True))
        else:
            left = available_in_s(pod, sts.spec.min_ready_seconds or 0, now)
            if left:
                waits.append(left)
            if not _serves(sts, pod, now) and is_ordered(sts):
                return actions, True, left or None
            identity = _identity(pod.metadata.name, ordinal)
            if not identity.items() <= pod.metadata.labels.items():
                actions.append(MendPod(pod, identity))
            continue
        if is_ordered(sts):
            return actions, True, None
    return actions, False, min(waits, default=None)


def _revision_for(sts: StatefulSet, revisions: Revisions, ordinal: int) -> ControllerRevision:
    """Return which revision a new pod is made from: below the partition the one that was there before the update."""
    strategy = sts.spec.update_strategy
    if strategy is not None and strategy.type == "OnDelete":
        return revisions.update
    rolling = strategy.rolling_update if strategy is not None else None
    kept = (sts.status.current_replicas or 0) if rolling is None else rolling.partition or 0
    return revisions.current if ordinal < ordinals(sts).start + kept else revisions.update


def _serves(sts: StatefulSet, pod: Pod, now: float) -> bool:
    """Return whether ``pod`` is available and stays."""
    return not pod.metadata.deletion_timestamp and _is_available(sts, pod, now)


def _is_available(sts: StatefulSet, pod: Pod, now: float) -> bool:
    return pod.status.phase == "Running" and available_in_s(pod, sts.spec.min_ready_seconds or 0, now) == 0


def _shrink(sts: StatefulSet, present: Mapping[int, Pod], now: float) -> tuple[list[Action], bool]:
    """Return (what takes the pods away that are too many, the last first, whether all else has to wait for that)."""
    wanted = ordinals(sts)
    condemned = sorted(ordinal for ordinal in present if ordinal not in wanted)
    if not is_ordered(sts):
        staying = [each for each in condemned if not present[each].metadata.deletion_timestamp]
        return [DeletePod(present[each], each) for each in reversed(staying)], False
    if not condemned:
        return [], False
    last = condemned[-1]
    if present[last].metadata.deletion_timestamp:
        return [], True
    # Only the first of the pods that do not serve may go while they do not: the others wait for those before them.
    ailing = next((each for each in condemned if not _serves(sts, present[each], now)), last)
    return ([DeletePod(present[last], last)] if _serves(sts, present[last], now) or ailing == last else []), True


def _update(sts: StatefulSet, revisions: Revisions, present: Mapping[int, Pod], now: float) -> list[Action]:
    """Return the one pod whose turn it is to be replaced, if any: the last that is not as the spec says."""
    strategy = sts.spec.update_strategy
    if strategy is not None and strategy.type == "OnDelete":
        return []
    rolling = strategy.rolling_update if strategy is not None else None
    wanted = ordinals(sts)
    lowest = wanted.start + (rolling.partition or 0 if rolling is not None else 0)
    for ordinal in reversed(wanted):
        if ordinal < lowest:
            return []
        pod = present[ordinal]
        if revision_of(pod) != revisions.update.metadata.name and not pod.metadata.deletion_timestamp:
            return [DeletePod(pod, ordinal)]
        if not _serves(sts, pod, now):
            return []
    return []


def plan_status(sts: StatefulSet, revisions: Revisions, pods: Sequence[Pod], now: float) -> StatefulSetStatus:
    """Return the status; an update that every pod has gone through is over, and what it brought is current."""
    staying = [pod for pod in pods if not pod.metadata.deletion_timestamp]
    ready = sum(pod.status.phase == "Running" and is_ready(pod) for pod in pods)
    current, update = revisions.current.metadata.name, revisions.update.metadata.name
    updated = sum(revision_of(pod) == update for pod in staying)
    strategy = sts.spec.update_strategy
    is_rolling = strategy is None or strategy.type != "OnDelete"
    if is_rolling and updated == ready == len(pods) == len(ordinals(sts)):
        current = update
    return replace(
        sts.status,
        replicas=len(pods),
        ready_replicas=ready or None,
        available_replicas=sum(_is_available(sts, pod, now) for pod in pods),
        current_replicas=sum(revision_of(pod) == current for pod in staying) or None,
        updated_replicas=updated or None,
        current_revision=current,
        update_revision=update,
        observed_generation=sts.metadata.generation,
        collision_count=sts.status.collision_count or 0,
    )
