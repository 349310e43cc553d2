"""What a leader knows of one follower's log, and how fast it sends.

    probe       we do not know where the logs agree: one append at a time, until one is accepted
    replicate   they agree up to ``matched``: an append follows before the one ahead is answered, ``next`` runs ahead
    snapshot    our log no longer reaches back that far: nothing is sent until the snapshot has arrived

Every rejection leads back to probe. In each state ``next > matched``, and ``matched`` never falls: what a follower
confirmed lies on its disk.
"""

from collections import deque
from enum import Enum

from raft_store.engine import Index

# Appends under way to one follower: one that its disk works on, and one that is there when the disk is free. More would
# wait there as well, each for the price of a message; here they become one, as far as one append may carry.
MAX_IN_FLIGHT = 2


class State(Enum):
    """How the leader treats a follower."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    """One follower as its leader sees it."""

    __slots__ = (
        "_paused",
        "awaited",
        "behind",
        "commit_sent",
        "farewell_ticks",
        "in_flight",
        "matched",
        "next",
        "read_round",
        "silent_ticks",
        "snapshot",
        "state",
        "waited_ticks",
    )

    def __init__(self, following: Index) -> None:
        """following: the index to try first."""
        self.state = State.PROBE
        self.matched = Index(0)
        self.next = following
        self.commit_sent = Index(0)  # highest commit mark that we told it
        self.awaited = Index(0)  # it waits to hear that this is committed
        self.silent_ticks = 0  # since we heard from it
        self.read_round = 0  # highest heartbeat round it confirmed
        self.snapshot = Index(0)  # in SNAPSHOT: the index that the snapshot brings it to
        self.behind = False  # it said that it has not even the oldest entry of ours
        self.waited_ticks = 0  # in SNAPSHOT
        self.farewell_ticks: int | None = None  # it was removed, and is sent for so long what tells it so
        self._paused = False  # in PROBE: an append is under way
        self.in_flight: deque[Index] = deque()  # in REPLICATE: the last index of each append

    @property
    def paused(self) -> bool:
        """Whether nothing may be sent just now."""
        if self.state is State.REPLICATE:
            return len(self.in_flight) >= MAX_IN_FLIGHT
        return self._paused if self.state is State.PROBE else True

    @property
    def awaits(self) -> bool:
        """Whether it waits for a commit mark that it was not told."""
        return self.commit_sent < self.awaited

    def sent(self, last: Index, count: int) -> None:
        """Record that an append with ``count`` entries up to ``last`` is under way."""
        if self.state is State.PROBE:
            self._paused = True
        elif count:
            self.in_flight.append(last)
            self.next = Index(last + 1)

    def accepted(self, index: Index, *, base: Index) -> bool:
        """Record that the follower has everything up to ``index``; return whether that is news.

        base: where our log begins. Any snapshot that brings the follower so far will do, also an older one than we
        meant to send.
        """
        news = index > self.matched
        if news:
            self.matched = index
        self.behind = False
        self.next = Index(max(self.next, index + 1))
        while self.in_flight and self.in_flight[0] <= index:
            self.in_flight.popleft()
        if self.state is State.PROBE or (self.state is State.SNAPSHOT and self.matched >= base):
            self._become(State.REPLICATE)
            self.next = Index(self.matched + 1)
        return news

    def rejected(self, prev_index: Index, may_agree: Index) -> bool:
        """Go back to where the logs may agree; return False if the rejection is an old one that tells nothing.

        prev_index: the index that the follower refused; may_agree: the highest one that both logs may share.
        """
        if self.state is State.REPLICATE:
            if prev_index <= self.matched:
                return False
            self._become(State.PROBE)
            self.next = Index(self.matched + 1)
            return True
        if self.state is State.SNAPSHOT or self.next - 1 != prev_index:
            return False
        self.next = Index(max(min(prev_index, may_agree + 1), self.matched + 1))
        self._paused = False
        return True

    def nudge(self) -> None:
        """The follower is alive: a lost append may be tried again."""
        self._paused = False
        if len(self.in_flight) >= MAX_IN_FLIGHT:
            self.in_flight.popleft()

    def await_snapshot(self, index: Index) -> None:
        """Send nothing until the snapshot at ``index`` has arrived or is given up."""
        self._become(State.SNAPSHOT)
        self.snapshot = index

    def give_up_snapshot(self) -> None:
        """The snapshot got lost, or its sender failed: find out anew where the follower stands, once it is heard of."""
        if self.state is State.SNAPSHOT:
            self._become(State.PROBE)
            self._paused = True  # sent at once, the next one would fail like this one, for as long as nobody is there
            self.next = Index(self.matched + 1)

    def tick(self, *, snapshot_patience: int) -> None:
        """Let time pass; a snapshot that was under way for so many ticks is given up."""
        self.silent_ticks += 1
        if self.farewell_ticks is not None:
            self.farewell_ticks -= 1
        if self.state is State.SNAPSHOT:
            self.waited_ticks += 1
            if self.waited_ticks >= snapshot_patience:
                self.give_up_snapshot()

    @property
    def waits_by_ticks(self) -> bool:
        """Whether a tick may end something."""
        return self.state is State.SNAPSHOT or self.farewell_ticks is not None

    def say_farewell(self, ticks: int) -> None:
        """The follower is no member any more; it may be forgotten after ``ticks``."""
        if self.farewell_ticks is None:
            self.farewell_ticks = ticks

    def _become(self, state: State) -> None:
        self.state = state
        self.snapshot = Index(0)
        self.waited_ticks = 0
        self._paused = False
        self.in_flight.clear()
