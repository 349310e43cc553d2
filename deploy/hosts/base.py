"""The seam between what the command line asks of a host and what the host is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from deploy.lab import Host

# "absent": planned in lab.json but not made, or removed behind our back.
HostState = Literal["running", "stopped", "paused", "absent"]


@dataclass(frozen=True, slots=True)
class Result:
    """How a command on a host ended."""

    exit_status: int
    output: str  # both streams, in order


class HostDriver(Protocol):
    """Hosts that exist already. Every method may be called from several threads; HostFailed says what went wrong."""

    def states(self) -> Mapping[str, HostState]:
        """Return the state of every host of the lab: name -> state."""

    def start(self, host: Host) -> None:
        """Start a stopped host; no harm if it runs."""

    def stop(self, host: Host) -> None:
        """Let the host's programs end in order, then stop it; no harm if it is stopped."""

    def kill(self, host: Host) -> None:
        """End every process of the host at once, as a power cut would."""

    def pause(self, host: Host) -> None:
        """Freeze the host: connections stay open, nothing answers."""

    def resume(self, host: Host) -> None:
        """Let a paused host go on."""

    def execute(self, host: Host, argv: Sequence[str]) -> Result:
        """Run ``argv`` on the host as root, without input."""

    def terminal_argv(self, host: Host, argv: Sequence[str], *, tty: bool, stdin: bool) -> list[str]:
        """Return the command for this machine that runs ``argv`` on the host and passes its exit status on."""

    def load_image(self, host: Host, archive: Path) -> None:
        """Give the host's own engine the images of a ``docker save`` archive."""
