"""Every kind in a dictionary, behind ``client.resources.Resources``: what controllers are tested against.

What happens to metadata is decided by the master's own pure functions; ``tests/contract/resources`` holds this and the
real implementation to the same rules. Faults are injected by ``refuse`` and ``break_watches``.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar, cast

import msgspec
from msgspec.structs import replace

from api import codec, errors, fields, selectors
from api.defaults import apply_defaults
from api.errors import ApiError
from api.kinds.authentication import TokenRequestStatus
from api.kinds.core import Namespace, ServiceAccount
from api.kinds.pods import Pod, PodCondition
from api.kinds.table import TABLE, Kind
from api.meta import DeleteOptions, Preconditions, Resource
from api.patch import apply_merge_patch
from client.clock import ManualClock, timestamp
from client.resources import EventType, Listing, Revision, WatchEvent
from master import lifecycle

R = TypeVar("R", bound=Resource)
Key = tuple[str, str]  # namespace, name
Change = tuple[int, Resource | None, Resource | None]  # revision, before, after


class MemoryResources:
    """A cluster's objects without a cluster."""

    def __init__(self, *, clock: ManualClock | None = None, seed: int = 0, defaults: bool = True) -> None:
        self.clock = clock or ManualClock()
        self.revision = 1
        self.floor = 0  # changes up to here are compacted away
        self.calls: list[tuple[str, str, str]] = []  # verb, kind, namespace/name
        self._objects: dict[str, dict[Key, Resource]] = {}
        self._history: dict[str, deque[Change]] = {}
        self._changed = asyncio.Event()
        self._broken = 0
        self._break_error: ApiError | None = None
        self._refusals: list[tuple[Callable[[str, str, str], bool], ApiError, int]] = []
        self._random = random.Random(seed)
        self._defaults = defaults
        self._uids = 0
        self._surroundings = lifecycle.Surroundings(now=self.clock.time, new_uid=self._uid, rng=self._random)

    # Faults.

    def refuse(self, error: ApiError, *, verb: str = "", kind: str = "", name: str = "", times: int = 1) -> None:
        """Let the next ``times`` calls of this form fail; nothing is done then."""

        def hit(called: str, of: str, named: str) -> bool:
            return verb in ("", called) and kind in ("", of) and name in ("", named)

        self._refusals.append((hit, error, times))

    def break_watches(self, error: ApiError | None = None) -> None:
        """End every open watch, with ``error`` if given."""
        self._broken += 1
        self._break_error = error
        self._announce()

    def compact(self) -> None:
        """Forget history: watches from before must list again."""
        self.floor = self.revision
        for history in self._history.values():
            history.clear()

    def _meet(self, verb: str, kind: Kind, namespace: str, name: str) -> None:
        self.calls.append((verb, kind.kind, f"{namespace}/{name}" if namespace else name))
        for n, (hit, error, times) in enumerate(self._refusals):
            if hit(verb, kind.kind, name):
                self._refusals[n : n + 1] = [(hit, error, times - 1)] if times > 1 else []
                raise error

    # State.

    def _uid(self) -> str:
        self._uids += 1
        return f"uid-{self._uids}"

    def _all(self, kind: Kind) -> dict[Key, Resource]:
        return self._objects.setdefault(kind.plural + "." + kind.group, {})

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _store(self, kind: Kind, obj: R | None, before: Resource | None) -> R:
        """Write one change; None removes."""
        self.revision += 1
        place = self._all(kind)
        meta = (obj or cast("Resource", before)).metadata
        key = (meta.namespace, meta.name)
        if obj is None:
            del place[key]
            gone = cast("Resource", before)
            last = replace(gone, metadata=replace(gone.metadata, resource_version=str(self.revision)))
            change: Change = (self.revision, last, None)
        else:
            obj = replace(obj, metadata=replace(obj.metadata, resource_version=str(self.revision)))
            place[key] = obj
            change = (self.revision, before, obj)
        self._history.setdefault(kind.plural + "." + kind.group, deque()).append(change)
        self._announce()
        return cast("R", obj or change[1])

    def all(self, model: type[R]) -> list[R]:
        """Return every object, by namespace and name; a look from outside, it cannot fail."""
        return [cast("R", obj) for _, obj in sorted(self._all(TABLE.of(model)).items())]

    def find(self, model: type[R], name: str, namespace: str = "") -> R | None:
        """Return one object or None."""
        return cast("R | None", self._all(TABLE.of(model)).get((namespace, name)))

    def _need(self, kind: Kind, namespace: str, name: str) -> Resource:
        found = self._all(kind).get((namespace, name))
        if found is None:
            raise errors.not_found(kind.plural, name, group=kind.group)
        return found

    @staticmethod
    def _wanted(kind: Kind, namespace: str, label_selector: str, field_selector: str) -> Callable[[Resource], bool]:
        labels = selectors.parse_labels(label_selector)
        query = selectors.parse_fields(field_selector)
        fields.check(kind, query)
        return lambda obj: (
            (not namespace or obj.metadata.namespace == namespace)
            and labels.matches(obj.metadata.labels)
            and (query.everything or fields.matches(kind, query, obj))
        )

    # client.resources.Resources.

    async def get(self, model: type[R], name: str, *, namespace: str = "") -> R:
        kind = TABLE.of(model)
        self._meet("get", kind, namespace, name)
        return cast("R", self._need(kind, namespace, name))

    async def list(
        self, model: type[R], *, namespace: str = "", label_selector: str = "", field_selector: str = ""
    ) -> Listing[R]:
        kind = TABLE.of(model)
        self._meet("list", kind, namespace, "")
        wanted = self._wanted(kind, namespace, label_selector, field_selector)
        items = [cast("R", obj) for _, obj in sorted(self._all(kind).items()) if wanted(obj)]
        return Listing(items, Revision(self.revision))

    async def watch(
        self,
        model: type[R],
        *,
        revision: Revision,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[WatchEvent[R]]:
        kind = TABLE.of(model)
        self._meet("watch", kind, namespace, "")
        wanted = self._wanted(kind, namespace, label_selector, field_selector)
        broken, seen = self._broken, int(revision)
        while True:
            changed = self._changed
            if seen < self.floor:
                raise errors.Expired(f"too old resource version: {seen} ({self.floor})")
            history = self._history.get(kind.plural + "." + kind.group, ())
            for at, before, after in [change for change in history if change[0] > seen]:
                seen = at
                if (event := _event(at, before, after, wanted)) is not None:
                    yield event
            if self._broken != broken:
                if self._break_error is not None:
                    raise self._break_error
                return
            if seen < self.revision:
                seen = self.revision
                yield WatchEvent(EventType.BOOKMARK, None, Revision(seen))
            await changed.wait()

    async def create(self, obj: R) -> R:
        kind = TABLE.of(type(obj))
        self._meet("create", kind, obj.metadata.namespace, obj.metadata.name)
        obj = self._completed(kind, obj)
        new = cast("R", lifecycle.prepare_new(kind, obj, obj.metadata.namespace, self._surroundings))
        if kind.namespaced and not new.metadata.namespace:
            raise errors.BadRequest("the namespace is missing")
        if (new.metadata.namespace, new.metadata.name) in self._all(kind):
            raise errors.already_exists(kind.plural, new.metadata.name, group=kind.group)
        return self._store(kind, new, None)

    def _completed(self, kind: Kind, obj: R) -> R:
        if not self._defaults:
            return obj
        document = codec.to_document(obj)
        apply_defaults(kind, document)
        return cast("R", codec.decode(kind, document))

    def _check_revision(self, kind: Kind, old: Resource, wanted: str) -> None:
        if wanted and wanted != old.metadata.resource_version:
            raise errors.conflict(kind.plural, old.metadata.name, errors.MODIFIED, group=kind.group)

    async def update(self, obj: R, *, subresource: str = "") -> R:
        kind = TABLE.of(type(obj))
        meta = obj.metadata
        self._meet("update" + (f"/{subresource}" if subresource else ""), kind, meta.namespace, meta.name)
        old = self._need(kind, meta.namespace, meta.name)
        if meta.uid and meta.uid != old.metadata.uid:
            raise errors.conflict(kind.plural, meta.name, "the UID does not match", group=kind.group)
        self._check_revision(kind, old, meta.resource_version)
        return cast("R", self._change(kind, old, self._completed(kind, obj), subresource))

    def _change(self, kind: Kind, old: Resource, obj: Resource, subresource: str) -> Resource:
        if subresource == "status":
            new = lifecycle.prepare_status(kind, old, obj)
        elif subresource == "finalize":
            assert isinstance(obj, Namespace)
            new = replace(old, spec=replace(cast("Namespace", old).spec, finalizers=obj.spec.finalizers))
        else:
            new = lifecycle.prepare_change(kind, old, obj)
        if _bare(new) == _bare(old):
            return old
        if lifecycle.is_released(kind, new):
            return self._store(kind, None, old)
        return self._store(kind, new, old)

    async def patch(
        self, model: type[R], name: str, patch: Mapping[str, Any], *, namespace: str = "", subresource: str = ""
    ) -> R:
        kind = TABLE.of(model)
        self._meet("patch" + (f"/{subresource}" if subresource else ""), kind, namespace, name)
        old = self._need(kind, namespace, name)
        self._check_revision(kind, old, str((patch.get("metadata") or {}).get("resourceVersion") or ""))
        new = msgspec.convert(apply_merge_patch(codec.to_document(old), patch), model)
        return cast("R", self._change(kind, old, new, subresource))

    async def delete(
        self,
        model: type[R],
        name: str,
        *,
        namespace: str = "",
        uid: str = "",
        resource_version: str = "",
        grace_period_s: int | None = None,
        propagation: str = "",
    ) -> None:
        kind = TABLE.of(model)
        self._meet("delete", kind, namespace, name)
        old = self._need(kind, namespace, name)
        options = DeleteOptions(
            grace_period_seconds=grace_period_s,
            propagation_policy=propagation,
            preconditions=Preconditions(uid=uid, resource_version=resource_version),
        )
        lifecycle.check_preconditions(kind, old, options, int(old.metadata.resource_version))
        outcome = lifecycle.plan_delete(kind, old, options, self.clock.time())
        if isinstance(outcome, lifecycle.Gone):
            self._store(kind, None, old)
        elif _bare(outcome) != _bare(old):
            self._store(kind, outcome, old)

    async def request_token(self, account, spec, *, namespace):  # type: ignore[no-untyped-def]
        """Return a token that tells what was asked; it lives as long as asked."""
        self._meet("token", TABLE.of(ServiceAccount), namespace, account)
        expires = self.clock.time() + (spec.expiration_seconds or 3600)
        bound = spec.bound_object_ref.uid if spec.bound_object_ref else ""
        text = f"{namespace}/{account}/{bound}/{','.join(spec.audiences)}/{int(self.clock.time())}"
        return TokenRequestStatus(token=text, expiration_timestamp=timestamp(expires))

    async def bind(self, *, namespace: str, pod: str, uid: str, node: str) -> None:
        kind = TABLE.of(Pod)
        self._meet("bind", kind, namespace, pod)
        old = cast("Pod", self._need(kind, namespace, pod))
        if old.metadata.uid != uid or old.metadata.deletion_timestamp:
            raise errors.conflict("pods", pod, "the pod is another one by now, or is being deleted")
        if old.spec.node_name:
            raise errors.conflict("pods", pod, f"pod {pod} is already assigned to node {old.spec.node_name!r}")
        conditions = tuple(each for each in old.status.conditions if each.type != "PodScheduled")
        scheduled = PodCondition(type="PodScheduled", status="True", last_transition_time=timestamp(self.clock.time()))
        self._store(
            kind,
            replace(
                old,
                spec=replace(old.spec, node_name=node),
                status=replace(old.status, conditions=(*conditions, scheduled)),
            ),
            old,
        )


def _event(
    at: int, before: Resource | None, after: Resource | None, wanted: Callable[[Resource], bool]
) -> WatchEvent[Any] | None:
    was, does = before is not None and wanted(before), after is not None and wanted(after)
    if does:
        return WatchEvent(EventType.MODIFIED if was else EventType.ADDED, after, Revision(at))
    if was:
        last = replace(before, metadata=replace(before.metadata, resource_version=str(at)))
        return WatchEvent(EventType.DELETED, last, Revision(at))
    return None


def _bare(obj: Resource) -> Resource:
    return replace(obj, metadata=replace(obj.metadata, resource_version=""))
