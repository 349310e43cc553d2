"""When followers hear of what can wait: commit marks come with the next append, or in a moment by themselves.

Whoever writes one thing after the other would otherwise wake each follower twice a write, and wait for it. A lone entry
may wait as well, for followers that its majority does not need (``Leading.delays``).
"""

import asyncio
from collections.abc import Callable

from raft_store.engine import Index
from raft_store.raft.core import Core

DELAY_S = 0.001  # for so long an append may come that takes a commit mark along


class CommitMarks:
    """Delays those of one leader; ``wake`` lets the core be asked what to send, in a turn to come."""

    def __init__(self, core: Core, loop: asyncio.AbstractEventLoop, *, wake: Callable[[], None]) -> None:
        self._core = core
        self._loop = loop
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None
        self._owed_since_s: float | None = None  # since when there is something to tell
        self._newest = Index(0)  # the log's last entry then

    def plan(self, now_s: float) -> None:
        """Let what the core owes by now wait for an append, but not for long."""
        core = self._core
        core.delays = True
        if not core.owes:
            self._owed_since_s = None
        elif self._owed_since_s is None or core.log.last_index != self._newest:
            # Another entry: it took along what was owed before, and what is owed now concerns it.
            self._owed_since_s, self._newest = now_s, core.log.last_index
            if self._timer is None:
                self._timer = self._loop.call_later(DELAY_S, self._tell)

    def stop(self) -> None:
        """Tell nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        self._timer = None
        if self._owed_since_s is None:
            return
        # Set for an earlier mark that an append took along: one timer goes on for all, instead of one for each write.
        left_s = self._owed_since_s + DELAY_S - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._tell)
            return
        self._core.delays = False
        self._wake()
