"""What a plain put costs a member's machine, without a group, a disk or a client: CPU time, the best of several rounds.

    .venv/bin/python -m benchmarks.apply [PUTS_AT_ONCE]

Every member pays it for every put of anybody; a follower, where nobody waits for results, less.
"""

import gc
import itertools
import sys
import time
from collections.abc import Iterator

from raft_store.__main__ import GC_THRESHOLDS
from raft_store.engine import Entry, Index, Term
from raft_store.machine import Machine, encode
from raft_store.mvcc.lease import LeaseClock
from raft_store.mvcc.requests import Put

VALUE = b"v" * 256
PUTS = 20_000
ROUNDS = 7
KEYS = {
    "one key": lambda: itertools.repeat(b"bench/key"),
    "1,000 keys": lambda: itertools.cycle([b"bench/%06d" % i for i in range(1000)]),
    "new keys": lambda: (b"bench/%08d" % i for i in itertools.count()),
}


def cost_us(keys: Iterator[bytes], *, at_once: int, wanted: bool) -> float:
    """Return what a put costs a new machine."""
    machine = Machine(LeaseClock(lambda: 0.0))
    portions = [
        [Entry(Index(index), Term(1), encode(Put(next(keys), VALUE))) for _ in range(at_once)]
        for index in range(1, PUTS // at_once + 1)
    ]
    gc.collect()
    began_s = time.process_time()
    for portion in portions:
        machine.apply(portion, wanted=wanted)
    return (time.process_time() - began_s) / (len(portions) * at_once) * 1e6


def main() -> None:
    at_once = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    gc.set_threshold(*GC_THRESHOLDS)
    print(f"{at_once} puts at once, {len(VALUE)} bytes each; us of CPU a put, with and without results")
    for name, keys in KEYS.items():
        costs = [
            min(cost_us(keys(), at_once=at_once, wanted=wanted) for _ in range(ROUNDS)) for wanted in (True, False)
        ]
        print(f"{name:>12}  {costs[0]:6.2f} {costs[1]:6.2f}")


if __name__ == "__main__":
    main()
