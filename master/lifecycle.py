"""What happens to every object's metadata when it is created, changed and deleted: pure functions of structs.

Source: kubernetes.io, "API Concepts", "Finalizers", "Garbage Collection"; "Pod Lifecycle" for grace periods.
"""

import random
import time
import uuid
from calendar import timegm
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from api.errors import BadRequest, conflict
from api.kinds.table import Kind
from api.meta import DeleteOptions, ObjectMeta, Resource
from master.strategy import Strategy, has_status, spec_of, strategy_of, with_status_of, without_status

_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # no vowels: no words
_SUFFIX_LENGTH = 5
_LONGEST_GENERATED = 63 - _SUFFIX_LENGTH
ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"

TIMESTAMP = "%Y-%m-%dT%H:%M:%SZ"


def timestamp(now: float) -> str:
    """Return ``now`` (seconds since the epoch) as objects carry it."""
    return time.strftime(TIMESTAMP, time.gmtime(now))


def seconds(text: str) -> float:
    """Return the seconds since the epoch of a timestamp."""
    return float(timegm(time.strptime(text, TIMESTAMP)))


class Surroundings(msgspec.Struct, frozen=True):
    """What decisions take from outside."""

    now: Callable[[], float] = time.time
    new_uid: Callable[[], str] = lambda: str(uuid.uuid4())
    rng: random.Random = random.Random()  # noqa: S311 - names and numbers, no secrets


def generated_name(base: str, rng: random.Random) -> str:
    """Return ``base`` with a random suffix; too long a base is cut."""
    return base[:_LONGEST_GENERATED] + "".join(rng.choices(_SUFFIX_LETTERS, k=_SUFFIX_LENGTH))


def prepare_new(kind: Kind, obj: Resource, namespace: str, world: Surroundings) -> Resource:
    """Return a new object as it begins its life; raises BadRequest."""
    meta = obj.metadata
    if meta.resource_version and meta.resource_version != "0":
        raise BadRequest("resourceVersion should not be set on objects to be created")
    strategy = strategy_of(kind)
    meta = replace(
        meta,
        name=meta.name or (generated_name(meta.generate_name, world.rng) if meta.generate_name else ""),
        namespace=namespace if kind.namespaced else "",
        uid=world.new_uid(),
        creation_timestamp=timestamp(world.now()),
        deletion_timestamp="",
        deletion_grace_period_seconds=None,
        resource_version="",
        self_link="",
        managed_fields=(),
        generation=1 if strategy.counts_generations else None,
    )
    obj = replace(obj, api_version=kind.group_version, kind=kind.kind, metadata=meta)
    if has_status(kind) and not strategy.keeps_status:
        obj = without_status(kind, obj)
    return strategy.on_create(obj)


def prepare_change(kind: Kind, old: Resource, new: Resource) -> Resource:
    """Return what a write to the object itself makes of ``old``: its status and its history stay."""
    strategy = strategy_of(kind)
    meta = replace(
        _kept(old.metadata, new.metadata),
        generation=old.metadata.generation,
    )
    new = replace(new, api_version=kind.group_version, kind=kind.kind, metadata=meta)
    if has_status(kind):
        new = with_status_of(new, old)
    new = strategy.on_change(old, new)
    if strategy.counts_generations and _is_next_generation(strategy, old, new):
        new = replace(new, metadata=replace(new.metadata, generation=(old.metadata.generation or 0) + 1))
    return new


def _is_next_generation(strategy: Strategy, old: Resource, new: Resource) -> bool:
    if spec_of(old) != spec_of(new):
        return True
    return strategy.counts_annotations and old.metadata.annotations != new.metadata.annotations


def prepare_status(kind: Kind, old: Resource, new: Resource) -> Resource:
    """Return what a write to the status makes of ``old``: its spec stays, its metadata as far as the kind says so."""
    kept = {name: getattr(old.metadata, name) for name in strategy_of(kind).status_keeps}
    meta = replace(_kept(old.metadata, new.metadata), generation=old.metadata.generation, **kept)
    return replace(with_status_of(old, new), metadata=meta)


