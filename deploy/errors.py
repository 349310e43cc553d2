"""What can go wrong, as one tree; the command line prints each without a traceback.

DeployError                what is wrong, and what to do about it
├── UsageError             the caller asked for something that cannot be (exit status 2)
├── EngineUnavailable      no Docker engine answers
├── HostFailed             a host could not be made, started or reached
├── NotReady               the hosts run, but the cluster did not come up in time
└── CommandFailed          a program that we ran failed: its arguments, exit status and output
"""

import shlex
from collections.abc import Sequence


class DeployError(Exception):
    """What is wrong; ``hint`` says what to do about it."""

    exit_status = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(DeployError):
    """A wrong name, a lab that is not there, an impossible size."""

    exit_status = 2


class EngineUnavailable(DeployError):
    """No Docker engine answers, or it refuses us."""


class HostFailed(DeployError):
    """A host could not be made, started or reached."""


class NotReady(DeployError):
    """The hosts run, but masters or nodes did not become ready in time."""


class CommandFailed(DeployError):
    """A program ended with a status other than 0 (or None: did not end in time)."""

    def __init__(self, argv: Sequence[str], exit_status: int | None, output: str, *, hint: str = "") -> None:
        self.argv = list(argv)
        self.status = exit_status
        self.output = output
        ending = "did not end in time" if exit_status is None else f"ended with exit status {exit_status}"
        last_lines = "\n".join(f"    {line}" for line in output.strip().splitlines()[-15:])
        message = f"a command {ending}; to repeat it:\n  {shlex.join(self.argv)}"
        super().__init__(f"{message}\n{last_lines}" if last_lines else message, hint=hint)
