"""Ranges of keys, and which of them contain a key: without looking at each.

Theory of operation
-------------------
The ranges stand in a list, sorted by their first keys; those that can contain a key are a run from its beginning. Over
the list stands a tree of the highest end in each half, quarter, and so on of it: a part whose highest end is not above
the key is passed over. So a look costs the ranges that are found and a logarithm for each. The tree is not changed,
but built anew when enough has changed; until then what came since is looked at one by one, and what has gone is
skipped. A few ranges are just looked at.
"""

from bisect import bisect_right
from collections.abc import Iterator

from .model import REST_OF_KEYS, covers

Span = tuple[bytes, bytes]  # [first, end), also with REST_OF_KEYS as its end, but never a single key

FEW = 16  # a scan of so many is as fast as anything else
SHARE = 8  # built anew when one part of so many has come or gone


class Spans:
    """A set of ranges."""

    def __init__(self) -> None:
        self._present: set[Span] = set()
        self._fresh: dict[Span, None] = {}  # not in the tree
        self._stale = 0  # in the tree, but gone
        self._open: list[Span] = []  # of the tree: without an end, sorted
        self._sorted: list[Span] = []  # all others, sorted
        self._tree: list[bytes] = []  # [1]: the highest end of all; [2n], [2n+1]: of the halves of what [n] is about
        self._leaves = 1  # a power of two: [leaves + i] is the end of sorted[i]

    def __len__(self) -> int:
        return len(self._present)

    def add(self, span: Span) -> None:
        """Add a range that is not there."""
        assert span not in self._present, f"{span} is there already"
        self._present.add(span)
        self._fresh[span] = None
        if len(self._fresh) > FEW + len(self._present) // SHARE:
            self._build()

    def remove(self, span: Span) -> None:
        """Remove a range that is there."""
        self._present.remove(span)
        if span in self._fresh:
            del self._fresh[span]
            return
        self._stale += 1
        if self._stale > FEW + len(self._present) // SHARE:
            self._build()

    def covering(self, key: bytes) -> Iterator[Span]:
        """Iterate over the ranges that contain ``key``; the set must not change meanwhile."""
        for span in self._fresh:
            if covers(*span, key):
                yield span
        if not (self._open or self._sorted):
            return
        # A range that went and came again is in both: it is told of as a fresh one.
        present, fresh = self._present, self._fresh
        for span in self._open[: bisect_right(self._open, (key, REST_OF_KEYS))]:
            if span in present and span not in fresh:
                yield span
        for span in self._ending_above(key, bisect_right(self._sorted, key, key=_first)):
            if span in present and span not in fresh:
                yield span

    def _ending_above(self, key: bytes, count: int) -> Iterator[Span]:
        """Iterate over those of the first ``count`` ranges of the tree whose end is above ``key``."""
        tree, leaves = self._tree, self._leaves
        parts = [(1, 0, leaves)]  # (place in the tree, the ranges it is about)
        while parts:
            place, begin, end = parts.pop()
            if begin >= count or tree[place] <= key:
                continue
            if place >= leaves:
                yield self._sorted[begin]
                continue
            middle = (begin + end) // 2
            parts += ((2 * place + 1, middle, end), (2 * place, begin, middle))

    def _build(self) -> None:
        everything = sorted(self._present)
        self._open = [span for span in everything if span[1] == REST_OF_KEYS]
        self._sorted = [span for span in everything if span[1] != REST_OF_KEYS]
        self._fresh.clear()
        self._stale = 0
        leaves = self._leaves = 1 << max(0, len(self._sorted) - 1).bit_length()
        tree = self._tree = [b""] * leaves + [end for _, end in self._sorted]
        tree += [b""] * (2 * leaves - len(tree))
        for place in range(leaves - 1, 0, -1):
            tree[place] = max(tree[2 * place], tree[2 * place + 1])


def _first(span: Span) -> bytes:
    return span[0]
