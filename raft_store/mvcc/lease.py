"""Leases: the replicated part (which exist, which keys they hold) and one member's clock over them.

No clock is replicated. Every member starts a lease's time anew when it applies its grant or a renewal; only the
leader's clock counts, and what it finds expired goes through the log together with the number of renewals it knew
of, so a renewal that was committed first saves the lease.
"""

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush

import msgspec

from .model import NO_LEASE, LeaseExists, LeaseId, LeaseNotFound, LeaseTooLong
from .requests import Expiry

MAX_TTL_S = 9_000_000_000
MOST_STALE = 64  # ends of renewed or ended leases that may stand in the queue, beside as many as there are leases


class Lease(msgspec.Struct):
    """A lease in force."""

    lease: LeaseId
    ttl_s: int
    renewals: int = 0
    keys: set[bytes] = msgspec.field(default_factory=set)


class LeaseTable:
    """Every lease, with the keys attached to it; the same on every member."""

    def __init__(self, leases: Iterable[Lease] = ()) -> None:
        self._leases = {lease.lease: lease for lease in leases}

    def __len__(self) -> int:
        return len(self._leases)

    def get(self, lease: LeaseId) -> Lease | None:
        """Return a lease in force."""
        return self._leases.get(lease)

    def all(self) -> list[Lease]:
        """Return every lease, in the order of their ids."""
        return [self._leases[lease] for lease in sorted(self._leases)]

    def check(self, lease: LeaseId) -> None:
        """Raise LeaseNotFound unless ``lease`` is none at all or in force."""
        if lease != NO_LEASE and lease not in self._leases:
            raise LeaseNotFound(lease)

    def grant(self, lease: LeaseId, ttl_s: int) -> Lease:
        """Make a lease. Raises LeaseExists, LeaseTooLong; LeaseNotFound for id 0."""
        if lease == NO_LEASE:
            raise LeaseNotFound(lease)
        if ttl_s > MAX_TTL_S:
            raise LeaseTooLong(ttl_s)
        if lease in self._leases:
            raise LeaseExists(lease)
        granted = self._leases[lease] = Lease(lease, ttl_s)
        return granted

    def revoke(self, lease: LeaseId) -> list[bytes]:
        """End a lease; return its keys in order, to be deleted. Raises LeaseNotFound."""
        ended = self._leases.pop(lease, None)
        if ended is None:
            raise LeaseNotFound(lease)
        return sorted(ended.keys)

    def renew(self, lease: LeaseId) -> int:
        """Count a renewal; return the granted TTL, 0 if there is no such lease."""
        renewed = self._leases.get(lease)
        if renewed is None:
            return 0
        renewed.renewals += 1
        return renewed.ttl_s

    def move(self, key: bytes, before: LeaseId, after: LeaseId) -> None:
        """Note that ``key`` has changed its lease."""
        if before != after:
            self.detach(key, before)
        self.attach(key, after)

    def attach(self, key: bytes, lease: LeaseId) -> None:
        """Note that a key's present version names ``lease``, which exists unless it is 0."""
        if lease != NO_LEASE:
            self._leases[lease].keys.add(key)

    def detach(self, key: bytes, lease: LeaseId) -> None:
        """Note that a key's present version names ``lease`` no more."""
        holder = self._leases.get(lease)
        if holder is not None:
            holder.keys.discard(key)


class LeaseClock:
    """When each lease ends, by this member's clock. ``now`` is injected: seconds, never going back."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self._ends: dict[LeaseId, float] = {}
        # A heap of them, so that nobody looks at ten thousand leases several times a second to find that none is over.
        # A renewal leaves the old end in it, which counts no more.
        self._queue: list[tuple[float, LeaseId]] = []

    def start(self, lease: LeaseId, ttl_s: int) -> None:
        """Give a lease its whole time from now."""
        end = self._ends[lease] = self.now() + ttl_s
        heappush(self._queue, (end, lease))
        if len(self._queue) > 2 * len(self._ends) + MOST_STALE:
            self._queue = [(end, lease) for lease, end in self._ends.items()]
            heapify(self._queue)

    def stop(self, lease: LeaseId) -> None:
        """Forget a lease that ended."""
        self._ends.pop(lease, None)

    def restart(self, leases: Iterable[Lease]) -> None:
        """Give every lease its whole time: a new leader cannot know how much had passed for the old one."""
        self._ends.clear()
        self._queue.clear()
        for lease in leases:
            self.start(lease.lease, lease.ttl_s)

    def remaining_s(self, lease: LeaseId) -> float:
        """Return the time left; 0 when it has run out or was never started."""
        return max(0.0, self._ends.get(lease, 0.0) - self.now())

    def expired(self, leases: LeaseTable, limit: int) -> list[Expiry]:
        """Return at most ``limit`` leases whose time has run out, the first ones, again and again until ``stop``."""
        now, queue = self.now(), self._queue
        due: dict[tuple[float, LeaseId], None] = {}
        found: list[Expiry] = []
        while queue and queue[0][0] <= now and len(found) < limit:
            entry = heappop(queue)
            end, lease = entry
            if self._ends.get(lease) != end or entry in due:  # renewed since, or twice in the same moment
                continue
            due[entry] = None
            if (known := leases.get(lease)) is not None:
                found.append(Expiry(lease, known.renewals))
        for entry in due:
            heappush(queue, entry)
        return found
