"""One cache mechanism for everyone: list at a revision, watch from it, list again when history is gone.

An informer keeps the objects of one kind (and selector), indexed, and tells its subscribers which keys changed. They
receive keys, never events: whoever acts on a key reads what *is*, so a lost or repeated event does no harm. Which keys
a change concerns is a pure function of the object before and after (a pod's change concerns its ReplicaSet's key).
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar, cast

from api.errors import ApiError, Expired
from api.meta import Resource
from api.selectors import LabelQuery
from client.clock import Clock, SystemClock
from client.resources import EventType, Listing, Resources, Revision, WatchEvent

R = TypeVar("R", bound=Resource)
Index = Callable[[R], Iterable[str]]
Concerns = Callable[[R | None, R | None], Iterable[str]]  # (before, after) -> keys

FIRST_BACKOFF_S = 0.05
LONGEST_BACKOFF_S = 2.0
STALE_LISTS_REFUSED = 10

log = logging.getLogger(__name__)


def key_of(obj: Resource) -> str:
    """Return ``namespace/name``, or ``name`` for cluster-scoped objects."""
    meta = obj.metadata
    return f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name


def split_key(key: str) -> tuple[str, str]:
    """Return (namespace, name) of a key; the namespace of a cluster-scoped object is empty."""
    namespace, _, name = key.rpartition("/")
    return namespace, name


def itself(before: Resource | None, after: Resource | None) -> Iterable[str]:
    """A change concerns the object's own key."""
    obj = after or before
    assert obj is not None
    return (key_of(obj),)


def by_namespace(obj: Resource) -> Iterable[str]:
    """Index of every informer: the namespace."""
    return (obj.metadata.namespace,)


def by_owner(obj: Resource) -> Iterable[str]:
    """Index of every informer: the uid of each owner."""
    return [reference.uid for reference in obj.metadata.owner_references]


def by_label(label: str) -> Index[Resource]:
    """Return an index by the value of one label."""

    def index(obj: Resource) -> Iterable[str]:
        value = obj.metadata.labels.get(label)
        return () if value is None else (value,)

    return index


class Lister(Generic[R]):
    """The objects of a cache and its indexes; what it returns is read-only."""

    def __init__(self) -> None:
        self._objects: dict[str, R] = {}
        self._functions: dict[str, Index[R]] = {}
        self._indexed: dict[str, dict[str, dict[str, R]]] = {}  # index -> value -> key -> object
        self.add_index("namespace", by_namespace)
        self.add_index("owner", by_owner)

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[R]:
        return iter(tuple(self._objects.values()))

    def add_index(self, name: str, function: Index[R]) -> None:
        """Keep an index; one that exists already under this name is kept as it is."""
        if name in self._functions:
            return
        self._functions[name] = function
        self._indexed[name] = {}
        for key, obj in self._objects.items():
            self._enter(name, key, obj)

    def get(self, key: str) -> R | None:
        """Return the object at ``namespace/name``."""
        return self._objects.get(key)

    def keys(self) -> tuple[str, ...]:
        """Return every key."""
        return tuple(self._objects)

    def indexed(self, index: str, value: str) -> list[R]:
        """Return the objects that ``index`` has under ``value``."""
        return list(self._indexed[index].get(value, {}).values())

    def in_namespace(self, namespace: str, query: LabelQuery | None = None) -> list[R]:
        """Return the objects of a namespace whose labels meet ``query``."""
        found = self.indexed("namespace", namespace)
        return found if query is None else [obj for obj in found if query.matches(obj.metadata.labels)]

    def owned_by(self, uid: str) -> list[R]:
        """Return the objects that name ``uid`` as an owner."""
        return self.indexed("owner", uid)

    def _put(self, key: str, obj: R | None) -> R | None:
        """Store, or remove with None; return what was there."""
        before = self._objects.pop(key, None)
        if before is not None:
            for name, function in self._functions.items():
                for value in function(before):
                    self._leave(name, value, key)
        if obj is not None:
            self._objects[key] = obj
            for name in self._functions:
                self._enter(name, key, obj)
        return before

    def _enter(self, name: str, key: str, obj: R) -> None:
        for value in self._functions[name](obj):
            self._indexed[name].setdefault(value, {})[key] = obj

    def _leave(self, name: str, value: str, key: str) -> None:
        entries = self._indexed[name].get(value)
        if entries is not None:
            entries.pop(key, None)
            if not entries:
                del self._indexed[name][value]


