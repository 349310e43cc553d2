"""Running other programs."""

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from deploy.errors import CommandFailed


def run(
    argv: Sequence[str],
    *,
    stdin: IO[bytes] | None = None,
    timeout_s: float = 600,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> str:
    """Return what ``argv`` printed (both streams, in order); raises CommandFailed.

    log: a file to which the command line and its output are appended, whatever comes of it.
    """
    try:
        done = subprocess.run(
            list(argv),
            stdin=stdin if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            cwd=cwd,
            env=env,
            check=False,
        )
        status, output = done.returncode, done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as exc:
        status, output = None, (exc.stdout or b"").decode(errors="replace")
    except FileNotFoundError as exc:
        raise CommandFailed(argv, 127, f"{exc.filename} is not installed") from exc
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            file.write(f"$ {quote(argv)}\n{output}\n")
    if status != 0:
        raise CommandFailed(argv, status, output)
    return output


def quote(argv: Sequence[str]) -> str:
    """Return ``argv`` as one line that a shell splits into the same words."""
    return shlex.join(argv)
