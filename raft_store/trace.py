"""What a member's core says and hears, for whoever looks: a sequence diagram of a running group is made of it.

It is off until somebody looks, and again soon after; then it costs a glance at a flag for each batch of messages. What
nobody fetches in time makes room for what is newer, and is counted. No key and no value is in it.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from raft_store.engine import MemberId, Term, TraceEvent, TracePage
from raft_store.raft.messages import AnyMessage
from raft_store.raft.state import Role
from raft_store.raft.words import describe, is_beat, stands

LOOKS_S = 5.0  # after the last look
MAX_EVENTS = 5_000


class Trace:
    """One member's; ``now``: its monotonic clock in seconds, ``stand``: its role, term and leader."""

    def __init__(
        self, member: MemberId, *, now: Callable[[], float], stand: Callable[[], tuple[Role, Term, MemberId]]
    ) -> None:
        self.on = False
        self._member = member
        self._now = now
        self._stand = stand
        self._stood: tuple[Role, Term, MemberId] | None = None
        self._until_s = 0.0
        self._events: deque[TraceEvent] = deque(maxlen=MAX_EVENTS)
        self._next = 1  # number of the next event

    def sent(self, messages: Sequence[AnyMessage]) -> None:
        """Messages leave; to be called if ``on``."""
        self._note("sent", [(message.to, message) for message in messages])

    def received(self, messages: Sequence[AnyMessage]) -> None:
        """Messages have come, and are going to be read; to be called if ``on``."""
        self._note("received", [(message.sender, message) for message in messages])

    def look(self, after: int, *, applied: int) -> TracePage:
        """Return the events from number ``after`` on, and go on for a while; 0: only where this member stands now."""
        now = self._now()
        if not self.on:
            self._events.clear()
            self._stood, self.on = self._stand(), True
        self._until_s = now + LOOKS_S
        self._notice(now)
        first = self._next - len(self._events)
        if after == 0:
            return TracePage(f"{self._member:x}", now, self._next, 0, applied, [self._standing(now)])
        # Whoever names a number that is yet to come has it from an earlier life, and gets all there is.
        start = after if first <= after <= self._next else first
        events = [self._events[place] for place in range(start - first, len(self._events))]
        return TracePage(f"{self._member:x}", now, self._next, max(0, first - after), applied, events)

    def _note(self, kind: Literal["sent", "received"], messages: Sequence[tuple[MemberId, AnyMessage]]) -> None:
        now = self._now()
        if now > self._until_s:
            self.on = False
            self._events.clear()
            return
        self._notice(now)
        for peer, message in messages:
            self._add(TraceEvent(now, kind, f"{peer:x}", describe(message), is_beat(message)))

    def _notice(self, now: float) -> None:
        """See whether the member has become something else."""
        if (stood := self._stand()) != self._stood:
            self._stood = stood
            self._add(self._standing(now))

    def _standing(self, now: float) -> TraceEvent:
        role, term, leader = self._stand()
        text = stands(role, term, TraceEvent.LEADER if leader else "")
        return TraceEvent(now, "became", f"{leader:x}" if leader else "", text)

    def _add(self, event: TraceEvent) -> None:
        self._events.append(event)
        self._next += 1
