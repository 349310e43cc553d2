"""The queue between what changed and who acts on it.

Two sets give everything: a key waits at most once (``dirty``), and while a worker has it (``processing``) no other
worker gets it; if it changes meanwhile it is handed out again afterwards. The design is client-go's.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from client.clock import Clock, SystemClock, Timer

FIRST_DELAY_S = 0.005
LONGEST_DELAY_S = 30.0


class ShutDown(Exception):
    """The queue hands out nothing more."""


class WorkQueue:
    """Keys to work on: merged, one worker a key, with delays and growing back-off."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        first_delay_s: float = FIRST_DELAY_S,
        longest_delay_s: float = LONGEST_DELAY_S,
    ) -> None:
        self._clock = clock or SystemClock()
        self._first_delay_s = first_delay_s
        self._longest_delay_s = longest_delay_s
        self._queue: deque[str] = deque()
        self._dirty: set[str] = set()
        self._processing: set[str] = set()
        self._failures: dict[str, int] = {}
        self._later: dict[str, tuple[float, Timer]] = {}  # key -> (due, timer): the earliest delayed add only
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = False

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, key: str) -> None:
        """Let ``key`` be worked on; nothing if it waits already."""
        if self._closed or key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._processing:
            self._queue.append(key)
            self._wake()

    async def get(self) -> str:
        """Return the next key, which stays this worker's until ``done``; raises ShutDown."""
        while not self._queue:
            if self._closed:
                raise ShutDown
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            try:
                await future
            except asyncio.CancelledError:
                # The wake-up that reached a cancelled worker belongs to another one.
                if future.done() and not future.cancelled() and self._queue:
                    self._wake()
                raise
            finally:
                if future in self._waiting:
                    self._waiting.remove(future)
        key = self._queue.popleft()
        self._processing.add(key)
        self._dirty.discard(key)
        return key

    def done(self, key: str) -> None:
        """Give ``key`` back; if it was added meanwhile it is handed out again."""
        self._processing.discard(key)
        if key in self._dirty and not self._closed:
            self._queue.append(key)
            self._wake()

    def add_after(self, key: str, delay_s: float) -> None:
        """Add ``key`` in ``delay_s``; of several delays the shortest counts."""
        if self._closed:
            return
        if delay_s <= 0:
            self.add(key)
            return
        due = self._clock.monotonic() + delay_s
        if (waiting := self._later.get(key)) is not None:
            if waiting[0] <= due:
                return
            waiting[1].cancel()
        self._later[key] = (due, self._clock.call_later(delay_s, self._adder(key)))

    def _adder(self, key: str) -> Callable[[], None]:
        def add() -> None:
            self._later.pop(key, None)
            self.add(key)

        return add

    def add_rate_limited(self, key: str, *, at_least_s: float = 0.0) -> float:
        """Add ``key`` after a delay that doubles with each call until ``forget``; return the delay."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        # 2**20 is past any cap and still a small number.
        delay_s = max(at_least_s, min(self._first_delay_s * float(2 ** min(failures, 20)), self._longest_delay_s))
        self.add_after(key, delay_s)
        return delay_s

    def forget(self, key: str) -> None:
        """Begin with the shortest delay the next time ``key`` fails."""
        self._failures.pop(key, None)

    def failures(self, key: str) -> int:
        """Return how often ``key`` failed in a row."""
        return self._failures.get(key, 0)

    def shut_down(self) -> None:
        """Hand out nothing more; waiting workers get ShutDown."""
        self._closed = True
        for _, timer in self._later.values():
            timer.cancel()
        self._later.clear()
        self._queue.clear()
        while self._waiting:
            self._wake()

    def _wake(self) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return
