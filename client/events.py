"""Events: what a program tells people about an object. Repeats become counts, floods are cut, nobody waits.

``event`` only puts a note into a bounded queue; ``run`` owns the writing. An event that the API does not take within
a few tries is dropped: events are news, not state.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from api.errors import ApiError, NotFound
from api.kinds.core import Event, EventSource
from api.kinds.table import TABLE
from api.kinds.volumes import ObjectReference
from api.meta import ObjectMeta, Resource
from client.clock import timestamp
from client.resources import Resources

log = logging.getLogger(__name__)

_QUEUE = 1000
_REMEMBERED = 4096
_TRIES = 3
_RETRY_S = 1.0
_MESSAGE_LIMIT = 1024
# An object may say so many different things at once, and then one more every so often.
_BURST = 25
_REFILL_S = 30.0


class _Note(NamedTuple):
    about: ObjectReference
    kind: str
    reason: str
    message: str
    at: float


class _Written(NamedTuple):
    name: str
    times: int


class _Bucket(msgspec.Struct):
    tokens: float
    at: float


class EventRecorder:
    """Writes events in the name of one component.

    component: who speaks, "kubelet" or a controller's name; host: the node it runs on, "" if that says nothing.
    """

    def __init__(
        self, resources: Resources, *, component: str, host: str = "", now: Callable[[], float] = time.time
    ) -> None:
        self._resources = resources
        self._source = EventSource(component=component, host=host)
        self._now = now
        self._queue: asyncio.Queue[_Note] = asyncio.Queue(_QUEUE)
        self._written: OrderedDict[tuple[object, ...], _Written] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._number = 0

    def event(self, about: Resource, *, kind: str, reason: str, message: str, field_path: str = "") -> None:
        """Note that something happened to ``about``. kind: "Normal" or "Warning"; never waits."""
        note = _Note(reference_to(about, field_path), kind, reason, message[:_MESSAGE_LIMIT], self._now())
        try:
            self._queue.put_nowait(note)
        except asyncio.QueueFull:
            log.warning("event dropped, too many waiting reason=%s object=%s", reason, about.metadata.name)

    async def run(self) -> None:
        """Write events until cancelled."""
        while True:
            note = await self._queue.get()
            if self._admits(note):
                await self._deliver(note)

    def _admits(self, note: _Note) -> bool:
        """Take a token of the object's bucket; without one the event is cut."""
        bucket = self._buckets.setdefault(note.about.uid, _Bucket(float(_BURST), note.at))
        self._buckets.move_to_end(note.about.uid)
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        bucket.tokens = min(_BURST, bucket.tokens + (note.at - bucket.at) / _REFILL_S)
        bucket.at = note.at
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    async def _deliver(self, note: _Note) -> None:
        for attempt in range(_TRIES):
            try:
                await self._write(note)
            except ApiError as exc:
                if attempt == _TRIES - 1 or exc.code < 500:
                    log.warning("event not written reason=%s object=%s error=%s", note.reason, note.about.name, exc)
                    return
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def _write(self, note: _Note) -> None:
        key = (note.about.uid, note.about.field_path, note.kind, note.reason, note.message)
        before = self._written.get(key)
        namespace = note.about.namespace or "default"
        if before is not None:
            patch = {"count": before.times + 1, "lastTimestamp": timestamp(note.at)}
            try:
                await self._resources.patch(Event, before.name, patch, namespace=namespace)
            except NotFound:
                del self._written[key]  # expired meanwhile
            else:
                self._remember(key, _Written(before.name, before.times + 1))
                return
        self._number += 1
        # Unique over restarts and components: the time, and a number within it.
        name = f"{note.about.name}.{time.time_ns():x}{self._number % 4096:03x}"
        await self._resources.create(self._event(note, name, namespace))
        self._remember(key, _Written(name, 1))

    def _remember(self, key: tuple[object, ...], written: _Written) -> None:
        self._written[key] = written
        self._written.move_to_end(key)
        if len(self._written) > _REMEMBERED:
            self._written.popitem(last=False)

    def _event(self, note: _Note, name: str, namespace: str) -> Event:
        return Event(
            metadata=ObjectMeta(name=name, namespace=namespace),
            involved_object=note.about,
            type=note.kind,
            reason=note.reason,
            message=note.message,
            count=1,
            first_timestamp=timestamp(note.at),
            last_timestamp=timestamp(note.at),
            source=self._source,
            reporting_component=self._source.component,
            reporting_instance=self._source.host,
        )


def reference_to(about: Resource, field_path: str = "") -> ObjectReference:
    """Return what names ``about``, or a part of it, in an event."""
    meta = about.metadata
    api_version, kind = about.api_version, about.kind
    if not kind:
        row = TABLE.of(type(about))
        api_version, kind = row.group_version, row.kind
    return ObjectReference(
        api_version=api_version,
        kind=kind,
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        resource_version=meta.resource_version,
        field_path=field_path,
    )
