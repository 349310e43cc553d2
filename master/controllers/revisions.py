"""A Deployment's revisions: which ReplicaSet carries which template, under which number and name.

Source: kubernetes.io, "Deployment"; the annotations are what ``kubectl rollout history`` and ``undo`` read.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from api.kinds.apps import Deployment, ReplicaSet, ReplicaSetSpec
from api.kinds.pods import PodTemplateSpec
from api.meta import LabelSelector, ObjectMeta
from client.clock import seconds_of
from master.controllers.ownership import reference_to_controller

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
# A Deployment's own annotations reach its ReplicaSets, but for these.
_NOT_COPIED = frozenset(
    (
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        HISTORY,
        DESIRED,
        MAXIMUM,
        "deprecated.deployment.rollback.to",
    )
)
_SAFE_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_encode = msgspec.json.Encoder(order="deterministic").encode


def template_hash(template: PodTemplateSpec, collisions: int | None) -> str:
    """Return the name part of a template's ReplicaSet; see ``safe_hash``."""
    return safe_hash(_encode(template), collisions)


def safe_hash(canonical: bytes, collisions: int | None) -> str:
    """Return a name part for what ``canonical`` describes: its FNV-1a in letters that form no word.

    collisions: how often a name was taken by something else; changes the hash.
    """
    value = 0x811C9DC5
    for byte in canonical + (str(collisions).encode() if collisions is not None else b""):
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return "".join(_SAFE_LETTERS[ord(digit) % len(_SAFE_LETTERS)] for digit in str(value))


def bare_template(rs: ReplicaSet) -> PodTemplateSpec:
    """Return the template as the Deployment had it: without the hash label."""
    meta = rs.spec.template.metadata
    labels = {name: value for name, value in meta.labels.items() if name != HASH_LABEL}
    return replace(rs.spec.template, metadata=replace(meta, labels=labels))


def by_age(sets: Iterable[ReplicaSet]) -> list[ReplicaSet]:
    """Return the oldest first, then by name."""
    return sorted(sets, key=lambda rs: (seconds_of(rs.metadata.creation_timestamp), rs.metadata.name))


def find_new(deployment: Deployment, sets: Iterable[ReplicaSet]) -> ReplicaSet | None:
    """Return the ReplicaSet of the present template; the oldest if there are several."""
    template = deployment.spec.template
    return next((rs for rs in by_age(sets) if bare_template(rs) == template), None)


def revision_of(obj: Deployment | ReplicaSet) -> int:
    """Return the revision that the annotation names; 0 if none can be read."""
    try:
        return int(obj.metadata.annotations.get(REVISION, "0"))
    except ValueError:
        return 0


def next_revision(old: Iterable[ReplicaSet]) -> int:
    """Return the number of a template that is newer than all of ``old``."""
    return max(map(revision_of, old), default=0) + 1


def annotate(present: Mapping[str, str], deployment: Deployment, revision: int) -> dict[str, str]:
    """Return a new ReplicaSet's annotations: the Deployment's, and its number, which only grows."""
    copied = {name: value for name, value in deployment.metadata.annotations.items() if name not in _NOT_COPIED}
    annotations = {**present, **copied}
    before = present.get(REVISION, "")
    if not before:
        annotations[REVISION] = str(revision)
    elif before.isdecimal() and int(before) < revision:
        # The template is used again (a rollback): remember the numbers it had.
        annotations[REVISION] = str(revision)
        had = [each for each in present.get(HISTORY, "").split(",") if each]
        annotations[HISTORY] = ",".join([*had, before])
    return annotations


def replica_limits(desired: int, maximum: int) -> dict[str, str]:
    """Return the annotations by which proportional scaling knows the size that a set was scaled for."""
    return {DESIRED: str(desired), MAXIMUM: str(maximum)}


def new_replicaset(deployment: Deployment, old: Sequence[ReplicaSet], replicas: int, maximum: int) -> ReplicaSet:
    """Return the ReplicaSet for the present template."""
    spec = deployment.spec
    suffix = template_hash(spec.template, deployment.status.collision_count)
    labels = {**spec.template.metadata.labels, HASH_LABEL: suffix}
    selector = LabelSelector(
        match_labels={**spec.selector.match_labels, HASH_LABEL: suffix},
        match_expressions=spec.selector.match_expressions,
    )
    template = replace(spec.template, metadata=replace(spec.template.metadata, labels=labels))
    annotations = annotate({}, deployment, next_revision(old)) | replica_limits(spec.replicas or 0, maximum)
    return ReplicaSet(
        metadata=ObjectMeta(
            name=f"{deployment.metadata.name}-{suffix}",
            namespace=deployment.metadata.namespace,
            labels=labels,
            annotations=annotations,
            owner_references=(reference_to_controller(deployment),),
        ),
        spec=ReplicaSetSpec(
            replicas=replicas, min_ready_seconds=spec.min_ready_seconds, selector=selector, template=template
        ),
    )
