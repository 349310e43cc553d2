"""What a member counts while it works, for its metrics. None of it is replicated, and nothing decides by it."""

from bisect import bisect_left
from dataclasses import dataclass

BUCKETS_S = tuple(0.001 * 2**power for power in range(14))  # etcd's: 1 ms to 8.192 s


class Histogram:
    """How often something took how long. May be observed from another thread than it is read from."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)  # up to and with each bound; the last: longer than all
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one more."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds

    def cumulative(self) -> list[tuple[str, int]]:
        """Return (bound, how many took at most that) as Prometheus wants them, the last bound being +Inf."""
        total = 0
        rows = []
        for bound, count in zip((*map("{:g}".format, BUCKETS_S), "+Inf"), self.counts, strict=True):
            total += count
            rows.append((bound, total))
        return rows


@dataclass(slots=True)
class Applied:
    """What the machine has done since the process started."""

    puts: int = 0
    deletes: int = 0  # requests, whatever they found
    txns: int = 0
    leases_granted: int = 0
    leases_renewed: int = 0
    leases_revoked: int = 0
    leases_expired: int = 0


wal_syncs = Histogram()  # of this process: a process is one member
