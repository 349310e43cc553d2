"""Figures about the requests served, in the text format that Prometheus scrapes."""

import os
import resource
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# Beyond this many different label sets further ones are counted as "other": a scrape stays small whatever is asked.
MAX_SERIES = 2_000
_PROC = Path("/proc/self")


class Metrics:
    """Counts requests by verb, resource and code, and their durations by verb and resource.

    Watches count when they end, and not in the durations.
    """

    def __init__(self) -> None:
        self._started_unix_s = time.time()
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._buckets: dict[tuple[str, str], list[int]] = {}
        self._seconds: Counter[tuple[str, str]] = Counter()

    def observe(self, verb: str, resource_name: str, code: int, seconds: float) -> None:
        """Count one answered request."""
        if (verb, resource_name, code) not in self._requests and len(self._requests) >= MAX_SERIES:
            verb, resource_name = "other", "other"
        self._requests[verb, resource_name, code] += 1
        if verb in ("watch", "connect"):
            return
        counts = self._buckets.get((verb, resource_name))
        if counts is None:
            counts = self._buckets[verb, resource_name] = [0] * (len(BUCKETS_S) + 1)
        counts[bisect_left(BUCKETS_S, seconds)] += 1
        self._seconds[verb, resource_name] += seconds  # type: ignore[assignment]

    def render(self, *, open_streams: int) -> str:
        """Return every series as text."""
        return "\n".join([*self._lines(open_streams)]) + "\n"

    def _lines(self, open_streams: int) -> Iterator[str]:
        yield "# HELP apiserver_request_total Requests answered, by verb, resource and HTTP code."
        yield "# TYPE apiserver_request_total counter"
        for (verb, name, code), count in sorted(self._requests.items()):
            yield f'apiserver_request_total{{verb="{verb.upper()}",resource="{name}",code="{code}"}} {count}'
        yield "# HELP apiserver_request_duration_seconds Time to answer, without watches."
        yield "# TYPE apiserver_request_duration_seconds histogram"
        for (verb, name), counts in sorted(self._buckets.items()):
            yield from self._histogram(verb, name, counts)
        yield "# HELP apiserver_longrunning_requests Watches and streams that are open."
        yield "# TYPE apiserver_longrunning_requests gauge"
        yield f"apiserver_longrunning_requests {open_streams}"
        yield from _process(self._started_unix_s)

    def _histogram(self, verb: str, name: str, counts: list[int]) -> Iterator[str]:
        labels = f'verb="{verb.upper()}",resource="{name}"'
        below = 0
        for bound, count in zip((*BUCKETS_S, "+Inf"), counts, strict=True):
            below += count
            yield f'apiserver_request_duration_seconds_bucket{{{labels},le="{bound}"}} {below}'
        yield f"apiserver_request_duration_seconds_sum{{{labels}}} {self._seconds[verb, name]:.6f}"
        yield f"apiserver_request_duration_seconds_count{{{labels}}} {below}"


def _process(started_unix_s: float) -> Iterator[str]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    resident = int((_PROC / "statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    yield "# TYPE process_cpu_seconds_total counter"
    yield f"process_cpu_seconds_total {usage.ru_utime + usage.ru_stime:.3f}"
    yield "# TYPE process_resident_memory_bytes gauge"
    yield f"process_resident_memory_bytes {resident}"
    yield "# TYPE process_start_time_seconds gauge"
    yield f"process_start_time_seconds {started_unix_s:.3f}"
    yield "# TYPE process_open_fds gauge"
    yield f"process_open_fds {sum(1 for _ in (_PROC / 'fd').iterdir())}"
