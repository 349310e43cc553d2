"""When followers hear of what can wait: commit marks come with the next append, or in a moment by themselves.

Whoever writes one thing after the other would otherwise wake each follower twice a write, and wait for it. Followers
that a majority does not need hear of entries a little later, too (``Leading.delays``): when nobody works on any, if it
is not their turn too often, and a few milliseconds after the first one at the latest.
"""

import asyncio
import math
from collections.abc import Callable

from raft_store.engine import Index
from raft_store.raft.core import Core

DELAY_S = 0.001  # for so long an append may come that takes a commit mark along
ENTRY_DELAY_S = 0.003  # for so long entries gather for those whom their majority does not need


class CommitMarks:
    """Delays those of one leader; ``wake`` lets the core be asked what to send, in a turn to come."""

    def __init__(self, core: Core, loop: asyncio.AbstractEventLoop, *, wake: Callable[[], None]) -> None:
        self._core = core
        self._loop = loop
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None
        self._owed_since_s: float | None = None  # since when there is something to tell
        self._delay_s = DELAY_S  # for how long it may wait
        self._oldest = Index(0)  # what it concerns: the first entry owed, or the last one whose commit is
        self._told_s = -math.inf  # when followers last had the turn that waiting gave them

    def plan(self, now_s: float) -> None:
        """Let what the core owes by now wait for an append, but not for long."""
        core = self._core
        core.delays = True
        if not core.owes:
            self._owed_since_s = None
            return
        oldest = core.owes_from or core.log.last_index
        if self._owed_since_s is None or oldest != self._oldest:
            # Something else: what was owed before was told, by a turn or by what it could go along with.
            self._owed_since_s, self._oldest = now_s, oldest
            self._delay_s = ENTRY_DELAY_S if core.owes_from else DELAY_S
            if self._timer is None:
                self._timer = self._loop.call_later(self._delay_s, self._look)
        if core.has_turn_for_others and now_s - self._told_s >= ENTRY_DELAY_S:
            self._tell(now_s)  # in a turn to come: answers leave at the end of this one, and go first

    def stop(self) -> None:
        """Tell nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        if self._owed_since_s is None:
            return
        # Set for something earlier that was told since: one timer goes on for all, instead of one for each write.
        now_s = self._loop.time()
        left_s = self._owed_since_s + self._delay_s - now_s
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            self._tell(now_s)

    def _tell(self, now_s: float) -> None:
        self._told_s = now_s
        self._core.delays = False
        self._wake()
