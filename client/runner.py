"""Runs a controller: workers take keys, call ``reconcile``, retry with back-off.

A worker does not begin with a key before the caches have seen what the key's last round wrote: otherwise a cache that
lags would make a controller create a pod twice. Writes are noticed by the ``Resources`` that a round is given.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from api.errors import ApiError, Conflict, Timeout
from api.kinds.authentication import TokenRequestSpec, TokenRequestStatus
from api.meta import Resource
from client.clock import Clock, SystemClock
from client.informer import Informer, SharedInformers
from client.resources import Listing, Resources, Revision, WatchEvent
from client.workqueue import ShutDown, WorkQueue

R = TypeVar("R", bound=Resource)
Outcome = Literal["done", "again", "conflict", "refused", "failed"]

CATCH_UP_S = 10.0  # a worker waits so long for a cache before it turns to another key
GIVE_UP_S = 300.0  # a write that no cache shows after so long is forgotten
UNCERTAIN_S = 1.0  # after a write with unknown outcome: time for its event to come

log = logging.getLogger(__name__)


class Reconcile(Protocol):
    """One round for one key: make what is into what should be; return seconds until the next round, if any."""

    def __call__(self, key: str, api: Resources, /) -> Awaitable[float | None]: ...  # noqa: D102 - the class says it


class Observer(Protocol):
    """Where figures go."""

    def reconciled(self, controller: str, outcome: Outcome, seconds: float, depth: int) -> None:
        """Take one finished round; ``depth`` keys are waiting."""


class NoObserver:
    """Figures go nowhere."""

    def reconciled(self, controller: str, outcome: Outcome, seconds: float, depth: int) -> None:
        """Forget it."""


class Written(msgspec.Struct):
    """What a round wrote that caches must show before the next one."""

    revisions: dict[type[Resource], int] = {}
    removed: set[tuple[type[Resource], str, str]] = set()  # (model, key, uid)
    since: float = 0.0


class NotingResources:
    """Passes everything on and notes what was written. Deletions without a uid are not noted."""

    def __init__(self, inner: Resources) -> None:
        self._inner = inner
        self.written = Written()

    def _note(self, obj: R) -> R:
        revision = int(obj.metadata.resource_version or 0)
        model = type(obj)
        self.written.revisions[model] = max(self.written.revisions.get(model, 0), revision)
        return obj

    async def get(self, model: type[R], name: str, *, namespace: str = "") -> R:
        """See Resources."""
        return await self._inner.get(model, name, namespace=namespace)

    async def list(
        self, model: type[R], *, namespace: str = "", label_selector: str = "", field_selector: str = ""
    ) -> Listing[R]:
        """See Resources."""
        return await self._inner.list(
            model, namespace=namespace, label_selector=label_selector, field_selector=field_selector
        )

    def watch(
        self,
        model: type[R],
        *,
        revision: Revision,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[WatchEvent[R]]:
        """See Resources."""
        return self._inner.watch(
            model,
            revision=revision,
            namespace=namespace,
            label_selector=label_selector,
            field_selector=field_selector,
        )

    async def create(self, obj: R) -> R:
        """See Resources."""
        return self._note(await self._inner.create(obj))

    async def update(self, obj: R, *, subresource: str = "") -> R:
        """See Resources."""
        return self._note(await self._inner.update(obj, subresource=subresource))

    async def patch(
        self, model: type[R], name: str, patch: Mapping[str, Any], *, namespace: str = "", subresource: str = ""
    ) -> R:
        """See Resources."""
        return self._note(await self._inner.patch(model, name, patch, namespace=namespace, subresource=subresource))

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
        """See Resources."""
        await self._inner.delete(
            model,
            name,
            namespace=namespace,
            uid=uid,
            resource_version=resource_version,
            grace_period_s=grace_period_s,
            propagation=propagation,
        )
        if uid:
            self.written.removed.add((model, f"{namespace}/{name}" if namespace else name, uid))

    async def request_token(self, account: str, spec: TokenRequestSpec, *, namespace: str) -> TokenRequestStatus:
        """See Resources."""
        return await self._inner.request_token(account, spec, namespace=namespace)

    async def bind(self, *, namespace: str, pod: str, uid: str, node: str) -> None:
        """See Resources."""
        await self._inner.bind(namespace=namespace, pod=pod, uid=uid, node=node)


class Runner:
    """The workers of one controller."""

    def __init__(
        self,
        name: str,
        reconcile: Reconcile,
        *,
        resources: Resources,
        informers: SharedInformers,
        workers: int = 4,
        clock: Clock | None = None,
        observer: Observer | None = None,
        queue: WorkQueue | None = None,
    ) -> None:
        self.name = name
        self._clock = clock or SystemClock()
        self.queue = queue or WorkQueue(clock=self._clock)
        self._reconcile = reconcile
        self._resources = resources
        self._informers = informers
        self._workers = workers
        self._observer = observer or NoObserver()
        self._written: dict[str, Written] = {}

    async def run(self) -> None:
        """Work until cancelled, from when the caches are filled."""
        await self._informers.wait_synced()
        log.debug("controller started name=%s workers=%d", self.name, self._workers)
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._workers):
                    group.create_task(self._work(), name=f"{self.name} worker {number}")
        finally:
            self.queue.shut_down()

    async def _work(self) -> None:
        try:
            while True:
                key = await self.queue.get()
                try:
                    await self._round(key)
                finally:
                    self.queue.done(key)
        except ShutDown:
            return

    async def _round(self, key: str) -> None:
        if not await self._caught_up(key):
            self.queue.add_rate_limited(key)
            return
        api = NotingResources(self._resources)
        began = self._clock.monotonic()
        outcome: Outcome = "failed"
        try:
            again_s = await self._reconcile(key, api)
        except Conflict as error:
            # Somebody wrote since our cache was filled: its event is on the way.
            outcome = "conflict"
            self.queue.add_rate_limited(key)
            log.debug("conflict, trying again controller=%s key=%s why=%r", self.name, key, error.message)
        except Timeout as error:
            self.queue.add_rate_limited(key, at_least_s=UNCERTAIN_S)
            log.warning("outcome unknown controller=%s key=%s why=%r", self.name, key, error.message)
        except ApiError as error:
            outcome = "refused"
            delay_s = self.queue.add_rate_limited(key)
            log.warning("round failed controller=%s key=%s why=%r retry_s=%.3f", self.name, key, error.message, delay_s)
        except Exception:
            # A fault of ours with one object must not stop the others.
            self.queue.add_rate_limited(key)
            log.exception("round failed controller=%s key=%s", self.name, key)
        else:
            outcome = "done" if again_s is None else "again"
            self.queue.forget(key)
            if again_s is not None:
                self.queue.add_after(key, again_s)
        finally:
            self._remember(key, api.written)
            self._observer.reconciled(self.name, outcome, self._clock.monotonic() - began, len(self.queue))

    def _remember(self, key: str, written: Written) -> None:
        if written.revisions or written.removed:
            written.since = self._clock.monotonic()
            self._written[key] = written

    async def _caught_up(self, key: str) -> bool:
        """Wait until the caches show what the last round of ``key`` wrote; return whether they do."""
        written = self._written.get(key)
        if written is None:
            return True
        for condition, informer in self._conditions(written):
            if condition():
                continue
            if self._clock.monotonic() - written.since > GIVE_UP_S:
                log.warning("own write never seen controller=%s key=%s kind=%s", self.name, key, informer.model)
                continue
            if not await _within(self._clock, CATCH_UP_S, informer.wait_until(condition)):
                return False
        del self._written[key]
        return True

    def _conditions(self, written: Written) -> list[tuple[Callable[[], bool], Informer[Any]]]:
        """Return, for each cache concerned, the test of whether it shows what was written."""
        conditions: list[tuple[Callable[[], bool], Informer[Any]]] = []
        for model, revision in written.revisions.items():
            if (informer := self._informers.known(model)) is not None:
                conditions.append((partial(_is_at, informer, revision), informer))
        for model, key, uid in written.removed:
            if (informer := self._informers.known(model)) is not None:
                conditions.append((partial(_is_leaving, informer, key, uid), informer))
        return conditions


def _is_at(informer: Informer[Any], revision: int) -> bool:
    return informer.revision >= revision


def _is_leaving(informer: Informer[Any], key: str, uid: str) -> bool:
    obj = informer.get(key)
    return obj is None or obj.metadata.uid != uid or bool(obj.metadata.deletion_timestamp)


async def _within(clock: Clock, limit_s: float, work: Awaitable[None]) -> bool:
    """Return whether ``work`` was done within ``limit_s`` of ``clock``; if not it is cancelled."""
    task = asyncio.ensure_future(work)

    def stop() -> None:
        task.cancel()

    timer = clock.call_later(limit_s, stop)
    try:
        await asyncio.wait((task,))
        return not task.cancelled()
    finally:
        timer.cancel()
        task.cancel()
