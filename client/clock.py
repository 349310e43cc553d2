"""Time as code receives it, so that a test can move it by hand; and timestamps as objects carry them."""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol


class Timer(Protocol):
    """A callback that is due later."""

    def cancel(self) -> None:
        """Never call it."""


class Clock(Protocol):
    """What decisions about time may ask for."""

    def monotonic(self) -> float:
        """Return seconds since some moment; never goes back."""

    def time(self) -> float:
        """Return seconds since the epoch."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` on the event loop, once, after ``delay_s``."""

    async def sleep(self, delay_s: float) -> None:
        """Return after ``delay_s``."""


class SystemClock:
    """The machine's time and the event loop's timers."""

    def monotonic(self) -> float:
        """Return the machine's monotonic time."""
        return time.monotonic()

    def time(self) -> float:
        """Return the machine's wall clock."""
        return time.time()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Use the running loop."""
        return asyncio.get_running_loop().call_later(delay_s, callback)

    async def sleep(self, delay_s: float) -> None:
        """Use the running loop."""
        await asyncio.sleep(delay_s)


class _ManualTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """A clock for tests and simulations: time passes only when ``advance`` says so."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self._now = start
        self._due: list[tuple[float, int, _ManualTimer]] = []
        self._order = itertools.count()

    def monotonic(self) -> float:
        """Return the present moment."""
        return self._now

    def time(self) -> float:
        """Return the present moment."""
        return self._now

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` within the ``advance`` that reaches it."""
        timer = _ManualTimer(callback)
        heapq.heappush(self._due, (self._now + max(0.0, delay_s), next(self._order), timer))
        return timer

    async def sleep(self, delay_s: float) -> None:
        """Return once ``advance`` has passed the moment."""
        woken = asyncio.Event()
        timer = self.call_later(delay_s, woken.set)
        try:
            await woken.wait()
        finally:
            timer.cancel()

    def advance(self, seconds: float) -> None:
        """Let time pass; what falls due is called in order, at its own moment."""
        until = self._now + seconds
        while self._due and self._due[0][0] <= until:
            moment, _, timer = heapq.heappop(self._due)
            self._now = max(self._now, moment)
            if (callback := timer.callback) is not None:
                timer.callback = None
                callback()
        self._now = until

    def stall(self, seconds: float) -> None:
        """Let time pass while nobody runs, as for a process that is stopped: timers fire late, at the next advance."""
        self._now += seconds

    def next_due_s(self) -> float | None:
        """Return the seconds until the next timer, None if none is set."""
        pending = [moment for moment, _, timer in self._due if timer.callback is not None]
        return min(pending) - self._now if pending else None


def timestamp(now: float) -> str:
    """Return seconds since the epoch as ``2026-01-31T12:00:00Z``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))


def micro_timestamp(now: float) -> str:
    """Return seconds since the epoch as leases and newer events carry them, with microseconds."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def seconds_of(text: str) -> float:
    """Return the seconds since the epoch of either form; 0 for an absent timestamp."""
    return datetime.fromisoformat(text).timestamp() if text else 0.0
