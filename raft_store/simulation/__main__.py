"""Replay one seed: ``python -m raft_store.simulation --seed 7 --verbose``."""

import argparse
import sys

from raft_store.simulation.invariants import Violation
from raft_store.simulation.world import World, simulate


def main() -> int:
    """Run the seeds asked for; return 1 at the first broken promise."""
    parser = argparse.ArgumentParser(prog="python -m raft_store.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, required=True, help="which history")
    parser.add_argument("--count", type=int, default=1, help="so many seeds, from --seed on")
    parser.add_argument("--verbose", action="store_true", help="print every event")
    arguments = parser.parse_args()
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        try:
            world = simulate(seed, tell=_print if arguments.verbose else None)
        except Violation as exc:
            _print(f"seed {seed}: BROKEN: {exc}")
            _print(f"replay: python -m raft_store.simulation --seed {seed} --verbose")
            return 1
        _print(f"seed {seed}: {summary(world)}")
    return 0


def summary(world: World) -> str:
    """Return what happened, in one line."""
    lives = sum(member.life for member in world.members.values()) - len(world.members)
    terms = max(member.replica.core.term for member in world.members.values())
    return (
        f"every promise kept members={len(world.members)} steps={world.steps} crashes={lives} terms={terms} "
        f"committed={len(world.judge.committed)} acknowledged={len(world.judge.acknowledged)}"
    )


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
