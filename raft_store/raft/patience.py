"""How long a silence has to last before it is taken for death.

A time-out that suits a quiet machine is too short for a loaded one: there a leader that lives may not get to run for
hundreds of milliseconds. So a member measures how long those were silent who turned out to live, and waits that long
and a good deal longer:

    time-out = floor + MARGIN x (longest silence - what is usual), and never beyond the ceiling

One silence is enough to widen it, at once; what was added is halved after two minutes without another one. What lasted
longer than the ceiling was an outage, whoever came back: no time-out of ours could have outlasted it, and nothing is
learned from it.

The floor is what a member promises. Leases rest on it, and it never waits less: what it does beyond is a kindness
that nobody may count on, for a moment later it may have come back to its floor.
"""

from raft_store.engine import MemberId, Term

USUAL_TICKS = 3  # beyond a heartbeat's: two clocks' ticks begin at different moments, and a process that starts nearby
# takes the others' turn for as long; whoever took that for load would be slow to replace a leader on a quiet machine
MARGIN = 8  # ticks more for every tick that a silence was longer than usual: an hour's worst is many times a minute's
NARROW_TICKS = 4000  # between two steps back to the floor


class Patience:
    """A member's election time-out, in ticks; told of every sign of life, and that time passes."""

    __slots__ = ("_ceiling", "_clock", "_floor", "_heard", "_late", "_late_since", "_usual", "counts", "ticks")

    def __init__(self, *, heartbeat_ticks: int, floor_ticks: int, ceiling_ticks: int) -> None:
        """heartbeat_ticks: between two signs of life if nothing is amiss."""
        assert heartbeat_ticks < floor_ticks <= ceiling_ticks, (heartbeat_ticks, floor_ticks, ceiling_ticks)
        self._floor = floor_ticks
        self._ceiling = ceiling_ticks
        self._usual = heartbeat_ticks + USUAL_TICKS
        self._clock = 0
        self._late: int  # ticks by which the longest silence that we remember was longer than usual
        self._late_since: int
        self.ticks: int  # the time-out
        self._remember(0)
        self._heard: dict[MemberId, tuple[Term, int]] = {}  # leader -> (in which term, when) we heard of it last
        self.counts = [0] * (ceiling_ticks + 2)  # signs of life by the ticks before them; the last: any more

    def tick(self, count: int = 1) -> None:
        """Let time pass; the time-out stays as it is until ``heard``, ``outlived`` or ``relax``."""
        self._clock += count

    def heard(self, leader: MemberId, term: Term) -> None:
        """A sign of life came from whoever leads ``term``, or did; its silence before may have been a long one."""
        before = self._heard.get(leader)
        if before is not None and before[0] == term:
            if before[1] == self._clock:
                return
            self.outlived(self._clock - before[1])
        self._heard[leader] = (term, self._clock)

    def outlived(self, silence_ticks: int) -> None:
        """Somebody was silent for so long, and lived."""
        self.counts[min(silence_ticks, self._ceiling + 1)] += 1
        late = silence_ticks - self._usual
        if late > 0 and late >= self._late and silence_ticks <= self._ceiling:
            self._remember(late)
        else:
            self.relax()

    def relax(self) -> None:
        """Come nearer to the floor if nothing was late for long. A leader whose followers are in time says so."""
        if self._late and self._clock - self._late_since >= NARROW_TICKS:
            self._remember(self._late // 2)

    def _remember(self, late: int) -> None:
        self._late, self._late_since = late, self._clock
        self.ticks = min(self._ceiling, self._floor + MARGIN * late)
