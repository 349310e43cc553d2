"""Many deadlines, cheaply: nearly every call ends long before its own.

A wheel of buckets: to add and to forget costs one look-up each, and time is looked at once a bucket. A deadline is
noticed up to one bucket late, never early.
"""

from typing import Generic, TypeVar

BUCKET_S = 0.05

T = TypeVar("T")


def until_beat_s(now_s: float, period_s: float) -> float:
    """Return how long it is until the next multiple of ``period_s`` on a clock.

    Whatever looks at something now and then, and does not care just when, waits so: they all share one waking.
    """
    return period_s - now_s % period_s


def place_of(when_s: float) -> int:
    """Return which bucket a deadline belongs to."""
    return int(when_s / BUCKET_S) + 1


class Deadlines(Generic[T]):
    """What is due when. ``T`` is hashable."""

    def __init__(self) -> None:
        self._buckets: dict[int, dict[T, None]] = {}
        self._next: int | None = None  # the first bucket that was not looked at

    def __bool__(self) -> bool:
        return bool(self._buckets)

    def add(self, item: T, when_s: float) -> int:
        """Note a deadline; return the place to give to ``discard``."""
        bucket = place_of(when_s)
        self._buckets.setdefault(bucket, {})[item] = None
        if self._next is None or bucket < self._next:
            self._next = bucket
        return bucket

    def discard(self, item: T, bucket: int) -> None:
        """Forget a deadline."""
        items = self._buckets.get(bucket)
        if items is not None:
            items.pop(item, None)
            if not items:
                del self._buckets[bucket]

    def all(self) -> list[T]:
        """Return everything that is noted, and not due yet."""
        return [item for items in self._buckets.values() for item in items]

    def due(self, now_s: float) -> list[T]:
        """Return, once, what is due."""
        if not self._buckets or self._next is None:
            return []
        now = int(now_s / BUCKET_S)
        if now - self._next > len(self._buckets):
            passed = sorted(bucket for bucket in self._buckets if bucket <= now)
        else:
            passed = [bucket for bucket in range(self._next, now + 1) if bucket in self._buckets]
        self._next = max(self._next, now + 1)
        return [item for bucket in passed for item in self._buckets.pop(bucket)]
