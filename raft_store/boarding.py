"""When proposals that wait go into the log: while each turn of the loop brings more of them, they share an entry.

Clients that were answered together ask together again, over connections of their own, and the loop reads those one by
one. Whoever was read first would otherwise have an entry, a sync and a round to the followers before the last is read;
everybody else would wait for the end of that.
"""

GATHER_S = 0.001  # for so long at most ...
GATHER_ITEMS = 256  # ... and for so many
# The first of many may be read before the others are sent: where many came lately, few wait for so long in any case.
FEW_WAIT_S = 0.0001
FADES = 0.9  # what came lately counts so much less with each boarding


class Boarding:
    """Counts what came since the last boarding."""

    def __init__(self) -> None:
        self._since_s = 0.0  # when the first of them came
        self._items = 0
        self._fresh = False  # the turn that ends now brought some
        self._lately = 0.0  # how many boarded together

    def add(self, items: int, now_s: float) -> None:
        """Proposals have come that may share an entry with others."""
        if not self._items:
            self._since_s = now_s
        self._items += items
        self._fresh = True

    def waits(self, now_s: float) -> bool:
        """At the end of a turn: return whether the next one is awaited before anything boards."""
        items, waited_s = self._items, now_s - self._since_s
        if not items:
            return False
        fresh, self._fresh = self._fresh, False
        few = items * 2 < self._lately
        if items < GATHER_ITEMS and ((fresh and waited_s < GATHER_S) or (few and waited_s < FEW_WAIT_S)):
            return True
        self._items, self._lately = 0, max(items, self._lately * FADES)
        return False