def _kept(old: ObjectMeta, new: ObjectMeta) -> ObjectMeta:
    """Return ``new`` with what no client may change."""
    return replace(
        new,
        name=old.name,
        namespace=old.namespace,
        generate_name=old.generate_name,
        uid=old.uid,
        creation_timestamp=old.creation_timestamp,
        deletion_timestamp=old.deletion_timestamp,
        deletion_grace_period_seconds=old.deletion_grace_period_seconds,
        resource_version="",
        self_link="",
        managed_fields=old.managed_fields,
    )


def is_released(kind: Kind, obj: Resource) -> bool:
    """Return whether nothing keeps a deleted object in place any more: its last change removes it."""
    meta = obj.metadata
    return (
        bool(meta.deletion_timestamp)
        and not meta.deletion_grace_period_seconds
        and not meta.finalizers
        and not strategy_of(kind).held(obj)
    )


class Gone(msgspec.Struct, frozen=True):
    """The object may be removed now; ``last`` is a state that it had to reach for that, which nobody stored."""

    last: Resource | None = None


def check_preconditions(kind: Kind, old: Resource, options: DeleteOptions, revision: int) -> None:
    """Raise Conflict if the object is not the one that the caller means to delete."""
    wanted = options.preconditions
    if wanted is None:
        return
    why = ""
    if wanted.uid and wanted.uid != old.metadata.uid:
        why = (
            f"the UID in the precondition ({wanted.uid}) does not match the UID in record ({old.metadata.uid}). "
            "The object might have been deleted and then recreated"
        )
    elif wanted.resource_version and wanted.resource_version != str(revision):
        why = (
            f"the ResourceVersion in the precondition ({wanted.resource_version}) does not match the ResourceVersion "
            f"in record ({revision}). The object might have been modified"
        )
    if why:
        raise conflict(kind.kind, old.metadata.name, why, group=kind.group)


def plan_delete(kind: Kind, old: Resource, options: DeleteOptions, now: float) -> Gone | Resource:
    """Decide what deleting ``old`` does to it: it may go, or it stays, marked (maybe as it was already)."""
    strategy = strategy_of(kind)
    finalizers = _deletion_finalizers(strategy, old.metadata.finalizers, options)
    meta = replace(old.metadata, finalizers=finalizers, resource_version="")
    grace = strategy.grace_s(old, options)
    if old.metadata.deletion_timestamp:
        meta = _shortened(meta, grace, options, now)
    else:
        meta = replace(
            meta,
            deletion_timestamp=timestamp(now + (grace or 0)),
            deletion_grace_period_seconds=grace or 0,
            generation=meta.generation + 1 if meta.generation else meta.generation,
        )
    marked = strategy.on_delete(replace(old, metadata=meta))
    return Gone() if is_released(kind, marked) else marked


def _shortened(meta: ObjectMeta, grace: int | None, options: DeleteOptions, now: float) -> ObjectMeta:
    """Return the metadata of an object that is being deleted already; its grace may only get shorter."""
    present = meta.deletion_grace_period_seconds or 0
    # Somebody who asks again without saying how long does not mean to change it.
    if grace is None or options.grace_period_seconds is None or grace >= present:
        return meta if grace != 0 else replace(meta, deletion_grace_period_seconds=0)
    until = seconds(meta.deletion_timestamp) - present + grace
    if until < now:
        # Nothing ends before it was asked for; and who asked for grace is not taken to want none.
        until, grace = now, min(grace, 1)
    return replace(meta, deletion_timestamp=timestamp(until), deletion_grace_period_seconds=grace)


def _deletion_finalizers(strategy: Strategy, present: tuple[str, ...], options: DeleteOptions) -> tuple[str, ...]:
    """Return the finalizers after a deletion has said what shall become of the dependents."""
    policy = options.propagation_policy
    if not policy and options.orphan_dependents is not None:
        policy = "Orphan" if options.orphan_dependents else "Background"
    if not policy:
        if ORPHAN in present or FOREGROUND in present:
            return present
        policy = "Orphan" if strategy.orphans_by_default else "Background"
    added = {"Orphan": (ORPHAN,), "Foreground": (FOREGROUND,)}.get(policy, ())
    return (*(each for each in present if each not in (ORPHAN, FOREGROUND)), *added)
