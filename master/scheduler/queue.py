"""Pods that wait for a node: ready to be tried, backing off after a failure, or until the cluster changes.

A pod that no node could take waits for a change that may cure what refused it, not for a timer; the change brings it
back at once if its back-off is over. As a safety net a pod is tried again after five minutes anyway.
"""

import asyncio
import heapq
import itertools
from typing import Literal

import msgspec

from client.clock import Clock, Timer

FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 10.0
LEFTOVER_S = 300.0


class Waiting(msgspec.Struct):
    """One pod in the queue."""

    key: str
    priority: int
    shape: object  # what the pod asks for: another shape is worth another try
    place: Literal["active", "backoff", "parked", "out"] = "active"
    tries: int = 0
    ready_at: float = 0.0  # when its back-off is over
    ticket: int = 0  # the heap's entry with another ticket is void
    cured_by: frozenset[str] = frozenset()
    timer: Timer | None = None


class SchedulingQueue:
    """Hands out the pod of the highest priority that has waited longest."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pods: dict[str, Waiting] = {}
        self._heap: list[tuple[int, int, str]] = []  # (-priority, ticket, key)
        self._tickets = itertools.count(1)
        self._ready = asyncio.Event()

    def __len__(self) -> int:
        return len(self._pods)

    def add(self, key: str, priority: int, shape: object = None) -> None:
        """Let a pod be tried. One that is here already takes its new priority, and a new shape ends its waiting."""
        known = self._pods.get(key)
        if known is None:
            self._activate(self._pods.setdefault(key, Waiting(key, priority, shape)))
            return
        is_raised, is_reshaped = known.priority != priority, known.shape != shape
        known.priority, known.shape = priority, shape
        if known.place == "active" and is_raised:
            self._activate(known)
        elif known.place == "parked" and is_reshaped:
            self._after_backoff(known)

    def remove(self, key: str) -> None:
        """Forget a pod: it is bound or gone."""
        known = self._pods.pop(key, None)
        if known is not None:
            self._stop(known)

    async def pop(self) -> str:
        """Return the next pod, which is out until it is parked, retried or removed."""
        while True:
            while self._heap:
                _, ticket, key = heapq.heappop(self._heap)
                known = self._pods.get(key)
                if known is not None and known.place == "active" and known.ticket == ticket:
                    known.place = "out"
                    known.tries += 1
                    return key
            self._ready.clear()
            await self._ready.wait()

    def park(self, key: str, cured_by: frozenset[str]) -> None:
        """Let a pod that fits nowhere wait for one of those changes."""
        known = self._pods.get(key)
        if known is None:
            return
        self._stop(known)
        known.place, known.cured_by = "parked", cured_by
        known.ready_at = self._clock.monotonic() + self._backoff_s(known)
        known.timer = self._clock.call_later(LEFTOVER_S, lambda: self._activate(known))

    def retry(self, key: str) -> None:
        """Try a pod again after its back-off: something failed that has nothing to do with the nodes."""
        known = self._pods.get(key)
        if known is not None:
            known.ready_at = self._clock.monotonic() + self._backoff_s(known)
            self._after_backoff(known)

    def changed(self, kind: str) -> None:
        """Wake every pod that a change of ``kind`` may help."""
        for known in tuple(self._pods.values()):
            if known.place == "parked" and kind in known.cured_by:
                self._after_backoff(known)

    @staticmethod
    def _backoff_s(known: Waiting) -> float:
        return float(min(FIRST_BACKOFF_S * 2 ** min(known.tries - 1, 16), LONGEST_BACKOFF_S))

    def _after_backoff(self, known: Waiting) -> None:
        self._stop(known)
        left = known.ready_at - self._clock.monotonic()
        if left <= 0:
            self._activate(known)
        else:
            known.place = "backoff"
            known.timer = self._clock.call_later(left, lambda: self._activate(known))

    def _activate(self, known: Waiting) -> None:
        self._stop(known)
        known.place, known.ticket = "active", next(self._tickets)
        heapq.heappush(self._heap, (-known.priority, known.ticket, known.key))
        self._ready.set()

    @staticmethod
    def _stop(known: Waiting) -> None:
        if known.timer is not None:
            known.timer.cancel()
            known.timer = None
