"""What a node agent's edges raise.

NodeError
├── AddressesExhausted   the node's pod CIDR has no free address left
├── Unsupported          this kernel or host cannot do what is asked; the message says what is missing
├── KernelRefused        netlink answered with an error; the cause stays chained
└── CommandFailed        a program ended with a non-zero status; prints a line one can paste
"""

import shlex
from collections.abc import Sequence


class NodeError(Exception):
    """Root of what the world does to a node agent."""


class AddressesExhausted(NodeError):
    """Every address of the node's pod CIDR is taken."""


class Unsupported(NodeError):
    """A feature that was asked for is not in the kernel or on the host."""


class KernelRefused(NodeError):
    """A netlink request failed."""


class CommandFailed(NodeError):
    """A program of the host ended with a non-zero exit status."""

    def __init__(self, argv: Sequence[str], status: int, output: str) -> None:
        super().__init__(argv, status, output)
        self.argv = tuple(argv)
        self.status = status
        self.output = output

    def __str__(self) -> str:
        return f"`{shlex.join(self.argv)}` ended with status {self.status}: {self.output.strip()[:2000]}"
