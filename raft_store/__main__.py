"""Run one member: ``python -m raft_store --config FILE``."""

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

import uvloop

from .config import Config, ConfigError, load_config
from .engine import EngineError
from .member import running

log = logging.getLogger(__name__)

BAD_CONFIG = 2


def main() -> int:
    """Return the exit status: 2 for a bad file, 1 when the member could not run."""
    parser = argparse.ArgumentParser(prog="raft_store", description="One member of the replicated store.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="TOML file of this member")
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
    try:
        uvloop.run(_serve(config))
    except (OSError, EngineError) as exc:
        log.error("cannot run reason=%s", exc)  # noqa: TRY400 - the reason says it all
        return 1
    return 0


async def _serve(config: Config) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with running(config):
        await stopping.wait()
        log.info("stopping name=%s", config.name)


if __name__ == "__main__":
    sys.exit(main())
