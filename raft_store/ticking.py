"""When a replica has to be told that time passes: not at every tick, only before one can make it do something.

An idle member that is woken by every tick spends most of its time on waking. Its replica says how many ticks may pass
unnoticed (``Replica.quiet_ticks``); they are made up for when something happens, or when the last of them is due.
"""

EARLY_S = 0.001  # a timer of a loop that counts milliseconds may come so much before its time


class Ticks:
    """Counts ticks of ``tick_s`` seconds by need. Without I/O: told the time, it says how many have passed.

    A stall of the process must not look like silence of the others. So never more ticks pass than were planned, however
    long they took; and the one that may have consequences is told apart from those before it, for what arrived
    meanwhile has to be read in between.
    """

    def __init__(self, tick_s: float, now_s: float) -> None:
        self._tick_s = tick_s
        self._from_s = now_s  # up to here all ticks are counted
        self._planned = 1
        self.next_s = now_s + tick_s - EARLY_S  # before that no tick has passed

    @property
    def due_s(self) -> float:
        """Return when the last planned tick is over."""
        return self._from_s + self._planned * self._tick_s

    def plan(self, count: int) -> None:
        """The next ``count`` ticks, 1 at least, may pass without anything happening before the last one is over."""
        self._planned = count

    def pass_quietly(self, now_s: float) -> int:
        """Return how many ticks have passed that have no consequences: all that were planned but the last."""
        count = min(int((now_s - self._from_s) / self._tick_s), self._planned - 1)
        self._begin_from(self._from_s + count * self._tick_s)
        self._planned -= count
        return count

    def late(self, now_s: float) -> int:
        """Return how many whole ticks ago the last planned one was over: for so long nobody here looked."""
        return max(0, int((now_s - self.due_s) / self._tick_s))

    def is_over(self, now_s: float) -> bool:
        """Return, once, whether the last planned tick is over."""
        if now_s < self.due_s - EARLY_S:
            return False
        self._begin_from(now_s)
        self._planned = 1
        return True

    def _begin_from(self, at_s: float) -> None:
        self._from_s, self.next_s = at_s, at_s + self._tick_s - EARLY_S
