"""When followers hear of what can wait: commit marks come with the next append, or in a moment by themselves.

Whoever writes one thing after the other would otherwise wake each follower twice a write, and wait for it. Followers
that a majority does not need hear of entries a little later, too (``Leading.delays_entries``): when nobody works on
any, if it is not their turn too often, and a few milliseconds after the first one at the latest.
"""

import asyncio
import math
from collections.abc import Callable

from raft_store.engine import Index
from raft_store.raft.core import Core

MARK_DELAY_S = 0.001  # for so long an append may come that takes a commit mark along
ENTRY_DELAY_S = 0.005  # for so long entries gather for those whom their majority does not need
_EARLY_S = 0.0005  # timers ring by so much too early


class _Debt:
    """Something that is owed to followers, and since when."""

    __slots__ = ("_concerns", "_delay_s", "due_s")

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._concerns = Index(0)
        self.due_s = math.inf

    def note(self, concerns: Index, now_s: float) -> None:
        """Something is owed that concerns an entry (0: nothing is); of another one it is another debt."""
        if concerns != self._concerns:
            self._concerns = concerns
            self.due_s = now_s + self._delay_s if concerns else math.inf

    def settle(self) -> None:
        """It is told, as far as may be: whatever is owed then is owed since then."""
        self._concerns, self.due_s = Index(0), math.inf


class CommitMarks:
    """Delays those of one leader, and entries; ``wake`` lets the core be asked what to send, in a turn to come."""

    def __init__(self, core: Core, loop: asyncio.AbstractEventLoop, *, wake: Callable[[], None]) -> None:
        self._core = core
        self._loop = loop
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None
        self._rings_s = math.inf
        self._mark = _Debt(MARK_DELAY_S)
        self._entries = _Debt(ENTRY_DELAY_S)
        self._next_turn_s = -math.inf  # of those who hear of entries later

    def plan(self, now_s: float) -> None:
        """Let what the core owes by now wait, but not for long."""
        core = self._core
        core.delays_marks = core.delays_entries = True
        self._mark.note(core.log.last_index if core.owes_mark else Index(0), now_s)
        self._entries.note(core.owes_from, now_s)
        if core.has_turn_for_others and now_s >= self._next_turn_s:
            self._tell_entries(now_s)  # in a turn to come: answers leave at the end of this one, and go first
        self._set_timer(now_s)

    def stop(self) -> None:
        """Tell nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self, now_s: float) -> None:
        """See to it that we look when the next debt is due; one that rings too early goes on for a later one."""
        due_s = min(self._mark.due_s, self._entries.due_s)
        if due_s >= self._rings_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._rings_s = due_s
        self._timer = self._loop.call_later(due_s - now_s, self._look)

    def _look(self) -> None:
        now_s = self._loop.time()
        self._timer, self._rings_s = None, math.inf
        if self._mark.due_s <= now_s + _EARLY_S:
            self._mark.settle()
            self._core.delays_marks = False
            self._wake()
        if self._entries.due_s <= now_s + _EARLY_S:
            self._tell_entries(now_s)
        self._set_timer(now_s)

    def _tell_entries(self, now_s: float) -> None:
        self._entries.settle()
        self._next_turn_s = now_s + ENTRY_DELAY_S
        self._core.delays_entries = False
        self._wake()
