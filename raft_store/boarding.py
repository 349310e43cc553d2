"""When proposals that wait go into the log: while each turn of the loop brings more of them, they share an entry.

Clients that were answered together ask together again, over connections of their own, and the loop reads those one by
one. Whoever was read first would otherwise have an entry, a sync and a round to the followers before the last is read;
everybody else would wait for the end of that.
"""

GATHER_S = 0.001  # for so long at most ...
GATHER_ITEMS = 256  # ... and for so many


class Boarding:
    """Counts what came since the last boarding."""

    def __init__(self) -> None:
        self._since_s = 0.0  # when the first of them came
        self._items = 0
        self._fresh = False  # the turn that ends now brought some

    def add(self, items: int, now_s: float) -> None:
        """Proposals have come that may share an entry with others."""
        if not self._items:
            self._since_s = now_s
        self._items += items
        self._fresh = True

    def waits(self, now_s: float) -> bool:
        """At the end of a turn: return whether the next one is awaited before anything boards."""
        fresh, self._fresh = self._fresh, False
        if fresh and self._items < GATHER_ITEMS and now_s - self._since_s < GATHER_S:
            return True
        self._items = 0
        return False
