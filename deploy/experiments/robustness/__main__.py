"""Torment real members for as long as you like: ``python -m deploy.experiments.robustness --minutes 60``."""

import argparse
import asyncio
import logging
import sys
import time
from pathlib import Path
from random import Random

from deploy.experiments.robustness.members import Members
from deploy.experiments.robustness.nemesis import FAULTS, WITHOUT_WIRES
from deploy.experiments.robustness.report import line_of, summary, write_html
from deploy.experiments.robustness.run import Round, Shape, run_round, write_history

ROUND_S = 60.0


def main(argv: list[str] | None = None) -> int:
    """Return 0 if every promise was kept, 1 if one was broken, 2 if something could not be decided."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING)
    folder = arguments.folder or Path("results") / f"robustness-{time.strftime('%Y%m%d-%H%M%S')}"
    rounds = asyncio.run(torment_for(folder, arguments))
    write_html(folder / "report.html", rounds, engine=arguments.engine, members=arguments.members)
    _print(summary(rounds))
    _print(f"report and histories: {folder}")
    if any(each.judgement.faults for each in rounds):
        return 1
    return 0 if all(each.judgement.decided for each in rounds) else 2


async def torment_for(folder: Path, arguments: argparse.Namespace) -> list[Round]:
    """Run rounds until the time is over; a round that is in order leaves its figures only."""
    rounds: list[Round] = []
    chance = Random(arguments.seed)  # noqa: S311 - has to be repeatable
    native = arguments.engine == "native"
    async with Members(folder / "members", size=arguments.members, engine=arguments.engine, random=chance) as members:
        end = time.monotonic() + arguments.minutes * 60
        while (left := end - time.monotonic()) > 0:
            shape = Shape(
                faults=FAULTS if native else WITHOUT_WIRES,
                for_s=min(ROUND_S, left),
                # Several writers at once stall raftos at once (docs/raftos.md): that would be all that one sees.
                clients=4 if native else 1,
                readers=0 if native else 3,
                holders=2 if native else 0,
            )
            each = await run_round(members, len(rounds) + 1, arguments.seed, shape)
            rounds.append(each)
            _print(line_of(each))
            history = write_history(folder, each)
            if not each.judgement.faults and each.judgement.decided:
                history.unlink()
            each.records.operations.clear()
            each.records.watches.clear()
            if not each.served:
                break
    return rounds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.experiments.robustness", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="for so long")
    parser.add_argument("--members", type=int, default=3, choices=(1, 3, 5), help="how many (3)")
    parser.add_argument("--engine", default="native", choices=("native", "raftos"), help="of the store (native)")
    parser.add_argument("--seed", type=int, default=1, help="which faults, and which requests; not when they meet")
    parser.add_argument("--folder", type=Path, help="where report, histories and the members' files go (results/...)")
    return parser


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
