"""Run one member: ``python -m raft_store --config FILE``."""

import argparse
import asyncio
import gc
import logging
import resource
import signal
import sys
from pathlib import Path

import uvloop

from .config import Config, ConfigError, load_config
from .disk.directory import DiskError
from .engine import EngineError, Removed
from .member import running
from .peers import ListenFailed

log = logging.getLogger(__name__)

BAD_CONFIG = 2
SWITCH_S = 0.0005  # instead of 5 ms
GC_THRESHOLDS = (50_000, 20, 50)
REMOVED = 3


def main() -> int:
    """Return the exit status: 1 when the member could not run or go on, 2 for a bad file, 3 when it was removed."""
    parser = argparse.ArgumentParser(prog="raft_store", description="One member of the replicated store.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="TOML file of this member")
    parser.add_argument(
        "--force-new-cluster",
        action="store_true",
        help="the majority is lost: go on alone with this member's data; all others are removed and never come back",
    )
    parser.add_argument("--verbose", action="store_true", help="log every message")
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    try:
        config = load_config(arguments.config)
    except ConfigError as exc:
        print(f"raft_store: {exc}", file=sys.stderr)  # noqa: T201 - for whoever typed the command
        return BAD_CONFIG
    tune()
    try:
        failure = uvloop.run(_serve(config, force_new_cluster=arguments.force_new_cluster))
    except Removed as exc:
        log.error("cannot run reason=%s", exc)  # noqa: TRY400 - the reason says it all
        return REMOVED
    except (OSError, EngineError, DiskError, ListenFailed, ValueError) as exc:
        log.error("cannot run reason=%s", exc)  # noqa: TRY400 - the reason says it all
        return 1
    match failure:
        case None:
            return 0
        case Removed():
            return REMOVED
        case _:
            return 1


def tune() -> None:
    """Set the process up for one busy event loop beside threads that wait for the disk."""
    take_all_files()
    # A thread whose sync is done has to get a word in at once: it is what all acknowledgements wait for.
    sys.setswitchinterval(SWITCH_S)
    # What a store holds stays, and has no cycles; to look through it again and again would stall everybody.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def take_all_files() -> None:
    """Raise the number of files that may be open as far as we are let: each connection is one."""
    # The soft limit is for programs that cannot take more than 1,024.
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (OSError, ValueError) as exc:  # a hard limit beyond the kernel's own, say
        log.warning("goes on with files=%d of %d reason=%s", least, most, exc)


async def _serve(config: Config, *, force_new_cluster: bool) -> Exception | None:
    """Run until told to stop or unable to go on; return why, if so."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with running(config, force_new_cluster=force_new_cluster) as member:
        # What was loaded stays: the collector need not walk over a million keys whenever it looks for garbage.
        gc.collect()
        gc.freeze()
        waiting = [asyncio.ensure_future(event.wait()) for event in (stopping, member.failed)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for wait in waiting:
            wait.cancel()
        log.info("stopping name=%s", config.name)
    return member.failure


if __name__ == "__main__":
    sys.exit(main())
