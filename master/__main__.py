"""``python -m master --config /etc/trireme/master.toml`` runs one master."""

import gc

# What is loaded now, and the watch cache that is filled next, stays: looking through it for garbage would cost a start
# a tenth of its time. ``program.run`` begins to collect.
gc.disable()

import argparse  # noqa: E402
import logging  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import uvloop  # noqa: E402

from master import config, program  # noqa: E402


def main() -> int:
    """Run until SIGTERM; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m master", description="Run one master of a Trireme lab.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="path of master.toml")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    arguments = parser.parse_args()
    logging.basicConfig(
        level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
    )
    try:
        settings = config.load(arguments.config)
        uvloop.run(program.run(settings))
    except (config.ConfigError, program.CannotStart) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
