"""Faults as experiments use them: each knows how to break one host of a lab, and how to undo it."""

from collections.abc import Callable, Mapping

from deploy import faults
from deploy.experiments.scenario import Striker
from deploy.hosts.base import HostDriver
from deploy.lab import Lab


class Kill:
    """SIGKILL to every process of the host, and a start."""

    def __init__(self, lab: Lab, driver: HostDriver) -> None:
        self._lab, self._driver = lab, driver

    def strike(self, host: str) -> None:
        """Kill the host."""
        self._driver.kill(self._lab.host(host))

    def mend(self, host: str) -> None:
        """Start it again."""
        self._driver.start(self._lab.host(host))


class Pause:
    """The host frozen: connections stay open, nothing answers."""

    def __init__(self, lab: Lab, driver: HostDriver) -> None:
        self._lab, self._driver = lab, driver

    def strike(self, host: str) -> None:
        """Freeze the host."""
        self._driver.pause(self._lab.host(host))

    def mend(self, host: str) -> None:
        """Let it go on."""
        self._driver.resume(self._lab.host(host))


class Partition:
    """The host cut off from all other hosts of the lab, in both directions."""

    def __init__(self, lab: Lab, driver: HostDriver) -> None:
        self._lab, self._driver = lab, driver

    def strike(self, host: str) -> None:
        """Cut the host off."""
        faults.apply_partition(self._lab, self._driver, faults.parse_partition(self._lab, [f"{host} | rest"]))

    def mend(self, host: str) -> None:
        """Heal every partition."""
        del host
        faults.heal(self._lab, self._driver)


STRIKERS: Mapping[str, Callable[[Lab, HostDriver], Striker]] = {"kill": Kill, "pause": Pause, "partition": Partition}
