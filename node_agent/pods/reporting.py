"""What the API is told of one pod: always its newest status only, and at last that nothing of it is left.

Telling goes on beside the pod's work, and as long as it takes: pods go on while masters are away. A status that a newer
one has overtaken meanwhile is never written.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from api.errors import ApiError, Invalid
from api.kinds.pods import Pod, PodStatus
from node_agent.pods.containers import pod_ref
from node_agent.pods.surroundings import PodApi

log = logging.getLogger(__name__)

_RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0)
_REPORTED = frozenset({"Initialized", "Ready", "ContainersReady", "PodScheduled"})


class Reporter:
    """Tells of one pod. gone: the API has no such pod any more, and nothing is told."""

    def __init__(self, api: PodApi, pod: Pod, *, gone: bool = False) -> None:
        self._api = api
        self._pod = pod
        self._gone = gone
        self._newest: PodStatus | None = None
        self._written: PodStatus | None = None  # what the API has, unless somebody else wrote without our knowledge
        self._changed = asyncio.Event()

    @property
    def gone(self) -> bool:
        """Whether the API has no such pod any more."""
        return self._gone

    @property
    def newest(self) -> PodStatus:
        """The newest status, written or not."""
        return self._newest or self._pod.status

    def follow(self, pod: Pod) -> None:
        """Take what the API says now."""
        self._pod = pod
        if self._written is not None and _overruled(pod.status, self._written):
            # Somebody else wrote, as the masters do while a node is out of reach.
            self._written = pod.status
            self._changed.set()

    def forget(self) -> None:
        """The API has no such pod any more: tell nothing from now on."""
        self._gone = True

    def show(self, status: PodStatus) -> None:
        """Let the API see this status; never waits."""
        if status != self._newest:
            self._newest = status
            self._changed.set()

    def last_shown(self) -> PodStatus:
        """Return our last status with the conditions that others have set since."""
        if self._newest is None:
            return self._pod.status
        own = {condition.type for condition in self._newest.conditions}
        foreign = tuple(c for c in self._pod.status.conditions if c.type not in own)
        current = {c.type: c for c in self._pod.status.conditions}
        kept = tuple(c if c.type in _REPORTED else current.get(c.type, c) for c in self._newest.conditions)
        return msgspec.structs.replace(self._newest, conditions=(*kept, *foreign))

    async def run(self) -> None:
        """Write statuses until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self.flush()

    async def flush(self) -> None:
        """Return when the API has the newest status."""
        await self._persist(self._write)

    async def finalize(self) -> None:
        """Let the API forget the pod, of which nothing is left here."""
        await self._persist(lambda: self._api.finalize(self._pod))

    async def _write(self) -> None:
        status = self._newest
        if status is not None and status != self._written:
            await self._api.write_status(self._pod, self._written or self._pod.status, status)
            self._written = status

    async def _persist(self, write: Callable[[], Awaitable[None]]) -> None:
        """Repeat a write until the API takes it or has no such pod any more.

        What breaks the API's rules it would refuse for ever, and a pod that ends would never be gone.
        """
        attempt = 0
        while not self._gone:
            try:
                await write()
            except Invalid as exc:
                log.warning("pod not written, and not tried again pod=%s error=%s", pod_ref(self._pod), exc)
                return
            except ApiError as exc:
                pause_s = _RETRY_S[min(attempt, len(_RETRY_S) - 1)]
                log.warning("pod not written pod=%s retry_s=%.1f error=%s", pod_ref(self._pod), pause_s, exc)
                await asyncio.sleep(pause_s)
                attempt += 1
            else:
                return


def _overruled(seen: PodStatus, written: PodStatus) -> bool:
    """Whether the API shows another phase or readiness than we wrote."""
    return seen.phase != written.phase or _ready(seen) != _ready(written)


def _ready(status: PodStatus) -> str:
    return next((c.status for c in status.conditions if c.type == "Ready"), "")
