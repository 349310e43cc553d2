"""``python -m node_agent --config /etc/trireme/node.toml`` runs one node agent."""

import argparse
import logging
import sys
from pathlib import Path

import uvloop

from node_agent import program
from node_agent.config import BadConfig, load_config
from node_agent.joining import JoinRefused

log = logging.getLogger(__name__)

BAD_CONFIG = 2


def main() -> int:
    """Run until SIGTERM; return the exit status: 2 for a bad file, 1 if the agent could not run."""
    parser = argparse.ArgumentParser(prog="python -m node_agent", description="Run one node of a Trireme lab.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="path of node.toml")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    arguments = parser.parse_args()
    logging.basicConfig(
        level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
    )
    try:
        config = load_config(arguments.config)
    except BadConfig as exc:
        sys.stderr.write(f"node_agent: {exc}\n")
        return BAD_CONFIG
    try:
        uvloop.run(program.run(config))
    except (OSError, JoinRefused) as exc:
        log.error("cannot run reason=%s", exc)  # noqa: TRY400 - the address says it all
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
