"""When followers hear of what can wait: commit marks come with the next append, or in a moment by themselves.

Whoever writes one thing after the other would otherwise wake each follower twice a write, and wait for it. Followers
that a majority does not need hear of entries later, too (``Leading.delays``): when nobody works on any, or the leader
waits for the one that it has asked, if it is not their turn too often; and a few milliseconds after the first entry at
the latest.
"""

import asyncio
import math
from collections.abc import Callable

from raft_store.engine import Index
from raft_store.raft.core import Core

DELAY_S = 0.008  # for so long anything waits, and as much time at least lies between two turns that nobody waited for
_EARLY_S = 0.0005  # timers ring by so much too early


class Turns:
    """Says when a leader tells; ``wake`` lets the core be asked what to send, in a turn of the loop to come."""

    def __init__(self, core: Core, loop: asyncio.AbstractEventLoop, *, wake: Callable[[], None]) -> None:
        self._core = core
        self._loop = loop
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None
        self._owed_since_s: float | None = None  # since when there is something to tell
        self._concerns = Index(0)  # what it is about: the first entry that is owed, or the last one whose commit is
        self._next_turn_s = -math.inf  # not before, where nobody waits

    def plan(self, now_s: float, *, few: bool = False) -> None:
        """Let what the core owes by now wait, but not for long.

        few: hardly anybody waits for us, so that we have time while a majority's disks work.
        """
        core = self._core
        core.delays = True
        if not core.owes:
            self._owed_since_s = None
            return
        concerns = core.owes_from or core.log.last_index
        if self._owed_since_s is None or concerns != self._concerns:
            # Something else: what was owed before was told, by a turn or by what it could go along with.
            self._owed_since_s, self._concerns = now_s, concerns
            if self._timer is None:
                self._timer = self._loop.call_later(DELAY_S, self._look)
        if now_s < self._next_turn_s:
            return
        # Owed since before this turn was due: a stream of writes. Then we tell while we wait for a majority; just after
        # an answer we would be in the next one's way. What is written now and then is told as soon as it is answered.
        is_stream = few and self._owed_since_s < self._next_turn_s
        if core.awaits_majority if is_stream else core.has_turn_for_others:
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
        left_s = self._owed_since_s + DELAY_S - now_s
        if left_s > _EARLY_S:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            self._tell(now_s)

    def _tell(self, now_s: float) -> None:
        self._owed_since_s = None  # whatever is owed then is owed since then
        self._next_turn_s = now_s + DELAY_S
        self._core.delays = False
        self._wake()