class Informer(Lister[R]):
    """A cache that keeps itself up to date while ``run`` runs."""

    def __init__(
        self,
        resources: Resources,
        model: type[R],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        clock: Clock | None = None,
        rng: random.Random | None = None,
        transform: Callable[[R], R] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.synced = asyncio.Event()
        self.revision = Revision(0)  # every change up to here is in the cache
        self._resources = resources
        self._selection = {"namespace": namespace, "label_selector": label_selector, "field_selector": field_selector}
        self._clock = clock or SystemClock()
        self._random = rng or random.Random()  # noqa: S311 - spreads retries, protects nothing
        self._subscribers: list[tuple[Callable[[str], None], Concerns[R]]] = []
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._failures = 0
        self._transform = transform

    def subscribe(self, receive: Callable[[str], None], concerns: Concerns[R] = itself) -> Callable[[], None]:
        """Hand ``receive`` the keys that each change concerns, beginning with what is there; return how to stop."""
        entry = (receive, concerns)
        self._subscribers.append(entry)
        for obj in self:
            for key in concerns(None, obj):
                receive(key)

        def stop() -> None:
            if entry in self._subscribers:
                self._subscribers.remove(entry)

        return stop

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return once ``condition`` of this cache holds; it is asked again after each change."""
        if condition():
            return
        entry = (condition, asyncio.get_running_loop().create_future())
        self._waiters.append(entry)
        try:
            await entry[1]
        finally:
            if entry in self._waiters:
                self._waiters.remove(entry)

    async def run(self) -> None:
        """Keep the cache until cancelled."""
        must_list = True
        while True:
            try:
                if must_list:
                    must_list = not self._replace(await self._list())
                if not must_list:
                    await self._follow()
                await self._pause("the watch ended")
            except Expired:
                must_list = True
                await self._pause("history is gone")
            except ApiError as error:
                await self._pause(error.message)

    async def _list(self) -> Listing[R]:
        return await self._resources.list(self.model, **self._selection)

    async def _follow(self) -> None:
        """Take events until the watch ends or fails."""
        stream = self._resources.watch(self.model, revision=self.revision, **self._selection)
        try:
            async for event in stream:
                self._failures = 0
                self._take(event)
        finally:
            if (close := getattr(stream, "aclose", None)) is not None:
                await close()

    async def _pause(self, why: str) -> None:
        delay_s = min(FIRST_BACKOFF_S * 2 ** min(self._failures, 16), LONGEST_BACKOFF_S)
        self._failures += 1
        log.debug("watch interrupted kind=%s why=%r retry_s=%.2f", self.model.__name__, why, delay_s)
        if self._failures == 8:
            log.warning("watch stays interrupted kind=%s why=%r", self.model.__name__, why)
        await self._clock.sleep(delay_s * (0.5 + self._random.random() / 2))

    def _take(self, event: WatchEvent[R]) -> None:
        if event.type is not EventType.BOOKMARK:
            assert event.object is not None, event
            after = None if event.type is EventType.DELETED else self._kept(event.object)
            self._change(key_of(event.object), after)
        self.revision = event.revision
        self._wake()

    def _replace(self, listing: Listing[R]) -> bool:
        """Make the cache equal to ``listing``; return False if it is older than what we know."""
        # A master that lags may answer; but a store restored from a backup has to be believed in the end.
        if listing.revision < self.revision and self._failures < STALE_LISTS_REFUSED:
            return False
        present = {key_of(obj): obj for obj in listing.items}
        for key in self.keys():
            if key not in present:
                self._change(key, None)
        for key, obj in present.items():
            known = self.get(key)
            if known is None or known.metadata.resource_version != obj.metadata.resource_version:
                self._change(key, self._kept(obj))
        self.revision = listing.revision
        self.synced.set()
        self._wake()
        return True

    def _kept(self, obj: R) -> R:
        return obj if self._transform is None else self._transform(obj)

    def _change(self, key: str, after: R | None) -> None:
        before = self._put(key, after)
        if before is None and after is None:
            return
        if before is not None and after is not None and before.metadata.uid != after.metadata.uid:
            # Deleted and made anew while we were away: two changes, of two objects.
            self._tell(before, None)
            before = None
        self._tell(before, after)

    def _tell(self, before: R | None, after: R | None) -> None:
        for receive, concerns in tuple(self._subscribers):
            for key in concerns(before, after):
                receive(key)

    def _wake(self) -> None:
        for entry in tuple(self._waiters):
            condition, future = entry
            if not future.done() and condition():
                future.set_result(None)


class SharedInformers:
    """One informer for each kind and selector, for everyone in the program who asks."""

    def __init__(
        self,
        resources: Resources,
        *,
        clock: Clock | None = None,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self._resources = resources
        self._clock = clock or SystemClock()
        self._transform = transform
        self._informers: dict[tuple[type[Resource], str, str, str], Informer[Any]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._tasks: dict[tuple[type[Resource], str, str, str], asyncio.Task[None]] = {}

    def of(
        self,
        model: type[R],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        indexes: Mapping[str, Index[R]] | None = None,
    ) -> Informer[R]:
        """Return the informer of ``model``, made at the first call; ``indexes`` are added to it."""
        identity = (model, namespace, label_selector, field_selector)
        informer = self._informers.get(identity)
        if informer is None:
            informer = Informer(
                self._resources,
                model,
                namespace=namespace,
                label_selector=label_selector,
                field_selector=field_selector,
                clock=self._clock,
                transform=self._transform,
            )
            self._informers[identity] = informer
            if self._group is not None:
                self._start(identity, informer)
        for name, function in (indexes or {}).items():
            informer.add_index(name, function)
        return cast("Informer[R]", informer)

    def forget(self, model: type[Resource]) -> None:
        """Stop the informers of a kind that is served no more."""
        for identity in [each for each in self._informers if each[0] is model]:
            del self._informers[identity]
            if (task := self._tasks.pop(identity, None)) is not None:
                task.cancel()

    def known(self, model: type[Resource]) -> Informer[Any] | None:
        """Return the informer of all of ``model``, if anybody asked for one."""
        return self._informers.get((model, "", "", ""))

    def _start(self, identity: tuple[type[Resource], str, str, str], informer: Informer[Any]) -> None:
        assert self._group is not None
        task = self._group.create_task(informer.run(), name=f"informer {informer.model.__name__}")
        self._tasks[identity] = task

    async def run(self) -> None:
        """Keep every informer, and those still to come, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for identity, informer in tuple(self._informers.items()):
                    self._start(identity, informer)
                await asyncio.Event().wait()
        finally:
            self._group = None

    async def wait_synced(self) -> None:
        """Return once every informer that exists now has its first list."""
        for informer in tuple(self._informers.values()):
            await informer.synced.wait()
