"""ControllerRevisions: which templates a DaemonSet or a StatefulSet has had, numbered.

``kubectl rollout history`` lists them and ``undo`` applies one: the data of each is the strategic merge patch that
gives the owner that template again. A template that comes back keeps its revision and gets the next number.
Source: kubernetes.io, "Perform a Rollback on a DaemonSet"; "StatefulSet", "Revision history".
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import msgspec
from msgspec.structs import replace

from api.errors import AlreadyExists
from api.kinds.apps import ControllerRevision, DaemonSet, StatefulSet
from api.kinds.pods import PodTemplateSpec
from api.meta import ObjectMeta
from api.selectors import LabelQuery
from client.informer import Informer
from client.resources import Resources
from master.controllers import ownership
from master.controllers.removal import remove
from master.controllers.revisions import safe_hash

REVISION_LABEL = "controller-revision-hash"  # on a pod: which revision it was made from
_HASH_LABELS: Mapping[type, str] = {DaemonSet: REVISION_LABEL, StatefulSet: "controller.kubernetes.io/hash"}
DEFAULT_LIMIT = 10

S = TypeVar("S", DaemonSet, StatefulSet)
T = TypeVar("T")
_encode = msgspec.json.Encoder(order="sorted").encode


class Collides(Exception):
    """The name that a new revision would get belongs to another template: it has to be counted as a collision."""


def data_of(template: PodTemplateSpec) -> dict[str, Any]:
    """Return the patch that makes ``template`` an owner's template whatever it has now.

    Clients find the revision that an owner is at by comparing bytes with their own encoding of its template
    (``kubectl rollout undo`` does), so this has what Go always writes, in the order of names.
    """
    document = msgspec.json.decode(msgspec.json.encode(template))
    document["metadata"] = {**document.get("metadata", {}), "creationTimestamp": None}
    for each in ("containers", "initContainers", "ephemeralContainers"):
        for container in document["spec"].get(each, ()):
            container.setdefault("resources", {})
    patch = {"spec": {"template": {**document, "$patch": "replace"}}}
    return cast("dict[str, Any]", msgspec.json.decode(_encode(patch)))


def by_number(revisions: Iterable[ControllerRevision]) -> list[ControllerRevision]:
    """Return the oldest first, then by name."""
    return sorted(revisions, key=lambda each: (each.revision or 0, each.metadata.name))


def find(revisions: Iterable[ControllerRevision], template: PodTemplateSpec) -> ControllerRevision | None:
    """Return the revision of ``template``; the newest if there are several."""
    data = data_of(template)
    return next((each for each in reversed(by_number(revisions)) if each.data == data), None)


def new_revision(owner: S, number: int) -> ControllerRevision:
    """Return the revision of the owner's present template."""
    data = data_of(owner.spec.template)
    suffix = safe_hash(_encode(data), owner.status.collision_count)
    return ControllerRevision(
        metadata=ObjectMeta(
            name=f"{owner.metadata.name}-{suffix}",
            namespace=owner.metadata.namespace,
            labels={**owner.spec.template.metadata.labels, _HASH_LABELS[type(owner)]: suffix},
            annotations=owner.metadata.annotations,
            owner_references=(ownership.reference_to_controller(owner),),
        ),
        data=data,
        revision=number,
    )


def plan_cleanup(
    revisions: Iterable[ControllerRevision], live: Collection[str], limit: int | None
) -> Sequence[ControllerRevision]:
    """Return the revisions to forget, the oldest first: of those that are not ``live`` (names) ``limit`` may stay."""
    idle = [each for each in by_number(revisions) if each.metadata.name not in live]
    return idle[: max(0, len(idle) - (DEFAULT_LIMIT if limit is None else limit))]


async def claim(
    api: Resources,
    owner: S,
    query: LabelQuery,
    revisions: Informer[ControllerRevision],
    current_of: Callable[[Sequence[ControllerRevision]], Awaitable[T]],
) -> tuple[Sequence[ControllerRevision], T] | None:
    """Begin a round: return the owner's revisions, and what ``current_of`` makes of them.

    None if it raised Collides: that is counted in the owner, which brings the next round.
    """
    known = await ownership.claim(api, owner, query, ownership.candidates_of(revisions, owner))
    try:
        return known, await current_of(known)
    except Collides:
        await count_collision(api, owner)
        return None


async def keep_current(api: Resources, owner: S, revisions: Sequence[ControllerRevision]) -> ControllerRevision:
    """Return the revision of the owner's present template, made if it is missing, with the highest number.

    Raises Collides if its name is another revision's.
    """
    number = max((each.revision or 0 for each in revisions), default=0)
    found = find(revisions, owner.spec.template)
    if found is not None:
        return found if found.revision == number else await api.update(replace(found, revision=number + 1))
    wanted = new_revision(owner, number + 1)
    try:
        return await api.create(wanted)
    except AlreadyExists:
        present = await api.get(ControllerRevision, wanted.metadata.name, namespace=wanted.metadata.namespace)
        controller = ownership.controller_of(present)
        if controller is None or controller.uid != owner.metadata.uid or present.data != wanted.data:
            raise Collides(wanted.metadata.name) from None
        return present  # our cache lags behind our own write


async def count_collision(api: Resources, owner: S) -> None:
    """Note in the owner's status that its revision needs another name, which the next round gives."""
    status = replace(owner.status, collision_count=(owner.status.collision_count or 0) + 1)
    await api.update(replace(owner, status=status), subresource="status")


async def forget(api: Resources, doomed: Iterable[ControllerRevision]) -> None:
    """Delete revisions."""
    for each in doomed:
        await remove(api, each)


def template_of(revision: ControllerRevision) -> PodTemplateSpec:
    """Return the template that a revision keeps."""
    document = revision.data["spec"]["template"]
    metadata = {name: value for name, value in document["metadata"].items() if value is not None}
    return msgspec.convert({**document, "metadata": metadata}, PodTemplateSpec)
