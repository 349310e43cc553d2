"""Runs programs of the host to their end; blocks."""

import subprocess
from collections.abc import Sequence
from typing import Protocol

from node_agent.errors import CommandFailed

TIMEOUT_S = 30.0


class Runner(Protocol):
    """Runs a program to its end and returns its standard output."""

    def __call__(self, argv: Sequence[str], stdin: str = "") -> str:
        """Raise CommandFailed on a non-zero status or when it takes longer than TIMEOUT_S."""
        ...


def run_command(argv: Sequence[str], stdin: str = "") -> str:
    """Run a program of the host."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as exc:
        raise CommandFailed(argv, -1, f"no answer within {TIMEOUT_S:g} s") from exc
    except FileNotFoundError as exc:
        raise CommandFailed(argv, 127, "program not found on this host") from exc
    if done.returncode != 0:
        raise CommandFailed(argv, done.returncode, done.stderr or done.stdout)
    return done.stdout
