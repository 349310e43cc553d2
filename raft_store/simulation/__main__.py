"""Simulate seeds: ``python -m raft_store.simulation --seed 7 --verbose``; the first that breaks a promise is shrunk."""

import argparse
import logging
import multiprocessing
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from raft_store.simulation.plan import Plan
from raft_store.simulation.runs import KINDS, Breach, breach_of, shrink, simulate
from raft_store.simulation.world import World


def main(argv: list[str] | None = None) -> int:
    """Run the seeds asked for; return 1 if any broke a promise."""
    arguments = _parser().parse_args(argv)
    # Torn tails are daily bread here.
    logging.getLogger("raft_store.disk.wal").setLevel(logging.ERROR)
    names = list(KINDS) if arguments.world == "all" else [arguments.world]
    seeds = range(arguments.seed, arguments.seed + arguments.count)
    if arguments.verbose:
        for name in names:
            for seed in seeds:
                breach_of(KINDS[name], KINDS[name].draw(seed), tell=_print)
    broken = False
    for name in names:
        began = time.monotonic()
        count = 0
        for seed, breach in _breaches(name, seeds, arguments.jobs):
            count += 1
            if breach is not None:
                broken = True
                report(name, seed, breach, tries=arguments.tries)
                break
            if arguments.count == 1:
                _print(f"{name} seed {seed}: {summary(simulate(KINDS[name], KINDS[name].draw(seed)))}")
        took_s = time.monotonic() - began
        _print(f"{name}: {count} seeds from {arguments.seed} in {took_s:.1f} s ({count / took_s:.1f} a second)")
    return int(broken)


def report(name: str, seed: int, breach: Breach, *, tries: int) -> None:
    """Print what broke, the shrunk history of it, and how to see it again."""
    kind, plan = KINDS[name], KINDS[name].draw(seed)
    _print(f"{name} seed {seed}: BROKEN: {breach.text}")
    smaller, breach = shrink(kind, plan, breach, tries=tries)
    _print(f"shrunk from {len(plan.actions)} actions to {len(smaller.actions)}, weather {_weather(smaller)}:")
    for action in smaller.actions:
        _print(f"  {action.told()}")
    _print("which happens like this:")
    breach_of(kind, smaller, tell=lambda line: _print(f"  {line}"))
    _print(f"BROKEN: {breach.text}")
    _print(f"replay: make sim SEED={seed} WORLD={name}    (commit {_commit()})")


def summary(world: World) -> str:
    """Return what happened, in one line."""
    terms = max(world.judge.elected, default=0)
    return (
        f"every promise kept members={len(world.hosts)} steps={world.timeline.steps} crashes={world.crashes} "
        f"terms={terms} committed={len(world.judge.committed)}"
    )


def _breaches(name: str, seeds: Iterable[int], jobs: int) -> Iterator[tuple[int, Breach | None]]:
    """Yield each seed's outcome, in order."""
    if jobs <= 1:
        yield from ((seed, _breach((name, seed))) for seed in seeds)
        return
    tasks = [(name, seed) for seed in seeds]
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for (_, seed), breach in zip(tasks, pool.imap(_breach, tasks, chunksize=4), strict=True):
            yield seed, breach


def _breach(task: tuple[str, int]) -> Breach | None:
    name, seed = task
    return breach_of(KINDS[name], KINDS[name].draw(seed))


def _weather(plan: Plan) -> str:
    weather = plan.weather
    return f"drop={weather.drop} repeat={weather.repeat} straggle={weather.straggle}"


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown"
    asked = subprocess.run(
        [git, "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m raft_store.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="which history")
    parser.add_argument("--count", type=int, default=1, help="so many seeds, from --seed on")
    parser.add_argument("--world", choices=(*KINDS, "all"), default="all", help="docs/proving.md has them")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--tries", type=int, default=400, help="runs to spend on shrinking a broken history")
    parser.add_argument("--verbose", action="store_true", help="print every event")
    return parser


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
