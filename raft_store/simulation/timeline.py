"""Virtual time: whatever happens later lies in one queue, and the earliest event is next."""

import heapq
import itertools
from collections.abc import Callable

Event = Callable[[], None]


class Timeline:
    """A clock that jumps from event to event; events of one moment keep the order in which they were added."""

    def __init__(self) -> None:
        self.now_ms = 0.0
        self.steps = 0
        self._events: list[tuple[float, int, Event]] = []
        self._order = itertools.count()

    def after(self, delay_ms: float, event: Event) -> None:
        """Let ``event`` happen ``delay_ms`` from now."""
        heapq.heappush(self._events, (self.now_ms + delay_ms, next(self._order), event))

    def run_until(self, end_ms: float) -> None:
        """Let everything happen that is due before ``end_ms``."""
        while self._events and self._events[0][0] <= end_ms:
            self.now_ms, _, event = heapq.heappop(self._events)
            self.steps += 1
            event()
        self.now_ms = end_ms
